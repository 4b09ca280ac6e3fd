//! DATA (RFC 5321 section 4.1.1.4) up to 354; what comes after it is `content`.
//!
//! Replies: 354 when the rim has opened a message; 503 5.5.1 outside a transaction, between chunks
//! and with BODY=BINARYMIME (RFC 3030 sections 2 and 3); 554 5.5.1 without a
//! valid recipient, also when pipelined (RFC 2920 section 3.1); 503 5.5.0 and the end when octets follow
//! in the same piece; 452 4.3.1, 451 4.3.0, 451 4.3.2 or 421 4.3.2 when the rim could not open a
//! message, which ends the transaction.

use super::{Handled, Refusal, Refused, Session, State, Step, received};
use crate::config::LineEndings;
use crate::smtp::content::{Decoder, Framing, Rules};
use crate::smtp::reply;
use sluice_queue::QueueId;

pub(super) fn data(session: &mut Session, followed: bool) -> Handled {
    if followed {
        return Err(Refused::from(&reply::EARLY_CONTENT).last());
    }
    match session.state {
        State::AwaitHello => Err((&reply::SEQUENCE_HELLO_FIRST).into()),
        State::AwaitMail => Err((&reply::MAIL_FIRST).into()),
        State::AwaitRcpt => Err((&reply::NO_VALID_RECIPIENTS).into()),
        State::AwaitBdat => Err((&reply::DATA_AFTER_BDAT).into()),
        _ if session.is_binary() => Err((&reply::BINARY_NEEDS_BDAT).into()),
        _ => {
            session.state = State::AwaitSpool;
            Ok(Some(Step::Open))
        }
    }
}

impl Session {
    /// The rim has opened a message. Writes 354, unless it comes by BDAT, and returns the Received field, with its CRLF, that
    /// comes before the content. `date` is a date-time of RFC 5322 section 3.3.
    ///
    /// # Panics
    /// When nothing was to be opened.
    pub fn opened(&mut self, id: QueueId, date: &str, out: &mut Vec<u8>) -> Vec<u8> {
        assert_eq!(self.state, State::AwaitSpool, "opened() answers Step::Open");
        self.queue_id = Some(id);
        let by_bdat = self.bdat.is_opening;
        let rules = match self.context.line_endings {
            _ if self.is_binary() => Rules::Binary,
            LineEndings::Strict => Rules::Strict,
            LineEndings::Repair => Rules::Repair,
        };
        let framing = if by_bdat { Framing::Counted } else { Framing::Dots };
        self.decoder = Decoder::with(framing, rules, self.context.limits.line_bytes_max);
        self.since = self.now;
        if by_bdat {
            self.bdat.is_opening = false;
            self.state = State::AwaitChunk;
        } else {
            self.state = State::AwaitContent;
            reply::START_CONTENT.put(out);
        }
        let field = received::field(self, id, date);
        self.received_utf8 = !field.is_ascii();
        field
    }

    /// The rim could not open a message.
    ///
    /// # Panics
    /// When nothing was to be opened.
    pub fn open_failed(&mut self, why: Refusal, out: &mut Vec<u8>) {
        assert_eq!(self.state, State::AwaitSpool, "open_failed() answers Step::Open");
        if self.bdat.is_opening {
            return self.chunk_not_opened(why, out);
        }
        if let Some(answer) = why.answer() {
            let mut said = Vec::new();
            answer.put(&mut said);
            self.note_refusal(b"DATA", &said);
        }
        self.end_transaction();
        self.put_refusal(why, out);
    }
}
