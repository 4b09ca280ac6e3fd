//! What a connection does for one guest: asks about a recipient, or delivers a message, and heeds what the host says.
//!
//! Lives on one delivery shard, in the task of the connection. A message is tried once, on one host. What is not final
//! after that is for the queue, with its backup hosts and its retries. An attempt that has begun is never dropped,
//! whoever still waits for it.

use super::client::{Event, SessionFailure};
use super::connection::Connection;
use super::failure::{Failure, Scope};
use super::guest::{Guest, Wants, words};
use super::hop::{Hop, Item};
use super::message::Message;
use super::settle::is_relayed;
use super::shard::DeliveryShard;
use super::verdict::{Fate, Outcome, Verdict};
use crate::clock::wall_micros;
use crate::cut_through::{Ended, Offer, Taken, Tried};
use crate::shard::links::{self, Disposition, Fresh, Group, Luggage};
use crate::smtp::said::Said;
use std::rc::Rc;
use std::sync::Arc;

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
