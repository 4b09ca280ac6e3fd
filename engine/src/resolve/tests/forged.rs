//! Answers that were changed on the way from a trusted zone's server, which validation must notice although each
//! record in them is authentic, or provably needs no signature.

use super::super::mx::TlsaRecords;
use super::authentic::{expected_tlsa, of_validation, respond_signed, sign, signer, verdicts};
use super::*;
use hickory_resolver::proto::dnssec::DnssecSigner;

/// Makes another answer of the honest one.
type Forger = fn(Message, &DnssecSigner) -> Message;

async fn behind(forger: Forger) -> Resolvers {
    let signer = Arc::new(signer());
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let resolvers = of_validation(socket.local_addr().unwrap(), &signer);
    tokio::spawn(async move {
        let mut buffer = [0; 4_096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let honest = Message::from_vec(&respond_signed(&buffer[..length], &signer)).unwrap();
            let answer = forger(honest, &signer).to_vec().unwrap();
            socket.send_to(&answer, client).await.unwrap();
        }
    });
    resolvers
}

fn is_about(answer: &Message, of_type: RecordType) -> bool {
    answer.queries[0].query_type() == of_type
}

/// The SOA record of a zone that has no keys, as its own parent proves.
fn unsigned_soa() -> Record {
    let soa = SOA::new(name("ns.test"), name("ns.test"), 1, 1, 1, 1, 60);
    Record::from_rdata(name("unsigned-zone.test"), 60, RData::SOA(soa))
}

fn taken_away(mut answer: Message, _: &DnssecSigner) -> Message {
    if is_about(&answer, RecordType::TLSA) {
        answer.answers.clear();
        answer.authorities = vec![unsigned_soa()];
    }
    answer
}

fn taken_away_behind_something_else(mut answer: Message, signer: &DnssecSigner) -> Message {
    answer = taken_away(answer, signer);
    if is_about(&answer, RecordType::TLSA) {
        answer.answers = vec![Record::from_rdata(name("unsigned-zone.test"), 60, a("192.0.2.66"))];
    }
    answer
}

fn joined_by_another_name(mut answer: Message, signer: &DnssecSigner) -> Message {
    let data = match answer.queries[0].query_type() {
        RecordType::TLSA => {
            RData::TLSA(TLSA::new(CertUsage::DaneEe, Selector::Spki, Matching::Sha256, vec![9; 32]))
        }
        RecordType::MX => mx(1, "b.two.test"),
        _ => return answer,
    };
    let other = Record::from_rdata(name("other.test"), 300, data);
    answer.answers.insert(0, sign(signer, std::slice::from_ref(&other)));
    answer.answers.insert(0, other);
    answer
}

/// Behind an alias, to where nobody looks.
fn moved(mut answer: Message, _: &DnssecSigner) -> Message {
    if answer.answers.iter().any(|record| record.record_type() == RecordType::CNAME) {
        let owner = answer.queries[0].name().clone();
        let moved: Vec<Record> = answer.answers.extract_if(.., |record| record.name != owner).collect();
        answer.additionals = moved;
    }
    answer
}

#[test]
fn an_absence_is_not_proved_by_the_word_of_an_unsigned_zone() {
    run(async {
        for forger in [taken_away as Forger, taken_away_behind_something_else] {
            let resolvers = behind(forger).await;
            for host in ["a.two.test", "b.two.test"] {
                let found = resolvers.tlsa(0, host, 25).await.result;
                let error = found.expect_err("nobody knows");
                assert_eq!(error.kind, ResolveErrorKind::Temporary, "{error}");
                assert!(error.text.contains("does not validate (DNSSEC)"), "{error}");
            }
            // What is not signed has no records all the same.
            let none = Ok(TlsaRecords { records: vec![], secure: false });
            assert_eq!(resolvers.tlsa(0, "unsigned-zone.test", 25).await.result, none);
        }
    });
}

#[test]
fn authentic_records_of_another_name_are_none_of_this_one() {
    run(async {
        let resolvers = behind(joined_by_another_name).await;
        let tlsa = TlsaRecords { records: expected_tlsa(), secure: true };
        assert_eq!(resolvers.tlsa(0, "a.two.test", 25).await.result, Ok(tlsa));
        let expected = "true: a.two.test true \"\", b.two.test true \"\"";
        assert_eq!(verdicts(&resolvers, "two.test").await, expected);
        assert_eq!(resolvers.mx(0, "two.test").await.result.unwrap().hosts[1].preference, 20);
    });
}

#[test]
fn records_behind_an_alias_are_asked_for_when_the_answer_hides_them() {
    run(async {
        let resolvers = behind(moved).await;
        let expected = "true at two.test: a.two.test true \"\", b.two.test true \"\"";
        assert_eq!(verdicts(&resolvers, "alias.two.test").await, expected);
    });
}
