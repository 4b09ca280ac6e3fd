//! To whom the relay may connect: `[next_hops]`, one pure function over data.
//!
//! A next hop is judged by three things: the recipients' domain (where the route looks up its MX), the name of the
//! host, and its address as DNS gave it. One entry of `deny` that fits any of them forbids it; where `allow` has
//! entries, one of them must fit. So deny goes before allow, and an MX whose name leads into a network that is denied
//! is not connected to, whatever its name. Asked for every address before it is connected to
//! (`delivery::lookup`), and for the domain at RCPT.

use crate::config::{HopPattern, NextHops, matches_domain};
use crate::smtp::idn;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// A next hop, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop<'a> {
    /// The recipients' domain, where that leads to the host.
    pub domain: Option<&'a str>,
    pub host: Option<&'a str>,
    pub address: Option<IpAddr>,
}

/// Why a next hop is not connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden<'a> {
    Denied(&'a HopPattern),
    NotAllowed,
}

/// `None`: it may be connected to.
pub fn forbidden<'a>(lists: &'a NextHops, hop: &Hop<'_>) -> Option<Forbidden<'a>> {
    if let Some(pattern) = lists.deny.iter().find(|pattern| fits(pattern, hop)) {
        return Some(Forbidden::Denied(pattern));
    }
    let allowed = lists.allow.is_empty() || lists.allow.iter().any(|pattern| fits(pattern, hop));
    (!allowed).then_some(Forbidden::NotAllowed)
}

/// Whether a domain is denied by its name, whatever its hosts are.
pub fn denies_domain(lists: &NextHops, domain: &str) -> bool {
    let hop = Hop { domain: Some(domain), host: None, address: None };
    lists.deny.iter().any(|pattern| fits(pattern, &hop))
}

fn fits(pattern: &HopPattern, hop: &Hop<'_>) -> bool {
    match pattern {
        HopPattern::Name(name) => {
            [hop.domain, hop.host].into_iter().flatten().any(|of_hop| is_named(name, of_hop))
        }
        HopPattern::Network(network) => hop.address.is_some_and(|address| {
            network.contains(address) || behind(address).is_some_and(|behind| network.contains(behind.into()))
        }),
    }
}

fn is_named(pattern: &str, name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_ascii() {
        return matches_domain(pattern, name);
    }
    idn::a_labels(name).is_some_and(|name| matches_domain(pattern, &name))
}

/// The IPv4 address that is reached through a translator (RFC 6052, RFC 8215 with its longest prefix, RFC 2765) or a
/// tunnel (6to4, RFC 3056; Teredo, RFC 4380, which has it inverted).
fn behind(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(six) = address else { return None };
    let octets = six.octets();
    let four = |at: usize| [octets[at], octets[at + 1], octets[at + 2], octets[at + 3]];
    let four = match octets {
        [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, ..] => four(12),
        [0, 0x64, 0xff, 0x9b, 0, 1, ..] => four(12),
        [0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, ..] => four(12),
        [0x20, 0x02, ..] => four(2),
        [0x20, 0x01, 0, 0, ..] => four(12).map(|octet| !octet),
        _ => return None,
    };
    Some(Ipv4Addr::from(four))
}

impl fmt::Display for Forbidden<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(pattern) => write!(f, "next_hops.deny has {pattern}"),
            Self::NotAllowed => f.write_str("next_hops.allow does not have it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::network;

    fn patterns(list: &[&str]) -> Vec<HopPattern> {
        let pattern = |text: &&str| match network(text) {
            Ok(network) => HopPattern::Network(network),
            Err(_) => HopPattern::Name((*text).into()),
        };
        list.iter().map(pattern).collect()
    }

    fn verdict(deny: &[&str], allow: &[&str], domain: &str, host: &str, address: &str) -> String {
        let lists = NextHops { allow: patterns(allow), deny: patterns(deny) };
        let part = |text| Some(text).filter(|text: &&str| !text.is_empty());
        let hop = Hop {
            domain: part(domain),
            host: part(host),
            address: part(address).map(|a| a.parse().unwrap()),
        };
        forbidden(&lists, &hop).map_or_else(String::new, |why| why.to_string())
    }

    #[test]
    fn an_ipv4_address_is_known_behind_translators_and_tunnels() {
        let table = [
            ("64:ff9b::c000:207", Some("192.0.2.7")),
            ("64:ff9b:1::c000:207", Some("192.0.2.7")),
            ("::ffff:0:192.0.2.7", Some("192.0.2.7")),
            ("2002:c000:207::1", Some("192.0.2.7")),
            ("2001:0:4136:e378:8000:63bf:3fff:fdf8", Some("192.0.2.7")),
            ("2001:db8::c000:207", None),
            ("192.0.2.7", None),
        ];
        for (address, four) in table {
            assert_eq!(behind(address.parse().unwrap()), four.map(|four| four.parse().unwrap()), "{address}");
        }
    }

    /// S26 and its refusing twin.
    #[test]
    fn deny_goes_before_allow_and_each_fits_domain_host_or_address() {
        let denied = "next_hops.deny has ";
        let none = "next_hops.allow does not have it";
        /// Denied, allowed, the hop's domain, host and address, and why it is forbidden.
        type Row = (&'static [&'static str], &'static [&'static str], [&'static str; 3], String);
        let table: [Row; 20] = [
            (&[], &[], ["away.example", "mx.away.example", "192.0.2.1"], String::new()),
            (
                &["away.example"],
                &[],
                ["away.example", "mx.x.example", "192.0.2.1"],
                format!("{denied}away.example"),
            ),
            (&["away.example"], &[], ["AWAY.Example.", "mx.x.example", ""], format!("{denied}away.example")),
            (&["away.example"], &[], ["sub.away.example", "mx.away.example", ""], String::new()),
            (&[".away.example"], &[], ["x.example", "mx.away.example", ""], format!("{denied}.away.example")),
            (
                &["xn--bcher-kva.example"],
                &[],
                ["b\u{fc}cher.example", "", ""],
                format!("{denied}xn--bcher-kva.example"),
            ),
            (&["192.0.2.0/24"], &[], ["x.example", "mx", "192.0.2.7"], format!("{denied}192.0.2.0/24")),
            (
                &["192.0.2.0/24"],
                &[],
                ["x.example", "mx", "::ffff:192.0.2.7"],
                format!("{denied}192.0.2.0/24"),
            ),
            (
                &["192.0.2.0/24"],
                &[],
                ["x.example", "mx", "64:ff9b::c000:207"],
                format!("{denied}192.0.2.0/24"),
            ),
            (
                &["192.0.2.0/24"],
                &[],
                ["x.example", "mx", "2002:c000:207::1"],
                format!("{denied}192.0.2.0/24"),
            ),
            (&["192.0.2.0/24"], &[], ["x.example", "mx", "192.0.3.7"], String::new()),
            (&["*"], &["away.example"], ["away.example", "mx", "192.0.3.7"], format!("{denied}*")),
            (&[], &["away.example"], ["away.example", "mx", "192.0.3.7"], String::new()),
            (&[], &["away.example"], ["x.example", "mx", "192.0.3.7"], none.into()),
            (&[], &["mx.partner.example"], ["x.example", "mx.partner.example", "192.0.3.7"], String::new()),
            (&[], &["10.0.0.0/8"], ["", "10.1.0.10", "10.1.0.10"], String::new()),
            (&[], &["10.0.0.0/8"], ["", "10.1.0.10", "11.1.0.10"], none.into()),
            (&["10.6.0.0/16"], &["10.0.0.0/8"], ["", "x", "10.6.0.10"], format!("{denied}10.6.0.0/16")),
            (&["2001:db8::/32"], &[], ["", "x", "2001:db8::1"], format!("{denied}2001:db8::/32")),
            (&[], &["away.example"], ["", "", ""], none.into()),
        ];
        for (deny, allow, [domain, host, address], expected) in table {
            assert_eq!(
                verdict(deny, allow, domain, host, address),
                expected,
                "{deny:?} {allow:?} {domain} {host} {address}"
            );
        }
        let lists =
            NextHops { allow: patterns(&["x.example"]), deny: patterns(&["192.0.2.0/24", "away.example"]) };
        assert!(denies_domain(&lists, "away.example") && !denies_domain(&lists, "other.example"));
    }
}
