//! What must be in the spool, what may be there, what must not.
//!
//! It knows only what callers were told. A commit that was not answered may be there or not; outcomes that
//! were recorded and not synced may be known or not, the earlier ones before the later ones; everything
//! else is certain.

use crate::*;
use std::collections::{BTreeMap, BTreeSet};

/// Where a recipient stands, and where it goes when it is rerouted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub state: RecipientState,
    pub via: String,
}

impl Standing {
    fn is_finished(&self) -> bool {
        self.state.is_finished()
    }

    fn after(&self, outcome: &Outcome) -> Self {
        let state = outcome.applied_to(self.state);
        let via = match outcome.kind {
            _ if state.is_finished() => String::new(),
            OutcomeKind::Rerouted => outcome.text.clone(),
            _ => self.via.clone(),
        };
        Self { state, via }
    }

    /// What a spool says of each recipient.
    pub fn all_of(message: &Message) -> Vec<Self> {
        let via = |at: u32| message.vias.iter().find(|(of, _)| *of == at).map(|(_, via)| via.to_string());
        let of = |(state, at): (&RecipientState, u32)| {
            let via = via(at).filter(|_| !state.is_finished()).unwrap_or_default();
            Self { state: *state, via }
        };
        message.states.iter().zip(0..).map(of).collect()
    }
}

/// One recipient.
#[derive(Clone, Debug)]
pub struct Slot {
    /// What a restart finds at least.
    pub durable: Standing,
    /// What was recorded since, in order; a restart finds some prefix of it.
    pub recorded: Vec<Standing>,
}

impl Slot {
    pub fn new() -> Self {
        Self { durable: Standing { state: RecipientState::NEW, via: String::new() }, recorded: Vec::new() }
    }

    pub fn now(&self) -> &Standing {
        self.recorded.last().unwrap_or(&self.durable)
    }

    fn allows(&self, found: &Standing) -> bool {
        *found == self.durable || self.recorded.contains(found)
    }
}

/// One message.
#[derive(Clone, Debug)]
pub struct Known {
    /// From which its octets follow.
    pub tag: u64,
    pub bytes: usize,
    pub acknowledged: bool,
    pub slots: Vec<Slot>,
    /// The DSN that was committed together with the end of this message, unanswered.
    pub dsn: Option<QueueId>,
    /// A start found less of its outcomes than were known. With a device that reads badly another start may
    /// find them again.
    pub forgotten: bool,
}

impl Known {
    pub fn finished_now(&self) -> bool {
        self.slots.iter().all(|slot| slot.now().is_finished())
    }

    /// Whether a restart may find it finished.
    pub fn may_be_finished(&self) -> bool {
        let may = |slot: &Slot| slot.durable.is_finished() || slot.recorded.iter().any(|s| s.is_finished());
        self.slots.iter().all(may)
    }

    /// Whether a restart must find it finished.
    pub fn must_be_finished(&self) -> bool {
        self.slots.iter().all(|slot| slot.durable.is_finished())
    }

    pub fn may_be_in(&self, states: &[Standing]) -> bool {
        let bounced = |of: &Standing| of.state.status == RecipientStatus::Bounced;
        self.slots.len() == states.len()
            && self.slots.iter().zip(states).all(|(slot, found)| slot.allows(found))
            && !(self.dsn.is_some() && states.iter().any(bounced))
    }
}

#[derive(Clone, Default)]
pub struct Model {
    pub known: BTreeMap<QueueId, Known>,
    /// Messages that were in the spool once; a device that lies may bring them back.
    pub past: BTreeMap<QueueId, Known>,
    /// Ids of all messages that were ever acknowledged or found.
    pub ids: BTreeSet<QueueId>,
}

impl Model {
    /// A commit is handed to the spool.
    pub fn enter(&mut self, id: QueueId, tag: u64, bytes: usize, recipients: usize) {
        let slots = vec![Slot::new(); recipients];
        let known = Known { tag, bytes, acknowledged: false, slots, dsn: None, forgotten: false };
        assert!(self.known.insert(id, known).is_none(), "{id} was given out twice");
    }

    pub fn acknowledge(&mut self, id: QueueId) {
        self.known.get_mut(&id).expect("it was entered").acknowledged = true;
        self.ids.insert(id);
    }

    /// Outcomes were applied. Whoever is finished stays so.
    pub fn record(&mut self, id: QueueId, outcomes: &[Outcome]) {
        let known = self.known.get_mut(&id).expect("it waits");
        for outcome in outcomes {
            let slot = &mut known.slots[outcome.recipient as usize];
            if !slot.now().is_finished() {
                slot.recorded.push(slot.now().after(outcome));
            }
        }
    }

    /// The DSN for all recipients of `of` was answered with `verdict`.
    pub fn bounced(&mut self, of: QueueId, outcomes: &[Outcome], verdict: &Result<Stored, CommitError>) {
        let Some(known) = self.known.get_mut(&of) else { return };
        if matches!(verdict, Ok(_) | Err(CommitError::Full)) {
            known.dsn = None;
        }
        if verdict.is_err() {
            return;
        }
        for outcome in outcomes {
            let slot = &mut known.slots[outcome.recipient as usize];
            // Recorded meanwhile is finished meanwhile; both are durable now or later.
            match slot.recorded.is_empty() {
                true => slot.durable = slot.durable.after(outcome),
                false => slot.recorded.push(slot.now().after(outcome)),
            }
        }
    }

    /// Where each recipient stands, to be given to [`Self::synced`].
    pub fn mark(&self) -> Vec<(QueueId, Vec<usize>)> {
        let lengths = |known: &Known| known.slots.iter().map(|slot| slot.recorded.len()).collect();
        self.known.iter().map(|(id, known)| (*id, lengths(known))).collect()
    }

    /// All that was recorded up to the mark is durable.
    pub fn synced(&mut self, mark: Vec<(QueueId, Vec<usize>)>) {
        for (id, lengths) in mark {
            let Some(known) = self.known.get_mut(&id) else { continue };
            for (slot, length) in known.slots.iter_mut().zip(lengths) {
                let length = length.min(slot.recorded.len());
                if let Some(state) = slot.recorded.drain(..length).next_back() {
                    slot.durable = state;
                }
            }
        }
        let over = |_: &QueueId, known: &mut Known| known.must_be_finished() && known.dsn.is_none();
        self.past.extend(self.known.extract_if(.., over));
    }

    /// Messages to do something with.
    pub fn waiting(&self) -> Vec<QueueId> {
        let waits = |known: &Known| known.acknowledged && !known.finished_now() && known.dsn.is_none();
        self.known.iter().filter(|(_, known)| waits(known)).map(|(id, _)| *id).collect()
    }

    /// A restart found these, and nothing else: what was uncertain is certain now.
    pub fn adopt(&mut self, found: Vec<(QueueId, Vec<Standing>)>) {
        let mut before = std::mem::take(&mut self.known);
        for (id, states) in found {
            let mut known = before.remove(&id).or_else(|| self.past.remove(&id)).expect("it is known");
            (known.acknowledged, known.dsn) = (true, None);
            known.forgotten |= known.slots.iter().zip(&states).any(|(slot, found)| slot.now() != found);
            known.slots = states.into_iter().map(|durable| Slot { durable, recorded: Vec::new() }).collect();
            self.known.insert(id, known);
            self.ids.insert(id);
        }
        self.past.extend(before);
    }
}
