//! TLS with clients that nobody here wrote: Python and OpenSSL, swaks, openssl s_client.

use serde_json::json;
use sluice_tests::message::{assert_same, message, without_received};
use sluice_tests::process::{self, run};
use sluice_tests::tls::{Authority, talk};
use sluice_tests::tools::swaks;
use sluice_tests::wait::SOON;
use sluice_tests::{Client, Inbox, Relay, lacks};
use std::process::Command;

const MESSAGE: [&str; 4] = [
    "MAIL FROM:<x@away.test>\r\n",
    "RCPT TO:<bob@inside.test>\r\n",
    "DATA\r\n",
    "Subject: within TLS\r\n\r\nhello\r\n.\r\n",
];

/// A relay whose outside listener has this mode, and the further lines of `[tls]`; and who issued its
/// certificate for `relay.test`.
fn relay(mode: &str, more: &str, inbox: &Inbox) -> (Relay, Authority) {
    let relay = Relay::builder().inward(inbox.address()).prepare();
    let authority = Authority::new(relay.directory(), "authority");
    authority.issue("relay", "relay.test");
    let (certificate, key) = (authority.path("relay.pem"), authority.path("relay.key"));
    let more = more.replace("DIR", relay.directory().to_str().expect("UTF-8"));
    relay.edit_config("tls = \"off\"", &format!("tls = \"{mode}\""));
    let tls = format!("[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n{more}\n[spool]\n");
    relay.edit_config("[spool]\n", &tls);
    (relay, authority)
}

fn authority(authority: &Authority) -> String {
    authority.path("authority.pem").to_str().expect("UTF-8").to_owned()
}

#[test]
fn starttls_is_offered_and_what_was_said_before_is_forgotten() {
    let inbox = Inbox::start();
    let (mut relay, issued) = relay("offer", "", &inbox);
    relay.start();
    let answer = talk(
        relay.outside(),
        json!({"authority": authority(&issued), "commands": MESSAGE,
            "injected": "EHLO evil.test\r\nMAIL FROM:<evil@away.test>\r\n"}),
    );
    assert_eq!(answer["starttls"], "220 2.0.0 Ready to start TLS", "{answer}");
    assert_eq!(
        (&answer["version"], &answer["subject"]),
        (&json!("TLSv1.3"), &json!("relay.test")),
        "{answer}"
    );
    assert!(!answer["features"].to_string().contains("STARTTLS"), "{answer}");
    let codes: Vec<String> = answer["replies"]
        .as_array()
        .expect("replies")
        .iter()
        .map(|r| r.as_str().expect("text")[..3].to_owned())
        .collect();
    assert_eq!(codes, ["250", "250", "354", "250", "221"], "{answer}");
    let got = &inbox.wait_for(1, SOON)[0];
    let head = String::from_utf8_lossy(&got.content).into_owned();
    assert!(head.contains("(using TLSv1.3 with cipher TLS_") && head.contains("with ESMTPS id"), "{head}");
    relay.log().wait_for(SOON, &["from=<x@away.test>", "tls=TLSv1.3/TLS_"]);
    relay.log().wait_for(SOON, &["octets after STARTTLS from [127.0.0.1] were dropped"]);
    // The offer need not be taken.
    Client::hello(relay.outside())
        .send_message("y@away.test", &["bob@inside.test"], &message("plain", "x\r\n"))
        .expect(250, "2.0.0");
    relay.wait_empty();
}

#[test]
fn swaks_sends_by_starttls_and_by_implicit_tls() {
    if lacks("swaks") {
        return;
    }
    for (mode, option) in [("require", "--tls"), ("implicit", "--tls-on-connect")] {
        let inbox = Inbox::start();
        let (mut relay, _) = relay(mode, "", &inbox);
        relay.start();
        let (sent, dialogue) =
            swaks(relay.outside(), "x@away.test", "bob@inside.test", &[option, "--body", "over TLS"]);
        assert!(sent && dialogue.contains("TLS started"), "{dialogue}");
        assert!(inbox.wait_for(1, SOON)[0].content.windows(8).any(|part| part == b"over TLS"));
        relay.wait_empty();
    }
}

#[test]
fn a_listener_that_demands_tls_takes_no_mail_without_it() {
    let inbox = Inbox::start();
    let (mut relay, _) = relay("require", "", &inbox);
    relay.start();
    let mut client = Client::hello(relay.outside());
    for command in ["MAIL FROM:<x@away.test>", "RCPT TO:<bob@inside.test>", "DATA"] {
        client.command(command).expect(530, "5.7.0");
    }
    relay.log().wait_for(SOON, &["reject: MAIL", "530 5.7.0"]);
}

#[test]
fn a_large_message_comes_through_tls_octet_by_octet() {
    let inbox = Inbox::start();
    let (mut relay, issued) = relay("implicit", "", &inbox);
    relay.start();
    let content =
        message("large", &"0123456789 .dots and lines\r\n.\r\n".replace("\n.\r", "\n..\r").repeat(100_000));
    let stuffed = String::from_utf8(content.clone()).expect("UTF-8").replace("\r\n.", "\r\n..");
    let commands = json!([MESSAGE[0], MESSAGE[1], MESSAGE[2], format!("{stuffed}.\r\n")]);
    let file = relay.directory().join("commands.json");
    std::fs::write(&file, commands.to_string()).expect("a file");
    let answer = talk(
        relay.outside(),
        json!({"authority": authority(&issued), "implicit": true, "commands_file": file}),
    );
    assert!(answer["greeting"].as_str().is_some_and(|line| line.starts_with("220 ")), "{answer}");
    assert_same(without_received(&inbox.wait_for(1, SOON)[0].content), &content);
}

#[test]
fn clients_get_the_certificate_of_the_name_that_they_ask_for() {
    let inbox = Inbox::start();
    let named = "[[tls.name]]\nnames = [\"mail.test.example\", \"*.many.example\"]\ncertificate = \"DIR/mail.pem\"\nkey = \"DIR/mail.key\"\n";
    let (mut relay, issued) = relay("offer", named, &inbox);
    issued.issue("mail", "mail.test.example");
    relay.start();
    for (name, subject) in [
        ("mail.test.example", "mail.test.example"),
        ("MAIL.test.example", "mail.test.example"),
        ("a.many.example", "mail.test.example"),
        ("a.b.many.example", "relay.test"),
        ("other.example", "relay.test"),
        ("relay.test", "relay.test"),
    ] {
        let answer = talk(relay.outside(), json!({"authority": authority(&issued), "name": name}));
        assert_eq!(answer["subject"], subject, "{name}: {answer}");
    }
}

#[test]
fn certificates_are_read_again_while_sessions_go_on() {
    let inbox = Inbox::start();
    let (mut relay, issued) = relay("offer", "", &inbox);
    relay.start();
    let ask = || json!({"authority": authority(&issued)});
    let before = talk(relay.outside(), ask());
    let mut session = Client::hello(relay.outside());
    issued.issue("relay", "relay.test");
    process::signal(relay.pid(), "HUP");
    relay.log().wait_for(SOON, &["certificates were read again"]);
    let after = talk(relay.outside(), ask());
    assert_ne!(before["serial"], after["serial"], "{before} {after}");

    let good = std::fs::read(issued.path("relay.pem")).expect("a file");
    std::fs::write(issued.path("relay.pem"), "nothing").expect("a file");
    process::signal(relay.pid(), "HUP");
    relay.log().wait_for(SOON, &["error: SIGHUP", "relay.pem holds no certificate", "stay as they were"]);
    let still = talk(relay.outside(), ask());
    assert_eq!(still["serial"], after["serial"], "{still}");
    std::fs::write(issued.path("relay.pem"), good).expect("a file");

    session.send_message("y@away.test", &["bob@inside.test"], &message("open", "x\r\n")).expect(250, "2.0.0");
    relay.wait_empty();
}

#[test]
fn sessions_are_resumed_on_any_shard_unless_tickets_are_switched_off() {
    let inbox = Inbox::start();
    for (more, resumed) in [("", true), ("tickets = false\n", false)] {
        for maximum in ["1.2", "1.3"] {
            let (mut relay, issued) = relay("offer", more, &inbox);
            relay.edit_config("ingest_cpus = \"0\"", "ingest_cpus = \"0,1\"");
            relay.start();
            let ask = json!({"authority": authority(&issued), "turns": 4, "maximum": maximum});
            let answer = talk(relay.outside(), ask);
            assert_eq!(answer["resumed"], resumed, "{more} {maximum} {answer}");
        }
    }
}

#[test]
fn an_old_version_is_refused_and_the_log_names_peer_and_reason() {
    let inbox = Inbox::start();
    let (mut relay, issued) = relay("offer", "minimum = \"1.3\"\n", &inbox);
    relay.start();
    let answer = talk(relay.outside(), json!({"authority": authority(&issued), "maximum": "1.2"}));
    assert!(answer["error"].is_string(), "{answer}");
    relay.log().wait_for(SOON, &["TLS handshake failed with unknown[127.0.0.1]", "listener=outside"]);
    let answer = talk(relay.outside(), json!({"authority": authority(&issued)}));
    assert_eq!(answer["version"], "TLSv1.3", "{answer}");
}

#[test]
fn what_is_no_tls_at_all_ends_at_the_handshake() {
    let inbox = Inbox::start();
    let (mut relay, _) = relay("implicit", "", &inbox);
    relay.start();
    let (sent, _) = swaks(relay.outside(), "x@away.test", "bob@inside.test", &["--timeout", "5"]);
    assert!(!sent);
    let mut client = std::net::TcpStream::connect(relay.outside()).expect("a connection");
    std::io::Write::write_all(&mut client, b"EHLO plain.test\r\n").expect("a write");
    relay.log().wait_for(SOON, &["TLS handshake failed", "the client does not speak TLS"]);
}

#[test]
fn certificates_of_clients_are_asked_for_and_verified() {
    let inbox = Inbox::start();
    let commands = MESSAGE;
    for (word, shown, word_in_received) in [
        ("ask", None, Some("no client certificate")),
        ("ask", Some("client"), Some("client certificate verified")),
        ("ask", Some("stranger"), Some("client certificate not verified")),
        ("require", Some("client"), Some("client certificate verified")),
        ("require", Some("stranger"), None),
        ("require", None, None),
    ] {
        let more = format!("client_certificates = \"{word}\"\nclient_authorities = \"DIR/authority.pem\"\n");
        let (mut relay, issued) = relay("offer", &more, &inbox);
        issued.issue("client", "client.test");
        Authority::new(relay.directory(), "elsewhere").issue("stranger", "stranger.test");
        relay.start();
        let mut ask = json!({"authority": authority(&issued), "commands": commands});
        if let Some(file) = shown {
            ask["certificate"] = issued.path(&format!("{file}.pem")).to_str().into();
            ask["key"] = issued.path(&format!("{file}.key")).to_str().into();
        }
        let before = inbox.len();
        let answer = talk(relay.outside(), ask);
        match word_in_received {
            Some(words) => {
                assert!(answer["error"].is_null(), "{word} {shown:?}: {answer}");
                let got = &inbox.wait_for(before + 1, SOON)[before];
                let head = String::from_utf8_lossy(&got.content).into_owned();
                assert!(head.contains(words), "{word} {shown:?}: {head}");
            }
            None => {
                assert!(answer["error"].is_string(), "{word} {shown:?}: {answer}");
                relay.log().wait_for(SOON, &["TLS handshake failed with unknown[127.0.0.1]"]);
            }
        }
    }
}

#[test]
fn openssl_s_client_agrees_with_the_chain() {
    let inbox = Inbox::start();
    let (mut relay, issued) = relay("offer", "", &inbox);
    relay.start();
    let connect = relay.outside().to_string();
    let mut command = Command::new("openssl");
    command.args(["s_client", "-starttls", "smtp", "-connect", &connect, "-verify_return_error", "-CAfile"]);
    let output = run(command.arg(authority(&issued)), SOON);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("Verify return code: 0 (ok)"), "{shown}");
}

#[test]
fn a_queue_is_looked_at_and_steered_though_the_certificate_is_not_readable_any_more() {
    let inbox = Inbox::start();
    let (mut relay, authority) = relay("offer", "", &inbox);
    relay.start();
    std::fs::write(authority.path("relay.pem"), "no certificate").unwrap();
    std::fs::remove_file(authority.path("relay.key")).unwrap();
    let refused = relay.sluice(&["check"]);
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");
    let look = |relay: &Relay| {
        for command in ["list", "summary"] {
            assert!(relay.sluice_ok(&["queue", command]).contains("The queue is empty."), "{command}");
        }
    };
    look(&relay);
    assert!(relay.sluice_ok(&["queue", "hold", "--all"]).contains("no message matches"));
    relay.stop();
    look(&relay);
}
