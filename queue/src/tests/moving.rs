//! A spool is emptied into another one, with stops at every write of either.

use super::harness::*;
use crate::*;
use futures_lite::future::{block_on, or, pending};
use std::collections::{BTreeMap, BTreeSet};
use storage::faulty::Faults;

const MESSAGES: u64 = 40;
const BYTES: usize = 4500;

fn old_number() -> SpoolNumber {
    SpoolNumber::new(9).unwrap()
}

fn full_spool() -> MemoryStorage {
    let storage = MemoryStorage::new();
    let (spool, _) = block_on(Spool::open(storage.clone(), old_number(), small())).unwrap();
    with_writer(&spool, async {
        for tag in 0..MESSAGES {
            let id = deliver_in(&spool, &content(tag, BYTES), 2).await.unwrap().id;
            spool.record(id, vec![outcome(0, OutcomeKind::Delivered), outcome(1, OutcomeKind::Deferred)]);
        }
        spool.clone().close().await.unwrap();
    });
    storage
}

type Both = (Spool<FaultyStorage>, Spool<FaultyStorage>);

fn open_both(from: &FaultyStorage, to: &FaultyStorage) -> Option<Both> {
    let from = block_on(Spool::open(from.clone(), old_number(), small())).ok()?.0;
    let to = block_on(Spool::open(to.clone(), number(), small())).ok()?.0;
    Some((from, to))
}

fn with_writers<T>((from, to): &Both, body: impl Future<Output = T>) -> T {
    let writers = async {
        or(from.writer(), to.writer()).await;
        pending().await
    };
    block_on(or(
        async {
            let other = async {
                to.writer().await;
                pending().await
            };
            or(writers, other).await
        },
        body,
    ))
}

/// Settles what a stop left, moves the rest, and delivers each second message as soon as it is there.
async fn empty((from, to): &Both, handed: &mut BTreeMap<QueueId, u32>) -> Result<(), CommitError> {
    let mut after = None;
    loop {
        let (next, _) = from.settle_known(&to.ancestry(), after, 5, NOW);
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let mut hand = |id: QueueId| {
        let origin = to.origin_of(id).id;
        *handed.entry(origin).or_default() += 1;
        if origin.micros() % 2 == 0 {
            to.record(id, vec![outcome(1, OutcomeKind::Delivered)]);
        }
    };
    to.live(None, usize::MAX).into_iter().for_each(&mut hand);
    let mut moving = Move::new(from.clone(), to.clone());
    loop {
        let moved = moving.step(NOW).await?;
        assert_eq!((&moved.stay, &moved.unreadable), (&vec![], &vec![]));
        moved.moved.iter().for_each(|restored| hand(restored.id));
        from.sync().await?;
        if !moved.more {
            break;
        }
    }
    moving.finish().await?;
    from.sync().await?;
    to.sync().await
}

#[test]
fn a_spool_is_emptied_whole_and_what_it_knew_goes_along() {
    let from = FaultyStorage::new(full_spool(), Faults::default());
    let to = FaultyStorage::new(MemoryStorage::new(), Faults::default());
    let both = open_both(&from, &to).unwrap();
    with_writers(&both, async {
        let before = both.0.live(None, usize::MAX);
        let mut handed = BTreeMap::new();
        empty(&both, &mut handed).await.unwrap();
        assert_eq!((both.0.messages(), handed.len() as u64), (0, MESSAGES));
        for (tag, id) in before.iter().enumerate() {
            let origin = Origin { lineage: both.0.lineage(), id: *id };
            assert_eq!(both.1.ancestry().standing(origin), Standing::Known);
            let Some(new) = both.1.holds(origin) else {
                assert!(id.micros() % 2 == 0, "delivered");
                continue;
            };
            let message = both.1.load(new).await.unwrap();
            assert_eq!(message.states[0].status, RecipientStatus::Delivered);
            assert_eq!((message.states[1].attempts, message.states[1].is_finished()), (1, false));
            assert_eq!(message.reasons[1].as_ref().unwrap().text, "Deferred");
            assert!(read_all(&both.1, new).await.unwrap() == content(tag as u64, BYTES));
        }
    });
}

/// At every stop, of either file system, again and again: each message is alive once, or delivered.
#[test]
fn a_stop_at_any_write_of_either_spool_leaves_each_message_once() {
    let full = full_spool();
    let history = |crash_from: Option<u64>, crash_to: Option<u64>, tear: u64| {
        let (mut from, mut to) = (full.snapshot(), MemoryStorage::new());
        let mut steps = (0, 0);
        let mut delivered: BTreeSet<QueueId> = BTreeSet::new();
        let mut copies: BTreeMap<QueueId, BTreeSet<QueueId>> = BTreeMap::new();
        for life in 0..3 {
            let late = |crash: Option<u64>| match life {
                0 => crash,
                1 => crash.map(|_| 2 + tear % 13),
                _ => None,
            };
            let files = (
                FaultyStorage::new(
                    from,
                    Faults { seed: tear, crash_at: late(crash_from), ..Faults::default() },
                ),
                FaultyStorage::new(to, Faults { seed: tear, crash_at: late(crash_to), ..Faults::default() }),
            );
            if let Some(both) = open_both(&files.0, &files.1) {
                with_writers(&both, async {
                    for id in both.1.live(None, usize::MAX) {
                        copies.entry(both.1.origin_of(id).id).or_default().insert(id);
                        assert!(!delivered.contains(&both.1.origin_of(id).id), "it came back");
                    }
                    let done = empty(&both, &mut BTreeMap::new()).await;
                    assert!(life < 2 || done.is_ok(), "{done:?}");
                    for id in both.1.live(None, usize::MAX) {
                        copies.entry(both.1.origin_of(id).id).or_default().insert(id);
                    }
                    // Durable, as far as the ends of both say so.
                    if both.1.sync().await.is_ok() && done.is_ok() {
                        delivered.extend(full_ids(&full).into_iter().filter(|id| id.micros() % 2 == 0));
                    }
                });
            }
            if life == 0 {
                steps = (files.0.steps(), files.1.steps());
            }
            // The machine stops whole.
            files.0.crash();
            files.1.crash();
            (from, to) = (files.0.restart(), files.1.restart());
        }
        let files = (FaultyStorage::new(from, Faults::default()), FaultyStorage::new(to, Faults::default()));
        let both = open_both(&files.0, &files.1).unwrap();
        with_writers(&both, async {
            assert_eq!(both.0.messages(), 0);
            for (tag, id) in full_ids(&full).into_iter().enumerate() {
                let origin = Origin { lineage: both.0.lineage(), id };
                assert!(copies.get(&id).is_none_or(|copies| copies.len() == 1), "{id} twice: {copies:?}");
                match both.1.holds(origin) {
                    Some(new) => {
                        assert!(id.micros() % 2 == 1, "{id} is delivered");
                        assert!(read_all(&both.1, new).await.unwrap() == content(tag as u64, BYTES));
                    }
                    None => assert!(id.micros() % 2 == 0, "{id} is lost"),
                }
            }
            assert_eq!(both.1.messages() as u64, MESSAGES / 2);
        });
        steps
    };
    let (from_steps, to_steps) = history(None, None, 0);
    assert!(from_steps > 3 && to_steps > 8, "{from_steps} and {to_steps} steps");
    let mut stops = 0;
    for (steps, which) in [(from_steps, 0), (to_steps, 1)] {
        for crash_at in 0..=steps {
            for tear in 0..3 {
                let named = Named(which, crash_at, tear);
                let (from, to) = if which == 0 { (Some(crash_at), None) } else { (None, Some(crash_at)) };
                history(from, to, crash_at * 3 + tear);
                drop(named);
                stops += 1;
            }
        }
    }
    assert!(stops > 60, "{stops} stops");
}

fn full_ids(full: &MemoryStorage) -> Vec<QueueId> {
    block_on(Spool::open(full.snapshot(), old_number(), small())).unwrap().0.live(None, usize::MAX)
}

#[test]
fn what_is_recorded_of_a_message_under_way_is_applied_where_it_ends_up() {
    let from = FaultyStorage::new(full_spool(), Faults::default());
    let to = FaultyStorage::new(MemoryStorage::new(), Faults::default());
    let both = open_both(&from, &to).unwrap();
    with_writers(&both, async {
        let id = both.0.live(None, 1)[0];
        let mut moving = Move::new(both.0.clone(), both.1.clone());
        let steering = async {
            while !both.0.inner.desk.borrow().departing.contains_key(&id) {
                futures_lite::future::yield_now().await;
            }
            both.0.record(id, vec![outcome(1, OutcomeKind::Held)]);
            pending().await
        };
        let moved = or(moving.step(NOW), steering).await.unwrap();
        let new = moved.moved.iter().find(|restored| restored.from == id).unwrap().id;
        assert!(both.1.load(new).await.unwrap().states[1].held);
        assert!(!both.0.contains(id));
    });
}

struct Named(u8, u64, u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let which = ["old", "new"][usize::from(self.0)];
            eprintln!("the {which} spool stopped at step {}, torn by {}", self.1, self.2);
        }
    }
}
