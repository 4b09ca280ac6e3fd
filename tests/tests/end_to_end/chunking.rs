//! CHUNKING and BINARYMIME (RFC 3030), taken and sent on, and line endings that a listener repairs.

use sluice_tests::message::{assert_same, message, numbered, without_received};
use sluice_tests::wait::SOON;
use sluice_tests::{Answer, Client, Dsn, Inbox, Postfix, Relay, Reply, Step, offer_chunking};

const MIB: usize = 1 << 20;

/// A server that offers CHUNKING.
fn chunking_inbox(binary: bool) -> Inbox {
    Inbox::scripted(move |step| match step {
        Step::Hello(_) => offer_chunking(binary),
        _ => Answer::Accept,
    })
}

/// A transaction by BDAT, in chunks of at most so many octets, all in one group.
fn send_chunks(client: &mut Client, parameters: &str, to: &str, content: &[u8], chunk: usize) -> Reply {
    let mut wire = format!("MAIL FROM:<x@away.test>{parameters}\r\nRCPT TO:<{to}>\r\n").into_bytes();
    let chunks = content.chunks(chunk);
    let count = chunks.len();
    for (number, chunk) in chunks.enumerate() {
        let last = if number + 1 == count { " LAST" } else { "" };
        wire.extend(format!("BDAT {}{last}\r\n", chunk.len()).into_bytes());
        wire.extend_from_slice(chunk);
    }
    client.send(&wire);
    client.reply().expect(250, "2.1.0");
    client.reply().expect(250, "2.1.5");
    for _ in 1..count {
        client.reply().expect(250, "2.0.0");
    }
    client.reply()
}

/// What looks like an end of data, and lines with dots: by BDAT nothing of it means anything.
fn dotted(subject: &str) -> Vec<u8> {
    message(subject, ".\r\n..\r\n.a\r\n\r\n.\r\nQUIT\r\nBDAT 5 LAST\r\n.\r\n")
}

#[test]
fn a_message_by_bdat_arrives_as_the_same_by_data() {
    for inbox in [Inbox::start(), chunking_inbox(false)] {
        let relay = Relay::builder().inward(inbox.address()).start();
        let content = dotted("twice");
        let mut client = Client::hello(relay.outside());
        client.send_message("x@away.test", &["bob@inside.test"], &content).expect(250, "2.0.0");
        for chunk in [content.len(), 100, 7, 1] {
            send_chunks(&mut client, "", "bob@inside.test", &content, chunk).expect(250, "2.0.0");
        }
        client.quit();
        for got in inbox.wait_for(5, SOON) {
            assert_same(without_received(&got.content), &content);
        }
        relay.wait_empty();
    }
}

#[test]
fn messages_of_every_size_are_sent_on_by_bdat_octet_by_octet() {
    let inbox = chunking_inbox(false);
    let mut relay = Relay::builder().inward(inbox.address()).start();
    let mut client = Client::hello(relay.outside());
    // Around what is sent before any reply, around a window of the spool, and large.
    let sizes = [400, 4096, (64 << 10) - 500, 64 << 10, (64 << 10) + 1, 256 << 10, MIB, 10 * MIB];
    for (number, size) in sizes.into_iter().enumerate() {
        let content = numbered(number, size);
        send_chunks(&mut client, " SIZE=1", "bob@inside.test", &content, 100_000).expect(250, "2.0.0");
    }
    let mut got = inbox.wait_for(sizes.len(), SOON * 4);
    got.sort_by_key(|transaction| transaction.content.len());
    for (number, (transaction, size)) in got.iter().zip(sizes).enumerate() {
        assert_same(without_received(&transaction.content), &numbered(number, size));
    }
    relay.wait_empty();
    let commands = inbox.commands();
    assert!(!commands.iter().any(|line| line == "DATA"), "{commands:?}");
    assert_eq!(commands.iter().filter(|line| line.starts_with("BDAT ")).count(), sizes.len());

    // What is read back from the spool goes the same way.
    drop(client);
    inbox.set_script(|step| match step {
        Step::Hello(_) => offer_chunking(false),
        Step::EndOfData(_) => Answer::Say("451 4.3.0 Later".into()),
        _ => Answer::Accept,
    });
    let (large, dots) = (numbered(99, 3 * MIB), dotted("stored"));
    let mut client = Client::hello(relay.outside());
    for content in [&large, &dots] {
        send_chunks(&mut client, "", "bob@inside.test", content, MIB).expect(250, "2.0.0");
    }
    relay.wait_queue(2, SOON);
    relay.stop();
    inbox.set_script(|step| match step {
        Step::Hello(_) => offer_chunking(false),
        _ => Answer::Accept,
    });
    relay.start();
    let mut got = inbox.wait_for(sizes.len() + 2, SOON * 4).split_off(sizes.len());
    got.sort_by_key(|transaction| transaction.content.len());
    assert_same(without_received(&got[0].content), &dots);
    assert_same(without_received(&got[1].content), &large);
}

#[test]
fn a_chunk_whose_recipients_are_refused_leaves_each_in_a_defined_state() {
    let inbox = Inbox::scripted(|step| match step {
        Step::Hello(_) => offer_chunking(false),
        Step::Rcpt(line) if line.contains("nobody") => Answer::Say("550 5.1.1 No such mailbox".into()),
        _ => Answer::Accept,
    });
    let relay = Relay::builder().inward(inbox.address()).outward(inbox.address()).start();
    for size in [1_000, 200_000] {
        let before = inbox.len();
        let content = numbered(1, size);
        let mut client = Client::hello(relay.outside());
        // All refused, some refused, none refused, over one connection of the relay's.
        for to in
            [&["nobody@inside.test"][..], &["nobody@inside.test", "bob@inside.test"], &["bob@inside.test"]]
        {
            client.send_message("x@away.test", to, &content).expect(250, "2.0.0");
        }
        let got = inbox.wait_for(before + 4, SOON).split_off(before);
        let (dsns, mail): (Vec<_>, Vec<_>) = got.iter().partition(|one| one.from.is_empty());
        assert_eq!((dsns.len(), mail.len()), (2, 2));
        for dsn in dsns {
            Dsn::parse(&dsn.content).expect_one("nobody@inside.test", "failed", "5.1.1");
        }
        for one in mail {
            assert_eq!(one.to, ["bob@inside.test"]);
            assert_same(without_received(&one.content), &content);
        }
        relay.wait_empty();
    }
}

/// Postfix counts the commands of a session in its log.
#[test]
fn a_postfix_behind_the_relay_gets_its_mail_by_bdat() {
    if Postfix::is_missing() {
        return;
    }
    let internal = Postfix::start("mail.inside.test", &["bob@inside.test"], None);
    let relay = Relay::builder().inward(internal.address()).start();
    let mut client = Client::hello(relay.outside());
    let contents = [dotted("dots"), numbered(1, 64 << 10), numbered(2, 10 * MIB)];
    for content in &contents {
        send_chunks(&mut client, "", "bob@inside.test", content, 50_000).expect(250, "2.0.0");
    }
    let mut mail = internal.maildir("bob@inside.test").wait_for(3, SOON * 4);
    mail.sort_by_key(Vec::len);
    for (mail, content) in mail.iter().zip(&contents) {
        let sent: Vec<u8> = content.iter().copied().filter(|octet| *octet != b'\r').collect();
        assert!(mail.ends_with(&sent), "a message of {} octets differs", content.len());
    }
    relay.wait_empty();
    let line = internal.wait_log(SOON, &["disconnect from", "bdat="]);
    assert!(!line.contains("data="), "{line}");
}

#[test]
fn with_chunking_off_everything_goes_by_data() {
    let inbox = chunking_inbox(true);
    let relay = Relay::builder().inward(inbox.address()).section("[delivery]\nchunking = false").start();
    let mut client = Client::hello(relay.outside());
    let content = dotted("by-data");
    send_chunks(&mut client, "", "bob@inside.test", &content, 10).expect(250, "2.0.0");
    assert_same(without_received(&inbox.wait_for(1, SOON)[0].content), &content);
    let commands = inbox.commands();
    assert!(
        commands.iter().any(|line| line == "DATA") && !commands.iter().any(|line| line.starts_with("BDAT"))
    );
}

#[test]
fn a_client_that_disappears_within_or_between_chunks_leaves_nothing_behind() {
    let inbox = Inbox::start();
    let mut relay = Relay::builder().inward(inbox.address()).start();
    let chunk = b"0123456789abcde\r\n".repeat(30_000);
    let begin = b"EHLO client.test\r\nMAIL FROM:<x@away.test>\r\nRCPT TO:<bob@inside.test>\r\n";
    let head = format!("BDAT {}\r\n", chunk.len());
    let last = format!("BDAT {} LAST\r\n", chunk.len());
    for rest in [
        &b"BDAT 10\r\n01234"[..],
        b"BDAT 10\r\n0123456789",
        b"BDAT 10\r\n0123456789BDA",
        b"BDAT 10 LAST\r\n012345678",
        &[head.as_bytes(), &chunk, last.as_bytes(), &chunk[1..]].concat(),
    ] {
        let mut client = Client::connect(relay.outside());
        client.send(&[begin, rest].concat());
    }
    let mut client = Client::hello(relay.outside());
    send_chunks(&mut client, "", "bob@inside.test", &message("whole", "x\r\n"), 10).expect(250, "2.0.0");
    inbox.wait_for(1, SOON);
    relay.wait_empty();
    relay.stop();
    assert_eq!(relay.queue(), Vec::<String>::new(), "nor on a spool whose relay is down");
    relay.start();
    relay.wait_empty();
    assert_eq!(inbox.len(), 1, "nothing but the whole message was delivered");
}

/// A message that is larger than room can be reserved for is refused at its chunk, whose octets are no
/// commands.
#[test]
fn a_chunk_over_the_limit_is_passed_over() {
    let inbox = Inbox::start();
    let relay =
        Relay::builder().inward(inbox.address()).section("[limits]\nmessage_bytes_max = \"64KiB\"").start();
    let mut client = Client::hello(relay.outside());
    let commands = b"MAIL FROM:<evil@away.test>\r\nQUIT\r\n".repeat(4_000);
    send_chunks(&mut client, "", "bob@inside.test", &commands, MIB).expect(552, "5.3.4");
    send_chunks(&mut client, "", "bob@inside.test", &message("fits", "x\r\n"), MIB).expect(250, "2.0.0");
    assert_eq!(inbox.wait_for(1, SOON)[0].from, "x@away.test");
    relay.wait_empty();
}

#[test]
fn what_a_listener_repairs_is_sent_on_in_whole_lines() {
    for inbox in [Inbox::start(), chunking_inbox(false)] {
        let relay =
            Relay::builder().inward(inbox.address()).outside_listener("line_endings = \"repair\"").start();
        let wire = b"Subject: mended\r\n\r\none\n.\ntwo\r.\r\nthree\0\n.\r\nMAIL FROM:<evil@away.test>\n";
        let mended =
            b"Subject: mended\r\n\r\none\r\n.\r\ntwo\r\n.\r\nthree\r\n.\r\nMAIL FROM:<evil@away.test>\r\n";
        let mut client = Client::hello(relay.outside());
        client.open_data("x@away.test", &["bob@inside.test"]);
        client.send(&[&wire[..], b"\r\n.\r\n"].concat());
        client.reply().expect(250, "2.0.0");
        send_chunks(&mut client, "", "bob@inside.test", wire, 5).expect(250, "2.0.0");
        let got = inbox.wait_for(2, SOON);
        let by_data = [&mended[..], b"\r\n"].concat();
        for (got, mended) in got.iter().zip([&by_data[..], mended]) {
            assert_same(without_received(&got.content), mended);
        }
        relay.log().wait_for(SOON, &["repaired=bare CR+bare LF+NUL"]);
        // The inside listener is as strict as ever.
        let mut client = Client::hello(relay.inside());
        client.open_data("x@away.test", &["bob@inside.test"]);
        client.send(b"x\n\r\n.\r\n");
        client.reply().expect(550, "5.5.2");
        relay.wait_empty();
    }
}

#[test]
fn binary_mail_is_sent_on_as_it_is_or_returned() {
    let content = [&message("binary", "")[..], b"\0\x01\n\r.\n\xff\r\n.\r\nno end"].concat();
    let (takes, refuses) = (chunking_inbox(true), chunking_inbox(false));
    let relay = Relay::builder()
        .accepted(&["inside.test", "other.test"])
        .smart_hosts(&["inside.test"], &[takes.address()])
        .smart_hosts(&["other.test", "away.test"], &[refuses.address()])
        .outside_listener("binarymime = true")
        .start();
    let mut client = Client::hello(relay.outside());
    let binary = " BODY=BINARYMIME";
    send_chunks(&mut client, binary, "bob@inside.test", &content, 9).expect(250, "2.0.0");
    let got = &takes.wait_for(1, SOON)[0];
    assert_same(without_received(&got.content), &content);
    assert!(got.parameters.contains("BODY=BINARYMIME"), "{}", got.parameters);
    send_chunks(&mut client, binary, "eve@other.test", &content, 9).expect(250, "2.0.0");
    let dsn = Dsn::parse(&refuses.wait_for(1, SOON)[0].content);
    dsn.expect_one("eve@other.test", "failed", "5.6.1");
    assert!(dsn.text().contains("base64"), "{}", dsn.text());
    relay.wait_empty();
    // Where it is not announced it is not taken.
    let mut client = Client::hello(relay.inside());
    client.command("MAIL FROM:<x@away.test> BODY=BINARYMIME").expect(501, "5.5.4");
}
