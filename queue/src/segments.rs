//! The table of segments and the rule by which one may be recycled. Lives in a spool, on its shard.
//!
//! Whoever needs a segment holds its [`Mark`]: a waiting message those of its records, an open draft those
//! of its extents, a read under way the one it reads. A segment is *dead* when nobody does.
//!
//! **The rule.** An outcome record may be lost with its segment only when the commit record that it speaks
//! of is gone already; otherwise a crash would bring a finished message back. So each segment keeps the
//! oldest segment that its outcomes refer to (`refers_to`), and a dead sealed segment may be overwritten
//! only when no segment of `[refers_to, itself)` still exists on disk. A dead segment exists until another
//! header was written over its own, durably. (A commit record that moves a message refers, in the same
//! way, to the segment of the record that it replaces.)

use crate::canary::{Canary, sings};
use crate::compaction::policy::{Figure, Standing};
use crate::digest::Digest;
use crate::read_ahead::ReadAhead;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The name of a segment in one of its lives; holding it keeps the segment.
#[derive(Debug)]
pub(crate) struct Mark {
    pub sequence: u64,
    /// Octets in it that waiting messages need, in whole blocks.
    pub live: Cell<u64>,
}

impl Mark {
    pub fn new(sequence: u64) -> Rc<Self> {
        Rc::new(Self { sequence, live: Cell::new(0) })
    }
}

impl PartialEq for Mark {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Batches are being written into it.
    Active,
    Sealed,
    /// Something in it did not verify: kept for people to look at.
    Damaged,
}

#[derive(Debug)]
pub(crate) struct Segment<F> {
    pub mark: Rc<Mark>,
    pub slot: u32,
    pub bytes: u64,
    pub file: Rc<F>,
    /// What its checksums start from.
    pub seed: u32,
    pub status: Status,
    /// The oldest segment with a commit record that an outcome in this one speaks of.
    pub refers_to: u64,
    /// What its index will say; while it can be written, and if it is to have one.
    pub digest: Option<Box<Digest>>,
    /// The file may have other names, those of a backup: it is given back and not written over. Asked of the
    /// storage again before that.
    pub linked: bool,
}

/// `refers_to` of a segment without outcomes.
pub(crate) const REFERS_TO_NONE: u64 = u64::MAX;

impl<F> Segment<F> {
    pub fn refer_to(&mut self, sequence: u64) {
        self.refers_to = self.refers_to.min(sequence);
    }

    fn is_dead(&self) -> bool {
        self.status == Status::Sealed && !self.is_held()
    }

    fn is_held(&self) -> bool {
        Rc::strong_count(&self.mark) > 1
    }
}

/// All segment files of a spool.
#[derive(Debug)]
pub(crate) struct Table<F> {
    pub segments: BTreeMap<u64, Segment<F>>,
    /// Files that were never taken into use; all of the spool's own segment size.
    pub free: Vec<(u32, Rc<F>)>,
    pub next_slot: u32,
    pub ahead: ReadAhead,
}

impl<F> Table<F> {
    pub fn new() -> Self {
        Self { segments: BTreeMap::new(), free: Vec::new(), next_slot: 0, ahead: ReadAhead::default() }
    }

    /// The segments that may be overwritten now, oldest first.
    pub fn recyclable(&self) -> impl Iterator<Item = &Segment<F>> {
        self.segments.values().filter(|segment| {
            let sequence = segment.mark.sequence;
            let speaks_of = segment.refers_to.min(sequence);
            let speaks_of = if sings(Canary::RecyclesEarly) { sequence } else { speaks_of };
            segment.is_dead() && self.segments.range(speaks_of..sequence).next().is_none()
        })
    }

    /// Segments that a copy of the spool must have, in the order of the log: all but those that nobody needs
    /// and that speak of none of them. So no outcome is left out of whose message the commit record is there.
    pub fn needed(&self) -> impl Iterator<Item = &Segment<F>> {
        let mut kept = 0;
        self.segments.iter().filter_map(move |(sequence, segment)| {
            if segment.is_dead() && segment.refers_to > kept {
                return None;
            }
            kept = *sequence;
            Some(segment)
        })
    }

    /// How many segments of `bytes` could be overwritten one after the other, oldest first: what refers
    /// only to those before it follows them.
    pub fn reclaimable(&self, bytes: u64) -> usize {
        let (mut count, mut kept) = (0, 0);
        for (sequence, segment) in &self.segments {
            let usable = segment.bytes == bytes && !segment.linked;
            if usable && segment.is_dead() && segment.refers_to > kept {
                count += 1;
            } else {
                kept = *sequence;
            }
        }
        count
    }

    /// What compaction goes by.
    pub fn figures(&self) -> Vec<Figure> {
        let figure = |segment: &Segment<F>| Figure {
            sequence: segment.mark.sequence,
            bytes: segment.bytes,
            live: segment.mark.live.get(),
            refers_to: segment.refers_to,
            standing: match (segment.status, segment.is_held()) {
                (Status::Sealed, true) => Standing::Held,
                (Status::Sealed, false) => Standing::Dead,
                (Status::Active | Status::Damaged, _) => Standing::Fixed,
            },
        };
        self.segments.values().map(figure).collect()
    }

    pub fn get(&self, sequence: u64) -> Option<&Segment<F>> {
        self.segments.get(&sequence)
    }

    pub fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(of: &[(u64, u64, Status)]) -> Table<()> {
        let mut table = Table::new();
        for &(sequence, refers_to, status) in of {
            let mark = Mark::new(sequence);
            let (slot, bytes, file, seed, linked, digest) = (0, 0, Rc::new(()), 0, false, None);
            let segment = Segment { mark, slot, bytes, file, seed, status, refers_to, linked, digest };
            table.segments.insert(sequence, segment);
        }
        table
    }

    fn recyclable(table: &Table<()>) -> Vec<u64> {
        table.recyclable().map(|segment| segment.mark.sequence).collect()
    }

    #[test]
    fn a_segment_outlives_the_commit_records_that_its_outcomes_speak_of() {
        use Status::Sealed;
        let mut table = table(&[(1, REFERS_TO_NONE, Sealed), (2, 1, Sealed), (3, 2, Sealed), (5, 5, Sealed)]);
        assert_eq!(recyclable(&table), [1, 5], "2 speaks of 1, 3 of 2; 5 only of itself");
        assert_eq!(table.reclaimable(0), 4, "in turn, all of them");
        table.segments.remove(&1);
        assert_eq!(recyclable(&table), [2, 5]);
        table.segments.remove(&2);
        assert_eq!(recyclable(&table), [3, 5]);
    }

    #[test]
    fn what_is_held_active_or_damaged_stays_and_so_does_what_speaks_of_it() {
        for status in [Status::Active, Status::Damaged] {
            assert_eq!(recyclable(&table(&[(1, REFERS_TO_NONE, status), (2, 1, Status::Sealed)])), []);
        }
        let table = table(&[(1, REFERS_TO_NONE, Status::Sealed), (2, 1, Status::Sealed)]);
        let held = table.segments[&1].mark.clone();
        assert_eq!((recyclable(&table), table.reclaimable(0)), (vec![], 0));
        drop(held);
        assert_eq!(recyclable(&table), [1]);
    }

    #[test]
    fn a_copy_leaves_out_only_what_speaks_of_nothing_in_it() {
        use Status::Sealed;
        let needed = |table: &Table<()>| table.needed().map(|of| of.mark.sequence).collect::<Vec<_>>();
        let table =
            table(&[(1, REFERS_TO_NONE, Sealed), (2, 1, Sealed), (3, 2, Sealed), (4, 4, Status::Active)]);
        assert_eq!(needed(&table), [4]);
        let held = table.segments[&1].mark.clone();
        assert_eq!(needed(&table), [1, 2, 3, 4], "3 speaks of 2, and 2 of 1");
        drop(held);
        let _held = table.segments[&2].mark.clone();
        assert_eq!(needed(&table), [2, 3, 4]);
    }

    #[test]
    fn references_to_segments_long_gone_hold_nothing() {
        let table = table(&[(7, 2, Status::Sealed), (9, 8, Status::Sealed)]);
        assert_eq!(recyclable(&table), [7, 9]);
    }
}
