//! Copies of a spool are brought into another one: once, again, older and newer ones, with stops at every step.

use super::harness::*;
use crate::*;
use futures_lite::future::block_on;
use std::collections::{BTreeMap, BTreeSet};

/// What differs between the ways to take a copy.
#[derive(Clone, Default)]
struct How {
    again: bool,
    drafts: Vec<QueueId>,
    /// Cannot be read from the copy.
    unreadable: Vec<QueueId>,
    /// What is restored is delivered at once.
    deliver: bool,
}

fn source(copy: &Spool<MemoryStorage>, to: &Spool<impl Storage>, how: &How) -> Source {
    let mut own = Ancestry::default();
    own.advance(to.lineage(), to.id_floor(), []);
    Source {
        lineage: copy.lineage(),
        known: vec![own, to.ancestry()],
        drafts: how.drafts.clone(),
        own: BTreeSet::from([to.lineage()]),
        again: how.again,
    }
}

/// Brings everything in; calls `each` with what is durable.
async fn bring<S: Storage>(
    copy: &Spool<MemoryStorage>,
    to: &Spool<S>,
    how: &How,
    mut each: impl FnMut(Restored),
) -> Result<Brought, CommitError> {
    let mut restore = Restore::new(to.clone(), source(copy, to, how));
    let mut take = |restored: Vec<Restored>| {
        for restored in restored {
            each(restored);
            if how.deliver {
                to.record(restored.id, delivered(1));
            }
        }
    };
    for id in copy.live(None, usize::MAX) {
        let message = copy.load(id).await.unwrap();
        if restore.look(id, message.envelope.origin) != Look::Wanted {
            continue;
        }
        if how.unreadable.contains(&id) {
            restore.unreadable(id);
            continue;
        }
        let bytes = message.content_bytes;
        restore.begin(message.clone().into(), NOW);
        let mut read = 0;
        while read < bytes {
            let octets = copy.read_loaded(&message, read, usize::MAX).await.unwrap();
            read += octets.len() as u64;
            restore.octets(&octets).await?;
        }
        take(restore.end().await?);
    }
    take(restore.finish(copy.id_floor(), &copy.ancestry()).await?);
    Ok(restore.brought())
}

async fn brought(copy: &MemoryStorage, to: &Spool<MemoryStorage>, how: How) -> Brought {
    let copy = open(copy);
    bring(&copy, to, &how, |_| {}).await.unwrap()
}

fn open(copy: &MemoryStorage) -> Spool<MemoryStorage> {
    block_on(Spool::open(copy.snapshot(), number(), small())).expect("the copy opens").0
}

/// A spool with messages of these tags, and what it looks like then.
fn filled(storage: &MemoryStorage, tags: std::ops::Range<u64>, bytes: usize) -> MemoryStorage {
    opened(storage.clone(), small(), |spool, _| async move {
        for tag in tags {
            deliver_in(&spool, &content(tag, bytes), 1).await.unwrap();
        }
        spool.close().await.unwrap();
    });
    storage.snapshot()
}

fn counts(brought: Brought) -> [u64; 4] {
    [brought.restored, brought.here, brought.finished, brought.damaged]
}

#[test]
fn the_second_time_nothing_is_brought_in() {
    let copy = filled(&MemoryStorage::new(), 0..300, 700);
    let storage = MemoryStorage::new();
    opened(storage.clone(), small(), |to, _| async move {
        let first = brought(&copy, &to, How::default()).await;
        assert_eq!((counts(first), first.restored_bytes), ([300, 0, 0, 0], 300 * 700));
        assert_eq!(counts(brought(&copy, &to, How::default()).await), [0, 300, 0, 0]);
        for id in to.live(None, 100) {
            to.record(id, delivered(1));
        }
        assert_eq!(counts(brought(&copy, &to, How::default()).await), [0, 200, 100, 0]);
        let again = How { again: true, ..How::default() };
        assert_eq!(counts(brought(&copy, &to, again).await), [100, 200, 0, 0]);
    });
}

#[test]
fn what_is_brought_in_is_the_same_message_also_after_a_restart() {
    let copy = MemoryStorage::new();
    let what = opened(copy.clone(), small(), |spool, _| async move {
        let id = deliver_in(&spool, &content(7, 30_000), 4).await.unwrap().id;
        spool.record(id, vec![outcome(0, OutcomeKind::Delivered), outcome(1, OutcomeKind::Deferred)]);
        spool.record(id, vec![outcome(2, OutcomeKind::Held)]);
        let via = Outcome { text: "192.0.2.7:25".into(), ..outcome(3, OutcomeKind::Rerouted) };
        spool.record(id, vec![via]);
        spool.sync().await.unwrap();
        spool.load(id).await.unwrap()
    });
    let origin = open(&copy).origin_of(what.id);
    let storage = MemoryStorage::new();
    let check = async |to: &Spool<MemoryStorage>| {
        let [id] = to.live(None, 9)[..] else { panic!("one message") };
        let message = to.load(id).await.unwrap();
        assert_eq!(message.envelope, Envelope { origin: Some(origin), ..what.envelope.clone() });
        assert_eq!(message.states, what.states);
        assert_eq!((&message.reasons, &message.vias), (&what.reasons, &what.vias));
        assert!(read_all(to, id).await.unwrap() == content(7, 30_000));
        assert_eq!(to.holds(origin), Some(id));
    };
    opened(storage.clone(), small(), |to, _| async move {
        brought(&copy, &to, How::default()).await;
        check(&to).await;
        to.close().await.unwrap();
    });
    opened(storage, small(), |to, _| async move { check(&to).await });
}

#[test]
fn a_later_copy_brings_what_came_since_and_an_earlier_one_nothing() {
    let old = MemoryStorage::new();
    let earlier = filled(&old, 0..10, 700);
    opened(old.clone(), small(), |spool, _| async move {
        spool.live(None, 4).into_iter().for_each(|id| spool.record(id, delivered(1)));
        for tag in 10..15 {
            deliver_in(&spool, &content(tag, 700), 1).await.unwrap();
        }
        spool.close().await.unwrap();
    });
    let later = old.snapshot();
    let (first, second) = (earlier.clone(), later.clone());
    opened(MemoryStorage::new(), small(), |to, _| async move {
        assert_eq!(counts(brought(&first, &to, How::default()).await), [10, 0, 0, 0]);
        assert_eq!(counts(brought(&second, &to, How::default()).await), [5, 6, 0, 0]);
    });
    opened(MemoryStorage::new(), small(), |to, _| async move {
        assert_eq!(counts(brought(&later, &to, How::default()).await), [11, 0, 0, 0]);
        assert_eq!(counts(brought(&earlier, &to, How::default()).await), [0, 6, 4, 0]);
    });
}

#[test]
fn a_spool_takes_nothing_from_its_own_copies() {
    let own = MemoryStorage::new();
    let copy = filled(&own, 0..6, 700);
    opened(own, small(), |spool, _| async move {
        spool.live(None, 2).into_iter().for_each(|id| spool.record(id, delivered(1)));
        assert_eq!(counts(brought(&copy, &spool, How::default()).await), [0, 4, 2, 0]);
        assert!(spool.ancestry().is_empty(), "of itself it learns nothing");
    });
}

/// A relay R took over what A had; both are copied into a third one, and R back into A.
#[test]
fn a_message_keeps_its_first_name_and_knowledge_goes_with_the_copies() {
    let (a, r) = (MemoryStorage::new(), MemoryStorage::new());
    let copy_of_a = filled(&a, 0..10, 700);
    let first = copy_of_a.clone();
    opened(r.clone(), small(), |to, _| async move {
        brought(&first, &to, How::default()).await;
        to.live(None, 3).into_iter().for_each(|id| to.record(id, delivered(1)));
        deliver_in(&to, &content(99, 700), 1).await.unwrap();
        to.close().await.unwrap();
    });
    let (from_r, from_a) = (r.clone(), copy_of_a);
    opened(MemoryStorage::new(), small(), |third, _| async move {
        assert_eq!(counts(brought(&from_r, &third, How::default()).await), [8, 0, 0, 0]);
        assert_eq!(counts(brought(&from_a, &third, How::default()).await), [0, 7, 3, 0]);
    });
    opened(a, small(), |spool, _| async move {
        assert_eq!(counts(brought(&r, &spool, How::default()).await), [1, 7, 0, 0]);
    });
}

#[test]
fn a_message_that_was_still_arriving_at_the_first_copy_comes_with_the_second() {
    let old = MemoryStorage::new();
    let (first, drafts) = opened(old.clone(), small(), |spool, _| {
        let old = old.clone();
        async move {
            let mut slow = spool.begin(NOW);
            spool.append(&mut slow, b"slow").await.unwrap();
            deliver_in(&spool, b"quick", 1).await.unwrap();
            let (copy, drafts) = (old.snapshot(), spool.open_drafts());
            assert_eq!(drafts, [slow.id()]);
            spool.commit(slow, envelope(1), ContentFlags::default()).await.unwrap();
            assert_eq!(spool.open_drafts(), []);
            spool.close().await.unwrap();
            (copy, drafts)
        }
    });
    let how = How { drafts, ..How::default() };
    opened(MemoryStorage::new(), small(), |to, _| async move {
        assert_eq!(counts(brought(&first, &to, how.clone()).await), [1, 0, 0, 0]);
        assert_eq!(counts(brought(&first, &to, how).await), [0, 1, 0, 0]);
        assert_eq!(counts(brought(&old, &to, How::default()).await), [1, 1, 0, 0]);
    });
}

#[test]
fn what_could_not_be_read_comes_from_a_better_copy_later() {
    let copy = filled(&MemoryStorage::new(), 0..9, 700);
    let bad = open(&copy).live(None, 9)[4];
    opened(MemoryStorage::new(), small(), |to, _| async move {
        let how = How { unreadable: vec![bad], ..How::default() };
        assert_eq!(counts(brought(&copy, &to, how).await), [8, 0, 0, 1]);
        assert_eq!(counts(brought(&copy, &to, How::default()).await), [1, 8, 0, 0]);
    });
}

#[test]
fn what_was_brought_in_is_remembered_when_all_its_segments_are_used_again() {
    let copy = filled(&MemoryStorage::new(), 0..5, 700);
    let storage = MemoryStorage::new();
    let how = How { deliver: true, ..How::default() };
    for life in 0..4 {
        let (copy, how) = (copy.clone(), how.clone());
        let recycled = opened(storage.clone(), small(), |to, _| async move {
            let found = brought(&copy, &to, how).await;
            let (came, gone) = if life == 0 { (5, 0) } else { (0, 5) };
            assert_eq!(counts(found), [came, 0, gone, 0], "life {life}");
            for tag in 0..60 {
                let id = deliver_in(&to, &content(tag, 7000), 1).await.unwrap().id;
                to.record(id, delivered(1));
                to.sync().await.unwrap();
            }
            let stats = to.stats();
            assert!(stats.segments < 6, "{stats:?}");
            to.close().await.unwrap();
            stats.segments_recycled
        });
        assert!(recycled > 2, "the segments of the restore must have been used again");
    }
}

/// Stops at every step, starts again, restores again: every message is there exactly once, unless it was
/// delivered; what was delivered, durably, does not come back.
#[test]
fn a_stop_at_any_step_of_a_restore_loses_nothing_and_doubles_nothing() {
    let copy = filled(&MemoryStorage::new(), 0..20, 4500);
    let copy = open(&copy);
    let all = copy.live(None, usize::MAX);
    let mut stops = 0;
    for deliver in [false, true] {
        let how = How { deliver, ..How::default() };
        let run = |crash_at: Option<u64>, tear: u64| {
            // By the id in the copy, all ids it was given here.
            let mut given: BTreeMap<QueueId, BTreeSet<QueueId>> = BTreeMap::new();
            let mut memory = MemoryStorage::new();
            let mut steps = 0;
            for life in 0..3 {
                let crash_at = match life {
                    0 => crash_at,
                    1 => crash_at.map(|_| 3 + tear % 11),
                    _ => None,
                };
                let faults = storage::faulty::Faults { seed: tear, crash_at, ..Default::default() };
                let storage = FaultyStorage::new(memory, faults);
                if let Ok((to, _)) = block_on(Spool::open(storage.clone(), number(), small())) {
                    with_writer(&to, async {
                        // What came in just before the stop is found here, though nobody was told.
                        for id in to.live(None, usize::MAX) {
                            given.entry(to.origin_of(id).id).or_default().insert(id);
                            if how.deliver {
                                to.record(id, delivered(1));
                            }
                        }
                        let done = bring(&copy, &to, &how, |restored| {
                            given.entry(restored.from).or_default().insert(restored.id);
                        })
                        .await;
                        let _ = to.sync().await;
                        if life == 2 {
                            let done = done.unwrap();
                            assert_eq!(done.restored + done.here + done.finished, 20);
                        }
                    });
                }
                steps = steps.max(storage.steps());
                memory = storage.restart();
            }
            let (all, given, how) = (&all, &given, &how);
            opened(memory, small(), |to, _| async move {
                let waiting: Vec<QueueId> = to.live(None, usize::MAX);
                for id in all {
                    assert_eq!(given[id].len(), 1, "{id} came in twice: {given:?}");
                    let [new] = given[id].iter().collect::<Vec<_>>()[..] else { unreachable!() };
                    assert_eq!(waiting.contains(new), !how.deliver, "{id} as {new}");
                }
                assert_eq!(given.len(), 20);
                for id in waiting {
                    let tag = all.iter().position(|from| *from == to.origin_of(id).id).unwrap() as u64;
                    assert!(read_all(&to, id).await.unwrap() == content(tag, 4500));
                }
            });
            steps
        };
        let steps = run(None, 1);
        assert!(steps > 15, "too short to show something: {steps}");
        for crash_at in 0..steps {
            for tear in [crash_at * 2 + 1, crash_at * 2 + 2] {
                let named = Named(crash_at, tear, deliver);
                run(Some(crash_at), tear);
                drop(named);
                stops += 1;
            }
        }
    }
    assert!(stops > 60, "{stops}");
}

struct Named(u64, u64, bool);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("stopped at step {}, torn by {}, delivering {}", self.0, self.1, self.2);
        }
    }
}
