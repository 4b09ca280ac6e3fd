//! A backlog of a million messages on a real disk: how long a start takes. Asked for by name only.

use super::glommio::on_ring;
use super::harness::*;
use crate::recovery::Reading;
use crate::*;
use std::path::PathBuf;
use std::time::Instant;

const MESSAGES: u64 = 1_000_000;
const SESSIONS: u64 = 400;

fn fill(path: PathBuf, messages: u64) {
    on_ring(async move || {
        let storage = GlommioStorage::new(&path).unwrap();
        let (spool, _) = Spool::open(storage, number(), Options::default()).await.unwrap();
        let writer = ::glommio::spawn_local({
            let spool = spool.clone();
            async move { spool.writer().await }
        });
        let octets = std::rc::Rc::new(content(7, 4096));
        let started = Instant::now();
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|_| {
                let (spool, octets) = (spool.clone(), octets.clone());
                ::glommio::spawn_local(async move {
                    for _ in 0..messages / SESSIONS {
                        deliver_in(&spool, &octets, 1).await.unwrap();
                    }
                })
            })
            .collect();
        for session in sessions {
            session.await;
        }
        let stats = spool.stats();
        println!("filled in {:.1?}: {} segments, {stats:?}", started.elapsed(), stats.segments);
        spool.close().await.unwrap();
        writer.await;
    });
}

/// Seconds that this thread ran, and that it waited for a processor: a machine that others use too is not
/// to blame the spool for.
fn scheduled() -> (f64, f64) {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let mut seconds = text.split_whitespace().map(|field| field.parse::<f64>().unwrap() / 1e9);
    (seconds.next().unwrap(), seconds.next().unwrap())
}

/// Gives the seconds that opening took, those of them on a processor and those waiting for one.
fn start(path: PathBuf, reading: Reading) -> ([f64; 3], Recovery) {
    on_ring(async move || {
        let storage = GlommioStorage::new(&path).unwrap();
        let (started, before) = (Instant::now(), scheduled());
        let (spool, recovery) =
            Spool::open_reading(storage, number(), Options::default(), reading).await.unwrap();
        let (seconds, after) = (started.elapsed().as_secs_f64(), scheduled());
        assert_eq!(spool.messages(), recovery.messages);
        ([seconds, after.0 - before.0, after.1 - before.1], recovery)
    })
}

#[test]
#[ignore = "5 GB of disk and minutes: cargo test --release -p sluice-queue a_million -- --ignored --nocapture"]
fn a_million_messages_are_found_again_within_two_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard-0003");
    // Another number for a quick look.
    let messages = std::env::var("SLUICE_SCALE").map_or(MESSAGES, |number| number.parse().unwrap());
    fill(path.clone(), messages);
    for reading in [Reading::Indexes, Reading::Indexes, Reading::Batches] {
        let ([seconds, ran, waited], recovery) = start(path.clone(), reading);
        println!(
            "{reading:?}: {seconds:.3} s, of which {ran:.3} s on the processor, {waited:.3} s without one"
        );
        println!("  {} octets read, {recovery}", recovery.bytes_read);
        assert_eq!((recovery.messages as u64, recovery.damages), (messages, vec![]));
        if reading == Reading::Indexes {
            assert_eq!(recovery.segments_indexed, recovery.segments);
            assert!(seconds - waited < 2.0, "{seconds} s, {waited} s without a processor");
        }
    }
}
