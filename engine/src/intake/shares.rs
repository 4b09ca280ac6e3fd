//! How much of the room for mail the open transactions of one client hold.
//!
//! Lives on an ingest shard. Room is promised to a message before it comes, so many slow sessions that
//! declare a large SIZE could hold all of it and have everybody else refused. No client is given more than
//! its share, but each may have one transaction, however large. An IPv6 client is its /64: it has all
//! addresses of it.
//!
//! Invariant: what a client holds is the sum of its [`Share`]s, and is given back when they are dropped.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

/// One client may hold a quarter of the room. Prevents: one client holding all of it. Smaller: the one
/// host that has all of a site's mail could not send many messages at once when room is short.
const CLIENT_SHARE: u64 = 4;

/// Octets by client, of all open transactions.
#[derive(Debug, Default)]
pub struct Shares {
    held: RefCell<BTreeMap<IpAddr, u64>>,
}

/// What one transaction holds.
#[derive(Debug)]
pub struct Share {
    shares: Rc<Shares>,
    client: IpAddr,
    octets: u64,
}

/// Of `room` octets of all shards, what a client may hold on one of them.
pub fn bound(room: u64, shards: usize) -> u64 {
    room / CLIENT_SHARE / shards.max(1) as u64
}

fn key(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

impl Shares {
    /// `None`: with that the client would hold more than `bound`.
    pub fn take(self: &Rc<Self>, client: IpAddr, octets: u64, bound: u64) -> Option<Share> {
        let client = key(client);
        let mut held = self.held.borrow_mut();
        let before = held.get(&client).copied().unwrap_or(0);
        let after = before.saturating_add(octets);
        if before > 0 && after > bound {
            return None;
        }
        held.insert(client, after);
        Some(Share { shares: self.clone(), client, octets: after - before })
    }
}

impl Share {
    /// Makes it `octets` in all; `false`, and as it was, when the client would hold more than `bound` and
    /// has other transactions.
    pub fn grow(&mut self, octets: u64, bound: u64) -> bool {
        let mut held = self.shares.held.borrow_mut();
        let all = held.entry(self.client).or_insert(0);
        let others = all.saturating_sub(self.octets);
        let after = others.saturating_add(octets.max(self.octets));
        if others > 0 && after > bound {
            return false;
        }
        self.octets = after - others;
        *all = after;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.shares.held.borrow_mut();
        let left = held.get(&self.client).map_or(0, |all| all.saturating_sub(self.octets));
        if left == 0 {
            held.remove(&self.client);
        } else {
            held.insert(self.client, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_client_holds_its_share_and_others_theirs() {
        let shares = Rc::new(Shares::default());
        let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let first = shares.take(one, 60, 100).expect("the first");
        assert!(shares.take(one, 41, 100).is_none(), "more than the share");
        let second = shares.take(one, 40, 100).expect("just the share");
        assert!(shares.take(one, 1, 100).is_none());
        let _others = shares.take(other, 100, 100).expect("another client's");
        drop(first);
        let _third = shares.take(one, 60, 100).expect("it was given back");
        drop(second);
    }

    #[test]
    fn one_transaction_is_let_in_however_large_and_grows() {
        let shares = Rc::new(Shares::default());
        let mut first = shares.take(ip("192.0.2.1"), 500, 100).expect("one is always let in");
        assert!(first.grow(900, 100) && shares.take(ip("192.0.2.1"), 1, 100).is_none());
        drop(first);
        assert!(shares.held.borrow().is_empty(), "nothing is kept of clients that have gone");
    }

    #[test]
    fn what_grows_beside_others_stays_within_the_share() {
        let shares = Rc::new(Shares::default());
        let mut first = shares.take(ip("192.0.2.1"), 10, 100).unwrap();
        let second = shares.take(ip("192.0.2.1"), 10, 100).unwrap();
        assert!(first.grow(90, 100) && !first.grow(91, 100) && first.grow(5, 100));
        assert_eq!(shares.held.borrow()[&ip("192.0.2.1")], 100, "it does not shrink");
        drop(second);
        assert!(first.grow(91, 100), "alone now");
    }

    #[test]
    fn an_ipv6_client_is_its_network_and_a_mapped_address_is_ipv4() {
        let shares = Rc::new(Shares::default());
        let _held = shares.take(ip("2001:db8:1:2::1"), 90, 100).unwrap();
        assert!(shares.take(ip("2001:db8:1:2:3::4"), 90, 100).is_none());
        assert!(shares.take(ip("2001:db8:1:3::1"), 90, 100).is_some());
        let _mapped = shares.take(ip("::ffff:192.0.2.1"), 90, 100).unwrap();
        assert!(shares.take(ip("192.0.2.1"), 90, 100).is_none());
    }

    #[test]
    fn the_bound_is_a_part_of_the_room_of_each_shard() {
        assert_eq!((bound(800, 1), bound(800, 2), bound(u64::MAX, 0)), (200, 100, u64::MAX / 4));
    }
}
