//! No space, refused writes, segments used again, waiters that go away.

use super::harness::*;
use crate::storage::faulty::Faults;
use crate::*;
use futures_lite::future::{block_on, poll_once, yield_now};

fn faulty(faults: Faults) -> FaultyStorage {
    FaultyStorage::new(MemoryStorage::new(), faults)
}

#[test]
fn a_full_device_refuses_mail_records_outcomes_and_takes_mail_again() {
    let storage = faulty(Faults { files_max: Some(4), ..Default::default() });
    opened(storage, small(), |spool, _| async move {
        let mut ids = Vec::new();
        let refused = loop {
            match deliver_in(&spool, &content(1, 8000), 1).await {
                Ok(stored) => ids.push(stored.id),
                Err(error) => break error,
            }
        };
        assert_eq!((refused, ids.len() > 10), (CommitError::Full, true));
        assert_eq!(spool.live(None, 999), ids, "what was refused is not there");
        assert_eq!(spool.fault(), None);
        assert!(deliver_in(&spool, &content(1, 8000), 1).await.is_err(), "and so is the next one");
        ids.iter().for_each(|id| spool.record(*id, delivered(1)));
        spool.sync().await.expect("outcomes have their spare segment");
        for _ in 0..50 {
            let id = deliver_in(&spool, &content(2, 8000), 1).await.expect("space came back").id;
            spool.record(id, delivered(1));
        }
        assert_eq!(spool.stats().segments, 4);
    });
}

#[test]
fn space_that_comes_back_on_the_device_is_used() {
    let storage = faulty(Faults { files_max: Some(2), ..Default::default() });
    opened(storage.clone(), small(), |spool, _| async move {
        while deliver_in(&spool, &content(1, 8000), 1).await.is_ok() {}
        storage.set(|faults| faults.files_max = None);
        deliver_in(&spool, b"x", 1).await.unwrap();
    });
}

#[test]
fn a_failed_write_poisons_the_spool_and_reading_goes_on() {
    let storage = faulty(Faults::default());
    opened(storage.clone(), small(), |spool, _| async move {
        let kept = deliver_in(&spool, b"kept", 1).await.unwrap().id;
        storage.set(|faults| faults.write_error_at = Some(0));
        let Err(CommitError::Poisoned(fault)) = deliver_in(&spool, b"lost", 1).await else { panic!("EIO") };
        assert_eq!(fault.os_error, Some(libc::EIO));
        storage.set(|faults| faults.write_error_at = None);
        let steps = storage.steps();
        assert_eq!(deliver_in(&spool, b"x", 1).await, Err(CommitError::Poisoned(fault.clone())));
        assert_eq!(spool.sync().await, Err(CommitError::Poisoned(fault.clone())));
        assert_eq!((spool.fault(), storage.steps()), (Some(fault), steps), "nothing was tried again");
        assert_eq!(read_all(&spool, kept).await.unwrap(), b"kept");
        spool.record(kept, delivered(1));
        assert!(spool.close().await.is_err() || storage.steps() == steps);
    });
}

#[test]
fn segments_are_used_again_and_the_spool_does_not_grow() {
    let storage = MemoryStorage::new();
    opened(storage, small(), |spool, _| async move {
        let mut seeds = std::collections::BTreeMap::new();
        for round in 0..300 {
            let id = deliver_in(&spool, &content(round, 6000), 1).await.unwrap().id;
            spool.record(id, delivered(1));
            let table = spool.inner.table.borrow();
            seeds.extend(table.segments.values().map(|segment| (segment.mark.sequence, segment.seed)));
        }
        let distinct: std::collections::BTreeSet<_> = seeds.values().collect();
        assert_eq!(distinct.len(), seeds.len(), "each life of a file has its own checksums");
        let stats = spool.stats();
        assert!(stats.segments <= 4 && stats.segments_recycled > 10, "{stats:?}");
    });
}

#[test]
fn segments_beyond_what_is_kept_idle_are_given_back() {
    let storage = MemoryStorage::new();
    opened(storage.clone(), small(), |spool, _| async move {
        let mut ids = Vec::new();
        for round in 0..200 {
            ids.push(deliver_in(&spool, &content(round, 8000), 1).await.unwrap().id);
        }
        let worst = storage.slots().len();
        assert!(worst > 20);
        ids.iter().for_each(|id| spool.record(*id, delivered(1)));
        for round in 0..200 {
            let id = deliver_in(&spool, &content(round, 8000), 1).await.unwrap().id;
            spool.record(id, delivered(1));
        }
        assert!(storage.slots().len() <= small().idle_segments_max + 3, "{:?}", spool.stats());
    });
}

#[test]
fn an_open_draft_keeps_the_segments_of_its_extents() {
    opened(MemoryStorage::new(), small(), |spool, _| async move {
        let octets = content(9, 20_000);
        let mut draft = spool.begin(NOW);
        spool.append(&mut draft, &octets).await.unwrap();
        for round in 0..100 {
            let id = deliver_in(&spool, &content(round, 8000), 1).await.unwrap().id;
            spool.record(id, delivered(1));
            spool.sync().await.unwrap();
        }
        let stored = spool.commit(draft, envelope(1), ContentFlags::default()).await.unwrap();
        assert_eq!(read_all(&spool, stored.id).await.unwrap(), octets);
        spool.record(stored.id, delivered(1));
        spool.sync().await.unwrap();
        let abandoned = spool.begin(NOW);
        drop(abandoned);
        for round in 0..100 {
            let id = deliver_in(&spool, &content(round, 8000), 1).await.unwrap().id;
            spool.record(id, delivered(1));
        }
        let first = *spool.inner.table.borrow().segments.keys().next().unwrap();
        assert!(first > 10, "the segments of the draft came free: {first}");
    });
}

#[test]
fn a_commit_whose_waiter_went_away_is_told_of_once() {
    opened(MemoryStorage::new(), small(), |spool, _| async move {
        let draft = spool.begin(NOW);
        let id = draft.id();
        let commit = spool.commit(draft, envelope(1), ContentFlags::default());
        assert!(poll_once(commit).await.is_none());
        while !spool.contains(id) {
            yield_now().await;
        }
        assert_eq!((spool.unclaimed(), spool.unclaimed()), (vec![id], vec![]));
    });
}

#[test]
fn a_writer_that_is_stopped_within_a_write_poisons() {
    let storage = MemoryStorage::new();
    let opening = Spool::open(storage, number(), small());
    let (spool, _) = futures_lite::future::block_on(opening).unwrap();
    futures_lite::future::block_on(async {
        let draft = spool.begin(NOW);
        let mut commit = Box::pin(spool.commit(draft, envelope(1), ContentFlags::default()));
        assert!(poll_once(&mut commit).await.is_none());
        {
            let mut writer = Box::pin(spool.writer());
            assert!(poll_once(&mut writer).await.is_none());
        }
        assert!(matches!(commit.await, Err(CommitError::Poisoned(_))));
    });
}

#[test]
fn after_close_mail_is_refused_and_the_next_start_finds_a_sealed_log() {
    let storage = MemoryStorage::new();
    opened(storage.clone(), small(), |spool, _| async move {
        let id = deliver_in(&spool, b"x", 1).await.unwrap().id;
        spool.record(id, vec![outcome(0, OutcomeKind::Deferred)]);
        let (other, draft) = (spool.clone(), spool.begin(NOW));
        spool.close().await.unwrap();
        let late = other.commit(draft, envelope(1), ContentFlags::default()).await;
        assert_eq!(late, Err(CommitError::Closed));
    });
    opened(storage, small(), |spool, recovery| async move {
        assert_eq!(recovery.cut, None);
        let id = spool.live(None, 1)[0];
        assert_eq!(spool.load(id).await.unwrap().states[0].attempts, 1, "close wrote what was pending");
    });
}

#[test]
fn a_spool_written_with_another_segment_size_is_taken_over_and_its_segments_given_back() {
    let sizes = [64 << 10, 128 << 10, 1 << 20];
    for (from, to) in sizes.into_iter().flat_map(|from| sizes.map(|to| (from, to))) {
        let storage = MemoryStorage::new();
        let (before, after) =
            (Options { segment_bytes: from, ..small() }, Options { segment_bytes: to, ..small() });
        let ids = opened(storage.clone(), before, |spool, _| async move {
            let mut ids = Vec::new();
            for tag in 0..60 {
                ids.push(deliver_in(&spool, &content(tag, 30_000), 2).await.unwrap().id);
            }
            spool.record(ids[3], vec![outcome(1, OutcomeKind::Deferred)]);
            spool.close().await.unwrap();
            ids
        });
        let old = storage.slots();
        opened(storage.clone(), after, |spool, recovery| async move {
            assert_eq!((spool.live(None, 99), &recovery.damages[..]), (ids.clone(), &[][..]));
            assert_eq!(recovery.segments_indexed, recovery.segments);
            for (tag, id) in ids.iter().enumerate() {
                assert_eq!(read_all(&spool, *id).await.unwrap(), content(tag as u64, 30_000));
                spool.record(*id, delivered(2));
            }
            // Four old segments are given back with every new one.
            let taken = spool.inner.desk.borrow().last_segment + 20;
            while spool.inner.desk.borrow().last_segment < taken {
                let id = deliver_in(&spool, &content(1, 30_000), 1).await.unwrap().id;
                spool.record(id, delivered(1));
            }
            let table = spool.inner.table.borrow();
            assert!(table.segments.values().all(|segment| segment.bytes == to), "from {from} to {to}");
        });
        let gone = old.iter().filter(|slot| !storage.slots().contains(slot)).count();
        assert_eq!(gone == old.len(), from != to, "from {from} to {to}: {gone} of {}", old.len());
    }
}

#[test]
fn what_does_not_fit_the_format_is_refused_and_harms_nobody() {
    opened(MemoryStorage::new(), small(), |spool, _| async move {
        let long = Envelope { helo: "x".repeat(70_000), ..Envelope::clone(&envelope(1)) };
        let many = envelope(3000);
        for envelope in [std::sync::Arc::new(long), many] {
            let commit = spool.commit(spool.begin(NOW), envelope, ContentFlags::default());
            assert_eq!(commit.await, Err(CommitError::TooLarge));
        }
        deliver_in(&spool, b"x", 1000).await.unwrap();
    });
}

#[test]
fn options_out_of_bounds_are_refused_by_name() {
    let bad = [
        (Options { segment_bytes: 1000, ..small() }, "segment_bytes"),
        (Options { segment_bytes: (64 << 10) + 1, ..small() }, "segment_bytes"),
        (Options { extent_bytes_max: 64 << 10, ..small() }, "extent_bytes_max"),
        (Options { batch_bytes_max: 0, ..small() }, "batch_bytes_max"),
    ];
    for (options, name) in bad {
        let opening = Spool::open(MemoryStorage::new(), number(), options);
        let Err(OpenError::Options(what)) = futures_lite::future::block_on(opening) else { panic!("{name}") };
        assert!(what.starts_with(name), "{what}");
    }
}

/// A move reads for a while; what fails meanwhile has failed for it too.
#[test]
fn nothing_more_is_written_once_a_write_has_failed_whatever_was_under_way() {
    let mut cut_short = 0;
    for polls in 0..40 {
        let storage = faulty(Faults::default());
        let (spool, _) = block_on(Spool::open(storage.clone(), number(), small())).unwrap();
        with_writer(&spool, async {
            let stays = deliver_in(&spool, &content(1, 20_000), 1).await.unwrap().id;
            for tag in 0..60 {
                let id = deliver_in(&spool, &content(tag, 6000), 1).await.unwrap().id;
                spool.record(id, delivered(1));
            }
            let mut step = Box::pin(spool.compact_step());
            for _ in 0..polls {
                if poll_once(&mut step).await.is_some() {
                    return;
                }
                yield_now().await;
            }
            storage.set(|faults| faults.write_error_at = Some(0));
            assert!(matches!(deliver_in(&spool, b"x", 1).await, Err(CommitError::Poisoned(_))));
            storage.set(|faults| faults.write_error_at = None);
            let steps = storage.steps();
            let moved = step.await;
            assert_eq!(storage.steps(), steps, "after {polls} polls");
            assert!(spool.contains(stays));
            cut_short += matches!(moved, Err(CommitError::Poisoned(_))) as usize;
        });
    }
    assert!(cut_short > 5, "{cut_short} moves were cut short");
}

/// All that the old segment held is finished, and it is of another size: it may go, but not before another
/// header knows which ids were given out.
#[test]
fn ids_are_not_given_out_again_when_all_segments_are_of_another_size() {
    let (storage, options) = (MemoryStorage::new(), Options { segment_bytes: 96 << 10, ..small() });
    let last = opened(storage.clone(), small(), |spool, _| async move {
        let id = deliver_in(&spool, b"x", 1).await.unwrap().id;
        spool.record(id, delivered(1));
        spool.close().await.unwrap();
        id
    });
    let mut cuts = 0;
    for crash_at in 0.. {
        let tear = crate::storage::faulty::Tear::Before;
        let faults = Faults { crash_at: Some(crash_at), tear, ..Faults::default() };
        let storage = FaultyStorage::new(storage.snapshot(), faults);
        let done = block_on(Spool::open(storage.clone(), number(), options))
            .is_ok_and(|(spool, _)| with_writer(&spool, deliver_in(&spool, b"y", 1)).is_ok());
        let again = opened(storage.restart(), options, |spool, _| async move { spool.begin(NOW).id() });
        assert!(again > last, "stopped in step {crash_at}: {again} was given out before");
        if done {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 3, "{cuts} cuts");
}
