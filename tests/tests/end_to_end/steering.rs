//! An administrator steers the queue of a live relay: every change says how much it has changed, survives a
//! restart, and is in the log with who asked for it (S40, S42, S44).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_tests::message::{assert_same, message, number_of, numbered, without_received};
use sluice_tests::wait::{SOON, until_true};
use sluice_tests::{Answer, Client, Dsn, Inbox, Port, Relay, RelayBuilder, Step};

fn send(relay: &Relay, from: &str, to: &[&str]) -> Vec<u8> {
    let content = message("steered", "x\r\n");
    let mut client = Client::hello(relay.inside());
    client.send_message(from, to, &content).expect(250, "2.0.0");
    client.quit();
    content
}

/// No message is tried again by itself while a test looks.
fn patient() -> RelayBuilder {
    Relay::builder().retry("1h", "1h", "5d")
}

#[track_caller]
fn change(relay: &Relay, arguments: &[&str]) -> Value {
    let printed = relay.sluice_ok(&[&["queue"], arguments, &["--json"]].concat());
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

#[track_caller]
fn assert_counts(
    answer: &Value,
    matched: [u64; 2],
    changed: [u64; 2],
    unchanged: [u64; 2],
    under_way: [u64; 2],
) {
    let count = |[messages, recipients]: [u64; 2]| json!({"messages": messages, "recipients": recipients});
    for (name, expected) in
        [("matched", matched), ("changed", changed), ("unchanged", unchanged), ("under_way", under_way)]
    {
        assert_eq!(answer[name], count(expected), "{name} of {answer:#}");
    }
}

fn listed(relay: &Relay, arguments: &[&str]) -> Vec<Value> {
    let printed = relay.sluice_ok(&[&["queue", "list", "--json"], arguments].concat());
    printed.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect()
}

/// Waits until all recipients in the queue are `deferred`, by which the relay knows that their hop is down.
fn wait_deferred(relay: &Relay, messages: usize) {
    until_true(SOON, "all deferred", || listed(relay, &["--state", "deferred"]).len() == messages);
}

#[test]
fn mail_held_by_domain_stays_held_over_a_restart_and_goes_when_released() {
    let port = Port::reserve();
    let mut relay = patient().outward(port.address()).start();
    for to in ["a@held.test", "b@Held.Test", "c@free.test"] {
        send(&relay, "bob@inside.test", &[to]);
    }
    wait_deferred(&relay, 3);
    let dry = change(&relay, &["hold", "--domain", "held.test", "--dry-run"]);
    assert_counts(&dry, [2, 2], [2, 2], [0, 0], [0, 0]);
    assert_eq!(listed(&relay, &["--state", "held"]).len(), 0, "a dry run changes nothing");
    let held = change(&relay, &["hold", "--domain", "held.test"]);
    assert_counts(&held, [2, 2], [2, 2], [0, 0], [0, 0]);
    let again = change(&relay, &["hold", "--domain", "*.test"]);
    assert_counts(&again, [3, 3], [1, 1], [2, 2], [0, 0]);
    let released = change(&relay, &["release", "--domain", "free.test"]);
    assert_counts(&released, [1, 1], [1, 1], [0, 0], [0, 0]);
    relay.log().wait_for(SOON, &["to=<a@held.test>", "status=held", "by uid "]);
    relay.log().wait_for(SOON, &["queue: hold by uid ", "held.test", "2 messages (2 recipients) changed"]);

    relay.kill();
    let external = Inbox::bind(port.address(), |_| Answer::Accept);
    relay.start();
    assert_eq!(external.wait_for(1, SOON)[0].to, ["c@free.test"]);
    relay.wait_queue(2, SOON);
    assert_eq!(listed(&relay, &["--state", "held"]).len(), 2);
    let released = change(&relay, &["release", "--all"]);
    assert_counts(&released, [2, 2], [2, 2], [0, 0], [0, 0]);
    external.wait_for(3, SOON);
    relay.wait_empty();
    assert_eq!(external.len(), 3, "each once");
}

#[test]
fn of_a_message_to_two_domains_only_the_recipients_meant_are_held() {
    let port = Port::reserve();
    let relay = patient().outward(port.address()).start();
    let content = send(&relay, "bob@inside.test", &["a@held.test", "b@free.test", "c@held.test"]);
    wait_deferred(&relay, 1);
    let held = change(&relay, &["hold", "--domain", "held.test"]);
    assert_counts(&held, [1, 2], [1, 2], [0, 0], [0, 0]);
    let external = Inbox::bind(port.address(), |_| Answer::Accept);
    assert_eq!(external.wait_for(1, SOON)[0].to, ["b@free.test"]);
    until_true(SOON, "one is sent", || {
        let states = |item: &Value| {
            item["recipients"].as_array().unwrap().iter().map(|r| r["status"].clone()).collect()
        };
        let states: Vec<Value> = states(&listed(&relay, &[])[0]);
        states == [json!("held"), json!("sent"), json!("held")]
    });
    let released = change(&relay, &["release", "--recipient", "a@*"]);
    assert_counts(&released, [1, 1], [1, 1], [0, 0], [0, 0]);
    assert_eq!(external.wait_for(2, SOON)[1].to, ["a@held.test"]);
    let released = change(&relay, &["release", "--all"]);
    assert_counts(&released, [1, 1], [1, 1], [0, 0], [0, 0]);
    let got = external.wait_for(3, SOON);
    assert_eq!(got[2].to, ["c@held.test"]);
    assert_same(without_received(&got[2].content), &content);
    relay.wait_empty();
}

#[test]
fn a_deferred_message_goes_at_once_when_it_is_retried() {
    let greylisted = AtomicBool::new(true);
    let external = Inbox::scripted(move |step| match step {
        Step::Rcpt(_) if greylisted.swap(false, Ordering::SeqCst) => {
            Answer::Say("451 4.7.1 Greylisted".into())
        }
        _ => Answer::Accept,
    });
    let relay = patient().outward(external.address()).start();
    send(&relay, "bob@inside.test", &["x@away.test"]);
    wait_deferred(&relay, 1);
    assert_counts(&change(&relay, &["retry", "--reason", "no such"]), [0, 0], [0, 0], [0, 0], [0, 0]);
    let retried = change(&relay, &["retry", "--reason", "greylist"]);
    assert_counts(&retried, [1, 1], [1, 1], [0, 0], [0, 0]);
    external.wait_for(1, SOON);
    relay.wait_empty();
}

#[test]
fn a_next_hop_that_is_down_is_looked_at_now_when_its_mail_is_retried() {
    let port = Port::reserve();
    let relay = patient().outward(port.address()).start();
    send(&relay, "bob@inside.test", &["x@away.test"]);
    wait_deferred(&relay, 1);
    let tried = || relay.sluice_ok(&["queue", "summary", "--json"]);
    let summary: Value = serde_json::from_str(&tried()).unwrap();
    assert_eq!(summary["next_hops"][0]["next_hop"], json!(port.address().to_string()), "{summary:#}");
    assert!(
        summary["next_hops"][0]["down"]["reason"].as_str().is_some_and(|why| !why.is_empty()),
        "{summary:#}"
    );
    let external = Inbox::bind(port.address(), |_| Answer::Accept);
    let retried = change(&relay, &["retry", "--all"]);
    // The usual probe may have been quicker.
    assert!(retried["matched"]["messages"].as_u64().unwrap_or(9) <= 1, "{retried:#}");
    external.wait_for(1, SOON);
    relay.wait_empty();
}

#[test]
fn rerouted_mail_arrives_elsewhere_also_after_a_restart() {
    let (port, other) = (Port::reserve(), Inbox::start());
    let mut relay = patient().outward(port.address()).start();
    let elsewhere = other.address().to_string();
    for to in ["a@one.test", "b@two.test", "c@three.test"] {
        send(&relay, "bob@inside.test", &[to]);
    }
    wait_deferred(&relay, 3);
    let rerouted = change(&relay, &["reroute", "--to", &elsewhere, "--domain", "one.test"]);
    assert_counts(&rerouted, [1, 1], [1, 1], [0, 0], [0, 0]);
    assert_eq!(other.wait_for(1, SOON)[0].to, ["a@one.test"]);
    relay.log().wait_for(SOON, &["to=<a@one.test>", "status=rerouted", &elsewhere]);
    assert_eq!(change(&relay, &["hold", "--all"])["changed"]["messages"], 2);
    let rerouted = change(&relay, &["reroute", "--to", &elsewhere, "--all"]);
    assert_counts(&rerouted, [2, 2], [2, 2], [0, 0], [0, 0]);
    let back = change(&relay, &["reroute", "--to", "route", "--domain", "three.test"]);
    assert_counts(&back, [1, 1], [1, 1], [0, 0], [0, 0]);
    relay.kill();
    relay.start();
    let items = listed(&relay, &["--next-hop", "127.0.0.1"]);
    let hops: Vec<&Value> = items.iter().map(|item| &item["recipients"][0]["next_hop"]).collect();
    assert_eq!(hops, [&json!(elsewhere), &json!(port.address().to_string())]);
    change(&relay, &["release", "--all"]);
    assert_eq!(other.wait_for(2, SOON)[1].to, ["b@two.test"]);
    let external = Inbox::bind(port.address(), |_| Answer::Accept);
    assert_eq!(external.wait_for(1, SOON)[0].to, ["c@three.test"]);
    relay.wait_empty();
    let refused = relay.sluice(&["queue", "reroute", "--to", "mx:away.test", "--all"]);
    assert!(!refused.status.success(), "without an MX route there is no resolver");
}

#[test]
fn bounced_mail_comes_back_to_its_sender_and_a_null_sender_gets_nothing() {
    let (port, internal) = (Port::reserve(), Inbox::start());
    let relay = patient().inward(internal.address()).outward(port.address()).start();
    send(&relay, "bob@inside.test", &["x@away.test"]);
    send(&relay, "", &["y@away.test"]);
    wait_deferred(&relay, 2);
    let bounced = change(&relay, &["bounce", "--domain", "away.test", "--text", "the firm has closed"]);
    assert_counts(&bounced, [2, 2], [2, 2], [0, 0], [0, 0]);
    let got = internal.wait_for(1, SOON);
    assert_eq!(got[0].to, ["bob@inside.test"]);
    let dsn = Dsn::parse_valid(&got[0].content);
    dsn.expect_one("x@away.test", "failed", "5.7.1");
    assert!(dsn.text().contains("administrator"), "{}", dsn.text());
    assert!(dsn.text().contains("the firm has closed"), "{}", dsn.text());
    relay.wait_empty();
    for to in ["to=<x@away.test>", "to=<y@away.test>"] {
        relay.log().wait_for(SOON, &[to, "status=bounced", "by uid "]);
    }
    assert_eq!(internal.len(), 1);
}

#[test]
fn deleted_mail_is_gone_after_a_restart_too_and_nobody_is_told() {
    let (port, internal) = (Port::reserve(), Inbox::start());
    let mut relay = patient().inward(internal.address()).outward(port.address()).start();
    send(&relay, "bob@inside.test", &["x@away.test", "y@away.test"]);
    send(&relay, "ann@inside.test", &["z@away.test"]);
    wait_deferred(&relay, 2);
    let ids = relay.queue();
    let deleted = change(&relay, &["delete", &ids[0]]);
    assert_counts(&deleted, [1, 2], [1, 2], [0, 0], [0, 0]);
    for to in ["to=<x@away.test>", "to=<y@away.test>"] {
        relay.log().wait_for(SOON, &[&ids[0], to, "from=<bob@inside.test>", "status=deleted", "by uid "]);
    }
    relay.kill();
    relay.start();
    assert_eq!(relay.queue(), ids[1..]);
    let unknown = relay.sluice(&["queue", "delete", &ids[0], &ids[1], "--json"]);
    assert_eq!(unknown.status.code(), Some(66), "{unknown:?}");
    let answer: Value = serde_json::from_slice(&unknown.stdout).expect("JSON");
    assert_counts(&answer, [1, 1], [1, 1], [0, 0], [0, 0]);
    assert_eq!(answer["unknown"], json!([ids[0]]));
    relay.wait_empty();
    let external = Inbox::bind(port.address(), |_| Answer::Accept);
    send(&relay, "bob@inside.test", &["last@away.test"]);
    assert_eq!(external.wait_for(1, SOON)[0].to, ["last@away.test"]);
    assert_eq!((external.len(), internal.len()), (1, 0));
}

/// A server that waits at end-of-data until the test says what it answers.
fn slow() -> (Inbox, mpsc::Sender<Answer>) {
    let (say, said) = mpsc::channel();
    let said = Mutex::new(said);
    let inbox = Inbox::scripted(move |step| match step {
        Step::EndOfData(_) => said.lock().unwrap().recv().unwrap_or(Answer::Close),
        _ => Answer::Accept,
    });
    (inbox, say)
}

#[test]
fn a_change_of_mail_under_way_applies_when_it_is_not_delivered() {
    let later = || Answer::Say("451 4.3.0 Not now".into());
    let (elsewhere, internal) = (Inbox::start(), Inbox::start());
    let to = elsewhere.address().to_string();
    let table: [(&[&str], bool, &str); 7] = [
        (&["delete"], false, "gone"),
        (&["delete"], true, "gone"),
        (&["bounce"], false, "returned"),
        (&["hold"], false, "held"),
        (&["hold"], true, "gone"),
        (&["reroute", "--to", &to], false, "elsewhere"),
        (&["retry"], false, "deferred"),
    ];
    for (n, (arguments, is_delivered, end)) in table.into_iter().enumerate() {
        let (external, say) = slow();
        let mut relay = patient().inward(internal.address()).outward(external.address()).start();
        let recipient = format!("case{n}@away.test");
        let (returned, moved) = (internal.len(), elsewhere.len());
        send(&relay, "bob@inside.test", &[&recipient]);
        external.wait_command("DATA", SOON);
        let answer = change(&relay, &[arguments, &["--recipient", &recipient]].concat());
        assert_counts(&answer, [1, 1], [0, 0], [0, 0], [1, 1]);
        let ends = ["delete", "bounce", "hold"].contains(&arguments[0]);
        assert_eq!(listed(&relay, &["--state", "held"]).len(), ends as usize, "a crash now forgets no order");
        say.send(if is_delivered { Answer::Accept } else { later() }).unwrap();
        match end {
            "held" | "deferred" => {
                relay.log().wait_for(SOON, &[&recipient, "status=deferred"]);
                until_true(SOON, end, || listed(&relay, &["--state", end]).len() == 1);
            }
            _ => relay.wait_empty(),
        }
        if end == "held" {
            say.send(Answer::Accept).unwrap();
            assert_eq!(change(&relay, &["release", "--all"])["changed"]["messages"], 1);
            relay.wait_empty();
        }
        let is_sent = is_delivered || end == "held";
        assert_eq!(external.len(), is_sent as usize, "{arguments:?}");
        assert_eq!(internal.len() - returned, (end == "returned") as usize, "{arguments:?}");
        assert_eq!(elsewhere.len() - moved, (end == "elsewhere") as usize, "{arguments:?}");
        let log = relay.stop();
        for (status, expected) in [
            ("status=deleted", arguments[0] == "delete" && !is_delivered),
            ("status=bounced", arguments[0] == "bounce"),
            ("status=sent", is_sent || end == "elsewhere"),
        ] {
            assert_eq!(log.matching(&[&recipient, status]).len(), expected as usize, "{}", log.tail());
        }
    }
}

#[test]
fn mail_held_and_released_while_it_is_under_way_is_not_sent_twice() {
    let (external, say) = slow();
    let mut relay = patient().outward(external.address()).start();
    send(&relay, "bob@inside.test", &["x@away.test"]);
    external.wait_command("DATA", SOON);
    assert_counts(&change(&relay, &["hold", "--all"]), [1, 1], [0, 0], [0, 0], [1, 1]);
    assert_counts(&change(&relay, &["release", "--all"]), [1, 1], [1, 1], [0, 0], [0, 0]);
    assert_counts(&change(&relay, &["hold", "--all"]), [1, 1], [0, 0], [0, 0], [1, 1]);
    assert_counts(&change(&relay, &["release", "--all"]), [1, 1], [1, 1], [0, 0], [0, 0]);
    say.send(Answer::Say("451 4.3.0 Not now".into())).unwrap();
    say.send(Answer::Accept).unwrap();
    external.wait_for(1, SOON);
    relay.wait_empty();
    assert_eq!(relay.stop().matching(&["status=sent"]).len(), 1);
    assert_eq!(external.len(), 1);
}

#[test]
fn the_summary_counts_by_next_hop_and_by_domain_and_age() {
    let port = Port::reserve();
    let mut relay = patient().outward(port.address()).start();
    for (from, to) in [
        ("a@x.test", vec!["1@big.test", "2@BIG.test"]),
        ("b@x.test", vec!["3@big.test"]),
        ("", vec!["4@small.test"]),
    ] {
        send(&relay, from, &to);
    }
    wait_deferred(&relay, 3);
    change(&relay, &["hold", "--domain", "small.test"]);
    for is_running in [true, false] {
        if !is_running {
            relay.stop();
        }
        let summary: Value = serde_json::from_str(&relay.sluice_ok(&["queue", "summary", "--json"])).unwrap();
        for (field, expected) in [
            ("messages", 3),
            ("recipients", 4),
            ("deferred", 3),
            ("held", 1),
            ("queued", 0),
            ("messages_held", 1),
        ] {
            assert_eq!(summary[field], json!(expected), "{field} in {summary:#}");
        }
        let hop = &summary["next_hops"][0];
        assert_eq!((&hop["next_hop"], &hop["recipients"]), (&json!(port.address().to_string()), &json!(4)));
        assert_eq!(hop.get("down").is_some(), is_running, "{hop:#}");
        let domains: Vec<_> = summary["domains"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| (&row["domain"], &row["total"]))
            .collect();
        assert_eq!(domains, [(&json!("big.test"), &json!(3)), (&json!("small.test"), &json!(1))]);
        let table = relay.sluice_ok(&["queue", "summary", "--senders"]);
        let row = |name: &str| -> Vec<String> {
            let found = table.lines().find(|line| line.trim_start().starts_with(name));
            found
                .unwrap_or_else(|| panic!("no {name} in\n{table}"))
                .split_whitespace()
                .map(str::to_owned)
                .collect()
        };
        let zeros = ["0"; 9];
        assert_eq!(row("TOTAL"), [&["TOTAL", "3", "3"][..], &zeros].concat());
        assert_eq!(row("x.test"), [&["x.test", "2", "2"][..], &zeros].concat());
        assert_eq!(row("<>"), [&["<>", "1", "1"][..], &zeros].concat());
        let list = relay.sluice_ok(&["queue", "list", "--state", "held"]);
        assert!(list.contains("4@small.test") && list.contains("-- 1 message,"), "{list}");
    }
    let refused = relay.sluice(&["queue", "release", "--all"]);
    assert_eq!(refused.status.code(), Some(69), "{refused:?}");
}

#[test]
fn a_change_must_say_what_it_means_and_comes_by_the_socket_only() {
    let port = Port::reserve();
    let admin = Port::reserve();
    let relay = patient().outward(port.address()).start();
    for arguments in [
        &["hold"][..],
        &["hold", "--all", "--domain", "x.test"],
        &["hold", "--older-than", "5"],
        &["hold", "--state", "sent"],
        &["hold", "no-queue-id"],
        &["reroute", "--to", "what is this", "--all"],
    ] {
        let output = relay.sluice(&[&["queue"], arguments].concat());
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {output:?}");
    }
    drop(relay);
    let mut relay = patient().outward(port.address()).prepare();
    relay.edit_config("bind = \"\"", &format!("bind = \"{}\"", admin.address()));
    relay.start();
    let body = r#"{"action": "delete", "all": true}"#;
    let mut stream = TcpStream::connect(admin.address()).expect("the admin address");
    write!(
        stream,
        "POST /v1/queue/change HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("a request");
    let mut answer = String::new();
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

/// Numbered messages over some connections, so that each ingest shard gets some.
fn fill(relay: &Relay, messages: usize) {
    std::thread::scope(|scope| {
        for worker in 0..10 {
            scope.spawn(move || {
                for number in (worker..messages).step_by(10) {
                    let mut client = Client::hello(relay.outside());
                    let content = numbered(number, 2000);
                    client.send_message("x@away.test", &["bob@inside.test"], &content).expect(250, "2.0.0");
                    client.quit();
                }
            });
        }
    });
}

#[track_caller]
fn assert_each_once(inbox: &Inbox, messages: usize) {
    let mut copies = vec![0; messages];
    inbox.for_each(|got| copies[number_of(without_received(&got.content)).expect("unspoilt")] += 1);
    assert!(copies.iter().all(|&copies| copies == 1), "{copies:?}");
}

#[test]
fn mail_steered_while_its_spool_is_emptied_into_another_keeps_the_change_and_goes_once() {
    const MESSAGES: usize = 600;
    let (port, elsewhere) = (Port::reserve(), Inbox::start());
    let mut relay = patient().inward(port.address()).cpus("0,1", "0,1").start();
    fill(&relay, MESSAGES);
    relay.kill();
    relay.start_with(&["--ingest-cpus", "0", "--delivery-cpus", "1"]);
    // From the first moment on, while messages move.
    let all = [MESSAGES as u64; 2];
    let mut changed = 0;
    for round in 0..6 {
        let held = change(&relay, &["hold", "--all"]);
        assert_eq!(held["matched"]["messages"], MESSAGES, "round {round}: {held:#}");
        let released = change(&relay, &["release", "--all"]);
        assert_counts(&released, all, all, [0, 0], [0, 0]);
        changed += released["changed"]["messages"].as_u64().unwrap();
        change(&relay, &["retry", "--all"]);
    }
    assert_eq!(changed, 6 * MESSAGES as u64);
    let to = elsewhere.address().to_string();
    let rerouted = change(&relay, &["reroute", "--to", &to, "--all"]);
    assert_eq!(rerouted["matched"], json!({"messages": MESSAGES, "recipients": MESSAGES}));
    elsewhere.wait_for(MESSAGES, SOON * 2);
    relay.wait_empty();
    relay.stop();
    assert_each_once(&elsewhere, MESSAGES);
}

#[test]
fn mail_steered_while_it_is_restored_goes_once() {
    const MESSAGES: usize = 400;
    let (nowhere, port) = (Port::reserve(), Port::reserve());
    let mut old = patient().inward(nowhere.address()).start();
    fill(&old, MESSAGES);
    old.stop();
    let relay = patient().inward(port.address()).start();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                change(&relay, &["hold", "--all"]);
                change(&relay, &["release", "--all"]);
            }
        });
        relay.sluice_ok(&["queue", "restore", old.spool().to_str().unwrap()]);
        done.store(true, Ordering::Relaxed);
    });
    let inbox = Inbox::bind(port.address(), |_| Answer::Accept);
    assert_eq!(change(&relay, &["retry", "--all"])["matched"]["messages"], MESSAGES);
    inbox.wait_for(MESSAGES, SOON * 2);
    relay.wait_empty();
    assert_each_once(&inbox, MESSAGES);
}
