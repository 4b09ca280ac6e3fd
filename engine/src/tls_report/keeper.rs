//! Gathers what the delivery shards see, and sends each domain that asks its report when the period is over.
//!
//! Lives on the service thread. What it knows is the file `tls-report.json` in the spool's directory, written a
//! minute after a change and at the end of a period; a crash loses that minute. A report goes by every place of the
//! record of its domain; one place that takes it is enough, and until then it is tried each hour for a day. A few
//! are on their way at a time, each for a minute at most, and stay in the queue until they are sent: what a stop
//! breaks off is tried again.
//!
//! Strangers name the places. Addresses of the inside are none of them, and where a report may be posted to,
//! `[next_hops]` says, too.
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
use crate::config::{Config, Target, TlsReport};
use crate::https;
use crate::mta_sts::keeper::write_whole;
use crate::observe::log;
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
/// Reports on their way at a time. Prevents places that are silent from holding up all others.
const AT_ONCE: usize = 8;
/// One report, by whatever place.
const REPORT_PATIENCE: Duration = Duration::from_secs(60);
/// One place by HTTPS.
const POST_PATIENCE: Duration = Duration::from_secs(20);
const _: () =
    assert!(POST_PATIENCE.as_secs() < REPORT_PATIENCE.as_secs() && REPORT_PATIENCE.as_secs() < AGAIN_SECONDS);

pub struct Keeper {
    config: Arc<Config>,
    report: TlsReport,
    resolvers: Arc<Resolvers>,
    links: Arc<Links>,
    tls: Option<Arc<rustls::ClientConfig>>,
    path: PathBuf,
    state: Mutex<State>,
    /// One writes at a time, so that whoever stops the relay waits for the one that began before.
    writing: tokio::sync::Mutex<()>,
}

struct State {
    queue: Queue,
    changed: bool,
    /// A report was sent or put off, which the file ought to tell soon.
    sent: bool,
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
            state: Mutex::new(State { queue, changed: false, sent: false }),
            writing: tokio::sync::Mutex::default(),
        });
        tokio::spawn(keeper.clone().keep_time());
        for _ in 0..AT_ONCE {
            tokio::spawn(keeper.clone().send_due());
        }
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

    /// How often the clock is looked at.
    fn look(&self) -> Duration {
        LOOK_MAX.min(self.report.period / 4).max(Duration::from_millis(100))
    }

    /// As long as the relay runs.
    async fn keep_time(self: Arc<Self>) {
        let (period, spread) = (self.report.period, self.report.spread.as_secs());
        let look = self.look();
        let mut unwritten = Duration::ZERO;
        loop {
            tokio::time::sleep(look).await;
            unwritten += look;
            let write_now = {
                let mut state = self.state();
                let turned = state.queue.turn(now(), period.as_secs(), spread);
                state.changed |= turned;
                turned || state.sent || unwritten >= WRITE_WAIT.min(period)
            };
            if write_now {
                unwritten = Duration::ZERO;
                self.flush().await;
            }
        }
    }

    /// As long as the relay runs: one report after the other, beside others that do the same.
    async fn send_due(self: Arc<Self>) {
        loop {
            let due = self.state().queue.next_due(now(), AGAIN_SECONDS);
            let Some(report) = due else {
                tokio::time::sleep(self.look()).await;
                continue;
            };
            let sent = tokio::time::timeout(REPORT_PATIENCE, self.send(&report)).await;
            let sent = sent.unwrap_or_else(|_| {
                Err(format!("no place took it within {} seconds", REPORT_PATIENCE.as_secs()))
            });
            self.settle(&report, sent);
        }
    }

    /// What a try came to.
    fn settle(&self, report: &Waiting, sent: Result<(), String>) {
        let kept = {
            let mut state = self.state();
            state.changed = true;
            state.sent = true;
            match &sent {
                Ok(()) => return state.queue.sent(report),
                Err(_) => state.queue.failed(report),
            }
        };
        let then = if kept { "it is tried again" } else { "it is given up" };
        let (domain, why) = (&report.domain, sent.err().unwrap_or_default());
        log::note("service", &format!("warning: TLS report to {domain}: {why}; {then}"));
    }

    /// Writes what would be lost at a stop.
    pub async fn flush(&self) {
        let _turn = self.writing.lock().await;
        let octets = {
            let mut state = self.state();
            if !state.changed {
                return;
            }
            (state.changed, state.sent) = (false, false);
            state.queue.encode()
        };
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || write_whole(&path, &octets)).await;
        if let Ok(Err(error)) = written {
            log::note("service", &format!("warning: {}: {error}", self.path.display()));
            self.state().changed = true;
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
                Place::Mail(to) if !takes_reports(&self.config, to, domain) => {
                    let text =
                        format!("warning: TLS report to {domain}: <{to}> is no address of the outside");
                    log::note("service", &text);
                    continue;
                }
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
            let found = found.result.map_err(|error| error.text)?.list;
            let (lists, private) = (&self.config.next_hops, route.private_addresses);
            let addresses = https::admitted(lists, (None, &host), found, private)?;
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

/// Whether the reports on a domain may go to an address that its record names: by MX like other mail to strangers,
/// and not to a domain of the relay's own that is not the one reported on.
fn takes_reports(config: &Config, address: &str, of: &str) -> bool {
    let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    // Of an address literal it is the record that says where it leads.
    if domain.is_empty() || domain.starts_with('[') {
        return false;
    }
    let by_mx = config
        .route_for(domain)
        .is_some_and(|route| matches!(config.routes[route].target, Target::Mx { .. }));
    let is_own = config.domains.accepted.iter().any(|own| own.eq_ignore_ascii_case(domain));
    by_mx && (!is_own || domain.eq_ignore_ascii_case(of.strip_suffix('.').unwrap_or(of)))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Who is behind the relay gets no reports because a stranger says so.
    #[test]
    fn reports_go_by_mx_and_not_inside() {
        let text = "hostname = \"relay.test\"\n[domains]\naccepted = [\"inside.test\"]\n\
             [[listener]]\nname = \"inside\"\nbind = [\"127.0.0.1:25\"]\n\
             clients = [\"127.0.0.0/8\"]\nrelay = \"any\"\n[[route]]\n\
             domains = [\"inside.test\", \".inside.test\", \"smart.test\"]\nhosts = [\"127.0.0.2\"]\n\
             [[route]]\ndomains = [\"*\"]\nmx = true\nresolver = \"external\"\n[[resolver]]\n\
             name = \"external\"\nservers = [\"192.0.2.53\"]";
        let mut config = Config::parse(text, "f").map_err(|error| error.to_string()).expect("settings");
        for (address, expected) in [
            ("reports@a.test", true),
            ("reports@b.test", true),
            ("in@inside.test", false),
            ("in@INSIDE.Test.", false),
            ("in@below.inside.test", false),
            ("in@smart.test", false),
            ("in@[192.0.2.7]", false),
            ("in@", false),
            ("in", false),
        ] {
            assert_eq!(takes_reports(&config, address, "a.test"), expected, "{address}");
        }
        // One's own domain that is looked up like others may have its own reports, and no others.
        config.domains.accepted = vec!["b.test".into()];
        assert!(
            takes_reports(&config, "in@b.test", "B.test") && !takes_reports(&config, "in@b.test", "a.test")
        );
    }
}
