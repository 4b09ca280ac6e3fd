//! `sluice check`: reads a configuration, says what is wrong with it, prints the mail-flow matrix.

use super::{CONFIGURATION, Failed, print};
use crate::config::{
    Config, HopPattern, Listener, NextHops, PeerName, Recipients, SmartHost, Table, Target, TlsRule,
};
use crate::policy::{self, next_hops, way};
use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

/// Prints the matrix of a good configuration.
pub fn check(path: &Path) -> Result<(), Failed> {
    let config = load(path)?;
    let text = format!(
        "{}: good\n{}\nWho may send where:\n\n{}",
        path.display(),
        warnings(&config),
        policy::matrix(&config)
    ) + &routing(&config);
    print(&text)
}

/// What the matrix does not show of the routes.
fn routing(config: &Config) -> String {
    let mut text = String::new();
    for (index, route) in config.routes.iter().enumerate() {
        if let Some(recipients @ Recipients { table: Table::File(file), .. }) = &route.recipients
            && let Some(table) = file.now()
        {
            let (count, hosts) = (table.len(), table.hosts().len());
            let name = way::table(recipients);
            let _ =
                writeln!(text, "\nRoute {}: {name} has {count} recipients on {hosts} servers.", index + 1);
        }
    }
    let list =
        |patterns: &[HopPattern]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let NextHops { allow, deny } = &config.next_hops;
    if !deny.is_empty() {
        let _ = writeln!(text, "\nNever connected to: {}.", list(deny));
    }
    if !allow.is_empty() {
        let _ = writeln!(text, "\nConnected to: only {}.", list(allow));
    }
    text
}

/// What the lists of next hops say against the configuration's own hosts, and own domains against the outside.
fn routing_warnings(config: &Config, warnings: &mut String) {
    for (index, route) in config.routes.iter().enumerate() {
        let listed = match &route.recipients {
            Some(Recipients { table: Table::File(file), .. }) => file.now(),
            _ => None,
        };
        let own = match &route.target {
            Target::SmartHosts(hosts) => hosts.iter().map(|host| &host.host).collect(),
            Target::Mx { .. } => Vec::new(),
        };
        for host in own.into_iter().chain(listed.iter().flat_map(|table| table.hosts()).map(|host| &**host)) {
            let address = host.host.parse().ok();
            let hop = next_hops::Hop { domain: None, host: Some(&host.host), address };
            if let Some(why) = next_hops::forbidden(&config.next_hops, &hop)
                && host.socket().is_none()
                && (address.is_some() || why != next_hops::Forbidden::NotAllowed)
            {
                let name = way::host(host);
                let _ = writeln!(
                    warnings,
                    "warning: route {} sends to {name}, which is not allowed: {why}; its mail waits",
                    index + 1
                );
            }
            if address.is_none() && host.socket().is_none() && route.resolver.is_none() {
                let name = way::host(host);
                let _ = writeln!(
                    warnings,
                    "warning: the table of route {} names {name}, and the route has no resolver to look it up; its mail waits",
                    index + 1
                );
            }
        }
    }
    for domain in &config.domains.accepted {
        let Some(route) = config.route_for(domain).map(|index| &config.routes[index]) else { continue };
        let outside = |other: &&crate::config::Route| other.domains.iter().any(|pattern| pattern == "*");
        let shared = config.routes.iter().filter(outside).any(|other| other.resolver == route.resolver);
        if matches!(route.target, Target::Mx { .. }) && shared {
            let _ = writeln!(
                warnings,
                "warning: the mail exchangers of the accepted domain {domain} are asked of the same resolver as those of strangers; give its route a resolver of the inside"
            );
        }
    }
}

/// What is allowed and seldom meant.
pub fn warnings(config: &Config) -> String {
    let mut warnings = String::new();
    if let Some(address) = config.admin.bind.filter(|address| !address.ip().is_loopback()) {
        let _ = writeln!(
            warnings,
            "warning: admin.bind {address} is no loopback address, and the admin page asks nobody for a password"
        );
    }
    for domain in &config.domains.accepted {
        let Some(route) = config.route_for(domain) else { continue };
        let named = config.routes[route].domains.iter().any(|pattern| pattern != "*");
        if !named && config.routes.len() > 1 {
            let _ = writeln!(
                warnings,
                "warning: mail for the accepted domain {domain} goes by route {}, which is for everything else; give it a [[route]] with domains = [\"{domain}\"]",
                route + 1
            );
        }
    }
    for (index, route) in config.routes.iter().enumerate() {
        let Target::SmartHosts(hosts) = &route.target else { continue };
        let by_host = route.tls.rule == TlsRule::Verify && route.tls.names == [PeerName::Host];
        let hosts = hosts.iter().map(|host| &host.host);
        for host in hosts.filter(|host| by_host && host.host.parse::<IpAddr>().is_ok()) {
            let _ = writeln!(
                warnings,
                "warning: route {} verifies {} by its address, which few certificates have; name the host, or what its certificate names in route.tls.names",
                index + 1,
                host.host
            );
        }
    }
    routing_warnings(config, &mut warnings);
    if let Some(kind) = volatile(&config.spool.path) {
        let _ = writeln!(
            warnings,
            "warning: the spool {} is on {kind}, which does not keep what it has confirmed; mail is lost when the host goes down",
            config.spool.path.display()
        );
    }
    let hosts = config.routes.iter().enumerate().flat_map(|(index, route)| match &route.target {
        Target::SmartHosts(hosts) => hosts.iter().map(|host| (index + 1, &host.host)).collect(),
        Target::Mx { .. } => Vec::new(),
    });
    for (route, SmartHost { host, port }) in hosts {
        let Ok(address) = host.parse::<IpAddr>() else { continue };
        for listener in config.listeners.iter().filter(|listener| listens_on(listener, address, *port)) {
            let _ = writeln!(
                warnings,
                "warning: route {route} sends to {host}:{port}, where this relay's own listener \"{}\" is: mail would loop",
                listener.name
            );
        }
    }
    warnings
}

/// The kind of a file system that forgets: of the directory, or of what is to hold it.
fn volatile(path: &Path) -> Option<&'static str> {
    // linux/magic.h.
    const KINDS: [(u64, &str); 3] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs"), (0x6969, "NFS")];
    let found = path.ancestors().find_map(|path| rustix::fs::statfs(path).ok())?;
    let kind = u64::try_from(found.f_type).ok()?;
    KINDS.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| *name)
}

fn listens_on(listener: &Listener, address: IpAddr, port: u16) -> bool {
    listener.bind.iter().any(|bind| {
        bind.port() == port && (bind.ip() == address || bind.ip().is_unspecified() && address.is_loopback())
    })
}

/// A configuration, or all that is wrong with it and exit code 78.
pub fn load(path: &Path) -> Result<Config, Failed> {
    Config::load(path).map_err(|error| Failed::new(CONFIGURATION, error))
}

/// A configuration to find the spool by and to name next hops; what only a running relay needs may be bad.
pub fn load_for_queue(path: &Path) -> Result<Config, Failed> {
    Config::load_for_queue(path).map_err(|error| Failed::new(CONFIGURATION, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seldom_meant_is_warned_of() {
        let mut config = Config::demonstration();
        assert_eq!(warnings(&config), "");
        config.admin.bind = Some("0.0.0.0:8025".parse().unwrap());
        assert!(warnings(&config).starts_with("warning: admin.bind 0.0.0.0:8025"));
        config.admin.bind = None;
        let Target::SmartHosts(hosts) = &mut config.routes[0].target else { panic!("a smart host") };
        hosts[0].host = SmartHost { host: "127.0.0.1".into(), port: 2526 };
        assert!(warnings(&config).contains("route 1 sends to 127.0.0.1:2526"), "{}", warnings(&config));
        assert!(warnings(&config).contains("\"inside\""));
        config.routes.swap(0, 1);
        assert!(
            warnings(&config).contains("accepted domain inside.test goes by route 1"),
            "{}",
            warnings(&config)
        );
        config.spool.path = "/dev/shm/sluice".into();
        assert_eq!(
            warnings(&config).contains("is on tmpfs"),
            volatile(Path::new("/dev/shm")) == Some("tmpfs")
        );
    }
}
