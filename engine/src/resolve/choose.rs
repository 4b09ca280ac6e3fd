//! Which of a domain's hosts may be tried: not this relay itself and none behind it (RFC 5321 section 5.1),
//! and, unless the route says otherwise, only addresses of the Internet.
//!
//! Pure; used by the delivery shards, because both questions depend on the route.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::error::{ResolveError, ResolveErrorKind};
use super::mx::{MailHosts, MxHost};

/// Hosts that are told of in full when there is none to try.
const TOLD_MAX: usize = 3;

/// What a route lets through.
pub struct Allowed<F> {
    /// This relay is reached by that name or address. Asked for a name without an address, too.
    pub is_own: F,
    /// Hosts at addresses that are not of the Internet are taken, too.
    pub private_addresses: bool,
}

/// The hosts that may be tried, in the order given, each with at least one address; or why there is none.
pub fn choose<F>(domain: &str, found: MailHosts, allowed: &Allowed<F>) -> Result<Vec<MxHost>, ResolveError>
where
    F: Fn(&str, Option<IpAddr>) -> bool,
{
    let mut hosts = found.hosts;
    if let Some(own) = hosts.iter().filter(|host| is_own(host, allowed)).min_by_key(|host| host.preference) {
        let (preference, name) = (own.preference, own.name.clone());
        hosts.retain(|host| host.preference < preference);
        if hosts.is_empty() {
            return Err(loops(domain, &name, preference));
        }
    }
    let mut refused = Vec::new();
    let mut errors = Vec::new();
    let mut chosen = Vec::with_capacity(hosts.len());
    for mut host in hosts {
        match &mut host.found {
            Err(error) => errors.push(error.clone()),
            Ok(addresses) => {
                if !allowed.private_addresses {
                    refused.extend(
                        addresses
                            .list
                            .iter()
                            .filter(|address| !is_public(**address))
                            .map(|&a| (host.name.clone(), a)),
                    );
                    addresses.list.retain(|address| is_public(*address));
                }
                if !addresses.list.is_empty() {
                    chosen.push(host);
                }
            }
        }
    }
    match (chosen.is_empty(), refused.is_empty()) {
        (false, _) => Ok(chosen),
        (true, true) => Err(none_resolves(domain, &errors)),
        // A host that may be found later is better than a refusal for good.
        (true, false) if errors.iter().any(|error| !error.kind.is_lasting()) => {
            Err(none_resolves(domain, &errors))
        }
        (true, false) => Err(not_public(domain, &refused)),
    }
}

fn is_own<F: Fn(&str, Option<IpAddr>) -> bool>(host: &MxHost, allowed: &Allowed<F>) -> bool {
    (allowed.is_own)(&host.name, None)
        || host
            .found
            .iter()
            .flat_map(|found| &found.list)
            .any(|&address| (allowed.is_own)(&host.name, Some(address)))
}

/// Whether mail for strangers may be sent there: not to this host or network, nor to groups, nor to what is
/// reserved (RFC 6890). Documentation prefixes count as public: nobody has them inside.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(four) => is_public_v4(four),
        IpAddr::V6(six) => is_public_v6(six),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let octets = address.octets();
    let shared = octets[0] == 100 && octets[1] & 0xc0 == 64;
    // Of protocols (RFC 6890) and of measurements (RFC 2544).
    let special = octets[..3] == [192, 0, 0] || octets[0] == 198 && octets[1] & 0xfe == 18;
    !(octets[0] == 0
        || octets[0] >= 224
        || shared
        || special
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let octets = address.octets();
    // What is translated to IPv4 (RFC 6052) and 6to4 (RFC 3056) leads to that IPv4 address.
    if octets[..12] == [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0] {
        return is_public_v4(Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]));
    }
    if octets[..2] == [0x20, 0x02] {
        return is_public_v4(Ipv4Addr::new(octets[2], octets[3], octets[4], octets[5]));
    }
    // What leads to some IPv4 address that is not told here: 64:ff9b:1::/48, which a network translates as it likes
    // (RFC 8215), ::ffff:0:0:0/96 (SIIT, RFC 2765) and 2001::/32 (Teredo, RFC 4380).
    if octets[..6] == [0, 0x64, 0xff, 0x9b, 0, 1]
        || octets[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0]
        || octets[..4] == [0x20, 0x01, 0, 0]
    {
        return false;
    }
    // ::, ::1 and IPv4-compatible addresses; fc00::/7, fe80::/10, fec0::/10, ff00::/8.
    !(octets[..12] == [0; 12]
        || octets[0] & 0xfe == 0xfc
        || octets[0] == 0xfe && octets[1] & 0x80 == 0x80
        || octets[0] == 0xff)
}

fn loops(domain: &str, name: &str, preference: u16) -> ResolveError {
    let text = format!(
        "mail for {domain} loops back to this relay: its best MX host {name} (preference {preference}) is this relay, and no route takes the domain"
    );
    ResolveError { kind: ResolveErrorKind::Loop, text }
}

fn not_public(domain: &str, refused: &[(String, IpAddr)]) -> ResolveError {
    let mut told: Vec<String> =
        refused.iter().take(TOLD_MAX).map(|(name, address)| format!("{name} at {address}")).collect();
    if refused.len() > TOLD_MAX {
        told.push("and so on".into());
    }
    let text = format!(
        "no mail host of {domain} has an address on the Internet: {}; private addresses are refused on this route",
        told.join(", ")
    );
    ResolveError { kind: ResolveErrorKind::NotPublic, text }
}

fn none_resolves(domain: &str, errors: &[ResolveError]) -> ResolveError {
    let lasting = errors.iter().all(|error| error.kind.is_lasting());
    let mut told: Vec<&str> = errors.iter().take(TOLD_MAX).map(|error| error.text.as_str()).collect();
    if errors.len() > TOLD_MAX {
        told.push("and so on");
    }
    let text = format!("no MX host of {domain} has an address: {}", told.join("; "));
    ResolveError { kind: ResolveErrorKind::NoMxHostResolves { lasting }, text }
}

#[cfg(test)]
mod tests {
    use super::super::mx::Addresses;
    use super::*;

    /// `10:mx.a=192.0.2.1,10.0.0.1`; after `=` also `!` (a lasting error) or `?` (a passing one).
    fn hosts(text: &str) -> MailHosts {
        let host = |word: &str| {
            let (preference, rest) = word.split_once(':').unwrap();
            let (name, found) = rest.split_once('=').unwrap();
            let error = |kind| Err(ResolveError { kind, text: format!("looking up {name}: the reason") });
            let found = match found {
                "!" => error(ResolveErrorKind::NoDomain),
                "?" => error(ResolveErrorKind::Temporary),
                list => Ok(Addresses {
                    list: list.split(',').map(|address| address.parse().unwrap()).collect(),
                    secure: false,
                    canonical: None,
                }),
            };
            MxHost { name: name.into(), preference: preference.parse().unwrap(), found }
        };
        MailHosts { hosts: text.split_whitespace().map(host).collect(), secure: false, canonical: None }
    }

    fn shown(chosen: Result<Vec<MxHost>, ResolveError>) -> String {
        match chosen {
            Ok(hosts) => {
                let one = |host: &MxHost| {
                    let list = host.found.as_ref().unwrap().list.iter().map(ToString::to_string);
                    format!("{}={}", host.name, list.collect::<Vec<_>>().join(","))
                };
                hosts.iter().map(one).collect::<Vec<_>>().join(" ")
            }
            Err(error) => format!("{:?}", error.kind),
        }
    }

    fn with(text: &str, private_addresses: bool) -> String {
        let own: IpAddr = "192.0.2.99".parse().unwrap();
        let is_own = |name: &str, address: Option<IpAddr>| name == "relay.test" || address == Some(own);
        shown(choose("a.test", hosts(text), &Allowed { is_own, private_addresses }))
    }

    #[test]
    fn this_relay_and_what_is_behind_it_is_left_out() {
        let table = [
            ("10:a=192.0.2.1", "a=192.0.2.1"),
            ("10:a=192.0.2.1 20:relay.test=192.0.2.2 30:c=192.0.2.3", "a=192.0.2.1"),
            ("10:a=192.0.2.1 20:b=192.0.2.99 30:c=192.0.2.3", "a=192.0.2.1"),
            ("10:a=192.0.2.1 20:relay.test=! 30:c=192.0.2.3", "a=192.0.2.1"),
            ("10:a=192.0.2.1 10:relay.test=192.0.2.2", "Loop"),
            ("10:relay.test=192.0.2.2 20:c=192.0.2.3", "Loop"),
            ("0:a=192.0.2.1,192.0.2.99", "Loop"),
            ("20:relay.test=192.0.2.2 5:a=192.0.2.1 20:c=192.0.2.3 10:relay.test=?", "a=192.0.2.1"),
            ("10:a=? 20:relay.test=192.0.2.2", "NoMxHostResolves { lasting: false }"),
            ("10:a=! 20:relay.test=192.0.2.2", "NoMxHostResolves { lasting: true }"),
        ];
        for (text, expected) in table {
            for private_addresses in [false, true] {
                assert_eq!(with(text, private_addresses), expected, "{text}");
            }
        }
    }

    #[test]
    fn addresses_that_are_not_of_the_internet_are_left_out_unless_allowed() {
        let table = [
            ("10:a=10.0.0.1", "NotPublic", "a=10.0.0.1"),
            ("10:a=10.0.0.1,192.0.2.1", "a=192.0.2.1", "a=10.0.0.1,192.0.2.1"),
            ("10:a=127.0.0.1 20:b=192.0.2.1", "b=192.0.2.1", "a=127.0.0.1 b=192.0.2.1"),
            ("10:a=127.0.0.1 20:b=!", "NotPublic", "a=127.0.0.1"),
            ("10:a=127.0.0.1 20:b=?", "NoMxHostResolves { lasting: false }", "a=127.0.0.1"),
            ("10:a=! 20:b=!", "NoMxHostResolves { lasting: true }", "NoMxHostResolves { lasting: true }"),
        ];
        for (text, refused, allowed) in table {
            assert_eq!((with(text, false), with(text, true)), (refused.into(), allowed.into()), "{text}");
        }
    }

    #[test]
    fn the_text_names_host_and_address() {
        let is_own = |name: &str, _: Option<IpAddr>| name == "relay.test";
        let text = |hosts_text: &str| {
            choose("a.test", hosts(hosts_text), &Allowed { is_own, private_addresses: false })
                .unwrap_err()
                .text
        };
        for (hosts_text, parts) in [
            ("10:relay.test=!", ["mail for a.test loops back", "relay.test (preference 10)"]),
            ("10:mx=10.0.0.1", ["no mail host of a.test", "mx at 10.0.0.1; private addresses are refused"]),
            ("10:mx=10.0.0.1 10:n=::1 10:o=::1 10:p=::1", ["n at ::1", "and so on"]),
            ("10:mx=!", ["no MX host of a.test", "looking up mx: the reason"]),
        ] {
            let text = text(hosts_text);
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }

    #[test]
    fn what_is_public() {
        let public = "1.1.1.1 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.0.2.1 223.255.255.255 \
            191.255.255.255 192.0.1.1 198.17.255.255 198.20.0.1 2001:200::1 \
            2001:db8::1 2a00::1 64:ff9b::101:101 2002:101:101::1";
        let other = "0.0.0.0 0.1.2.3 10.1.2.3 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.255 169.254.1.1 \
            172.16.0.1 172.31.255.255 192.168.0.1 224.0.0.1 240.0.0.1 255.255.255.255 :: ::1 ::10.0.0.1 \
            ::ffff:10.0.0.1 ::ffff:127.0.0.1 fc00::1 fdff::1 fe80::1 febf::1 fec0::1 ff02::1 64:ff9b::a00:1 \
            2002:a00:1::1 192.0.0.1 192.0.0.255 198.18.0.1 198.19.255.255 64:ff9b:1::1 64:ff9b:1:ffff::1.1.1.1 \
            ::ffff:0:10.0.0.1 ::ffff:0:1.1.1.1 2001::1 2001:0:101:101:0:f227:f5ff:fffe 2002:c612:1::1";
        for (list, expected) in [(public, true), (other, false)] {
            for address in list.split_whitespace() {
                assert_eq!(is_public(address.parse().unwrap()), expected, "{address}");
            }
        }
    }
}
