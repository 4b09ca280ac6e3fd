//! A model beside the spool: what must be there, what may be there, what must not.
//!
//! It knows only what callers were told. A commit that was not answered may be there or not; outcomes that
//! were recorded and not synced may be known or not; everything else is certain.

use super::harness::*;
use crate::*;
use futures_lite::future::{poll_once, yield_now};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// Status, attempts, held, and where it goes when it is rerouted.
type State = (RecipientStatus, u16, bool, String);

fn new() -> State {
    (RecipientStatus::Waiting, 0, false, String::new())
}

fn finished(status: RecipientStatus) -> State {
    (status, 1, false, String::new())
}

fn after(before: State, outcome: &Outcome) -> State {
    let (status, attempts, held, via) = before;
    match outcome.kind {
        OutcomeKind::Deferred => (status, outcome.attempts, held, via),
        OutcomeKind::Held => (status, attempts, true, via),
        OutcomeKind::Released => (status, attempts, false, via),
        OutcomeKind::Rerouted => (status, attempts, held, outcome.text.clone()),
        OutcomeKind::Delivered => (RecipientStatus::Delivered, outcome.attempts, false, String::new()),
        OutcomeKind::Deleted => (RecipientStatus::Deleted, outcome.attempts, false, String::new()),
        kind => panic!("no history has {kind:?} here"),
    }
}

/// What a spool says of each recipient.
fn states(message: &Message) -> Vec<State> {
    let via = |at: u32| message.vias.iter().find(|(of, _)| *of == at).map(|(_, via)| via.to_string());
    let of = |(state, at): (&RecipientState, u32)| {
        let via = via(at).filter(|_| !state.is_finished()).unwrap_or_default();
        (state.status, state.attempts, state.held, via)
    };
    message.states.iter().zip(0..).map(of).collect()
}

/// One recipient of the model.
#[derive(Clone, Debug)]
struct Slot {
    /// What a restart finds at least.
    durable: State,
    /// What was recorded since, in order; a restart finds some prefix of it.
    recorded: Vec<State>,
}

#[derive(Clone, Debug)]
struct Known {
    tag: u64,
    bytes: usize,
    acknowledged: bool,
    slots: Vec<Slot>,
    /// The DSN that was committed together with the end of this message, unanswered.
    dsn: Option<QueueId>,
}

impl Known {
    fn finished_now(&self) -> bool {
        self.slots.iter().all(|slot| slot.now().0 != RecipientStatus::Waiting)
    }

    /// Whether a restart may find it finished, and whether it must.
    fn finished(&self) -> (bool, bool) {
        let waits = |state: &State| state.0 == RecipientStatus::Waiting;
        let may = self.slots.iter().all(|slot| !waits(&slot.durable) || !slot.recorded.iter().all(waits));
        (may, self.slots.iter().all(|slot| !waits(&slot.durable)))
    }
}

impl Slot {
    fn now(&self) -> State {
        self.recorded.last().unwrap_or(&self.durable).clone()
    }
}

pub struct World {
    random: Cell<u64>,
    model: RefCell<BTreeMap<QueueId, Known>>,
    pub steps: Cell<u64>,
    pub refused: Cell<u64>,
    pub moved: Cell<u64>,
    pub abandoned: Cell<u64>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            random: Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            model: RefCell::default(),
            steps: Cell::new(0),
            refused: Cell::new(0),
            moved: Cell::new(0),
            abandoned: Cell::new(0),
        }
    }

    pub fn random(&self, below: u64) -> u64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 20) % below
    }

    /// Does `rounds` of things, several at a time, until the machine stops.
    pub async fn live(&self, spool: &Spool<FaultyStorage>, storage: &FaultyStorage, rounds: usize) {
        // Whatever pays is moved: a history here is too short to wait for four segments.
        spool.inner.desk.borrow_mut().compaction.slack_segments = 0;
        // In half of the lives, reasons find no room in memory.
        let texts_max = self.random(2) as usize * 1000;
        spool.inner.desk.borrow_mut().index.limit_texts(texts_max);
        for _ in 0..rounds {
            let crowd = 1 + self.random(4);
            let mut steps: Vec<std::pin::Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
            for _ in 0..crowd {
                steps.push(Box::pin(self.step(spool)));
            }
            together(steps).await;
            if storage.crashed() || spool.fault().is_some() {
                return;
            }
            self.compare_running(spool);
        }
    }

    async fn step(&self, spool: &Spool<FaultyStorage>) {
        self.steps.set(self.steps.get() + 1);
        match self.random(23) {
            0..6 => self.commit(spool, 6000, None).await,
            6 => self.commit(spool, 40_000, None).await,
            7 => self.give_up_draft(spool).await,
            8 => self.give_up_commit(spool).await,
            9..12 => self.record_one(spool),
            12..16 => self.finish(spool),
            16 => self.bounce(spool).await,
            17..19 => self.sync(spool).await,
            19 => self.read_back(spool).await,
            _ => self.compact(spool).await,
        }
    }

    async fn commit(&self, spool: &Spool<FaultyStorage>, bytes_max: u64, ends: Option<QueueId>) {
        let (tag, bytes) = (self.random(1 << 40), self.random(bytes_max) as usize);
        let recipients = 1 + self.random(4) as usize;
        let mut draft = spool.begin(NOW);
        let id = draft.id();
        for piece in content(tag, bytes).chunks(3000) {
            if spool.append(&mut draft, piece).await.is_err() {
                return;
            }
        }
        self.enter(id, tag, bytes, recipients);
        let flags = ContentFlags::default();
        let finishing = ends.and_then(|of| Some((of, self.bounces(of, id)?)));
        let result = match finishing.clone() {
            Some(finishing) => spool.commit_with(draft, envelope(recipients), flags, finishing).await,
            None => spool.commit(draft, envelope(recipients), flags).await,
        };
        let mut model = self.model.borrow_mut();
        match &result {
            Ok(_) => model.get_mut(&id).unwrap().acknowledged = true,
            Err(CommitError::Full) => {
                self.refused.set(self.refused.get() + 1);
                model.remove(&id);
            }
            Err(_) => {}
        }
        let Some((of, outcomes)) = finishing else { return };
        let bounced = model.get_mut(&of).unwrap();
        match result {
            Ok(_) => {
                bounced.dsn = None;
                for outcome in outcomes {
                    let slot = &mut bounced.slots[outcome.recipient as usize];
                    // Recorded meanwhile is finished meanwhile; both are durable now or later.
                    if slot.recorded.is_empty() {
                        slot.durable = finished(RecipientStatus::Bounced);
                    } else {
                        slot.recorded.push(finished(RecipientStatus::Bounced));
                    }
                }
            }
            Err(CommitError::Full) => bounced.dsn = None,
            Err(_) => {}
        }
    }

    fn enter(&self, id: QueueId, tag: u64, bytes: usize, recipients: usize) {
        let slot = Slot { durable: new(), recorded: Vec::new() };
        let known = Known { tag, bytes, acknowledged: false, slots: vec![slot; recipients], dsn: None };
        assert!(self.model.borrow_mut().insert(id, known).is_none(), "{id} was given out twice");
    }

    fn bounces(&self, of: QueueId, dsn: QueueId) -> Option<Vec<Outcome>> {
        let mut model = self.model.borrow_mut();
        let known = model.get_mut(&of)?;
        if known.dsn.is_some() || known.finished_now() {
            return None;
        }
        known.dsn = Some(dsn);
        Some((0..known.slots.len() as u32).map(|at| outcome(at, OutcomeKind::Bounced)).collect())
    }

    async fn give_up_draft(&self, spool: &Spool<FaultyStorage>) {
        let mut draft = spool.begin(NOW);
        let octets = content(1, self.random(30_000) as usize);
        if self.random(2) == 0 {
            let _ = spool.append(&mut draft, &octets).await;
        } else if poll_once(spool.append(&mut draft, &octets)).await.is_none() {
            let broken = spool.commit(draft, envelope(1), ContentFlags::default()).await;
            assert!(matches!(broken, Err(CommitError::Broken | CommitError::Poisoned(_))), "{broken:?}");
        }
    }

    async fn give_up_commit(&self, spool: &Spool<FaultyStorage>) {
        let (tag, bytes) = (self.random(1 << 40), self.random(5000) as usize);
        let mut draft = spool.begin(NOW);
        let id = draft.id();
        if spool.append(&mut draft, &content(tag, bytes)).await.is_ok() {
            self.enter(id, tag, bytes, 1);
            let commit = spool.commit(draft, envelope(1), ContentFlags::default());
            let answer = poll_once(commit).await;
            assert!(!matches!(answer, Some(Ok(_))), "nothing is durable before it is written");
        }
    }

    fn waiting(&self) -> Option<QueueId> {
        let model = self.model.borrow();
        let ids: Vec<_> = model
            .iter()
            .filter(|(_, known)| known.acknowledged && !known.finished_now() && known.dsn.is_none())
            .map(|(id, _)| *id)
            .collect();
        (!ids.is_empty()).then(|| ids[self.random(ids.len() as u64) as usize])
    }

    fn record(&self, spool: &Spool<FaultyStorage>, id: QueueId, outcomes: Vec<Outcome>) {
        let mut model = self.model.borrow_mut();
        let known = model.get_mut(&id).unwrap();
        for outcome in &outcomes {
            let slot = &mut known.slots[outcome.recipient as usize];
            if slot.now().0 == RecipientStatus::Waiting {
                slot.recorded.push(after(slot.now(), outcome));
            }
        }
        spool.record(id, outcomes);
    }

    fn record_one(&self, spool: &Spool<FaultyStorage>) {
        let Some(id) = self.waiting() else { return };
        let recipients = self.model.borrow()[&id].slots.len() as u64;
        use OutcomeKind::{Deferred, Deleted, Delivered, Held, Released, Rerouted};
        let kinds = [Deferred, Deferred, Deferred, Delivered, Delivered, Deleted, Held, Released, Rerouted];
        let kind = kinds[self.random(kinds.len() as u64) as usize];
        let attempts = 1 + self.random(60_000) as u16;
        let via = ["", "192.0.2.1:25", "mx:elsewhere.example"][self.random(3) as usize];
        let text = if kind == Rerouted { via.to_owned() } else { format!("{kind:?}") };
        let what = Outcome { attempts, text, ..outcome(self.random(recipients) as u32, kind) };
        self.record(spool, id, vec![what]);
    }

    fn finish(&self, spool: &Spool<FaultyStorage>) {
        let Some(id) = self.waiting() else { return };
        let recipients = self.model.borrow()[&id].slots.len();
        self.record(spool, id, delivered(recipients));
    }

    async fn bounce(&self, spool: &Spool<FaultyStorage>) {
        let of = self.waiting();
        self.commit(spool, 2000, of).await;
    }

    async fn sync(&self, spool: &Spool<FaultyStorage>) {
        let before: Vec<(QueueId, Vec<usize>)> = {
            let model = self.model.borrow();
            let lengths = |known: &Known| known.slots.iter().map(|slot| slot.recorded.len()).collect();
            model.iter().map(|(id, known)| (*id, lengths(known))).collect()
        };
        if spool.sync().await.is_err() {
            return;
        }
        let mut model = self.model.borrow_mut();
        for (id, lengths) in before {
            let Some(known) = model.get_mut(&id) else { continue };
            for (slot, length) in known.slots.iter_mut().zip(lengths) {
                let length = length.min(slot.recorded.len());
                if let Some(state) = slot.recorded.drain(..length).next_back() {
                    slot.durable = state;
                }
            }
        }
        model.retain(|_, known| !known.finished().1 || known.dsn.is_some());
    }

    /// Nothing changes for anybody. Sometimes given up half-way.
    async fn compact(&self, spool: &Spool<FaultyStorage>) {
        let mut step = Box::pin(spool.compact_step());
        if self.random(4) == 0 {
            for _ in 0..self.random(12) {
                if let Some(done) = poll_once(&mut step).await {
                    return self.compacted(done);
                }
                yield_now().await;
            }
            return;
        }
        self.compacted(step.await);
    }

    fn compacted(&self, done: Result<Compacted, CommitError>) {
        if let Ok(done) = done {
            self.moved.set(self.moved.get() + done.messages as u64);
            self.abandoned.set(self.abandoned.get() + done.abandoned as u64);
        }
    }

    async fn read_back(&self, spool: &Spool<FaultyStorage>) {
        let Some(id) = self.waiting() else { return };
        let known = self.model.borrow()[&id].clone();
        match read_all(spool, id).await {
            Ok(octets) => assert!(octets == content(known.tag, known.bytes), "{id} reads otherwise"),
            // It was finished, or the machine stopped, while it was read.
            Err(ReadError::Unknown | ReadError::Device(_)) => {}
            Err(error) => panic!("{id}: {error}"),
        }
    }

    /// While it runs, with nobody waiting: the index is the model, but for what was not answered.
    fn compare_running(&self, spool: &Spool<FaultyStorage>) {
        let model = self.model.borrow();
        let live = spool.live(None, usize::MAX);
        for (id, known) in model.iter().filter(|(_, known)| known.acknowledged && known.dsn.is_none()) {
            assert_eq!(live.contains(id), !known.finished_now(), "{id} {known:?}");
        }
        assert!(live.iter().all(|id| model.contains_key(id)), "a message that nobody committed");
        for id in spool.unclaimed() {
            assert!(!model[&id].acknowledged, "{id} was answered");
        }
    }

    /// After a restart: holds the spool against the model, and takes what was uncertain as it is now.
    pub async fn compare_restarted<S: Storage>(&self, spool: &Spool<S>, recovery: &Recovery) {
        assert_eq!(recovery.damages, [], "a crash is not damage");
        let live = spool.live(None, usize::MAX);
        let mut model = self.model.take();
        for id in &live {
            let known = model.get(id).unwrap_or_else(|| panic!("{id} came from nowhere or came back"));
            assert!(!known.finished().1, "{id} was finished, durably: {known:?}");
            let message = spool.load(*id).await.unwrap();
            assert_eq!(message.envelope, *envelope(known.slots.len()));
            assert!(read_all(spool, *id).await.unwrap() == content(known.tag, known.bytes), "{id}");
            let uncertain_dsn = known.dsn.is_some();
            for (slot, found) in known.slots.iter().zip(states(&message)) {
                let allowed = found == slot.durable || slot.recorded.contains(&found);
                assert!(
                    allowed && (!uncertain_dsn || found.0 != RecipientStatus::Bounced),
                    "{id}: {found:?} {slot:?}"
                );
            }
        }
        for (id, known) in model.iter().filter(|(id, _)| !live.contains(id)) {
            let by_dsn = known.dsn.is_some_and(|dsn| live.contains(&dsn));
            assert!(!known.acknowledged || known.finished().0 || by_dsn, "{id} is lost: {known:?}");
        }
        // The DSN and the end of its message: both or neither.
        for (id, known) in model.iter().filter(|(_, known)| known.dsn.is_some()) {
            let dsn_lives = live.contains(&known.dsn.unwrap());
            assert!(!(dsn_lives && live.contains(id)), "{id} lives beside its DSN");
        }
        let mut kept = BTreeMap::new();
        for id in live {
            let mut known = model.remove(&id).unwrap();
            known.acknowledged = true;
            known.dsn = None;
            for (slot, durable) in known.slots.iter_mut().zip(states(&spool.load(id).await.unwrap())) {
                *slot = Slot { durable, recorded: Vec::new() };
            }
            kept.insert(id, known);
        }
        self.model.replace(kept);
    }
}
