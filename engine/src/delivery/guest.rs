//! Guests of a next hop: a question or a message whose client waits for the answer (cut-through).
//!
//! Lives on one delivery shard. A guest waits at its [`Hop`](super::hop::Hop) and is served by the connections of that
//! hop, which are those of the queue: so it counts at the site, keeps its rates and the warm-up of the source
//! address, and what the host says is heeded, all as of any delivery. A connection that is free serves a guest before
//! the next message of the queue, then one of these, so neither holds the other up.
//!
//! Where there is no place or no turn in time, or the next hop is down, a guest is turned away: a message goes by the
//! queue, of a recipient nobody can say anything. A message is tried once, on one host. What is not final after that
//! is for the queue, with its backup hosts and its retries. An attempt that has begun is never dropped, whoever still
//! waits for it.

use super::client::{Event, SessionFailure};
use super::connection::Connection;
use super::failure::{Failure, Scope};
use super::hop::{Hop, Item};
use super::message::Message;
use super::places::NoTurn;
use super::settle::is_relayed;
use super::shard::DeliveryShard;
use super::verdict::{Fate, Outcome, Verdict};
use crate::clock::{mail_date, monotonic_millis, wall_micros};
use crate::cut_through::{Ended, Key, Offer, Taken, Tried};
use crate::shard::links::{self, Disposition, Fresh, Group, Luggage};
use crate::smtp::said::Said;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// To those that wait when the relay stops.
pub const STOPS: &str = "the relay stops";
/// To one whose time is over.
pub const TOO_LATE: &str = "no connection could be had in time";

/// One that waits, or is served.
pub struct Guest {
    number: u64,
    /// It waits no longer than until then, on the shard's monotonic clock.
    until_millis: u64,
    wants: Wants,
}

pub enum Wants {
    /// To know whether a recipient is taken. `address`: as the next hop is told it.
    Answer { key: Key, address: Box<str>, reply: oneshot::Sender<Taken> },
    /// A message taken. `begun`: it has its claim. `_over` goes with the guest.
    Delivery { offer: Box<Offer>, begun: bool, _over: oneshot::Sender<()> },
}

impl Guest {
    fn turn_away(self, why: &str) {
        match self.wants {
            Wants::Answer { reply, .. } => drop(reply.send(Taken::Unknown)),
            Wants::Delivery { offer, .. } => drop(offer.reply.send(Ended::Untried(why.into()))),
        }
    }
}

/// The guests of one next hop, in order.
#[derive(Default)]
pub struct Guests {
    waiting: RefCell<VecDeque<Guest>>,
    /// The number of the last one.
    last: Cell<u64>,
    /// Those that are served.
    served: Cell<usize>,
}

impl Guests {
    /// Returns its number.
    pub fn push(&self, wants: Wants, until_millis: u64) -> u64 {
        let number = self.last.get() + 1;
        self.last.set(number);
        self.waiting.borrow_mut().push_back(Guest { number, until_millis, wants });
        number
    }

    /// One that was taken is to be served by another connection, if its time is not over.
    pub fn push_front(&self, guest: Guest, now: u64) {
        match now < guest.until_millis {
            true => self.waiting.borrow_mut().push_front(guest),
            false => guest.turn_away(TOO_LATE),
        }
    }

    pub fn take(&self) -> Option<Guest> {
        self.waiting.borrow_mut().pop_front()
    }

    /// That one, while it waits.
    pub fn take_back(&self, number: u64) -> Option<Guest> {
        let mut waiting = self.waiting.borrow_mut();
        let place = waiting.iter().position(|guest| guest.number == number)?;
        waiting.remove(place)
    }

    pub fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }

    pub fn served(&self) -> usize {
        self.served.get()
    }

    pub fn turn_away(&self, why: &str) {
        self.waiting.take().into_iter().for_each(|guest| guest.turn_away(why));
    }

    /// The site's rates leave no turn before this moment. A message has the queue to go by; a question that can wait
    /// so long does.
    pub fn no_turn_before(&self, at: u64) {
        let goes = |guest: &Guest| at >= guest.until_millis || matches!(guest.wants, Wants::Delivery { .. });
        let (gone, stay): (VecDeque<_>, VecDeque<_>) = self.waiting.take().into_iter().partition(goes);
        self.waiting.replace(stay);
        gone.into_iter().for_each(|guest| guest.turn_away(&words(&NoTurn::Before(at))));
    }
}

/// A guest is being served until this is dropped.
pub struct AtTable(Rc<Hop>);

impl AtTable {
    pub fn of(hop: &Rc<Hop>) -> Self {
        hop.guests.served.set(hop.guests.served.get() + 1);
        Self(hop.clone())
    }
}

impl Drop for AtTable {
    fn drop(&mut self) {
        let served = &self.0.guests.served;
        served.set(served.get() - 1);
    }
}

/// One that waits, for who brought it: it leaves when this is dropped.
pub struct Waits {
    pub hop: Rc<Hop>,
    pub number: u64,
}

impl Waits {
    pub fn turn_away(&self, why: &str) {
        self.hop.guests.take_back(self.number).into_iter().for_each(|guest| guest.turn_away(why));
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        drop(self.hop.guests.take_back(self.number));
    }
}

/// Who serves a guest, beside the connection itself.
pub struct Table<'a> {
    pub shard: &'a Rc<DeliveryShard>,
    pub hop: &'a Rc<Hop>,
    /// No other host of the next hop is left that could take what this one refuses.
    pub last_host: bool,
    /// Zero on a connection that was there before.
    pub setup_micros: u64,
    /// The host has taken a message over the connection.
    pub has_delivered: bool,
}

/// What came of it.
pub enum Served {
    Over {
        /// The host took a message.
        delivered: bool,
    },
    /// The connection was closed while it was unused, or takes no more: another one is to serve the guest.
    Elsewhere(Guest),
}

const NOTHING_TAKEN: Served = Served::Over { delivered: false };

impl Table<'_> {
    pub async fn serve(&self, connection: &mut Connection, guest: Guest) -> Served {
        let Guest { number, until_millis, wants } = guest;
        let elsewhere = |wants| Served::Elsewhere(Guest { number, until_millis, wants });
        match wants {
            Wants::Answer { key, address, reply } => {
                if reply.is_closed() {
                    return NOTHING_TAKEN;
                }
                match self.ask(connection, &address).await {
                    Some(taken) => {
                        // Who asks next may have it, though this one waits no more.
                        if let Err(taken) = reply.send(taken) {
                            self.shard.cut_through.remember(&key, &taken);
                        }
                        NOTHING_TAKEN
                    }
                    None => elsewhere(Wants::Answer { key, address, reply }),
                }
            }
            Wants::Delivery { offer, begun, _over } => {
                if !begun && !offer.claim.begin() {
                    return NOTHING_TAKEN;
                }
                match self.deliver(connection, &offer).await {
                    Some(ended) => {
                        let delivered = matches!(&ended, Ended::Tried(tried) if tried.is_any_taken());
                        drop(offer.reply.send(ended));
                        Served::Over { delivered }
                    }
                    None => elsewhere(Wants::Delivery { offer, begun: true, _over }),
                }
            }
        }
    }

    /// `None`: on another connection.
    async fn ask(&self, connection: &mut Connection, address: &str) -> Option<Taken> {
        self.shard.counters.recipients_asked_total.add(1);
        let fate = match connection.ask(address).await {
            Ok(fate) => fate,
            Err(SessionFailure { was_stale: true, .. }) => return None,
            // Refused before the session failed, by 421 behind it say, is refused.
            Err(failed) => match failed.fates.into_iter().next() {
                Some(fate) => fate,
                None => return Some(Taken::Unknown),
            },
        };
        if self.has_had_its_fill(connection) {
            return None;
        }
        self.shard.heed_fate(self.hop, connection.peer(), &fate, &mut None);
        Some(taken(fate))
    }

    /// Many hosts take a number of messages over one connection, and say 4yz to the next MAIL.
    fn has_had_its_fill(&self, connection: &Connection) -> bool {
        self.has_delivered && connection.is_put_off_at_mail()
    }

    /// `None`: on another connection.
    async fn deliver(&self, connection: &mut Connection, offer: &Offer) -> Option<Ended> {
        let message = match self.message(connection, offer).await {
            Ok(message) => message,
            Err(why) => return Some(Ended::Untried(why)),
        };
        if let Err(why) = self.shard.take_turn(self.hop, connection.source) {
            return Some(Ended::Untried(words(&why)));
        }
        self.shard.transaction_began();
        let _ends = Ends(self.shard.clone());
        let began_micros = wall_micros();
        let fates = match transact(connection, &message, &offer.recipients).await {
            Ok(fates) => fates,
            Err(SessionFailure { was_stale: true, .. }) => return None,
            Err(failed) => failed.fates,
        };
        if self.has_had_its_fill(connection) {
            return None;
        }
        Some(Ended::Tried(Box::new(self.tried(
            connection,
            &message,
            &offer.recipients,
            &fates,
            began_micros,
        ))))
    }

    /// The message as it goes out in one transaction; `Err`: why it cannot.
    async fn message(&self, connection: &Connection, offer: &Offer) -> Result<Message, String> {
        let envelope = offer.envelope.clone();
        let item = Item {
            id: offer.id,
            group: Group::new(offer.recipients.clone()),
            attempts: 0,
            notified: false,
            announced: false,
            faults: 0,
            priority: 0,
            arrived_micros: envelope.arrived_micros,
            luggage: Luggage::new(
                Some(Fresh { envelope, content: offer.content.clone(), flags: offer.flags }),
                None,
            ),
        };
        let (mut message, _) = Message::of(&item, &self.shard.links).await?;
        let (mut left, most) =
            (offer.recipients.clone(), self.shard.limits_of(&self.hop.next_hop).recipients_max);
        connection.take_share(&message, &mut left, most);
        let route = self.shard.config.routes.get(usize::from(self.hop.next_hop.route));
        let rules = route.and_then(|route| route.rewrite.as_ref());
        // With VERP each recipient has a transaction of its own.
        let divides = offer.recipients.len() > 1 && rules.is_some_and(|rules| rules.divides_recipients());
        if divides || !left.is_empty() {
            return Err("too many recipients for one transaction".into());
        }
        if let Some(rules) = rules {
            message.rewrite(rules, &offer.recipients, &self.shard.config).await?;
        }
        Ok(message)
    }

    fn tried(
        &self,
        connection: &Connection,
        message: &Message,
        recipients: &[u32],
        fates: &[Fate],
        began_micros: u64,
    ) -> Tried {
        let (mut said, mut wait, mut heeded) = (None, None, None);
        let settle = |(&recipient, fate): (&u32, &Fate)| {
            let asked = self.shard.heed_fate(self.hop, connection.peer(), fate, &mut heeded);
            let verdict = Verdict::of(fate, Some(connection.peer()), self.last_host);
            let disposition = match verdict.as_ref().map(|verdict| verdict.outcome) {
                Some(Outcome::Delivered) if is_relayed(&message.envelope, recipient, connection.tells()) => {
                    Disposition::Relayed
                }
                Some(Outcome::Delivered) => Disposition::Delivered,
                Some(Outcome::Bounced) => Disposition::Bounced,
                Some(Outcome::Deferred) => {
                    wait = wait.max(asked);
                    Disposition::Deferred { notice: false, notified: false }
                }
                None => Disposition::Deferred { notice: false, notified: false },
            };
            if let (Disposition::Bounced, Fate::Failed(failure)) = (disposition, fate) {
                said.get_or_insert_with(|| say(failure));
            }
            if matches!(disposition, Disposition::Delivered | Disposition::Relayed) {
                self.shard.counters.recipients_delivered_total.add(1);
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
        let fates: Vec<links::Fate> = recipients.iter().zip(fates).map(settle).collect();
        let tried = Tried {
            fates,
            said,
            wait,
            relay: connection.peer().to_string(),
            tls: connection.tls.as_deref().cloned(),
            began_micros,
            setup_micros: self.setup_micros,
            ended_micros: wall_micros(),
        };
        if tried.is_any_taken() {
            self.hop.site().iter().for_each(|site| site.succeeded());
        }
        tried
    }
}

/// The transaction that has begun is over, however it ended.
struct Ends(Rc<DeliveryShard>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.transaction_ended();
    }
}

fn words(why: &NoTurn) -> String {
    match why {
        NoTurn::Before(at) => {
            let wait = Duration::from_millis(at.saturating_sub(monotonic_millis()));
            let at = mail_date(wall_micros() + wait.as_micros() as u64);
            format!("its site has no turn before {at}")
        }
        NoTurn::Exhausted => "the source address is being warmed up and has sent today's number".into(),
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
    use crate::shard::links::{Budget, NextHop};
    use sluice_queue::{ContentFlags, QueueId};

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

    fn question(guests: &Guests, until_millis: u64) -> oneshot::Receiver<Taken> {
        let (reply, taken) = oneshot::channel();
        let key = (NextHop::of_route(0), "a@b.test".into());
        guests.push(Wants::Answer { key, address: "a@b.test".into(), reply }, until_millis);
        taken
    }

    fn offer(guests: &Guests, until_millis: u64) -> oneshot::Receiver<Ended> {
        let (reply, ended) = oneshot::channel();
        let offer = Offer {
            id: QueueId::from_bits(1),
            next_hop: NextHop::of_route(0),
            recipients: vec![0],
            envelope: Arc::default(),
            content: Budget::new(1).hold(Arc::default()).unwrap(),
            flags: ContentFlags::default(),
            wait: Duration::ZERO,
            claim: Arc::default(),
            reply,
        };
        let wants = Wants::Delivery { offer: Box::new(offer), begun: false, _over: oneshot::channel().0 };
        guests.push(wants, until_millis);
        ended
    }

    #[test]
    fn without_a_turn_messages_go_by_the_queue_and_questions_wait_as_long_as_they_can() {
        let guests = Guests::default();
        let (mut long, mut short) = (question(&guests, 2_000), question(&guests, 1_000));
        let mut message = offer(&guests, 2_000);
        guests.no_turn_before(1_000);
        assert_eq!(guests.waiting(), 1);
        assert!(long.try_recv().is_err());
        assert_eq!(short.try_recv(), Ok(Taken::Unknown));
        let Ok(Ended::Untried(why)) = message.try_recv() else { panic!("it has its end") };
        assert!(why.starts_with("its site has no turn before "), "{why}");
    }

    #[test]
    fn one_that_is_to_be_served_elsewhere_comes_first_and_waits_no_longer_than_it_would_have() {
        let guests = Guests::default();
        let (mut first, _second) = (offer(&guests, 1_000), offer(&guests, 2_000));
        let taken = guests.take().unwrap();
        guests.push_front(taken, 999);
        let taken = guests.take().unwrap();
        assert_eq!(taken.until_millis, 1_000, "the first");
        guests.push_front(taken, 1_000);
        assert_eq!(guests.waiting(), 1);
        assert!(matches!(first.try_recv(), Ok(Ended::Untried(why)) if why == TOO_LATE));
    }

    #[test]
    fn one_whose_client_is_gone_waits_no_more() {
        let hop = Rc::new(Hop::new(NextHop::of_route(0)));
        let _taken = question(&hop.guests, 1_000);
        let number = hop.guests.push(
            Wants::Answer {
                key: (NextHop::of_route(0), "c@d.test".into()),
                address: "c@d.test".into(),
                reply: oneshot::channel().0,
            },
            1_000,
        );
        drop(Waits { hop: hop.clone(), number });
        assert_eq!(hop.guests.waiting(), 1);
        assert!(hop.guests.take_back(number).is_none());
        assert!(!hop.is_unused());
    }

    #[test]
    fn a_refusal_of_our_own_is_said_with_its_status() {
        let failure = Failure::local(Scope::Host, Status::TOO_LARGE_FOR_HOST, "too large".into());
        assert_eq!(say(&failure).to_string(), "554 5.3.4 The destination says: too large");
    }
}
