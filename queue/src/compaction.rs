//! Compaction: moves messages that wait out of segments that they keep from being used again.
//!
//! Lives in a spool, on its shard; driven by a timer of the shard through [`Spool::compact_step`]. A move is
//! a commit record under the same id with other extents, the states of that time and the last reasons; the
//! later record counts. The crash argument is in `FORMAT.md`, which to empty in `policy`.
//!
//! Against what happens to the message meanwhile:
//! - Before anything is read, all that was queued is made durable; so no outcome is under way unseen.
//! - An outcome of the message that is queued while it is read abandons its move.
//! - An outcome queued behind the move is behind it in the log, and applies to the message at its new place.
//! - The index goes over to the new place when the move is durable; readers keep the old segments.

pub(crate) mod policy;

use crate::canary::{Canary, sings};
use crate::draft::Draft;
use crate::envelope::RecipientState;
use crate::error::CommitError;
use crate::id::QueueId;
use crate::pending::{Finishing, Group, Moves, NewMessage, Wait};
use crate::reading::{Message, Reason};
use crate::record::{OUTCOME_TEXT_MAX, Outcome, OutcomeKind};
use crate::spool::Spool;
use crate::storage::Storage;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Octets of content moved in a step, but for one message that has more.
const STEP_BYTES_MAX: u64 = 1 << 20;
/// Messages moved in a step.
const STEP_MESSAGES_MAX: usize = 64;
/// Messages of the index looked at in a step.
const STEP_LOOKS_MAX: usize = 10_000;
/// Octets of reasons' texts kept, by how many fit beside the commit record.
pub(crate) const TEXTS_MAX: [usize; 3] = [OUTCOME_TEXT_MAX, 64, 0];

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Messages that were moved, and octets of their content.
    pub messages: usize,
    pub bytes: u64,
    /// Moves that were given up: the message changed, finished or could not be read meanwhile.
    pub abandoned: usize,
    /// There may be more to do.
    pub more: bool,
}

/// What compaction remembers from step to step.
#[derive(Debug)]
pub(crate) struct Compaction {
    /// Segments that may be kept from use without anything being done about it.
    pub slack_segments: u64,
    /// A later version wrote what this one does not know and would lose: nothing is moved.
    pub barred: bool,
    /// A step is under way.
    running: bool,
    /// The segment that is being emptied, and the last message that was looked at for it.
    target: Option<u64>,
    after: Option<QueueId>,
    /// Something was moved since the index was last begun from its start.
    pub moved: bool,
    /// Segments that could not be emptied.
    passed_over: BTreeSet<u64>,
    /// Messages being read for their move; `true`: an outcome came meanwhile.
    moving: BTreeMap<QueueId, bool>,
}

impl Default for Compaction {
    fn default() -> Self {
        Self {
            slack_segments: policy::SLACK_SEGMENTS,
            barred: false,
            running: false,
            target: None,
            after: None,
            moved: false,
            passed_over: BTreeSet::new(),
            moving: BTreeMap::new(),
        }
    }
}

impl Compaction {
    /// An outcome of the message was queued.
    pub fn touch(&mut self, id: QueueId) {
        if let Some(touched) = self.moving.get_mut(&id) {
            *touched = true;
        }
    }
}

/// A message that was read and can be laid out again.
struct Prepared {
    message: Message,
    /// `None`: only its reasons lie in the segment.
    draft: Option<Draft>,
}

impl<S: Storage> Spool<S> {
    /// Moves some messages out of a segment that they keep from being used again: at most 1 MiB or one
    /// message, and nothing when disk use is within its bound (twice what waits, and four segments). For a
    /// timer; a second call while one is under way does nothing. May be dropped at any point.
    ///
    /// # Errors
    /// See [`CommitError`]. What was to be moved stays where it is, readable and waiting.
    pub async fn compact_step(&self) -> Result<Compacted, CommitError> {
        let mut done = Compacted::default();
        let Some((target, candidates)) = self.choose()? else { return Ok(done) };
        let _step = Step { spool: self };
        done.more = true;
        if candidates.is_empty() {
            return Ok(done);
        }
        self.sync_all_but_held().await?;
        let mut prepared = Vec::new();
        for id in candidates {
            match self.prepare(id, target).await? {
                Some(of) => prepared.push(of),
                None => done.abandoned += 1,
            }
        }
        let mut tickets = Vec::new();
        for of in prepared {
            let bytes = of.draft.as_ref().map_or(0, Draft::bytes);
            let mut desk = self.inner.desk.borrow_mut();
            // The spool may have been poisoned, or closed, while the message was read.
            desk.admit()?;
            if desk.compaction.moving.remove(&of.message.id) != Some(false) {
                done.abandoned += 1;
                continue;
            }
            let Some(group) = desk.index.get(of.message.id).map(|facts| {
                let from = facts.entry().commit.segment.sequence;
                of.group(facts.states(), from, self.inner.options.group_bytes_max())
            }) else {
                done.abandoned += 1;
                continue;
            };
            match desk.gather(group) {
                Ok((ticket, number)) => {
                    desk.compaction.moved = true;
                    tickets.push((ticket, number, bytes));
                }
                Err(_) => done.abandoned += 1,
            }
        }
        self.nudge();
        for (ticket, number, bytes) in tickets {
            let verdict = Wait::of(ticket, number).await;
            self.outcome_of(verdict)?;
            done.messages += 1;
            done.bytes += bytes;
        }
        Ok(done)
    }

    /// While room is short: less slack is left before something is moved.
    pub fn hurry_compaction(&self, hurry: bool) {
        let slack = if hurry { policy::SLACK_SEGMENTS_HURRIED } else { policy::SLACK_SEGMENTS };
        self.inner.desk.borrow_mut().compaction.slack_segments = slack;
    }

    /// The segment to empty, and messages in it; claims the step.
    fn choose(&self) -> Result<Option<(u64, Vec<QueueId>)>, CommitError> {
        let mut desk = self.inner.desk.borrow_mut();
        desk.admit()?;
        let desk = &mut *desk;
        let compaction = &mut desk.compaction;
        if compaction.barred || compaction.running {
            return Ok(None);
        }
        let figures = self.inner.table.borrow().figures();
        let slack = compaction.slack_segments * self.inner.options.segment_bytes;
        let picked = policy::pick(&figures, &compaction.passed_over, slack);
        let Some(target) = picked else {
            // What could not be emptied may have become so by the next step.
            compaction.passed_over.clear();
            compaction.target = None;
            return Ok(None);
        };
        if compaction.target != Some(target) {
            (compaction.target, compaction.after, compaction.moved) = (Some(target), None, true);
        }
        compaction.running = true;
        if compaction.after.is_none() && !std::mem::take(&mut compaction.moved) {
            compaction.passed_over.insert(target);
            return Ok(Some((target, Vec::new())));
        }
        let (mut candidates, mut bytes, mut looks) = (Vec::new(), 0, 0);
        let mut ended = true;
        for (id, entry) in desk.index.waiting_after(compaction.after) {
            let lies = entry.lies_in(target);
            let wanted = lies || entry.reasons_lie_in(target);
            let content = if lies { entry.content_bytes } else { 0 };
            let full = candidates.len() == STEP_MESSAGES_MAX || bytes + content > STEP_BYTES_MAX;
            if looks == STEP_LOOKS_MAX || (wanted && full && !candidates.is_empty()) {
                ended = false;
                break;
            }
            looks += 1;
            compaction.after = Some(id);
            if wanted {
                bytes += content;
                candidates.push(id);
                compaction.moving.insert(id, false);
            }
        }
        if ended {
            compaction.after = None;
        }
        Ok(Some((target, candidates)))
    }

    /// Reads a message for its move; `None` when it cannot be moved.
    async fn prepare(&self, id: QueueId, target: u64) -> Result<Option<Prepared>, CommitError> {
        let Ok(message) = self.load(id).await else { return Ok(None) };
        if message.unknown_attributes {
            return Ok(None);
        }
        if !self.inner.desk.borrow().index.get(id).is_some_and(|facts| facts.entry().lies_in(target)) {
            return Ok(Some(Prepared { message, draft: None }));
        }
        let mut draft = self.draft(id);
        while draft.bytes() < message.content_bytes {
            let read = self.read_loaded(&message, draft.bytes(), usize::MAX).await;
            let Some(octets) = read.ok().filter(|octets| !octets.is_empty()) else { return Ok(None) };
            self.append(&mut draft, &octets).await?;
        }
        Ok(Some(Prepared { message, draft: Some(draft) }))
    }
}

impl Prepared {
    fn group(self, states: Vec<RecipientState>, from: u64, bytes_max: usize) -> Group {
        let id = self.message.id;
        let states =
            if sings(Canary::MovesForgetStates) { vec![RecipientState::NEW; states.len()] } else { states };
        let mut texts = TEXTS_MAX.into_iter();
        let reasons = |text_max| Finishing {
            id,
            outcomes: last_outcomes(&states, &self.message.reasons, &self.message.vias, text_max),
            refers_to: from,
        };
        let Some(mut draft) = self.draft else {
            return Group::Outcomes(reasons(OUTCOME_TEXT_MAX), None);
        };
        let tail = (!draft.buffer.is_empty()).then(|| Arc::new(std::mem::take(&mut draft.buffer)));
        let finishing = texts.next().map(reasons).filter(|finishing| !finishing.outcomes.is_empty());
        let mut group = Group::Message(NewMessage {
            id,
            envelope: Arc::new(self.message.envelope),
            flags: self.message.flags,
            content_bytes: self.message.content_bytes,
            extents: draft.extents,
            tail,
            finishing,
            moves: Some(Moves { states: states.clone(), from }),
            room: None,
            states: Vec::new(),
            open: None,
        });
        for text_max in texts {
            if group.payload_bytes().is_some_and(|bytes| bytes <= bytes_max) {
                break;
            }
            if let Group::Message(NewMessage { finishing: Some(finishing), .. }) = &mut group {
                *finishing = reasons(text_max);
            }
        }
        group
    }
}

/// Outcomes that say again where recipients stand, and why.
pub(crate) fn last_outcomes(
    states: &[RecipientState],
    reasons: &[Option<Reason>],
    vias: &[(u32, Box<str>)],
    text_max: usize,
) -> Vec<Outcome> {
    let of = |(at, (state, reason)): (usize, (&RecipientState, &Option<Reason>))| {
        let reason = reason.as_ref()?;
        Some(Outcome {
            recipient: at as u32,
            kind: reason.kind,
            attempts: state.attempts,
            notified: state.notified,
            at_micros: reason.at_micros,
            text: reason.text[..reason.text.floor_char_boundary(text_max)].to_owned(),
        })
    };
    let reroute = |(at, via): &(u32, Box<str>)| Outcome {
        recipient: *at,
        kind: OutcomeKind::Rerouted,
        attempts: 0,
        notified: false,
        at_micros: 0,
        text: via.to_string(),
    };
    let rerouted = vias.iter().filter(|(at, _)| !states[*at as usize].is_finished()).map(reroute);
    states.iter().zip(reasons).enumerate().filter_map(of).chain(rerouted).collect()
}

/// A step under way.
struct Step<'a, S: Storage> {
    spool: &'a Spool<S>,
}

impl<S: Storage> Drop for Step<'_, S> {
    fn drop(&mut self) {
        let mut desk = self.spool.inner.desk.borrow_mut();
        desk.compaction.running = false;
        desk.compaction.moving.clear();
    }
}
