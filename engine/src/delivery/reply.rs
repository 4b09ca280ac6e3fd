//! A reply of a peer (RFC 5321 section 4.2), with its enhanced status code (RFC 3463, RFC 2034).
//!
//! Plain data, safe to print: the reader has already replaced everything that is not text.

use std::fmt;

/// One whole reply, single-line or multi-line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// The code at the start of the first line's text, when its class agrees with `code`.
    pub enhanced: Option<(u8, u16, u16)>,
    /// The text of the lines, separated by `\n`, without reply code and enhanced code.
    pub text: String,
}

/// What the first digit of a reply says (RFC 5321 section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyClass {
    /// 2yz
    Completed,
    /// 3yz
    Intermediate,
    /// 4yz
    Temporary,
    /// 5yz
    Lasting,
}

impl Reply {
    pub fn class(&self) -> ReplyClass {
        match self.code / 100 {
            2 => ReplyClass::Completed,
            3 => ReplyClass::Intermediate,
            4 => ReplyClass::Temporary,
            _ => ReplyClass::Lasting,
        }
    }

    pub fn is_completed(&self) -> bool {
        self.class() == ReplyClass::Completed
    }

    pub fn is_lasting(&self) -> bool {
        self.class() == ReplyClass::Lasting
    }
}

/// On one line, as a log or a `Diagnostic-Code` shows it: `550 5.1.1 No such user`.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some((class, subject, detail)) = self.enhanced {
            write!(f, " {class}.{subject}.{detail}")?;
        }
        self.text.lines().filter(|line| !line.is_empty()).try_for_each(|line| write!(f, " {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_shown_on_one_line() {
        let reply = Reply { code: 550, enhanced: Some((5, 1, 1)), text: "No such\nuser".into() };
        assert_eq!(reply.to_string(), "550 5.1.1 No such user");
        let bare = Reply { code: 250, enhanced: None, text: String::new() };
        assert_eq!(bare.to_string(), "250");
    }
}
