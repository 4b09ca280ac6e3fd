//! What the spool knows of messages, in the words of [`steering`](crate::steering).
//!
//! Never reads from the disk, never waits; what it shows borrows from the index, so the caller must not call
//! the spool meanwhile.

use super::ShardSpool;
use crate::steering::{Part, Subject};
use sluice_queue::{Facts, Inspection, QueueId, RecipientFacts};

/// One recipient that an action or a list may concern.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Its index in the envelope.
    pub index: u32,
    pub part: Part<'a>,
    /// The end of its last attempt, wall clock, microseconds.
    pub tried_micros: Option<u64>,
}

impl<'a> From<RecipientFacts<'a>> for Known<'a> {
    fn from(facts: RecipientFacts<'a>) -> Self {
        // A reason that found no room in memory is one all the same.
        let reason = facts.reason.or(facts.reason_on_disk.then_some(""));
        let part = Part { address: facts.address, state: facts.state, via: facts.via, reason };
        Self { index: facts.index, part, tried_micros: facts.tried_micros }
    }
}

fn shown(facts: &Facts<'_>, each: impl FnOnce(&Subject<'_>, &[Known<'_>])) {
    let subject = Subject {
        id: facts.id(),
        arrived_micros: facts.arrived_micros(),
        content_bytes: facts.content_bytes(),
        sender: facts.sender(),
        damaged: facts.damaged(),
        schedule: facts.schedule(),
    };
    let mut recipients = facts.recipients().map(Known::from);
    if facts.recipients_count() == 1
        && let Some(only) = recipients.next()
    {
        // Most messages are like this, and need no list.
        return each(&subject, &[only]);
    }
    each(&subject, &recipients.collect::<Vec<_>>());
}

/// Shows up to `count` messages with an id above `after`, in order, damaged ones too. Gives where to go on,
/// `None` at the end.
pub fn slice(
    spool: &ShardSpool,
    after: Option<QueueId>,
    count: usize,
    mut each: impl FnMut(&Subject<'_>, &[Known<'_>]),
) -> Option<QueueId> {
    spool.survey(after, count, |facts| shown(facts, &mut each))
}

/// Shows one message; false when it is not in the queue.
pub fn one(spool: &ShardSpool, id: QueueId, each: impl FnOnce(&Subject<'_>, &[Known<'_>])) -> bool {
    spool.facts(id, |facts| shown(facts, each)).is_some()
}

/// Shows one message of a spool whose relay is down.
pub fn one_stopped(spool: &Inspection, id: QueueId, each: impl FnOnce(&Subject<'_>, &[Known<'_>])) -> bool {
    spool.facts(id, |facts| shown(facts, each)).is_some()
}
