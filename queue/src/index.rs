//! What the spool keeps in memory of each waiting message: little, because a backlog may be a million.
//!
//! Pure data; lives in a spool, on its shard. The envelope is not here but in the commit record; states
//! are kept only when they differ from new.

use crate::envelope::RecipientState;
use crate::id::QueueId;
use crate::layout::{BATCH_HEADER, BLOCK};
use crate::record::{ContentFlags, EXTENT_HEAD, Outcome, OutcomeKind, RECORD_HEADER};
use crate::segments::Mark;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A record on disk. Holding it keeps its segment.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub segment: Rc<Mark>,
    pub position: u32,
    pub bytes: u32,
}

/// One waiting message.
#[derive(Debug)]
pub(crate) struct Entry {
    pub commit: Place,
    pub content_bytes: u64,
    pub recipients: u32,
    pub unfinished: u32,
    pub flags: ContentFlags,
    detail: Option<Box<Detail>>,
}

const _: () = assert!(size_of::<Entry>() <= 48, "a waiting message must stay small");

/// What most messages do not have.
#[derive(Debug, Default)]
struct Detail {
    /// Empty when every recipient is new.
    standings: Box<[Standing]>,
    /// The segments of extents that are not in the commit record's segment.
    elsewhere: Box<[Share]>,
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

/// One recipient of a message that something happened to.
#[derive(Clone, Debug)]
struct Standing {
    state: RecipientState,
    /// The outcome record that brought it there.
    reason: Option<Place>,
    /// Where it goes instead of by its domain's route.
    via: Option<Box<str>>,
}

impl Standing {
    const NEW: Self = Self { state: RecipientState::NEW, reason: None, via: None };
}

impl Entry {
    /// `states` gives one per recipient.
    pub fn new(
        commit: Place,
        content_bytes: u64,
        flags: ContentFlags,
        states: impl ExactSizeIterator<Item = RecipientState> + Clone,
        extents: impl Iterator<Item = (Rc<Mark>, u32)>,
    ) -> Self {
        let recipients = states.len() as u32;
        let unfinished = states.clone().filter(|state| !state.is_finished()).count() as u32;
        let elsewhere = elsewhere(&commit, extents);
        let mut detail = Detail { elsewhere, ..Detail::default() };
        if states.clone().any(|state| state != RecipientState::NEW) {
            detail.standings = states.map(|state| Standing { state, ..Standing::NEW }).collect();
        }
        let plain = detail.elsewhere.is_empty() && detail.standings.is_empty();
        let detail = (!plain).then(|| Box::new(detail));
        let entry = Self { commit, content_bytes, recipients, unfinished, flags, detail };
        entry.count();
        entry
    }

    /// The message lies elsewhere from now on; its states stay, its reasons have yet to be set.
    pub fn relocate(&mut self, commit: Place, extents: impl Iterator<Item = (Rc<Mark>, u32)>) {
        self.uncount();
        let elsewhere = elsewhere(&commit, extents);
        self.commit = commit;
        if let Some(detail) = &mut self.detail {
            detail.standings.iter_mut().for_each(|standing| standing.reason = None);
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

    /// Whether a reason lies in the segment.
    pub fn reasons_lie_in(&self, sequence: u64) -> bool {
        let there = |place: &Place| place.segment.sequence == sequence;
        self.standings().iter().any(|standing| standing.reason.as_ref().is_some_and(there))
    }

    pub fn states(&self) -> Vec<RecipientState> {
        match self.standings() {
            [] => vec![RecipientState::NEW; self.recipients as usize],
            standings => standings.iter().map(|standing| standing.state).collect(),
        }
    }

    /// Per recipient, the outcome record that says why it stands where it does.
    pub fn reasons(&self) -> Vec<Option<Place>> {
        match self.standings() {
            [] => vec![None; self.recipients as usize],
            standings => standings.iter().map(|standing| standing.reason.clone()).collect(),
        }
    }

    /// Where recipients go instead of by their domain's route: index and where to.
    pub fn vias(&self) -> Vec<(u32, Box<str>)> {
        let standings = self.standings().iter().zip(0..);
        standings.filter_map(|(standing, at)| Some((at, standing.via.clone()?))).collect()
    }

    fn standings(&self) -> &[Standing] {
        self.detail.as_ref().map_or(&[], |detail| &detail.standings)
    }

    fn standings_mut(&mut self) -> &mut [Standing] {
        let detail = self.detail.get_or_insert_default();
        if detail.standings.is_empty() {
            detail.standings = vec![Standing::NEW; self.recipients as usize].into();
        }
        &mut detail.standings
    }

    /// Whoever is finished stays so; an index beyond the recipients means nothing.
    pub fn apply(&mut self, outcomes: &[Outcome]) {
        if self.recipients == 1 && outcomes.iter().any(|of| of.recipient == 0 && of.kind.finishes()) {
            // Most messages end so; no standing is made only to be thrown away.
            self.unfinished = 0;
            return;
        }
        let mut finished = 0;
        let standings = self.standings_mut();
        for outcome in outcomes {
            let Some(standing) = standings.get_mut(outcome.recipient as usize) else { continue };
            if standing.state.is_finished() {
                continue;
            }
            standing.state = outcome.applied_to(standing.state);
            finished += standing.state.is_finished() as u32;
            if outcome.kind == OutcomeKind::Rerouted {
                let via = outcome.text_kept();
                standing.via = (!via.is_empty()).then(|| via.into());
            }
        }
        self.unfinished -= finished;
    }

    pub fn set_reason(&mut self, outcomes: &[Outcome], place: &Place) {
        let standings = self.standings_mut();
        for outcome in outcomes.iter().filter(|outcome| outcome.is_reason()) {
            if let Some(standing) = standings.get_mut(outcome.recipient as usize) {
                standing.reason = Some(place.clone());
            }
        }
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

/// All messages of a spool that are not finished.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub waiting: BTreeMap<QueueId, Entry>,
    /// Messages whose octets are not all readable: shown, never delivered.
    pub damaged: BTreeMap<QueueId, Entry>,
}

impl Index {
    pub fn get(&self, id: QueueId) -> Option<&Entry> {
        self.waiting.get(&id).or_else(|| self.damaged.get(&id))
    }

    pub fn get_mut(&mut self, id: QueueId) -> Option<&mut Entry> {
        match self.waiting.get_mut(&id) {
            Some(entry) => Some(entry),
            None => self.damaged.get_mut(&id),
        }
    }

    /// Applies outcomes; gives the entry back when the message is finished by them.
    pub fn apply(&mut self, id: QueueId, outcomes: &[Outcome]) -> Option<Entry> {
        let entry = self.get_mut(id)?;
        entry.apply(outcomes);
        if entry.unfinished > 0 {
            return None;
        }
        self.waiting.remove(&id).or_else(|| self.damaged.remove(&id))
    }

    /// The waiting messages after `after`, in the order of their ids, at most `count`.
    pub fn page(&self, after: Option<QueueId>, count: usize) -> Vec<QueueId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.waiting.range((from, Unbounded)).take(count).map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(recipients: usize) -> Entry {
        let commit = Place { segment: Mark::new(1), position: 0, bytes: 0 };
        let states = vec![RecipientState::NEW; recipients];
        Entry::new(commit, 1, ContentFlags::default(), states.into_iter(), std::iter::empty())
    }

    fn outcome(recipient: u32, kind: OutcomeKind) -> Outcome {
        Outcome { recipient, kind, attempts: 1, notified: false, at_micros: 0, text: String::new() }
    }

    #[test]
    fn a_message_leaves_when_its_last_recipient_is_finished() {
        let id = QueueId::from_bits(5);
        let mut index = Index::default();
        index.waiting.insert(id, entry(3));
        assert!(index.apply(id, &[outcome(0, OutcomeKind::Delivered)]).is_none());
        assert!(index.apply(id, &[outcome(1, OutcomeKind::Deferred)]).is_none());
        assert!(index.apply(id, &[outcome(1, OutcomeKind::Expired)]).is_none());
        assert!(
            index.apply(id, &[outcome(0, OutcomeKind::Bounced), outcome(9, OutcomeKind::Bounced)]).is_none()
        );
        assert!(index.apply(id, &[outcome(2, OutcomeKind::Bounced)]).is_some());
        assert!(index.get(id).is_none() && index.apply(id, &[]).is_none());
    }

    #[test]
    fn what_is_new_takes_no_more_than_its_entry() {
        let mut new = entry(1000);
        assert!(new.detail.is_none());
        new.apply(&[outcome(7, OutcomeKind::Deferred)]);
        assert_eq!(new.states()[7].attempts, 1);
        assert_eq!(new.states()[8], RecipientState::NEW);
    }

    #[test]
    fn pages_go_on_after_the_last_id() {
        let mut index = Index::default();
        let ids: Vec<QueueId> = (1..=5).map(QueueId::from_bits).collect();
        ids.iter().for_each(|id| drop(index.waiting.insert(*id, entry(1))));
        assert_eq!(index.page(None, 2), ids[..2]);
        assert_eq!(index.page(Some(ids[1]), 9), ids[2..]);
        assert_eq!(index.page(Some(ids[4]), 9), []);
    }
}
