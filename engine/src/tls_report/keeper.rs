//! Gathers what the delivery shards see, and sends each domain that asks its report when the period is over.
//!
//! Lives on the service thread. What it knows is the file `tls-report.json` in the spool's directory, written a
//! minute after a change and at the end of a period; a crash loses that minute. A report goes by every place of the
//! record of its domain; one place that takes it is enough, and until then it is tried each hour for a day.
//!
//! A message is put into the spool like any other and delivered by the rule of its route, but without what DANE or
//! MTA-STS would demand of the host: the failure that it tells of must not hold it up (RFC 8460 section 3).

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use tokio::sync::oneshot;

use super::Observed;
use super::message::Report;
use super::queue::{Queue, Waiting};
use super::record::{Place, places};
use crate::clock::wall_micros;
use crate::config::{Config, TlsReport};
use crate::https;
use crate::mta_sts::keeper::write_whole;
use crate::observe::log;
use crate::resolve::choose::is_public;
use crate::resolve::service::Resolvers;
use crate::shard::links::{Links, ToIngest};

/// The file in the spool's directory.
pub const FILE: &str = "tls-report.json";
/// A longer one is not read.
const FILE_OCTETS_MAX: u64 = 256 * 1024 * 1024;
/// How often what has changed is written.
const WRITE_WAIT: Duration = Duration::from_secs(60);
/// How often the clock is looked at, at most.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// A report that could not be sent is tried again after this.
const AGAIN_SECONDS: u64 = 3_600;
/// One report by HTTPS.
const POST_PATIENCE: Duration = Duration::from_secs(60);

pub struct Keeper {
    config: Arc<Config>,
    report: TlsReport,
    resolvers: Arc<Resolvers>,
    links: Arc<Links>,
    tls: Option<Arc<rustls::ClientConfig>>,
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    queue: Queue,
    changed: bool,
}

fn now() -> u64 {
    wall_micros() / 1_000_000
}

impl Keeper {
    /// `None` where the configuration has no `[tls_report]`. Reads the file and begins to keep time.
    ///
    /// # Errors
    /// What is wrong with the authorities.
    pub fn start(
        config: &Arc<Config>,
        resolvers: &Arc<Resolvers>,
        links: &Arc<Links>,
    ) -> Result<Option<Arc<Self>>, String> {
        let Some(report) = config.tls_report.clone() else { return Ok(None) };
        let tls = report.authorities.as_deref().map(crate::tls::client).transpose()?;
        let path = config.spool.path.join(FILE);
        let queue = read(&path, report.period.as_secs());
        let keeper = Arc::new(Self {
            config: config.clone(),
            report,
            resolvers: resolvers.clone(),
            links: links.clone(),
            tls,
            path,
            state: Mutex::new(State { queue, changed: false }),
        });
        tokio::spawn(keeper.clone().keep_time());
        Ok(Some(keeper))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a session.
    pub fn add(&self, seen: &Observed) {
        let period = self.report.period.as_secs();
        let spread = self.report.spread.as_secs();
        let mut state = self.state();
        state.queue.turn(now(), period, spread);
        state.queue.add(seen);
        state.changed = true;
    }

    /// As long as the relay runs.
    async fn keep_time(self: Arc<Self>) {
        let (period, spread) = (self.report.period, self.report.spread.as_secs());
        let look = LOOK_MAX.min(period / 4).max(Duration::from_millis(100));
        let mut unwritten = Duration::ZERO;
        loop {
            tokio::time::sleep(look).await;
            unwritten += look;
            let (turned, due) = {
                let mut state = self.state();
                let turned = state.queue.turn(now(), period.as_secs(), spread);
                (turned, state.queue.take_due(now()))
            };
            let sent = !due.is_empty();
            for report in due {
                if let Err(why) = self.send(&report).await {
                    self.put_off(report, &why);
                }
            }
            let write_now = turned || sent || unwritten >= WRITE_WAIT.min(period);
            if write_now && (turned || sent || self.state().changed) {
                unwritten = Duration::ZERO;
                self.write().await;
            }
        }
    }

    fn put_off(&self, report: Waiting, why: &str) {
        let domain = report.domain.clone();
        let kept = self.state().queue.again(report, now(), AGAIN_SECONDS);
        let then = if kept { "it is tried again" } else { "it is given up" };
        log::note("service", &format!("warning: TLS report to {domain}: {why}; {then}"));
    }

    /// Writes what would be lost at a stop.
    pub async fn flush(&self) {
        if self.state().changed {
            self.write().await;
        }
    }

    async fn write(&self) {
        let octets = {
            let mut state = self.state();
            state.changed = false;
            state.queue.encode()
        };
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || write_whole(&path, &octets)).await;
        if let Ok(Err(error)) = written {
            log::note("service", &format!("warning: {}: {error}", self.path.display()));
        }
    }

    /// Gives a report to one of the places that its domain names. That it names none is no failure.
    async fn send(&self, waiting: &Waiting) -> Result<(), String> {
        let domain = &waiting.domain;
        let Some(route) = self.config.route_for(domain) else { return Ok(()) };
        let resolver = self.config.routes[route].resolver.unwrap_or(0);
        let found = self.resolvers.txt(resolver, &format!("_smtp._tls.{domain}")).await;
        let records = found.result.map_err(|error| error.text)?;
        let report = Report {
            organization: &self.report.organization,
            contact: &self.report.contact,
            submitter: &self.config.hostname,
            domain,
            start: waiting.start,
            end: waiting.end,
            policies: &waiting.policies,
        };
        let mut trouble = None;
        for place in places(records.iter().map(String::as_str)) {
            let sent = match &place {
                Place::Mail(to) => self.mail(&report, to).await,
                Place::Https(uri) => self.post(&report, uri, route).await,
            };
            match sent {
                Ok(how) => {
                    log::note("service", &format!("TLS report to {domain}: {how}"));
                    return Ok(());
                }
                Err(why) => trouble = Some(why),
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    /// Puts the report into the spool.
    async fn mail(&self, report: &Report<'_>, to: &str) -> Result<String, String> {
        let (envelope, content) = report.message(&self.report.from, to, wall_micros());
        let (reply, answer) = oneshot::channel();
        let submitted = ToIngest::Submit { envelope: Box::new(envelope), content, reply };
        self.links.ingest[0].send(submitted).await;
        let id = answer.await.unwrap_or_else(|_| Err("the relay stops".into()))?;
        Ok(format!("queued for <{to}> as {id}"))
    }

    /// RFC 8460 section 5.4.
    async fn post(&self, report: &Report<'_>, uri: &str, route: usize) -> Result<String, String> {
        let tls = self.tls.as_ref().ok_or("this host has no authorities (tls_report.authorities)")?;
        let parsed: hyper::Uri = uri.parse().map_err(|_| format!("{uri} is no address"))?;
        let host = parsed.host().unwrap_or_default().to_owned();
        let port = parsed.port_u16().unwrap_or(443);
        let path = parsed.path_and_query().map_or("/", |path| path.as_str());
        let route = &self.config.routes[route];
        let asked = async {
            let found = self.resolvers.addresses(route.resolver.unwrap_or(0), &host).await;
            let mut addresses = found.result.map_err(|error| error.text)?.list;
            addresses.retain(|&address| route.private_addresses || is_public(address));
            let request = hyper::Request::post(path)
                .header("host", if port == 443 { host.clone() } else { format!("{host}:{port}") })
                .header("user-agent", concat!("sluice/", env!("CARGO_PKG_VERSION")))
                .header("content-type", "application/tlsrpt+gzip")
                .body(Full::new(Bytes::from(report.compressed())))
                .map_err(|error| error.to_string())?;
            https::ask(&host, (&addresses, port), tls, request).await.map_err(|error| error.to_string())
        };
        let answer = tokio::time::timeout(POST_PATIENCE, asked).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("{uri}: no answer in time")))?;
        match answer.code {
            200..=299 => Ok(format!("posted to {uri}")),
            code => Err(format!("{uri} answered with code {code}")),
        }
    }
}

/// A file that cannot be used is said so, and its reports are lost.
fn read(path: &Path, period: u64) -> Queue {
    let none = || Queue::new(now(), period);
    let mut octets = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_OCTETS_MAX).read_to_end(&mut octets));
    let decoded = match read {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return none(),
        Err(error) => Err(error.to_string()),
        Ok(_) => Queue::decode(&octets),
    };
    decoded.unwrap_or_else(|error| {
        let path = path.display();
        log::note("service", &format!("warning: {path}: {error}; what was to be reported is lost"));
        none()
    })
}
