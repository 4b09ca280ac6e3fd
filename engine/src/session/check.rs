//! Recipients and messages about which the next hop is asked while the client waits (cut-through).
//!
//! Replies: to RCPT 250 2.1.5 when the next hop takes the recipient, or when nobody can say and the route lets the
//! spool stand in; the next hop's own 5yz, or 4yz where the route passes that on, behind a prefix
//! ([`Said`]); 450 4.4.1 when nobody can say and the route wants certainty. At end-of-data the next hop's own 5yz.
//!
//! Asked last of all: after the grammar, after `policy` and after the client's allowance, so whoever may not send to a
//! recipient learns nothing of it. A refusal counts as one of our own does: as an error and as an invalid
//! recipient. Commands behind a RCPT that is asked about wait for its reply, and so are answered in order.

use super::refused::END_OF_MESSAGE;
use super::{Refused, Session, State, Step};
use crate::smtp::reply;
use crate::smtp::said::Said;
use sluice_queue::Envelope;

/// What came of [`Step::Check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// The next hop takes the recipient, or need not be asked.
    Accepted,
    Refused(Said),
    /// Nobody can say, and the client is to come again.
    Unanswered,
}

impl Session {
    /// Whom [`Step::Check`] is about: the forward-path without its brackets.
    ///
    /// # Panics
    /// At any other time.
    pub fn recipient_to_check(&self) -> &str {
        assert_eq!(self.state, State::AwaitCheck, "nobody is to be asked about");
        &self.recipients().last().expect("there is a recipient for each Step::Check").address
    }

    /// The answer to [`Step::Check`]. The session may be closed by it, or its client is to wait ([`Step::Pause`]).
    ///
    /// # Panics
    /// When nothing was to be checked.
    pub fn checked(&mut self, now: u64, checked: Checked, out: &mut Vec<u8>) -> Option<Step> {
        assert_eq!(self.state, State::AwaitCheck, "checked() answers Step::Check");
        (self.now, self.since) = (now, now);
        let transaction = self.transaction.as_mut().expect("RCPT stands within a transaction");
        let refused = match checked {
            Checked::Accepted => {
                self.state = State::AwaitRcptOrData;
                reply::RCPT_OK.put(out);
                return None;
            }
            Checked::Unanswered => Refused::from(&reply::RECIPIENT_UNCHECKED).uncounted(),
            Checked::Refused(said) if said.code() < 500 => Refused::said(said).uncounted(),
            Checked::Refused(said) => Refused::said(said),
        };
        let recipient = transaction.recipients.pop().expect("a recipient waits for its check");
        self.state = match transaction.recipients.is_empty() {
            true => State::AwaitRcpt,
            false => State::AwaitRcptOrData,
        };
        let replied = out.len();
        let refused = self.guard_recipient(refused);
        let step = self.refuse(refused, out);
        self.note_refusal(format!("RCPT TO:<{}>", recipient.address).as_bytes(), &out[replied..]);
        step
    }

    /// In place of [`Session::committed`]: the next hop has the message refused for all of its recipients, and
    /// nothing of it stays here. `envelope` is what [`Session::take_envelope`] gave.
    ///
    /// # Panics
    /// When nothing was to be committed.
    pub fn refused_by_next_hop(&mut self, said: &Said, envelope: &Envelope, out: &mut Vec<u8>) {
        assert_eq!(self.state, State::AwaitCommit, "refused_by_next_hop() answers Step::Commit");
        self.end_transaction();
        let replied = out.len();
        said.put(out);
        self.note_refusal_from(END_OF_MESSAGE, &out[replied..], Some(&envelope.sender));
    }
}
