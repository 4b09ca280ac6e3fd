//! Messages that wait long are moved, whatever happens meanwhile, and disk use stays within its bound.

use super::harness::*;
use crate::*;
use futures_lite::future::{block_on, poll_once, yield_now};

fn segments_of<S: Storage>(spool: &Spool<S>) -> Vec<u64> {
    spool.inner.table.borrow().segments.keys().copied().collect()
}

/// Mail that comes and goes.
async fn traffic<S: Storage>(spool: &Spool<S>, rounds: u64) {
    for round in 0..rounds {
        let id = deliver_in(spool, &content(round, 6000), 1).await.unwrap().id;
        spool.record(id, delivered(1));
    }
    spool.sync().await.unwrap();
}

fn deferred(recipient: u32, attempts: u16) -> Outcome {
    Outcome { attempts, text: format!("{attempts} times"), ..outcome(recipient, OutcomeKind::Deferred) }
}

/// A message that waits in the first segment, with much behind it that it keeps from use.
async fn stuck<S: Storage>(spool: &Spool<S>, bytes: usize) -> QueueId {
    let id = deliver_in(spool, &content(77, bytes), 3).await.unwrap().id;
    spool.record(id, vec![outcome(0, OutcomeKind::Delivered), deferred(1, 1)]);
    traffic(spool, 100).await;
    id
}

async fn is_whole<S: Storage>(spool: &Spool<S>, id: QueueId, bytes: usize, attempts: u16) {
    let message = spool.load(id).await.unwrap();
    assert_eq!(message.envelope, *envelope(3));
    let states: Vec<_> = message.states.iter().map(|state| (state.status, state.attempts)).collect();
    use RecipientStatus::{Delivered, Waiting};
    assert_eq!(states, [(Delivered, 1), (Waiting, attempts), (Waiting, 0)]);
    let reasons: Vec<_> =
        message.reasons.into_iter().map(|of| of.map(|of| (of.text, of.at_micros))).collect();
    let times = format!("{attempts} times");
    assert_eq!(reasons, [Some(("Delivered".into(), NOW)), Some((times, NOW)), None]);
    assert!(read_all(spool, id).await.unwrap() == content(77, bytes));
}

#[test]
fn a_message_that_waits_moves_with_states_and_reasons_and_frees_what_it_kept() {
    for bytes in [0, 10, 7000, 60_000, 200_000] {
        let storage = MemoryStorage::new();
        let id = opened(storage.clone(), small(), |spool, _| async move {
            let id = stuck(&spool, bytes).await;
            let before = spool.stats();
            assert!(before.segments - before.segments_idle > 8, "{before:?}");
            let done = spool.compact_step().await.unwrap();
            assert_eq!((done.messages, done.bytes, done.abandoned), (1, bytes as u64, 0));
            is_whole(&spool, id, bytes, 1).await;
            let after = spool.stats();
            assert!(after.segments - after.segments_idle <= 2 + bytes / 20_000, "{after:?}");
            assert_eq!(spool.compact_step().await.unwrap(), Compacted::default(), "no more to do");
            traffic(&spool, 100).await;
            is_whole(&spool, id, bytes, 1).await;
            id
        });
        opened(storage, small(), |spool, recovery| async move {
            assert_eq!((recovery.messages, &recovery.damages[..]), (1, &[][..]));
            is_whole(&spool, id, bytes, 1).await;
            spool.record(id, delivered(3));
            spool.sync().await.unwrap();
            let live = spool.stats().live_bytes;
            assert_eq!(live, 0, "what is finished is not counted as needed");
        });
    }
}

#[test]
fn a_delivery_under_way_reads_on_while_its_message_moves() {
    const BYTES: usize = 60_000;
    opened(MemoryStorage::new(), small(), |spool, _| async move {
        let id = stuck(&spool, BYTES).await;
        let message = spool.load(id).await.unwrap();
        let mut octets = spool.read_loaded(&message, 0, 9000).await.unwrap();
        let first = segments_of(&spool)[0];
        let mut slow = Box::pin(spool.read(id, 20_000, 100));
        assert!(poll_once(&mut slow).await.is_none());
        assert_eq!(spool.compact_step().await.unwrap().messages, 1);
        traffic(&spool, 100).await;
        assert_eq!(slow.await.unwrap()[..], content(77, BYTES)[20_000..20_100]);
        traffic(&spool, 100).await;
        assert!(segments_of(&spool)[0] > first, "its old place is gone");
        while octets.len() < BYTES {
            octets.extend(spool.read_loaded(&message, octets.len() as u64, 9000).await.unwrap());
        }
        assert!(octets == content(77, BYTES));
    });
}

/// Something happens to the message after `polls` polls of the step that moves it: whenever that is,
/// a restart, with and without the outcome being durable first, finds all of it.
#[test]
fn an_outcome_at_any_moment_of_a_move_counts() {
    for bytes in [3000, 30_000] {
        for what in 0..4 {
            let mut moved = [0, 0];
            for polls in 0..60 {
                let storage = MemoryStorage::new();
                let (id, messages) = opened(storage.clone(), small(), |spool, _| async move {
                    let id = stuck(&spool, bytes).await;
                    let mut step = Box::pin(spool.compact_step());
                    let mut done = None;
                    for _ in 0..polls {
                        if done.is_none() {
                            done = poll_once(&mut step).await;
                        }
                        yield_now().await;
                    }
                    let dsn = match what {
                        0 => {
                            spool.record(id, vec![deferred(1, 2)]);
                            None
                        }
                        1 => {
                            spool.record(id, delivered(3));
                            None
                        }
                        _ => {
                            let kind = if what == 2 { OutcomeKind::Bounced } else { OutcomeKind::Expired };
                            let ends = (0..3).map(|at| outcome(at, kind)).collect();
                            let draft = spool.begin(NOW);
                            let flags = ContentFlags::default();
                            let mut commit =
                                Box::pin(spool.commit_with(draft, envelope(1), flags, (id, ends)));
                            let early = poll_once(&mut commit).await;
                            assert!(early.is_none());
                            Some(commit)
                        }
                    };
                    let done = match done {
                        Some(done) => done,
                        None => step.await,
                    };
                    if let Some(commit) = dsn {
                        commit.await.unwrap();
                    }
                    spool.sync().await.unwrap();
                    // Here and only here may the old place, and the new one of a finished message, go.
                    traffic(&spool, if polls % 2 == 0 { 0 } else { 60 }).await;
                    if what == 0 {
                        is_whole(&spool, id, bytes, 2).await;
                    }
                    (id, done.unwrap().messages)
                });
                moved[messages] += 1;
                opened(storage, small(), |spool, recovery| async move {
                    assert_eq!(recovery.damages, [], "{what} after {polls} polls");
                    match what {
                        0 => is_whole(&spool, id, bytes, 2).await,
                        _ => assert!(!spool.contains(id), "{what} after {polls} polls"),
                    }
                });
            }
            assert!(moved[0] > 0 && moved[1] > 0, "both ways must be met: {moved:?}");
        }
    }
}

fn refers_to<S: Storage>(spool: &Spool<S>) -> (u64, u64) {
    let table = spool.inner.table.borrow();
    let last = table.segments.values().next_back().unwrap();
    (last.mark.sequence, last.refers_to)
}

/// The old copy still lies on disk when the new one is finished, and something holds its segment: neither
/// the new commit record nor the outcome may be lost before it.
#[test]
fn a_finished_message_does_not_come_back_from_its_old_place() {
    let storage = MemoryStorage::new();
    let id = opened(storage.clone(), small(), |spool, _| async move {
        let id = deliver_in(&spool, &content(1, 3000), 1).await.unwrap().id;
        traffic(&spool, 100).await;
        spool.close().await.unwrap();
        id
    });
    // What was moved lies in a segment of its own, which speaks of nothing else.
    let first = opened(storage.clone(), small(), |spool, _| async move {
        assert_eq!(spool.compact_step().await.unwrap().messages, 1);
        let (last, refers) = refers_to(&spool);
        assert!(last > 10 && refers == 1, "segment {last} speaks of {refers}");
        refers
    });
    opened(storage.clone(), small(), |spool, _| async move {
        let (_, refers) = refers_to(&spool);
        assert_eq!(refers, first, "a restart sees it too");
        // Something keeps the old place, as a long read does.
        let old = spool.inner.table.borrow().segments[&first].mark.clone();
        spool.record(id, delivered(1));
        for _ in 0..100 {
            traffic(&spool, 1).await;
        }
        assert_eq!(segments_of(&spool)[0], old.sequence);
    });
    opened(storage, small(), |spool, recovery| async move {
        assert_eq!((spool.live(None, 9), &recovery.damages[..]), (vec![], &[][..]));
    });
}

#[test]
fn a_reason_that_cannot_be_read_takes_no_state_along_and_holds_nothing() {
    let storage = MemoryStorage::new();
    let id = opened(storage.clone(), small(), |spool, _| async move {
        let id = stuck(&spool, 3000).await;
        storage.damage(0, |octets| {
            let at = octets.windows(7).position(|text| text == b"1 times").unwrap();
            octets[at] ^= 1;
        });
        assert_eq!(spool.compact_step().await.unwrap().messages, 1);
        let stats = spool.stats();
        assert!(stats.segments - stats.segments_idle <= 2, "{stats:?}");
        traffic(&spool, 200).await;
        let (copy, states) = (storage.snapshot(), spool.load(id).await.unwrap().states);
        assert_eq!((states[0].status, states[1].attempts), (RecipientStatus::Delivered, 1));
        (copy, id, states)
    });
    let (copy, id, states) = id;
    opened(copy, small(), |spool, _| async move {
        assert_eq!(spool.load(id).await.unwrap().states, states);
    });
}

/// Its last outcome is queued behind the move that is in flight, and holds the new place from then on.
#[test]
fn a_message_that_finishes_while_its_move_is_in_flight_keeps_its_new_place() {
    opened(MemoryStorage::new(), small(), |spool, _| async move {
        let id = stuck(&spool, 60_000).await;
        let old = segments_of(&spool)[0];
        let mut step = Box::pin(spool.compact_step());
        let in_flight = || {
            let desk = spool.inner.desk.borrow();
            let first = desk.compaction.moved && !desk.in_flight.is_empty() && desk.pending.is_empty();
            first && desk.index.get(id).unwrap().entry().lies_in(old)
        };
        // Until the index is walked, `moved` is true from the start; then only after the move was laid out.
        assert!(poll_once(&mut step).await.is_none());
        while !in_flight() {
            assert!(poll_once(&mut step).await.is_none());
            yield_now().await;
        }
        spool.record(id, delivered(3));
        assert_eq!(step.await.unwrap().messages, 1);
        let mut desk = spool.inner.desk.borrow_mut();
        let mut groups = desk.pending.iter_mut().flat_map(|batch| &mut batch.groups);
        let entry = groups.find_map(|group| group.finished_entry(id)).expect("it waits to be written");
        assert!(!entry.lies_in(old) && entry.lies_in(segments_of(&spool).pop().unwrap()));
    });
}

#[test]
fn what_cannot_be_moved_is_passed_over_and_tried_again_later() {
    opened(MemoryStorage::new(), small(), |spool, _| async move {
        let mut draft = spool.begin(NOW);
        spool.append(&mut draft, &content(1, 20_000)).await.unwrap();
        let id = stuck(&spool, 3000).await;
        let run = async || {
            for steps in 0..20 {
                if !spool.compact_step().await.unwrap().more {
                    return steps;
                }
            }
            panic!("it goes on for ever");
        };
        assert!(run().await > 0 && spool.stats().segments > 10, "the open draft keeps all");
        run().await;
        let stored = spool.commit(draft, envelope(1), ContentFlags::default()).await.unwrap();
        run().await;
        let stats = spool.stats();
        assert!(stats.segments - stats.segments_idle <= 4, "{stats:?}");
        is_whole(&spool, id, 3000, 1).await;
        assert_eq!(read_all(&spool, stored.id).await.unwrap(), content(1, 20_000));
    });
}

/// The octets of the waiting message change on the device.
#[test]
fn what_does_not_verify_is_never_moved() {
    let storage = MemoryStorage::new();
    opened(storage.clone(), small(), |spool, _| async move {
        let id = stuck(&spool, 3000).await;
        storage.damage(0, |octets| octets[5000] ^= 1);
        let mut steps = 0;
        while spool.compact_step().await.unwrap().more {
            steps += 1;
        }
        assert!((1..9).contains(&steps) && spool.stats().moved == 0);
        assert!(matches!(read_all(&spool, id).await, Err(ReadError::Damaged { .. })));
    });
}

#[test]
fn a_week_with_stuck_messages_stays_within_the_bound() {
    opened(MemoryStorage::new(), small(), |spool, _| async move {
        let mut waiting = Vec::new();
        let (mut worst, mut moved) = (0, 0);
        for hour in 0..168 {
            if hour % 24 == 0 {
                waiting.push(deliver_in(&spool, &content(77, 3000 + hour * 100), 3).await.unwrap().id);
            }
            waiting.iter().for_each(|id| spool.record(*id, vec![deferred(1, hour as u16)]));
            traffic(&spool, 25).await;
            loop {
                let done = spool.compact_step().await.unwrap();
                moved += done.messages;
                if !done.more {
                    break;
                }
            }
            let stats = spool.stats();
            let kept = (stats.segments - stats.segments_idle) as u64 * small().segment_bytes;
            let bound = 2 * stats.live_bytes + 6 * small().segment_bytes;
            assert!(kept <= bound, "hour {hour}: {kept} over {bound}: {stats:?}");
            worst = worst.max(stats.segments);
        }
        assert!(worst <= 8 + small().idle_segments_max, "{worst} segments at the worst");
        assert!(moved > 0 && moved < 600, "{moved} messages moved");
        for (day, id) in waiting.iter().enumerate() {
            assert!(read_all(&spool, *id).await.unwrap() == content(77, 3000 + day * 2400));
        }
    });
}

#[test]
fn without_room_a_move_is_refused_and_the_message_stays() {
    let storage = FaultyStorage::new(MemoryStorage::new(), Default::default());
    let (spool, _) = block_on(Spool::open(storage.clone(), number(), small())).unwrap();
    with_writer(&spool, async {
        let id = stuck(&spool, 30_000).await;
        storage.set(|faults| faults.files_max = Some(0));
        let mut filler = Vec::new();
        while let Ok(stored) = deliver_in(&spool, &content(1, 3000), 1).await {
            filler.push(stored.id);
        }
        assert_eq!(spool.compact_step().await, Err(CommitError::Full));
        is_whole(&spool, id, 30_000, 1).await;
        storage.set(|faults| faults.files_max = None);
        while spool.compact_step().await.unwrap().more {}
        is_whole(&spool, id, 30_000, 1).await;
        assert!(filler.iter().all(|id| spool.contains(*id)));
    });
}
