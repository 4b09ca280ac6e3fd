//! The DNS servers of one `[[resolver]]`, asked one after the other until one gives an answer.
//!
//! Lives on the service thread. Each server has a hickory-resolver of its own, with its cache: inside
//! one hickory-resolver, a server that answers REFUSED or SERVFAIL would speak for all. The server
//! that answered last is asked first, so a dead one costs its time-out once.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::dnssec::TrustAnchors;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::proto::serialize::txt::ParseError;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::authentic::Listening;
use super::lookup::{Missing, MissingReason, classify, host_name};
use super::relevant::{ALIASES_MAX, way};
use crate::config::{Dnssec, Resolver};

/// Look-ups in flight with one resolver. Prevents a run of new domains from flooding the servers.
pub const LOOKUPS_MAX: usize = 256;

/// One try with one server.
pub const TRY_PATIENCE: Duration = Duration::from_millis(2_500);

/// Further tries with the same server after the first, before it is the next one's turn.
pub const RETRIES_MAX: usize = 1;

/// One look-up with all its tries; prevents a question that is never answered.
pub const LOOKUP_PATIENCE: Duration = Duration::from_secs(20);

/// The wait for a place among [`LOOKUPS_MAX`]. Whoever asked would lose patience during the look-up itself.
/// Prevents look-ups for which nobody waits any more from taking the places of those that are wanted.
pub const TURN_PATIENCE: Duration = Duration::from_secs(20);

/// Answers that are kept for each server. Bounds the memory.
pub const CACHE_ANSWERS_MAX: u64 = 8_192;

/// How long an answer may be kept whatever its TTL says, and how long at least: a TTL of 0 must not
/// cost a question per message.
pub const POSITIVE_VALID_MAX: Duration = Duration::from_secs(24 * 3_600);
pub const NEGATIVE_VALID_MAX: Duration = Duration::from_secs(900);
const VALID_MIN: Duration = Duration::from_secs(5);

/// How long a failure to get an answer is kept (RFC 2308 section 7 allows five minutes).
pub(super) const FAILURE_VALID: Duration = Duration::from_secs(10);

/// Records of one type, and how long they hold.
#[derive(Clone)]
pub(super) struct Found {
    pub records: Vec<RData>,
    pub valid_for: Duration,
    /// The records and the aliases that led to them are authentic (DNSSEC).
    pub secure: bool,
    /// The name is an alias, and that it is one is authentic.
    pub alias_secure: bool,
    /// The name at the end of the aliases.
    pub canonical: Option<Name>,
    /// `192.0.2.53:53 (resolver external)`.
    pub said_by: String,
}

/// The servers of one resolver.
pub(super) struct Servers {
    name: String,
    servers: Vec<Server>,
    /// Index of the server to ask first.
    preferred: AtomicUsize,
    permits: Arc<Semaphore>,
}

struct Server {
    address: SocketAddr,
    dns: hickory_resolver::Resolver<Listening>,
}

/// What one server has found.
struct Told {
    records: Vec<RData>,
    valid_for: Duration,
    secure: bool,
    alias_secure: bool,
    canonical: Option<Name>,
}

impl Servers {
    /// # Errors
    /// What hickory-resolver has against a server, or what is wrong with the trust anchors.
    pub fn new(resolver: &Resolver, permits: Arc<Semaphore>, try_patience: Duration) -> Result<Self, String> {
        let anchors = match &resolver.trust_anchors {
            Some(path) => trust_anchors(path).map_err(|sentence| format!("{} {sentence}", path.display()))?,
            None => TrustAnchors::default(),
        };
        let validate = (resolver.dnssec == Dnssec::Validate).then(|| Arc::new(anchors));
        let server = |&address: &SocketAddr| {
            let provider = Listening::new(resolver.dnssec == Dnssec::TrustAd);
            let dns = build(address, provider, validate.clone(), try_patience);
            Ok(Server { address, dns: dns.map_err(|error| error.to_string())? })
        };
        Ok(Self {
            name: resolver.name.clone(),
            servers: resolver.servers.iter().map(server).collect::<Result<_, String>>()?,
            preferred: AtomicUsize::new(0),
            permits,
        })
    }

    /// The records of a name, or why there are none, with what each server that was asked said.
    pub async fn look_up(&self, name: &Name, of_type: RecordType) -> Result<Found, Missing> {
        let _turn = self.turn(name, of_type, TURN_PATIENCE).await?;
        let started = Instant::now();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for place in 0..self.servers.len() {
            let index = (first + place) % self.servers.len();
            let server = &self.servers[index];
            let left = LOOKUP_PATIENCE.saturating_sub(started.elapsed());
            let asked = timeout(left, server.ask(name, of_type)).await;
            let (reason, said, ttl) = match asked.unwrap_or_else(|_| Err(classify(&NetError::Timeout))) {
                Ok(Told { records, valid_for, secure, alias_secure, canonical }) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    let said_by = format!("{} (resolver {})", server.address, self.name);
                    return Ok(Found { records, valid_for, secure, alias_secure, canonical, said_by });
                }
                Err(none) => none,
            };
            let said = format!("{}: {said}", server.address);
            if reason != MissingReason::Failed {
                self.preferred.store(index, Ordering::Relaxed);
                let valid_for = ttl.unwrap_or(VALID_MIN).clamp(VALID_MIN, NEGATIVE_VALID_MAX);
                return Err(Missing { reason, text: self.text(name, of_type, &said), valid_for });
            }
            failures.push(said);
        }
        let text = self.text(name, of_type, &failures.join("; "));
        Err(Missing { reason: MissingReason::Failed, text, valid_for: FAILURE_VALID })
    }

    /// A place among [`LOOKUPS_MAX`], in the order of asking.
    pub async fn turn(
        &self,
        name: &Name,
        of_type: RecordType,
        patience: Duration,
    ) -> Result<SemaphorePermit<'_>, Missing> {
        let Ok(permit) = timeout(patience, self.permits.acquire()).await else {
            let seconds = patience.as_secs();
            let text = format!(
                "looking up {of_type} of {} with resolver {}: no turn within {seconds} seconds, because {LOOKUPS_MAX} other look-ups were under way",
                host_name(name),
                self.name
            );
            return Err(Missing { reason: MissingReason::Failed, text, valid_for: FAILURE_VALID });
        };
        Ok(permit.expect("the semaphore is never closed"))
    }

    fn text(&self, name: &Name, of_type: RecordType, said: &str) -> String {
        format!("looking up {of_type} of {} with resolver {}, server {said}", host_name(name), self.name)
    }
}

impl Server {
    async fn ask(
        &self,
        name: &Name,
        of_type: RecordType,
    ) -> Result<Told, (MissingReason, String, Option<Duration>)> {
        let lookup = self.dns.lookup(name.clone(), of_type).await.map_err(|error| classify(&error))?;
        let is_wanted = |record: &&Record| record.record_type() == of_type;
        let Some(owner) = lookup.answers().iter().find(is_wanted).map(|record| record.name.clone()) else {
            return Err((MissingReason::NoData, "no such record".to_owned(), None));
        };
        let (answers, valid_until) = self.whole_way(name, &owner, &lookup).await?;
        let aliases: Vec<bool> = way(name, &owner, &answers).into_iter().flatten().map(is_secure).collect();
        // Signatures are no part of what is asked; an alias that is not authentic spoils what it leads to.
        let wanted = || answers.iter().filter(is_wanted).filter(|record| record.name == owner);
        let left = valid_until.saturating_duration_since(Instant::now());
        Ok(Told {
            records: wanted().map(|record| record.data.clone()).collect(),
            valid_for: left.clamp(VALID_MIN, POSITIVE_VALID_MAX),
            secure: !aliases.contains(&false) && wanted().all(is_secure),
            alias_secure: aliases.first() == Some(&true),
            canonical: (owner != *name).then_some(owner),
        })
    }

    /// The answer with every alias from the name to the owner of its records. What hickory-resolver has kept of the
    /// owner comes without the aliases that led to it this time; and without them nobody knows whether they are
    /// authentic.
    async fn whole_way(
        &self,
        name: &Name,
        owner: &Name,
        lookup: &Lookup,
    ) -> Result<(Vec<Record>, Instant), (MissingReason, String, Option<Duration>)> {
        let (mut answers, mut valid_until) = (lookup.answers().to_vec(), lookup.valid_until());
        for _ in 0..ALIASES_MAX {
            let Err(end) = way(name, owner, &answers) else { return Ok((answers, valid_until)) };
            let Ok(alias) = self.dns.lookup(end.clone(), RecordType::CNAME).await else { break };
            valid_until = valid_until.min(alias.valid_until());
            answers.extend_from_slice(alias.answers());
        }
        let said = format!("the answer is about {} and does not say why", host_name(owner));
        Err((MissingReason::Failed, said, None))
    }
}

fn is_secure(record: &Record) -> bool {
    record.proof.is_secure()
}

/// Keys that the relay trusts without proof.
///
/// # Errors
/// What is wrong with the file and what is allowed.
pub fn trust_anchors(path: &Path) -> Result<TrustAnchors, String> {
    let allowed = "allowed: a file of DNSKEY records, as in a zone file";
    let wrong = |error: &dyn std::fmt::Display| format!("cannot be used: {error}; {allowed}");
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    // Flags, protocol, algorithm and key follow; the parser lets a record without them pass as none.
    if text.split_whitespace().skip_while(|word| *word != "DNSKEY").nth(4).is_none() {
        return Err(wrong(&"it holds no DNSKEY record"));
    }
    text.parse().map_err(|error: ParseError| wrong(&error))
}

fn build(
    address: SocketAddr,
    provider: Listening,
    validate: Option<Arc<TrustAnchors>>,
    try_patience: Duration,
) -> Result<hickory_resolver::Resolver<Listening>, NetError> {
    let connection = |protocol| {
        let mut connection = ConnectionConfig::new(protocol);
        connection.port = address.port();
        connection
    };
    let connections = vec![connection(ProtocolConfig::Udp), connection(ProtocolConfig::Tcp)];
    let server = NameServerConfig::new(address.ip(), true, connections);
    let config = ResolverConfig::from_name_servers(vec![server]);
    let mut builder = hickory_resolver::Resolver::builder_with_config(config, provider);
    if let Some(anchors) = validate {
        builder = builder.with_trust_anchor(anchors);
    }
    let options = builder.options_mut();
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = try_patience;
    options.attempts = RETRIES_MAX;
    options.cache_size = CACHE_ANSWERS_MAX;
    options.max_active_requests = LOOKUPS_MAX;
    options.positive_max_ttl = Some(POSITIVE_VALID_MAX);
    options.negative_max_ttl = Some(NEGATIVE_VALID_MAX);
    builder.build()
}
