//! Acknowledged means durable: `kill -9` under load, again and again. Of the messages acknowledged none may
//! be lost and none corrupt; a message may come twice, and the number of those is printed.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sluice_tests::message::{number_of, numbered, without_received};
use sluice_tests::wait::{SOON, until_true};
use sluice_tests::{Answer, Client, Inbox, Relay, Step, heavy};

const ROUNDS: usize = 30;
const CLIENTS: usize = 8;
const LIMIT: Duration = Duration::from_secs(240);

/// What the clients know, over all rounds.
#[derive(Default)]
struct Ledger {
    next: AtomicUsize,
    acknowledged: Mutex<Vec<usize>>,
    unanswered: AtomicUsize,
}

/// The size of a message by its number: small ones, and some of several blocks.
fn octets(number: usize) -> usize {
    match number % 16 {
        0 => 70_000,
        1..=3 => 4096,
        _ => 400 + number % 700,
    }
}

/// Sends until the relay is gone.
fn send_until_cut(relay: std::net::SocketAddr, ledger: &Ledger) {
    let Ok((mut client, greeting)) = Client::try_connect(relay) else { return };
    if greeting.code != 220
        || client.try_send(b"EHLO client.test\r\n").is_err()
        || client.try_reply().is_err()
    {
        return;
    }
    loop {
        let number = ledger.next.fetch_add(1, Ordering::Relaxed);
        match client.try_message("x@away.test", "bob@inside.test", &numbered(number, octets(number))) {
            Ok(reply) if reply.code == 250 => ledger.acknowledged.lock().expect("ledger").push(number),
            Ok(reply) => panic!("message {number}: {}", reply.text()),
            Err(_) => {
                ledger.unanswered.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }
}

/// One round: load, a kill when the round's number of messages is acknowledged, and the clients' end.
fn load_and_kill(relay: &mut Relay, ledger: &Ledger, round: usize) {
    let outside = relay.outside();
    let goal = ledger.acknowledged.lock().expect("ledger").len() + 1 + round * 37 % 300;
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| send_until_cut(outside, ledger));
        }
        until_true(SOON * 2, "the round's messages are acknowledged", || {
            assert!(relay.is_running(), "the relay died by itself:\n{}", relay.log().tail());
            ledger.acknowledged.lock().expect("ledger").len() >= goal
        });
        relay.kill();
    });
}

#[test]
fn thirty_kills_under_load_lose_nothing_that_was_acknowledged() {
    let _quiet = heavy();
    let refuses = Arc::new(AtomicBool::new(false));
    let inbox = Inbox::scripted({
        let refuses = refuses.clone();
        move |step| match step {
            Step::Mail(_) if refuses.load(Ordering::Relaxed) => Answer::Say("451 4.3.0 Not now".into()),
            _ => Answer::Accept,
        }
    });
    let mut relay = Relay::builder().inward(inbox.address()).retry("100ms", "1s", "1d").prepare();
    let ledger = Ledger::default();
    for round in 0..ROUNDS {
        // In every third round the next hop takes nothing, so that a backlog goes through the kill.
        refuses.store(round % 3 == 1, Ordering::Relaxed);
        if round % 5 == 4 {
            // A start is cut, too, while it recovers.
            relay.launch(&[]);
            thread::sleep(Duration::from_millis(20 * round as u64));
            relay.kill();
        }
        relay.start();
        load_and_kill(&mut relay, &ledger, round);
    }
    refuses.store(false, Ordering::Relaxed);
    relay.start();
    relay.wait_queue(0, LIMIT);
    check(&inbox, &ledger);
    relay.stop();
}

#[test]
fn a_restart_at_once_after_a_kill_needs_no_patience() {
    let inbox = Inbox::start();
    let mut relay = Relay::builder().inward(inbox.address()).start();
    for _ in 0..10 {
        let _sessions: Vec<Client> = (0..200).map(|_| Client::hello(relay.outside())).collect();
        relay.kill_at_once();
        // As a supervisor does it. The kernel may still hold the ports for a moment.
        relay.start();
    }
}

fn check(inbox: &Inbox, ledger: &Ledger) {
    let mut copies = vec![0usize; ledger.next.load(Ordering::Relaxed)];
    inbox.for_each(|got| {
        let number = number_of(without_received(&got.content)).expect("an uncorrupted message");
        copies[number] += 1;
    });
    let acknowledged = ledger.acknowledged.lock().expect("ledger");
    let lost: Vec<usize> = acknowledged.iter().copied().filter(|&number| copies[number] == 0).collect();
    let duplicates: usize = copies.iter().map(|copies| copies.saturating_sub(1)).sum();
    let delivered = copies.iter().filter(|&&copies| copies > 0).count();
    println!(
        "{ROUNDS} kills: {} acknowledged, {} lost, {} duplicates, {} cut off before their reply, of which {} arrived",
        acknowledged.len(),
        lost.len(),
        duplicates,
        ledger.unanswered.load(Ordering::Relaxed),
        delivered + lost.len() - acknowledged.len(),
    );
    assert!(acknowledged.len() > ROUNDS * 10, "too little load to show anything");
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}
