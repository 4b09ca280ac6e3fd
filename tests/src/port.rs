//! Port numbers that belong to one party of one test, on every loopback address.
//!
//! Chosen below the ephemeral range, so that no outgoing connection takes one; held by a UDP socket on an
//! address that nobody uses, so that tests in other processes do not take it either, also while the relay
//! that uses it is down. The kernel gives it up with the process.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 11_000;
const COUNT: u16 = 20_000;

/// Whoever is bound here owns the number.
const LOCK: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 253);

static NEXT: AtomicU16 = AtomicU16::new(0);

/// One reserved port number.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: UdpSocket,
}

impl Port {
    /// Reserves a number that nobody uses on any loopback address, over TCP and UDP.
    ///
    /// # Panics
    /// When all of the range is taken.
    pub fn reserve() -> Self {
        let start = (std::process::id() as u16).wrapping_mul(131);
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(7);
            if let Some(port) = Self::try_number(FIRST + start.wrapping_add(step) % COUNT) {
                return port;
            }
        }
        panic!("no free port between {FIRST} and {}", FIRST + COUNT);
    }

    /// Reserves so many numbers in a row.
    ///
    /// # Panics
    /// As [`Port::reserve`].
    pub fn reserve_run(count: u16) -> Vec<Self> {
        for _ in 0..COUNT {
            let first = Self::reserve();
            let number = first.number;
            let rest: Vec<Self> = (1..count).map_while(|step| Self::try_number(number + step)).collect();
            if rest.len() + 1 == usize::from(count) {
                return std::iter::once(first).chain(rest).collect();
            }
        }
        panic!("no {count} free ports in a row");
    }

    fn try_number(number: u16) -> Option<Self> {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, number)).ok()?;
        let lock = UdpSocket::bind((LOCK, number)).ok()?;
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)).ok()?;
        Some(Self { number, _lock: lock })
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    /// The port on 127.0.0.1.
    pub fn address(&self) -> SocketAddr {
        self.on(1)
    }

    /// The port on 127.0.0.`last`.
    pub fn on(&self, last: u8) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_not_given_twice_and_can_be_bound() {
        let ports: Vec<Port> = (0..50).map(|_| Port::reserve()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
        for port in &ports {
            TcpListener::bind(port.on(7)).unwrap();
        }
    }

    #[test]
    fn a_taken_port_is_passed_over() {
        let port = Port::reserve();
        assert!(Port::try_number(port.number()).is_none(), "locked");
        let number = port.number();
        drop(port);
        let _taken = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 9), number)).unwrap();
        assert!(Port::try_number(number).is_none(), "bound by another");
    }
}
