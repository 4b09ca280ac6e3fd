//! Temporary failures are retried on a schedule until they end or the message expires.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sluice_tests::message::{assert_same, message, without_received};
use sluice_tests::wait::SOON;
use sluice_tests::{Answer, Client, Dsn, Inbox, Port, Relay, Step};

fn send(relay: &Relay, to: &[&str]) -> Vec<u8> {
    let content = message("again", ".x\r\n");
    let mut client = Client::hello(relay.inside());
    client.send_message("bob@inside.test", to, &content).expect(250, "2.0.0");
    client.quit();
    content
}

/// The name of a step, by which a script can choose one.
fn name(step: &Step<'_>) -> &'static str {
    match step {
        Step::Connect => "connect",
        Step::Hello(_) => "hello",
        Step::Mail(_) => "mail",
        Step::Rcpt(_) => "rcpt",
        Step::Data => "data",
        Step::EndOfData(_) => "end of data",
        Step::Other(_) => "other",
    }
}

#[test]
fn a_recipient_deferred_twice_is_delivered_the_third_time() {
    let attempts = AtomicUsize::new(0);
    let external = Inbox::scripted(move |step| match step {
        Step::Rcpt(line) if line.contains("later") && attempts.fetch_add(1, Ordering::SeqCst) < 2 => {
            Answer::Say("451 4.7.1 Greylisted, come again".into())
        }
        _ => Answer::Accept,
    });
    let relay = Relay::builder().outward(external.address()).start();
    let content = send(&relay, &["later@away.test", "now@away.test"]);
    let got = external.wait_for(2, SOON);
    assert_eq!(got[0].to, ["now@away.test"], "the other recipient does not wait");
    assert_eq!(got[1].to, ["later@away.test"]);
    assert_same(without_received(&got[1].content), &content);
    let log = relay.log();
    log.wait_for(SOON, &["to=<later@away.test>", "status=sent"]);
    assert_eq!(
        log.matching(&["to=<later@away.test>", "status=deferred", "dsn=4.7.1", "Greylisted"]).len(),
        2
    );
    relay.wait_empty();
}

#[test]
fn a_server_that_fails_at_any_step_gets_the_message_later() {
    for failure in ["451 4.3.0 Trouble", "421 4.3.2 Going down", "closes"] {
        for step in ["connect", "hello", "mail", "rcpt", "data", "end of data"] {
            let failed = AtomicUsize::new(0);
            let external = Inbox::scripted(move |at| {
                if name(at) != step || failed.fetch_add(1, Ordering::SeqCst) > 0 {
                    Answer::Accept
                } else if failure == "closes" {
                    Answer::Close
                } else {
                    Answer::Say(failure.into())
                }
            });
            let relay = Relay::builder().outward(external.address()).retry("100ms", "200ms", "1h").start();
            let content = send(&relay, &["x@away.test"]);
            let got = external.wait_for(1, SOON);
            assert_same(without_received(&got[0].content), &content);
            relay.wait_empty();
            assert_eq!(external.len(), 1, "{failure} at {step}");
        }
    }
}

#[test]
fn a_lost_reply_to_end_of_data_repeats_the_message_and_loses_nothing() {
    let lost = AtomicUsize::new(0);
    let external = Inbox::scripted(move |step| match step {
        Step::EndOfData(_) if lost.fetch_add(1, Ordering::SeqCst) == 0 => Answer::KeepAndClose,
        _ => Answer::Accept,
    });
    let relay = Relay::builder().outward(external.address()).start();
    send(&relay, &["x@away.test"]);
    assert_eq!(external.wait_for(2, SOON).len(), 2, "RFC 5321 section 4.5.3.2.6: a duplicate, not a loss");
    relay.wait_empty();
}

#[test]
fn a_next_hop_that_is_down_gets_everything_when_it_is_back() {
    let port = Port::reserve();
    let relay = Relay::builder().outward(port.address()).start();
    for _ in 0..20 {
        send(&relay, &["x@away.test"]);
    }
    relay.log().wait_for(SOON, &["to=<x@away.test>", "status=deferred"]);
    assert_eq!(relay.queue().len(), 20);
    let external = Inbox::bind(port.address(), |_| Answer::Accept);
    assert_eq!(external.wait_for(20, SOON * 2).len(), 20);
    relay.wait_empty();
    assert_eq!(external.len(), 20);
}

#[test]
fn a_server_that_hangs_is_left_after_the_timeout() {
    let hung = Mutex::new(HashMap::new());
    let external = Inbox::scripted(move |step| {
        let mut hung = hung.lock().expect("names");
        let seen: &mut bool = hung.entry(name(step)).or_default();
        if name(step) != "other" && !std::mem::replace(seen, true) { Answer::Hang } else { Answer::Accept }
    });
    let relay = Relay::builder()
        .outward(external.address())
        .retry("100ms", "200ms", "1h")
        .section(
            "[timeouts]\nconnect = \"1s\"\ngreeting = \"500ms\"\nreply = \"500ms\"\ndata = \"500ms\"\n\
             block = \"500ms\"\nend_of_data = \"500ms\"",
        )
        .start();
    send(&relay, &["x@away.test"]);
    assert_eq!(external.wait_for(1, SOON * 2).len(), 1);
    relay.wait_empty();
    assert_eq!(external.len(), 1);
}

#[test]
fn an_expired_message_is_told_to_the_sender_as_4_4_7() {
    let (internal, external) = (Inbox::start(), Port::reserve());
    let relay = Relay::builder()
        .inward(internal.address())
        .outward(external.address())
        .retry("500ms", "1s", "3s")
        .start();
    send(&relay, &["x@away.test"]);
    let got = internal.wait_for(1, SOON);
    assert_eq!(got[0].to, ["bob@inside.test"]);
    let dsn = Dsn::parse_valid(&got[0].content);
    dsn.expect_one("x@away.test", "failed", "4.4.7");
    relay.log().wait_for(SOON, &["to=<x@away.test>", "status=expired"]);
    relay.wait_empty();
}

#[test]
fn a_delay_is_told_once_and_the_message_still_arrives() {
    let (internal, port) = (Inbox::start(), Port::reserve());
    let relay = Relay::builder().inward(internal.address()).outward(port.address()).notice("1s").start();
    send(&relay, &["x@away.test"]);
    let got = internal.wait_for(1, SOON);
    let dsn = Dsn::parse_valid(&got[0].content);
    assert_eq!(dsn.recipient(0, "action"), "delayed");
    assert!(dsn.recipient(0, "status").starts_with("4."), "{dsn:?}");
    let external = Inbox::bind(port.address(), |_| Answer::Accept);
    external.wait_for(1, SOON);
    relay.wait_empty();
    assert_eq!(internal.wait_count(2, Duration::ZERO), 1, "told once");
}
