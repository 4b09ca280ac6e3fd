//! Commands that are refused: which answer a fault of the grammar gets, what counts as an error, and
//! what comes of too many.
//!
//! Replies: those of the table below, and 421 4.7.0 in place of the reply to the error that is one more
//! than `limits.errors_max`.

use super::{Session, Step};
use crate::smtp::command::Fault;
use crate::smtp::path::PathFault;
use crate::smtp::reply::{self, Answer};

/// A command that was refused.
pub(super) struct Refused {
    answer: &'static Answer,
    argument: Argument,
    /// Whether it counts towards `limits.errors_max`.
    counted: bool,
    /// Whether the session ends with it.
    last: bool,
}

pub(super) enum Argument {
    None,
    Number(u64),
    Path(PathFault),
    HostName,
}

impl From<&'static Answer> for Refused {
    fn from(answer: &'static Answer) -> Self {
        Self { answer, argument: Argument::None, counted: true, last: false }
    }
}

impl Refused {
    pub(super) fn with(self, argument: Argument) -> Self {
        Self { argument, ..self }
    }

    pub(super) fn uncounted(self) -> Self {
        Self { counted: false, ..self }
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

/// Octets of a command line in a note.
const NOTED_OCTETS_MAX: usize = 512;
/// Notes kept until the rim takes them. Prevents a group of bad commands from taking memory.
const NOTES_MAX: usize = 64;

impl Session {
    /// Refusals since the last call, for the log: the command, the reply, envelope and greeting as far
    /// as they are known. Only MAIL and RCPT are shown in full; other lines may hold secrets.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Keeps a note when `reply` refuses the command in `line`.
    pub(super) fn note_refusal(&mut self, line: &[u8], shown: bool, reply: &[u8]) {
        if !matches!(reply.first(), Some(b'4' | b'5')) || self.notes.len() >= NOTES_MAX {
            return;
        }
        let len =
            if shown { NOTED_OCTETS_MAX } else { memchr::memchr(b' ', line).unwrap_or(line.len()).min(16) };
        let line = String::from_utf8_lossy(&line[..line.len().min(len)]).into_owned();
        let reply = String::from_utf8_lossy(reply.trim_ascii_end()).into_owned();
        let mut note = format!("{line}: {reply}");
        if let Some(sender) = self.sender() {
            note.push_str(&format!("; from=<{sender}>"));
        }
        if let Some(name) = self.hello_name() {
            note.push_str(&format!(", helo=<{name}>"));
        }
        self.notes.push(note);
    }

    /// Writes a refusal, or 421 when it is one too many.
    pub(super) fn refuse(&mut self, refused: Refused, out: &mut Vec<u8>) -> Option<Step> {
        self.errors += usize::from(refused.counted);
        if self.errors > self.context.limits.errors_max {
            self.close_with(&reply::TOO_MANY_ERRORS, out);
            return Some(Step::Close);
        }
        match refused.argument {
            Argument::None => refused.answer.put(out),
            Argument::Number(number) => refused.answer.put_with(out, number),
            Argument::Path(fault) => refused.answer.put_with(out, fault),
            Argument::HostName => refused.answer.put_with(out, &self.context.hostname),
        }
        if refused.last {
            self.close();
            return Some(Step::Close);
        }
        None
    }
}
