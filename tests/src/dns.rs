//! An authoritative DNS server (hickory-server) on a loopback address, for the whole name space: what no
//! test has put in does not exist (NXDOMAIN), and chosen names answer SERVFAIL. It can be signed (DNSSEC),
//! and then chosen names are answered without signatures, as by somebody in between.

use std::collections::HashSet;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hickory_proto::dnssec::crypto::Ed25519SigningKey;
use hickory_proto::dnssec::rdata::DNSKEY;
use hickory_proto::dnssec::{DnssecSigner, SigningKey};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::name::CNAME;
use hickory_proto::rr::rdata::tlsa::{CertUsage, Matching, Selector};
use hickory_proto::rr::rdata::{A, AAAA, MX, SOA, TLSA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType, RrKey};
use hickory_server::dnssec::NxProofKind;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{
    AxfrPolicy, Catalog, DnssecZoneHandler, MessageResponseBuilder, ZoneType,
};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::oneshot;

use crate::Port;

/// Short, so that a test which changes a name need not wait for a cache.
const TTL: u32 = 1;

/// How long signatures hold.
const SIGNED_FOR: Duration = Duration::from_secs(86_400);

/// The server, over UDP and TCP. Dropping it stops it.
pub struct Dns {
    port: Port,
    zone: Arc<InMemoryZoneHandler>,
    /// The same records without signatures.
    bare: Arc<InMemoryZoneHandler>,
    /// The key of the root as a DNSKEY record; `None` when nothing is signed.
    key: Option<String>,
    failing: Arc<Mutex<HashSet<String>>>,
    forged: Arc<Mutex<HashSet<String>>>,
    asked: Arc<Mutex<Vec<String>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    /// Starts an empty server on 127.0.0.1 and a port of its own.
    pub fn start() -> Self {
        Self::with_key(None)
    }

    /// The same, signed as one zone with a key of its own, see [`Dns::trust_anchor`].
    pub fn start_signed() -> Self {
        let pair = Ed25519SigningKey::generate_pkcs8().expect("a key");
        Self::with_key(Some(Ed25519SigningKey::from_pkcs8(&pair).expect("the key")))
    }

    fn with_key(key: Option<Ed25519SigningKey>) -> Self {
        let port = Port::reserve();
        let forged = Arc::new(Mutex::new(HashSet::new()));
        let (mut zone, bare) = (root_zone(), Arc::new(root_zone()));
        let key = key.map(|key| {
            let public = DNSKEY::from_key(&key.to_public_key().expect("a public key"));
            let record = format!(". {TTL} IN DNSKEY {public}\n");
            let signer = DnssecSigner::new(public, Box::new(key), Name::root(), SIGNED_FOR);
            zone.add_zone_signing_key_mut(signer).expect("the key is taken");
            zone.secure_zone_mut().expect("the zone is signed");
            record
        });
        let failing = Arc::new(Mutex::new(HashSet::new()));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let zone = Arc::new(zone);
        let handler = Handler {
            catalog: catalog(&zone),
            bare: catalog(&bare),
            failing: failing.clone(),
            forged: forged.clone(),
            asked: asked.clone(),
        };
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let address = port.address();
        let thread = std::thread::spawn(move || serve(address, handler, stopped, &ready));
        is_ready.recv_timeout(Duration::from_secs(10)).expect("the DNS server has started");
        Self { port, zone, bare, key, failing, forged, asked, stop: Some(stop), thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The DNSKEY record that validation starts from.
    ///
    /// # Panics
    /// When nothing is signed.
    pub fn trust_anchor(&self) -> &str {
        self.key.as_deref().expect("a signed server")
    }

    /// `name A address` or `name AAAA address`.
    pub fn address_of(&self, name: &str, address: IpAddr) -> &Self {
        match address {
            IpAddr::V4(address) => self.a(name, address),
            IpAddr::V6(address) => self.insert(name, RData::AAAA(AAAA(address))),
        }
    }

    /// `_port._tcp.name TLSA 3 1 1 digest`: the SHA-256 digest of the host's public key (RFC 6698).
    pub fn tlsa(&self, name: &str, port: u16, digest: &[u8]) -> &Self {
        let data = TLSA::new(CertUsage::DaneEe, Selector::Spki, Matching::Sha256, digest.to_vec());
        self.insert(&format!("_{port}._tcp.{name}"), RData::TLSA(data))
    }

    /// `_port._tcp.name TLSA usage selector matching data`.
    pub fn tlsa_record(&self, name: &str, port: u16, numbers: [u8; 3], data: &[u8]) -> &Self {
        let [usage, selector, matching] = numbers;
        let data = TLSA::new(usage.into(), selector.into(), matching.into(), data.to_vec());
        self.insert(&format!("_{port}._tcp.{name}"), RData::TLSA(data))
    }

    /// `name TXT text`, in place of what was there.
    pub fn txt(&self, name: &str, text: &str) -> &Self {
        let key = RrKey::new(absolute(name).into(), RecordType::TXT);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            for zone in [&self.zone, &self.bare] {
                zone.records_mut().await.remove(&key);
            }
        });
        self.insert(name, RData::TXT(TXT::new(vec![text.into()])))
    }

    /// Answers about `name` carry no signatures from now on, or do again.
    pub fn set_forged(&self, name: &str, is_forged: bool) -> &Self {
        change(&self.forged, name, is_forged);
        self
    }

    /// The questions about a name and type so far.
    pub fn times_asked(&self, name: &str, of_type: &str) -> usize {
        let question = format!("{name}. {of_type}");
        self.asked.lock().expect("questions").iter().filter(|asked| **asked == question).count()
    }

    /// `name A address`.
    pub fn a(&self, name: &str, address: Ipv4Addr) -> &Self {
        self.insert(name, RData::A(A(address)))
    }

    /// `name A 127.0.0.last`.
    pub fn loopback(&self, name: &str, last: u8) -> &Self {
        self.a(name, Ipv4Addr::new(127, 0, 0, last))
    }

    /// `name MX preference host`; `host` may be `.`, the null MX of RFC 7505.
    pub fn mx(&self, name: &str, preference: u16, host: &str) -> &Self {
        self.insert(name, RData::MX(MX::new(preference, absolute(host))))
    }

    pub fn cname(&self, name: &str, target: &str) -> &Self {
        self.insert(name, RData::CNAME(CNAME(absolute(target))))
    }

    /// The name exists, without address and without MX.
    pub fn exists(&self, name: &str) -> &Self {
        self.insert(name, RData::TXT(TXT::new(vec!["here".into()])))
    }

    /// Questions about `name` get SERVFAIL from now on, or no longer.
    pub fn set_failing(&self, name: &str, fails: bool) -> &Self {
        change(&self.failing, name, fails);
        self
    }

    /// The questions so far, as `name. TYPE` in lower case.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("questions").clone()
    }

    fn insert(&self, name: &str, data: RData) -> &Self {
        let record = Record::from_rdata(absolute(name), TTL, data);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            for zone in [&self.zone, &self.bare] {
                assert!(zone.upsert(record.clone(), 1).await, "a record for {name}");
            }
            if self.key.is_some() {
                self.zone.secure_zone().await.expect("the zone is signed");
            }
        });
        self
    }
}

/// Puts a name into a set, or takes it out.
fn change(names: &Mutex<HashSet<String>>, name: &str, in_it: bool) {
    let name = absolute(name).to_string().to_lowercase();
    let mut names = names.lock().expect("names");
    if in_it {
        names.insert(name)
    } else {
        names.remove(&name)
    };
}

fn catalog(zone: &Arc<InMemoryZoneHandler>) -> Catalog {
    let mut catalog = Catalog::new();
    catalog.upsert(Name::root().into(), vec![zone.clone()]);
    catalog
}

impl Drop for Dns {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn absolute(name: &str) -> Name {
    let mut name = Name::from_str(name).expect("a domain name");
    name.set_fqdn(true);
    name
}

fn root_zone() -> InMemoryZoneHandler {
    let proofs = Some(NxProofKind::Nsec);
    let mut zone = InMemoryZoneHandler::empty(Name::root(), ZoneType::Primary, AxfrPolicy::Deny, proofs);
    let soa = SOA::new(absolute("ns.test"), absolute("hostmaster.test"), 1, 60, 60, 60, TTL);
    zone.upsert_mut(Record::from_rdata(Name::root(), TTL, RData::SOA(soa)), 1);
    zone
}

fn serve(
    address: SocketAddr,
    handler: Handler,
    stopped: oneshot::Receiver<()>,
    ready: &std::sync::mpsc::Sender<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut server = Server::new(handler);
        server.register_socket(UdpSocket::bind(address).await.expect("a UDP socket"));
        let listener = TcpListener::bind(address).await.expect("a TCP listener");
        server.register_listener(listener, Duration::from_secs(5), 4096);
        let _ = ready.send(());
        let _ = stopped.await;
    });
}

struct Handler {
    catalog: Catalog,
    bare: Catalog,
    failing: Arc<Mutex<HashSet<String>>>,
    forged: Arc<Mutex<HashSet<String>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Handler {
    /// The catalog that answers; `None`: the question fails.
    fn answers(&self, request: &Request) -> Option<&Catalog> {
        let Some(query) = request.queries.queries().first() else { return Some(&self.catalog) };
        let name = query.name().to_string().to_lowercase();
        self.asked.lock().expect("questions").push(format!("{name} {}", query.query_type()));
        let is_forged = self.forged.lock().expect("names").contains(&name);
        let fails = self.failing.lock().expect("names").contains(&name);
        (!fails).then_some(if is_forged { &self.bare } else { &self.catalog })
    }
}

impl RequestHandler for Handler {
    // Written out as `async_trait` would, which spares the dependency.
    fn handle_request<'life0, 'life1, 'async_trait, R, T>(
        &'life0 self,
        request: &'life1 Request,
        mut response: R,
    ) -> Pin<Box<dyn Future<Output = ResponseInfo> + Send + 'async_trait>>
    where
        R: ResponseHandler + 'async_trait,
        T: Time + 'async_trait,
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            if let Some(catalog) = self.answers(request) {
                return catalog.handle_request::<R, T>(request, response).await;
            }
            let builder = MessageResponseBuilder::from_message_request(request);
            let answer = builder.error_msg(&request.metadata, ResponseCode::ServFail);
            response.send_response(answer).await.expect("a response is sent")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::run_ok;
    use crate::wait::SOON;
    use std::process::Command;

    /// Asks over UDP with a question that Python's struct puts together: an independent client.
    fn ask(dns: &Dns, name: &str, kind: u16) -> (u8, usize) {
        let script = "\
import socket, struct, sys
host, port, name, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
labels = b''.join(bytes([len(l)]) + l.encode() for l in name.split('.')) + b'\\0'
question = struct.pack('>6H', 7, 0x100, 1, 0, 0, 0) + labels + struct.pack('>2H', kind, 1)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.settimeout(5)
udp.sendto(question, (host, port)); answer = udp.recv(4096)
tcp = socket.create_connection((host, port), 5)
tcp.sendall(struct.pack('>H', len(question)) + question)
again = tcp.recv(4096)[2:]
assert answer[2:8] == again[2:8], (answer, again)
print(answer[3] & 15, struct.unpack('>H', answer[6:8])[0])";
        let address = dns.address();
        let output = run_ok(
            Command::new("python3")
                .args(["-c", script, &address.ip().to_string(), &address.port().to_string()])
                .args([name, &kind.to_string()]),
            SOON,
        );
        let (code, count) = output.trim().split_once(' ').expect("two numbers");
        (code.parse().unwrap(), count.parse().unwrap())
    }

    #[test]
    fn names_answer_are_missing_and_fail() {
        let dns = Dns::start();
        dns.mx("b.test", 10, "mx1.b.test").mx("b.test", 20, "mx2.b.test").loopback("mx1.b.test", 2);
        dns.mx("null.test", 0, ".").exists("bare.test").set_failing("broken.test", true);
        const MX: u16 = 15;
        assert_eq!(ask(&dns, "b.test", MX), (0, 2));
        assert_eq!(ask(&dns, "mx1.b.test", 1), (0, 1));
        assert_eq!(ask(&dns, "null.test", MX), (0, 1));
        assert_eq!(ask(&dns, "bare.test", MX), (0, 0), "exists without data");
        assert_eq!(ask(&dns, "missing.test", MX).0, 3, "NXDOMAIN");
        assert_eq!(ask(&dns, "broken.test", MX).0, 2, "SERVFAIL");
        dns.set_failing("broken.test", false).loopback("broken.test", 3);
        assert_eq!(ask(&dns, "broken.test", 1), (0, 1));
        assert!(dns.asked().contains(&"missing.test. MX".to_owned()));
    }
}
