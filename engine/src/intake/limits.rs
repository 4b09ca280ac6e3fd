//! What each client has of the relay: its connections, and how often it connects, sends and names recipients.
//!
//! One [`Limiter`] for all ingest shards ([`table`] says how without locks and with how much memory); a
//! shard asks it when a connection has come and when a session is about to handle commands. A client is
//! counted as its address and as its network; an IPv6 client's address is its /64, of which it has all
//! addresses. Each listener counts for itself, with its own `listener.limits`.
//!
//! Invariant: what [`Limiter::admit`] has counted is taken back when the [`Admitted`] is dropped, also by a
//! panic of the session.

pub mod table;

use crate::config::{ClientLimits, Network};
use crate::load::Level;
use crate::session::{Allowance, TurnedAway};
use std::net::IpAddr;
use std::sync::Arc;
use table::{Counts, Keys, Place, Rate, Rates};

/// While the relay is busy, bounds are divided by this.
const BUSY_DIVISOR: u32 = 2;

/// Shared by all ingest shards.
pub struct Limiter {
    keys: Keys,
    counts: Counts,
    rates: Rates,
}

/// What is counted of a client, part of its key.
#[derive(Clone, Copy, Hash)]
enum What {
    Connections,
    ConnectionRate,
    Messages,
    Recipients,
}

/// The address and the network of a client, as they are counted.
#[derive(Clone, Copy)]
struct Sides {
    listener: usize,
    sides: [IpAddr; 2],
}

const ADDRESS: usize = 0;
const NETWORK: usize = 1;

/// A connection that was counted.
pub struct Admitted {
    limiter: Arc<Limiter>,
    places: [Option<Place>; 2],
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.places.iter().flatten().for_each(|&place| self.limiter.counts.take(place));
    }
}

impl Limiter {
    /// For about so many connections at a time.
    pub fn new(sessions: usize) -> Arc<Self> {
        Arc::new(Self { keys: Keys::default(), counts: Counts::new(sessions), rates: Rates::default() })
    }

    /// Counts a new connection, or says which bound it is over; nothing is counted then but the attempt.
    pub fn admit(
        self: &Arc<Self>,
        (listener, limits): (usize, &ClientLimits),
        client: IpAddr,
        level: Level,
        now: u64,
    ) -> Result<Admitted, TurnedAway> {
        let sides = Sides::new(listener, limits, client);
        let share = |bound: u32| bound_at(bound, level);
        let rates = [
            (ADDRESS, limits.connection_rate_per_address, TurnedAway::AddressRate),
            (NETWORK, limits.connection_rate_per_network, TurnedAway::NetworkRate),
        ];
        for (side, bound, why) in rates {
            let Some(rate) = rate(share(bound), limits) else { continue };
            let place = sides.place(&self.keys, What::ConnectionRate, side);
            if self.rates.left(place, rate, now) == 0 {
                return Err(why);
            }
            self.rates.charge(place, rate, 1, now);
        }
        let counts = [
            (ADDRESS, limits.connections_per_address, TurnedAway::AddressConnections),
            (NETWORK, limits.connections_per_network, TurnedAway::NetworkConnections),
        ];
        let mut places = [None; 2];
        for (slot, (side, bound, why)) in places.iter_mut().zip(counts) {
            if bound == 0 {
                continue;
            }
            let place = sides.place(&self.keys, What::Connections, side);
            if self.counts.count(place) >= share(bound) {
                return Err(why);
            }
            *slot = Some(place);
        }
        places.iter().flatten().for_each(|&place| self.counts.add(place));
        Ok(Admitted { limiter: self.clone(), places })
    }

    /// What a client may send now.
    pub fn allowance(
        &self,
        (listener, limits): (usize, &ClientLimits),
        client: IpAddr,
        level: Level,
        now: u64,
    ) -> Allowance {
        let sides = Sides::new(listener, limits, client);
        let left = |what, bounds: [u32; 2]| {
            let left = [ADDRESS, NETWORK].into_iter().zip(bounds).filter_map(|(side, bound)| {
                let rate = rate(bound_at(bound, level), limits)?;
                Some(self.rates.left(sides.place(&self.keys, what, side), rate, now))
            });
            left.min().unwrap_or(u32::MAX)
        };
        Allowance {
            messages: left(What::Messages, message_rates(limits)),
            recipients: left(What::Recipients, recipient_rates(limits)),
        }
    }

    /// So many messages and recipients were accepted.
    pub fn charge(
        &self,
        (listener, limits): (usize, &ClientLimits),
        client: IpAddr,
        used: Allowance,
        now: u64,
    ) {
        let sides = Sides::new(listener, limits, client);
        let kinds = [
            (What::Messages, message_rates(limits), used.messages),
            (What::Recipients, recipient_rates(limits), used.recipients),
        ];
        for (what, bounds, count) in kinds.into_iter().filter(|(_, _, count)| *count > 0) {
            for (side, bound) in [ADDRESS, NETWORK].into_iter().zip(bounds) {
                if let Some(rate) = rate(bound, limits) {
                    self.rates.charge(sides.place(&self.keys, what, side), rate, count, now);
                }
            }
        }
    }
}

fn message_rates(limits: &ClientLimits) -> [u32; 2] {
    [limits.message_rate_per_address, limits.message_rate_per_network]
}

fn recipient_rates(limits: &ClientLimits) -> [u32; 2] {
    [limits.recipient_rate_per_address, limits.recipient_rate_per_network]
}

/// Whether a listener bounds what its clients send.
pub fn has_rates(limits: &ClientLimits) -> bool {
    message_rates(limits).into_iter().chain(recipient_rates(limits)).any(|bound| bound > 0)
}

/// A bound that is there stays one.
fn bound_at(bound: u32, level: Level) -> u32 {
    match level {
        Level::Normal => bound,
        Level::Busy | Level::Overloaded => bound.div_ceil(BUSY_DIVISOR),
    }
}

fn rate(count: u32, limits: &ClientLimits) -> Option<Rate> {
    let window_micros = u64::try_from(limits.rate_window.as_micros()).unwrap_or(u64::MAX);
    (count > 0).then_some(Rate { count, window_micros })
}

impl Sides {
    fn new(listener: usize, limits: &ClientLimits, client: IpAddr) -> Self {
        let client = client.to_canonical();
        let prefixes = match client {
            IpAddr::V4(_) => [32, limits.network_prefix_v4],
            IpAddr::V6(_) => [limits.address_prefix_v6, limits.network_prefix_v6],
        };
        let sides = prefixes.map(|prefix| Network { address: client, prefix }.masked().address);
        Self { listener, sides }
    }

    fn place(&self, keys: &Keys, what: What, side: usize) -> Place {
        // The side is part of the key: an address and a network may have the same octets.
        keys.place(&(self.listener, what, side, self.sides[side]))
    }
}

#[cfg(test)]
mod tests;
