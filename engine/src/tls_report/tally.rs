//! What the sessions of one period came to, by domain and policy, in the words of a report (RFC 8460 section 4).
//!
//! Pure. Bounded: past its bounds sessions still count where their policy has a place, and are left out elsewhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Applied, Observed};

/// Domains of one period.
pub const DOMAINS_MAX: usize = 10_000;
/// Policies of one domain: one for each host with TLSA records, and those that changed within the period.
pub const POLICIES_MAX: usize = 16;
/// Kinds of failures that are told one by one.
pub const DETAILS_MAX: usize = 100;
/// Octets of all that is told of policies and failures, nearly; past it sessions are counted only.
const OCTETS_MAX: usize = 32 * 1024 * 1024;
/// Octets of a reason.
const REASON_OCTETS_MAX: usize = 300;

/// The sessions under one policy; what a report says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyReport {
    pub policy: PolicyText,
    pub summary: Summary,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failure_details: Vec<Detail>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyText {
    /// `tlsa`, `sts` or `no-policy-found`.
    pub policy_type: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_string: Vec<String>,
    pub policy_domain: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mx_host: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    pub total_successful_session_count: u64,
    pub total_failure_session_count: u64,
}

/// Failures of one kind with one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Detail {
    pub result_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sending_mta_ip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receiving_mx_hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receiving_ip: Option<String>,
    pub failed_session_count: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failure_reason_code: String,
}

impl Detail {
    fn is_same(&self, other: &Self) -> bool {
        Self { failed_session_count: 0, ..self.clone() } == Self { failed_session_count: 0, ..other.clone() }
    }
}

/// By domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub domains: BTreeMap<String, Vec<PolicyReport>>,
    #[serde(default)]
    octets: usize,
}

impl Tally {
    pub fn add(&mut self, seen: &Observed) {
        if self.domains.len() >= DOMAINS_MAX && !self.domains.contains_key(&*seen.domain) {
            return;
        }
        let room = self.octets < OCTETS_MAX;
        if !room && !self.domains.contains_key(&*seen.domain) {
            return;
        }
        let policies = self.domains.entry(seen.domain.to_string()).or_default();
        let text = policy_text(seen);
        let place = policies.iter().position(|report| report.policy == text);
        let place = place.unwrap_or_else(|| {
            if policies.is_empty() || room && policies.len() < POLICIES_MAX {
                self.octets += 256 + text.policy_string.iter().map(|line| 2 * line.len() + 64).sum::<usize>();
                let summary = Summary::default();
                policies.push(PolicyReport { policy: text, summary, failure_details: Vec::new() });
            }
            policies.len() - 1
        });
        let report = &mut policies[place];
        let Some(detail) = detail(seen) else {
            report.summary.total_successful_session_count += 1;
            return;
        };
        report.summary.total_failure_session_count += 1;
        let details = &mut report.failure_details;
        match details.iter().position(|known| known.is_same(&detail)) {
            Some(known) => details[known].failed_session_count += 1,
            None if room && details.len() < DETAILS_MAX => {
                self.octets += 256 + detail.failure_reason_code.len();
                details.push(detail);
            }
            None => {}
        }
    }
}

fn policy_text(seen: &Observed) -> PolicyText {
    let (policy_type, policy_string, mx_host, domain) = match &seen.applied {
        Applied::None => ("no-policy-found", vec![], vec![], &*seen.domain),
        Applied::Sts(None) => ("sts", vec![], vec![], &*seen.domain),
        Applied::Sts(Some(policy)) => ("sts", policy.lines().collect(), policy.mx.clone(), &*seen.domain),
        Applied::TlsaUnknown => ("tlsa", vec![], vec![], seen.host.as_str()),
        Applied::Tlsa(dane) => {
            ("tlsa", dane.records.iter().map(ToString::to_string).collect(), vec![], &*dane.base)
        }
    };
    PolicyText { policy_type: policy_type.into(), policy_string, policy_domain: domain.into(), mx_host }
}

fn detail(seen: &Observed) -> Option<Detail> {
    let (result, reason) = seen.failure.as_ref()?;
    let reason = &reason[..reason.floor_char_boundary(REASON_OCTETS_MAX)];
    Some(Detail {
        result_type: result.as_str().into(),
        sending_mta_ip: seen.local.map(|ip| ip.to_string()),
        receiving_mx_hostname: (!seen.host.is_empty()).then(|| seen.host.clone()),
        receiving_ip: seen.address.map(|ip| ip.to_string()),
        failed_session_count: 1,
        failure_reason_code: reason.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::ResultType;
    use super::*;
    use crate::mta_sts::Policy;
    use crate::tls::dane::Tlsa;
    use crate::tls::demand::Dane;
    use serde_json::json;
    use std::sync::Arc;

    fn seen(domain: &str, applied: Applied, failure: Option<ResultType>) -> Observed {
        Observed {
            domain: domain.into(),
            applied,
            local: Some("192.0.2.1".parse().expect("an address")),
            host: "mx.a.test".into(),
            address: Some("2001:db8::25".parse().expect("an address")),
            failure: failure.map(|result| (result, "why".into())),
        }
    }

    fn dane() -> Applied {
        let record = Tlsa { usage: 3, selector: 1, matching: 1, data: vec![0xab; 32] };
        Applied::Tlsa(Arc::new(Dane { base: "mx.a.test".into(), records: vec![record], names: vec![] }))
    }

    /// RFC 8460 section 4.4.
    #[test]
    fn sessions_are_counted_by_policy_and_failures_by_kind() {
        let policy =
            Policy::parse(b"version: STSv1\nmode: testing\nmx: *.a.test\nmax_age: 86400").expect("a policy");
        let sts = Applied::Sts(Some(Arc::new(policy)));
        let mut tally = Tally::default();
        tally.add(&seen("a.test", dane(), None));
        tally.add(&seen("a.test", dane(), Some(ResultType::ValidationFailure)));
        tally.add(&seen("a.test", dane(), Some(ResultType::ValidationFailure)));
        tally.add(&seen("a.test", dane(), Some(ResultType::StarttlsNotSupported)));
        tally.add(&seen("a.test", sts, None));
        tally.add(&seen("b.test", Applied::None, None));
        let detail = |result: &str, count: u64| {
            json!({"result-type": result, "sending-mta-ip": "192.0.2.1", "receiving-mx-hostname": "mx.a.test",
                "receiving-ip": "2001:db8::25", "failed-session-count": count, "failure-reason-code": "why"})
        };
        let digest = "ab".repeat(32);
        assert_eq!(
            serde_json::to_value(&tally.domains["a.test"]).expect("JSON"),
            json!([
                {"policy": {"policy-type": "tlsa", "policy-string": [format!("3 1 1 {digest}")],
                    "policy-domain": "mx.a.test"},
                 "summary": {"total-successful-session-count": 1, "total-failure-session-count": 3},
                 "failure-details": [detail("validation-failure", 2), detail("starttls-not-supported", 1)]},
                {"policy": {"policy-type": "sts",
                    "policy-string": ["version: STSv1", "mode: testing", "mx: *.a.test", "max_age: 86400"],
                    "policy-domain": "a.test", "mx-host": ["*.a.test"]},
                 "summary": {"total-successful-session-count": 1, "total-failure-session-count": 0}},
            ])
        );
        assert_eq!(tally.domains["b.test"][0].policy.policy_type, "no-policy-found");
        let text = serde_json::to_string(&tally).expect("JSON");
        assert_eq!(serde_json::from_str::<Tally>(&text).expect("a tally"), tally);
    }

    #[test]
    fn everything_is_bounded() {
        let mut tally = Tally::default();
        for number in 0..DOMAINS_MAX + 5 {
            tally.add(&seen(&format!("{number}.test"), Applied::None, None));
        }
        assert_eq!(tally.domains.len(), DOMAINS_MAX);
        for number in 0..DETAILS_MAX + 5 {
            let mut one = seen("1.test", Applied::None, Some(ResultType::ValidationFailure));
            one.failure = Some((ResultType::ValidationFailure, format!("{number}{}", "x".repeat(10_000))));
            tally.add(&one);
        }
        let report = &tally.domains["1.test"][0];
        assert_eq!(report.failure_details.len(), DETAILS_MAX);
        assert_eq!(report.summary.total_failure_session_count, DETAILS_MAX as u64 + 5);
        assert!(report.failure_details.iter().all(|one| one.failure_reason_code.len() <= REASON_OCTETS_MAX));
        for number in 0..POLICIES_MAX + 5 {
            let mut one = seen("2.test", Applied::TlsaUnknown, None);
            one.host = format!("{number}.mx");
            tally.add(&one);
        }
        assert_eq!(tally.domains["2.test"].len(), POLICIES_MAX);
    }
}
