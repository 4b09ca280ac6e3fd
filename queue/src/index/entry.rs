//! What a message holds on disk: the places of its records, and with them their segments.
//!
//! Pure data. An entry counts what it needs in the marks of its segments as long as it lives; that of a
//! finished message lives on, outside of the index, until the last outcome is durable.

use super::texts::Symbol;
use crate::layout::{BATCH_HEADER, BLOCK};
use crate::record::{EXTENT_HEAD, RECORD_HEADER};
use crate::segments::Mark;
use std::rc::Rc;

/// A record on disk. Holding it keeps its segment.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub segment: Rc<Mark>,
    pub position: u32,
    pub bytes: u32,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub commit: Place,
    pub content_bytes: u64,
    pub(super) detail: Option<Box<Detail>>,
}

const _: () = assert!(size_of::<Entry>() == 32, "a waiting message must stay small");

/// What most messages do not have.
#[derive(Debug, Default)]
pub(super) struct Detail {
    /// The segments of extents that are not in the commit record's segment.
    elsewhere: Box<[Share]>,
    /// Outcome records with reasons that found no room in memory, by recipient.
    pub reasons: Vec<(u32, Place)>,
    /// Where recipients go instead of by their domain's route.
    pub vias: Vec<(u32, Symbol)>,
}

/// What a message needs of a segment; counted there as long as this lives.
#[derive(Debug)]
struct Share {
    mark: Rc<Mark>,
    octets: u64,
}

impl Share {
    fn count(&self) {
        self.mark.live.set(self.mark.live.get() + in_blocks(self.octets));
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.mark.live.set(self.mark.live.get().saturating_sub(in_blocks(self.octets)));
    }
}

/// What octets take on disk by themselves.
fn in_blocks(octets: u64) -> u64 {
    (octets + OVERHEAD).next_multiple_of(BLOCK as u64)
}

/// Headers that a message alone in a batch has about it.
const OVERHEAD: u64 = (BATCH_HEADER + RECORD_HEADER + EXTENT_HEAD) as u64;

impl Entry {
    /// `extents`: the segment of each extent and its octets.
    pub fn new(commit: Place, content_bytes: u64, extents: impl Iterator<Item = (Rc<Mark>, u32)>) -> Self {
        let elsewhere = elsewhere(&commit, extents);
        let detail = (!elsewhere.is_empty()).then(|| Box::new(Detail { elsewhere, ..Detail::default() }));
        let entry = Self { commit, content_bytes, detail };
        entry.count();
        entry
    }

    /// The message lies elsewhere from now on; reasons that are only on disk have yet to be set.
    pub fn relocate(&mut self, commit: Place, extents: impl Iterator<Item = (Rc<Mark>, u32)>) {
        self.uncount();
        let elsewhere = elsewhere(&commit, extents);
        self.commit = commit;
        if let Some(detail) = &mut self.detail {
            detail.reasons = Vec::new();
            detail.elsewhere = elsewhere;
        } else if !elsewhere.is_empty() {
            self.detail = Some(Box::new(Detail { elsewhere, ..Detail::default() }));
        }
        self.count();
    }

    /// What it needs of its commit record's segment.
    fn own_bytes(&self) -> u64 {
        let elsewhere: u64 = self.elsewhere().iter().map(|share| share.octets).sum();
        in_blocks(self.content_bytes.saturating_sub(elsewhere) + self.commit.bytes as u64)
    }

    fn count(&self) {
        let live = &self.commit.segment.live;
        live.set(live.get() + self.own_bytes());
    }

    fn uncount(&self) {
        let live = &self.commit.segment.live;
        live.set(live.get().saturating_sub(self.own_bytes()));
    }

    fn elsewhere(&self) -> &[Share] {
        self.detail.as_ref().map_or(&[], |detail| &detail.elsewhere)
    }

    /// Keeps the segments of its extents that are not the commit record's; for a read under way.
    pub fn extents_held(&self) -> Vec<Rc<Mark>> {
        self.elsewhere().iter().map(|share| share.mark.clone()).collect()
    }

    /// Whether its commit record or an extent lies in the segment.
    pub fn lies_in(&self, sequence: u64) -> bool {
        self.commit.segment.sequence == sequence
            || self.elsewhere().iter().any(|share| share.mark.sequence == sequence)
    }

    /// Whether a reason that is only on disk lies in the segment.
    pub fn reasons_lie_in(&self, sequence: u64) -> bool {
        let there = |(_, place): &(u32, Place)| place.segment.sequence == sequence;
        self.detail.as_ref().is_some_and(|detail| detail.reasons.iter().any(there))
    }

    /// The outcome record with a recipient's reason, when that is only on disk.
    pub(super) fn reason_place(&self, recipient: u32) -> Option<&Place> {
        find(&self.detail.as_ref()?.reasons, recipient)
    }

    pub(super) fn set_reason_place(&mut self, recipient: u32, place: Option<Place>) {
        if place.is_some() || self.reason_place(recipient).is_some() {
            put(&mut self.detail.get_or_insert_default().reasons, recipient, place);
        }
    }

    pub(super) fn via(&self, recipient: u32) -> Option<Symbol> {
        find(&self.detail.as_ref()?.vias, recipient).copied()
    }

    /// Gives the one that was there before.
    pub(super) fn set_via(&mut self, recipient: u32, via: Option<Symbol>) -> Option<Symbol> {
        let before = self.via(recipient);
        if before.is_some() || via.is_some() {
            put(&mut self.detail.get_or_insert_default().vias, recipient, via);
        }
        before
    }
}

/// Among what is sorted by recipient.
fn find<T>(among: &[(u32, T)], recipient: u32) -> Option<&T> {
    let at = among.binary_search_by_key(&recipient, |(of, _)| *of).ok()?;
    Some(&among[at].1)
}

fn put<T>(among: &mut Vec<(u32, T)>, recipient: u32, value: Option<T>) {
    match (among.binary_search_by_key(&recipient, |(of, _)| *of), value) {
        (Ok(at), Some(value)) => among[at].1 = value,
        (Ok(at), None) => drop(among.remove(at)),
        (Err(at), Some(value)) => {
            among.reserve_exact(1);
            among.insert(at, (recipient, value));
        }
        (Err(_), None) => {}
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.uncount();
    }
}

fn elsewhere(commit: &Place, extents: impl Iterator<Item = (Rc<Mark>, u32)>) -> Box<[Share]> {
    let mut found: Vec<Share> = Vec::new();
    for (mark, octets) in extents.filter(|(mark, _)| *mark != commit.segment) {
        match found.last_mut() {
            Some(last) if last.mark == mark => last.octets += octets as u64,
            _ => found.push(Share { mark, octets: octets as u64 }),
        }
    }
    // Counted only when they are whole: a share is taken off as it was put on.
    found.iter().for_each(Share::count);
    found.into()
}
