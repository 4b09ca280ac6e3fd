//! A copy taken at any moment of a history recovers to what was true then.

use super::harness::*;
use super::simulation::world::{Life, World};
use crate::*;
use futures_lite::future::{block_on, poll_once, yield_now};

/// The copy of a spool in memory, its files linked or copied as a backup does it.
fn copy(memory: &MemoryStorage, needed: &Needed, link: bool) -> MemoryStorage {
    let to = MemoryStorage::new();
    let from = memory.snapshot();
    for of in &needed.segments {
        let name = of.sequence as u32;
        if of.condition == Condition::Sealed && link {
            memory.link(of.slot, &to, name);
        } else {
            from.link(of.slot, &to, name);
            to.damage(name, |octets| octets[of.octets as usize..].fill(0));
        }
    }
    to
}

fn open_copy(copy: &MemoryStorage, check: impl AsyncFnOnce(Spool<MemoryStorage>, Recovery)) {
    let (spool, recovery) = block_on(Spool::open(copy.snapshot(), number(), small())).expect("it opens");
    block_on(check(spool, recovery));
}

/// Takes a copy at random moments of `world`'s life and keeps it; the copies are looked at at the moment and
/// again at the end, when the spool has long gone on.
fn copies_of_a_history(seed: u64, rounds: usize, link: bool) -> (usize, u64) {
    let memory = MemoryStorage::new();
    let storage = FaultyStorage::new(memory.clone(), Default::default());
    let world = World::new(seed, false);
    let (spool, _) = block_on(Spool::open(storage.clone(), number(), small())).unwrap();
    let life = Life { spool: spool.clone(), storage: storage.clone() };
    let live = async |rounds: u64| {
        for _ in 0..rounds {
            world.round(&life).await;
        }
    };
    let mut kept: Vec<(MemoryStorage, World)> = Vec::new();
    let recycled = with_writer(&spool, async {
        for _ in 0..rounds {
            live(1 + world.random(3)).await;
            // A batch may be on its way, and half of it be in the file.
            let mut syncing = Box::pin(spool.sync());
            if world.random(2) == 0 {
                let _ = poll_once(&mut syncing).await;
                yield_now().await;
            }
            let snapshot = spool.snapshot(NOW);
            let then = world.fork();
            for _ in 0..world.random(3) {
                // It is copied while the spool goes on.
                live(1).await;
            }
            let copied = copy(&memory, &snapshot.needed, link);
            drop(snapshot);
            open_copy(&copied, async |spool, recovery| {
                then.fork().compare_restarted(&spool, &recovery).await
            });
            kept.push((copied, then));
            if kept.len() > 6 {
                // The oldest copy is removed, as its links are.
                let at = world.random(3) as usize;
                kept.remove(at);
            }
        }
        spool.stats().segments_recycled
    });
    let copies = kept.len();
    for (copied, then) in kept {
        open_copy(&copied, async |spool, recovery| then.compare_restarted(&spool, &recovery).await);
    }
    (copies, recycled)
}

#[test]
fn a_copy_of_any_moment_has_what_was_acknowledged_and_nothing_that_was_finished() {
    for link in [false, true] {
        let mut recycled = 0;
        for seed in 0..8 {
            let named = format!("copies, seed {seed}, link {link}");
            let done = std::panic::catch_unwind(|| copies_of_a_history(seed, 50, link));
            recycled += done.unwrap_or_else(|_| panic!("{named}")).1;
        }
        // With links it is seldom that a segment lives and dies between two copies.
        let least = if link { 0 } else { 20 };
        assert!(recycled > least, "{recycled} segments were written over, link {link}");
    }
}

#[test]
fn a_file_with_another_name_is_given_back_and_written_over_only_when_that_is_gone() {
    let memory = MemoryStorage::new();
    let others = MemoryStorage::new();
    opened(memory.clone(), small(), async |spool: Spool<MemoryStorage>, _| {
        let traffic = async |rounds: u64| {
            for round in 0..rounds {
                let id = deliver_in(&spool, &content(round, 6000), 1).await.unwrap().id;
                spool.record(id, delivered(1));
            }
            spool.sync().await.unwrap();
            spool.stats()
        };
        let before = traffic(100).await;
        assert!(before.segments_recycled > 0);
        // The active one goes on, and so may files never used; a backup links neither.
        for segment in spool.inner.table.borrow().segments.values() {
            if segment.status == crate::segments::Status::Sealed {
                memory.link(segment.slot, &others, segment.slot);
            }
        }
        let held = others.snapshot();
        let during = traffic(100).await;
        assert!(during.segments_removed > before.segments_removed, "{during:?}");
        for other in held.slots() {
            assert!(same(&held, &others, other), "file {other} was written");
        }
        memory.unlink_others();
        let between = traffic(30).await;
        let after = traffic(100).await;
        assert!(after.segments_recycled > between.segments_recycled + 5, "{between:?} {after:?}");
    });
}

fn same(a: &MemoryStorage, b: &MemoryStorage, slot: u32) -> bool {
    let octets = |of: &MemoryStorage| {
        let mut octets = Vec::new();
        of.damage(slot, |of| octets = of.clone());
        octets
    };
    octets(a) == octets(b)
}

#[test]
fn a_snapshot_keeps_its_segments_until_it_is_dropped() {
    opened(MemoryStorage::new(), small(), async |spool: Spool<MemoryStorage>, _| {
        let id = deliver_in(&spool, &content(1, 50_000), 1).await.unwrap().id;
        let snapshot = spool.snapshot(NOW);
        let of: Vec<u64> = snapshot.needed.segments.iter().map(|of| of.sequence).collect();
        assert_eq!(snapshot.needed.messages, 1);
        spool.record(id, delivered(1));
        let traffic = async |rounds: u64| {
            for round in 0..rounds {
                let id = deliver_in(&spool, &content(round, 6000), 1).await.unwrap().id;
                spool.record(id, delivered(1));
            }
            spool.sync().await.unwrap();
        };
        traffic(60).await;
        let there = || of.iter().filter(|of| spool.inner.table.borrow().segments.contains_key(of)).count();
        assert_eq!(there(), of.len());
        drop(snapshot);
        traffic(60).await;
        assert_eq!(there(), 0);
    });
}
