//! The machine stops: at every single step of a history, and at random ones, again and again.

use super::harness::*;
use super::indexes::compare_readings;
use super::world::World;
use crate::*;
use std::cell::Cell;

thread_local! {
    /// Segments that starts took by their index.
    static INDEXED: Cell<usize> = const { Cell::new(0) };
}

/// Lets a world live on a faulty device until it stops; gives what the next start finds.
fn live(
    world: &World,
    memory: MemoryStorage,
    faults: storage::faulty::Faults,
    rounds: usize,
) -> (MemoryStorage, u64) {
    INDEXED.with(|indexed| indexed.set(indexed.get() + compare_readings(&memory)));
    let storage = FaultyStorage::new(memory, faults);
    let opening = futures_lite::future::block_on(Spool::open(storage.clone(), number(), small()));
    match opening {
        Ok((spool, recovery)) => with_writer(&spool, async {
            world.compare_restarted(&spool, &recovery).await;
            world.live(&spool, &storage, rounds).await;
        }),
        // Stopped, or refused a write, while the end of the log was being sealed.
        Err(OpenError::Device(_)) => {}
        Err(error) => panic!("{error}"),
    }
    (storage.restart(), storage.steps())
}

fn check(world: &World, memory: &MemoryStorage) {
    opened(memory.clone(), small(), |spool, recovery| async move {
        world.compare_restarted(&spool, &recovery).await;
        spool.close().await.unwrap();
    });
    opened(memory.clone(), small(), |spool, recovery| async move {
        assert_eq!(recovery.cut, None, "the end was sealed");
        world.compare_restarted(&spool, &recovery).await;
    });
}

struct Named<'a>(&'a str, u64, Option<u64>);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: seed {}, stopped at step {:?}", self.0, self.1, self.2);
        }
    }
}

#[test]
fn a_stop_at_any_step_of_a_history_loses_nothing_and_brings_nothing_back() {
    const ROUNDS: usize = 60;
    let moved = std::cell::Cell::new(0);
    let history = |seed: u64, crash_at: Option<u64>, tear: u64| {
        let _named = Named("history", seed, crash_at);
        let world = World::new(seed);
        let faults = storage::faulty::Faults { seed: tear, crash_at, ..Default::default() };
        let (memory, steps) = live(&world, MemoryStorage::new(), faults, ROUNDS);
        // A second life, stopped in its first steps, when the tail of the first was just cut.
        let faults = storage::faulty::Faults { seed: tear, crash_at: Some(tear % 7), ..Default::default() };
        let (memory, _) = live(&world, memory, faults, ROUNDS);
        check(&world, &memory);
        if crash_at.is_none() {
            moved.set(moved.get() + world.moved.get());
        }
        steps
    };
    let mut stops = 0;
    for seed in [1, 2] {
        let steps = history(seed, None, 0);
        assert!(steps > 50, "the history is too short to show something: {steps}");
        for crash_at in 0..steps {
            for tear in 0..2 {
                history(seed, Some(crash_at), crash_at * 2 + tear + 1);
            }
            stops += 2;
        }
    }
    assert!(stops > 200 && moved.get() > 8, "{stops} stops, {} messages moved", moved.get());
}

#[test]
fn many_lives_with_random_faults_keep_to_the_model() {
    let (mut steps, mut refused, mut lives, mut moved, mut abandoned) = (0, 0, 0, 0, 0);
    for seed in 100..160 {
        let _named = Named("simulation", seed, None);
        let world = World::new(seed);
        let mut memory = MemoryStorage::new();
        for life in 0..8 {
            let mut faults = storage::faulty::Faults { seed: seed * 100 + life, ..Default::default() };
            match world.random(4) {
                0 => faults.write_error_at = Some(world.random(80)),
                1 => faults.files_max = Some(memory.slots().len().max(2) + world.random(3) as usize),
                _ => {}
            }
            faults.crash_at = Some(world.random(160));
            memory = live(&world, memory, faults, 60).0;
            lives += 1;
        }
        check(&world, &memory);
        steps += world.steps.get();
        refused += world.refused.get();
        moved += world.moved.get();
        abandoned += world.abandoned.get();
    }
    assert!(moved > 200 && abandoned > 10, "{moved} moved, {abandoned} not");
    let indexed = INDEXED.take();
    assert!(indexed > 1000, "{indexed} segments taken by their index");
    assert!(steps > 5000 && refused > 0, "{steps} steps, {refused} refused for want of space, {lives} lives");
}

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
