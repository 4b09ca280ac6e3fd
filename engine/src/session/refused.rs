//! Commands that are refused: which answer a fault of the grammar gets, what counts as an error, and
//! what comes of too many.
//!
//! Replies: those of the table below, and 421 4.7.0 in place of the reply to the error that is one more
//! than `limits.errors_max`.

use super::{Session, Step};
use crate::smtp::command::Fault;
use crate::smtp::command::is_verb;
use crate::smtp::path::PathFault;
use crate::smtp::reply::{self, Answer};
use crate::smtp::said::Said;

/// A command that was refused.
pub(super) struct Refused {
    answer: &'static Answer,
    argument: Argument,
    /// Whether it counts towards `limits.errors_max`.
    counted: bool,
    /// Whether the session ends with it.
    last: bool,
    /// Whether the log knows of it already.
    noted: bool,
}

pub(super) enum Argument {
    None,
    Number(u64),
    Path(PathFault),
    HostName,
    /// In place of the answer: what the next hop said.
    Said(Box<Said>),
}

impl From<&'static Answer> for Refused {
    fn from(answer: &'static Answer) -> Self {
        Self { answer, argument: Argument::None, counted: true, last: false, noted: false }
    }
}

impl Refused {
    /// In the words of the next hop.
    pub(super) fn said(said: Said) -> Self {
        Self::from(&reply::RECIPIENT_UNCHECKED).with(Argument::Said(Box::new(said)))
    }

    pub(super) fn with(self, argument: Argument) -> Self {
        Self { argument, ..self }
    }

    pub(super) fn uncounted(self) -> Self {
        Self { counted: false, ..self }
    }

    pub(super) fn code(&self) -> u16 {
        match &self.argument {
            Argument::Said(said) => said.code(),
            _ => self.answer.code,
        }
    }

    pub(super) fn noted(self) -> Self {
        Self { noted: true, ..self }
    }

    pub(super) fn last(self) -> Self {
        Self { last: true, ..self }
    }
}

/// The reply to a line that is no command.
impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        let answer = match fault {
            Fault::UnknownVerb => &reply::UNKNOWN_COMMAND,
            Fault::ForeignProtocol => return Refused::from(&reply::FOREIGN_PROTOCOL).last(),
            Fault::ControlCharacter => &reply::CONTROL_CHARACTER,
            Fault::TooLong => &reply::LINE_TOO_LONG,
            Fault::Argument => &reply::NO_ARGUMENT_TAKEN,
            Fault::MissingArgument => &reply::ARGUMENT_MISSING,
            Fault::UnknownParameter => &reply::UNKNOWN_PARAMETER,
            Fault::Parameter => &reply::BAD_PARAMETER,
            Fault::ChunkSize => return Refused::from(&reply::BDAT_SIZE).last(),
            Fault::ChunkMarker(_) => &reply::BDAT_SYNTAX,
            Fault::HelloName => &reply::HELLO_NAME,
            Fault::MailKeyword => &reply::MAIL_SYNTAX,
            Fault::RcptKeyword => &reply::RCPT_SYNTAX,
            Fault::ReversePath(PathFault::NonAscii) => &reply::MAIL_NON_ASCII,
            Fault::ForwardPath(PathFault::NonAscii) => &reply::RCPT_NON_ASCII,
            Fault::ReversePath(fault) => {
                return Refused::from(&reply::MAIL_ADDRESS).with(Argument::Path(fault));
            }
            Fault::ForwardPath(fault) => {
                return Refused::from(&reply::RCPT_ADDRESS).with(Argument::Path(fault));
            }
        };
        answer.into()
    }
}

/// Something for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A command or a message was refused.
    Refused(String),
    /// An authentication failed, in the words of Postfix: `unknown[IP]: SASL PLAIN authentication failed: …`.
    AuthFailed(String),
}

/// The stage of a refusal at end-of-data.
pub(super) const END_OF_MESSAGE: &[u8] = b"END-OF-MESSAGE";
/// The stage of a refusal in place of the greeting.
pub(super) const CONNECT: &[u8] = b"CONNECT";
/// Octets of an argument in a note.
const NOTED_OCTETS_MAX: usize = 512;
/// Notes kept until the rim takes them. Prevents a group of bad commands from taking memory.
const NOTES_MAX: usize = 64;

impl Session {
    /// Refusals since the last call, for the log, in the form of Postfix:
    /// `STAGE from unknown[IP]: CODE <ARGUMENT>: TEXT; from=<…> to=<…> proto=ESMTP helo=<…>`.
    /// The argument of MAIL and RCPT is shown; other lines may hold secrets.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    pub(super) fn note(&mut self, note: Note) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(note);
        }
    }

    /// Keeps a note when `reply` refuses the command in `line`.
    pub(super) fn note_refusal(&mut self, line: &[u8], reply: &[u8]) {
        let known = std::mem::take(&mut self.authentication.refusal_noted);
        if known || !matches!(reply.first(), Some(b'4' | b'5')) {
            return;
        }
        let sender = self.sender().map(str::to_owned);
        self.note_refusal_from(line, reply, sender.as_deref());
    }

    /// The same of a message from `sender`.
    pub(super) fn note_refusal_from(&mut self, line: &[u8], reply: &[u8], sender: Option<&str>) {
        if self.notes.len() >= NOTES_MAX {
            return;
        }
        let (stage, argument) = stage_and_argument(line);
        let reply = String::from_utf8_lossy(reply.trim_ascii_end()).into_owned();
        let mut words = reply.splitn(3, ' ');
        let (code, second, rest) = (words.next(), words.next(), words.next());
        let has_enhanced = second.is_some_and(|word| word.starts_with(['4', '5']) && word.contains('.'));
        let text = if has_enhanced { rest } else { reply.split_once(' ').map(|(_, text)| text) };
        let mut note = format!(
            "{stage} from {}[{}]: {}",
            self.client_name().unwrap_or("unknown"),
            self.client,
            code.unwrap_or_default()
        );
        if let (true, Some(enhanced)) = (has_enhanced, second) {
            note.push_str(&format!(" {enhanced}"));
        }
        if !argument.is_empty() {
            note.push_str(&format!(" {argument}:"));
        }
        note.push_str(&format!(" {};", text.unwrap_or_default()));
        if let Some(sender) = sender {
            note.push_str(&format!(" from=<{sender}>"));
        }
        if stage == "RCPT" {
            note.push_str(&format!(" to={argument}"));
        }
        if let Some(hello) = &self.hello {
            note.push_str(&format!(" proto={} helo=<{}>", self.protocol(), hello.name));
        }
        if let Some(identity) = self.identity() {
            note.push_str(&format!(" sasl_username={}", identity.login));
        }
        self.notes.push(Note::Refused(note));
    }

    pub(super) fn refuse(&mut self, refused: Refused, out: &mut Vec<u8>) -> Option<Step> {
        self.authentication.refusal_noted = refused.noted;
        if refused.counted
            && let Some(step) = self.count_error(out)
        {
            return Some(step);
        }
        match refused.argument {
            Argument::None => refused.answer.put(out),
            Argument::Number(number) => refused.answer.put_with(out, number),
            Argument::Path(fault) => refused.answer.put_with(out, fault),
            Argument::HostName => refused.answer.put_with(out, &self.context.hostname),
            Argument::Said(said) => said.put(out),
        }
        if refused.last {
            self.close();
            return Some(Step::Close);
        }
        if refused.counted { self.tarpit() } else { None }
    }

    /// One more error; the end when it is one too many.
    pub(super) fn count_error(&mut self, out: &mut Vec<u8>) -> Option<Step> {
        self.errors += 1;
        if self.errors <= self.context.limits.errors_max {
            return None;
        }
        self.count_abuse();
        self.close_with(&reply::TOO_MANY_ERRORS, out);
        Some(Step::Close)
    }
}

/// The verb in upper case where it is known (any other word may be a part of a password), and for MAIL and RCPT what stands behind the colon.
fn stage_and_argument(line: &[u8]) -> (String, String) {
    let verb =
        &line[..line.iter().position(|octet| !octet.is_ascii_alphanumeric()).unwrap_or(line.len()).min(16)];
    let stage = match line {
        END_OF_MESSAGE | CONNECT => line,
        _ if is_verb(verb) => verb,
        _ => b"UNKNOWN",
    };
    let stage = String::from_utf8_lossy(stage).to_ascii_uppercase();
    let argument = match (stage.as_str(), memchr::memchr(b':', line)) {
        ("MAIL" | "RCPT", Some(colon)) => line[colon + 1..].trim_ascii(),
        _ => b"",
    };
    (stage, String::from_utf8_lossy(&argument[..argument.len().min(NOTED_OCTETS_MAX)]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mail_and_rcpt_show_their_argument() {
        for (line, stage, argument) in [
            (&b"RCPT TO:<x@y>"[..], "RCPT", "<x@y>"),
            (b"mail from: <a b>", "MAIL", "<a b>"),
            (b"RCPT", "RCPT", ""),
            (b"AUTH PLAIN c2VjcmV0:x", "AUTH", ""),
            (b"c2VjcmV0LXNlY3JldC1zZWNyZXQ=", "UNKNOWN", ""),
            (b"UzNjcmV0IXBhc3M=", "UNKNOWN", ""),
            (b"quit", "QUIT", ""),
            (CONNECT, "CONNECT", ""),
            (b"", "UNKNOWN", ""),
            (b"\xff\xfe", "UNKNOWN", ""),
            (END_OF_MESSAGE, "END-OF-MESSAGE", ""),
        ] {
            assert_eq!(
                stage_and_argument(line),
                (stage.to_owned(), argument.to_owned()),
                "{}",
                line.escape_ascii()
            );
        }
    }
}
