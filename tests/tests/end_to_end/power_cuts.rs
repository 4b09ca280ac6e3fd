//! Acknowledged means durable, also when the power goes: the spool lies on a disk that forgets what was not
//! synced and tears the write that it was in. Of the messages acknowledged none may be lost, none corrupt.
//!
//! `SLUICE_ROUNDS=50 tests/run power_cuts` goes 50 rounds.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sluice_tests::ledger::rounds;
use sluice_tests::volatile_disk::{VolatileDisk, available};
use sluice_tests::wait::SOON;
use sluice_tests::{Answer, Inbox, Ledger, Relay, Step, heavy};

const LIMIT: Duration = Duration::from_secs(240);

#[test]
fn power_cuts_under_load_lose_nothing_that_was_acknowledged() {
    if !available() {
        return;
    }
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
    // Small segments, so that their change is often what a cut falls into.
    relay.edit_config("[spool]\n", "[spool]\nsegment_bytes = \"1MiB\"\n");
    let shard = relay.spool().join("shard-0000");
    fs::create_dir_all(&shard).expect("a mount point");
    let mut disk = VolatileDisk::mount(&shard, 1);
    let (rounds, ledger) = (rounds(8), Ledger::default());
    for round in 0..rounds {
        refuses.store(round % 3 == 1, Ordering::Relaxed);
        relay.start();
        disk.cut_in(5 + (round as u64 * 53) % 400);
        ledger.load(
            &mut relay,
            usize::MAX / 2,
            || disk.wait_for_cut(Duration::ZERO),
            |relay| drop(relay.kill()),
        );
        disk.power_on();
    }
    refuses.store(false, Ordering::Relaxed);
    relay.start();
    relay.wait_queue(0, LIMIT);
    relay.stop_within(SOON * 2);
    let balance = ledger.balance(&inbox);
    println!("{rounds} power cuts: {} lost, {balance:?}, {:?}", balance.lost.len(), disk.losses());
    assert_eq!(disk.losses().cuts, rounds);
    assert!(balance.acknowledged > rounds * 10, "too little load to show anything");
    assert!(balance.lost.is_empty(), "acknowledged and lost: {:?}", balance.lost);
}
