//! Weights, tables, LMTP, limits and lists of next hops, as files say them.

use super::super::*;

const START: &str = "hostname = \"relay.winery.example\"\n[domains]\naccepted = [\"winery.example\"]\n[delivery]\nrecipients_max = 50\n[[listener]]\nname = \"inside\"\nbind = [\"127.0.0.1:25\"]\nclients = [\"127.0.0.0/8\"]\n[[resolver]]\nname = \"internal\"\nservers = [\"10.1.0.2\"]\n";

fn read(route: &str) -> Result<Config, String> {
    let text = format!("{START}[[route]]\ndomains = [\"winery.example\"]\n{route}");
    Config::parse(&text, "f").map_err(|error| error.to_string())
}

fn route(route: &str) -> Route {
    read(route).unwrap_or_else(|error| panic!("{error}")).routes.remove(0)
}

fn hosts(of: &Route) -> Vec<(String, u16, u32)> {
    let Target::SmartHosts(hosts) = &of.target else { panic!("{of:?}") };
    hosts.iter().map(|of| (format!("{}:{}", of.host.host, of.host.port), of.priority, of.weight)).collect()
}

#[test]
fn hosts_stand_in_a_list_or_in_tables() {
    let old = route("hosts = [\"10.1.0.10\", \"10.1.0.11:26\"]");
    assert_eq!(hosts(&old), [("10.1.0.10:25".into(), 0, 1), ("10.1.0.11:26".into(), 1, 1)]);
    let inline =
        route("hosts = [{ host = \"10.1.0.12\", priority = 9 }, { host = \"10.1.0.10\", weight = 3 }]");
    assert_eq!(hosts(&inline), [("10.1.0.10:25".into(), 0, 3), ("10.1.0.12:25".into(), 9, 1)]);
    let tables = route(
        "[[route.hosts]]\nhost = \"10.1.0.3\"\nweight = 0\n[[route.hosts]]\nhost = \"10.1.0.1\"\n[route.retry]\nfirst = \"1s\"",
    );
    assert_eq!(hosts(&tables), [("10.1.0.3:25".into(), 0, 0), ("10.1.0.1:25".into(), 0, 1)]);
    assert_eq!(tables.retry.first.as_secs(), 1);
}

#[test]
fn a_route_has_its_own_limits_and_time_outs_and_inherits_the_rest() {
    let own = route(
        "hosts = [\"10.1.0.1\"]\n[route.limits]\nconnections_max = 3\n[route.timeouts]\nreply = \"7s\"",
    );
    let general = Timeouts::default();
    assert_eq!((own.limits.connections_max, own.limits.recipients_max), (3, 50));
    assert_eq!((own.timeouts.reply.as_secs(), own.timeouts.connect), (7, general.connect));
}

#[test]
fn lmtp_is_spoken_over_a_port_of_its_own_or_a_socket() {
    let of = route("protocol = \"lmtp\"\nhosts = [\"unix:/run/dovecot/lmtp\", \"10.1.0.1:24\"]");
    assert_eq!(of.protocol, Protocol::Lmtp);
    assert_eq!(hosts(&of)[0].0, "unix:/run/dovecot/lmtp:0");
}

#[test]
fn lists_of_next_hops_have_networks_domains_and_hosts() {
    let text = format!(
        "{START}[next_hops]\ndeny = [\"10.6.0.0/16\", \"192.0.2.7\", \".Bad.example\", \"mx.bad.example\"]\n[[route]]\ndomains = [\"*\"]\nhosts = [\"10.1.0.1\"]\n"
    );
    let config = Config::parse(&text, "f").unwrap();
    let shown: Vec<String> = config.next_hops.deny.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.6.0.0/16", "192.0.2.7/32", ".bad.example", "mx.bad.example"]);
    let wrong = Config::parse(&text.replace("192.0.2.7", "10.1.0.1/16"), "f").unwrap_err().to_string();
    assert!(wrong.contains("next_hops.deny: \"10.1.0.1/16\" has bits set behind its prefix"), "{wrong}");
}

#[test]
fn a_table_stands_in_a_file_or_a_directory() {
    let path = std::env::temp_dir().join(format!("sluice-routing-{}", std::process::id()));
    std::fs::write(&path, "ann@winery.example 10.1.0.11\n").unwrap();
    let of = route(&format!("[route.recipients]\nfile = {path:?}\nunknown = \"refuse\"\ndetail = \"\""));
    assert!(hosts(&of).is_empty(), "no hosts are needed");
    let recipients = of.recipients.unwrap();
    assert_eq!((recipients.unknown, recipients.detail), (Unknown::Refuse, None));
    let with_hosts =
        |more: &str| read(&format!("hosts = [\"10.1.0.1\"]\n[route.recipients]\nfile = {path:?}{more}"));
    std::fs::write(&path, "ann\n").unwrap();
    let wrong = with_hosts("").unwrap_err();
    assert!(wrong.contains("route.recipients.file: ") && wrong.contains(": line 1: "), "{wrong}");
    std::fs::write(&path, "ann@winery.example\n").unwrap();
    assert!(with_hosts("\nunknown = \"refuse\"").is_ok());
    let wrong = read(&format!("[route.recipients]\nfile = {path:?}\nunknown = \"refuse\"")).unwrap_err();
    assert!(wrong.contains("route.hosts: is missing") && wrong.contains("without a host"), "{wrong}");
    std::fs::write(&path, "# nobody\n").unwrap();
    let wrong = with_hosts("\nunknown = \"refuse\"").unwrap_err();
    assert!(wrong.contains("has no entries") && wrong.contains("all mail of this route"), "{wrong}");
    assert!(with_hosts("").is_ok());
    std::fs::remove_file(&path).unwrap();
    let directory = route(
        "hosts = [\"10.1.0.1\"]\nresolver = \"internal\"\n[route.recipients.ldap]\nurl = \"ldap://10.1.0.3\"\nbase = \"dc=x\"",
    );
    let Table::Ldap(ldap) = directory.recipients.unwrap().table else { panic!("a directory") };
    assert_eq!(
        (ldap.filter.as_str(), ldap.attribute.as_str(), ldap.server.port),
        ("(mail={recipient})", "mailHost", 389)
    );
}

#[test]
fn what_makes_no_sense_is_named() {
    let table = [
        ("hosts = []", "route.hosts: is empty"),
        ("hosts = [\"10.1.0.1\", { host = \"10.1.0.2\" }]", "allowed: a list of strings"),
        ("hosts = [{ host = \"10.1.0.2\" }, \"10.1.0.1\"]", "allowed: tables"),
        (
            "hosts = [{ host = \"10.1.0.2\", weight = 0 }]",
            "no host of the first priority has a weight above 0",
        ),
        ("hosts = [{ weight = 1 }]", "route.hosts.host: is missing"),
        ("hosts = [{ host = \"x y\" }]", "route.hosts.host: \"x y\" is not a host"),
        ("hosts = [{ host = \"10.1.0.1\", wieght = 1 }]", "did you mean weight?"),
        ("hosts = [{ host = \"mail.example\" }]", "the host name mail.example must be looked up"),
        ("hosts = [\"unix:/run/lmtp\"]", "is a socket; allowed: with protocol = \"lmtp\""),
        ("protocol = \"lmtp\"\nhosts = [\"unix:run/lmtp\"]", "is not a socket"),
        ("protocol = \"lmtp\"\nhosts = [\"10.1.0.1\"]", "port 25 is SMTP's"),
        (
            "protocol = \"lmtp\"\nhosts = [\"unix:/x\"]\n[route.tls]\npolicy = \"encrypt\"",
            "there is no TLS over a socket",
        ),
        ("protocol = \"lmtp\"\nmx = true\nresolver = \"internal\"", "LMTP does not leave the house"),
        ("hosts = [\"10.1.0.1\"]\n[route.recipients]\nunknown = \"refuse\"", "either file = "),
        ("hosts = [\"10.1.0.1\"]\n[route.recipients]\ndetail = \"++\"", "is not a separator"),
        (
            "mx = true\nresolver = \"internal\"\n[route.recipients.ldap]\nurl = \"ldap://10.1.0.3\"\nbase = \"x\"",
            "recipients: stands beside mx = true",
        ),
        (
            "hosts = [\"10.1.0.1\"]\n[route.recipients.ldap]\nurl = \"ldap://10.1.0.3\"\nbase = \"x\"\nfilter = \"(uid=x)\"",
            "does not say where the recipient stands",
        ),
        (
            "hosts = [\"10.1.0.1\"]\n[route.recipients.ldap]\nurl = \"ldap://10.1.0.3\"\nbase = \"x\"\nbind_password_file = \"/x\"",
            "would send the password in clear text",
        ),
        (
            "hosts = [\"10.1.0.1\"]\n[route.recipients.ldap]\nurl = \"ldaps://10.1.0.3\"\nbase = \"x\"",
            "route.recipients.ldap.authorities: is missing",
        ),
    ];
    for (text, expected) in table {
        let wrong = read(text).err().unwrap_or_default();
        assert!(wrong.contains(expected), "{text}: {wrong}");
    }
}
