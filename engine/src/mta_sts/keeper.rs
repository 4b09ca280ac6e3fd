//! Fetches the policies of domains and keeps them (RFC 8461 sections 3.3 and 5).
//!
//! Lives on the service thread. Delivery shards ask; what they get is valid for as long as the TXT record is.
//! A policy that is announced and cannot be fetched leaves the one that was fetched before in force until it
//! expires; without one, mail goes as if none were announced. A fetch that failed is not repeated for five
//! minutes. One that did not even begin, because all places were taken, has failed at nothing: it is no answer, and
//! not remembered as one. The cache is the file `mta-sts.json` in the spool's directory, written whole beside the
//! old one and put in its place by a rename.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::sync::{Notify, Semaphore};

use super::cache::{Cache, Decoded, Entry, FILE_OCTETS_MAX};
use super::policy::{Policy, record_id};
use super::{Found, Trouble, TroubleKind};
use crate::clock::wall_micros;
use crate::config::{Config, Target};
use crate::https::{self, NoAnswer};
use crate::observe::log;
use crate::resolve::error::{ResolveError, ResolveErrorKind};
use crate::resolve::service::{Answer, Resolvers};

/// The file in the spool's directory.
pub const FILE: &str = "mta-sts.json";
/// After a fetch that failed (RFC 8461 section 3.3).
const FETCH_AGAIN: Duration = Duration::from_secs(300);
/// How long a delivery shard keeps an answer at most.
const VALID_MAX: Duration = Duration::from_secs(3_600);
/// Fetches at a time. Prevents a run of new domains from taking all descriptors.
const FETCHES_MAX: usize = 32;
/// Domains whose last fetch failed; past it the oldest are forgotten.
const FAILED_MAX: usize = 10_000;
/// Of them, those of policies that are old. Leaves places to mail that waits.
const REFRESHES_MAX: usize = 8;
const _: () = assert!(REFRESHES_MAX < FETCHES_MAX);
/// The file is written so long after the first change.
const WRITE_WAIT: Duration = Duration::from_millis(200);
/// And so long after it was written last. Prevents domains that change their policy with every message from having
/// the whole file written each time.
const WRITE_PAUSE: Duration = Duration::from_secs(5);
/// How often old policies are looked for.
const REFRESH_LOOK: Duration = Duration::from_secs(600);

/// Everything about policies.
pub struct Keeper {
    config: Arc<Config>,
    resolvers: Arc<Resolvers>,
    tls: Arc<rustls::ClientConfig>,
    path: PathBuf,
    state: Mutex<State>,
    changed: Notify,
    fetches: Semaphore,
}

#[derive(Default)]
struct State {
    cache: Cache,
    /// Until when a domain is not asked again, seconds since 1970, and why.
    failed: HashMap<String, (u64, Trouble)>,
}

/// Why a fetch gave no policy.
#[derive(Debug)]
enum NotFetched {
    /// Remembered for a while.
    Failed(Trouble),
    /// No place was free in time; nobody was asked.
    Busy,
}

fn now() -> u64 {
    wall_micros() / 1_000_000
}

impl Keeper {
    /// `None` where no route asks for policies. Reads the file, and begins to write and refresh.
    ///
    /// # Errors
    /// What is wrong with the authorities.
    pub fn start(config: &Arc<Config>, resolvers: &Arc<Resolvers>) -> Result<Option<Arc<Self>>, String> {
        let asks = |route: &crate::config::Route| route.tls.mta_sts && route.tls.rule.can_be_raised();
        let Some(authorities) =
            config.mta_sts.authorities.as_deref().filter(|_| config.routes.iter().any(asks))
        else {
            return Ok(None);
        };
        let tls = crate::tls::client(authorities)?;
        let path = config.spool.path.join(FILE);
        let state = State { cache: read(&path), ..State::default() };
        let keeper = Arc::new(Self {
            config: config.clone(),
            resolvers: resolvers.clone(),
            tls,
            path,
            state: Mutex::new(state),
            changed: Notify::new(),
            fetches: Semaphore::new(FETCHES_MAX),
        });
        tokio::spawn(keeper.clone().write_changes());
        tokio::spawn(keeper.clone().refresh_old());
        Ok(Some(keeper))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a domain demands of its senders, by the resolver of this route.
    pub async fn find(self: &Arc<Self>, route: usize, domain: &str) -> Answer<Found> {
        let domain = domain.to_ascii_lowercase();
        let resolver = self.resolver_of(route);
        let announced = self.resolvers.txt(resolver, &format!("_mta-sts.{domain}")).await;
        let id = announced.result.ok().and_then(|records| record_id(records.iter().map(String::as_str)));
        let kept = self.state().cache.get(&domain, now()).cloned();
        let mut valid_for = announced.valid_for.min(VALID_MAX);
        let (kept, trouble) = match id {
            // Neither a record that is gone nor a look-up that fails ends a policy (section 3.3).
            None => (kept, None),
            Some(id) if kept.as_ref().is_some_and(|kept| kept.id == id) => (kept, None),
            Some(id) => match self.fetch_unless_failed(route, &domain, id).await {
                Ok(entry) => (Some(entry), None),
                Err(NotFetched::Failed(trouble)) => (kept, Some(trouble)),
                Err(NotFetched::Busy) if kept.is_none() => return busy(&domain),
                Err(NotFetched::Busy) => {
                    valid_for = Duration::ZERO;
                    (kept, None)
                }
            },
        };
        if trouble.is_some() {
            valid_for = valid_for.min(FETCH_AGAIN);
        }
        if let Some(kept) = &kept {
            valid_for = valid_for.min(Duration::from_secs(kept.expires().saturating_sub(now())));
        }
        Answer { result: Ok(Found { policy: kept.map(|kept| kept.policy), trouble }), valid_for }
    }

    fn resolver_of(&self, route: usize) -> usize {
        self.config.routes.get(route).and_then(|route| route.resolver).unwrap_or(0)
    }

    /// Why a domain is not asked again yet.
    fn failed(&self, domain: &str) -> Result<(), NotFetched> {
        match self.state().failed.get(domain) {
            Some((until, trouble)) if *until > now() => Err(NotFetched::Failed(trouble.clone())),
            _ => Ok(()),
        }
    }

    async fn fetch_unless_failed(&self, route: usize, domain: &str, id: String) -> Result<Entry, NotFetched> {
        self.failed(domain)?;
        self.fetch(route, domain, id).await
    }

    /// Fetches a policy and keeps it, or keeps why that failed. All of it within the time-out, of which the wait for
    /// a place takes half at most, so that a host that is asked has time to answer.
    async fn fetch(&self, route: usize, domain: &str, id: String) -> Result<Entry, NotFetched> {
        let (begun, asked, whole) = (Instant::now(), now(), self.config.mta_sts.timeout);
        let Ok(place) = tokio::time::timeout(whole / 2, self.fetches.acquire()).await else {
            let text = "its fetch waits: all places are taken";
            log::note("service", &format!("warning: MTA-STS policy of {domain}, id {id}: {text}"));
            return Err(NotFetched::Busy);
        };
        let _place = place.expect("the semaphore is never closed");
        // Somebody else may have asked meanwhile.
        let kept = self.state().cache.peek(domain, now()).cloned();
        if let Some(kept) = kept.filter(|kept| kept.id == id && kept.fetched >= asked) {
            return Ok(kept);
        }
        self.failed(domain)?;
        let within = whole.saturating_sub(begun.elapsed());
        let fetched = tokio::time::timeout(within, self.request(route, domain)).await;
        let fetched = fetched.unwrap_or_else(|_| {
            let text = format!("no policy within {} seconds", whole.as_secs());
            Err(Trouble { kind: TroubleKind::Fetch, text })
        });
        let mut state = self.state();
        match fetched {
            Ok(policy) => {
                let lines = policy.lines().collect::<Vec<_>>().join(", ");
                log::note("service", &format!("MTA-STS policy of {domain}, id {id}: {lines}"));
                let entry = Entry { id, policy: Arc::new(policy), fetched: now() };
                state.failed.remove(domain);
                state.cache.put(domain, entry.clone(), now());
                self.changed.notify_one();
                Ok(entry)
            }
            Err(trouble) => {
                let text = &trouble.text;
                log::note("service", &format!("warning: MTA-STS policy of {domain}, id {id}: {text}"));
                if state.failed.len() >= FAILED_MAX {
                    let now = now();
                    state.failed.retain(|_, (until, _)| *until > now);
                    if state.failed.len() >= FAILED_MAX {
                        state.failed.clear();
                    }
                }
                state.failed.insert(domain.to_owned(), (now() + FETCH_AGAIN.as_secs(), trouble.clone()));
                Err(NotFetched::Failed(trouble))
            }
        }
    }

    /// Section 3.3: from the host `mta-sts.DOMAIN`, with a certificate for that name, without redirects.
    async fn request(&self, route: usize, domain: &str) -> Result<Policy, Trouble> {
        let trouble = |kind, text: String| Trouble { kind, text };
        let fetch = |text| trouble(TroubleKind::Fetch, text);
        let host = format!("mta-sts.{domain}");
        let found = self.resolvers.addresses(self.resolver_of(route), &host).await;
        let found = found.result.map_err(|error| fetch(error.text))?.list;
        let private = self.config.routes.get(route).is_some_and(|route| route.private_addresses);
        let addresses = https::admitted(&self.config.next_hops, (Some(domain), &host), found, private);
        let addresses = addresses.map_err(fetch)?;
        let port = self.config.mta_sts.port;
        let authority = if port == 443 { host.clone() } else { format!("{host}:{port}") };
        let request = hyper::Request::get("/.well-known/mta-sts.txt")
            .header("host", authority)
            .header("user-agent", concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .header("accept", "text/plain")
            .body(Full::new(Bytes::new()))
            .map_err(|error| fetch(error.to_string()))?;
        let answer = https::ask(&host, (&addresses, port), &self.tls, request).await;
        let answer = answer.map_err(|error| match error {
            NoAnswer::Certificate(text) => trouble(TroubleKind::Certificate, text),
            NoAnswer::Connect(text) | NoAnswer::Http(text) => fetch(text),
        })?;
        if answer.code != 200 {
            return Err(fetch(format!("{host} answered with code {}", answer.code)));
        }
        if answer.media_type != "text/plain" {
            return Err(fetch(format!("{host} answered with {:?}, not text/plain", answer.media_type)));
        }
        Policy::parse(&answer.body).map_err(|fault| trouble(TroubleKind::Invalid, fault.to_string()))
    }

    /// As long as the relay runs.
    async fn write_changes(self: Arc<Self>) {
        let mut last: Option<Instant> = None;
        loop {
            self.changed.notified().await;
            tokio::time::sleep(write_wait(last.map(|last| last.elapsed()))).await;
            last = Some(Instant::now());
            let (octets, path) = (self.state().cache.encode(), self.path.clone());
            let written = tokio::task::spawn_blocking(move || write_whole(&path, &octets)).await;
            if let Ok(Err(error)) = written {
                log::note("service", &format!("warning: {}: {error}", self.path.display()));
            }
        }
    }

    /// As long as the relay runs: before policies expire, a few at a time.
    async fn refresh_old(self: Arc<Self>) {
        loop {
            tokio::time::sleep(REFRESH_LOOK).await;
            let old = self.state().cache.to_refresh(now());
            let refresh = |domain: String| {
                let keeper = self.clone();
                async move { keeper.refresh(&domain).await }
            };
            stream::iter(old).for_each_concurrent(REFRESHES_MAX, refresh).await;
        }
    }

    async fn refresh(&self, domain: &str) {
        let Some(route) = self.config.route_for(domain) else { return };
        if !matches!(self.config.routes[route].target, Target::Mx { .. }) {
            return;
        }
        let record = self.resolvers.txt(self.resolver_of(route), &format!("_mta-sts.{domain}")).await;
        let id = record.result.ok().and_then(|found| record_id(found.iter().map(String::as_str)));
        if let Some(id) = id {
            // Why it fails is in the log; the policy stays until it expires.
            let _ = self.fetch_unless_failed(route, domain, id).await;
        }
    }
}

/// That a domain demands nothing must not be said of one that was not asked; nor is it remembered.
fn busy(domain: &str) -> Answer<Found> {
    let text = format!("the MTA-STS policy of {domain} is not known: its fetch waits for others");
    Answer {
        result: Err(ResolveError { kind: ResolveErrorKind::Temporary, text }),
        valid_for: Duration::ZERO,
    }
}

/// How long after a change the file is written, when it was written so long ago.
fn write_wait(since_last: Option<Duration>) -> Duration {
    since_last.map_or(WRITE_WAIT, |since| WRITE_PAUSE.saturating_sub(since).max(WRITE_WAIT))
}

/// A file that cannot be used is said so and counts as none: policies are fetched again.
fn read(path: &Path) -> Cache {
    let mut octets = Vec::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(FILE_OCTETS_MAX + 1).read_to_end(&mut octets))
        .map_err(|error| (error.kind() == std::io::ErrorKind::NotFound, error.to_string()));
    let decoded = match read {
        Err((true, _)) => return Cache::default(),
        Err((false, error)) => Err(error),
        Ok(len) if len as u64 > FILE_OCTETS_MAX => Err("it is too long".to_owned()),
        Ok(_) => Cache::decode(&octets, now()),
    };
    let path = path.display();
    match decoded {
        Ok(Decoded { cache, bad }) => {
            if bad > 0 {
                let text = format!("warning: {path}: {bad} policies cannot be read; they are fetched again");
                log::note("service", &text);
            }
            cache
        }
        Err(error) => {
            log::note("service", &format!("warning: {path}: {error}; the policies are fetched again"));
            Cache::default()
        }
    }
}

/// Either the old file or the new one is there, whatever happens.
pub fn write_whole(path: &Path, octets: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(octets)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    match path.parent() {
        Some(directory) => std::fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTHORITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/tests/tls/certificate.pem");

    fn keeper() -> Keeper {
        let text = format!(
            "hostname = \"relay.test\"\n[mta_sts]\nauthorities = \"{AUTHORITY}\"\n[[listener]]\n\
             name = \"inside\"\nbind = [\"127.0.0.1:25\"]\nclients = [\"127.0.0.0/8\"]\nrelay = \"any\"\n\
             [[route]]\ndomains = [\"*\"]\nmx = true\nresolver = \"external\"\n[[resolver]]\n\
             name = \"external\"\nservers = [\"192.0.2.53\"]"
        );
        let mut config = Config::parse(&text, "f").map_err(|error| error.to_string()).expect("settings");
        config.mta_sts.timeout = Duration::from_millis(200);
        let resolvers = Resolvers::new(&config.resolvers, 1).expect("resolvers");
        Keeper {
            config: Arc::new(config),
            resolvers: Arc::new(resolvers),
            tls: crate::tls::client(Path::new(AUTHORITY)).expect("authorities"),
            path: PathBuf::new(),
            state: Mutex::default(),
            changed: Notify::new(),
            fetches: Semaphore::new(FETCHES_MAX),
        }
    }

    #[tokio::test]
    async fn a_fetch_without_a_place_is_no_answer_and_not_remembered() {
        let keeper = keeper();
        let places = keeper.fetches.acquire_many(FETCHES_MAX as u32).await.expect("places");
        let fetched = keeper.fetch_unless_failed(0, "a.test", "1".into()).await;
        assert!(matches!(fetched, Err(NotFetched::Busy)), "{fetched:?}");
        assert!(keeper.state().failed.is_empty());
        let answer = busy("a.test");
        assert!(answer.result.is_err() && answer.valid_for.is_zero(), "{answer:?}");
        // Who waits takes what somebody else has fetched meanwhile, and asks nobody.
        let other = async {
            let policy = Policy::parse(b"version: STSv1\nmode: none\nmax_age: 1000").expect("a policy");
            let entry = Entry { id: "1".into(), policy: Arc::new(policy), fetched: now() };
            keeper.state().cache.put("a.test", entry, now());
            drop(places);
        };
        let (fetched, ()) = tokio::join!(keeper.fetch_unless_failed(0, "a.test", "1".into()), other);
        assert_eq!(fetched.expect("the policy").id, "1");
    }

    #[test]
    fn the_file_is_written_soon_and_not_often() {
        let [first, pause] = [WRITE_WAIT, WRITE_PAUSE];
        for (since_last, wait) in [
            (None, first),
            (Some(Duration::ZERO), pause),
            (Some(pause / 2), pause - pause / 2),
            (Some(pause), first),
            (Some(pause * 100), first),
        ] {
            assert_eq!(write_wait(since_last), wait, "{since_last:?}");
        }
    }
}
