//! How a session or a transaction fails: from replies, silence and broken connections to
//! [`Failure`]s with their texts.
//!
//! Pure; a part of [`Client`]. The texts are those of Postfix where it has one, so that its users
//! find in the log what they know.

use super::{Chunk, Client, Event, SessionFailure, State};
use crate::delivery::failure::{Failure, Scope};
use crate::delivery::reply::{Reply, ReplyClass};
use crate::delivery::reply_reader::BadReply;
use crate::delivery::transaction::Ending;
use crate::delivery::verdict::Status;

impl Client {
    pub(super) fn refusal(&self, scope: Scope, reply: Reply, command: &str) -> Failure {
        let text = format!("host {} said: {reply} (in reply to {command} command)", self.peer.host());
        let lasting = reply.is_lasting() && !is_too_many_recipients(scope, &reply);
        let Status(class, subject, detail) = Status::of(&reply);
        let status = Status(if lasting { class } else { 4 }, subject, detail);
        Failure { scope, lasting, status, text, reply: Some(reply) }.cut()
    }

    /// By LMTP, behind the content: 552 does not mean there that there are too many recipients.
    pub(super) fn refusal_of_one(&self, reply: Reply, command: &str) -> Failure {
        Failure { scope: Scope::Recipient, ..self.refusal(Scope::Message, reply, command) }
    }

    /// The peer does not want to talk, or no longer.
    pub(super) fn refused_session(&mut self, reply: Reply) -> Event {
        let text = match self.state {
            State::AwaitGreeting | State::AwaitEhlo | State::AwaitHelo => {
                format!("host {} refused to talk to me: {reply}", self.peer.host())
            }
            _ => format!("host {} said: {reply} (while {})", self.peer.host(), self.doing()),
        };
        let (lasting, status) = match reply.class() {
            ReplyClass::Lasting => (true, Status::of(&reply)),
            ReplyClass::Temporary => (false, Status::of(&reply)),
            ReplyClass::Completed | ReplyClass::Intermediate => (false, Status::PROTOCOL),
        };
        let failure = Failure { scope: Scope::Session, lasting, status, text, reply: Some(reply) };
        Event::Failed(self.fail(failure))
    }

    pub(super) fn out_of_order(&mut self, reply: Reply) -> Event {
        let text =
            format!("host {} sent an unexpected reply: {reply} (while {})", self.peer.host(), self.doing());
        let mut failure = Failure::local(Scope::Session, Status::PROTOCOL, text);
        failure.reply = Some(reply);
        Event::Failed(self.fail(failure))
    }

    pub(super) fn spoke_unasked(&mut self) -> Event {
        let text = format!("host {} sent a reply unasked (while {})", self.peer.host(), self.doing());
        Event::Failed(self.fail(Failure::local(Scope::Session, Status::PROTOCOL, text)))
    }

    pub(super) fn give_up_on(&mut self, bad: BadReply) -> Event {
        let (host, doing) = (self.peer.host().to_string(), self.doing());
        let text = match bad {
            BadReply::Malformed(line) => {
                let start: String = line.chars().take(100).collect();
                format!("host {host} sent what is not an SMTP reply: \"{start}\" (while {doing})")
            }
            BadReply::TooLong => format!("host {host} sent a reply without end (while {doing})"),
        };
        Event::Failed(self.fail(Failure::local(Scope::Session, Status::PROTOCOL, text)))
    }

    pub(super) fn fail(&mut self, failure: Failure) -> SessionFailure {
        let failure = failure.cut();
        let unanswered = self.open.front().is_none_or(|open| !open.answered);
        let was_stale = self.transactions > 0 && unanswered && self.state != State::Closed;
        let fates = self.open.pop_front().map_or_else(Vec::new, |mut open| {
            open.fail_undecided(&failure);
            open.into_fates()
        });
        self.open.clear();
        self.close();
        SessionFailure { failure, fates, was_stale }
    }

    /// The oldest message has left as a whole, in a chunk, and nobody knows what became of it.
    fn has_left(&self) -> bool {
        let in_chunk = match self.state {
            State::AwaitRset | State::AwaitMail | State::AwaitRcpt(_) => {
                self.open.front().is_some_and(|open| open.ending == Ending::ChunkInGroup)
            }
            State::AwaitChunk => true,
            _ => false,
        };
        in_chunk && (self.chunk == Chunk::None || self.open.len() > 1)
    }

    /// The words of Postfix for the state, as its users know them from their logs.
    pub(super) fn doing(&self) -> &'static str {
        match self.state {
            _ if self.has_left() => match self.state {
                State::AwaitRset => "sending RSET -- message may be sent more than once",
                State::AwaitMail => "sending MAIL FROM -- message may be sent more than once",
                State::AwaitRcpt(_) => "sending RCPT TO -- message may be sent more than once",
                _ => "sending end of data -- message may be sent more than once",
            },
            _ if self.chunk == Chunk::Sending => "sending message body",
            State::AwaitGreeting => "receiving the initial server greeting",
            State::AwaitEhlo => "performing the EHLO handshake",
            State::AwaitHelo => "performing the HELO handshake",
            State::AwaitStartTls => "sending STARTTLS",
            State::AwaitHandshake => "performing the TLS handshake",
            State::AwaitAuth(_) => "performing SASL authentication",
            State::Ready | State::Decided | State::Closed => "the connection was not in use",
            State::AwaitRset => "sending RSET",
            State::AwaitMail => "sending MAIL FROM",
            State::AwaitRcpt(_) => "sending RCPT TO",
            State::AwaitData => "sending DATA command",
            State::Sending => "sending message body",
            State::AwaitEndOfData => "sending end of data -- message may be sent more than once",
            State::AwaitChunk => "sending message body",
            State::AwaitAbandoned => "abandoning a message without recipients",
            State::AwaitQuit => "sending QUIT",
        }
    }
}

/// RFC 5321 section 4.5.3.1.10: 552 to RCPT means 452, save where the peer says that it is the
/// mailbox (5.2.z).
fn is_too_many_recipients(scope: Scope, reply: &Reply) -> bool {
    let says_mailbox = matches!(reply.enhanced, Some((_, 2, _)));
    scope == Scope::Recipient && reply.code == 552 && !says_mailbox
}
