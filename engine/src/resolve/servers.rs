//! The DNS servers of one `[[resolver]]`, asked one after the other until one gives an answer.
//!
//! Lives on the service thread. Each server has a hickory-resolver of its own, with its cache: inside
//! one hickory-resolver, a server that answers REFUSED or SERVFAIL would speak for all. The server
//! that answered last is asked first, so a dead one costs its time-out once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::lookup::{Missing, MissingReason, classify, host_name};
use crate::config::Resolver;

/// Look-ups in flight with one resolver. Prevents a run of new domains from flooding the servers.
pub const LOOKUPS_MAX: usize = 256;

/// One try with one server.
pub const TRY_PATIENCE: Duration = Duration::from_millis(2_500);

/// Further tries with the same server after the first, before it is the next one's turn.
pub const RETRIES_MAX: usize = 1;

/// One look-up with all its tries; prevents a question that is never answered.
pub const LOOKUP_PATIENCE: Duration = Duration::from_secs(20);

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
pub(super) struct Found {
    pub records: Vec<RData>,
    pub valid_for: Duration,
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
    dns: TokioResolver,
}

impl Servers {
    /// # Errors
    /// What hickory-resolver has against a server.
    pub fn new(
        resolver: &Resolver,
        permits: Arc<Semaphore>,
        try_patience: Duration,
    ) -> Result<Self, NetError> {
        let server = |&address: &SocketAddr| Ok(Server { address, dns: build(address, try_patience)? });
        Ok(Self {
            name: resolver.name.clone(),
            servers: resolver.servers.iter().map(server).collect::<Result<_, NetError>>()?,
            preferred: AtomicUsize::new(0),
            permits,
        })
    }

    /// The records of a name, or why there are none, with what each server that was asked said.
    pub async fn look_up(&self, name: &Name, of_type: RecordType) -> Result<Found, Missing> {
        let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
        let started = Instant::now();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for place in 0..self.servers.len() {
            let index = (first + place) % self.servers.len();
            let server = &self.servers[index];
            let left = LOOKUP_PATIENCE.saturating_sub(started.elapsed());
            let asked = timeout(left, server.ask(name, of_type)).await;
            let (reason, said, ttl) = match asked.unwrap_or_else(|_| Err(classify(&NetError::Timeout))) {
                Ok((records, valid_for)) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    let said_by = format!("{} (resolver {})", server.address, self.name);
                    return Ok(Found { records, valid_for, said_by });
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

    fn text(&self, name: &Name, of_type: RecordType, said: &str) -> String {
        format!("looking up {of_type} of {} with resolver {}, server {said}", host_name(name), self.name)
    }
}

impl Server {
    async fn ask(
        &self,
        name: &Name,
        of_type: RecordType,
    ) -> Result<(Vec<RData>, Duration), (MissingReason, String, Option<Duration>)> {
        let lookup = self.dns.lookup(name.clone(), of_type).await.map_err(|error| classify(&error))?;
        let wanted = lookup.answers().iter().filter(|record| record.record_type() == of_type);
        let records: Vec<RData> = wanted.map(|record| record.data.clone()).collect();
        if records.is_empty() {
            return Err((MissingReason::NoData, "no such record".to_owned(), None));
        }
        let left = lookup.valid_until().saturating_duration_since(Instant::now());
        Ok((records, left.clamp(VALID_MIN, POSITIVE_VALID_MAX)))
    }
}

fn build(address: SocketAddr, try_patience: Duration) -> Result<TokioResolver, NetError> {
    let connection = |protocol| {
        let mut connection = ConnectionConfig::new(protocol);
        connection.port = address.port();
        connection
    };
    let connections = vec![connection(ProtocolConfig::Udp), connection(ProtocolConfig::Tcp)];
    let server = NameServerConfig::new(address.ip(), true, connections);
    let config = ResolverConfig::from_name_servers(vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
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
