//! Tables of whole files: what loads, and the exact lines that a bad one prints.

use super::*;

mod faults;
mod reference;
mod routing;

const GOOD: &str = r#"
hostname = "Relay.Winery.Example."
[domains]
accepted = ["Winery.Example", "cellar.example."]
[[listener]]
name = "outside"
bind = ["203.0.113.10:25", "[2001:db8::10]:25"]
clients = ["0.0.0.0/0", "::/0"]
[[listener]]
name = "inside"
bind = ["10.1.0.5:25"]
clients = ["10.1.0.0/16", "10.2.0.7"]
relay = "any"
[[route]]
domains = ["winery.example", ".winery.example", "cellar.example"]
hosts = ["10.1.0.10", "[2001:db8::1]:2525", "mail.inside.example:26"]
resolver = "internal"
[route.retry]
longest = "10m"
[[route]]
domains = ["*"]
mx = true
port = 2525
resolver = "external"
[[resolver]]
name = "internal"
servers = ["10.1.0.2:53"]
[[resolver]]
name = "external"
servers = ["192.0.2.53", "[2001:db8::53]:5353"]
"#;

fn good() -> Config {
    Config::parse(GOOD, "relay.toml").unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn resolvers_and_sources_are_read_as_written() {
    let with = |from: &str, to: &str| Config::parse(&GOOD.replace(from, to), "f").expect(to);
    let config = with("name = \"external\"", "name = \"external\"\ndnssec = \"trust-ad\"");
    assert_eq!([0, 1].map(|index| config.resolvers[index].dnssec), [Dnssec::Off, Dnssec::TrustAd]);
    let config = with("mx = true", "mx = true\nprivate_addresses = true\nsource = [\"2001:db8::7\"]");
    assert_eq!([0, 1].map(|index| config.routes[index].private_addresses), [false, true]);
    assert_eq!(config.routes[1].source[0].to_string(), "2001:db8::7");
    let config = with("[domains]", "[delivery]\nown_addresses = [\"203.0.113.10\"]\n[domains]");
    assert_eq!(config.delivery.own_addresses[0].to_string(), "203.0.113.10");
}

#[test]
fn a_two_sided_gateway_loads_with_defaults_filled_in() {
    let config = good();
    assert_eq!(config.hostname, "relay.winery.example");
    assert_eq!(config.postmaster, "postmaster@winery.example");
    assert_eq!(config.domains.accepted, ["winery.example", "cellar.example"]);
    assert_eq!(config.spool.path, Path::new("/var/spool/sluice"));
    assert_eq!(config.listeners[0].relay, Relay::Accepted);
    assert_eq!(config.listeners[1].clients[1].to_string(), "10.2.0.7/32");
    assert_eq!(config.listeners[1].tls, TlsMode::Off);
    assert_eq!((config.routes[0].resolver, config.routes[1].resolver), (Some(0), Some(1)));
    assert!(matches!(config.routes[1].target, Target::Mx { port: 2525 }));
    let Target::SmartHosts(hosts) = &config.routes[0].target else { panic!("{:?}", config.routes[0]) };
    let shown: Vec<_> =
        hosts.iter().map(|BalancedHost { host, .. }| format!("{} {}", host.host, host.port)).collect();
    assert_eq!(shown, ["10.1.0.10 25", "2001:db8::1 2525", "mail.inside.example 26"]);
    assert_eq!(config.resolvers[1].servers[0].to_string(), "192.0.2.53:53");
    assert_eq!(config.resolvers[1].servers[1].to_string(), "[2001:db8::53]:5353");
}

#[test]
fn a_route_s_own_retry_inherits_what_it_does_not_say() {
    let config = good();
    assert_eq!(config.routes[0].retry.longest.as_secs(), 600);
    assert_eq!(config.routes[0].retry.expire, config.retry.expire);
    assert_eq!(config.routes[1].retry, config.retry);
}

#[test]
fn the_first_matching_route_wins() {
    let config = good();
    let table = [
        ("winery.example", Some(0)),
        ("WINERY.example.", Some(0)),
        ("a.b.winery.example", Some(0)),
        ("b\u{fc}cher.example", Some(1)),
        ("xwinery.example", Some(1)),
        ("other.example", Some(1)),
        ("[192.0.2.1]", Some(1)),
    ];
    for (domain, route) in table {
        assert_eq!(config.route_for(domain), route, "{domain}");
    }
    let mut config = config;
    config.routes.pop();
    assert_eq!(config.route_for("other.example"), None);
    config.routes[0].domains = vec![".winery.example".to_owned()];
    assert_eq!(config.route_for("winery.example"), None);
    assert_eq!(config.route_for(".winery.example"), None);
    assert_eq!(config.route_for("x.winery.example"), Some(0));
}

#[test]
fn the_demonstration_is_both_sides_on_the_loopback_address() {
    let config = Config::demonstration();
    let binds: Vec<_> = config.listeners.iter().map(|l| (l.name.as_str(), l.bind[0].to_string())).collect();
    assert_eq!(binds, [("outside", "127.0.0.1:2525".to_owned()), ("inside", "127.0.0.1:2526".to_owned())]);
    assert_eq!(config.admin.bind, Some("127.0.0.1:8025".parse().expect("an address")));
    assert_eq!(config.domains.accepted, ["inside.test"]);
    assert_eq!(config.spool.path, Path::new("./sluice-demo/spool"));
    for domain in ["inside.test", "elsewhere.example"] {
        let route = &config.routes[config.route_for(domain).expect(domain)];
        let Target::SmartHosts(hosts) = &route.target else { panic!("{route:?}") };
        assert_eq!(format!("{}:{}", hosts[0].host.host, hosts[0].host.port), DEMONSTRATION_STAND_IN);
    }
}
