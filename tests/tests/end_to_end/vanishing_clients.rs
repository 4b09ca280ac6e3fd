//! A client may disappear at every point of the dialogue; nothing of it is left in the spool.

use sluice_tests::message::message;
use sluice_tests::wait::{SOON, until_true};
use sluice_tests::{Client, Inbox, Relay};

#[test]
fn a_client_that_disappears_at_any_point_leaves_nothing_behind() {
    let inbox = Inbox::start();
    let relay = Relay::builder().inward(inbox.address()).start();
    let content = message("cut", &"0123456789\r\n".repeat(20));
    let dialogue = [
        b"EHLO client.test\r\nMAIL FROM:<x@away.test>\r\nRCPT TO:<bob@inside.test>\r\nDATA\r\n".as_slice(),
        &content,
        b".\r",
    ]
    .concat();
    let mut cuts = 0;
    for end in 0..=dialogue.len() {
        let mut client = if end % 3 == 0 {
            Client::connect(relay.outside())
        } else {
            Client::open(relay.outside()).unwrap()
        };
        client.send(&dialogue[..end]);
        if end % 2 == 0 {
            client.half_close();
        }
        drop(client);
        cuts += 1;
    }
    println!("{cuts} clients disappeared at as many points");

    let mut client = Client::hello(relay.outside());
    client.send_message("x@away.test", &["bob@inside.test"], &message("whole", "x\r\n")).expect(250, "2.0.0");
    client.quit();
    assert_eq!(inbox.wait_for(1, SOON).len(), 1);
    relay.wait_empty();
    assert_eq!(inbox.len(), 1, "nothing but the whole message was delivered");
}

#[test]
fn a_client_that_disappears_within_a_big_message_leaves_nothing_behind() {
    let inbox = Inbox::start();
    let mut relay = Relay::builder().inward(inbox.address()).start();
    let piece = b"0123456789abcde\r\n".repeat(60_000);
    for round in 0..4 {
        let mut client = Client::hello(relay.outside());
        client.open_data("x@away.test", &["bob@inside.test"]);
        for _ in 0..=round * 4 {
            client.send(&piece);
        }
    }
    relay.wait_empty();
    relay.stop();
    assert_eq!(relay.queue(), Vec::<String>::new(), "nor on a spool whose relay is down");
    relay.start();
    relay.wait_empty();
    assert_eq!(inbox.len(), 0);
}

#[test]
fn a_client_that_says_nothing_is_told_421_and_closed() {
    let inbox = Inbox::start();
    let relay = Relay::builder()
        .inward(inbox.address())
        .section("[timeouts]\ncommand = \"1s\"\ncontent = \"1s\"")
        .start();
    let mut idle = Client::hello(relay.outside());
    let mut within = Client::hello(relay.outside());
    within.open_data("x@away.test", &["bob@inside.test"]);
    within.send(b"Subject: half");
    idle.reply().expect(421, "4.4.2");
    idle.expect_closed();
    within.reply().expect(421, "4.4.2");
    within.expect_closed();
    relay.wait_empty();
}

#[test]
fn a_session_full_of_errors_ends_with_421() {
    let inbox = Inbox::start();
    let relay = Relay::builder().inward(inbox.address()).section("[limits]\nerrors_max = 5").start();
    let mut client = Client::hello(relay.outside());
    let mut errors = 0;
    until_true(SOON, "421", || {
        errors += 1;
        let reply = client.command("FLY");
        assert!(errors <= 6, "{}", reply.text());
        reply.code == 421
    });
    client.expect_closed();
}
