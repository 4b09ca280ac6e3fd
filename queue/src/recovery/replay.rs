//! Records, in the order of the log, become an index. Pure.
//!
//! A later commit of the same id replaces the earlier one. A commit whose extents did not all verify makes
//! a damaged message; an outcome that finishes it later makes it finished all the same (its extents may be
//! gone *because* it is finished, when their segment was recycled before the commit record's).

use super::{DamageKind, Recovery};
use crate::ancestry::Ancestry;
use crate::id::QueueId;
use crate::index::{Index, NewEntry, Place};
use crate::record::{At, CommitView, Found, Noted, OutcomeView, Record};
use crate::segments::{Mark, REFERS_TO_NONE};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

#[derive(Default)]
pub(super) struct Replay {
    pub index: Index,
    /// Highest microseconds of any id seen.
    pub id_micros: u64,
    pub report: Recovery,
    pub ancestry: Ancestry,
    /// The segments that say so.
    pub ancestry_at: Vec<Rc<Mark>>,
    marks: HashMap<u64, Rc<Mark>>,
    slots: HashMap<u64, u32>,
    /// Per segment the verified extents: position and checksum, by position.
    extents: HashMap<u64, Vec<(u32, u32)>>,
    refers_to: BTreeMap<u64, u64>,
    /// Segments with outcomes of messages whose commit record was not seen, or with commit records of old
    /// messages, which may replace one that was not seen.
    speaks_of_unknown: BTreeSet<u64>,
    /// `id_micros` where the segment that is being read began.
    floor: u64,
    /// Segments taken by their index: what lies in them is verified when it is read.
    trusted: BTreeSet<u64>,
}

impl Replay {
    pub fn segment(&mut self, mark: &Rc<Mark>, slot: u32) {
        self.marks.insert(mark.sequence, mark.clone());
        self.slots.insert(mark.sequence, slot);
        self.floor = self.id_micros;
    }

    /// `position`: of the record in its segment.
    pub fn record(&mut self, segment: &Rc<Mark>, position: u32, found: &Found<'_>) {
        self.report.records += 1;
        let place = Place { segment: segment.clone(), position, bytes: found.bytes as u32 };
        match &found.record {
            Record::Extent { id, .. } => {
                self.seen(*id);
                self.extents.entry(segment.sequence).or_default().push((position, found.crc));
            }
            Record::Commit(commit) => self.commit(place, commit),
            Record::Outcome(outcome) => self.outcome(place, outcome),
            Record::Seal | Record::Index(_) => {}
            Record::Ancestry(said) => self.ancestry(said, segment),
            Record::Unknown => self.report.unknown += 1,
        }
    }

    /// The segment that was begun is taken by its index. `id_micros`: the highest of any id in it.
    pub fn trust(&mut self, segment: &Rc<Mark>, id_micros: u64) {
        self.trusted.insert(segment.sequence);
        self.id_micros = self.id_micros.max(id_micros);
    }

    /// An entry of an index: to the same effect as the records that it stands for.
    pub fn noted(&mut self, segment: &Rc<Mark>, noted: &Noted<'_>) {
        let place = |at: &At| Place { segment: segment.clone(), position: at.position, bytes: at.bytes };
        match noted {
            Noted::Commit(at, commit) => self.commit(place(at), commit),
            Noted::Outcome(at, outcome) => self.outcome(place(at), outcome),
            Noted::Ended(id) | Noted::EndedHere(id) => {
                let id = QueueId::from_bits(*id);
                if let Some(ended) = self.index.remove(id) {
                    self.refer(segment.sequence, ended.commit.segment.sequence);
                } else if matches!(noted, Noted::Ended(_)) || id.micros() <= self.floor {
                    self.speaks_of_unknown.insert(segment.sequence);
                }
            }
            Noted::Ancestry(said) => self.ancestry(said, segment),
        }
    }

    fn ancestry(&mut self, said: &Ancestry, segment: &Rc<Mark>) {
        self.ancestry.merge(said);
        if self.ancestry == *said {
            self.ancestry_at.clear();
        }
        if !self.ancestry_at.contains(segment) {
            self.ancestry_at.push(segment.clone());
        }
    }

    fn seen(&mut self, id: u64) {
        self.id_micros = self.id_micros.max(QueueId::from_bits(id).micros());
    }

    fn commit(&mut self, place: Place, commit: &CommitView<'_>) {
        self.seen(commit.id);
        self.report.unknown += commit.unknown_attributes() as u64;
        let id = QueueId::from_bits(commit.id);
        if let Some(replaced) = self.index.remove(id) {
            self.refer(place.segment.sequence, replaced.commit.segment.sequence);
        } else if id.micros() <= self.floor {
            self.speaks_of_unknown.insert(place.segment.sequence);
        }
        let whole = commit.extents().all(|extent| {
            if self.trusted.contains(&extent.segment) {
                return true;
            }
            let known = self.extents.get(&extent.segment);
            known.is_some_and(|known| {
                let found = known.binary_search_by_key(&extent.position, |(position, _)| *position);
                found.is_ok_and(|at| known[at].1 == extent.crc)
            })
        });
        let extents = commit.extents().filter_map(|extent| {
            let mark = self.marks.get(&extent.segment)?;
            Some((mark.clone(), extent.octets))
        });
        let entry = NewEntry {
            commit: place,
            arrived_micros: commit.arrived_micros,
            content_bytes: commit.content_bytes,
            flags: commit.flags,
            sender: commit.sender(),
            recipients: commit.people(),
            extents,
        };
        self.index.enter(id, entry, !whole);
        if let Some(origin) = commit.origin().filter(|_| self.index.get(id).is_some()) {
            self.index.origins.insert(id, origin);
        }
        self.index.set_schedule(id, commit.schedule());
    }

    fn outcome(&mut self, place: Place, outcome: &OutcomeView<'_>) {
        self.seen(outcome.id);
        self.report.unknown += outcome.unknown_entries as u64;
        let id = QueueId::from_bits(outcome.id);
        let Some(facts) = self.index.get(id) else {
            self.speaks_of_unknown.insert(place.segment.sequence);
            return;
        };
        let of = facts.entry().commit.segment.sequence;
        let entries: Vec<_> = outcome.entries().collect();
        self.refer(place.segment.sequence, of);
        if self.index.apply(id, &entries).is_none() {
            self.index.place_reasons(id, &entries, &place);
        }
    }

    /// What a segment says of itself holds nothing.
    fn refer(&mut self, from: u64, to: u64) {
        if from == to {
            return;
        }
        let oldest = self.refers_to.entry(from).or_insert(REFERS_TO_NONE);
        *oldest = to.min(*oldest);
    }

    /// The oldest segment that `segment` speaks of. `damaged_first` is the oldest damaged segment: what is
    /// not known may be about a commit record in there.
    pub fn refers_to(&self, segment: u64, damaged_first: Option<u64>) -> u64 {
        let known = self.refers_to.get(&segment).copied().unwrap_or(REFERS_TO_NONE);
        match damaged_first {
            Some(damaged) if self.speaks_of_unknown.contains(&segment) => known.min(damaged),
            _ => known,
        }
    }

    /// Reports the messages that are still damaged at the end of the log.
    pub fn close(&mut self) {
        for (id, entry) in self.index.damaged() {
            let segment = entry.commit.segment.sequence;
            let slot = self.slots.get(&segment).copied().unwrap_or_default();
            let what = DamageKind::Extent(id);
            self.report.damage(slot, Some(segment), entry.commit.position as u64, what);
            self.report.messages_damaged.push(id);
        }
        self.report.messages = self.index.counts().messages;
    }
}
