//! Acknowledged means durable: `kill -9` under load, again and again. Of the messages acknowledged none may
//! be lost and none corrupt; a message may come twice, and the number of those is printed.
//!
//! `SLUICE_ROUNDS=200 tests/run kills_under_load` goes 200 rounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use sluice_tests::ledger::rounds;
use sluice_tests::{Answer, Client, Inbox, Ledger, Relay, Step, heavy};

const LIMIT: Duration = Duration::from_secs(240);

#[test]
fn kills_under_load_lose_nothing_that_was_acknowledged() {
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
    let (rounds, ledger) = (rounds(30), Ledger::default());
    for round in 0..rounds {
        // In every third round the next hop takes nothing, so that a backlog goes through the kill.
        refuses.store(round % 3 == 1, Ordering::Relaxed);
        if round % 5 == 4 {
            // A start is cut, too, while it recovers.
            relay.launch(&[]);
            thread::sleep(Duration::from_millis(20 * (round % 30) as u64));
            relay.kill();
        }
        relay.start();
        ledger.load(&mut relay, 1 + round * 37 % 300, || false, |relay| drop(relay.kill()));
    }
    refuses.store(false, Ordering::Relaxed);
    relay.start();
    relay.wait_queue(0, LIMIT);
    relay.stop();
    let balance = ledger.balance(&inbox);
    println!("{rounds} kills: {} lost, {balance:?}", balance.lost.len());
    assert_eq!(ledger.refusals(), Vec::<String>::new());
    assert!(balance.acknowledged > rounds * 10, "too little load to show anything");
    assert!(balance.lost.is_empty(), "acknowledged and lost: {:?}", balance.lost);
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
