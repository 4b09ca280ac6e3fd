//! What came of one recipient in one attempt: the words that the log, the spool and the DSN share.
//!
//! Plain data. A [`Fate`] is what the conversation with one host said; a [`Verdict`] is what the
//! failure policy made of it.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{Ipv6Addr, SocketAddr};

use super::failure::{Failure, Recipients, rule};
use super::reply::Reply;

/// Octets of a text that goes into the log, the spool or a DSN; the rest of a longer one is cut off.
pub const TEXT_BYTES_MAX: usize = 1_000;

/// An enhanced status code (RFC 3463), with the codes that the relay itself gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Status(pub u8, pub u16, pub u16);

impl Status {
    pub const DELIVERED: Self = Self(2, 0, 0);
    /// The address is not one that can be put in a command.
    pub const BAD_RECIPIENT_SYNTAX: Self = Self(5, 1, 3);
    pub const BAD_SENDER_SYNTAX: Self = Self(5, 1, 7);
    /// RFC 7505: the domain says that it takes no mail.
    pub const NULL_MX: Self = Self(5, 1, 10);
    /// RFC 3463 (X.1.1, bad destination mailbox address).
    pub const NO_SUCH_MAILBOX: Self = Self(5, 1, 1);
    /// RFC 3463 (X.4.3, directory server failure).
    pub const DIRECTORY_FAILURE: Self = Self(4, 4, 3);
    pub const NO_SUCH_DOMAIN: Self = Self(5, 1, 2);
    pub const TOO_LARGE_FOR_HOST: Self = Self(5, 3, 4);
    /// Binary content that the host does not take (RFC 3463 section 3.7).
    pub const MEDIA_NOT_SUPPORTED: Self = Self(5, 6, 1);
    pub const NO_ANSWER: Self = Self(4, 4, 1);
    pub const BAD_CONNECTION: Self = Self(4, 4, 2);
    pub const DNS_FAILURE: Self = Self(4, 4, 3);
    /// The domain is there and no host of it can be found, for now.
    pub const NO_ROUTE_NOW: Self = Self(4, 4, 4);
    /// The same, for good.
    pub const NO_ROUTE: Self = Self(5, 4, 4);
    pub const LOOP: Self = Self(5, 4, 6);
    /// The relay holds mail back of its own accord (RFC 3463 section 3.5: congestion).
    pub const CONGESTED: Self = Self(4, 4, 5);
    /// Returned by an administrator (RFC 3463: delivery not authorized, message refused).
    pub const RETURNED: Self = Self(5, 7, 1);
    /// RFC 3463 (4.7.4, security features not supported): TLS is demanded and cannot be had.
    pub const TLS_NEEDED: Self = Self(4, 7, 4);
    /// RFC 3463 (4.7.5, cryptographic failure).
    pub const TLS_FAILED: Self = Self(4, 7, 5);
    /// RFC 4954 section 6: the relay's own login is refused, for now: the operator can mend it.
    pub const AUTH_FAILED: Self = Self(4, 7, 8);
    pub const AUTH_NEEDS_TLS: Self = Self(4, 7, 11);
    pub const EXPIRED: Self = Self(4, 4, 7);
    /// The sender's own time is over (RFC 2852), or no next hop keeps it.
    pub const TOO_LATE: Self = Self(5, 4, 7);
    /// Octets above 127 to a host that does not take them (RFC 6152 section 3).
    pub const NEEDS_EIGHT_BIT: Self = Self(5, 6, 3);
    /// RFC 6531 section 3.5.
    pub const NEEDS_UTF8: Self = Self(5, 6, 7);
    /// RFC 8689 section 5.
    pub const NEEDS_TLS: Self = Self(5, 7, 30);
    pub const PROTOCOL: Self = Self(4, 5, 0);

    /// The code of a reply: its own, or the undefined one of its class.
    pub fn of(reply: &Reply) -> Self {
        match reply.enhanced {
            Some((class, subject, detail)) => Self(class, subject, detail),
            None => Self((reply.code / 100) as u8, 0, 0),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// The host that a session talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The name that led to it; the address again for an address literal.
    pub name: String,
    pub address: SocketAddr,
}

impl Peer {
    /// A socket in the file system, `unix:/run/dovecot/lmtp`. Its address is one that nobody has (RFC 6666),
    /// made from the path, so that what is remembered by address holds for sockets too.
    pub fn of_socket(name: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let discarded = (0x0100_u128 << 112) | u128::from(hasher.finish());
        Self { name: name.to_owned(), address: SocketAddr::new(Ipv6Addr::from_bits(discarded).into(), 0) }
    }

    /// The path, where it is a socket in the file system.
    pub fn socket(&self) -> Option<&str> {
        self.name.strip_prefix("unix:")
    }

    /// `mx.example.com[192.0.2.1]`, as texts name a host; `localhost[/run/dovecot/lmtp]`.
    pub fn host(&self) -> impl fmt::Display + '_ {
        fmt::from_fn(|f| match self.socket() {
            Some(path) => write!(f, "localhost[{path}]"),
            None => write!(f, "{}[{}]", self.name, self.address.ip()),
        })
    }
}

/// `mx.example.com[192.0.2.1]:25`, as `relay=` in the log.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.socket() {
            Some(_) => write!(f, "{}", self.host()),
            None => write!(f, "{}:{}", self.host(), self.address.port()),
        }
    }
}

/// What one host said about one recipient of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// 2yz to end-of-data: the host has taken the responsibility.
    Delivered(Reply),
    Failed(Failure),
}

/// How an attempt ended for a recipient. That a deferred one has waited too long, and so expired, is
/// for the schedule to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    Deferred,
    Bounced,
}

/// The end of an attempt for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub outcome: Outcome,
    /// `dsn=` in the log, `Status` in a DSN. Its class agrees with `outcome`.
    pub status: Status,
    /// For the log and for people; one line of at most [`TEXT_BYTES_MAX`] octets.
    pub text: String,
    /// The host's own words on one line, for `Diagnostic-Code: smtp;`; `None` when it said nothing.
    pub reply: Option<String>,
    /// The host's name, for `Remote-MTA`; `None` when none was reached.
    pub remote: Option<String>,
}

impl Verdict {
    /// Puts a fate before the failure policy. `None`: the recipient is still open, the next host is
    /// to be tried. `peer` is `None` when no host was found to talk to.
    pub fn of(fate: &Fate, peer: Option<&Peer>, last_host: bool) -> Option<Self> {
        let name = |peer: &Peer| if peer.socket().is_some() { "localhost".into() } else { peer.name.clone() };
        let remote = peer.map(name);
        match fate {
            Fate::Delivered(reply) => {
                let text = cut(reply.to_string());
                let status = Status::of(reply);
                Some(Self { outcome: Outcome::Delivered, status, reply: Some(text.clone()), text, remote })
            }
            Fate::Failed(failure) => match rule(failure.scope, failure.lasting, last_host).recipients {
                Recipients::NextHost => None,
                Recipients::Finish(outcome) => Some(Self {
                    outcome,
                    status: of_class(failure.status, outcome),
                    text: cut(failure.text.clone()),
                    reply: failure.reply.as_ref().map(|reply| cut(reply.to_string())),
                    remote,
                }),
            },
        }
    }
}

/// A lasting failure may be deferred by the policy, and then its code must not say 5.
fn of_class(status: Status, outcome: Outcome) -> Status {
    let class = match outcome {
        Outcome::Delivered => 2,
        Outcome::Deferred => 4,
        Outcome::Bounced => 5,
    };
    Status(class, status.1, status.2)
}

pub(super) fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::failure::Scope;
    use super::*;

    fn peer() -> Peer {
        Peer { name: "mx.example".into(), address: "192.0.2.1:25".parse().unwrap() }
    }

    #[test]
    fn a_peer_is_named_as_in_postfix_logs() {
        assert_eq!(peer().to_string(), "mx.example[192.0.2.1]:25");
        assert_eq!(peer().host().to_string(), "mx.example[192.0.2.1]");
        let socket = Peer::of_socket("unix:/run/dovecot/lmtp");
        assert_eq!(socket.to_string(), "localhost[/run/dovecot/lmtp]");
        assert_ne!(socket.address, Peer::of_socket("unix:/run/other").address);
        assert!(socket.address.to_string().starts_with("[100::"), "{}", socket.address);
    }

    #[test]
    fn the_class_of_the_status_follows_the_outcome() {
        let reply = Reply { code: 554, enhanced: Some((5, 7, 1)), text: "no".into() };
        let failure = Failure {
            scope: Scope::Session,
            lasting: true,
            status: Status::of(&reply),
            text: "refused".into(),
            reply: Some(reply),
        };
        let fate = Fate::Failed(failure);
        assert_eq!(Verdict::of(&fate, Some(&peer()), false), None);
        let verdict = Verdict::of(&fate, Some(&peer()), true).unwrap();
        assert_eq!((verdict.outcome, verdict.status), (Outcome::Deferred, Status(4, 7, 1)));
        assert_eq!(verdict.reply.as_deref(), Some("554 5.7.1 no"));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let reply = Reply { code: 250, enhanced: None, text: "ü".repeat(TEXT_BYTES_MAX) };
        let verdict = Verdict::of(&Fate::Delivered(reply), None, true).unwrap();
        assert_eq!(verdict.text.len(), TEXT_BYTES_MAX);
        assert_eq!(verdict.status, Status::DELIVERED);
    }
}
