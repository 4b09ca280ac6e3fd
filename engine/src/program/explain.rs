//! `sluice explain`: what the configuration makes of a message, and by which rule. No message is sent, nobody is asked.

use super::check::load;
use super::{Failed, USAGE, print};
use crate::clock;
use crate::config::{Config, SmartHost, Target};
use crate::policy::{Question, Rules, decide};
use crate::rewrite::explain;
use crate::smtp::path;
use crate::smtp::{Domain, ForwardPath};
use std::fmt::Write;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

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
    let way = match &config.routes[route].target {
        Target::Mx { port } => format!("the MX hosts of {domain}, port {port}"),
        Target::SmartHosts(hosts) => {
            let host = |host: &SmartHost| format!("{}:{}", host.host, host.port);
            hosts.iter().map(host).collect::<Vec<_>>().join(", ")
        }
    };
    let _ = writeln!(out, "route {} ({}): to {way}", route + 1, config.routes[route].domains.join(", "));
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
