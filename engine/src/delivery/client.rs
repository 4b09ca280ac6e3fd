//! The SMTP client session (RFC 5321, RFC 2920, RFC 1870, RFC 6152, RFC 2034, RFC 3030, RFC 3207,
//! RFC 4954, RFC 2033), pure: octets and a
//! time in, octets and events out. It never waits, never reads a clock, never touches a socket.
//!
//! ```text
//!  AwaitGreeting ─2yz▶ AwaitEhlo ─2yz▶ Ready ◀──────────────────────────────┐
//!                       ▲  │   │         │                                   │
//!         tls_started() │  │   └──▶ AwaitStartTls ─220▶ AwaitHandshake       │
//!                       └──┼─────────────┼───────────────────┘               │
//!                          │5yz          │ begin()                           │
//!                          ▼             ▼                                   │
//!                      AwaitHelo     [AwaitRset] ▶ AwaitMail ▶ AwaitRcpt ▶ AwaitData
//!                                                                            │354
//!      quit(): Ready ▶ AwaitQuit ▶ Closed      AwaitEndOfData ◀ Sending ◀────┤
//!                                                    │                       │354, nobody accepted
//!                                                    ▼ Finished              ▼
//!                                                  Ready ◀──────────── AwaitAbandoned
//! ```
//!
//! With CHUNKING there is no AwaitData: AwaitRcpt ▶ AwaitChunk ─2yz, 4yz, 5yz▶ Finished ▶ Ready
//!
//! Any state but `AwaitQuit` goes to `Closed` with [`Event::Failed`] on 421, on a reply that does not
//! fit, on a time-out ([`Client::timed_out`]) and on a lost connection ([`Client::disconnected`]).
//!
//! **TLS.** Where the caller wishes it and the peer offers it, STARTTLS follows the first EHLO, and a second
//! EHLO follows the handshake: nothing that was said before it is believed (RFC 3207 section 4.2). Octets
//! behind the 220, which anybody could have put there, end the session. With [`StartTls::Must`] a peer that
//! does not offer it, or refuses it, is one that cannot be used; with [`StartTls::May`] the session goes on.
//!
//! **AUTH.** Where the caller has a login, AUTH follows EHLO (`AwaitAuth`, not in the picture): PLAIN, else
//! LOGIN, and only within TLS unless the login says otherwise. A peer that offers neither, or refuses the login,
//! is one that cannot be used: its messages wait, for the mistake is the operator's and not the sender's.
//!
//! With PIPELINING, MAIL, RCPT… and DATA go out as one group; without it one by one. Where the
//! transaction before was left half way, RSET goes in front.
//!
//! **With CHUNKING** (RFC 3030) the content is one chunk, `BDAT n LAST`, in the same group as MAIL and
//! RCPT: one round trip in all, no dot-stuffing. Content of more than [`UNASKED_BYTES_MAX`], and any without
//! PIPELINING, waits until a recipient is accepted, so that little is ever sent in vain. [`Event::Send`] comes
//! before the first reply then, and replies are read when the content has gone out: those of one group fit
//! into the buffers of the connection. A chunk for which no recipient was accepted is refused by the peer,
//! and every recipient has its fate from its own RCPT. A peer that does not know BDAT although it announced
//! it (500 to 504) is closed, and its recipients wait: no message is returned for that.
//!
//! **Transactions that follow each other** do not wait for each other, where the peer offers PIPELINING:
//! [`Client::can_begin`] says when the next may begin. By DATA that is once the content before has been sent, so
//! that the next group of commands goes with its end, and there are two under way at most. With CHUNKING there
//! may be [`UNDER_WAY_MAX`]; as nobody knows yet how those before end, RSET goes in front of each. Replies come in
//! order, so every event is about the oldest, but for [`Event::Send`] with a chunk, which is about the
//! youngest. When the session fails, the oldest has its fates and the others were not tried: what of them the
//! peer took before nobody can know.
//!
//! **LIMITS** (RFC 9422): past the peer's MAILMAX no transaction begins; how many recipients one has is the caller's
//! to keep ([`Limits::take_share`](super::limits::Limits::take_share)).
//!
//! **How the rim drives it.** Call [`Client::advance`] with what was read (nothing at first, and
//! nothing right after `begin`), write `out`, act on the event; keep calling it with the unconsumed
//! rest until it says [`Event::Read`]. On [`Event::Send`] stream the content, by DATA
//! dot-stuffed and with end-of-data; call `progress` for every block that went out and `content_sent` after the last.
//! A peer that answers before it is asked is closed; what it had decided before stands.
//! When writing fails, read once more before `disconnected`: the peer may have said why.
//! While a group of commands is written, reading must go on, or both sides may wait (RFC 2920
//! section 3.1); a group has at most one RSET, one MAIL, the recipients of one transaction, one DATA or chunk.
//!
//! **LMTP** (RFC 2033) is the same session but for three things: LHLO instead of EHLO, and no HELO; behind the content
//! one reply for each recipient that was accepted, in their order, by DATA and by BDAT; and the peer may have the
//! relay's own name, for it is where mail ends. When it dies between those replies, recipients that had theirs keep
//! it, and the others have failed with the session and are tried again.
//!
//! **What a lost connection means.** Before end-of-data, or the chunk, has been sent completely, nothing was
//! delivered. Between that and its reply nobody can know (RFC 1047); the recipients are then tried
//! again, so a message may arrive twice, but is never lost. A chunk in one group has gone before the first
//! reply, so a reused connection that is lost without any leads to another attempt at once all the same.
//!
//! **8-bit content to a peer without 8BITMIME** is not sent: the next host is tried, and in the end the
//! message is returned with 5.6.3 (RFC 6152 section 3). Re-encoding it would break signatures. What was declared 8BITMIME
//! and is in truth ASCII goes to every peer. What else was asked for: [`parameters`](super::parameters).

mod auth;
mod event;
mod failing;
mod settings;
mod steps;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use self::auth::Proof;
pub use self::event::{Event, SessionFailure};
pub use self::settings::{ClientSettings, ClientTimeouts, Millis, Opening, StartTls};
use super::extensions::Extensions;
use super::failure::{Failure, Scope};
pub use super::parameters::{Asked, Rcpt};
use super::reply::Reply;
use super::reply_reader::ReplyReader;
pub use super::transaction::Transaction;
use super::transaction::{Ending, Open};
use super::verdict::{Peer, Status};
use crate::config::Protocol;
use crate::smtp::content::Framing;

/// Octets of content that go behind the commands before any of them is answered; as much is sent in vain
/// when no recipient is accepted.
pub const UNASKED_BYTES_MAX: u64 = 64 * 1024;

/// Transactions that may be under way in one session. Bounds the replies that may be on their way while
/// the rim writes, and what is sent once more when the connection breaks.
pub const UNDER_WAY_MAX: usize = 32;

/// What the rim does about a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    /// Nothing: there is none, or it has been sent.
    None,
    /// It is to be told to send it.
    Due,
    /// It streams it.
    Sending,
}

/// What the session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AwaitGreeting,
    AwaitEhlo,
    AwaitHelo,
    AwaitStartTls,
    /// The rim makes a TLS handshake.
    AwaitHandshake,
    /// The reply to AUTH, or to one of its responses.
    AwaitAuth(Proof),
    Ready,
    AwaitRset,
    AwaitMail,
    /// The reply to RCPT for the recipient of this index.
    AwaitRcpt(usize),
    AwaitData,
    /// All recipients have their fates and nothing need be asked.
    Decided,
    /// The rim streams the content.
    Sending,
    AwaitEndOfData,
    /// The reply to the chunk, while it is sent and behind it.
    AwaitChunk,
    /// 354 came although every recipient was refused; a single `.` was sent (RFC 2920 section 3.1).
    AwaitAbandoned,
    AwaitQuit,
    Closed,
}

/// One session, from the greeting to its end. Lives and stays on one delivery shard.
#[derive(Debug)]
pub struct Client {
    settings: Arc<ClientSettings>,
    peer: Peer,
    reader: ReplyReader,
    extensions: Extensions,
    state: State,
    chunk: Chunk,
    deadline: Millis,
    opening: Opening,
    /// The transactions under way, the oldest first; `state` is about it.
    open: VecDeque<Open>,
    /// The peer may still be within the transaction before; RSET goes in front of the next MAIL.
    reset_first: bool,
    /// MAIL commands that were said; only these count for MAILMAX.
    mails: u32,
    transactions: u32,
    /// The last reply to MAIL put the message off.
    mail_put_off: bool,
}

impl Client {
    /// A session on a fresh TCP connection; the peer speaks first.
    pub fn new(settings: Arc<ClientSettings>, peer: Peer, opening: Opening, now: Millis) -> Self {
        let mut client = Self {
            settings,
            peer,
            reader: ReplyReader::default(),
            extensions: Extensions::default(),
            state: State::AwaitGreeting,
            chunk: Chunk::None,
            deadline: 0,
            opening,
            open: VecDeque::new(),
            reset_first: false,
            mails: 0,
            transactions: 0,
            mail_put_off: false,
        };
        client.enter(now, State::AwaitGreeting);
        client
    }

    /// Takes octets from `input` until something is to be done. Returns how many were taken; call
    /// again with the rest unless the event is [`Event::Read`], which comes when all were taken.
    /// Commands for the peer are appended to `out`.
    pub fn advance(&mut self, now: Millis, input: &[u8], out: &mut Vec<u8>) -> (usize, Event) {
        let mut consumed = 0;
        loop {
            match self.state {
                State::Decided => return (consumed, self.finish(now)),
                State::Closed => return (input.len(), Event::Closed),
                _ => {}
            }
            if self.chunk == Chunk::Due {
                self.chunk = Chunk::Sending;
                self.enter(now, self.state);
                return (consumed, Event::Send(Framing::Counted));
            }
            match self.reader.read(&input[consumed..]) {
                Ok((taken, None)) => return (consumed + taken, Event::Read),
                Ok((taken, Some(reply))) => {
                    consumed += taken;
                    let out_before = out.len();
                    let event = self.take(now, reply, out);
                    // Behind the end of a transaction come the replies to the next one's commands.
                    let goes_on = matches!(event, Some(Event::Finished(_))) && !self.open.is_empty();
                    let rest_is_unasked =
                        consumed < input.len() && !goes_on && (event.is_some() || out.len() > out_before);
                    if rest_is_unasked {
                        out.truncate(out_before);
                        return (input.len(), self.refuse_the_rest(event));
                    }
                    if let Some(event) = event {
                        return (consumed, event);
                    }
                }
                Err(bad) => return (input.len(), self.give_up_on(bad)),
            }
        }
    }

    /// Starts a transaction; [`Client::can_begin`] must say so. Call [`Client::advance`] next, before
    /// waiting for input: it may be over already.
    pub fn begin<'a, R>(&mut self, now: Millis, transaction: Transaction<'a, R>, out: &mut Vec<u8>)
    where
        R: Iterator<Item = Rcpt<'a>>,
    {
        assert!(self.can_begin(), "a transaction was begun on a session that is not ready");
        let ending = match self.settings.chunking && self.extensions.chunking {
            false => Ending::Data,
            true if self.extensions.pipelining && transaction.content_bytes <= UNASKED_BYTES_MAX => {
                Ending::ChunkInGroup
            }
            true => Ending::ChunkAfter,
        };
        self.begin_with(now, transaction, ending, out);
    }

    /// Asks whether the peer takes a recipient, with the null reverse-path and without a message; as
    /// [`Client::begin`]. Taken is [`Fate::Delivered`]. The peer is reset before the next transaction.
    ///
    /// [`Fate::Delivered`]: super::verdict::Fate::Delivered
    pub fn ask(&mut self, now: Millis, recipient: &str, out: &mut Vec<u8>) {
        assert!(self.can_begin(), "a recipient was asked about on a session that is not ready");
        let transaction = Transaction {
            sender: "",
            recipients: std::iter::once(Rcpt::from(recipient)),
            content_bytes: 0,
            eight_bit: false,
            binary: false,
            asked: Asked::default(),
            secure: false,
        };
        self.begin_with(now, transaction, Ending::None, out);
    }

    fn begin_with<'a, R>(
        &mut self,
        now: Millis,
        transaction: Transaction<'a, R>,
        ending: Ending,
        out: &mut Vec<u8>,
    ) where
        R: Iterator<Item = Rcpt<'a>>,
    {
        // How a chunk that is not answered yet leaves the peer, nobody knows; after a message by DATA
        // there is nothing left to reset (RFC 5321 section 4.1.1.4).
        let reset = match self.open.back() {
            None => self.reset_first,
            Some(before) => before.ending != Ending::Data,
        };
        let mut open = Open::new(transaction, ending, reset, &self.extensions, &self.peer);
        if open.is_asked() {
            self.mails = self.mails.saturating_add(1);
            if self.extensions.pipelining {
                open.send_group(out)
            } else {
                open.send_one(out)
            }
            if ending == Ending::ChunkInGroup {
                self.chunk = Chunk::Due;
            }
        }
        self.open.push_back(open);
        if self.open.len() == 1 {
            self.enter_first(now);
        }
    }

    /// Whether another transaction may begin now, though others may be under way.
    pub fn can_begin(&self) -> bool {
        if self.extensions.limits.mails.is_some_and(|max| self.mails >= max) {
            return false;
        }
        let Some(last) = self.open.back() else { return self.state == State::Ready };
        if !self.extensions.pipelining || self.chunk != Chunk::None || self.state == State::Closed {
            return false;
        }
        match last.ending {
            // What waits for an answer before its content goes is in the way of all behind it.
            _ if !last.is_asked() => false,
            Ending::None => false,
            Ending::Data => self.open.len() == 1 && self.state == State::AwaitEndOfData,
            Ending::ChunkInGroup => self.open.len() < UNDER_WAY_MAX,
            Ending::ChunkAfter => self.open.len() == 1 && self.state == State::AwaitChunk,
        }
    }

    /// Transactions under way.
    pub fn under_way(&self) -> usize {
        self.open.len()
    }

    /// Waits for what the oldest transaction is to hear first.
    fn enter_first(&mut self, now: Millis) {
        let state = match self.open.front() {
            None => State::Ready,
            Some(open) if !open.is_asked() => State::Decided,
            Some(open) if open.resets => State::AwaitRset,
            Some(_) => State::AwaitMail,
        };
        self.enter(now, state);
    }

    /// The handshake that [`Event::StartTls`] asked for has been made. Appends EHLO to `out`; call
    /// [`Client::advance`] next.
    pub fn tls_started(&mut self, now: Millis, out: &mut Vec<u8>) {
        assert_eq!(self.state, State::AwaitHandshake, "tls_started() answers Event::StartTls");
        self.opening.in_tls = true;
        self.extensions = Extensions::default();
        self.reader = ReplyReader::default();
        self.say_ehlo(now, out);
    }

    /// A block of content went out: restarts the block timer.
    pub fn progress(&mut self, now: Millis) {
        if self.state == State::Sending || self.chunk == Chunk::Sending {
            self.enter(now, self.state);
        }
    }

    /// The whole content, and end-of-data behind what is not counted, have been written.
    pub fn content_sent(&mut self, now: Millis) {
        if self.chunk == Chunk::Sending {
            self.chunk = Chunk::None;
            self.enter(now, self.state);
        } else if self.state == State::Sending {
            self.enter(now, State::AwaitEndOfData);
        }
    }

    /// Says QUIT when the session is ready; in any other state it just ends the session, which is
    /// then to be closed. [`Event::Closed`] follows either way.
    pub fn quit(&mut self, now: Millis, out: &mut Vec<u8>) {
        if self.state == State::Ready {
            out.extend_from_slice(b"QUIT\r\n");
            self.enter(now, State::AwaitQuit);
        } else if self.state != State::AwaitQuit {
            self.close();
        }
    }

    /// When [`Client::timed_out`] is to be called; `u64::MAX` while nothing is awaited.
    pub fn deadline(&self) -> Millis {
        self.deadline
    }

    /// Nothing is under way: `begin` and `quit` may be called.
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// The session has come to its end: the connection is to be closed.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// What the peer offered; nothing before [`Event::Ready`].
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Transactions that came to an end on this connection.
    pub fn transactions(&self) -> u32 {
        self.transactions
    }

    /// The last message that came to its end was put off at MAIL, before anything of it was sent.
    pub fn is_put_off_at_mail(&self) -> bool {
        self.mail_put_off
    }

    /// The deadline has passed: the connection is to be closed.
    pub fn timed_out(&mut self) -> SessionFailure {
        let text = format!("conversation with {} timed out while {}", self.peer.host(), self.doing());
        self.fail(Failure::local(Scope::Session, Status::BAD_CONNECTION, text))
    }

    /// The peer closed the connection, or it broke.
    pub fn disconnected(&mut self) -> SessionFailure {
        let text = format!("lost connection with {} while {}", self.peer.host(), self.doing());
        self.fail(Failure::local(Scope::Session, Status::BAD_CONNECTION, text))
    }

    /// The parent of all states: one reply, one step.
    fn take(&mut self, now: Millis, reply: Reply, out: &mut Vec<u8>) -> Option<Event> {
        if reply.code == 421 && self.state != State::AwaitQuit {
            return Some(self.refused_session(reply));
        }
        if let Some(open) = self.open.front_mut() {
            open.answered = true;
        }
        match self.state {
            State::AwaitGreeting => self.on_greeting(now, reply, out),
            State::AwaitEhlo => self.on_ehlo(now, reply, out),
            State::AwaitHelo => self.on_helo(now, reply, out),
            State::AwaitStartTls => self.on_starttls(now, reply, out),
            State::AwaitAuth(proof) => self.on_auth(now, proof, reply, out),
            State::AwaitRset => self.on_rset(now, reply, out),
            State::AwaitMail => self.on_mail(now, reply, out),
            State::AwaitRcpt(index) => self.on_rcpt(now, index, reply, out),
            State::AwaitData => self.on_data(now, reply, out),
            State::Sending => self.on_early_reply(reply),
            State::AwaitEndOfData => self.on_end_of_data(now, reply),
            State::AwaitChunk => self.on_chunk(now, reply),
            State::AwaitAbandoned => {
                self.reset_first = false;
                Some(self.finish(now))
            }
            State::AwaitQuit => {
                self.close();
                Some(Event::Closed)
            }
            State::Ready | State::AwaitHandshake => Some(self.out_of_order(reply)),
            State::Decided | State::Closed => unreachable!("advance reads no reply in this state"),
        }
    }

    /// The peer cannot have seen yet what it is told or asked next, so octets behind the reply are no
    /// answer to that; a 250 sent ahead would pass for the reply to the content.
    fn refuse_the_rest(&mut self, event: Option<Event>) -> Event {
        match event {
            Some(Event::Finished(fates)) => {
                self.close();
                Event::Finished(fates)
            }
            Some(Event::Failed(end)) => Event::Failed(end),
            Some(Event::Closed) => Event::Closed,
            Some(Event::Ready | Event::Send(_) | Event::Read | Event::StartTls) | None => {
                self.spoke_unasked()
            }
        }
    }

    fn is_lmtp(&self) -> bool {
        self.settings.protocol == Protocol::Lmtp
    }

    fn open(&mut self) -> &mut Open {
        self.open.front_mut().expect("states within a transaction have one open")
    }

    /// Without PIPELINING the next command waits for the reply to the one before.
    fn send_next(&mut self, out: &mut Vec<u8>) {
        if !self.extensions.pipelining {
            self.open().send_one(out);
        }
    }

    fn finish(&mut self, now: Millis) -> Event {
        let finished = self.fates();
        self.enter_first(now);
        finished
    }

    fn fates(&mut self) -> Event {
        self.transactions = self.transactions.saturating_add(1);
        let open = self.open.pop_front().expect("a transaction that ends is open");
        Event::Finished(open.into_fates())
    }

    fn close(&mut self) {
        self.state = State::Closed;
        self.chunk = Chunk::None;
        self.deadline = Millis::MAX;
    }

    fn enter(&mut self, now: Millis, state: State) {
        let timeouts = &self.settings.timeouts;
        let patience = match state {
            _ if self.chunk == Chunk::Sending => timeouts.block,
            State::AwaitGreeting => timeouts.greeting,
            State::AwaitData => timeouts.data,
            State::Sending => timeouts.block,
            State::AwaitEndOfData | State::AwaitChunk | State::AwaitAbandoned => timeouts.end_of_data,
            State::Ready | State::Decided | State::Closed | State::AwaitHandshake => Millis::MAX,
            State::AwaitEhlo | State::AwaitHelo | State::AwaitStartTls | State::AwaitAuth(_) => {
                timeouts.reply
            }
            State::AwaitRset => timeouts.reply,
            State::AwaitMail | State::AwaitRcpt(_) | State::AwaitQuit => timeouts.reply,
        };
        self.state = state;
        self.deadline = now.saturating_add(patience);
    }
}
