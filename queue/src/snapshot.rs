//! What a copy of a running spool needs, at one instant.
//!
//! Lives in a spool, on its shard. Taking a snapshot reads and writes nothing: it names the segments that
//! count now, and keeps the spool from using them again until it is dropped. The rest of a backup happens
//! elsewhere (`backup`), with the [`Needed`] of it, which may go to another thread.
//!
//! What a copy of the named octets, taken while the snapshot lives, recovers to: every message that was
//! durable at the instant and not finished, durably, before it; of outcomes that were recorded and not yet
//! durable nothing. So whoever wants few repeated deliveries calls [`Spool::sync`] first.

use crate::id::{QueueId, SpoolNumber};
use crate::inspect::Inspection;
use crate::lineage::Lineage;
use crate::segments::{Mark, Segment, Status, Table};
use crate::spool::Spool;
use crate::storage::Storage;
use std::rc::Rc;

/// Keeps what a copy needs.
pub struct Snapshot {
    pub needed: Needed,
    _marks: Vec<Rc<Mark>>,
}

/// The segments of one spool that make a whole copy of it, in the order of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    pub spool: SpoolNumber,
    /// `None` in a stopped spool of format version 1.
    pub lineage: Option<Lineage>,
    /// The instant, as the caller said.
    pub at_micros: u64,
    /// The last batch that is durable.
    pub batch: u64,
    /// Messages waiting, and the octets, in whole blocks, that they need.
    pub messages: u64,
    pub live_bytes: u64,
    /// Drafts that were open at the instant, rising: what of them becomes a message is in a later copy only.
    pub drafts: Vec<QueueId>,
    pub segments: Vec<NeededSegment>,
}

/// One segment file of the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeededSegment {
    pub slot: u32,
    pub sequence: u64,
    /// Octets of the file, and how many of them count, from its start.
    pub bytes: u64,
    pub octets: u64,
    pub condition: Condition,
}

/// What is to be expected of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing more is written into it in this life.
    Sealed,
    /// Batches follow behind what counts.
    Open,
    /// Something in it did not verify; nothing more is written into it either.
    Damaged,
}

impl<S: Storage> Spool<S> {
    /// The segments that count at this instant, which is `now_micros`. Keeps their places on disk from being
    /// used again until it is dropped.
    pub fn snapshot(&self, now_micros: u64) -> Snapshot {
        let desk = self.inner.desk.borrow();
        let mut table = self.inner.table.borrow_mut();
        // What is in flight has not been acknowledged, and may be half in the file.
        let open = desk.active.map(|active| (active.sequence, desk.durable_end));
        let segments = needed_of(&table, open);
        let needed = Needed {
            spool: self.inner.number,
            lineage: Some(self.inner.lineage),
            at_micros: now_micros,
            batch: desk.durable_batch,
            messages: desk.index.counts().messages as u64,
            live_bytes: live_bytes(&table),
            drafts: desk.open.borrow().iter().copied().collect(),
            segments,
        };
        let mut marks = Vec::with_capacity(needed.segments.len());
        for of in &needed.segments {
            let segment = table.segments.get_mut(&of.sequence).expect("it was found there");
            // Until somebody looks: the copy may be a link.
            segment.linked = true;
            marks.push(segment.mark.clone());
        }
        Snapshot { needed, _marks: marks }
    }
}

impl Inspection {
    /// The same of a spool on which no relay runs.
    pub fn needed(&self, now_micros: u64) -> Needed {
        let table = self.table.borrow();
        Needed {
            spool: self.number,
            lineage: self.lineage,
            at_micros: now_micros,
            batch: self.last_batch,
            messages: self.recovery.messages as u64,
            live_bytes: live_bytes(&table),
            drafts: Vec::new(),
            segments: needed_of(&table, self.cut.map(|cut| (cut.segment, cut.position))),
        }
    }
}

fn live_bytes<F>(table: &Table<F>) -> u64 {
    table.segments.values().map(|segment| segment.mark.live.get()).sum()
}

/// `open`: the segment without a seal, and where its batches end.
fn needed_of<F>(table: &Table<F>, open: Option<(u64, u64)>) -> Vec<NeededSegment> {
    let one = |segment: &Segment<F>| {
        let sequence = segment.mark.sequence;
        let end = open.filter(|(open, _)| *open == sequence).map(|(_, end)| end);
        NeededSegment {
            slot: segment.slot,
            sequence,
            bytes: segment.bytes,
            octets: end.unwrap_or(segment.bytes),
            condition: match (segment.status, end) {
                (Status::Damaged, _) => Condition::Damaged,
                (_, Some(_)) => Condition::Open,
                (_, None) => Condition::Sealed,
            },
        }
    };
    table.needed().map(one).collect()
}
