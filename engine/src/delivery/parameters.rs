//! What a client asked for by parameters of MAIL and RCPT, at the next hop: what is passed on to a peer, and
//! what speaks against giving it the message at all.
//!
//! Pure; belongs to the client session.
//!
//! | asked for | peer offers it | peer does not |
//! |---|---|---|
//! | RET, ENVID, NOTIFY, ORCPT (RFC 3461) | passed on | the relay itself tells of success, see `settle` |
//! | SMTPUTF8 (RFC 6531) | passed on | 5.6.7 where an address or the header has UTF-8, else sent without |
//! | octets above 127 (RFC 6152) | BODY=8BITMIME | 5.6.3: the relay re-encodes nothing, as that breaks signatures |
//! | REQUIRETLS (RFC 8689) | within TLS passed on, else 5.7.30 | 5.7.30 |
//! | MT-PRIORITY (RFC 6710) | passed on | sent without |
//! | BY with notification (RFC 2852) | passed on with what is left | sent without |
//! | BY with return | the same, or 5.4.7 when nothing is left or less than the peer's minimum | 5.4.7 |

use super::extensions::Extensions;
use super::failure::{Failure, Scope};
use super::verdict::{Peer, Status};
use crate::smtp::parameters::orcpt;
use crate::smtp::parameters::times::SECONDS_MAX;
use sluice_queue::{ByMode, MailParameters, Notify, RcptParameters, Recipient, Ret};
use std::fmt::Write;

const MICROS: u64 = 1_000_000;

/// A recipient as the client session is given it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rcpt<'a> {
    /// The forward-path without angle brackets.
    pub address: &'a str,
    pub parameters: Option<&'a RcptParameters>,
}

impl<'a> From<&'a str> for Rcpt<'a> {
    fn from(address: &'a str) -> Self {
        Self { address, parameters: None }
    }
}

impl<'a> From<&'a Recipient> for Rcpt<'a> {
    fn from(recipient: &'a Recipient) -> Self {
        Self { address: &recipient.address, parameters: recipient.parameters.as_deref() }
    }
}

/// What MAIL asked for, as it is when the transaction begins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    pub parameters: Option<&'a MailParameters>,
    /// The header section has other octets than ASCII.
    pub header_utf8: bool,
    /// Wall clock, microseconds.
    pub now_micros: u64,
}

/// The parameters of MAIL, each with a space in front.
pub(super) fn of_mail(asked: &Asked<'_>, extensions: &Extensions) -> String {
    let mut out = String::new();
    let Some(of) = asked.parameters else { return out };
    if extensions.dsn {
        match of.ret {
            Some(Ret::Full) => out.push_str(" RET=FULL"),
            Some(Ret::Headers) => out.push_str(" RET=HDRS"),
            None => {}
        }
        if !of.envid.is_empty() {
            let _ = write!(out, " ENVID={}", of.envid);
        }
    }
    if of.smtputf8 && extensions.smtputf8 {
        out.push_str(" SMTPUTF8");
    }
    if of.require_tls && extensions.require_tls {
        out.push_str(" REQUIRETLS");
    }
    if of.schedule.priority != 0 && extensions.mt_priority {
        let _ = write!(out, " MT-PRIORITY={}", of.schedule.priority);
    }
    if let (Some(by), Some(_)) = (of.schedule.deliver_by, extensions.deliver_by) {
        let mode = if by.mode == ByMode::Return { 'R' } else { 'N' };
        let trace = if by.trace { "T" } else { "" };
        let _ = write!(out, " BY={};{mode}{trace}", left(by.deadline_micros, asked.now_micros));
    }
    out
}

/// The parameters of RCPT, each with a space in front.
pub(super) fn of_rcpt(of: Option<&RcptParameters>, extensions: &Extensions) -> String {
    let mut out = String::new();
    let Some(of) = of.filter(|_| extensions.dsn) else { return out };
    if let Some(notify) = of.notify {
        out.push_str(" NOTIFY=");
        let words = [(notify.success, "SUCCESS"), (notify.failure, "FAILURE"), (notify.delay, "DELAY")];
        let words: Vec<&str> = words.iter().filter(|word| word.0).map(|word| word.1).collect();
        out.push_str(&if notify == Notify::NEVER { "NEVER".to_owned() } else { words.join(",") });
    }
    if !of.orcpt.is_empty() {
        out.push_str(" ORCPT=");
        match extensions.smtputf8 {
            true => out.push_str(&of.orcpt),
            false => out.push_str(&orcpt::in_ascii(&of.orcpt)),
        }
    }
    out
}

/// Whole seconds until the deadline, as BY can say them.
fn left(deadline_micros: u64, now_micros: u64) -> i64 {
    let limit = i64::from(SECONDS_MAX);
    let seconds = (i128::from(deadline_micros) - i128::from(now_micros)).div_euclid(i128::from(MICROS));
    i64::try_from(seconds).unwrap_or(i64::MIN).clamp(-limit, limit)
}

/// What speaks against giving the message to this peer, for all recipients. `secure`: the session is within
/// TLS with a certificate that was verified.
pub(super) fn refusal(
    asked: &Asked<'_>,
    sender: &str,
    extensions: &Extensions,
    peer: &Peer,
    secure: bool,
) -> Option<Failure> {
    let of = asked.parameters?;
    let host = peer.host();
    if of.require_tls && !(secure && extensions.require_tls) {
        let text = format!("REQUIRETLS was asked for, and server {host} is not reached within TLS with it");
        return Some(Failure::local(Scope::Host, Status::NEEDS_TLS, text));
    }
    if of.smtputf8 && !extensions.smtputf8 && (!sender.is_ascii() || asked.header_utf8) {
        return Some(without_utf8(peer));
    }
    let by = of.schedule.deliver_by.filter(|by| by.mode == ByMode::Return)?;
    let seconds = left(by.deadline_micros, asked.now_micros);
    let why = match extensions.deliver_by {
        _ if seconds <= 0 => {
            let text = "the time by which the sender wanted it delivered is over".to_owned();
            return Some(Failure::local(Scope::Message, Status::TOO_LATE, text));
        }
        None => format!("server {host} does not say by when it delivers, as the sender demands"),
        Some(least) if seconds < i64::from(least) => {
            format!("server {host} needs {least} seconds to deliver, and the sender demands {seconds}")
        }
        Some(_) => return None,
    };
    Some(Failure::local(Scope::Host, Status::TOO_LATE, why))
}

/// The message, or one of its recipients, needs SMTPUTF8.
pub(super) fn without_utf8(peer: &Peer) -> Failure {
    let text = format!("SMTPUTF8 is required, but was not offered by host {}", peer.host());
    Failure::local(Scope::Host, Status::NEEDS_UTF8, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_queue::{DeliverBy, Schedule};

    const NOW: u64 = 1_795_000_000_000_000;

    fn all() -> Extensions {
        Extensions {
            dsn: true,
            smtputf8: true,
            require_tls: true,
            mt_priority: true,
            deliver_by: Some(0),
            ..Extensions::default()
        }
    }

    fn by(seconds: i64, mode: ByMode) -> MailParameters {
        let deadline_micros = NOW.saturating_add_signed(seconds * 1_000_000);
        let deliver_by = Some(DeliverBy { deadline_micros, mode, trace: false });
        let schedule = Schedule { deliver_by, ..Schedule::default() };
        MailParameters { schedule, ..MailParameters::default() }
    }

    fn asked(parameters: &MailParameters, header_utf8: bool) -> Asked<'_> {
        Asked { parameters: Some(parameters), header_utf8, now_micros: NOW }
    }

    #[test]
    fn parameters_of_mail_go_where_they_are_offered() {
        let of = MailParameters {
            ret: Some(Ret::Full),
            envid: "QQ+2B".into(),
            smtputf8: true,
            require_tls: true,
            schedule: Schedule { priority: -3, ..by(90, ByMode::Return).schedule },
        };
        let none = Extensions::default();
        for (extensions, expected) in [
            (all(), " RET=FULL ENVID=QQ+2B SMTPUTF8 REQUIRETLS MT-PRIORITY=-3 BY=90;R"),
            (Extensions { dsn: true, ..none }, " RET=FULL ENVID=QQ+2B"),
            (Extensions { smtputf8: true, ..none }, " SMTPUTF8"),
            (Extensions { deliver_by: Some(5), ..none }, " BY=90;R"),
            (none, ""),
        ] {
            assert_eq!(of_mail(&asked(&of, false), &extensions), expected);
        }
        assert_eq!(of_mail(&asked(&by(-7, ByMode::Notify), false), &all()), " BY=-7;N");
        assert_eq!(of_mail(&Asked::default(), &all()), "");
    }

    #[test]
    fn parameters_of_rcpt_go_where_dsn_is_offered() {
        let of = |notify, orcpt: &str| RcptParameters { notify, orcpt: orcpt.into() };
        let both = Notify { success: true, failure: false, delay: true };
        let ascii = Extensions { smtputf8: false, ..all() };
        for (of, extensions, expected) in [
            (of(Some(both), "rfc822;a+2Bb@x"), all(), " NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@x"),
            (of(Some(Notify::NEVER), ""), all(), " NOTIFY=NEVER"),
            (of(None, "utf-8;ö@x"), all(), " ORCPT=utf-8;ö@x"),
            (of(None, "utf-8;ö@x"), ascii, " ORCPT=utf-8;\\x{F6}@x"),
            (of(Some(both), "rfc822;a@x"), Extensions::default(), ""),
        ] {
            assert_eq!(of_rcpt(Some(&of), &extensions), expected);
        }
        assert_eq!(of_rcpt(None, &all()), "");
    }

    #[test]
    fn what_a_peer_cannot_keep_it_does_not_get() {
        let peer = Peer { name: "mx.example".into(), address: "192.0.2.1:25".parse().unwrap() };
        let utf8 = MailParameters { smtputf8: true, ..MailParameters::default() };
        let tls = MailParameters { require_tls: true, ..MailParameters::default() };
        let none = Extensions::default();
        let least = |seconds| Extensions { deliver_by: Some(seconds), ..none };
        let table = [
            (&utf8, "a@x", false, none, false, None),
            (&utf8, "ö@x", false, none, false, Some((Scope::Host, Status::NEEDS_UTF8))),
            (&utf8, "a@x", true, none, false, Some((Scope::Host, Status::NEEDS_UTF8))),
            (&utf8, "ö@x", true, all(), false, None),
            (&tls, "a@x", false, none, true, Some((Scope::Host, Status::NEEDS_TLS))),
            (&tls, "a@x", false, all(), false, Some((Scope::Host, Status::NEEDS_TLS))),
            (&tls, "a@x", false, all(), true, None),
            (&by(60, ByMode::Return), "a@x", false, none, false, Some((Scope::Host, Status::TOO_LATE))),
            (&by(60, ByMode::Return), "a@x", false, least(61), false, Some((Scope::Host, Status::TOO_LATE))),
            (&by(60, ByMode::Return), "a@x", false, least(60), false, None),
            (&by(0, ByMode::Return), "a@x", false, all(), false, Some((Scope::Message, Status::TOO_LATE))),
            (&by(-9, ByMode::Notify), "a@x", false, none, false, None),
        ];
        for (of, sender, header, extensions, secure, expected) in table {
            let refused = refusal(&asked(of, header), sender, &extensions, &peer, secure);
            let refused = refused.map(|failure| (failure.scope, failure.status));
            assert_eq!(refused, expected, "{of:?} {sender} {header} {secure}");
        }
        assert_eq!(refusal(&Asked::default(), "a@x", &none, &peer, false), None);
    }
}
