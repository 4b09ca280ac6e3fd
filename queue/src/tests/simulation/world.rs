//! One spool and its model, through many lives on a faulty device.

use super::super::harness::*;
use super::super::indexes::compare_readings;
use super::drive::drive;
use super::figures::Figures;
use super::model::{Known, Model, Standing};
use super::plan::Plan;
use crate::compaction::policy::SLACK_SEGMENTS;
use crate::*;
use futures_lite::future::{or, pending};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

/// Compaction steps that a small spool can need.
const COMPACTION_STEPS_MAX: usize = 10_000;

pub struct World {
    random: Cell<u64>,
    clock: Cell<u64>,
    /// The device lies: what it lied about may be lost, and must be missed.
    pub lying: bool,
    pub model: RefCell<Model>,
    pub figures: Cell<Figures>,
    /// A session that takes its time.
    pub dawdler: RefCell<Option<Draft>>,
    /// Slots of the segments in which messages lie, and those that the device has lied about.
    whereabouts: RefCell<BTreeMap<QueueId, BTreeSet<u32>>>,
    lies: RefCell<BTreeSet<u32>>,
    /// Messages that waited at a start and could not be read, which only lies excuse: a start from indexes
    /// does not look at octets.
    unreadable: RefCell<BTreeSet<QueueId>>,
}

/// A spool in use, and its device.
pub struct Life {
    pub spool: Spool<FaultyStorage>,
    pub storage: FaultyStorage,
}

impl World {
    pub fn new(seed: u64, lying: bool) -> Self {
        Self {
            random: Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            clock: Cell::new(NOW),
            lying,
            model: RefCell::default(),
            figures: Cell::default(),
            dawdler: RefCell::default(),
            whereabouts: RefCell::default(),
            lies: RefCell::default(),
            unreadable: RefCell::default(),
        }
    }

    /// Another world that knows the same of the messages.
    pub fn fork(&self) -> Self {
        let world = Self::new(self.random.get(), self.lying);
        world.clock.set(self.clock.get());
        *world.model.borrow_mut() = self.model.borrow().clone();
        world
    }

    pub fn random(&self, below: u64) -> u64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 20) % below
    }

    /// Stands still, goes, and is set back now and then. What a lying device makes a spool forget cannot be
    /// given out again only as long as the clock goes.
    pub fn now(&self) -> u64 {
        let now = match self.random(8) {
            0 if !self.lying => self.clock.get() - self.random(50),
            1..4 if !self.lying => self.clock.get(),
            _ => self.clock.get() + 1 + self.random(5),
        };
        self.clock.set(now);
        now
    }

    pub fn count(&self, change: impl FnOnce(&mut Figures)) {
        let mut figures = self.figures.get();
        change(&mut figures);
        self.figures.set(figures);
    }

    /// Opens the spool as planned, lets callers do `rounds` of things, and gives what the next start finds.
    pub fn live(&self, memory: MemoryStorage, plan: &Plan, rounds: usize) -> MemoryStorage {
        self.life(memory, plan, async |life| {
            for _ in 0..rounds {
                self.round(life).await;
                if life.storage.crashed() || life.spool.fault().is_some() {
                    return;
                }
                self.compare_running(&life.spool);
            }
        })
    }

    /// The same with `body` for what callers do.
    pub fn life(&self, memory: MemoryStorage, plan: &Plan, body: impl AsyncFnOnce(&Life)) -> MemoryStorage {
        self.count(|figures| figures.lives += 1);
        let indexed = compare_readings(&memory) as u64;
        self.count(|figures| figures.indexed += indexed);
        let storage = FaultyStorage::new(memory, plan.opening.clone());
        match drive(&storage, Spool::open(storage.clone(), number(), plan.options)) {
            Ok((spool, recovery)) => {
                let life = Life { spool, storage: storage.clone() };
                drive(&storage, beside_writer(&life, self.a_life(&life, &recovery, plan, body)));
                self.count(|figures| figures.poisoned += life.spool.fault().is_some() as u64);
                self.note_whereabouts(&life);
            }
            // Stopped, or refused something, while the end of the log was being sealed.
            Err(OpenError::Device(_)) => self.count(|figures| figures.starts_failed += 1),
            Err(error) => panic!("{error}"),
        }
        self.dawdler.take();
        self.count(|figures| figures.crashes += storage.crashed() as u64);
        let memory = storage.restart();
        self.count(|figures| {
            figures.steps += storage.steps();
            *figures += storage.injected();
        });
        self.lies.borrow_mut().extend(storage.lies());
        memory
    }

    async fn a_life(&self, life: &Life, recovery: &Recovery, plan: &Plan, body: impl AsyncFnOnce(&Life)) {
        // Looking must not change what is found, so the device reads well meanwhile.
        life.storage.set(|faults| {
            (faults.read_errors_one_in, faults.reads_elsewhere_one_in, faults.reads_stale_one_in) = (0, 0, 0);
        });
        self.lies.borrow_mut().extend(life.storage.lies());
        self.compare_restarted(&life.spool, recovery).await;
        life.storage.set(|faults| *faults = plan.living.clone());
        // Whatever pays is moved: a history here is too short to wait for four segments.
        life.spool.inner.desk.borrow_mut().compaction.slack_segments = 0;
        // In half of the lives, reasons find no room in memory.
        life.spool.inner.desk.borrow_mut().index.limit_texts(self.random(2) as usize * 1000);
        body(life).await;
        if plan.closes && !life.storage.crashed() && life.spool.fault().is_none() {
            self.close(life).await;
        }
    }

    async fn close(&self, life: &Life) {
        self.dawdler.take();
        let mark = self.model.borrow().mark();
        if life.spool.clone().close().await.is_ok() {
            self.model.borrow_mut().synced(mark);
            self.count(|figures| figures.closes += 1);
        }
    }

    /// While it runs, with nobody waiting: the index is the model, but for what was not answered.
    fn compare_running(&self, spool: &Spool<FaultyStorage>) {
        let model = self.model.borrow();
        let live = spool.live(None, usize::MAX);
        for (id, known) in model.known.iter().filter(|(_, known)| known.acknowledged && known.dsn.is_none()) {
            assert_eq!(live.binary_search(id).is_ok(), !known.finished_now(), "{id} {known:?}");
        }
        let unreadable = self.unreadable.borrow();
        let known = |id: &QueueId| model.known.contains_key(id) || unreadable.contains(id);
        assert!(live.iter().all(known), "a message that nobody committed");
        for id in spool.unclaimed() {
            assert!(!model.known[&id].acknowledged, "{id} was answered");
        }
    }

    /// After a restart: holds the spool against the model, and takes what was uncertain as it is now.
    pub async fn compare_restarted<S: Storage>(&self, spool: &Spool<S>, recovery: &Recovery) {
        self.count(|figures| figures.damages += recovery.damages.len() as u64);
        // What is reported is known to be bad, as what the device lied about is.
        self.lies.borrow_mut().extend(recovery.damages.iter().map(|damage| damage.slot));
        if !self.lying {
            assert_eq!(recovery.damages, [], "a crash is not damage");
        }
        let mut found = Vec::new();
        for id in spool.live(None, usize::MAX) {
            let known = self.known(id);
            if let Some(states) = self.look_at(spool, id, &known).await {
                found.push((id, states));
            } else {
                self.unreadable.borrow_mut().insert(id);
            }
        }
        let live: BTreeSet<QueueId> = spool.live(None, usize::MAX).into_iter().collect();
        let mut model = self.model.borrow_mut();
        for (id, known) in model.known.iter().filter(|(id, _)| !live.contains(id)) {
            let by_dsn = known.dsn.is_some_and(|dsn| live.contains(&dsn));
            if known.acknowledged && !known.may_be_finished() && !by_dsn {
                self.lost(*id, known, recovery);
            }
        }
        // The DSN and the end of its message: both or neither.
        for (id, known) in model.known.iter().filter(|(_, known)| known.dsn.is_some()) {
            let beside = live.contains(&known.dsn.unwrap()) && live.contains(id);
            assert!(!beside || self.lying, "{id} lives beside its DSN");
        }
        model.adopt(found);
    }

    fn known(&self, id: QueueId) -> Known {
        let model = self.model.borrow();
        let known = model.known.get(&id).or_else(|| model.past.get(&id).filter(|_| self.lying));
        known
            .unwrap_or_else(|| panic!("{id} came from nowhere or came back: {:?}", model.past.get(&id)))
            .clone()
    }

    /// A message that a start found: its states, or `None` when it cannot be read, which only lies excuse.
    async fn look_at<S: Storage>(
        &self,
        spool: &Spool<S>,
        id: QueueId,
        known: &Known,
    ) -> Option<Vec<Standing>> {
        let read = match spool.load(id).await {
            Ok(message) => read_all(spool, id).await.map(|octets| (message, octets)),
            Err(error) => Err(error),
        };
        let (message, octets) = match read {
            Ok(read) => read,
            Err(error) => {
                assert!(self.lying, "{id}: {error}");
                return None;
            }
        };
        assert_eq!(message.envelope, *envelope(known.slots.len()));
        assert!(octets == content(known.tag, known.bytes), "{id} reads otherwise");
        let standings = Standing::all_of(&message);
        if !self.lying {
            assert!(!known.must_be_finished(), "{id} was finished, durably: {known:?}");
            assert!(known.may_be_in(&standings), "{id}: {standings:?} {known:?}");
        }
        Some(standings)
    }

    /// A message is not there that should be.
    fn lost(&self, id: QueueId, known: &Known, recovery: &Recovery) {
        assert!(self.lying, "{id} is lost: {known:?}");
        let whereabouts = self.whereabouts.borrow();
        let lies = self.lies.borrow();
        let nowhere = BTreeSet::new();
        let places = whereabouts.get(&id).unwrap_or(&nowhere);
        assert!(
            known.forgotten || places.iter().any(|slot| lies.contains(slot)),
            "{id} is lost: it lay in {places:?}, the device lied about {lies:?}; {recovery:?}"
        );
        self.count(|figures| {
            figures.lost += 1;
            figures.lost_silently += recovery.damages.is_empty() as u64;
        });
    }

    /// Where the messages lie, as far as the spool knows.
    fn note_whereabouts(&self, life: &Life) {
        let (desk, table) = (life.spool.inner.desk.borrow(), life.spool.inner.table.borrow());
        let mut whereabouts = self.whereabouts.borrow_mut();
        for (id, entry) in desk.index.waiting_after(None).chain(desk.index.damaged()) {
            let marks = entry.extents_held();
            let sequences = marks.iter().map(|mark| mark.sequence).chain([entry.commit.segment.sequence]);
            let slots = sequences.filter_map(|sequence| table.get(sequence).map(|segment| segment.slot));
            whereabouts.insert(id, slots.collect());
        }
    }

    /// At the end, on a device without faults: all is there, the end of the log is sealed, and, when it may
    /// take its time, the disk is used within its bound.
    pub fn last_look(&self, memory: MemoryStorage, settles: bool) {
        let plan =
            Plan { options: small(), opening: Default::default(), living: Default::default(), closes: true };
        let memory = self.life(memory, &plan, async |life| {
            self.compare_running(&life.spool);
            if settles && !self.lying {
                self.settle(life).await;
            }
        });
        let memory = self.life(memory, &plan, async |_| {});
        opened(memory, small(), |spool, recovery| async move {
            assert_eq!(recovery.cut, None, "the end was sealed");
            self.compare_restarted(&spool, &recovery).await;
        });
    }

    /// The bound of the disk: twice what waits, the slack of compaction, the active segment, one more that
    /// begins, and those kept idle.
    async fn settle(&self, life: &Life) {
        life.spool.inner.desk.borrow_mut().compaction.slack_segments = SLACK_SEGMENTS;
        for _ in 0..3 {
            self.compact_all(life).await;
            self.turn_segments(life, 8).await;
        }
        self.compact_all(life).await;
        let stats = life.spool.stats();
        let segment = small().segment_bytes;
        let kept = stats.segment_bytes - stats.segments_idle as u64 * segment;
        let bound = 2 * stats.live_bytes + (SLACK_SEGMENTS + 2) * segment;
        assert!(kept <= bound, "{kept} octets of disk over {bound}: {stats:?}");
        assert!(stats.segments_idle <= small().idle_segments_max + 1, "{stats:?}");
    }

    async fn compact_all(&self, life: &Life) {
        for _ in 0..COMPACTION_STEPS_MAX {
            if !life.spool.compact_step().await.expect("there is room").more {
                return;
            }
        }
        panic!("compaction comes to no end");
    }

    /// Mail that comes and goes, until as many segments were begun.
    async fn turn_segments(&self, life: &Life, count: u64) {
        let last = |life: &Life| life.spool.inner.desk.borrow().last_segment;
        let until = last(life) + count;
        while last(life) < until {
            let id = self.commit(life, 20_000, 1, None).await.expect("there is room");
            self.record(&life.spool, id, delivered(1));
            self.sync(&life.spool).await;
        }
    }
}

async fn beside_writer<T>(life: &Life, body: impl Future<Output = T>) -> T {
    let writer = async {
        life.spool.writer().await;
        pending().await
    };
    or(writer, body).await
}
