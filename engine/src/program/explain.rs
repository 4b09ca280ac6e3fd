//! `sluice explain`: what the configuration makes of a message, and by which rule. No message is sent, and nobody is asked but the
//! directory of a route that has one: not DNS, so that where an MX leads, and whether that is allowed, is found out at
//! delivery.
//!
//! What is printed goes the message's way, policy, route, table, hosts, TLS, rewriting, and ends with one verdict for
//! each listener that was asked.

use super::check::load;
use super::{Failed, USAGE, print};
use crate::clock;
use crate::config::{
    BalancedHost, Config, CutThroughMode, Dnssec, Recipients, Route, SmartHost, Table, Target, TlsRule,
    Unknown,
};
use crate::policy::{Question, Rule, Rules, Verdict, decide, next_hops, way};
use crate::recipients::{Holder, NO_HOSTS, is_postmaster, ldap::Directory, listed};
use crate::resolve::choose::is_public;
use crate::resolve::service::Resolvers;
use crate::rewrite::explain;
use crate::session::KnownNow;
use crate::smtp::path;
use crate::smtp::reply::{self, Answer};
use crate::smtp::{Domain, ForwardPath};
use std::fmt::{self, Write};
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Octets of a message that are looked at.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// One message, and who sends it.
pub struct Asked {
    /// A listener's name; else every listener is asked.
    pub listener: Option<String>,
    /// Else an address that the listener admits.
    pub client: Option<IpAddr>,
    pub authenticated: bool,
    /// Empty: the null reverse-path.
    pub from: String,
    pub to: String,
    /// A file with the message, or its header section.
    pub message: Option<PathBuf>,
}

pub fn explain(config: &Path, asked: &Asked) -> Result<(), Failed> {
    let config = load(config)?;
    let mut header = Vec::new();
    if let Some(file) = &asked.message {
        std::fs::File::open(file)
            .and_then(|file| file.take(MESSAGE_BYTES_MAX).read_to_end(&mut header))
            .map_err(|error| Failed::new(super::NO_INPUT, format!("{}: {error}", file.display())))?;
        header = with_line_ends(&header);
    }
    print(&text(&config, asked, &header, clock::wall_micros()).map_err(|wrong| Failed::new(USAGE, wrong))?)
}

/// Files mostly have bare LF.
fn with_line_ends(octets: &[u8]) -> Vec<u8> {
    let lines = octets.split_inclusive(|&octet| octet == b'\n');
    lines
        .flat_map(|line| match line.strip_suffix(b"\n") {
            Some(line) => [line.strip_suffix(b"\r").unwrap_or(line), b"\r\n"].concat(),
            None => line.to_vec(),
        })
        .collect()
}

fn text(config: &Config, asked: &Asked, header: &[u8], now_micros: u64) -> Result<String, String> {
    let from = asked.from.trim_matches(['<', '>']);
    if !from.is_empty() && path::whole_mailbox(from).is_none() {
        return Err(format!("--from {from} is no address; allowed: user@domain, or nothing for <>"));
    }
    let forward = format!("<{}>", asked.to.trim_matches(['<', '>']));
    let (recipient, _) =
        path::forward_path(&forward).map_err(|wrong| format!("--to {}: {wrong}", asked.to))?;
    let rules = Rules::new(config);
    let mut out = String::new();
    let named = |name: &str| asked.listener.as_ref().is_none_or(|wanted| wanted == name);
    let listeners: Vec<_> =
        config.listeners.iter().enumerate().filter(|(_, listener)| named(&listener.name)).collect();
    if listeners.is_empty() {
        let names: Vec<&str> = config.listeners.iter().map(|listener| listener.name.as_str()).collect();
        return Err(format!("--listener is not in the configuration; allowed: {}", names.join(", ")));
    }
    let mut doors = Vec::new();
    for (index, listener) in listeners {
        let admitted = listener.clients.first().map_or(IpAddr::from([0, 0, 0, 0]), |network| network.address);
        let client = asked.client.unwrap_or(admitted);
        let authenticated = asked.authenticated;
        let question = Question { listener: index, client, authenticated, recipient: &recipient, now_micros };
        let verdict = decide(&rules, &question);
        let says = if verdict.is_accept() { "admits" } else { "refuses" };
        let _ = writeln!(
            out,
            "listener {}: policy {says} {forward} from client {client}: {}",
            listener.name,
            verdict.rule()
        );
        doors.push(Door { name: &listener.name, cut_through: listener.cut_through, verdict });
    }
    let address = match &recipient {
        ForwardPath::Postmaster => config.postmaster.clone(),
        ForwardPath::Mailbox(mailbox) => match rules.returns_to(mailbox, now_micros) {
            Some(Ok(original)) => {
                let _ = writeln!(out, "the return address stands for <{original}>");
                original
            }
            Some(Err(_)) => {
                // Every listener refuses it.
                verdicts(&mut out, &doors, &Fate::Goes, CutThroughMode::Off);
                return Ok(out);
            }
            None => mailbox.to_string(),
        },
    };
    if doors.iter().all(|door| !door.verdict.is_accept()) {
        out.push_str("it would go:\n");
    }
    let domain = path::split_address(&address).map_or("", |(_, domain)| domain);
    let Some(route) = config.route_for(domain) else {
        let _ = writeln!(out, "no route has {domain}");
        verdicts(&mut out, &doors, &Fate::Returned("5.4.4"), CutThroughMode::Off);
        return Ok(out);
    };
    let target = way::target(&config.routes[route]);
    let _ = writeln!(out, "route {} ({}): to {target}", route + 1, config.routes[route].domains.join(", "));
    let fate = next_hops_of(&mut out, config, route, &address)?;
    let allows = config.routes[route].cut_through.mode;
    if matches!(fate, Fate::Goes | Fate::Waits(_)) {
        manner(&mut out, config, &config.routes[route], &doors);
        let envelope = (from, address.as_str());
        rewriting(&mut out, config, &config.routes[route], envelope, header, now_micros);
    }
    verdicts(&mut out, &doors, &fate, allows);
    Ok(out)
}

/// A listener that was asked, and what policy says there.
struct Door<'a> {
    name: &'a str,
    cut_through: CutThroughMode,
    verdict: Verdict,
}

/// What becomes of a message that policy admits.
#[derive(Clone, Copy)]
enum Fate {
    Goes,
    /// With the status that its log lines have.
    Waits(&'static str),
    /// By a DSN with this status.
    Returned(&'static str),
    Refused(&'static Answer),
}

/// `550 5.1.1`.
fn code(answer: &Answer) -> impl fmt::Display {
    let (code, enhanced) = (answer.code, answer.enhanced);
    fmt::from_fn(move |f| write!(f, "{code} {enhanced}"))
}

/// The last lines: what the client and the sender learn, by listener where several were asked.
fn verdicts(out: &mut String, doors: &[Door<'_>], fate: &Fate, allows: CutThroughMode) {
    for door in doors {
        let words = match (&door.verdict, fate) {
            (Verdict::Refuse(_, Rule::ClientNotListed), _) => {
                format!("refused when it connects: {}", code(&reply::NOT_ADMITTED))
            }
            (Verdict::Refuse(answer, _), _) | (_, Fate::Refused(answer)) => {
                format!("refused at RCPT: {}", code(answer))
            }
            (_, Fate::Returned(status)) => format!("accepted, then returned with {status}"),
            (_, Fate::Waits(status)) => format!("accepted; it waits ({status})"),
            (_, Fate::Goes) if door.cut_through.min(allows) > CutThroughMode::Off => {
                "accepted, unless the next hop refuses it".to_owned()
            }
            (_, Fate::Goes) => "accepted".to_owned(),
        };
        let _ = match doors.len() {
            1 => writeln!(out, "verdict: {words}"),
            _ => writeln!(out, "verdict, listener {}: {words}", door.name),
        };
    }
}

/// What the table of the route says, and the hosts, as far as they are known without DNS.
fn next_hops_of(out: &mut String, config: &Config, index: usize, address: &str) -> Result<Fate, String> {
    let route = &config.routes[index];
    let refusal = KnownNow::new(config).refusal(address);
    let (shared, port) = match &route.target {
        Target::SmartHosts(hosts) => (hosts.as_slice(), None),
        Target::Mx { port } => (&[] as &[BalancedHost], Some(*port)),
    };
    if let Some(port) = port {
        return Ok(match (refusal, path::whole_mailbox(address).map(|mailbox| mailbox.domain)) {
            (None, Some(Domain::Literal(literal))) => at_literal(out, config, route, literal, port),
            (refusal, _) => by_mx(out, config, route, address, refusal),
        });
    }
    if let Some(recipients) = &route.recipients {
        let table = way::table(recipients);
        match holder(config, index, recipients, address)? {
            Holder::Host(host) => {
                let _ = writeln!(out, "table {table}: {}", way::host(&host));
                return Ok(hosts_of(out, config, route, &[(&*host, String::new())]));
            }
            Holder::RouteHosts if shared.is_empty() => {
                let _ = writeln!(out, "table {table}: not clear: {NO_HOSTS}");
                return Ok(Fate::Waits("4.4.3"));
            }
            Holder::RouteHosts => {
                let _ = writeln!(out, "table {table}: has it, goes to the route's hosts");
            }
            Holder::Unclear(why) => {
                let _ = writeln!(out, "table {table}: not clear: {why}");
                return Ok(Fate::Waits("4.4.3"));
            }
            Holder::Unknown => {
                let taken =
                    recipients.unknown == Unknown::Hosts || is_postmaster(address) && !shared.is_empty();
                if !taken {
                    let _ = writeln!(out, "table {table}: not there, and unknown = \"refuse\"");
                    return Ok(refusal.map_or(Fate::Returned("5.1.1"), Fate::Refused));
                }
                let _ = writeln!(out, "table {table}: not there, goes to the route's hosts");
            }
        }
    }
    let hosts: Vec<_> = shared.iter().map(|host| (&host.host, share(shared, host))).collect();
    Ok(hosts_of(out, config, route, &hosts))
}

/// The place of a host among the others of its route: ` (share 2 of 3)`, ` (when those fail)`.
fn share(hosts: &[BalancedHost], host: &BalancedHost) -> String {
    let first = hosts.first().map(|host| host.priority);
    let has_share = |host: &&BalancedHost| Some(host.priority) == first && host.weight > 0;
    let sharing = hosts.iter().filter(has_share).count();
    let sum: u64 = hosts.iter().filter(has_share).map(|host| u64::from(host.weight)).sum();
    match (sharing, has_share(&host)) {
        (2.., true) => format!(" (share {} of {sum})", host.weight),
        (_, true) => String::new(),
        (2.., false) => " (when those fail)".to_owned(),
        (_, false) => " (when those before it fail)".to_owned(),
    }
}

/// The mail exchangers of a domain.
fn by_mx(
    out: &mut String,
    config: &Config,
    route: &Route,
    address: &str,
    refusal: Option<&'static Answer>,
) -> Fate {
    let domain = crate::steering::domain_of(address);
    let lists = &config.next_hops;
    if let Some(answer) = refusal {
        let _ = writeln!(out, "next hop: none: next_hops.deny has {domain}");
        return Fate::Refused(answer);
    }
    let resolver = route.resolver.and_then(|index| config.resolvers.get(index));
    let name = resolver.map_or("none", |resolver| resolver.name.as_str());
    let hop = next_hops::Hop { domain: Some(domain), host: None, address: None };
    let allowed = match next_hops::forbidden(lists, &hop) {
        Some(_) => ": those only that next_hops.allow has by name or address",
        None => "",
    };
    let _ = writeln!(out, "next hop: the mail exchangers of {domain}, asked of resolver {name}{allowed}");
    Fate::Goes
}

/// An address literal leads to that address, and what it is allowed is known.
fn at_literal(out: &mut String, config: &Config, route: &Route, literal: IpAddr, port: u16) -> Fate {
    let literal = literal.to_canonical();
    let (name, domain) = (literal.to_string(), path::AddressLiteral(literal).to_string());
    let hop = next_hops::Hop { domain: Some(&domain), host: Some(&name), address: Some(literal) };
    let at = std::net::SocketAddr::new(literal, port);
    let own = config.delivery.own_addresses.iter().any(|own| own.to_canonical() == literal)
        || config.listeners.iter().any(|listener| listener.bind.contains(&at));
    let (fate, judged) = if own {
        (Fate::Returned("5.4.6"), ": this relay itself".to_owned())
    } else if !route.private_addresses && !is_public(literal) {
        (
            Fate::Returned("5.4.4"),
            ": not an address of the Internet, and private_addresses = false".to_owned(),
        )
    } else if let Some(why) = next_hops::forbidden(&config.next_hops, &hop) {
        (Fate::Returned("5.7.1"), format!(": not allowed, {why}"))
    } else {
        (Fate::Goes, String::new())
    };
    let _ = writeln!(out, "next hop: {at}, the address itself{judged}");
    fate
}

/// Hosts of the operator's own: mail waits when there is none that may be connected to.
fn hosts_of(out: &mut String, config: &Config, route: &Route, hosts: &[(&SmartHost, String)]) -> Fate {
    let mut fate = if hosts.is_empty() { Fate::Waits("4.4.4") } else { Fate::Waits("4.7.1") };
    for (host, share) in hosts {
        let address = host.host.parse::<IpAddr>().ok();
        let hop = next_hops::Hop { domain: None, host: Some(&host.host), address };
        let forbidden = next_hops::forbidden(&config.next_hops, &hop).filter(|_| host.socket().is_none());
        let judged = match forbidden {
            Some(next_hops::Forbidden::NotAllowed) if address.is_none() => {
                fate = Fate::Goes;
                ": allowed only if its address is".to_owned()
            }
            Some(why) => format!(": not allowed, {why}"),
            None if address.is_none() && host.socket().is_none() && route.resolver.is_none() => {
                if matches!(fate, Fate::Waits(_)) {
                    fate = Fate::Waits("4.4.3");
                }
                ": the route has no resolver to look it up".to_owned()
            }
            None => {
                fate = Fate::Goes;
                String::new()
            }
        };
        let _ = writeln!(out, "next hop: {}{share}{judged}", way::host(host));
    }
    if hosts.is_empty() {
        out.push_str("next hop: none: the route has no hosts besides those of its table\n");
    }
    fate
}

/// How the hosts of a route are spoken to: TLS, source addresses, cut-through.
fn manner(out: &mut String, config: &Config, route: &Route, doors: &[Door<'_>]) {
    let sockets_only = match &route.target {
        Target::SmartHosts(hosts) => {
            !hosts.is_empty() && hosts.iter().all(|host| host.host.socket().is_some())
        }
        Target::Mx { .. } => false,
    };
    if !sockets_only || route.recipients.is_some() {
        let _ = writeln!(out, "TLS: {}", tls_of(config, route));
        let source: Vec<String> = route.source.iter().map(ToString::to_string).collect();
        let _ = match source.is_empty() {
            true => writeln!(out, "source address: the kernel chooses"),
            false => writeln!(out, "source addresses, by family and in turn: {}", source.join(", ")),
        };
    }
    for door in doors.iter().filter(|door| door.verdict.is_accept()) {
        let asks = match door.cut_through.min(route.cut_through.mode) {
            CutThroughMode::Off => continue,
            CutThroughMode::Recipients => "the next hop is asked about the recipient at RCPT",
            CutThroughMode::Message => {
                "the next hop has recipient and message before the client has its reply"
            }
        };
        let _ =
            writeln!(out, "cut-through, listener {}: {asks}, within {:?}", door.name, route.cut_through.wait);
    }
}

/// `policy "may"; DANE, by the AD bit of resolver external; no MTA-STS`.
fn tls_of(config: &Config, route: &Route) -> String {
    let tls = &route.tls;
    let policy = match tls.rule {
        TlsRule::None => "none",
        TlsRule::May => "may",
        TlsRule::Encrypt => "encrypt",
        TlsRule::Dane => "dane",
        TlsRule::DaneOnly => "dane-only",
        TlsRule::Verify => "verify",
        TlsRule::Fingerprint => "fingerprint",
    };
    let implicit = if tls.implicit { ", from the first octet" } else { "" };
    if !tls.rule.can_be_raised() {
        return format!("policy \"{policy}\"{implicit}");
    }
    let resolver = route.resolver.and_then(|index| config.resolvers.get(index));
    let dane = match resolver {
        None => "no DANE: the route has no resolver".to_owned(),
        Some(resolver) => match (resolver.dnssec, tls.dane) {
            (Dnssec::Off, _) => format!("no DANE: resolver {} has dnssec = \"off\"", resolver.name),
            (_, false) => "no DANE: dane = false".to_owned(),
            (Dnssec::TrustAd, true) => format!("DANE, by the AD bit of resolver {}", resolver.name),
            (Dnssec::Validate, true) => format!("DANE, validated here, by resolver {}", resolver.name),
        },
    };
    let mta_sts = if tls.mta_sts { "MTA-STS" } else { "no MTA-STS" };
    format!("policy \"{policy}\"{implicit}; {dane}; {mta_sts}")
}

fn rewriting(
    out: &mut String,
    config: &Config,
    route: &Route,
    (from, to): (&str, &str),
    header: &[u8],
    now_micros: u64,
) {
    let rewritten = route
        .rewrite
        .as_ref()
        .map(|rules| explain::explain(rules, &config.hostname, from, to, header, now_micros))
        .filter(|lines| !lines.is_empty());
    match rewritten {
        None => out.push_str("nothing is rewritten\n"),
        Some(lines) => {
            out.push_str("rewritten by [route.rewrite]:\n");
            lines.lines().for_each(|line| {
                let _ = writeln!(out, "  {line}");
            });
        }
    }
}

/// A directory is asked as the relay would ask it.
fn holder(config: &Config, route: usize, recipients: &Recipients, address: &str) -> Result<Holder, String> {
    let Table::Ldap(ldap) = &recipients.table else {
        return Ok(listed(recipients, address).unwrap_or(Holder::Unknown));
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    let resolvers = Arc::new(Resolvers::new(&config.resolvers, 0)?);
    let directory = Directory::new(ldap, recipients.detail, &resolvers, config.routes[route].resolver)?;
    let answer = runtime.block_on(directory.holder(address));
    // The relay would wait too.
    Ok(answer.result.unwrap_or_else(|error| Holder::Unclear(error.text.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(listener: Option<&str>, to: &str) -> Asked {
        Asked {
            listener: listener.map(str::to_owned),
            client: None,
            authenticated: false,
            from: "ann@inside.test".into(),
            to: to.into(),
            message: None,
        }
    }

    #[test]
    fn the_way_of_a_message_is_told() {
        let config = Config::demonstration();
        let told = text(&config, &asked(None, "bob@away.test"), b"", 0).unwrap();
        assert!(told.contains("listener outside: policy refuses <bob@away.test>"), "{told}");
        assert!(told.contains("listener inside: policy admits <bob@away.test>"), "{told}");
        assert!(told.contains("\nroute 2 (*): to ") && told.contains("nothing is rewritten"), "{told}");
        assert!(
            told.ends_with(
                "\nverdict, listener outside: refused at RCPT: 550 5.7.1\nverdict, listener inside: accepted\n"
            ),
            "{told}"
        );
        let told = text(&config, &asked(Some("outside"), "bob@away.test"), b"", 0).unwrap();
        assert!(told.contains("\nit would go:\nroute 2 "), "{told}");
        assert!(told.ends_with("\nverdict: refused at RCPT: 550 5.7.1\n"), "{told}");
        assert!(
            text(&config, &asked(Some("none"), "bob@away.test"), b"", 0).unwrap_err().contains("outside")
        );
        assert!(text(&config, &asked(None, "bob"), b"", 0).is_err());
        assert_eq!(with_line_ends(b"A: b\nC: d\r\n\nx"), b"A: b\r\nC: d\r\n\r\nx");
    }

    const SHARED_AND_DENIED: &str = r#"
hostname = "relay.test"
[domains]
accepted = ["inside.test"]
[next_hops]
deny = ["203.0.113.0/24", "denied.test"]
[[listener]]
name = "inside"
bind = ["127.0.0.1:2526"]
clients = ["127.0.0.0/8"]
relay = "any"
[[route]]
domains = ["inside.test"]
[[route.hosts]]
host = "192.0.2.1:25"
weight = 2
[[route.hosts]]
host = "192.0.2.2:25"
[[route.hosts]]
host = "203.0.113.9:25"
priority = 1
[[route]]
domains = ["lost.test"]
hosts = ["203.0.113.9:25"]
[[route]]
domains = ["*"]
mx = true
resolver = "external"
[[resolver]]
name = "external"
servers = ["192.0.2.53:53"]
dnssec = "trust-ad"
"#;

    #[test]
    fn hosts_have_their_shares_and_each_message_ends_with_one_verdict() {
        let config = Config::parse(SHARED_AND_DENIED, "relay.toml").unwrap_or_else(|error| panic!("{error}"));
        let table: [(&str, &[&str], &str); 7] = [
            (
                "u@inside.test",
                &[
                    "192.0.2.1:25 (share 2 of 3)\n",
                    "192.0.2.2:25 (share 1 of 3)\n",
                    "203.0.113.9:25 (when those fail): not allowed",
                    "no DANE: the route has no resolver",
                ],
                "accepted",
            ),
            ("u@lost.test", &["next hop: 203.0.113.9:25: not allowed"], "accepted; it waits (4.7.1)"),
            (
                "u@away.test",
                &["exchangers of away.test", "\"may\"; DANE, by the AD bit of resolver external; no MTA-STS"],
                "accepted",
            ),
            ("u@denied.test", &["next_hops.deny has denied.test"], "refused at RCPT: 550 5.7.1"),
            ("u@[198.51.100.7]", &["next hop: 198.51.100.7:25, the address itself\n"], "accepted"),
            ("u@[203.0.113.7]", &["next_hops.deny has 203.0.113.0/24"], "accepted, then returned with 5.7.1"),
            ("u@[10.0.0.1]", &["private_addresses = false"], "accepted, then returned with 5.4.4"),
        ];
        for (to, parts, verdict) in table {
            let told = text(&config, &asked(None, to), b"", 0).unwrap();
            for part in parts {
                assert!(told.contains(part), "{part}: {told}");
            }
            assert!(told.ends_with(&format!("\nverdict: {verdict}\n")), "{told}");
            assert_eq!(told.matches("verdict").count(), 1, "{told}");
        }
    }
}
