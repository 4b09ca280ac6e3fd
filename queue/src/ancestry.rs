//! What a spool remembers of other spools whose messages were brought into it: enough to bring nothing in
//! twice, in little room.
//!
//! Pure data; lives in a spool, on its shard, and travels between threads by value.
//!
//! Per lineage: *everything with an id up to `through` has been brought in, or was finished before it could
//! be, but for the gaps*. Gaps are ids that were open drafts at the instant of the copy that was brought in
//! (a later copy may have them as messages), and messages of it that could not be read.
//!
//! Invariants:
//! - What is known stays known, but for the two bounds: with more than [`LINEAGES_MAX`] lineages the one
//!   that ends first goes, and raises the horizon; what is older than the horizon and of no lineage here is
//!   doubtful. With more than [`GAPS_MAX`] gaps a lineage is cut short before some of them: what was known
//!   behind is new again. So a bound makes a question or a duplicate, never a loss.
//! - [`Ancestry::merge`] is commutative and knows exactly what one of the two knew, within the bounds. So
//!   records of it may be read in any order and any number of times.

use crate::id::QueueId;
use crate::lineage::Lineage;
use std::collections::{BTreeMap, BTreeSet};

/// Prevents: a record at the head of each segment that grows with the life of the relay.
pub const LINEAGES_MAX: usize = 64;
/// Of all lineages together: more than a relay has sessions that send content at one time. Prevents the same.
pub const GAPS_MAX: usize = 4096;

/// The first name that a message had: spool and id. It keeps it wherever it is brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    pub lineage: Lineage,
    pub id: QueueId,
}

/// Whether a message was here before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    New,
    /// It is here, or was and is finished.
    Known,
    /// It is so old that it may have been here.
    Doubtful,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ancestry {
    branches: BTreeMap<Lineage, Branch>,
    /// Ids with at most these microseconds, of lineages not named here, may have been here.
    horizon_micros: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Branch {
    through: QueueId,
    /// All at most `through`.
    gaps: BTreeSet<QueueId>,
}

impl Branch {
    fn knows(&self, id: QueueId) -> bool {
        id <= self.through && !self.gaps.contains(&id)
    }
}

impl Ancestry {
    pub fn is_empty(&self) -> bool {
        self.branches.is_empty() && self.horizon_micros == 0
    }

    pub fn standing(&self, of: Origin) -> Standing {
        match self.branches.get(&of.lineage) {
            Some(branch) if branch.knows(of.id) => Standing::Known,
            None if of.id.micros() <= self.horizon_micros => Standing::Doubtful,
            _ => Standing::New,
        }
    }

    /// Up to which id a lineage was brought in, when anything of it was.
    pub fn through(&self, lineage: Lineage) -> Option<QueueId> {
        self.branches.get(&lineage).map(|branch| branch.through)
    }

    /// The gaps of a lineage, rising.
    pub fn gaps(&self, lineage: Lineage) -> impl Iterator<Item = QueueId> {
        self.branches.get(&lineage).into_iter().flat_map(|branch| branch.gaps.iter().copied())
    }

    pub fn lineages(&self) -> impl Iterator<Item = Lineage> {
        self.branches.keys().copied()
    }

    /// Everything of a lineage up to `through` is in, but for `gaps`.
    pub fn advance(&mut self, lineage: Lineage, through: QueueId, gaps: impl IntoIterator<Item = QueueId>) {
        let gaps = gaps.into_iter().filter(|id| *id <= through).collect();
        self.join(lineage, Branch { through, gaps });
        self.bound();
    }

    /// Learns what another spool knows.
    pub fn merge(&mut self, other: &Self) {
        self.horizon_micros = self.horizon_micros.max(other.horizon_micros);
        other.branches.iter().for_each(|(lineage, branch)| self.join(*lineage, branch.clone()));
        self.bound();
    }

    /// The same without some lineages.
    #[must_use]
    pub fn without(mut self, lineages: &BTreeSet<Lineage>) -> Self {
        self.branches.retain(|lineage, _| !lineages.contains(lineage));
        self
    }

    fn join(&mut self, lineage: Lineage, new: Branch) {
        let Some(old) = self.branches.remove(&lineage) else {
            self.branches.insert(lineage, new);
            return;
        };
        let either = old.gaps.union(&new.gaps).copied();
        let gaps = either.filter(|id| !old.knows(*id) && !new.knows(*id)).collect();
        self.branches.insert(lineage, Branch { through: old.through.max(new.through), gaps });
    }

    fn bound(&mut self) {
        while self.branches.len() > LINEAGES_MAX {
            let oldest = self.branches.iter().min_by_key(|(lineage, branch)| (branch.through, **lineage));
            let oldest = oldest.map(|(lineage, _)| *lineage).expect("there are some");
            let gone = self.branches.remove(&oldest).expect("it was found there");
            self.horizon_micros = self.horizon_micros.max(gone.through.micros());
        }
        while self.branches.values().map(|branch| branch.gaps.len()).sum::<usize>() > GAPS_MAX {
            let most = self.branches.values_mut().max_by_key(|branch| branch.gaps.len());
            let branch = most.expect("there are gaps");
            let first_cut = *branch.gaps.iter().nth(branch.gaps.len() / 2).expect("it has some");
            branch.gaps.split_off(&first_cut);
            branch.through = QueueId::from_bits(first_cut.bits().saturating_sub(1));
        }
    }
}

const HEAD: usize = 8 + 4;
const BRANCH: usize = 16 + 8 + 4;

/// Payload octets of the largest ancestry record.
pub(crate) const ANCESTRY_BYTES_MAX: usize = HEAD + LINEAGES_MAX * BRANCH + GAPS_MAX * 8;
const _: () = assert!(ANCESTRY_BYTES_MAX < 36 << 10, "it fits beside mail in the smallest segment");

impl Ancestry {
    /// Octets of [`Self::encode`].
    pub fn encoded_len(&self) -> usize {
        HEAD + self.branches.values().map(|branch| BRANCH + branch.gaps.len() * 8).sum::<usize>()
    }

    /// The payload of an ancestry record (`FORMAT.md`).
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        out.extend_from_slice(&self.horizon_micros.to_le_bytes());
        out.extend_from_slice(&(self.branches.len() as u32).to_le_bytes());
        for (lineage, branch) in &self.branches {
            out.extend_from_slice(&lineage.octets());
            out.extend_from_slice(&branch.through.bits().to_le_bytes());
            out.extend_from_slice(&(branch.gaps.len() as u32).to_le_bytes());
            branch.gaps.iter().for_each(|id| out.extend_from_slice(&id.bits().to_le_bytes()));
        }
        out
    }

    /// `None` when the octets are not what [`Self::encode`] makes.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (mut rest, mut ancestry) = (payload, Self::default());
        ancestry.horizon_micros = take(&mut rest).map(u64::from_le_bytes)?;
        let branches = take(&mut rest).map(u32::from_le_bytes)?;
        for _ in 0..branches {
            let lineage = Lineage::from_octets(take(&mut rest)?)?;
            let through = QueueId::from_bits(take(&mut rest).map(u64::from_le_bytes)?);
            let count = take(&mut rest).map(u32::from_le_bytes)?;
            let mut gaps = BTreeSet::new();
            for _ in 0..count {
                gaps.insert(QueueId::from_bits(take(&mut rest).map(u64::from_le_bytes)?));
            }
            gaps.retain(|id| *id <= through);
            ancestry.join(lineage, Branch { through, gaps });
        }
        ancestry.bound();
        rest.is_empty().then_some(ancestry)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lineage(of: u8) -> Lineage {
        Lineage::from_octets([of; 16]).unwrap()
    }

    fn id(micros: u64) -> QueueId {
        QueueId::new(micros, crate::SpoolNumber::new(2).unwrap())
    }

    fn ids(micros: &[u64]) -> Vec<QueueId> {
        micros.iter().copied().map(id).collect()
    }

    fn known(ancestry: &Ancestry, of: u8, up_to: u64) -> Vec<u64> {
        let standing = |micros: &u64| ancestry.standing(Origin { lineage: lineage(of), id: id(*micros) });
        (1..=up_to).filter(|micros| standing(micros) == Standing::Known).collect()
    }

    #[test]
    fn what_is_up_to_the_mark_is_known_but_for_the_gaps() {
        let mut ancestry = Ancestry::default();
        ancestry.advance(lineage(1), id(5), ids(&[3, 9]));
        assert_eq!(known(&ancestry, 1, 9), [1, 2, 4, 5]);
        assert_eq!(known(&ancestry, 2, 9), []);
        ancestry.advance(lineage(1), id(8), ids(&[2, 7]));
        assert_eq!(known(&ancestry, 1, 9), [1, 2, 3, 4, 5, 6, 8], "3 came, 2 was there before");
    }

    /// Over all pairs of small knowledges.
    #[test]
    fn merged_is_known_exactly_what_one_of_both_knew() {
        let all: Vec<Ancestry> = (0..=4u64)
            .flat_map(|through| (0..16u64).map(move |gaps| (through, gaps)))
            .map(|(through, gaps)| {
                let mut one = Ancestry::default();
                one.advance(
                    lineage(1),
                    id(through),
                    (1..=4).filter(|at| gaps & (1 << (at - 1)) != 0).map(id),
                );
                one
            })
            .collect();
        for a in &all {
            for b in &all {
                let (mut ab, mut ba) = (a.clone(), b.clone());
                ab.merge(b);
                ba.merge(a);
                assert_eq!(ab, ba);
                let either: Vec<u64> =
                    (1..=5).filter(|at| known(a, 1, 5).contains(at) || known(b, 1, 5).contains(at)).collect();
                assert_eq!(known(&ab, 1, 5), either, "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn the_lineage_that_ended_first_gives_way_and_leaves_a_doubt() {
        let mut ancestry = Ancestry::default();
        for of in 1..=LINEAGES_MAX as u8 + 1 {
            ancestry.advance(lineage(of), id(u64::from(of) * 10), []);
        }
        assert_eq!(ancestry.lineages().count(), LINEAGES_MAX);
        let standing = |of: u8, micros| ancestry.standing(Origin { lineage: lineage(of), id: id(micros) });
        assert_eq!((standing(1, 10), standing(1, 11)), (Standing::Doubtful, Standing::New));
        assert_eq!((standing(200, 9), standing(2, 20)), (Standing::Doubtful, Standing::Known));
    }

    #[test]
    fn too_many_gaps_make_what_is_behind_them_new_again() {
        let mut ancestry = Ancestry::default();
        let gaps: Vec<QueueId> = (1..=GAPS_MAX as u64 + 1).map(|at| id(at * 2)).collect();
        ancestry.advance(lineage(1), id(100_000), gaps.iter().copied());
        let standing = |id| ancestry.standing(Origin { lineage: lineage(1), id });
        assert!(ancestry.gaps(lineage(1)).count() <= GAPS_MAX);
        assert_eq!((standing(id(1)), standing(id(99_999))), (Standing::Known, Standing::New));
        assert!(gaps.iter().all(|id| standing(*id) == Standing::New), "no gap is ever taken for known");
    }

    #[test]
    fn it_survives_the_disk_and_octets_cut_short_are_refused() {
        let mut ancestry = Ancestry::default();
        for of in 1..=70 {
            ancestry.advance(lineage(of), id(u64::from(of) * 100), ids(&[7, 9, 50_000]));
        }
        let octets = ancestry.encode();
        assert_eq!(octets.len(), ancestry.encoded_len());
        assert_eq!(Ancestry::decode(&octets), Some(ancestry));
        for cut in 0..octets.len() {
            assert_eq!(Ancestry::decode(&octets[..cut]), None);
        }
        assert_eq!(Ancestry::decode(&[octets, vec![0]].concat()), None);
    }
}
