//! What domains announce of the TLS of their hosts: DANE in signed zones, MTA-STS over HTTPS, and the reports that
//! they get (RFC 7672, RFC 8461, RFC 8460).

use serde_json::{Value, json};
use sluice_tests::message::message;
use sluice_tests::process::{run, run_ok};
use sluice_tests::tls::{Authority, talk};
use sluice_tests::wait::{SOON, until_true};
use sluice_tests::{Answer, Client, Dns, Https, Inbox, Relay};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A relay that delivers by MX and DNSSEC to a peer with TLS, and everybody that they need.
struct World {
    dns: Dns,
    /// Of the peer: what came to it.
    arrived: Inbox,
    /// Of the relay: mail to `inside.test`.
    internal: Inbox,
    peer: Relay,
    relay: Relay,
    authority: Authority,
    https: Https,
    port: u16,
}

/// `domains`: the peer takes their mail, and its certificate names `mx.` each; `further`: more of its names.
/// `policy`: the keys of `[route.tls]`, and `section`: further sections, in which `PORT` is the HTTPS server's and
/// `AUTHORITY` the authority's file.
fn world(domains: &[&str], further: &[&str], policy: &str, section: &str) -> World {
    let (dns, arrived, internal) = (Dns::start_signed(), Inbox::start(), Inbox::start());
    let mut peer = Relay::builder()
        .hostname("peer.test")
        .accepted(domains)
        .smart_hosts(domains, &[arrived.address()])
        .prepare();
    let authority = Authority::new(peer.directory(), "authority");
    let names: Vec<String> = domains
        .iter()
        .flat_map(|domain| [format!("DNS:mx.{domain}"), format!("DNS:mta-sts.{domain}")])
        .chain(further.iter().map(|name| format!("DNS:{name}")))
        .collect();
    authority.issue_for("peer", "peer.test", &names.join(","));
    let chain =
        [authority.path("peer.pem"), authority.path("authority.pem")].map(|path| text(&path)).concat();
    fs::write(authority.path("chain.pem"), chain).expect("a file");
    let (chain, key) = (authority.path("chain.pem"), authority.path("peer.key"));
    peer.edit_config("tls = \"off\"", "tls = \"offer\"");
    peer.edit_config("[spool]\n", &format!("[tls]\ncertificate = {chain:?}\nkey = {key:?}\n[spool]\n"));
    peer.start();
    let https = Https::start(&chain, &key);
    let anchors = authority.path("anchors.zone");
    fs::write(&anchors, dns.trust_anchor()).expect("the key");
    let port = peer.outside().port();
    let known = authority.path("authority.pem");
    let fill = |text: &str| {
        let port = https.port().to_string();
        text.replace("PORT", &port).replace("AUTHORITY", known.to_str().expect("UTF-8"))
    };
    let mut relay = Relay::builder()
        .inward(internal.address())
        .outward_by_mx_with(
            dns.address(),
            port,
            &format!("private_addresses = true\n[route.tls]\nauthorities = {known:?}\n{}", fill(policy)),
            &format!("dnssec = \"validate\"\ntrust_anchors = {anchors:?}"),
        )
        .section(&fill(section))
        .retry("500ms", "1s", "1d")
        .prepare();
    for domain in domains {
        dns.mx(domain, 10, &format!("mx.{domain}")).loopback(&format!("mx.{domain}"), 1);
        dns.loopback(&format!("mta-sts.{domain}"), 1);
    }
    relay.start();
    World { dns, arrived, internal, peer, relay, authority, https, port }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).expect("a file")
}

/// SHA-256 of the public key, or of the whole certificate, by OpenSSL.
fn digest(certificate: &PathBuf, of_key: bool) -> Vec<u8> {
    let form = match of_key {
        true => "openssl x509 -noout -pubkey -in \"$0\" | openssl pkey -pubin -outform der",
        false => "openssl x509 -outform der -in \"$0\"",
    };
    let script = format!("{form} | openssl dgst -sha256 -hex -r");
    let printed = run_ok(Command::new("sh").args(["-c", &script]).arg(certificate), SOON);
    let byte = |at: usize| u8::from_str_radix(&printed[at..at + 2], 16).expect("hexadecimal");
    (0..64).step_by(2).map(byte).collect()
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

impl World {
    fn key(&self) -> Vec<u8> {
        digest(&self.authority.path("peer.pem"), true)
    }

    /// Waits for a report to this address.
    #[track_caller]
    fn report(&self, to: &str) -> sluice_tests::Transaction {
        let found = || self.arrived.transactions().into_iter().find(|one| one.to == [to]);
        until_true(SOON, "the report arrives", || found().is_some());
        found().expect("a report")
    }

    fn send(&self, to: &str) {
        let mut client = Client::hello(self.relay.inside());
        client.send_message("bob@inside.test", &[to], &message("announced", "x\r\n")).expect(250, "2.0.0");
        client.quit();
    }

    /// Sends, and waits for the line that says what came of it.
    #[track_caller]
    fn outcome(&self, to: &str, parts: &[&str]) -> String {
        self.send(to);
        let to = format!("to=<{to}>");
        self.relay.log().wait_for(SOON, &[&[to.as_str()], parts].concat())
    }
}

/// Whether OpenSSL, asked to believe this record, takes the peer.
fn openssl_believes(peer: SocketAddr, base: &str, record: &str) -> bool {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-starttls", "smtp", "-verify_return_error", "-brief"]);
    command.args(["-connect", &peer.to_string(), "-dane_tlsa_domain", base, "-dane_tlsa_rrdata", record]);
    run(&mut command, SOON).status.success()
}

/// RFC 7672; the verdicts beside those of OpenSSL where it has one.
#[test]
fn tlsa_records_decide_who_gets_the_mail() {
    let domains = [
        "key.test",
        "whole.test",
        "issuer.test",
        "wrong.test",
        "other-issuer.test",
        "unusable.test",
        "none.test",
        "failing.test",
        "forged.test",
    ];
    let world = world(&domains, &["next.test"], "policy = \"dane\"", "");
    let (dns, port) = (&world.dns, world.port);
    let file = world.authority.path("peer.pem");
    let (key, whole) = (world.key(), digest(&file, false));
    let issuer = digest(&world.authority.path("authority.pem"), false);
    let wrong = vec![7; 32];
    let table: [(&str, [u8; 3], &[u8], &str); 6] = [
        ("key.test", [3, 1, 1], &key, "/dane, dsn=2.0.0, status=sent"),
        ("whole.test", [3, 0, 1], &whole, "/dane, dsn=2.0.0, status=sent"),
        ("issuer.test", [2, 0, 1], &issuer, "/dane, dsn=2.0.0, status=sent"),
        ("wrong.test", [3, 1, 1], &wrong, "dsn=4.7.5, status=deferred"),
        ("other-issuer.test", [2, 0, 1], &wrong, "dsn=4.7.5, status=deferred"),
        // TLS all the same, with whatever certificate.
        ("unusable.test", [1, 0, 1], &wrong, "/trusted, dsn=2.0.0, status=sent"),
    ];
    for (domain, numbers, data, _) in &table {
        dns.tlsa_record(&format!("mx.{domain}"), port, *numbers, data);
    }
    for (domain, numbers, data, expected) in table {
        let expected = if domain == "unusable.test" { "status=sent" } else { expected };
        let line = world.outcome(&format!("x@{domain}"), &[expected]);
        let base = format!("mx.{domain}");
        if domain == "unusable.test" {
            assert!(line.contains("tls=TLSv1.3/") && !line.contains("/dane"), "{line}");
            continue;
        }
        let [usage, selector, matching] = numbers;
        let record = format!("{usage} {selector} {matching} {}", hex(data));
        let believed = openssl_believes(world.peer.outside(), &base, &record);
        assert_eq!(believed, expected.contains("sent"), "{domain}: {line}");
        if !believed {
            assert!(line.contains(&format!("no TLSA record of {base} vouches for it")), "{line}");
        }
    }
    let line = world.outcome("x@none.test", &["status=sent"]);
    assert!(line.contains("tls=TLSv1.3/") && !line.contains("/dane"), "{line}");
    // What is not known may not be taken for none (RFC 7672 section 2.1).
    dns.set_failing(&format!("_{port}._tcp.mx.failing.test"), true);
    dns.tlsa("mx.forged.test", port, &key).set_forged(&format!("_{port}._tcp.mx.forged.test"), true);
    for domain in ["failing.test", "forged.test"] {
        let line = world.outcome(&format!("x@{domain}"), &["dsn=4.7.5", "status=deferred"]);
        assert!(
            line.contains(&format!("the TLSA records of mx.{domain}[127.0.0.1] are not known")),
            "{line}"
        );
    }
    dns.set_failing(&format!("_{port}._tcp.mx.failing.test"), false);
    world.relay.log().wait_for(SOON, &["to=<x@failing.test>", "status=sent"]);
    assert_eq!(world.arrived.wait_for(6, SOON).len(), 6);
}

/// RFC 7672 sections 2.2.2 and 3.2.2, and what happens without STARTTLS or with another host left.
#[test]
fn aliases_names_of_the_domain_and_hosts_without_tls() {
    let domains = ["key.test", "back.test", "real.test"];
    let world = world(&domains, &["next.test"], "policy = \"may\"", "");
    let (dns, port, key) = (&world.dns, world.port, world.key());
    let issuer = digest(&world.authority.path("authority.pem"), false);
    // The host is an alias: its records are at the name behind it, or else at the one before it.
    dns.cname("alias.real.test", "target.real.test").loopback("target.real.test", 1);
    dns.tlsa("target.real.test", port, &key);
    dns.mx("behind.real.test", 10, "alias.real.test");
    dns.cname("early.real.test", "bare.real.test").loopback("bare.real.test", 1);
    dns.tlsa("early.real.test", port, &key).mx("before.real.test", 10, "early.real.test");
    // An authority vouches for the next-hop domain as well as for the host's name.
    dns.mx("next.test", 10, "unnamed.real.test").loopback("unnamed.real.test", 1);
    dns.tlsa_record("unnamed.real.test", port, [2, 0, 1], &issuer);
    dns.mx("stranger.real.test", 10, "unnamed.real.test");
    // So it does for the domain behind the one that the recipient's address has (section 3.2.2), and not for another.
    dns.cname("short.real.test", "next.test").cname("farther.real.test", "short.real.test");
    dns.cname("strange.real.test", "stranger.real.test");
    // A better host that does not comply gives way to the next.
    dns.tlsa("mx.back.test", port, &key).mx("back.test", 5, "bad.back.test").loopback("bad.back.test", 1);
    dns.tlsa("bad.back.test", port, &[9; 32]);
    // There is no clear text where TLSA records are.
    let plain = Inbox::bind(SocketAddr::from(([127, 0, 0, 2], port)), |_| Answer::Accept);
    dns.mx("plain.test", 10, "mx.plain.test").loopback("mx.plain.test", 2).tlsa("mx.plain.test", port, &key);
    // None of these domains is one of the peer's: what is refused there was handed over within TLS.
    let accepted =
        ["behind.real.test", "before.real.test", "next.test", "short.real.test", "farther.real.test"];
    for to in accepted.map(|domain| format!("x@{domain}")) {
        let to = to.as_str();
        let line = world.outcome(to, &["status=bounced"]);
        assert!(line.contains("/dane, ") && line.contains("5.7.1"), "{line}");
    }
    for to in ["x@stranger.real.test", "x@strange.real.test"] {
        let line = world.outcome(to, &["status=deferred"]);
        assert!(line.contains("dsn=4.7.5") && line.contains("no TLSA record"), "{line}");
    }
    let line = world.outcome("x@back.test", &["status=sent"]);
    assert!(line.contains("relay=mx.back.test[127.0.0.1]") && line.contains("/dane,"), "{line}");
    let line = world.outcome("x@plain.test", &["status=deferred"]);
    assert!(line.contains("dsn=4.7.4") && line.contains("TLS is required"), "{line}");
    assert!(plain.is_empty());
}

/// RFC 7672 section 3.1.1: a key is good for all domains of its host, whatever names the certificate has; behind an
/// authority each domain is looked for in it.
#[test]
fn domains_of_one_host_share_its_connections_where_its_key_vouches() {
    // More than the connections that a new site has at first; only then it counts whether one can be shared.
    const COUNT: u64 = 8;
    let of = |kind: &str, number: u64| format!("{kind}{number}.test");
    let next_hops: Vec<String> = (0..COUNT).map(|number| of("issuer", number)).collect();
    let named: Vec<&str> = next_hops.iter().map(String::as_str).collect();
    let world = world(&["real.test"], &named, "policy = \"may\"", "");
    let (dns, port) = (&world.dns, world.port);
    let issuer = digest(&world.authority.path("authority.pem"), false);
    dns.loopback("key.real.test", 1).tlsa("key.real.test", port, &world.key());
    dns.loopback("issuer.real.test", 1).tlsa_record("issuer.real.test", port, [2, 0, 1], &issuer);
    let handshakes = |kind: &str| {
        let before = world.relay.metric("tls_out_handshakes_total");
        for number in 0..COUNT {
            dns.mx(&of(kind, number), 10, &format!("{kind}.real.test"));
            // None of these domains is one of the peer's.
            world.outcome(&format!("x@{}", of(kind, number)), &["/dane,", "dsn=5.7.1", "status=bounced"]);
        }
        world.relay.metric("tls_out_handshakes_total") - before
    };
    let (by_key, by_authority) = (handshakes("key"), handshakes("issuer"));
    assert!(by_key < COUNT, "{by_key} connections");
    assert_eq!(by_authority, COUNT);
}

/// S31.
#[test]
fn a_route_can_demand_dane() {
    let world = world(&["key.test", "none.test"], &[], "policy = \"dane-only\"", "");
    world.dns.tlsa("mx.key.test", world.port, &world.key());
    world.outcome("x@key.test", &["/dane,", "status=sent"]);
    let line = world.outcome("x@none.test", &["dsn=4.7.5", "status=deferred"]);
    assert!(line.contains("mx.none.test[127.0.0.1] has no TLSA records"), "{line}");
    assert_eq!(world.arrived.len(), 1);
}

const STS: &str = "mta_sts = true\ndane = true";
const FETCH: &str = "[mta_sts]\nport = PORT\nauthorities = \"AUTHORITY\"\ntimeout = \"5s\"";

fn announce(world: &World, domain: &str, id: &str) {
    world.dns.txt(&format!("_mta-sts.{domain}"), &format!("v=STSv1; id={id};"));
}

/// RFC 8461.
#[test]
fn a_policy_of_mta_sts_decides_who_gets_the_mail() {
    let domains = [
        "good.test",
        "unlisted.test",
        "testing.test",
        "both.test",
        "dane.test",
        "none.test",
        "missing.test",
        "moved.test",
        "html.test",
        "damaged.test",
        "large.test",
    ];
    let world = world(&domains, &[], STS, FETCH);
    domains.iter().for_each(|domain| announce(&world, domain, "1"));
    let (dns, https) = (&world.dns, &world.https);
    https.policy("good.test", "enforce", "*.good.test", 86_400);
    https.policy("unlisted.test", "enforce", "mx.elsewhere.test", 86_400);
    https.policy("testing.test", "testing", "mx.elsewhere.test", 86_400);
    https.policy("none.test", "none", "mx.elsewhere.test", 86_400);
    // A policy must not do what DANE forbids, nor the other way round (section 2).
    https.policy("both.test", "enforce", "mx.both.test", 86_400);
    dns.tlsa("mx.both.test", world.port, &[9; 32]);
    https.policy("dane.test", "enforce", "mx.elsewhere.test", 86_400);
    dns.tlsa("mx.dane.test", world.port, &world.key());
    let text = "version: STSv1\nmode: enforce\nmx: mx.elsewhere.test\nmax_age: 86400\n";
    https.answers("mta-sts.moved.test", 301, "text/plain", text);
    https.answers("mta-sts.html.test", 200, "text/html", text);
    https.answers("mta-sts.damaged.test", 200, "text/plain", &text.replace("STSv1", "STSv2"));
    https.answers("mta-sts.large.test", 200, "text/plain", &text.repeat(2_000));
    // Its policy host shows a certificate for others. The peer does not take its mail; but it was asked.
    dns.mx("odd.test", 10, "mx.good.test").loopback("mta-sts.odd.test", 1);
    announce(&world, "odd.test", "1");
    https.policy("odd.test", "enforce", "mx.elsewhere.test", 86_400);
    for (domain, parts) in [
        ("odd.test", ["tls=TLSv1.3/", "status=bounced"]),
        ("large.test", ["tls=TLSv1.3/", "status=sent"]),
        ("good.test", ["/sts,", "status=sent"]),
        ("unlisted.test", ["dsn=4.7.5", "status=deferred"]),
        ("testing.test", ["tls=TLSv1.3/", "status=sent"]),
        ("both.test", ["dsn=4.7.5", "status=deferred"]),
        ("dane.test", ["/dane,", "status=sent"]),
        ("none.test", ["tls=TLSv1.3/", "status=sent"]),
        ("missing.test", ["tls=TLSv1.3/", "status=sent"]),
        ("moved.test", ["tls=TLSv1.3/", "status=sent"]),
        ("html.test", ["tls=TLSv1.3/", "status=sent"]),
        ("damaged.test", ["tls=TLSv1.3/", "status=sent"]),
    ] {
        world.outcome(&format!("x@{domain}"), &parts);
    }
    let log = world.relay.log();
    for parts in [
        [
            "to=<x@unlisted.test>",
            "the MTA-STS policy of unlisted.test does not list mx.unlisted.test[127.0.0.1]",
        ],
        ["the MTA-STS policy of testing.test, which it tests", "does not list the host"],
        ["to=<x@both.test>", "no TLSA record of mx.both.test vouches"],
        ["MTA-STS policy of odd.test, id 1", "not valid for name"],
        ["MTA-STS policy of large.test, id 1", "length limit exceeded"],
        ["MTA-STS policy of missing.test, id 1", "code 404"],
        ["MTA-STS policy of moved.test, id 1", "code 301"],
        ["MTA-STS policy of html.test, id 1", "not text/plain"],
        ["MTA-STS policy of damaged.test, id 1", "not of version STSv1"],
    ] {
        log.wait_for(SOON, &parts);
    }
    assert_eq!(https.times_asked("mta-sts.good.test"), 1);
    assert_eq!(https.times_asked("mta-sts.dane.test"), 0, "not asked where DANE decides");
}

/// Whoever names the hosts of others as his own, and a policy that they cannot keep, holds only his own mail up.
#[test]
fn what_one_domain_demands_holds_no_other_domain_of_the_same_hosts_up() {
    let world = world(&["good.test"], &["mta-sts.rogue.test"], STS, FETCH);
    world.dns.mx("rogue.test", 10, "mx.good.test").loopback("mta-sts.rogue.test", 1);
    announce(&world, "rogue.test", "1");
    world.https.policy("rogue.test", "enforce", "mx.elsewhere.test", 86_400);
    let line = world.outcome("x@rogue.test", &["dsn=4.7.5", "status=deferred"]);
    assert!(line.contains("the MTA-STS policy of rogue.test does not list mx.good.test"), "{line}");
    world.outcome("x@good.test", &["status=sent"]);
    let log = world.relay.log();
    assert_eq!(log.matching(&["to=<x@good.test>", "status=deferred"]), [""; 0], "{}", log.text());
}

#[test]
fn with_a_policy_the_certificate_counts_and_there_is_no_clear_text() {
    let world = world(&["good.test"], &["mta-sts.odd.test", "mta-sts.plain.test"], STS, FETCH);
    world.dns.loopback("mta-sts.odd.test", 1).loopback("mta-sts.plain.test", 1);
    // The host's name is in no certificate.
    world.dns.mx("odd.test", 10, "mx.odd.test").loopback("mx.odd.test", 1);
    announce(&world, "odd.test", "1");
    world.https.policy("odd.test", "enforce", "mx.odd.test", 86_400);
    let line = world.outcome("x@odd.test", &["dsn=4.7.5", "status=deferred"]);
    assert!(line.contains("mx.odd.test[127.0.0.1] is trusted, not verified as the MTA-STS policy"), "{line}");
    let plain = Inbox::bind(SocketAddr::from(([127, 0, 0, 2], world.port)), |_| Answer::Accept);
    world.dns.mx("plain.test", 10, "mx.plain.test").loopback("mx.plain.test", 2);
    announce(&world, "plain.test", "1");
    world.https.policy("plain.test", "enforce", "mx.plain.test", 86_400);
    let line = world.outcome("x@plain.test", &["dsn=4.7.4", "status=deferred"]);
    assert!(line.contains("TLS is required"), "{line}");
    assert!(plain.is_empty() && world.arrived.is_empty());
}

#[test]
fn a_policy_outlives_a_restart_a_record_that_is_gone_and_a_fetch_that_fails_and_another_id_replaces_it() {
    let mut world = world(&["kept.test"], &[], STS, FETCH);
    announce(&world, "kept.test", "1");
    world.https.policy("kept.test", "enforce", "mx.elsewhere.test", 86_400);
    world.outcome("a@kept.test", &["dsn=4.7.5", "status=deferred"]);
    let file = world.relay.spool().join("mta-sts.json");
    until_true(SOON, "the policy is kept", || file.exists());
    // After the restart it holds although nothing is announced that could be fetched.
    world.https.answers("mta-sts.kept.test", 500, "text/plain", "");
    announce(&world, "kept.test", "2");
    world.relay.stop();
    world.relay.start();
    let log = world.relay.log();
    log.wait_for(SOON, &["MTA-STS policy of kept.test, id 2", "code 500"]);
    log.wait_for(SOON, &["does not list mx.kept.test"]);
    assert!(world.arrived.is_empty());
    // Another policy takes its place once its id is announced, and it can be had.
    world.https.policy("kept.test", "enforce", "mx.kept.test", 86_400);
    world.relay.stop();
    world.relay.start();
    world.relay.log().wait_for(SOON, &["to=<a@kept.test>", "/sts,", "status=sent"]);
    assert_eq!(world.arrived.wait_for(1, SOON).len(), 1);
    // A file that is damaged is said so, and the policy fetched again.
    world.relay.stop();
    fs::write(&file, "{").expect("a file");
    world.relay.start();
    world.relay.log().wait_for(SOON, &["mta-sts.json", "the policies are fetched again"]);
    world.outcome("b@kept.test", &["/sts,", "status=sent"]);
}

const CHECK: &str = r#"
import email, email.policy, gzip, json, sys
message = email.message_from_binary_file(open(sys.argv[1], 'rb'), policy=email.policy.default)
assert not message.defects, message.defects
assert message.get_content_type() == 'multipart/report'
assert message.get_param('report-type') == 'tlsrpt'
text, report = message.iter_parts()
assert text.get_content_type() == 'text/plain'
assert report.get_content_type() == 'application/tlsrpt+gzip'
print(json.dumps({'headers': {name: str(message[name]) for name in message.keys()}, 'file': report.get_filename(),
    'report': json.loads(gzip.decompress(report.get_content()))}))
"#;

/// A message that Python takes apart: its header, the name of the attachment, the report.
fn parsed(content: &[u8]) -> Value {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), content).expect("a file");
    let printed = run_ok(Command::new("python3").args(["-c", CHECK]).arg(file.path()), SOON);
    serde_json::from_str(&printed).expect("JSON")
}

/// The report of a domain, all its periods together: policies with their counts and the kinds of failures.
fn sums(reports: &[Value]) -> (u64, u64) {
    let policies = || reports.iter().flat_map(|report| report["policies"].as_array().expect("policies"));
    let sum = |key: &str| policies().map(|policy| policy["summary"][key].as_u64().expect("a number")).sum();
    (sum("total-successful-session-count"), sum("total-failure-session-count"))
}

/// RFC 8460, with a period of seconds.
#[test]
fn domains_that_ask_get_reports_by_mail_and_by_https() {
    let section = format!(
        "{FETCH}\n[tls_report]\norganization = \"Winery\"\ncontact = \"tls@inside.test\"\n\
         from = \"reports@inside.test\"\nperiod = \"2s\"\nspread = \"0s\"\nauthorities = \"AUTHORITY\""
    );
    let domains = ["good.test", "wrong.test", "posted.test", "silent.test", "steered.test"];
    let world = world(&domains, &["sts.reports.test"], STS, &section);
    let (dns, port, key) = (&world.dns, world.port, world.key());
    dns.tlsa("mx.good.test", port, &key).txt("_smtp._tls.good.test", "v=TLSRPTv1; rua=mailto:in@good.test");
    // Who is behind the relay gets none because a stranger says so.
    dns.txt("_smtp._tls.steered.test", "v=TLSRPTv1; rua=mailto:in@inside.test");
    // Its report goes to the host that it says is not trustworthy.
    dns.tlsa("mx.wrong.test", port, &[9; 32]);
    dns.txt("_smtp._tls.wrong.test", "v=TLSRPTv1; rua=mailto:in@wrong.test");
    announce(&world, "posted.test", "1");
    world.https.policy("posted.test", "testing", "mx.elsewhere.test", 86_400);
    dns.loopback("sts.reports.test", 1);
    let uri = format!("https://sts.reports.test:{}/v1/tlsrpt", world.https.port());
    dns.txt("_smtp._tls.posted.test", &format!("v=TLSRPTv1;rua={uri}"));
    world.outcome("x@good.test", &["/dane,", "status=sent"]);
    world.outcome("x@wrong.test", &["status=deferred"]);
    world.outcome("x@posted.test", &["status=sent"]);
    world.outcome("x@silent.test", &["status=sent"]);
    world.outcome("x@steered.test", &["status=sent"]);

    let content = world.report("in@good.test");
    assert_eq!(content.from, "reports@inside.test");
    let good = parsed(&content.content);
    let header = &good["headers"];
    assert_eq!(header["TLS-Report-Domain"], "good.test");
    assert_eq!(header["TLS-Report-Submitter"], "relay.test");
    assert_eq!(header["From"], "reports@inside.test");
    let report = &good["report"];
    let id = report["report-id"].as_str().expect("an id");
    let subject = format!("Report Domain: good.test Submitter: relay.test Report-ID: <{id}>");
    assert_eq!(header["Subject"], json!(subject));
    assert_eq!(
        (&report["organization-name"], &report["contact-info"]),
        (&json!("Winery"), &json!("tls@inside.test"))
    );
    let file = good["file"].as_str().expect("a name");
    assert!(file.starts_with("relay.test!good.test!") && file.ends_with("!1.json.gz"), "{file}");
    let range = &report["date-range"];
    assert!(range["start-datetime"].as_str() <= range["end-datetime"].as_str(), "{range}");
    assert_eq!(
        report["policies"],
        json!([{
            "policy": {"policy-type": "tlsa", "policy-string": [format!("3 1 1 {}", hex(&key))],
                "policy-domain": "mx.good.test"},
            "summary": {"total-successful-session-count": 1, "total-failure-session-count": 0},
        }])
    );

    // TLS that fails does not hold up the report that tells of it (section 3).
    let wrong = parsed(&world.report("in@wrong.test").content);
    let policy = &wrong["report"]["policies"][0];
    assert_eq!(policy["policy"]["policy-string"], json!([format!("3 1 1 {}", "09".repeat(32))]));
    let detail = &policy["failure-details"][0];
    assert_eq!(detail["result-type"], "validation-failure");
    assert_eq!(
        (&detail["sending-mta-ip"], &detail["receiving-ip"]),
        (&json!("127.0.0.1"), &json!("127.0.0.1"))
    );
    assert_eq!(detail["receiving-mx-hostname"], "mx.wrong.test");
    assert!(detail["failed-session-count"].as_u64() >= Some(1), "{detail}");
    let (successes, failures) = sums(std::slice::from_ref(&wrong["report"]));
    assert!(successes == 0 && failures >= 1, "{wrong}");

    let (head, body) = world.https.posted();
    assert_eq!(head, "/v1/tlsrpt application/tlsrpt+gzip");
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), body).expect("a file");
    let script = "import gzip, sys; print(gzip.decompress(open(sys.argv[1], 'rb').read()).decode())";
    let printed = run_ok(Command::new("python3").args(["-c", script]).arg(file.path()), SOON);
    let posted: Value = serde_json::from_str(&printed).expect("JSON");
    let policy = &posted["policies"][0];
    assert_eq!(policy["policy"]["policy-type"], "sts");
    assert_eq!(policy["policy"]["mx-host"], json!(["mx.elsewhere.test"]));
    assert_eq!(policy["policy"]["policy-string"][1], "mode: testing");
    assert_eq!(policy["failure-details"][0]["failure-reason-code"], "the policy does not list the host");
    world
        .relay
        .log()
        .wait_for(SOON, &["TLS report to steered.test: <in@inside.test> is no address of the outside"]);
    assert!(world.internal.is_empty());
    // Who asks for nothing gets nothing.
    assert_eq!(world.relay.log().matching(&["TLS report to silent.test"]).len(), 0);
    let asked = dns.asked().iter().any(|question| question == "_smtp._tls.silent.test. TXT");
    assert!(asked, "its record was looked for");
}

/// What was seen is reported after a restart, too.
#[test]
fn what_is_to_be_reported_outlives_a_restart() {
    let section = "[tls_report]\nperiod = \"4s\"\nspread = \"0s\"";
    let mut world = world(&["good.test"], &[], "policy = \"may\"", section);
    world.dns.txt("_smtp._tls.good.test", "v=TLSRPTv1; rua=mailto:in@good.test");
    // Its record cannot be looked up for now, so the report waits in the file.
    world.dns.set_failing("_smtp._tls.good.test", true);
    world.outcome("x@good.test", &["status=sent"]);
    world.relay.log().wait_for(SOON, &["TLS report to good.test", "it is tried again"]);
    let file = world.relay.spool().join("tls-report.json");
    until_true(SOON, "the report is kept", || file.exists() && text(&file).contains("\"tries\":1"));
    world.relay.stop();
    world.dns.set_failing("_smtp._tls.good.test", false);
    // An hour later.
    let kept: Value = serde_json::from_str(&text(&file)).expect("JSON");
    let mut later = kept.clone();
    later["waiting"][0]["due"] = json!(1);
    fs::write(&file, later.to_string()).expect("a file");
    world.relay.start();
    let report = parsed(&world.report("in@good.test").content);
    assert_eq!(report["headers"]["TLS-Report-Domain"], "good.test");
    assert_eq!(report["headers"]["From"], "tls-reports@inside.test");
    assert_eq!(report["report"]["policies"][0]["policy"]["policy-type"], "no-policy-found");
}

/// RFC 8689 section 4.2.1: a host for which TLSA records vouch is the one that was meant.
#[test]
fn requiretls_goes_to_hosts_that_dane_or_mta_sts_vouches_for_and_to_no_other() {
    let mut world = world(&["key.test", "sts.test", "none.test"], &[], STS, FETCH);
    world.dns.tlsa("mx.key.test", world.port, &world.key());
    announce(&world, "sts.test", "1");
    world.https.policy("sts.test", "enforce", "mx.sts.test", 86_400);
    // The peer promises to keep it, too: its next hop is known by a fingerprint.
    let fingerprint = "00".repeat(32);
    world.peer.stop();
    let demand =
        format!("[delivery.tls]\npolicy = \"fingerprint\"\nfingerprints = [\"{fingerprint}\"]\n[spool]\n");
    world.peer.edit_config("[spool]\n", &demand);
    world.peer.start();
    let (chain, key) = (world.authority.path("chain.pem"), world.authority.path("peer.key"));
    world.relay.stop();
    world.relay.edit_config("name = \"inside\"", "name = \"inside\" # by TLS");
    let toml = text(world.relay.config());
    let (head, tail) = toml.split_at(toml.find("# by TLS").expect("the listener"));
    let toml = head.to_owned() + &tail.replacen("tls = \"off\"", "tls = \"offer\"", 1);
    let toml =
        toml.replacen("[spool]\n", &format!("[tls]\ncertificate = {chain:?}\nkey = {key:?}\n[spool]\n"), 1);
    fs::write(world.relay.config(), toml).expect("the configuration");
    world.relay.start();
    for (domain, expected) in [
        ("key.test", ["/dane,", "status=sent"]),
        ("sts.test", ["/sts,", "status=sent"]),
        // Its name and the way to it are authentic, and its certificate is good.
        ("none.test", ["/verified,", "status=sent"]),
    ] {
        let answer = talk(
            world.relay.inside(),
            json!({"authority": world.authority.path("authority.pem"), "name": "peer.test", "commands": [
                "MAIL FROM:<bob@inside.test> REQUIRETLS\r\n",
                format!("RCPT TO:<x@{domain}>\r\n"),
                "DATA\r\n",
                "Subject: kept within TLS\r\n\r\nhello\r\n.\r\n",
            ]}),
        );
        assert!(answer["features"].to_string().contains("REQUIRETLS"), "{answer}");
        let to = format!("to=<x@{domain}>");
        world.relay.log().wait_for(SOON, &[&[to.as_str()], &expected[..]].concat());
    }
}
