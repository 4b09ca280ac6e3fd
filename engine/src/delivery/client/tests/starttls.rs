//! STARTTLS (RFC 3207), as scripts like the others. The first line says what the caller wishes.

use super::*;

const OFFERED: &str = "\
S: 220 mx.example ESMTP
C: EHLO relay.example
S: 250-mx.example
S: 250-PIPELINING
S: 250 STARTTLS
";

#[test]
fn after_the_handshake_nothing_said_before_is_believed() {
    for wish in ["may", "must"] {
        holds(&format!(
            "WISH: {wish}
{OFFERED}C: STARTTLS
S: 220 2.0.0 Go
= start tls
> tls
C: EHLO relay.example
S: 250-mx.example
S: 250 STARTTLS
= ready
> begin s@a.example 10 r1@b.example
C: MAIL FROM:<s@a.example>
S: 250 Ok
C: RCPT TO:<r1@b.example>
> eof
= failed session 4.4.2: session 4.4.2
"
        ));
    }
}

#[test]
fn tls_that_nobody_wishes_is_not_asked_for() {
    holds(&format!("{OFFERED}= ready\n"));
}

#[test]
fn a_peer_without_tls_gets_mail_in_clear_text_or_none() {
    let plain = "S: 220 mx\nC: EHLO relay.example\nS: 250 mx\n";
    let helo = "S: 220 mx\nC: EHLO relay.example\nS: 502 No\nC: HELO relay.example\nS: 250 mx\n";
    for greeted in [plain, helo] {
        holds(&format!("WISH: may\n{greeted}= ready\n"));
        holds(&format!("WISH: must\n{greeted}= failed session 4.7.4:\n"));
    }
}

#[test]
fn every_class_of_reply_to_starttls() {
    let table = [
        ("250 x", "= ready", "= failed session 4.7.4:"),
        ("354 x", "= ready", "= failed session 4.7.4:"),
        ("421 4.3.2 x", "= failed session 4.3.2:", "= failed session 4.3.2:"),
        ("454 4.7.0 x", "= ready", "= failed session 4.7.4:"),
        ("502 5.5.1 x", "= ready", "= failed session 4.7.4:"),
    ];
    for (reply, may, must) in table {
        holds(&format!("WISH: may\n{OFFERED}C: STARTTLS\nS: {reply}\n{may}\n"));
        holds(&format!("WISH: must\n{OFFERED}C: STARTTLS\nS: {reply}\n{must}\n"));
    }
}

/// What follows the 220 in clear text could come from anybody (the command injection of CVE-2011-0411,
/// the other way round).
#[test]
fn octets_behind_the_220_end_the_session() {
    for wish in [StartTls::May, StartTls::Must] {
        let mut client = new_client(wish);
        let mut out = Vec::new();
        let greeting = OFFERED.lines().filter_map(|line| line.strip_prefix("S: "));
        let mut lines: Vec<String> = greeting.map(|line| format!("{line}\r\n")).collect();
        lines.push("220 2.0.0 Go\r\n250 injected\r\n".into());
        let mut last = Event::Read;
        for line in lines {
            last = client.advance(HOUR, line.as_bytes(), &mut out).1;
        }
        let Event::Failed(end) = last else { panic!("{last:?}") };
        assert_eq!(end.failure.status, Status::PROTOCOL);
    }
}

#[test]
fn a_peer_that_refuses_ehlo_within_tls_is_not_asked_by_helo() {
    holds(&format!(
        "WISH: may
{OFFERED}C: STARTTLS
S: 220 Go
= start tls
> tls
C: EHLO relay.example
S: 502 5.5.1 No
= failed session 5.5.1:
"
    ));
}

#[test]
fn silence_after_starttls_is_bounded() {
    holds(&format!("WISH: may\n{OFFERED}C: STARTTLS\n> timeout\n= failed session 4.4.2:\n"));
}
