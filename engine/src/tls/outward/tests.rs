//! What a peer's certificate is worth under each demand.

use super::super::dane::Tlsa;
use super::super::demand::Dane;
use super::*;
use crate::mta_sts::policy::{Mode, Policy};
use rustls::pki_types::pem::PemObject;

const VERDICTS: [PeerVerdict; 5] = [
    PeerVerdict::Untrusted,
    PeerVerdict::Trusted,
    PeerVerdict::Verified,
    PeerVerdict::Sts,
    PeerVerdict::Dane,
];

fn route(rule: TlsRule, names: &[PeerName]) -> RouteTls {
    let tls = OutwardTls { rule, names: names.to_vec(), ..OutwardTls::default() };
    RouteTls::new(&tls, None, matches!(rule, TlsRule::Fingerprint | TlsRule::DaneOnly)).expect("a route")
}

fn dane(data: Vec<u8>) -> Demand {
    let record = Tlsa { usage: 3, selector: 0, matching: 1, data };
    Demand::Dane(Arc::new(Dane { base: "mx.a.test".into(), records: vec![record], names: vec![] }))
}

fn sts(mode: Mode) -> Arc<Policy> {
    Arc::new(Policy { mode, mx: vec!["mx.a.test".into()], max_age_seconds: 60 })
}

#[test]
fn what_is_demanded_says_which_verdict_is_enough() {
    use PeerVerdict::{Dane, Sts, Untrusted, Verified};
    let testing = Demand::StsTesting(sts(Mode::Testing));
    for (rule, demand, least, most) in [
        (TlsRule::May, &Demand::Route, Some(Untrusted), Dane),
        (TlsRule::Dane, &Demand::Route, Some(Untrusted), Dane),
        (TlsRule::Encrypt, &testing, Some(Untrusted), Dane),
        (TlsRule::Verify, &Demand::Route, Some(Verified), Verified),
        (TlsRule::Fingerprint, &Demand::Route, Some(Verified), Verified),
        (TlsRule::DaneOnly, &Demand::Route, None, Dane),
        (TlsRule::May, &dane(vec![]), Some(Dane), Dane),
        (TlsRule::DaneOnly, &dane(vec![]), Some(Dane), Dane),
        (TlsRule::May, &Demand::Sts(sts(Mode::Enforce)), Some(Sts), Sts),
    ] {
        for verdict in VERDICTS {
            let expected = least.is_some_and(|least| (least..=most).contains(&verdict));
            assert_eq!(route(rule, &[]).admits(verdict, demand), expected, "{rule:?} {demand:?} {verdict}");
        }
    }
}

/// RFC 8689 section 4.2.1.
#[test]
fn a_verified_name_is_certain_only_where_nobody_could_forge_it() {
    let host = route(TlsRule::May, &[PeerName::Host]);
    let named = route(TlsRule::Verify, &[PeerName::Name("mx.a.test".into())]);
    for (route, domain, way_is_authentic, expected) in [
        (&host, Some("a.test"), false, false),
        (&host, Some("a.test"), true, true),
        (&host, None, false, true),
        (&named, Some("a.test"), false, true),
    ] {
        let meant = Meant { host: "mx.a.test", domain, demand: &Demand::Route, way_is_authentic };
        assert_eq!(route.is_certain(PeerVerdict::Verified, &meant), expected, "{domain:?}");
        assert!(route.is_certain(PeerVerdict::Dane, &meant) && route.is_certain(PeerVerdict::Sts, &meant));
        assert!(!route.is_certain(PeerVerdict::Trusted, &meant));
    }
}

#[test]
fn tlsa_records_judge_a_chain_whatever_the_names() {
    let pem = include_bytes!("../tests/chain.pem");
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().expect("a chain");
    let route = route(TlsRule::May, &[PeerName::Host]);
    let judged = |data: Vec<u8>| {
        let demand = dane(data);
        let meant = Meant { host: "x.test", domain: None, demand: &demand, way_is_authentic: true };
        assert_eq!(meant.server_name(), "mx.a.test");
        let Judged { verdict, why, fault } = route.judge_chain(&chain, &meant);
        (verdict, why, fault)
    };
    assert_eq!(judged(fingerprint(&chain[0]).to_vec()), (PeerVerdict::Dane, String::new(), None));
    let why = "no TLSA record of mx.a.test vouches for it".to_owned();
    assert_eq!(judged(vec![0; 32]), (PeerVerdict::Untrusted, why, Some(CertificateFault::Other)));
}
