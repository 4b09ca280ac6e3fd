//! Which host gets a message, by DNS: MX order, the implicit MX, the null MX, names that are missing or
//! fail, hosts that are this relay or not of the Internet (RFC 5321 section 5.1, RFC 7505), signed zones; and
//! what of that is asked once only.

use sluice_tests::message::message;
use sluice_tests::wait::{SOON, until_true};
use sluice_tests::{Answer, Client, Dns, Dsn, Inbox, Port, Relay, Step};

/// A relay that finds MX hosts in a DNS of its own, all of them on one port of 127.0.0.x.
struct World {
    dns: Dns,
    port: Port,
    internal: Inbox,
    relay: Relay,
}

fn world() -> World {
    world_with("private_addresses = true", "")
}

/// With these keys of the route, and this section.
fn world_with(route: &str, section: &str) -> World {
    let (dns, port, internal) = (Dns::start(), Port::reserve(), Inbox::start());
    let relay = Relay::builder()
        .inward(internal.address())
        .outward_by_mx_with(dns.address(), port.number(), route, "")
        .section(section)
        .start();
    World { dns, port, internal, relay }
}

impl World {
    fn host(&self, last: u8) -> Inbox {
        Inbox::bind(self.port.on(last), |_| Answer::Accept)
    }

    fn send(&self, to: &str) {
        let mut client = Client::hello(self.relay.inside());
        client.send_message("bob@inside.test", &[to], &message("by-mx", "x\r\n")).expect(250, "2.0.0");
        client.quit();
    }

    #[track_caller]
    fn dsn(&self) -> Dsn {
        let got = self.internal.wait_for(1, SOON);
        assert_eq!((got[0].from.as_str(), got[0].to.as_slice()), ("", &["bob@inside.test".to_owned()][..]));
        Dsn::parse_valid(&got[0].content)
    }
}

#[test]
fn the_host_with_the_lowest_preference_gets_the_mail() {
    let world = world();
    let (first, second) = (world.host(2), world.host(3));
    world.dns.mx("away.test", 20, "b.away.test").mx("away.test", 10, "a.away.test");
    world.dns.loopback("a.away.test", 2).loopback("b.away.test", 3);
    for _ in 0..5 {
        world.send("x@away.test");
    }
    assert_eq!(first.wait_for(5, SOON).len(), 5);
    assert_eq!(second.sessions(), 0);
    world.relay.wait_empty();
}

#[test]
fn hosts_that_refuse_or_turn_away_are_passed_over_at_once() {
    let world = world();
    let turning_away = Inbox::bind(world.port.on(3), |step| match step {
        Step::Connect => Answer::Say("421 4.3.2 Not now".into()),
        _ => Answer::Accept,
    });
    let last = world.host(4);
    world.dns.mx("away.test", 10, "refuses.away.test").mx("away.test", 20, "turns-away.away.test");
    world.dns.mx("away.test", 30, "takes.away.test");
    world.dns.loopback("refuses.away.test", 2).loopback("turns-away.away.test", 3);
    world.dns.loopback("takes.away.test", 4);
    world.send("x@away.test");
    assert_eq!(last.wait_for(1, SOON).len(), 1);
    assert!(turning_away.sessions() >= 1);
    world.relay.wait_empty();
}

#[test]
fn all_addresses_of_a_host_are_tried() {
    let world = world();
    let host = world.host(5);
    world.dns.mx("away.test", 10, "mx.away.test");
    for last in [2, 3, 4, 5] {
        world.dns.loopback("mx.away.test", last);
    }
    world.send("x@away.test");
    assert_eq!(host.wait_for(1, SOON).len(), 1);
    world.relay.wait_empty();
}

#[test]
fn a_domain_without_mx_is_its_own_mail_host() {
    let world = world();
    let host = world.host(2);
    world.dns.loopback("away.test", 2);
    world.send("x@away.test");
    assert_eq!(host.wait_for(1, SOON).len(), 1);
}

#[test]
fn an_mx_host_without_an_address_is_passed_over() {
    let world = world();
    let host = world.host(2);
    world.dns.mx("away.test", 5, "missing.away.test").mx("away.test", 10, "bare.away.test");
    world.dns.mx("away.test", 20, "mx.away.test").exists("bare.away.test").loopback("mx.away.test", 2);
    world.send("x@away.test");
    assert_eq!(host.wait_for(1, SOON).len(), 1);
}

#[test]
fn an_alias_is_followed_to_its_mx() {
    let world = world();
    let host = world.host(2);
    world
        .dns
        .cname("alias.test", "away.test")
        .mx("away.test", 10, "mx.away.test")
        .loopback("mx.away.test", 2);
    world.send("x@alias.test");
    assert_eq!(host.wait_for(1, SOON)[0].to, ["x@alias.test"], "the address itself is not rewritten");
}

#[test]
fn a_null_mx_is_told_to_the_sender_as_5_1_10() {
    let world = world();
    let host = world.host(2);
    world.dns.mx("away.test", 0, ".").loopback("away.test", 2);
    world.send("x@away.test");
    world.dsn().expect_one("x@away.test", "failed", "5.1.10");
    assert_eq!(host.sessions(), 0, "RFC 7505 section 3: the address is not used");
    world.relay.wait_empty();
}

#[test]
fn a_domain_that_does_not_exist_is_told_to_the_sender_with_name_server_and_answer() {
    // S19, S49.
    let world = world();
    world.send("x@missing.test");
    let dsn = world.dsn();
    dsn.expect_one("x@missing.test", "failed", "5.1.2");
    let asked =
        format!("looking up MX of missing.test with resolver external, server {}", world.dns.address());
    for told in [dsn.text(), world.relay.log().wait_for(SOON, &["to=<x@missing.test>", "status=bounced"])] {
        assert!(told.contains(&asked) && told.contains("no such domain (NXDOMAIN)"), "{told}");
    }
    world.relay.wait_empty();
}

#[test]
fn a_domain_without_mx_and_address_is_told_to_the_sender() {
    let world = world();
    world.dns.exists("bare.test");
    world.send("x@bare.test");
    let dsn = world.dsn();
    assert!(dsn.recipient(0, "status").starts_with("5."), "{dsn:?}");
    world.relay.wait_empty();
}

#[test]
fn a_failing_dns_defers_and_the_mail_goes_out_when_it_is_back() {
    let world = world();
    let host = world.host(2);
    world.dns.set_failing("away.test", true).mx("away.test", 10, "mx.away.test").loopback("mx.away.test", 2);
    world.send("x@away.test");
    let line = world.relay.log().wait_for(SOON, &["to=<x@away.test>", "status=deferred"]);
    assert!(line.contains("dsn=4."), "{line}");
    assert_eq!(world.relay.queue().len(), 1);
    until_true(SOON, "a second look-up", || {
        world.dns.asked().iter().filter(|question| question.starts_with("away.test. ")).count() >= 2
    });
    world.dns.set_failing("away.test", false);
    assert_eq!(host.wait_for(1, SOON).len(), 1);
    world.relay.wait_empty();
    assert_eq!(world.internal.len(), 0, "nobody is told of a delay of seconds");
}

#[test]
fn a_failing_dns_is_told_with_name_server_and_answer() {
    let world = world();
    world.dns.set_failing("away.test", true);
    world.send("x@away.test");
    let line = world.relay.log().wait_for(SOON, &["to=<x@away.test>", "status=deferred"]);
    let asked = format!("looking up MX of away.test with resolver external, server {}", world.dns.address());
    assert!(line.contains(&asked) && line.contains("SERVFAIL") && line.contains("dsn=4.4.3"), "{line}");
}

#[test]
fn mail_whose_best_host_is_this_relay_is_returned_as_a_loop() {
    let world = world_with("private_addresses = true", "[delivery]\nown_addresses = [\"127.0.0.9\"]");
    let worse = world.host(3);
    world.dns.mx("byname.test", 10, "relay.test").mx("byname.test", 20, "worse.test");
    world.dns.mx("byaddress.test", 10, "other.test").loopback("other.test", 9).loopback("worse.test", 3);
    world.send("x@byname.test");
    let dsn = world.dsn();
    dsn.expect_one("x@byname.test", "failed", "5.4.6");
    assert!(dsn.text().contains("loops back to this relay"), "{}", dsn.text());
    world.send("x@byaddress.test");
    let got = world.internal.wait_for(2, SOON);
    Dsn::parse_valid(&got[1].content).expect_one("x@byaddress.test", "failed", "5.4.6");
    assert_eq!(worse.sessions(), 0);
}

#[test]
fn a_relay_that_is_a_backup_sends_to_better_hosts_only() {
    let world = world();
    let (better, worse) = (world.host(2), world.host(3));
    world.dns.mx("away.test", 10, "better.test").mx("away.test", 20, "relay.test");
    world.dns.mx("away.test", 20, "equal.test").mx("away.test", 30, "worse.test");
    world.dns.loopback("better.test", 2).loopback("equal.test", 3).loopback("worse.test", 3);
    world.send("x@away.test");
    assert_eq!(better.wait_for(1, SOON).len(), 1);
    better.set_script(|step| match step {
        Step::Rcpt(_) => Answer::Say("451 4.3.0 Not now".into()),
        _ => Answer::Accept,
    });
    world.send("y@away.test");
    world.relay.log().wait_for(SOON, &["to=<y@away.test>", "status=deferred", "Not now"]);
    assert_eq!(worse.sessions(), 0, "they would send it back here");
}

#[test]
fn hosts_that_are_not_of_the_internet_are_refused_unless_allowed() {
    let world = world_with("", "");
    let host = world.host(2);
    world.dns.mx("away.test", 10, "mx.away.test").loopback("mx.away.test", 2);
    for (count, to) in [(1, "x@away.test"), (2, "x@[127.0.0.2]")] {
        world.send(to);
        let got = world.internal.wait_for(count, SOON);
        let dsn = Dsn::parse_valid(&got[count - 1].content);
        dsn.expect_one(to, "failed", "5.4.4");
        assert!(dsn.text().contains("at 127.0.0.2; private addresses are refused"), "{}", dsn.text());
    }
    assert_eq!(host.sessions(), 0);
}

#[test]
fn an_address_literal_is_its_own_host_and_an_international_name_is_looked_up() {
    let world = world();
    let (first, second) = (world.host(2), world.host(3));
    world.dns.mx("xn--bcher-kva.test", 10, "mx.test").loopback("mx.test", 3);
    world.send("x@[127.0.0.2]");
    assert_eq!(first.wait_for(1, SOON)[0].to, ["x@[127.0.0.2]"]);
    world.send("x@xn--bcher-kva.test");
    assert_eq!(second.wait_for(1, SOON)[0].to, ["x@xn--bcher-kva.test"]);
}

#[test]
fn an_mx_record_that_names_an_address_is_passed_over_and_said_so() {
    let world = world();
    let host = world.host(2);
    world.dns.mx("away.test", 5, "127.0.0.9").mx("away.test", 10, "mx.test").loopback("mx.test", 2);
    world.dns.mx("numeric.test", 5, "127.0.0.2");
    world.send("x@away.test");
    assert_eq!(host.wait_for(1, SOON).len(), 1);
    world.send("x@numeric.test");
    let dsn = world.dsn();
    dsn.expect_one("x@numeric.test", "failed", "5.4.4");
    assert!(
        dsn.text().contains("names the address 127.0.0.2 where a host name must stand"),
        "{}",
        dsn.text()
    );
}

#[test]
fn a_domain_is_asked_for_once_whether_it_exists_or_not() {
    let world = world();
    let host = world.host(2);
    world.dns.mx("away.test", 10, "mx.away.test").loopback("mx.away.test", 2);
    let mut client = Client::hello(world.relay.inside());
    for number in 0..20 {
        for domain in ["away.test", "missing.test"] {
            let to = format!("x{number}@{domain}");
            client.send_message("bob@inside.test", &[&to], &message("many", "x\r\n")).expect(250, "2.0.0");
        }
    }
    assert_eq!(host.wait_for(20, SOON).len(), 20);
    world.internal.wait_for(20, SOON);
    // Answers hold for five seconds at least; on a machine that is slower than that it is twice.
    let questions =
        [("away.test", "MX"), ("mx.away.test", "A"), ("mx.away.test", "AAAA"), ("missing.test", "MX")];
    for (name, of_type) in questions {
        let times = world.dns.times_asked(name, of_type);
        assert!((1..=2).contains(&times), "{name} {of_type}: {times}");
    }
}

#[test]
fn signed_answers_are_taken_and_forged_ones_wait() {
    let (dns, port, internal) = (Dns::start_signed(), Port::reserve(), Inbox::start());
    let anchors = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(anchors.path(), dns.trust_anchor()).expect("the key");
    let keys = format!("dnssec = \"validate\"\ntrust_anchors = {:?}", anchors.path());
    let relay = Relay::builder()
        .inward(internal.address())
        .outward_by_mx_with(dns.address(), port.number(), "private_addresses = true", &keys)
        .start();
    let world = World { dns, port, internal, relay };
    let host = world.host(2);
    world.dns.mx("away.test", 10, "mx.away.test").loopback("mx.away.test", 2);
    world.dns.mx("forged.test", 10, "mx.away.test").set_forged("forged.test", true);
    world.send("x@away.test");
    assert_eq!(host.wait_for(1, SOON).len(), 1);
    world.send("x@forged.test");
    let line = world.relay.log().wait_for(SOON, &["to=<x@forged.test>", "status=deferred"]);
    assert!(
        line.contains("looking up MX of forged.test") && line.contains("does not validate (DNSSEC)"),
        "{line}"
    );
    world.dns.set_forged("forged.test", false);
    assert_eq!(host.wait_for(2, SOON).len(), 2);
    world.send("x@missing.test");
    world.dsn().expect_one("x@missing.test", "failed", "5.1.2");
    world.relay.wait_empty();
}
