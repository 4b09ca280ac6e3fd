//! The commands around the relay: `sluice check`, `sluice queue list` and `sluice queue show`.

use std::fs;

use sluice_tests::message::message;
use sluice_tests::wait::SOON;
use sluice_tests::{Answer, Client, Inbox, Port, Relay};

#[test]
fn check_prints_the_mail_flow_matrix_of_a_good_file() {
    let relay = Relay::builder()
        .inward("10.1.0.10:25".parse().unwrap())
        .outward("10.1.0.11:25".parse().unwrap())
        .prepare();
    let text = relay.sluice_ok(&["check"]);
    println!("{text}");
    for part in ["outside", "inside", "inside.test", "127.0.0.0/8"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!relay.spool().exists(), "a check changes nothing");
}

#[test]
fn a_queue_is_shown_live_and_when_the_relay_is_down() {
    let port = Port::reserve();
    let mut relay = Relay::builder().outward(port.address()).start();
    assert_eq!(relay.queue(), Vec::<String>::new());
    let mut client = Client::hello(relay.inside());
    let mut sent = Vec::new();
    for number in 0..3 {
        let to = [format!("x{number}@away.test"), format!("y{number}@far.test")];
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        let reply = client.send_message(&format!("bob{number}@inside.test"), &to, &message("shown", "x\r\n"));
        sent.extend(sluice_tests::log::queue_ids(&reply.expect(250, "2.0.0").text()));
    }
    client.quit();
    assert_eq!(sent.len(), 3, "the reply to end-of-data names the queue id");
    relay.log().wait_for(SOON, &["to=<x2@away.test>", "status=deferred"]);

    let expect = |relay: &Relay| {
        let (mut listed, mut expected) = (relay.queue(), sent.clone());
        listed.sort();
        expected.sort();
        assert_eq!(listed, expected);
        let list = relay.sluice_ok(&["queue", "list"]);
        assert!(list.contains("bob1@inside.test"), "{list}");
        let shown = relay.sluice_ok(&["queue", "show", &sent[1]]);
        for part in [sent[1].as_str(), "bob1@inside.test", "x1@away.test", "y1@far.test"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        for unknown in ["0000000000000", "no-id"] {
            let output = relay.sluice(&["queue", "show", unknown]);
            assert!(!output.status.success(), "{output:?}");
        }
    };
    expect(&relay);
    relay.stop();
    let before = files(&relay);
    expect(&relay);
    assert_eq!(files(&relay), before, "looking at a spool changes nothing");

    relay.start();
    let inbox = Inbox::bind(port.address(), |_| Answer::Accept);
    inbox.wait_for(3, SOON);
    relay.wait_empty();
}

/// Names and sizes of all files of the spool.
fn files(relay: &Relay) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut directories = vec![relay.spool()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                directories.push(entry.path());
            } else {
                found.push((entry.path().display().to_string(), meta.len()));
            }
        }
    }
    found.sort();
    found
}
