//! One connection's life: find a host of the next hop that answers, send it one message after the
//! other while there are any, wait a little for more, say QUIT.
//!
//! A fault of the program in one message ends that attempt (the message is put off) and that
//! connection, never the shard.

use super::client::StartTls;
use super::connection::{Broken, Connection, Unopened, Wish};
use super::failure::{Failure, Recipients, rule};
use super::hop::{Hop, Item, Trouble};
use super::message::Message;
use super::settle::{Attempted, FaultGuard, Timing, settle_attempt};
use super::shard::DeliveryShard;
use super::steer::InHands;
use super::verdict::{Fate, Outcome, Peer, Status, Verdict};
use crate::clock::wall_micros;
use crate::config::TlsRule;
use crate::observe::log;
use crate::shard::links::NextHop;
use crate::tls::outward::PeerTls;
use futures_lite::FutureExt;
use sluice_queue::RecipientState;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

/// Runs a connection for which [`Hop::call`] or [`Hop::begin_probe`] has taken the place.
pub async fn run(shard: Rc<DeliveryShard>, hop: Rc<Hop>) {
    let served = AssertUnwindSafe(connect_and_serve(&shard, &hop)).catch_unwind().await;
    if served.is_err() {
        shard.counters.delivery_panics_total.add(1);
        log::note("delivery", "error: a connection ended by an internal fault");
        shard.plan_probe(&hop);
    }
    shard.connection_ended(&hop);
}

async fn connect_and_serve(shard: &Rc<DeliveryShard>, hop: &Rc<Hop>) {
    let peers = match shard.lookup(&hop.next_hop).await {
        Ok(peers) => peers,
        Err(found) if found.lasting => return shard.refuse_all(hop, found.trouble).await,
        // The connections that work found their host; a look-up that fails now does not stop them.
        Err(_) if hop.connections() > 1 => return hop.shrink(),
        Err(found) => return shard.hop_is_down(hop, found.trouble),
    };
    let mut last = None;
    for (index, peer) in peers.iter().enumerate() {
        match open(shard, &hop.next_hop, peer).await {
            Ok(connection) => {
                shard.hop_answers(hop);
                return serve(shard, hop, connection, &peers[index + 1..]).await;
            }
            Err(failure) => {
                // While the hop is down each probe fails; the log has said so.
                if hop.trouble().is_none() {
                    log::note("delivery", &failure.text);
                }
                last = Some((failure, peer));
            }
        }
    }
    let (failure, peer) = last.expect("a next hop that was found has at least one host");
    shard.counters.connects_failed_total.add(1);
    if rule(failure.scope, failure.lasting, true).recipients == Recipients::Finish(Outcome::Bounced) {
        return shard.refuse_all(hop, trouble(&failure, peer, failure.status)).await;
    }
    if hop.connections() > 1 {
        // The others work; the host just does not want more of them.
        return hop.shrink();
    }
    // The messages wait whatever the host said (see the failure table), so the class is 4.
    let status = Status(4, failure.status.1, failure.status.2);
    shard.hop_is_down(hop, trouble(&failure, peer, status));
}

/// Connects to one host. Where the route may do without TLS, a host whose TLS does not work is talked to in
/// clear text.
async fn open(shard: &DeliveryShard, next_hop: &NextHop, peer: &Peer) -> Result<Connection, Failure> {
    let tls = shard.tls_of(next_hop);
    let mut wish = Wish {
        settings: shard.settings.clone(),
        connect_timeout: shard.config.timeouts.connect,
        handshake_timeout: shard.config.timeouts.handshake,
        starttls: match tls.rule {
            _ if tls.implicit => StartTls::Never,
            TlsRule::None => StartTls::Never,
            TlsRule::May if shard.broken_tls.knows(peer.address) => StartTls::Never,
            TlsRule::May => StartTls::May,
            TlsRule::Encrypt | TlsRule::Verify | TlsRule::Fingerprint => StartTls::Must,
        },
        login: shard.login_of(next_hop),
        tls,
        domain: next_hop.domain.as_deref(),
    };
    let opened = connect(shard, &wish, peer).await;
    match opened {
        Err(Unopened::Tls(failure)) if wish.starttls == StartTls::May => {
            log::note("delivery", &format!("{}; going on in clear text", failure.text));
            shard.broken_tls.remember(peer.address);
            wish.starttls = StartTls::Never;
            connect(shard, &wish, peer).await.map_err(Failure::from)
        }
        other => other.map_err(Failure::from),
    }
}

async fn connect(shard: &DeliveryShard, wish: &Wish<'_>, peer: &Peer) -> Result<Connection, Unopened> {
    shard.counters.connections_out_total.add(1);
    let opened = Connection::open(wish, peer.clone(), shard.scratch.clone()).await;
    match &opened {
        Ok(connection) => {
            let tls = connection.tls.as_ref();
            shard.counters.tls_out_handshakes_total.add(u64::from(tls.is_some()));
            shard.counters.tls_out_resumed_total.add(u64::from(tls.is_some_and(|tls| tls.resumed)));
        }
        Err(Unopened::Tls(_)) => shard.counters.tls_out_failed_total.add(1),
        Err(Unopened::Failed(_)) => {}
    }
    opened
}

/// Messages over one connection, until it is used up, unused for too long, or broken.
async fn serve(shard: &Rc<DeliveryShard>, hop: &Rc<Hop>, mut connection: Connection, backups: &[Peer]) {
    let mut setup = connection.setup_micros;
    let messages_max = shard.config.delivery.messages_per_connection_max;
    while !shard.is_stopping() && (connection.transactions() as usize) < messages_max {
        let Some(item) = hop.take() else { if wait_for_work(shard, hop).await { continue } else { break } };
        let hands = shard.in_hands(&item);
        shard.feed(hop);
        shard.transaction_began();
        let delivery = deliver(shard, hop, &mut connection, (item, &hands), backups, setup);
        let delivered = AssertUnwindSafe(delivery).catch_unwind().await;
        drop(hands);
        shard.transaction_ended();
        setup = 0;
        if delivered.is_err() {
            shard.counters.delivery_panics_total.add(1);
            return;
        }
        if !connection.is_ready() {
            return;
        }
    }
    connection.quit();
}

/// False when the connection has been unused for long enough, or the shard stops.
async fn wait_for_work(shard: &DeliveryShard, hop: &Hop) -> bool {
    let called = async {
        hop.wait_for_call().await;
        true
    };
    let unused = async {
        glommio::timer::sleep(shard.config.delivery.idle).await;
        false
    };
    called.or(unused).await
}

/// One message: a transaction on this connection, and for the recipients that this host put off, one
/// with each of the backup hosts in turn. What a host has decided is settled before the next is asked.
async fn deliver(
    shard: &Rc<DeliveryShard>,
    hop: &Rc<Hop>,
    connection: &mut Connection,
    (item, hands): (Item, &InHands),
    backups: &[Peer],
    setup_micros: u64,
) {
    let guard = FaultGuard::new(shard, hop, &item);
    let (message, states) = match Message::of(&item, &shard.links).await {
        Ok(found) => found,
        Err(error) => {
            guard.disarm();
            return shard.unreadable(hop, item, &error);
        }
    };
    let mut open = still_waiting(&item, states.as_deref(), shard.config.delivery.recipients_max);
    if let Some(rest) = open.rest.take() {
        shard.give_back(hop, rest);
        hands.cover(&open.now);
        shard.feed(hop);
    }
    guard.cover(&open.now);
    let mut attempt = Attempt { shard, hop, item, message, recipients: open.now };
    let timing = Timing { began_micros: wall_micros(), setup_micros, ended_micros: 0 };
    let mut tried = attempt.transact(connection, backups.is_empty(), timing).await;
    for (index, peer) in backups.iter().enumerate() {
        if attempt.recipients.is_empty() || tried != Tried::Host || shard.is_stopping() {
            break;
        }
        guard.cover(&attempt.recipients);
        tried = attempt.with_backup(peer, index + 1 == backups.len()).await;
    }
    guard.disarm();
    attempt.end(tried);
}

/// One attempt at one message, and those of its recipients that are not decided yet.
struct Attempt<'a> {
    shard: &'a Rc<DeliveryShard>,
    hop: &'a Rc<Hop>,
    item: Item,
    message: Message,
    recipients: Vec<u32>,
}

/// A host, and what its TLS is.
type Reached<'a> = (&'a Peer, Option<Rc<PeerTls>>);

/// What came of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tried {
    /// What the host decided is settled.
    Host,
    /// The peer had closed the unused connection before: nothing was tried, nothing is decided.
    Stale,
    /// The spool could not give the content.
    Unreadable(String),
}

impl Attempt<'_> {
    async fn transact(&mut self, connection: &mut Connection, last_host: bool, timing: Timing) -> Tried {
        let fates = match connection.transact(&self.message, &self.recipients).await {
            Ok(fates) => fates,
            Err(Broken::Session(failed)) if failed.was_stale => return Tried::Stale,
            Err(Broken::Session(failed)) => failed.fates,
            Err(Broken::Unreadable(error)) => return Tried::Unreadable(error),
        };
        let peer = connection.peer().clone();
        self.settle(fates, (&peer, connection.tls.clone()), last_host, timing).await;
        Tried::Host
    }

    async fn with_backup(&mut self, peer: &Peer, last_host: bool) -> Tried {
        let mut timing = Timing { began_micros: wall_micros(), setup_micros: 0, ended_micros: 0 };
        match open(self.shard, &self.hop.next_hop, peer).await {
            Ok(mut backup) => {
                timing.setup_micros = backup.setup_micros;
                let tried = self.transact(&mut backup, last_host, timing).await;
                backup.quit();
                tried
            }
            Err(failure) => {
                let fates = vec![Fate::Failed(failure); self.recipients.len()];
                self.settle(fates, (peer, None), last_host, timing).await;
                Tried::Host
            }
        }
    }

    async fn settle(&mut self, fates: Vec<Fate>, peer: Reached<'_>, last_host: bool, mut timing: Timing) {
        let attempted = take_fates(fates, peer, last_host, &mut self.recipients);
        if attempted.iter().any(|done| done.verdict.outcome == Outcome::Delivered) {
            self.hop.succeeded();
        }
        timing.ended_micros = wall_micros();
        settle_attempt(self.shard, self.hop, &self.item, &self.message, attempted, timing).await;
    }

    /// Recipients that nobody decided go back to where they came from.
    fn end(self, tried: Tried) {
        match tried {
            Tried::Unreadable(error) => {
                let rest = self.item.with_group(self.recipients);
                self.shard.unreadable(self.hop, rest, &error);
            }
            _ if self.recipients.is_empty() => {}
            Tried::Stale | Tried::Host => {
                let mut rest = self.item.with_group(self.recipients);
                rest.fresh = self.item.fresh;
                self.shard.give_back(self.hop, rest);
            }
        }
    }
}

/// Recipients that are decided move out of `recipients`.
fn take_fates(
    fates: Vec<Fate>,
    (peer, tls): Reached<'_>,
    last_host: bool,
    recipients: &mut Vec<u32>,
) -> Vec<Attempted> {
    assert_eq!(fates.len(), recipients.len(), "every recipient has its fate");
    let mut attempted = Vec::with_capacity(fates.len());
    let mut fates = fates.into_iter();
    recipients.retain(|&recipient| {
        let verdict = fates.next().and_then(|fate| Verdict::of(&fate, Some(peer), last_host));
        match verdict {
            None => true,
            Some(verdict) => {
                attempted.push(Attempted { recipient, verdict, relay: peer.to_string(), tls: tls.clone() });
                false
            }
        }
    });
    attempted
}

/// What of an item is sent in one transaction, and what waits for the next.
struct Open {
    now: Vec<u32>,
    rest: Option<Item>,
}

fn still_waiting(item: &Item, states: Option<&[RecipientState]>, recipients_max: usize) -> Open {
    let is_waiting = |index: u32| {
        states.is_none_or(|states| states.get(index as usize).is_some_and(|state| state.is_open()))
    };
    let mut now: Vec<u32> = item.group.indexes().iter().copied().filter(|&index| is_waiting(index)).collect();
    let rest = (now.len() > recipients_max).then(|| item.with_group(now.split_off(recipients_max)));
    Open { now, rest }
}

/// A failure to reach a host, in the words that its messages wait with.
fn trouble(failure: &Failure, peer: &Peer, status: Status) -> Trouble {
    Trouble {
        dsn: status.to_string().into(),
        text: failure.text.as_str().into(),
        remote: peer.name.as_str().into(),
        reply: failure.reply.as_ref().map(|reply| reply.to_string().into()),
    }
}
