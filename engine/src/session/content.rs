//! The content of a message and the reply to its end (RFC 5321 sections 4.1.1.4 and 4.5.3.1).
//!
//! Replies at end-of-data: 250 2.0.0 with the queue id when the rim has made the message durable, 250 2.3.6
//! when it has another priority than was asked for (RFC 6710 section 4.3);
//! 452 4.3.1, 451 4.3.0, 451 4.3.2 or 421 4.3.2 when it could not; and, decided while the octets pass,
//! the draft being dropped at once:
//!
//! | what | reply |
//! |---|---|
//! | bare CR, bare LF (section 2.3.8; Postfix answers with the same 550 5.5.2 or 521 5.5.2) | 550 5.5.2 |
//! | NUL (RFC 5322 section 4 forbids to generate it) | 550 5.6.0 |
//! | a line over `limits.line_bytes_max` | 554 5.6.0 |
//! | a header section over `limits.header_bytes_max` | 552 5.3.4 |
//! | over `limits.message_bytes_max`, whatever SIZE said (RFC 1870 section 6.3) | 552 5.3.4 |
//! | `limits.received_max` Received fields (section 6.3) | 554 5.4.6 |
//!
//! The first three with `line_endings = "strict"` only; with `"repair"` they are mended (`smtp::content`). The
//! first four hold for the header section of binary content, and not for its body.
//!
//! What is refused goes on to be read, so that the reply comes where the client looks for it; past
//! [`SWALLOW_FACTOR`] times the size limit the session is closed.

use super::refused::END_OF_MESSAGE;
use super::{Session, State, Step};
use crate::config::LineEndings;
use crate::smtp::content::Piece;
use crate::smtp::reply::{self, Answer};

/// How much of a refused message is read, as a multiple of `limits.message_bytes_max`: else a client
/// could send one message for ever.
pub(super) const SWALLOW_FACTOR: u64 = 4;

/// Why the rim cannot take a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Disk full, or below the mark that is kept free: 452 4.3.1.
    NoSpace,
    /// Writing or syncing failed: 451 4.3.0.
    Storage,
    /// A bound of this shard is reached, which will pass: 451 4.3.2.
    Busy,
    /// The login has used up what it may send in an hour: 450 4.7.1.
    LoginLimit,
    /// The relay stops: 421 4.3.2, and the session is closed.
    ShuttingDown,
}

impl Refusal {
    /// `None`: the session ends with it.
    pub(super) fn answer(self) -> Option<&'static Answer> {
        match self {
            Self::NoSpace => Some(&reply::NO_SPACE),
            Self::Storage => Some(&reply::STORAGE_FAILED),
            Self::Busy => Some(&reply::BUSY),
            Self::LoginLimit => Some(&reply::LOGIN_LIMIT),
            Self::ShuttingDown => None,
        }
    }
}

impl Session {
    /// Handles the first piece of content in the input.
    pub(super) fn content(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Option<Step>) {
        let (mut octets, mut piece) = self.decoder.decode(input);
        // What repair puts in takes nothing of the input, and in what is refused nobody wants it: were it
        // left at that, the session would wait for octets that it has.
        while octets == 0 && matches!(piece, Piece::Insert(_)) && self.content_fault().is_some() {
            (octets, piece) = self.decoder.decode(input);
        }
        if octets > 0 {
            self.since = self.now;
            self.content_came(octets);
            self.tap_content(octets);
        }
        let fault = self.content_fault();
        let abandon = fault.is_some() && self.state == State::AwaitContent;
        if abandon {
            self.state = State::AwaitEnd;
        }
        let step = match (fault, piece) {
            (None, Piece::More) => None,
            (None, Piece::Content(range)) => Some(Step::Content(range)),
            (None, Piece::Insert(octets)) => Some(Step::Insert(octets)),
            (None, Piece::End) => {
                self.state = State::AwaitCommit;
                Some(Step::Commit)
            }
            (Some((answer, argument)), Piece::End) => {
                let replied = out.len();
                answer.put_with(out, argument);
                self.note_refusal(END_OF_MESSAGE, &out[replied..]);
                self.end_transaction();
                None
            }
            (Some(_), _) => self.swallow(out),
        };
        // A session that has just closed itself has no draft to abandon any more.
        (octets, if abandon && !self.is_closed() { Some(Step::Abandon) } else { step })
    }

    /// With what the content seen so far will be refused, from [`Step::Abandon`] on.
    pub fn content_refusal(&self) -> Option<&'static Answer> {
        self.content_fault().map(|(answer, _)| answer)
    }

    /// Why the message so far must be refused, with the number that the answer names. Findings only ever
    /// grow, and this order ranks them, so the answer at the end does not depend on how octets came.
    pub(super) fn content_fault(&self) -> Option<(&'static Answer, u64)> {
        let (findings, limits) = (self.decoder.findings(), &self.context.limits);
        let strict = self.context.line_endings == LineEndings::Strict || self.is_binary();
        let header_octets = findings.header_octets.unwrap_or(findings.octets);
        if strict && findings.bare_lf {
            Some((&reply::BARE_LF, 0))
        } else if strict && findings.bare_cr {
            Some((&reply::BARE_CR, 0))
        } else if strict && findings.nul {
            Some((&reply::NUL_IN_CONTENT, 0))
        } else if findings.long_line {
            Some((&reply::LINE_IN_CONTENT_TOO_LONG, limits.line_bytes_max as u64))
        } else if header_octets > limits.header_bytes_max {
            Some((&reply::HEADER_TOO_LARGE, limits.header_bytes_max))
        } else if findings.octets > limits.message_bytes_max {
            Some((&reply::MESSAGE_TOO_LARGE, limits.message_bytes_max))
        } else if findings.received as usize >= limits.received_max {
            Some((&reply::MAIL_LOOP, limits.received_max as u64))
        } else {
            None
        }
    }

    fn swallow(&mut self, out: &mut Vec<u8>) -> Option<Step> {
        let octets_max = self.context.limits.message_bytes_max.saturating_mul(SWALLOW_FACTOR);
        if self.decoder.findings().octets <= octets_max {
            return None;
        }
        reply::MESSAGE_TOO_LARGE.put_with(out, self.context.limits.message_bytes_max);
        self.close();
        Some(Step::Close)
    }

    /// The rim has made message and envelope durable, or could not.
    ///
    /// # Panics
    /// When nothing was to be committed.
    pub fn committed(&mut self, result: Result<(), Refusal>, out: &mut Vec<u8>) {
        assert_eq!(self.state, State::AwaitCommit, "committed() answers Step::Commit");
        self.end_transaction();
        match result {
            Ok(()) => {
                let id = self.queue_id.expect("opened() named the message");
                let lowered = self.priority_lowered;
                let answer = if lowered { &reply::MESSAGE_OK_LOWERED } else { &reply::MESSAGE_OK };
                answer.put_with(out, id);
                self.forgive();
            }
            Err(why) => self.put_refusal(why, out),
        }
    }

    pub(super) fn put_refusal(&mut self, why: Refusal, out: &mut Vec<u8>) {
        match why.answer() {
            Some(answer) => answer.put(out),
            None => self.shutting_down(out),
        }
    }

    pub(super) fn end_transaction(&mut self) {
        self.transaction = None;
        self.state = State::AwaitMail;
        self.since = self.now;
        self.forget_content();
    }
}
