//! MAIL: SIZE (RFC 1870), BODY (RFC 6152, RFC 3030), SMTPUTF8 (RFC 6531), REQUIRETLS (RFC 8689), MT-PRIORITY
//! (RFC 6710), AUTH (RFC 4954 section 5), RET and ENVID (RFC 3461); BY, HOLDFOR and HOLDUNTIL by `times`.

use super::times::{self, By, Hold};
use super::{Offers, Parameter, keyword, once, xtext};
use crate::smtp::command::Fault;
use crate::smtp::path;
use sluice_queue::{Body, Ret};

/// Octets of ENVID as written (RFC 3461 section 4.4).
pub const ENVID_OCTETS_MAX: usize = 100;

/// What MAIL asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfMail<'a> {
    /// 20 digits that do not fit are the largest number.
    pub size: Option<u64>,
    pub body: Option<Body>,
    pub smtputf8: bool,
    pub require_tls: bool,
    pub priority: Option<i8>,
    pub submitter: Option<Submitter>,
    pub ret: Option<Ret>,
    /// In xtext.
    pub envid: Option<&'a str>,
    pub by: Option<By>,
    pub hold: Option<Hold>,
}

/// Who first gave the message to a server that knew him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submitter {
    /// `<>`: nobody can say.
    Unknown,
    /// A mailbox in its canonical form.
    Mailbox(String),
}

impl<'a> OfMail<'a> {
    pub(super) fn take(&mut self, (name, value): Parameter<'a>, offers: &Offers) -> Result<(), Fault> {
        let is = |known: &str, offered: bool| offered && name.eq_ignore_ascii_case(known);
        if is("SIZE", offers.extended) {
            once(&mut self.size, value.and_then(size))
        } else if is("BODY", offers.extended) {
            let bodies =
                [("7BIT", Body::SevenBit), ("8BITMIME", Body::EightBit), ("BINARYMIME", Body::Binary)];
            let body = keyword(value, &bodies).filter(|body| *body != Body::Binary || offers.binary_mime);
            once(&mut self.body, body)
        } else if is("SMTPUTF8", offers.smtputf8) {
            flag(&mut self.smtputf8, value)
        } else if is("REQUIRETLS", offers.require_tls) {
            flag(&mut self.require_tls, value)
        } else if is("MT-PRIORITY", offers.priority) {
            once(&mut self.priority, value.and_then(priority))
        } else if is("RET", offers.dsn) {
            once(&mut self.ret, keyword(value, &[("FULL", Ret::Full), ("HDRS", Ret::Headers)]))
        } else if is("ENVID", offers.dsn) {
            once(&mut self.envid, value.filter(|value| is_envid(value)))
        } else if is("BY", offers.deliver_by) {
            once(&mut self.by, value.and_then(times::by))
        } else if is("HOLDFOR", offers.hold) {
            once(&mut self.hold, value.and_then(times::hold_for))
        } else if is("HOLDUNTIL", offers.hold) {
            once(&mut self.hold, value.and_then(times::hold_until))
        } else if is("AUTH", offers.auth) {
            once(&mut self.submitter, value.and_then(submitter))
        } else {
            Err(Fault::UnknownParameter)
        }
    }

    /// Parameters that exclude each other: a message cannot be returned before it is released
    /// (RFC 4865 section 4.2).
    pub(super) fn agreeing(self) -> Result<Self, Fault> {
        match (&self.by, &self.hold) {
            (Some(by), Some(Hold::For(seconds))) if by.seconds <= i64::from(*seconds) => {
                Err(Fault::Parameter)
            }
            _ => Ok(self),
        }
    }
}

fn flag(slot: &mut bool, value: Option<&str>) -> Result<(), Fault> {
    if value.is_some() || std::mem::replace(slot, true) { Err(Fault::Parameter) } else { Ok(()) }
}

/// `1*20DIGIT` (RFC 1870 section 6.2).
fn size(value: &str) -> Option<u64> {
    if value.len() > 20 || !value.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(value.bytes().fold(0u64, |n, digit| n.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

/// `("-" NZDIGIT) / DIGIT` (RFC 6710 section 6).
fn priority(value: &str) -> Option<i8> {
    match value.as_bytes() {
        [digit @ b'0'..=b'9'] => Some((digit - b'0') as i8),
        [b'-', digit @ b'1'..=b'9'] => Some(-((digit - b'0') as i8)),
        _ => None,
    }
}

/// xtext of printable ASCII.
fn is_envid(value: &str) -> bool {
    value.len() <= ENVID_OCTETS_MAX && xtext::is_printable(value)
}

/// `<>` or a mailbox, in xtext.
fn submitter(value: &str) -> Option<Submitter> {
    let text = String::from_utf8(xtext::decoded(value)?).ok()?;
    if text == "<>" {
        return Some(Submitter::Unknown);
    }
    if !text.is_ascii() {
        return None;
    }
    path::whole_mailbox(&text).map(|mailbox| Submitter::Mailbox(mailbox.to_string()))
}
