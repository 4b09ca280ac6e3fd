//! What a spool knows and has pending, without its files: index, gathering batches, ids, condition.
//!
//! Lives in a spool, on its shard, behind a cell that is never borrowed across an await. No I/O here.

use crate::compaction::Compaction;
use crate::envelope::RecipientState;
use crate::error::{CommitError, Fault};
use crate::id::{QueueId, SpoolNumber};
use crate::index::{Index, NewEntry, Place};
use crate::options::Options;
use crate::pending::{ExtentRef, Finishing, Gathering, Group, NewMessage, Placed, Ticket, Verdict};
use crate::record::{Outcome, OutcomeKind};
use crate::segments::Mark;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

/// Outcome records that wait for company before the writer is woken for them alone.
const OUTCOMES_GATHERED_MAX: usize = 512;
/// Batches being written at a time. Prevents: a device whose queue is full of one spool's writes, and a
/// commit that waits for all of them.
pub(crate) const IN_FLIGHT_MAX: usize = 4;
/// Payload from which a batch is written beside others; with less it goes on gathering until they have
/// landed. Prevents: a write, a flush and half a block of padding for every message when many come.
pub(crate) const JOINING_BYTES_MIN: usize = if cfg!(test) { 4 << 10 } else { 32 << 10 };
/// Entries of one outcome record; more make more records.
const OUTCOME_ENTRIES_MAX: usize = 64;
/// Outcome records kept in memory while there is no space; beyond, deferrals are forgotten (after a crash
/// their recipients count fewer attempts).
const OUTCOMES_HELD_MAX: usize = 1 << 16;

/// Running figures of a spool, since it was opened where not said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages waiting now.
    pub messages: usize,
    /// Messages set aside as damaged now.
    pub messages_damaged: usize,
    /// Segment files now, with the idle ones, and their octets.
    pub segments: usize,
    pub segment_bytes: u64,
    /// Octets of them, in whole blocks, that waiting messages need.
    pub live_bytes: u64,
    /// Segments now that could be overwritten at once, and files never used.
    pub segments_idle: usize,
    pub batches: u64,
    pub records: u64,
    /// Octets written, with headers and padding.
    pub bytes_written: u64,
    /// Octets of message content made durable.
    pub content_bytes: u64,
    pub commits: u64,
    /// Messages that compaction moved.
    pub moved: u64,
    pub segments_created: u64,
    pub segments_recycled: u64,
    pub segments_removed: u64,
    /// Times that new mail was refused for want of space.
    pub full: u64,
}

/// The segment that is being written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Active {
    pub sequence: u64,
    pub position: u64,
}

pub(crate) struct Desk {
    pub index: Index,
    pub pending: VecDeque<Gathering>,
    /// Of the batches that are being written, in the order of the log.
    pub in_flight: VecDeque<Rc<Ticket>>,
    /// The writer shall write what is pending.
    pub wanted: bool,
    pub closing: bool,
    pub writing: bool,
    pub writer: Option<Waker>,
    /// Waits for the writer to end.
    pub closer: Option<Waker>,
    pub poisoned: Option<Fault>,
    pub active: Option<Active>,
    pub last_segment: u64,
    /// The last batch that was laid out, and the last one that is durable with all before it.
    pub last_batch: u64,
    pub durable_batch: u64,
    pub id_micros: u64,
    pub stats: Stats,
    pub compaction: Compaction,
    number: SpoolNumber,
    batch_payload_max: usize,
    group_bytes_max: usize,
    /// Commits whose waiter went away before they were durable.
    abandoned: Vec<QueueId>,
    /// Messages that are durable and that nobody was told of.
    unclaimed: Vec<QueueId>,
}

impl Desk {
    pub fn new(number: SpoolNumber, options: &Options, index: Index) -> Self {
        Self {
            index,
            pending: VecDeque::new(),
            in_flight: VecDeque::new(),
            wanted: false,
            closing: false,
            writing: false,
            writer: None,
            closer: None,
            poisoned: None,
            active: None,
            last_segment: 0,
            last_batch: 0,
            durable_batch: 0,
            id_micros: 0,
            stats: Stats::default(),
            compaction: Compaction::default(),
            number,
            batch_payload_max: options.batch_payload_max(),
            group_bytes_max: options.group_bytes_max(),
            abandoned: Vec::new(),
            unclaimed: Vec::new(),
        }
    }

    pub fn new_id(&mut self, now_micros: u64) -> QueueId {
        self.id_micros = now_micros.max(self.id_micros + 1);
        QueueId::new(self.id_micros, self.number)
    }

    /// Whether new mail is taken at all.
    pub fn admit(&self) -> Result<(), CommitError> {
        match &self.poisoned {
            Some(fault) => Err(CommitError::Poisoned(fault.clone())),
            None if self.closing => Err(CommitError::Closed),
            None => Ok(()),
        }
    }

    /// Puts a group in the gathering batch; gives the batch's ticket and the group's number in it.
    pub fn gather(&mut self, group: Group) -> Result<(Rc<Ticket>, usize), CommitError> {
        let bytes = group.payload_bytes().filter(|bytes| *bytes <= self.group_bytes_max);
        let bytes = bytes.ok_or(CommitError::TooLarge)?;
        let fits = |last: &Gathering| last.payload_bytes + bytes <= self.batch_payload_max;
        if !self.pending.back().is_some_and(fits) {
            self.pending.push_back(Gathering::default());
        }
        if let Some(id) = group.speaks_of() {
            self.compaction.touch(id);
        }
        let last = self.pending.back_mut().expect("there is one now");
        last.push(group, bytes);
        Ok((last.ticket.clone(), last.groups.len() - 1))
    }

    /// Asks for writing; gives the writer to be woken when no borrow is held.
    #[must_use]
    pub fn want(&mut self) -> Option<Waker> {
        self.wanted = true;
        if self.may_take_off() { self.writer.take() } else { None }
    }

    /// Whether the next batch need not wait until those in flight have landed.
    fn may_take_off(&self) -> bool {
        let enough = |batch: &Gathering| batch.payload_bytes >= JOINING_BYTES_MIN;
        match self.in_flight.len() {
            0 => true,
            count => count < IN_FLIGHT_MAX && self.pending.front().is_some_and(enough),
        }
    }

    /// What is to be written next. `room`: octets left for batches in the active segment; beside others
    /// nothing is written beyond.
    pub fn next_batch(&mut self, room: u64) -> Option<Gathering> {
        if !(self.wanted || self.closing) || !self.may_take_off() {
            return None;
        }
        let fits = |batch: &Gathering| batch.batch_bytes() as u64 <= room;
        if !self.in_flight.is_empty() && !self.pending.front().is_some_and(fits) {
            return None;
        }
        let batch = self.pending.pop_front();
        self.wanted = !self.pending.is_empty();
        self.in_flight.extend(batch.as_ref().map(|batch| batch.ticket.clone()));
        batch
    }

    /// Applies outcomes at once and queues their records; `true` when they should be written soon.
    pub fn record(&mut self, id: QueueId, outcomes: Vec<Outcome>) -> bool {
        let Some(facts) = self.index.get(id) else { return false };
        let refers_to = facts.entry().commit.segment.sequence;
        let mut finished = self.index.apply(id, &outcomes);
        if self.poisoned.is_some() {
            return false;
        }
        let mut outcomes = outcomes;
        while !outcomes.is_empty() {
            let rest = outcomes.split_off(outcomes.len().min(OUTCOME_ENTRIES_MAX));
            // The entry goes with the last record: it holds its segments until all of them are durable.
            let entry = if rest.is_empty() { finished.take() } else { None };
            let group = Group::Outcomes(Finishing { id, outcomes, refers_to }, entry);
            self.gather(group).expect("an outcome record of bounded size fits");
            outcomes = rest;
        }
        self.pending.iter().map(|batch| batch.groups.len()).sum::<usize>() >= OUTCOMES_GATHERED_MAX
    }

    /// The batch is durable in `segment`, from `base` on. Gives the wakers of those who waited.
    pub fn complete(
        &mut self,
        batch: Gathering,
        placed: &[Placed],
        segment: &Rc<Mark>,
        base: u64,
    ) -> Vec<Waker> {
        let at = |written: crate::record::Written| Place {
            segment: segment.clone(),
            position: (base + written.at as u64) as u32,
            bytes: written.bytes as u32,
        };
        self.stats.batches += 1;
        self.stats.records += batch.records() as u64;
        self.stats.bytes_written += batch.batch_bytes() as u64;
        let ticket = batch.ticket;
        for (number, (group, placed)) in batch.groups.into_iter().zip(placed).enumerate() {
            match group {
                Group::Extent { octets, .. } => {
                    self.stats.content_bytes += octets.len() as u64;
                    let position = (base + placed.extent.at as u64) as u32;
                    let (octets, crc) = (octets.len() as u32, placed.extent.crc);
                    ticket.give_extent(number, ExtentRef { mark: segment.clone(), position, octets, crc });
                }
                Group::Message(message) => self.enter(message, at(placed.commit), at(placed.outcome)),
                Group::Outcomes(finishing, _) => {
                    self.index.place_reasons(finishing.id, &finishing.outcomes, &at(placed.outcome));
                }
            }
        }
        let landed = self.in_flight.pop_front().is_some_and(|first| Rc::ptr_eq(&first, &ticket));
        assert!(landed, "batches land in the order of the log");
        ticket.close(Verdict::Durable)
    }

    fn enter(&mut self, message: NewMessage, commit: Place, outcome: Place) {
        let id = message.id;
        if message.moves.is_some() {
            return self.relocate(message, commit, outcome);
        }
        self.stats.commits += 1;
        self.stats.content_bytes += message.tail.as_ref().map_or(0, |tail| tail.len() as u64);
        let envelope = &message.envelope;
        let recipients = envelope.recipients.iter();
        let entry = NewEntry {
            commit,
            arrived_micros: envelope.arrived_micros,
            content_bytes: message.content_bytes,
            flags: message.flags,
            sender: &envelope.sender,
            recipients: recipients.map(|recipient| (&recipient.address[..], RecipientState::NEW)),
            extents: message.extents.iter().map(|extent| (extent.mark.clone(), extent.octets)),
        };
        self.index.enter(id, entry, false);
        if let Some(finishing) = message.finishing
            && self.index.apply(finishing.id, &finishing.outcomes).is_none()
        {
            self.index.place_reasons(finishing.id, &finishing.outcomes, &outcome);
        }
        if let Some(at) = self.abandoned.iter().position(|abandoned| *abandoned == id) {
            self.abandoned.swap_remove(at);
            self.unclaimed.push(id);
        }
    }

    /// A message was moved. Outcomes that were recorded since it was laid out are in the entry already, and
    /// behind the move in the log.
    fn relocate(&mut self, message: NewMessage, commit: Place, outcome: Place) {
        self.stats.moved += 1;
        let extents = message.extents.iter().map(|extent| (extent.mark.clone(), extent.octets));
        // Finished meanwhile: the outcome that waits to be written holds the entry, and must from now on
        // hold the segments of the new place. One that is in flight already needs no more: no segment is
        // used again before it has landed.
        let Some(entry) = self.index.entry_mut(message.id).or_else(|| {
            let groups = self.pending.iter_mut().flat_map(|batch| &mut batch.groups);
            groups.into_iter().find_map(|group| group.finished_entry(message.id))
        }) else {
            return;
        };
        entry.relocate(commit, extents);
        if let Some(reasons) = message.finishing {
            self.index.place_reasons(reasons.id, &reasons.outcomes, &outcome);
        }
    }

    /// No space, with nothing else in flight: mail is refused, outcomes stay for later.
    pub fn refuse(&mut self, batch: Gathering) -> Vec<Waker> {
        let mut kept = Gathering::default();
        for group in batch.groups {
            match group {
                Group::Outcomes(..) => {
                    let bytes = group.payload_bytes().expect("it was reckoned before");
                    kept.push(group, bytes);
                }
                Group::Extent { id, .. } => self.abandoned.retain(|abandoned| *abandoned != id),
                Group::Message(message) => self.abandoned.retain(|abandoned| *abandoned != message.id),
            }
        }
        self.stats.full += batch.mail as u64;
        // Mail that was refused leaves its outcomes to be written from the spare; if even those found no
        // room, the next nudge tries again.
        self.wanted = batch.mail || self.pending.iter().any(|batch| batch.mail);
        if !kept.groups.is_empty() {
            self.pending.push_front(kept);
        }
        self.forget_deferrals();
        self.in_flight.clear();
        batch.ticket.close(Verdict::Full)
    }

    fn forget_deferrals(&mut self) {
        let held: usize = self.pending.iter().map(|batch| batch.groups.len()).sum();
        if held <= OUTCOMES_HELD_MAX {
            return;
        }
        let deferral = |group: &Group| match group {
            Group::Outcomes(finishing, None) => {
                finishing.outcomes.iter().all(|outcome| outcome.kind == OutcomeKind::Deferred)
            }
            _ => false,
        };
        for batch in self.pending.iter_mut().filter(|batch| !batch.mail) {
            batch.groups.retain(|group| !deferral(group));
            batch.payload_bytes = batch.groups.iter().filter_map(Group::payload_bytes).sum();
        }
    }

    /// A write failed, or its end was never seen: nothing more is taken.
    pub fn poison(&mut self, fault: Fault) -> Vec<Waker> {
        self.poisoned.get_or_insert(fault);
        self.abandoned.clear();
        let pending = self.pending.drain(..).map(|batch| batch.ticket);
        let tickets: Vec<_> = self.in_flight.drain(..).chain(pending).collect();
        tickets.iter().flat_map(|ticket| ticket.close(Verdict::Poisoned)).collect()
    }

    /// The waiter of a commit went away.
    pub fn abandon(&mut self, id: QueueId, verdict: Option<Verdict>) {
        match verdict {
            None => self.abandoned.push(id),
            Some(Verdict::Durable) => self.unclaimed.push(id),
            Some(Verdict::Full | Verdict::Poisoned) => {}
        }
    }

    pub fn take_unclaimed(&mut self) -> Vec<QueueId> {
        std::mem::take(&mut self.unclaimed)
    }

    /// The ticket of the last batch that is pending or in flight.
    pub fn last_ticket(&self) -> Option<Rc<Ticket>> {
        self.pending.back().map(|batch| batch.ticket.clone()).or_else(|| self.in_flight.back().cloned())
    }
}
