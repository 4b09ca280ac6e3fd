//! MTA-STS (RFC 8461): what other domains demand of those who send to them.
//!
//! `policy` and `cache` are pure; `keeper` fetches and lives on the service thread.

mod cache;
pub mod keeper;
pub mod policy;

use std::sync::Arc;

use crate::tls_report::{Applied, Observed, ResultType};
pub use policy::Policy;

impl Found {
    /// What a report tells of a policy that could not be had.
    pub fn observed(&self, domain: &Arc<str>) -> Option<Observed> {
        let trouble = self.trouble.as_ref()?;
        let result = match trouble.kind {
            TroubleKind::Fetch => ResultType::StsPolicyFetchError,
            TroubleKind::Certificate => ResultType::StsWebpkiInvalid,
            TroubleKind::Invalid => ResultType::StsPolicyInvalid,
        };
        Some(Observed {
            domain: domain.clone(),
            applied: Applied::Sts(self.policy.clone()),
            local: None,
            host: String::new(),
            address: None,
            failure: Some((result, trouble.text.clone())),
        })
    }
}

/// What is known of a domain's policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// None has been announced, or it could not be had.
    pub policy: Option<Arc<Policy>>,
    /// Why a policy that is announced could not be had now.
    pub trouble: Option<Trouble>,
}

/// Why a policy could not be had (RFC 8460 section 4.3.2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub kind: TroubleKind,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// No answer, or not the one that was wanted.
    Fetch,
    /// The policy host's certificate.
    Certificate,
    /// The policy itself.
    Invalid,
}
