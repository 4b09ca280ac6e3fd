//! The header section of a message as it goes out on a route that rewrites.
//!
//! Pure: octets in, octets out. Fields are taken one by one; a line that belongs to no field ends the section, and
//! from there on nothing is touched. Rules are [`Rules`]; this file is how they apply to content.
//!
//! Never removed: a Received field of the relay's own, so that a loop through here is noticed however often the
//! message is stripped (RFC 5321 section 6.3). The topmost of them loses its `from` clause where internal hops are
//! stripped, since that names an internal host.

use super::{Class, Rules};
use crate::config::Network;
use std::net::IpAddr;

/// Fields whose addresses are those of senders.
const SENDERS: [&str; 8] = [
    "From",
    "Sender",
    "Reply-To",
    "Resent-From",
    "Resent-Sender",
    "Resent-Reply-To",
    "Errors-To",
    "Disposition-Notification-To",
];
/// And of recipients.
const RECIPIENTS: [&str; 6] = ["To", "Cc", "Bcc", "Resent-To", "Resent-Cc", "Resent-Bcc"];

/// A header section that is whole: its fields, and everything from `octets[end..]` on is not touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End(pub usize);

/// Where the fields end; `None` when more is to be read first. `is_all`: there is no more.
pub fn end(octets: &[u8], is_all: bool) -> Option<End> {
    let mut at = 0;
    loop {
        let rest = &octets[at..];
        let Some(line) = memchr::memchr(b'\n', rest) else {
            return is_all.then_some(End(at));
        };
        let continues = at > 0 && matches!(rest[0], b' ' | b'\t');
        if !continues && name(&rest[..=line]).is_none() {
            return Some(End(at));
        }
        at += line + 1;
    }
}

/// The section of fields as it goes out. `hostname`: the relay's own.
pub fn rewritten(fields: &[u8], rules: &Rules, hostname: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(fields.len() + 256);
    let mut is_first_own = true;
    let mut rest = fields;
    while !rest.is_empty() {
        let field;
        (field, rest) = rest.split_at(field_octets(rest));
        let Some(name) = name(field) else {
            out.extend_from_slice(field);
            continue;
        };
        if rules.strip_received && name.eq_ignore_ascii_case("Received") {
            match received(field, rules, hostname) {
                Hop::Own if std::mem::take(&mut is_first_own) => out.extend_from_slice(&without_from(field)),
                Hop::Internal => {}
                Hop::Own | Hop::Other => out.extend_from_slice(field),
            }
            continue;
        }
        if rules.remove_headers.iter().any(|removed| removed.eq_ignore_ascii_case(name)) {
            continue;
        }
        match class(name) {
            Some(class) if rules.has_addresses(class) => {
                put_addresses(&mut out, field, name.len(), rules, class)
            }
            _ => out.extend_from_slice(field),
        }
    }
    for field in &rules.add_headers {
        out.extend_from_slice(field.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn put_addresses(out: &mut Vec<u8>, field: &[u8], name_octets: usize, rules: &Rules, class: Class) {
    let colon = name_octets + memchr::memchr(b':', &field[name_octets..]).map_or(0, |at| at + 1);
    let (head, value) = field.split_at(colon);
    out.extend_from_slice(head);
    match super::addresses::replaced(value, head.len(), |address| rules.header_address(class, address)) {
        Some(value) => out.extend_from_slice(&value),
        None => out.extend_from_slice(value),
    }
}

fn class(name: &str) -> Option<Class> {
    let is = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    match () {
        () if is(&SENDERS) => Some(Class::Sender),
        () if is(&RECIPIENTS) => Some(Class::Recipient),
        () => None,
    }
}

/// The name of the field that a line begins (RFC 5322 section 2.2; white space before the colon is obsolete).
fn name(line: &[u8]) -> Option<&str> {
    let colon = memchr::memchr(b':', line)?;
    let name = line[..colon].trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(|octet| octet.is_ascii_graphic());
    if is_name { str::from_utf8(name).ok() } else { None }
}

/// Octets of the first field, with the lines that continue it.
fn field_octets(octets: &[u8]) -> usize {
    let mut at = 0;
    loop {
        match memchr::memchr(b'\n', &octets[at..]) {
            None => return octets.len(),
            Some(line) => at += line + 1,
        }
        if !matches!(octets.get(at), Some(b' ' | b'\t')) {
            return at;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hop {
    Own,
    Internal,
    Other,
}

/// Whose Received field it is, by the host that says it wrote it.
fn received(field: &[u8], rules: &Rules, hostname: &str) -> Hop {
    let text = String::from_utf8_lossy(field);
    match clause(&text, "by") {
        Some(by) if by.trim_end_matches('.').eq_ignore_ascii_case(hostname) => Hop::Own,
        Some(by) if is_internal(by, rules) => Hop::Internal,
        _ => Hop::Other,
    }
}

/// The word behind a keyword that stands outside of comments.
fn clause<'t>(text: &'t str, keyword: &str) -> Option<&'t str> {
    let mut depth = 0_usize;
    let (_, body) = text.split_once(':')?;
    let mut words = body.split_ascii_whitespace().filter(|word| {
        let outside = depth == 0 && !word.starts_with('(');
        depth = (depth + word.matches('(').count()).saturating_sub(word.matches(')').count());
        outside
    });
    words.find(|word| word.eq_ignore_ascii_case(keyword))?;
    words.next().map(|word| word.trim_end_matches(';'))
}

/// Names that nobody outside knows: of the rules' domains, without a dot, or by their last label reserved for inside.
fn is_internal(host: &str, rules: &Rules) -> bool {
    const INSIDE: [&str; 8] =
        ["local", "localdomain", "localhost", "lan", "internal", "intranet", "corp", "home"];
    let literal = host.strip_prefix('[').map_or(host, |rest| rest.trim_end_matches(']'));
    let literal = literal.strip_prefix("IPv6:").unwrap_or(literal);
    if let Ok(address) = literal.parse::<IpAddr>() {
        return is_private(address);
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let last = host.rsplit('.').next().unwrap_or_default();
    !host.contains('.') || INSIDE.contains(&last) || rules.is_inside(&host)
}

fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => {
            let local = Network { address: "fc00::".parse().expect("an address"), prefix: 7 };
            v6.is_loopback() || local.contains(v6.into()) || v6.is_unicast_link_local()
        }
    }
}

/// A field of the relay's own without its `from` clause, which ends where `by` begins.
fn without_from(field: &[u8]) -> Vec<u8> {
    let by =
        memchr::memmem::find_iter(field, b"by ").find(|&at| at > 0 && field[at - 1].is_ascii_whitespace());
    match by {
        Some(by) => [b"Received: ", &field[by..]].concat(),
        None => field.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{RULES, rules};
    use super::*;

    #[test]
    fn the_section_ends_at_the_first_line_of_no_field() {
        let table: [(&[u8], bool, Option<usize>); 12] = [
            (b"A: b\r\n\r\nbody", true, Some(6)),
            (b"A: b\r\n c\r\n\r\n", false, Some(10)),
            (b"A: b\r\n", true, Some(6)),
            (b"A: b\r\n", false, None),
            (b"A: b", true, Some(0)),
            (b"A: b\r\nno field\r\n\r\n", false, Some(6)),
            (b"\r\nbody", false, Some(0)),
            (b"", true, Some(0)),
            (b"", false, None),
            (b" A: b\r\n", false, Some(0)),
            (b": b\r\n", false, Some(0)),
            (b"A : b\r\n\r\n", false, Some(7)),
        ];
        for (octets, is_all, expected) in table {
            assert_eq!(end(octets, is_all), expected.map(End), "{}", octets.escape_ascii());
        }
    }

    #[test]
    fn fields_are_rewritten_removed_and_added() {
        let header = "Received: from exch01.corp.example (exch01.corp.example [10.1.0.10])\r\n\tby relay.example with ESMTP id 0A1;\r\n\tSun, 22 Nov 2026 01:00:00 +0000\r\n\
            Received: from pc7 ([10.1.7.7]) by exch01.corp.example (by itself) with mapi; Sun, 22 Nov 2026 00:59:59 +0000\r\n\
            Received: from mx.away.example by relay.example with ESMTP; Sun, 22 Nov 2026 00:59:00 +0000\r\n\
            Received: from bob by mx.away.example with ESMTP; Sun, 22 Nov 2026 00:58:00 +0000\r\n\
            Received: from x by y; Sun, 22 Nov 2026 00:57:00 +0000\r\n\
            From: Ann <ann@pc7.corp.example>\r\n\
            To: Bob <bob@pc8.corp.example>,\r\n\t\"x\" <eve@away.example>\r\n\
            x-originating-IP: [10.1.7.7]\r\n folded\r\n\
            Message-ID: <1@pc7.corp.example>\r\n\
            Subject: ann@pc7.corp.example \u{fc}\r\n";
        let expected = "Received: by relay.example with ESMTP id 0A1;\r\n\tSun, 22 Nov 2026 01:00:00 +0000\r\n\
            Received: from mx.away.example by relay.example with ESMTP; Sun, 22 Nov 2026 00:59:00 +0000\r\n\
            Received: from bob by mx.away.example with ESMTP; Sun, 22 Nov 2026 00:58:00 +0000\r\n\
            From: Ann <ann@corp.example>\r\n\
            To: Bob <bob@pc8.corp.example>,\r\n\t\"x\" <eve@away.example>\r\n\
            Message-ID: <1@pc7.corp.example>\r\n\
            Subject: ann@pc7.corp.example \u{fc}\r\n\
            X-Relay: yes\r\n";
        let out = rewritten(header.as_bytes(), &rules(RULES), "relay.example");
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn whose_hop_it_was_is_said_by_the_host_that_wrote_it() {
        let rules = rules(RULES);
        for (field, expected) in [
            ("Received: from a by relay.example; x", Hop::Own),
            ("Received: from a (by x.example) by RELAY.example.; x", Hop::Own),
            ("Received: by exch (1.2) ; x", Hop::Internal),
            ("Received: from a by h.corp.example; x", Hop::Internal),
            ("Received: from a by corp.example; x", Hop::Internal),
            ("Received: from a by host.own.example with x", Hop::Internal),
            ("Received: from a by 10.1.2.3 with x", Hop::Internal),
            ("Received: from a by [IPv6:fd00::1] with x", Hop::Internal),
            ("Received: from a by mx.lan with x", Hop::Internal),
            ("Received: from a by [192.0.2.1] with x", Hop::Other),
            ("Received: from a by mx.away.example with x", Hop::Other),
            ("Received: from a by notcorp.example with x", Hop::Other),
            ("Received: from by", Hop::Other),
            ("Received:", Hop::Other),
        ] {
            assert_eq!(received(field.as_bytes(), &rules, "relay.example"), expected, "{field}");
        }
    }
}
