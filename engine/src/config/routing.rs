//! What a `[[route]]` says beyond the RFC's words: smart hosts with weights, per-recipient tables, LMTP, limits and
//! time-outs of its own; and `[next_hops]`, to whom the relay may connect at all.
//!
//! Types, defaults and reading of these keys. Plain data, but for the table of recipients, whose handle this holds
//! and whose content follows its file.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::auth::{self, Server};
use super::document::{At, Section};
use super::read::RouteDraft;
use super::types::{Delivery, Network, SmartHost, Timeouts, TlsRule};
use super::value::{self, Wrong};
use crate::recipients::file::RecipientFile;

/// The path of a socket in the file system; the kernel takes no longer one (`sun_path`).
const SOCKET_PATH_OCTETS_MAX: usize = 107;
/// Weights are small numbers, so that sums stay small too.
const WEIGHT_MAX: u32 = 10_000;
const SECOND: Duration = Duration::from_secs(1);
const SHORTEST: Duration = Duration::from_millis(100);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// A smart host among the others of its route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalancedHost {
    pub host: SmartHost,
    /// Hosts with a higher number are used when all with a lower one fail.
    pub priority: u16,
    /// Its share of the mail among those of its priority; 0: only what the others cannot take.
    pub weight: u32,
}

impl SmartHost {
    /// The socket of a host that is reached in the file system: `unix:/run/dovecot/lmtp`.
    pub fn socket(&self) -> Option<&str> {
        self.host.strip_prefix("unix:")
    }
}

/// What is spoken with the hosts of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    #[default]
    Smtp,
    /// RFC 2033: one reply for each recipient.
    Lmtp,
}

/// Bounds of one route; those of `[delivery]` where it has none of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteLimits {
    pub connections_max: usize,
    pub messages_per_connection_max: usize,
    pub recipients_max: usize,
}

impl RouteLimits {
    pub fn of(delivery: &Delivery) -> Self {
        Self {
            connections_max: delivery.connections_max,
            messages_per_connection_max: delivery.messages_per_connection_max,
            recipients_max: delivery.recipients_max,
        }
    }
}

/// Which server holds the mailbox of a recipient.
#[derive(Clone, Debug)]
pub struct Recipients {
    pub table: Table,
    pub unknown: Unknown,
    /// What stands behind this in a local part is not looked at. Default `+`.
    pub detail: Option<char>,
}

#[derive(Clone, Debug)]
pub enum Table {
    File(Arc<RecipientFile>),
    Ldap(Arc<LdapTable>),
}

/// What becomes of a recipient that the table does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The route's hosts get it.
    Hosts,
    /// 5.1.1.
    Refuse,
}

/// A directory that is asked for each recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LdapTable {
    pub server: Server,
    pub starttls: bool,
    pub authorities: Option<PathBuf>,
    pub base: String,
    /// `{recipient}` stands for the address.
    pub filter: String,
    pub bind_dn: String,
    pub bind_password_file: Option<PathBuf>,
    /// The attribute with the host. Default `mailHost`.
    pub attribute: String,
    /// How long an answer may take. Default 5 s.
    pub patience: Duration,
    /// How long an answer is kept. Default 5 min.
    pub keep: Duration,
    /// The same of the answer that there is no such recipient. Default 1 min.
    pub keep_absent: Duration,
}

/// To whom the relay may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NextHops {
    /// Empty: everybody who is not denied.
    pub allow: Vec<HopPattern>,
    pub deny: Vec<HopPattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HopPattern {
    Network(Network),
    /// A domain of recipients, or the name of a host: as `route.domains`.
    Name(String),
}

impl fmt::Display for HopPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => write!(f, "{network}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

pub(super) fn next_hops(mut section: Section<'_>) -> NextHops {
    let mut list = |key| {
        let given: Option<Vec<At<HopPattern>>> = section.list(key, hop_pattern);
        given.into_iter().flatten().map(|at| at.value).collect()
    };
    let lists = NextHops { allow: list("allow"), deny: list("deny") };
    section.finish();
    lists
}

fn hop_pattern(text: &str) -> Result<HopPattern, Wrong> {
    if text.contains('/') || text.parse::<IpAddr>().is_ok() {
        return value::network(text).map(HopPattern::Network);
    }
    value::address_space(text).map(HopPattern::Name).map_err(|_| {
        format!("\"{text}\" is not a next hop; allowed: a network (10.1.0.0/16), an address, a domain or host (away.example), everything below one (.away.example)")
    })
}

/// `hosts`, as a list of strings, each tried when those before it fail, or as tables with weights.
pub(super) fn hosts(section: &mut Section<'_>) -> Vec<At<BalancedHost>> {
    if !section.holds_tables("hosts") {
        let hosts = section.list("hosts", smart_host).unwrap_or_default();
        let in_order = (0..=u16::MAX).zip(hosts);
        return in_order
            .map(|(priority, At { value: host, line })| At {
                value: BalancedHost { host, priority, weight: 1 },
                line,
            })
            .collect();
    }
    let hosts: Vec<_> = section.sections("hosts").into_iter().filter_map(balanced_host).collect();
    let first = hosts.iter().map(|at| at.value.priority).min();
    let idle = hosts.iter().filter(|at| Some(at.value.priority) == first).all(|at| at.value.weight == 0);
    if let (true, Some(at)) = (idle, hosts.first()) {
        section.fault(
            at.line,
            "hosts",
            "no host of the first priority has a weight above 0; allowed: at least one",
        );
    }
    hosts
}

fn balanced_host(mut section: Section<'_>) -> Option<At<BalancedHost>> {
    section.demand("host", "\"10.1.0.10:25\"");
    let host = section.text("host", smart_host);
    let weight = section.count("weight", 0..=WEIGHT_MAX).map_or(1, |at| at.value);
    let priority = section.count("priority", 0..=u32::from(u16::MAX)).map_or(0, |at| at.value);
    let line = section.line;
    section.finish();
    let priority = u16::try_from(priority).unwrap_or(u16::MAX);
    Some(At { value: BalancedHost { host: host?.value, priority, weight }, line })
}

/// A host, or `unix:` and the absolute path of a socket.
pub(crate) fn smart_host(text: &str) -> Result<SmartHost, Wrong> {
    let Some(path) = text.strip_prefix("unix:") else { return value::smart_host(text) };
    let sound = path.starts_with('/') && path.len() <= SOCKET_PATH_OCTETS_MAX;
    if !sound || path.contains(|c: char| c.is_control() || c.is_whitespace() || c == ',') {
        return Err(format!(
            "\"{text}\" is not a socket; allowed: unix: and an absolute path of at most {SOCKET_PATH_OCTETS_MAX} octets, unix:/run/dovecot/lmtp"
        ));
    }
    Ok(SmartHost { host: text.to_owned(), port: 0 })
}

pub(super) fn protocol(section: &mut Section<'_>) -> Protocol {
    let words = [("smtp", Protocol::Smtp), ("lmtp", Protocol::Lmtp)];
    section.choice("protocol", &words).map_or(Protocol::Smtp, |at| at.value)
}

/// The rates of the section are read elsewhere.
pub(super) fn limits(section: &mut Section<'_>, absent: &RouteLimits) -> RouteLimits {
    let mut count =
        |key, range, absent: usize| section.count(key, range).map_or(absent, |at| at.value as usize);
    RouteLimits {
        connections_max: count("connections_max", 1..=10_000, absent.connections_max),
        messages_per_connection_max: count(
            "messages_per_connection_max",
            1..=u32::MAX,
            absent.messages_per_connection_max,
        ),
        recipients_max: count("recipients_max", 1..=100_000, absent.recipients_max),
    }
}

pub(super) fn timeouts(mut section: Section<'_>, general: &Timeouts) -> Timeouts {
    let mut time = |key, absent| section.duration(key, SHORTEST..=HOUR).map_or(absent, |at| at.value);
    let timeouts = Timeouts {
        handshake: time("handshake", general.handshake),
        connect: time("connect", general.connect),
        greeting: time("greeting", general.greeting),
        reply: time("reply", general.reply),
        data: time("data", general.data),
        block: time("block", general.block),
        end_of_data: time("end_of_data", general.end_of_data),
        ..general.clone()
    };
    section.finish();
    timeouts
}

/// `[route.recipients]`; `None`: there is none, or it is wrong and that is noted.
pub(super) fn recipients(mut section: Section<'_>) -> Option<Recipients> {
    let file = section.text("file", super::read::path);
    let words = [("hosts", Unknown::Hosts), ("refuse", Unknown::Refuse)];
    let unknown = section.choice("unknown", &words).map_or(Unknown::Hosts, |at| at.value);
    let detail = section.text("detail", detail).map_or(Some('+'), |at| at.value);
    let directory = section.section("ldap");
    let has_directory = directory.is_present();
    let directory = ldap(directory);
    if !section.is_present() {
        return None;
    }
    if section.has("file") == has_directory {
        section.fault(
            section.line,
            "file",
            "is missing, or stands beside [route.recipients.ldap]; allowed: either file = \"/etc/sluice/recipients\", or [route.recipients.ldap]",
        );
    }
    let table = match file {
        Some(file) => {
            let opened = match section.reads_files() {
                true => RecipientFile::open(&file.value).and_then(|table| with_entries(table, unknown)),
                false => Ok(RecipientFile::absent(&file.value)),
            };
            opened
                .map_err(|sentence| section.fault(file.line, "file", sentence))
                .ok()
                .map(|table| Table::File(Arc::new(table)))
        }
        None => directory.map(|directory| Table::Ldap(Arc::new(directory))),
    };
    section.finish();
    Some(Recipients { table: table?, unknown, detail })
}

/// A table of nobody that refuses who is not in it would refuse all mail.
fn with_entries(table: RecipientFile, unknown: Unknown) -> Result<RecipientFile, Wrong> {
    let is_empty = table.now().is_some_and(|table| table.is_empty());
    match is_empty && unknown == Unknown::Refuse {
        false => Ok(table),
        true => Err(format!(
            "{} has no entries, and with unknown = \"refuse\" all mail of this route would be refused; allowed: at least one line, such as ann@winery.example, or unknown = \"hosts\"",
            table.path().display()
        )),
    }
}

fn detail(text: &str) -> Result<Option<char>, Wrong> {
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (None, _) => Ok(None),
        (Some(c @ ('+' | '-' | '=' | '_' | '#')), None) => Ok(Some(c)),
        _ => Err(format!(
            "\"{text}\" is not a separator; allowed: \"+\", \"-\", \"=\", \"_\", \"#\", or \"\" for none"
        )),
    }
}

fn ldap(mut section: Section<'_>) -> Option<LdapTable> {
    let url = section.text("url", auth::directory_server);
    let starttls = section.flag("starttls").is_some_and(|at| at.value);
    let authorities = section.text("authorities", super::read::path).map(|at| at.value);
    let base = section.text("base", |text| Ok(text.to_owned()));
    let filter = section.text("filter", |text| match text.contains("{recipient}") {
        true => Ok(text.to_owned()),
        false => Err(format!("\"{text}\" does not say where the recipient stands; allowed: a filter with {{recipient}} in it, (mail={{recipient}})")),
    });
    let bind_dn = section.text("bind_dn", |text| Ok(text.to_owned()));
    let bind_password_file = section.text("bind_password_file", super::read::path).map(|at| at.value);
    let attribute = section.text("attribute", |text| Ok(text.to_owned()));
    let mut time = |key, range, absent| section.duration(key, range).map_or(absent, |at| at.value);
    let patience = time("patience", SHORTEST..=60 * SECOND, 5 * SECOND);
    let keep = time("keep", Duration::ZERO..=DAY, 300 * SECOND);
    let keep_absent = time("keep_absent", Duration::ZERO..=DAY, 60 * SECOND);
    if !section.is_present() {
        return None;
    }
    section.demand("url", "the directory, ldaps://ldap.winery.example or ldap://10.1.0.3");
    section.demand("base", "where the search begins, ou=people,dc=winery,dc=example");
    let server = url?.value;
    let loopback = server.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if server.tls && starttls {
        section.fault(
            section.line,
            "starttls",
            "means nothing with ldaps; allowed: ldap:// with starttls = true, or ldaps://",
        );
    }
    if !server.tls && !starttls && !loopback && bind_password_file.is_some() {
        section.fault(section.line, "url", "would send the password in clear text; allowed: ldaps://, starttls = true, a loopback address, or no password");
    }
    if (server.tls || starttls) && authorities.is_none() {
        section.fault(section.line, "authorities", "is missing; allowed: the PEM file of the authorities that have issued the directory's certificate");
    }
    auth::check_authorities(&section, authorities.as_ref());
    section.finish();
    Some(LdapTable {
        server,
        starttls,
        authorities,
        base: base?.value,
        filter: filter.map_or_else(|| "(mail={recipient})".into(), |at| at.value),
        bind_dn: bind_dn.map(|at| at.value).unwrap_or_default(),
        bind_password_file,
        attribute: attribute.map_or_else(|| "mailHost".into(), |at| at.value),
        patience,
        keep,
        keep_absent,
    })
}

/// What the protocol and the table of a route cannot stand beside.
pub(super) fn check(section: &Section<'_>, draft: &RouteDraft) {
    let lmtp = draft.protocol == Protocol::Lmtp;
    if draft.mx && lmtp {
        let wrong = "stands beside mx = true, and LMTP does not leave the house (RFC 2033 section 5); allowed: with hosts";
        section.fault(section.line, "protocol", wrong);
    }
    if draft.mx && draft.recipients.is_some() {
        let wrong = "stands beside mx = true; allowed: with hosts, or with unknown = \"refuse\"";
        section.fault(section.line, "recipients", wrong);
    }
    if let Some(Recipients { table: Table::File(file), .. }) = &draft.recipients
        && draft.hosts.is_empty()
        && !section.has("hosts")
        && !draft.mx
        && file.now().is_some_and(|table| table.needs_route_hosts())
    {
        let wrong = format!(
            "is missing: {} has addresses without a host, which are for the route's hosts; allowed: hosts = [\"10.1.0.10:25\"], or a host in every line",
            file.path().display()
        );
        section.fault(section.line, "hosts", wrong);
    }
    for At { value: BalancedHost { host, .. }, line } in &draft.hosts {
        if host.socket().is_some() && !lmtp {
            section.fault(
                *line,
                "hosts",
                format!("{} is a socket; allowed: with protocol = \"lmtp\"", host.host),
            );
        }
        if lmtp && host.port == 25 {
            let wrong = format!(
                "{}: port 25 is SMTP's (RFC 2033 section 5); allowed: another port, such as {0}:24, or unix:/run/dovecot/lmtp",
                host.host
            );
            section.fault(*line, "hosts", wrong);
        }
        let demanding = !matches!(draft.tls.rule, TlsRule::None | TlsRule::May) || draft.tls.implicit;
        if host.socket().is_some() && demanding {
            let wrong = format!(
                "{}: there is no TLS over a socket of this host; allowed: policy = \"none\" or \"may\" in [route.tls]",
                host.host
            );
            section.fault(*line, "hosts", wrong);
        }
    }
}
