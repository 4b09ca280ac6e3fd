//! What scanners find on the ports of a relay: OpenSSL's s_client, sslscan, testssl.sh and nmap's scripts for SMTP.

use std::process::Command;
use std::time::Duration;

use sluice_tests::interop::{FROM, Flow, TO, WAYS, Way};
use sluice_tests::lacks;
use sluice_tests::message::message;
use sluice_tests::process::{run, run_ok};
use sluice_tests::wait::SOON;

/// testssl.sh starts thousands of processes.
const TESTSSL: Duration = Duration::from_secs(400);

/// Findings of testssl.sh that are accepted, each with the reason.
const ACCEPTED: [(&str, &str); 2] = [
    (
        "cipher_order",
        "all suites are AEAD with forward secrecy, so the client may choose the one that its processor does best",
    ),
    ("cert_revocation", "the test's own authority publishes no list of revoked certificates"),
];

/// The relay is as good after the scan as before it.
fn expect_sound(flow: &Flow) {
    let before = flow.inbox.len();
    sluice_tests::Client::hello(flow.relay.outside())
        .send_message(FROM, &[TO], &message("after-the-scan", "x\r\n"))
        .expect(250, "2.0.0");
    flow.inbox.wait_for(before + 1, SOON);
    assert!(flow.relay.log().matching(&["panic"]).is_empty(), "{}", flow.relay.log().tail());
}

#[test]
fn s_client_agrees_on_tls_1_2_and_1_3_and_on_nothing_older() {
    for way in WAYS {
        let flow = Flow::start();
        let connect = flow.address(way).to_string();
        for (option, version) in
            [("-tls1_2", Some("TLSv1.2")), ("-tls1_3", Some("TLSv1.3")), ("-tls1_1", None)]
        {
            let mut command = Command::new("openssl");
            command.args(["s_client", "-connect", &connect, option, "-verify_return_error", "-brief"]);
            command.args([
                "-CAfile",
                &flow.trusted(),
                "-servername",
                "relay.test",
                "-verify_hostname",
                "relay.test",
            ]);
            // OpenSSL itself offers what is older only at this level.
            command.args(["-cipher", "DEFAULT@SECLEVEL=0"]);
            if way == Way::StartTls {
                command.args(["-starttls", "smtp"]);
            }
            let output = run(&mut command, SOON);
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            match version {
                Some(version) => {
                    assert!(
                        said.contains(&format!("Protocol version: {version}")),
                        "{way:?} {option}: {said}"
                    );
                    assert!(said.contains("Verification: OK"), "{way:?} {option}: {said}");
                }
                None => {
                    assert!(!output.status.success() && said.contains(" alert "), "{way:?}: {said}");
                    flow.relay.log().wait_for(SOON, &["TLS handshake failed with unknown[127.0.0.1]"]);
                }
            }
        }
        expect_sound(&flow);
    }
}

#[test]
fn sslscan_finds_two_versions_and_good_suites_only() {
    if lacks("sslscan") {
        return;
    }
    for way in WAYS {
        let flow = Flow::start();
        let mut command = Command::new("sslscan");
        command.arg("--no-colour");
        if way == Way::StartTls {
            command.arg("--starttls-smtp");
        }
        let found = run_ok(command.arg(flow.address(way).to_string()), SOON * 2);
        let words: Vec<Vec<&str>> = found.lines().map(|line| line.split_whitespace().collect()).collect();
        for (version, state) in [
            ("SSLv2", "disabled"),
            ("SSLv3", "disabled"),
            ("TLSv1.0", "disabled"),
            ("TLSv1.1", "disabled"),
            ("TLSv1.2", "enabled"),
            ("TLSv1.3", "enabled"),
        ] {
            assert!(words.iter().any(|line| line[..] == [version, state]), "{version} {state}: {found}");
        }
        let suites: Vec<&str> = found
            .lines()
            .filter(|line| line.starts_with("Accepted") || line.starts_with("Preferred"))
            .collect();
        assert!(suites.len() >= 6, "{found}");
        for suite in suites {
            let forward = suite.contains("TLS_") || suite.contains("ECDHE-");
            assert!(forward && (suite.contains("GCM") || suite.contains("CHACHA20")), "{suite}");
        }
        assert!(found.contains("Session renegotiation not supported"), "{found}");
        let bleeds =
            found.lines().any(|line| line.contains("heartbleed") && !line.contains("not vulnerable"));
        assert!(!bleeds, "{found}");
        expect_sound(&flow);
    }
}

#[test]
fn testssl_finds_nothing_but_what_is_accepted() {
    if lacks("testssl") {
        return;
    }
    std::thread::scope(|scope| {
        for way in WAYS {
            scope.spawn(move || testssl(way));
        }
    });
}

fn testssl(way: Way) {
    let flow = Flow::start();
    let report = flow.relay.directory().join("testssl.json");
    let mut command = Command::new("testssl");
    command.args(["--quiet", "--warnings", "off", "--color", "0", "-n", "none", "--fast"]);
    command.args(["--add-ca", &flow.trusted(), "--jsonfile"]).arg(&report);
    // Versions, categories of suites, forward secrecy, preferences, certificate, known holes.
    command.args(["-p", "-s", "-f", "-P", "-S", "-U"]).current_dir(flow.relay.directory());
    if way == Way::StartTls {
        command.args(["-t", "smtp"]);
    }
    let output = run(command.arg(flow.address(way).to_string()), TESTSSL);
    let text = std::fs::read_to_string(&report)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)));
    let findings: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let findings = findings.as_array().expect("a list");
    let of =
        |id: &str| findings.iter().find(|finding| finding["id"] == id).map(|finding| &finding["finding"]);
    for (id, said) in [
        ("SSLv3", "not offered"),
        ("TLS1", "not offered"),
        ("TLS1_1", "not offered"),
        ("TLS1_2", "offered"),
        ("TLS1_3", "offered"),
        ("secure_renego", "supported"),
        ("heartbleed", "not vulnerable"),
    ] {
        assert!(of(id).is_some_and(|finding| finding.to_string().contains(said)), "{id}: {:?}", of(id));
    }
    assert!(findings.len() > 60, "only {} findings", findings.len());
    for finding in findings {
        let (id, severity) =
            (finding["id"].as_str().unwrap_or(""), finding["severity"].as_str().unwrap_or(""));
        let accepted = ACCEPTED.iter().find(|(accepted, _)| id.split(' ').next() == Some(*accepted));
        match (severity, accepted) {
            ("OK" | "INFO" | "DEBUG", _) => {}
            // About the scanner itself: what its OpenSSL cannot do, or what took it too long.
            ("WARN", _) => println!("{way:?}: testssl.sh could not say: {finding}"),
            (_, Some((_, reason))) => println!("{way:?}: {id}: {}, accepted: {reason}", finding["finding"]),
            (_, None) => panic!("{way:?}: {finding}"),
        }
    }
    expect_sound(&flow);
}

#[test]
fn nmap_finds_neither_an_open_relay_nor_users_nor_holes() {
    if lacks("nmap") {
        return;
    }
    let flow = Flow::start();
    let port = flow.relay.outside().port().to_string();
    let mut command = Command::new("nmap");
    // The + has the scripts run although the port is not 25.
    command.args(["-Pn", "-n", "-p", &port, "--script"]);
    command.arg("+smtp-commands,+smtp-open-relay,+smtp-enum-users,+smtp-strangeport,+smtp-vuln-*");
    command.args([
        "--script-args",
        "smtp-enum-users.methods={VRFY,EXPN,RCPT},smtp.domain=scan.test",
        "127.0.0.1",
    ]);
    let found = run_ok(&mut command, SOON * 2);
    for said in [
        "Server doesn't seem to be an open relay, all tests failed",
        "Couldn't find any accounts",
        "The SMTP server is not Exim: NOT VULNERABLE",
        "smtp-commands: relay.test, PIPELINING, SIZE 67108864",
        // True of every test: its ports are not the well-known ones.
        "Mail server on unusual port",
    ] {
        assert!(found.contains(said), "{said}: {found}");
    }
    let vulnerable =
        found.lines().any(|line| line.contains("VULNERABLE") && !line.contains("NOT VULNERABLE"));
    assert!(!vulnerable, "{found}");
    expect_sound(&flow);
}
