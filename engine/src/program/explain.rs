//! `sluice explain`: what would happen to a message of this client to this recipient, and by which rule.
//!
//! It asks the same functions as the relay (`policy::decide`, `Config::route_for`, the table of the route,
//! `policy::next_hops`); a directory is asked as the relay would ask it. DNS is not: where an MX leads, and whether
//! that is allowed, is found out at delivery.

use super::{CONFIGURATION, Failed, OS_ERROR, USAGE, check, print};
use crate::config::{Config, Recipients, Table, Target, Unknown};
use crate::policy::next_hops::{self, Hop};
use crate::policy::{Question, Rules, decide, way};
use crate::recipients::{Holder, is_postmaster, ldap::Directory, listed};
use crate::resolve::service::Resolvers;
use crate::smtp::{ForwardPath, path};
use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

/// What is asked.
pub struct Asked {
    pub listener: String,
    pub client: IpAddr,
    pub from: Option<String>,
    pub to: String,
    pub authenticated: bool,
}

/// Prints the way of one message, line by line.
///
/// # Errors
/// A bad configuration, a listener that it does not have, an address that is none.
pub fn explain(config: &Path, asked: &Asked) -> Result<(), Failed> {
    print(&text(&check::load(config)?, asked)?)
}

fn text(config: &Config, asked: &Asked) -> Result<String, Failed> {
    let names =
        || config.listeners.iter().map(|listener| listener.name.as_str()).collect::<Vec<_>>().join(", ");
    let listener =
        config.listeners.iter().position(|listener| listener.name == asked.listener).ok_or_else(|| {
            Failed::new(
                USAGE,
                format_args!("\"{}\" is not a listener; there are {}", asked.listener, names()),
            )
        })?;
    let wrong =
        |what: &str, text: &str| Failed::new(USAGE, format_args!("\"{text}\" is not a {what} address"));
    if let Some(from) = asked.from.as_deref().filter(|from| !matches!(*from, "" | "<>")) {
        path::forward_path(&format!("<{from}>")).map_err(|_| wrong("sender", from))?;
    }
    let written = format!("<{}>", asked.to.trim_start_matches('<').trim_end_matches('>'));
    let (recipient, rest) = path::forward_path(&written).map_err(|_| wrong("recipient", &asked.to))?;
    if !rest.is_empty() {
        return Err(wrong("recipient", &asked.to));
    }
    let question = Question {
        listener,
        client: asked.client,
        authenticated: asked.authenticated,
        recipient: &recipient,
    };
    let verdict = decide(&Rules::new(config), &question);
    let address = match &recipient {
        ForwardPath::Postmaster => config.postmaster.clone(),
        ForwardPath::Mailbox(mailbox) => mailbox.to_string(),
    };
    let mut out = String::new();
    let who = if asked.authenticated { ", after AUTH" } else { "" };
    let sender = asked.from.as_deref().unwrap_or("any sender");
    let _ = writeln!(out, "client     {} on listener {}{who}", asked.client, asked.listener);
    let _ = writeln!(out, "message    from {sender} to {address}");
    match verdict {
        crate::policy::Verdict::Accept(rule) => {
            let _ = writeln!(out, "policy     accepted: {rule}");
            forward(&mut out, config, &recipient, &address)?;
        }
        crate::policy::Verdict::Refuse(answer, rule) => {
            let _ = writeln!(out, "policy     refused with {} {}: {rule}", answer.code, answer.enhanced);
        }
    }
    Ok(out)
}

/// Route, table, hosts.
fn forward(
    out: &mut String,
    config: &Config,
    recipient: &ForwardPath<'_>,
    address: &str,
) -> Result<(), Failed> {
    let domain = crate::steering::domain_of(address);
    let index = config.route_for(domain);
    let _ = writeln!(out, "route      {}", way::way(config, index));
    let Some(route) = index.and_then(|index| config.routes.get(index)) else { return Ok(()) };
    let pattern = route.domains.iter().find(|pattern| crate::config::matches_domain(pattern, domain));
    let pattern = pattern.map_or("*", String::as_str);
    let _ = writeln!(out, "           the first whose domains match: {pattern}");
    let mut hosts: Vec<_> = match &route.target {
        Target::SmartHosts(hosts) => hosts.iter().map(|host| host.host.clone()).collect(),
        Target::Mx { .. } => Vec::new(),
    };
    if let Some(recipients) = &route.recipients {
        match holder(config, index.unwrap_or(0), recipients, address)? {
            Holder::Host(host) => {
                let _ = writeln!(out, "table      {}: {}", way::table(recipients), way::host(&host));
                hosts = vec![(*host).clone()];
            }
            Holder::Unclear(why) => {
                let _ = writeln!(out, "table      the message waits: {why}");
                hosts.clear();
            }
            Holder::Unknown => {
                let known = is_postmaster(address) || *recipient == ForwardPath::Postmaster;
                let refused = recipients.unknown == Unknown::Refuse && (!known || hosts.is_empty());
                let then = if refused { "refused with 5.1.1" } else { "goes to the route's hosts" };
                let _ = writeln!(out, "table      {}: not there, {then}", way::table(recipients));
                if refused {
                    return Ok(());
                }
            }
        }
    }
    let looked_up = matches!(route.target, Target::Mx { .. });
    if looked_up && next_hops::denies_domain(&config.next_hops, domain) {
        let _ = writeln!(out, "next hop   refused with 5.7.1: next_hops.deny has {domain}");
    } else if looked_up {
        let resolver = route.resolver.and_then(|index| config.resolvers.get(index));
        let name = resolver.map_or("none", |resolver| resolver.name.as_str());
        let _ = writeln!(out, "next hop   the mail exchangers of {domain}, asked of resolver {name}");
    }
    for host in &hosts {
        let hop = Hop { domain: None, host: Some(&host.host), address: host.host.parse().ok() };
        let judged = match next_hops::forbidden(&config.next_hops, &hop) {
            _ if host.socket().is_some() => String::new(),
            None => String::new(),
            Some(next_hops::Forbidden::NotAllowed) if hop.address.is_none() => {
                ": allowed only if its address is".into()
            }
            Some(why) => format!(": not allowed, {why}; the message waits"),
        };
        let _ = writeln!(out, "next hop   {}{judged}", way::host(host));
    }
    let limits = &route.limits;
    let _ = writeln!(
        out,
        "limits     {} connections, {} messages each, {} recipients at a time",
        limits.connections_max, limits.messages_per_connection_max, limits.recipients_max
    );
    Ok(())
}

fn holder(config: &Config, route: usize, recipients: &Recipients, address: &str) -> Result<Holder, Failed> {
    let Table::Ldap(ldap) = &recipients.table else {
        return Ok(listed(recipients, address).unwrap_or(Holder::Unknown));
    };
    let system = |error: std::io::Error| Failed::new(OS_ERROR, format_args!("no runtime: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
    let bad = |sentence: String| Failed::new(CONFIGURATION, sentence);
    let resolvers = Arc::new(Resolvers::new(&config.resolvers, 0).map_err(bad)?);
    let directory =
        Directory::new(ldap, recipients.detail, &resolvers, config.routes[route].resolver).map_err(bad)?;
    let answer = runtime.block_on(directory.holder(address));
    // The relay would wait too.
    Ok(answer.result.unwrap_or_else(|error| Holder::Unclear(error.text.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(config: &Config, listener: &str, to: &str) -> String {
        let asked = Asked {
            listener: listener.into(),
            client: "10.1.0.7".parse().unwrap(),
            from: None,
            to: to.into(),
            authenticated: false,
        };
        text(config, &asked).unwrap_or_else(|failed| failed.sentence)
    }

    #[test]
    fn the_way_of_a_message_is_told_step_by_step() {
        let config = crate::config::Config::parse(
            r#"
            hostname = "relay.winery.example"
            [domains]
            accepted = ["winery.example"]
            [next_hops]
            deny = ["10.1.0.12", "bad.example"]
            [[listener]]
            name = "outside"
            bind = ["127.0.0.1:25"]
            clients = ["0.0.0.0/0"]
            [[listener]]
            name = "inside"
            bind = ["127.0.0.1:26"]
            clients = ["10.1.0.0/16"]
            relay = "any"
            [[route]]
            domains = ["winery.example"]
            [[route.hosts]]
            host = "10.1.0.10"
            weight = 3
            [[route.hosts]]
            host = "10.1.0.11"
            [[route.hosts]]
            host = "10.1.0.12"
            priority = 1
            [[route]]
            domains = ["bad.example", "good.example"]
            mx = true
            resolver = "external"
            [[resolver]]
            name = "external"
            servers = ["192.0.2.53:53"]
        "#,
            "test",
        )
        .unwrap();
        let inward = explained(&config, "outside", "Ann@winery.example");
        for line in [
            "policy     accepted: domains.accepted[0]\n",
            "route      route 1: 10.1.0.10:25 (3), 10.1.0.11:25 (1), else 10.1.0.12:25\n",
            "first whose domains match: winery.example\n",
            "next hop   10.1.0.12:25: not allowed, next_hops.deny has 10.1.0.12/32; the message waits\n",
        ] {
            assert!(inward.contains(line), "{line}\n{inward}");
        }
        assert!(explained(&config, "outside", "x@good.example").contains("refused with 550 5.7.1"));
        assert!(
            explained(&config, "inside", "x@good.example")
                .contains("exchangers of good.example, asked of resolver external")
        );
        assert!(
            explained(&config, "inside", "x@bad.example")
                .contains("refused with 5.7.1: next_hops.deny has bad.example")
        );
        assert!(explained(&config, "inside", "x@nowhere.example").contains("no route: returned with 5.4.4"));
        assert!(explained(&config, "middle", "x@x.example").contains("there are outside, inside"));
        assert!(explained(&config, "inside", "x@").contains("not a recipient address"));
    }
}
