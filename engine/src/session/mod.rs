//! The SMTP server session: octets and a time in, octets and steps out (RFC 5321).
//!
//! Pure: no clock, no I/O, no async, no randomness. It lives on one ingest shard, with the task of its
//! connection, which does what each [`Step`] asks for and tells the session how that went:
//!
//! ```text
//!  AwaitHello ──EHLO/HELO──▶ AwaitMail ──MAIL──▶ AwaitRcpt ──RCPT──▶ AwaitRcptOrData ─┐
//!                              ▲  ▲  ▲             (RSET and EHLO lead back)          │ DATA: Step::Open
//!               committed()    │  │  └── open_failed() ──────────────────────────── AwaitSpool
//!  AwaitCommit ────────────────┘  │                                                   │ opened(): 354
//!    ▲ end-of-data: Step::Commit  └─ end-of-data: 5yz ── AwaitEnd ◀─ Step::Abandon ─ AwaitContent
//!    └────────────────────────────────────────────────────────────────────────────────┘
//!  AwaitMail ──AUTH──▶ AwaitResponse ◀─▶ AwaitAnswer (Step::Authenticate) ──▶ AwaitMail
//!  AwaitRcpt, AwaitRcptOrData ──RCPT──▶ AwaitCheck (Step::Check) ──checked()──▶ AwaitRcpt, AwaitRcptOrData
//!  AwaitRcptOrData ──BDAT: Step::Open──▶ AwaitSpool ──opened()──▶ AwaitChunk ──its end: 250──▶ AwaitBdat
//!                                                                  │    ▲ ◀────────BDAT──────────┘
//!  AwaitMail ◀──its end: 4yz, 5yz── AwaitChunkEnd ◀─ Step::Abandon ┤    └ the end of the last one: Step::Commit
//!  Closed: from everywhere, after QUIT, 421, or a protocol error after which nothing can be trusted
//! ```
//!
//! Contract of [`Session::advance`]: it handles as many commands as the input holds until the rim has to
//! do something, and appends their replies to `out` in order (PIPELINING, RFC 2920). The rim drops the
//! octets that were consumed and brings the others again, in front of new ones. Octets that stay
//! unconsumed with [`Step::Read`] are the start of a line, fewer than [`LINE_OCTETS_MAX`] (in an AUTH exchange
//! `AUTH_OCTETS_MAX`, in content one CR), so a buffer of 16 KiB suffices. `out` is written to the client before more is read, so it is
//! bounded by one buffer of commands and, within a group of them, written whenever it has
//! [`REPLIES_OCTETS_MAX`] octets ([`Step::Flush`]).
//!
//! Defined answers to what should not happen:
//! - A command line ends in CRLF. One that ends in bare LF is not executed: 500, counted as an error.
//! - Octets that came with DATA in one piece, before 354: 503 5.5.0 and the session is closed, for they
//!   could be content taken for commands (RFC 2920 section 3.1 makes DATA the last of a group).
//! - A line longer than the limit is swallowed and answered once with 500; past
//!   [`SWALLOWED_OCTETS_MAX`] the session is closed.
//! - `limits.errors_max` errors are answered; the next one is 421 and the end. A message accepted sets
//!   the count back.
//! - Errors past `limits.soft_errors_max` are answered after a pause that grows ([`Step::Pause`]); `guard` has
//!   this and all else about clients that waste time.
//! - Octets that BDAT announces are never commands, whatever BDAT is answered; when it has no size they
//!   could be taken for some, so the session is closed.
//! - HTTP verbs: 500 and the end, lest a browser be made to talk SMTP.
//! - A peer that `clients` does not admit gets 554 in place of a greeting, and the end.

mod auth;
mod bdat;
mod check;
mod content;
mod context;
mod data;
mod extensions;
mod guard;
mod hello;
mod help;
mod known_now;
mod line;
mod mail;
mod noop;
mod quit;
mod rcpt;
mod received;
mod refused;
mod rset;
mod starttls;
mod tap;
mod vrfy;
mod xclient;

#[cfg(test)]
mod tests;

use bdat::Bdat;
pub use check::Checked;
pub use content::Refusal;
pub use context::{Context, fault, shutting_down, too_many_sessions};
use guard::Guard;
pub use guard::{Allowance, Tally, TurnedAway, turned_away};
pub use known_now::KnownNow;
pub use refused::Note;
use refused::{Argument, Refused};

use crate::smtp::chunks::Chunk;
use crate::smtp::command::{Command, Fault, LINE_OCTETS_MAX};
use crate::smtp::content::{Decoder, Findings};
use crate::smtp::parameters::ENVID_OCTETS_MAX;
use crate::smtp::reply::{self, Answer};
use crate::tls::TlsFacts;
use sluice_queue::{Body, Envelope, MailParameters, QueueId, Recipient};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;

/// Octets of one command line that are swallowed before the session is closed: else a client could send
/// one line for ever.
pub const SWALLOWED_OCTETS_MAX: usize = 64 * 1024;

/// Octets of replies after which they are written before more commands are handled: a group of small
/// commands with long replies must not take memory, nor the executor for long.
pub const REPLIES_OCTETS_MAX: usize = 8 * 1024;

/// More than what the spool needs for a recipient beside its texts, and for parameters of MAIL beside ENVID.
const RECIPIENT_OCTETS: usize = 32;
const PARAMETERS_OCTETS: usize = 64;

/// What the rim does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write `out`, then read more octets.
    Read,
    /// Write `out`, then call [`Session::advance`] again with the rest of the input.
    Flush,
    /// Open a message in the spool, then call [`Session::opened`] or [`Session::open_failed`].
    Open,
    /// Append these octets of the input to the message.
    Content(Range<usize>),
    /// Append these octets, which the input does not have, to the message.
    Insert(&'static [u8]),
    /// Drop the draft: the message will be refused, the session swallows the rest of it and answers at its
    /// end; or the client has given it up between two chunks.
    Abandon,
    /// End-of-data: make message and envelope durable, then call [`Session::committed`].
    Commit,
    /// Write `out`, drop the rest of the input, and make a TLS handshake; then call
    /// [`Session::tls_started`], or close the connection.
    StartTls,
    /// Wait for so many milliseconds without reading, write `out`, then call [`Session::advance`] again with
    /// the rest of the input.
    Pause(u64),
    /// XCLIENT has named another client: see whether it is within its limits, then call
    /// [`Session::readmitted`].
    Readmit,
    /// Ask the keeper of passwords what [`Session::take_ask`] says, then call [`Session::answered`].
    Authenticate,
    /// Ask the next hop whether it takes [`Session::recipient_to_check`], then call [`Session::checked`].
    Check,
    /// Drop the draft if there is one, write `out` and close the connection.
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AwaitHello,
    AwaitMail,
    AwaitRcpt,
    AwaitRcptOrData,
    /// The rim opens a message.
    AwaitSpool,
    AwaitContent,
    /// End-of-data of a message that will be refused.
    AwaitEnd,
    /// The rim commits the message.
    AwaitCommit,
    /// A SASL message of the client.
    AwaitResponse,
    /// The rim asks the keeper of passwords.
    AwaitAnswer,
    /// The rim asks the next hop about the last of the recipients, which stays or goes.
    AwaitCheck,
    /// The rest of a chunk that is content.
    AwaitChunk,
    /// The end of a chunk that will be refused.
    AwaitChunkEnd,
    /// The next chunk of an open message, or another command.
    AwaitBdat,
    /// The rim makes a TLS handshake.
    AwaitHandshake,
    /// The rim counts the client that XCLIENT has named.
    AwaitAdmission,
    Closed,
}

/// What the client said of itself.
#[derive(Debug)]
struct Hello {
    name: String,
    /// EHLO, not HELO.
    extended: bool,
}

/// What MAIL and RCPT said.
#[derive(Debug)]
struct Transaction {
    sender: String,
    size: Option<u64>,
    body: Body,
    parameters: Option<Box<MailParameters>>,
    recipients: Vec<Recipient>,
    /// Recipients refused because there were too many.
    recipients_over: usize,
}

/// One connection of one client.
#[derive(Debug)]
pub struct Session {
    context: Arc<Context>,
    client: IpAddr,
    /// Who connected: the client, or a proxy that speaks for it.
    proxy: IpAddr,
    xclient: Option<Box<xclient::Known>>,
    state: State,
    tls: Option<Box<TlsFacts>>,
    hello: Option<Hello>,
    transaction: Option<Transaction>,
    decoder: Decoder,
    bdat: Bdat,
    queue_id: Option<QueueId>,
    /// Octets of a line that is too long and so far has no end.
    swallowed: usize,
    errors: usize,
    /// Why MAIL is refused.
    refusing: Option<Refusal>,
    /// Refusals that the rim has not taken yet.
    notes: Vec<Note>,
    authentication: Box<auth::Authentication>,
    transactions: usize,
    /// The present or last message has another priority than its client asked for.
    priority_lowered: bool,
    /// The Received field of the present or last message has UTF-8.
    received_utf8: bool,
    /// Microseconds since 1970, as the rim last said.
    wall_micros: u64,
    guard: Box<Guard>,
    /// What the client has said, for those who watch it.
    tap: Option<Box<tap::Tap>>,
    /// The time of the last call that brought one.
    now: u64,
    /// When waiting for what is awaited now began.
    since: u64,
}

/// How a verb's handler ends: with a step for the rim or none, or with a refusal.
type Handled = Result<Option<Step>, Refused>;

impl Session {
    /// Greets the client (RFC 5321 section 3.1), or refuses it when the listener does not admit it.
    /// `now` is milliseconds of any clock that never goes back.
    /// `tls`: what is known of a TLS connection that was made before (RFC 8314 section 3).
    pub fn new(
        context: Arc<Context>,
        client: SocketAddr,
        tls: Option<TlsFacts>,
        now: u64,
        out: &mut Vec<u8>,
    ) -> Self {
        let client = client.ip().to_canonical();
        let admitted = context.rules.admits(context.listener, client);
        if admitted {
            reply::GREETING.put_with(out, &context.hostname);
        } else {
            reply::NOT_ADMITTED.put(out);
        }
        Self {
            decoder: Decoder::new(context.limits.line_bytes_max),
            guard: Box::new(Guard::new(&context, client, now)),
            tap: None,
            context,
            client,
            proxy: client,
            xclient: None,
            state: if admitted { State::AwaitHello } else { State::Closed },
            tls: tls.map(Box::new),
            hello: None,
            transaction: None,
            bdat: Bdat::default(),
            queue_id: None,
            swallowed: 0,
            errors: 0,
            refusing: None,
            notes: Vec::new(),
            authentication: Box::default(),
            transactions: 0,
            priority_lowered: false,
            received_utf8: false,
            wall_micros: 0,
            now,
            since: now,
        }
    }

    /// Handles input; see the contract at the head of this module. Returns the octets consumed and what
    /// the rim does next; the range of [`Step::Content`] counts from the start of `input`.
    ///
    /// # Panics
    /// When the rim owes an answer to [`Step::Open`], [`Step::Commit`], [`Step::StartTls`] or
    /// [`Step::Readmit`], [`Step::Authenticate`] or [`Step::Check`].
    pub fn advance(&mut self, now: u64, input: &[u8], out: &mut Vec<u8>) -> (usize, Step) {
        self.now = now;
        let mut consumed = 0;
        loop {
            let rest = &input[consumed..];
            if out.len() >= REPLIES_OCTETS_MAX && !rest.is_empty() && self.state != State::Closed {
                return (consumed, Step::Flush);
            }
            let (octets, step) = match self.state {
                State::Closed => return (input.len(), Step::Close),
                State::AwaitSpool => panic!("advance() before opened() or open_failed()"),
                State::AwaitCommit => panic!("advance() before committed()"),
                State::AwaitHandshake => panic!("advance() before tls_started()"),
                State::AwaitAdmission => panic!("advance() before readmitted()"),
                State::AwaitAnswer => panic!("advance() before answered()"),
                State::AwaitCheck => panic!("advance() before checked()"),
                State::AwaitChunk | State::AwaitChunkEnd if self.is_chunk_over() => match self.end_chunk(out)
                {
                    Some(step) => (0, Some(step)),
                    None => continue,
                },
                _ if rest.is_empty() => (0, None),
                State::AwaitChunk | State::AwaitChunkEnd => self.chunk(rest, out),
                State::AwaitContent | State::AwaitEnd => self.content(rest, out),
                _ => self.line(rest, out),
            };
            let base = consumed;
            consumed += octets;
            match step {
                Some(Step::Content(range)) => {
                    return (consumed, Step::Content(base + range.start..base + range.end));
                }
                Some(step) => return (consumed, step),
                None if octets == 0 => return (consumed, Step::Read),
                None => {}
            }
        }
    }

    /// The time at which [`Session::timed_out`] is due; the largest number while the rim is at work.
    /// A command must be complete within its time; content must only go on.
    pub fn deadline(&self) -> u64 {
        match self.state {
            State::AwaitSpool
            | State::AwaitCommit
            | State::AwaitHandshake
            | State::AwaitAdmission
            | State::AwaitAnswer
            | State::AwaitCheck
            | State::Closed => u64::MAX,
            _ => self.due().0,
        }
    }

    /// The deadline has passed (RFC 5321 section 4.5.3.2.7). The session is closed: as after
    /// [`Step::Close`], drop the draft if there is one.
    pub fn timed_out(&mut self, out: &mut Vec<u8>) {
        let answer = self.lateness();
        self.close_with(answer, out);
    }

    /// The relay stops (RFC 5321 section 3.8). The session is closed: as after [`Step::Close`], drop the
    /// draft if there is one.
    pub fn shutting_down(&mut self, out: &mut Vec<u8>) {
        self.close_with(&reply::SHUTTING_DOWN, out);
    }

    /// Whether the session has come to its end; what `out` holds is still to be written.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether a message is between DATA, or its first BDAT, and the reply to its end: a drain waits for
    /// these.
    pub fn is_in_message(&self) -> bool {
        match self.state {
            State::AwaitSpool | State::AwaitContent | State::AwaitEnd | State::AwaitCommit => true,
            State::AwaitChunk | State::AwaitChunkEnd | State::AwaitBdat => true,
            State::AwaitHello | State::AwaitMail | State::AwaitRcpt | State::AwaitRcptOrData => false,
            State::AwaitResponse | State::AwaitAnswer | State::AwaitAdmission => false,
            State::AwaitCheck => false,
            State::AwaitHandshake | State::Closed => false,
        }
    }

    /// The command of the present transaction that came last, as Postfix names it of a lost connection.
    pub fn stage(&self) -> &'static str {
        match self.state {
            State::AwaitChunk | State::AwaitChunkEnd | State::AwaitBdat => "BDAT",
            _ if self.is_in_message() => "DATA",
            _ => "RCPT",
        }
    }

    pub fn client(&self) -> IpAddr {
        self.client
    }

    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// The name of the present or last message.
    pub fn queue_id(&self) -> Option<QueueId> {
        self.queue_id
    }

    /// What was seen in the content of the present or last message.
    pub fn findings(&self) -> &Findings {
        self.decoder.findings()
    }

    /// Whether the present or last message has octets above 127, the Received field counted.
    pub fn is_eight_bit(&self) -> bool {
        self.findings().eight_bit || self.received_utf8
    }

    /// What the client called itself in EHLO or HELO.
    pub fn hello_name(&self) -> Option<&str> {
        self.hello.as_ref().map(|hello| hello.name.as_str())
    }

    /// The reverse-path of the open transaction, empty for the null one.
    pub fn sender(&self) -> Option<&str> {
        self.transaction.as_ref().map(|transaction| transaction.sender.as_str())
    }

    /// The recipients accepted in the open transaction.
    pub fn recipients(&self) -> &[Recipient] {
        self.transaction.as_ref().map_or(&[], |transaction| &transaction.recipients)
    }

    /// The message's size as MAIL declared it (RFC 1870), or as its only chunk has it (RFC 3030), for a
    /// reservation of space.
    pub fn declared_size(&self) -> Option<u64> {
        let only_chunk = self.bdat.only_chunk().filter(|_| self.state == State::AwaitSpool);
        only_chunk.or_else(|| self.transaction.as_ref().and_then(|transaction| transaction.size))
    }

    /// The client declared BODY=BINARYMIME.
    fn is_binary(&self) -> bool {
        self.transaction.as_ref().is_some_and(|transaction| transaction.body == Body::Binary)
    }

    /// The time of day, for what clients ask for by it (RFC 4865, RFC 2852): microseconds since 1970.
    pub fn set_wall_clock(&mut self, micros: u64) {
        self.wall_micros = micros;
    }

    /// The open message came with SMTPUTF8 (RFC 6531).
    fn is_utf8(&self) -> bool {
        let parameters = self.transaction.as_ref().and_then(|transaction| transaction.parameters.as_ref());
        parameters.is_some_and(|parameters| parameters.smtputf8)
    }

    /// Octets of the envelope's texts, and some more for each recipient, for the same reservation.
    pub fn envelope_octets(&self) -> usize {
        let recipients = self.recipients().iter().map(|recipient| {
            let orcpt = recipient.parameters.as_ref().map_or(0, |parameters| parameters.orcpt.len());
            recipient.address.len() + orcpt + RECIPIENT_OCTETS
        });
        let texts = [
            &self.context.listener_name,
            self.hello_name().unwrap_or_default(),
            self.sender().unwrap_or_default(),
        ];
        let client = self.client.to_string().len();
        let client = client + ENVID_OCTETS_MAX + PARAMETERS_OCTETS;
        recipients.sum::<usize>() + texts.iter().map(|text| text.len()).sum::<usize>() + client
    }

    /// From now on MAIL is refused for this reason, or not at all.
    pub fn refuse_mail(&mut self, why: Option<Refusal>) {
        self.refusing = why;
    }

    /// The envelope of the message, once, after [`Step::Commit`]. BODY is 8BITMIME also when nobody
    /// declared it and the content has octets above 127.
    ///
    /// # Panics
    /// At any other time.
    pub fn take_envelope(&mut self, arrived_micros: u64) -> Envelope {
        assert_eq!(self.state, State::AwaitCommit, "an envelope is complete only at end-of-data");
        let transaction = self.transaction.take().expect("the envelope is taken once");
        let eight_bit = self.is_eight_bit();
        Envelope {
            sender: transaction.sender,
            recipients: transaction.recipients,
            body: match transaction.body {
                Body::SevenBit if eight_bit => Body::EightBit,
                declared => declared,
            },
            parameters: transaction.parameters,
            arrived_micros,
            listener: self.context.listener_name.clone(),
            helo: self.hello.as_ref().map_or_else(String::new, |hello| hello.name.clone()),
            client: self.client.to_string(),
            origin: None,
        }
    }

    /// One command, or why a line is none.
    fn command(
        &mut self,
        command: Result<Command<'_>, Fault>,
        followed: bool,
        out: &mut Vec<u8>,
    ) -> Option<Step> {
        let (is_rcpt, is_junk) =
            (matches!(command, Ok(Command::Rcpt(_)) | Err(Fault::ForwardPath(_))), guard::is_junk(&command));
        let handled = match command {
            Ok(Command::Bdat(chunk)) => return bdat::bdat(self, chunk, None, out),
            Err(Fault::ChunkMarker(octets)) => {
                return bdat::bdat(self, Chunk { octets, last: false }, Some(&reply::BDAT_SYNTAX), out);
            }
            Ok(command) if self.needs_tls_for(&command) => Err((&reply::TLS_REQUIRED).into()),
            Ok(Command::Ehlo(name)) => hello::hello(self, name, true, out),
            Ok(Command::Helo(name)) => hello::hello(self, name, false, out),
            Ok(Command::Mail(mail)) => mail::mail(self, &mail, out),
            Ok(Command::Rcpt(rcpt)) => rcpt::rcpt(self, &rcpt, out),
            Ok(Command::Data) => data::data(self, followed),
            Ok(Command::Rset) => rset::rset(self, out),
            Ok(Command::Noop) => noop::noop(out),
            Ok(Command::Vrfy) => vrfy::vrfy(out),
            Ok(Command::Help) => help::help(out),
            Ok(Command::Quit) => quit::quit(self, out),
            Ok(Command::Auth(auth)) => auth::auth(self, &auth, out),
            Ok(Command::StartTls) => starttls::starttls(self, out),
            Ok(Command::Xclient(argument)) => xclient::xclient(self, argument),
            Ok(Command::NotOffered(_)) => Err((&reply::NOT_OFFERED).into()),
            Err(fault) => Err(fault.into()),
        };
        self.since = self.now;
        let step = handled.unwrap_or_else(|refused| {
            let refused = if is_rcpt { self.guard_recipient(refused) } else { refused };
            self.refuse(refused, out)
        });
        match step {
            None if is_junk => self.count_junk(out),
            step => step,
        }
    }

    /// Closes the session with an answer whose argument, if any, is the host name.
    fn close_with(&mut self, answer: &'static Answer, out: &mut Vec<u8>) {
        if self.state != State::Closed {
            answer.put_with(out, &self.context.hostname);
            self.close();
        }
    }

    fn close(&mut self) {
        self.state = State::Closed;
        self.transaction = None;
    }
}
