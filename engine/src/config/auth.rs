//! `[auth]`: who verifies logins, how they prove themselves, what they may send, and what guessing costs.
//!
//! Types, defaults and reading of this section; `check.rs` compares it with the listeners.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::document::{At, Section};
use super::value::{self, Wrong};
use crate::smtp::sasl::Mechanism;
use crate::smtp::sasl::scram::{ITERATIONS_MAX, ITERATIONS_MIN};

/// AUTH as the administrator wants it.
#[derive(Clone, Debug)]
pub struct Auth {
    pub backend: Backend,
    /// Who verifies bearer tokens.
    pub token: Option<Introspection>,
    /// Those that the back ends can carry, unless fewer are listed.
    pub mechanisms: Vec<Mechanism>,
    /// Completes a login without a domain to the address that it may send from.
    pub domain: String,
    /// Whether a login may send from its own addresses only. Default true.
    pub bind_senders: bool,
    /// Further addresses of logins.
    pub senders: Option<PathBuf>,
    /// How long a back end may take. Default 10 s.
    pub patience: Duration,
    /// Index of the resolver that looks up the hosts of back ends.
    pub resolver: Option<usize>,
    pub guessing: Guessing,
    pub limits: LoginLimits,
    pub password: PasswordPolicy,
}

/// Who verifies passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Nobody: tokens only.
    None,
    File(PathBuf),
    Ldap(Box<Ldap>),
    /// The path of Dovecot's `auth-client` socket.
    Dovecot(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ldap {
    pub server: Server,
    pub starttls: bool,
    /// PEM file of the authorities that have issued the server's certificate.
    pub authorities: Option<PathBuf>,
    pub find: Find,
    /// Attribute with further addresses that the login may send from.
    pub addresses: Option<String>,
}

/// How an entry is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Find {
    /// `{login}` stands for the login.
    Template(String),
    Search {
        base: String,
        filter: String,
        bind_dn: String,
        bind_password_file: Option<PathBuf>,
    },
}

/// A host in a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub tls: bool,
    pub host: String,
    pub port: u16,
    /// With its slash.
    pub path: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introspection {
    pub server: Server,
    pub authorities: Option<PathBuf>,
    pub client_id: String,
    pub client_secret_file: PathBuf,
    pub scope: Option<String>,
    pub audience: Option<String>,
    /// The claim that holds the login. Default `username`.
    pub username: String,
}

/// What guessing passwords costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guessing {
    /// Failures of one login from one network before that network is locked out for that login. Default 10.
    pub failures_max: u32,
    /// Failures of all logins from one network before it is locked out for those that never came from it. Default 100.
    pub network_failures_max: u32,
    /// Default 15 min.
    pub lockout: Duration,
    /// The longest that an answer is held back. Default 8 s.
    pub delay_max: Duration,
}

/// What one login may send within an hour; 0: without limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginLimits {
    /// Default 500.
    pub messages_per_hour: u32,
    /// Default 2,000.
    pub recipients_per_hour: u32,
}

/// What `sluice user` demands of a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordPolicy {
    /// Characters. Default 12.
    pub length_min: usize,
    /// One password a line.
    pub forbidden: Option<PathBuf>,
    /// Of SCRAM verifiers; 0: none is kept, and SCRAM does not work. Default 100,000.
    pub scram_iterations: u32,
}

const SECOND: Duration = Duration::from_secs(1);

impl Default for Guessing {
    fn default() -> Self {
        Self { failures_max: 10, network_failures_max: 100, lockout: 900 * SECOND, delay_max: 8 * SECOND }
    }
}

impl Default for LoginLimits {
    fn default() -> Self {
        Self { messages_per_hour: 500, recipients_per_hour: 2_000 }
    }
}

impl Default for PasswordPolicy {
    fn default() -> Self {
        Self { length_min: 12, forbidden: None, scram_iterations: 100_000 }
    }
}

/// `[auth]` before the names in it are resolved.
pub(super) struct AuthDraft {
    /// Without `domain` and `resolver`.
    pub auth: Auth,
    pub domain: Option<String>,
    pub resolver: Option<At<String>>,
    /// The line and the key of a host that must be looked up.
    pub named: Option<(usize, &'static str)>,
}

/// `None`: there is no `[auth]`, or it is wrong and that is noted.
pub(super) fn auth(mut section: Section<'_>) -> Option<AuthDraft> {
    let present = section.is_present();
    let word = section.choice(
        "backend",
        &[("none", Word::None), ("file", Word::File), ("ldap", Word::Ldap), ("dovecot", Word::Dovecot)],
    );
    let word_line = word.as_ref().map_or(section.line, |at| at.line);
    let listed = section.list("mechanisms", mechanism);
    section.refuse_empty("mechanisms");
    let domain = section.text("domain", value::domain).map(|at| at.value);
    let bind_senders = section.flag("bind_senders").is_none_or(|at| at.value);
    let senders = section.text("senders", super::read::path).map(|at| at.value);
    let patience = section.duration("patience", SECOND..=60 * SECOND).map_or(10 * SECOND, |at| at.value);
    let resolver = section.text("resolver", value::label);
    let file = file(section.section("file"));
    let ldap = ldap(section.section("ldap"));
    let dovecot = dovecot(section.section("dovecot"));
    let (token_wanted, token) = token(section.section("token"));
    let guessing = guessing(section.section("guessing"));
    let limits = limits(section.section("limits"));
    let password = password(section.section("password"));
    if !present {
        return None;
    }
    section.demand("backend", "none, file, ldap, dovecot");
    let word = word?.value;
    let missing = |key: &str| {
        let chosen = format!("is missing: backend = \"{key}\" needs it; allowed: a section [auth.{key}]");
        section.fault(word_line, key, chosen);
    };
    let backend = match word {
        Word::None if !token_wanted => {
            section.fault(
                word_line,
                "backend",
                "\"none\" lets nobody in; allowed: \"none\" with [auth.token], file, ldap, dovecot",
            );
            None
        }
        Word::None => Some(Backend::None),
        Word::File => Some(Backend::File(file.unwrap_or_else(|| "/etc/sluice/users".into()))),
        Word::Dovecot => Some(Backend::Dovecot(dovecot.unwrap_or_else(|| "/run/dovecot/auth-client".into()))),
        Word::Ldap if !section.has("ldap") => {
            missing("ldap");
            None
        }
        Word::Ldap => ldap.map(|ldap| Backend::Ldap(Box::new(ldap))),
    }?;
    if let (Backend::File(path), true) = (&backend, section.reads_files())
        && let Err(sentence) = crate::auth::check_users(path)
    {
        section.fault(word_line, "file.path", format!("{sentence}; allowed: a password file that the relay's user may read, `sluice user add` makes it"));
    }
    if let (Some(path), true) = (&senders, section.reads_files())
        && let Err(sentence) = crate::auth::check_senders(path)
    {
        section.fault(section.line, "senders", format!("{sentence}; allowed: lines such as \"ann@winery.example sales@winery.example @cellar.example\""));
    }
    if token_wanted && token.is_none() {
        return None;
    }
    let mechanisms = mechanisms(&section, &backend, token.is_some(), password.scram_iterations > 0, listed);
    let by_name = |server: &Server| server.host.parse::<IpAddr>().is_err();
    let named = match &backend {
        Backend::Ldap(ldap) if by_name(&ldap.server) => Some((word_line, "ldap")),
        _ => token.as_ref().filter(|token| by_name(&token.server)).map(|_| (section.line, "token")),
    };
    section.finish();
    let auth = Auth {
        backend,
        token,
        mechanisms,
        domain: String::new(),
        bind_senders,
        senders,
        patience,
        resolver: None,
        guessing,
        limits,
        password,
    };
    Some(AuthDraft { auth, domain, resolver, named })
}

#[derive(Clone, Copy, PartialEq)]
enum Word {
    None,
    File,
    Ldap,
    Dovecot,
}

fn mechanism(text: &str) -> Result<Mechanism, Wrong> {
    Mechanism::find(text).ok_or_else(|| {
        let names = Mechanism::ALL.map(Mechanism::name).join(", ");
        format!("\"{text}\" is not a mechanism; allowed: {names}")
    })
}

fn mechanisms(
    section: &Section<'_>,
    backend: &Backend,
    token: bool,
    scram: bool,
    listed: Option<Vec<At<Mechanism>>>,
) -> Vec<Mechanism> {
    let carried = |mechanism: &Mechanism| match mechanism {
        Mechanism::Plain | Mechanism::Login => *backend != Backend::None,
        Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => scram && matches!(backend, Backend::File(_)),
        Mechanism::OauthBearer | Mechanism::Xoauth2 => token,
    };
    let Some(listed) = listed else { return Mechanism::ALL.into_iter().filter(carried).collect() };
    for at in listed.iter().filter(|at| !carried(&at.value)) {
        let needs = match at.value {
            Mechanism::Plain | Mechanism::Login => "a back end for passwords",
            mechanism if mechanism.is_token() => "[auth.token]",
            _ => "backend = \"file\" and password.scram_iterations above 0",
        };
        section.fault(at.line, "mechanisms", format!("{} needs {needs}", at.value.name()));
    }
    listed.into_iter().map(|at| at.value).collect()
}

fn file(mut section: Section<'_>) -> Option<PathBuf> {
    let path = section.text("path", super::read::path);
    section.finish();
    path.map(|at| at.value)
}

fn dovecot(mut section: Section<'_>) -> Option<PathBuf> {
    let path = section.text("socket", super::read::path);
    section.finish();
    path.map(|at| at.value)
}

/// `scheme://host[:port][/path]`.
fn server(text: &str, schemes: [(&str, bool, u16); 2], with_path: bool) -> Result<Server, Wrong> {
    let refuse = || {
        let path = if with_path { "/path" } else { "" };
        format!(
            "\"{text}\" is not a server; allowed: {0}://host{path}, {1}://host:port{path}",
            schemes[0].0, schemes[1].0
        )
    };
    let (scheme, rest) = text.split_once("://").ok_or_else(refuse)?;
    let (_, tls, port) = *schemes.iter().find(|(name, ..)| *name == scheme).ok_or_else(refuse)?;
    let (place, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let sound = path.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'#');
    if !sound || !with_path && path != "/" {
        return Err(refuse());
    }
    let explicit = place.rsplit_once(':').is_some_and(|(head, tail)| {
        !tail.is_empty()
            && tail.bytes().all(|octet| octet.is_ascii_digit())
            && (!head.contains(':') || head.ends_with(']'))
    });
    let host = value::smart_host(place).map_err(|_| refuse())?;
    let port = if explicit { host.port } else { port };
    Ok(Server { tls, host: host.host, port, path: path.to_owned() })
}

/// `ldaps://host`, `ldap://host:port`.
pub(super) fn directory_server(text: &str) -> Result<Server, Wrong> {
    server(text, [("ldaps", true, 636), ("ldap", false, 389)], false)
}

fn ldap(mut section: Section<'_>) -> Option<Ldap> {
    let server = section.text("url", directory_server);
    let starttls = section.flag("starttls").is_some_and(|at| at.value);
    let authorities = section.text("authorities", super::read::path).map(|at| at.value);
    let template = section.text("dn", with_login);
    let base = section.text("base", |text| Ok(text.to_owned()));
    let filter = section.text("filter", with_login);
    let bind_dn = section.text("bind_dn", |text| Ok(text.to_owned())).map(|at| at.value);
    let bind_password_file = section.text("bind_password_file", super::read::path).map(|at| at.value);
    let addresses = section.text("addresses", |text| Ok(text.to_owned())).map(|at| at.value);
    if !section.is_present() {
        return None;
    }
    section.demand("url", "the directory, ldaps://ldap.winery.example or ldap://10.1.0.3");
    let find = match (template, base) {
        (Some(template), None) => Find::Template(template.value),
        (None, Some(base)) => Find::Search {
            base: base.value,
            filter: filter.map_or_else(|| "(uid={login})".into(), |at| at.value),
            bind_dn: bind_dn.unwrap_or_default(),
            bind_password_file,
        },
        _ => {
            if !section.has("dn") || section.has("base") {
                section.fault(section.line, "dn", "is missing, or stands beside base; allowed: either dn = \"uid={login},ou=…\", or base with filter");
            }
            return None;
        }
    };
    let server = server?.value;
    let loopback = server.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if server.tls && starttls {
        section.fault(
            section.line,
            "starttls",
            "means nothing with ldaps; allowed: ldap:// with starttls = true, or ldaps://",
        );
    }
    if !server.tls && !starttls && !loopback {
        section.fault(
            section.line,
            "url",
            "would send passwords in clear text; allowed: ldaps://, starttls = true, or a loopback address",
        );
    }
    if (server.tls || starttls) && authorities.is_none() {
        section.fault(section.line, "authorities", "is missing; allowed: the PEM file of the authorities that have issued the directory's certificate");
    }
    check_authorities(&section, authorities.as_ref());
    section.finish();
    Some(Ldap { server, starttls, authorities, find, addresses })
}

pub(super) fn check_authorities(section: &Section<'_>, path: Option<&PathBuf>) {
    if let Some(path) = path.filter(|_| section.reads_files())
        && let Err(sentence) = crate::tls::files::authorities(path)
    {
        section.fault(section.line, "authorities", sentence);
    }
}

fn with_login(text: &str) -> Result<String, Wrong> {
    if text.contains("{login}") {
        return Ok(text.to_owned());
    }
    Err(format!("\"{text}\" does not say where the login stands; allowed: a text with {{login}} in it"))
}

/// Whether there is such a section, and what it says.
fn token(mut section: Section<'_>) -> (bool, Option<Introspection>) {
    let server = section.text("url", |text| server(text, [("https", true, 443), ("http", false, 80)], true));
    let authorities = section.text("authorities", super::read::path).map(|at| at.value);
    let client_id = section.text("client_id", |text| Ok(text.to_owned()));
    let client_secret_file = section.text("client_secret_file", super::read::path);
    let scope = section.text("scope", |text| Ok(text.to_owned())).map(|at| at.value);
    let audience = section.text("audience", |text| Ok(text.to_owned())).map(|at| at.value);
    let username = section.text("username", |text| Ok(text.to_owned()));
    if !section.is_present() {
        return (false, None);
    }
    section.demand("url", "the introspection endpoint, https://login.winery.example/introspect");
    section.demand("client_id", "the name by which the authorization server knows this relay");
    section.demand("client_secret_file", "a file with the secret that belongs to client_id");
    let made = (|| {
        let server = server?.value;
        let loopback = server.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if !server.tls && !loopback {
            section.fault(
                section.line,
                "url",
                "would send tokens in clear text; allowed: https://, or a loopback address",
            );
        }
        if server.tls && authorities.is_none() {
            section.fault(section.line, "authorities", "is missing; allowed: the PEM file of the authorities that have issued the server's certificate");
        }
        check_authorities(&section, authorities.as_ref());
        Some(Introspection {
            server,
            authorities,
            client_id: client_id?.value,
            client_secret_file: client_secret_file?.value,
            scope,
            audience,
            username: username.map_or_else(|| "username".into(), |at| at.value),
        })
    })();
    section.finish();
    (true, made)
}

fn guessing(mut section: Section<'_>) -> Guessing {
    let absent = Guessing::default();
    let mut count = |key, absent| section.count(key, 1..=1_000_000).map_or(absent, |at| at.value);
    let guessing = Guessing {
        failures_max: count("failures_max", absent.failures_max),
        network_failures_max: count("network_failures_max", absent.network_failures_max),
        lockout: section.duration("lockout", SECOND..=86_400 * SECOND).map_or(absent.lockout, |at| at.value),
        delay_max: section
            .duration("delay_max", Duration::ZERO..=30 * SECOND)
            .map_or(absent.delay_max, |at| at.value),
    };
    section.finish();
    guessing
}

fn limits(mut section: Section<'_>) -> LoginLimits {
    let absent = LoginLimits::default();
    let mut count = |key, absent| section.count(key, 0..=u32::MAX).map_or(absent, |at| at.value);
    let limits = LoginLimits {
        messages_per_hour: count("messages_per_hour", absent.messages_per_hour),
        recipients_per_hour: count("recipients_per_hour", absent.recipients_per_hour),
    };
    section.finish();
    limits
}

fn password(mut section: Section<'_>) -> PasswordPolicy {
    let absent = PasswordPolicy::default();
    let policy = PasswordPolicy {
        length_min: section.count("length_min", 8..=128).map_or(absent.length_min, |at| at.value as usize),
        forbidden: section.text("forbidden", super::read::path).map(|at| at.value),
        scram_iterations: section.count("scram_iterations", 0..=ITERATIONS_MAX).map_or(
            absent.scram_iterations,
            |at| {
                if (1..ITERATIONS_MIN).contains(&at.value) {
                    let wrong = format!(
                        "{} is too few; allowed: 0 for no SCRAM, or {ITERATIONS_MIN} and more",
                        at.value
                    );
                    section.fault(at.line, "scram_iterations", wrong);
                }
                at.value
            },
        ),
    };
    section.finish();
    policy
}
