//! The header of the PROXY protocol, versions 1 and 2, with which a load balancer says for whom it connects
//! (HAProxy's proxy-protocol.txt of 2020).
//!
//! Pure. Whoever reads it asks [`parse`] with all octets so far and reads exactly as many more as
//! [`Parsed::Needs`] says, so not one octet of what follows (a TLS handshake) is touched. Only listed
//! balancers are believed; from them the header is mandatory. Bounded: version 1 to [`V1_OCTETS_MAX`],
//! version 2 to [`V2_OCTETS_MAX`]. TLVs must fill their part exactly and are skipped but for the checksum,
//! which must be right if it is there.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest line of version 1, with its CRLF (section 2.1).
pub const V1_OCTETS_MAX: usize = 107;
/// Addresses and TLVs of version 2. Senders use some hundred octets; section 2.2 asks for 520.
const V2_BODY_MAX: usize = 4096;
pub const V2_OCTETS_MAX: usize = V2_HEAD + V2_BODY_MAX;

const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEAD: usize = 16;
const V1_START: &[u8] = b"PROXY ";
/// What every header has: the shorter of the two, `PROXY UNKNOWN` with its CRLF, has 15.
const START: usize = 12;
const TLV_CRC32C: u8 = 3;

/// How far a header is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// At least so many more octets belong to it.
    Needs(usize),
    /// It is complete, with so many octets.
    Header(usize, Origin),
}

/// For whom the balancer connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Client {
        client: SocketAddr,
        destination: SocketAddr,
    },
    /// For itself (LOCAL, a health check), or it does not say (UNKNOWN, UNSPEC): the connection's own
    /// addresses count.
    Balancer,
}

/// Why octets are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyFault {
    NoHeader,
    TooLong,
    /// Version, command or family that is not TCP over IPv4 or IPv6.
    Unsupported,
    Addresses,
    Tlv,
    Checksum,
}

impl fmt::Display for ProxyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHeader => "no PROXY header",
            Self::TooLong => "the PROXY header is too long",
            Self::Unsupported => "the PROXY header has an unknown version, command or family",
            Self::Addresses => "the PROXY header has malformed addresses",
            Self::Tlv => "the PROXY header has a malformed TLV",
            Self::Checksum => "the checksum of the PROXY header is wrong",
        })
    }
}

/// Reads a header from all octets that have come.
///
/// # Errors
/// As soon as no continuation can make a header of them.
pub fn parse(input: &[u8]) -> Result<Parsed, ProxyFault> {
    let is_start_of = |whole: &[u8]| {
        let len = input.len().min(whole.len());
        input[..len] == whole[..len]
    };
    if is_start_of(V2_SIGNATURE) && !input.is_empty() {
        if input.len() < START { Ok(Parsed::Needs(START - input.len())) } else { version_2(input) }
    } else if is_start_of(V1_START) {
        if input.len() < START { Ok(Parsed::Needs(START - input.len())) } else { version_1(input) }
    } else {
        Err(ProxyFault::NoHeader)
    }
}

fn version_1(input: &[u8]) -> Result<Parsed, ProxyFault> {
    let searched = &input[..input.len().min(V1_OCTETS_MAX)];
    let Some(end) = searched.windows(2).position(|pair| pair == b"\r\n") else {
        if input.len() >= V1_OCTETS_MAX {
            return Err(ProxyFault::TooLong);
        }
        let least = match &input[V1_START.len()..] {
            rest if rest.starts_with(b"TCP4 ") => "PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".len(),
            rest if rest.starts_with(b"TCP6 ") => "PROXY TCP6 :: :: 0 0\r\n".len(),
            _ => 0,
        };
        let end = if input.ends_with(b"\r") { 1 } else { 2 };
        let needs = least.saturating_sub(input.len()).max(end);
        return Ok(Parsed::Needs(needs.min(V1_OCTETS_MAX - input.len())));
    };
    let line = str::from_utf8(&input[..end]).map_err(|_| ProxyFault::Addresses)?;
    let mut words = line.split(' ').skip(1);
    let header = |origin| Ok(Parsed::Header(end + 2, origin));
    let family = words.next();
    if family == Some("UNKNOWN") {
        return header(Origin::Balancer);
    }
    let is_v4 = match family {
        Some("TCP4") => true,
        Some("TCP6") => false,
        _ => return Err(ProxyFault::Unsupported),
    };
    let mut address = || -> Option<IpAddr> {
        let address: IpAddr = words.next()?.parse().ok()?;
        (address.is_ipv4() == is_v4).then_some(address)
    };
    let (client, destination) = (address(), address());
    let mut port = || -> Option<u16> {
        let digits = words.next()?;
        let ok = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
        if ok { digits.parse().ok() } else { None }
    };
    let (from, to) = (port(), port());
    match (client, destination, from, to, words.next()) {
        (Some(client), Some(destination), Some(from), Some(to), None) => header(Origin::Client {
            client: SocketAddr::new(client, from),
            destination: SocketAddr::new(destination, to),
        }),
        _ => Err(ProxyFault::Addresses),
    }
}

fn version_2(input: &[u8]) -> Result<Parsed, ProxyFault> {
    if input.len() < V2_HEAD {
        return Ok(Parsed::Needs(V2_HEAD - input.len()));
    }
    let (version_and_command, family) = (input[12], input[13]);
    let body = usize::from(u16::from_be_bytes([input[14], input[15]]));
    if version_and_command >> 4 != 2 || version_and_command & 0xf > 1 {
        return Err(ProxyFault::Unsupported);
    }
    if body > V2_BODY_MAX {
        return Err(ProxyFault::TooLong);
    }
    let octets = V2_HEAD + body;
    if input.len() < octets {
        return Ok(Parsed::Needs(octets - input.len()));
    }
    let header = &input[..octets];
    let body = &header[V2_HEAD..];
    // LOCAL: whatever follows is skipped (section 2.2).
    if version_and_command & 0xf == 0 {
        return Ok(Parsed::Header(octets, Origin::Balancer));
    }
    let (origin, addresses) = match family {
        0x11 => (origin::<4, _>(body, Ipv4Addr::from_octets)?, 12),
        0x21 => (origin::<16, _>(body, Ipv6Addr::from_octets)?, 36),
        // Unspecified: the length of its addresses is not known, so there are no TLVs to be found.
        0x00 => return Ok(Parsed::Header(octets, Origin::Balancer)),
        _ => return Err(ProxyFault::Unsupported),
    };
    tlvs(header, V2_HEAD + addresses)?;
    Ok(Parsed::Header(octets, origin))
}

/// Two addresses of so many octets each, then two ports.
fn origin<const OCTETS: usize, A: Into<IpAddr>>(
    body: &[u8],
    address: impl Fn([u8; OCTETS]) -> A,
) -> Result<Origin, ProxyFault> {
    let address_at =
        |at: usize| body.get(at..at + OCTETS)?.try_into().ok().map(|octets| address(octets).into());
    let port_at = |at: usize| body.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes);
    let at = |of: usize, port: usize| Some(SocketAddr::new(address_at(of)?, port_at(port)?));
    let (client, destination) = (at(0, 2 * OCTETS), at(OCTETS, 2 * OCTETS + 2));
    match (client, destination) {
        (Some(client), Some(destination)) => Ok(Origin::Client { client, destination }),
        _ => Err(ProxyFault::Addresses),
    }
}

/// Walks over what follows the addresses (section 2.2).
fn tlvs(header: &[u8], mut at: usize) -> Result<(), ProxyFault> {
    while at < header.len() {
        let &[kind, high, low] = header.get(at..at + 3).ok_or(ProxyFault::Tlv)? else {
            return Err(ProxyFault::Tlv);
        };
        let value = at + 3..at + 3 + usize::from(u16::from_be_bytes([high, low]));
        let octets = header.get(value.clone()).ok_or(ProxyFault::Tlv)?;
        if kind == TLV_CRC32C {
            let said: [u8; 4] = octets.try_into().map_err(|_| ProxyFault::Tlv)?;
            let sum = crc32c::crc32c(&header[..value.start]);
            let sum = crc32c::crc32c_append(sum, &[0; 4]);
            if crc32c::crc32c_append(sum, &header[value.end..]) != u32::from_be_bytes(said) {
                return Err(ProxyFault::Checksum);
            }
        }
        at = value.end;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
