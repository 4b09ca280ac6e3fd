//! AUTH as a client (RFC 4954), as scripts like the others. `cmVsYXk=` is `relay`, `c2VjcmV0` is `secret`.

use super::*;

const PLAIN: &str = "C: AUTH PLAIN AHJlbGF5AHNlY3JldA==\n";

fn greeted(mechanisms: &str) -> String {
    format!(
        "WISH: in tls\nWISH: login\nS: 220 mx\nC: EHLO relay.example\nS: 250-mx.example\nS: 250 {mechanisms}\n"
    )
}

#[test]
fn plain_comes_before_login() {
    for mechanisms in ["AUTH PLAIN", "AUTH LOGIN PLAIN", "auth gssapi plain"] {
        holds(&format!("{}{PLAIN}S: 235 2.7.0 Ok\n= ready\n", greeted(mechanisms)));
    }
    holds(&format!(
        "{}C: AUTH LOGIN
S: 334 VXNlcm5hbWU6
C: cmVsYXk=
S: 334 UGFzc3dvcmQ6
C: c2VjcmV0
S: 235 2.7.0 Ok
= ready
",
        greeted("AUTH LOGIN")
    ));
}

#[test]
fn every_class_of_reply_to_auth() {
    let table = [
        ("334 x", "= failed session 4.5.0:"),
        ("421 4.3.2 x", "= failed session 4.3.2:"),
        ("454 4.7.0 x", "= failed session 4.7.8:"),
        ("535 5.7.8 x", "= failed session 4.7.8:"),
    ];
    for (reply, end) in table {
        holds(&format!("{}{PLAIN}S: {reply}\n{end}\n", greeted("AUTH PLAIN")));
    }
    for (reply, end) in [("235 x", "= failed session 4.5.0:"), ("535 x", "= failed session 4.7.8:")] {
        holds(&format!("{}C: AUTH LOGIN\nS: {reply}\n{end}\n", greeted("AUTH LOGIN")));
        holds(&format!("{}C: AUTH LOGIN\nS: 334 x\nC: cmVsYXk=\nS: {reply}\n{end}\n", greeted("AUTH LOGIN")));
    }
}

#[test]
fn a_peer_that_takes_no_login_gets_no_mail() {
    for offers in ["PIPELINING", "AUTH", "AUTH GSSAPI SCRAM-SHA-256"] {
        holds(&format!("{}= failed session 4.7.8:\n", greeted(offers)));
    }
}

#[test]
fn a_password_is_not_said_in_clear_text_unless_that_is_wished() {
    let offer = "S: 220 mx\nC: EHLO relay.example\nS: 250-mx.example\nS: 250 AUTH PLAIN\n";
    holds(&format!("WISH: login\n{offer}= failed session 4.7.11:\n"));
    holds(&format!("WISH: may\nWISH: login\n{offer}= failed session 4.7.11:\n"));
    holds(&format!("WISH: login in clear text\n{offer}{PLAIN}S: 235 Ok\n= ready\n"));
}

#[test]
fn after_starttls_the_second_offer_counts() {
    holds(&format!(
        "WISH: must
WISH: login
S: 220 mx
C: EHLO relay.example
S: 250-mx.example
S: 250-AUTH GSSAPI
S: 250 STARTTLS
C: STARTTLS
S: 220 Go
= start tls
> tls
C: EHLO relay.example
S: 250-mx.example
S: 250 AUTH PLAIN
{PLAIN}S: 235 Ok
= ready
"
    ));
}

#[test]
fn no_failure_carries_the_password() {
    let login =
        crate::config::Login { user: "relay".into(), password: "secret".into(), in_clear_text: false };
    let mut client =
        open_client(Opening { starttls: StartTls::Never, in_tls: true, login: Some(Arc::new(login)) });
    let mut out = Vec::new();
    client.advance(HOUR, b"220 mx\r\n", &mut out);
    client.advance(HOUR, b"250-mx\r\n250 AUTH PLAIN\r\n", &mut out);
    assert!(!format!("{client:?}").contains("secret"));
    let Event::Failed(end) = client.advance(HOUR, b"535 5.7.8 no\r\n", &mut out).1 else { panic!() };
    assert!(!format!("{end:?}").contains("secret") && !format!("{end:?}").contains("c2VjcmV0"));
}
