//! Every parameter by tables: well formed, malformed, repeated, not announced.

use super::*;
use sluice_queue::{Body, ByMode, Notify, Ret};

fn mail(text: &str) -> Result<OfMail<'_>, Fault> {
    Parameters::after_path(text).unwrap().of_mail(&Offers::ALL)
}

fn rcpt(text: &str) -> Result<OfRcpt<'_>, Fault> {
    Parameters::after_path(text).unwrap().of_rcpt(&Offers::ALL, false)
}

#[test]
fn parameters_of_mail_obey_their_grammar() {
    let none = OfMail::default;
    let by = |seconds, mode, trace| OfMail { by: Some(By { seconds, mode, trace }), ..none() };
    let who = |who| OfMail { submitter: Some(who), ..none() };
    let envid = "E".repeat(100);
    let longest = format!(" ENVID={envid}");
    for (text, expected) in [
        ("", none()),
        ("   ", none()),
        (" SIZE=12", OfMail { size: Some(12), ..none() }),
        (" size=99999999999999999999", OfMail { size: Some(u64::MAX), ..none() }),
        (" Body=8bitMime  SIZE=0", OfMail { size: Some(0), body: Some(Body::EightBit), ..none() }),
        (" BODY=binarymime", OfMail { body: Some(Body::Binary), ..none() }),
        (" BODY=7bit", OfMail { body: Some(Body::SevenBit), ..none() }),
        (" smtputf8", OfMail { smtputf8: true, ..none() }),
        (" RequireTLS", OfMail { require_tls: true, ..none() }),
        (" MT-PRIORITY=9", OfMail { priority: Some(9), ..none() }),
        (" mt-priority=-9", OfMail { priority: Some(-9), ..none() }),
        (" MT-PRIORITY=0", OfMail { priority: Some(0), ..none() }),
        (" RET=full", OfMail { ret: Some(Ret::Full), ..none() }),
        (" RET=HDRS ENVID=QQ+3D1", OfMail { ret: Some(Ret::Headers), envid: Some("QQ+3D1"), ..none() }),
        (&longest, OfMail { envid: Some(&envid), ..none() }),
        (" BY=120;R", by(120, ByMode::Return, false)),
        (" BY=+1;rt", by(1, ByMode::Return, true)),
        (" BY=-999999999;NT", by(-999_999_999, ByMode::Notify, true)),
        (" BY=0;n", by(0, ByMode::Notify, false)),
        (" HOLDFOR=86400", OfMail { hold: Some(Hold::For(86_400)), ..none() }),
        (" HOLDUNTIL=1970-01-01T00:00:01Z", OfMail { hold: Some(Hold::Until(1_000_000)), ..none() }),
        (" AUTH=<>", who(Submitter::Unknown)),
        (" AUTH=+3C+3E", who(Submitter::Unknown)),
        (" AUTH=e+3Dmc2@X.example", who(Submitter::Mailbox("e=mc2@x.example".into()))),
    ] {
        assert_eq!(mail(text), Ok(expected), "{text}");
    }
}

#[test]
fn malformed_parameters_of_mail_are_faults() {
    let envid = format!(" ENVID={}", "E".repeat(101));
    for text in [
        " SIZE",
        " SIZE=",
        " SIZE=1k",
        " SIZE=-1",
        " SIZE=000000000000000000001",
        " SIZE=1 SIZE=1",
        " BODY",
        " BODY=7BIT BODY=7BIT",
        " SMTPUTF8=yes",
        " SMTPUTF8 SMTPUTF8",
        " REQUIRETLS=1",
        " REQUIRETLS REQUIRETLS",
        " MT-PRIORITY",
        " MT-PRIORITY=10",
        " MT-PRIORITY=-0",
        " MT-PRIORITY=+1",
        " MT-PRIORITY=-10",
        " MT-PRIORITY=x",
        " MT-PRIORITY=1 MT-PRIORITY=1",
        " RET",
        " RET=SOME",
        " RET=FULL RET=FULL",
        " ENVID",
        " ENVID=",
        " ENVID=a=b",
        " ENVID=a+2",
        " ENVID=a+0Ab",
        " ENVID=a+FF",
        " ENVID=ü",
        " ENVID=a ENVID=a",
        &envid,
        " BY",
        " BY=",
        " BY=120",
        " BY=120;",
        " BY=120;X",
        " BY=120;TR",
        " BY=120;RTT",
        " BY=0;R",
        " BY=-1;R",
        " BY=1234567890;N",
        " BY=;N",
        " BY=--1;N",
        " BY=1;N BY=1;N",
        " HOLDFOR",
        " HOLDFOR=0",
        " HOLDFOR=-1",
        " HOLDFOR=1234567890",
        " HOLDFOR=1h",
        " HOLDUNTIL=tomorrow",
        " HOLDFOR=1 HOLDUNTIL=2026-11-22T12:00:00Z",
        " HOLDFOR=1 HOLDFOR=1",
        " HOLDFOR=120 BY=120;R",
        " BY=-1;N HOLDFOR=1",
        " AUTH",
        " AUTH=",
        " AUTH=joe",
        " AUTH=a+0Ab@x",
        " AUTH=<a@x>",
        " AUTH=<> AUTH=<>",
        " =1",
        " -A=1",
        " A=b=c",
        " ?",
        " <kim@x.example>",
        " A=\u{7f}",
    ] {
        assert_eq!(mail(text), Err(Fault::Parameter), "{text}");
    }
    for text in [" FOO", " FOO=bar", " NOTIFY=NEVER", " ORCPT=rfc822;a@b", " XVERP"] {
        assert_eq!(mail(text), Err(Fault::UnknownParameter), "{text}");
    }
}

#[test]
fn parameters_of_rcpt_obey_their_grammar() {
    let notify = |success, failure, delay| {
        Ok(OfRcpt { notify: Some(Notify { success, failure, delay }), orcpt: None })
    };
    let orcpt = Some("rfc822;Bob+20S@x.example");
    for (text, expected) in [
        ("", Ok(OfRcpt::default())),
        (" NOTIFY=NEVER", notify(false, false, false)),
        (" notify=success", notify(true, false, false)),
        (" NOTIFY=FAILURE,DELAY", notify(false, true, true)),
        (" NOTIFY=Delay,Success,Failure", notify(true, true, true)),
        (" ORCPT=rfc822;Bob+20S@x.example", Ok(OfRcpt { notify: None, orcpt })),
        (" NOTIFY", Err(Fault::Parameter)),
        (" NOTIFY=", Err(Fault::Parameter)),
        (" NOTIFY=ALWAYS", Err(Fault::Parameter)),
        (" NOTIFY=NEVER,SUCCESS", Err(Fault::Parameter)),
        (" NOTIFY=SUCCESS,NEVER", Err(Fault::Parameter)),
        (" NOTIFY=SUCCESS,", Err(Fault::Parameter)),
        (" NOTIFY=,SUCCESS", Err(Fault::Parameter)),
        (" NOTIFY=NEVER NOTIFY=NEVER", Err(Fault::Parameter)),
        (" ORCPT=bob@x", Err(Fault::Parameter)),
        (" ORCPT=utf-8;jö@x", Err(Fault::Parameter)),
        (" ORCPT=rfc822;a@x ORCPT=rfc822;a@x", Err(Fault::Parameter)),
        (" RET=FULL", Err(Fault::UnknownParameter)),
        (" SIZE=1", Err(Fault::UnknownParameter)),
        (" FOO=1", Err(Fault::UnknownParameter)),
        (" ?", Err(Fault::Parameter)),
    ] {
        assert_eq!(rcpt(text), expected, "{text}");
    }
    assert!(Parameters::after_path(" ORCPT=utf-8;jö@x").unwrap().of_rcpt(&Offers::ALL, true).is_ok());
}

/// RFC 5321 section 4.1.1.11.
#[test]
fn what_was_not_announced_is_not_known_well_formed_or_not() {
    for (text, offers) in [
        (" SIZE=1", Offers { extended: false, ..Offers::ALL }),
        (" BODY=7BIT", Offers { extended: false, ..Offers::ALL }),
        (" SMTPUTF8", Offers { smtputf8: false, ..Offers::ALL }),
        (" REQUIRETLS", Offers { require_tls: false, ..Offers::ALL }),
        (" MT-PRIORITY=1", Offers { priority: false, ..Offers::ALL }),
        (" RET=FULL", Offers { dsn: false, ..Offers::ALL }),
        (" ENVID=x", Offers { dsn: false, ..Offers::ALL }),
        (" BY=1;N", Offers { deliver_by: false, ..Offers::ALL }),
        (" HOLDFOR=1", Offers { hold: false, ..Offers::ALL }),
        (" HOLDUNTIL=x", Offers { hold: false, ..Offers::ALL }),
        (" AUTH=<>", Offers { auth: false, ..Offers::ALL }),
    ] {
        let read = |text, offers: &Offers| Parameters::after_path(text).unwrap().of_mail(offers).map(drop);
        assert_eq!(read(text, &offers), Err(Fault::UnknownParameter), "{text}");
        let malformed = format!("{text}=");
        assert_ne!(read(&malformed, &Offers::ALL), Ok(()), "{text}");
        assert_eq!(read(text, &Offers::default()), Err(Fault::UnknownParameter), "{text}");
    }
    for text in [" NOTIFY=NEVER", " NOTIFY=nonsense", " ORCPT=rfc822;a@b"] {
        let read = Parameters::after_path(text).unwrap().of_rcpt(&Offers { dsn: false, ..Offers::ALL }, true);
        assert_eq!(read, Err(Fault::UnknownParameter), "{text}");
    }
}

#[test]
fn parameters_begin_with_a_space() {
    assert_eq!(Parameters::after_path("SIZE=1"), Err(Fault::Argument));
    assert_eq!(Parameters::after_path(">"), Err(Fault::Argument));
}
