//! From the spool to the schedule: which delivery shard gets which recipients of a message.

use super::IngestShard;
use crate::config::{Config, Target};
use crate::shard::links::{Fresh, Group, Handover, NextHop, ToDelivery};
use sluice_queue::{ContentFlags, Envelope, Facts, QueueId};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

/// Recipients, by their index and address, by next hop; in the order of their first recipient.
pub fn groups<'a>(
    config: &Config,
    recipients: impl Iterator<Item = (u32, &'a str)>,
) -> Vec<(NextHop, Vec<u32>)> {
    let mut groups: Vec<(NextHop, Vec<u32>)> = Vec::with_capacity(1);
    let mut places: HashMap<NextHop, usize> = HashMap::new();
    for (index, address) in recipients {
        let next_hop = next_hop(config, address);
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

fn addresses(envelope: &Envelope) -> impl Iterator<Item = (u32, &str)> {
    (0..).zip(envelope.recipients.iter().map(|recipient| &recipient.address[..]))
}

/// Where a recipient goes. One whose domain no route covers is given to a next hop without a route,
/// where it gets its answer (5.4.4): the configuration may have changed while it waited.
fn next_hop(config: &Config, address: &str) -> NextHop {
    let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
    match config.route_for(domain) {
        None => NextHop { route: u16::MAX, domain: Some(domain.to_ascii_lowercase().into()) },
        Some(route) => {
            let domain = match config.routes[route].target {
                Target::SmartHosts(_) => None,
                Target::Mx { .. } => Some(domain.to_ascii_lowercase().into()),
            };
            NextHop { route: route as u16, domain }
        }
    }
}

/// A next hop belongs to one delivery shard, so that its connections and limits need no lock. Smart
/// hosts take more than one core's worth, so each delivery shard has a slice of them.
fn delivery_shard(next_hop: &NextHop, id: QueueId, shards: usize) -> usize {
    match &next_hop.domain {
        None => (id.micros() % shards as u64) as usize,
        Some(_) => {
            let mut hasher = DefaultHasher::new();
            next_hop.hash(&mut hasher);
            (hasher.finish() % shards as u64) as usize
        }
    }
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
        for (next_hop, indexes) in groups(&self.config, addresses(envelope)) {
            let fresh =
                content.clone().map(|content| Box::new(Fresh { envelope: envelope.clone(), content, flags }));
            let group = Group::new(indexes);
            let arrived_micros = envelope.arrived_micros;
            self.send(Handover {
                id,
                next_hop,
                group,
                attempts: 0,
                notified: false,
                arrived_micros,
                tried_micros: None,
                fresh,
            });
        }
    }

    /// Hands over what is left of a message that an earlier run accepted, and is not held.
    pub fn hand_over_stored(&self, facts: &Facts<'_>) {
        let open = || facts.recipients().filter(|recipient| recipient.state.is_open());
        for (next_hop, indexes) in groups(&self.config, open().map(|it| (it.index, it.address))) {
            let Some(first) = open().find(|recipient| recipient.index == indexes[0]) else { continue };
            self.send(Handover {
                id: facts.id(),
                next_hop,
                group: Group::new(indexes),
                attempts: first.state.attempts,
                notified: first.state.notified,
                arrived_micros: facts.arrived_micros(),
                tried_micros: first.tried_micros,
                fresh: None,
            });
        }
    }

    fn send(&self, handover: Handover) {
        let shard = delivery_shard(&handover.next_hop, handover.id, self.links.delivery.len());
        let mut overflow = self.overflow.borrow_mut();
        let refused = if overflow.is_empty() {
            self.links.delivery[shard].try_send(ToDelivery::Handover(handover)).err()
        } else {
            Some(ToDelivery::Handover(handover))
        };
        if let Some(ToDelivery::Handover(mut handover)) = refused {
            handover.fresh = None;
            overflow.push_back((shard, handover));
            self.overflow_grew.raise();
        }
    }
}

/// Sends what did not fit, in order, as places become free. Runs as long as the shard.
pub async fn pump_overflow(shard: Rc<IngestShard>) {
    loop {
        // The first entry stays in the queue while it waits, so that later ones line up behind it.
        let next = shard.overflow.borrow_mut().front_mut().map(|(index, handover)| (*index, take(handover)));
        match next {
            None => shard.overflow_grew.wait().await,
            Some((index, handover)) => {
                shard.links.delivery[index].send(ToDelivery::Handover(handover)).await;
                shard.overflow.borrow_mut().pop_front();
            }
        }
    }
}

fn take(handover: &mut Handover) -> Handover {
    Handover {
        id: handover.id,
        next_hop: handover.next_hop.clone(),
        group: std::mem::replace(&mut handover.group, Group::One(0)),
        attempts: handover.attempts,
        notified: handover.notified,
        arrived_micros: handover.arrived_micros,
        tried_micros: handover.tried_micros,
        fresh: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_queue::{Body, Recipient};

    fn envelope(addresses: &[&str]) -> Envelope {
        let recipients = addresses.iter().map(|address| Recipient { address: (*address).into() });
        Envelope {
            sender: String::new(),
            recipients: recipients.collect(),
            body: Body::SevenBit,
            arrived_micros: 0,
            listener: String::new(),
            helo: String::new(),
            client: String::new(),
            origin: None,
        }
    }

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
        let groups = groups(&config(), super::addresses(&envelope(addresses)));
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
    fn recipients_that_are_left_out_keep_the_indexes_of_the_others() {
        let groups = groups(&config(), [(1, "b@x.example")].into_iter());
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].1, [1]);
    }
}
