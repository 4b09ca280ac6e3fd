//! The service against a DNS server on loopback that answers from a table and counts questions.

mod authentic;
mod bound;
mod forged;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::tlsa::{CertUsage, Matching, Selector};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, NS, SOA, TLSA};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::choose::{Allowed, choose};
use super::error::ResolveErrorKind;
use super::mx::MxHost;
use super::service::{Answer, Resolvers};
use crate::config::{Dnssec, Resolver};

type Zone = fn(&str, RecordType) -> Result<Vec<RData>, ResponseCode>;
type Counts = Arc<Mutex<HashMap<String, usize>>>;

fn name(text: &str) -> Name {
    Name::from_ascii(format!("{text}.")).unwrap()
}

fn mx(preference: u16, exchange: &str) -> RData {
    let exchange = if exchange.is_empty() { Name::root() } else { name(exchange) };
    RData::MX(MX::new(preference, exchange))
}

fn a(text: &str) -> RData {
    match text.parse::<IpAddr>().unwrap() {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// The zone: `Err` is a response code for the name, whatever the type.
fn zone(question: &str, of_type: RecordType) -> Result<Vec<RData>, ResponseCode> {
    let all = match question {
        "two.test" => vec![mx(20, "b.two.test"), mx(10, "A.two.test")],
        "a.two.test" => vec![a("192.0.2.1"), a("2001:db8::1")],
        "b.two.test" => vec![a("192.0.2.2")],
        "implicit.test" => vec![a("192.0.2.3")],
        "many.test" => (0..200).map(|n| mx(n, &format!("a-rather-long-name-{n}.many.test"))).collect(),
        "a-rather-long-name-7.many.test" => vec![a("192.0.2.7")],
        "null.test" => vec![mx(0, "")],
        "empty.test" => vec![],
        "_25._tcp.a.two.test" => {
            vec![RData::TLSA(TLSA::new(CertUsage::DaneEe, Selector::Spki, Matching::Sha256, vec![7; 32]))]
        }
        "_25._tcp.servfail.test" => return Err(ResponseCode::ServFail),
        "mixed.test" => vec![mx(10, "unsigned.test")],
        "unsigned.test" => vec![mx(10, "a.two.test"), a("192.0.2.8")],
        "aliased.test" => vec![mx(10, "alias.implicit.test")],
        "forged.test" => vec![a("192.0.2.9")],
        "halfforged.test" => vec![mx(10, "forged.test"), mx(20, "b.two.test")],
        "numeric.test" => vec![mx(10, "192.0.2.1"), mx(20, "b.two.test")],
        "onlynumeric.test" => vec![mx(10, "192.0.2.1")],
        "looping.test" => vec![mx(10, "relay.test"), mx(10, "a.two.test"), mx(20, "b.two.test")],
        "backup.test" => vec![mx(10, "a.two.test"), mx(20, "relay.test"), mx(30, "b.two.test")],
        // Without keys, as the records of its parent prove.
        "unsigned-zone.test" => vec![RData::NS(NS(name("ns.test")))],
        "private.test" => vec![mx(10, "inner.test"), mx(20, "b.two.test")],
        "onlyprivate.test" => vec![mx(10, "inner.test")],
        "inner.test" => vec![a("10.0.0.1"), a("::1")],
        "half.test" => vec![mx(10, "gone.test"), mx(20, "b.two.test")],
        "lost.test" => vec![mx(10, "gone.test"), mx(10, "empty.test")],
        "shaky.test" => vec![mx(10, "gone.test"), mx(10, "servfail.test")],
        shared if shared.starts_with("shared-") => vec![mx(10, "b.two.test")],
        "servfail.test" => return Err(ResponseCode::ServFail),
        "refused.test" => return Err(ResponseCode::Refused),
        _ => return Err(ResponseCode::NXDomain),
    };
    Ok(all.into_iter().filter(|record| record.record_type() == of_type).collect())
}

/// Octets of an answer that UDP carries here.
const UDP_BYTES_MAX: usize = 1_232;

fn respond(question: &[u8], zone: Zone, counts: &Counts) -> Vec<u8> {
    let question = Message::from_vec(question).unwrap();
    let query = question.queries[0].clone();
    let asked = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
    *counts.lock().unwrap().entry(format!("{asked} {}", query.query_type())).or_insert(0) += 1;
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.metadata.authentic_data = question.metadata.authentic_data && !asked.starts_with("unsigned.");
    let mut owner = query.name().clone();
    if let Some(target) = asked.strip_prefix("alias.") {
        let cname = RData::CNAME(CNAME(name(target)));
        answer.add_answer(Record::from_rdata(owner, 300, cname));
        owner = name(target);
    }
    // An alias whose answer says no more.
    if let Some(target) = asked.trim_start_matches("unsigned.").strip_prefix("link.") {
        let cname = RData::CNAME(CNAME(name(target)));
        answer.add_answer(Record::from_rdata(owner, 300, cname));
        answer.add_query(query);
        return answer.to_vec().unwrap();
    }
    let records = zone(asked.trim_start_matches("alias."), query.query_type());
    if !matches!(&records, Ok(records) if !records.is_empty()) {
        let soa = SOA::new(name("ns.test"), name("admin.test"), 1, 1, 1, 1, 60);
        answer.add_authority(Record::from_rdata(name("test"), 60, RData::SOA(soa)));
    }
    match records {
        Ok(records) => {
            answer.add_answers(records.into_iter().map(|data| Record::from_rdata(owner.clone(), 300, data)));
        }
        Err(code) => answer.metadata.response_code = code,
    }
    answer.add_query(query);
    answer.to_vec().unwrap()
}

/// With a server that answers: a machine that is busy is no failure.
const PATIENCE: Duration = Duration::from_secs(15);

fn resolver(name: &str, servers: Vec<SocketAddr>) -> Resolver {
    Resolver { name: name.into(), servers, dnssec: Dnssec::Off, trust_anchors: None }
}

/// The hosts of a domain that may be tried, by an own name of `relay.test`.
async fn hosts(resolvers: &Resolvers, domain: &str) -> Answer<Vec<MxHost>> {
    let Answer { result, valid_for } = resolvers.mx(0, domain).await;
    let is_own = |name: &str, _| name == "relay.test";
    let result =
        result.and_then(|found| choose(domain, found, &Allowed { is_own, private_addresses: false }));
    Answer { result, valid_for }
}

async fn serve() -> (Resolvers, SocketAddr, Counts) {
    let (address, counts) = spawn_server(zone).await;
    let resolver = resolver("external", vec![address]);
    (Resolvers::with_patience(&[resolver], 7, PATIENCE).unwrap(), address, counts)
}

/// A port that is free for UDP need not be for TCP.
async fn bind_both() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(listener) = TcpListener::bind(socket.local_addr().unwrap()).await {
            return (socket, listener);
        }
    }
    panic!("no port is free for both");
}

async fn spawn_server(zone: Zone) -> (SocketAddr, Counts) {
    let (socket, listener) = bind_both().await;
    let address = socket.local_addr().unwrap();
    let counts = Counts::default();
    let counting = Arc::clone(&counts);
    tokio::spawn(async move {
        let mut buffer = [0; 4_096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let mut answer = respond(&buffer[..length], zone, &counting);
            if answer.len() > UDP_BYTES_MAX {
                answer = Message::from_vec(&answer).unwrap().truncate().to_vec().unwrap();
            }
            socket.send_to(&answer, client).await.unwrap();
        }
    });
    let counting = Arc::clone(&counts);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            while let Ok(length) = stream.read_u16().await {
                let mut question = vec![0; length.into()];
                stream.read_exact(&mut question).await.unwrap();
                let answer = respond(&question, zone, &counting);
                stream.write_u16(answer.len().try_into().unwrap()).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        }
    });
    (address, counts)
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn every_kind_of_domain_gets_its_hosts() {
    run(async {
        let (resolvers, ..) = serve().await;
        let table = [
            ("two.test", "10 a.two.test 2001:db8::1 192.0.2.1, 20 b.two.test 192.0.2.2"),
            ("TWO.test", "10 a.two.test 2001:db8::1 192.0.2.1, 20 b.two.test 192.0.2.2"),
            ("implicit.test", "0 implicit.test 192.0.2.3"),
            ("half.test", "20 b.two.test 192.0.2.2"),
            ("alias.two.test", "10 a.two.test 2001:db8::1 192.0.2.1, 20 b.two.test 192.0.2.2"),
            ("alias.implicit.test", "0 alias.implicit.test 192.0.2.3"),
            ("many.test", "7 a-rather-long-name-7.many.test 192.0.2.7"),
            ("numeric.test", "20 b.two.test 192.0.2.2"),
            ("backup.test", "10 a.two.test 2001:db8::1 192.0.2.1"),
            ("private.test", "20 b.two.test 192.0.2.2"),
            ("[192.0.2.9]", "0 192.0.2.9 192.0.2.9"),
            ("[IPv6:2001:db8::9]", "0 2001:db8::9 2001:db8::9"),
        ];
        for (domain, expected) in table {
            let hosts = hosts(&resolvers, domain).await.result.unwrap();
            let shown = hosts.iter().map(|host| {
                let addresses: Vec<String> =
                    host.found.as_ref().unwrap().list.iter().map(ToString::to_string).collect();
                format!("{} {} {}", host.preference, host.name, addresses.join(" "))
            });
            assert_eq!(shown.collect::<Vec<_>>().join(", "), expected, "{domain}");
        }
    });
}

#[test]
fn every_kind_of_failure_names_the_name_the_server_and_the_answer() {
    use ResolveErrorKind::*;
    run(async {
        let (resolvers, server, _) = serve().await;
        let table = [
            ("gone.test", NoDomain, "looking up MX of gone.test", "NXDOMAIN"),
            ("null.test", NullMx, "null.test takes no mail", "null MX"),
            ("empty.test", NoAddress, "of empty.test", "no such record"),
            ("servfail.test", Temporary, "looking up MX of servfail.test", "SERVFAIL"),
            ("refused.test", Temporary, "looking up MX of refused.test", "REFUSED"),
            (
                "onlynumeric.test",
                NoMxHostResolves { lasting: true },
                "names the address 192.0.2.1",
                "MX record",
            ),
            ("looping.test", Loop, "mail for looping.test loops back", "relay.test (preference 10)"),
            ("onlyprivate.test", NotPublic, "inner.test at ::1", "inner.test at 10.0.0.1"),
            ("[127.0.0.1]", NotPublic, "[127.0.0.1]", "127.0.0.1 at 127.0.0.1"),
            ("[10.1.2.3]", NotPublic, "[10.1.2.3]", "private addresses are refused"),
            ("lost.test", NoMxHostResolves { lasting: true }, "of gone.test", "of empty.test"),
            ("shaky.test", NoMxHostResolves { lasting: false }, "no MX host of shaky.test", "SERVFAIL"),
        ];
        for (domain, kind, one, other) in table {
            let error = hosts(&resolvers, domain).await.result.unwrap_err();
            assert_eq!(error.kind, kind, "{error}");
            let at = server.to_string();
            // What the route decides is no word of a server.
            let of_route = matches!(kind, Loop | NotPublic) || domain == "onlynumeric.test";
            let by: &[&str] = if of_route { &[] } else { &[&at, "resolver external"] };
            for part in [one, other].iter().chain(by) {
                assert!(error.text.contains(part), "{part:?} is not in: {error}");
            }
        }
        let many_labels = "a.".repeat(10_000);
        let many_octets = format!("{}.test", "a".repeat(10_000));
        let long = [["a".repeat(60).as_str(); 4].join("."), "abcdefghij.test".into()].join(".");
        for domain in ["", "[1.2]", "a..b", "a\r\nb", &many_labels, &many_octets, &long] {
            let error = hosts(&resolvers, domain).await.result.unwrap_err();
            assert_eq!(error.kind, BadName);
            assert!(!error.text.contains('\n') && error.text.len() < 400, "{error}");
        }
    });
}

#[test]
fn answers_hold_as_long_as_their_ttl_says() {
    run(async {
        let (resolvers, ..) = serve().await;
        let valid = async |domain: &str| hosts(&resolvers, domain).await.valid_for.as_secs();
        assert!((1..=300).contains(&valid("half.test").await));
        assert!((55..=60).contains(&valid("gone.test").await), "negative TTL of the SOA");
        assert_eq!(valid("servfail.test").await, 10);
    });
}

#[test]
fn the_same_question_is_asked_once() {
    run(async {
        let (resolvers, _, counts) = serve().await;
        let all = (0..50).map(|_| resolvers.mx(0, "two.test"));
        let answers = futures_util::future::join_all(all).await;
        assert!(answers.iter().all(|answer| answer == &answers[0]));
        // A datagram may be sent again when the machine is slow; 50 questions are not.
        for question in ["two.test MX", "a.two.test A", "a.two.test AAAA"] {
            assert!((1..=5).contains(&counts.lock().unwrap()[question]), "{question}");
        }
    });
}

#[test]
fn an_answer_is_kept_unless_it_is_large() {
    run(async {
        let (resolvers, _, counts) = serve().await;
        let asked = |question: &str| counts.lock().unwrap()[question];
        for (domain, is_kept) in [("two.test", true), ("many.test", false)] {
            let question = format!("{domain} MX");
            let first = resolvers.mx(0, domain).await.result;
            let before = asked(&question);
            let mut again = resolvers.mx(0, domain).await.result.unwrap();
            again.hosts.sort_by_key(|host| host.preference);
            assert_eq!(Ok(again), first, "{domain}");
            assert_eq!(asked(&question) == before, is_kept, "{domain}");
        }
    });
}

#[test]
fn a_host_of_many_domains_is_asked_for_once() {
    run(async {
        let (resolvers, _, counts) = serve().await;
        let all = (0..50).map(async |n| resolvers.mx(0, &format!("shared-{n}.test")).await.result.unwrap());
        let answers = futures_util::future::join_all(all).await;
        assert!(answers.iter().all(|found| found.hosts[0].found.is_ok()));
        for question in ["b.two.test A", "b.two.test AAAA"] {
            assert!((1..=5).contains(&counts.lock().unwrap()[question]), "{question}");
        }
        assert!(resolvers.lookups_under_way() == 0);
    });
}

#[test]
fn host_names_and_addresses_of_smart_hosts() {
    run(async {
        let (resolvers, _, counts) = serve().await;
        let addresses = async |host: &str| resolvers.addresses(0, host).await.result.map(|found| found.list);
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(addresses("A.two.test").await, Ok(vec![parse("2001:db8::1"), parse("192.0.2.1")]));
        let asked = counts.lock().unwrap().len();
        let table =
            [("10.1.0.10", "10.1.0.10"), ("2001:db8::5", "2001:db8::5"), ("[10.1.0.10]", "10.1.0.10")];
        for (host, address) in table {
            assert_eq!(addresses(host).await, Ok(vec![parse(address)]), "{host}");
        }
        assert_eq!(counts.lock().unwrap().len(), asked, "an address is not looked up");
        assert_eq!(addresses("gone.test").await.unwrap_err().kind, ResolveErrorKind::NoDomain);
    });
}

#[test]
fn a_server_that_is_not_there_is_a_temporary_failure() {
    run(async {
        let unused = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let resolver = resolver("dead", vec![unused]);
        let resolvers = Resolvers::with_patience(&[resolver], 7, Duration::from_millis(500)).unwrap();
        let answer = resolvers.mx(0, "two.test").await;
        assert_eq!(answer.result.unwrap_err().kind, ResolveErrorKind::Temporary);
        assert_eq!(answer.valid_for, Duration::from_secs(10));
    });
}

#[test]
fn a_server_that_refuses_or_is_silent_gives_way_to_the_next() {
    run(async {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (refusing, refused) = spawn_server(|_, _| Err(ResponseCode::Refused)).await;
        let (answering, answered) = spawn_server(zone).await;
        let servers = vec![silent.local_addr().unwrap(), refusing, answering];
        let resolver = resolver("external", servers.clone());
        let resolvers = Resolvers::with_patience(&[resolver], 7, Duration::from_millis(500)).unwrap();
        let error = resolvers.mx(0, "gone.test").await.result.unwrap_err();
        assert_eq!(error.kind, ResolveErrorKind::NoDomain, "{error}");
        let before = refused.lock().unwrap().len();
        assert_eq!(hosts(&resolvers, "two.test").await.result.unwrap().len(), 2);
        assert_eq!(refused.lock().unwrap().len(), before, "the server that answered is asked first");
        assert!(answered.lock().unwrap().contains_key("two.test MX"));
        let error = resolvers.mx(0, "servfail.test").await.result.unwrap_err();
        assert_eq!(error.kind, ResolveErrorKind::Temporary);
        for (server, said) in servers.iter().zip(["no answer in time", "REFUSED", "SERVFAIL"]) {
            let one = error.text.split("; ").find(|one| one.contains(&server.to_string()));
            assert!(one.is_some_and(|one| one.contains(said)), "{server} {said}: {error}");
        }
    });
}

#[test]
fn an_answer_too_large_for_udp_is_fetched_by_tcp() {
    run(async {
        let (resolvers, _, counts) = serve().await;
        assert_eq!(hosts(&resolvers, "many.test").await.result.unwrap().len(), 1);
        assert!(counts.lock().unwrap()["many.test MX"] >= 2, "by UDP, then by TCP");
    });
}
