//! One connection's life: find a host of the next hop that answers, serve the messages of the hop over it.
//!
//! Lives on one delivery shard. A fault of the program ends that connection, never the shard.

use super::failure::{Failure, Recipients, rule};
use super::hop::{Hop, Trouble};
use super::opening::open_any;
use super::serve::serve;
use super::shard::DeliveryShard;
use super::sorting;
use super::verdict::{Outcome, Peer, Status};
use crate::observe::log;
use futures_lite::FutureExt;
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
    if hop.next_hop.is_unsorted() {
        return sorting::sort(shard, hop).await;
    }
    let mut left = match shard.candidates(&hop.next_hop).await {
        Ok(candidates) => candidates,
        Err(found) if found.lasting => return shard.refuse_all(hop, found.trouble).await,
        // The connections that work found their host; a look-up that fails now does not stop them.
        Err(_) if hop.connections() > 1 => return hop.shrink(),
        Err(found) => return shard.hop_is_down(hop, found.trouble),
    };
    let mut last = None;
    while !left.is_empty() {
        if let Some(connection) = open_any(shard, hop, &mut left, &mut last).await {
            shard.hop_answers(hop);
            return serve(shard, hop, connection, &left).await;
        }
    }
    let (failure, peer) = last.expect("a next hop that was found has at least one host");
    shard.counters.connects_failed_total.add(1);
    if rule(failure.scope, failure.lasting, true).recipients == Recipients::Finish(Outcome::Bounced) {
        return shard.refuse_all(hop, trouble(&failure, &peer, failure.status)).await;
    }
    if hop.connections() > 1 {
        // The others work; the host just does not want more of them.
        return hop.shrink();
    }
    // The messages wait whatever the host said (see the failure table), so the class is 4.
    let status = Status(4, failure.status.1, failure.status.2);
    shard.hop_is_down(hop, trouble(&failure, &peer, status));
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
