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

fn start(path: PathBuf, reading: Reading) -> (f64, Recovery) {
    on_ring(async move || {
        let storage = GlommioStorage::new(&path).unwrap();
        let started = Instant::now();
        let (spool, recovery) =
            Spool::open_reading(storage, number(), Options::default(), reading).await.unwrap();
        let seconds = started.elapsed().as_secs_f64();
        assert_eq!(spool.messages(), recovery.messages);
        (seconds, recovery)
    })
}

#[test]
#[ignore = "5 GB of disk and minutes: cargo test --release -p sluice-queue a_million -- --ignored --nocapture"]
fn a_million_messages_are_found_again_within_two_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard-0003");
    fill(path.clone(), MESSAGES);
    for reading in [Reading::Indexes, Reading::Indexes, Reading::Batches] {
        let (seconds, recovery) = start(path.clone(), reading);
        println!("{reading:?}: {seconds:.3} s, {} octets read, {recovery}", recovery.bytes_read);
        assert_eq!((recovery.messages as u64, recovery.damages), (MESSAGES, vec![]));
        if reading == Reading::Indexes {
            assert_eq!(recovery.segments_indexed, recovery.segments);
            assert!(seconds < 2.0, "{seconds} s");
        }
    }
}
