//! What another server said, fit to be said on to a client of ours.
//!
//! Pure. Whatever the other server sent, what comes out is one line of printable ASCII of at most
//! [`TEXT_OCTETS_MAX`] octets behind a code of the same class, so it can end no reply, forge none and be too long for
//! nobody (RFC 5321 section 4.5.3.1.5).

use std::fmt;
use std::io::Write;

/// Octets of the other server's text; with the rest of the line that is less than a reply may have.
pub const TEXT_OCTETS_MAX: usize = 400;

/// Who speaks: stands in front of the text, so that nobody looks for the reason in the relay.
const PREFIX: &str = "The destination says: ";

/// A refusal of another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    code: u16,
    enhanced: (u8, u16, u16),
    text: String,
}

impl Said {
    /// `code` is 4yz or 5yz. An enhanced code of another class is replaced by the undefined one; text that cannot
    /// be said is replaced by `?`.
    pub fn new(code: u16, enhanced: Option<(u8, u16, u16)>, text: &str) -> Self {
        let code = if (400..600).contains(&code) { code } else { 451 };
        let class = (code / 100) as u8;
        let enhanced = enhanced.filter(|of| of.0 == class && of.1 < 1000 && of.2 < 1000);
        let mut said = String::with_capacity(text.len().min(TEXT_OCTETS_MAX));
        for character in text.trim().chars() {
            if said.len() == TEXT_OCTETS_MAX {
                break;
            }
            said.push(match character {
                '\r' | '\n' | '\t' => ' ',
                ' '..='~' => character,
                _ => '?',
            });
        }
        if said.is_empty() {
            said.push_str("no reason given");
        }
        Self { code, enhanced: enhanced.unwrap_or((class, 0, 0)), text: said }
    }

    pub fn code(&self) -> u16 {
        self.code
    }

    /// Appends the reply with its CRLF.
    pub fn put(&self, out: &mut Vec<u8>) {
        write!(out, "{self}\r\n").expect("a vector takes everything");
    }
}

/// `550 5.1.1 The destination says: User unknown`
impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (class, subject, detail) = self.enhanced;
        write!(f, "{} {class}.{subject}.{detail} {PREFIX}{}", self.code, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::REPLY_OCTETS_MAX;

    #[test]
    fn what_is_said_on_is_one_line_of_the_same_class() {
        let table = [
            (550, Some((5, 1, 1)), "User unknown", "550 5.1.1 The destination says: User unknown"),
            (550, None, "no", "550 5.0.0 The destination says: no"),
            (550, Some((4, 1, 1)), "no", "550 5.0.0 The destination says: no"),
            (450, Some((4, 2, 1)), "busy\r\n250 ok", "450 4.2.1 The destination says: busy  250 ok"),
            (554, Some((5, 7, 1)), "gr\u{fc}n\0\u{1b}[2J", "554 5.7.1 The destination says: gr?n??[2J"),
            (552, Some((5, 60000, 1)), " \n ", "552 5.0.0 The destination says: no reason given"),
            (250, Some((2, 0, 0)), "what", "451 4.0.0 The destination says: what"),
        ];
        for (code, enhanced, text, expected) in table {
            let mut out = Vec::new();
            Said::new(code, enhanced, text).put(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{expected}\r\n"));
        }
    }

    #[test]
    fn the_longest_text_fits_in_a_reply_line() {
        let mut out = Vec::new();
        Said::new(554, Some((5, 999, 999)), &"\u{fc}x".repeat(10_000)).put(&mut out);
        assert!(out.len() > TEXT_OCTETS_MAX && out.len() <= REPLY_OCTETS_MAX, "{}", out.len());
    }
}
