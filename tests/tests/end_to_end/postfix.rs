//! A real Postfix as the organisation's internal server and another as somebody's MX.

use sluice_tests::message::message;
use sluice_tests::tools::swaks;
use sluice_tests::wait::SOON;
use sluice_tests::{Client, Dns, Dsn, Port, Postfix, Relay, lacks};

#[test]
fn mail_from_outside_arrives_in_a_mailbox_of_the_internal_server() {
    if Postfix::is_missing() {
        return;
    }
    let internal = Postfix::start("mail.inside.test", &["bob@inside.test", "eve@inside.test"], None);
    let relay = Relay::builder().inward(internal.address()).start();
    let mut client = Client::hello(relay.outside());
    let content = message("to-postfix", "line one\r\n.line two\r\n\r\n8-bit: \u{e4}\u{f6}\u{fc}\r\n");
    client
        .send_message("x@away.test", &["bob@inside.test", "eve@inside.test"], &content)
        .expect(250, "2.0.0");
    for mailbox in ["bob@inside.test", "eve@inside.test"] {
        let mail = String::from_utf8_lossy(&internal.maildir(mailbox).wait_for(1, SOON)[0]).into_owned();
        let sent = String::from_utf8_lossy(&content).replace("\r\n", "\n");
        assert!(mail.ends_with(&sent), "{mail}");
        assert!(mail.contains("by relay.test"), "the relay's Received field: {mail}");
        assert!(mail.contains("Return-Path: <x@away.test>"), "{mail}");
    }
    relay.wait_empty();
}

#[test]
fn mail_from_a_user_of_the_internal_server_reaches_an_mx_found_by_dns() {
    if Postfix::is_missing() || lacks("swaks") {
        return;
    }
    let (dns, port) = (Dns::start(), Port::reserve());
    let external = Postfix::start_at(port.on(2), "mx.away.test", &["x@away.test"], None);
    dns.mx("away.test", 10, "mx.away.test").loopback("mx.away.test", 2);
    let own = Port::reserve();
    let relay = Relay::builder().inward(own.address()).outward_by_mx(dns.address(), port.number()).start();
    let internal =
        Postfix::start_at(own.address(), "mail.inside.test", &["bob@inside.test"], Some(relay.inside()));

    let (sent, dialogue) =
        swaks(internal.address(), "bob@inside.test", "x@away.test", &["--body", "all the way"]);
    assert!(sent, "{dialogue}");
    let mail = String::from_utf8_lossy(&external.maildir("x@away.test").wait_for(1, SOON)[0]).into_owned();
    assert!(mail.contains("all the way"), "{mail}");
    let hops: Vec<&str> = mail.lines().filter(|line| line.trim_start().starts_with("by ")).collect();
    assert!(hops.len() == 3 && hops[1].contains("relay.test"), "{mail}");
    internal.wait_log(SOON, &["to=<x@away.test>", "status=sent"]);
    relay.wait_empty();
}

#[test]
fn a_mailbox_that_the_external_server_does_not_have_is_told_to_the_sender() {
    if Postfix::is_missing() {
        return;
    }
    let (dns, port) = (Dns::start(), Port::reserve());
    let _external = Postfix::start_at(port.on(2), "mx.away.test", &["x@away.test"], None);
    dns.mx("away.test", 10, "mx.away.test").loopback("mx.away.test", 2);
    let internal = Postfix::start("mail.inside.test", &["bob@inside.test"], None);
    let relay =
        Relay::builder().inward(internal.address()).outward_by_mx(dns.address(), port.number()).start();
    let mut client = Client::hello(relay.inside());
    client
        .send_message("bob@inside.test", &["nobody@away.test"], &message("lost", "x\r\n"))
        .expect(250, "2.0.0");
    let mail = &internal.maildir("bob@inside.test").wait_for(1, SOON)[0];
    let dsn = Dsn::parse_valid(mail);
    dsn.expect_one("nobody@away.test", "failed", "5.1.1");
    assert_eq!(dsn.original("subject"), "lost");
    assert!(mail.starts_with(b"Return-Path: <>\n"), "RFC 5321 section 4.5.5: the null reverse-path");
    relay.wait_empty();
}
