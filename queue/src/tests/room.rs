//! Room that is promised before a message arrives, who goes without when it is short, and what each fault
//! of the device leads to.

use super::harness::*;
use crate::storage::faulty::Faults;
use crate::*;
use futures_lite::future::{block_on, poll_once, yield_now};
use std::future::Future;
use std::pin::Pin;

fn faulty(faults: Faults) -> FaultyStorage {
    FaultyStorage::new(MemoryStorage::new(), faults)
}

fn files(count: usize) -> FaultyStorage {
    faulty(Faults { files_max: Some(count), ..Default::default() })
}

async fn reserved<S: Storage>(spool: &Spool<S>, bytes: usize) -> Result<Draft, CommitError> {
    let room = spool.reserve(bytes as u64, 100).await?;
    Ok(spool.begin_reserved(NOW, room))
}

async fn finish<S: Storage>(
    spool: &Spool<S>,
    mut draft: Draft,
    octets: &[u8],
) -> Result<QueueId, CommitError> {
    for piece in octets.chunks(5000) {
        spool.append(&mut draft, piece).await?;
    }
    Ok(spool.commit(draft, envelope(1), ContentFlags::default()).await?.id)
}

fn put_off(text: usize) -> Vec<Outcome> {
    vec![Outcome { text: "x".repeat(text), ..outcome(0, OutcomeKind::Deferred) }]
}

#[test]
fn what_was_promised_is_written_whatever_fills_the_spool_meanwhile() {
    for bytes in [10, 8_000, 8_192, 50_000, 200_000] {
        opened(files(24), small(), |spool, _| async move {
            let drafts = [reserved(&spool, bytes).await.unwrap(), reserved(&spool, bytes).await.unwrap()];
            let mut ids = Vec::new();
            while let Ok(stored) = deliver_in(&spool, &content(1, 8000), 1).await {
                ids.push(stored.id);
            }
            // Outcomes that say nothing that must be kept take what they can get, too.
            for round in 0..500 {
                spool.record(ids[round % ids.len()], put_off(400));
                if round % 50 == 0 {
                    let _ = spool.sync().await;
                }
            }
            assert!(spool.stats().deferrals_held > 0, "{bytes}");
            for (tag, draft) in (0..).zip(drafts) {
                let octets = content(tag, bytes);
                let id = finish(&spool, draft, &octets).await.expect("it was let in");
                assert_eq!(read_all(&spool, id).await.unwrap(), octets);
            }
            assert_eq!(spool.stats().reserved_bytes, 0, "{bytes}");
            ids.iter().for_each(|id| spool.record(*id, delivered(1)));
            // The first one writes what ends messages, and with that wins the room for the rest.
            let _ = spool.sync().await;
            spool.sync().await.expect("outcomes have their spare segment");
            assert_eq!(spool.stats().deferrals_held, 0);
            deliver_in(&spool, &content(1, 8000), 1).await.expect("and there is room again");
        });
    }
}

#[test]
fn what_is_not_there_is_not_promised_and_what_is_not_used_comes_back() {
    opened(files(6), small(), |spool, _| async move {
        assert_eq!(reserved(&spool, 1 << 30).await.unwrap_err(), CommitError::Full);
        assert!(spool.shortage().is_some_and(|fault| fault.os_error == Some(libc::ENOSPC)));
        let mut drafts = Vec::new();
        while let Ok(draft) = reserved(&spool, 8_000).await {
            drafts.push(draft);
        }
        assert!(drafts.len() >= 5, "{}", drafts.len());
        let room = spool.stats().reserved_bytes;
        drafts.truncate(1);
        assert!(spool.stats().reserved_bytes < room / 3);
        let pending = spool.reserve(8_000, 100);
        assert!(poll_once(pending).await.expect("at once").is_ok());
        spool.look_for_room().await;
        assert_eq!(spool.shortage(), None, "a whole segment is free again");
        drafts.clear();
        assert_eq!(spool.stats().reserved_bytes, 0);
    });
}

#[test]
fn a_message_that_did_not_say_its_size_is_covered_step_by_step() {
    opened(files(8), small(), |spool, _| async move {
        let mut draft = reserved(&spool, 8_192).await.unwrap();
        let octets = content(3, 60_000);
        let mut sent = 0;
        for piece in octets.chunks(5000) {
            sent += piece.len() as u64;
            if draft.promised() < sent {
                spool.extend(&mut draft, 2 * sent).await.unwrap();
            }
            spool.append(&mut draft, piece).await.unwrap();
        }
        assert_eq!(spool.extend(&mut draft, 1 << 30).await, Err(CommitError::Full));
        while deliver_in(&spool, &content(1, 8000), 1).await.is_ok() {}
        let stored = spool.commit(draft, envelope(1), ContentFlags::default()).await.expect("covered");
        assert_eq!(read_all(&spool, stored.id).await.unwrap(), octets);
    });
}

#[test]
fn a_quota_is_a_full_device() {
    let options = Options { bytes_max: 5 * (64 << 10), ..small() };
    opened(MemoryStorage::new(), options, |spool, _| async move {
        let mut ids = Vec::new();
        while let Ok(stored) = deliver_in(&spool, &content(1, 8000), 1).await {
            ids.push(stored.id);
        }
        assert_eq!(spool.stats().segments, 5);
        assert!(spool.shortage().unwrap().to_string().contains("quota"), "{:?}", spool.shortage());
        ids.iter().for_each(|id| spool.record(*id, delivered(1)));
        spool.sync().await.unwrap();
        spool.look_for_room().await;
        assert_eq!(spool.shortage(), None);
        finish(&spool, reserved(&spool, 20_000).await.unwrap(), &content(2, 20_000)).await.unwrap();
    });
}

/// Before, outcomes that found no room were tried again without an end when mail waited behind them, and
/// the mail got no answer.
#[test]
fn on_a_device_without_any_room_mail_behind_outcomes_is_refused_and_nothing_turns_in_circles() {
    let options = Options { spare_segments: 0, ..small() };
    let storage = files(1);
    opened(storage.clone(), options, |spool, _| async move {
        let mut ids = Vec::new();
        while let Ok(stored) = deliver_in(&spool, &content(1, 3000), 1).await {
            ids.push(stored.id);
        }
        assert!(ids.len() > 4);
        // Outcomes that must be kept, more than a batch of them, so that mail gets a batch of its own.
        let bounced = || vec![Outcome { text: "x".repeat(500), ..outcome(0, OutcomeKind::Bounced) }];
        let ids_of_many = ids.iter().cycle().take(ids.len());
        ids_of_many.for_each(|id| spool.record(*id, bounced()));
        let outcomes = spool.sync();
        type Caller<'a> = Pin<Box<dyn Future<Output = Result<(), CommitError>> + 'a>>;
        let mail: Vec<Caller<'_>> = vec![
            Box::pin(outcomes),
            Box::pin(async { deliver_in(&spool, &content(1, 30_000), 1).await.map(drop) }),
            Box::pin(async { deliver_in(&spool, b"x", 1).await.map(drop) }),
        ];
        assert_eq!(together(mail).await, vec![Err(CommitError::Full); 3]);
        let steps = storage.steps();
        for _ in 0..1000 {
            yield_now().await;
        }
        assert_eq!(storage.steps(), steps, "nothing is tried before the next nudge");
        storage.set(|faults| faults.files_max = Some(4));
        spool.sync().await.expect("the outcomes were kept");
        deliver_in(&spool, b"x", 1).await.unwrap();
    });
}

/// The table of `FORMAT.md`: what each error of the kernel leads to.
#[test]
fn an_error_at_the_creation_of_a_segment_passes_or_poisons() {
    let passes = [libc::ENOSPC, libc::EDQUOT, libc::EFBIG, libc::ENOMEM, libc::EMFILE, libc::ENFILE];
    for number in passes {
        let storage = faulty(Faults::default());
        opened(storage.clone(), small(), |spool, _| async move {
            let kept = deliver_in(&spool, b"kept", 1).await.unwrap().id;
            storage.set(|faults| faults.create_error = Some(number));
            while deliver_in(&spool, &content(1, 8000), 1).await.is_ok() {}
            assert_eq!(reserved(&spool, 100_000).await.unwrap_err(), CommitError::Full);
            assert_eq!(spool.shortage().and_then(|fault| fault.os_error), Some(number));
            spool.record(kept, delivered(1));
            spool.sync().await.expect("outcomes go on");
            storage.set(|faults| faults.create_error = None);
            spool.look_for_room().await;
            assert_eq!((spool.shortage(), spool.fault()), (None, None));
            reserved(&spool, 100_000).await.unwrap();
        });
    }
    for number in [libc::EIO, libc::EROFS] {
        let storage = faulty(Faults::default());
        opened(storage.clone(), small(), |spool, _| async move {
            let kept = deliver_in(&spool, b"kept", 1).await.unwrap().id;
            storage.set(|faults| faults.create_error = Some(number));
            let error = reserved(&spool, 1 << 20).await.unwrap_err();
            let CommitError::Poisoned(fault) = error else { panic!("{error}") };
            assert_eq!((fault.os_error, spool.fault()), (Some(number), Some(fault)));
            assert_eq!(read_all(&spool, kept).await.unwrap(), b"kept", "delivery goes on");
        });
    }
}

/// What `create_segment` made and could not make durable goes again, so nothing piles up.
#[test]
fn an_error_of_syncing_the_directory_poisons_unless_the_process_lacks_something() {
    for (number, passes) in
        [(libc::EMFILE, true), (libc::ENOMEM, true), (libc::EIO, false), (libc::ENOSPC, false)]
    {
        let storage = faulty(Faults::default());
        opened(storage.clone(), small(), |spool, _| async move {
            let kept = deliver_in(&spool, b"kept", 1).await.unwrap().id;
            let segments = spool.stats().segments;
            storage.set(|faults| faults.sync_dir_error = Some(number));
            let error = reserved(&spool, 1 << 20).await.unwrap_err();
            match (passes, error) {
                (true, error) => assert_eq!((error, spool.fault()), (CommitError::Full, None)),
                (false, CommitError::Poisoned(fault)) => assert_eq!(fault.os_error, Some(number)),
                (false, error) => panic!("{number}: {error}"),
            }
            assert_eq!(spool.stats().segments, segments);
            assert_eq!(read_all(&spool, kept).await.unwrap(), b"kept", "delivery goes on");
            storage.set(|faults| faults.sync_dir_error = None);
            spool.look_for_room().await;
            assert_eq!(reserved(&spool, 1 << 20).await.is_ok(), passes, "{number}");
        });
    }
}

/// A segment is given back while another one is taken into use.
#[test]
fn an_error_of_removing_a_segment_or_of_the_sync_behind_it_poisons_and_loses_nothing() {
    let faults: [fn(&mut Faults); 2] =
        [|faults| faults.remove_error = Some(libc::EIO), |faults| faults.sync_dir_error = Some(libc::EIO)];
    for fault in faults {
        let storage = faulty(Faults::default());
        let options = Options { idle_segments_max: 0, ..small() };
        let (kept, storage) = opened(storage.clone(), options, |spool, _| async move {
            let mut ids = Vec::new();
            for round in 0..60 {
                ids.push(deliver_in(&spool, &content(round, 8000), 1).await.unwrap().id);
            }
            let kept = ids.pop().unwrap();
            ids.iter().for_each(|id| spool.record(*id, delivered(1)));
            spool.sync().await.unwrap();
            assert_eq!(spool.stats().segments_removed, 0);
            storage.set(fault);
            let error = loop {
                if let Err(error) = deliver_in(&spool, &content(99, 8000), 1).await {
                    break error;
                }
            };
            let CommitError::Poisoned(fault) = error else { panic!("{error}") };
            assert_eq!((fault.os_error, spool.fault()), (Some(libc::EIO), Some(fault)));
            assert_eq!(read_all(&spool, kept).await.unwrap(), content(59, 8000));
            (kept, storage.restart())
        });
        opened(storage, options, |spool, recovery| async move {
            assert_eq!(recovery.damages, []);
            assert_eq!(read_all(&spool, kept).await.unwrap(), content(59, 8000));
        });
    }
}

#[test]
fn a_write_that_stays_short_poisons_and_what_it_left_is_cut() {
    for seed in 1..20 {
        let storage = faulty(Faults { seed, short_writes: true, ..Default::default() });
        let (kept, storage) = opened(storage.clone(), small(), |spool, _| async move {
            let kept = deliver_in(&spool, &content(1, 8000), 1).await.unwrap().id;
            storage.set(|faults| faults.write_error_at = Some(0));
            let error = deliver_in(&spool, &content(2, 8000), 1).await.unwrap_err();
            assert!(matches!(error, CommitError::Poisoned(fault) if fault.os_error.is_none()));
            (kept, storage.restart())
        });
        opened(storage, small(), |spool, recovery| async move {
            assert_eq!(recovery.damages, []);
            assert!(spool.messages() <= 2 && spool.contains(kept), "all of it may have been written");
            assert_eq!(read_all(&spool, kept).await.unwrap(), content(1, 8000));
        });
    }
}

#[test]
fn an_error_of_a_write_poisons_and_the_next_start_has_all_that_was_acknowledged() {
    for number in [libc::EIO, libc::EROFS, libc::ENOSPC, libc::EDQUOT] {
        let storage = faulty(Faults { seed: number as u64, ..Default::default() });
        let kept = opened(storage.clone(), small(), |spool, _| async move {
            let mut kept = Vec::new();
            for round in 0..20 {
                kept.push(deliver_in(&spool, &content(round, 3000), 1).await.unwrap().id);
            }
            let now = storage.steps();
            storage.set(|faults| (faults.write_error_at, faults.write_error) = (Some(now), Some(number)));
            let draft = reserved(&spool, 100).await.unwrap();
            let error = finish(&spool, draft, b"lost").await.unwrap_err();
            assert!(matches!(error, CommitError::Poisoned(fault) if fault.os_error == Some(number)));
            assert!(
                matches!(spool.reserve(1, 1).await, Err(CommitError::Poisoned(_))),
                "at once from now on"
            );
            assert_eq!(read_all(&spool, kept[3]).await.unwrap(), content(3, 3000));
            spool.record(kept[3], delivered(1));
            assert!(!spool.contains(kept[3]), "it is not delivered again by this run");
            (kept, storage.restart())
        });
        let (kept, storage) = kept;
        opened(storage, small(), |spool, recovery| async move {
            assert_eq!(recovery.damages, []);
            for (round, id) in (0..).zip(kept) {
                assert_eq!(read_all(&spool, id).await.unwrap(), content(round, 3000), "delivered once more");
            }
        });
    }
}

#[test]
fn an_error_of_a_read_is_told_and_passes() {
    let storage = faulty(Faults::default());
    let device = storage.clone();
    opened(storage.clone(), small(), |spool, _| async move {
        let id = deliver_in(&spool, b"kept", 1).await.unwrap().id;
        device.set(|faults| faults.read_error = true);
        let Err(ReadError::Device(fault)) = spool.load(id).await else { panic!("EIO") };
        assert_eq!((fault.os_error, spool.fault()), (Some(libc::EIO), None), "new mail is still taken");
        deliver_in(&spool, b"x", 1).await.unwrap();
        device.set(|faults| faults.read_error = false);
        assert_eq!(read_all(&spool, id).await.unwrap(), b"kept");
    });
    storage.set(|faults| faults.read_error = true);
    let (_, recovery) = block_on(Spool::open(storage, number(), small())).expect("the rest is in use");
    assert!(matches!(recovery.damages[0].what, DamageKind::Read(_)), "silence is not taken for empty");
}

/// Before, the second start gave out the numbers of what it could not read, and the third start took its
/// segment for a second one of the same number, or its batches for old ones.
#[test]
fn what_is_taken_while_a_part_cannot_be_read_is_there_when_it_can_be_read_again() {
    let storage = faulty(Faults::default());
    let mut ids = opened(storage.clone(), small(), |spool, _| async move {
        let mut ids = Vec::new();
        for round in 0..20 {
            ids.push(deliver_in(&spool, &content(round, 6000), 1).await.unwrap().id);
        }
        ids
    });
    let memory = storage.restart();
    let storage = FaultyStorage::new(memory, Faults { read_error: true, ..Default::default() });
    let (spool, recovery) = block_on(Spool::open(storage.clone(), number(), small())).unwrap();
    assert!(!recovery.damages.is_empty() && spool.messages() == 0);
    storage.set(|faults| faults.read_error = false);
    ids.extend(with_writer(&spool, async {
        let mut ids = Vec::new();
        for round in 20..40 {
            let mut draft = spool.begin(NOW + 1_000_000);
            spool.append(&mut draft, &content(round, 6000)).await.unwrap();
            ids.push(spool.commit(draft, envelope(1), ContentFlags::default()).await.unwrap().id);
        }
        ids
    }));
    drop(spool);
    opened(storage.restart(), small(), |spool, recovery| async move {
        for (round, id) in (0..).zip(ids) {
            assert_eq!(read_all(&spool, id).await.unwrap(), content(round, 6000), "{round} {recovery:?}");
        }
    });
}

#[test]
fn a_write_that_hangs_is_seen_and_goes_on_when_the_device_does() {
    let storage = faulty(Faults::default());
    opened(storage.clone(), small(), |spool, _| async move {
        storage.set(|faults| faults.hangs = true);
        let draft = spool.begin(NOW);
        let id = draft.id();
        let mut commit = Box::pin(spool.commit(draft, envelope(1), ContentFlags::default()));
        for _ in 0..100 {
            assert!(poll_once(&mut commit).await.is_none());
            yield_now().await;
        }
        assert!(spool.is_writing());
        // The session has lost patience and told the client so.
        drop(commit);
        storage.set(|faults| faults.hangs = false);
        while !spool.contains(id) {
            yield_now().await;
        }
        assert_eq!((spool.unclaimed(), spool.is_writing()), (vec![id], false));
    });
}

/// A segment may be a backup's, too, until somebody has looked. That was done only when another segment was
/// taken into use, which on a full device never happened.
#[test]
fn a_spool_that_was_backed_up_when_it_was_full_takes_mail_again_when_it_is_empty() {
    for linked in [false, true] {
        let (memory, copy) = (MemoryStorage::new(), MemoryStorage::new());
        let storage = FaultyStorage::new(memory.clone(), Faults { files_max: Some(5), ..Default::default() });
        opened(storage, small(), |spool, _| async move {
            let mut ids = Vec::new();
            while let Ok(stored) = deliver_in(&spool, &content(1, 8000), 1).await {
                ids.push(stored.id);
            }
            let snapshot = spool.snapshot(NOW);
            for of in snapshot.needed.segments.iter().filter(|_| linked) {
                memory.link(of.slot, &copy, of.slot);
            }
            drop(snapshot);
            ids.iter().for_each(|id| spool.record(*id, delivered(1)));
            spool.sync().await.expect("outcomes have their spare segment");
            spool.look_for_room().await;
            assert_eq!(spool.shortage().is_some(), linked, "what the backup shares stays as it is");
            memory.unlink_others();
            spool.look_for_room().await;
            assert_eq!(spool.shortage(), None);
            finish(&spool, reserved(&spool, 20_000).await.unwrap(), &content(2, 20_000)).await.unwrap();
        });
    }
}

/// Before, the end of a full spool was told to be clean, and what was held back was not on disk.
#[test]
fn a_close_says_when_deferrals_found_no_room_and_writes_them_when_there_is_some() {
    for room_again in [false, true] {
        let storage = files(4);
        let (id, closed, memory) = opened(storage.clone(), small(), |spool, _| async move {
            let mut ids = Vec::new();
            while let Ok(stored) = deliver_in(&spool, &content(1, 8000), 1).await {
                ids.push(stored.id);
            }
            while spool.stats().deferrals_held == 0 {
                (0..50).for_each(|at| spool.record(ids[at % ids.len()], put_off(400)));
                let _ = spool.sync().await;
            }
            let last = Outcome { attempts: 9, ..put_off(10).remove(0) };
            spool.record(ids[0], vec![last]);
            if room_again {
                storage.set(|faults| faults.files_max = None);
                spool.look_for_room().await;
            }
            (ids[0], spool.close().await, storage.restart())
        });
        assert_eq!(closed, if room_again { Ok(()) } else { Err(CommitError::Full) });
        opened(memory, small(), |spool, _| async move {
            let attempts = spool.load(id).await.unwrap().states[0].attempts;
            assert_eq!(attempts == 9, room_again, "{attempts}");
        });
    }
}

#[test]
fn deferrals_that_find_no_room_are_bounded() {
    opened(files(4), small(), |spool, _| async move {
        let mut ids = Vec::new();
        while let Ok(stored) = deliver_in(&spool, &content(1, 8000), 1).await {
            ids.push(stored.id);
        }
        while spool.stats().deferrals_held == 0 {
            (0..50).for_each(|at| spool.record(ids[at % ids.len()], put_off(400)));
            let _ = spool.sync().await;
        }
        let many = crate::desk::OUTCOMES_HELD_MAX + 10;
        (0..many).for_each(|at| spool.record(ids[at % ids.len()], put_off(1)));
        let stats = spool.stats();
        assert_eq!(stats.deferrals_held, crate::desk::OUTCOMES_HELD_MAX);
        assert!(stats.deferrals_forgotten >= 10);
    });
}

#[test]
fn what_only_steers_does_not_stand_for_a_deferral_that_waits_for_room() {
    let storage = files(4);
    let (id, memory) = opened(storage.clone(), small(), |spool, _| async move {
        let mut ids = Vec::new();
        while let Ok(stored) = deliver_in(&spool, &content(1, 8000), 1).await {
            ids.push(stored.id);
        }
        while spool.stats().deferrals_held == 0 {
            (0..50).for_each(|at| spool.record(ids[at % ids.len()], put_off(400)));
            let _ = spool.sync().await;
        }
        spool.record(ids[0], vec![Outcome { attempts: 9, ..put_off(10).remove(0) }]);
        spool.record(ids[0], vec![Outcome { attempts: 9, ..outcome(0, OutcomeKind::Held) }]);
        let _ = spool.sync().await;
        storage.set(|faults| faults.files_max = None);
        spool.look_for_room().await;
        spool.sync().await.expect("there is room again");
        (ids[0], storage.restart())
    });
    opened(memory, small(), |spool, _| async move {
        let state = spool.load(id).await.unwrap().states[0];
        assert_eq!((state.attempts, state.held), (9, true));
    });
}
