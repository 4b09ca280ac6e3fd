//! The resolvers: one per `[[resolver]]`, each asking its own servers and nobody else (no
//! /etc/resolv.conf, no /etc/hosts).
//!
//! Lives on the service thread, on its tokio runtime; delivery shards put questions to it through
//! channels and cache the answers for as long as [`Answer::valid_for`] says. UDP first, TCP when an
//! answer was truncated. The same question is asked once however many wait for it; look-ups in flight
//! are bounded. A failure says which name, which server and which answer.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, join, join_all};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::sync::Semaphore;

use super::error::{ResolveError, ResolveErrorKind};
use super::lookup::{Missing, MissingReason, host_name, parse_name};
use super::mx::{
    Addresses, Exchange, MailHosts, MxHost, MxRecord, TlsaRecords, exchange, literal, order_addresses,
    order_tlsa,
};
use super::servers::{
    FAILURE_VALID, Found, LOOKUPS_MAX, NEGATIVE_VALID_MAX, POSITIVE_VALID_MAX, Servers, TRY_PATIENCE,
};
use crate::config::Resolver;
use crate::tls::dane::Tlsa;

/// What an address literal is good for.
const LITERAL_VALID: Duration = POSITIVE_VALID_MAX;

/// Hosts of one domain that are looked up side by side. Prevents one domain with many silent names from
/// taking every place.
const HOSTS_AT_ONCE: usize = 2;

/// One question with all its look-ups and the wait for its turn.
const QUESTION_PATIENCE: Duration = Duration::from_secs(40);

/// TXT records of one name that are looked at.
const TXT_RECORDS_MAX: usize = 32;

/// Octets that are told of a name that is none.
const BAD_NAME_BYTES_MAX: usize = 256;

/// The answer to a question, and how long it may be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    pub result: Result<T, ResolveError>,
    pub valid_for: Duration,
}

type UnderWay<T> = Mutex<HashMap<String, Shared<Pin<Box<dyn Future<Output = Answer<T>> + Send>>>>>;

/// All resolvers of the configuration.
pub struct Resolvers {
    resolvers: Vec<Arc<OneResolver>>,
}

struct OneResolver {
    servers: Servers,
    /// Makes the order of equal MX hosts differ from one answer to the next.
    seed: AtomicU64,
    mx_under_way: UnderWay<MailHosts>,
    addresses_under_way: UnderWay<Addresses>,
    tlsa_under_way: UnderWay<TlsaRecords>,
    /// Of one name and type each: many domains have the same hosts.
    lookups_under_way: Mutex<HashMap<LookupKey, SharedLookup>>,
}

type LookupKey = (Name, RecordType);
type SharedLookup = Shared<BoxFuture<'static, Result<Found, Missing>>>;

impl Resolvers {
    /// Opens nothing yet. `seed` is any number that differs from start to start.
    ///
    /// # Errors
    /// What hickory-resolver has against it, with the resolver's name.
    pub fn new(resolvers: &[Resolver], seed: u64) -> Result<Self, String> {
        Self::with_patience(resolvers, seed, TRY_PATIENCE)
    }

    pub(super) fn with_patience(
        resolvers: &[Resolver],
        seed: u64,
        try_patience: Duration,
    ) -> Result<Self, String> {
        let one = |resolver: &Resolver| {
            let servers = Servers::new(resolver, Arc::new(Semaphore::new(LOOKUPS_MAX)), try_patience)
                .map_err(|error| format!("resolver {}: {error}", resolver.name))?;
            Ok(Arc::new(OneResolver {
                servers,
                seed: AtomicU64::new(seed),
                mx_under_way: UnderWay::default(),
                addresses_under_way: UnderWay::default(),
                tlsa_under_way: UnderWay::default(),
                lookups_under_way: Mutex::default(),
            }))
        };
        Ok(Self { resolvers: resolvers.iter().map(one).collect::<Result<_, String>>()? })
    }

    /// The hosts that take mail for a domain (RFC 5321 section 5.1), in the order of an attempt, each
    /// with its addresses or why it has none. `resolver` is an index into the configuration's resolvers.
    pub async fn mx(&self, resolver: usize, domain: &str) -> Answer<MailHosts> {
        let one = Arc::clone(&self.resolvers[resolver]);
        let domain = domain.to_ascii_lowercase();
        let find = patiently(domain.clone(), Arc::clone(&one).find_mx(domain.clone()));
        ask_once(&one.mx_under_way, domain, find).await
    }

    /// The addresses of a host name; an address or an address literal is its own answer.
    pub async fn addresses(&self, resolver: usize, host: &str) -> Answer<Addresses> {
        let one = Arc::clone(&self.resolvers[resolver]);
        let host = host.to_ascii_lowercase();
        let find = patiently(host.clone(), Arc::clone(&one).find_addresses(host.clone()));
        ask_once(&one.addresses_under_way, host, find).await
    }

    /// The TXT records of a name, each with its strings joined. That there are none is an answer.
    pub async fn txt(&self, resolver: usize, name: &str) -> Answer<Vec<String>> {
        let one = Arc::clone(&self.resolvers[resolver]);
        let name = name.to_ascii_lowercase();
        patiently(name.clone(), one.find_txt(name)).await
    }

    #[cfg(test)]
    pub(super) fn lookups_under_way(&self) -> usize {
        self.resolvers.iter().map(|one| one.under_way().len()).sum()
    }

    /// The TLSA records of a port of a host (RFC 6698 section 3). That there are none is an answer, not an
    /// error: an error leaves open what the host demands (RFC 7672 section 2.1.2).
    pub async fn tlsa(&self, resolver: usize, host: &str, port: u16) -> Answer<TlsaRecords> {
        let one = Arc::clone(&self.resolvers[resolver]);
        let name = format!("_{port}._tcp.{}", host.to_ascii_lowercase());
        let find = patiently(name.clone(), Arc::clone(&one).find_tlsa(name.clone()));
        ask_once(&one.tlsa_under_way, name, find).await
    }
}

/// Joins a question that is under way, or puts it under way.
async fn ask_once<T: Clone>(
    under_way: &UnderWay<T>,
    key: String,
    find: impl Future<Output = Answer<T>> + Send + 'static,
) -> Answer<T> {
    let lock = || under_way.lock().unwrap_or_else(PoisonError::into_inner);
    let shared = lock().entry(key.clone()).or_insert_with(|| find.boxed().shared()).clone();
    let answer = shared.clone().await;
    let mut under_way = lock();
    if under_way.get(&key).is_some_and(|other| other.ptr_eq(&shared)) {
        under_way.remove(&key);
    }
    answer
}

impl OneResolver {
    /// Joins a look-up that is under way, or puts it under way: as a task of its own, so that it goes on when
    /// whoever asked first has lost patience.
    async fn look_up(self: &Arc<Self>, name: &Name, of_type: RecordType) -> Result<Found, Missing> {
        let key = (name.clone(), of_type);
        let begin = || {
            let (one, asked) = (Arc::clone(self), key.clone());
            let task = tokio::spawn(async move { one.servers.look_up(&asked.0, asked.1).await });
            let (one, asked) = (Arc::clone(self), key.clone());
            let ended = tokio::spawn(async move {
                let found = task.await;
                one.under_way().remove(&asked);
                found.unwrap_or_else(|_| Err(interrupted(&asked.0)))
            });
            let name = key.0.clone();
            async move { ended.await.unwrap_or_else(|_| Err(interrupted(&name))) }.boxed().shared()
        };
        let shared = self.under_way().entry(key.clone()).or_insert_with(begin).clone();
        shared.await
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<LookupKey, SharedLookup>> {
        self.lookups_under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn find_mx(self: Arc<Self>, domain: String) -> Answer<MailHosts> {
        match literal(&domain) {
            Some(Ok(address)) => return implicit(&address.to_string(), literal_answer(address)),
            Some(Err(_)) => return bad_name(&domain),
            None => {}
        }
        let Some(name) = parse_name(&domain) else { return bad_name(&domain) };
        match self.look_up(&name, RecordType::MX).await {
            Ok(found) => {
                let records = found.records.iter().filter_map(mx_record).collect();
                let canonical = found.canonical.as_ref().map(host_name);
                match exchange(records, self.seed.fetch_add(1, Ordering::Relaxed)) {
                    Exchange::Hosts(records) => {
                        let Answer { result: hosts, valid_for } =
                            self.find_hosts(records, found.valid_for).await;
                        let whole = |hosts| MailHosts { hosts, secure: found.secure, canonical };
                        Answer { result: hosts.map(whole), valid_for }
                    }
                    Exchange::Implicit => implicit(&domain, self.find_addresses_of(&name).await),
                    Exchange::Null => null_mx(&domain, &found.said_by, found.valid_for),
                }
            }
            Err(missing) if missing.reason == MissingReason::NoData => {
                implicit(&domain, self.find_addresses_of(&name).await)
            }
            Err(missing) => failed(missing),
        }
    }

    /// The addresses of all hosts of a domain, in the order of preference.
    async fn find_hosts(self: &Arc<Self>, records: Vec<MxRecord>, valid: Duration) -> Answer<Vec<MxHost>> {
        let mut answers = Vec::with_capacity(records.len());
        for some in records.chunks(HOSTS_AT_ONCE) {
            let found = some.iter().map(|record| self.find_exchange(&record.name));
            answers.extend(join_all(found).await);
        }
        let valid_for = answers.iter().map(|answer| answer.valid_for).fold(valid, Duration::min);
        let host = |(record, answer): (MxRecord, Answer<Addresses>)| MxHost {
            name: record.name,
            preference: record.preference,
            found: answer.result,
        };
        Answer { result: Ok(records.into_iter().zip(answers).map(host).collect()), valid_for }
    }

    /// An MX record names a host; an address in its place is a slip of the zone's owner (RFC 2181 section
    /// 10.3) and is said so instead of asking for a name that cannot exist.
    async fn find_exchange(self: &Arc<Self>, name: &str) -> Answer<Addresses> {
        if name.parse::<IpAddr>().is_ok() || name.starts_with('[') {
            let text = format!("the MX record names the address {name} where a host name must stand");
            let error = ResolveError { kind: ResolveErrorKind::BadName, text };
            return Answer { result: Err(error), valid_for: NEGATIVE_VALID_MAX };
        }
        self.find_addresses_by_name(name).await
    }

    async fn find_addresses(self: Arc<Self>, host: String) -> Answer<Addresses> {
        match (host.parse(), literal(&host)) {
            (Ok(address), _) | (_, Some(Ok(address))) => literal_answer(address),
            _ => self.find_addresses_by_name(&host).await,
        }
    }

    async fn find_addresses_by_name(self: &Arc<Self>, host: &str) -> Answer<Addresses> {
        match parse_name(host) {
            Some(name) => self.find_addresses_of(&name).await,
            None => bad_name(host),
        }
    }

    /// A and AAAA side by side. One of them is enough; none of both is as good as the better reason.
    async fn find_addresses_of(self: &Arc<Self>, name: &Name) -> Answer<Addresses> {
        let both = join(self.look_up(name, RecordType::A), self.look_up(name, RecordType::AAAA)).await;
        match both {
            (Ok(four), Ok(six)) => {
                let valid_for = four.valid_for.min(six.valid_for);
                found_addresses(&[&four, &six], valid_for)
            }
            (Ok(one), Err(other)) | (Err(other), Ok(one)) => {
                found_addresses(&[&one], one.valid_for.min(other.valid_for))
            }
            (Err(four), Err(six)) => {
                let valid_for = four.valid_for.min(six.valid_for);
                let worse = if four.reason >= six.reason { four } else { six };
                failed(Missing { valid_for, ..worse })
            }
        }
    }

    async fn find_txt(self: Arc<Self>, name: String) -> Answer<Vec<String>> {
        let Some(name) = parse_name(&name) else { return bad_name(&name) };
        match self.look_up(&name, RecordType::TXT).await {
            Ok(found) => {
                let records = found.records.iter().filter_map(txt_record).take(TXT_RECORDS_MAX).collect();
                Answer { result: Ok(records), valid_for: found.valid_for }
            }
            Err(missing) if missing.reason == MissingReason::Failed => failed(missing),
            Err(missing) => Answer { result: Ok(Vec::new()), valid_for: missing.valid_for },
        }
    }

    async fn find_tlsa(self: Arc<Self>, name: String) -> Answer<TlsaRecords> {
        let Some(name) = parse_name(&name) else { return bad_name(&name) };
        match self.look_up(&name, RecordType::TLSA).await {
            Ok(found) => {
                let records = order_tlsa(found.records.iter().filter_map(tlsa_record).collect());
                Answer {
                    result: Ok(TlsaRecords { records, secure: found.secure }),
                    valid_for: found.valid_for,
                }
            }
            Err(missing) if missing.reason == MissingReason::Failed => failed(missing),
            Err(missing) => Answer {
                result: Ok(TlsaRecords { records: vec![], secure: false }),
                valid_for: missing.valid_for,
            },
        }
    }
}

/// An answer within [`QUESTION_PATIENCE`], the wait for a turn included.
async fn patiently<T>(name: String, find: impl Future<Output = Answer<T>>) -> Answer<T> {
    tokio::time::timeout(QUESTION_PATIENCE, find).await.unwrap_or_else(|_| {
        let seconds = QUESTION_PATIENCE.as_secs();
        let text = format!("looking up {name}: no answer within {seconds} seconds");
        let error = ResolveError { kind: ResolveErrorKind::Temporary, text };
        Answer { result: Err(error), valid_for: FAILURE_VALID }
    })
}

fn interrupted(name: &Name) -> Missing {
    let text = format!("looking up {}: interrupted by an internal fault", host_name(name));
    Missing { reason: MissingReason::Failed, text, valid_for: FAILURE_VALID }
}

fn bad_name<T>(name: &str) -> Answer<T> {
    let shown = &name[..name.floor_char_boundary(BAD_NAME_BYTES_MAX)];
    let more = if shown.len() < name.len() { "... " } else { "" };
    let text = format!(
        "{}{more} is not a domain that can be looked up: labels have 1 to 63 octets, names at most 253",
        shown.escape_debug()
    );
    let error = ResolveError { kind: ResolveErrorKind::BadName, text };
    Answer { result: Err(error), valid_for: NEGATIVE_VALID_MAX }
}

fn null_mx<T>(domain: &str, said_by: &str, valid_for: Duration) -> Answer<T> {
    let text = format!("{domain} takes no mail: its MX record is the null MX, says {said_by}");
    Answer { result: Err(ResolveError { kind: ResolveErrorKind::NullMx, text }), valid_for }
}

fn mx_record(record: &RData) -> Option<MxRecord> {
    match record {
        RData::MX(mx) => Some(MxRecord { preference: mx.preference, name: host_name(&mx.exchange) }),
        _ => None,
    }
}

fn tlsa_record(record: &RData) -> Option<Tlsa> {
    match record {
        RData::TLSA(tlsa) => Some(Tlsa {
            usage: tlsa.cert_usage.into(),
            selector: tlsa.selector.into(),
            matching: tlsa.matching.into(),
            data: tlsa.cert_data.clone(),
        }),
        _ => None,
    }
}

/// Its strings joined; what is no UTF-8 is no record that the relay asks for.
fn txt_record(record: &RData) -> Option<String> {
    match record {
        RData::TXT(txt) => String::from_utf8(txt.txt_data.concat()).ok(),
        _ => None,
    }
}

fn found_addresses(families: &[&Found], valid_for: Duration) -> Answer<Addresses> {
    let address = |record: &RData| match record {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    let all = families.iter().flat_map(|found| found.records.iter().filter_map(address));
    // An authentic alias that leads out of the signed tree: the name before it still counts (RFC 7672 section
    // 2.2.2), and the one behind it does not.
    let secure = families.iter().all(|found| found.secure);
    let leads_out = !secure && families.iter().all(|found| found.alias_secure);
    let canonical = families.iter().find_map(|found| found.canonical.as_ref());
    let addresses = Addresses {
        list: order_addresses(all.collect()),
        secure: secure || leads_out,
        canonical: canonical.filter(|_| !leads_out).map(host_name),
    };
    Answer { result: Ok(addresses), valid_for }
}

fn literal_answer(address: IpAddr) -> Answer<Addresses> {
    let addresses = Addresses { list: vec![address], secure: false, canonical: None };
    Answer { result: Ok(addresses), valid_for: LITERAL_VALID }
}

/// A name that is its own and only host.
fn implicit(name: &str, answer: Answer<Addresses>) -> Answer<MailHosts> {
    let hosts = |found: Addresses| MailHosts {
        secure: found.secure,
        hosts: vec![MxHost { name: name.to_owned(), preference: 0, found: Ok(found) }],
        canonical: None,
    };
    Answer { result: answer.result.map(hosts), valid_for: answer.valid_for }
}

fn failed<T>(missing: Missing) -> Answer<T> {
    let kind = match missing.reason {
        MissingReason::NoData => ResolveErrorKind::NoAddress,
        MissingReason::NoName => ResolveErrorKind::NoDomain,
        MissingReason::Failed => ResolveErrorKind::Temporary,
    };
    Answer { result: Err(ResolveError { kind, text: missing.text }), valid_for: missing.valid_for }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::proto::rr::rdata::A;

    #[test]
    fn an_alias_out_of_the_signed_tree_leaves_the_name_before_it() {
        let found = |secure, alias_secure| Found {
            records: vec![RData::A(A::new(192, 0, 2, 1))],
            valid_for: Duration::from_secs(60),
            secure,
            alias_secure,
            canonical: parse_name("behind.test"),
            said_by: String::new(),
        };
        for (families, secure, canonical) in [
            (vec![found(true, true)], true, Some("behind.test")),
            (vec![found(false, true)], true, None),
            (vec![found(false, false)], false, Some("behind.test")),
            (vec![found(true, true), found(false, true)], true, None),
            (vec![found(false, true), found(false, false)], false, Some("behind.test")),
        ] {
            let families: Vec<&Found> = families.iter().collect();
            let addresses = found_addresses(&families, Duration::ZERO).result.expect("addresses");
            assert_eq!((addresses.secure, addresses.canonical.as_deref()), (secure, canonical));
        }
    }
}
