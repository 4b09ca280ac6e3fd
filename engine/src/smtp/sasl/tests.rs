//! Exchanges with the RFCs' own vectors, and what must fail.

use super::scram::{Parameters, Verifier};
use super::*;
use base64ct::{Base64, Encoding};

fn exchange(mechanism: Mechanism) -> Exchange<&'static str> {
    Exchange::new(mechanism, false, Bindings::default())
}

fn password(next: Next) -> Option<(String, String)> {
    let Next::Ask(Ask::Verify(Credentials::Password { login, password })) = next else { return None };
    Some((login, password.expose_text()?.to_owned()))
}

/// RFC 4616 section 4.
#[test]
fn plain_messages_hold_login_and_password() {
    let some = |login: &str, password: &str| Some((login.to_owned(), password.to_owned()));
    let long = [b"\0a\0".to_vec(), vec![b'p'; PASSWORD_OCTETS_MAX + 1]].concat();
    for (message, found) in [
        (&b"\0tim\0tanstaaftanstaaf"[..], some("tim", "tanstaaftanstaaf")),
        (b"Tim\0tim\0x", some("tim", "x")),
        (b"Ursel\0Kurt\0xipj3plmq", None),
        (b"\0tim\0", None),
        (b"\0\0x", None),
        (b"tim\0x", None),
        (b"\0tim\0x\0", None),
        (b"\0tim\0x\0y", None),
        (b"\0ti\xffm\0x", None),
        (b"\0tim\0\xff", None),
        (b"", None),
        (&long, None),
    ] {
        assert_eq!(
            password(exchange(Mechanism::Plain).respond(message)),
            found,
            "{}",
            message.escape_ascii()
        );
    }
}

#[test]
fn login_asks_twice() {
    let mut login = exchange(Mechanism::Login);
    assert_eq!(login.begin(), b"Username:");
    assert_eq!(login.respond(b"Joe"), Next::Challenge(b"Password:".to_vec()));
    assert_eq!(password(login.respond(b"secret")), Some(("joe".into(), "secret".into())));
    assert_eq!(login.answered(Answer::Accepted { identity: "joe", signature: None }), After::Done("joe"));
    assert_eq!(login.respond(b"again"), Next::Refused(Refusal::Credentials));
    let mut empty = exchange(Mechanism::Login);
    assert_eq!(empty.respond(b""), Next::Refused(Refusal::Credentials));
}

const FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const LAST: &[u8] =
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

fn parameters() -> Parameters {
    let salt = Base64::decode_vec("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    Parameters { salt, iterations: 4096, nonce: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".into() }
}

fn verifier() -> Verifier {
    Verifier::derive("pencil", &parameters().salt, 4096)
}

/// RFC 7677 section 3.
#[test]
fn scram_sha_256_has_the_exchange_of_its_rfc() {
    let mut scram = exchange(Mechanism::ScramSha256);
    assert_eq!(scram.respond(FIRST), Next::Ask(Ask::Parameters { login: "user".into() }));
    let After::Challenge(challenge) = scram.answered(Answer::Parameters(parameters())) else {
        panic!("a challenge")
    };
    assert_eq!(
        challenge,
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    let Next::Ask(Ask::Verify(Credentials::Scram { login, text, proof })) = scram.respond(LAST) else {
        panic!("a proof")
    };
    let signature = verifier().verify(&text, proof.expose()).expect("the right proof");
    assert_eq!(login, "user");
    let accepted = Answer::Accepted { identity: "user", signature: Some(signature) };
    assert_eq!(
        scram.answered(accepted),
        After::Challenge(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=".to_vec())
    );
    assert!(scram.awaits_acknowledgement());
    assert_eq!(scram.acknowledge(b""), Ok("user"));
    assert_eq!(scram.acknowledge(b""), Err(Refusal::Credentials));
}

#[test]
fn a_wrong_proof_and_a_pretended_login_fail_alike() {
    let verifier = verifier();
    assert_eq!(verifier.verify("text", &[0; 32]), None);
    assert_eq!(verifier.verify("text", &[]), None);
    let pretended = Verifier::pretended(b"secret", "nobody", 4096);
    assert_eq!(pretended.salt, Verifier::pretended(b"secret", "nobody", 4096).salt);
    assert_ne!(pretended.salt, Verifier::pretended(b"secret", "somebody", 4096).salt);
    assert_ne!(pretended.salt, Verifier::pretended(b"other", "nobody", 4096).salt);
    assert_eq!(pretended.verify("text", &[0; 32]), None);
    assert_eq!(pretended.salt.len(), verifier.salt.len());
}

#[test]
fn verifiers_are_written_as_they_are_read() {
    let verifier = verifier();
    let text = verifier.write();
    assert!(text.starts_with("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"), "{text}");
    assert!(Verifier::read(&text) == Some(verifier));
    for bad in [
        "",
        "SCRAM-SHA-1$4096:YQ==$YQ==:YQ==",
        "SCRAM-SHA-256$0:W22ZaJ0SNY7soEsUEjb6gQ==$x:y",
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$YQ==:YQ==",
        &text[..text.len() - 1],
        &text.replace("4096", "99999999999"),
    ] {
        assert!(Verifier::read(bad).is_none(), "{bad}");
    }
}

fn bindings() -> Bindings {
    Bindings { exporter: Some([7; 32]), end_point: Some(vec![9; 32]) }
}

/// RFC 5802 section 6: which binding a client may speak of where.
#[test]
fn the_gs2_header_must_fit_what_was_offered() {
    for (mechanism, offered, header, taken) in [
        (Mechanism::ScramSha256, false, "n,,", true),
        (Mechanism::ScramSha256, true, "n,,", true),
        (Mechanism::ScramSha256, false, "y,,", true),
        // The server has offered PLUS, and somebody took it out of its list.
        (Mechanism::ScramSha256, true, "y,,", false),
        (Mechanism::ScramSha256, true, "p=tls-exporter,,", false),
        (Mechanism::ScramSha256Plus, true, "p=tls-exporter,,", true),
        (Mechanism::ScramSha256Plus, true, "p=tls-server-end-point,,", true),
        (Mechanism::ScramSha256Plus, true, "p=tls-unique,,", false),
        (Mechanism::ScramSha256Plus, true, "n,,", false),
        (Mechanism::ScramSha256Plus, true, "y,,", false),
        (Mechanism::ScramSha256, false, "n,a=user,", true),
        (Mechanism::ScramSha256, false, "n,a=USER,", true),
        (Mechanism::ScramSha256, false, "n,a=,", true),
        (Mechanism::ScramSha256, false, "n,a=other,", false),
        (Mechanism::ScramSha256, false, "x,,", false),
        (Mechanism::ScramSha256, false, "n,", false),
    ] {
        let mut scram: Exchange<()> = Exchange::new(mechanism, offered, bindings());
        let next = scram.respond(format!("{header}n=user,r=abc").as_bytes());
        assert_eq!(matches!(next, Next::Ask(_)), taken, "{mechanism:?} {offered} {header}");
    }
    let mut bare: Exchange<()> = Exchange::new(Mechanism::ScramSha256Plus, true, Bindings::default());
    assert_eq!(bare.respond(b"p=tls-exporter,,n=user,r=abc"), Next::Refused(Refusal::Credentials));
}

#[test]
fn the_last_message_must_repeat_binding_and_nonce() {
    let begin = |plus: bool| {
        let mechanism = if plus { Mechanism::ScramSha256Plus } else { Mechanism::ScramSha256 };
        let mut scram: Exchange<()> = Exchange::new(mechanism, plus, bindings());
        let header = if plus { "p=tls-exporter,," } else { "n,," };
        scram.respond(format!("{header}n=user,r=abc").as_bytes());
        let parameters = Parameters { nonce: "def".into(), ..parameters() };
        assert!(matches!(scram.answered(Answer::Parameters(parameters)), After::Challenge(_)));
        scram
    };
    let bound = |octets: &[u8]| Base64::encode_string(&[b"p=tls-exporter,,", octets].concat());
    let proof = Base64::encode_string(&[1; 32]);
    for (plus, message, taken) in [
        (false, format!("c=biws,r=abcdef,p={proof}"), true),
        (false, format!("c=biws,r=abcdef,x=ext,p={proof}"), true),
        (false, format!("c=biws,r=abcdeg,p={proof}"), false),
        (false, format!("c=biws,r=abc,p={proof}"), false),
        (false, format!("c=eSws,r=abcdef,p={proof}"), false),
        (false, "c=biws,r=abcdef".to_owned(), false),
        (false, "c=biws,r=abcdef,p=!".to_owned(), false),
        (false, String::new(), false),
        (true, format!("c={},r=abcdef,p={proof}", bound(&[7; 32])), true),
        (true, format!("c={},r=abcdef,p={proof}", bound(&[8; 32])), false),
        (true, format!("c={},r=abcdef,p={proof}", bound(&[])), false),
        (true, format!("c=biws,r=abcdef,p={proof}"), false),
    ] {
        let next = begin(plus).respond(message.as_bytes());
        assert_eq!(matches!(next, Next::Ask(Ask::Verify(_))), taken, "{plus} {message}");
    }
}

#[test]
fn first_messages_that_are_none_are_refused() {
    for bare in [
        "",
        "n=user",
        "n=user,r=",
        "n=,r=abc",
        "r=abc,n=user",
        "n=us=er,r=abc",
        "m=x,n=user,r=abc",
        "n=user,r=abc,m=x",
        "n=user,r=a\u{e9}",
        "n=user,r=abc,",
        "n=user,r=abc,1=x",
    ] {
        let mut scram = exchange(Mechanism::ScramSha256);
        assert_eq!(
            scram.respond(format!("n,,{bare}").as_bytes()),
            Next::Refused(Refusal::Credentials),
            "{bare}"
        );
    }
    let mut comma = exchange(Mechanism::ScramSha256);
    assert_eq!(comma.respond(b"n,,n=a=2Cb=3D,r=abc"), Next::Ask(Ask::Parameters { login: "a,b=".into() }));
}

/// RFC 7628 section 3.2.3.
#[test]
fn a_bad_token_has_its_error_seen_before_it_fails() {
    for (mechanism, message) in [
        (Mechanism::OauthBearer, &b"n,a=joe,\x01auth=Bearer t\x01\x01"[..]),
        (Mechanism::Xoauth2, b"user=joe\x01auth=Bearer t\x01\x01"),
    ] {
        let mut token = exchange(mechanism);
        assert!(matches!(token.respond(message), Next::Ask(Ask::Verify(Credentials::Token { .. }))));
        let After::Challenge(error) = token.answered(Answer::Refused(Refusal::Credentials)) else {
            panic!("an error")
        };
        assert!(error.starts_with(b"{\"status\":"), "{}", error.escape_ascii());
        assert!(token.awaits_acknowledgement());
        assert_eq!(token.acknowledge(b"\x01"), Err(Refusal::Credentials));
        let mut down = exchange(mechanism);
        down.respond(message);
        assert_eq!(
            down.answered(Answer::Refused(Refusal::Unavailable)),
            After::Refused(Refusal::Unavailable)
        );
    }
}

/// What is not asked for is not taken, whatever comes when.
#[test]
fn answers_and_messages_out_of_turn_let_nobody_in() {
    let mut plain = exchange(Mechanism::Plain);
    assert_eq!(
        plain.answered(Answer::Accepted { identity: "x", signature: None }),
        After::Refused(Refusal::Unavailable)
    );
    let mut scram = exchange(Mechanism::ScramSha256);
    scram.respond(FIRST);
    let accepted = Answer::Accepted { identity: "x", signature: None };
    assert_eq!(scram.answered(accepted), After::Refused(Refusal::Unavailable));
    assert_eq!(exchange(Mechanism::ScramSha256).acknowledge(b""), Err(Refusal::Credentials));
}
