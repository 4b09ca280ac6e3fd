//! What a message costs. Measures; run by hand: `cargo test --release -p sluice-queue cost -- --ignored --nocapture`.

use super::harness::*;
use crate::*;
use std::time::Instant;

const CROWD: usize = 64;

/// Batches of commits, each message finished when its batch is durable; `waiting` messages wait besides.
fn steady(waiting: usize) -> f64 {
    const ROUNDS: usize = 2_000;
    let options = Options { segment_bytes: 4 << 20, ..Options::default() };
    opened(MemoryStorage::new(), options, |spool, _| async move {
        let octets = [b'x'; 64];
        let mut best = f64::MAX;
        let envelope = envelope(1);
        let crowd = async |n: usize| {
            let clients = (0..n).map(|_| {
                let (spool, envelope) = (spool.clone(), envelope.clone());
                let client: std::pin::Pin<Box<dyn Future<Output = QueueId>>> = Box::pin(async move {
                    let mut draft = spool.begin(NOW);
                    spool.append(&mut draft, &octets).await.unwrap();
                    spool.commit(draft, envelope, ContentFlags::default()).await.unwrap().id
                });
                client
            });
            together(clients.collect()).await
        };
        for _ in 0..waiting / CROWD {
            crowd(CROWD).await;
        }
        for _ in 0..5 {
            let start = Instant::now();
            for _ in 0..ROUNDS / 5 {
                for id in crowd(CROWD).await {
                    spool.record(
                        id,
                        vec![Outcome { text: String::new(), ..outcome(0, OutcomeKind::Delivered) }],
                    );
                }
            }
            best = best.min(start.elapsed().as_nanos() as f64 / (ROUNDS / 5 * CROWD) as f64);
        }
        best
    })
}

#[test]
#[ignore = "measures"]
fn cost_of_a_message_in_and_out() {
    for waiting in [0, 20_000] {
        println!("{:.0} ns per message, {waiting} waiting besides", steady(waiting));
    }
}
