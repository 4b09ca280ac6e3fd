//! Ten thousand messages of 4 KiB at a hundred sessions: all arrive, once, octet by octet.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sluice_tests::log::Log;
use sluice_tests::message::{number_of, numbered, without_received};
use sluice_tests::process::{exit_within, run_ok};
use sluice_tests::tools::built;
use sluice_tests::wait::SOON;
use sluice_tests::{Client, Inbox, Port, Relay, SmtpSink, SmtpSource, heavy, lacks};

const SESSIONS: usize = 100;
const MESSAGES: usize = 10_000;
const OCTETS: usize = 4096;
const LIMIT: Duration = Duration::from_secs(180);

#[test]
fn ten_thousand_messages_arrive_once_and_octet_by_octet() {
    let _quiet = heavy();
    let inbox = Inbox::start();
    let relay = Relay::builder().inward(inbox.address()).start();
    let (next, start) = (AtomicUsize::new(0), Instant::now());
    thread::scope(|scope| {
        for _ in 0..SESSIONS {
            scope.spawn(|| {
                let mut client = Client::hello(relay.outside());
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= MESSAGES {
                        return client.quit();
                    }
                    let reply =
                        client.try_message("x@away.test", "bob@inside.test", &numbered(number, OCTETS));
                    reply.expect("a reply").expect(250, "2.0.0");
                }
            });
        }
    });
    let accepted = start.elapsed();
    let got = inbox.wait_count(MESSAGES, LIMIT);
    println!("{MESSAGES} messages accepted in {accepted:.1?}, {got} delivered in {:.1?}", start.elapsed());
    relay.wait_empty();
    let mut copies = vec![0; MESSAGES];
    inbox
        .for_each(|got| copies[number_of(without_received(&got.content)).expect("an unspoilt message")] += 1);
    assert!(copies.iter().all(|&copies| copies == 1), "missing or repeated: {:?}", odd(&copies));
}

fn odd(copies: &[usize]) -> Vec<(usize, usize)> {
    copies.iter().copied().enumerate().filter(|&(_, copies)| copies != 1).take(20).collect()
}

#[test]
fn ten_thousand_messages_from_smtp_source_reach_smtp_sink() {
    if lacks("smtp-source") || lacks("smtp-sink") {
        return;
    }
    let _quiet = heavy();
    let sink = SmtpSink::start();
    let relay = Relay::builder().inward(sink.address()).start();
    let start = Instant::now();
    let (from, to) = ("x@away.test".to_owned(), "bob@inside.test".to_owned());
    SmtpSource { sessions: SESSIONS, messages: MESSAGES, bytes: OCTETS, from, to }
        .run(relay.outside(), LIMIT);
    let accepted = start.elapsed();
    sink.wait_for(MESSAGES, LIMIT);
    println!(
        "smtp-source: {MESSAGES} messages accepted in {accepted:.1?}, delivered in {:.1?}",
        start.elapsed()
    );
    relay.wait_empty();
    assert_eq!(sink.count(), MESSAGES);
}

#[test]
fn ten_thousand_messages_of_the_generator_reach_the_checking_sink() {
    let _quiet = heavy();
    let port = Port::reserve();
    let mut sink = Command::new(built("sluice-bench"))
        .args(["sink", "--bind", &port.address().to_string(), "--expect", &MESSAGES.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("sluice-bench sink");
    let (notes, _) = Log::follow(sink.stderr.take().expect("piped"));
    notes.wait_for(SOON, &["listening on"]);
    let relay = Relay::builder().inward(port.address()).start();
    let mut source = Command::new(built("sluice-bench"));
    source.args(["source", "--target", &relay.outside().to_string(), "--json"]);
    source.args(["--sessions", &SESSIONS.to_string(), "--messages", &MESSAGES.to_string()]);
    source.args(["--size", &OCTETS.to_string(), "--to", "bob@inside.test"]);
    let sent: serde_json::Value = serde_json::from_str(&run_ok(&mut source, LIMIT)).expect("JSON");
    println!("generator: {sent}");
    if exit_within(&mut sink, LIMIT).is_none() {
        let _ = sink.kill();
    }
    let output = sink.wait_with_output().expect("the sink");
    let got: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    println!("sink: {got}");
    assert_eq!((&got["intact"], &got["damaged"], &got["repeats"]), (&MESSAGES.into(), &0.into(), &0.into()));
    assert!(output.status.success(), "{}", notes.tail());
    relay.wait_empty();
}
