//! The end of an attempt: log line, report to the spool, and, for what is put off, the next time.
//!
//! Lives on one delivery shard. The ingest shard that owns the message makes the DSNs.

use super::hop::{Hop, Item, Trouble};
use super::message::Message;
use super::shard::DeliveryShard;
use super::verdict::{Outcome, Status, Verdict};
use crate::clock::{monotonic_millis, wall_micros};
use crate::observe::line::{self, Delays};
use crate::observe::log;
use crate::schedule::retry;
use crate::shard::links::{Disposition, Fate, Group, Report, ToIngest};
use std::cell::Cell;
use std::rc::Rc;

/// What one attempt came to for one recipient.
pub struct Attempted {
    pub recipient: u32,
    pub verdict: Verdict,
    /// `host[ip]:port`.
    pub relay: String,
}

/// Wall clock, microseconds.
#[derive(Clone, Copy)]
pub struct Timing {
    pub began_micros: u64,
    /// Zero on a connection that was there before.
    pub setup_micros: u64,
    pub ended_micros: u64,
}

impl Timing {
    fn delays(&self, message: &Message) -> Delays {
        let arrived = message.envelope.arrived_micros;
        Delays {
            receiving: arrived.saturating_sub(message.id.micros()),
            waiting: self.began_micros.saturating_sub(arrived).saturating_sub(self.setup_micros),
            connecting: self.setup_micros,
            transaction: self.ended_micros.saturating_sub(self.began_micros),
        }
    }
}

/// Settles an attempt whose recipients are all decided.
pub async fn settle_attempt(
    shard: &Rc<DeliveryShard>,
    hop: &Rc<Hop>,
    item: Item,
    message: &Message,
    attempted: Vec<Attempted>,
    timing: Timing,
) {
    if attempted.is_empty() {
        return;
    }
    let delays = timing.delays(message);
    let retry = shard.retry_of(&hop.next_hop);
    let age = retry::Age::of(item.arrived_micros, timing.ended_micros);
    let mut again = Vec::new();
    let mut fates = Vec::with_capacity(attempted.len());
    let notice = !item.notified && retry::notice_is_due(retry, age);
    for done in attempted {
        let disposition = match done.verdict.outcome {
            Outcome::Delivered => Disposition::Delivered,
            Outcome::Bounced => Disposition::Bounced,
            Outcome::Deferred if retry::is_expired(retry, age) => Disposition::Expired,
            Outcome::Deferred => {
                again.push(done.recipient);
                Disposition::Deferred { notice, notified: item.notified || notice }
            }
        };
        fates.push(fate(&item, done, disposition, message, delays, shard));
    }
    report(shard, &item, fates).await;
    if !again.is_empty() {
        let mut item = item.with_group(again);
        item.attempts = item.attempts.saturating_add(1);
        item.notified |= notice;
        item.announced = true;
        let wait = retry::next_attempt(retry, item.attempts, item.id);
        shard.put_off(hop, item, monotonic_millis().saturating_add(wait.as_millis() as u64));
    }
}

fn fate(
    item: &Item,
    done: Attempted,
    disposition: Disposition,
    message: &Message,
    delays: Delays,
    shard: &DeliveryShard,
) -> Fate {
    let verdict = done.verdict;
    let dsn = verdict.status.to_string();
    let recipient = &message.envelope.recipients[done.recipient as usize].address;
    log_attempt(shard, message, recipient, &done.relay, delays, &dsn, disposition, &verdict.text);
    let is_reply = verdict.reply.is_some();
    Fate {
        recipient: done.recipient,
        attempts: match disposition {
            Disposition::Deferred { .. } => item.attempts.saturating_add(1),
            _ => item.attempts,
        },
        disposition,
        dsn,
        text: verdict.reply.unwrap_or(verdict.text),
        remote: verdict.remote.unwrap_or_default(),
        is_reply,
    }
}

#[allow(clippy::too_many_arguments)]
fn log_attempt(
    shard: &DeliveryShard,
    message: &Message,
    recipient: &str,
    relay: &str,
    delays: Delays,
    dsn: &str,
    disposition: Disposition,
    reply: &str,
) {
    let (counter, status) = match disposition {
        Disposition::Delivered => (&shard.counters.recipients_delivered_total, "sent"),
        Disposition::Deferred { .. } => (&shard.counters.recipients_deferred_total, "deferred"),
        Disposition::Bounced => (&shard.counters.recipients_bounced_total, "bounced"),
        Disposition::Expired => (&shard.counters.recipients_expired_total, "expired"),
    };
    counter.add(1);
    let attempt = line::Attempt { id: message.id, recipient, relay, delays, dsn, status, reply };
    log::write("delivery", |text| line::attempt(text, &attempt));
}

async fn report(shard: &DeliveryShard, item: &Item, fates: Vec<Fate>) {
    shard.links.owner_of(item.id).send(ToIngest::Report(Report { id: item.id, fates })).await;
}

/// How a message that waits for a hop without an attempt of its own ends or goes on waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// The hop is down: expiry and delay notice are looked at, and the reason is told once.
    Down,
    /// The next hop can never be reached (no such domain): the message bounces.
    Refused,
}

/// Settles one message of a hop in trouble. Gives it back when it goes on waiting.
pub async fn settle_trouble(
    shard: &Rc<DeliveryShard>,
    hop: &Rc<Hop>,
    mut item: Item,
    trouble: &Trouble,
    waits: Waits,
) -> Option<Item> {
    let now = wall_micros();
    let retry = shard.retry_of(&hop.next_hop);
    let age = retry::Age::of(item.arrived_micros, now);
    let expired = retry::is_expired(retry, age);
    let notice = !item.notified && retry::notice_is_due(retry, age);
    if waits == Waits::Down && item.announced && !expired && !notice {
        return Some(item);
    }
    let (message, states) = match Message::of(&item, &shard.links).await {
        Ok(found) => found,
        Err(error) => {
            shard.unreadable(hop, item, &error);
            return None;
        }
    };
    let disposition = match waits {
        Waits::Refused => Disposition::Bounced,
        Waits::Down if expired => Disposition::Expired,
        Waits::Down => Disposition::Deferred { notice, notified: item.notified || notice },
    };
    let delays = Timing { began_micros: now, setup_micros: 0, ended_micros: now }.delays(&message);
    let mut fates = Vec::new();
    for &recipient in item.group.indexes() {
        if states.as_ref().is_some_and(|states| states[recipient as usize].is_finished()) {
            continue;
        }
        let address = &message.envelope.recipients[recipient as usize].address;
        log_attempt(shard, &message, address, "none", delays, &trouble.dsn, disposition, &trouble.text);
        fates.push(Fate {
            recipient,
            attempts: item.attempts,
            disposition,
            dsn: trouble.dsn.to_string(),
            text: trouble.text.to_string(),
            remote: trouble.remote.to_string(),
            is_reply: trouble.is_reply,
        });
    }
    report(shard, &item, fates).await;
    item.fresh = None;
    item.announced = true;
    item.notified |= notice;
    matches!(disposition, Disposition::Deferred { .. }).then_some(item)
}

/// Puts a message off when the code that delivers it panics: dropped while armed, that is, while the
/// stack unwinds.
pub struct FaultGuard {
    shard: Rc<DeliveryShard>,
    hop: Rc<Hop>,
    item: Cell<Option<Item>>,
}

impl FaultGuard {
    pub fn new(shard: &Rc<DeliveryShard>, hop: &Rc<Hop>, item: &Item) -> Self {
        let copy = item.with_group(item.group.indexes().to_vec());
        Self { shard: shard.clone(), hop: hop.clone(), item: Cell::new(Some(copy)) }
    }

    pub fn disarm(&self) {
        self.item.set(None);
    }
}

impl Drop for FaultGuard {
    fn drop(&mut self) {
        let Some(mut item) = self.item.take() else { return };
        log::note("delivery", &format!("{}: error: delivery ended by an internal fault; put off", item.id));
        item.attempts = item.attempts.saturating_add(1);
        let wait = retry::next_attempt(self.shard.retry_of(&self.hop.next_hop), item.attempts, item.id);
        let due = monotonic_millis().saturating_add(wait.as_millis() as u64);
        self.shard.put_off(&self.hop, item, due);
    }
}

/// The status of a message whose next hop cannot be found in the configuration.
pub const NO_ROUTE: Status = Status::NO_ROUTE;

impl Item {
    /// The same message for other recipients of it; not fresh.
    pub fn with_group(&self, indexes: Vec<u32>) -> Item {
        Item {
            id: self.id,
            group: Group::new(indexes),
            attempts: self.attempts,
            notified: self.notified,
            announced: self.announced,
            arrived_micros: self.arrived_micros,
            fresh: None,
        }
    }
}
