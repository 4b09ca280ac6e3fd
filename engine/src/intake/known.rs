//! What the spool knows of waiting messages, in the words of [`steering`](crate::steering).
//!
//! On an ingest shard. No message is read from the disk for this.

use super::ShardSpool;
use crate::steering::{Part, Subject};
use sluice_queue::QueueId;

/// One recipient that an action or a list may concern.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Its index in the envelope.
    pub index: u32,
    pub part: Part<'a>,
    /// The end of its last attempt, wall clock, microseconds.
    pub tried_micros: Option<u64>,
}

/// Shows up to `count` messages with an id above `after`, in order. Gives where to go on, `None` at the end.
pub async fn slice(
    spool: &ShardSpool,
    after: Option<QueueId>,
    count: usize,
    mut each: impl FnMut(&Subject<'_>, &[Known<'_>]),
) -> Option<QueueId> {
    let ids = spool.live(after, count);
    for id in &ids {
        one(spool, *id, &mut each).await;
    }
    if ids.len() < count { None } else { ids.last().copied() }
}

/// Shows one message; false when it does not wait.
pub async fn one(spool: &ShardSpool, id: QueueId, mut each: impl FnMut(&Subject<'_>, &[Known<'_>])) -> bool {
    let Ok(message) = spool.load(id).await else { return false };
    if !spool.contains(id) {
        return false;
    }
    let subject = Subject {
        id,
        arrived_micros: message.envelope.arrived_micros,
        content_bytes: message.content_bytes,
        sender: &message.envelope.sender,
        damaged: false,
    };
    let vias = &message.vias;
    let known: Vec<Known<'_>> = message
        .envelope
        .recipients
        .iter()
        .enumerate()
        .map(|(index, recipient)| Known {
            index: index as u32,
            part: Part {
                address: &recipient.address,
                state: message.states[index],
                via: vias.iter().find(|(at, _)| *at as usize == index).map(|(_, via)| &**via),
                reason: message.reasons[index].as_ref().map(|reason| &*reason.text),
            },
            tried_micros: message.reasons[index].as_ref().map(|reason| reason.at_micros),
        })
        .collect();
    each(&subject, &known);
    true
}
