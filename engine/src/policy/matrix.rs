//! The mail-flow matrix of a configuration: who may send where, and which way it would go.
//!
//! Every row is an answer of [`decide`] to one question, so the matrix cannot say anything else than
//! what the relay does. Rows: each listener × a client that it admits and one that it does not (with
//! and without AUTH where that matters) × each domain that the configuration names, one that it does
//! not name, Postmaster, and a local part that asks for routing onward.

use super::way::way;
use super::{Question, Rules, Verdict, decide};
use crate::config::{Config, Listener, Network, Relay};
use crate::smtp::ForwardPath;
use crate::smtp::path;
use std::fmt;
use std::net::IpAddr;

/// One question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub listener: String,
    /// The address that was asked about.
    pub client: IpAddr,
    /// The listener's `clients`; everybody else is treated like an address outside them.
    pub networks: String,
    /// Whether the listener's `clients` hold that address.
    pub admitted: bool,
    pub authenticated: bool,
    /// The forward-path without brackets.
    pub recipient: String,
    pub verdict: Verdict,
    /// Where an accepted message would go; `None` when no route matches.
    pub route: Option<usize>,
    /// The same in words.
    pub way: String,
}

/// All rows; its `Display` is a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    pub rows: Vec<Row>,
}

/// A domain that no configuration names (RFC 2606 section 2).
const OTHER_DOMAIN: &str = "any-other-domain.example";

/// Computes the matrix by asking [`decide`].
pub fn matrix(config: &Config) -> Matrix {
    let rules = Rules::new(config);
    let recipients = recipients(config);
    let mut rows = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        for (client, authenticated) in clients(listener) {
            for recipient in &recipients {
                rows.push(row(config, &rules, index, client, authenticated, recipient));
            }
        }
    }
    Matrix { rows }
}

fn row(
    config: &Config,
    rules: &Rules,
    listener: usize,
    client: IpAddr,
    authenticated: bool,
    to: &str,
) -> Row {
    let path = format!("<{to}>");
    let (recipient, _) = path::forward_path(&path).expect("recipients() makes paths");
    let verdict =
        decide(rules, &Question { listener, client, authenticated, recipient: &recipient, now_micros: 0 });
    let address = if recipient == ForwardPath::Postmaster { config.postmaster.as_str() } else { to };
    let returns = match &recipient {
        ForwardPath::Mailbox(mailbox) => rules.returns_to(mailbox, 0).and_then(Result::ok),
        ForwardPath::Postmaster => None,
    };
    let address = returns.as_deref().unwrap_or(address);
    let domain = path::split_address(address).map_or("", |(_, domain)| domain);
    let route = config.route_for(domain).filter(|_| verdict.is_accept());
    Row {
        listener: config.listeners[listener].name.clone(),
        client,
        networks: networks(&config.listeners[listener]),
        admitted: rules.admits(listener, client),
        authenticated,
        recipient: to.into(),
        verdict,
        route,
        way: if verdict.is_accept() { way(config, route) } else { "-".into() },
    }
}

/// One recipient for every way in which the configuration may treat one.
fn recipients(config: &Config) -> Vec<String> {
    let mut domains: Vec<String> = Vec::new();
    let accepted = config.domains.accepted.iter();
    let routed = config.routes.iter().flat_map(|route| &route.domains).filter(|domain| *domain != "*");
    for entry in accepted.clone().chain(routed) {
        // Whatever stands below a suffix, and for a name the name itself.
        let sample = if entry.starts_with('.') { format!("below{entry}") } else { entry.clone() };
        if !domains.contains(&sample) && path::is_domain(&sample) {
            domains.push(sample);
        }
    }
    domains.push(OTHER_DOMAIN.into());
    let mut recipients: Vec<String> = domains.iter().map(|domain| format!("user@{domain}")).collect();
    recipients.push(format!("user%{OTHER_DOMAIN}@{}", domains[0]));
    if let Some(srs) = &config.srs {
        let made = srs.forward(&format!("user@{OTHER_DOMAIN}"), 0);
        recipients.extend(made);
        recipients.push(format!("SRS0=forged=AA={OTHER_DOMAIN}=user@{}", srs.domain()));
    }
    recipients.push("Postmaster".into());
    recipients
}

fn networks(listener: &Listener) -> String {
    let network = |network: &Network| format!("{}/{}", network.address, network.prefix);
    listener.clients.iter().map(network).collect::<Vec<_>>().join(", ")
}

/// An address inside the listener's `clients` and one outside, where there is any.
fn clients(listener: &Listener) -> Vec<(IpAddr, bool)> {
    let admitted = |client: IpAddr| listener.clients.iter().any(|network| network.contains(client));
    let mut clients: Vec<(IpAddr, bool)> = Vec::new();
    if let Some(network) = listener.clients.first() {
        clients.push((network.address, false));
        if listener.auth && listener.relay != Relay::Any {
            clients.push((network.address, true));
        }
    }
    let outside = ["192.0.2.1", "198.51.100.1", "203.0.113.1", "127.0.0.1", "2001:db8::1", "::1"]
        .into_iter()
        .map(|text| text.parse().expect("an address"));
    clients.extend(outside.filter(|client| !admitted(*client)).take(1).map(|client| (client, false)));
    clients
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles = ["listener", "client", "recipient", "verdict", "goes to", "by"].map(String::from);
        let table: Vec<[String; 6]> = [titles].into_iter().chain(self.rows.iter().map(cells)).collect();
        let width =
            |column: usize| table.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 6] = std::array::from_fn(width);
        for cells in &table {
            let line: Vec<String> =
                cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            writeln!(f, "{}", line.join("  ").trim_end())?;
        }
        Ok(())
    }
}

fn cells(row: &Row) -> [String; 6] {
    let client = match (row.admitted, row.authenticated) {
        (true, true) => format!("{} after AUTH", row.networks),
        (true, false) => row.networks.clone(),
        (false, _) => "anybody else".into(),
    };
    let verdict = match row.verdict {
        Verdict::Accept(_) => "accept".into(),
        Verdict::Refuse(answer, _) => format!("refuse {} {}", answer.code, answer.enhanced),
    };
    let rule = row.verdict.rule().to_string();
    [row.listener.clone(), client, row.recipient.clone(), verdict, row.way.clone(), rule]
}
