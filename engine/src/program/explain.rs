//! `sluice explain`: what the configuration makes of a message, and by which rule. No message is sent, and nobody is asked but the
//! directory of a route that has one: not DNS, so that where an MX leads, and whether that is allowed, is found out at
//! delivery.

use super::check::load;
use super::{Failed, USAGE, print};
use crate::clock;
use crate::config::{Config, Recipients, Table, Target, Unknown};
use crate::policy::{Question, Rules, decide, next_hops, way};
use crate::recipients::{Holder, is_postmaster, ldap::Directory, listed};
use crate::resolve::service::Resolvers;
use crate::rewrite::explain;
use crate::smtp::path;
use crate::smtp::{Domain, ForwardPath};
use std::fmt::Write;
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
    for (index, listener) in listeners {
        let admitted = listener.clients.first().map_or(IpAddr::from([0, 0, 0, 0]), |network| network.address);
        let client = asked.client.unwrap_or(admitted);
        let authenticated = asked.authenticated;
        let question = Question { listener: index, client, authenticated, recipient: &recipient, now_micros };
        let verdict = decide(&rules, &question);
        let says = if verdict.is_accept() { "takes" } else { "refuses" };
        let _ = writeln!(
            out,
            "listener {}: {says} {forward} from client {client}: {}",
            listener.name,
            verdict.rule()
        );
    }
    let address = match &recipient {
        ForwardPath::Postmaster => config.postmaster.clone(),
        ForwardPath::Mailbox(mailbox) => match rules.returns_to(mailbox, now_micros) {
            Some(Ok(original)) => {
                let _ = writeln!(out, "the return address stands for <{original}>");
                original
            }
            Some(Err(_)) => return Ok(out),
            None => mailbox.to_string(),
        },
    };
    let literal =
        matches!(&recipient, ForwardPath::Mailbox(mailbox) if matches!(mailbox.domain, Domain::Literal(_)));
    let domain = path::split_address(&address).map_or("", |(_, domain)| domain);
    let Some(route) = config.route_for(domain) else {
        let _ = writeln!(
            out,
            "no route has {}: the message is returned",
            if literal { "the address" } else { domain }
        );
        return Ok(out);
    };
    let target = way::target(&config.routes[route]);
    let _ = writeln!(out, "route {} ({}): to {target}", route + 1, config.routes[route].domains.join(", "));
    next_hops_of(&mut out, config, route, &address)?;
    let rewritten = config.routes[route]
        .rewrite
        .as_ref()
        .map(|rules| explain::explain(rules, &config.hostname, from, &address, header, now_micros))
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
    Ok(out)
}

/// What the table of the route says, and the hosts, as far as they are known without DNS.
fn next_hops_of(out: &mut String, config: &Config, index: usize, address: &str) -> Result<(), String> {
    let (route, domain) = (&config.routes[index], crate::steering::domain_of(address));
    let mut hosts: Vec<_> = match &route.target {
        Target::SmartHosts(hosts) => hosts.iter().map(|host| host.host.clone()).collect(),
        Target::Mx { .. } => Vec::new(),
    };
    if let Some(recipients) = &route.recipients {
        let table = way::table(recipients);
        match holder(config, index, recipients, address)? {
            Holder::Host(host) => {
                let _ = writeln!(out, "table {table}: {}", way::host(&host));
                hosts = vec![(*host).clone()];
            }
            Holder::Unclear(why) => {
                let _ = writeln!(out, "table {table}: the message waits: {why}");
                hosts.clear();
            }
            Holder::Unknown => {
                let taken =
                    recipients.unknown == Unknown::Hosts || is_postmaster(address) && !hosts.is_empty();
                let then = if taken { "goes to the route's hosts" } else { "refused with 5.1.1" };
                let _ = writeln!(out, "table {table}: not there, {then}");
                if !taken {
                    hosts.clear();
                }
            }
        }
    }
    if let Target::Mx { .. } = route.target {
        let resolver = route.resolver.and_then(|index| config.resolvers.get(index));
        let name = resolver.map_or("none", |resolver| resolver.name.as_str());
        let _ = match next_hops::denies_domain(&config.next_hops, domain) {
            true => writeln!(out, "refused with 5.7.1: next_hops.deny has {domain}"),
            false => writeln!(out, "next hop: the mail exchangers of {domain}, asked of resolver {name}"),
        };
    }
    for host in &hosts {
        let hop = next_hops::Hop { domain: None, host: Some(&host.host), address: host.host.parse().ok() };
        let judged = match next_hops::forbidden(&config.next_hops, &hop) {
            _ if host.socket().is_some() => String::new(),
            None => String::new(),
            Some(next_hops::Forbidden::NotAllowed) if hop.address.is_none() => {
                ": allowed only if its address is".into()
            }
            Some(why) => format!(": not allowed, {why}; the message waits"),
        };
        let _ = writeln!(out, "next hop: {}{judged}", way::host(host));
    }
    Ok(())
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

    #[test]
    fn the_way_of_a_message_is_told() {
        let config = Config::demonstration();
        let asked = |listener: Option<&str>, to: &str| Asked {
            listener: listener.map(str::to_owned),
            client: None,
            authenticated: false,
            from: "ann@inside.test".into(),
            to: to.into(),
            message: None,
        };
        let told = text(&config, &asked(None, "bob@away.test"), b"", 0).unwrap();
        assert!(told.contains("listener outside: refuses <bob@away.test>"), "{told}");
        assert!(told.contains("listener inside: takes <bob@away.test>"), "{told}");
        assert!(told.contains("\nroute 2 (*): to ") && told.contains("nothing is rewritten"), "{told}");
        assert!(
            text(&config, &asked(Some("none"), "bob@away.test"), b"", 0).unwrap_err().contains("outside")
        );
        assert!(text(&config, &asked(None, "bob"), b"", 0).is_err());
        assert_eq!(with_line_ends(b"A: b\nC: d\r\n\nx"), b"A: b\r\nC: d\r\n\r\nx");
    }
}
