//! At what pace mail goes out, whether a client waits for it (cut-through) or the queue sends it.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sluice_tests::message::message;
use sluice_tests::wait::{SOON, until_true};
use sluice_tests::{Answer, Client, Inbox, Relay, RelayBuilder, Step};

/// With cut-through from the outside listener to the internal server, and these keys of its route. What comes in by
/// the inside listener is queued.
fn relay(host: SocketAddr, route: &str) -> RelayBuilder {
    Relay::builder().outside_listener("cut_through = \"message\"").route(&format!(
        "domains = [\"inside.test\"]\nhosts = [\"{host}\"]\ncut_through = \"message\"\n{route}"
    ))
}

/// Sends a message, which is acknowledged whatever becomes of it.
fn send(to: SocketAddr, subject: &str) {
    let mut client = Client::hello(to);
    client.send_message("x@away.test", &["bob@inside.test"], &message(subject, "x\r\n")).expect(250, "2.0.0");
}

/// A day of UTC that does not end within this test.
fn yesterday() -> String {
    let second_of_day =
        SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock past 1970").as_secs() % 86_400;
    if second_of_day > 86_400 - 120 {
        thread::sleep(Duration::from_secs(86_401 - second_of_day));
    }
    let day = Command::new("date").args(["-u", "-d", "yesterday", "+%F"]).output().expect("date");
    String::from_utf8(day.stdout).expect("a day").trim().to_owned()
}

/// Waits until the file in the spool says that so many were sent today.
fn wait_for_count(relay: &Relay, count: usize) {
    let file = relay.spool().join("warm-up.json");
    let part = format!("\"sent\":{count}}}");
    until_true(SOON, "the file has the count", || {
        fs::read_to_string(&file).is_ok_and(|text| text.contains(&part))
    });
}

#[test]
fn a_new_address_sends_its_number_of_the_day_whoever_waits_and_whenever_the_relay_is_restarted() {
    let inbox = Inbox::start();
    let warm_up =
        format!("[[warm_up]]\nsource = \"127.0.0.71\"\nbegan = \"{}\"\nschedule = \"4, 4, 4\"", yesterday());
    let mut relay = relay(inbox.address(), "source = [\"127.0.0.71\"]").section(&warm_up).start();
    send(relay.outside(), "first");
    send(relay.inside(), "second, by the queue");
    relay.wait_empty();
    assert_eq!(relay.stop().matching(&["status=sent (cut-through: 250"]).len(), 1);
    let file = relay.spool().join("warm-up.json");
    assert!(fs::read_to_string(&file).expect("the file").contains("\"sent\":2}"), "written at the stop");

    relay.start();
    send(relay.outside(), "third");
    send(relay.outside(), "fourth");
    relay.wait_empty();
    wait_for_count(&relay, 4);
    until_true(SOON, "both are sent while the client waits", || {
        relay.log().matching(&["status=sent (cut-through: 250"]).len() == 2
    });
    relay.kill();

    relay.start();
    send(relay.outside(), "fifth");
    relay.log().wait_for(SOON, &["cut-through: not handed over: ", "warmed up"]);
    send(relay.inside(), "sixth");
    relay.log().wait_for(SOON, &["status=deferred", "the source addresses are being warmed up"]);
    assert_eq!((inbox.len(), relay.queue().len()), (4, 2));
    let own: IpAddr = "127.0.0.71".parse().expect("an address");
    assert!(inbox.clients().iter().all(|client| *client == own), "{:?}", inbox.clients());
    relay.stop();

    fs::write(&file, "{\"version\":1,\"addr").expect("a damaged file");
    relay.start();
    relay.log().wait_for(SOON, &["warm-up.json: ", "[[warm_up]] counts today's messages anew"]);
    assert_eq!(inbox.wait_for(6, SOON).len(), 6);
    relay.wait_empty();
    relay.stop();
    assert!(fs::read_to_string(&file).expect("the file").contains("\"sent\":2}"), "it is whole again");
}

#[test]
fn what_the_internal_server_says_while_a_client_waits_holds_for_all_that_goes_there() {
    let wants_none = AtomicBool::new(true);
    let inbox = Inbox::scripted(move |step| match step {
        Step::EndOfData(_) if wants_none.swap(false, SeqCst) => {
            Answer::Say("421 4.7.0 [TSS04] Messages from 127.0.0.1 temporarily deferred".into())
        }
        _ => Answer::Accept,
    });
    let relay = relay(inbox.address(), "").start();
    send(relay.outside(), "told off");
    relay.log().wait_for(SOON, &["warning: site", "is suspended until"]);
    relay.log().wait_for(SOON, &["status=deferred (cut-through: ", "421 4.7.0 [TSS04]"]);
    relay.log().wait_for(SOON, &["status=deferred (suspended until "]);
    send(relay.outside(), "a client's");
    relay.log().wait_for(SOON, &["cut-through: not handed over: suspended until "]);
    send(relay.inside(), "the queue's");
    until_true(SOON, "three wait", || {
        relay.log().matching(&["status=deferred (suspended until "]).len() == 3
    });
    assert_eq!((inbox.sessions(), inbox.len()), (1, 0));
}

#[test]
fn past_the_messages_of_a_minute_a_client_s_message_goes_by_the_queue() {
    let inbox = Inbox::start();
    let relay = relay(inbox.address(), "[route.limits]\nmessages_per_minute = 20").start();
    let began = Instant::now();
    send(relay.outside(), "first");
    relay.log().wait_for(SOON, &["to=<bob@inside.test>", "status=sent (cut-through: 250"]);
    send(relay.outside(), "second");
    relay.log().wait_for(SOON, &["cut-through: not handed over: its site has no turn before"]);
    assert_eq!(inbox.wait_for(2, SOON).len(), 2);
    assert!(began.elapsed() >= Duration::from_millis(2_900), "{:?}", began.elapsed());
    relay.wait_empty();
}

#[test]
fn a_greylisted_message_of_a_client_comes_again_when_the_server_said() {
    let tries = AtomicUsize::new(0);
    let inbox = Inbox::scripted(move |step| match step {
        Step::EndOfData(_) if tries.fetch_add(1, SeqCst) == 0 => {
            Answer::Say("451 4.7.1 Greylisted, try again in 3 seconds".into())
        }
        _ => Answer::Accept,
    });
    let relay = relay(inbox.address(), "").start();
    let began = Instant::now();
    send(relay.outside(), "grey");
    relay.log().wait_for(SOON, &["status=deferred (cut-through: ", "Greylisted"]);
    assert_eq!(inbox.wait_for(1, SOON).len(), 1);
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    relay.wait_empty();
    let tries = inbox.commands().iter().filter(|line| *line == "DATA").count();
    assert_eq!(tries, 2, "{:?}", inbox.commands());
}

#[test]
fn clients_and_queue_take_no_more_connections_than_the_route_allows() {
    let (open, most) = (std::sync::Arc::new(AtomicUsize::new(0)), std::sync::Arc::new(AtomicUsize::new(0)));
    let (seen, top) = (open.clone(), most.clone());
    let inbox = Inbox::scripted(move |step| {
        if matches!(step, Step::EndOfData(_)) {
            top.fetch_max(seen.fetch_add(1, SeqCst) + 1, SeqCst);
            thread::sleep(Duration::from_millis(20));
            seen.fetch_sub(1, SeqCst);
        }
        Answer::Accept
    });
    let relay = relay(inbox.address(), "[route.limits]\nconnections_max = 2").start();
    thread::scope(|scope| {
        for n in 0..8 {
            let to = if n % 2 == 0 { relay.outside() } else { relay.inside() };
            scope.spawn(move || (0..10).for_each(|of| send(to, &format!("{n}, {of}"))));
        }
    });
    assert_eq!(inbox.wait_count(80, SOON), 80);
    relay.wait_empty();
    assert_eq!(most.load(SeqCst), 2);
    assert!(relay.log().matching(&["status=sent (cut-through: 250"]).len() >= 20, "{}", relay.log().tail());
}
