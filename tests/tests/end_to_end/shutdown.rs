//! SIGTERM drains within a bound, a second one stops at once, and neither loses what was acknowledged.

use std::time::{Duration, Instant};

use sluice_tests::message::message;
use sluice_tests::wait::{SOON, until_true};
use sluice_tests::{Answer, Client, Inbox, Port, Relay};

#[test]
fn a_transaction_that_is_open_at_sigterm_is_finished_and_kept() {
    let port = Port::reserve();
    let mut relay = Relay::builder().inward(port.address()).start();
    let mut client = Client::hello(relay.outside());
    client.open_data("x@away.test", &["bob@inside.test"]);
    client.send(b"Subject: open\r\n\r\n");
    relay.terminate();
    until_true(SOON, "new connections are refused", || {
        Client::try_connect(relay.outside()).map_or(true, |(_, greeting)| greeting.code == 421)
    });
    client.send(b"the rest\r\n.\r\n");
    client.reply().expect(250, "2.0.0");
    client.set_reply_limit(SOON);
    // The session may be told 421 before it is closed.
    if let Ok(reply) = client.try_reply() {
        assert_eq!(reply.code, 421, "{}", reply.text());
    }
    let (status, log) = relay.wait_exit(SOON);
    assert_eq!(status.code(), Some(0), "{}", log.tail());
    assert_eq!(relay.queue().len(), 1);

    relay.start();
    let inbox = Inbox::bind(port.address(), |_| Answer::Accept);
    assert_eq!(inbox.wait_for(1, SOON).len(), 1);
    relay.wait_empty();
}

#[test]
fn a_client_that_never_ends_is_cut_at_the_bound() {
    let inbox = Inbox::start();
    let mut relay = Relay::builder().inward(inbox.address()).section("[delivery]\ndrain = \"2s\"").start();
    let mut client = Client::hello(relay.outside());
    client.open_data("x@away.test", &["bob@inside.test"]);
    client.send(b"Subject: endless\r\n\r\n");
    let _idle = Client::hello(relay.outside());
    let start = Instant::now();
    relay.terminate();
    let (status, log) = relay.wait_exit(SOON);
    println!("stopped after {:.1?} with a bound of 2 s", start.elapsed());
    assert_eq!(status.code(), Some(0), "{}", log.tail());
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(relay.queue(), Vec::<String>::new(), "an unfinished message is nobody's");
    assert_eq!(inbox.len(), 0);
}

#[test]
fn without_open_transactions_it_stops_at_once() {
    let inbox = Inbox::start();
    let mut relay = Relay::builder().inward(inbox.address()).start();
    let _idle: Vec<Client> = (0..20).map(|_| Client::hello(relay.outside())).collect();
    let start = Instant::now();
    relay.stop_within(SOON);
    println!("stopped after {:.1?} with 20 idle sessions", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn a_second_sigterm_stops_at_once() {
    let inbox = Inbox::start();
    let mut relay = Relay::builder().inward(inbox.address()).section("[delivery]\ndrain = \"10m\"").start();
    let mut client = Client::hello(relay.outside());
    client.open_data("x@away.test", &["bob@inside.test"]);
    relay.terminate();
    until_true(SOON, "new connections are refused", || {
        Client::try_connect(relay.outside()).map_or(true, |(_, greeting)| greeting.code == 421)
    });
    relay.terminate();
    relay.wait_exit(SOON);
}

#[test]
fn a_delivery_under_way_at_sigterm_is_not_repeated() {
    let (seen, told) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let (go_on, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let inbox = Inbox::scripted(move |step| {
        if let sluice_tests::Step::EndOfData(_) = step {
            let _ = seen.send(());
            let _ = gate.lock().expect("gate").recv_timeout(SOON);
        }
        Answer::Accept
    });
    let mut relay = Relay::builder().inward(inbox.address()).start();
    let mut client = Client::hello(relay.outside());
    client.send_message("x@away.test", &["bob@inside.test"], &message("slow", "x\r\n")).expect(250, "2.0.0");
    client.quit();
    told.lock().unwrap().recv_timeout(SOON).expect("the delivery waits for its last reply");
    relay.terminate();
    until_true(SOON, "new connections are refused", || {
        Client::try_connect(relay.outside()).map_or(true, |(_, greeting)| greeting.code == 421)
    });
    go_on.send(()).unwrap();
    let (status, log) = relay.wait_exit(SOON);
    assert_eq!(status.code(), Some(0), "{}", log.tail());
    assert_eq!(relay.queue(), Vec::<String>::new(), "its outcome is in the spool");
    drop(go_on);
    relay.start();
    relay.wait_empty();
    assert_eq!(inbox.len(), 1);
}
