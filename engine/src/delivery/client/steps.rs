//! What each reply leads to: one function per state of [`Client`], straight from the reply's class
//! to the next state.
//!
//! Pure; a part of [`Client`]. `None` is no event: the reply was a step on the way.

use super::{Chunk, Client, Event, Millis, StartTls, State};
use crate::delivery::extensions::Extensions;
use crate::delivery::failure::{Failure, Scope};
use crate::delivery::reply::{Reply, ReplyClass};
use crate::delivery::transaction::Ending;
use crate::delivery::verdict::{Fate, Status};
use crate::smtp::content::Framing;

impl Client {
    pub(super) fn on_greeting(&mut self, now: Millis, reply: Reply, out: &mut Vec<u8>) -> Option<Event> {
        if !reply.is_completed() {
            return Some(self.refused_session(reply));
        }
        self.say_ehlo(now, out);
        None
    }

    pub(super) fn say_ehlo(&mut self, now: Millis, out: &mut Vec<u8>) {
        let verb = if self.is_lmtp() { "LHLO" } else { "EHLO" };
        out.extend_from_slice(format!("{verb} {}\r\n", self.settings.hostname).as_bytes());
        self.enter(now, State::AwaitEhlo);
    }

    pub(super) fn on_ehlo(&mut self, now: Millis, reply: Reply, out: &mut Vec<u8>) -> Option<Event> {
        match reply.class() {
            ReplyClass::Completed => {
                self.extensions = Extensions::of(&reply);
                self.greeted(now, &reply, out)
            }
            // Within TLS a peer has understood EHLO before; for LHLO there is no other word (RFC 2033 section 4.1).
            ReplyClass::Lasting if !self.opening.in_tls && !self.is_lmtp() => {
                out.extend_from_slice(format!("HELO {}\r\n", self.settings.hostname).as_bytes());
                self.enter(now, State::AwaitHelo);
                None
            }
            ReplyClass::Intermediate | ReplyClass::Temporary | ReplyClass::Lasting => {
                Some(self.refused_session(reply))
            }
        }
    }

    pub(super) fn on_helo(&mut self, now: Millis, reply: Reply, out: &mut Vec<u8>) -> Option<Event> {
        if reply.is_completed() { self.greeted(now, &reply, out) } else { Some(self.refused_session(reply)) }
    }

    /// RFC 3207 section 4.
    pub(super) fn on_starttls(&mut self, now: Millis, reply: Reply, out: &mut Vec<u8>) -> Option<Event> {
        if reply.code == 220 {
            self.enter(now, State::AwaitHandshake);
            return Some(Event::StartTls);
        }
        if self.opening.starttls == StartTls::Must {
            let text = format!("TLS is required, but host {} refused STARTTLS: {reply}", self.peer.host());
            return Some(Event::Failed(self.fail(Failure::local(Scope::Session, Status::TLS_NEEDED, text))));
        }
        self.ready_or_auth(now, out)
    }

    fn without_tls(&mut self) -> Event {
        let text = format!("TLS is required, but was not offered by host {}", self.peer.host());
        Event::Failed(self.fail(Failure::local(Scope::Session, Status::TLS_NEEDED, text)))
    }

    /// A peer with the relay's own name is the relay itself, or believes to be (RFC 5321 section 6.3).
    fn greeted(&mut self, now: Millis, reply: &Reply, out: &mut Vec<u8>) -> Option<Event> {
        let name = reply.text.split_ascii_whitespace().next().unwrap_or_default();
        // Behind LMTP no mail comes back, and the mail store of this host may well have its name.
        if name.eq_ignore_ascii_case(&self.settings.hostname) && !self.is_lmtp() {
            let text = format!("mail loops back to myself: {} calls itself {name}", self.peer.host());
            return Some(Event::Failed(self.fail(Failure::local(Scope::Host, Status::LOOP, text))));
        }
        if !self.opening.in_tls && self.opening.starttls != StartTls::Never && self.extensions.starttls {
            out.extend_from_slice(b"STARTTLS\r\n");
            self.enter(now, State::AwaitStartTls);
            return None;
        }
        if !self.opening.in_tls && self.opening.starttls == StartTls::Must {
            return Some(self.without_tls());
        }
        self.ready_or_auth(now, out)
    }

    pub(super) fn on_rset(&mut self, now: Millis, reply: Reply, out: &mut Vec<u8>) -> Option<Event> {
        if !reply.is_completed() {
            return Some(self.out_of_order(reply));
        }
        self.reset_first = false;
        // It says nothing of this transaction yet.
        self.open().answered = false;
        self.send_next(out);
        self.enter(now, State::AwaitMail);
        None
    }

    pub(super) fn on_mail(&mut self, now: Millis, reply: Reply, out: &mut Vec<u8>) -> Option<Event> {
        let first = self.open().next_asked(0).expect("begin made sure of one");
        self.mail_put_off = reply.class() == ReplyClass::Temporary;
        match reply.class() {
            ReplyClass::Completed => self.open().mail_accepted = true,
            ReplyClass::Intermediate => return Some(self.out_of_order(reply)),
            ReplyClass::Temporary | ReplyClass::Lasting => {
                let failure = self.refusal(Scope::Message, reply, "MAIL FROM");
                self.open().fail_undecided(&failure);
                if !self.extensions.pipelining {
                    return Some(self.finish(now));
                }
            }
        }
        self.send_next(out);
        self.enter(now, State::AwaitRcpt(first));
        None
    }

    pub(super) fn on_rcpt(
        &mut self,
        now: Millis,
        index: usize,
        reply: Reply,
        out: &mut Vec<u8>,
    ) -> Option<Event> {
        match reply.class() {
            ReplyClass::Completed => self.open().accept(index, reply),
            ReplyClass::Intermediate => return Some(self.out_of_order(reply)),
            ReplyClass::Temporary | ReplyClass::Lasting => {
                let failure = self.refusal(Scope::Recipient, reply, "RCPT TO");
                self.open().refuse(index, failure);
            }
        }
        if let Some(next) = self.open().next_asked(index + 1) {
            self.send_next(out);
            self.enter(now, State::AwaitRcpt(next));
            return None;
        }
        if self.open().ending == Ending::None {
            self.reset_first = self.open().mail_accepted || self.open().is_misordered;
            return Some(self.finish(now));
        }
        let asks_first = !self.extensions.pipelining || self.open().ending == Ending::ChunkAfter;
        if asks_first && !self.open().has_accepted() {
            self.reset_first = self.open().mail_accepted || self.open().is_misordered;
            return Some(self.finish(now));
        }
        if self.open().ending != Ending::Data {
            if self.open().ending == Ending::ChunkAfter {
                self.open().send_chunk(out);
                self.chunk = Chunk::Due;
            }
            self.enter(now, State::AwaitChunk);
            return None;
        }
        self.send_next(out);
        self.enter(now, State::AwaitData);
        None
    }

    pub(super) fn on_data(&mut self, now: Millis, reply: Reply, out: &mut Vec<u8>) -> Option<Event> {
        let nobody = !self.open().has_accepted();
        match reply.class() {
            ReplyClass::Completed => Some(self.out_of_order(reply)),
            ReplyClass::Intermediate if self.open().is_misordered => Some(self.out_of_order(reply)),
            // It must refuse (RFC 2033 section 4.2); and how many replies it would give now, nobody knows.
            ReplyClass::Intermediate if nobody && self.is_lmtp() => Some(self.out_of_order(reply)),
            ReplyClass::Intermediate if nobody => {
                out.extend_from_slice(b".\r\n");
                self.enter(now, State::AwaitAbandoned);
                None
            }
            ReplyClass::Intermediate => {
                self.enter(now, State::Sending);
                Some(Event::Send(Framing::Dots))
            }
            ReplyClass::Temporary | ReplyClass::Lasting => {
                self.reset_first = self.open().mail_accepted;
                let failure = self.refusal(Scope::Message, reply, "DATA");
                self.open().fail_accepted(failure);
                Some(self.finish(now))
            }
        }
    }

    /// The reply to `BDAT n LAST`. Where no recipient was accepted it decides nothing: a peer that takes a
    /// message for nobody has delivered none.
    pub(super) fn on_chunk(&mut self, now: Millis, reply: Reply) -> Option<Event> {
        let unknown = matches!(reply.code, 500..=502 | 504);
        let misunderstood = unknown || (reply.code == 503 && self.open().has_accepted());
        if misunderstood && !self.open().some_replied {
            return Some(self.misunderstood_chunk(reply));
        }
        if self.chunk == Chunk::Sending && self.open.len() == 1 {
            return self.on_early_reply(reply);
        }
        if self.is_lmtp() && self.open().has_accepted() {
            return self.on_reply_for_one(now, reply, "BDAT");
        }
        match reply.class() {
            ReplyClass::Intermediate => return Some(self.out_of_order(reply)),
            ReplyClass::Completed if self.open().is_misordered => return Some(self.out_of_order(reply)),
            ReplyClass::Completed => {
                self.reset_first = false;
                self.open().deliver(&reply);
            }
            ReplyClass::Temporary | ReplyClass::Lasting => {
                self.reset_first = self.open().mail_accepted;
                let failure = self.refusal(Scope::Message, reply, "BDAT");
                self.open().fail_accepted(failure);
            }
        }
        Some(self.finish(now))
    }

    /// A peer, or something in front of it, announced CHUNKING and does not know BDAT: that is not about the
    /// message, which waits; and what followed may be taken for commands, so the connection must go.
    fn misunderstood_chunk(&mut self, reply: Reply) -> Event {
        let mut failure = self.refusal(Scope::Host, reply, "BDAT");
        failure.lasting = false;
        failure.status.0 = 4;
        failure
            .text
            .push_str("; it announced CHUNKING all the same: with delivery.chunking = false it gets DATA");
        let failure = failure.cut();
        self.open().fail_accepted(failure.clone());
        // Those behind it were not tried.
        if self.open.len() > 1 {
            return Event::Failed(self.fail(failure));
        }
        self.close();
        self.fates()
    }

    /// A peer that refuses while the content is still on its way has made up its mind; what is left
    /// of the content cannot be taken back, so the connection must go.
    pub(super) fn on_early_reply(&mut self, reply: Reply) -> Option<Event> {
        match reply.class() {
            // Of one recipient; of the others nobody knows.
            ReplyClass::Temporary | ReplyClass::Lasting if self.is_lmtp() && self.open().has_several() => {
                let failure = self.refusal_of_one(reply, "message content");
                self.open().decide_next(Fate::Failed(failure));
                Some(self.spoke_unasked())
            }
            ReplyClass::Temporary | ReplyClass::Lasting => {
                let failure = self.refusal(Scope::Message, reply, "message content");
                self.open().fail_accepted(failure);
                self.close();
                Some(self.fates())
            }
            ReplyClass::Completed | ReplyClass::Intermediate => Some(self.out_of_order(reply)),
        }
    }

    /// RFC 2033 section 4.2: one reply for each recipient that was accepted, in their order.
    fn on_reply_for_one(&mut self, now: Millis, reply: Reply, command: &str) -> Option<Event> {
        let fate = match reply.class() {
            ReplyClass::Intermediate => return Some(self.out_of_order(reply)),
            ReplyClass::Completed if self.open().is_misordered => return Some(self.out_of_order(reply)),
            ReplyClass::Completed => Fate::Delivered(reply),
            ReplyClass::Temporary | ReplyClass::Lasting => Fate::Failed(self.refusal_of_one(reply, command)),
        };
        self.open().decide_next(fate);
        if self.open().has_accepted() {
            self.enter(now, self.state);
            return None;
        }
        self.reset_first = false;
        Some(self.finish(now))
    }

    pub(super) fn on_end_of_data(&mut self, now: Millis, reply: Reply) -> Option<Event> {
        if self.is_lmtp() {
            return self.on_reply_for_one(now, reply, "end of DATA");
        }
        match reply.class() {
            ReplyClass::Completed => self.open().deliver(&reply),
            ReplyClass::Intermediate => return Some(self.out_of_order(reply)),
            ReplyClass::Temporary | ReplyClass::Lasting => {
                let failure = self.refusal(Scope::Message, reply, "end of DATA");
                self.open().fail_accepted(failure);
            }
        }
        self.reset_first = false;
        Some(self.finish(now))
    }
}
