//! The spool on a faulty device, with a model beside it, for many lives; by a seed.
//!
//! | module | holds |
//! |---|---|
//! | `world` | the lives of one spool, and what is compared |
//! | `model` | what must be there, may be there, must not be there |
//! | `plan` | what goes wrong in a life |
//! | `actions` | what callers do |
//! | `drive` | an executor that notices endless loops and waiting for nothing |
//! | `points` | scripted histories, cut at every step |
//! | `canary` | the same code with a deliberate fault |
//! | `figures` | how much was done |
//!
//! Every third seed has a device that lies. For longer than the ordinary test takes:
//!
//! ```text
//! SLUICE_SIMULATE_SECONDS=3600 SLUICE_SIMULATE_SEED=1 \
//!     cargo test --release -p sluice-queue simulation::for_long -- --ignored --nocapture
//! ```
//!
//! A seed that failed is repeated with `SLUICE_SIMULATE_SEED=n`, without seconds.

mod actions;
mod canary;
mod drive;
mod figures;
mod model;
mod plan;
mod points;
pub(super) mod world;

use crate::{FaultyStorage, MemoryStorage};
use figures::Figures;
use std::time::{Duration, Instant};
use world::World;

const LIVES: u64 = 12;
const ROUNDS: usize = 60;
/// Seeds of the ordinary test: some seconds of a development build.
const SEEDS: std::ops::Range<u64> = 1..46;

/// Says how to repeat a seed when it fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "seed {0}; to repeat it: SLUICE_SIMULATE_SEED={0} cargo test -p sluice-queue \
                 simulation::for_long -- --ignored --nocapture",
                self.0
            );
        }
    }
}

/// Simulates one spool through its lives.
fn simulate(seed: u64) -> Figures {
    let _named = Named(seed);
    let world = World::new(seed, seed.is_multiple_of(3));
    let mut memory = MemoryStorage::new();
    for _ in 0..LIVES {
        let plan = world.plan(memory.slots().len());
        memory = world.live(memory, &plan, ROUNDS);
    }
    world.last_look(memory, true);
    world.count(|figures| figures.seeds += 1);
    world.figures.get()
}

#[test]
fn many_lives_with_faults_keep_to_the_model() {
    let mut sum = Figures::default();
    SEEDS.for_each(|seed| sum += simulate(seed));
    println!("{sum}");
    let of = sum.injected;
    assert!(sum.crashes > 200 && sum.closes > 20 && sum.poisoned > 20 && sum.moved > 200, "{sum}");
    assert!(sum.refused > 50 && sum.abandoned > 20 && sum.starts_failed > 5, "{sum}");
    assert!(sum.indexed > 1000, "{sum}");
    let faults = [
        of.cut,
        of.write_errors,
        of.dir_errors,
        of.read_errors,
        of.no_space,
        of.no_descriptors,
        of.slow,
        of.entries_undone,
        of.reads_elsewhere,
        of.reads_stale,
        of.writes_elsewhere,
        of.writes_lost,
    ];
    assert!(faults.iter().all(|count| *count > 5), "every kind of fault was met: {sum}");
}

#[test]
#[ignore = "as long as SLUICE_SIMULATE_SECONDS says; one seed when it does not"]
fn for_long() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let first = number("SLUICE_SIMULATE_SEED").unwrap_or(1);
    let time = Duration::from_secs(number("SLUICE_SIMULATE_SECONDS").unwrap_or(0));
    let (start, mut sum, mut said) = (Instant::now(), Figures::default(), Instant::now());
    for seed in first.. {
        sum += simulate(seed);
        if said.elapsed() > Duration::from_secs(60) {
            said = Instant::now();
            println!("after {} s, seed {seed}:\n{sum}", start.elapsed().as_secs());
        }
        if start.elapsed() >= time {
            break;
        }
    }
    println!("in {} s, from seed {first} on:\n{sum}", start.elapsed().as_secs());
}
