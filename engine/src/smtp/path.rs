//! Paths and mailboxes (RFC 5321 sections 4.1.2, 4.1.3 and 4.5.3.1; RFC 6531 section 3.3).
//!
//! Pure; values borrow from the command line. A [`Mailbox`] exists only if its text obeyed the
//! grammar, so its canonical form (its `Display`) is without CR, LF, NUL and other control characters, and
//! can be put in an envelope, in a Received field and in another server's command line as it is. Its domain
//! is always ASCII: U-labels become A-labels, so policy, routes and DNS know one form of a domain. Its local
//! part may be UTF-8, for who asked for that: the caller says whether the client did.
//!
//! Read and dropped: source routes (RFC 5321 section 4.1.1.3 and appendix C). Taken though the grammar
//! does not know it: underscores in domains, and long local parts in which a forwarder has wrapped a return address
//! (SRS). Not taken though RFC 6531 would: characters that end lines or
//! turn the direction of the text around them, lest an address be read as another one, and noncharacters.

use super::idn;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Octets of a local part as written (RFC 5321 section 4.5.3.1.1).
pub const LOCAL_PART_OCTETS_MAX: usize = 64;
/// Octets of a domain (RFC 5321 section 4.5.3.1.2).
pub const DOMAIN_OCTETS_MAX: usize = 255;
/// Octets of a path with its punctuation (RFC 5321 section 4.5.3.1.3).
pub const PATH_OCTETS_MAX: usize = 256;
/// Octets of one label of a domain (RFC 1035 section 2.3.4).
const LABEL_OCTETS_MAX: usize = 63;

/// What stands right of the `@`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain<'a> {
    /// A domain name as the sender wrote it, without a trailing dot; with U-labels when it is not ASCII.
    Name(&'a str),
    /// `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
    Literal(IpAddr),
}

/// `Local-part "@" ( Domain / address-literal )`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mailbox<'a> {
    /// As written: an atom string, or a quoted string with its quotes.
    pub local: &'a str,
    pub domain: Domain<'a>,
}

/// The path of RCPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardPath<'a> {
    /// `<Postmaster>` without a domain, in any case (RFC 5321 section 4.5.1).
    Postmaster,
    Mailbox(Mailbox<'a>),
}

/// Why a path is none. Always the client's fault, and lasting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFault {
    NoBrackets,
    NonAscii,
    PathTooLong,
    LocalPart,
    LocalPartTooLong,
    NoDomain,
    Domain,
    DomainTooLong,
    Literal,
    /// A literal of another kind than IPv4 and IPv6 (`General-address-literal`); none is registered.
    UnknownLiteral,
    NullForwardPath,
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoBrackets => "the address must stand in angle brackets",
            Self::NonAscii => "non-ASCII octets in the address",
            Self::PathTooLong => "the path is longer than 256 octets",
            Self::LocalPart => "the local part is malformed",
            Self::LocalPartTooLong => "the local part is longer than 64 octets",
            Self::NoDomain => "the domain is missing",
            Self::Domain => "the domain is malformed",
            Self::DomainTooLong => "the domain is longer than 255 octets",
            Self::Literal => "the address literal is malformed",
            Self::UnknownLiteral => "only IPv4 and IPv6: address literals are taken",
            Self::NullForwardPath => "a recipient cannot be the null path",
        })
    }
}

impl Domain<'_> {
    /// The name, or `None` for an address literal.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Literal(_) => None,
        }
    }
}

/// The canonical text: names in lower case and with A-labels, literals in their RFC 5321 section 4.1.3 form.
impl fmt::Display for Domain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) if !name.is_ascii() => f.write_str(&idn::a_labels(name).unwrap_or_default()),
            Self::Name(name) => {
                name.chars().try_for_each(|c| fmt::Write::write_char(f, c.to_ascii_lowercase()))
            }
            Self::Literal(address) => write!(f, "{}", AddressLiteral(*address)),
        }
    }
}

/// An address as SMTP writes it: `[192.0.2.1]`, `[IPv6:2001:db8::1]`; a mapped IPv4 address as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressLiteral(pub IpAddr);

impl fmt::Display for AddressLiteral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.to_canonical() {
            IpAddr::V4(address) => write!(f, "[{address}]"),
            IpAddr::V6(address) => write!(f, "[IPv6:{address}]"),
        }
    }
}

impl Mailbox<'_> {
    /// The characters of the local part without quotes and quoting backslashes.
    pub fn local_characters(&self) -> impl Iterator<Item = char> + '_ {
        let quoted = self.local.starts_with('"');
        let inner = if quoted { &self.local[1..self.local.len() - 1] } else { self.local };
        let mut escaped = false;
        inner.chars().filter(move |&c| {
            if quoted && c == '\\' && !escaped {
                escaped = true;
                return false;
            }
            escaped = false;
            true
        })
    }
}

/// The canonical text: the local part quoted only where it must be, with the fewest backslashes
/// (RFC 5321 section 4.1.2: `"joe"@x` and `joe@x` are one mailbox), the domain in lower case.
impl fmt::Display for Mailbox<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needs_quotes = self.local.starts_with('"') && !is_dot_string(self.local_characters());
        if !needs_quotes {
            self.local_characters().try_for_each(|c| fmt::Write::write_char(f, c))?;
        } else {
            f.write_str("\"")?;
            for c in self.local_characters() {
                if matches!(c, '"' | '\\') {
                    f.write_str("\\")?;
                }
                fmt::Write::write_char(f, c)?;
            }
            f.write_str("\"")?;
        }
        write!(f, "@{}", self.domain)
    }
}

/// Reads a reverse-path, `None` for the null reverse-path `<>`; returns what follows it.
pub fn reverse_path(text: &str) -> Result<(Option<Mailbox<'_>>, &str), PathFault> {
    if let Some(rest) = text.strip_prefix("<>") {
        return Ok((None, rest));
    }
    let (mailbox, rest) = path(text)?;
    Ok((Some(mailbox), rest))
}

/// Reads a forward-path; returns what follows it.
pub fn forward_path(text: &str) -> Result<(ForwardPath<'_>, &str), PathFault> {
    const POSTMASTER: &str = "<postmaster>";
    if text.starts_with("<>") {
        return Err(PathFault::NullForwardPath);
    }
    if text.get(..POSTMASTER.len()).is_some_and(|head| head.eq_ignore_ascii_case(POSTMASTER)) {
        return Ok((ForwardPath::Postmaster, &text[POSTMASTER.len()..]));
    }
    let (mailbox, rest) = path(text)?;
    Ok((ForwardPath::Mailbox(mailbox), rest))
}

/// `"<" [ A-d-l ":" ] Mailbox ">"`.
fn path(text: &str) -> Result<(Mailbox<'_>, &str), PathFault> {
    let inner = text.strip_prefix('<').ok_or(PathFault::NoBrackets)?;
    let (mailbox, rest) = mailbox(source_route(inner)?)?;
    let rest = rest.strip_prefix('>').ok_or(match mailbox.domain {
        _ if rest.is_empty() => PathFault::NoBrackets,
        Domain::Name(_) => PathFault::Domain,
        Domain::Literal(_) => PathFault::Literal,
    })?;
    if text.len() - rest.len() > PATH_OCTETS_MAX {
        return Err(PathFault::PathTooLong);
    }
    Ok((mailbox, rest))
}

/// Skips `@one.example,@two.example:`.
fn source_route(mut text: &str) -> Result<&str, PathFault> {
    if !text.starts_with('@') {
        return Ok(text);
    }
    loop {
        let (_, rest) = domain(text.strip_prefix('@').ok_or(PathFault::Domain)?)?;
        if let Some(mailbox) = rest.strip_prefix(':') {
            return Ok(mailbox);
        }
        text = rest.strip_prefix(',').ok_or(PathFault::Domain)?;
    }
}

fn mailbox(text: &str) -> Result<(Mailbox<'_>, &str), PathFault> {
    let local_octets = if text.starts_with('"') { quoted_string(text)? } else { dot_string(text)? };
    let (local, rest) = text.split_at(local_octets);
    // What forwarders make of return addresses (SRS) is as long as it must be to hold them.
    if local_octets > LOCAL_PART_OCTETS_MAX && !is_wrapped(local) {
        return Err(PathFault::LocalPartTooLong);
    }
    match rest.as_bytes().first() {
        Some(b'@') => {}
        Some(b'>') => return Err(PathFault::NoDomain),
        None => return Err(PathFault::NoBrackets),
        Some(_) => return Err(PathFault::LocalPart),
    }
    let (domain, rest) = domain(&rest[1..])?;
    Ok((Mailbox { local, domain }, rest))
}

/// A return address that a forwarder has wrapped (SRS0, SRS1).
fn is_wrapped(local: &str) -> bool {
    let (tag, rest) = local.split_at_checked(4).unwrap_or(("", ""));
    (tag.eq_ignore_ascii_case("SRS0") || tag.eq_ignore_ascii_case("SRS1"))
        && rest.starts_with(['=', '-', '+'])
}

/// Reads a mailbox with nothing around it.
pub fn whole_mailbox(text: &str) -> Option<Mailbox<'_>> {
    mailbox(text).ok().filter(|(_, rest)| rest.is_empty()).map(|(mailbox, _)| mailbox)
}

/// Octets of the quoted string at the start, quotes included.
fn quoted_string(text: &str) -> Result<usize, PathFault> {
    let bytes = text.as_bytes();
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return Ok(at + 1),
            b'\\' => match bytes.get(at + 1) {
                Some(b' '..=b'~') => at += 2,
                _ => return Err(PathFault::LocalPart),
            },
            b' '..=b'~' => at += 1,
            0x80.. => match text[at..].chars().next() {
                Some(c) if is_local_utf8(c) => at += c.len_utf8(),
                _ => return Err(PathFault::LocalPart),
            },
            _ => return Err(PathFault::LocalPart),
        }
    }
    Err(PathFault::LocalPart)
}

/// Octets of the dot string at the start.
fn dot_string(text: &str) -> Result<usize, PathFault> {
    let ends = |c: char| match u8::try_from(c) {
        Ok(byte) if byte.is_ascii() => !is_atext(byte) && byte != b'.',
        _ => !is_local_utf8(c),
    };
    let octets = text.find(ends).unwrap_or(text.len());
    if is_dot_string(text[..octets].chars()) { Ok(octets) } else { Err(PathFault::LocalPart) }
}

/// `Atom *("." Atom)`.
fn is_dot_string(characters: impl Iterator<Item = char>) -> bool {
    let mut atom_is_empty = true;
    for c in characters {
        match c {
            '.' if atom_is_empty => return false,
            '.' => atom_is_empty = true,
            _ if !c.is_ascii() || is_atext(c as u8) => atom_is_empty = false,
            _ => return false,
        }
    }
    !atom_is_empty
}

/// RFC 5322 section 3.2.3.
fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

/// `UTF8-non-ascii`, but for C1 controls, line and paragraph separators, what turns the direction of the text
/// around it (Unicode's `Bidi_Control`), the byte order mark, and noncharacters.
fn is_local_utf8(c: char) -> bool {
    let refused = matches!(
        c,
        '\u{80}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}'
            | '\u{fdd0}'..='\u{fdef}'
    );
    !c.is_ascii() && !refused && u32::from(c) & 0xfffe != 0xfffe
}

fn domain(text: &str) -> Result<(Domain<'_>, &str), PathFault> {
    if let Some(inner) = text.strip_prefix('[') {
        let (literal, rest) = inner.split_once(']').ok_or(PathFault::Literal)?;
        let address = address_literal(literal).ok_or_else(|| literal_fault(literal))?;
        return Ok((Domain::Literal(address), rest));
    }
    let octets = text.bytes().position(|b| b.is_ascii() && !is_domain_octet(b)).unwrap_or(text.len());
    let (name, rest) = text.split_at(octets);
    if name.len() > DOMAIN_OCTETS_MAX {
        return Err(PathFault::DomainTooLong);
    }
    let sound = if name.is_ascii() { is_domain(name) } else { idn::a_labels(name).is_some() };
    if !sound {
        return Err(if name.is_empty() { PathFault::NoDomain } else { PathFault::Domain });
    }
    Ok((Domain::Name(name), rest))
}

/// What stands between the brackets of an address literal (RFC 5321 section 4.1.3), in all textual forms of
/// IPv6. General address literals, for which no tag is registered, are none.
pub fn address_literal(text: &str) -> Option<IpAddr> {
    const TAG: &str = "IPv6:";
    let address = match text.get(..TAG.len()) {
        Some(tag) if tag.eq_ignore_ascii_case(TAG) => &text[TAG.len()..],
        _ => return snum4(text).map(IpAddr::V4),
    };
    let Some((head, tail)) = address.rsplit_once(':').filter(|(_, tail)| tail.contains('.')) else {
        return address.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    };
    // The IPv4 part may have zeros in front.
    let tail = snum4(tail)?;
    format!("{head}:{tail}").parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

/// `Snum 3("." Snum)`, a `Snum` being one to three digits of a decimal number up to 255.
fn snum4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        let sound = (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        *octet = if sound { part.parse().ok()? } else { return None };
    }
    parts.next().is_none().then(|| octets.into())
}

/// `Standardized-tag ":" 1*dcontent` is a literal, only of a kind that nobody knows.
fn literal_fault(text: &str) -> PathFault {
    let is_tag = |tag: &str| !tag.is_empty() && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let is_known = |tag: &str| tag.eq_ignore_ascii_case("IPv6");
    match text.split_once(':') {
        Some((tag, content)) if is_tag(tag) && !is_known(tag) && !content.is_empty() => {
            PathFault::UnknownLiteral
        }
        _ => PathFault::Literal,
    }
}

fn is_domain_octet(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// Labels of letters, digits, hyphens and underscores; no empty label, no hyphen at its ends, at most
/// 255 octets (RFC 5321 section 4.1.2, RFC 1035 section 2.3.4).
pub fn is_domain(name: &str) -> bool {
    name.len() <= DOMAIN_OCTETS_MAX
        && name.split('.').all(|label| {
            (1..=LABEL_OCTETS_MAX).contains(&label.len())
                && label.bytes().all(|b| b != b'.' && is_domain_octet(b))
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// Splits a canonical address, as envelopes hold it, at its last `@` (a domain has none).
///
/// `None` for the null reverse-path and for anything without a domain.
pub fn split_address(address: &str) -> Option<(&str, &str)> {
    address.rsplit_once('@').filter(|(local, domain)| !local.is_empty() && !domain.is_empty())
}

#[cfg(any(test, fuzzing))]
pub(crate) mod twin;

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(path: &str) -> Result<String, PathFault> {
        match forward_path(path)? {
            (ForwardPath::Postmaster, "") => Ok("Postmaster".into()),
            (ForwardPath::Mailbox(mailbox), "") => Ok(mailbox.to_string()),
            (_, rest) => panic!("{rest:?} is left of {path:?}"),
        }
    }

    /// RFC 5321 sections 4.1.2 and 4.1.3.
    #[test]
    fn paths_that_obey_the_grammar_have_one_canonical_form() {
        for (path, expected) in [
            ("<joe@example.com>", "joe@example.com"),
            ("<Joe@EXAMPLE.Com>", "Joe@example.com"),
            ("<a.b+c!d#e$f%g&h'i*j-k/l=m?n^o_p`q{r|s}t~u@x>", "a.b+c!d#e$f%g&h'i*j-k/l=m?n^o_p`q{r|s}t~u@x"),
            ("<joe@my_host.example.com>", "joe@my_host.example.com"),
            ("<joe@_dmarc.example>", "joe@_dmarc.example"),
            ("<joe@1.2.3.4>", "joe@1.2.3.4"),
            (r#"<"joe"@x.example>"#, "joe@x.example"),
            (r#"<"j\o\e"@x.example>"#, "joe@x.example"),
            (r#"<"joe smith"@x.example>"#, r#""joe smith"@x.example"#),
            (r#"<"a@b"@x.example>"#, r#""a@b"@x.example"#),
            (r#"<"a\"b\\c\>"@x.example>"#, r#""a\"b\\c>"@x.example"#),
            (r#"<"a..b"@x.example>"#, r#""a..b"@x.example"#),
            (r#"<""@x.example>"#, r#"""@x.example"#),
            ("<joe@[192.0.2.1]>", "joe@[192.0.2.1]"),
            ("<joe@[ipv6:2001:DB8::1]>", "joe@[IPv6:2001:db8::1]"),
            ("<@one.example:joe@x.example>", "joe@x.example"),
            ("<@one.example,@[192.0.2.7]:joe@x.example>", "joe@x.example"),
            ("<Postmaster>", "Postmaster"),
            ("<pOSTMASTER>", "Postmaster"),
            ("<joe@[192.000.2.001]>", "joe@[192.0.2.1]"),
            ("<joe@[IPv6:2001:DB8:0:0:0:0:0:1]>", "joe@[IPv6:2001:db8::1]"),
            ("<joe@[IPv6:2001:0db8::0001:0]>", "joe@[IPv6:2001:db8::1:0]"),
            ("<joe@[IPv6:::]>", "joe@[IPv6:::]"),
            ("<joe@[IPv6:1::]>", "joe@[IPv6:1::]"),
            ("<joe@[IPv6:64:ff9b:0:0:0:0:192.0.2.033]>", "joe@[IPv6:64:ff9b::c000:221]"),
            ("<joe@[IPv6:64:ff9b::192.0.2.33]>", "joe@[IPv6:64:ff9b::c000:221]"),
            ("<joe@[IPv6:::ffff:192.0.2.1]>", "joe@[192.0.2.1]"),
            ("<jörg@x.example>", "jörg@x.example"),
            (r#"<"jörg"@x.example>"#, "jörg@x.example"),
            (r#"<"j ö"@x.example>"#, r#""j ö"@x.example"#),
            ("<用户@例え.テスト>", "用户@xn--r8jz45g.xn--zckzah"),
            ("<joe@BÜCHER.Example>", "joe@xn--bcher-kva.example"),
            ("<joe@ｗｉｎｅｒｙ.example>", "joe@winery.example"),
            ("<@bücher.example:jö@x.example>", "jö@x.example"),
            ("<j\u{200d}e@x.example>", "j\u{200d}e@x.example"),
            ("<postmaster@x.example>", "postmaster@x.example"),
        ] {
            assert_eq!(canonical(path).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn paths_that_break_the_grammar_say_where() {
        use PathFault::*;
        for (path, fault) in [
            ("", NoBrackets),
            ("joe@x.example", NoBrackets),
            ("<joe@x.example", NoBrackets),
            ("<joe", NoBrackets),
            ("<>", NullForwardPath),
            ("<joe>", NoDomain),
            ("<joe@>", NoDomain),
            ("<@x.example>", Domain),
            ("<@x.example,:joe@y>", Domain),
            ("<@:joe@y>", NoDomain),
            ("<.joe@x>", LocalPart),
            ("<joe.@x>", LocalPart),
            ("<j..oe@x>", LocalPart),
            ("<j oe@x>", LocalPart),
            ("<jo(e)@x>", LocalPart),
            ("<\"joe@x>", LocalPart),
            ("<\"joe\\", LocalPart),
            ("<\"joe\"x@x>", LocalPart),
            ("<\"jo\te\"@x>", LocalPart),
            ("<jo\0e@x>", LocalPart),
            ("<joe@x.>", Domain),
            ("<joe@.x>", Domain),
            ("<joe@x..y>", Domain),
            ("<joe@-x>", Domain),
            ("<joe@x->", Domain),
            ("<joe@x y>", Domain),
            ("<joe@x@y>", Domain),
            ("<joe@x!y>", Domain),
            ("<joe@[1.2.3]>", Literal),
            ("<joe@[1.2.3.256]>", Literal),
            ("<joe@[IPv6:1.2.3.4]>", Literal),
            ("<joe@[2001:db8::1]>", UnknownLiteral),
            ("<joe@[tag:content]>", UnknownLiteral),
            ("<joe@[IPv6:]>", Literal),
            ("<joe@[IPv6:1:2:3:4:5:6:7]>", Literal),
            ("<joe@[IPv6:1:2:3:4:5:6:7:8:9]>", Literal),
            ("<joe@[IPv6:1::2::3]>", Literal),
            ("<joe@[IPv6:12345::]>", Literal),
            ("<joe@[IPv6:fe80::1%eth0]>", Literal),
            ("<joe@[IPv6:::1.2.3]>", Literal),
            ("<joe@[IPv6:1.2.3.4]>", Literal),
            ("<joe@[]>", Literal),
            ("<joe@[:x]>", Literal),
            ("<joe@[0001.2.3.4]>", Literal),
            ("<joe@[1.2.3.4.5]>", Literal),
            ("<joe@[1.2.3.4>", Literal),
            ("<joe@[1.2.3.4]x>", Literal),
            ("<jö", NoBrackets),
            ("<jö>", NoDomain),
            ("<jö..e@x>", LocalPart),
            ("<\"j\\ö\"@x>", LocalPart),
            ("<j\u{80}e@x>", LocalPart),
            ("<\"j\u{9f}e\"@x>", LocalPart),
            ("<j\u{2028}e@x>", LocalPart),
            ("<j\u{2029}e@x>", LocalPart),
            ("<j\u{202e}e@x>", LocalPart),
            ("<j\u{2066}e@x>", LocalPart),
            ("<j\u{feff}e@x>", LocalPart),
            ("<j\u{fdd0}e@x>", LocalPart),
            ("<j\u{ffff}e@x>", LocalPart),
            ("<j\u{10fffe}e@x>", LocalPart),
            ("<joe@ü..x>", Domain),
            ("<joe@-ü>", Domain),
            ("<joe@ü\u{2028}x>", Domain),
            ("<joe@\u{202e}ü>", Domain),
            ("<joe@ü。>", Domain),
            ("<joe＠x>", NoDomain),
        ] {
            assert_eq!(canonical(path), Err(fault), "{path}");
        }
    }

    /// RFC 5321 section 4.5.3.1.
    #[test]
    fn limits_hold_to_the_octet() {
        let local = |n| format!("<{}@x.example>", "l".repeat(n));
        assert!(canonical(&local(64)).is_ok());
        assert_eq!(canonical(&local(65)), Err(PathFault::LocalPartTooLong));
        let utf8 = |n: usize| format!("<{}@x.example>", "ö".repeat(n));
        assert!(canonical(&utf8(32)).is_ok(), "octets count, not characters");
        assert_eq!(canonical(&utf8(33)), Err(PathFault::LocalPartTooLong));
        let label = |n| format!("<joe@{}.example>", "d".repeat(n));
        assert!(canonical(&label(63)).is_ok());
        assert_eq!(canonical(&label(64)), Err(PathFault::Domain));
        let domain = |n: usize| format!("<@r:j@{}{}>", "abcdefg.".repeat(30), "d".repeat(n - 240));
        assert_eq!(domain(249).len(), 256);
        assert!(canonical(&domain(249)).is_ok());
        assert_eq!(canonical(&domain(250)), Err(PathFault::PathTooLong));
        assert_eq!(canonical(&domain(256)), Err(PathFault::DomainTooLong));
    }

    #[test]
    fn the_canonical_form_is_a_fixed_point() {
        for path in
            [r#"<"a\ b"@X>"#, r#"<"\""@[192.0.2.1]>"#, "<a@B.c>", r#"<"x\@y"@z>"#, "<ö@Ü.é>", r#"<"ö ö"@x>"#]
        {
            let once = canonical(path).unwrap();
            assert_eq!(canonical(&format!("<{once}>")).unwrap(), once);
        }
    }

    #[test]
    fn an_address_splits_at_its_last_at() {
        assert_eq!(split_address(r#""a@b"@x.example"#), Some((r#""a@b""#, "x.example")));
        assert_eq!(split_address(""), None);
        assert_eq!(split_address("joe"), None);
    }

    #[test]
    fn the_null_reverse_path_is_not_a_mailbox() {
        assert_eq!(reverse_path("<> SIZE=1"), Ok((None, " SIZE=1")));
        assert_eq!(reverse_path("<Postmaster>"), Err(PathFault::NoDomain));
    }
}
