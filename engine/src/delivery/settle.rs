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
use crate::schedule::retry::{self, Deferral, Next};
use crate::shard::links::{Disposition, Fate, Group, Report, ToIngest};
use crate::tls::outward::PeerTls;
use sluice_queue::{Envelope, Notify};
use std::rc::Rc;
use std::time::Duration;

/// A message whose delivery ended in a fault of the program waits at least this long when it has expired.
const FAULT_WAIT_MICROS: u64 = 60_000_000;

/// What one attempt came to for one recipient.
pub struct Attempted {
    pub recipient: u32,
    pub verdict: Verdict,
    /// `host[ip]:port`.
    pub relay: String,
    pub tls: Option<Rc<PeerTls>>,
    pub tells: Tells,
    /// The host said when it may be tried again (greylisting).
    pub wait: Option<Duration>,
}

/// What a next hop tells senders of by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tells {
    /// DSN: of success, where NOTIFY asks for it (RFC 3461 section 5.2.1).
    pub success: bool,
    /// DELIVERBY: of a deadline missed.
    pub delay: bool,
}

/// Whether the sender is to be told that the message was handed on (RFC 3461 section 5.2.2; RFC 2852: from
/// there on nobody keeps the time, or each relay is to be named).
fn is_relayed(envelope: &Envelope, recipient: u32, tells: Tells) -> bool {
    let notify = envelope.recipients[recipient as usize].notify();
    let success = notify.is_some_and(|notify| notify.success) && !tells.success;
    let by = envelope.deliver_by().is_some_and(|by| by.trace || !tells.delay);
    !envelope.sender.is_empty() && (success || (by && notify != Some(Notify::NEVER)))
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
    item: &Item,
    message: &Message,
    attempted: Vec<Attempted>,
    timing: Timing,
) {
    if attempted.is_empty() {
        return;
    }
    let delays = timing.delays(message);
    let attempts = item.attempts.saturating_add(1);
    let next = after_deferral(shard, hop, item, attempts);
    let mut again = Vec::new();
    let mut wait = None;
    let mut fates = Vec::with_capacity(attempted.len());
    for mut done in attempted {
        let disposition = match done.verdict.outcome {
            Outcome::Delivered if is_relayed(&message.envelope, done.recipient, done.tells) => {
                Disposition::Relayed
            }
            Outcome::Delivered => Disposition::Delivered,
            Outcome::Bounced => Disposition::Bounced,
            Outcome::Deferred => {
                let disposition = deferred(item, &next);
                match disposition {
                    Disposition::Deferred { .. } => {
                        again.push(done.recipient);
                        wait = wait.max(done.wait);
                    }
                    Disposition::Bounced => {
                        done.verdict.status = Status::TOO_LATE;
                        done.verdict.text = too_late(&done.verdict.text);
                    }
                    _ => {}
                }
                disposition
            }
        };
        fates.push(fate(item, done, disposition, message, delays, shard));
    }
    report(shard, item, fates).await;
    if let Next::Retry { at_micros, notice_due } = next
        && !again.is_empty()
    {
        let mut item = item.with_group(again);
        item.attempts = attempts;
        item.notified |= notice_due;
        item.announced = true;
        let at_micros = match wait {
            None => at_micros,
            Some(wait) => {
                let expires = retry::expires_micros(shard.retry_of(&hop.next_hop), item.arrived_micros);
                let asked = wall_micros().saturating_add(wait.as_micros() as u64);
                asked.min(expires.max(wall_micros()))
            }
        };
        shard.put_off(hop, item, due_millis(at_micros));
    }
}

fn after_deferral(shard: &DeliveryShard, hop: &Hop, item: &Item, attempts: u16) -> Next {
    retry::after_deferral(shard.retry_of(&hop.next_hop), &deferral(item, attempts))
}

fn deferral(item: &Item, attempts: u16) -> Deferral {
    Deferral {
        id: item.id,
        arrived_micros: item.arrived_micros,
        now_micros: wall_micros(),
        attempts,
        notified: item.notified,
        by: item.luggage.by(),
    }
}

fn deferred(item: &Item, next: &Next) -> Disposition {
    match *next {
        Next::Expire => Disposition::Expired,
        Next::Late => Disposition::Bounced,
        Next::Retry { notice_due, .. } => {
            Disposition::Deferred { notice: notice_due, notified: item.notified || notice_due }
        }
    }
}

/// The words of a message that is returned at its sender's deadline.
fn too_late(last: &str) -> String {
    format!("the time by which the sender wanted it delivered is over; the last try: {last}")
}

/// A time of the wall clock on the clock of the timetable.
fn due_millis(at_micros: u64) -> u64 {
    monotonic_millis().saturating_add(at_micros.saturating_sub(wall_micros()).div_ceil(1_000))
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
    let reached = (done.relay.as_str(), done.tls.as_deref());
    log_attempt(shard, message, recipient, reached, delays, &dsn, disposition, &verdict.text);
    Fate {
        recipient: done.recipient,
        attempts: match disposition {
            Disposition::Deferred { .. } => item.attempts.saturating_add(1),
            _ => item.attempts,
        },
        disposition,
        dsn,
        text: verdict.text,
        reply: verdict.reply,
        remote: verdict.remote.unwrap_or_default(),
    }
}

#[allow(clippy::too_many_arguments)]
fn log_attempt(
    shard: &DeliveryShard,
    message: &Message,
    recipient: &str,
    (relay, tls): (&str, Option<&PeerTls>),
    delays: Delays,
    dsn: &str,
    disposition: Disposition,
    reply: &str,
) {
    let (counter, status) = match disposition {
        Disposition::Delivered | Disposition::Relayed => (&shard.counters.recipients_delivered_total, "sent"),
        Disposition::Deferred { .. } => (&shard.counters.recipients_deferred_total, "deferred"),
        Disposition::Bounced => (&shard.counters.recipients_bounced_total, "bounced"),
        Disposition::Expired => (&shard.counters.recipients_expired_total, "expired"),
    };
    counter.add(1);
    let attempt = line::Attempt { id: message.id, recipient, relay, delays, tls, dsn, status, reply };
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
    let next = retry::while_down(shard.retry_of(&hop.next_hop), &deferral(&item, item.attempts));
    if waits == Waits::Down && item.announced && matches!(next, Next::Retry { notice_due: false, .. }) {
        return Some(item);
    }
    let now = wall_micros();
    let (message, states) = match Message::envelope_of(&item, &shard.links).await {
        Ok(found) => found,
        Err(error) => {
            shard.unreadable(hop, item, &error);
            return None;
        }
    };
    let disposition = match waits {
        Waits::Refused => Disposition::Bounced,
        Waits::Down => deferred(&item, &next),
    };
    let (mut dsn, mut text) = (trouble.dsn.to_string(), trouble.text.to_string());
    if waits == Waits::Down && disposition == Disposition::Bounced {
        (dsn, text) = (Status::TOO_LATE.to_string(), too_late(&text));
    }
    let delays = Timing { began_micros: now, setup_micros: 0, ended_micros: now }.delays(&message);
    let mut fates = Vec::new();
    for &recipient in item.group.indexes() {
        if states.as_ref().is_some_and(|states| !states[recipient as usize].is_open()) {
            continue;
        }
        let address = &message.envelope.recipients[recipient as usize].address;
        let none = ("none", None);
        log_attempt(shard, &message, address, none, delays, &dsn, disposition, &text);
        fates.push(Fate {
            recipient,
            attempts: item.attempts,
            disposition,
            dsn: dsn.clone(),
            text: text.clone(),
            reply: trouble.reply.as_deref().map(str::to_owned),
            remote: trouble.remote.to_string(),
        });
    }
    report(shard, &item, fates).await;
    item.luggage = item.luggage.stored();
    item.announced = true;
    match disposition {
        Disposition::Deferred { notified, .. } => {
            item.notified = notified;
            Some(item)
        }
        _ => None,
    }
}

/// How often the delivery of a message may end in a fault of the program before it is held.
const FAULTS_MAX: u8 = 2;

/// Puts a message off at which the code that delivers it has panicked. After [`FAULTS_MAX`] such ends it is
/// held, until an administrator releases it.
pub fn put_off_faulty(shard: &Rc<DeliveryShard>, hop: &Rc<Hop>, mut item: Item) {
    item.luggage = item.luggage.stored();
    item.faults = item.faults.saturating_add(1);
    if item.faults >= FAULTS_MAX {
        let (id, recipients) = (item.id, item.group.indexes().to_vec());
        log::note("delivery", &format!("{id}: error: delivery ended by an internal fault again; held"));
        return shard.tell(ToIngest::HoldFaulty { id, recipients }, id);
    }
    log::note("delivery", &format!("{}: error: delivery ended by an internal fault; put off", item.id));
    item.attempts = item.attempts.saturating_add(1);
    // A message that has expired gets a last attempt, which says so.
    let at_micros = match after_deferral(shard, hop, &item, item.attempts) {
        Next::Retry { at_micros, .. } => at_micros,
        Next::Expire | Next::Late => wall_micros() + FAULT_WAIT_MICROS,
    };
    shard.put_off(hop, item, due_millis(at_micros));
}

impl Item {
    /// The same message for other recipients of it; not fresh.
    pub fn with_group(&self, indexes: Vec<u32>) -> Item {
        Item {
            id: self.id,
            group: Group::new(indexes),
            attempts: self.attempts,
            notified: self.notified,
            announced: self.announced,
            faults: self.faults,
            priority: self.priority,
            arrived_micros: self.arrived_micros,
            luggage: self.luggage.stored(),
        }
    }
}
