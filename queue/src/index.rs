//! What the spool keeps in memory of each waiting message: little, because a backlog may be a million.
//!
//! Pure data; lives in a spool, on its shard. The envelope is not here but in the commit record; states
//! are kept only when they differ from new.

use crate::envelope::RecipientState;
use crate::id::QueueId;
use crate::record::{ContentFlags, Outcome};
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
    elsewhere: Box<[Rc<Mark>]>,
}

/// One recipient of a message that something happened to.
#[derive(Clone, Debug)]
struct Standing {
    state: RecipientState,
    /// The outcome record that brought it there.
    reason: Option<Place>,
}

impl Entry {
    /// `states` gives one per recipient.
    pub fn new(
        commit: Place,
        content_bytes: u64,
        flags: ContentFlags,
        states: impl ExactSizeIterator<Item = RecipientState> + Clone,
        extents: impl Iterator<Item = Rc<Mark>>,
    ) -> Self {
        let recipients = states.len() as u32;
        let unfinished = states.clone().filter(|state| !state.is_finished()).count() as u32;
        let mut elsewhere: Vec<Rc<Mark>> = Vec::new();
        for mark in extents {
            if mark != commit.segment && elsewhere.last() != Some(&mark) {
                elsewhere.push(mark);
            }
        }
        let mut detail = Detail { elsewhere: elsewhere.into(), ..Detail::default() };
        if states.clone().any(|state| state != RecipientState::NEW) {
            detail.standings = states.map(|state| Standing { state, reason: None }).collect();
        }
        let plain = detail.elsewhere.is_empty() && detail.standings.is_empty();
        let detail = (!plain).then(|| Box::new(detail));
        Self { commit, content_bytes, recipients, unfinished, flags, detail }
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

    fn standings(&self) -> &[Standing] {
        self.detail.as_ref().map_or(&[], |detail| &detail.standings)
    }

    fn standings_mut(&mut self) -> &mut [Standing] {
        let detail = self.detail.get_or_insert_default();
        if detail.standings.is_empty() {
            let new = Standing { state: RecipientState::NEW, reason: None };
            detail.standings = vec![new; self.recipients as usize].into();
        }
        &mut detail.standings
    }

    /// Whoever is finished stays so; an index beyond the recipients means nothing.
    pub fn apply(&mut self, outcomes: &[Outcome]) {
        if self.recipients == 1 && outcomes.iter().any(|of| of.recipient == 0 && of.state().is_finished()) {
            // Most messages end so; no standing is made only to be thrown away.
            self.unfinished = 0;
            return;
        }
        let mut finished = 0;
        let standings = self.standings_mut();
        for outcome in outcomes {
            let Some(standing) = standings.get_mut(outcome.recipient as usize) else { continue };
            if !standing.state.is_finished() {
                standing.state = outcome.state();
                finished += standing.state.is_finished() as u32;
            }
        }
        self.unfinished -= finished;
    }

    pub fn set_reason(&mut self, outcomes: &[Outcome], place: &Place) {
        let standings = self.standings_mut();
        for outcome in outcomes {
            if let Some(standing) = standings.get_mut(outcome.recipient as usize) {
                standing.reason = Some(place.clone());
            }
        }
    }
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
    use crate::record::OutcomeKind;

    fn entry(recipients: usize) -> Entry {
        let commit = Place { segment: Rc::new(Mark { sequence: 1 }), position: 0, bytes: 0 };
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
