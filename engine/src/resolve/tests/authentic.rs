//! The verdicts of DNSSEC: the AD bit of a trusted server, and signatures that are made and broken here.

use hickory_resolver::proto::dnssec::crypto::Ed25519SigningKey;
use hickory_resolver::proto::dnssec::rdata::sig::SigInput;
use hickory_resolver::proto::dnssec::rdata::{DNSKEY, DNSSECRData, NSEC, RRSIG};
use hickory_resolver::proto::dnssec::{Algorithm, DnssecSigner, SigningKey, TBS};
use hickory_resolver::proto::rr::{DNSClass, SerialNumber};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::super::mx::TlsaRecords;
use super::*;
use crate::tls::dane::Tlsa;

/// Asks everything that DANE rests on: is it authentic?
pub(super) async fn verdicts(resolvers: &Resolvers, domain: &str) -> String {
    let found = match resolvers.mx(0, domain).await.result {
        Ok(found) => found,
        Err(error) => return format!("{:?}: {}", error.kind, error.text),
    };
    let host = |host: &MxHost| match &host.found {
        Ok(found) => format!("{} {} {:?}", host.name, found.secure, found.canonical.as_deref().unwrap_or("")),
        Err(error) => format!("{} {:?}", host.name, error.kind),
    };
    let hosts = found.hosts.iter().map(host).collect::<Vec<_>>().join(", ");
    let canonical = found.canonical.map(|name| format!(" at {name}")).unwrap_or_default();
    format!("{}{canonical}: {hosts}", found.secure)
}

fn of_mode(dnssec: Dnssec, server: SocketAddr) -> Resolvers {
    let resolver = Resolver { dnssec, ..resolver("local", vec![server]) };
    Resolvers::with_patience(&[resolver], 7, PATIENCE).unwrap()
}

pub(super) fn expected_tlsa() -> Vec<Tlsa> {
    vec![Tlsa { usage: 3, selector: 1, matching: 1, data: vec![7; 32] }]
}

#[test]
fn the_ad_bit_counts_only_where_the_server_is_trusted() {
    run(async {
        let (server, _) = spawn_server(zone).await;
        let table = [
            ("two.test", "a.two.test true \"\", b.two.test true \"\"", true),
            ("implicit.test", "implicit.test true \"\"", true),
            ("mixed.test", "unsigned.test false \"\"", true),
            ("alias.implicit.test", "alias.implicit.test true \"implicit.test\"", true),
            ("aliased.test", "alias.implicit.test true \"implicit.test\"", true),
            ("unsigned.test", "a.two.test true \"\"", false),
        ];
        let (off, trusting) = (of_mode(Dnssec::Off, server), of_mode(Dnssec::TrustAd, server));
        for (domain, hosts, secure) in table {
            assert_eq!(verdicts(&trusting, domain).await, format!("{secure}: {hosts}"), "{domain}");
            // Once more, from the cache.
            assert_eq!(verdicts(&trusting, domain).await, format!("{secure}: {hosts}"), "{domain}");
            let none = format!("false: {}", hosts.replace("true", "false"));
            assert_eq!(verdicts(&off, domain).await, none, "{domain}");
        }
        // The domain is an alias. An answer about a link says where it leads and no more, and what is there is known
        // already.
        for domain in ["alias.two.test", "link.two.test", "link.link.two.test", "LINK.link.two.test"] {
            let hosts = "a.two.test true \"\", b.two.test true \"\"";
            assert_eq!(verdicts(&trusting, domain).await, format!("true at two.test: {hosts}"), "{domain}");
        }
        for domain in ["unsigned.link.two.test", "link.unsigned.link.two.test"] {
            let hosts = "a.two.test true \"\", b.two.test true \"\"";
            assert_eq!(verdicts(&trusting, domain).await, format!("false at two.test: {hosts}"), "{domain}");
        }
        let tlsa = TlsaRecords { records: expected_tlsa(), secure: true };
        assert_eq!(trusting.tlsa(0, "A.two.test", 25).await.result, Ok(tlsa.clone()));
        assert_eq!(off.tlsa(0, "a.two.test", 25).await.result, Ok(TlsaRecords { secure: false, ..tlsa }));
    });
}

#[test]
fn no_tlsa_record_is_an_answer_and_a_failure_is_an_error() {
    run(async {
        let (resolvers, ..) = serve().await;
        let none = TlsaRecords { records: vec![], secure: false };
        for host in ["b.two.test", "gone.test"] {
            assert_eq!(resolvers.tlsa(0, host, 25).await.result.as_ref(), Ok(&none), "{host}");
        }
        let error = resolvers.tlsa(0, "servfail.test", 25).await.result.unwrap_err();
        assert_eq!(error.kind, ResolveErrorKind::Temporary);
        assert!(error.text.contains("looking up TLSA of _25._tcp.servfail.test"), "{error}");
    });
}

/// Signs as the root zone, with one key for everything.
pub(super) fn signer() -> DnssecSigner {
    let key = Ed25519SigningKey::from_pkcs8(&Ed25519SigningKey::generate_pkcs8().unwrap()).unwrap();
    let public = DNSKEY::from_key(&key.to_public_key().unwrap());
    DnssecSigner::new(public, Box::new(key), Name::root(), Duration::from_secs(3_600))
}

fn key_record(signer: &DnssecSigner) -> Record {
    let key = DNSKEY::from_key(&signer.key().to_public_key().unwrap());
    Record::from_rdata(Name::root(), 300, RData::DNSSEC(DNSSECRData::DNSKEY(key)))
}

pub(super) fn sign(signer: &DnssecSigner, set: &[Record]) -> Record {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32;
    let owner = set[0].name.clone();
    let input = SigInput {
        type_covered: set[0].record_type(),
        algorithm: Algorithm::ED25519,
        num_labels: owner.num_labels(),
        original_ttl: set[0].ttl,
        sig_expiration: SerialNumber::new(now + 3_600),
        sig_inception: SerialNumber::new(now - 60),
        key_tag: signer.calculate_key_tag().unwrap(),
        signer_name: Name::root(),
    };
    let signed = TBS::from_input(&owner, DNSClass::IN, &input, set.iter()).unwrap();
    let signature = RRSIG::from_sig(input, signer.sign(&signed).unwrap());
    Record::from_rdata(owner, set[0].ttl, RData::DNSSEC(DNSSECRData::RRSIG(signature)))
}

/// What [`respond`] says, signed; absence is proved by a record of the name's own (RFC 9824). Records at
/// `forged.` carry a signature of something else.
pub(super) fn respond_signed(question: &[u8], signer: &DnssecSigner) -> Vec<u8> {
    let mut answer = Message::from_vec(&respond(question, zone, &Counts::default())).unwrap();
    let query = answer.queries[0].clone();
    if query.query_type() == RecordType::DNSKEY && query.name().is_root() {
        answer.metadata.response_code = ResponseCode::NoError;
        answer.authorities.clear();
        answer.answers = vec![key_record(signer)];
    }
    let (mut answers, mut sets) = (std::mem::take(&mut answer.answers), Vec::<Vec<Record>>::new());
    while let Some(first) = answers.first().cloned() {
        let same = |record: &Record| record.name == first.name && record.record_type() == first.record_type();
        sets.push(answers.extract_if(.., |record| same(record)).collect());
    }
    for set in &mut sets {
        let mut signed = set.clone();
        if set[0].name.to_ascii().starts_with("forged.") {
            signed[0].data = a("192.0.2.66");
        }
        set.push(sign(signer, &signed));
    }
    answer.answers = sets.into_iter().flatten().collect();
    if answer.answers.is_empty() && answer.metadata.response_code != ResponseCode::ServFail {
        let name = query.name().clone();
        let all = [RecordType::MX, RecordType::A, RecordType::AAAA, RecordType::TLSA, RecordType::NS];
        let text = name.to_ascii().trim_end_matches('.').to_ascii_lowercase();
        let has = |of_type: &RecordType| zone(&text, *of_type).is_ok_and(|records| !records.is_empty());
        let types = all.into_iter().filter(has);
        let next = name.prepend_label(b"\0".as_slice()).unwrap();
        let proof = RData::DNSSEC(DNSSECRData::NSEC(NSEC::new_cover_self(next, types)));
        let soa = SOA::new(name_of_server(), name_of_server(), 1, 1, 1, 1, 60);
        let sets =
            [Record::from_rdata(Name::root(), 60, RData::SOA(soa)), Record::from_rdata(name, 60, proof)];
        answer.metadata.response_code = ResponseCode::NoError;
        answer.authorities =
            sets.into_iter().flat_map(|record| [record.clone(), sign(signer, &[record])]).collect();
    }
    answer.edns = Message::from_vec(question).unwrap().edns;
    answer.to_vec().unwrap()
}

/// Trusts this key alone.
pub(super) fn of_validation(server: SocketAddr, signer: &DnssecSigner) -> Resolvers {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let anchors = std::env::temp_dir().join(format!("sluice-anchors-{}-{number}", std::process::id()));
    std::fs::write(&anchors, format!(". 300 IN DNSKEY {}\n", key_record(signer).data)).unwrap();
    let resolver = Resolver {
        dnssec: Dnssec::Validate,
        trust_anchors: Some(anchors.clone()),
        ..resolver("validating", vec![server])
    };
    let resolvers = Resolvers::with_patience(&[resolver], 7, PATIENCE).unwrap();
    std::fs::remove_file(anchors).unwrap();
    resolvers
}

fn name_of_server() -> Name {
    name("ns.test")
}

#[test]
fn validation_finds_what_is_signed_authentic_and_what_is_forged_not_there() {
    run(async {
        let signer = Arc::new(signer());
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = socket.local_addr().unwrap();
        let resolvers = of_validation(server, &signer);
        tokio::spawn(async move {
            let mut buffer = [0; 4_096];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                let answer = respond_signed(&buffer[..length], &signer);
                socket.send_to(&answer, client).await.unwrap();
            }
        });
        let table = [
            ("two.test", "true: a.two.test true \"\", b.two.test true \"\""),
            ("implicit.test", "true: implicit.test true \"\""),
            ("aliased.test", "true: alias.implicit.test true \"implicit.test\""),
            ("halfforged.test", "true: forged.test Temporary, b.two.test true \"\""),
        ];
        for (domain, expected) in table {
            assert_eq!(verdicts(&resolvers, domain).await, expected, "{domain}");
        }
        let forged = verdicts(&resolvers, "forged.test").await;
        assert!(forged.starts_with("Temporary") && forged.contains("does not validate (DNSSEC)"), "{forged}");
        assert_eq!(verdicts(&resolvers, "empty.test").await.split(':').next(), Some("NoAddress"));
        let tlsa = TlsaRecords { records: expected_tlsa(), secure: true };
        assert_eq!(resolvers.tlsa(0, "a.two.test", 25).await.result, Ok(tlsa));
        let none = resolvers.tlsa(0, "b.two.test", 25).await;
        assert_eq!(none.result, Ok(TlsaRecords { records: vec![], secure: false }));
        assert!((50..=60).contains(&none.valid_for.as_secs()), "{:?}", none.valid_for);
    });
}

#[test]
fn keys_that_are_none_are_refused_with_what_is_allowed() {
    let file = std::env::temp_dir().join(format!("sluice-no-anchors-{}", std::process::id()));
    for content in [None, Some(""), Some("DNSKEY"), Some(". IN DNSKEY 257 3 15 !"), Some(". IN A 192.0.2.1")]
    {
        match content {
            Some(content) => std::fs::write(&file, content).unwrap(),
            None => drop(std::fs::remove_file(&file)),
        }
        let sentence = super::super::servers::trust_anchors(&file).err().unwrap();
        assert!(sentence.contains("; allowed: a file of DNSKEY records"), "{content:?}: {sentence}");
    }
    std::fs::remove_file(file).unwrap();
}
