//! Which host gets a message, by DNS: MX order, the implicit MX, the null MX, names that are missing or
//! fail (RFC 5321 section 5.1, RFC 7505).

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
    let (dns, port, internal) = (Dns::start(), Port::reserve(), Inbox::start());
    let relay =
        Relay::builder().inward(internal.address()).outward_by_mx(dns.address(), port.number()).start();
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
fn a_domain_that_does_not_exist_is_told_to_the_sender() {
    let world = world();
    world.send("x@missing.test");
    let dsn = world.dsn();
    assert!(matches!(dsn.recipient(0, "status"), "5.1.2" | "5.4.4"), "{dsn:?}");
    dsn.expect_one("x@missing.test", "failed", dsn.recipient(0, "status"));
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
