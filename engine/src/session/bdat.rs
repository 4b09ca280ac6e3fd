//! BDAT (RFC 3030): chunks, their replies, and what a failed one leads to.
//!
//! Replies, each at the end of its chunk: 250 2.0.0 to a chunk that is not the last; to the last one what
//! end-of-data would get (`content`); and, the draft being dropped at once and the octets passed over:
//!
//! | what | reply |
//! |---|---|
//! | before EHLO, after HELO, outside a transaction | 503 5.5.1 |
//! | without a valid recipient | 554 5.5.1 |
//! | before STARTTLS where the listener demands that | 530 5.7.0 |
//! | something else than `LAST` behind the size | 501 5.5.4 |
//! | the message would exceed `limits.message_bytes_max` | 552 5.3.4 |
//! | the rim could not open the message, or lost it | 452 4.3.1, 451 4.3.0, 451 4.3.2, 421 4.3.2 |
//! | content that is refused | as in `content` |
//!
//! A failed chunk ends the transaction (section 2), so that no message is ever stored with a chunk missing.
//! The chunks behind it that a client has sent already get the same answer, which does not count as an
//! error, until one is the last or another transaction begins. When more than
//! [`SWALLOW_FACTOR`] times the size limit is to be passed over, the
//! answer comes at once and the session is closed; so too without a size, with 501 5.5.4.

use super::content::SWALLOW_FACTOR;
use super::refused::Argument;
use super::{Refusal, Refused, Session, State, Step};
use crate::smtp::chunks::Chunk;
use crate::smtp::command::Command;
use crate::smtp::content::Piece;
use crate::smtp::reply::{self, Answer};

/// Where a session stands with its chunks.
#[derive(Debug, Default)]
pub(super) struct Bdat {
    /// What is still to come of the chunk under way.
    chunk: Chunk,
    /// Octets of it in all.
    chunk_octets: u64,
    /// The rim opens a message for it.
    pub is_opening: bool,
    /// Why the chunk under way is refused, when not for its content.
    refused: Option<Failed>,
    /// What failed before in this transaction.
    failed: Option<Failed>,
    /// Octets of chunks that were passed over since the last MAIL that was taken.
    swallowed: u64,
}

/// Why a chunk is refused.
#[derive(Clone, Copy, Debug)]
struct Failed {
    answer: &'static Answer,
    argument: u64,
    /// Whether it counts towards `limits.errors_max`.
    counted: bool,
}

impl Bdat {
    /// The size of a message that consists of the chunk under way.
    pub fn only_chunk(&self) -> Option<u64> {
        (self.is_opening && self.chunk.last).then_some(self.chunk.octets)
    }
}

/// `malformed`: the answer to a line that has a size and is no sound command all the same.
pub(super) fn bdat(
    session: &mut Session,
    chunk: Chunk,
    malformed: Option<&'static Answer>,
    out: &mut Vec<u8>,
) -> Option<Step> {
    session.since = session.now;
    session.bdat.chunk = chunk;
    session.bdat.chunk_octets = chunk.octets;
    if let Some(failed) = session.chunk_fault(chunk, malformed) {
        return session.refuse_chunk(Some(failed), out);
    }
    if session.state == State::AwaitBdat {
        session.state = State::AwaitChunk;
        return None;
    }
    session.bdat.is_opening = true;
    session.state = State::AwaitSpool;
    Some(Step::Open)
}

impl Session {
    fn chunk_fault(&self, chunk: Chunk, malformed: Option<&'static Answer>) -> Option<Failed> {
        let limit = self.context.limits.message_bytes_max;
        let so_far = if self.state == State::AwaitBdat { self.decoder.findings().octets } else { 0 };
        let answer = if self.bdat.failed.is_some() {
            return self.bdat.failed;
        } else if self.needs_tls_for(&Command::Bdat(chunk)) {
            &reply::TLS_REQUIRED
        } else if let Some(answer) = malformed {
            answer
        } else if self.hello.as_ref().is_none_or(|hello| !hello.extended) {
            &reply::BDAT_NEEDS_EHLO
        } else if self.state == State::AwaitMail {
            &reply::MAIL_FIRST
        } else if self.state == State::AwaitRcpt {
            &reply::NO_VALID_RECIPIENTS
        } else if so_far.saturating_add(chunk.octets) > limit {
            return Some(Failed { answer: &reply::MESSAGE_TOO_LARGE, argument: limit, counted: false });
        } else {
            return None;
        };
        Some(Failed { answer, argument: 0, counted: true })
    }

    /// The chunk under way is passed over and then answered: as `refused` says, or for its content. What
    /// is sent of the message is dropped.
    fn refuse_chunk(&mut self, refused: Option<Failed>, out: &mut Vec<u8>) -> Option<Step> {
        let has_draft = matches!(self.state, State::AwaitBdat | State::AwaitChunk);
        self.state = State::AwaitChunkEnd;
        self.bdat.refused = refused;
        self.bdat.swallowed = self.bdat.swallowed.saturating_add(self.bdat.chunk.octets);
        let octets_max = self.context.limits.message_bytes_max.saturating_mul(SWALLOW_FACTOR);
        if self.bdat.swallowed > octets_max {
            self.answer_chunk(true, out);
            return Some(Step::Close);
        }
        has_draft.then_some(Step::Abandon)
    }

    /// Whether the chunk under way has come whole.
    pub(super) fn is_chunk_over(&self) -> bool {
        self.bdat.chunk.octets == 0
    }

    /// Handles the first octets of the input as a part of the chunk under way.
    pub(super) fn chunk(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Option<Step>) {
        self.since = self.now;
        if self.bdat.refused.is_some() {
            let octets = self.bdat.chunk.skip(input);
            self.content_came(octets);
            self.tap_content(octets);
            return (octets, None);
        }
        // Content that is refused goes on to be looked at, so that the answer does not depend on how its
        // octets come.
        let (mut octets, mut piece) = self.bdat.chunk.decode(&mut self.decoder, input);
        // See `content`: what repair puts in takes nothing of the input.
        while octets == 0 && matches!(piece, Piece::Insert(_)) && self.content_fault().is_some() {
            (octets, piece) = self.bdat.chunk.decode(&mut self.decoder, input);
        }
        self.content_came(octets);
        self.tap_content(octets);
        let step = match piece {
            _ if self.state == State::AwaitChunkEnd => None,
            _ if self.content_fault().is_some() => self.refuse_chunk(None, out),
            Piece::Content(range) => Some(Step::Content(range)),
            Piece::Insert(octets) => Some(Step::Insert(octets)),
            Piece::More => None,
            Piece::End => unreachable!("what is counted has no end of its own"),
        };
        (octets, step)
    }

    /// The chunk under way has come whole.
    pub(super) fn end_chunk(&mut self, out: &mut Vec<u8>) -> Option<Step> {
        self.since = self.now;
        if self.state == State::AwaitChunkEnd {
            return self.answer_chunk(false, out);
        }
        if self.bdat.chunk.last {
            let missing = self.decoder.finish();
            if self.content_fault().is_some() {
                return self.refuse_chunk(None, out);
            }
            if let Some(octets) = missing {
                return Some(Step::Insert(octets));
            }
            self.state = State::AwaitCommit;
            return Some(Step::Commit);
        }
        self.state = State::AwaitBdat;
        reply::CHUNK_OK.put_with(out, self.bdat.chunk_octets);
        if self.bdat.chunk_octets == 0 { self.count_junk(out) } else { None }
    }

    /// The answer to a refused chunk, which ends its transaction; the `last` one comes with its command, which
    /// notes it.
    fn answer_chunk(&mut self, last: bool, out: &mut Vec<u8>) -> Option<Step> {
        // The chunks behind a refused one were sent before its answer was seen; without an end they are junk.
        let repeated = self.bdat.failed.is_some();
        let failed = self.bdat.refused.take().unwrap_or_else(|| {
            let (answer, argument) = self.content_fault().expect("a chunk is refused for a reason");
            Failed { answer, argument, counted: false }
        });
        let mut refused = Refused::from(failed.answer).with(Argument::Number(failed.argument));
        if !failed.counted {
            refused = refused.uncounted();
        }
        if last {
            refused = refused.last();
        }
        let replied = out.len();
        let mut step = self.refuse(refused, out);
        if !last && !repeated {
            self.note_refusal(b"BDAT", &out[replied..]);
        }
        if repeated && step.is_none() {
            step = self.count_junk(out);
        }
        if step != Some(Step::Close) {
            let in_transaction = self.transaction.is_some();
            self.end_transaction();
            if self.hello.is_none() {
                self.state = State::AwaitHello;
            }
            let pending = in_transaction || self.bdat.failed.is_some();
            self.bdat.failed =
                (pending && !self.bdat.chunk.last).then_some(Failed { counted: false, ..failed });
        }
        step
    }

    /// The rim could not open the message of the chunk under way.
    pub(super) fn chunk_not_opened(&mut self, why: Refusal, out: &mut Vec<u8>) {
        self.bdat.is_opening = false;
        match why.answer() {
            Some(answer) => {
                let _ = self.refuse_chunk(Some(Failed { answer, argument: 0, counted: false }), out);
            }
            None => self.shutting_down(out),
        }
    }

    /// The rim could not keep what it was given of the message, and has dropped the draft. Content that
    /// comes by DATA is answered at its end, by [`Session::committed`]; a chunk at its own.
    pub fn content_lost(&mut self, why: Refusal, out: &mut Vec<u8>) {
        if self.state == State::AwaitChunk
            && let Some(answer) = why.answer()
        {
            let _ = self.refuse_chunk(Some(Failed { answer, argument: 0, counted: false }), out);
        }
    }

    /// Ends the transaction, and drops what there is of its message.
    pub(super) fn abandon(&mut self) -> Option<Step> {
        self.transaction = None;
        self.bdat.failed = None;
        (self.state == State::AwaitBdat).then_some(Step::Abandon)
    }
}
