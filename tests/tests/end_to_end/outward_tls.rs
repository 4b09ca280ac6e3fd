//! TLS with next hops: a real Postfix that offers STARTTLS, and peers whose TLS does not work.

use serde_json::json;
use sluice_tests::message::message;
use sluice_tests::process::run_ok;
use sluice_tests::tls::{Authority, talk};
use sluice_tests::wait::SOON;
use sluice_tests::{Client, Inbox, Port, Postfix, Relay};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

const TO: &str = "bob@inside.test";

/// An internal server with a certificate for `mail.inside.test`, and a relay that demands this of it.
/// `DIR` stands for the directory of the certificates.
fn with_postfix(demands: &str) -> (Postfix, Relay, Authority) {
    let internal = Postfix::start("mail.inside.test", &[TO], None);
    let relay = Relay::builder().inward(internal.address()).retry("500ms", "1s", "1d").prepare();
    let authority = Authority::new(relay.directory(), "authority");
    authority.issue("mail", "mail.inside.test");
    authority.issue("client", "relay.test");
    let file = |name: &str| authority.path(name).to_str().expect("UTF-8").to_owned();
    internal.configure(&format!(
        "smtpd_tls_security_level = may\nsmtpd_tls_loglevel = 1\nsmtpd_tls_ask_ccert = yes\n\
         smtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}\nsmtpd_tls_CAfile = {}",
        file("mail.pem"),
        file("mail.key"),
        file("authority.pem")
    ));
    demand(&relay, demands);
    (internal, relay, authority)
}

fn demand(relay: &Relay, demands: &str) {
    let directory = relay.directory().to_str().expect("UTF-8");
    let demands = demands.replace("DIR", directory);
    relay.edit_config("[spool]\n", &format!("[delivery.tls]\n{demands}\n[spool]\n"));
}

fn send(relay: &Relay, subject: &str) {
    Client::hello(relay.outside())
        .send_message("x@away.test", &[TO], &message(subject, "hello\r\n"))
        .expect(250, "2.0.0");
}

#[test]
fn a_peer_that_offers_tls_gets_it_and_the_log_says_what_its_certificate_is_worth() {
    if Postfix::is_missing() {
        return;
    }
    let table = [
        ("", "untrusted"),
        ("authorities = \"DIR/authority.pem\"", "trusted"),
        ("policy = \"encrypt\"\nminimum = \"1.3\"", "untrusted"),
        (
            "policy = \"verify\"\nauthorities = \"DIR/authority.pem\"\nnames = [\"other.test\", \"mail.inside.test\"]",
            "verified",
        ),
    ];
    thread::scope(|scope| {
        for (demands, verdict) in table {
            scope.spawn(move || {
                let (internal, mut relay, _) = with_postfix(demands);
                relay.start();
                send(&relay, "by TLS");
                let line = relay.log().wait_for(SOON, &["to=<bob@inside.test>", "status=sent"]);
                assert!(
                    line.contains("tls=TLSv1.3/TLS_") && line.contains(&format!("/{verdict},")),
                    "{line}"
                );
                internal.wait_log(SOON, &["TLS connection established from", "TLSv1.3"]);
                let mail = &internal.maildir(TO).wait_for(1, SOON)[0];
                assert!(String::from_utf8_lossy(mail).contains("Subject: by TLS"));
                relay.wait_empty();
            });
        }
    });
}

#[test]
fn a_certificate_of_the_relay_is_shown_to_a_peer_that_asks() {
    if Postfix::is_missing() {
        return;
    }
    let (internal, mut relay, _) = with_postfix("certificate = \"DIR/client.pem\"\nkey = \"DIR/client.key\"");
    relay.start();
    send(&relay, "known");
    internal.wait_log(SOON, &["Trusted TLS connection established from"]);
    relay.wait_empty();
}

/// S31.
#[test]
fn a_peer_that_does_not_comply_gets_nothing_and_the_mail_waits() {
    if Postfix::is_missing() {
        return;
    }
    let wrong = "00".repeat(32);
    let table = [
        (
            "policy = \"verify\"\nauthorities = \"DIR/authority.pem\"\nnames = [\"other.test\"]".to_owned(),
            "is trusted, not verified",
        ),
        (
            "policy = \"verify\"\nauthorities = \"DIR/client.pem\"\nnames = [\"mail.inside.test\"]"
                .to_owned(),
            "is untrusted, not verified",
        ),
        (format!("policy = \"fingerprint\"\nfingerprints = [\"{wrong}\"]"), "is untrusted, not verified"),
    ];
    thread::scope(|scope| {
        for (demands, words) in &table {
            scope.spawn(move || {
                let (internal, mut relay, _) = with_postfix(demands);
                relay.start();
                send(&relay, "waits");
                let line = relay.log().wait_for(SOON, &["status=deferred", "dsn=4.7.5"]);
                assert!(line.contains(words), "{line}");
                assert_eq!(relay.queue().len(), 1);
                assert!(internal.maildir(TO).messages().is_empty());
            });
        }
    });
}

#[test]
fn a_peer_is_known_by_the_fingerprint_of_its_certificate() {
    if Postfix::is_missing() {
        return;
    }
    let (_internal, mut relay, authority) = with_postfix("policy = \"fingerprint\"\nfingerprints = [\"FP\"]");
    let printed = run_ok(
        Command::new("openssl")
            .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
            .arg(authority.path("mail.pem")),
        SOON,
    );
    relay.edit_config("FP", printed.trim().split_once('=').expect("NAME=FINGERPRINT").1);
    relay.start();
    send(&relay, "known by fingerprint");
    relay.log().wait_for(SOON, &["/verified,", "status=sent"]);
    relay.wait_empty();
}

#[test]
fn a_peer_without_tls_gets_nothing_where_tls_is_demanded() {
    let inbox = Inbox::start();
    let mut relay = Relay::builder().inward(inbox.address()).retry("500ms", "1s", "1d").prepare();
    demand(&relay, "policy = \"encrypt\"");
    relay.start();
    send(&relay, "waits");
    relay
        .log()
        .wait_for(SOON, &["dsn=4.7.4", "status=deferred", "TLS is required, but was not offered by host"]);
    assert_eq!((relay.queue().len(), inbox.len()), (1, 0));
}

/// Offers STARTTLS and answers the handshake with what is no TLS; passes other connections on. Its commands
/// after STARTTLS are for `pretend`.
fn pretend(listener: TcpListener, to: SocketAddr) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { return };
        thread::spawn(move || talk(stream, to));
    }
}

fn talk(mut peer: TcpStream, to: SocketAddr) {
    let mut reader = BufReader::new(peer.try_clone().expect("a handle"));
    let mut line = String::new();
    let _ = peer.write_all(b"220 mx.inside.test ESMTP\r\n");
    let _ = reader.read_line(&mut line);
    let _ = peer.write_all(b"250-mx.inside.test\r\n250 STARTTLS\r\n");
    line.clear();
    let _ = reader.read_line(&mut line);
    if line.starts_with("STARTTLS") {
        let _ = peer.write_all(b"220 Go\r\n");
        let _ = reader.fill_buf();
        let _ = peer.write_all(b"this is no TLS\r\n");
        return;
    }
    // A transaction in clear text: handed to the inbox behind a greeting and EHLO of its own.
    let Ok(mut inbox) = TcpStream::connect(to) else { return };
    let mut answers = BufReader::new(inbox.try_clone().expect("a handle"));
    let mut ignored = String::new();
    let _ = answers.read_line(&mut ignored);
    let _ = inbox.write_all(b"HELO mx.inside.test\r\n");
    let _ = answers.read_line(&mut ignored);
    let _ = inbox.write_all(line.as_bytes());
    let mut back = peer.try_clone().expect("a handle");
    let copied = thread::spawn(move || drop(std::io::copy(&mut answers, &mut back)));
    let _ = std::io::copy(&mut reader, &mut inbox);
    let _ = inbox.shutdown(std::net::Shutdown::Write);
    let _ = copied.join();
}

#[test]
fn a_peer_whose_tls_is_broken_gets_clear_text_where_the_route_may() {
    let inbox = Inbox::start();
    let port = Port::reserve();
    let listener = TcpListener::bind(port.address()).expect("a port");
    let to = inbox.address();
    thread::spawn(move || pretend(listener, to));
    let mut relay = Relay::builder().inward(port.address()).retry("500ms", "1s", "1d").prepare();
    relay.start();
    send(&relay, "one");
    relay.log().wait_for(SOON, &["cannot start TLS with 127.0.0.1[127.0.0.1]", "going on in clear text"]);
    inbox.wait_for(1, SOON);
    relay.wait_empty();
    drop(relay);

    let mut relay = Relay::builder().inward(port.address()).retry("500ms", "1s", "1d").prepare();
    demand(&relay, "policy = \"encrypt\"");
    relay.start();
    send(&relay, "two");
    relay.log().wait_for(SOON, &["status=deferred", "dsn=4.7.5", "cannot start TLS"]);
    assert_eq!((relay.queue().len(), inbox.len()), (1, 1));
}

/// S8, S33: relays chained, from the first octet in TLS.
#[test]
fn a_smart_host_that_speaks_tls_from_the_first_octet_gets_it() {
    let inbox = Inbox::start();
    let mut next = Relay::builder().hostname("next.test").inward(inbox.address()).prepare();
    let authority = Authority::new(next.directory(), "authority");
    authority.issue("next", "next.test");
    next.edit_config("tls = \"off\"", "tls = \"implicit\"");
    let (certificate, key) = (authority.path("next.pem"), authority.path("next.key"));
    next.edit_config("[spool]\n", &format!("[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n[spool]\n"));
    next.start();
    let mut relay = Relay::builder().inward(next.outside()).prepare();
    let known = authority.path("authority.pem");
    demand(
        &relay,
        &format!("implicit = true\npolicy = \"verify\"\nnames = [\"next.test\"]\nauthorities = {known:?}"),
    );
    relay.start();
    send(&relay, "chained");
    relay.log().wait_for(SOON, &["status=sent", "tls=TLSv1.3/TLS_", "/verified,"]);
    assert_eq!(inbox.wait_for(1, SOON)[0].to, [TO]);
    relay.wait_empty();
}

/// RFC 8689: the message goes on within verified TLS to who keeps the demand too, or it comes back.
#[test]
fn a_message_that_requires_tls_goes_on_only_to_who_keeps_it() {
    for (next_keeps, expected) in [(true, "status=sent"), (false, "dsn=5.7.30, status=bounced")] {
        let nowhere = Port::reserve();
        let mut next = Relay::builder().hostname("next.test").inward(nowhere.address()).prepare();
        let authority = Authority::new(next.directory(), "authority");
        authority.issue("next", "next.test");
        authority.issue("relay", "relay.test");
        let (certificate, key) = (authority.path("next.pem"), authority.path("next.key"));
        next.edit_config("tls = \"off\"", "tls = \"offer\"");
        next.edit_config(
            "[spool]\n",
            &format!("[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n[spool]\n"),
        );
        let known = authority.path("authority.pem");
        let verify = format!("policy = \"verify\"\nnames = [\"next.test\"]\nauthorities = {known:?}");
        if next_keeps {
            demand(&next, &verify);
        }
        next.start();
        let mut relay = Relay::builder().inward(next.outside()).prepare();
        demand(&relay, &verify);
        let (certificate, key) = (authority.path("relay.pem"), authority.path("relay.key"));
        relay.edit_config("tls = \"off\"", "tls = \"offer\"");
        relay.edit_config(
            "[spool]\n",
            &format!("[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n[spool]\n"),
        );
        relay.start();
        let answer = talk(
            relay.outside(),
            json!({"authority": known.to_str(), "commands": [
                "MAIL FROM:<x@away.test> REQUIRETLS\r\n",
                format!("RCPT TO:<{TO}>\r\n"),
                "DATA\r\n",
                "Subject: kept within TLS\r\n\r\nhello\r\n.\r\n",
            ]}),
        );
        assert!(answer["features"].to_string().contains("REQUIRETLS"), "{answer}");
        relay.log().wait_for(SOON, &["to=<bob@inside.test>", expected]);
        if next_keeps {
            let id = next.wait_queue(1, SOON)[0].split_whitespace().next().expect("an id").to_owned();
            let shown = next.sluice_ok(&["queue", "show", &id]);
            assert!(shown.to_lowercase().contains("requiretls"), "{shown}");
        }
    }
}
