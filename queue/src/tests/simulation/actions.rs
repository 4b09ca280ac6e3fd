//! What callers do: sessions, deliveries, the timer of the shard, the administrator.

use super::super::harness::*;
use super::world::{Life, World};
use crate::*;
use futures_lite::future::{poll_once, yield_now};
use std::pin::Pin;

/// Things done at a time.
const CROWD_MAX: u64 = 5;

impl World {
    /// Some callers at a time do something each.
    pub async fn round(&self, life: &Life) {
        let crowd = 1 + self.random(CROWD_MAX);
        let mut callers: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
        for _ in 0..crowd {
            callers.push(Box::pin(self.act(life)));
        }
        together(callers).await;
    }

    async fn act(&self, life: &Life) {
        let spool = &life.spool;
        match self.random(32) {
            0..7 => drop(self.commit_some(life, 6000, None).await),
            7 => drop(self.commit_some(life, 60_000, None).await),
            8 => self.give_up_draft(spool).await,
            9 => self.give_up_commit(spool).await,
            10..14 => self.record_one(spool),
            14..19 => self.finish(spool),
            19 | 20 => self.bounce(life).await,
            21..23 => self.sync(spool).await,
            23 | 24 => self.read_back(spool).await,
            25 => self.dawdle(spool).await,
            26 => self.change_room(life),
            27 => spool.nudge(),
            _ => self.compact(spool).await,
        }
        life.storage.progress();
        self.count(|figures| figures.operations += 1);
    }

    async fn commit_some(&self, life: &Life, bytes_max: u64, ends: Option<QueueId>) -> Option<QueueId> {
        let (bytes, recipients) = (self.random(bytes_max) as usize, 1 + self.random(4) as usize);
        self.commit(life, bytes, recipients, ends).await
    }

    /// A session; `ends`: the message that the new one reports as bounced.
    pub async fn commit(
        &self,
        life: &Life,
        bytes: usize,
        recipients: usize,
        ends: Option<QueueId>,
    ) -> Option<QueueId> {
        let spool = &life.spool;
        let tag = self.random(1 << 40);
        let mut draft = self.begin_some(spool, bytes).await?;
        let id = draft.id();
        for piece in content(tag, bytes).chunks(3000) {
            let appended = spool.append(&mut draft, piece).await;
            let kept = draft.promised() == 0 || appended != Err(CommitError::Full);
            assert!(kept, "{id} was let in and found no room");
            appended.ok()?;
        }
        let promised = draft.promised() > 0 && ends.is_none();
        self.model.borrow_mut().enter(id, tag, bytes, recipients);
        let flags = ContentFlags::default();
        let finishing = ends.and_then(|of| Some((of, self.bounces(of, id)?)));
        let verdict = match finishing.clone() {
            Some(finishing) => spool.commit_with(draft, envelope(recipients), flags, finishing).await,
            None => spool.commit(draft, envelope(recipients), flags).await,
        };
        assert!(!promised || verdict != Err(CommitError::Full), "{id} was let in and found no room");
        self.answered(id, &verdict);
        if let Some((of, outcomes)) = finishing {
            self.model.borrow_mut().bounced(of, &outcomes, &verdict);
        }
        verdict.ok().map(|_| id)
    }

    /// Half of the sessions have room promised, as those of the relay.
    async fn begin_some(&self, spool: &Spool<FaultyStorage>, bytes: usize) -> Option<Draft> {
        if self.random(2) == 0 {
            return Some(self.begin(spool));
        }
        let room = spool.reserve(bytes as u64, 400).await.ok()?;
        let draft = spool.begin_reserved(self.now(), room);
        assert!(!self.model.borrow().ids.contains(&draft.id()), "{} was given out twice", draft.id());
        Some(draft)
    }

    fn begin(&self, spool: &Spool<FaultyStorage>) -> Draft {
        let draft = spool.begin(self.now());
        assert!(!self.model.borrow().ids.contains(&draft.id()), "{} was given out twice", draft.id());
        draft
    }

    fn answered(&self, id: QueueId, verdict: &Result<Stored, CommitError>) {
        let mut model = self.model.borrow_mut();
        match verdict {
            Ok(stored) => {
                assert_eq!((stored.id, stored.content_bytes), (id, model.known[&id].bytes as u64));
                model.acknowledge(id);
                self.count(|figures| figures.acknowledged += 1);
            }
            Err(CommitError::Full) => {
                model.known.remove(&id);
                self.count(|figures| figures.refused += 1);
            }
            Err(_) => {}
        }
    }

    fn bounces(&self, of: QueueId, dsn: QueueId) -> Option<Vec<Outcome>> {
        let mut model = self.model.borrow_mut();
        let known = model.known.get_mut(&of)?;
        if known.dsn.is_some() || known.finished_now() {
            return None;
        }
        known.dsn = Some(dsn);
        Some((0..known.slots.len() as u32).map(|at| outcome(at, OutcomeKind::Bounced)).collect())
    }

    async fn give_up_draft(&self, spool: &Spool<FaultyStorage>) {
        let mut draft = self.begin(spool);
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
        let mut draft = self.begin(spool);
        let id = draft.id();
        if spool.append(&mut draft, &content(tag, bytes)).await.is_ok() {
            self.model.borrow_mut().enter(id, tag, bytes, 1);
            let commit = spool.commit(draft, envelope(1), ContentFlags::default());
            let answer = poll_once(commit).await;
            assert!(!matches!(answer, Some(Ok(_))), "nothing is durable before it is written");
        }
    }

    /// A session that sends a piece now and then; its draft keeps segments meanwhile.
    async fn dawdle(&self, spool: &Spool<FaultyStorage>) {
        let draft = self.dawdler.take();
        let mut draft = draft.unwrap_or_else(|| self.begin(spool));
        let tag = draft.id().bits() >> 24;
        let so_far = draft.bytes() as usize;
        if so_far > 20_000 {
            let id = draft.id();
            self.model.borrow_mut().enter(id, tag, so_far, 2);
            let verdict = spool.commit(draft, envelope(2), ContentFlags::default()).await;
            return self.answered(id, &verdict);
        }
        let more = self.random(9000) as usize;
        let octets = content(tag, so_far + more);
        if spool.append(&mut draft, &octets[so_far..]).await.is_ok() && self.dawdler.borrow().is_none() {
            self.dawdler.replace(Some(draft));
        }
    }

    /// Others fill the device, or leave it room.
    fn change_room(&self, life: &Life) {
        let files = life.spool.stats().segments;
        let full = life.storage.faults().files_max.is_some();
        let room = (!full).then(|| files + self.random(2) as usize);
        life.storage.set(|faults| faults.files_max = room);
    }

    fn waiting(&self) -> Option<QueueId> {
        let ids = self.model.borrow().waiting();
        (!ids.is_empty()).then(|| ids[self.random(ids.len() as u64) as usize])
    }

    pub fn record(&self, spool: &Spool<FaultyStorage>, id: QueueId, outcomes: Vec<Outcome>) {
        self.model.borrow_mut().record(id, &outcomes);
        spool.record(id, outcomes);
    }

    fn record_one(&self, spool: &Spool<FaultyStorage>) {
        let Some(id) = self.waiting() else { return };
        let recipients = self.model.borrow().known[&id].slots.len() as u64;
        use OutcomeKind::{Deferred, Deleted, Delivered, Held, Released, Rerouted};
        let kinds = [Deferred, Deferred, Deferred, Delivered, Delivered, Deleted, Held, Released, Rerouted];
        let kind = kinds[self.random(kinds.len() as u64) as usize];
        let via = ["", "192.0.2.1:25", "mx:elsewhere.example"][self.random(3) as usize];
        let text = if kind == Rerouted { via.to_owned() } else { format!("{kind:?}") };
        let recipient = self.random(recipients) as u32;
        // Attempts rise: a spool goes by that where it must tell old from new.
        let before = self.model.borrow().known[&id].slots[recipient as usize].now().state.attempts;
        let attempts = before.saturating_add(1 + self.random(1000) as u16);
        let notified = self.random(4) == 0;
        let what = Outcome { attempts, notified, text, ..outcome(recipient, kind) };
        self.record(spool, id, vec![what]);
    }

    fn finish(&self, spool: &Spool<FaultyStorage>) {
        let Some(id) = self.waiting() else { return };
        let recipients = self.model.borrow().known[&id].slots.len();
        self.record(spool, id, delivered(recipients));
    }

    async fn bounce(&self, life: &Life) {
        let of = self.waiting();
        self.commit_some(life, 2000, of).await;
    }

    pub async fn sync(&self, spool: &Spool<FaultyStorage>) {
        let mark = self.model.borrow().mark();
        if spool.sync().await.is_ok() {
            self.model.borrow_mut().synced(mark);
        }
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

    pub fn compacted(&self, done: Result<Compacted, CommitError>) {
        let Ok(done) = done else { return };
        self.count(|figures| {
            figures.moved += done.messages as u64;
            figures.abandoned += done.abandoned as u64;
        });
    }

    /// Whatever the device does while it reads: what comes is right.
    async fn read_back(&self, spool: &Spool<FaultyStorage>) {
        let Some(id) = self.waiting() else { return };
        let known = self.model.borrow().known[&id].clone();
        let octets = match read_all(spool, id).await {
            Ok(octets) => octets,
            // It was finished, or the machine stopped, or the device read badly.
            Err(_) => return,
        };
        assert!(octets == content(known.tag, known.bytes), "{id} reads otherwise");
        if let Ok(message) = spool.load(id).await {
            assert_eq!(message.envelope, *envelope(known.slots.len()));
        }
    }
}
