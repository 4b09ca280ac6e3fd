//! Who may send where: one pure function over data.
//!
//! [`decide`] answers "may this client send to this recipient through this listener", for the session,
//! and for the [`Matrix`]; no other place decides it, so what the matrix prints is
//! what the relay does. It lives on no core: [`Rules`] are immutable and shared.
//!
//! Return addresses that the relay made for forwarded mail (`[srs]`) lead outside; they are taken from everybody, but
//! only with a hash that nobody else can make, and for some time.
//!
//! What keeps the relay closed on a listener with `relay = "accepted"`: a domain is accepted only if it
//! is listed, octet for octet in any case, U-labels by their A-labels, or stands below a listed `.suffix`;
//! an address literal never is; and a local part that could be read as a route onward by the internal server
//! (`user%other@own`, `other!user@own`, `"user@other"@own`) is refused although its domain is accepted.
//! Source routes are
//! dropped by the grammar before they come here (RFC 5321 section 4.1.1.3).
//! A client that has proved by AUTH who
//! it is may send to any domain through a listener that offers AUTH.

mod identity;
mod matrix;
pub mod next_hops;
pub mod way;

pub use identity::{Identity, SenderPattern};
pub use matrix::{Matrix, Row, matrix};

use crate::config::{Config, Listener, Network, Relay};
use crate::rewrite::srs::{Fault, Srs};
use crate::smtp::idn;
use crate::smtp::path::DOMAIN_OCTETS_MAX;
use crate::smtp::reply::{self, Answer};
use crate::smtp::{Domain, ForwardPath, Mailbox};
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// What the configuration says about who may send where.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Entry of `domains.accepted` → its index. A map, for an organisation may have thousands.
    accepted: HashMap<String, usize>,
    srs: Option<Arc<Srs>>,
    listeners: Vec<Door>,
}

#[derive(Clone, Debug)]
struct Door {
    clients: Vec<Network>,
    relay: Relay,
    /// It offers AUTH.
    auth: bool,
}

/// One client that wants to send to one recipient.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Index in `Config::listeners`.
    pub listener: usize,
    pub client: IpAddr,
    /// The client has proved by AUTH who it is.
    pub authenticated: bool,
    pub recipient: &'a ForwardPath<'a>,
    /// Wall clock, microseconds: return addresses are valid for some time.
    pub now_micros: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept(Rule),
    Refuse(&'static Answer, Rule),
}

/// By which rule a verdict came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The client is in no network of the listener's `clients`.
    ClientNotListed,
    /// `<Postmaster>` without a domain (RFC 5321 section 4.5.1).
    Postmaster,
    /// The entry of `domains.accepted` with this index.
    AcceptedDomain(usize),
    /// In no entry of `domains.accepted`.
    OtherDomain,
    /// A local part that asks for routing onward.
    RoutedLocalPart,
    /// A return address that this relay made for forwarded mail; [`Rules::returns_to`] says for whom.
    ReturnAddress,
    /// One that it did not make.
    ForgedReturnAddress,
    /// One that it made too long ago.
    ExpiredReturnAddress,
    /// `relay = "any"`.
    RelayAny,
    /// After AUTH, through a listener with `relay = "authenticated"` or `"accepted"`.
    Authenticated,
    /// `relay = "authenticated"`, before AUTH.
    NotAuthenticated,
}

impl Verdict {
    pub fn is_accept(&self) -> bool {
        matches!(self, Self::Accept(_))
    }

    pub fn rule(&self) -> Rule {
        match *self {
            Self::Accept(rule) | Self::Refuse(_, rule) => rule,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientNotListed => f.write_str("client not in listener.clients"),
            Self::Postmaster => f.write_str("Postmaster goes to `postmaster`"),
            Self::AcceptedDomain(index) => write!(f, "domains.accepted[{index}]"),
            Self::OtherDomain => f.write_str("not in domains.accepted"),
            Self::RoutedLocalPart => f.write_str("%, ! or @ in the local part"),
            Self::ReturnAddress => f.write_str("[srs]: a return address made here"),
            Self::ForgedReturnAddress => f.write_str("[srs]: a return address not made here"),
            Self::ExpiredReturnAddress => f.write_str("[srs]: an expired return address"),
            Self::RelayAny => f.write_str("relay = \"any\""),
            Self::Authenticated => f.write_str("after AUTH"),
            Self::NotAuthenticated => f.write_str("relay = \"authenticated\", before AUTH"),
        }
    }
}

impl Rules {
    pub fn new(config: &Config) -> Self {
        let door = |listener: &Listener| Door {
            clients: listener.clients.clone(),
            relay: listener.relay,
            auth: listener.auth,
        };
        let accepted = config.domains.accepted.iter().enumerate();
        Self {
            accepted: accepted.map(|(index, entry)| (entry.to_ascii_lowercase(), index)).collect(),
            srs: config.srs.clone(),
            listeners: config.listeners.iter().map(door).collect(),
        }
    }

    /// Whom mail to this recipient goes to when it is a return address in the domain of `[srs]`, or why it goes
    /// nowhere; `None` for every other recipient.
    pub fn returns_to(&self, mailbox: &Mailbox<'_>, now_micros: u64) -> Option<Result<String, Fault>> {
        let (srs, domain) = (self.srs.as_ref()?, mailbox.domain.name()?);
        srs.is_ours(mailbox.local, domain).then(|| srs.reverse(mailbox.local, now_micros))
    }

    /// Whether a client may connect to a listener at all. A listener that does not exist admits nobody.
    pub fn admits(&self, listener: usize, client: IpAddr) -> bool {
        let clients = self.listeners.get(listener).map_or(&[][..], |door| &door.clients);
        clients.iter().any(|network| network.contains(client))
    }

    /// The entry that holds the domain: itself, else the longest `.suffix`. No entry holds everything.
    fn accepted(&self, domain: &str) -> Option<usize> {
        if !domain.is_ascii() {
            return self.accepted(&idn::a_labels(domain)?);
        }
        let mut buffer = [0; DOMAIN_OCTETS_MAX];
        let lower = buffer.get_mut(..domain.len())?;
        lower.copy_from_slice(domain.as_bytes());
        lower.make_ascii_lowercase();
        let lower = str::from_utf8(lower).ok()?;
        let dots = lower.bytes().enumerate().filter(|(_, octet)| *octet == b'.').map(|(at, _)| at);
        [0].into_iter().chain(dots).find_map(|at| self.accepted.get(&lower[at..]).copied())
    }
}

/// May this client send to this recipient through this listener?
pub fn decide(rules: &Rules, question: &Question<'_>) -> Verdict {
    if !rules.admits(question.listener, question.client) {
        return Verdict::Refuse(&reply::CLIENT_DENIED, Rule::ClientNotListed);
    }
    let door = &rules.listeners[question.listener];
    let restricted = door.relay == Relay::Authenticated && !(door.auth && question.authenticated);
    if !restricted
        && let ForwardPath::Mailbox(mailbox) = question.recipient
        && let Some(returns) = rules.returns_to(mailbox, question.now_micros)
    {
        return match returns {
            Ok(_) => Verdict::Accept(Rule::ReturnAddress),
            Err(Fault::Forged) => Verdict::Refuse(&reply::RETURN_ADDRESS_FORGED, Rule::ForgedReturnAddress),
            Err(Fault::Expired) => {
                Verdict::Refuse(&reply::RETURN_ADDRESS_EXPIRED, Rule::ExpiredReturnAddress)
            }
        };
    }
    match door.relay {
        Relay::Any => Verdict::Accept(match question.recipient {
            ForwardPath::Postmaster => Rule::Postmaster,
            ForwardPath::Mailbox(_) => Rule::RelayAny,
        }),
        Relay::Authenticated | Relay::Accepted if door.auth && question.authenticated => {
            Verdict::Accept(Rule::Authenticated)
        }
        Relay::Authenticated => Verdict::Refuse(&reply::AUTHENTICATION_REQUIRED, Rule::NotAuthenticated),
        Relay::Accepted => match question.recipient {
            ForwardPath::Postmaster => Verdict::Accept(Rule::Postmaster),
            ForwardPath::Mailbox(mailbox) => own_domain(rules, mailbox),
        },
    }
}

fn own_domain(rules: &Rules, mailbox: &Mailbox<'_>) -> Verdict {
    let entry = match mailbox.domain {
        Domain::Name(name) => rules.accepted(name),
        Domain::Literal(_) => None,
    };
    match entry {
        None => Verdict::Refuse(&reply::RELAY_DENIED, Rule::OtherDomain),
        Some(_) if mailbox.local_characters().any(routes_onward) => {
            Verdict::Refuse(&reply::RELAY_DENIED_ROUTED, Rule::RoutedLocalPart)
        }
        Some(index) => Verdict::Accept(Rule::AcceptedDomain(index)),
    }
}

/// What an internal server may take for a route, also when it is written in a compatibility form that
/// normalization makes one of.
fn routes_onward(c: char) -> bool {
    matches!(
        c,
        '%' | '!'
            | '@'
            | '\u{203c}'
            | '\u{2048}'
            | '\u{2049}'
            | '\u{fe15}'
            | '\u{fe57}'
            | '\u{fe6a}'
            | '\u{fe6b}'
            | '\u{ff01}'
            | '\u{ff05}'
            | '\u{ff20}'
    )
}

#[cfg(test)]
pub(crate) mod tests;
