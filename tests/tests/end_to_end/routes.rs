//! Smart hosts that share the mail (S13, S14), to whom the relay may connect (S26), own domains that are never looked up
//! outside (S12), limits and time-outs of one route.

use sluice_tests::message::{message, numbered};
use sluice_tests::wait::{SOON, until_true};
use sluice_tests::{Answer, Client, Dns, Dsn, Inbox, Port, Relay, Step};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A host that failed has its share again after this at the latest: a minute is what the relay remembers.
const BACK: Duration = Duration::from_secs(110);

fn shared(hosts: &[(SocketAddr, u32, u32)]) -> String {
    let tables: Vec<String> = hosts
        .iter()
        .map(|(host, weight, priority)| {
            format!("[[route.hosts]]\nhost = \"{host}\"\nweight = {weight}\npriority = {priority}\n")
        })
        .collect();
    format!("[[route]]\ndomains = [\"inside.test\"]\n{}", tables.concat())
}

/// Each message to an address of its own.
fn send(relay: &Relay, numbers: std::ops::Range<usize>) {
    let mut client = Client::hello(relay.inside());
    for number in numbers {
        let to = format!("u{number}@inside.test");
        client.send_message("bob@away.test", &[&to], &numbered(number, 600)).expect(250, "2.0.0");
    }
    client.quit();
}

fn all(inboxes: &[&Inbox]) -> HashSet<String> {
    inboxes.iter().flat_map(|inbox| inbox.recipients()).collect()
}

#[test]
fn smart_hosts_share_by_weight_and_one_that_dies_gives_its_share_until_it_is_back() {
    let (ports, backup) = ([Port::reserve(), Port::reserve(), Port::reserve()], Inbox::start());
    let bind = |port: &Port| Inbox::bind(port.address(), |_| Answer::Accept);
    let [first, second, third] = ports.each_ref().map(bind);
    let [a, b, c] = ports.each_ref().map(Port::address);
    let route = shared(&[(a, 3, 0), (b, 2, 0), (c, 1, 0), (backup.address(), 1, 1)]);
    let relay = Relay::builder().section(&route).start();
    send(&relay, 0..600);
    until_true(SOON, "600 messages", || first.len() + second.len() + third.len() == 600);
    // Three standard deviations of each share.
    let counts = [first.len(), second.len(), third.len()];
    println!("600 messages by weights 3, 2, 1: {counts:?}");
    for (count, expected, off) in [(counts[0], 300, 37), (counts[1], 200, 35), (counts[2], 100, 28)] {
        assert!(count.abs_diff(expected) <= off, "{counts:?}");
    }
    assert_eq!(backup.sessions(), 0);

    // The first dies in the middle; what it has taken stays taken.
    let mut taken = all(&[&first]);
    let sending = std::thread::scope(|scope| {
        let sending = scope.spawn(|| send(&relay, 600..1_200));
        until_true(SOON, "some of it sent", || first.len() > counts[0] + 30);
        taken.extend(all(&[&first]));
        drop(first);
        sending.join()
    });
    sending.expect("sent");
    relay.wait_empty();
    taken.extend(all(&[&second, &third, &backup]));
    let lost: Vec<String> =
        (0..1_200).map(|n| format!("u{n}@inside.test")).filter(|to| !taken.contains(to)).collect();
    // Between the last look at the first host and its death it may have taken some more, which it then had.
    let sent = relay.log().matching(&["status=sent", &format!(":{}", a.port())]);
    let lost: Vec<_> =
        lost.iter().filter(|to| !sent.iter().any(|line| line.contains(&format!("<{to}>")))).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert_eq!(backup.sessions(), 0, "others of its priority take over first");
    let gained = [second.len() - counts[1], third.len() - counts[2]];
    println!("while the first was dead: {gained:?}");
    assert!(gained[0] > gained[1], "{gained:?}");

    // It is back, and has its share again.
    let first = bind(&ports[0]);
    let start = Instant::now();
    let mut number = 1_200;
    while first.is_empty() {
        assert!(start.elapsed() < BACK, "nothing for the first after {BACK:?}");
        send(&relay, number..number + 5);
        number += 5;
        first.wait_count(1, Duration::from_millis(500));
    }
    println!("the first had mail again after {:.0?}", start.elapsed());
    let (second_before, third_before) = (second.len(), third.len());
    let first_before = first.len();
    send(&relay, number..number + 300);
    relay.wait_empty();
    let counts = [first.len() - first_before, second.len() - second_before, third.len() - third_before];
    println!("300 messages after that: {counts:?}");
    assert!(counts[0].abs_diff(150) <= 40, "{counts:?}");
}

#[test]
fn the_next_priority_takes_over_when_the_first_is_dead() {
    let (dead, backup) = ([Port::reserve(), Port::reserve()], Inbox::start());
    let hosts = [(dead[0].address(), 1, 0), (dead[1].address(), 1, 0), (backup.address(), 1, 1)];
    let relay = Relay::builder().section(&shared(&hosts)).start();
    send(&relay, 0..20);
    assert_eq!(backup.wait_for(20, SOON).len(), 20);
    relay.wait_empty();
    let explained = relay.sluice_ok(&[
        "explain",
        "--listener",
        "inside",
        "--client",
        "127.0.0.1",
        "--to",
        "u@inside.test",
    ]);
    assert!(
        explained.contains(&format!("{} (1), {} (1), else {}", hosts[0].0, hosts[1].0, hosts[2].0)),
        "{explained}"
    );
}

#[test]
fn a_plain_list_of_hosts_is_tried_in_order() {
    let (first, second) = (Inbox::start(), Inbox::start());
    let relay = Relay::builder().smart_hosts(&["inside.test"], &[first.address(), second.address()]).start();
    send(&relay, 0..30);
    assert_eq!(first.wait_for(30, SOON).len(), 30);
    assert_eq!(second.sessions(), 0);
}

/// A relay whose strangers' mail goes by MX to 127.0.0.x.
fn by_mx(dns: &Dns, port: &Port, internal: &Inbox, section: &str) -> Relay {
    Relay::builder()
        .inward(internal.address())
        .outward_by_mx(dns.address(), port.number())
        .section(section)
        .start()
}

fn send_out(relay: &Relay, to: &str) {
    let mut client = Client::hello(relay.inside());
    client.send_message("bob@inside.test", &[to], &message("out", "x\r\n")).expect(250, "2.0.0");
    client.quit();
}

/// S26.
#[test]
fn a_mail_host_in_a_denied_network_is_not_connected_to() {
    let (dns, port, internal) = (Dns::start(), Port::reserve(), Inbox::start());
    let inbox = |last| Inbox::bind(port.on(last), |_| Answer::Accept);
    let (denied, good) = (inbox(6), inbox(2));
    let relay =
        by_mx(&dns, &port, &internal, "[next_hops]\ndeny = [\"127.0.0.6\", \"bad.test\", \"mx.evil.test\"]");
    dns.mx("partly.test", 10, "a.partly.test").loopback("a.partly.test", 6);
    dns.mx("partly.test", 20, "b.partly.test").loopback("b.partly.test", 2);
    dns.mx("wholly.test", 10, "a.partly.test");
    dns.mx("named.test", 10, "mx.evil.test").loopback("mx.evil.test", 2);
    dns.mx("bad.test", 10, "b.partly.test");
    send_out(&relay, "x@partly.test");
    assert_eq!(good.wait_for(1, SOON)[0].to, ["x@partly.test"]);
    for (count, to, why) in [
        (1, "x@wholly.test", "a.partly.test[127.0.0.6] is not allowed: next_hops.deny has 127.0.0.6/32"),
        (2, "x@named.test", "mx.evil.test[127.0.0.2] is not allowed: next_hops.deny has mx.evil.test"),
    ] {
        send_out(&relay, to);
        let got = internal.wait_for(count, SOON);
        let dsn = Dsn::parse_valid(&got[count - 1].content);
        dsn.expect_one(to, "failed", "5.7.1");
        assert!(dsn.text().contains(why) || relay.log().text().contains(why), "{}", dsn.text());
    }
    let mut client = Client::hello(relay.inside());
    client.command("MAIL FROM:<bob@inside.test>").expect(250, "2.1.0");
    client.command("RCPT TO:<x@bad.test>").expect(550, "5.7.1");
    client.quit();
    assert!(dns.asked().iter().all(|asked| !asked.starts_with("bad.test.")), "{:?}", dns.asked());
    assert_eq!((denied.sessions(), good.len()), (0, 1));
}

/// S26.
#[test]
fn where_some_are_allowed_nobody_else_is() {
    let (dns, port, internal) = (Dns::start(), Port::reserve(), Inbox::start());
    let inbox = |last| Inbox::bind(port.on(last), |_| Answer::Accept);
    let (stranger, partner) = (inbox(3), inbox(2));
    // The internal server is a next hop like others.
    let lists = "[next_hops]\nallow = [\"127.0.0.1\", \"partner.test\"]\n";
    let relay = by_mx(&dns, &port, &internal, lists);
    dns.mx("partner.test", 10, "mx.partner.test").loopback("mx.partner.test", 2);
    dns.mx("stranger.test", 10, "mx.stranger.test").loopback("mx.stranger.test", 3);
    send_out(&relay, "x@partner.test");
    assert_eq!(partner.wait_for(1, SOON).len(), 1);
    send_out(&relay, "x@stranger.test");
    Dsn::parse_valid(&internal.wait_for(1, SOON)[0].content).expect_one("x@stranger.test", "failed", "5.7.1");
    assert_eq!(stranger.sessions(), 0);
    // A slip of the operator's own returns nothing.
    let mut relay = Relay::builder()
        .inward(internal.address())
        .section("[next_hops]\ndeny = [\"127.0.0.0/8\"]")
        .prepare();
    let checked = relay.sluice_ok(&["check"]);
    assert!(
        checked.contains("which is not allowed: next_hops.deny has 127.0.0.0/8; its mail waits"),
        "{checked}"
    );
    assert!(checked.contains("Never connected to: 127.0.0.0/8."), "{checked}");
    relay.start();
    send(&relay, 0..1);
    relay.log().wait_for(SOON, &["status=deferred", "dsn=4.7.1", "next_hops.deny has 127.0.0.0/8"]);
    assert_eq!((internal.len(), relay.queue().len()), (1, 1));
}

/// S12: whatever way an accepted domain is written, its mail goes inside, and nobody outside is asked about it.
#[test]
fn own_domains_are_never_looked_up_outside() {
    let (external, port, internal) = (Dns::start(), Port::reserve(), Inbox::start());
    let away = Inbox::bind(port.on(2), |_| Answer::Accept);
    let names = Dns::start();
    names.a("mail.inside.test", "127.0.0.1".parse().expect("an address"));
    let internal_port = internal.address().port();
    let domains = ["inside.test", "sub.inside.test", "xn--bcher-kva.test", "deep.er.inside.test"];
    let relay = Relay::builder()
        .accepted(&domains)
        .section(&format!(
            "[[route]]\ndomains = [\"inside.test\", \".inside.test\", \"xn--bcher-kva.test\"]\n\
             hosts = [\"mail.inside.test:{internal_port}\"]\nresolver = \"internal\"\n\
             [[resolver]]\nname = \"internal\"\nservers = [\"{}\"]\n",
            names.address()
        ))
        .outward_by_mx(external.address(), port.number())
        .start();
    external.mx("away.test", 10, "mx.away.test").loopback("mx.away.test", 2);
    for domain in ["inside.test", "sub.inside.test", "xn--bcher-kva.test"] {
        // A lookalike outside that must not be found.
        external.mx(domain, 10, "mx.away.test");
    }
    let written = [
        "a@inside.test",
        "b@INSIDE.Test",
        "c@sub.inside.test",
        "d@Sub.Inside.TEST",
        "e@xn--bcher-kva.test",
        "f@XN--BCHER-kva.test",
        "g@deep.er.inside.test",
    ];
    for listener in [relay.outside(), relay.inside()] {
        let mut client = Client::hello(listener);
        for to in written {
            client.send_message("x@away.test", &[to], &message("in", "x\r\n")).expect(250, "2.0.0");
        }
        client.command("MAIL FROM:<x@away.test> SMTPUTF8").expect(250, "2.1.0");
        client.command("RCPT TO:<h@b\u{fc}cher.test>").expect(250, "2.1.5");
        client.command("RCPT TO:<h@B\u{dc}CHER.Test>").expect(250, "2.1.5");
        client.command("DATA").expect(354, "");
        client.send(b"Subject: x\r\n\r\nx\r\n.\r\n");
        client.reply().expect(250, "2.0.0");
        client.quit();
    }
    // A trailing dot is no domain in SMTP, and must not be a way out.
    let mut client = Client::hello(relay.inside());
    client.command("MAIL FROM:<x@away.test>").expect(250, "2.1.0");
    assert!(client.command("RCPT TO:<a@inside.test.>").code >= 500);
    client.quit();
    internal.wait_for(2 * (written.len() + 1), SOON);
    // The outside is asked about strangers, and about nobody else.
    send_out(&relay, "x@away.test");
    away.wait_for(1, SOON);
    let asked = external.asked();
    assert!(!asked.is_empty() && asked.iter().all(|question| question.contains("away.test.")), "{asked:?}");
    assert!(
        names.asked().iter().all(|question| question.starts_with("mail.inside.test.")),
        "{:?}",
        names.asked()
    );
    assert_eq!(away.len(), 1);
}

/// S12: a configuration in which an own domain would go by MX is refused, or warned of.
#[test]
fn a_configuration_that_looks_own_domains_up_outside_is_refused() {
    let dns = Dns::start();
    let relay = Relay::builder().outward_by_mx(dns.address(), 25).prepare();
    let output = relay.sluice(&["check"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(78) && said.contains("own domains are never looked up outside"),
        "{said}"
    );
    let route = "[[route]]\ndomains = [\"inside.test\"]\nmx = true\nresolver = \"external\"\n";
    let relay = Relay::builder().section(route).outward_by_mx(dns.address(), 25).prepare();
    let said = relay.sluice_ok(&["check"]);
    assert!(
        said.contains("the accepted domain inside.test are asked of the same resolver as those of strangers"),
        "{said}"
    );
}

#[test]
fn a_route_has_its_own_limits() {
    let (narrow, wide) = (Inbox::start(), Inbox::start());
    let relay = Relay::builder()
        .section(&format!(
            "[[route]]\ndomains = [\"inside.test\"]\nhosts = [\"{}\"]\n\
             [route.limits]\nconnections_max = 1\nmessages_per_connection_max = 3\nrecipients_max = 2\n",
            narrow.address()
        ))
        .outward(wide.address())
        .start();
    let to: Vec<String> = (0..10).map(|n| format!("u{n}@inside.test")).collect();
    let out: Vec<String> = (0..10).map(|n| format!("u{n}@away.test")).collect();
    for to in [&to, &out] {
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        let mut client = Client::hello(relay.inside());
        client.send_message("bob@inside.test", &to, &message("many", "x\r\n")).expect(250, "2.0.0");
        client.quit();
    }
    let got = narrow.wait_for(5, SOON);
    assert!(got.iter().all(|transaction| transaction.to.len() == 2), "{got:?}");
    assert_eq!(narrow.sessions(), 2, "three messages on the first connection, two on the second");
    assert_eq!(wide.wait_for(1, SOON)[0].to.len(), 10);
}

#[test]
fn a_route_has_its_own_time_outs() {
    let silent = Inbox::scripted(|step| match step {
        Step::Mail(_) => Answer::Hang,
        _ => Answer::Accept,
    });
    let second = Inbox::start();
    let relay = Relay::builder()
        .section(&format!(
            "[[route]]\ndomains = [\"inside.test\"]\nhosts = [\"{}\", \"{}\"]\n[route.timeouts]\nreply = \"1s\"\n",
            silent.address(),
            second.address()
        ))
        .start();
    send(&relay, 0..1);
    assert_eq!(second.wait_for(1, SOON).len(), 1);
}
