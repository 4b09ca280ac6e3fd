//! The machine stops where a history of its own is needed to meet it; the rest is in `simulation`.

use super::harness::*;
use crate::*;

/// Its extents lie in one segment, its commit record in the next. Were the first one overwritten before the
/// outcome is durable, a crash would leave a commit record without extents: a false alarm.
#[test]
fn the_extents_of_a_finished_message_stay_until_its_outcome_is_durable() {
    for offset in 0..12 {
        let storage = FaultyStorage::new(MemoryStorage::new(), Default::default());
        let opening = Spool::open(storage.clone(), number(), small());
        let (spool, _) = futures_lite::future::block_on(opening).unwrap();
        let finished = with_writer(&spool, async {
            let long = deliver_in(&spool, &content(0, 60_000), 1).await.unwrap().id;
            let segments = |spool: &Spool<_>| spool.inner.table.borrow().segments.len();
            assert_eq!(segments(&spool), 2);
            let room =
                |spool: &Spool<_>| small().segment_bytes - spool.inner.desk.borrow().active.unwrap().position;
            while room(&spool) > 12 << 10 {
                deliver_in(&spool, &content(1, 7000), 1).await.unwrap();
            }
            spool.record(long, delivered(1));
            let stop = storage.steps() + offset;
            storage.set(|faults| faults.crash_at = Some(stop));
            let last = deliver_in(&spool, &content(2, 8000), 1).await;
            assert!(segments(&spool) > 2 || last.is_err(), "it had to take another segment");
            let _ = spool.sync().await;
            (long, last.is_ok())
        });
        let (long, outcome_durable) = finished;
        opened(storage.restart(), small(), |spool, recovery| async move {
            assert_eq!(recovery.damages, [], "stopped {offset} steps later");
            assert!(!(outcome_durable && spool.contains(long)));
        });
    }
}
