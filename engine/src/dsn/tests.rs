//! Whole DSNs, checked line by line here and part by part by Python's `email`, which nobody here
//! wrote.

use std::io::Write;
use std::process::{Command, Stdio};

use super::*;

const HEADER: &[u8] =
    b"Received: from a\r\n by b\r\nMessage-ID: <1@a.example>\r\nSubject: Gr\xc3\xbc\xc3\x9fe\r\n";
const DATE: &str = "Sun, 22 Nov 2026 01:00:00 +0000";

fn original() -> Envelope {
    Envelope {
        sender: "s@a.example".into(),
        recipients: vec![Recipient::new("r@b.example")],
        body: Body::SevenBit,
        arrived_micros: 1,
        listener: "inside".into(),
        helo: "client.example".into(),
        client: "10.1.0.7".into(),
        ..Envelope::default()
    }
}

fn bounced<'a>() -> ReportedRecipient<'a> {
    ReportedRecipient {
        address: "r@b.example",
        orcpt: "",
        action: Action::Bounced,
        status: "5.1.1",
        text: "host mx[192.0.2.1] said: 550 5.1.1 No such user (in reply to RCPT TO command)",
        reply: Some("550 5.1.1 No such user"),
        remote: Some("mx.b.example"),
        last_attempt_date: Some(DATE),
    }
}

fn delayed<'a>() -> ReportedRecipient<'a> {
    ReportedRecipient {
        address: "d@b.example",
        orcpt: "",
        action: Action::Delayed { until_date: "Fri, 27 Nov 2026 01:00:00 +0000" },
        status: "4.4.1",
        text: "connect to mx[192.0.2.1]:25: Connection refused",
        reply: None,
        remote: None,
        last_attempt_date: None,
    }
}

fn english() -> &'static Texts {
    static ENGLISH: std::sync::OnceLock<Texts> = std::sync::OnceLock::new();
    ENGLISH.get_or_init(Texts::default)
}

fn report<'a>(
    original: &'a Envelope,
    header: &'a [u8],
    recipients: &'a [ReportedRecipient<'a>],
) -> Report<'a> {
    Report {
        hostname: "relay.example",
        postmaster: "postmaster@relay.example",
        queue_id: "0123456789ABC",
        original,
        to: To::Sender,
        texts: english(),
        header,
        whole: false,
        arrival_date: DATE,
        date: DATE,
        now_micros: 77,
        recipients,
    }
}

fn assert_lines(content: &[u8]) {
    let text = content.strip_suffix(b"\r\n").unwrap();
    for line in text.split(|&octet| octet == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(line.len() <= 998 && !line.contains(&b'\r') && !line.contains(&0), "{}", line.escape_ascii());
    }
    let bare = content.iter().enumerate().filter(|&(at, &octet)| octet == b'\n' && content[at - 1] != b'\r');
    assert_eq!(bare.count(), 0);
}

#[test]
fn a_bounce_says_everything() {
    let original = original();
    let dsn = compose(&report(&original, HEADER, &[bounced()])).unwrap();
    assert_lines(&dsn.content);
    let text = String::from_utf8(dsn.content).unwrap();
    let expected = [
        "Date: Sun, 22 Nov 2026 01:00:00 +0000\r\nFrom: Mail Delivery System <postmaster@relay.example>\r\n",
        "To: <s@a.example>\r\nSubject: Your message could not be delivered\r\n",
        "Message-ID: <0123456789ABC.77@relay.example>\r\nIn-Reply-To: <1@a.example>\r\n",
        "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n",
        "Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"=_0123456789ABC.77\"\r\n",
        "  <r@b.example>\r\n    host mx[192.0.2.1] said: 550 5.1.1 No such user",
        "Reporting-MTA: dns; relay.example\r\nReceived-From-MTA: dns; client.example\r\nArrival-Date: ",
        "\r\n\r\nFinal-Recipient: rfc822; r@b.example\r\nAction: failed\r\nStatus: 5.1.1\r\n",
        "Please check the address for a typing mistake",
        "X-Sluice-Queue-ID: 0123456789ABC\r\nX-Sluice-Sender: rfc822; s@a.example\r\n",
        "Remote-MTA: dns; mx.b.example\r\nDiagnostic-Code: smtp; 550 5.1.1 No such user\r\n",
        "\r\nFinal-Log-ID: 0123456789ABC\r\n",
        "Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nReceived: from a\r\n",
        "Subject: Gr=C3=BC=C3=9Fe\r\n\r\n--=_0123456789ABC.77--\r\n",
    ];
    for part in expected {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn the_envelope_is_from_nobody_to_the_sender() {
    let original = original();
    let dsn = compose(&report(&original, HEADER, &[bounced()])).unwrap();
    assert_eq!(dsn.envelope.sender, "");
    assert_eq!(dsn.envelope.recipients, [Recipient::new("s@a.example")]);
    assert_eq!((dsn.envelope.body, dsn.envelope.listener.as_str()), (Body::SevenBit, "dsn"));
    assert!(dsn.content.is_ascii(), "the part with octets beyond ASCII is encoded");
    let plain = compose(&report(&original, b"A: b\r\n", &[bounced()])).unwrap();
    assert_eq!(plain.envelope.body, Body::SevenBit);
    assert!(plain.content.is_ascii());
}

/// RFC 5321 section 6.1.
#[test]
fn there_is_no_dsn_about_a_dsn() {
    let null = Envelope { sender: String::new(), ..original() };
    assert!(compose(&report(&null, HEADER, &[bounced()])).is_none());
    assert!(compose(&report(&original(), HEADER, &[])).is_none());
}

#[test]
fn a_delay_is_only_a_notice() {
    let original = original();
    let dsn = compose(&report(&original, b"", &[delayed()])).unwrap();
    assert_lines(&dsn.content);
    let text = String::from_utf8(dsn.content).unwrap();
    for part in [
        "Subject: Your message is delayed\r\n",
        "there is no need to send it\r\nagain.",
        "Action: delayed\r\nStatus: 4.4.1\r\n",
        "Diagnostic-Code: X-Sluice; connect to mx[192.0.2.1]:25: Connection refused\r\n",
        "Will-Retry-Until: Fri, 27 Nov 2026 01:00:00 +0000\r\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    assert!(!text.contains("In-Reply-To"));
}

#[test]
fn an_expired_recipient_failed() {
    let original = original();
    let expired = ReportedRecipient { action: Action::Expired, status: "4.4.7", ..delayed() };
    let dsn = compose(&report(&original, b"", &[expired])).unwrap();
    let text = String::from_utf8(dsn.content).unwrap();
    assert!(text.contains("Action: failed\r\nStatus: 4.4.7\r\n"), "{text}");
    assert!(text.contains("tried until its time was over") && !text.contains("Will-Retry-Until"));
}

#[test]
fn the_boundary_occurs_in_no_part() {
    let original = original();
    let header = b"X: --=_0123456789ABC.77\r\n--=_0123456789ABC.78--: x\r\n";
    let dsn = compose(&report(&original, header, &[bounced()])).unwrap();
    let text = String::from_utf8(dsn.content).unwrap();
    assert!(text.contains("boundary=\"=_0123456789ABC.79\""), "{text}");
    assert_eq!(text.matches("\r\n--=_0123456789ABC.79\r\n").count(), 3);
}

#[test]
fn what_peers_and_senders_say_makes_no_line_of_its_own() {
    let evil = "x\r\nBcc: victim@c.example\r\n\r\n--=_0123456789ABC.77\r\n\0\u{1b}[2J\u{e9}";
    let original = Envelope { sender: evil.into(), helo: evil.into(), ..original() };
    let recipient = ReportedRecipient {
        address: evil,
        orcpt: evil,
        action: Action::Delayed { until_date: evil },
        status: evil,
        text: evil,
        reply: Some(evil),
        remote: Some(evil),
        last_attempt_date: Some(evil),
    };
    let report = Report {
        hostname: evil,
        postmaster: evil,
        queue_id: evil,
        arrival_date: evil,
        date: evil,
        ..report(&original, evil.as_bytes(), std::slice::from_ref(&recipient))
    };
    let dsn = compose(&report).unwrap();
    assert_lines(&dsn.content);
    let end = dsn.content.windows(4).position(|octets| octets == b"\r\n\r\n").unwrap();
    let header = String::from_utf8(dsn.content[..end].to_vec()).unwrap();
    let is_own = |line: &str| line.starts_with(' ') || line.split(':').next() != Some("Bcc");
    assert!(header.split("\r\n").all(is_own), "{header}");
    assert!(header.is_ascii());
}

#[test]
fn many_recipients_are_told_up_to_a_bound_and_reported_in_full() {
    let original = original();
    let recipients = vec![bounced(); 1_000];
    let dsn = compose(&report(&original, b"", &recipients)).unwrap();
    assert_lines(&dsn.content);
    let text = String::from_utf8(dsn.content).unwrap();
    assert_eq!(text.matches("  <r@b.example>").count(), TOLD_RECIPIENTS_MAX);
    assert_eq!(text.matches("Final-Recipient").count(), 1_000);
    assert!(text.contains("... and 900 more"));
}

/// RFC 3461 sections 4.4 and 6.3.
#[test]
fn what_the_sender_called_it_comes_back() {
    let parameters = MailParameters { envid: "QQ+2B1".into(), ..MailParameters::default() };
    let original = Envelope { parameters: Some(Box::new(parameters)), ..original() };
    let recipient = ReportedRecipient { orcpt: "rfc822;old+2Bbob@b.example", ..bounced() };
    let ascii = ReportedRecipient { orcpt: "utf-8;j\\x{F6}@b.example", ..bounced() };
    let dsn = compose(&report(&original, b"", &[recipient, ascii])).unwrap();
    let text = String::from_utf8(dsn.content).unwrap();
    for part in [
        "Original-Envelope-Id: QQ+1\r\nReporting-MTA",
        "Original-Recipient: rfc822; old+bob@b.example\r\nFinal-Recipient: rfc822; r@b.example\r\n",
        "Original-Recipient: utf-8; j\\x{F6}@b.example\r\nFinal-Recipient",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn who_asked_to_hear_of_success_hears_that_it_was_handed_on() {
    let original = original();
    let relayed = ReportedRecipient { action: Action::Relayed, status: "2.0.0", ..bounced() };
    let dsn = compose(&report(&original, HEADER, std::slice::from_ref(&relayed))).unwrap();
    let text = String::from_utf8(dsn.content).unwrap();
    assert!(text.contains("Subject: Your message was handed on\r\n"), "{text}");
    assert!(text.contains("Action: relayed\r\nStatus: 2.0.0\r\n") && !text.contains("not be delivered"));
    let both = compose(&report(&original, HEADER, &[relayed, bounced()])).unwrap();
    let text = String::from_utf8(both.content).unwrap();
    assert!(text.contains("Subject: Your message could not be delivered to everybody\r\n"), "{text}");
    assert!(text.contains("Action: relayed") && text.contains("Action: failed"));
}

/// RFC 3461 section 4.3.
#[test]
fn with_ret_full_the_whole_message_comes_back_if_it_can() {
    let original = original();
    for (message, is_whole) in [
        (&b"A: b\r\n\r\nthe body\r\n"[..], true),
        (b"A: b\r\n\r\n8-bit \xff\r\n", true),
        (b"A: b\r\n\r\nbare\nline\r\n", false),
        (b"A: b\r\n\r\nnul \0\r\n", false),
        (&[b"A: b\r\n\r\n", &[b'x'; 999][..], b"\r\n"].concat(), false),
    ] {
        let dsn = compose(&Report { whole: true, ..report(&original, message, &[bounced()]) }).unwrap();
        assert_lines(&dsn.content);
        let has = |part: &[u8]| memchr::memmem::find(&dsn.content, part).is_some();
        assert_eq!((has(b"message/rfc822"), has(b"text/rfc822-headers")), (is_whole, !is_whole));
        assert_eq!(has(message), is_whole);
        assert_eq!(dsn.envelope.body == Body::EightBit, !dsn.content.is_ascii());
    }
}

/// RFC 6533.
#[test]
fn about_an_international_message_the_parts_are_global() {
    let parameters = || Some(Box::new(MailParameters { smtputf8: true, ..MailParameters::default() }));
    for (sender, needs_utf8) in [("s@a.example", false), ("sö@a.example", true)] {
        let original = Envelope { sender: sender.into(), parameters: parameters(), ..original() };
        let recipient = ReportedRecipient {
            address: "jö@b.example",
            orcpt: "utf-8;alt\\x{F6}@b.example",
            text: "nein\u{202e}ö",
            ..bounced()
        };
        let dsn = compose(&report(&original, HEADER, &[recipient])).unwrap();
        assert_lines(&dsn.content);
        assert_eq!(dsn.envelope.is_utf8(), needs_utf8);
        assert_eq!(
            dsn.envelope.body == Body::SevenBit,
            !needs_utf8,
            "only the address needs more than 7 bits"
        );
        let text = String::from_utf8(dsn.content).unwrap();
        for part in [
            "message/global-delivery-status\r\nContent-Transfer-Encoding: quoted-printable\r\n",
            "Content-Type: message/global-headers\r\n",
            "Original-Recipient: utf-8; alt=C3=B6@b.example\r\nFinal-Recipient: utf-8; j=C3=B6@b.example\r\n",
            "  <j=C3=B6@b.example>\r\n    nein?=C3=B6\r\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
        let header = &text[..text.find("\r\n\r\n").unwrap()];
        assert_eq!(header.is_ascii(), !needs_utf8, "{header}");
    }
}

#[test]
fn a_text_may_be_in_two_languages() {
    let texts = Texts::built_in(&[Language::English, Language::German]);
    let original = original();
    let full = ReportedRecipient { status: "5.2.2", ..bounced() };
    let dsn = compose(&Report { texts: &texts, ..report(&original, b"", &[full]) }).unwrap();
    assert_lines(&dsn.content);
    let text = String::from_utf8(dsn.content).unwrap();
    for part in [
        "Subject: Your message could not be delivered / Ihre Nachricht konnte nicht\r\n zugestellt werden\r\n",
        "Content-Type: text/plain; charset=utf-8\r\nContent-Language: en, de\r\nContent-Transfer-Encoding: quoted-printable",
        "The mailbox is full.",
        "Das Postfach ist voll. Bitte senden Sie die Nachricht sp=C3=A4ter",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn the_postmaster_hears_of_a_notification_and_never_of_a_notice() {
    let to = To::Postmaster("a notification could not be delivered");
    let null = Envelope { sender: String::new(), ..original() };
    let dsn = compose(&Report { to, ..report(&null, HEADER, &[bounced()]) }).unwrap();
    assert_eq!(dsn.envelope.recipients, [Recipient::new("postmaster@relay.example")]);
    assert_eq!((dsn.envelope.sender.as_str(), dsn.envelope.listener.as_str()), ("", NOTICE));
    let text = String::from_utf8(dsn.content).unwrap();
    assert!(text.contains("Subject: Postmaster notice: a notification could not be delivered\r\n"), "{text}");
    assert!(text.contains("To: <postmaster@relay.example>\r\n") && text.contains("from <> of"), "{text}");
    assert!(compose(&Report { to, ..report(&dsn.envelope, HEADER, &[bounced()]) }).is_none());
    let about = notice("relay.example", "p@relay.example", ("no room", "x\r\n.\r\nBcc: y"), DATE, 7);
    assert_lines(&about.content);
    assert!(about.content.ends_with(b"\r\n\r\nx . Bcc: y\r\n"), "{}", about.content.escape_ascii());
    assert!(compose(&Report { to, ..report(&about.envelope, HEADER, &[bounced()]) }).is_none());
}

/// Reads a DSN whole, and says what is wrong with it. The expectations come in the first line.
const READER: &str = r#"
import email, email.policy, json, sys
expected = json.loads(sys.stdin.buffer.readline())
raw = sys.stdin.buffer.read()
message = email.message_from_bytes(raw, policy=email.policy.SMTPUTF8)
assert not message.defects, message.defects
assert message.get_content_type() == "multipart/report", message.get_content_type()
assert message.get_param("report-type") == "delivery-status"
assert message["Auto-Submitted"] == "auto-replied" and message["MIME-Version"] == "1.0"
assert ("\r\nTo: <%s>\r\n" % expected["to"]).encode() in raw and len(message["To"].addresses) == 1, message["To"]
assert message["From"].addresses[0].addr_spec == "postmaster@relay.example", message["From"]
assert message["Date"].datetime is not None and message["Message-ID"].startswith("<")
assert expected["subject"] in message["Subject"], message["Subject"]
assert message["Bcc"] is None and message["Return-Path"] is None
parts = list(message.iter_parts())
assert len(parts) == 3, [part.get_content_type() for part in parts]
for part in message.walk():
    assert not part.defects, part.defects
human, status, returned = parts
assert human.get_content_type() == "text/plain"
text = " ".join(human.get_content().split())
for words in expected["text"]:
    assert words in text, (words, text)
assert status.get_content_type() == expected["status"], status.get_content_type()
if expected["status"] == "message/delivery-status":
    groups = [dict(group.items()) for group in status.get_payload()]
else:
    import quopri
    payload = status.get_payload()
    octets = payload[0].as_bytes() if isinstance(payload, list) else status.get_payload(decode=True)
    if status["Content-Transfer-Encoding"] == "quoted-printable" and isinstance(payload, list):
        octets = quopri.decodestring(octets)
    blocks = octets.decode("utf-8").replace("\r\n", "\n").strip().split("\n\n")
    groups = [dict(line.split(": ", 1) for line in block.replace("\n ", " ").split("\n")) for block in blocks]
assert groups[0]["Reporting-MTA"] == "dns; relay.example" and "Arrival-Date" in groups[0], groups
assert groups[0]["X-Sluice-Queue-ID"] == "0123456789ABC", groups
assert len(groups) == 1 + len(expected["recipients"]), groups
for group, wanted in zip(groups[1:], expected["recipients"]):
    for field, value in wanted.items():
        assert group[field] == value, (field, group)
    assert "Final-Recipient" in group and "Diagnostic-Code" in group and group["Final-Log-ID"] == "0123456789ABC"
assert returned.get_content_type() == expected["returned"], returned.get_content_type()
if expected["returned"] == "text/rfc822-headers":
    octets = returned.get_payload(decode=True)
    assert expected["original"].encode() in octets.replace(b"\r\n", b"\n"), octets
elif expected["returned"] == "message/rfc822":
    assert returned.get_payload(0)["Message-ID"] == "<1@a.example>"
    assert "the body" in returned.get_payload(0).get_content()
print("read")
"#;

/// Whether Python's `email` finds in a DSN what it is to find; `None` when there is no Python.
fn python_reads(dsn: &Dsn, expected: &serde_json::Value) -> Option<()> {
    let python = Command::new("python3")
        .args(["-c", READER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut python = python.ok()?;
    let mut input = python.stdin.take().unwrap();
    writeln!(input, "{expected}").unwrap();
    input.write_all(&dsn.content).unwrap();
    drop(input);
    let output = python.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let content = String::from_utf8_lossy(&dsn.content);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "read", "{errors}\n{expected}\n{content}");
    Some(())
}

/// Every kind of DSN, whole or not, in ASCII and beyond, in both languages: the parts as Python's `email` reads them.
#[test]
fn python_reads_the_parts() {
    let failed = serde_json::json!({"Action": "failed", "Status": "5.1.1", "Final-Recipient": "rfc822; r@b.example",
        "Remote-MTA": "dns; mx.b.example", "Diagnostic-Code": "smtp; 550 5.1.1 No such user"});
    let expired =
        serde_json::json!({"Action": "failed", "Status": "4.4.7", "Final-Recipient": "rfc822; d@b.example"});
    let late = serde_json::json!({"Action": "delayed", "Status": "4.4.1",
        "Will-Retry-Until": "Fri, 27 Nov 2026 01:00:00 +0000"});
    let passed = serde_json::json!({"Action": "relayed", "Status": "2.0.0"});
    /// Recipients, the fields of each, the subject in English and German, and words of the text in both.
    type Kind<'a> = (&'a [ReportedRecipient<'a>], serde_json::Value, [&'a str; 2], [&'a str; 2]);
    let kinds: [Kind<'_>; 5] = [
        (
            &[bounced()],
            serde_json::json!([failed]),
            ["Your message could not be delivered", "Ihre Nachricht konnte nicht zugestellt werden"],
            ["host mx[192.0.2.1] said: 550 5.1.1 No such user", "Bitte prüfen Sie die Adresse"],
        ),
        (
            &[bounced(), ReportedRecipient { action: Action::Expired, status: "4.4.7", ..delayed() }],
            serde_json::json!([failed, expired]),
            ["Your message could not be delivered", "Ihre Nachricht konnte nicht zugestellt werden"],
            ["It was tried until its time was over", "war lange nicht zu erreichen"],
        ),
        (
            &[delayed()],
            serde_json::json!([late]),
            ["Your message is delayed", "verzögert sich"],
            ["there is no need to send it again", "Es wird bis Fri, 27 Nov 2026 01:00:00 +0000 versucht."],
        ),
        (
            &[ReportedRecipient { action: Action::Relayed, status: "2.0.0", ..bounced() }],
            serde_json::json!([passed]),
            ["Your message was handed on", "wurde weitergegeben"],
            ["as you asked for one", "Sie wurde weitergegeben:"],
        ),
        (
            &[bounced(), ReportedRecipient { action: Action::Relayed, status: "2.0.0", ..bounced() }],
            serde_json::json!([failed, passed]),
            ["could not be delivered to everybody", "konnte nicht allen zugestellt werden"],
            ["It was handed on:", "wurde für die folgenden Empfänger"],
        ),
    ];
    let utf8 = || Some(Box::new(MailParameters { smtputf8: true, ..MailParameters::default() }));
    let german = Texts::built_in(&[Language::German]);
    for (index, (recipients, groups, subjects, words)) in kinds.into_iter().enumerate() {
        for (texts, language) in [(english(), 0), (&german, 1)] {
            for (whole, international) in [(false, false), (true, false), (false, true)] {
                let sender = if international { "sö@a.example" } else { "s@a.example" };
                let parameters = if international { utf8() } else { None };
                let original = Envelope { sender: sender.into(), parameters, ..original() };
                let content =
                    [HEADER, b"Content-Type: text/plain; charset=utf-8\r\n\r\nthe body \xc3\xbc\r\n"]
                        .concat();
                let header = if whole { &content[..] } else { HEADER };
                let made = Report { texts, whole, ..report(&original, header, recipients) };
                let dsn = compose(&made).unwrap();
                assert_lines(&dsn.content);
                let expected = serde_json::json!({
                    "to": sender, "subject": subjects[language], "text": [words[language]], "recipients": groups,
                    "status": if international { "message/global-delivery-status" } else { "message/delivery-status" },
                    "returned": match (whole, international) {
                        (true, _) => "message/rfc822",
                        (_, true) => "message/global-headers",
                        _ => "text/rfc822-headers",
                    },
                    "original": "Subject: Grüße\n",
                });
                if python_reads(&dsn, &expected).is_none() {
                    eprintln!("SKIPPED: python_reads_the_parts: there is no python3 here, at kind {index}");
                    return;
                }
            }
        }
    }
}
