//! From sections to the resolved types, one function a section, with defaults for what is absent.
//!
//! Listeners, routes and resolvers come out as drafts that keep their lines, because `check.rs` compares
//! them with each other before they are resolved.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::client_limits::client_limits;
use super::document::{At, Section};
use super::pace::{self, Rates};
use super::rewrite::{RewriteDraft, rewrite};
use super::routing::{self, BalancedHost, Protocol, Recipients, RouteLimits, Unknown};
use super::types::{
    Admin, CertificatePair, ClientCertificates, Delivery, Dnssec, Extensions, Limits, LineEndings, Log,
    Login, NamedPair, Network, OutwardTls, Relay, Retry, Shards, Spool, Timeouts, Tls, TlsMode, TlsRule,
    TlsVersion,
};
use super::{ClientLimits, CutThroughMode, RouteCutThrough};
use super::{cut_through, outward, value};
use crate::resolve::servers;
use crate::tls::files::{self, TlsFile};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const SHORTEST: Duration = Duration::from_millis(100);

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
/// Segments are written in device blocks.
const BLOCK: u64 = 4 * KIB;

/// A quota below would leave a spool no room to work in.
const SEGMENTS_MIN: u64 = 8;

pub(super) struct ListenerDraft {
    pub name: Option<At<String>>,
    pub bind: Vec<At<SocketAddr>>,
    pub clients: Vec<At<Network>>,
    pub relay: At<Relay>,
    pub tls: At<TlsMode>,
    pub extensions: Extensions,
    pub auth: Option<At<bool>>,
    pub own_tls: Option<Tls>,
    pub limits: ClientLimits,
    pub proxy: Vec<Network>,
    pub xclient: Vec<Network>,
    pub line_endings: LineEndings,
    pub binarymime: bool,
    pub cut_through: Option<At<CutThroughMode>>,
}

pub(super) struct RouteDraft {
    pub line: usize,
    pub domains: Vec<At<String>>,
    pub hosts: Vec<At<BalancedHost>>,
    pub mx: bool,
    pub port: u16,
    pub resolver: Option<At<String>>,
    pub source: Vec<IpAddr>,
    pub private_addresses: bool,
    /// Absent, which is not the same as wrong.
    pub resolver_absent: bool,
    pub retry: Retry,
    pub tls: OutwardTls,
    pub login: Option<Arc<Login>>,
    pub cut_through: RouteCutThrough,
    pub protocol: Protocol,
    pub recipients: Option<Recipients>,
    pub limits: RouteLimits,
    pub timeouts: Timeouts,
    pub rates: Rates,
    pub rewrite: Option<RewriteDraft>,
}

pub(super) struct ResolverDraft {
    pub name: Option<At<String>>,
    pub servers: Vec<SocketAddr>,
    pub dnssec: Dnssec,
    pub trust_anchors: Option<PathBuf>,
}

pub(super) fn spool(mut section: Section<'_>) -> Spool {
    let absent = Spool::default();
    let path = section.text("path", path).map_or(absent.path, |at| at.value);
    let segment_bytes = section
        .size("segment_bytes", sluice_queue::SEGMENT_BYTES_MIN..=sluice_queue::SEGMENT_BYTES_MAX)
        .map_or(absent.segment_bytes, |at| {
            if !at.value.is_multiple_of(BLOCK) {
                let wrong = format!("{} bytes are not whole blocks; allowed: a multiple of 4KiB", at.value);
                section.fault(at.line, "segment_bytes", wrong);
            }
            at.value
        });
    let spool = Spool {
        path,
        segment_bytes,
        bytes_max: section.size("bytes_max", 0..=1024 * TIB).map_or(absent.bytes_max, |at| {
            if (1..SEGMENTS_MIN * segment_bytes).contains(&at.value) {
                let wrong = format!(
                    "{} is less than {SEGMENTS_MIN} segments; allowed: 0B for no quota, or {} and more",
                    value::show_size(at.value),
                    value::show_size(SEGMENTS_MIN * segment_bytes)
                );
                section.fault(at.line, "bytes_max", wrong);
            }
            at.value
        }),
        slow_bytes_min: section.size("slow_bytes_min", 0..=TIB).map_or(absent.slow_bytes_min, |at| at.value),
        slow_delay_max: section
            .duration("slow_delay_max", Duration::ZERO..=30 * SECOND)
            .map_or(absent.slow_delay_max, |at| at.value),
        free_bytes_min: section.size("free_bytes_min", 0..=TIB).map_or(absent.free_bytes_min, |at| at.value),
        free_inodes_min: section
            .count("free_inodes_min", 0..=1_000_000)
            .map_or(absent.free_inodes_min, |at| at.value.into()),
        write_wait: section.duration("write_wait", SECOND..=HOUR).map_or(absent.write_wait, |at| at.value),
        handover_bytes_max: section
            .size("handover_bytes_max", 0..=TIB)
            .map_or(absent.handover_bytes_max, |at| at.value),
        compaction_share: section
            .count("compaction_share", 1..=100)
            .map_or(absent.compaction_share, |at| at.value),
    };
    section.finish();
    spool
}

/// `allowed` are the CPUs that this process may run on.
pub(super) fn shards(mut section: Section<'_>, allowed: &[usize]) -> Shards {
    let ingest = section.text("ingest_cpus", value::cpu_list).map(|at| at.value);
    let delivery = section.text("delivery_cpus", value::cpu_list).map(|at| at.value);
    let service = section.text("service_cpus", cpu_list_or_none).map(|at| at.value);
    let spin = section.text("spin", value::microseconds).map_or(Duration::ZERO, |at| at.value);
    section.finish();
    let ingest_cpus =
        ingest.unwrap_or_else(|| vec![first_besides(allowed, delivery.as_deref().unwrap_or(&[]))]);
    let delivery_cpus = delivery.unwrap_or_else(|| vec![first_besides(allowed, &ingest_cpus)]);
    Shards { ingest_cpus, delivery_cpus, service_cpus: service.unwrap_or_default(), spin }
}

fn cpu_list_or_none(text: &str) -> Result<Vec<usize>, value::Wrong> {
    if text.is_empty() { Ok(Vec::new()) } else { value::cpu_list(text) }
}

/// The first CPU that the other role does not use; on a host without one, the first.
fn first_besides(allowed: &[usize], others: &[usize]) -> usize {
    let free = allowed.iter().find(|cpu| !others.contains(cpu));
    free.or(allowed.first()).copied().unwrap_or(0)
}

pub(super) fn accepted_domains(mut section: Section<'_>) -> Vec<At<String>> {
    let accepted = section.list("accepted", value::domain).unwrap_or_default();
    for (index, domain) in accepted.iter().enumerate() {
        if accepted[..index].iter().any(|earlier| earlier.value == domain.value) {
            section.fault(
                domain.line,
                "accepted",
                format!("\"{}\" is listed twice; allowed: once", domain.value),
            );
        }
    }
    section.finish();
    accepted
}

pub(super) fn retry(mut section: Section<'_>, absent: &Retry) -> Retry {
    let first = section.duration("first", SHORTEST..=DAY);
    let longest = section.duration("longest", SHORTEST..=7 * DAY);
    let expire = section.duration("expire", SECOND..=60 * DAY);
    let notice = section.duration("notice", SECOND..=60 * DAY);
    let expire_down = section.duration("expire_down", SECOND..=365 * DAY);
    let or = |at: &Option<At<Duration>>, absent: Duration| at.as_ref().map_or(absent, |at| at.value);
    let retry = Retry {
        first: or(&first, absent.first),
        longest: or(&longest, absent.longest),
        expire: or(&expire, absent.expire),
        notice: or(&notice, absent.notice),
        // Where nobody says otherwise it is the section's own `expire`.
        expire_down: match absent.expire_down == absent.expire {
            true => or(&expire_down, or(&expire, absent.expire)),
            false => or(&expire_down, absent.expire_down.max(or(&expire, absent.expire))),
        },
    };
    ascending(&section, ("first", retry.first, &first), ("longest", retry.longest, &longest));
    ascending(&section, ("longest", retry.longest, &longest), ("expire", retry.expire, &expire));
    if let Some(at) = expire_down.filter(|at| at.value < retry.expire) {
        let (down, expire) = (value::show_duration(at.value), value::show_duration(retry.expire));
        let wrong = format!("{down} is less than expire, {expire}; allowed: that or more");
        section.fault(at.line, "expire_down", wrong);
    }
    section.finish();
    retry
}

/// Blames the key that the section itself gives; one that only inherits both is blamed where they come from.
fn ascending(
    section: &Section<'_>,
    (lower_key, lower, lower_at): (&str, Duration, &Option<At<Duration>>),
    (upper_key, upper, upper_at): (&str, Duration, &Option<At<Duration>>),
) {
    const ALLOWED: &str = "allowed: first <= longest <= expire";
    if lower <= upper {
        return;
    }
    let (low, up) = (value::show_duration(lower), value::show_duration(upper));
    if let Some(at) = lower_at {
        section.fault(at.line, lower_key, format!("{low} is more than {upper_key}, {up}; {ALLOWED}"));
    } else if let Some(at) = upper_at {
        section.fault(at.line, upper_key, format!("{up} is less than {lower_key}, {low}; {ALLOWED}"));
    }
}

/// The bounds of every session, and those for clients of listeners that face strangers.
pub(super) fn limits(mut section: Section<'_>) -> (Limits, ClientLimits) {
    let absent = Limits::default();
    let mut count =
        |key, range, absent: usize| section.count(key, range).map_or(absent, |at| at.value as usize);
    let limits = Limits {
        recipients_max: count("recipients_max", 100..=100_000, absent.recipients_max),
        line_bytes_max: count("line_bytes_max", 998..=65_536, absent.line_bytes_max),
        received_max: count("received_max", 1..=1_000, absent.received_max),
        errors_max: count("errors_max", 1..=10_000, absent.errors_max),
        sessions_max: count("sessions_max", 1..=1_000_000, absent.sessions_max),
        transactions_max: count("transactions_max", 1..=u32::MAX, absent.transactions_max),
        header_bytes_max: section
            .size("header_bytes_max", 16 * KIB..=16 * MIB)
            .map_or(absent.header_bytes_max, |at| at.value),
        message_bytes_max: section
            .size("message_bytes_max", 64 * KIB..=4 * GIB)
            .map_or(absent.message_bytes_max, |at| at.value),
    };
    let clients = client_limits(&mut section, &ClientLimits::default());
    section.finish();
    (limits, clients)
}

pub(super) fn timeouts(mut section: Section<'_>) -> Timeouts {
    let absent = Timeouts::default();
    let mut time = |key, absent| section.duration(key, SHORTEST..=HOUR).map_or(absent, |at| at.value);
    let timeouts = Timeouts {
        command: time("command", absent.command),
        content: time("content", absent.content),
        handshake: time("handshake", absent.handshake),
        proxy_header: time("proxy_header", absent.proxy_header),
        connect: time("connect", absent.connect),
        greeting: time("greeting", absent.greeting),
        reply: time("reply", absent.reply),
        data: time("data", absent.data),
        block: time("block", absent.block),
        end_of_data: time("end_of_data", absent.end_of_data),
    };
    section.finish();
    timeouts
}

/// With what the relay demands of its peers' TLS.
pub(super) fn delivery(mut section: Section<'_>) -> (Delivery, OutwardTls) {
    let absent = Delivery::default();
    let own = section.list("own_addresses", value::address).unwrap_or_default();
    let mut count =
        |key, range, absent: usize| section.count(key, range).map_or(absent, |at| at.value as usize);
    let delivery = Delivery {
        own_addresses: own.into_iter().map(|at| at.value).collect(),
        connections_max: count("connections_max", 1..=10_000, absent.connections_max),
        connections_total_max: count("connections_total_max", 1..=100_000, absent.connections_total_max),
        messages_per_connection_max: count(
            "messages_per_connection_max",
            1..=u32::MAX,
            absent.messages_per_connection_max,
        ),
        recipients_max: count("recipients_max", 1..=100_000, absent.recipients_max),
        connection_age_max: section
            .duration("connection_age_max", SECOND..=DAY)
            .map_or(absent.connection_age_max, |at| at.value),
        chunking: section.flag("chunking").map_or(absent.chunking, |at| at.value),
        idle: section.duration("idle", Duration::ZERO..=HOUR).map_or(absent.idle, |at| at.value),
        drain: section.duration("drain", Duration::ZERO..=HOUR).map_or(absent.drain, |at| at.value),
        rates: pace::rates(&mut section, absent.rates),
    };
    let tls = outward::tls(section.section("tls"), &OutwardTls::default(), false);
    section.finish();
    (delivery, tls)
}

/// `[tls]` and `[listener.own_tls]`. The files are read (where the relay is to run), so that a wrong pair is found here and not by a peer.
pub(super) fn tls(mut section: Section<'_>) -> Option<Tls> {
    let pair = certificate_pair(&mut section);
    let named = section.sections("name").into_iter().map(named_pair).collect::<Vec<_>>();
    let minimum = section.choice("minimum", &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)]);
    let tickets = section.flag("tickets");
    let clients = client_certificates(&mut section);
    if pair.is_none() && !section.has("certificate") && !section.has("key") {
        for key in ["name", "minimum", "tickets", "client_certificates"] {
            if section.has(key) {
                section.fault(section.line, "certificate", format!("is missing: {key} means nothing without it; allowed: the PEM file of the certificate chain"));
                break;
            }
        }
    }
    let tls = Tls {
        pair: pair?,
        named: named.into_iter().collect::<Option<_>>()?,
        minimum: minimum.map_or(TlsVersion::Tls12, |at| at.value),
        tickets: tickets.is_none_or(|at| at.value),
        clients: clients?,
    };
    section.finish();
    Some(tls)
}

pub(super) fn certificate_pair(section: &mut Section<'_>) -> Option<CertificatePair> {
    let certificate = section.text("certificate", path);
    let key = section.text("key", path);
    for (one, other) in [("certificate", "key"), ("key", "certificate")] {
        if section.has(one) && !section.has(other) {
            let allowed = format!("is missing; allowed: the PEM file that belongs to {}", section.key(one));
            section.fault(section.line, other, allowed);
        }
    }
    let (certificate, key) = certificate.zip(key)?;
    let pair = CertificatePair { certificate: certificate.value, key: key.value };
    if section.reads_files()
        && let Err(fault) = files::certified_key(&pair)
    {
        match fault.file {
            TlsFile::Certificate => section.fault(certificate.line, "certificate", fault.sentence),
            TlsFile::Key => section.fault(key.line, "key", fault.sentence),
        }
    }
    Some(pair)
}

fn named_pair(mut section: Section<'_>) -> Option<NamedPair> {
    section.demand("names", "a list of host names, [\"mail.winery.example\"]");
    section.demand("certificate", "the PEM file of the certificate chain for these names");
    let names = section.list("names", value::certificate_name).unwrap_or_default();
    section.refuse_empty("names");
    let pair = certificate_pair(&mut section);
    section.finish();
    Some(NamedPair { names: names.into_iter().map(|at| at.value).collect(), pair: pair? })
}

fn client_certificates(section: &mut Section<'_>) -> Option<ClientCertificates> {
    #[derive(Clone, Copy, PartialEq)]
    enum Word {
        Off,
        Ask,
        Require,
    }
    let words = [("off", Word::Off), ("ask", Word::Ask), ("require", Word::Require)];
    let word = section.choice("client_certificates", &words);
    let authorities = section.text("client_authorities", path);
    let Some(word) = word.filter(|at| at.value != Word::Off) else { return Some(ClientCertificates::Off) };
    let Some(authorities) = authorities else {
        if !section.has("client_authorities") {
            section.fault(
                word.line,
                "client_authorities",
                "is missing; allowed: the PEM file of the authorities that issue the clients' certificates",
            );
        }
        return None;
    };
    if section.reads_files()
        && let Err(sentence) = files::authorities(&authorities.value)
    {
        section.fault(authorities.line, "client_authorities", sentence);
    }
    Some(match word.value {
        Word::Require => ClientCertificates::Require(authorities.value),
        _ => ClientCertificates::Ask(authorities.value),
    })
}

/// With the line where the address stands, to compare it with the listeners'.
pub(super) fn admin(mut section: Section<'_>) -> (Admin, usize) {
    let bind =
        section.text("bind", |text| if text.is_empty() { Ok(None) } else { value::socket(text).map(Some) });
    let line = bind.as_ref().map_or(section.line, |at| at.line);
    section.finish();
    (bind.map_or_else(Admin::default, |at| Admin { bind: at.value }), line)
}

pub(super) fn log(mut section: Section<'_>) -> Log {
    let file = section.text("file", |text| Ok((!text.is_empty()).then(|| PathBuf::from(text))));
    section.finish();
    Log { file: file.and_then(|at| at.value) }
}

/// `general`: `[limits]`, which holds for listeners that do not relay for everybody they take.
pub(super) fn listener(mut section: Section<'_>, general: &ClientLimits) -> ListenerDraft {
    section.demand("name", "a name of your choice, unique among the listeners");
    section.demand("bind", "a list of addresses with ports, [\"203.0.113.10:25\"]");
    section.demand("clients", "a list of networks that may connect, [\"10.1.0.0/16\"]");
    let relay = relay(&mut section);
    let extensions_absent = Extensions::of(relay.value);
    let absent = if relay.value == Relay::Any { general.none() } else { general.clone() };
    let mut own = section.section("limits");
    let limits = client_limits(&mut own, &absent);
    own.finish();
    let networks = |list: Option<Vec<At<Network>>>| list.into_iter().flatten().map(|at| at.value).collect();
    let draft = ListenerDraft {
        name: section.text("name", value::label),
        bind: section.list("bind", value::socket).unwrap_or_default(),
        clients: section.list("clients", value::network).unwrap_or_default(),
        relay,
        tls: tls_mode(&mut section),
        extensions: extensions(section.section("extensions"), extensions_absent),
        auth: section.flag("auth"),
        own_tls: tls(section.section("own_tls")),
        limits,
        proxy: networks(section.list("proxy", value::network)),
        xclient: networks(section.list("xclient", value::network)),
        line_endings: section
            .choice("line_endings", &[("strict", LineEndings::Strict), ("repair", LineEndings::Repair)])
            .map_or_else(LineEndings::default, |at| at.value),
        binarymime: section.flag("binarymime").is_some_and(|at| at.value),
        cut_through: cut_through::of_listener(&mut section),
    };
    section.refuse_empty("bind");
    section.refuse_empty("clients");
    section.finish();
    draft
}

fn extensions(mut section: Section<'_>, absent: Extensions) -> Extensions {
    let mut flag = |key, absent| section.flag(key).map_or(absent, |at| at.value);
    let extensions = Extensions {
        dsn: flag("dsn", absent.dsn),
        smtputf8: flag("smtputf8", absent.smtputf8),
        mt_priority: flag("mt_priority", absent.mt_priority),
        deliver_by: flag("deliver_by", absent.deliver_by),
        deliver_by_min: section
            .duration("deliver_by_min", SECOND..=DAY)
            .map_or(absent.deliver_by_min, |at| at.value),
        hold_max: section
            .duration("hold_max", Duration::ZERO..=60 * DAY)
            .map_or(absent.hold_max, |at| at.value),
    };
    section.finish();
    extensions
}

fn relay(section: &mut Section<'_>) -> At<Relay> {
    let words = [("accepted", Relay::Accepted), ("any", Relay::Any), ("authenticated", Relay::Authenticated)];
    section.choice("relay", &words).unwrap_or(At { value: Relay::Accepted, line: section.line })
}

fn tls_mode(section: &mut Section<'_>) -> At<TlsMode> {
    let words = [
        ("off", TlsMode::Off),
        ("offer", TlsMode::Offer),
        ("require", TlsMode::Require),
        ("implicit", TlsMode::Implicit),
    ];
    section.choice("tls", &words).unwrap_or(At { value: TlsMode::Off, line: section.line })
}

/// `general`: what holds for a route without its own.
pub(super) fn route(
    mut section: Section<'_>,
    (general, general_tls, general_rates): (&Retry, &OutwardTls, Rates),
    (delivery, timeouts): (&Delivery, &Timeouts),
) -> RouteDraft {
    section.demand("domains", "a list of domains, [\"winery.example\", \".winery.example\", \"*\"]");
    let hosts = routing::hosts(&mut section);
    let mx = section.flag("mx");
    let port = section.count("port", 1..=65_535);
    let resolver = section.text("resolver", value::label);
    let source = section.list("source", value::address).unwrap_or_default();
    let private_addresses = section.flag("private_addresses");
    let mut own = section.section("limits");
    let rates = pace::rates(&mut own, general_rates);
    let limits = routing::limits(&mut own, &RouteLimits::of(delivery));
    own.finish();
    let draft = RouteDraft {
        line: section.line,
        domains: section.list("domains", value::address_space).unwrap_or_default(),
        mx: mx.as_ref().is_some_and(|at| at.value),
        port: port.as_ref().and_then(|at| u16::try_from(at.value).ok()).unwrap_or(25),
        resolver_absent: !section.has("resolver"),
        resolver,
        source: source.into_iter().map(|at| at.value).collect(),
        private_addresses: private_addresses.as_ref().is_some_and(|at| at.value),
        retry: retry(section.section("retry"), general),
        tls: outward::tls(section.section("tls"), general_tls, mx.as_ref().is_some_and(|at| at.value)),
        login: outward::login(section.section("login")),
        cut_through: cut_through::of_route(&mut section),
        hosts,
        protocol: routing::protocol(&mut section),
        recipients: routing::recipients(section.section("recipients")),
        limits,
        timeouts: routing::timeouts(section.section("timeouts"), timeouts),
        rates,
        rewrite: rewrite(section.section("rewrite")),
    };
    section.refuse_empty("domains");
    section.refuse_empty("hosts");
    match (section.has("hosts"), draft.mx) {
        (true, true) => section.fault(
            mx.map_or(draft.line, |at| at.line),
            "mx",
            "stands beside hosts; allowed: either hosts (smart hosts) or mx = true (look-up)",
        ),
        (false, false) if draft.recipients.as_ref().is_some_and(|of| of.unknown == Unknown::Refuse) => {}
        (false, false) if mx.is_some() || !section.has("mx") => {
            section.fault(
                draft.line,
                "hosts",
                "is missing; allowed: hosts = [\"10.1.0.10:25\"], or mx = true",
            );
        }
        _ => {}
    }
    let has_tls = draft.tls.rule != TlsRule::None;
    if draft.login.as_ref().is_some_and(|login| !login.in_clear_text) && !has_tls {
        section.fault(
            draft.line,
            "login",
            "stands beside policy = \"none\" for TLS, and a password is not said in clear text; allowed: another policy in [route.tls], or in_clear_text = true",
        );
    }
    if draft.mx && section.has("login") {
        section.fault(
            draft.line,
            "login",
            "stands beside mx = true; allowed: on a route with hosts, for a password is for known hosts",
        );
    }
    if let (Some(port), true, false) = (port, section.has("hosts"), draft.mx) {
        section.fault(
            port.line,
            "port",
            "stands beside hosts; allowed: the port in each host, \"10.1.0.10:25\"",
        );
    }
    if let (Some(private), true, false) = (private_addresses, section.has("hosts"), draft.mx) {
        section.fault(
            private.line,
            "private_addresses",
            "stands beside hosts, which may be at any address; allowed: with mx = true",
        );
    }
    routing::check(&section, &draft);
    section.finish();
    draft
}

pub(super) fn resolver(mut section: Section<'_>) -> ResolverDraft {
    section.demand("name", "a name of your choice, unique among the resolvers");
    section.demand("servers", "a list of DNS servers, [\"10.1.0.2:53\"]");
    let servers = section.list("servers", value::dns_server).unwrap_or_default();
    let words = [("off", Dnssec::Off), ("trust-ad", Dnssec::TrustAd), ("validate", Dnssec::Validate)];
    let dnssec = section.choice("dnssec", &words).map_or(Dnssec::Off, |at| at.value);
    let draft = ResolverDraft {
        name: section.text("name", value::label),
        servers: servers.into_iter().map(|at| at.value).collect(),
        dnssec,
        trust_anchors: trust_anchors(&mut section, dnssec),
    };
    section.refuse_empty("servers");
    section.finish();
    draft
}

/// Read here, so that a bad file is found by `sluice check` and not at the first answer.
fn trust_anchors(section: &mut Section<'_>, dnssec: Dnssec) -> Option<PathBuf> {
    let file = section.text("trust_anchors", path)?;
    if dnssec != Dnssec::Validate {
        let wrong = "means nothing unless the relay validates; allowed: with dnssec = \"validate\"";
        section.fault(file.line, "trust_anchors", wrong);
    } else if section.reads_files()
        && let Err(sentence) = servers::trust_anchors(&file.value)
    {
        section.fault(file.line, "trust_anchors", sentence);
    }
    Some(file.value)
}

pub(super) fn path(text: &str) -> Result<PathBuf, value::Wrong> {
    if text.is_empty() || text.contains('\0') {
        return Err("is empty; allowed: a path".to_owned());
    }
    Ok(PathBuf::from(text))
}
