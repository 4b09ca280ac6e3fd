//! Scripted histories; each write, creation, removal and directory sync of each is cut: before it, in the
//! middle, and after it with nobody told.
//!
//! What a cut leaves is started again, cut in one of the first steps of that start, and started once more.

use super::super::harness::*;
use super::plan::Plan;
use super::world::{Life, World};
use crate::storage::faulty::{Faults, Tear};
use crate::*;

/// One thing done, and waited for.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Octets and recipients of a message.
    Commit(usize, usize),
    /// The oldest message: its first recipient is put off.
    Defer,
    /// The oldest message: all that an administrator may say of its first recipient, but for its end.
    Steer,
    /// The oldest message: all of its recipients get it.
    Finish,
    /// The oldest message is bounced, by a DSN in the same batch.
    Bounce,
    /// Mail that comes and goes.
    Traffic(usize),
    Sync,
    Compact,
    /// Many at a time: they share batches.
    Crowd,
}

use Act::{Bounce, Commit, Compact, Crowd, Defer, Finish, Steer, Sync, Traffic};

/// A history: its name, and what is done in each of its lives, between which the spool is closed in order
/// and opened again with segments of the size given.
type History = (&'static str, &'static [(u64, &'static [Act])]);

const SMALL: u64 = 64 << 10;
const OTHER: u64 = 96 << 10;

#[rustfmt::skip]
const HISTORIES: &[History] = &[
    ("plain commits",           &[(SMALL, &[Commit(0, 1), Commit(100, 1), Commit(5000, 3)])]),
    ("commits of a crowd",      &[(SMALL, &[Crowd, Crowd])]),
    ("a message with extents",  &[(SMALL, &[Commit(30_000, 2), Commit(10, 1)])]),
    ("extents in two segments", &[(SMALL, &[Commit(40_000, 1), Commit(60_000, 1), Sync])]),
    ("outcomes",                &[(SMALL, &[Commit(900, 3), Defer, Sync, Defer, Finish, Sync])]),
    ("outcomes with mail",      &[(SMALL, &[Commit(900, 3), Defer, Commit(900, 1), Finish, Commit(900, 1)])]),
    ("held and rerouted",       &[(SMALL, &[Commit(900, 2), Steer, Sync, Commit(50, 1), Traffic(30), Compact]), (SMALL, &[Traffic(3), Finish])]),
    ("a DSN and its message",   &[(SMALL, &[Commit(900, 2), Defer, Bounce, Commit(900, 1), Bounce, Sync])]),
    ("segments roll over",      &[(SMALL, &[Commit(900, 1), Traffic(14), Commit(900, 1)])]),
    ("segments are recycled",   &[(SMALL, &[Traffic(50), Commit(900, 1), Traffic(10)])]),
    ("a late outcome",          &[(SMALL, &[Commit(900, 1), Traffic(25), Finish, Sync, Traffic(25)])]),
    ("compaction",              &[(SMALL, &[Commit(900, 2), Defer, Commit(20_000, 1), Traffic(30), Compact, Compact, Traffic(30)])]),
    ("the end of a moved one",  &[(SMALL, &[Commit(900, 2), Traffic(30), Compact, Finish, Sync, Traffic(40)])]),
    ("closed and opened",       &[(SMALL, &[Commit(900, 1), Defer]), (SMALL, &[Finish, Sync, Commit(9000, 1)]), (SMALL, &[])]),
    ("another segment size",    &[(SMALL, &[Commit(900, 1), Traffic(14)]), (OTHER, &[Traffic(14), Finish, Sync]), (SMALL, &[Traffic(20)])]),
    ("idle segments removed",   &[(SMALL, &[Commit(70_000, 1), Commit(70_000, 1), Commit(70_000, 1), Finish, Finish, Finish, Sync, Traffic(40)])]),
    ("a spool never used",      &[(SMALL, &[]), (OTHER, &[Commit(1, 1)])]),
];

impl World {
    async fn script(&self, life: &Life, acts: &[Act]) {
        for act in acts {
            if life.storage.crashed() || life.spool.fault().is_some() {
                return;
            }
            self.perform(life, *act).await;
        }
    }

    async fn perform(&self, life: &Life, act: Act) {
        let oldest = self.model.borrow().waiting().first().copied();
        let recipients = |id: QueueId| self.model.borrow().known[&id].slots.len();
        match (act, oldest) {
            (Commit(bytes, recipients), _) => drop(self.commit(life, bytes, recipients, None).await),
            (Defer, Some(id)) => self.record(&life.spool, id, vec![outcome(0, OutcomeKind::Deferred)]),
            (Steer, Some(id)) => self.record(&life.spool, id, steering()),
            (Finish, Some(id)) => self.record(&life.spool, id, delivered(recipients(id))),
            (Bounce, of) => drop(self.commit(life, 500, 1, of).await),
            (Sync, _) => self.sync(&life.spool).await,
            (Compact, _) => self.compacted(life.spool.compact_step().await),
            (Traffic(count), _) => self.traffic(life, count).await,
            (Crowd, _) => self.round(life).await,
            (Defer | Steer | Finish, None) => {}
        }
    }

    async fn traffic(&self, life: &Life, count: usize) {
        for _ in 0..count {
            let Some(id) = self.commit(life, 6000, 1, None).await else { return };
            self.record(&life.spool, id, delivered(1));
        }
        self.sync(&life.spool).await;
    }
}

fn steering() -> Vec<Outcome> {
    use OutcomeKind::{Held, Released, Rerouted};
    let of = |kind| Outcome { text: "192.0.2.1:25".into(), ..outcome(0, kind) };
    [Held, Rerouted, Released, Held].map(of).into()
}

fn plan(segment_bytes: u64, crash_at: Option<u64>, tear: Tear, seed: u64) -> Plan {
    let faults = Faults { seed, crash_at, tear, ..Faults::default() };
    let options = Options { segment_bytes, idle_segments_max: 3, ..small() };
    Plan { options, opening: faults.clone(), living: faults, closes: true }
}

/// Plays a history, cut at one step of one of its lives. Gives how many steps each life took, and how
/// many messages were moved.
fn play(history: &History, cut: Option<(usize, u64, Tear)>) -> (Vec<u64>, u64) {
    let _named = Cut(history.0, cut);
    let world = World::new(7, false);
    let mut memory = MemoryStorage::new();
    let mut steps = Vec::new();
    for (life, (segment_bytes, acts)) in history.1.iter().enumerate() {
        let before = world.figures.get().steps;
        let here = cut.filter(|(of, ..)| *of == life);
        let (crash_at, tear) = here.map_or((None, Tear::Any), |(_, step, tear)| (Some(step), tear));
        let seed = crash_at.unwrap_or(0) + 1;
        let plan = plan(*segment_bytes, crash_at, tear, seed);
        memory = world.life(memory, &plan, async |life| world.script(life, acts).await);
        steps.push(world.figures.get().steps - before);
        if here.is_some() {
            let again = super::points::plan(*segment_bytes, Some(seed % 4), tear, seed);
            memory = world.life(memory, &again, async |life| world.traffic(life, 2).await);
            break;
        }
    }
    world.last_look(memory, false);
    (steps, world.figures.get().moved)
}

/// Says which cut it was when it fails.
struct Cut(&'static str, Option<(usize, u64, Tear)>);

impl Drop for Cut {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the history of {}, cut at (life, step, how) {:?}", self.0, self.1);
        }
    }
}

#[test]
fn a_stop_at_any_step_of_any_history_loses_nothing_and_brings_nothing_back() {
    let (mut points, mut moved) = (0, 0);
    for history in HISTORIES {
        let (lives, moves) = play(history, None);
        moved += moves;
        for (life, steps) in lives.iter().enumerate() {
            for step in 0..*steps {
                for tear in [Tear::Before, Tear::Torn, Tear::After] {
                    play(history, Some((life, step, tear)));
                    points += 1;
                }
            }
        }
        println!("{}: {:?} steps", history.0, lives);
    }
    println!("{} histories, {points} cut points", HISTORIES.len());
    assert!(points > 1000 && moved > 2, "{points} cut points, {moved} messages moved");
}
