//! `sluice check`: reads a configuration, says what is wrong with it, prints the mail-flow matrix.

use super::{CONFIGURATION, Failed, print};
use crate::clock;
use crate::config::{
    BalancedHost, Config, CutThroughMode, HopPattern, Listener, NextHops, PeerName, Recipients, Route,
    SmartHost, Table, Target, TlsRule,
};
use crate::policy::{self, next_hops, way};
use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

/// TLS from the first octet (RFC 8314).
const SUBMISSIONS_PORT: u16 = 465;
const DAY_MICROS: u64 = 86_400_000_000;

/// Prints the matrix of a good configuration.
pub fn check(path: &Path) -> Result<(), Failed> {
    let config = load(path)?;
    let text = format!(
        "{}: good\n{}{}\nWho may send where:\n\n{}",
        path.display(),
        warnings(&config),
        host_warnings(&config),
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
            let servers = match (table.needs_route_hosts(), hosts) {
                (false, _) => format!("{hosts} servers"),
                (true, 0) => "the route's hosts".to_owned(),
                (true, _) => format!("{hosts} servers and the route's hosts"),
            };
            let _ = writeln!(text, "\nRoute {}: {name} has {count} recipients on {servers}.", index + 1);
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

/// What a route says and cannot keep, or gives away.
fn route_warnings(config: &Config, number: usize, route: &Route, warnings: &mut String) {
    // The copies that reports on TLS go by.
    if route.domains.is_empty() {
        return;
    }
    let mut warn = |text: String| {
        let _ = writeln!(warnings, "warning: route {number} {text}");
    };
    let hosts: &[BalancedHost] = match &route.target {
        Target::SmartHosts(hosts) => hosts,
        Target::Mx { .. } => &[],
    };
    let any_certificate = matches!(route.tls.rule, TlsRule::May | TlsRule::Encrypt | TlsRule::Dane);
    let stays_here = route.recipients.is_none() && hosts.iter().all(|of| is_on_this_host(&of.host));
    if route.login.is_some() && any_certificate && !stays_here {
        warn("has a [route.login], and its TLS takes any certificate: whoever stands in between gets the password; allowed: policy = \"verify\", \"fingerprint\" or \"dane-only\" in [route.tls]".into());
    }
    for of in hosts.iter().filter(|of| of.host.port == SUBMISSIONS_PORT && !route.tls.implicit) {
        warn(format!(
            "sends to {}, where TLS begins with the first octet; give it implicit = true in [route.tls]",
            way::host(&of.host)
        ));
    }
    if let Target::Mx { port } = route.target {
        if route.tls.implicit && port != SUBMISSIONS_PORT {
            warn("has mx = true and implicit = true in [route.tls]: mail exchangers begin TLS by STARTTLS, so that none ever comes about; take implicit out".into());
        }
        for source in route.source.iter().filter(|source| source.is_loopback() && !route.private_addresses) {
            warn(format!("connects from {source}, a loopback address, from which nobody outside is reached"));
        }
    }
    let asked = config.listeners.iter().any(|listener| listener.cut_through != CutThroughMode::Off);
    if route.cut_through.mode != CutThroughMode::Off && !asked {
        warn("allows cut_through, and no [[listener]] asks for it: nothing happens".into());
    }
    let today = clock::wall_micros() / DAY_MICROS;
    for of in &config.warm_ups {
        let is_over = of.began_day.saturating_add(of.schedule.len() as u64) <= today;
        let other = |source: &IpAddr| *source != of.source && source.is_ipv4() == of.source.is_ipv4();
        if route.source.contains(&of.source) && !is_over && !route.source.iter().any(other) {
            warn(format!(
                "has no other source of its family than {}, which a [[warm_up]] limits: past the number of a day its mail waits for the next",
                of.source
            ));
        }
    }
}

fn is_on_this_host(host: &SmartHost) -> bool {
    host.socket().is_some() || host.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What does nothing, or another thing than it seems to.
fn general_warnings(config: &Config, warnings: &mut String) {
    let makes = |route: &Route| route.rewrite.as_ref().is_some_and(|rules| rules.srs.is_some());
    if config.srs.is_some() && !config.routes.iter().any(makes) {
        let _ = writeln!(
            warnings,
            "warning: there is [srs], and no route has srs = true in [route.rewrite]: no return address is ever made"
        );
    }
    for rule in config.backoff.iter().filter(|rule| !rule.reply.to_string().contains('*')) {
        let _ = writeln!(
            warnings,
            "warning: the [[backoff]] reply \"{0}\" has no *, and fits only a reply that says just that; write \"{0} *\" for those that begin so",
            rule.reply
        );
    }
    if let Some(report) = config.tls_report.as_ref().filter(|report| report.from == config.postmaster) {
        let _ = writeln!(
            warnings,
            "warning: [tls_report] has no from of its own: all mail of {} counts as a report, and goes out without what DANE and MTA-STS demand",
            report.from
        );
    }
}

/// What this host lacks for the configuration, which may be meant for another one.
fn host_warnings(config: &Config) -> String {
    let findings = config.start_checks().into_iter().filter(|finding| finding.name == "cpus");
    findings.map(|finding| format!("warning: on this host: {}\n", finding.sentence)).collect()
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
    for (index, route) in config.routes.iter().enumerate() {
        route_warnings(config, index + 1, route, &mut warnings);
    }
    general_warnings(config, &mut warnings);
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

    /// The demonstration with the first route to a relay elsewhere.
    fn to_elsewhere() -> Config {
        let mut config = Config::demonstration();
        let Target::SmartHosts(hosts) = &mut config.routes[0].target else { panic!("a smart host") };
        hosts[0].host = SmartHost { host: "192.0.2.7".into(), port: 587 };
        config
    }

    #[test]
    fn a_password_is_for_known_hosts() {
        let mut config = to_elsewhere();
        let login = crate::config::Login { user: "u".into(), password: "p".into(), in_clear_text: false };
        config.routes[0].login = Some(std::sync::Arc::new(login));
        for (rule, warned) in [
            (TlsRule::May, true),
            (TlsRule::Encrypt, true),
            (TlsRule::Dane, true),
            (TlsRule::DaneOnly, false),
            (TlsRule::Fingerprint, false),
        ] {
            config.routes[0].tls.rule = rule;
            let text = warnings(&config);
            assert_eq!(
                text.contains("whoever stands in between gets the password"),
                warned,
                "{rule:?}: {text}"
            );
        }
        config.routes[0].tls.rule = TlsRule::May;
        let Target::SmartHosts(hosts) = &mut config.routes[0].target else { panic!("a smart host") };
        hosts[0].host.host = "127.0.0.1".into();
        assert_eq!(warnings(&config), "", "nobody stands in between");
    }

    #[test]
    fn what_can_never_work_is_warned_of() {
        let mut config = to_elsewhere();
        assert_eq!(warnings(&config), "");
        let expect = |config: &Config, text: &str| {
            let found = warnings(config);
            assert!(found.contains(text) && found.lines().count() == 1, "{text}: {found}");
        };
        let Target::SmartHosts(hosts) = &mut config.routes[0].target else { panic!("a smart host") };
        hosts[0].host.port = 465;
        expect(&config, "route 1 sends to 192.0.2.7:465, where TLS begins with the first octet");
        config.routes[0].tls.implicit = true;
        assert_eq!(warnings(&config), "");

        let mut config = to_elsewhere();
        config.routes[0].cut_through.mode = CutThroughMode::Recipients;
        expect(&config, "route 1 allows cut_through, and no [[listener]] asks");
        config.listeners[0].cut_through = CutThroughMode::Recipients;
        assert_eq!(warnings(&config), "");

        let mut config = to_elsewhere();
        let key = "0123456789abcdef0123456789abcdef".to_owned();
        let srs = crate::rewrite::srs::Srs::new(
            "srs.test".into(),
            &[key],
            std::time::Duration::from_secs(86_400),
            8,
        );
        config.srs = Some(std::sync::Arc::new(srs));
        expect(&config, "no route has srs = true");
        let rules = crate::rewrite::Rules { srs: config.srs.clone(), ..Default::default() };
        config.routes[0].rewrite = Some(rules);
        assert_eq!(warnings(&config), "");

        let mut config = to_elsewhere();
        config.backoff[0].reply = crate::delivery::backoff::Pattern::new("421 4.7.28");
        expect(&config, "the [[backoff]] reply \"421 4.7.28\" has no *");
    }

    #[test]
    fn sources_that_reach_nobody_or_are_used_up_are_warned_of() {
        let mut config = Config::demonstration();
        let source = "192.0.2.1".parse().unwrap();
        let began_day = clock::wall_micros() / DAY_MICROS;
        config.routes[1].source = vec![source, "2001:db8::1".parse().unwrap()];
        config.warm_ups = vec![crate::config::WarmUp { source, began_day, schedule: vec![50, 100] }];
        assert!(
            warnings(&config).contains("route 2 has no other source of its family than 192.0.2.1"),
            "{}",
            warnings(&config)
        );
        config.warm_ups[0].began_day = began_day - 2;
        assert_eq!(warnings(&config), "", "over");
        config.warm_ups[0].began_day = began_day;
        config.routes[1].source.push("192.0.2.2".parse().unwrap());
        assert_eq!(warnings(&config), "");

        config.routes[1].target = Target::Mx { port: 25 };
        config.routes[1].tls.implicit = true;
        config.routes[1].source = vec!["127.0.0.1".parse().unwrap()];
        let text = warnings(&config);
        assert!(text.contains("route 2 has mx = true and implicit = true"), "{text}");
        assert!(text.contains("route 2 connects from 127.0.0.1, a loopback address"), "{text}");
        config.routes[1].private_addresses = true;
        assert!(!warnings(&config).contains("loopback"));
    }

    #[test]
    fn the_configuration_is_held_against_this_host() {
        let mut config = Config::demonstration();
        assert_eq!(host_warnings(&config), "");
        config.override_cpus([None, Some("4095"), None]).unwrap();
        let text = host_warnings(&config);
        assert!(text.starts_with("warning: on this host: ") && text.ends_with('\n'), "{text}");
    }
}
