//! Moving messages from one spool of a relay into another: crash-safe, and never two live copies that do
//! not know each other.
//!
//! Lives on the shard that has both spools. Two orders make it safe, whatever stops when:
//!
//! 1. The message is durable in its new spool, in one batch with the ancestry that says so, before an
//!    outcome (*moved*) finishes it in the old one.
//! 2. It is handed to delivery only under its new id, and so only after 1; the spools that are emptied hand
//!    nothing over before.
//!
//! A crash in between leaves it in both. Then the ancestry of the new spool knows the old copy, also when
//! the new one is finished and gone: [`Spool::settle_known`] finishes it before anything is handed over.
//!
//! What is recorded of a message while it is under way is kept aside, and applied where it ends up.

use crate::ancestry::{Ancestry, Origin, Standing};
use crate::error::CommitError;
use crate::id::QueueId;
use crate::record::{Outcome, OutcomeKind};
use crate::restore::{Look, Restore, Restored, Source};
use crate::spool::Spool;
use crate::storage::Storage;
use std::collections::BTreeSet;

/// Messages of one step.
const STEP_MESSAGES_MAX: usize = if cfg!(test) { 7 } else { 128 };
/// Octets of content of a step, but for one message that has more.
const STEP_BYTES_MAX: u64 = 512 << 10;

/// Empties a spool into another one, step by step.
pub struct Move<S: Storage> {
    from: Spool<S>,
    to: Spool<S>,
    restore: Restore<S>,
    after: Option<QueueId>,
    /// Ended the last step, which had moved something: that is told first.
    failed: Option<CommitError>,
}

/// What a step did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// They wait in the new spool now, and may be handed over there.
    pub moved: Vec<Restored>,
    /// They were in the new spool before, or had been.
    pub known: Vec<QueueId>,
    /// They do not fit there, and wait where they are.
    pub stay: Vec<QueueId>,
    /// They cannot be read, and stay where they are.
    pub unreadable: Vec<QueueId>,
    /// There may be more to do.
    pub more: bool,
}

impl<S: Storage> Move<S> {
    pub fn new(from: Spool<S>, to: Spool<S>) -> Self {
        let drafts = from.open_drafts().into_iter().chain(from.damaged()).collect();
        let source = Source {
            lineage: from.lineage(),
            known: vec![to.ancestry()],
            drafts,
            own: BTreeSet::new(),
            again: false,
        };
        let restore = Restore::new(to.clone(), source);
        Self { from, to, restore, after: None, failed: None }
    }

    /// Moves some messages, oldest first.
    ///
    /// # Errors
    /// See [`CommitError`]: what was not moved waits where it was. Begin a new move for it.
    pub async fn step(&mut self, now_micros: u64) -> Result<Moved, CommitError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.from.settle_lineage().await?;
        let mut done = Moved::default();
        let ids = self.next();
        let Some(last) = ids.last() else { return Ok(done) };
        (self.after, done.more) = (Some(*last), true);
        let mut departing = Departing::new(&self.from, &ids);
        let mut moved = Vec::new();
        if let Err(error) = self.take_all(ids, now_micros, &mut departing, &mut done, &mut moved).await {
            if moved.is_empty() {
                return Err(error);
            }
            self.failed = Some(error);
        }
        for restored in &moved {
            let text = restored.id.to_string();
            let kept = departing.end(restored.from);
            self.from.finish_moved(restored.from, &text, now_micros);
            self.to.record(restored.id, kept);
        }
        done.moved = moved;
        Ok(done)
    }

    /// `moved` gets what is durable in the new spool, also when an error follows.
    async fn take_all(
        &mut self,
        ids: Vec<QueueId>,
        now_micros: u64,
        departing: &mut Departing<S>,
        done: &mut Moved,
        moved: &mut Vec<Restored>,
    ) -> Result<(), CommitError> {
        for id in ids {
            moved.extend(self.take(id, now_micros, departing, done).await?);
        }
        moved.extend(self.restore.flush(&Ancestry::default()).await?);
        Ok(())
    }

    fn next(&self) -> Vec<QueueId> {
        let (mut ids, mut bytes) = (Vec::new(), 0);
        for id in self.from.live(self.after, STEP_MESSAGES_MAX) {
            bytes += self.from.summary(id).map_or(0, |summary| summary.content_bytes);
            if bytes > STEP_BYTES_MAX && !ids.is_empty() {
                break;
            }
            ids.push(id);
        }
        ids
    }

    async fn take(
        &mut self,
        id: QueueId,
        now_micros: u64,
        departing: &mut Departing<S>,
        done: &mut Moved,
    ) -> Result<Vec<Restored>, CommitError> {
        match self.restore.look(id, self.from.origin_of_other(id)) {
            Look::Wanted => {}
            Look::Here | Look::Finished | Look::Doubtful => {
                let new = self.to.holds(self.from.origin_of(id));
                let kept = departing.end(id);
                self.from.finish_moved(id, &new.map(|id| id.to_string()).unwrap_or_default(), now_micros);
                new.into_iter().for_each(|new| self.to.record(new, kept.clone()));
                done.known.push(id);
                return Ok(Vec::new());
            }
            Look::Disorder => unreachable!("pages rise"),
        }
        let Ok(message) = self.from.load(id).await else {
            return Ok(self.unreadable(id, departing, done));
        };
        let (content_bytes, refused) = (message.content_bytes, self.restore.brought().refused);
        self.restore.begin(message.clone().into(), now_micros);
        let mut read = 0;
        while read < content_bytes {
            match self.from.read_loaded(&message, read, usize::MAX).await {
                Ok(octets) if !octets.is_empty() => {
                    self.restore.octets(&octets).await?;
                    read += octets.len() as u64;
                }
                _ => return Ok(self.unreadable(id, departing, done)),
            }
        }
        let restored = self.restore.end().await?;
        if self.restore.brought().refused > refused {
            departing.stay(id);
            done.stay.push(id);
        }
        Ok(restored)
    }

    fn unreadable(&mut self, id: QueueId, departing: &mut Departing<S>, done: &mut Moved) -> Vec<Restored> {
        self.restore.unreadable(id);
        departing.stay(id);
        done.unreadable.push(id);
        Vec::new()
    }

    /// The spool is empty: the other one learns all that it knew. Durable on return; from then on the
    /// directory of the empty spool means nothing and may be removed, in any order.
    ///
    /// # Errors
    /// See [`CommitError`]; or the spool is not empty: `Broken`.
    pub async fn finish(mut self) -> Result<(), CommitError> {
        if self.from.messages() > 0 || !self.from.damaged().is_empty() || !self.from.open_drafts().is_empty()
        {
            return Err(CommitError::Broken);
        }
        let (through, inherited) = (self.from.id_floor(), self.from.ancestry());
        self.restore.finish(through, &inherited).await.map(drop)
    }
}

impl<S: Storage> Spool<S> {
    /// Finishes waiting messages that were moved out of this spool or brought in elsewhere, going by what
    /// the relay's other spools know. Looks at `count` of them after `after`; gives where to go on and which
    /// it finished.
    pub fn settle_known(
        &self,
        others: &Ancestry,
        after: Option<QueueId>,
        count: usize,
        now_micros: u64,
    ) -> (Option<QueueId>, Vec<QueueId>) {
        let mut ids = self.live(after, count);
        let next = (ids.len() == count).then(|| ids.last().copied()).flatten();
        let lineage = self.lineage();
        ids.retain(|id| others.standing(Origin { lineage, id: *id }) == Standing::Known);
        ids.iter().for_each(|id| self.finish_moved(*id, "", now_micros));
        (next, ids)
    }

    /// The origin of a message, when it is not this spool.
    fn origin_of_other(&self, id: QueueId) -> Option<Origin> {
        Some(self.origin_of(id)).filter(|origin| origin.lineage != self.lineage())
    }

    fn finish_moved(&self, id: QueueId, text: &str, at_micros: u64) {
        let states = self.inner.desk.borrow().index.get(id).map(|entry| entry.states());
        let states = states.unwrap_or_default();
        let waiting = states.iter().zip(0..).filter(|(state, _)| !state.is_finished());
        let outcomes = waiting.map(|(state, recipient)| Outcome {
            recipient,
            kind: OutcomeKind::Moved,
            attempts: state.attempts,
            notified: state.notified,
            at_micros,
            text: text.to_owned(),
        });
        self.record(id, outcomes.collect());
    }
}

/// Messages under way; what was recorded of those that did not arrive is applied where they are.
struct Departing<S: Storage> {
    from: Spool<S>,
    ids: BTreeSet<QueueId>,
}

impl<S: Storage> Departing<S> {
    fn new(from: &Spool<S>, ids: &[QueueId]) -> Self {
        let mut desk = from.inner.desk.borrow_mut();
        ids.iter().for_each(|id| drop(desk.departing.insert(*id, Vec::new())));
        Self { from: from.clone(), ids: ids.iter().copied().collect() }
    }

    /// Gives what was recorded meanwhile.
    fn end(&mut self, id: QueueId) -> Vec<Outcome> {
        self.ids.remove(&id);
        self.from.inner.desk.borrow_mut().departing.remove(&id).unwrap_or_default()
    }

    fn stay(&mut self, id: QueueId) {
        let kept = self.end(id);
        self.from.record(id, kept);
    }
}

impl<S: Storage> Drop for Departing<S> {
    fn drop(&mut self) {
        while let Some(id) = self.ids.first().copied() {
            self.stay(id);
        }
    }
}
