//! The parameters of MAIL and RCPT (RFC 5321 section 4.1.2), each by the grammar of its own RFC.
//!
//! Pure; what is read borrows from the command line. What was not announced is not known here either: the
//! caller says what was ([`Offers`]), and anything else is [`Fault::UnknownParameter`], well formed or not
//! (RFC 5321 section 4.1.1.11). A parameter that is given twice is malformed. Names and keywords are taken
//! in any case.
//!
//! | file | parameters |
//! |---|---|
//! | `mail` | SIZE, BODY with BINARYMIME, SMTPUTF8, REQUIRETLS, MT-PRIORITY, AUTH, RET, ENVID |
//! | `rcpt` | NOTIFY, ORCPT |
//! | `times` | BY, HOLDFOR, HOLDUNTIL |
//! | `orcpt` | the forms of an original recipient, also for those who pass it on or report it |
//! | `xtext` | what ENVID, ORCPT and AUTH are written in |

mod mail;
pub mod orcpt;
mod rcpt;
pub mod times;
pub mod xtext;

pub use mail::{ENVID_OCTETS_MAX, OfMail, Submitter};
pub use rcpt::OfRcpt;
pub use times::{By, Hold};

use super::command::Fault;

/// Which parameters were announced. The default: none, as to a client that said HELO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// What every reply to EHLO has: SIZE and 8BITMIME.
    pub extended: bool,
    /// RFC 3030 section 3.
    pub binary_mime: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 8689.
    pub require_tls: bool,
    /// RFC 6710.
    pub priority: bool,
    /// RFC 2852.
    pub deliver_by: bool,
    /// RFC 4865.
    pub hold: bool,
    /// RFC 4954.
    pub auth: bool,
}

impl Offers {
    /// Everything that this server can offer at all.
    pub const ALL: Self = Self {
        extended: true,
        binary_mime: true,
        dsn: true,
        smtputf8: true,
        require_tls: true,
        priority: true,
        deliver_by: true,
        hold: true,
        auth: true,
    };
}

/// The parameters of a command as they were written, not read yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parameters<'a>(&'a str);

/// One parameter: its name, and its value if it has one.
type Parameter<'a> = (&'a str, Option<&'a str>);

impl<'a> Parameters<'a> {
    /// What follows a path: nothing, or a space and parameters.
    ///
    /// # Errors
    /// [`Fault::Argument`] when it begins with anything else.
    pub fn after_path(rest: &'a str) -> Result<Self, Fault> {
        if !rest.is_empty() && !rest.starts_with(' ') {
            return Err(Fault::Argument);
        }
        Ok(Self(rest))
    }

    /// Reads them as those of MAIL.
    ///
    /// # Errors
    /// [`Fault::UnknownParameter`] and [`Fault::Parameter`].
    pub fn of_mail(self, offers: &Offers) -> Result<OfMail<'a>, Fault> {
        let mut found = OfMail::default();
        self.each().try_for_each(|word| found.take(word?, offers))?;
        found.agreeing()
    }

    /// Reads them as those of RCPT. `utf8`: MAIL had SMTPUTF8.
    ///
    /// # Errors
    /// [`Fault::UnknownParameter`] and [`Fault::Parameter`].
    pub fn of_rcpt(self, offers: &Offers, utf8: bool) -> Result<OfRcpt<'a>, Fault> {
        let mut found = OfRcpt::default();
        self.each().try_for_each(|word| found.take(word?, offers, utf8))?;
        Ok(found)
    }

    /// `SP esmtp-param *(SP esmtp-param)`; a value may hold UTF-8 (RFC 6531 section 3.3), as far as the
    /// parameter lets it.
    fn each(self) -> impl Iterator<Item = Result<Parameter<'a>, Fault>> {
        self.0.split(' ').filter(|word| !word.is_empty()).map(|word| {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word, None),
            };
            let name_ok = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !name.is_empty()
                && !name.starts_with('-');
            let octet_ok = |b: u8| !b.is_ascii() || (b.is_ascii_graphic() && b != b'=');
            let value_ok = value.is_none_or(|v| !v.is_empty() && v.bytes().all(octet_ok));
            if name_ok && value_ok { Ok((name, value)) } else { Err(Fault::Parameter) }
        })
    }
}

/// A value that is taken once.
fn once<T>(slot: &mut Option<T>, value: Option<T>) -> Result<(), Fault> {
    let value = value.ok_or(Fault::Parameter)?;
    if slot.replace(value).is_some() { Err(Fault::Parameter) } else { Ok(()) }
}

/// Of keywords in any case, the meaning of one.
fn keyword<T: Copy>(value: Option<&str>, among: &[(&str, T)]) -> Option<T> {
    let value = value?;
    among.iter().find(|(word, _)| value.eq_ignore_ascii_case(word)).map(|(_, meaning)| *meaning)
}

#[cfg(test)]
mod tests;
