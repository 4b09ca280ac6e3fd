//! What waits to be written: groups of records gather into a batch, a batch is laid out in one buffer.
//!
//! Lives in a spool, on its shard. A group is written whole in one batch or not at all. Whoever waits for
//! a batch holds its [`Ticket`]; all are woken at once.

use crate::ancestry::Ancestry;
use crate::digest::growth_max;
use crate::draft::OpenDraft;
use crate::envelope::{Envelope, RecipientState};
use crate::id::QueueId;
use crate::index::Entry;
use crate::layout::{BATCH_HEADER, BatchHeader};
use crate::record::{
    CommitToWrite, ContentFlags, EXTENT_HEAD, ExtentAt, Outcome, OutcomeKind, Pen, RECORD_HEADER, Written,
    commit_bytes, outcome_bytes,
};
use crate::segments::{Mark, REFERS_TO_NONE};
use crate::space::{Need, Reservation};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Durable,
    Full,
    Poisoned,
}

/// An extent that is durable. Holding it keeps its segment.
#[derive(Clone, Debug)]
pub(crate) struct ExtentRef {
    pub mark: Rc<Mark>,
    pub position: u32,
    pub octets: u32,
    pub crc: u32,
}

/// Shared between a batch and those who wait for it.
#[derive(Debug, Default)]
pub(crate) struct Ticket {
    verdict: Cell<Option<Verdict>>,
    wakers: RefCell<Vec<Waker>>,
    /// By group number.
    extents: RefCell<Vec<(usize, ExtentRef)>>,
    /// Groups that found no room while others of the batch did.
    refused: RefCell<Vec<usize>>,
}

impl Ticket {
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict.get()
    }

    /// What became of one group of the batch.
    pub fn verdict_of(&self, group: usize) -> Option<Verdict> {
        let refused = |verdict| match verdict {
            Verdict::Durable if self.refused.borrow().contains(&group) => Verdict::Full,
            other => other,
        };
        self.verdict.get().map(refused)
    }

    /// Sets the verdict and gives the wakers, to be woken when no borrow is held.
    #[must_use]
    pub fn close(&self, verdict: Verdict) -> Vec<Waker> {
        self.verdict.set(Some(verdict));
        self.wakers.take()
    }

    pub fn give_extent(&self, group: usize, extent: ExtentRef) {
        self.extents.borrow_mut().push((group, extent));
    }

    pub fn take_extent(&self, group: usize) -> Option<ExtentRef> {
        let mut extents = self.extents.borrow_mut();
        let at = extents.iter().position(|(of, _)| *of == group)?;
        Some(extents.swap_remove(at).1)
    }
}

/// Resolves when the batch of a ticket is done.
pub(crate) struct Wait {
    pub ticket: Rc<Ticket>,
    group: Option<usize>,
    waker: Option<usize>,
}

impl Wait {
    pub fn new(ticket: Rc<Ticket>) -> Self {
        Self { ticket, group: None, waker: None }
    }

    /// For one group of the batch.
    pub fn of(ticket: Rc<Ticket>, group: usize) -> Self {
        Self { ticket, group: Some(group), waker: None }
    }
}

impl Future for Wait {
    type Output = Verdict;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Verdict> {
        let verdict = match self.group {
            Some(group) => self.ticket.verdict_of(group),
            None => self.ticket.verdict(),
        };
        if let Some(verdict) = verdict {
            return Poll::Ready(verdict);
        }
        let mut wakers = self.ticket.wakers.borrow_mut();
        let slot = self.waker.unwrap_or(wakers.len());
        match wakers.get_mut(slot) {
            Some(waker) => waker.clone_from(context.waker()),
            None => wakers.push(context.waker().clone()),
        }
        drop(wakers);
        self.waker = Some(slot);
        Poll::Pending
    }
}

/// Records that are written together or not at all.
#[derive(Debug)]
pub(crate) enum Group {
    Extent {
        id: QueueId,
        offset: u64,
        octets: Vec<u8>,
        room: Option<Reservation>,
    },
    Message(NewMessage),
    Outcomes(Finishing, Option<Entry>),
    /// All that the spool knows of others, with what it learns in this batch.
    Ancestry(Ancestry),
    /// Taken out again for want of room; keeps the numbers of the others.
    Gone,
}

#[derive(Debug)]
pub(crate) struct NewMessage {
    pub id: QueueId,
    pub envelope: Arc<Envelope>,
    pub flags: ContentFlags,
    pub content_bytes: u64,
    /// What is durable already.
    pub extents: Vec<ExtentRef>,
    /// The last octets, written with the commit record.
    pub tail: Option<Arc<Vec<u8>>>,
    /// Outcomes of another message; of this one, with its last reasons, when it moves.
    pub finishing: Option<Finishing>,
    pub moves: Option<Moves>,
    /// What was promised to it before it came.
    pub room: Option<Reservation>,
    /// Of a message of another spool, one per recipient; empty when all are new.
    pub states: Vec<RecipientState>,
    /// Until the message is in the index its draft counts as open.
    #[expect(dead_code, reason = "dropping it says so")]
    pub open: Option<OpenDraft>,
}

/// What makes a commit one that replaces another: the message is moved.
#[derive(Debug)]
pub(crate) struct Moves {
    /// One per recipient, with all outcomes that were queued before this.
    pub states: Vec<RecipientState>,
    /// The segment of the commit record that is replaced.
    pub from: u64,
}

/// Outcomes of one message. `refers_to`: the segment of its commit record.
#[derive(Debug)]
pub(crate) struct Finishing {
    pub id: QueueId,
    pub outcomes: Vec<Outcome>,
    pub refers_to: u64,
}

impl Finishing {
    fn payload_bytes(&self) -> usize {
        RECORD_HEADER + outcome_bytes(&self.outcomes)
    }

    /// Nothing but recipients put off.
    pub fn is_deferral(&self) -> bool {
        self.outcomes.iter().all(|outcome| outcome.kind == OutcomeKind::Deferred)
    }
}

impl Group {
    /// Octets of its records; `None` when something does not fit the format.
    pub fn payload_bytes(&self) -> Option<usize> {
        Some(match self {
            Self::Extent { octets, .. } => RECORD_HEADER + EXTENT_HEAD + octets.len(),
            Self::Message(message) => message.payload_bytes()?,
            Self::Outcomes(outcomes, _) => outcomes.payload_bytes(),
            Self::Gone => 0,
            Self::Ancestry(ancestry) => RECORD_HEADER + ancestry.encoded_len(),
        })
    }

    /// How far it may go into what room is left.
    pub fn need(&self) -> Need {
        match self {
            Self::Extent { room: Some(_), .. } | Self::Message(NewMessage { room: Some(_), .. }) => {
                Need::Reserved
            }
            // Outcomes of another message: a DSN. Those of the message itself are of one that is brought in.
            Self::Message(NewMessage { id, finishing: Some(of), .. }) if of.id != *id => Need::Spare,
            // What is known of other spools goes with the messages that it says are in.
            Self::Extent { .. } | Self::Message(_) | Self::Ancestry(_) => Need::Mail,
            Self::Outcomes(finishing, None) if finishing.is_deferral() => Need::Spare,
            Self::Outcomes(..) | Self::Gone => Need::Outcome,
        }
    }

    /// The message whose outcomes it has, or adds to.
    pub fn speaks_of(&self) -> Option<QueueId> {
        match self {
            Self::Extent { .. } | Self::Ancestry(_) | Self::Gone => None,
            Self::Message(message) => message.finishing.as_ref().map(|finishing| finishing.id),
            Self::Outcomes(outcomes, _) => Some(outcomes.id),
        }
    }

    /// The entry of the message `id`, when this is its last outcome.
    pub fn finished_entry(&mut self, id: QueueId) -> Option<&mut Entry> {
        match self {
            Self::Outcomes(outcomes, entry) if outcomes.id == id => entry.as_mut(),
            _ => None,
        }
    }

    fn records(&self) -> u32 {
        match self {
            Self::Extent { .. } | Self::Outcomes(..) | Self::Ancestry(_) => 1,
            Self::Message(message) => 1 + message.tail.is_some() as u32 + message.finishing.is_some() as u32,
            Self::Gone => 0,
        }
    }

    /// The oldest segment that its outcomes, or a commit that replaces another, speak of.
    fn refers_to(&self) -> u64 {
        match self {
            Self::Extent { .. } | Self::Ancestry(_) | Self::Gone => REFERS_TO_NONE,
            Self::Message(message) => {
                let finishing = message.finishing.as_ref().map_or(REFERS_TO_NONE, |f| f.refers_to);
                message.moves.as_ref().map_or(REFERS_TO_NONE, |moves| moves.from).min(finishing)
            }
            Self::Outcomes(outcomes, _) => outcomes.refers_to,
        }
    }

    /// The message whose last outcomes these are.
    fn ends(&self) -> Option<QueueId> {
        match self {
            Self::Outcomes(outcomes, Some(_)) => Some(outcomes.id),
            _ => None,
        }
    }

    /// Octets of its records, which are `payload_bytes`, but for extents.
    fn lasting_bytes(&self, payload_bytes: usize) -> usize {
        let extent = match self {
            Self::Extent { octets, .. } => Some(octets.len()),
            Self::Message(message) => message.tail.as_ref().map(|tail| tail.len()),
            Self::Outcomes(..) | Self::Ancestry(_) | Self::Gone => None,
        };
        let extent = extent.map_or(0, |octets| RECORD_HEADER + EXTENT_HEAD + octets);
        payload_bytes - extent
    }

    fn put(&self, pen: &mut Pen<'_>, segment: u64, base: u64) -> Placed {
        let mut placed = Placed::default();
        match self {
            Self::Gone => {}
            Self::Extent { id, offset, octets, .. } => placed.extent = pen.extent(id.bits(), *offset, octets),
            Self::Outcomes(outcomes, _) => {
                placed.outcome = pen.outcomes(outcomes.id.bits(), &outcomes.outcomes);
            }
            Self::Message(message) => message.put(pen, segment, base, &mut placed),
            Self::Ancestry(ancestry) => drop(pen.ancestry(ancestry)),
        }
        placed
    }
}

impl NewMessage {
    pub fn payload_bytes(&self) -> Option<usize> {
        let tail = self.tail.as_ref().map_or(0, |tail| RECORD_HEADER + EXTENT_HEAD + tail.len());
        let extents = self.extents.len() + self.tail.is_some() as usize;
        let finishing = self.finishing.as_ref().map_or(0, Finishing::payload_bytes);
        Some(tail + RECORD_HEADER + commit_bytes(&self.envelope, extents)? + finishing)
    }

    fn put(&self, pen: &mut Pen<'_>, segment: u64, base: u64, placed: &mut Placed) {
        let tail = self.tail.as_ref().map(|octets| {
            let offset = self.content_bytes - octets.len() as u64;
            placed.extent = pen.extent(self.id.bits(), offset, octets);
            ExtentAt {
                segment,
                position: (base + placed.extent.at as u64) as u32,
                octets: octets.len() as u32,
                crc: placed.extent.crc,
            }
        });
        let extents: Vec<ExtentAt> = self.extents.iter().map(ExtentRef::at).collect();
        placed.commit = pen.commit(&CommitToWrite {
            id: self.id.bits(),
            content_bytes: self.content_bytes,
            flags: self.flags,
            envelope: &self.envelope,
            extents: &extents,
            tail,
            states: self.moves.as_ref().map_or(&self.states, |moves| &moves.states),
        });
        if let Some(finishing) = &self.finishing {
            placed.outcome = pen.outcomes(finishing.id.bits(), &finishing.outcomes);
        }
    }
}

impl ExtentRef {
    pub(crate) fn at(&self) -> ExtentAt {
        let segment = self.mark.sequence;
        ExtentAt { segment, position: self.position, octets: self.octets, crc: self.crc }
    }
}

/// Where the records of a group came to lie, from the start of the batch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Placed {
    pub extent: Written,
    pub commit: Written,
    pub outcome: Written,
}

/// A batch that still takes groups.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    pub groups: Vec<Group>,
    pub payload_bytes: usize,
    /// Octets by which it makes the entries of the segment's index more, at most.
    pub index_growth_max: usize,
    /// Holds something else than outcomes and ancestry.
    pub mail: bool,
    /// The most patient of its groups.
    pub need: Need,
    pub ticket: Rc<Ticket>,
}

impl Gathering {
    pub fn push(&mut self, group: Group, payload_bytes: usize) {
        self.payload_bytes += payload_bytes;
        self.index_growth_max += growth_max(group.records() as usize, group.lasting_bytes(payload_bytes));
        self.mail |= !matches!(group, Group::Outcomes(..) | Group::Ancestry(_));
        self.need = self.need.max(group.need());
        self.groups.push(group);
    }

    /// Takes out the most patient groups, for which there is no room, and gives them; those that stay keep
    /// their numbers. Nothing is given when all must stay.
    pub fn sift(&mut self) -> Vec<Group> {
        let need = self.need;
        if need <= Need::Reserved { Vec::new() } else { self.take_out(|group| group.need() == need) }
    }

    /// The same with deferrals.
    pub fn sift_deferrals(&mut self) -> Vec<Group> {
        self.take_out(|group| matches!(group, Group::Outcomes(..)) && group.need() == Need::Spare)
    }

    fn take_out(&mut self, which: impl Fn(&Group) -> bool) -> Vec<Group> {
        let mut taken = Vec::new();
        for (number, group) in self.groups.iter_mut().enumerate() {
            if which(group) {
                self.ticket.refused.borrow_mut().push(number);
                taken.push(std::mem::replace(group, Group::Gone));
            }
        }
        self.payload_bytes = self.groups.iter().filter_map(Group::payload_bytes).sum();
        self.need = self.groups.iter().map(Group::need).max().unwrap_or_default();
        self.mail = self.groups.iter().any(|group| !matches!(group, Group::Outcomes(..) | Group::Gone));
        taken
    }

    /// Nothing is left to be written.
    pub fn is_empty(&self) -> bool {
        self.groups.iter().all(|group| matches!(group, Group::Gone))
    }

    pub fn batch_bytes(&self) -> usize {
        BatchHeader::batch_bytes(self.payload_bytes)
    }

    pub fn records(&self) -> u32 {
        self.groups.iter().map(Group::records).sum()
    }

    /// Messages that are finished when this is durable.
    pub fn ends(&self) -> impl Iterator<Item = QueueId> {
        self.groups.iter().filter_map(Group::ends)
    }

    pub fn refers_to(&self) -> u64 {
        self.groups.iter().map(Group::refers_to).min().unwrap_or(REFERS_TO_NONE)
    }

    /// Fills `out`, which is `batch_bytes` long and will lie at `base` in the segment.
    pub fn lay_out(&self, header: &BatchHeader, seed: u32, base: u64, out: &mut [u8]) -> Vec<Placed> {
        assert_eq!(out.len(), self.batch_bytes());
        let mut pen = Pen::new(out, BATCH_HEADER, seed);
        let placed = self.groups.iter().map(|group| group.put(&mut pen, header.segment, base)).collect();
        let end = pen.at();
        assert_eq!(end, BATCH_HEADER + self.payload_bytes, "sizes are reckoned before the buffer is made");
        out[end..].fill(0);
        header.encode(seed, out);
        placed
    }
}
