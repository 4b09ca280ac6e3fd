//! What the TLS of one host must be: the route's own rule, raised by what the receiving side announces, DANE
//! (RFC 7672) and MTA-STS (RFC 8461).
//!
//! Pure. Made before the connection to the host is opened, and held by it as long as it lives. DANE goes before
//! MTA-STS (RFC 8461 section 2): a host with usable TLSA records is judged by them alone.
//!
//! | way authentic | TLSA records | "may" | "encrypt" | "dane-only" |
//! |---|---|---|---|---|
//! | yes | usable | they vouch for it | they vouch for it | they vouch for it |
//! | yes | none usable | TLS, any certificate | TLS, any certificate | passed over |
//! | yes | none, or not authentic | MTA-STS, else the rule | MTA-STS, else the rule | passed over |
//! | yes | cannot be had | passed over | passed over | passed over |
//! | no | not asked for | MTA-STS, else the rule | MTA-STS, else the rule | passed over |
//!
//! "dane" is as "may". A host that is passed over counts as one that cannot be reached now: its mail waits.

use std::sync::Arc;

use super::dane::Tlsa;
use crate::config::TlsRule;
use crate::mta_sts::policy::{Mode, Policy};

/// What the TLS of one host must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// As the rule of the route says.
    Route,
    /// TLS, with any certificate: there are TLSA records, and none can be used (RFC 7672 section 2.2).
    Encrypt(Arc<Dane>),
    /// TLS with a certificate for which the records vouch.
    Dane(Arc<Dane>),
    /// TLS with a certificate of a known authority for the host's name (RFC 8461 section 4.2).
    Sts(Arc<Policy>),
    /// The same is looked at and told, and changes nothing; beside what the rule says.
    StsTesting(Arc<Policy>),
}

/// The records of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dane {
    /// Where the records are, and what the host is asked for by SNI (RFC 7672 section 8.1).
    pub base: Arc<str>,
    pub records: Vec<Tlsa>,
    /// Of which the certificate must have one where an authority vouches (RFC 7672 section 3.2.2); none where only
    /// keys do, so that such a demand is the same for all domains of the host.
    pub names: Vec<Arc<str>>,
}

/// What the TLSA look-up of a host came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsaFound {
    /// The way to the host is not authentic, or the route does not ask.
    NotAsked,
    /// None, or not authentic.
    None,
    /// Authentic, at this name.
    Records(Arc<str>, Vec<Tlsa>),
    /// Nobody knows whether there are some: why.
    Failed(String),
}

/// Why a host is not talked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// RFC 7672 section 2.1.1.
    Lookup(String),
    /// Nobody knows now whether the domain has an MTA-STS policy. Never of [`demand`], which is given the answer.
    Policy(String),
    /// The rule is "dane-only", and the host has no TLSA records that could be used.
    NoDane,
    /// The policy of the domain does not list the host.
    NotListed,
}

/// `host`: as the MX record or the configuration names it. `further`: other names that the certificate may have
/// with DANE, the next-hop domain first.
///
/// # Errors
/// Why the host is passed over.
pub fn demand(
    rule: TlsRule,
    tlsa: TlsaFound,
    sts: Option<&Arc<Policy>>,
    host: &str,
    further: &[Arc<str>],
) -> Result<Demand, Refused> {
    if !rule.can_be_raised() {
        return Ok(Demand::Route);
    }
    let unusable = match tlsa {
        TlsaFound::Failed(why) => return Err(Refused::Lookup(why)),
        TlsaFound::Records(base, records) if records.iter().any(Tlsa::is_usable) => {
            return Ok(Demand::Dane(Arc::new(dane(base, records, further))));
        }
        _ if rule == TlsRule::DaneOnly => return Err(Refused::NoDane),
        TlsaFound::Records(base, records) => Some(Arc::new(dane(base, records, further))),
        TlsaFound::None | TlsaFound::NotAsked => None,
    };
    let policy = sts.filter(|policy| policy.mode != Mode::None);
    match (policy, unusable) {
        (Some(policy), _) if policy.mode == Mode::Enforce && !policy.lists(host) => Err(Refused::NotListed),
        (Some(policy), _) if policy.mode == Mode::Enforce => Ok(Demand::Sts(policy.clone())),
        (_, Some(dane)) => Ok(Demand::Encrypt(dane)),
        (Some(policy), None) => Ok(Demand::StsTesting(policy.clone())),
        (None, None) => Ok(Demand::Route),
    }
}

fn dane(base: Arc<str>, records: Vec<Tlsa>, further: &[Arc<str>]) -> Dane {
    if !records.iter().any(Tlsa::is_of_authority) {
        return Dane { base, records, names: Vec::new() };
    }
    let mut names = vec![base.clone()];
    for name in further {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    Dane { base, records, names }
}

impl Demand {
    /// Whether clear text will not do, whatever the rule says.
    pub fn needs_tls(&self) -> bool {
        matches!(self, Self::Encrypt(_) | Self::Dane(_) | Self::Sts(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: [TlsRule; 7] = [
        TlsRule::None,
        TlsRule::May,
        TlsRule::Encrypt,
        TlsRule::Dane,
        TlsRule::DaneOnly,
        TlsRule::Verify,
        TlsRule::Fingerprint,
    ];

    fn record(usage: u8) -> Tlsa {
        Tlsa { usage, selector: 1, matching: 1, data: vec![7; 32] }
    }

    fn tlsa(word: &str) -> TlsaFound {
        match word {
            "usable" => TlsaFound::Records("mx.a.test".into(), vec![record(0), record(3)]),
            "unusable" => TlsaFound::Records("mx.a.test".into(), vec![record(0)]),
            "none" => TlsaFound::None,
            "failed" => TlsaFound::Failed("SERVFAIL".into()),
            _ => TlsaFound::NotAsked,
        }
    }

    fn policy(mode: Mode, host: &str) -> Arc<Policy> {
        Arc::new(Policy { mode, mx: vec![host.into()], max_age_seconds: 86_400 })
    }

    fn sts(word: &str) -> Option<Arc<Policy>> {
        match word {
            "enforce" => Some(policy(Mode::Enforce, "mx.a.test")),
            "other" => Some(policy(Mode::Enforce, "other.test")),
            "testing" => Some(policy(Mode::Testing, "other.test")),
            "off" => Some(policy(Mode::None, "other.test")),
            _ => None,
        }
    }

    fn shown(rule: TlsRule, tlsa_word: &str, sts_word: &str) -> &'static str {
        match demand(rule, tlsa(tlsa_word), sts(sts_word).as_ref(), "mx.a.test", &[]) {
            Ok(Demand::Route) => "rule",
            Ok(Demand::Encrypt(_)) => "encrypt",
            Ok(Demand::Dane(_)) => "dane",
            Ok(Demand::Sts(_)) => "sts",
            Ok(Demand::StsTesting(_)) => "testing",
            Err(Refused::Lookup(_)) => "lookup",
            Err(Refused::Policy(_)) => "policy",
            Err(Refused::NoDane) => "no dane",
            Err(Refused::NotListed) => "not listed",
        }
    }

    /// Every rule, every kind of TLSA answer, every kind of policy.
    #[test]
    fn dane_goes_before_mta_sts_and_that_before_the_rule() {
        let policies = ["", "off", "testing", "enforce", "other"];
        let raised = ["rule", "rule", "testing", "sts", "not listed"];
        let unusable = ["encrypt", "encrypt", "encrypt", "sts", "not listed"];
        for rule in RULES {
            for (answer, expected) in [
                ("usable", ["dane"; 5]),
                ("unusable", unusable),
                ("none", raised),
                ("not asked", raised),
                ("failed", ["lookup"; 5]),
            ] {
                for (policy, expected) in policies.into_iter().zip(expected) {
                    let expected = match rule {
                        TlsRule::None | TlsRule::Verify | TlsRule::Fingerprint => "rule",
                        TlsRule::DaneOnly if !matches!(answer, "usable" | "failed") => "no dane",
                        _ => expected,
                    };
                    assert_eq!(shown(rule, answer, policy), expected, "{rule:?} {answer} {policy}");
                }
            }
        }
    }

    #[test]
    fn the_names_for_an_authority_are_the_base_and_the_further_ones_each_once_and_a_key_needs_none() {
        let further: Vec<Arc<str>> = ["a.test", "mx.a.test", "alias.test"].map(Arc::from).into();
        let all = ["mx.a.test", "a.test", "alias.test"].map(Arc::<str>::from);
        let of_authority = |octets| Tlsa { usage: 2, selector: 0, matching: 1, data: vec![7; octets] };
        for (records, expected) in [
            (vec![record(3), of_authority(32)], &all[..]),
            (vec![of_authority(32)], &all),
            (vec![record(3), record(0)], &[]),
            // An authority that cannot be used.
            (vec![record(3), of_authority(31)], &[]),
        ] {
            let found = TlsaFound::Records("mx.a.test".into(), records.clone());
            let Ok(Demand::Dane(dane)) = demand(TlsRule::May, found, None, "alias.test", &further) else {
                panic!("DANE")
            };
            assert_eq!((&*dane.base, &*dane.names), ("mx.a.test", expected), "{records:?}");
        }
    }
}
