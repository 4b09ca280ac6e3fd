//! The spool: takes messages in, makes them durable in batches, keeps what waits, records what became of it.
//!
//! Lives on one shard and is cheap to clone there. One task runs [`Spool::writer`]; sessions call
//! [`Spool::begin`], [`Spool::append`] and [`Spool::commit`], deliveries [`Spool::load`], [`Spool::read`]
//! and [`Spool::record`].
//!
//! What holds when a call has returned:
//! - `commit` with `Ok`: the message and its envelope are on stable storage, and it is in the index.
//! - `commit` with `Err`: the message is not in the index. After `Poisoned` a restart may find it.
//! - `commit_with` with `Ok`: besides, the outcomes are durable and applied; with `Err` neither.
//! - `record`: the outcomes are applied, not durable; after a crash before the next batch they are unknown.
//! - `sync` with `Ok`: every outcome recorded before the call is durable.
//!
//! Every future may be dropped at any point. A `commit` dropped while it waits goes on; if the message
//! becomes durable its id is given by [`Spool::unclaimed`], because nobody was told of it.

use crate::canary::{Canary, sings};
use crate::desk::{Desk, Stats};
use crate::draft::{Draft, OpenDraft};
use crate::envelope::Envelope;
use crate::error::{AppendError, CommitError, Fault, OpenError, ReadError};
use crate::id::{QueueId, SpoolNumber};
use crate::index::{Counts, Facts};
use crate::lineage::Lineage;
use crate::options::Options;
use crate::pending::{Finishing, Group, NewMessage, Ticket, Verdict, Wait};
use crate::reading::{self, Message};
use crate::record::{ContentFlags, Outcome};
use crate::recovery::{Reading, Recovery, recover};
use crate::segments::Table;
use crate::space::Reservation;
use crate::storage::Storage;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// A spool directory in use.
pub struct Spool<S: Storage> {
    pub(crate) inner: Rc<Inner<S>>,
}

pub(crate) struct Inner<S: Storage> {
    pub storage: S,
    pub number: SpoolNumber,
    pub lineage: Lineage,
    pub options: Options,
    pub desk: RefCell<Desk>,
    pub table: RefCell<Table<S::File>>,
}

/// A message that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub id: QueueId,
    pub content_bytes: u64,
    /// The content, when all of it was still in memory.
    pub content: Option<Arc<Vec<u8>>>,
}

/// A message in the spool, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub content_bytes: u64,
    pub flags: ContentFlags,
    pub recipients: u32,
    /// Recipients that are still waiting.
    pub unfinished: u32,
}

impl<S: Storage> Clone for Spool<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<S: Storage> Spool<S> {
    /// Reads the spool and seals the end of its log, durably. Nothing is taken in before [`Self::writer`]
    /// runs.
    ///
    /// # Errors
    /// The options are out of bounds, a later version wrote the spool, or the device refuses. Damage is no
    /// error: it is in the [`Recovery`], and the readable rest is in use.
    pub async fn open(
        storage: S,
        number: SpoolNumber,
        options: Options,
    ) -> Result<(Self, Recovery), OpenError> {
        Self::open_reading(storage, number, options, Reading::Indexes).await
    }

    pub(crate) async fn open_reading(
        storage: S,
        number: SpoolNumber,
        options: Options,
        reading: Reading,
    ) -> Result<(Self, Recovery), OpenError> {
        options.check()?;
        let found = recover(&storage, number.get(), reading).await?;
        let mut desk = Desk::new(number, &options, found.index);
        (desk.ancestry, desk.ancestry_at) = (found.ancestry, found.ancestry_at);
        desk.last_segment = found.last_segment;
        desk.last_batch = found.last_batch;
        desk.durable_batch = found.last_batch;
        desk.id_micros = if sings(Canary::GivesIdsAgain) { 0 } else { found.id_micros };
        desk.lineage_durable = found.lineage.is_some();
        desk.compaction.barred = found.report.unknown > 0;
        let lineage = found.lineage.map_or_else(Lineage::draw, |(_, lineage)| lineage);
        let (desk, table) = (RefCell::new(desk), RefCell::new(found.table));
        let inner = Inner { storage, number, lineage, options, desk, table };
        let spool = Self { inner: Rc::new(inner) };
        let device = |fault: Fault| OpenError::Device(fault);
        if let Some(cut) = found.cut {
            spool.seal_cut(cut).await.map_err(device)?;
        }
        spool.adopt_unborn(found.unborn).await.map_err(device)?;
        Ok((spool, found.report))
    }

    pub fn number(&self) -> SpoolNumber {
        self.inner.number
    }

    /// What tells this spool from every other. On disk with the first segment that this version writes.
    pub fn lineage(&self) -> Lineage {
        self.inner.lineage
    }

    /// A new message, with its id. Ids of a spool always rise, also when the clock does not.
    pub fn begin(&self, now_micros: u64) -> Draft {
        let (id, open) = {
            let mut desk = self.inner.desk.borrow_mut();
            let id = desk.new_id(now_micros);
            (id, OpenDraft::new(id, &desk.open))
        };
        Draft { open: Some(open), ..self.draft(id) }
    }

    pub(crate) fn draft(&self, id: QueueId) -> Draft {
        Draft {
            id,
            buffer: Vec::new(),
            extents: Vec::new(),
            written: 0,
            extent_bytes_max: self.inner.options.extent_bytes_max,
            broken: false,
            room: None,
            open: None,
        }
    }

    /// Adds octets to a draft; when `extent_bytes_max` is reached, writes an extent and waits for it.
    ///
    /// # Errors
    /// After an error, or when the future was dropped while it waited, the draft can only be dropped.
    pub async fn append(&self, draft: &mut Draft, octets: &[u8]) -> Result<(), AppendError> {
        let mut rest = octets;
        while !draft.append_now(rest) {
            let room = draft.extent_bytes_max - draft.buffer.len();
            let (now, later) = rest.split_at(room);
            draft.take(now);
            rest = later;
            self.write_extent(draft).await?;
        }
        Ok(())
    }

    async fn write_extent(&self, draft: &mut Draft) -> Result<(), AppendError> {
        self.admit(draft)?;
        let octets = std::mem::take(&mut draft.buffer);
        let (bytes, offset) = (octets.len() as u64, draft.written);
        draft.broken = true;
        let mut extent = Group::Extent { id: draft.id, offset, octets, room: None };
        let payload_bytes = extent.payload_bytes();
        if let Group::Extent { room, .. } = &mut extent {
            *room = self.covering(draft.room.as_mut(), payload_bytes);
        }
        let (ticket, number) = self.submit(extent)?;
        let verdict = Wait::of(ticket.clone(), number).await;
        self.outcome_of(verdict)?;
        let extent = ticket.take_extent(number).expect("a durable extent has its place");
        draft.extents.push(extent);
        draft.written += bytes;
        draft.broken = false;
        Ok(())
    }

    /// Makes a draft a message; resolves when it is durable.
    ///
    /// # Errors
    /// See [`CommitError`]; the message is then not in the spool.
    pub async fn commit(
        &self,
        draft: Draft,
        envelope: Arc<Envelope>,
        flags: ContentFlags,
    ) -> Result<Stored, CommitError> {
        self.commit_group(draft, envelope, flags, None).await
    }

    /// As [`Self::commit`], with outcomes of another message in the same batch: both or neither. A DSN and
    /// the end of the message that it reports belong together.
    pub async fn commit_with(
        &self,
        draft: Draft,
        envelope: Arc<Envelope>,
        flags: ContentFlags,
        finishing: (QueueId, Vec<Outcome>),
    ) -> Result<Stored, CommitError> {
        self.commit_group(draft, envelope, flags, Some(finishing)).await
    }

    async fn commit_group(
        &self,
        mut draft: Draft,
        envelope: Arc<Envelope>,
        flags: ContentFlags,
        finishing: Option<(QueueId, Vec<Outcome>)>,
    ) -> Result<Stored, CommitError> {
        self.admit(&draft)?;
        if let Some((id, _)) = &finishing
            && self.inner.desk.borrow().departing.contains_key(id)
        {
            // On its way into another spool; in a moment it is there, or stays.
            return Err(CommitError::Full);
        }
        let (id, content_bytes) = (draft.id, draft.bytes());
        let tail = (!draft.buffer.is_empty()).then(|| Arc::new(std::mem::take(&mut draft.buffer)));
        let content = match (&tail, draft.extents.is_empty()) {
            (_, false) => None,
            (Some(tail), true) => Some(tail.clone()),
            (None, true) => Some(Arc::default()),
        };
        let finishing = finishing.and_then(|(id, outcomes)| {
            let desk = self.inner.desk.borrow();
            let refers_to = desk.index.get(id)?.entry().commit.segment.sequence;
            Some(Finishing { id, outcomes, refers_to })
        });
        let extents = std::mem::take(&mut draft.extents);
        let (open, states) = (draft.open.take(), Vec::new());
        let message = NewMessage {
            id,
            envelope,
            flags,
            content_bytes,
            extents,
            tail,
            finishing,
            moves: None,
            states,
            open,
            room: None,
        };
        let mut message = Group::Message(message);
        let payload_bytes = message.payload_bytes();
        if let Group::Message(NewMessage { room, .. }) = &mut message {
            *room = self.covering(draft.room.as_mut(), payload_bytes);
        }
        let (ticket, number) = self.submit(message)?;
        let mut claim = Claim { spool: self, id, ticket: ticket.clone(), number, claimed: false };
        let verdict = Wait::of(ticket, number).await;
        claim.claimed = true;
        self.outcome_of(verdict)?;
        Ok(Stored { id, content_bytes, content })
    }

    fn covering(&self, room: Option<&mut Reservation>, payload_bytes: Option<usize>) -> Option<Reservation> {
        room?.split(payload_bytes?, &self.sizes())
    }

    pub(crate) fn admit(&self, draft: &Draft) -> Result<(), CommitError> {
        self.inner.desk.borrow().admit()?;
        if draft.broken { Err(CommitError::Broken) } else { Ok(()) }
    }

    fn submit(&self, group: Group) -> Result<(Rc<Ticket>, usize), CommitError> {
        let mut desk = self.inner.desk.borrow_mut();
        let place = desk.gather(group)?;
        let writer = desk.want();
        drop(desk);
        writer.into_iter().for_each(|writer| writer.wake());
        Ok(place)
    }

    pub(crate) fn outcome_of(&self, verdict: Verdict) -> Result<(), CommitError> {
        match verdict {
            Verdict::Durable => Ok(()),
            Verdict::Full => Err(CommitError::Full),
            Verdict::Poisoned => {
                let fault = self.inner.desk.borrow().poisoned.clone();
                Err(CommitError::Poisoned(fault.expect("a poisoned spool has its fault")))
            }
        }
    }

    /// Applies outcomes of a waiting message at once, and queues them for the next batch. An id that does
    /// not wait is no error: the message is finished already.
    pub fn record(&self, id: QueueId, outcomes: Vec<Outcome>) {
        let many = self.inner.desk.borrow_mut().record(id, outcomes);
        if many {
            self.nudge();
        }
    }

    /// Has the writer write what is pending, outcomes too; for a timer.
    pub fn nudge(&self) {
        if self.has_room_for_held() {
            self.inner.desk.borrow_mut().release_held();
        }
        let mut desk = self.inner.desk.borrow_mut();
        if desk.pending.is_empty() {
            return;
        }
        let writer = desk.want();
        drop(desk);
        writer.into_iter().for_each(|writer| writer.wake());
    }

    /// Waits until everything recorded so far is durable.
    ///
    /// # Errors
    /// `Full`: the outcomes stay queued for later. `Poisoned`: they will be unknown after a restart.
    pub async fn sync(&self) -> Result<(), CommitError> {
        loop {
            let released = self.inner.desk.borrow().space.released;
            self.sync_all_but_held().await?;
            let desk = self.inner.desk.borrow();
            if !desk.space.held.is_empty() {
                // What waits for room is not durable.
                return Err(CommitError::Full);
            }
            if desk.space.released == released {
                return Ok(());
            }
            // What was held back is in a batch behind the one that was waited for.
        }
    }

    /// The same but for deferrals that wait for room: what compaction writes says as much as they do.
    pub(crate) async fn sync_all_but_held(&self) -> Result<(), CommitError> {
        self.nudge();
        let (ticket, poisoned) = {
            let desk = self.inner.desk.borrow();
            (desk.last_ticket(), desk.poisoned.clone())
        };
        if let Some(fault) = poisoned {
            return Err(CommitError::Poisoned(fault));
        }
        match ticket {
            Some(ticket) => {
                let verdict = Wait::new(ticket).await;
                self.outcome_of(verdict)
            }
            None => Ok(()),
        }
    }

    /// Reads envelope, states and last reasons of a waiting message.
    pub async fn load(&self, id: QueueId) -> Result<Message, ReadError> {
        let known = reading::known(&self.inner.desk.borrow().index, id, true);
        reading::load(&self.inner.table, known, id).await
    }

    /// The same without the reasons, each of which may cost a read: for a delivery, which needs none.
    pub async fn load_without_reasons(&self, id: QueueId) -> Result<Message, ReadError> {
        let known = reading::known(&self.inner.desk.borrow().index, id, false);
        reading::load(&self.inner.table, known, id).await
    }

    /// Up to `len_max` octets of the content from `offset` on, verified, and not beyond the end of an
    /// extent: going on where the last read ended, with a `len_max` of at least `extent_bytes_max`, reads
    /// each extent once. Empty at the end of the content.
    pub async fn read(&self, id: QueueId, offset: u64, len_max: usize) -> Result<Vec<u8>, ReadError> {
        let held = reading::held(&self.inner.desk.borrow().index, id);
        reading::read(&self.inner.table, held, id, offset, len_max).await
    }

    /// The whole content of a draft so far: extents that were written are read back, verified. The draft stays as it
    /// is.
    pub async fn read_draft(&self, draft: &Draft) -> Result<Vec<u8>, ReadError> {
        let mut content = Vec::with_capacity(usize::try_from(draft.bytes()).unwrap_or(0));
        reading::read_draft(&self.inner.table, draft, &mut content).await?;
        content.extend_from_slice(&draft.buffer);
        Ok(content)
    }

    /// As [`Self::read`], for a message that was loaded and still waits: saves reading its commit record
    /// from disk once more.
    pub async fn read_loaded(
        &self,
        message: &Message,
        offset: u64,
        len_max: usize,
    ) -> Result<Vec<u8>, ReadError> {
        let held = reading::held(&self.inner.desk.borrow().index, message.id);
        reading::read_loaded(&self.inner.table, held, message, offset, len_max).await
    }

    /// Ids of waiting messages after `after`, rising, at most `count`.
    pub fn live(&self, after: Option<QueueId>, count: usize) -> Vec<QueueId> {
        self.inner.desk.borrow().index.page(after, count)
    }

    /// What the index knows of a message, without reading from disk.
    pub fn summary(&self, id: QueueId) -> Option<Summary> {
        let desk = self.inner.desk.borrow();
        desk.index.get(id).map(|facts| Summary {
            content_bytes: facts.content_bytes(),
            flags: facts.flags(),
            recipients: facts.recipients_count(),
            unfinished: facts.unfinished(),
        })
    }

    /// Shows `each` the messages after `after`, in the order of their ids and damaged ones too, at most
    /// `count`; reads nothing from disk. Gives the id to go on after when there are more. `each` must not
    /// call the spool. Well under a microsecond a message: a task yields between slices of some thousands.
    pub fn survey(
        &self,
        after: Option<QueueId>,
        count: usize,
        each: impl FnMut(&Facts<'_>),
    ) -> Option<QueueId> {
        self.inner.desk.borrow().index.survey(after, count, each)
    }

    /// What `see` makes of one message, when it is there. `see` must not call the spool.
    pub fn facts<T>(&self, id: QueueId, see: impl FnOnce(&Facts<'_>) -> T) -> Option<T> {
        self.inner.desk.borrow().index.get(id).as_ref().map(see)
    }

    /// What waits, in numbers; at no cost.
    pub fn counts(&self) -> Counts {
        self.inner.desk.borrow().index.counts()
    }

    /// Whether the message waits.
    pub fn contains(&self, id: QueueId) -> bool {
        self.inner.desk.borrow().index.is_waiting(id)
    }

    /// Ids of messages that are set aside as damaged.
    pub fn damaged(&self) -> Vec<QueueId> {
        self.inner.desk.borrow().index.damaged().map(|(id, _)| id).collect()
    }

    /// Messages waiting.
    pub fn messages(&self) -> usize {
        self.counts().messages
    }

    /// Messages that became durable when nobody waited for it any more; each is given once. They must be
    /// delivered like any other.
    pub fn unclaimed(&self) -> Vec<QueueId> {
        self.inner.desk.borrow_mut().take_unclaimed()
    }

    /// Why the spool takes nothing more, when that is so.
    pub fn fault(&self) -> Option<Fault> {
        self.inner.desk.borrow().poisoned.clone()
    }

    pub fn stats(&self) -> Stats {
        let (desk, table) = (self.inner.desk.borrow(), self.inner.table.borrow());
        Stats {
            messages: desk.index.counts().messages,
            messages_damaged: desk.index.damaged_len(),
            segments: table.segments.len() + table.free.len(),
            segment_bytes: table.bytes() + table.free.len() as u64 * self.inner.options.segment_bytes,
            live_bytes: table.segments.values().map(|segment| segment.mark.live.get()).sum(),
            segments_idle: table.reclaimable(self.inner.options.segment_bytes) + table.free.len(),
            deferrals_held: desk.space.held.len(),
            reserved_bytes: desk.space.reserved.get(),
            ..desk.stats
        }
    }

    /// Closes an empty spool and lets go of its files, so that they can be removed.
    ///
    /// # Errors
    /// As [`Self::close`].
    pub async fn retire(self) -> Result<(), CommitError> {
        assert_eq!(self.messages(), 0, "only an empty spool may go");
        let inner = self.inner.clone();
        self.close().await?;
        inner.desk.borrow_mut().retired = true;
        *inner.table.borrow_mut() = Table::new();
        Ok(())
    }

    pub fn is_retired(&self) -> bool {
        self.inner.desk.borrow().retired
    }

    /// Writes what is pending, seals the log and ends the writer. New mail is refused from now on.
    ///
    /// # Errors
    /// What is pending could not be written; outcomes among it will be unknown after a restart.
    pub async fn close(self) -> Result<(), CommitError> {
        if self.has_room_for_held() {
            self.inner.desk.borrow_mut().release_held();
        }
        let (writer, running, ticket) = {
            let mut desk = self.inner.desk.borrow_mut();
            desk.closing = true;
            desk.release_held();
            (desk.want(), desk.writing, desk.last_ticket())
        };
        writer.into_iter().for_each(|writer| writer.wake());
        if !running {
            self.writer().await;
        }
        let verdict = match ticket {
            Some(ticket) => Wait::new(ticket).await,
            None => Verdict::Durable,
        };
        self.sealed().await;
        self.outcome_of(verdict)?;
        let held = !self.inner.desk.borrow().space.held.is_empty();
        if held { Err(CommitError::Full) } else { Ok(()) }
    }
}

/// Notices when the waiter of a commit goes away.
struct Claim<'a, S: Storage> {
    spool: &'a Spool<S>,
    id: QueueId,
    ticket: Rc<Ticket>,
    number: usize,
    claimed: bool,
}

impl<S: Storage> Drop for Claim<'_, S> {
    fn drop(&mut self) {
        if !self.claimed {
            self.spool.inner.desk.borrow_mut().abandon(self.id, self.ticket.verdict_of(self.number));
        }
    }
}
