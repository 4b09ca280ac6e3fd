//! What a spool knows and has pending, without its files: index, gathering batches, ids, condition.
//!
//! Lives in a spool, on its shard, behind a cell that is never borrowed across an await. No I/O here.

use crate::ancestry::Ancestry;
use crate::compaction::Compaction;
use crate::draft::OpenDrafts;
use crate::envelope::RecipientState;
use crate::error::{CommitError, Fault};
use crate::id::{QueueId, SpoolNumber};
use crate::index::{Index, NewEntry, Place};
use crate::options::Options;
use crate::pending::{ExtentRef, Finishing, Gathering, Group, NewMessage, Placed, Ticket, Verdict};
use crate::record::{Outcome, OutcomeKind};
use crate::segments::Mark;
use crate::space::{Need, Space};
use std::collections::{BTreeMap, VecDeque};
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
pub(crate) const OUTCOMES_HELD_MAX: usize = 1 << 16;

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
    /// Octets of segments promised to messages that are on their way.
    pub reserved_bytes: u64,
    /// Times that new mail was refused for want of space.
    pub full: u64,
    /// Outcomes that only put recipients off and wait for room now; those that were given up.
    pub deferrals_held: usize,
    pub deferrals_forgotten: u64,
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
    /// Where the durable batches of the active segment end.
    pub durable_end: u64,
    pub id_micros: u64,
    pub stats: Stats,
    pub compaction: Compaction,
    pub space: Space,
    /// Drafts that may still become messages.
    pub open: OpenDrafts,
    /// What was brought in from other spools, as far as it is durable.
    pub ancestry: Ancestry,
    /// The segments that say so; held until a later one says all of it.
    pub ancestry_at: Vec<Rc<Mark>>,
    /// A record that says all of it waits to be written.
    ancestry_repeating: bool,
    /// Its files are gone.
    pub retired: bool,
    /// The lineage of the spool is in a segment header.
    pub lineage_durable: bool,
    /// Messages on their way into another spool, with the outcomes that came meanwhile.
    pub departing: BTreeMap<QueueId, Vec<Outcome>>,
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
            durable_end: 0,
            id_micros: 0,
            stats: Stats::default(),
            compaction: Compaction::default(),
            space: Space::default(),
            open: OpenDrafts::default(),
            ancestry: Ancestry::default(),
            ancestry_at: Vec::new(),
            ancestry_repeating: false,
            retired: false,
            lineage_durable: false,
            departing: BTreeMap::new(),
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

    /// Puts groups in one batch: all of them become durable, or none.
    pub fn gather_together(&mut self, groups: Vec<Group>) -> Result<(Rc<Ticket>, usize), CommitError> {
        let sum = groups.iter().try_fold(0usize, |sum, group| Some(sum + group.payload_bytes()?));
        let sum = sum.filter(|sum| *sum <= self.group_bytes_max).ok_or(CommitError::TooLarge)?;
        let fits = |last: &Gathering| last.payload_bytes + sum <= self.batch_payload_max;
        if !self.pending.back().is_some_and(fits) {
            self.pending.push_back(Gathering::default());
        }
        let last = self.pending.back_mut().expect("there is one now");
        for group in groups {
            let bytes = group.payload_bytes().expect("it was reckoned before");
            last.push(group, bytes);
        }
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
        if self.poisoned.is_some() || !(self.wanted || self.closing) || !self.may_take_off() {
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
        if let Some(kept) = self.departing.get_mut(&id) {
            kept.extend(outcomes);
            return false;
        }
        let Some(facts) = self.index.get(id).filter(|_| !outcomes.is_empty()) else { return false };
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
            if !self.space.held.is_empty() && group.need() == Need::Spare {
                self.compaction.touch(id);
                self.space.held.push_back(group);
                self.forget_held();
            } else {
                self.gather(group).expect("an outcome record of bounded size fits");
            }
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
                Group::Gone => {}
                Group::Ancestry(ancestry) => self.learn(&ancestry, segment),
                Group::Outcomes(finishing, _) => {
                    self.supersede(&finishing);
                    self.index.place_reasons(finishing.id, &finishing.outcomes, &at(placed.outcome));
                }
            }
        }
        self.repeat_ancestry(segment);
        let landed = self.in_flight.pop_front().is_some_and(|first| Rc::ptr_eq(&first, &ticket));
        assert!(landed, "batches land in the order of the log");
        ticket.close(Verdict::Durable)
    }

    /// A record of ancestry is durable in `segment`.
    fn learn(&mut self, said: &Ancestry, segment: &Rc<Mark>) {
        self.ancestry_repeating = false;
        self.ancestry.merge(said);
        if self.ancestry == *said {
            self.ancestry_at.clear();
        }
        if !self.ancestry_at.contains(segment) {
            self.ancestry_at.push(segment.clone());
        }
    }

    /// Sees to it that the segment which is written now says all of the ancestry, so that it does not hold
    /// the older ones.
    fn repeat_ancestry(&mut self, segment: &Rc<Mark>) {
        let here = self.ancestry_at.iter().all(|at| at == segment);
        if !here && !self.ancestry_repeating && self.poisoned.is_none() {
            let all = Group::Ancestry(self.ancestry.clone());
            self.ancestry_repeating = self.gather(all).is_ok();
        }
    }

    fn enter(&mut self, mut message: NewMessage, commit: Place, outcome: Place) {
        let id = message.id;
        if message.moves.is_some() {
            return self.relocate(message, commit, outcome);
        }
        self.stats.commits += 1;
        self.stats.content_bytes += message.tail.as_ref().map_or(0, |tail| tail.len() as u64);
        message.states.resize(message.envelope.recipients.len(), RecipientState::NEW);
        let envelope = &message.envelope;
        let recipients = envelope.recipients.iter().zip(&message.states);
        let entry = NewEntry {
            commit,
            arrived_micros: envelope.arrived_micros,
            content_bytes: message.content_bytes,
            flags: message.flags,
            sender: &envelope.sender,
            recipients: recipients.map(|(recipient, state)| (&recipient.address[..], *state)),
            extents: message.extents.iter().map(|extent| (extent.mark.clone(), extent.octets)),
        };
        self.index.enter(id, entry, false);
        message.finishing.iter().for_each(|finishing| self.supersede(finishing));
        if let Some(origin) = envelope.origin {
            self.index.origins.insert(id, origin);
        }
        self.index.set_schedule(id, envelope.schedule());
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

    /// There is no room for all of the batch: takes out what can be refused or put off best. `false`: there
    /// is no such thing. Deferrals are held back together, those of later batches too, so that their order
    /// stays.
    pub fn sift(&mut self, batch: &mut Gathering) -> bool {
        let taken = batch.sift();
        let sifted = !taken.is_empty();
        let mut mail = false;
        for group in taken {
            match group {
                Group::Extent { id, .. } => self.give_up(id, &mut mail),
                Group::Message(message) => self.give_up(message.id, &mut mail),
                Group::Outcomes(..) => self.space.held.push_back(group),
                Group::Ancestry(_) => self.ancestry_repeating = false,
                Group::Gone => {}
            }
        }
        self.stats.full += mail as u64;
        if !self.space.held.is_empty() {
            let later = self.pending.iter_mut().flat_map(Gathering::sift_deferrals);
            self.space.held.extend(later);
        }
        self.forget_held();
        sifted
    }

    /// Of deferrals that wait for room the oldest, when they are too many.
    fn forget_held(&mut self) {
        let surplus = self.space.held.len().saturating_sub(OUTCOMES_HELD_MAX);
        self.stats.deferrals_forgotten += self.space.held.drain(..surplus).count() as u64;
    }

    /// Ends a batch of which sifting has left nothing.
    pub fn drop_empty(&mut self, batch: Gathering) -> Vec<Waker> {
        self.ground(&batch.ticket);
        self.wanted = !self.pending.is_empty();
        batch.ticket.close(Verdict::Full)
    }

    /// There is room again for the deferrals that were held back.
    pub fn release_held(&mut self) {
        self.space.released += !self.space.held.is_empty() as u64;
        for group in std::mem::take(&mut self.space.held) {
            self.gather(group).expect("an outcome record of bounded size fits");
        }
    }

    /// These outcomes are durable: what was held back of earlier attempts says nothing new any more.
    fn supersede(&mut self, finishing: &Finishing) {
        self.space.held.retain_mut(|group| match group {
            Group::Outcomes(held, _) if held.id == finishing.id => {
                held.outcomes.retain(|held| {
                    let newer = |of: &Outcome| {
                        of.recipient == held.recipient && !of.kind.steers() && of.attempts >= held.attempts
                    };
                    !finishing.outcomes.iter().any(newer)
                });
                !held.outcomes.is_empty()
            }
            _ => true,
        });
    }

    fn give_up(&mut self, id: QueueId, mail: &mut bool) {
        self.abandoned.retain(|abandoned| *abandoned != id);
        *mail = true;
    }

    /// No space at all: mail is refused, outcomes stay for later. Where outcomes alone find none, mail that
    /// waits behind them finds none either; the next nudge tries again.
    pub fn refuse(&mut self, batch: Gathering) -> Vec<Waker> {
        let alone = !batch.mail;
        self.ground(&batch.ticket);
        let mut wakers = Vec::new();
        let behind = std::mem::take(&mut self.pending);
        let kept = self.without_mail(batch, &mut wakers);
        self.pending.extend(kept);
        for batch in behind {
            let kept = if alone { self.without_mail(batch, &mut wakers) } else { Some(batch) };
            self.pending.extend(kept);
        }
        self.wanted = !alone && !self.pending.is_empty();
        self.forget_deferrals();
        wakers
    }

    /// A batch is not written after all. It is the only one: files change with nothing in flight.
    fn ground(&mut self, ticket: &Rc<Ticket>) {
        let last = self.in_flight.pop_back().is_some_and(|last| Rc::ptr_eq(&last, ticket));
        assert!(last && self.in_flight.is_empty(), "batches are refused with nothing else in flight");
    }

    /// What stays of a batch that is refused.
    fn without_mail(&mut self, batch: Gathering, wakers: &mut Vec<Waker>) -> Option<Gathering> {
        let mut kept = Gathering::default();
        let mut mail = false;
        for group in batch.groups {
            match group {
                Group::Outcomes(..) => {
                    let bytes = group.payload_bytes().expect("it was reckoned before");
                    kept.push(group, bytes);
                }
                Group::Extent { id, .. } => self.give_up(id, &mut mail),
                Group::Message(message) => self.give_up(message.id, &mut mail),
                Group::Ancestry(_) => self.ancestry_repeating = false,
                Group::Gone => {}
            }
        }
        self.stats.full += mail as u64;
        wakers.extend(batch.ticket.close(Verdict::Full));
        (!kept.groups.is_empty()).then_some(kept)
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
