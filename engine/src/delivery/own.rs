//! Whether a host is this relay itself, so that mail sent there would come back (RFC 5321 section 5.1).
//!
//! Lives on one delivery shard; immutable. The kernel is asked only where a listener has no address of its
//! own, about the addresses of this host.

use crate::config::Config;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Any port will do: a datagram socket that connects sends nothing.
const DISCARD_PORT: u16 = 9;

/// The names and addresses that lead to this relay.
pub struct Own {
    hostname: String,
    listeners: Vec<SocketAddr>,
    addresses: Vec<IpAddr>,
}

impl Own {
    pub fn new(config: &Config) -> Self {
        Self {
            hostname: config.hostname.clone(),
            listeners: config.listeners.iter().flat_map(|listener| listener.bind.iter().copied()).collect(),
            addresses: config.delivery.own_addresses.clone(),
        }
    }

    /// Whether a host of that name, or at that address and port, is this relay.
    pub fn is_at(&self, name: &str, address: Option<IpAddr>, port: u16) -> bool {
        if name.trim_end_matches('.').eq_ignore_ascii_case(&self.hostname) {
            return true;
        }
        let Some(address) = address.map(|address| address.to_canonical()) else { return false };
        let listens = |bound: &SocketAddr| {
            bound.port() == port
                && (bound.ip() == address
                    || bound.ip().is_unspecified()
                        && bound.is_ipv4() == address.is_ipv4()
                        && is_of_this_host(address))
        };
        self.addresses.contains(&address) || self.listeners.iter().any(listens)
    }
}

/// The kernel answers from the address itself to an address of its own.
fn is_of_this_host(address: IpAddr) -> bool {
    if address.is_loopback() || address.is_unspecified() {
        return true;
    }
    let any = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let from = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, DISCARD_PORT))?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relay_knows_its_name_its_listeners_and_its_other_addresses() {
        let own = Own {
            hostname: "relay.test".into(),
            listeners: ["192.0.2.5:25", "127.0.0.1:2525", "[2001:db8::5]:25", "0.0.0.0:26"]
                .map(|bound| bound.parse().unwrap())
                .into(),
            addresses: vec!["203.0.113.10".parse().unwrap()],
        };
        let table = [
            ("Relay.Test", None, 25, true),
            ("relay.test.", None, 25, true),
            ("mx.relay.test", None, 25, false),
            ("x", Some("192.0.2.5"), 25, true),
            ("x", Some("::ffff:192.0.2.5"), 25, true),
            ("x", Some("192.0.2.5"), 24, false),
            ("x", Some("192.0.2.6"), 25, false),
            ("x", Some("2001:db8::5"), 25, true),
            ("x", Some("127.0.0.1"), 25, false),
            ("x", Some("127.0.0.1"), 2525, true),
            ("x", Some("203.0.113.10"), 7, true),
            ("x", Some("127.0.0.7"), 26, true),
            ("x", Some("192.0.2.5"), 26, false),
            ("x", Some("::1"), 26, false),
        ];
        for (name, address, port, expected) in table {
            let address = address.map(|address| address.parse().unwrap());
            assert_eq!(own.is_at(name, address, port), expected, "{name} {address:?} {port}");
        }
    }
}
