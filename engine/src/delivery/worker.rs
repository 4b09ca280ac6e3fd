//! One connection's life: find a host of the next hop that answers, serve the messages of the hop over it.
//!
//! Lives on one delivery shard. A fault of the program ends that connection, never the shard.

use super::down::About;
use super::failure::{Failure, Recipients, rule};
use super::hop::{Hop, Opening, Trouble};
use super::opening::{Tries, open_any};
use super::serve::serve;
use super::shard::DeliveryShard;
use super::sorting;
use super::verdict::{Outcome, Peer, Status};
use crate::clock::{mail_date, monotonic_millis, wall_micros};
use crate::observe::log;
use futures_lite::FutureExt;
use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

/// Runs a connection that counts at its hop already.
pub async fn run(shard: Rc<DeliveryShard>, hop: Rc<Hop>) {
    // The hop that it serves; another one of the same site later, maybe.
    let serves = RefCell::new(hop);
    let served = AssertUnwindSafe(connect_and_serve(&shard, &serves)).catch_unwind().await;
    let hop = serves.into_inner();
    if served.is_err() {
        shard.counters.delivery_panics_total.add(1);
        log::note("delivery", "error: a connection ended by an internal fault");
        shard.plan_probe(&hop);
    }
    shard.connection_ended(&hop);
}

async fn connect_and_serve(shard: &Rc<DeliveryShard>, serves: &RefCell<Rc<Hop>>) {
    let hop = &serves.borrow().clone();
    if hop.next_hop.is_unsorted() {
        return sorting::sort(shard, hop).await;
    }
    let opening = Opening::of(hop);
    let found = match shard.candidates(&hop.next_hop).await {
        Ok(candidates) => candidates,
        Err(found) if found.lasting => return shard.refuse_all(hop, found.trouble).await,
        // The connections that work found their host; a look-up that fails now does not stop them.
        Err(_) if hop.site().is_some_and(|site| site.serving() > 0) => {
            return hop.site().iter().for_each(|site| site.hold());
        }
        Err(found) => return shard.hop_is_down(hop, found.trouble, About::NextHop),
    };
    let site = shard.site_of(hop, &found);
    let is_probe = hop.is_down();
    if site.is_down() && !is_probe {
        return shard.follow(hop, &site);
    }
    // It was not known before which site it is: that may have all it takes, or a connection to spare.
    if !is_probe && site.is_crowded() {
        if !site.idle.call(hop) {
            shard.wait_at(&site, hop, None);
        }
        return;
    }
    if let Err(at) = site.take_open(monotonic_millis()) {
        return match is_probe {
            true => shard.plan_probe(hop),
            false => {
                hop.guests.no_turn_before(at);
                shard.wait_at(&site, hop, Some(at));
            }
        };
    }
    let mut left = match shard.without_exhausted(&hop.next_hop, found) {
        Ok(left) => left,
        Err(next_day_micros) => return rest(shard, hop, next_day_micros),
    };
    let mut tries = Tries::default();
    while !left.is_empty() {
        if let Some(connection) = open_any(shard, hop, &mut left, &mut tries).await {
            let serving = site.greeted();
            shard.hop_answers(hop);
            drop(opening);
            return serve(shard, serves, connection, &left, serving).await;
        }
    }
    let (failure, peer) = tries.last.expect("a next hop that was found has at least one host");
    shard.counters.connects_failed_total.add(1);
    shard.heed(hop, &peer, &failure);
    if rule(failure.scope, failure.lasting, true).recipients == Recipients::Finish(Outcome::Bounced) {
        return shard.refuse_all(hop, trouble(&failure, &peer, failure.status)).await;
    }
    if site.is_down() && !is_probe {
        // Suspended, or another connection has found out meanwhile.
        return;
    }
    if site.serving() > 0 && !is_probe {
        // The others work; the host just does not want more of them.
        return site.hold();
    }
    // The messages wait whatever the host said (see the failure table), so the class is 4.
    let status = Status(4, failure.status.1, failure.status.2);
    // What a domain demands of its hosts' TLS, and hosts of its choosing under a name that others share, say nothing
    // of the site.
    let about = if tries.by_demand || hop.is_of_a_rule() { About::NextHop } else { About::Site };
    shard.hop_is_down(hop, trouble(&failure, &peer, status), about);
}

/// All source addresses have sent what they may today.
fn rest(shard: &Rc<DeliveryShard>, hop: &Rc<Hop>, next_day_micros: u64) {
    let until = mail_date(next_day_micros);
    let text =
        format!("the source addresses are being warmed up and have sent today's number; on from {until}");
    let trouble = Trouble {
        dsn: Status::CONGESTED.to_string().into(),
        text: text.as_str().into(),
        remote: "".into(),
        reply: None,
    };
    if !hop.is_down() {
        log::note("delivery", &format!("next hop {}: {text}", shard.name_of(&hop.next_hop)));
    }
    let time = Duration::from_micros(next_day_micros.saturating_sub(wall_micros()));
    shard.hop_is_down(hop, trouble, About::Suspension(time));
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
