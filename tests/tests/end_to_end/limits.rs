//! Limits for each client, load, and faults within sessions. Loopback addresses stand for different clients,
//! and none of them is exempt but 127.0.0.1 where a test says so.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use sluice_tests::message::message;
use sluice_tests::wait::{self, SOON};
use sluice_tests::{Client, Inbox, Relay, Reply};

/// A relay whose outside listener has these limits.
fn relay(inbox: &Inbox, limits: &str) -> Relay {
    let limits = format!("[limits]\nexempt = [\"127.0.0.1\"]\n{limits}");
    Relay::builder().inward(inbox.address()).section(&limits).start()
}

/// A client whose address is 127.0.0.`last`.
fn client(last: u8, server: SocketAddr) -> std::io::Result<(Client, Reply)> {
    Client::try_connect_from(Ipv4Addr::new(127, 0, 0, last), server)
}

fn greeted(last: u8, server: SocketAddr) -> Client {
    let (client, greeting) = client(last, server).expect("a connection");
    greeting.expect(220, "");
    client
}

fn refused(last: u8, server: SocketAddr, words: &str) {
    let (mut client, greeting) = client(last, server).expect("a connection");
    assert!(greeting.text().contains(words), "{}", greeting.text());
    greeting.expect(421, "");
    client.expect_closed();
}

#[test]
fn connections_of_an_address_and_of_a_network_are_bounded_over_all_shards() {
    let inbox = Inbox::start();
    let limits =
        "[limits]\nexempt = [\"127.0.0.1\"]\nconnections_per_address = 3\nconnections_per_network = 5\n";
    let relay = Relay::builder().inward(inbox.address()).cpus("0,1", "1").section(limits).start();
    let mut held: Vec<Client> = (0..3).map(|_| greeted(2, relay.outside())).collect();
    (0..5).for_each(|_| refused(2, relay.outside(), "Too many connections from your address"));
    held.extend((0..2).map(|_| greeted(3, relay.outside())));
    refused(4, relay.outside(), "Too many connections from your network");
    // The exempt client, and the inside, feel nothing of it.
    let _free: Vec<Client> = (0..8).map(|_| greeted(1, relay.outside())).collect();
    let _inside: Vec<Client> = (0..8).map(|_| greeted(2, relay.inside())).collect();
    assert_eq!(relay.metric("connections_refused_concurrent_total"), 6);
    relay
        .log()
        .wait_for(SOON, &["NOQUEUE: reject: CONNECT from unknown[127.0.0.2]: 421 4.7.0", "listener=outside"]);
    held.remove(0).quit();
    let again = wait::until(SOON, "a place that was given back", || {
        let (client, greeting) = client(2, relay.outside()).expect("a connection");
        (greeting.code == 220).then_some(client)
    });
    again.quit();
}

#[test]
fn connections_messages_and_recipients_have_their_rates() {
    let inbox = Inbox::start();
    let limits = "connection_rate_per_address = 3\nmessage_rate_per_address = 2\n\
                  recipient_rate_per_address = 4\nrate_window = \"1h\"\n";
    let relay = relay(&inbox, limits);
    let mut first = greeted(2, relay.outside());
    first.command("EHLO c.test").expect(250, "");
    first.open_data("x@away.test", &["a@inside.test", "b@inside.test", "c@inside.test"]);
    first.send(b"Subject: x\r\n\r\nx\r\n.\r\n");
    first.reply().expect(250, "2.0.0");
    first.command("MAIL FROM:<x@away.test>").expect(250, "2.1.0");
    first.command("RCPT TO:<a@inside.test>").expect(250, "2.1.5");
    first.command("RCPT TO:<b@inside.test>").expect(450, "4.7.1");
    first.command("RSET").expect(250, "");
    first.command("MAIL FROM:<x@away.test>").expect(450, "4.7.1");
    // On another connection just the same, and another client is not concerned.
    let mut second = greeted(2, relay.outside());
    second.command("EHLO c.test").expect(250, "");
    second.command("MAIL FROM:<x@away.test>").expect(450, "4.7.1");
    let mut other = greeted(3, relay.outside());
    other.command("EHLO c.test").expect(250, "");
    other.command("MAIL FROM:<x@away.test>").expect(250, "2.1.0");
    drop(greeted(2, relay.outside()));
    refused(2, relay.outside(), "Your address connects too often");
    assert_eq!(
        (relay.metric("commands_limited_total"), relay.metric("connections_refused_rate_total")),
        (3, 1)
    );
}

/// A flood from one address: what it costs the relay, and that others are served meanwhile.
#[test]
fn a_flood_of_connections_is_refused_cheaply() {
    const FLOOD: usize = 2_000;
    let inbox = Inbox::start();
    let relay = relay(&inbox, "connection_rate_per_address = 5\n");
    let before = relay.cpu_time();
    let begun = Instant::now();
    let mut turned_away = 0;
    for _ in 0..FLOOD {
        turned_away +=
            usize::from(client(2, relay.outside()).is_ok_and(|(_, greeting)| greeting.code == 421));
    }
    let (took, cost) = (begun.elapsed(), relay.cpu_time().saturating_sub(before));
    println!(
        "{FLOOD} connections from one address in {took:?}: {turned_away} turned away, {:?} of the relay's CPU time each",
        cost / FLOOD as u32
    );
    assert!(turned_away >= FLOOD - 50, "{turned_away}");
    let lines = relay.log().matching(&["connects too often"]).len() as u64;
    assert!(lines <= took.as_secs() + 2, "{lines} lines in {took:?}");
    let mut good = Client::hello(relay.outside());
    good.send_message("x@away.test", &["bob@inside.test"], &message("good", "x\r\n")).expect(250, "2.0.0");
}

#[test]
fn errors_are_answered_more_and_more_slowly() {
    let inbox = Inbox::start();
    let relay = relay(&inbox, "soft_errors_max = 2\nerror_delay = \"300ms\"\nerrors_max = 4\n");
    let mut guesser = greeted(2, relay.outside());
    let mut times = Vec::new();
    for _ in 0..4 {
        let begun = Instant::now();
        guesser.command("NONSENSE").expect(500, "");
        times.push(begun.elapsed());
    }
    guesser.command("NONSENSE").expect(421, "4.7.0");
    assert!(times[2] >= Duration::from_millis(300) && times[3] >= Duration::from_millis(600), "{times:?}");
    // Commands behind an error wait for their turn and are not lost.
    let mut pipelined = greeted(3, relay.outside());
    pipelined.send(b"A\r\nB\r\nC\r\nNOOP\r\nQUIT\r\n");
    for code in [500, 500, 500, 250, 221] {
        pipelined.reply().expect(code, "");
    }
    pipelined.expect_closed();
    wait::until_true(SOON, "the metric", || relay.metric("replies_held_back_total") == 3);
    assert_eq!(relay.metric("sessions_abusive_total"), 1);
}

#[test]
fn slow_senders_are_cut_off_and_what_they_held_is_given_back() {
    let inbox = Inbox::start();
    let relay = relay(&inbox, "bytes_per_second_min = \"1000B\"\nslow_window = \"1s\"\n");
    let mut slow = greeted(2, relay.outside());
    slow.command("EHLO slow.test").expect(250, "");
    slow.open_data("x@away.test", &["bob@inside.test"]);
    let begun = Instant::now();
    while begun.elapsed() < SOON && slow.try_send(b"x").is_ok() {
        if slow.has_reply_within(Duration::from_millis(100)) {
            break;
        }
    }
    slow.reply().expect(421, "4.4.2");
    wait::until_true(SOON, "nothing reserved", || relay.metric("spool_reserved_bytes") == 0);
    assert_eq!(relay.metric("sessions_slow_total"), 1);
    // The exempt client may be as slow as it likes.
    let mut slow = Client::hello(relay.outside());
    slow.open_data("x@away.test", &["bob@inside.test"]);
    slow.send(b"Subject: slow\r\n");
    std::thread::sleep(Duration::from_millis(1500));
    slow.send(b"\r\nx\r\n.\r\n");
    slow.reply().expect(250, "2.0.0");
}

#[test]
fn who_talks_before_the_greeting_is_refused() {
    let inbox = Inbox::start();
    let relay = relay(&inbox, "greet_delay = \"400ms\"\n");
    let mut early = Client::open_from(Ipv4Addr::new(127, 0, 0, 2), relay.outside()).expect("a connection");
    early.send(b"EHLO spam.test\r\nMAIL FROM:<>\r\n");
    early.reply().expect(554, "5.5.0");
    early.expect_closed();
    relay.log().wait_for(SOON, &["reject: CONNECT from unknown[127.0.0.2]: 554 5.5.0"]);
    let begun = Instant::now();
    greeted(2, relay.outside()).quit();
    assert!(begun.elapsed() >= Duration::from_millis(400));
    // Neither on the inside nor for an exempt client.
    for (last, server) in [(2, relay.inside()), (1, relay.outside())] {
        let mut early = Client::open_from(Ipv4Addr::new(127, 0, 0, last), server).expect("a connection");
        early.send(b"EHLO eager.test\r\n");
        early.reply().expect(220, "");
        early.reply().expect(250, "");
    }
    wait::until_true(SOON, "the metric", || relay.metric("early_talkers_total") == 1);
}

#[test]
fn load_has_three_levels_and_trusted_clients_get_in_at_each() {
    let inbox = Inbox::start();
    let limits = "sessions_max = 20\nconnections_per_address = 0\nconnections_per_network = 0\n\
                  [load]\nbusy_percent = 40\noverloaded_percent = 70\ncommand = \"1s\"\n";
    let relay = relay(&inbox, limits);
    let reaches =
        |level: u64| wait::until_true(SOON, &format!("load {level}"), || relay.metric("load_level") == level);
    let mut held: Vec<Client> = (0..7).map(|_| greeted(2, relay.outside())).collect();
    assert_eq!(relay.metric("load_level"), 0);
    // Eight of twenty: busy, and who waited in silence has no more time.
    let mut eighth = greeted(3, relay.outside());
    reaches(1);
    relay.log().wait_for(SOON, &["warning: the relay is busy", "of 20 sessions"]);
    for client in &mut held {
        client.reply().expect(421, "4.4.2");
    }
    eighth.reply().expect(421, "4.4.2");
    reaches(0);
    // Sessions of the inside have patience, and fill the relay.
    let _inside: Vec<Client> = (0..15).map(|_| greeted(2, relay.inside())).collect();
    reaches(2);
    refused(2, relay.outside(), "Overloaded");
    greeted(2, relay.inside()).quit();
    greeted(1, relay.outside()).quit();
    assert!(relay.metric("connections_refused_overloaded_total") >= 1);
    drop(_inside);
    reaches(0);
    relay.log().wait_for(SOON, &["load is normal again"]);
    greeted(2, relay.outside()).quit();
}

/// A fault of the program within a message: that session ends with 421, and nothing of it is left.
#[test]
fn a_fault_within_a_session_ends_that_session_alone() {
    let inbox = Inbox::start();
    let limits = "[limits]\nexempt = []\nconnections_per_address = 2\n";
    let mut relay = Relay::builder().inward(inbox.address()).section(limits).prepare();
    relay.start_with_environment(&[("SLUICE_TEST_PANIC_SENDER", "fault@away.test")]);
    let mut other = greeted(3, relay.outside());
    other.command("EHLO other.test").expect(250, "");
    other.open_data("x@away.test", &["bob@inside.test"]);
    for round in 1..=4 {
        let mut faulty = wait::until(SOON, "the place of the former session", || {
            let (client, greeting) = client(2, relay.outside()).expect("a connection");
            (greeting.code == 220).then_some(client)
        });
        faulty.command("EHLO faulty.test").expect(250, "");
        faulty.open_data("fault@away.test", &["bob@inside.test"]);
        faulty.send(b"Subject: fault\r\n");
        faulty.reply().expect(421, "4.3.0");
        faulty.expect_closed();
        wait::until_true(SOON, "the count", || relay.metric("session_panics_total") == round);
    }
    relay.log().wait_for(SOON, &["error: a session with [127.0.0.2] ended by an internal fault"]);
    other.send(b"Subject: other\r\n\r\nx\r\n.\r\n");
    other.reply().expect(250, "2.0.0");
    other.quit();
    wait::until_true(SOON, "no session", || relay.metric("sessions") == 0);
    wait::until_true(SOON, "nothing reserved", || relay.metric("spool_reserved_bytes") == 0);
    assert_eq!(inbox.wait_for(1, SOON).len(), 1);
    relay.wait_empty();
    relay.stop();
}

/// A client that `clients` does not admit, and that neither speaks nor closes, is gone soon.
#[test]
fn who_is_not_admitted_cannot_hold_a_session() {
    let inbox = Inbox::start();
    let relay = Relay::builder().inward(inbox.address()).clients("127.0.0.9", "127.0.0.1").start();
    let silent: Vec<TcpStream> =
        (0..5).map(|_| TcpStream::connect(relay.outside()).expect("a connection")).collect();
    wait::until_true(SOON, "the connections", || relay.metric("connections_total") == 5);
    wait::until_true(SOON, "no session", || relay.metric("sessions") == 0);
    drop(silent);
}
