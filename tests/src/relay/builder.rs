//! The configuration of a relay under test, as TOML.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::{Relay, START};
use crate::Port;

/// What a relay is started with. The default: an outside listener (`relay = "accepted"`) and an inside
/// listener (`relay = "any"`) for loopback clients, accepted domain `inside.test`, no routes, retries by
/// the second.
#[derive(Clone, Debug)]
pub struct RelayBuilder {
    hostname: String,
    accepted: Vec<String>,
    routes: String,
    resolvers: String,
    retry: [String; 4],
    cpus: [String; 2],
    sections: String,
    clients: [String; 2],
    outside: String,
    start: Duration,
}

impl Default for RelayBuilder {
    fn default() -> Self {
        Self {
            hostname: "relay.test".into(),
            accepted: vec!["inside.test".into()],
            routes: String::new(),
            resolvers: String::new(),
            retry: ["1s", "2s", "5d", "4h"].map(str::to_owned),
            cpus: ["0", "1"].map(str::to_owned),
            sections: String::new(),
            clients: ["127.0.0.0/8", "127.0.0.0/8"].map(str::to_owned),
            outside: String::new(),
            start: START,
        }
    }
}

impl RelayBuilder {
    /// The relay's name in place of `relay.test`.
    pub fn hostname(mut self, name: &str) -> Self {
        self.hostname = name.to_owned();
        self
    }

    /// Accepted domains in place of `inside.test`.
    pub fn accepted(mut self, domains: &[&str]) -> Self {
        self.accepted = domains.iter().map(|&domain| domain.to_owned()).collect();
        self
    }

    /// The next route: these domains to smart hosts.
    pub fn smart_hosts(mut self, domains: &[&str], hosts: &[SocketAddr]) -> Self {
        let hosts: Vec<String> = hosts.iter().map(SocketAddr::to_string).collect();
        let _ = writeln!(self.routes, "[[route]]\ndomains = {domains:?}\nhosts = {hosts:?}\n");
        self
    }

    /// The next route, with these keys.
    pub fn route(mut self, toml: &str) -> Self {
        let _ = writeln!(self.routes, "[[route]]\n{toml}\n");
        self
    }

    /// The next route: `inside.test` to this host.
    pub fn inward(self, host: SocketAddr) -> Self {
        self.smart_hosts(&["inside.test"], &[host])
    }

    /// The last route: everything else to this host.
    pub fn outward(self, host: SocketAddr) -> Self {
        self.smart_hosts(&["*"], &[host])
    }

    /// The last route: everything else by MX, asked of this DNS server, delivered to this port, also at
    /// loopback addresses.
    pub fn outward_by_mx(self, dns: SocketAddr, port: u16) -> Self {
        self.outward_by_mx_with(dns, port, "private_addresses = true", "")
    }

    /// The same with these keys of the route and of the resolver, and without loopback addresses.
    pub fn outward_by_mx_with(mut self, dns: SocketAddr, port: u16, route: &str, resolver: &str) -> Self {
        let _ = writeln!(
            self.routes,
            "[[route]]\ndomains = [\"*\"]\nmx = true\nport = {port}\nresolver = \"external\"\n{route}\n"
        );
        let _ = writeln!(
            self.resolvers,
            "[[resolver]]\nname = \"external\"\nservers = [\"{dns}\"]\n{resolver}\n"
        );
        self
    }

    pub fn retry(mut self, first: &str, longest: &str, expire: &str) -> Self {
        self.retry = [first, longest, expire, "4h"].map(str::to_owned);
        self
    }

    /// The delay notice comes after this.
    pub fn notice(mut self, notice: &str) -> Self {
        self.retry[3] = notice.to_owned();
        self
    }

    pub fn cpus(mut self, ingest: &str, delivery: &str) -> Self {
        self.cpus = [ingest, delivery].map(str::to_owned);
        self
    }

    /// Another section or table, as TOML.
    pub fn section(mut self, toml: &str) -> Self {
        self.sections.push_str(toml);
        self.sections.push('\n');
        self
    }

    /// Who may connect to the outside and to the inside listener.
    pub fn clients(mut self, outside: &str, inside: &str) -> Self {
        self.clients = [outside, inside].map(str::to_owned);
        self
    }

    /// Lines for the outside listener.
    pub fn outside_listener(mut self, toml: &str) -> Self {
        self.outside.push_str(toml);
        self.outside.push('\n');
        self
    }

    /// Writes the configuration into a directory of its own, and starts nothing.
    pub fn prepare(self) -> Relay {
        let directory = tempfile::Builder::new().prefix("sluice-relay-").tempdir().expect("a directory");
        let (outside, inside) = (Port::reserve(), Port::reserve());
        let config = directory.path().join("relay.toml");
        fs::write(&config, self.toml(directory.path(), &outside, &inside)).expect("the configuration");
        Relay {
            directory,
            config,
            outside,
            inside,
            start: self.start,
            environment: Vec::new(),
            running: None,
        }
    }

    /// Starts the relay and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready; shows its log.
    #[track_caller]
    pub fn start(self) -> Relay {
        let mut relay = self.prepare();
        relay.start();
        relay
    }

    fn toml(&self, directory: &Path, outside: &Port, inside: &Port) -> String {
        let [first, longest, expire, notice] = &self.retry;
        let [ingest, delivery] = &self.cpus;
        let spool = directory.join("spool");
        let mut toml = format!(
            "hostname = {hostname:?}\npostmaster = \"postmaster@inside.test\"\n\n\
             [spool]\npath = {spool:?}\n\n\
             [shards]\ningest_cpus = \"{ingest}\"\ndelivery_cpus = \"{delivery}\"\n\n\
             [domains]\naccepted = {accepted:?}\n\n\
             [retry]\nfirst = \"{first}\"\nlongest = \"{longest}\"\nexpire = \"{expire}\"\nnotice = \"{notice}\"\n\n\
             [admin]\nbind = \"\"\n\n{sections}\n",
            hostname = self.hostname,
            accepted = self.accepted,
            sections = self.sections,
        );
        let listeners = [("outside", outside, "accepted"), ("inside", inside, "any")];
        for ((name, port, relay), clients) in listeners.iter().zip(&self.clients) {
            let _ = writeln!(
                toml,
                "[[listener]]\nname = \"{name}\"\nbind = [\"{}\"]\nclients = [\"{clients}\"]\nrelay = \"{relay}\"\n\
                 tls = \"off\"\n{}",
                port.address(),
                if *name == "outside" { self.outside.as_str() } else { "" }
            );
        }
        toml + &self.routes + &self.resolvers
    }
}
