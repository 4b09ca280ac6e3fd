//! The hosts whose TLS has failed lately: where the route may do without, they are talked to in clear text
//! at once, instead of failing each time anew.
//!
//! Lives on one delivery shard.

use crate::clock::monotonic_millis;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;

/// After this a host is given another chance.
const REMEMBERED_MILLIS: u64 = 60 * 60 * 1_000;
/// Bounds the memory; the one that is nearest to another chance makes room.
const HOSTS_MAX: usize = 10_000;

#[derive(Default)]
pub struct BrokenTls(RefCell<HashMap<SocketAddr, u64>>);

impl BrokenTls {
    pub fn knows(&self, host: SocketAddr) -> bool {
        self.knows_at(host, monotonic_millis())
    }

    pub fn remember(&self, host: SocketAddr) {
        self.remember_at(host, monotonic_millis());
    }

    fn knows_at(&self, host: SocketAddr, now: u64) -> bool {
        self.0.borrow().get(&host).is_some_and(|&until| until > now)
    }

    fn remember_at(&self, host: SocketAddr, now: u64) {
        let mut hosts = self.0.borrow_mut();
        if hosts.len() >= HOSTS_MAX && !hosts.contains_key(&host) {
            hosts.retain(|_, until| *until > now);
            if hosts.len() >= HOSTS_MAX
                && let Some(&nearest) = hosts.iter().min_by_key(|(_, until)| **until).map(|(host, _)| host)
            {
                hosts.remove(&nearest);
            }
        }
        hosts.insert(host, now + REMEMBERED_MILLIS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: usize) -> SocketAddr {
        SocketAddr::new(std::net::Ipv4Addr::from_bits(number as u32).into(), 25)
    }

    #[test]
    fn a_host_is_remembered_for_an_hour() {
        let broken = BrokenTls::default();
        broken.remember_at(host(1), 0);
        assert!(broken.knows_at(host(1), REMEMBERED_MILLIS - 1));
        assert!(!broken.knows_at(host(1), REMEMBERED_MILLIS) && !broken.knows_at(host(2), 0));
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_the_latest() {
        let broken = BrokenTls::default();
        for number in 0..=HOSTS_MAX {
            broken.remember_at(host(number), number as u64);
        }
        assert_eq!(broken.0.borrow().len(), HOSTS_MAX);
        assert!(!broken.knows_at(host(0), HOSTS_MAX as u64) && broken.knows_at(host(HOSTS_MAX), 0));
    }
}
