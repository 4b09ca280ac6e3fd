//! The notations of the configuration file: durations, sizes, names, addresses, prefixes, CPU lists.
//!
//! Pure functions from a string to a value. The error of each is the end of a sentence that starts with
//! the key: what was found, then what is allowed.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use sluice_tuning::CPUS_MAX;

use super::types::{Network, SmartHost};

/// What was found and what is allowed, for people.
pub(crate) type Wrong = String;

const SMTP_PORT: u16 = 25;
const DNS_PORT: u16 = 53;

/// A wake-up costs some 10 µs; looking for work much longer than that only burns what others could use.
const SPIN_MAX: Duration = Duration::from_millis(1);
const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// `"30s"`, `"5m"`, `"4h"`, `"5d"`, `"200ms"`: one whole number and one unit.
pub(crate) fn duration(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, Wrong> {
    let allowed =
        || format!("a duration from {} to {}", show_duration(*range.start()), show_duration(*range.end()));
    let millis = quantity(text, &DURATION_UNITS).ok_or_else(|| {
        format!("\"{text}\" is not a duration; allowed: {}, units ms, s, m, h, d", allowed())
    })?;
    let found = Duration::from_millis(millis);
    if !range.contains(&found) {
        return Err(format!("\"{text}\" is out of range; allowed: {}", allowed()));
    }
    Ok(found)
}

/// `"20us"`, `"1ms"`, at most [`SPIN_MAX`].
pub(crate) fn microseconds(text: &str) -> Result<Duration, Wrong> {
    let found = quantity(text, &[("us", 1), ("ms", 1_000)]).map(Duration::from_micros);
    found
        .filter(|found| *found <= SPIN_MAX)
        .ok_or_else(|| format!("\"{text}\" is no such time; allowed: a time from 0us to 1ms, units us, ms"))
}

/// `"64MiB"`, `"10MB"`, `"512KiB"`: one whole number and one unit, decimal or binary. The result is in bytes.
pub(crate) fn size(text: &str, range: &RangeInclusive<u64>) -> Result<u64, Wrong> {
    let allowed = || format!("a size from {} to {}", show_size(*range.start()), show_size(*range.end()));
    let found = quantity(text, &SIZE_UNITS).ok_or_else(|| {
        format!(
            "\"{text}\" is not a size; allowed: {}, units B, KB, MB, GB, TB, KiB, MiB, GiB, TiB",
            allowed()
        )
    })?;
    if !range.contains(&found) {
        return Err(format!("\"{text}\" is out of range; allowed: {}", allowed()));
    }
    Ok(found)
}

fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The largest unit that divides it.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    show(millis, &DURATION_UNITS)
}

pub(super) fn show_size(bytes: u64) -> String {
    show(bytes, &[&SIZE_UNITS[..1], &SIZE_UNITS[5..]].concat())
}

fn show(amount: u64, units: &[(&str, u64)]) -> String {
    let fits = |(_, factor): &&(&str, u64)| amount >= *factor && amount.is_multiple_of(*factor);
    let (name, factor) = units.iter().rev().find(fits).unwrap_or(&units[0]);
    format!("{}{name}", amount / factor)
}

/// A host or mail domain in its ASCII form (RFC 5321 section 4.1.2, RFC 1035 section 2.3.1), returned in
/// lower case and without a trailing dot.
pub(crate) fn domain(text: &str) -> Result<String, Wrong> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if !text.is_ascii() {
        return Err(format!("\"{text}\" is not ASCII; allowed: the name in its xn-- form"));
    }
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    if name.len() > 253 || numeric || !name.split('.').all(label_ok) {
        return Err(format!("\"{text}\" is not a domain name; allowed: a name such as winery.example"));
    }
    Ok(name.to_ascii_lowercase())
}

/// A name with at least two labels, as EHLO wants it (RFC 5321 section 4.1.1.1).
pub(super) fn hostname(text: &str) -> Result<String, Wrong> {
    let refuse = || {
        format!(
            "\"{text}\" is not a full host name; allowed: a name with a domain, such as relay.winery.example"
        )
    };
    let name = domain(text).map_err(|_| refuse())?;
    if name.contains('.') && !name.contains('_') { Ok(name) } else { Err(refuse()) }
}

/// One address of one host: `192.0.2.7`, `2001:db8::7`.
pub(super) fn address(text: &str) -> Result<IpAddr, Wrong> {
    match text.parse::<IpAddr>() {
        Ok(address)
            if !address.is_unspecified() && !address.is_multicast() && address.to_canonical() == address =>
        {
            Ok(address)
        }
        _ => Err(format!("\"{text}\" is not the address of a host; allowed: 192.0.2.7, 2001:db8::7")),
    }
}

/// A host name that a client may ask for in TLS; `*.` in front stands for one label.
pub(super) fn certificate_name(text: &str) -> Result<String, Wrong> {
    match text.strip_prefix("*.") {
        Some(below) => hostname(below).map(|name| format!("*.{name}")),
        None => hostname(text),
    }
}

/// `local@domain` (RFC 5321 section 4.1.2), the local part a dot-string; the domain comes back in lower case.
pub(super) fn mailbox(text: &str) -> Result<String, Wrong> {
    let refuse =
        || format!("\"{text}\" is not a mailbox; allowed: an address such as postmaster@winery.example");
    let (local, at) = text.rsplit_once('@').ok_or_else(refuse)?;
    let atext = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
    let atoms = local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(atext));
    if local.len() > 64 || !atoms {
        return Err(refuse());
    }
    Ok(format!("{local}@{}", domain(at).map_err(|_| refuse())?))
}

/// The domain pattern of a route: `winery.example`, `.winery.example` (all below it), `*` (everything).
pub(super) fn address_space(text: &str) -> Result<String, Wrong> {
    let refuse = |_| {
        format!(
            "\"{text}\" is not an address space; allowed: winery.example, .winery.example (everything below it), *"
        )
    };
    match text.strip_prefix('.') {
        _ if text == "*" => Ok(text.to_owned()),
        Some(below) => domain(below).map(|name| format!(".{name}")).map_err(refuse),
        None => domain(text).map_err(refuse),
    }
}

/// The name of a listener or resolver.
pub(super) fn label(text: &str) -> Result<String, Wrong> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !(1..=32).contains(&text.len()) || !text.bytes().all(ok) {
        return Err(format!("\"{text}\" is not a name; allowed: 1 to 32 letters, digits, - and _"));
    }
    Ok(text.to_owned())
}

/// `10.1.0.5:25` or `[2001:db8::1]:25`.
pub(super) fn socket(text: &str) -> Result<SocketAddr, Wrong> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        _ => Err(format!(
            "\"{text}\" is not an address with a port; allowed: 203.0.113.10:25, [2001:db8::1]:25, 0.0.0.0:25, [::]:25"
        )),
    }
}

/// A DNS server: like [`socket`], or an address alone, which means port 53.
pub(super) fn dns_server(text: &str) -> Result<SocketAddr, Wrong> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, DNS_PORT));
    }
    socket(text).map_err(|_| {
        format!("\"{text}\" is not a DNS server; allowed: 192.0.2.53, 192.0.2.53:53, [2001:db8::53]:53")
    })
}

/// `10.1.0.10:25`, `[2001:db8::1]:25`, `mail.inside.example:25`; without a port it is 25.
pub(crate) fn smart_host(text: &str) -> Result<SmartHost, Wrong> {
    let refuse = || {
        format!("\"{text}\" is not a host; allowed: 10.1.0.10:25, [2001:db8::1]:25, mail.inside.example:25")
    };
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(SmartHost { host: address.to_string(), port: SMTP_PORT });
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (literal, after) = rest.split_once(']').ok_or_else(refuse)?;
        let address = literal.parse::<IpAddr>().map_err(|_| refuse())?;
        let port = if after.is_empty() { ":25" } else { after };
        let port = port.strip_prefix(':').and_then(parse_port).ok_or_else(refuse)?;
        return Ok(SmartHost { host: address.to_string(), port });
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, parse_port(port).ok_or_else(refuse)?),
        None => (text, SMTP_PORT),
    };
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SmartHost { host: address.to_string(), port });
    }
    Ok(SmartHost { host: domain(host).map_err(|_| refuse())?, port })
}

fn parse_port(text: &str) -> Option<u16> {
    let port = text.parse::<u16>().ok()?;
    (port != 0 && text.bytes().all(|b| b.is_ascii_digit())).then_some(port)
}

/// `10.1.0.0/16`, `2001:db8::/32`, or one address. A prefix with host bits set is an error that names the
/// right one: it is more often a slip than a wish.
pub(crate) fn network(text: &str) -> Result<Network, Wrong> {
    let refuse = || format!("\"{text}\" is not a network; allowed: 10.1.0.0/16, 2001:db8::/32, 10.1.0.7");
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address = address.parse::<IpAddr>().map_err(|_| refuse())?;
    if address.to_canonical() != address {
        return Err(format!(
            "\"{text}\" is an IPv4 address in IPv6 form; allowed: the IPv4 form, such as 10.1.0.0/16"
        ));
    }
    let widest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => widest,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse::<u8>().map_err(|_| refuse())?
        }
        Some(_) => return Err(refuse()),
    };
    if prefix > widest {
        return Err(format!("\"{text}\": the prefix is longer than the address; allowed: /0 to /{widest}"));
    }
    let network = Network { address, prefix };
    let right = network.masked();
    if right != network {
        return Err(format!(
            "\"{text}\" has bits set behind its prefix; allowed: {right}, or the one address {address}"
        ));
    }
    Ok(network)
}

/// A CPU list as taskset writes it, `"0-3,8"`: in the order given, never empty, numbers below [`CPUS_MAX`], none
/// named twice. `"0*16"` names one for 16 shards, which take turns on it; at most [`CPUS_MAX`] shards in all.
/// Whether this host has those CPUs is checked at the start.
pub fn cpu_list(text: &str) -> Result<Vec<usize>, Wrong> {
    let refuse = || {
        format!("\"{text}\" is not a CPU list; allowed: numbers and ranges such as \"0\", \"0-3\", \"0-3,8\"")
    };
    let number =
        |digits: &str| -> Result<usize, Wrong> {
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(refuse());
            }
            digits.parse::<usize>().ok().filter(|cpu| *cpu < CPUS_MAX).ok_or_else(|| {
                format!("\"{text}\": there is no CPU {digits}; allowed: 0 to {}", CPUS_MAX - 1)
            })
        };
    let mut cpus = Vec::new();
    let mut seen = [false; CPUS_MAX];
    for part in text.split(',').map(str::trim) {
        let (part, times) = part.split_once('*').unwrap_or((part, "1"));
        let times = times.trim().parse::<usize>().ok().filter(|times| (1..=CPUS_MAX).contains(times));
        let times = times.ok_or_else(refuse)?;
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first.trim())?, number(last.trim())?);
        if first > last {
            return Err(format!("\"{text}\": {first}-{last} runs backwards; allowed: {last}-{first}"));
        }
        if let Some(twice) = (first..=last).find(|cpu| seen[*cpu]) {
            return Err(format!("\"{text}\" names CPU {twice} twice; allowed: each CPU once"));
        }
        seen[first..=last].fill(true);
        if cpus.len() + (last - first + 1) * times > CPUS_MAX {
            return Err(format!("\"{text}\" is for more shards than {CPUS_MAX}"));
        }
        cpus.extend((first..=last).flat_map(|cpu| std::iter::repeat_n(cpu, times)));
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown_in_their_largest_unit() {
        let table = [
            ("0s", 0, "0ms"),
            ("200ms", 200, "200ms"),
            ("90s", 90_000, "90s"),
            ("120s", 120_000, "2m"),
            ("24h", 86_400_000, "1d"),
            ("5d", 432_000_000, "5d"),
        ];
        for (text, millis, shown) in table {
            let read = duration(text, &(Duration::ZERO..=Duration::MAX)).expect(text);
            assert_eq!(
                (read, show_duration(read).as_str()),
                (Duration::from_millis(millis), shown),
                "{text}"
            );
        }
        for text in ["", "5", "s", "5 s", "-5s", "+5s", "1.5h", "5S", "5w", "213503982335d", "5s5m", "٥s"] {
            assert!(duration(text, &(Duration::ZERO..=Duration::MAX)).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_decimal_or_binary_by_their_unit() {
        let table = [
            ("0B", 0, "0B"),
            ("512KiB", 524_288, "512KiB"),
            ("10MB", 10_000_000, "10000000B"),
            ("64MiB", 67_108_864, "64MiB"),
            ("1024MiB", 1 << 30, "1GiB"),
            ("16777215TiB", 16_777_215 << 40, "16777215TiB"),
        ];
        for (text, bytes, shown) in table {
            let read = size(text, &(0..=u64::MAX)).expect(text);
            assert_eq!((read, show_size(read).as_str()), (bytes, shown), "{text}");
        }
        for text in ["", "64", "MiB", "64M", "64mib", "64 MiB", "-1B", "1.5GiB", "16777216TiB", "0x10B"] {
            assert!(size(text, &(0..=u64::MAX)).is_err(), "{text}");
        }
    }

    #[test]
    fn domains_come_back_in_lower_case_and_without_a_trailing_dot() {
        let longest = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
        assert_eq!(longest.len(), 253);
        let table = [
            ("Winery.Example.", "winery.example"),
            ("xn--kse-qla.example", "xn--kse-qla.example"),
            (&longest, &longest),
        ];
        for (text, read) in table {
            assert_eq!(domain(text).as_deref(), Ok(read), "{text}");
        }
        let long_label = format!("{}.example", "a".repeat(64));
        let long_name = format!("{longest}d");
        for text in
            ["", ".", "a..b", "-a.b", "a-.b", "a b", "a/b", "192.0.2.1", "a.b..", &long_label, &long_name]
        {
            assert!(domain(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mailboxes_are_a_dot_string_at_a_domain() {
        assert_eq!(mailbox("Post.Master+x@Winery.Example").as_deref(), Ok("Post.Master+x@winery.example"));
        let long_local = format!("{}@a.b", "l".repeat(65));
        for text in [
            "",
            "postmaster",
            "@a.b",
            "a@",
            "a..b@c.d",
            ".a@b.c",
            "a b@c.d",
            "\"a\"@b.c",
            "a@b@c d",
            &long_local,
        ] {
            assert!(mailbox(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpu_lists_keep_their_order() {
        assert_eq!(cpu_list("0-3,8"), Ok(vec![0, 1, 2, 3, 8]));
        assert_eq!(cpu_list("5, 1 - 2"), Ok(vec![5, 1, 2]));
        assert_eq!(cpu_list("1*3,0-2 * 2").map_err(|_| ()), Err(()), "CPU 1 twice");
        assert_eq!(cpu_list("3*3,0-1 * 2"), Ok(vec![3, 3, 3, 0, 0, 1, 1]));
        for text in ["0*0", "0*", "0*-1", "0*4097", "0-1*4000", "*2", "0*2*2"] {
            assert!(cpu_list(text).is_err(), "{text}");
        }
        assert_eq!(cpu_list("0-4095").map(|cpus| cpus.len()), Ok(CPUS_MAX));
    }

    #[test]
    fn a_spin_is_short() {
        for (text, micros) in [("0us", 0), ("20us", 20), ("1ms", 1_000), ("1000us", 1_000)] {
            assert_eq!(microseconds(text), Ok(Duration::from_micros(micros)), "{text}");
        }
        for text in ["", "20", "1001us", "2ms", "1s", "-1us", "99999999999999999999us"] {
            assert!(microseconds(text).is_err(), "{text}");
        }
    }
}
