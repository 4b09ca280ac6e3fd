//! What hickory-resolver says, in the relay's words: names in and out, and why there was no record.
//!
//! Pure; used by the service only.

use std::time::Duration;

use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::dnssec::Proof;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::Name;

/// A look-up without a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub reason: MissingReason,
    pub text: String,
    pub valid_for: Duration,
}

/// Why; of two reasons the greater one counts: a look-up that failed leaves everything open, and a
/// name that does not exist has no data either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum MissingReason {
    /// The name exists, without records of this type.
    NoData,
    /// NXDOMAIN.
    NoName,
    /// No answer, or none that says whether there is such a record.
    Failed,
}

/// The reason, the words for it, and the negative TTL where the answer had one (RFC 2308).
pub(super) fn classify(error: &NetError) -> (MissingReason, String, Option<Duration>) {
    let failed = |said: String| (MissingReason::Failed, said, None);
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            // Where it validates, hickory-resolver leaves the TTL to the SOA record.
            let of_soa = || none.soa.as_ref().map(|soa| soa.ttl.min(soa.data.minimum));
            let ttl = none.negative_ttl.or_else(of_soa).map(|seconds| Duration::from_secs(seconds.into()));
            match none.response_code {
                ResponseCode::NXDomain => (MissingReason::NoName, "no such domain (NXDOMAIN)".into(), ttl),
                ResponseCode::NoError if none.soa.is_none() && none.ns.is_some() => {
                    failed("the server refers to other servers instead of answering".into())
                }
                ResponseCode::NoError => (MissingReason::NoData, "no such record".into(), ttl),
                code => failed(answer_code(code)),
            }
        }
        // The absence is proved (RFC 4035 section 5.4).
        NetError::Dns(DnsError::Nsec { response, proof, .. }) if *proof != Proof::Bogus => {
            let ttl = response.negative_ttl().map(|seconds| Duration::from_secs(seconds.into()));
            match response.response_code {
                ResponseCode::NXDomain => (MissingReason::NoName, "no such domain (NXDOMAIN)".into(), ttl),
                ResponseCode::NoError => (MissingReason::NoData, "no such record".into(), ttl),
                code => failed(answer_code(code)),
            }
        }
        NetError::Dns(DnsError::Nsec { .. } | DnsError::DnssecBogus) => failed(
            "the answer does not validate (DNSSEC): it was forged, or the zone is signed wrongly".into(),
        ),
        NetError::Dns(DnsError::ResponseCode(code)) => failed(answer_code(*code)),
        NetError::Timeout => failed("no answer in time".into()),
        NetError::Busy => failed("too many questions to the servers at once".into()),
        NetError::NoConnections => failed("no server could be reached".into()),
        NetError::Io(error) => failed(error.to_string()),
        other => failed(other.to_string()),
    }
}

fn answer_code(code: ResponseCode) -> String {
    match code {
        ResponseCode::ServFail => "the server failed (SERVFAIL)".into(),
        ResponseCode::Refused => "the server refused to answer (REFUSED)".into(),
        code => format!("the server answered: {code}"),
    }
}

/// A domain as it stands in a mailbox; a final dot makes no difference. `None` when it cannot be one.
pub(super) fn parse_name(domain: &str) -> Option<Name> {
    let is_sound = |byte: u8| byte > b' ' && byte != b'\\' && byte != 0x7f;
    if domain.trim_end_matches('.').is_empty() || !domain.bytes().all(is_sound) {
        return None;
    }
    let mut name = Name::from_str_relaxed(domain).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// Lower case, without the final dot; odd octets escaped; empty for the root.
pub(super) fn host_name(name: &Name) -> String {
    let mut text = name.to_ascii().to_ascii_lowercase();
    if text.ends_with('.') {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_without_their_final_dot() {
        let long_label = "a".repeat(64);
        let long_name = ["a".repeat(60).as_str(); 5].join(".");
        let table = [
            ("Example.COM", Some("example.com")),
            ("example.com.", Some("example.com")),
            ("_odd-.example", Some("_odd-.example")),
            ("localhost", Some("localhost")),
            ("bücher.example", Some("xn--bcher-kva.example")),
            ("", None),
            (".", None),
            ("a..b", None),
            ("a b", None),
            ("a\\.b", None),
            ("a\r\nb", None),
            (&long_label, None),
            (&long_name, None),
        ];
        for (domain, expected) in table {
            assert_eq!(parse_name(domain).map(|name| host_name(&name)).as_deref(), expected, "{domain}");
        }
        assert_eq!(host_name(&Name::root()), "");
    }

    #[test]
    fn a_failed_look_up_outweighs_a_missing_name_and_that_a_missing_record() {
        assert!(MissingReason::Failed > MissingReason::NoName);
        assert!(MissingReason::NoName > MissingReason::NoData);
    }
}
