//! What a route rewrites: addresses of the envelope and of header fields, return addresses for forwarded mail, fields
//! removed and added; by DATA and by BDAT, from memory and from the spool, with the size that is announced.

use sluice_tests::inbox::{Transaction, offer_chunking};
use sluice_tests::message::message;
use sluice_tests::wait::SOON;
use sluice_tests::{Answer, Client, Dsn, Inbox, Relay, RelayBuilder, Step};

/// `inside.test` inward; `away.test` and `else.test` outward, with these keys in `[route.rewrite]`.
fn builder(internal: &Inbox, external: &Inbox, rewrite: &str) -> RelayBuilder {
    Relay::builder()
        .section(&format!(
            "[[route]]\ndomains = [\"away.test\", \"else.test\"]\nhosts = [\"{}\"]\n[route.rewrite]\n{rewrite}\n",
            external.address()
        ))
        .inward(internal.address())
}

fn send(relay: &Relay, from: &str, to: &[&str], content: &[u8]) {
    let mut client = Client::hello(relay.inside());
    client.send_message(from, to, content).expect(250, "2.0.0");
    client.quit();
}

const RULES: &str = "masquerade = [\"corp.inside.test\"]\nstrip_received = true\nremove_headers = [\"X-Secret\"]\nadd_headers = [\"X-Relay: yes\"]";

const HEADER: &str = "Received: from pc7 by exch.corp.inside.test with x; Sun, 22 Nov 2026 00:00:00 +0000\r\n\
    From: Ann <ann@pc7.corp.inside.test>\r\nTo: bob@away.test\r\nX-Secret: 10.1.7.7\r\nSubject: ann@pc7.corp.inside.test\r\n";

/// What is behind the relay's own Received field, which has no client in it.
fn expect_rewritten(got: &Transaction, body: &[u8]) {
    let text = String::from_utf8_lossy(&got.content);
    let (head, _) = text.split_once("\r\n\r\n").expect("a header section");
    assert!(head.starts_with("Received: by relay.test with ESMTP id "), "{head}");
    for gone in ["pc7 by", "127.0.0.1", "X-Secret", "10.1.7.7"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
    let rest = head.split_once("From: ").expect("From").1;
    let expected = "Ann <ann@corp.inside.test>\r\nTo: bob@away.test\r\nSubject: ann@pc7.corp.inside.test\r\nX-Relay: yes";
    assert_eq!(rest, expected);
    assert!(got.content.ends_with(body) && got.content[head.len() + 4..] == *body, "the body is as it was");
    assert_eq!(got.from, "ann@corp.inside.test");
    let size = format!("SIZE={}", got.content.len());
    assert!(got.parameters.split(' ').any(|word| word == size), "{size}: {}", got.parameters);
}

#[test]
fn a_message_goes_out_as_the_route_says_by_data_and_by_bdat() {
    for chunking in [false, true] {
        let internal = Inbox::start();
        let external = Inbox::scripted(move |step| match step {
            Step::Hello(_) if chunking => offer_chunking(false),
            Step::Hello(_) => {
                Answer::Say("250-inbox.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 104857600".into())
            }
            _ => Answer::Accept,
        });
        // Nothing is handed over in memory in the second round.
        for memory in ["64MiB", "0B"] {
            let before = external.len();
            let mut relay = builder(&internal, &external, RULES).prepare();
            relay.edit_config("[shards]", &format!("handover_bytes_max = \"{memory}\"\n\n[shards]"));
            relay.start();
            let small = b".dot\r\nbody\r\n".to_vec();
            let large = b"0123456789 .\r\n.abc\r\n".repeat(40_000);
            for body in [small, large] {
                let content = [HEADER.as_bytes(), b"\r\n", &body].concat();
                send(&relay, "ann@pc7.corp.inside.test", &["bob@away.test"], &content);
                relay.wait_empty();
                let got = external.wait_for(external.len().max(before + 1), SOON);
                expect_rewritten(got.last().expect("a message"), &body);
            }
            assert_eq!(external.len(), before + 2);
        }
    }
}

#[test]
fn the_inward_route_gets_what_was_received() {
    let (internal, external) = (Inbox::start(), Inbox::start());
    let relay = builder(&internal, &external, RULES).start();
    let content = [HEADER.as_bytes(), b"\r\nbody\r\n"].concat();
    send(&relay, "ann@pc7.corp.inside.test", &["bob@inside.test", "bob@away.test"], &content);
    let got = &internal.wait_for(1, SOON)[0];
    assert!(got.content.ends_with(&content), "{}", got.content.escape_ascii());
    assert_eq!(got.from, "ann@pc7.corp.inside.test");
    expect_rewritten(&external.wait_for(1, SOON)[0], b"body\r\n");
}

fn with_srs(internal: &Inbox, external: &Inbox) -> Relay {
    let relay = builder(internal, external, "srs = true").prepare();
    let keys = relay.directory().join("srs.keys");
    std::fs::write(&keys, "0123456789abcdef0123\n").expect("the keys");
    let srs = format!("[srs]\ndomain = \"srs.inside.test\"\nkeys_file = {keys:?}\n\n[shards]");
    relay.edit_config("[shards]", &srs);
    let mut relay = relay;
    relay.start();
    relay
}

#[test]
fn forwarded_mail_gets_a_return_address_and_its_bounce_comes_back() {
    let (internal, external) = (Inbox::start(), Inbox::start());
    let relay = with_srs(&internal, &external);
    // Own mail, and mail for inside, stays.
    send(&relay, "ann@inside.test", &["bob@away.test"], &message("own", "x\r\n"));
    assert_eq!(external.wait_for(1, SOON)[0].from, "ann@inside.test");
    send(&relay, "eve@else.test", &["ann@inside.test"], &message("inward", "x\r\n"));
    assert_eq!(internal.wait_for(1, SOON)[0].from, "eve@else.test");
    send(&relay, "", &["bob@away.test"], &message("null", "x\r\n"));
    assert_eq!(external.wait_for(2, SOON)[1].from, "");
    send(&relay, "eve@else.test", &["bob@away.test"], &message("forwarded", "x\r\n"));
    let from = external.wait_for(3, SOON)[2].from.clone();
    assert!(from.starts_with("SRS0=") && from.ends_with("=else.test=eve@srs.inside.test"), "{from}");

    let mut client = Client::hello(relay.outside());
    client.send_message("", &[&from], &message("bounce", "x\r\n")).expect(250, "2.0.0");
    let got = external.wait_for(4, SOON)[3].clone();
    assert_eq!(got.to, ["eve@else.test"]);
    client.command("MAIL FROM:<>").expect(250, "2.1.0");
    let forged = from.replace("=eve@", "=victim@");
    client.command(&format!("RCPT TO:<{forged}>")).expect(550, "5.7.1");
    client.command("RCPT TO:<bob@srs.inside.test>").expect(550, "5.7.1");
    client.command("RCPT TO:<eve@else.test>").expect(550, "5.7.1");
    client.command(&format!("RCPT TO:<{}>", from.to_lowercase())).expect(250, "2.1.5");
    let explained = relay.sluice_ok(&["explain", "--from", "eve@else.test", "--to", "bob@away.test"]);
    assert!(
        explained.contains("MAIL FROM:<SRS0=") && explained.contains("listener outside: policy refuses"),
        "{explained}"
    );
}

#[test]
fn each_recipient_gets_a_sender_of_its_own() {
    let (internal, external) = (Inbox::start(), Inbox::start());
    let relay = builder(&internal, &external, "verp = [\"news@inside.test\"]").start();
    let to: Vec<String> = (0..7).map(|number| format!("r{number}@away.test")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    send(&relay, "news@inside.test", &to, &message("news", "x\r\n"));
    let mut got: Vec<(String, Vec<String>)> =
        external.wait_for(7, SOON).into_iter().map(|got| (got.from, got.to)).collect();
    got.sort();
    for (number, (from, to)) in got.iter().enumerate() {
        assert_eq!(from, &format!("news+r{number}=away.test@inside.test"));
        assert_eq!(to, &[format!("r{number}@away.test")]);
    }
    send(&relay, "other@inside.test", &to, &message("other", "x\r\n"));
    let last = external.wait_for(8, SOON)[7].clone();
    assert_eq!((last.from.as_str(), last.to.len()), ("other@inside.test", 7));
    relay.wait_empty();
}

#[test]
fn tables_rename_and_the_senders_dsn_names_what_he_wrote() {
    let internal = Inbox::start();
    let external = Inbox::scripted(|step| match step {
        Step::Rcpt(line) if line.contains("<desk@") => Answer::Say("550 5.1.1 no such desk".into()),
        _ => Answer::Accept,
    });
    let relay =
        builder(&internal, &external, "senders = \"DIR/senders\"\nrecipients = \"DIR/recipients\"").prepare();
    std::fs::write(relay.directory().join("senders"), "ann@inside.test ann.other@inside.test\n")
        .expect("a table");
    std::fs::write(
        relay.directory().join("recipients"),
        "info@away.test desk@away.test\n@else.test @away.test\n",
    )
    .expect("a table");
    let directory = relay.directory().to_str().expect("UTF-8").to_owned();
    let text = std::fs::read_to_string(relay.config()).expect("the configuration");
    std::fs::write(relay.config(), text.replace("DIR", &directory)).expect("the configuration");
    let mut relay = relay;
    relay.start();
    send(
        &relay,
        "ann@inside.test",
        &["info@away.test", "bob@else.test"],
        b"From: ann@inside.test\r\nTo: info@away.test, Bob <bob@else.test>\r\n\r\nx\r\n",
    );
    let got = external.wait_for(1, SOON)[0].clone();
    assert_eq!(
        (got.from.as_str(), got.to.as_slice()),
        ("ann.other@inside.test", &["bob@away.test".to_owned()][..])
    );
    let text = String::from_utf8_lossy(&got.content).into_owned();
    assert!(
        text.contains("From: ann.other@inside.test\r\nTo: desk@away.test, Bob <bob@away.test>\r\n"),
        "{text}"
    );
    let dsn = internal.wait_for(1, SOON)[0].clone();
    assert_eq!(dsn.to, ["ann@inside.test"], "the sender as he was");
    Dsn::parse_valid(&dsn.content).expect_one("info@away.test", "failed", "5.1.1");
    relay.wait_empty();
}
