//! `sluice queue verify`: a spool that the disk has damaged is told from a sound one, the message concerned
//! is named, and a relay started on it sets that one aside and delivers the rest.

use std::fs;
use std::os::unix::fs::FileExt;

use sluice_tests::message::message;
use sluice_tests::wait::SOON;
use sluice_tests::{Answer, Client, Inbox, Port, Relay};

const CLEAN: Option<i32> = Some(0);
/// sysexits.h
const EX_DATAERR: Option<i32> = Some(65);

#[test]
fn a_damaged_message_is_named_and_set_aside_and_the_others_are_delivered() {
    let down = Port::reserve();
    let mut relay = Relay::builder().inward(down.address()).retry("1s", "2s", "5d").start();
    let mut client = Client::hello(relay.outside());
    let mut sent = Vec::new();
    for number in 0..5 {
        let body = format!("body of number {number}\r\n").repeat(200);
        let reply = client.send_message("x@away.test", &["bob@inside.test"], &message("kept", &body));
        sent.extend(sluice_tests::log::queue_ids(&reply.expect(250, "2.0.0").text()));
    }
    client.quit();
    assert_eq!(sent.len(), 5);
    let live = relay.sluice(&["queue", "verify"]);
    assert_eq!(live.status.code(), CLEAN, "{live:?}");
    relay.stop();
    let sound = relay.sluice(&["queue", "verify"]);
    assert_eq!(sound.status.code(), CLEAN, "{sound:?}");
    let text = String::from_utf8(sound.stdout).unwrap();
    assert!(text.contains("5 messages wait and are whole") && text.contains("clean"), "{text}");

    damage(&relay, b"body of number 2");
    assert_listed(&relay, &sent);
    let verified = |relay: &Relay, arguments: &[&str]| {
        let output = relay.sluice(arguments);
        assert_eq!(output.status.code(), EX_DATAERR, "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = verified(&relay, &["queue", "verify"]);
    for part in [sent[2].as_str(), ".seg, segment ", "offset ", "not delivered", "4 messages", "1 damaged"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains(&sent[1]), "only the damaged one is named: {text}");
    let json = verified(&relay, &["queue", "verify", "--json"]);
    for part in ["\"flaw\":\"extent\"", "\"means\":\"damaged\"", "\"type\":\"summary\"", "\"clean\":false"] {
        assert!(json.contains(part), "{part}: {json}");
    }

    let back = Inbox::bind(down.address(), |_| Answer::Accept);
    relay.start();
    let got = back.wait_for(4, SOON);
    let arrived = |number: usize| {
        let body = format!("body of number {number}");
        got.iter().any(|of| String::from_utf8_lossy(&of.content).contains(&body))
    };
    assert_eq!([0, 1, 2, 3, 4].map(arrived), [true, true, false, true, true]);
    relay.log().wait_for(SOON, &["error: spool", &format!("octets of message {}", sent[2])]);
    relay.wait_queue(1, SOON);
    assert_listed(&relay, &sent[2..3]);
    let text = verified(&relay, &["queue", "verify"]);
    assert!(text.contains(&sent[2]), "a live relay's spool too: {text}");
    relay.stop();
    assert!(verified(&relay, &["queue", "verify"]).contains(&sent[2]), "it is kept");
}

/// All of them are listed, and of those the one whose body is damaged as damaged.
fn assert_listed(relay: &Relay, ids: &[String]) {
    let printed = relay.sluice_ok(&["queue", "list", "--json"]);
    let items: Vec<serde_json::Value> =
        printed.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect();
    let listed: Vec<_> = items.iter().map(|item| item["id"].as_str().unwrap()).collect();
    assert_eq!(listed, ids);
    let of_damage = |item: &&serde_json::Value| item["damaged"] == true;
    let damaged: Vec<_> = items.iter().filter(of_damage).collect();
    assert_eq!(damaged.len(), 1, "{printed}");
    assert_eq!(damaged[0]["recipients"][0]["status"], "damaged");
    let text = relay.sluice_ok(&["queue", "list", "--state", "damaged"]);
    assert!(text.contains("<bob@inside.test> damaged") && text.contains("-- 1 message,"), "{text}");
    let summary = relay.sluice_ok(&["queue", "summary"]);
    assert!(summary.contains("messages set aside as damaged: 1"), "{summary}");
}

/// Changes one octet of what `body` says, in the one segment file that holds it.
fn damage(relay: &Relay, body: &[u8]) {
    for shard in fs::read_dir(relay.spool()).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        for file in fs::read_dir(shard.path()).unwrap().flatten() {
            let octets = fs::read(file.path()).unwrap();
            let Some(at) = octets.windows(body.len()).position(|window| window == body) else { continue };
            let file = fs::OpenOptions::new().write(true).open(file.path()).unwrap();
            file.write_all_at(&[octets[at] ^ 1], at as u64).unwrap();
            return;
        }
    }
    panic!("the body is in no segment file");
}
