//! Why no host was found for a domain: whose fault, lasting or not, in words.
//!
//! Pure.

use std::fmt;

use crate::delivery::failure::{Failure, Scope};
use crate::delivery::verdict::Status;

/// A question that gave no address. `Clone`, because one answer serves everybody who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolveError {
    pub kind: ResolveErrorKind,
    /// One sentence that names the name, the type, the servers and the answer.
    pub text: String,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResolveErrorKind {
    /// Not a domain name or address literal that can be looked up.
    BadName,
    /// NXDOMAIN.
    NoDomain,
    /// RFC 7505: the domain takes no mail.
    NullMx,
    /// The domain has MX records, and none of their names has an address. Not lasting when a look-up
    /// of one of them failed.
    NoMxHostResolves { lasting: bool },
    /// The name exists and has neither MX nor address.
    NoAddress,
    /// The hosts that have an address have none on the Internet.
    NotPublic,
    /// The best MX host is this relay itself (RFC 5321 section 5.1).
    Loop,
    /// SERVFAIL, REFUSED, time-out, an answer that makes no sense, or no server reached.
    Temporary,
}

impl ResolveErrorKind {
    pub fn is_lasting(self) -> bool {
        self.status().0 == 5
    }

    pub fn status(self) -> Status {
        match self {
            Self::BadName | Self::NoDomain => Status::NO_SUCH_DOMAIN,
            Self::NullMx => Status::NULL_MX,
            Self::NoMxHostResolves { lasting: true } | Self::NoAddress | Self::NotPublic => Status::NO_ROUTE,
            Self::Loop => Status::LOOP,
            Self::NoMxHostResolves { lasting: false } | Self::Temporary => Status::DNS_FAILURE,
        }
    }
}

impl ResolveError {
    /// For the failure policy, where it is a failure of the last host: there is no other.
    pub fn failure(&self) -> Failure {
        Failure::local(Scope::Host, self.kind.status(), self.text.clone())
    }
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ResolveError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::failure::{Recipients, rule};
    use crate::delivery::verdict::Outcome;

    #[test]
    fn every_kind_has_its_status_and_its_outcome() {
        use ResolveErrorKind::*;
        let table = [
            (BadName, "5.1.2", Outcome::Bounced),
            (NoDomain, "5.1.2", Outcome::Bounced),
            (NullMx, "5.1.10", Outcome::Bounced),
            (NoMxHostResolves { lasting: true }, "5.4.4", Outcome::Bounced),
            (NoMxHostResolves { lasting: false }, "4.4.3", Outcome::Deferred),
            (NoAddress, "5.4.4", Outcome::Bounced),
            (NotPublic, "5.4.4", Outcome::Bounced),
            (Loop, "5.4.6", Outcome::Bounced),
            (Temporary, "4.4.3", Outcome::Deferred),
        ];
        for (kind, status, outcome) in table {
            let failure = ResolveError { kind, text: "x".into() }.failure();
            assert_eq!(failure.status.to_string(), status, "{kind:?}");
            let ruling = rule(failure.scope, failure.lasting, true);
            assert_eq!(ruling.recipients, Recipients::Finish(outcome), "{kind:?}");
        }
    }
}
