//! The configuration: what one TOML file says, checked, with every default filled in.
//!
//! Read once at start, immutable from then on and shared between all threads behind an `Arc`. A reading
//! finds as many faults as it can and gives each its line, its key and what is allowed instead.
//!
//! ```text
//! text ── document.rs ──▶ sections ── read.rs ──▶ drafts with lines ── check.rs ──▶ types.rs
//!         (TOML, lines)   value.rs: notations                         (each to the others)
//! ```
//!
//! `engine/relay.toml` documents every key; the tests hold it against `default.rs` and `read.rs`.

mod auth;
mod check;
mod client_limits;
mod cut_through;
mod default;
mod document;
mod dsn;
mod error;
mod host;
mod load;
mod network;
mod outward;
mod pace;
mod read;
mod rewrite;
mod routing;
mod types;
mod value;

#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use toml::de::DeTable;

pub use auth::*;
pub(crate) use check::matches_domain;
pub use client_limits::ClientLimits;
pub use cut_through::{CutThrough, CutThroughMode, RouteCutThrough, Undecided};
use document::{At, Notes, Purpose, Section};
pub use dsn::{Dsn, NotifyPostmaster};
pub use error::{ConfigError, Fault};
pub use load::LoadMarks;
pub use pace::{Rates, SiteRule, WarmUp, built_in_backoff};
use read::{ListenerDraft, ResolverDraft, RouteDraft};
pub use routing::*;
pub use types::*;
pub(crate) use value::{domain, duration, network, size};

/// A longer file is no configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where the built-in stand-in for the internal server listens in the demonstration.
pub const DEMONSTRATION_STAND_IN: &str = "127.0.0.1:2527";

const DEMONSTRATION: &str = include_str!("demonstration.toml");

impl Config {
    /// Reads and checks a file. Relative paths in it count from the working directory.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        Self::load_for(path, Purpose::Run)
    }

    /// As [`Config::load`], but only to look at the queue and steer it: certificates that cannot be read are no
    /// fault.
    pub fn load_for_queue(path: &Path) -> Result<Config, ConfigError> {
        Self::load_for(path, Purpose::Queue)
    }

    fn load_for(path: &Path, purpose: Purpose) -> Result<Config, ConfigError> {
        let origin = path.display().to_string();
        let mut text = String::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
        if let Err(error) = read {
            let sentence =
                format!("cannot be read: {error}; allowed: a TOML file that the relay's user may read");
            return Err(ConfigError::one(&origin, "", sentence));
        }
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(ConfigError::one(&origin, "", "is too long; allowed: at most 1MiB".to_owned()));
        }
        Self::parse_for(&text, &origin, purpose)
    }

    /// Reads and checks a text; `origin` stands for the file's name in the errors.
    pub fn parse(text: &str, origin: &str) -> Result<Config, ConfigError> {
        Self::parse_for(text, origin, Purpose::Run)
    }

    fn parse_for(text: &str, origin: &str, purpose: Purpose) -> Result<Config, ConfigError> {
        let notes = Notes::new(text, origin, purpose);
        let config = read_all(text, &notes, &sluice_tuning::cpus_allowed());
        match notes.into_error() {
            Some(error) => Err(error),
            None => Ok(config.expect("a reading without a fault has a result")),
        }
    }

    /// What `sluice` runs on when it is given no file.
    pub fn demonstration() -> Config {
        let mut config =
            Self::parse(DEMONSTRATION, "demonstration.toml").expect("the embedded text is tested");
        if let Some(name) = sluice_tuning::hostname().and_then(|name| value::hostname(&name).ok()) {
            config.hostname = name;
        }
        config
    }

    /// Applies `--ingest-cpus`, `--delivery-cpus` and `--service-cpus`; what is `None` stays.
    pub fn override_cpus(&mut self, lists: [Option<&str>; 3]) -> Result<(), ConfigError> {
        let list = |option: &str, text: &str| {
            value::cpu_list(text).map_err(|wrong| ConfigError::one("command line", option, wrong))
        };
        let Shards { ingest_cpus, delivery_cpus, service_cpus, .. } = &mut self.shards;
        let options = [
            ("--ingest-cpus", ingest_cpus),
            ("--delivery-cpus", delivery_cpus),
            ("--service-cpus", service_cpus),
        ];
        for ((option, cpus), text) in options.into_iter().zip(lists) {
            if let Some(text) = text {
                *cpus = list(option, text)?;
            }
        }
        Ok(())
    }

    /// The route for a recipient's domain, in any case and with U-labels or A-labels: the first that matches. `None`: nobody delivers it.
    pub fn route_for(&self, domain: &str) -> Option<usize> {
        let domain = domain.strip_suffix('.').unwrap_or(domain);
        let a_labels = if domain.is_ascii() { None } else { crate::smtp::idn::a_labels(domain) };
        let domain = a_labels.as_deref().unwrap_or(domain);
        self.routes
            .iter()
            .position(|route| route.domains.iter().any(|pattern| matches_domain(pattern, domain)))
    }
}

/// Reads a text that comes with the program.
fn read_built_in<T>(text: &str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
    let notes = Notes::new(text, "built in", Purpose::Run);
    let (document, _) = DeTable::parse_recoverable(text);
    let value = read(&mut Section::root(document.get_ref(), &notes));
    if let Some(error) = notes.into_error() {
        panic!("{error}");
    }
    value
}

/// `None` only with a fault noted.
fn read_all(text: &str, notes: &Notes, cpus: &[usize]) -> Option<Config> {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = error.span().map_or(0, |span| notes.line(span.start));
        notes.fault(line, "", format!("is not TOML: {}", error.message().replace('\n', ", ")));
    }
    if !notes.is_clean() {
        return None;
    }
    read_document(Section::root(document.get_ref(), notes), notes, cpus)
}

fn read_document(mut root: Section<'_>, notes: &Notes, cpus: &[usize]) -> Option<Config> {
    root.demand("hostname", "the relay's full name, such as relay.winery.example");
    let hostname = root.text("hostname", value::hostname).map(|at| at.value);
    let postmaster = root.text("postmaster", value::mailbox).map(|at| at.value);
    let spool = read::spool(root.section("spool"));
    let shards = read::shards(root.section("shards"), cpus);
    let accepted = read::accepted_domains(root.section("domains"));
    let retry = read::retry(root.section("retry"), &Retry::default());
    let (limits, client_limits) = read::limits(root.section("limits"));
    let load = load::load(root.section("load"));
    let timeouts = read::timeouts(root.section("timeouts"));
    let (delivery, outward) = read::delivery(root.section("delivery"));
    let cut_through = cut_through::general(root.section("cut_through"));
    let mta_sts = outward::mta_sts(root.section("mta_sts"));
    let tls_report = outward::tls_report(root.section("tls_report"));
    let sites: Vec<_> = root.sections("site").into_iter().filter_map(pace::site).collect();
    let backoff: Vec<_> = root.sections("backoff").into_iter().filter_map(pace::backoff).collect();
    let warm_ups: Vec<_> = root.sections("warm_up").into_iter().filter_map(pace::warm_up).collect();
    let tls = read::tls(root.section("tls"));
    let auth = auth::auth(root.section("auth"));
    let dsn = dsn::dsn(root.section("dsn"));
    let srs = rewrite::srs(root.section("srs"));
    let (admin, admin_line) = read::admin(root.section("admin"));
    let log = read::log(root.section("log"));
    let listeners: Vec<_> = root
        .sections("listener")
        .into_iter()
        .map(|section| read::listener(section, &client_limits))
        .collect();
    let routes: Vec<_> = root
        .sections("route")
        .into_iter()
        .map(|section| read::route(section, (&retry, &outward, delivery.rates), (&delivery, &timeouts)))
        .collect();
    let next_hops = routing::next_hops(root.section("next_hops"));
    let resolvers: Vec<_> = root.sections("resolver").into_iter().map(read::resolver).collect();
    if listeners.is_empty() && !root.has("listener") {
        root.fault(
            1,
            "listener",
            "is missing; allowed: at least one [[listener]] with name, bind and clients",
        );
    }
    root.finish();

    check::names(notes, "listener.name", listeners.iter().map(|draft| &draft.name));
    check::names(notes, "resolver.name", resolvers.iter().map(|draft| &draft.name));
    check::relays(notes, &listeners);
    check::certificates(notes, &listeners, tls.is_some());
    check::authentication(notes, &listeners, auth.is_some() || !notes.is_clean());
    let auth_resolver = check::auth_resolver(notes, auth.as_ref(), &resolvers);
    check::addresses(notes, &listeners, admin.bind.map(|value| At { value, line: admin_line }));
    check::address_spaces(notes, &routes);
    check::accepted(notes, &accepted, &routes);
    check::cut_through(notes, &listeners, &routes);
    pace::check_warm_ups(notes, &warm_ups, &routes);
    check::rewrites(notes, &routes, srs.is_some() || !notes.is_clean());
    let links = check::resolvers(notes, &routes, &resolvers);
    check::announced(notes, &routes, &links, &resolvers, mta_sts.authorities.is_some());
    if !notes.is_clean() {
        return None;
    }
    let hostname = hostname?;
    let domains = Domains { accepted: accepted.into_iter().map(|at| at.value).collect() };
    let inside = crate::rewrite::Inside::new(&domains.accepted);
    let rewriting = (&inside, srs.as_ref());
    let first_domain = domains.accepted.first().unwrap_or(&hostname).clone();
    let postmaster = postmaster.unwrap_or_else(|| format!("postmaster@{first_domain}"));
    let mut routes: Vec<Route> = routes
        .into_iter()
        .zip(links)
        .map(|(draft, link)| route(draft, link, &resolvers, rewriting))
        .collect();
    let tls_report = tls_report.map(|draft| outward::complete(draft, &hostname, &postmaster, &mut routes));
    Some(Config {
        postmaster,
        hostname,
        spool,
        shards,
        domains,
        retry,
        limits,
        load,
        timeouts,
        delivery,
        cut_through,
        mta_sts,
        tls_report,
        sites: sites.into_iter().chain(pace::built_in_sites()).collect(),
        backoff: backoff.into_iter().chain(built_in_backoff()).collect(),
        warm_ups: warm_ups.into_iter().map(|at| at.value).collect(),
        listeners: listeners.into_iter().map(|draft| listener(draft, tls.as_ref())).collect::<Option<_>>()?,
        tls,
        auth: auth.map(|draft| Auth {
            domain: draft.domain.unwrap_or(first_domain),
            resolver: auth_resolver,
            ..draft.auth
        }),
        srs: srs.clone(),
        dsn,
        admin,
        log,
        next_hops,
        routes,
        resolvers: resolvers.into_iter().map(resolver).collect::<Option<_>>()?,
    })
}

fn listener(draft: ListenerDraft, general: Option<&Tls>) -> Option<Listener> {
    Some(Listener {
        certificates: draft.own_tls.or_else(|| general.cloned()),
        name: draft.name?.value,
        bind: draft.bind.into_iter().map(|at| at.value).collect(),
        clients: draft.clients.into_iter().map(|at| at.value).collect(),
        auth: draft.auth.map_or(draft.relay.value == Relay::Authenticated, |at| at.value),
        relay: draft.relay.value,
        tls: draft.tls.value,
        extensions: draft.extensions,
        limits: draft.limits,
        proxy: draft.proxy,
        xclient: draft.xclient,
        line_endings: draft.line_endings,
        binarymime: draft.binarymime,
        cut_through: draft.cut_through.map_or(CutThroughMode::Off, |at| at.value),
    })
}

fn route(
    draft: RouteDraft,
    resolver: Option<usize>,
    resolvers: &[ResolverDraft],
    (inside, srs): (&crate::rewrite::Inside, Option<&Arc<crate::rewrite::srs::Srs>>),
) -> Route {
    let knows_dnssec = resolver.is_some_and(|index| resolvers[index].dnssec != Dnssec::Off);
    let rewrite = draft.rewrite.map(|rewrite| crate::rewrite::Rules {
        srs: srs.filter(|_| rewrite.srs.is_some()).cloned(),
        inside: inside.clone(),
        ..rewrite.rules
    });
    let target = if draft.mx {
        Target::Mx { port: draft.port }
    } else {
        let mut hosts: Vec<_> = draft.hosts.into_iter().map(|at| at.value).collect();
        hosts.sort_by_key(|host| host.priority);
        Target::SmartHosts(hosts)
    };
    Route {
        domains: draft.domains.into_iter().map(|at| at.value).collect(),
        target,
        resolver,
        source: draft.source,
        private_addresses: draft.private_addresses,
        retry: draft.retry,
        tls: OutwardTls {
            dane: draft.tls.dane && knows_dnssec,
            mta_sts: draft.tls.mta_sts && draft.mx,
            ..draft.tls
        },
        login: draft.login,
        cut_through: draft.cut_through,
        protocol: draft.protocol,
        recipients: draft.recipients,
        limits: draft.limits,
        timeouts: draft.timeouts,
        rates: draft.rates,
        rewrite,
    }
}

fn resolver(draft: ResolverDraft) -> Option<Resolver> {
    Some(Resolver {
        name: draft.name?.value,
        servers: draft.servers,
        dnssec: draft.dnssec,
        trust_anchors: draft.trust_anchors,
    })
}
