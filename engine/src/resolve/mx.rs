//! From MX records to the hosts of a domain, in the order in which they are to be tried (RFC 5321
//! section 5.1, RFC 7505), and address literals (RFC 5321 section 4.1.3).
//!
//! Pure: the order within one preference comes from a seed that the caller gives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::error::ResolveError;
use crate::tls::dane::Tlsa;

/// Hosts of one domain that are looked at, the most preferred ones. Prevents a domain with a
/// thousand MX records from costing a thousand look-ups and connections.
pub const HOSTS_MAX: usize = 32;

/// TLSA records of one host that are looked at.
pub const TLSA_RECORDS_MAX: usize = 32;

/// Addresses of one host that are looked at. Prevents the same with addresses.
pub const ADDRESSES_MAX: usize = 16;

/// One MX record, its name not looked up yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MxRecord {
    pub preference: u16,
    /// Lower case, without the final dot; empty is the root, that is the null MX.
    pub name: String,
}

/// Where mail for a domain goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailHosts {
    /// By preference; at least one, at most [`HOSTS_MAX`], also those whose name leads nowhere.
    pub hosts: Vec<MxHost>,
    /// The MX records and the aliases that led to them are authentic (DNSSEC). For an implicit MX what the addresses
    /// are.
    pub secure: bool,
    /// The domain at the end of its aliases, where the MX records are; `None` when it has no alias, or no MX record.
    /// For DANE (RFC 7672 section 3.2.2).
    pub canonical: Option<String>,
}

/// A host that takes mail for a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MxHost {
    /// Lower case, without the final dot; for an address literal the address.
    pub name: String,
    /// 0 for an implicit MX or an address literal.
    pub preference: u16,
    /// What the name leads to.
    pub found: Result<Addresses, ResolveError>,
}

/// The addresses of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// At least one, at most [`ADDRESSES_MAX`], in the order in which they are to be tried.
    pub list: Vec<IpAddr>,
    /// Addresses and the aliases that led to them are authentic (DNSSEC); or the first alias is, and leads out of
    /// what is signed.
    pub secure: bool,
    /// The name at the end of the aliases; `None` when there was none, or it is not authentic although the first
    /// alias is. For DANE (RFC 7672 section 2.2.2).
    pub canonical: Option<String>,
}

/// The TLSA records of a port of a host (RFC 6698).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsaRecords {
    /// Sorted, each once, at most [`TLSA_RECORDS_MAX`]; none when the name or the type does not exist.
    pub records: Vec<Tlsa>,
    /// The records are authentic (DNSSEC); false when there is none.
    pub secure: bool,
}

/// What the MX records of a domain say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// These hosts, by preference, each name once, at most [`HOSTS_MAX`].
    Hosts(Vec<MxRecord>),
    /// No MX record: the domain itself is the host (RFC 5321 section 5.1).
    Implicit,
    /// RFC 7505: no mail.
    Null,
}

/// Reads the records of one answer. A null MX beside others is no null MX (RFC 7505 section 3) and
/// is passed over.
pub fn exchange(mut records: Vec<MxRecord>, seed: u64) -> Exchange {
    if records.is_empty() {
        return Exchange::Implicit;
    }
    records.retain(|record| !record.name.is_empty());
    if records.is_empty() {
        return Exchange::Null;
    }
    // By name and preference first, so that the answer's own order has no influence on the result.
    records.sort_by(|a, b| (&a.name, a.preference).cmp(&(&b.name, b.preference)));
    records.dedup_by(|later, earlier| later.name == earlier.name);
    order(&mut records, seed, |record| record.preference);
    records.truncate(HOSTS_MAX);
    Exchange::Hosts(records)
}

/// Puts hosts in the order of an attempt: by preference, and at random, by the seed, within one.
/// Give every attempt another seed, so that the load is shared (RFC 5321 section 5.1).
pub fn order_hosts(hosts: &mut [MxHost], seed: u64) {
    order(hosts, seed, |host| host.preference);
}

/// The records of one answer, whatever their order there.
pub fn order_tlsa(mut records: Vec<Tlsa>) -> Vec<Tlsa> {
    records.sort_unstable();
    records.dedup();
    // Those that SMTP has no use for must not displace the others.
    records.sort_by_key(|record| !record.is_usable());
    records.truncate(TLSA_RECORDS_MAX);
    records
}

fn order<T>(items: &mut [T], seed: u64, preference: impl Fn(&T) -> u16) {
    let mut state = seed;
    for last in (1..items.len()).rev() {
        let other = (u128::from(next_random(&mut state)) * (last as u128 + 1)) >> 64;
        items.swap(last, other as usize);
    }
    items.sort_by_key(preference);
}

/// splitmix64.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The addresses of a host in the order in which they are to be tried, each once: IPv6 first, then the
/// families by turns (RFC 8305 section 4), so that a family whose path is broken costs one step.
pub fn order_addresses(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut families: [Vec<IpAddr>; 2] = Default::default();
    for address in addresses {
        let family = &mut families[usize::from(address.is_ipv4())];
        if family.len() < ADDRESSES_MAX && !family.contains(&address) {
            family.push(address);
        }
    }
    let [six, four] = families;
    let longer = six.len().max(four.len());
    let turns = (0..longer).flat_map(|turn| [six.get(turn), four.get(turn)]);
    turns.flatten().take(ADDRESSES_MAX).copied().collect()
}

/// Reads the domain of a mailbox as an address literal: `None` when it is none (no `[` in front),
/// otherwise the address, or the fact that it is not one.
pub fn literal(domain: &str) -> Option<Result<IpAddr, NotAnAddress>> {
    let inner = domain.strip_prefix('[')?;
    let parse = |inner: &str| {
        let inner = inner.strip_suffix(']')?;
        match inner.split_at_checked(5) {
            Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => {
                address.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
            }
            _ => inner.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        }
    };
    Some(parse(inner).ok_or(NotAnAddress))
}

/// An address literal that holds no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnAddress;

#[cfg(test)]
mod tests {
    use super::*;

    fn records(text: &str) -> Vec<MxRecord> {
        let one = |word: &str| {
            let (preference, name) = word.split_once(':').unwrap();
            MxRecord { preference: preference.parse().unwrap(), name: name.into() }
        };
        text.split_whitespace().map(one).collect()
    }

    fn names(exchange: &Exchange) -> String {
        match exchange {
            Exchange::Hosts(hosts) => {
                hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(" ")
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn hosts_come_by_preference_each_once() {
        let table = [
            ("", "Implicit"),
            ("0:", "Null"),
            ("10:", "Null"),
            ("0: 10:", "Null"),
            ("0: 10:a", "a"),
            ("10:a", "a"),
            ("20:b 10:a 65535:c 0:z", "z a b c"),
            ("20:a 10:a 15:b", "a b"),
            ("10:a 10:a 10:a", "a"),
        ];
        for (text, expected) in table {
            for seed in 0..20 {
                assert_eq!(names(&exchange(records(text), seed)), expected, "{text} seed {seed}");
            }
        }
    }

    #[test]
    fn the_seed_decides_the_order_within_one_preference() {
        let all = "10:a 10:b 10:c 5:first 20:last";
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..6_000 {
            *counts.entry(names(&exchange(records(all), seed))).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6, "every order occurs: {counts:?}");
        for (order, count) in &counts {
            assert!(order.starts_with("first ") && order.ends_with(" last"), "{order}");
            assert!((800..1_200).contains(count), "{counts:?}");
        }
        let turned = "20:last 10:c 5:first 10:b 10:a";
        for seed in 0..20 {
            assert_eq!(exchange(records(all), seed), exchange(records(turned), seed), "seed {seed}");
        }
    }

    #[test]
    fn of_too_many_hosts_the_most_preferred_stay() {
        let many = (0..1_000).rev().map(|n| MxRecord { preference: n, name: format!("mx{n}") }).collect();
        let Exchange::Hosts(hosts) = exchange(many, 1) else { panic!("hosts") };
        assert_eq!(hosts.len(), HOSTS_MAX);
        assert_eq!((hosts[0].preference, hosts[HOSTS_MAX - 1].preference), (0, HOSTS_MAX as u16 - 1));
    }

    #[test]
    fn each_attempt_orders_the_hosts_anew() {
        let host = |name: &str, preference| MxHost {
            name: name.into(),
            preference,
            found: Ok(Addresses { list: vec![], secure: false, canonical: None }),
        };
        let mut hosts = [host("a", 10), host("b", 10), host("c", 5)];
        let mut firsts = std::collections::BTreeSet::new();
        for seed in 0..40 {
            order_hosts(&mut hosts, seed);
            assert_eq!(hosts[0].name, "c");
            firsts.insert(hosts[1].name.clone());
        }
        assert_eq!(firsts.len(), 2);
    }

    #[test]
    fn addresses_come_once_the_families_by_turns_and_bounded() {
        let parse = |text: &str| text.split_whitespace().map(|a| a.parse().unwrap()).collect::<Vec<IpAddr>>();
        let table = [
            ("192.0.2.2 192.0.2.1 2001:db8::1 192.0.2.2", "2001:db8::1 192.0.2.2 192.0.2.1"),
            (
                "2001:db8::1 2001:db8::2 2001:db8::3 192.0.2.1",
                "2001:db8::1 192.0.2.1 2001:db8::2 2001:db8::3",
            ),
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8::1 2001:db8::1", "2001:db8::1"),
            ("", ""),
        ];
        for (given, expected) in table {
            assert_eq!(order_addresses(parse(given)), parse(expected), "{given}");
        }
        let many = (0..u32::from(u16::MAX)).map(|n| IpAddr::from(n.to_be_bytes())).collect();
        assert_eq!(order_addresses(many).len(), ADDRESSES_MAX);
    }

    #[test]
    fn tlsa_records_are_the_same_whatever_their_order() {
        let tlsa = |usage, octet| Tlsa { usage, selector: 1, matching: 1, data: vec![octet; 32] };
        let expected = [tlsa(2, 9), tlsa(3, 1), tlsa(3, 2)];
        assert_eq!(order_tlsa(vec![tlsa(3, 2), tlsa(2, 9), tlsa(3, 1), tlsa(3, 2)]), expected);
        assert_eq!(order_tlsa(vec![tlsa(3, 1), tlsa(3, 2), tlsa(2, 9)]), expected);
        let mut crowd: Vec<Tlsa> = (0..200).map(|octet| tlsa(1, octet)).collect();
        crowd.push(tlsa(3, 1));
        assert_eq!(order_tlsa(crowd)[0], tlsa(3, 1), "what is of no use displaces nothing");
        assert_eq!(order_tlsa((0..200).map(|octet| tlsa(3, octet)).collect()).len(), TLSA_RECORDS_MAX);
    }

    #[test]
    fn address_literals() {
        let v4 = Some(Ok("192.0.2.1".parse().unwrap()));
        let v6 = Some(Ok("2001:db8::1".parse().unwrap()));
        let table = [
            ("example.com", None),
            ("192.0.2.1", None),
            ("", None),
            ("[192.0.2.1]", v4),
            ("[IPv6:2001:db8::1]", v6),
            ("[ipv6:2001:DB8::1]", v6),
            ("[2001:db8::1]", Some(Err(NotAnAddress))),
            ("[IPv6:192.0.2.1]", Some(Err(NotAnAddress))),
            ("[192.0.2.1", Some(Err(NotAnAddress))),
            ("[192.0.2]", Some(Err(NotAnAddress))),
            ("[]", Some(Err(NotAnAddress))),
            ("[", Some(Err(NotAnAddress))),
            ("[ö:ö:ö]", Some(Err(NotAnAddress))),
            ("[tag:x]", Some(Err(NotAnAddress))),
        ];
        for (domain, expected) in table {
            assert_eq!(literal(domain), expected, "{domain}");
        }
    }
}
