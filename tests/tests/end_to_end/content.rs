//! Content arrives octet by octet as it was sent, whatever is in it (RFC 5321 sections 2.4 and 4.5.2).

use std::time::Duration;

use sluice_tests::message::{assert_same, message, without_received};
use sluice_tests::wait::SOON;
use sluice_tests::{Client, Inbox, Relay, heavy};

const MIB: u64 = 1 << 20;

/// Sessions that hold a big message open at once: the first pay for what is shared, and of several more
/// the average does not drown in the grain of huge pages.
const FIRST_OPEN: usize = 4;
const MORE_OPEN: usize = 8;

/// What one of them may cost.
const EACH_BYTES_MAX: u64 = MIB;

fn through(relay: &Relay, inbox: &Inbox, content: &[u8]) {
    let before = inbox.len();
    let mut client = Client::hello(relay.outside());
    client.send_message("x@away.test", &["bob@inside.test"], content).expect(250, "2.0.0");
    client.quit();
    let got = inbox.wait_for(before + 1, SOON * 2);
    assert_same(without_received(&got[before].content), content);
}

#[test]
fn content_of_every_shape_arrives_as_sent() {
    let inbox = Inbox::start();
    let relay = Relay::builder().inward(inbox.address()).start();
    let longest = "x".repeat(998);
    let every_octet: Vec<u8> = (1..=255u8).filter(|octet| !matches!(octet, b'\r' | b'\n')).collect();
    let long_lines = format!("{longest}\r\n.{}\r\n", &longest[1..]).into_bytes();
    let all_octets = [every_octet.as_slice(), b"\r\n"].concat();
    let many_lines = b"0123456789abcde\r\n".repeat(10_000);
    let bodies: [&[u8]; 11] = [
        b"",
        b"\r\n",
        b".\r\n",
        b"..\r\n...\r\n.a\r\n",
        b"\r\n\r\n.\r\n\r\n.\r\n\r\n",
        b"no dot.\r\nat all.\r\n",
        "\u{e4}\u{f6}\u{fc} \u{1f4e7}\r\n".as_bytes(),
        b"trailing space \t \r\n \r\n",
        &long_lines,
        &all_octets,
        &many_lines,
    ];
    for body in bodies {
        let mut content = message("shape", "");
        content.extend_from_slice(body);
        through(&relay, &inbox, &content);
    }
    relay.wait_empty();
}

#[test]
fn content_without_header_body_or_anything_arrives() {
    let inbox = Inbox::start();
    let relay = Relay::builder().inward(inbox.address()).start();
    for content in [&b"x\r\n"[..], b"", b"\r\n", b".\r\n", b"no header here\r\n\r\n"] {
        through(&relay, &inbox, content);
    }
}

#[test]
fn content_in_single_octets_and_in_one_piece_with_the_commands_arrives() {
    let inbox = Inbox::start();
    let relay = Relay::builder().inward(inbox.address()).start();
    let content = b"A: b\r\n\r\n.\r\n..\r\nx.\r\n";
    let wire = sluice_tests::message::dot_stuffed(content);
    let mut client = Client::hello(relay.outside());
    client.open_data("x@away.test", &["bob@inside.test"]);
    for octet in &wire {
        client.send(&[*octet]);
    }
    client.reply().expect(250, "2.0.0");

    // RFC 2920 section 3.1: content may not be in the command group, but the next commands may follow it.
    client.open_data("x@away.test", &["bob@inside.test"]);
    let group = [&wire[..], b"MAIL FROM:<y@away.test>\r\nRCPT TO:<eve@inside.test>\r\nDATA\r\n"].concat();
    client.send(&group);
    for code in [250, 250, 250, 354] {
        client.reply().expect(code, "");
    }
    client.send(&wire);
    client.reply().expect(250, "2.0.0");
    client.quit();
    for got in inbox.wait_for(3, SOON) {
        assert_same(without_received(&got.content), content);
    }
}

#[test]
fn fifty_mebibytes_arrive_and_cost_no_memory_while_they_come_in() {
    let _quiet = heavy();
    let inbox = Inbox::start();
    let relay = Relay::builder().inward(inbox.address()).start();
    let line = [b"0123456789".repeat(7), b"ab\r\n".to_vec()].concat();
    let mut content = message("big", "");
    while content.len() < 50 * MIB as usize {
        content.extend_from_slice(&line);
    }

    // What is allocated once is there with the first sessions; each further one shows what one costs.
    let mut clients = hold_open(&relay, &content, FIRST_OPEN);
    let before = relay.resident_bytes();
    clients.extend(hold_open(&relay, &content, MORE_OPEN));
    let each = relay.resident_bytes().saturating_sub(before) / MORE_OPEN as u64;
    println!(
        "{FIRST_OPEN} messages of 50 MiB held open, then {MORE_OPEN} more: resident memory grew by {} KiB for each",
        each >> 10
    );
    assert!(each < EACH_BYTES_MAX, "{each} bytes for each");
    let mut client = clients.swap_remove(0);
    drop(clients);
    client.send(b".\r\n");
    client.set_reply_limit(Duration::from_secs(60));
    client.reply().expect(250, "2.0.0");
    let got = inbox.wait_for(1, SOON * 4);
    assert_same(without_received(&got[0].content), &content);
    relay.wait_empty();
}

/// Sessions that have sent a whole message but its end, all of which the relay has read.
fn hold_open(relay: &Relay, content: &[u8], count: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| Client::hello(relay.outside())).collect();
    for client in &mut clients {
        client.open_data("x@away.test", &["bob@inside.test"]);
        client.send(content);
    }
    // No command can be asked within the content, so the kernel tells when all of it has been read.
    sluice_tests::wait::until_true(SOON * 2, "the socket's queues are drained", || unread_octets(relay) == 0);
    clients
}

/// What lies in the queues of the outside listener's connections, by /proc/net/tcp.
fn unread_octets(relay: &Relay) -> u64 {
    let port = format!(":{:04X}", relay.outside().port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
    table
        .lines()
        .filter(|line| line.contains(&port))
        .filter_map(|line| line.split_whitespace().nth(4)?.split_once(':'))
        .map(|(sending, receiving)| {
            u64::from_str_radix(sending, 16).unwrap_or(0) + u64::from_str_radix(receiving, 16).unwrap_or(0)
        })
        .sum()
}

#[test]
fn a_thousand_recipients_are_taken_and_the_next_one_is_452() {
    let inbox = Inbox::start();
    let relay = Relay::builder().inward(inbox.address()).start();
    let mut client = Client::hello(relay.outside());
    let mut group = b"MAIL FROM:<x@away.test>\r\n".to_vec();
    for number in 0..1001 {
        group.extend_from_slice(format!("RCPT TO:<user{number}@inside.test>\r\n").as_bytes());
    }
    client.send(&group);
    client.reply().expect(250, "2.1.0");
    for _ in 0..1000 {
        client.reply().expect(250, "2.1.5");
    }
    client.reply().expect(452, "4.5.3");
    client.command("DATA").expect(354, "");
    let content = message("many", "to a thousand\r\n");
    client.send(&sluice_tests::message::dot_stuffed(&content));
    client.reply().expect(250, "2.0.0");
    client.quit();
    sluice_tests::wait::until_true(SOON, "1,000 recipients", || inbox.recipients().len() == 1000);
    relay.wait_empty();
    let (mut copies, mut transactions) = (0, 0);
    inbox.for_each(|got| {
        copies += got.to.len();
        transactions += 1;
        assert!(got.to.len() <= 100, "RFC 5321 section 4.5.3.1.8: not more than every server takes");
        assert_same(without_received(&got.content), &content);
    });
    assert_eq!((copies, transactions), (1000, 10));
}
