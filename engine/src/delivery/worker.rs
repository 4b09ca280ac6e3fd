//! One connection's life: find a host of the next hop that answers, send it one message after the
//! other while there are any, wait a little for more, say QUIT.
//!
//! A fault of the program in one message ends that attempt (the message is put off) and that
//! connection, never the shard.

use super::connection::Connection;
use super::failure::{Failure, Recipients, rule};
use super::hop::{Hop, Item, Trouble};
use super::message::Message;
use super::settle::{Attempted, Timing, settle_attempt};
use super::shard::DeliveryShard;
use super::verdict::{Fate, Outcome, Peer, Status, Verdict};
use crate::clock::wall_micros;
use crate::observe::log;
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
    }
    hop.connection_ended();
    shard.feed(&hop);
}

async fn connect_and_serve(shard: &Rc<DeliveryShard>, hop: &Rc<Hop>) {
    let peers = match shard.lookup(&hop.next_hop).await {
        Ok(peers) => peers,
        Err(found) if found.lasting => return shard.refuse_all(hop, found.trouble).await,
        Err(found) => return shard.hop_is_down(hop, found.trouble),
    };
    let mut last = None;
    for (index, peer) in peers.iter().enumerate() {
        match open(shard, peer).await {
            Ok(connection) => {
                shard.hop_answers(hop);
                return serve(shard, hop, connection, &peers[index + 1..]).await;
            }
            Err(failure) => {
                log::note("delivery", &failure.text);
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

async fn open(shard: &DeliveryShard, peer: &Peer) -> Result<Connection, Failure> {
    shard.counters.connections_out_total.add(1);
    let timeout = shard.config.timeouts.connect;
    Connection::open(shard.settings.clone(), peer.clone(), timeout, shard.scratch.clone()).await
}

/// Messages over one connection, until it is used up, unused for too long, or broken.
async fn serve(shard: &Rc<DeliveryShard>, hop: &Rc<Hop>, mut connection: Connection, backups: &[Peer]) {
    let mut setup = connection.setup_micros;
    let messages_max = shard.config.delivery.messages_per_connection_max;
    while !shard.is_stopping() && (connection.transactions() as usize) < messages_max {
        let Some(item) = hop.take() else { if wait_for_work(shard, hop).await { continue } else { break } };
        shard.feed(hop);
        shard.transaction_began();
        let delivered =
            AssertUnwindSafe(deliver(shard, hop, &mut connection, item, backups, setup)).catch_unwind().await;
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
    connection.quit().await;
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
/// with each of the backup hosts in turn.
async fn deliver(
    shard: &Rc<DeliveryShard>,
    hop: &Rc<Hop>,
    connection: &mut Connection,
    mut item: Item,
    backups: &[Peer],
    setup_micros: u64,
) {
    let guard = super::settle::FaultGuard::new(shard, hop, &item);
    let began_micros = wall_micros();
    let (message, states) = match Message::of(&item, &shard.links).await {
        Ok(found) => found,
        Err(error) => {
            guard.disarm();
            return shard.unreadable(hop, item, &error);
        }
    };
    let mut open = still_waiting(&item, states.as_deref(), shard.config.delivery.recipients_max);
    if let Some(rest) = open.rest.take() {
        hop.push_front(rest);
        shard.feed(hop);
    }
    let mut recipients = open.now;
    let mut attempted = Vec::with_capacity(recipients.len());
    let stale = transact(connection, &message, &mut recipients, backups.is_empty(), &mut attempted).await;
    if stale {
        guard.disarm();
        item.group = crate::shard::links::Group::new(recipients);
        return hop.push_front(item);
    }
    for (index, peer) in backups.iter().enumerate() {
        if recipients.is_empty() {
            break;
        }
        let last_host = index + 1 == backups.len();
        match open_backup(shard, peer).await {
            Ok(mut backup) => {
                transact(&mut backup, &message, &mut recipients, last_host, &mut attempted).await;
                backup.quit().await;
            }
            Err(failure) => take_fates(
                vec![Fate::Failed(failure); recipients.len()],
                peer,
                last_host,
                &mut recipients,
                &mut attempted,
            ),
        }
    }
    guard.disarm();
    if attempted.iter().any(|done| done.verdict.outcome == Outcome::Delivered) {
        hop.succeeded();
    }
    let timing = Timing { began_micros, setup_micros, ended_micros: wall_micros() };
    settle_attempt(shard, hop, item, &message, attempted, timing).await;
}

async fn open_backup(shard: &DeliveryShard, peer: &Peer) -> Result<Connection, Failure> {
    open(shard, peer).await
}

/// One transaction. Recipients that are decided move from `recipients` to `attempted`. True when the
/// peer had closed the unused connection before: nothing was tried, nothing is decided.
async fn transact(
    connection: &mut Connection,
    message: &Message,
    recipients: &mut Vec<u32>,
    last_host: bool,
    attempted: &mut Vec<Attempted>,
) -> bool {
    let fates = match connection.transact(message, recipients).await {
        Ok(fates) => fates,
        Err(failed) if failed.was_stale => return true,
        Err(failed) => failed.fates,
    };
    take_fates(fates, connection.peer(), last_host, recipients, attempted);
    false
}

fn take_fates(
    fates: Vec<Fate>,
    peer: &Peer,
    last_host: bool,
    recipients: &mut Vec<u32>,
    attempted: &mut Vec<Attempted>,
) {
    debug_assert_eq!(fates.len(), recipients.len());
    let mut fates = fates.into_iter();
    recipients.retain(|&recipient| {
        let verdict = fates.next().and_then(|fate| Verdict::of(&fate, Some(peer), last_host));
        match verdict {
            None => true,
            Some(verdict) => {
                attempted.push(Attempted { recipient, verdict, relay: peer.to_string() });
                false
            }
        }
    });
}

/// What of an item is sent in one transaction, and what waits for the next.
struct Open {
    now: Vec<u32>,
    rest: Option<Item>,
}

fn still_waiting(item: &Item, states: Option<&[RecipientState]>, recipients_max: usize) -> Open {
    let is_waiting =
        |index: u32| states.is_none_or(|states| states.get(index as usize).is_some_and(|s| !s.is_finished()));
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
        is_reply: failure.reply.is_some(),
    }
}
