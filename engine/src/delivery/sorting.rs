//! Messages whose recipients' servers must be looked up in the table of their route (S13).
//!
//! Lives on one delivery shard. Such a message first waits in a hop without hosts ([`NextHop::is_unsorted`]); what
//! elsewhere is a connection is here a task that takes one message after the other, asks the table for each
//! recipient, and puts the message into the hops of the servers, which share their connections with every other
//! message for the same server. A directory that cannot be asked is a next hop that is down: nothing is
//! bounced, nothing burns an attempt, one probe at a time asks again. A message that is put off comes back here,
//! so that a mailbox that has moved is tried at its new server; after a restart everything comes here first.
//!
//! A recipient for whom the table names no server goes to the route's own hosts; one that the table does not have
//! too, or is returned with 5.1.1.

use super::balance;
use super::down::About;
use super::hop::{Hop, Item, Trouble};
use super::message::Message;
use super::settle::{Attempted, Tells, Timing, Waits, settle_attempt, settle_trouble};
use super::shard::DeliveryShard;
use super::verdict::{Outcome, Status, Verdict};
use crate::clock::wall_micros;
use crate::config::{Recipients, Table, Target, Unknown};
use crate::recipients::{Holder, NO_HOSTS, is_postmaster};
use crate::shard::links::{Choice, Fresh, Luggage, NextHop};
use futures_util::StreamExt;
use futures_util::stream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Recipients of one message that are asked for at a time.
const QUESTIONS_AT_ONCE: usize = 16;
/// A table that is being exchanged is there again after this.
const EXCHANGE_WAIT: Duration = Duration::from_millis(1);

/// Where the recipients of one message go.
#[derive(Default)]
struct Sorted {
    /// By next hop, in the order of their first recipient.
    hops: Vec<(NextHop, Vec<u32>)>,
    refused: Vec<u32>,
    unclear: Vec<(u32, Arc<str>)>,
}

/// Goes through what is ready, until nothing is left or the table cannot be asked.
pub async fn sort(shard: &Rc<DeliveryShard>, hop: &Rc<Hop>) {
    while !shard.is_stopping() {
        let Some(item) = hop.take() else { return };
        let hands = shard.in_hands(&item);
        let (message, states) = match Message::envelope_of(&item, &shard.links).await {
            Ok(found) => found,
            Err(error) => {
                shard.unreadable(hop, item, &error);
                continue;
            }
        };
        let is_open = |index: &u32| {
            states
                .as_ref()
                .is_none_or(|states| states.get(*index as usize).is_some_and(|state| state.is_open()))
        };
        let open: Vec<u32> = item.group.indexes().iter().copied().filter(is_open).collect();
        let sorted = match sorted(shard, hop, &item, &message, &open).await {
            Ok(sorted) => sorted,
            Err(trouble) => {
                shard.give_back(hop, item);
                return shard.hop_is_down(hop, trouble, About::NextHop);
            }
        };
        shard.hop_answers(hop);
        settle_rest(shard, hop, &item, &message, &sorted).await;
        let still: Vec<u32> = sorted.hops.iter().flat_map(|(_, indexes)| indexes).copied().collect();
        hands.cover(&still);
        pass_on(shard, item, sorted.hops);
        drop(hands);
        shard.feed(hop);
        glommio::yield_if_needed().await;
    }
}

async fn sorted(
    shard: &Rc<DeliveryShard>,
    hop: &Hop,
    item: &Item,
    message: &Message,
    open: &[u32],
) -> Result<Sorted, Trouble> {
    let route = usize::from(hop.next_hop.route);
    let of_route = shard.config.routes.get(route).and_then(|route| Some((route, route.recipients.as_ref()?)));
    let Some((settings, recipients)) = of_route else { return Ok(Sorted::default()) };
    let Target::SmartHosts(hosts) = &settings.target else { return Ok(Sorted::default()) };
    let mut sorted = Sorted::default();
    let address = |index: u32| message.envelope.recipients.get(index as usize).map_or("", |of| &of.address);
    let questions = open
        .iter()
        .map(|&index| async move { (index, holder(shard, route, recipients, address(index)).await) });
    let mut answers = stream::iter(questions).buffered(QUESTIONS_AT_ONCE);
    while let Some((index, holder)) = answers.next().await {
        let next_hop = match holder? {
            Holder::Host(host) => {
                NextHop { via: Some(host), choice: Choice::Table, ..NextHop::of_route(hop.next_hop.route) }
            }
            Holder::Unclear(text) => {
                sorted.unclear.push((index, text));
                continue;
            }
            Holder::RouteHosts if hosts.is_empty() => {
                sorted.unclear.push((index, NO_HOSTS.into()));
                continue;
            }
            Holder::Unknown if refuses(recipients, hosts.is_empty(), address(index)) => {
                sorted.refused.push(index);
                continue;
            }
            Holder::RouteHosts | Holder::Unknown => balance::share(hop.next_hop.route, hosts, item.id),
        };
        match sorted.hops.iter_mut().find(|(other, _)| *other == next_hop) {
            Some((_, indexes)) => indexes.push(index),
            None => sorted.hops.push((next_hop, vec![index])),
        }
    }
    Ok(sorted)
}

/// Where a recipient's server is, for who asks about one by itself.
pub enum Server {
    Is(NextHop),
    /// The table does not have it, and the route wants it refused.
    Nowhere,
    /// The table cannot be asked now, or says what cannot be.
    Unclear,
}

/// Asks the table of the next hop's route, where there is one to be asked.
pub async fn server_of(shard: &DeliveryShard, next_hop: &NextHop, address: &str) -> Server {
    if !next_hop.is_unsorted() {
        return Server::Is(next_hop.clone());
    }
    let route = usize::from(next_hop.route);
    let settings = shard.config.routes.get(route);
    let Some((settings, recipients)) = settings.and_then(|of| Some((of, of.recipients.as_ref()?))) else {
        return Server::Unclear;
    };
    let no_hosts = matches!(&settings.target, Target::SmartHosts(hosts) if hosts.is_empty());
    match holder(shard, route, recipients, address).await {
        Ok(Holder::Host(host)) => Server::Is(NextHop { via: Some(host), ..next_hop.clone() }),
        Ok(Holder::RouteHosts) if no_hosts => Server::Unclear,
        Ok(Holder::Unknown) if refuses(recipients, no_hosts, address) => Server::Nowhere,
        Ok(Holder::RouteHosts | Holder::Unknown) => Server::Is(NextHop::of_route(next_hop.route)),
        Ok(Holder::Unclear(_)) | Err(_) => Server::Unclear,
    }
}

/// Postmaster is taken by every domain (RFC 5321 section 4.5.1), as long as somebody could get it.
fn refuses(recipients: &Recipients, no_hosts: bool, address: &str) -> bool {
    recipients.unknown == Unknown::Refuse && (no_hosts || !is_postmaster(address))
}

async fn holder(
    shard: &DeliveryShard,
    route: usize,
    recipients: &Recipients,
    address: &str,
) -> Result<Holder, Trouble> {
    match &recipients.table {
        Table::File(file) => loop {
            match file.now() {
                Some(table) => return Ok(table.holder(address, recipients.detail)),
                None => glommio::timer::sleep(EXCHANGE_WAIT).await,
            }
        },
        Table::Ldap(_) => {
            let answer = shard.lookup.holder(route, address, &shard.links).await;
            answer.result.map_err(|error| Trouble {
                dsn: Status::DIRECTORY_FAILURE.to_string().into(),
                text: error.text.as_str().into(),
                remote: "".into(),
                reply: None,
            })
        }
    }
}

/// Recipients that go nowhere now: those the table does not have are returned, those it is not clear about wait.
async fn settle_rest(
    shard: &Rc<DeliveryShard>,
    hop: &Rc<Hop>,
    item: &Item,
    message: &Message,
    sorted: &Sorted,
) {
    if !sorted.refused.is_empty() {
        let trouble = Trouble {
            dsn: Status::NO_SUCH_MAILBOX.to_string().into(),
            text: "no such recipient: the table of recipients does not have the address".into(),
            remote: "".into(),
            reply: None,
        };
        settle_trouble(shard, hop, item.with_group(sorted.refused.clone()), &trouble, Waits::Refused).await;
    }
    let attempted = sorted.unclear.iter().map(|(recipient, text)| Attempted {
        recipient: *recipient,
        verdict: Verdict {
            outcome: Outcome::Deferred,
            status: Status::DIRECTORY_FAILURE,
            text: text.to_string(),
            reply: None,
            remote: None,
        },
        relay: "none".into(),
        tls: None,
        tells: Tells::default(),
        wait: None,
    });
    let now = wall_micros();
    let timing = Timing { began_micros: now, setup_micros: 0, ended_micros: now };
    settle_attempt(shard, hop, item, message, attempted.collect(), timing).await;
}

/// In one step, without an await: what has left these hands lies in its hop.
fn pass_on(shard: &Rc<DeliveryShard>, mut item: Item, hops: Vec<(NextHop, Vec<u32>)>) {
    let last = hops.len().saturating_sub(1);
    let luggage = std::mem::take(&mut item.luggage);
    let mut whole = Some(luggage);
    for (place, (next_hop, indexes)) in hops.into_iter().enumerate() {
        let mut part = item.with_group(indexes);
        part.luggage = match &whole {
            Some(luggage) if place < last => again(luggage),
            _ => whole.take().unwrap_or_default(),
        };
        if let Some(part) = shard.hands.strain(part) {
            shard.make_ready(&shard.hop(&next_hop), part);
        }
    }
}

/// The same message in memory for another part of its recipients.
fn again(luggage: &Luggage) -> Luggage {
    let fresh = luggage.fresh().map(|fresh| Fresh {
        envelope: fresh.envelope.clone(),
        content: fresh.content.clone(),
        flags: fresh.flags,
    });
    Luggage::new(fresh, luggage.by())
}

impl DeliveryShard {
    /// Where a message of this hop has its server looked up; `None` where no table decides.
    pub(super) fn unsorted(&self, hop: &Hop) -> Option<Rc<Hop>> {
        let next_hop = &hop.next_hop;
        let route = self.config.routes.get(usize::from(next_hop.route))?;
        if route.recipients.is_none() || next_hop.is_rerouted() || next_hop.domain.is_some() {
            return None;
        }
        Some(self.hop(&NextHop { choice: Choice::Table, ..NextHop::of_route(next_hop.route) }))
    }

    /// What waits for a server that is down is looked up again when the table has changed since: a mailbox may
    /// have moved away from it. Called before each probe.
    pub(super) fn sort_again(self: &Rc<Self>, hop: &Rc<Hop>) {
        let Some(route) = self.config.routes.get(usize::from(hop.next_hop.route)) else { return };
        let Some(Recipients { table: Table::File(file), .. }) = &route.recipients else { return };
        let version = file.version();
        if hop.next_hop.via.is_none()
            || hop.next_hop.is_rerouted()
            || hop.table_version.replace(version) == version
        {
            return;
        }
        let Some(unsorted) = self.unsorted(hop) else { return };
        let (ready, unannounced) = hop.take_all();
        for item in ready.into_iter().chain(unannounced) {
            self.make_ready(&unsorted, item);
        }
    }
}
