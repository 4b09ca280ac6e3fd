//! The resolved configuration: plain data, every default filled in, every cross-reference checked.
//!
//! Made once by [`Config::load`](super::Config::load), immutable from then on and shared between all
//! threads behind an `Arc`. `default.rs` holds the defaults, `engine/relay.toml` tells each key's meaning,
//! default and cost.

use super::{
    ClientLimits, CutThrough, CutThroughMode, Dsn, LoadMarks, Rates, RouteCutThrough, SiteRule, WarmUp,
};
use crate::delivery::backoff;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::auth::Auth;
use super::routing::{BalancedHost, NextHops, Protocol, Recipients, RouteLimits};
use crate::rewrite::Rules;
use crate::rewrite::srs::Srs;

/// Everything that an administrator decides.
#[derive(Clone, Debug)]
pub struct Config {
    pub hostname: String,
    pub postmaster: String,
    pub spool: Spool,
    pub shards: Shards,
    pub domains: Domains,
    pub retry: Retry,
    pub limits: Limits,
    pub load: LoadMarks,
    pub timeouts: Timeouts,
    pub delivery: Delivery,
    pub cut_through: CutThrough,
    pub mta_sts: MtaSts,
    pub tls_report: Option<TlsReport>,
    /// The operator's own, then the built-in ones; the first that fits holds.
    pub sites: Vec<SiteRule>,
    /// Likewise.
    pub backoff: Vec<backoff::Rule>,
    pub warm_ups: Vec<WarmUp>,
    pub tls: Option<Tls>,
    pub auth: Option<Auth>,
    pub dsn: Dsn,
    /// Return addresses for forwarded mail.
    pub srs: Option<Arc<Srs>>,
    pub admin: Admin,
    pub log: Log,
    pub listeners: Vec<Listener>,
    pub routes: Vec<Route>,
    pub next_hops: NextHops,
    pub resolvers: Vec<Resolver>,
}

#[derive(Clone, Debug)]
pub struct Spool {
    pub path: PathBuf,
    /// Size of one segment file. Default 64 MiB.
    pub segment_bytes: u64,
    /// Segment files of all shards together; 0: no quota. Default 0.
    pub bytes_max: u64,
    /// With less room than this new mail is slowed down; 0: never. Default 1 GiB.
    pub slow_bytes_min: u64,
    /// The most that a reply to DATA is held back then. Default 1 s.
    pub slow_delay_max: Duration,
    /// With less room than this new mail gets 452 4.3.1. Default 256 MiB.
    pub free_bytes_min: u64,
    /// With fewer inodes free than this, too. Default 100.
    pub free_inodes_min: u64,
    /// A write that takes longer hangs: who waits for it gets 451 4.3.0. Default 60 s.
    pub write_wait: Duration,
    /// Fresh messages handed to the delivery shards in memory, in all; past it they are read back. Default 64 MiB.
    pub handover_bytes_max: u64,
    /// Percent of the time that compaction may write. Default 10.
    pub compaction_share: u32,
}

#[derive(Clone, Debug)]
pub struct Shards {
    /// CPU numbers, in order, never empty; one as often as it has shards.
    pub ingest_cpus: Vec<usize>,
    pub delivery_cpus: Vec<usize>,
    /// Of the service thread and of all others that are no shards. Default: none, which is wherever the process may run.
    pub service_cpus: Vec<usize>,
    /// How long a shard without work looks for more before it sleeps. Default 0.
    pub spin: Duration,
}

#[derive(Clone, Debug)]
pub struct Domains {
    /// Lower case, without a trailing dot.
    pub accepted: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    pub first: Duration,
    pub longest: Duration,
    pub expire: Duration,
    pub notice: Duration,
    /// How old mail gets that waits for a next hop that is down. Default: as `expire`.
    pub expire_down: Duration,
}

/// Bounds of the receiving side, each with the failure that it prevents.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Announced by SIZE (RFC 1870). Default 64 MiB.
    pub message_bytes_max: u64,
    /// Recipients of one transaction; RFC 5321 4.5.3.1.8 asks for at least 100. Default 1,000.
    pub recipients_max: usize,
    /// Octets of a content line without its CRLF (RFC 5321 4.5.3.1.6). Default 998.
    pub line_bytes_max: usize,
    /// Octets of the header section of a message. Default 256 KiB.
    pub header_bytes_max: u64,
    /// Received fields before a message counts as looping (RFC 5321 6.3). Default 50.
    pub received_max: usize,
    /// Errors in one session before it is closed with 421. Default 20.
    pub errors_max: usize,
    /// Sessions of one ingest shard; past it a client gets 421 4.7.0... Default 20,000.
    pub sessions_max: usize,
    /// Messages of one session before it is closed with 421. Default 100,000.
    pub transactions_max: usize,
}

/// RFC 5321 section 4.5.3.2.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// Server: waiting for the next command. Default 5 min.
    pub command: Duration,
    /// Server: waiting for the next piece of content. Default 3 min.
    pub content: Duration,
    /// A TLS handshake, from its first octet to its last. Default 30 s.
    pub handshake: Duration,
    /// The header of the PROXY protocol, likewise. Default 10 s.
    pub proxy_header: Duration,
    /// Client: TCP connection. Default 30 s.
    pub connect: Duration,
    /// Client: greeting. Default 5 min.
    pub greeting: Duration,
    /// Client: EHLO, MAIL, RCPT, RSET, QUIT. Default 5 min.
    pub reply: Duration,
    /// Client: DATA → 354. Default 2 min.
    pub data: Duration,
    /// Client: one block of content. Default 3 min.
    pub block: Duration,
    /// Client: end-of-data → reply. Default 10 min.
    pub end_of_data: Duration,
}

#[derive(Clone, Debug)]
pub struct Delivery {
    /// Addresses by which this relay is reached besides those it listens on, as of a NAT in front of it.
    pub own_addresses: Vec<IpAddr>,
    /// Connections to one next hop, over all shards. Default 20.
    pub connections_max: usize,
    /// Connections to all next hops together. Prevents next hops that answer slowly from taking all
    /// descriptors. Default 2,000.
    pub connections_total_max: usize,
    /// Messages sent over one connection. Default 1,000.
    pub messages_per_connection_max: usize,
    /// A connection older than this takes no further message. Default 5 min.
    pub connection_age_max: Duration,
    /// An unused connection is closed with QUIT after this. Default 5 s.
    pub idle: Duration,
    /// Content goes by BDAT to hosts that offer CHUNKING (RFC 3030). Default true.
    pub chunking: bool,
    /// Recipients in one transaction; the rest goes in the next. Default 100 (RFC 5321 4.5.3.1.8).
    pub recipients_max: usize,
    /// SIGTERM: how long open transactions may go on. Default 20 s.
    pub drain: Duration,
    /// To one receiving site, for routes that do not say otherwise. Default: no limit.
    pub rates: Rates,
}

/// How policies of MTA-STS are fetched (RFC 8461 section 3.3).
#[derive(Clone, Debug)]
pub struct MtaSts {
    /// Default 443.
    pub port: u16,
    /// Who may have issued the certificates of policy hosts. Default: the system's authorities.
    pub authorities: Option<PathBuf>,
    /// One fetch, from the look-up of the name to the last octet. Default 60 s.
    pub timeout: Duration,
}

/// Reports on TLS to the domains that ask for them (RFC 8460).
#[derive(Clone, Debug)]
pub struct TlsReport {
    /// Default: the hostname.
    pub organization: String,
    /// Default: the postmaster.
    pub contact: String,
    /// The author and sender of reports. Default: the postmaster.
    pub from: String,
    /// Default a day.
    pub period: Duration,
    /// Reports go within this long after the period. Default 4 h.
    pub spread: Duration,
    /// Who may have issued the certificates of hosts that take reports by HTTPS. Default: the system's
    /// authorities.
    pub authorities: Option<PathBuf>,
    /// For a route whose peers DANE or MTA-STS raises, the one that takes reports: it is the same without these.
    pub routes: Vec<(usize, usize)>,
}

/// What a listener shows of itself in TLS, and what it asks of its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Shown to every client that asks for no other name.
    pub pair: CertificatePair,
    /// Shown to clients that ask for one of their names (RFC 6066 section 3).
    pub named: Vec<NamedPair>,
    pub minimum: TlsVersion,
    /// Whether sessions can be resumed. Default true.
    pub tickets: bool,
    pub clients: ClientCertificates,
}

/// A certificate chain and its private key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificatePair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPair {
    /// Lower case; `*.example.com` stands for one label.
    pub names: Vec<String>,
    pub pair: CertificatePair,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// Certificates of clients; the file holds the authorities that may have issued them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    Off,
    /// Asked for; whether it is a good one is noted in the log and in Received.
    Ask(PathBuf),
    /// Without a good one there is no session.
    Require(PathBuf),
}

#[derive(Clone, Debug)]
pub struct Admin {
    /// `None` with `bind = ""`: no TCP listener. The socket `admin.sock` in the spool is always there.
    pub bind: Option<SocketAddr>,
}

#[derive(Clone, Debug)]
pub struct Log {
    /// `None`: standard error.
    pub file: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct Listener {
    pub name: String,
    pub bind: Vec<SocketAddr>,
    pub clients: Vec<Network>,
    pub relay: Relay,
    pub tls: TlsMode,
    pub extensions: Extensions,
    /// Whether AUTH is offered, within TLS.
    pub auth: bool,
    pub line_endings: LineEndings,
    /// Takes and announces BINARYMIME (RFC 3030). Default false.
    pub binarymime: bool,
    /// Its own `[listener.own_tls]`, else the general `[tls]`. There whenever `tls` is not off.
    pub certificates: Option<Tls>,
    /// What one client may take.
    pub limits: ClientLimits,
    /// Load balancers that begin each connection with a header of the PROXY protocol.
    pub proxy: Vec<Network>,
    /// Clients that may use XCLIENT.
    pub xclient: Vec<Network>,
    /// What the next hop is asked while the client waits, as far as the route allows. Default off.
    pub cut_through: CutThroughMode,
}

/// The service extensions of a listener that an administrator decides about. Defaults by
/// [`Extensions::of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions {
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 6710.
    pub mt_priority: bool,
    /// RFC 2852.
    pub deliver_by: bool,
    /// The least that a client may ask for when the message is to be returned in the end.
    pub deliver_by_min: Duration,
    /// RFC 4865: how far ahead a client may ask for release; zero: not offered.
    pub hold_max: Duration,
}

/// What a listener does with bare CR, bare LF and NUL in content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LineEndings {
    /// Such a message is refused.
    #[default]
    Strict,
    /// They become CRLF, NUL is left out.
    Repair,
}

/// Who may send where through a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relay {
    /// The organisation's own domains only; any domain after AUTH.
    Accepted,
    /// Any domain.
    Any,
    /// Any domain after AUTH; before it nothing.
    Authenticated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    Off,
    Offer,
    Require,
    Implicit,
}

/// An address prefix such as `10.1.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    pub address: IpAddr,
    pub prefix: u8,
}

#[derive(Clone, Debug)]
pub struct Route {
    /// Lower case; `*` matches everything, `.example.com` everything below.
    pub domains: Vec<String>,
    pub target: Target,
    pub resolver: Option<usize>,
    /// Connections go out from these addresses, by family and in turn; without one of a family the kernel
    /// chooses.
    pub source: Vec<IpAddr>,
    /// MX hosts at private, loopback and link-local addresses are taken. Default false.
    pub private_addresses: bool,
    /// A route's own schedule, or the general one.
    pub retry: Retry,
    /// A route's own demands, or the general ones.
    pub tls: OutwardTls,
    /// Who the relay is to these smart hosts (RFC 4954).
    pub login: Option<Arc<Login>>,
    pub cut_through: RouteCutThrough,
    pub protocol: Protocol,
    /// Which host holds the mailbox of a recipient.
    pub recipients: Option<Recipients>,
    /// A route's own bounds, or those of `[delivery]`.
    pub limits: RouteLimits,
    /// A route's own, or the general ones.
    pub timeouts: Timeouts,
    /// To one receiving site of the route.
    pub rates: Rates,
    /// What is changed about messages that go out here.
    pub rewrite: Option<Rules>,
}

/// A name and what proves it.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: String,
    /// Also over a connection without TLS. Default false.
    pub in_clear_text: bool,
}

/// Without the password, so that no log gets it by accident.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What the relay demands of its peers' TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutwardTls {
    pub rule: TlsRule,
    /// The names of which the peer's certificate must have one. Never empty with [`TlsRule::Verify`].
    pub names: Vec<PeerName>,
    /// SHA-256 of the peer's certificate. Never empty with [`TlsRule::Fingerprint`].
    pub fingerprints: Vec<[u8; 32]>,
    /// Who may have issued the peer's certificate. Default: the system's authorities, where it has some.
    pub authorities: Option<PathBuf>,
    /// Default TLS 1.2.
    pub minimum: TlsVersion,
    /// From the first octet, without STARTTLS (RFC 8314). Default false.
    pub implicit: bool,
    /// The relay's own, for peers that ask for one.
    pub certificate: Option<CertificatePair>,
    /// What the peers' TLSA records say counts (RFC 7672), with the rules that [`TlsRule::can_be_raised`] names.
    /// Never where the resolver of the route tells nothing of DNSSEC. Default true.
    pub dane: bool,
    /// What the recipient's domain demands by MTA-STS counts (RFC 8461), on routes with MX and with the same
    /// rules. Default false.
    pub mta_sts: bool,
}

impl Config {
    /// Reports on TLS go by routes of their own, known by their sender.
    pub fn route_of_sender(&self, route: u16, sender: &str) -> u16 {
        let Some(report) = self.tls_report.as_ref().filter(|report| report.from == sender) else {
            return route;
        };
        let twin = report.routes.iter().find(|(of, _)| *of == usize::from(route));
        twin.map_or(route, |(_, twin)| *twin as u16)
    }
}

impl Route {
    /// Whether a peer of this route that is verified is for certain the one that was meant, so that the route can
    /// keep what REQUIRETLS asks (RFC 8689 section 4.2.1): its name must not come from a look-up that anybody can
    /// forge.
    pub fn verifies_for_certain(&self) -> bool {
        let looked_up = matches!(self.target, Target::Mx { .. });
        match self.tls.rule {
            TlsRule::None | TlsRule::May | TlsRule::Encrypt | TlsRule::Dane => false,
            TlsRule::Fingerprint | TlsRule::DaneOnly => true,
            TlsRule::Verify => !looked_up || !self.tls.names.contains(&PeerName::Host),
        }
    }

    /// Whether some peer of this route can turn out to be the one that was meant, so that REQUIRETLS may be
    /// announced: by the rule, by DNSSEC, or by MTA-STS (RFC 8689 section 4.2.1).
    pub fn can_verify_for_certain(&self) -> bool {
        self.verifies_for_certain() || self.tls.rule.can_be_raised() && (self.tls.dane || self.tls.mta_sts)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsRule {
    /// Never.
    None,
    /// Where the peer offers it; in clear text where that fails. Default.
    May,
    /// Nothing without it; any certificate.
    Encrypt,
    /// As [`TlsRule::May`], with the assurance that DANE can be used (RFC 7672).
    Dane,
    /// Nothing without TLSA records that vouch for the peer.
    DaneOnly,
    /// Nothing without a certificate of a known authority for one of the names.
    Verify,
    /// Nothing without one of these certificates.
    Fingerprint,
}

impl TlsRule {
    /// Whether what the receiving side announces (DANE, MTA-STS) can make it stricter. The operator's own
    /// demands of a certificate are not touched.
    pub fn can_be_raised(self) -> bool {
        matches!(self, Self::May | Self::Encrypt | Self::Dane | Self::DaneOnly)
    }
}

/// A name that a peer's certificate may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerName {
    /// `@host`: of the host that is connected to. As safe as the look-up that led to it.
    Host,
    /// `@domain`: the recipient's domain.
    Domain,
    Name(String),
}

#[derive(Clone, Debug)]
pub enum Target {
    /// `hosts = […]`, in the order of their priorities. Empty only where a table holds every recipient.
    SmartHosts(Vec<BalancedHost>),
    /// `mx = true`.
    Mx { port: u16 },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SmartHost {
    /// A name or an address literal without brackets; with LMTP also `unix:` and the path of a socket.
    pub host: String,
    pub port: u16,
}

#[derive(Clone, Debug)]
pub struct Resolver {
    pub name: String,
    pub servers: Vec<SocketAddr>,
    pub dnssec: Dnssec,
    /// A file of DNSKEY records; `None`: the keys of the root zone.
    pub trust_anchors: Option<PathBuf>,
}

/// Who decides whether an answer is authentic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dnssec {
    /// Nobody: no answer counts as authentic.
    Off,
    /// The servers, by the AD bit (RFC 6840 section 5.7).
    TrustAd,
    /// The relay, by the signatures (RFC 4035).
    Validate,
}
