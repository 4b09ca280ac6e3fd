//! What the spool keeps in memory of each message that is not finished: where it lies, and all that steering
//! and listing need, so that neither reads from disk. About 150 octets for a message with one recipient,
//! because a backlog may be a million.
//!
//! Pure data; lives in a spool, on its shard.
//!
//! | part | holds |
//! |---|---|
//! | `entry` | the places on disk, which keep their segments |
//! | `standing` | one recipient: state, last outcome |
//! | `shelf` | messages by id, with their addresses |
//! | `texts` | reasons and next hops, each once |
//! | `facts` | the view from outside |

mod entry;
mod facts;
mod shelf;
mod standing;
mod texts;

pub(crate) use entry::{Entry, Place};
pub use facts::{Facts, RecipientFacts};

use crate::ancestry::Origin;
use crate::envelope::RecipientState;
use crate::id::QueueId;
use crate::parameters::Schedule;
use crate::record::{ContentFlags, Outcome, OutcomeKind};
use crate::segments::Mark;
use shelf::{NewSlot, Shelf, Slot, Spot};
use standing::{Last, Standing};
use std::collections::BTreeMap;
use std::rc::Rc;
use texts::{Symbol, Texts};

/// What waits in a spool, kept up as it changes; damaged messages are not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub messages: usize,
    /// Octets of their content.
    pub content_bytes: u64,
    /// Recipients that are not finished.
    pub recipients: usize,
    /// Of these, those that were tried before and are not held.
    pub deferred: usize,
    /// Of these, those that are held.
    pub held: usize,
}

impl Counts {
    fn field(&mut self, state: RecipientState) -> Option<&mut usize> {
        match state {
            _ if state.held => Some(&mut self.held),
            _ if state.attempts > 0 => Some(&mut self.deferred),
            _ => None,
        }
    }

    fn add(&mut self, state: RecipientState) {
        if !state.is_finished() {
            self.recipients += 1;
            self.field(state).into_iter().for_each(|count| *count += 1);
        }
    }

    fn take_off(&mut self, state: RecipientState) {
        if !state.is_finished() {
            self.recipients -= 1;
            self.field(state).into_iter().for_each(|count| *count -= 1);
        }
    }
}

/// All that is known of a message when it enters the index: from its commit record, or from what a sealed
/// segment says of that. Reasons and reroutes follow as outcomes ([`Index::apply`]).
pub(crate) struct NewEntry<'a, R, E> {
    pub commit: Place,
    pub arrived_micros: u64,
    pub content_bytes: u64,
    pub flags: ContentFlags,
    pub sender: &'a str,
    /// Addresses and states, in the order of the envelope. Walked twice.
    pub recipients: R,
    /// The segment of each extent and its octets there, in the order of the content.
    pub extents: E,
}

/// The origins of those messages that have one; both ways.
#[derive(Debug, Default)]
pub(crate) struct Origins {
    of: BTreeMap<QueueId, Origin>,
    by_origin: BTreeMap<Origin, QueueId>,
}

impl Origins {
    pub fn insert(&mut self, id: QueueId, origin: Origin) {
        self.of.insert(id, origin);
        self.by_origin.insert(origin, id);
    }

    pub fn find(&self, origin: Origin) -> Option<QueueId> {
        self.by_origin.get(&origin).copied()
    }

    pub fn get(&self, id: QueueId) -> Option<Origin> {
        self.of.get(&id).copied()
    }

    fn remove(&mut self, id: QueueId) {
        if let Some(origin) = self.of.remove(&id) {
            self.by_origin.remove(&origin);
        }
    }
}

/// All messages of a spool that are not finished.
#[derive(Debug, Default)]
pub(crate) struct Index {
    waiting: Shelf,
    /// Messages whose octets are not all readable: shown, never delivered.
    pub origins: Origins,
    damaged: Shelf,
    /// Of those messages that have one that is not the usual.
    schedules: BTreeMap<QueueId, Schedule>,
    texts: Texts,
    counts: Counts,
}

impl Index {
    /// Enters a message, in the place of one of the same id. One that is finished is not entered.
    pub fn enter<'a, R, E>(&mut self, id: QueueId, new: NewEntry<'a, R, E>, damaged: bool)
    where
        R: Iterator<Item = (&'a str, RecipientState)> + Clone,
        E: Iterator<Item = (Rc<Mark>, u32)>,
    {
        drop(self.remove(id));
        if new.recipients.clone().all(|(_, state)| state.is_finished()) {
            return;
        }
        if !damaged {
            new.recipients.clone().for_each(|(_, state)| self.counts.add(state));
            self.counts.content_bytes += new.content_bytes;
        }
        let entry = Entry::new(new.commit, new.content_bytes, new.extents);
        let head =
            NewSlot { arrived_micros: new.arrived_micros, flags: new.flags.bits(), sender: new.sender };
        let shelf = if damaged { &mut self.damaged } else { &mut self.waiting };
        shelf.insert(id, entry, &head, new.recipients);
    }

    pub fn get(&self, id: QueueId) -> Option<Facts<'_>> {
        let (found, damaged) = match self.waiting.get(id) {
            Some(found) => (found, false),
            None => (self.damaged.get(id)?, true),
        };
        Some(Facts { chunk: found.0, slot: found.1, index: self, damaged })
    }

    /// When a message that was entered is to be tried.
    pub fn set_schedule(&mut self, id: QueueId, schedule: Schedule) {
        if !schedule.is_usual() && self.find(id).is_some() {
            self.schedules.insert(id, schedule);
        }
    }

    /// Whether the message is damaged, and where it is.
    fn find(&self, id: QueueId) -> Option<(bool, Spot)> {
        match self.waiting.find(id) {
            Some(spot) => Some((false, spot)),
            None => Some((true, self.damaged.find(id)?)),
        }
    }

    pub fn entry_mut(&mut self, id: QueueId) -> Option<&mut Entry> {
        let (damaged, spot) = self.find(id)?;
        let shelf = if damaged { &mut self.damaged } else { &mut self.waiting };
        Some(&mut shelf.at_mut(spot).0.entry)
    }

    /// Takes a message out, whatever its state.
    pub fn remove(&mut self, id: QueueId) -> Option<Entry> {
        let (damaged, spot) = self.find(id)?;
        Some(self.remove_at(damaged, spot))
    }

    fn remove_at(&mut self, damaged: bool, spot: Spot) -> Entry {
        let shelf = if damaged { &mut self.damaged } else { &mut self.waiting };
        let (_, standings) = shelf.at_mut(spot);
        for standing in standings {
            if !damaged {
                self.counts.take_off(standing.state());
            }
            self.texts.release(standing.set_last(None));
        }
        let Slot { id, mut entry, .. } = shelf.remove(spot);
        self.origins.remove(id);
        self.schedules.remove(&id);
        if !damaged {
            self.counts.content_bytes -= entry.content_bytes;
        }
        for (_, via) in entry.detail.iter_mut().flat_map(|detail| detail.vias.drain(..)) {
            self.texts.release(via);
        }
        entry
    }

    /// Applies outcomes; gives the entry back when the message is finished by them. Whoever is finished
    /// stays so; an index beyond the recipients means nothing.
    pub fn apply(&mut self, id: QueueId, outcomes: &[Outcome]) -> Option<Entry> {
        let (damaged, spot) = self.find(id)?;
        let shelf = if damaged { &mut self.damaged } else { &mut self.waiting };
        let (slot, standings) = shelf.at_mut(spot);
        for outcome in outcomes {
            let Some(standing) = standings.get_mut(outcome.recipient as usize) else { continue };
            let before = standing.state();
            if before.is_finished() {
                // A message that was moved has its states in the commit record, and what it was told here.
                if standing.last().is_none() && outcome.kind.finishes() {
                    note(&mut self.texts, &mut slot.entry, standing, outcome);
                }
                continue;
            }
            let after = outcome.applied_to(before);
            standing.set_state(after);
            if !damaged {
                self.counts.take_off(before);
                self.counts.add(after);
            }
            slot.unfinished -= after.is_finished() as u32;
            if slot.unfinished == 0 {
                return Some(self.remove_at(damaged, spot));
            }
            note(&mut self.texts, &mut slot.entry, standing, outcome);
        }
        None
    }

    /// The outcomes are durable at `place`: reasons that found no room in memory are found there.
    pub fn place_reasons(&mut self, id: QueueId, outcomes: &[Outcome], place: &Place) {
        let Some((damaged, spot)) = self.find(id) else { return };
        let shelf = if damaged { &mut self.damaged } else { &mut self.waiting };
        let (slot, standings) = shelf.at_mut(spot);
        for outcome in outcomes.iter().filter(|outcome| outcome.is_reason()) {
            let last = standings.get(outcome.recipient as usize).and_then(Standing::last);
            if last == Some(Last::of(outcome, None)) {
                slot.entry.set_reason_place(outcome.recipient, Some(place.clone()));
            }
        }
    }

    /// The waiting messages after `after`, in the order of their ids, at most `count`.
    pub fn page(&self, after: Option<QueueId>, count: usize) -> Vec<QueueId> {
        self.waiting.iter(after).take(count).map(|(_, slot)| slot.id).collect()
    }

    /// The waiting messages after `after`, in the order of their ids.
    pub fn waiting_after(&self, after: Option<QueueId>) -> impl Iterator<Item = (QueueId, &Entry)> {
        self.waiting.iter(after).map(|(_, slot)| (slot.id, &slot.entry))
    }

    pub fn damaged(&self) -> impl Iterator<Item = (QueueId, &Entry)> {
        self.damaged.iter(None).map(|(_, slot)| (slot.id, &slot.entry))
    }

    pub fn is_waiting(&self, id: QueueId) -> bool {
        self.waiting.contains(id)
    }

    /// Shows `each` the messages after `after`, damaged ones too, in the order of their ids, at most
    /// `count`. Gives the last one when there are more.
    pub fn survey(
        &self,
        after: Option<QueueId>,
        count: usize,
        mut each: impl FnMut(&Facts<'_>),
    ) -> Option<QueueId> {
        let mut waiting = self.waiting.iter(after).peekable();
        let mut damaged = self.damaged.iter(after).peekable();
        let mut last = after;
        for _ in 0..count {
            let is_damaged = match (waiting.peek(), damaged.peek()) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(a), Some(b)) => b.1.id < a.1.id,
            };
            let (chunk, slot) = if is_damaged { damaged.next() } else { waiting.next() }?;
            last = Some(slot.id);
            each(&Facts { chunk, slot, index: self, damaged: is_damaged });
        }
        let more = waiting.peek().is_some() || damaged.peek().is_some();
        last.filter(|_| more)
    }

    pub fn counts(&self) -> Counts {
        Counts { messages: self.waiting.len(), ..self.counts }
    }

    pub fn damaged_len(&self) -> usize {
        self.damaged.len()
    }

    #[cfg(test)]
    pub fn limit_texts(&mut self, bytes_max: usize) {
        self.texts.limit(bytes_max);
    }
}

/// Keeps what an outcome says beside the state.
fn note(texts: &mut Texts, entry: &mut Entry, standing: &mut Standing, outcome: &Outcome) {
    if outcome.kind == OutcomeKind::Rerouted {
        let via = texts.take_anyhow(outcome.text_kept());
        let via = (via != Symbol::EMPTY).then_some(via);
        let before = entry.set_via(outcome.recipient, via);
        before.into_iter().for_each(|before| texts.release(before));
        return;
    }
    let held = standing.last().is_some_and(|last| last.kind == OutcomeKind::Held);
    let last = match outcome.is_reason() {
        true => Some(Last::of(outcome, texts.take(outcome.text_kept()))),
        // Why it was held is no reason any more.
        false if held && outcome.kind == OutcomeKind::Released => None,
        false => return,
    };
    texts.release(standing.set_last(last));
    entry.set_reason_place(outcome.recipient, None);
}

#[cfg(test)]
mod tests;
