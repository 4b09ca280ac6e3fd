//! How messages become transactions and connections towards the next hop, and what the relay adds to them.

use std::process::Command;

use sluice_tests::log::is_queue_id;
use sluice_tests::message::{message, numbered, split_field};
use sluice_tests::process::run_ok;
use sluice_tests::wait::SOON;
use sluice_tests::{Client, Inbox, Relay};

#[test]
fn recipients_with_the_same_next_hop_travel_in_one_transaction() {
    let (internal, external) = (Inbox::start(), Inbox::start());
    let relay = Relay::builder()
        .accepted(&["inside.test", "other.test"])
        .smart_hosts(&["inside.test", "other.test"], &[internal.address()])
        .outward(external.address())
        .start();
    let mut client = Client::hello(relay.inside());
    let inward = ["a@inside.test", "b@other.test", "c@inside.test"];
    let outward = ["x@away.test", "y@far.test"];
    let all: Vec<&str> = inward.iter().chain(&outward).copied().collect();
    client.send_message("bob@inside.test", &all, &message("split", "x\r\n")).expect(250, "2.0.0");
    let (inside, outside) = (internal.wait_for(1, SOON), external.wait_for(1, SOON));
    relay.wait_empty();
    assert_eq!((internal.len(), external.len()), (1, 1), "one DATA for each next hop");
    let sorted = |mut to: Vec<String>| {
        to.sort();
        to
    };
    assert_eq!(sorted(inside[0].to.clone()), inward);
    assert_eq!(sorted(outside[0].to.clone()), outward);
}

#[test]
fn connections_are_reused() {
    let inbox = Inbox::start();
    let relay = Relay::builder().inward(inbox.address()).start();
    let mut client = Client::hello(relay.outside());
    for number in 0..200 {
        client
            .send_message("x@away.test", &["bob@inside.test"], &numbered(number, 1000))
            .expect(250, "2.0.0");
    }
    assert_eq!(inbox.wait_for(200, SOON).len(), 200);
    relay.wait_empty();
    println!("200 messages over {} connections", inbox.sessions());
    assert!(inbox.sessions() <= 20, "{} connections", inbox.sessions());
}

#[test]
fn one_received_field_in_front_tells_the_hop() {
    let inbox = Inbox::start();
    let relay = Relay::builder().inward(inbox.address()).start();
    let mut client = Client::hello(relay.outside());
    client
        .send_message("x@away.test", &["bob@inside.test"], &message("traced", "x\r\n"))
        .expect(250, "2.0.0");
    let got = inbox.wait_for(1, SOON);
    let (field, rest) = split_field(&got[0].content);
    let field = String::from_utf8(field.to_vec()).expect("ASCII");
    assert!(rest.starts_with(b"From: "), "exactly one field was added");
    assert!(field.split("\r\n").all(|line| line.len() <= 78), "RFC 5322 section 2.1.1: {field}");
    let words: Vec<&str> =
        field.split([' ', '\t', '\r', '\n', ';']).filter(|word| !word.is_empty()).collect();
    let after = |word: &str| words[words.iter().position(|&w| w == word).expect(word) + 1];
    // RFC 5321 section 4.4.
    assert_eq!(
        (after("from"), after("by"), after("with")),
        ("client.test", "relay.test", "ESMTP"),
        "{field}"
    );
    assert!(field.contains("[127.0.0.1]"), "{field}");
    assert!(is_queue_id(after("id")), "{field}");
    let date = field.rsplit(';').next().expect("a date").trim().to_owned();
    let script = "import email.utils, sys, time\n\
                  moment = email.utils.parsedate_to_datetime(sys.argv[1])\n\
                  print(abs(moment.timestamp() - time.time()) < 120 and moment.tzinfo is not None)";
    assert_eq!(run_ok(Command::new("python3").args(["-c", script, &date]), SOON).trim(), "True", "{date}");
}
