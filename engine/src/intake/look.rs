//! Looks at the queue of an ingest shard: pages of a list, one message, the summary.
//!
//! A list and a summary come from the index in memory, slice by slice, so that mail goes on; only one
//! message shown by itself is read from the disk.

use super::known::{self, Known};
use super::{IngestShard, ShardSpool};
use crate::clock;
use crate::shard::links::{QueueItem, QueueRecipient};
use crate::steering::{Condition, HopNames, Part, State, Subject, SummaryOptions, Tally};
use sluice_queue::{ByMode, Notify, QueueId, RecipientStatus, Ret};
use std::rc::Rc;

/// Messages looked at between two yields.
const SLICE: usize = 512;

/// Messages of all spools of this shard that match, in the order of their ids.
pub async fn page(
    shard: &Rc<IngestShard>,
    after: Option<QueueId>,
    limit: usize,
    condition: &Condition,
) -> Vec<QueueItem> {
    let hops = HopNames::new(&shard.config);
    let now = clock::wall_micros();
    let mut items = Vec::new();
    for spool in oldest_first(shard) {
        let mut found = Vec::new();
        let mut next = after;
        loop {
            next = known::slice(&spool, next, SLICE, |subject, known| {
                if found.len() < limit && matches(condition, subject, known, &hops, now) {
                    found.push(describe(subject, known.iter().map(|known| known.part), &hops));
                }
            });
            if next.is_none() || found.len() >= limit {
                break;
            }
            glommio::yield_if_needed().await;
        }
        items.append(&mut found);
    }
    items.sort_unstable_by(|a: &QueueItem, b| a.id.cmp(&b.id));
    items.truncate(limit);
    items
}

/// What is moved meanwhile from an adopted spool into the own one is rather seen twice than not at all.
fn oldest_first(shard: &IngestShard) -> Vec<ShardSpool> {
    let mut spools: Vec<_> = shard.spools().cloned().collect();
    spools.reverse();
    spools
}

fn matches(
    condition: &Condition,
    subject: &Subject<'_>,
    known: &[Known<'_>],
    hops: &HopNames,
    now: u64,
) -> bool {
    condition.matches_message(subject, now)
        && known.iter().any(|known| condition.matches_recipient(&known.part, hops))
}

/// The counts of all spools of this shard.
pub async fn tally(shard: &Rc<IngestShard>, options: SummaryOptions) -> Tally {
    let hops = HopNames::new(&shard.config);
    let now = clock::wall_micros();
    let mut tally = Tally::default();
    shard.spool_warnings().into_iter().for_each(|warning| tally.warn(warning));
    for spool in oldest_first(shard) {
        let mut after = None;
        loop {
            after = known::slice(&spool, after, SLICE, |subject, known| {
                tally.add(subject, known.iter().map(|known| known.part), &hops, options, now);
            });
            if after.is_none() {
                break;
            }
            glommio::yield_if_needed().await;
        }
    }
    tally
}

/// One message, with what only the disk knows of it.
pub async fn show(shard: &Rc<IngestShard>, id: QueueId) -> Option<QueueItem> {
    let spool: &ShardSpool = shard.spool_of(id)?;
    let hops = HopNames::new(&shard.config);
    let mut found = None;
    known::one(spool, id, |subject, known| {
        found = Some(describe(subject, known.iter().map(|known| known.part), &hops));
    });
    let mut item = found?;
    if let Ok(message) = spool.load(id).await {
        tell_origin(&mut item, &message.envelope);
        tell_reasons(&mut item, &message);
    }
    Some(item)
}

/// What the list leaves out.
pub fn tell_origin(item: &mut QueueItem, envelope: &sluice_queue::Envelope) {
    item.origin = envelope.origin.map(|origin| [origin.id.to_string(), origin.lineage.to_string()]);
    item.client = envelope.client.clone();
    item.helo = envelope.helo.clone();
    item.listener = envelope.listener.clone();
    if let Some(of) = &envelope.parameters {
        item.ret = match of.ret {
            Some(Ret::Full) => "FULL".into(),
            Some(Ret::Headers) => "HDRS".into(),
            None => String::new(),
        };
        item.envid = of.envid.clone();
        (item.smtputf8, item.require_tls) = (of.smtputf8, of.require_tls);
    }
    for (told, recipient) in item.recipients.iter_mut().zip(&envelope.recipients) {
        let Some(of) = &recipient.parameters else { continue };
        told.notify = of.notify.map(notify_words).unwrap_or_default();
        told.orcpt = of.orcpt.clone();
    }
}

/// As RCPT writes it.
fn notify_words(notify: Notify) -> String {
    let words = [(notify.success, "SUCCESS"), (notify.failure, "FAILURE"), (notify.delay, "DELAY")];
    let words: Vec<&str> = words.iter().filter(|word| word.0).map(|word| word.1).collect();
    if words.is_empty() { "NEVER".into() } else { words.join(",") }
}

/// Reasons that found no room in memory.
fn tell_reasons(item: &mut QueueItem, message: &sluice_queue::Message) {
    for (recipient, reason) in item.recipients.iter_mut().zip(&message.reasons) {
        if let (true, Some(reason)) = (recipient.reason.is_empty(), reason) {
            recipient.reason = reason.text.clone();
        }
    }
}

/// A message in the words that `sluice queue` prints.
pub fn describe<'a>(
    subject: &Subject<'_>,
    parts: impl Iterator<Item = Part<'a>>,
    hops: &HopNames,
) -> QueueItem {
    let recipients = parts.map(|part| QueueRecipient {
        address: part.address.to_owned(),
        status: status_word(subject, &part),
        attempts: part.state.attempts,
        next_hop: if part.state.is_finished() { String::new() } else { hops.name(&part).into_owned() },
        rerouted: part.via.is_some(),
        reason: part.reason.unwrap_or_default().to_owned(),
        notify: String::new(),
        orcpt: String::new(),
    });
    QueueItem {
        id: subject.id.to_string(),
        arrived_micros: subject.arrived_micros,
        octets: subject.content_bytes,
        sender: subject.sender.to_owned(),
        client: String::new(),
        helo: String::new(),
        listener: String::new(),
        origin: None,
        priority: subject.schedule.priority,
        release_micros: subject.schedule.release_micros.filter(|release| *release > clock::wall_micros()),
        deliver_by_micros: subject.schedule.deliver_by.map(|by| by.deadline_micros),
        deliver_by_returns: subject.schedule.deliver_by.is_some_and(|by| by.mode == ByMode::Return),
        ret: String::new(),
        envid: String::new(),
        smtputf8: false,
        require_tls: false,
        damaged: subject.damaged,
        recipients: recipients.collect(),
    }
}

fn status_word(subject: &Subject<'_>, part: &Part<'_>) -> String {
    match part.state.status {
        RecipientStatus::Waiting if subject.damaged => State::Damaged.to_string(),
        RecipientStatus::Waiting => part.standing().map(|state| state.to_string()).unwrap_or_default(),
        RecipientStatus::Delivered => "sent".into(),
        RecipientStatus::Bounced => "bounced".into(),
        RecipientStatus::Expired => "expired".into(),
        RecipientStatus::Deleted => "deleted".into(),
        RecipientStatus::Moved => "moved".into(),
    }
}
