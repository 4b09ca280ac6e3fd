//! The delivery side of cut-through: recipients and messages for which a client of an ingest shard waits.
//!
//! Lives on one delivery shard. Connections are its own, beside those of the queue, so no client waits behind a
//! backlog; they are bounded by `cut_through.connections_max` and count among `connections_total_max`. A next hop
//! that the queue has found down, or that could not be reached here a moment ago, is not tried: the answer is that
//! nobody can say. A question that is under way is not asked again; who asks too gets the same answer.
//!
//! A message is tried once, on one host. What is not final after that is for the queue, with its backup hosts and
//! its retries. An attempt that has begun is never dropped, whoever still waits for it.

use super::client::{Event, SessionFailure};
use super::connection::Connection;
use super::failure::{Failure, Scope};
use super::hop::{Hop, Item};
use super::message::Message;
use super::opening::{Tries, open_any};
use super::settle::is_relayed;
use super::shard::DeliveryShard;
use super::sorting::{Server, server_of};
use super::verdict::{Fate, Outcome, Verdict};
use crate::clock::{monotonic_millis, wall_micros};
use crate::config::CutThrough;
use crate::cut_through::{Answers, Ask, Ended, Offer, Taken, Tried};
use crate::observe::log;
use crate::shard::event::Event as Signal;
use crate::shard::links::{self, Disposition, Fresh, Group, Luggage, NextHop};
use crate::smtp::said::Said;
use futures_lite::FutureExt;
use sluice_queue::Recipient;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Questions under way on one shard, each about another recipient. Prevents guessing of addresses from taking all
/// memory; past it the answer is that nobody can say.
const QUESTIONS_MAX: usize = 1024;
/// Offers under way on one shard. Past it messages are queued as always.
const OFFERS_MAX: usize = 1024;
/// A next hop that could not be reached is not tried for so long.
const AGAIN_MILLIS: u64 = 5_000;
/// Connections that were closed by the peer while they were unused, met one after the other.
const STALE_MAX: usize = 3;

/// What a delivery shard keeps for it.
pub struct CutThroughState {
    pools: RefCell<HashMap<NextHop, Rc<Pool>>>,
    answers: RefCell<Answers>,
    /// Who waits for each question that is under way.
    questions: RefCell<HashMap<crate::cut_through::Key, Vec<oneshot::Sender<Taken>>>>,
    offers: Cell<usize>,
    connections_max: usize,
}

impl CutThroughState {
    pub fn new(config: &CutThrough, shards: usize) -> Self {
        Self {
            pools: RefCell::default(),
            answers: RefCell::new(Answers::new(config, shards)),
            questions: RefCell::default(),
            offers: Cell::new(0),
            connections_max: config.connections_max.div_ceil(shards),
        }
    }
}

/// Connections to one next hop.
struct Pool {
    /// Stands in where a hop is asked for; nothing is ever queued in it.
    hop: Rc<Hop>,
    idle: RefCell<Vec<Held>>,
    open: Cell<usize>,
    /// A connection or a place has become free.
    freed: Signal,
    /// Not to be tried before.
    not_before: Cell<u64>,
    /// The log knows that it does not answer.
    told: Cell<bool>,
}

impl Pool {
    /// One who waits takes the signal for all of them: the next one is woken when there is something for it too.
    fn pass_on(&self, connections_max: usize) {
        if !self.idle.borrow().is_empty() || self.open.get() < connections_max {
            self.freed.raise();
        }
    }
}

/// A connection, and its place in the pool.
struct Held {
    connection: Connection,
    /// The next hop has one address only: nobody else could take what it refuses.
    alone: bool,
    since: u64,
    _place: Place,
}

struct Place {
    shard: Rc<DeliveryShard>,
    pool: Rc<Pool>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.open.set(self.pool.open.get() - 1);
        self.pool.freed.raise();
        self.shard.leave_place();
    }
}

impl DeliveryShard {
    pub(super) fn asked(self: &Rc<Self>, ask: Ask) {
        match ask {
            Ask::Recipient { next_hop, address, wait, reply } => {
                self.asked_about(&next_hop, &address, wait, reply);
            }
            Ask::Message(offer) => self.offered(*offer),
        }
    }

    fn asked_about(
        self: &Rc<Self>,
        next_hop: &NextHop,
        address: &str,
        wait: Duration,
        reply: oneshot::Sender<Taken>,
    ) {
        let key = Answers::key(next_hop, address);
        let state = &self.cut_through;
        if let Some(taken) = state.answers.borrow().get(&key, monotonic_millis()) {
            return drop(reply.send(taken));
        }
        let mut questions = state.questions.borrow_mut();
        if let Some(waiting) = questions.get_mut(&key) {
            return waiting.push(reply);
        }
        if questions.len() >= QUESTIONS_MAX || self.is_stopping() {
            return drop(reply.send(Taken::Unknown));
        }
        questions.insert(key.clone(), vec![reply]);
        // A task that is spawned runs at once.
        drop(questions);
        let shard = self.clone();
        glommio::spawn_local(async move {
            let found = AssertUnwindSafe(find_out(&shard, &key, wait)).catch_unwind().await;
            let taken = found.unwrap_or_else(|_| {
                shard.counters.delivery_panics_total.add(1);
                log::note("delivery", "error: an internal fault while a recipient was asked about");
                Taken::Unknown
            });
            shard.cut_through.answers.borrow_mut().put(&key, &taken, monotonic_millis());
            let waiting = shard.cut_through.questions.borrow_mut().remove(&key).unwrap_or_default();
            waiting.into_iter().for_each(|reply| drop(reply.send(taken.clone())));
        })
        .detach();
    }

    fn offered(self: &Rc<Self>, offer: Offer) {
        let offers = &self.cut_through.offers;
        if offers.get() >= OFFERS_MAX || self.is_stopping() {
            return drop(offer.reply.send(Ended::Untried("too much is on its way already".into())));
        }
        offers.set(offers.get() + 1);
        let shard = self.clone();
        glommio::spawn_local(async move {
            if AssertUnwindSafe(take_offer(&shard, offer)).catch_unwind().await.is_err() {
                shard.counters.delivery_panics_total.add(1);
                log::note("delivery", "error: an internal fault while a message was handed over");
            }
            let offers = &shard.cut_through.offers;
            offers.set(offers.get() - 1);
        })
        .detach();
    }

    fn pool(&self, next_hop: &NextHop) -> Rc<Pool> {
        let mut pools = self.cut_through.pools.borrow_mut();
        let pool = pools.entry(next_hop.clone()).or_insert_with(|| {
            Rc::new(Pool {
                hop: Rc::new(Hop::new(next_hop.clone())),
                idle: RefCell::default(),
                open: Cell::default(),
                freed: Signal::default(),
                not_before: Cell::default(),
                told: Cell::default(),
            })
        });
        pool.clone()
    }

    /// Ends connections that have been unused for long enough, all of them at a stop, and forgets pools that have
    /// nothing to do.
    pub(super) fn sweep_cut_through(&self) {
        if self.cut_through.pools.borrow().is_empty() {
            return;
        }
        let idle = self.config.delivery.idle.as_millis() as u64;
        let now = monotonic_millis();
        let mut ended = Vec::new();
        self.cut_through.pools.borrow_mut().retain(|_, pool| {
            let is_over = |held: &mut Held| self.is_stopping() || now.saturating_sub(held.since) >= idle;
            ended.extend(pool.idle.borrow_mut().extract_if(.., is_over));
            pool.open.get() > 0 || now < pool.not_before.get() || Rc::strong_count(pool) > 1
        });
        ended.into_iter().for_each(|held| held.connection.quit());
    }

    /// Why the next hop is not to be tried now.
    fn trouble_of(&self, pool: &Pool) -> Option<String> {
        let known = self.hops.borrow().get(&pool.hop.next_hop).and_then(|hop| hop.trouble());
        if let Some(trouble) = known {
            return Some(trouble.text.to_string());
        }
        (monotonic_millis() < pool.not_before.get()).then(|| "it did not answer a moment ago".into())
    }

    /// A connection that may begin a transaction, within `wait`.
    async fn connection(self: &Rc<Self>, pool: &Rc<Pool>, wait: Duration) -> Result<Held, String> {
        let too_late = async {
            glommio::timer::sleep(wait).await;
            Err("no connection could be had in time".to_owned())
        };
        self.connection_in_time(pool).or(too_late).await
    }

    async fn connection_in_time(self: &Rc<Self>, pool: &Rc<Pool>) -> Result<Held, String> {
        loop {
            if let Some(trouble) = self.trouble_of(pool) {
                return Err(trouble);
            }
            let idle = pool.idle.borrow_mut().pop();
            if let Some(mut held) = idle {
                held.connection.setup_micros = 0;
                pool.pass_on(self.cut_through.connections_max);
                return Ok(held);
            }
            if pool.open.get() < self.cut_through.connections_max && self.take_place() {
                pool.open.set(pool.open.get() + 1);
                let place = Place { shard: self.clone(), pool: pool.clone() };
                return self.open_for(pool, place).await;
            }
            pool.freed.wait().await;
        }
    }

    async fn open_for(self: &Rc<Self>, pool: &Rc<Pool>, place: Place) -> Result<Held, String> {
        let opened = self.open_connection(pool).await;
        match opened {
            Ok((connection, alone)) => {
                if pool.told.take() {
                    let name = self.name_of(&pool.hop.next_hop);
                    log::note("delivery", &format!("next hop {name} can be asked again (cut-through)"));
                }
                Ok(Held { connection, alone, since: monotonic_millis(), _place: place })
            }
            Err(why) => {
                // Whoever else waits is told the same.
                pool.freed.raise();
                pool.not_before.set(monotonic_millis() + AGAIN_MILLIS);
                if !pool.told.replace(true) {
                    let name = self.name_of(&pool.hop.next_hop);
                    log::note(
                        "delivery",
                        &format!("warning: next hop {name} cannot be asked (cut-through): {why}"),
                    );
                }
                Err(why)
            }
        }
    }

    async fn open_connection(&self, pool: &Pool) -> Result<(Connection, bool), String> {
        let found = self.candidates(&pool.hop.next_hop).await;
        let mut left = found.map_err(|found| found.trouble.text.to_string())?;
        let alone = left.len() == 1;
        let mut tries = Tries::default();
        while !left.is_empty() {
            if let Some(connection) = open_any(self, &pool.hop, &mut left, &mut tries).await {
                return Ok((connection, alone));
            }
        }
        self.counters.connects_failed_total.add(1);
        Err(tries.last.map_or_else(|| "no host was found".into(), |(failure, _)| failure.text))
    }

    /// The connection may serve others.
    fn give_connection_back(&self, pool: &Pool, mut held: Held) {
        if held.connection.is_closed() {
            return;
        }
        let connection = &held.connection;
        let messages_max = self.limits_of(&pool.hop.next_hop).messages_per_connection_max;
        let is_used_up = connection.transactions() as usize >= messages_max
            || connection.age() >= self.config.delivery.connection_age_max;
        if self.is_stopping() || is_used_up || !connection.can_begin() {
            return held.connection.quit();
        }
        held.since = monotonic_millis();
        pool.idle.borrow_mut().push(held);
        pool.freed.raise();
    }
}

async fn find_out(
    shard: &Rc<DeliveryShard>,
    (next_hop, address): &crate::cut_through::Key,
    wait: Duration,
) -> Taken {
    // Asked about as the next hop will be told it.
    let route = shard.config.routes.get(usize::from(next_hop.route));
    let rewritten = route
        .and_then(|route| route.rewrite.as_ref())
        .and_then(|rules| rules.recipient(&Recipient::new(address.as_ref())));
    let written = address;
    let address = rewritten.as_ref().map_or(&**address, |recipient| &recipient.address);
    let asked = async {
        let pool = match server_of(shard, next_hop, written).await {
            Server::Is(next_hop) => shard.pool(&next_hop),
            Server::Nowhere => {
                let text = "the table of recipients does not have the address";
                return Taken::No(Arc::new(Said::new(550, Some((5, 1, 1)), text)));
            }
            Server::Unclear => return Taken::Unknown,
        };
        for _ in 0..STALE_MAX {
            let Ok(mut held) = shard.connection(&pool, wait).await else { return Taken::Unknown };
            shard.counters.recipients_asked_total.add(1);
            match held.connection.ask(address).await {
                Ok(fate) => {
                    shard.give_connection_back(&pool, held);
                    return taken(fate);
                }
                Err(SessionFailure { was_stale: true, .. }) => {}
                Err(failed) => {
                    // Refused before the session failed, by 421 behind it say, is refused.
                    return failed.fates.into_iter().next().map_or(Taken::Unknown, taken);
                }
            }
        }
        Taken::Unknown
    };
    let too_late = async {
        glommio::timer::sleep(wait).await;
        Taken::Unknown
    };
    asked.or(too_late).await
}

/// What a reply to RCPT says of the recipient. Only codes that are about a mailbox count (RFC 5321 section
/// 4.2.3); a server that takes no null reverse-path, or wants TLS or a login first, has said nothing of it.
fn taken(fate: Fate) -> Taken {
    let failure = match fate {
        Fate::Delivered(_) => return Taken::Yes,
        Fate::Failed(failure) => failure,
    };
    match (failure.scope, &failure.reply) {
        (Scope::Recipient, Some(reply)) => {
            let said = Arc::new(Said::new(reply.code, reply.enhanced, &reply.text));
            match reply.code {
                550..=554 | 556 => Taken::No(said),
                450..=452 => Taken::NotNow(said),
                _ => Taken::Unknown,
            }
        }
        _ => Taken::Unknown,
    }
}

/// The server that has all recipients of an offer.
async fn server_of_all(shard: &Rc<DeliveryShard>, offer: &Offer) -> Option<NextHop> {
    let mut one = None;
    for &index in &offer.recipients {
        let address = &offer.envelope.recipients.get(index as usize)?.address;
        let Server::Is(next_hop) = server_of(shard, &offer.next_hop, address).await else { return None };
        if one.get_or_insert_with(|| next_hop.clone()) != &next_hop {
            return None;
        }
    }
    one
}

async fn take_offer(shard: &Rc<DeliveryShard>, offer: Offer) {
    let Some(next_hop) = server_of_all(shard, &offer).await else {
        let why = "its recipients are not all known to be on one server";
        return drop(offer.reply.send(Ended::Untried(why.into())));
    };
    let pool = shard.pool(&next_hop);
    let mut held = match shard.connection(&pool, offer.wait).await {
        Ok(held) => held,
        Err(why) => return drop(offer.reply.send(Ended::Untried(why))),
    };
    if !offer.claim.begin() {
        return shard.give_connection_back(&pool, held);
    }
    shard.transaction_began();
    let _ends = Ends(shard.clone());
    let fresh = Fresh { envelope: offer.envelope, content: offer.content, flags: offer.flags };
    let item = Item {
        id: offer.id,
        group: Group::new(offer.recipients.clone()),
        attempts: 0,
        notified: false,
        announced: false,
        faults: 0,
        priority: 0,
        arrived_micros: fresh.envelope.arrived_micros,
        luggage: Luggage::new(Some(fresh), None),
    };
    let (mut message, _) = match Message::of(&item, &shard.links).await {
        Ok(found) => found,
        Err(why) => return drop(offer.reply.send(Ended::Untried(why))),
    };
    let (mut left, most) = (offer.recipients.clone(), shard.limits_of(&next_hop).recipients_max);
    held.connection.take_share(&message, &mut left, most);
    let route = shard.config.routes.get(usize::from(offer.next_hop.route));
    let rules = route.and_then(|route| route.rewrite.as_ref());
    // With VERP each recipient has a transaction of its own.
    let divides = offer.recipients.len() > 1 && rules.is_some_and(|rules| rules.divides_recipients());
    if divides || !left.is_empty() {
        shard.give_connection_back(&pool, held);
        return drop(offer.reply.send(Ended::Untried("too many recipients for one transaction".into())));
    }
    if let Some(rules) = rules
        && let Err(why) = message.rewrite(rules, &offer.recipients, &shard.config).await
    {
        shard.give_connection_back(&pool, held);
        return drop(offer.reply.send(Ended::Untried(why)));
    }
    let began_micros = wall_micros();
    for _ in 0..STALE_MAX {
        let fates = match transact(&mut held.connection, &message, &offer.recipients).await {
            Ok(fates) => fates,
            Err(failed) if failed.was_stale => match shard.connection(&pool, offer.wait).await {
                Ok(another) => {
                    held = another;
                    continue;
                }
                Err(why) => return drop(offer.reply.send(Ended::Untried(why))),
            },
            Err(failed) => failed.fates,
        };
        let tried = tried(shard, &held, &message, &offer.recipients, fates, began_micros);
        shard.give_connection_back(&pool, held);
        return drop(offer.reply.send(Ended::Tried(Box::new(tried))));
    }
    drop(offer.reply.send(Ended::Untried("its connections were closed one after the other".into())));
}

/// The transaction that has begun is over, however it ended.
struct Ends(Rc<DeliveryShard>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.transaction_ended();
    }
}

async fn transact(
    connection: &mut Connection,
    message: &Message,
    recipients: &[u32],
) -> Result<Vec<Fate>, SessionFailure> {
    connection.begin(message, recipients);
    let mut event = connection.next_event().await;
    loop {
        event = match event {
            Event::Send(framing) => match connection.send(message, framing).await {
                Ok(Some(event)) => event,
                Ok(None) => connection.next_event().await,
                Err(why) => unreachable!("content in memory cannot be missing: {why}"),
            },
            Event::Finished(fates) => return Ok(fates),
            Event::Failed(failed) => return Err(failed),
            other => unreachable!("{other:?} within a transaction"),
        }
    }
}

fn tried(
    shard: &DeliveryShard,
    held: &Held,
    message: &Message,
    recipients: &[u32],
    fates: Vec<Fate>,
    began_micros: u64,
) -> Tried {
    let connection = &held.connection;
    let mut said = None;
    let settle = |(&recipient, fate): (&u32, &Fate)| {
        let verdict = Verdict::of(fate, Some(connection.peer()), held.alone);
        let disposition = match verdict.as_ref().map(|verdict| verdict.outcome) {
            Some(Outcome::Delivered) if is_relayed(&message.envelope, recipient, connection.tells()) => {
                Disposition::Relayed
            }
            Some(Outcome::Delivered) => Disposition::Delivered,
            Some(Outcome::Bounced) => Disposition::Bounced,
            Some(Outcome::Deferred) | None => Disposition::Deferred { notice: false, notified: false },
        };
        if let (Disposition::Bounced, Fate::Failed(failure)) = (disposition, fate) {
            said.get_or_insert_with(|| say(failure));
        }
        if matches!(disposition, Disposition::Delivered | Disposition::Relayed) {
            shard.counters.recipients_delivered_total.add(1);
        }
        let text = match (verdict.as_ref(), fate) {
            (Some(verdict), _) => verdict.text.clone(),
            (None, Fate::Failed(failure)) => failure.text.clone(),
            (None, Fate::Delivered(reply)) => reply.to_string(),
        };
        links::Fate {
            recipient,
            attempts: 0,
            disposition,
            dsn: verdict.as_ref().map_or_else(String::new, |verdict| verdict.status.to_string()),
            text,
            reply: verdict.as_ref().and_then(|verdict| verdict.reply.clone()),
            remote: connection.peer().name.clone(),
        }
    };
    let fates = recipients.iter().zip(&fates).map(settle).collect();
    Tried {
        fates,
        said,
        relay: connection.peer().to_string(),
        tls: connection.tls.as_deref().cloned(),
        began_micros,
        setup_micros: connection.setup_micros,
        ended_micros: wall_micros(),
    }
}

/// A final refusal, in the next hop's own words where there are some.
fn say(failure: &Failure) -> Said {
    match &failure.reply {
        Some(reply) => Said::new(reply.code, reply.enhanced, &reply.text),
        None => {
            let status = failure.status;
            Said::new(554, Some((status.0, status.1, status.2)), &failure.text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::reply::Reply;
    use crate::delivery::verdict::Status;

    #[test]
    fn only_what_is_said_of_the_mailbox_counts() {
        let table = [
            (Scope::Recipient, 550, "No"),
            (Scope::Recipient, 551, "No"),
            (Scope::Recipient, 552, "No"),
            (Scope::Recipient, 553, "No"),
            (Scope::Recipient, 554, "No"),
            (Scope::Recipient, 556, "No"),
            (Scope::Recipient, 450, "NotNow"),
            (Scope::Recipient, 451, "NotNow"),
            (Scope::Recipient, 452, "NotNow"),
            (Scope::Recipient, 421, "Unknown"),
            (Scope::Recipient, 455, "Unknown"),
            (Scope::Recipient, 500, "Unknown"),
            (Scope::Recipient, 501, "Unknown"),
            (Scope::Recipient, 503, "Unknown"),
            (Scope::Recipient, 530, "Unknown"),
            (Scope::Recipient, 555, "Unknown"),
            (Scope::Message, 550, "Unknown"),
            (Scope::Session, 554, "Unknown"),
            (Scope::Host, 554, "Unknown"),
        ];
        for (scope, code, expected) in table {
            let reply = Reply { code, enhanced: None, text: "x".into() };
            let (lasting, status) = (code >= 500, Status::of(&reply));
            let failure = Failure { scope, lasting, status, text: "x".into(), reply: Some(reply) };
            let found = format!("{:?}", taken(Fate::Failed(failure)));
            assert!(found.starts_with(expected), "{scope:?} {code}: {found}");
        }
        let reply = Reply { code: 251, enhanced: None, text: "x".into() };
        assert_eq!(taken(Fate::Delivered(reply)), Taken::Yes);
        let failure = Failure::local(Scope::Recipient, Status::BAD_RECIPIENT_SYNTAX, "x".into());
        assert_eq!(taken(Fate::Failed(failure)), Taken::Unknown);
    }

    #[test]
    fn a_refusal_of_our_own_is_said_with_its_status() {
        let failure = Failure::local(Scope::Host, Status::TOO_LARGE_FOR_HOST, "too large".into());
        assert_eq!(say(&failure).to_string(), "554 5.3.4 The destination says: too large");
    }
}
