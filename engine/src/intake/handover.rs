//! From the spool to the schedule: which delivery shard gets which recipients of a message.

use super::IngestShard;
use super::ShardSpool;
use super::known::{self, Known};
use crate::config::{Config, Target, matches_domain};
use crate::delivery::balance;
use crate::shard::links::{Choice, Fresh, Group, Handover, HeldContent, Luggage, NextHop, ToDelivery};
use crate::steering::{Destination, Subject, domain_of};
use sluice_queue::{ContentFlags, Envelope, QueueId, Schedule};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Places of the overflow that are kept when it is empty.
const OVERFLOW_KEPT: usize = 1024;
/// Between looks at an overflow that is to become smaller.
const OVERFLOW_LOOK: Duration = Duration::from_millis(1);

/// Recipients by next hop, in the order of their first recipient. Of each its index in the envelope, its
/// address, and where an administrator has rerouted it.
pub fn groups<'a>(
    config: &Config,
    id: QueueId,
    sender: &str,
    recipients: impl Iterator<Item = (u32, &'a str, Option<&'a str>)>,
) -> Vec<(NextHop, Vec<u32>)> {
    let mut groups: Vec<(NextHop, Vec<u32>)> = Vec::with_capacity(1);
    let mut places: HashMap<NextHop, usize> = HashMap::new();
    for (index, address, via) in recipients {
        let mut next_hop = next_hop(config, id, address, via);
        next_hop.route = config.route_of_sender(next_hop.route, sender);
        let place = match groups.last() {
            // One recipient, or all in one domain: no table is needed.
            Some((last, _)) if *last == next_hop => groups.len() - 1,
            None => 0,
            _ => {
                if places.is_empty() {
                    places.extend(groups.iter().enumerate().map(|(place, (hop, _))| (hop.clone(), place)));
                }
                *places.entry(next_hop.clone()).or_insert(groups.len())
            }
        };
        match groups.get_mut(place) {
            Some((_, indexes)) => indexes.push(index),
            None => groups.push((next_hop, vec![index])),
        }
    }
    groups
}

/// Where a recipient goes. One whose domain no route covers is given to a next hop without a route,
/// where it gets its answer (5.4.4): the configuration may have changed while it waited.
fn next_hop(config: &Config, id: QueueId, address: &str, via: Option<&str>) -> NextHop {
    let domain = domain_of(address);
    let route = config.route_for(domain);
    // What this configuration cannot do (no MX route any more) goes its usual way rather than nowhere.
    if let Some(rerouted) = via.and_then(|via| rerouted(config, route, via)) {
        return rerouted;
    }
    match route {
        None => NextHop { domain: Some(domain.to_ascii_lowercase().into()), ..NextHop::of_route(u16::MAX) },
        Some(route) => match &config.routes[route].target {
            _ if config.routes[route].recipients.is_some() => {
                NextHop { choice: Choice::Table, ..NextHop::of_route(route as u16) }
            }
            Target::SmartHosts(hosts) => balance::share(route as u16, hosts, id),
            Target::Mx { .. } => NextHop {
                domain: Some(domain.to_ascii_lowercase().into()),
                ..NextHop::of_route(route as u16)
            },
        },
    }
}

/// Where a recipient would go, for who asks before there is a message: to any host of those that have shares.
pub(super) fn next_hop_of(config: &Config, address: &str) -> NextHop {
    let next_hop = next_hop(config, QueueId::from_bits(0), address, None);
    match next_hop.choice {
        Choice::Share(_) => NextHop { choice: Choice::Route, ..next_hop },
        Choice::Route | Choice::Table => next_hop,
    }
}

/// The next hop of a rerouted recipient: with the retry schedule and the resolver of its own route, or for
/// `mx:DOMAIN` of the route that looks that domain up.
fn rerouted(config: &Config, route: Option<usize>, via: &str) -> Option<NextHop> {
    match via.parse().ok()? {
        Destination::Route => None,
        Destination::Host(host) => {
            let route = route.map_or(u16::MAX, |route| route as u16);
            Some(NextHop { via: Some(Arc::new(host)), ..NextHop::of_route(route) })
        }
        Destination::Mx(domain) => {
            let route = mx_route(config, &domain)?;
            Some(NextHop { domain: Some((*domain).into()), ..NextHop::of_route(route as u16) })
        }
    }
}

/// The route by which the mail exchangers of a domain are looked up: its own, or the first that looks any up. An
/// accepted domain has none but its own: nobody outside is asked about it.
pub fn mx_route(config: &Config, domain: &str) -> Option<usize> {
    let by_mx = |route: &usize| matches!(config.routes[*route].target, Target::Mx { .. });
    let is_own = config.domains.accepted.iter().any(|own| matches_domain(own, domain));
    let any = || (0..config.routes.len()).find(|route| by_mx(route) && !is_own);
    config.route_for(domain).filter(by_mx).or_else(any)
}

/// The times of retries count from the arrival of a message, or from its release.
fn began_micros(arrived_micros: u64, schedule: &Schedule) -> u64 {
    schedule.release_micros.map_or(arrived_micros, |release| release.max(arrived_micros))
}

/// A next hop belongs to one delivery shard, so that its connections and limits need no lock. Smart
/// hosts take more than one core's worth, so each delivery shard has a slice of them.
pub(super) fn delivery_shard(next_hop: &NextHop, id: QueueId, shards: usize) -> usize {
    if next_hop.is_spread() {
        return (id.micros() % shards as u64) as usize;
    }
    let mut hasher = DefaultHasher::new();
    next_hop.hash(&mut hasher);
    (hasher.finish() % shards as u64) as usize
}

impl IngestShard {
    /// Hands a committed message over. Never waits and never fails: a message that finds no room now
    /// goes as a small entry later.
    pub fn hand_over_fresh(
        &self,
        id: QueueId,
        envelope: &Arc<Envelope>,
        content: Option<Arc<Vec<u8>>>,
        flags: ContentFlags,
    ) {
        let content = content.and_then(|content| self.budget.hold(content));
        self.hand_over_held(id, envelope, content, flags, None, |_| true);
    }

    /// The same for some of its recipients; what is held is counted already.
    pub(super) fn hand_over_held(
        &self,
        id: QueueId,
        envelope: &Arc<Envelope>,
        content: Option<HeldContent>,
        flags: ContentFlags,
        not_before_micros: Option<u64>,
        wanted: impl Fn(u32) -> bool,
    ) {
        self.steering.has_arrived(id);
        let recipients = envelope.recipients.iter().zip(0..).filter(|(_, index)| wanted(*index));
        for (next_hop, indexes) in groups(
            &self.config,
            id,
            &envelope.sender,
            recipients.map(|(recipient, index)| (index, &*recipient.address, None)),
        ) {
            let fresh = content.clone().map(|content| Fresh { envelope: envelope.clone(), content, flags });
            let group = Group::new(indexes);
            let schedule = envelope.schedule();
            self.send(Handover {
                id,
                next_hop,
                group,
                attempts: 0,
                notified: false,
                arrived_micros: began_micros(envelope.arrived_micros, &schedule),
                release_micros: schedule.release_micros.max(not_before_micros),
                priority: schedule.priority,
                tried_micros: None,
                luggage: Luggage::new(fresh, schedule.deliver_by),
            });
        }
    }

    /// Hands over what is left of a message that an earlier run accepted, each recipient with what is left
    /// of its wait.
    pub fn hand_over_stored(&self, spool: &ShardSpool, id: QueueId) {
        self.hand_over_left(spool, id, &[]);
    }

    /// As [`Self::hand_over_stored`], but that the wait of some recipients is over.
    pub fn hand_over_left(&self, spool: &ShardSpool, id: QueueId, forward: &[u32]) {
        known::one(spool, id, |subject, known| {
            self.steering.has_arrived(id);
            self.hand_over_known(subject, known, |_| true, |index| !forward.contains(&index));
        });
    }

    /// Hands over these recipients, as far as they are to be tried, to be tried at once.
    pub fn hand_over_some(&self, spool: &ShardSpool, id: QueueId, recipients: &[u32]) {
        known::one(spool, id, |subject, known| {
            self.hand_over_known(subject, known, |index| recipients.contains(&index), |_| false);
        });
    }

    pub(super) fn hand_over_known(
        &self,
        subject: &Subject<'_>,
        known: &[Known<'_>],
        wanted: impl Fn(u32) -> bool,
        waits: impl Fn(u32) -> bool,
    ) {
        if subject.damaged {
            return;
        }
        let open = known.iter().filter(|known| known.part.state.is_open() && wanted(known.index));
        let open = open.map(|known| (known.index, known.part.address, known.part.via));
        for (next_hop, indexes) in groups(&self.config, subject.id, subject.sender, open) {
            let first = &known[indexes[0] as usize];
            let all_wait = indexes.iter().all(|index| waits(*index));
            self.send(Handover {
                id: subject.id,
                next_hop,
                group: Group::new(indexes),
                attempts: first.part.state.attempts,
                notified: first.part.state.notified,
                arrived_micros: began_micros(subject.arrived_micros, &subject.schedule),
                release_micros: subject.schedule.release_micros,
                priority: subject.schedule.priority,
                tried_micros: first.tried_micros.filter(|_| all_wait),
                luggage: Luggage::new(None, subject.schedule.deliver_by),
            });
        }
    }

    fn send(&self, handover: Handover) {
        let shard = delivery_shard(&handover.next_hop, handover.id, self.links.delivery.len());
        self.send_to(shard, ToDelivery::Handover(handover));
    }

    /// Everything for one delivery shard arrives in the order in which it was sent.
    pub(super) fn send_to(&self, shard: usize, what: ToDelivery) {
        let mut overflow = self.overflow.borrow_mut();
        let refused = match overflow.is_empty() {
            true => self.links.delivery[shard].try_send(what).err(),
            false => Some(what),
        };
        if let Some(mut what) = refused {
            if let ToDelivery::Handover(handover) = &mut what {
                handover.luggage = handover.luggage.stored();
            }
            overflow.push_back((shard, Some(what)));
            self.overflow_grew.raise();
        }
    }

    /// Waits until at most `count` things wait to be handed over.
    pub(super) async fn overflow_below(&self, count: usize) {
        while self.overflow.borrow().len() > count {
            glommio::timer::sleep(OVERFLOW_LOOK).await;
        }
    }
}

/// Sends what did not fit, in order, as places become free. Runs as long as the shard.
pub async fn pump_overflow(shard: Rc<IngestShard>) {
    loop {
        // The first entry stays in the queue while it waits, so that later ones line up behind it.
        let next = shard.overflow.borrow_mut().front_mut().map(|(index, what)| (*index, what.take()));
        match next {
            Some((index, Some(what))) => {
                shard.links.delivery[index].send(what).await;
                shard.overflow.borrow_mut().pop_front();
            }
            _ => {
                shard.overflow.borrow_mut().shrink_to(OVERFLOW_KEPT);
                shard.overflow_grew.wait().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let routes = r#"
            hostname = "relay.winery.example"
            [spool]
            path = "/tmp"
            [domains]
            accepted = ["winery.example"]
            [[listener]]
            name = "inside"
            bind = ["127.0.0.1:25"]
            clients = ["127.0.0.0/8"]
            relay = "any"
            [[route]]
            domains = ["winery.example"]
            hosts = ["10.1.0.10:25"]
            [[route]]
            domains = ["*"]
            mx = true
            resolver = "external"
            [[resolver]]
            name = "external"
            servers = ["192.0.2.53:53"]
        "#;
        Config::parse(routes, "test").unwrap()
    }

    fn grouped(addresses: &[&str]) -> Vec<(Option<String>, Vec<u32>)> {
        let groups = groups(
            &config(),
            QueueId::from_bits(7),
            "x@away.test",
            addresses.iter().zip(0..).map(|(address, index)| (index, *address, None)),
        );
        groups
            .into_iter()
            .map(|(hop, indexes)| (hop.domain.map(|domain| domain.to_string()), indexes))
            .collect()
    }

    #[test]
    fn recipients_of_one_next_hop_stand_together_in_order() {
        assert_eq!(
            grouped(&["a@x.example", "b@winery.example", "c@X.example", "d@y.example", "e@winery.example"]),
            [(Some("x.example".into()), vec![0, 2]), (None, vec![1, 4]), (Some("y.example".into()), vec![3]),]
        );
        assert_eq!(grouped(&["a@x.example"]), [(Some("x.example".into()), vec![0])]);
    }

    #[test]
    fn a_rerouted_recipient_goes_there_with_its_own_routes_schedule() {
        let host = |text: &str| match text.parse().unwrap() {
            Destination::Host(host) => Some(Arc::new(host)),
            _ => None,
        };
        let table = [
            ("a@winery.example", "10.9.9.9:26", 0, None, host("10.9.9.9:26")),
            ("a@x.example", "10.9.9.9:26", 1, None, host("10.9.9.9:26")),
            ("a@winery.example", "mx:y.example", 1, Some("y.example"), None),
            ("a@winery.example", "mx:winery.example", 0, None, None),
            ("a@winery.example", "what nobody can read", 0, None, None),
        ];
        for (address, to, route, domain, via) in table {
            let expected = NextHop { domain: domain.map(Arc::from), via, ..NextHop::of_route(route) };
            assert_eq!(
                next_hop(&config(), QueueId::from_bits(7), address, Some(to)),
                expected,
                "{address} to {to}"
            );
        }
    }
}
