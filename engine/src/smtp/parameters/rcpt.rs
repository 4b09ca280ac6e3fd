//! RCPT: NOTIFY and ORCPT (RFC 3461 sections 4.1 and 4.2).

use super::{Offers, Parameter, once, orcpt};
use crate::smtp::command::Fault;
use sluice_queue::Notify;

/// What RCPT asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfRcpt<'a> {
    pub notify: Option<Notify>,
    /// As it came: address type, semicolon, the address encoded.
    pub orcpt: Option<&'a str>,
}

impl<'a> OfRcpt<'a> {
    pub(super) fn take(
        &mut self,
        (name, value): Parameter<'a>,
        offers: &Offers,
        utf8: bool,
    ) -> Result<(), Fault> {
        let is = |known: &str| offers.dsn && name.eq_ignore_ascii_case(known);
        if is("NOTIFY") {
            once(&mut self.notify, value.and_then(notify))
        } else if is("ORCPT") {
            once(&mut self.orcpt, value.filter(|value| orcpt::is_orcpt(value, utf8)))
        } else {
            Err(Fault::UnknownParameter)
        }
    }
}

/// `NEVER`, alone, or a list of SUCCESS, FAILURE and DELAY.
fn notify(value: &str) -> Option<Notify> {
    if value.eq_ignore_ascii_case("NEVER") {
        return Some(Notify::NEVER);
    }
    let mut notify = Notify::NEVER;
    for word in value.split(',') {
        let flag = if word.eq_ignore_ascii_case("SUCCESS") {
            &mut notify.success
        } else if word.eq_ignore_ascii_case("FAILURE") {
            &mut notify.failure
        } else if word.eq_ignore_ascii_case("DELAY") {
            &mut notify.delay
        } else {
            return None;
        };
        *flag = true;
    }
    Some(notify)
}
