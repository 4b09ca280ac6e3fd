//! Reports on TLS to the domains that ask for them (RFC 8460): what the relay's sessions with their hosts came to,
//! day by day.
//!
//! ```text
//! delivery shards ──Observed──▶ tally ──end of the day──▶ queue ──▶ record of `_smtp._tls.DOMAIN` ──▶ mailto, https
//! ```
//!
//! [`tally`], [`record`], [`queue`] and [`message`] are pure; [`keeper`] lives on the service thread.

pub mod keeper;
pub mod message;
mod queue;
mod record;
pub mod tally;

use std::net::IpAddr;
use std::sync::Arc;

use crate::mta_sts;
use crate::tls::demand::Dane;

/// One session with a host of a domain, or why there was none.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The recipients' domain.
    pub domain: Arc<str>,
    pub applied: Applied,
    /// The relay's own address; unknown where nothing was connected to.
    pub local: Option<IpAddr>,
    /// The host, as the MX record names it; empty when it is about the policy itself.
    pub host: String,
    pub address: Option<IpAddr>,
    /// `None`: TLS as the policy wants it.
    pub failure: Option<(ResultType, String)>,
}

/// The policy that a session was under.
#[derive(Clone, Debug)]
pub enum Applied {
    None,
    /// `None`: announced, and not to be had.
    Sts(Option<Arc<mta_sts::Policy>>),
    Tlsa(Arc<Dane>),
    /// The records of this host are not to be had.
    TlsaUnknown,
}

/// RFC 8460 section 4.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultType {
    StarttlsNotSupported,
    CertificateHostMismatch,
    CertificateExpired,
    CertificateNotTrusted,
    ValidationFailure,
    TlsaInvalid,
    DnssecInvalid,
    DaneRequired,
    StsPolicyFetchError,
    StsPolicyInvalid,
    StsWebpkiInvalid,
}

impl ResultType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StarttlsNotSupported => "starttls-not-supported",
            Self::CertificateHostMismatch => "certificate-host-mismatch",
            Self::CertificateExpired => "certificate-expired",
            Self::CertificateNotTrusted => "certificate-not-trusted",
            Self::ValidationFailure => "validation-failure",
            Self::TlsaInvalid => "tlsa-invalid",
            Self::DnssecInvalid => "dnssec-invalid",
            Self::DaneRequired => "dane-required",
            Self::StsPolicyFetchError => "sts-policy-fetch-error",
            Self::StsPolicyInvalid => "sts-policy-invalid",
            Self::StsWebpkiInvalid => "sts-webpki-invalid",
        }
    }
}
