//! Messages of another spool are committed here, and what is known of that spool with them.
//!
//! Lives in a spool, on its shard. Messages and the ancestry that says they are in are one batch: both or
//! neither. So whoever goes on after a crash finds in the ancestry exactly what is in.

use crate::ancestry::{ANCESTRY_BYTES_MAX, Ancestry, Origin};
use crate::compaction::{TEXTS_MAX, last_outcomes};
use crate::draft::Draft;
use crate::envelope::{Envelope, RecipientState};
use crate::error::CommitError;
use crate::id::QueueId;
use crate::pending::{Finishing, Group, NewMessage, Wait};
use crate::reading::Reason;
use crate::record::{ContentFlags, RECORD_HEADER};
use crate::segments::REFERS_TO_NONE;
use crate::spool::Spool;
use crate::storage::Storage;
use std::sync::Arc;

/// A message of another spool, whose content is in a draft of this one.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub draft: Draft,
    /// With its origin.
    pub envelope: Arc<Envelope>,
    pub flags: ContentFlags,
    /// One per recipient, as all of these.
    pub states: Vec<RecipientState>,
    pub reasons: Vec<Option<Reason>>,
    pub vias: Vec<(u32, Box<str>)>,
}

impl Arrival {
    /// Reasons are shortened when the records would not fit in `bytes_max`.
    pub fn group(mut self, bytes_max: usize) -> Result<Group, CommitError> {
        if self.draft.broken {
            return Err(CommitError::Broken);
        }
        let (id, content_bytes) = (self.draft.id, self.draft.bytes());
        let tail = (!self.draft.buffer.is_empty()).then(|| Arc::new(std::mem::take(&mut self.draft.buffer)));
        let mut message = NewMessage {
            id,
            envelope: self.envelope,
            flags: self.flags,
            content_bytes,
            extents: std::mem::take(&mut self.draft.extents),
            tail,
            finishing: None,
            moves: None,
            states: self.states.clone(),
            open: self.draft.open.take(),
            room: None,
        };
        for text_max in TEXTS_MAX {
            let outcomes = last_outcomes(&self.states, &self.reasons, &self.vias, text_max);
            let finishing = Finishing { id, outcomes, refers_to: REFERS_TO_NONE };
            message.finishing = Some(finishing).filter(|finishing| !finishing.outcomes.is_empty());
            if message.payload_bytes().is_some_and(|bytes| bytes <= bytes_max) {
                return Ok(Group::Message(message));
            }
        }
        Err(CommitError::TooLarge)
    }
}

impl<S: Storage> Spool<S> {
    /// What was brought in from other spools, as far as it is durable.
    pub fn ancestry(&self) -> Ancestry {
        self.inner.desk.borrow().ancestry.clone()
    }

    /// Every id given out so far is at most this.
    pub fn id_floor(&self) -> QueueId {
        QueueId::new(self.inner.desk.borrow().id_micros, self.inner.number)
    }

    /// Ids of drafts that may still become messages, rising. A message whose id is at most
    /// [`Self::id_floor`] and not among them is durable, finished, or will never be.
    pub fn open_drafts(&self) -> Vec<QueueId> {
        self.inner.desk.borrow().open.borrow().iter().copied().collect()
    }

    /// The unfinished message that had this name first.
    pub fn holds(&self, origin: Origin) -> Option<QueueId> {
        let desk = self.inner.desk.borrow();
        if origin.lineage == self.lineage() && desk.index.get(origin.id).is_some() {
            return Some(origin.id);
        }
        desk.index.origins.find(origin)
    }

    /// The first name of a message that is not finished.
    pub fn origin_of(&self, id: QueueId) -> Origin {
        let origin = self.inner.desk.borrow().index.origins.get(id);
        origin.unwrap_or(Origin { lineage: self.lineage(), id })
    }

    /// What one arrival may take of a batch, so that it fits with the largest ancestry beside it.
    pub(crate) fn arrival_bytes_max(&self) -> usize {
        self.inner.options.group_bytes_max().saturating_sub(RECORD_HEADER + ANCESTRY_BYTES_MAX)
    }

    /// Commits messages of other spools, in one batch with what is learnt by it.
    ///
    /// # Errors
    /// See [`CommitError`]; nothing of it is in the spool.
    pub(crate) async fn bring_in(
        &self,
        mut groups: Vec<Group>,
        learnt: &Ancestry,
    ) -> Result<(), CommitError> {
        let (ticket, number) = {
            let mut desk = self.inner.desk.borrow_mut();
            desk.admit()?;
            let mut ancestry = desk.ancestry.clone();
            ancestry.merge(learnt);
            if ancestry != desk.ancestry {
                groups.push(Group::Ancestry(ancestry));
            }
            if groups.is_empty() {
                return Ok(());
            }
            desk.gather_together(groups)?
        };
        self.nudge();
        // All of them need the same room, so they are taken or refused together.
        let verdict = Wait::of(ticket, number).await;
        self.outcome_of(verdict)
    }

    /// Makes sure that the lineage of the spool is on disk: one that version 1 wrote has none there.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub(crate) async fn settle_lineage(&self) -> Result<(), CommitError> {
        let (ticket, number) = {
            let mut desk = self.inner.desk.borrow_mut();
            if desk.lineage_durable {
                return Ok(());
            }
            let ancestry = desk.ancestry.clone();
            desk.gather_together(vec![Group::Ancestry(ancestry)])?
        };
        self.nudge();
        let verdict = Wait::of(ticket, number).await;
        self.outcome_of(verdict)?;
        self.inner.desk.borrow_mut().lineage_durable = true;
        Ok(())
    }
}
