//! Lasting failures are told to the sender by a DSN that another's parser understands (RFC 3464), and never
//! to the null reverse-path.

use sluice_tests::message::message;
use sluice_tests::wait::SOON;
use sluice_tests::{Answer, Client, Dsn, Inbox, Relay, Step};

fn refusing(step: &Step<'_>) -> Answer {
    match step {
        Step::Rcpt(line) if line.contains("nobody") => {
            Answer::Say("550-5.1.1 There is no such mailbox,\r\n550 5.1.1 and there never was".into())
        }
        Step::Rcpt(line) if line.contains("plain") => Answer::Say("553 go away".into()),
        Step::Mail(line) if line.contains("spammer") => Answer::Say("554 5.7.1 Not from you".into()),
        Step::EndOfData(got) if got.to.iter().any(|to| to.contains("full")) => {
            Answer::Say("552 5.2.2 Mailbox full".into())
        }
        _ => Answer::Accept,
    }
}

fn relay(internal: &Inbox, external: &Inbox) -> Relay {
    Relay::builder().inward(internal.address()).outward(external.address()).start()
}

fn send(relay: &Relay, from: &str, to: &[&str], subject: &str) {
    let mut client = Client::hello(relay.inside());
    client.send_message(from, to, &message(subject, "the text\r\n")).expect(250, "2.0.0");
    client.quit();
}

#[test]
fn a_refused_recipient_is_told_to_the_sender() {
    let (internal, external) = (Inbox::start(), Inbox::scripted(refusing));
    let relay = relay(&internal, &external);
    send(&relay, "bob@inside.test", &["nobody@away.test"], "lost");
    let got = &internal.wait_for(1, SOON)[0];
    assert_eq!((got.from.as_str(), got.to.as_slice()), ("", &["bob@inside.test".to_owned()][..]));
    let dsn = Dsn::parse_valid(&got.content);
    dsn.expect_one("nobody@away.test", "failed", "5.1.1");
    let diagnostic = dsn.recipient(0, "diagnostic-code");
    assert!(diagnostic.starts_with("smtp;") && diagnostic.contains("no such mailbox"), "{diagnostic}");
    assert!(dsn.recipient(0, "remote-mta").starts_with("dns;"), "{dsn:?}");
    assert_eq!(dsn.message("reporting-mta").replace(' ', ""), "dns;relay.test");
    assert_eq!((dsn.original("subject"), dsn.original("message-id")), ("lost", "<lost@client.test>"));
    assert!(
        dsn.text().contains("nobody@away.test") && dsn.text().contains("no such mailbox"),
        "{}",
        dsn.text()
    );
    assert!(dsn.header("to").contains("bob@inside.test") && !dsn.header("date").is_empty(), "{dsn:?}");
    assert!(dsn.header("auto-submitted").starts_with("auto-replied"), "RFC 3834 section 5: {dsn:?}");
    assert!(dsn.header("message-id").contains('@'), "{dsn:?}");
    let line = relay.log().wait_for(SOON, &["to=<nobody@away.test>", "status=bounced"]);
    assert!(line.contains("dsn=5.1.1"), "{line}");
    relay.wait_empty();
    assert_eq!(internal.len(), 1, "one DSN");
}

#[test]
fn the_others_get_the_message_and_the_dsn_names_only_the_refused() {
    let (internal, external) = (Inbox::start(), Inbox::scripted(refusing));
    let relay = relay(&internal, &external);
    send(
        &relay,
        "bob@inside.test",
        &["x@away.test", "nobody@away.test", "y@away.test", "plain@away.test"],
        "some",
    );
    assert_eq!(external.wait_for(1, SOON)[0].to, ["x@away.test", "y@away.test"]);
    let got = internal.wait_for(1, SOON);
    relay.wait_empty();
    let dsn = Dsn::parse_valid(&got[0].content);
    let mut reported: Vec<(String, String)> = (0..dsn.recipient_count())
        .map(|index| {
            let address =
                dsn.recipient(index, "final-recipient").rsplit([';', ' ']).next().unwrap_or_default();
            (address.to_owned(), dsn.recipient(index, "status").to_owned())
        })
        .collect();
    reported.sort();
    assert_eq!(internal.len(), 1, "one DSN for what was refused in one attempt");
    assert_eq!(reported.len(), 2, "{reported:?}");
    assert_eq!(reported[0], ("nobody@away.test".to_owned(), "5.1.1".to_owned()));
    assert!(reported[1].0 == "plain@away.test" && reported[1].1.starts_with("5."), "{reported:?}");
}

#[test]
fn a_refusal_of_the_sender_or_of_the_content_is_told_to_the_sender() {
    let (internal, external) = (Inbox::start(), Inbox::scripted(refusing));
    let relay = relay(&internal, &external);
    send(&relay, "spammer@inside.test", &["x@away.test"], "sender");
    let got = internal.wait_for(1, SOON);
    Dsn::parse_valid(&got[0].content).expect_one("x@away.test", "failed", "5.7.1");
    send(&relay, "bob@inside.test", &["full@away.test"], "content");
    let got = internal.wait_for(2, SOON);
    Dsn::parse_valid(&got[1].content).expect_one("full@away.test", "failed", "5.2.2");
    relay.wait_empty();
    assert_eq!(external.len(), 0);
}

#[test]
fn the_null_reverse_path_gets_no_dsn() {
    let (internal, external) = (Inbox::start(), Inbox::scripted(refusing));
    let relay = relay(&internal, &external);
    send(&relay, "", &["nobody@away.test"], "dsn-of-dsn");
    relay.log().wait_for(SOON, &["to=<nobody@away.test>", "status=bounced"]);
    relay.wait_empty();
    assert_eq!((internal.sessions(), external.len()), (0, 0));
}

#[test]
fn a_dsn_that_is_refused_itself_ends_there() {
    let internal = Inbox::scripted(|step| match step {
        Step::Rcpt(_) => Answer::Say("550 5.1.1 Nobody of that name".into()),
        _ => Answer::Accept,
    });
    let external = Inbox::scripted(refusing);
    let relay = relay(&internal, &external);
    send(&relay, "gone@inside.test", &["nobody@away.test"], "double");
    relay.log().wait_for(SOON, &["to=<gone@inside.test>", "status=bounced"]);
    relay.wait_empty();
    assert_eq!((internal.len(), external.len()), (0, 0));
}

#[test]
fn a_dsn_of_eight_bit_and_big_content_is_still_valid() {
    let (internal, external) = (Inbox::start(), Inbox::scripted(refusing));
    let relay = relay(&internal, &external);
    let mut client = Client::hello(relay.inside());
    let mut content = b"Subject: \xfc\xff no header text\r\nX-Long: ".to_vec();
    content.extend_from_slice(&b"y".repeat(900));
    content.extend_from_slice(b"\r\n\r\n--boundary--\r\n.\r\n");
    content.extend_from_slice(&b"\xe4\xf6\xfc 0123456789\r\n".repeat(100_000));
    client.send_message("bob@inside.test", &["nobody@away.test"], &content).expect(250, "2.0.0");
    let got = &internal.wait_for(1, SOON)[0];
    assert!(got.content.len() < content.len() / 4, "a DSN does not send everything back");
    Dsn::parse_valid(&got.content).expect_one("nobody@away.test", "failed", "5.1.1");
    relay.wait_empty();
}

/// A next hop with a size or content filter of its own: it refuses while the content is still coming, and
/// closes.
fn refuse_mid_content(listener: &std::net::TcpListener, connections: usize) {
    use std::io::{BufRead, BufReader, Read, Write};
    for _ in 0..connections {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.write_all(b"220 filter.test ESMTP\r\n").expect("write");
        let mut reader = BufReader::new(stream.try_clone().expect("clone"));
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|octets| octets > 0) {
            let data = line.starts_with("DATA");
            let reply = if data { "354 go on\r\n" } else { "250 ok\r\n" };
            stream.write_all(reply.as_bytes()).expect("write");
            line.clear();
            if data {
                reader.read_exact(&mut [0; 1000]).expect("the beginning of the content");
                stream.write_all(b"552 5.3.4 Too big for us\r\n").expect("write");
                break;
            }
        }
    }
}

#[test]
fn a_refusal_in_the_middle_of_the_content_counts_and_is_not_tried_again_at_once() {
    let internal = Inbox::start();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let peer = std::thread::spawn(move || refuse_mid_content(&listener, 1));
    let relay = Relay::builder().inward(internal.address()).outward(address).start();
    let body = "x".repeat(70) + "\r\n";
    let mut client = Client::hello(relay.inside());
    client
        .send_message("bob@inside.test", &["big@away.test"], &message("big", &body.repeat(120_000)))
        .expect(250, "2.0.0");
    client.quit();
    let line = relay.log().wait_for(SOON, &["to=<big@away.test>"]);
    peer.join().expect("the filter");
    // What the peer said may be lost with its connection; then the attempt is put off.
    let refused = line.contains("status=bounced") && line.contains("5.3.4");
    let lost = line.contains("status=deferred") && line.contains("lost connection");
    assert!(refused || lost, "{line}");
    if refused {
        Dsn::parse_valid(&internal.wait_for(1, SOON)[0].content).expect_one(
            "big@away.test",
            "failed",
            "5.3.4",
        );
    }
}
