//! The slow and obvious twin of the path grammar, written from the ABNF of RFC 5321 section 4.1.2 and 4.1.3.
//!
//! Only for tests and fuzz targets; shares no line with what it checks. Each rule is a function from a place
//! in the text to all places where what the rule describes may end; a path is there when there is one way
//! to read it.
//!
//! Where the relay's grammar differs from the ABNF, on purpose: underscores in domains and address literals
//! in source routes are taken; `::` may stand for one group of an IPv6 address; general address literals are
//! none; of the characters that RFC 6531 adds to local parts, some that nobody can see are none. What names with
//! such characters are, the crate idna says to both.

use crate::smtp::idn;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

type Ends = BTreeSet<usize>;

/// What a path says, in canonical form, and how many octets of the text it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Read {
    /// Empty for the null path.
    pub canonical: String,
    pub octets: usize,
}

/// `Reverse-path = Path / "<>"`.
pub(crate) fn reverse_path(text: &str) -> Option<Read> {
    if text.starts_with("<>") {
        return Some(Read { canonical: String::new(), octets: 2 });
    }
    path(text)
}

/// The argument of RCPT: `"<Postmaster>" / Forward-path`.
pub(crate) fn forward_path(text: &str) -> Option<Read> {
    const POSTMASTER: &str = "<postmaster>";
    if text.to_ascii_lowercase().starts_with(POSTMASTER) {
        return Some(Read { canonical: "Postmaster".into(), octets: POSTMASTER.len() });
    }
    path(text)
}

/// `Path = "<" [ A-d-l ":" ] Mailbox ">"`.
fn path(text: &str) -> Option<Read> {
    let bytes = text.as_bytes();
    let mut ways = Vec::new();
    for after_bracket in octet(bytes, 0, b'<') {
        let mut starts = Ends::from([after_bracket]);
        for end in route(bytes, after_bracket) {
            starts.extend(octet(bytes, end, b':'));
        }
        for start in starts {
            for at in local_part(bytes, start) {
                for domain_start in octet(bytes, at, b'@') {
                    for domain_end in domain_or_literal(bytes, domain_start) {
                        for end in octet(bytes, domain_end, b'>') {
                            ways.push((start..at, domain_start..domain_end, end));
                        }
                    }
                }
            }
        }
    }
    assert!(ways.len() <= 1, "{text:?} can be read in {} ways", ways.len());
    let (local, domain, octets) = ways.pop()?;
    let upper = text[local.clone()].to_ascii_uppercase();
    let wrapped =
        ["SRS0=", "SRS0+", "SRS0-", "SRS1=", "SRS1+", "SRS1-"].iter().any(|tag| upper.starts_with(tag));
    if octets > 256 || (local.len() > 64 && !wrapped) {
        return None;
    }
    let canonical = format!("{}@{}", canonical_local(&text[local]), canonical_domain(&text[domain])?);
    Some(Read { canonical, octets })
}

/// `A-d-l = At-domain *( "," At-domain )`, `At-domain = "@" Domain`.
fn route(text: &[u8], at: usize) -> Ends {
    let at_domain = |at| then(&octet(text, at, b'@'), |at| domain_or_literal(text, at));
    let first = at_domain(at);
    repeated(first, |at| then(&octet(text, at, b','), at_domain))
}

/// `Local-part = Dot-string / Quoted-string`.
fn local_part(text: &[u8], at: usize) -> Ends {
    let mut ends = dot_string(text, at);
    ends.extend(quoted_string(text, at));
    ends
}

/// `Dot-string = Atom *("." Atom)`.
fn dot_string(text: &[u8], at: usize) -> Ends {
    let character = |at| {
        let mut ends = one(text, at, is_atext);
        ends.extend(utf8(text, at));
        ends
    };
    let atom = |at| repeated(character(at), character);
    repeated(atom(at), |at| then(&octet(text, at, b'.'), atom))
}

/// RFC 5322 section 3.2.3.
fn is_atext(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&octet)
}

/// `Quoted-string = DQUOTE *QcontentSMTP DQUOTE`; qtextSMTP is 32, 33, 35 to 91, 93 to 126, and a backslash
/// quotes 32 to 126.
fn quoted_string(text: &[u8], at: usize) -> Ends {
    let content = |at: usize| {
        let mut ends = one(text, at, |octet| matches!(octet, 32 | 33 | 35..=91 | 93..=126));
        ends.extend(then(&octet(text, at, 92), |at| one(text, at, |octet| matches!(octet, 32..=126))));
        ends.extend(utf8(text, at));
        ends
    };
    let inner = repeated(octet(text, at, b'"'), content);
    then(&inner, |at| octet(text, at, b'"'))
}

/// `UTF8-non-ascii` (RFC 6531 section 3.3).
fn utf8(text: &[u8], at: usize) -> Ends {
    let character = str::from_utf8(&text[at..]).ok().and_then(|text| text.chars().next());
    let is_taken = |c: &char| match u32::from(*c) {
        0..0xa0 | 0x61c | 0x200e | 0x200f | 0x2028..=0x202e | 0x2066..=0x2069 | 0xfeff => false,
        0xfdd0..=0xfdef => false,
        number => !matches!(number & 0xffff, 0xfffe | 0xffff),
    };
    character.filter(is_taken).map(|c| at + c.len_utf8()).into_iter().collect()
}

fn domain_or_literal(text: &[u8], at: usize) -> Ends {
    let mut ends = domain(text, at);
    for start in octet(text, at, b'[') {
        for end in start..text.len() {
            if text[end] == b']' && literal(&text[start..end]).is_some() {
                ends.insert(end + 1);
            }
        }
    }
    ends
}

/// `Domain = sub-domain *("." sub-domain)`, `sub-domain = Let-dig [Ldh-str]`, with the lengths of RFC 1035.
/// At most 255 octets.
fn domain(text: &[u8], at: usize) -> Ends {
    let is_in_a_name = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b) || b >= 128;
    let longest = (at..text.len()).find(|at| !is_in_a_name(text[*at])).unwrap_or(text.len());
    if !text[at..longest].is_ascii() {
        let is_name = |name: &&str| name.len() <= 255 && idn::a_labels(name).is_some();
        let name = str::from_utf8(&text[at..longest]).ok().filter(is_name);
        return name.map(|_| longest).into_iter().collect();
    }
    let sub_domain = |at: usize| {
        let ends = one_or_more(text, at, |b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let is_sound = |range: Range<usize>| {
            let label = &text[range];
            label.len() <= 63 && label.first() != Some(&b'-') && label.last() != Some(&b'-')
        };
        ends.into_iter().filter(|&end| is_sound(at..end)).collect::<Ends>()
    };
    let ends = repeated(sub_domain(at), |at| then(&octet(text, at, b'.'), sub_domain));
    ends.into_iter().filter(|end| end - at <= 255).collect()
}

/// `IPv4-address-literal / IPv6-address-literal` without the brackets.
fn literal(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    match text.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => ipv6(&text[5..]).map(IpAddr::V6),
        _ => ipv4(text).map(IpAddr::V4),
    }
}

/// `Snum 3("." Snum)`.
fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let numbers: Vec<&str> = text.split('.').collect();
    let [a, b, c, d] = numbers[..] else { return None };
    let is_number = |text: &&str| (1..=3).contains(&text.len()) && text.chars().all(|c| c.is_ascii_digit());
    let number = |text| Some(text).filter(is_number).and_then(|text| text.parse::<u8>().ok());
    Some(Ipv4Addr::new(number(a)?, number(b)?, number(c)?, number(d)?))
}

/// `IPv6-full / IPv6-comp / IPv6v4-full / IPv6v4-comp`.
fn ipv6(text: &str) -> Option<Ipv6Addr> {
    // The last four octets may be written as an IPv4 address, which is two groups.
    let last = text.rsplit(':').next()?;
    let text = match ipv4(last) {
        Some(address) => {
            let [a, b, c, d] = address.octets();
            format!("{}{a:02x}{b:02x}:{c:02x}{d:02x}", &text[..text.len() - last.len()])
        }
        None => text.to_owned(),
    };
    let (front, back) = match text.split_once("::") {
        Some((front, back)) => (groups(front)?, Some(groups(back)?)),
        None => (groups(&text)?, None),
    };
    let given = front.len() + back.as_ref().map_or(0, Vec::len);
    let sound = if back.is_some() { given < 8 } else { given == 8 };
    if !sound {
        return None;
    }
    let mut all = front;
    all.resize(all.len() + 8 - given, 0);
    all.extend(back.unwrap_or_default());
    Some(Ipv6Addr::from(<[u16; 8]>::try_from(all).ok()?))
}

/// `IPv6-hex *(":" IPv6-hex)`, or nothing.
fn groups(text: &str) -> Option<Vec<u16>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let is_hex =
        |group: &&str| (1..=4).contains(&group.len()) && group.chars().all(|c| c.is_ascii_hexdigit());
    text.split(':').map(|group| u16::from_str_radix(Some(group).filter(is_hex)?, 16).ok()).collect()
}

fn canonical_local(local: &str) -> String {
    let mut plain = String::new();
    let mut characters = local.chars();
    if local.starts_with('"') {
        characters.next();
        characters.next_back();
    }
    while let Some(c) = characters.next() {
        let quotes = local.starts_with('"') && c == '\\';
        plain.extend(if quotes { characters.next() } else { Some(c) });
    }
    if dot_string(plain.as_bytes(), 0).contains(&plain.len()) {
        return plain;
    }
    format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""))
}

fn canonical_domain(domain: &str) -> Option<String> {
    let Some(inner) = domain.strip_prefix('[') else {
        return if domain.is_ascii() { Some(domain.to_ascii_lowercase()) } else { idn::a_labels(domain) };
    };
    Some(match literal(inner.strip_suffix(']')?.as_bytes())?.to_canonical() {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
    })
}

fn one(text: &[u8], at: usize, is: impl Fn(u8) -> bool) -> Ends {
    text.get(at).filter(|octet| is(**octet)).map(|_| at + 1).into_iter().collect()
}

fn octet(text: &[u8], at: usize, wanted: u8) -> Ends {
    one(text, at, |octet| octet == wanted)
}

fn one_or_more(text: &[u8], at: usize, is: impl Fn(u8) -> bool) -> Ends {
    (at + 1..=text.len()).take_while(|end| is(text[end - 1])).collect()
}

fn then(ends: &Ends, next: impl Fn(usize) -> Ends) -> Ends {
    ends.iter().flat_map(|&at| next(at)).collect()
}

/// `ends`, and whatever any number of `more` makes of them.
fn repeated(ends: Ends, more: impl Fn(usize) -> Ends) -> Ends {
    let (mut all, mut new) = (ends.clone(), ends);
    while !new.is_empty() {
        new = then(&new, &more).into_iter().filter(|&end| all.insert(end)).collect();
    }
    all
}
