//! The argument of XCLIENT, with which a trusted proxy says for whom it speaks (Postfix's XCLIENT_README).
//!
//! Pure. `XCLIENT name=value [name=value]…`; names in any case, each once; values in xtext (RFC 3461
//! section 4), or `[UNAVAILABLE]` or `[TEMPUNAVAIL]` for what is not known.

use super::command::is_hello_name;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What EHLO announces to those who may use it. LOGIN is not among them: a proxy's word proves nobody.
pub const ATTRIBUTES: &str = "NAME ADDR PORT PROTO HELO DESTADDR DESTPORT";

/// What a proxy says of its client; what it does not say stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Xclient {
    /// `Some(None)`: it has none.
    pub name: Option<Option<String>>,
    pub address: Option<IpAddr>,
    pub extended: Option<bool>,
    pub hello: Option<String>,
}

/// Why an argument is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XclientFault {
    Syntax,
    /// A name that is not announced.
    Attribute,
    /// LOGIN with a name.
    Login,
    /// `ADDR=[UNAVAILABLE]`: without an address there is nobody to judge.
    NoAddress,
}

/// Reads what follows the verb.
///
/// # Errors
/// [`XclientFault`]; the replies stand in `session::xclient`.
pub fn parse(argument: &[u8]) -> Result<Xclient, XclientFault> {
    let argument = str::from_utf8(argument).map_err(|_| XclientFault::Syntax)?;
    let mut xclient = Xclient::default();
    let mut seen: Vec<String> = Vec::new();
    for word in argument.split(' ').filter(|word| !word.is_empty()) {
        let (name, value) = word.split_once('=').ok_or(XclientFault::Syntax)?;
        let name = name.to_ascii_uppercase();
        if seen.contains(&name) {
            return Err(XclientFault::Syntax);
        }
        let value = known(value)?;
        match name.as_str() {
            "NAME" => xclient.name = Some(value.map(word_of).transpose()?),
            "ADDR" => xclient.address = Some(address(&value.ok_or(XclientFault::NoAddress)?)?),
            "PROTO" => xclient.extended = value.as_deref().map(protocol).transpose()?,
            "HELO" => xclient.hello = value.map(word_of).transpose()?,
            "PORT" | "DESTPORT" => value.as_deref().map_or(Ok(()), port)?,
            "DESTADDR" => drop(value.as_deref().map(address).transpose()?),
            "LOGIN" => value.map_or(Ok(()), |_| Err(XclientFault::Login))?,
            _ => return Err(XclientFault::Attribute),
        }
        seen.push(name);
    }
    if seen.is_empty() { Err(XclientFault::Syntax) } else { Ok(xclient) }
}

/// The decoded value; `None` when the proxy does not know it.
fn known(value: &str) -> Result<Option<String>, XclientFault> {
    if value.eq_ignore_ascii_case("[UNAVAILABLE]") || value.eq_ignore_ascii_case("[TEMPUNAVAIL]") {
        return Ok(None);
    }
    xtext(value).map(Some).ok_or(XclientFault::Syntax)
}

/// RFC 3461 section 4; hexadecimal digits in any case. `None` unless it comes to printable ASCII.
fn xtext(value: &str) -> Option<String> {
    let (mut text, mut rest) = (String::with_capacity(value.len()), value.as_bytes());
    while let Some((&octet, after)) = rest.split_first() {
        let (octet, after) = match octet {
            b'+' => {
                let digits = str::from_utf8(after.get(..2)?).ok()?;
                let ok = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                (u8::from_str_radix(digits, 16).ok().filter(|_| ok)?, &after[2..])
            }
            b'!'..=b'~' if octet != b'=' => (octet, after),
            _ => return None,
        };
        if !octet.is_ascii_graphic() && octet != b' ' {
            return None;
        }
        text.push(octet.into());
        rest = after;
    }
    (!text.is_empty()).then_some(text)
}

/// A host name that can stand in a Received field.
fn word_of(text: String) -> Result<String, XclientFault> {
    if is_hello_name(text.as_bytes()) { Ok(text) } else { Err(XclientFault::Syntax) }
}

fn address(text: &str) -> Result<IpAddr, XclientFault> {
    let v6 = text.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPV6:"));
    let address = match v6 {
        Some(tag) => text[tag.len()..].parse::<Ipv6Addr>().ok().map(IpAddr::from),
        None => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
    };
    address.map(|address| address.to_canonical()).ok_or(XclientFault::Syntax)
}

fn protocol(text: &str) -> Result<bool, XclientFault> {
    match text.to_ascii_uppercase().as_str() {
        "ESMTP" => Ok(true),
        "SMTP" => Ok(false),
        _ => Err(XclientFault::Syntax),
    }
}

fn port(text: &str) -> Result<(), XclientFault> {
    let ok = text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok();
    if ok { Ok(()) } else { Err(XclientFault::Syntax) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_in_any_case_and_order() {
        let xclient = parse(
            b"ADDR=192.0.2.1 name=spike.porcupine.org PORT=4711 proto=esmtp HELO=a+2Db DESTADDR=IPV6:::1 DESTPORT=25 LOGIN=[UNAVAILABLE]",
        );
        let expected = Xclient {
            name: Some(Some("spike.porcupine.org".into())),
            address: Some("192.0.2.1".parse().unwrap()),
            extended: Some(true),
            hello: Some("a-b".into()),
        };
        assert_eq!(xclient, Ok(expected));
        let v6 = parse(b"  ADDR=ipv6:2001:db8::1  NAME=[tempunavail]").unwrap();
        assert_eq!((v6.address, v6.name), (Some("2001:db8::1".parse().unwrap()), Some(None)));
        let mapped = parse(b"ADDR=IPV6:::ffff:192.0.2.1").unwrap();
        assert_eq!(mapped.address, Some("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn faults_are_told_apart() {
        use XclientFault::*;
        let long = format!("HELO={}", "h".repeat(256));
        for (argument, fault) in [
            ("", Syntax),
            ("   ", Syntax),
            ("ADDR", Syntax),
            ("ADDR=", Syntax),
            ("=x", Attribute),
            ("ADDR=192.0.2.1 ADDR=192.0.2.1", Syntax),
            ("ADDR=192.0.2.1 addr=192.0.2.2", Syntax),
            ("ADDR=192.0.2.256", Syntax),
            ("ADDR=2001:db8::1", Syntax),
            ("ADDR=IPV6:192.0.2.1", Syntax),
            ("ADDR=IPV6:", Syntax),
            ("ADDR=[UNAVAILABLE]", NoAddress),
            ("ADDR=[TEMPUNAVAIL]", NoAddress),
            ("LOGIN=joe", Login),
            ("COLOUR=blue", Attribute),
            ("REVERSE_NAME=x", Attribute),
            ("PROTO=LMTP", Syntax),
            ("PORT=65536", Syntax),
            ("DESTPORT=-1", Syntax),
            ("HELO=a+0D+0AMAIL", Syntax),
            ("HELO=a+20b", Syntax),
            ("HELO=a+2", Syntax),
            ("HELO=a+zz", Syntax),
            ("HELO=a++1", Syntax),
            ("HELO=(x)", Syntax),
            ("NAME=a=b", Syntax),
            ("NAME=\u{fc}", Syntax),
            (&long, Syntax),
        ] {
            assert_eq!(parse(argument.as_bytes()), Err(fault), "{argument}");
        }
        assert_eq!(parse(b"HELO=\xff"), Err(Syntax));
        assert!(parse(b"PORT=+31").is_ok(), "xtext of 1");
    }
}
