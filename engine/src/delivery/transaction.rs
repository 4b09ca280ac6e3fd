//! One mail transaction as the client sees it: the commands still to be sent, and where each
//! recipient stands (RFC 5321 section 3.3, RFC 2920).
//!
//! Pure; belongs to one [`Client`](super::client::Client).

use std::io::Write;

use super::extensions::Extensions;
use super::failure::{Failure, Scope};
use super::parameters::{self, Asked, Rcpt};
use super::reply::Reply;
use super::verdict::{Fate, Peer, Status};

/// What is to be sent. The content itself never comes here; the rim streams it.
#[derive(Clone, Debug)]
pub struct Transaction<'a, R> {
    /// The reverse-path without angle brackets; empty for `<>`.
    pub sender: &'a str,
    /// At least one.
    pub recipients: R,
    /// Octets of the content before dot-stuffing, for SIZE (RFC 1870).
    pub content_bytes: u64,
    /// The content has octets above 127.
    pub eight_bit: bool,
    /// What the client asked for when it gave the message.
    pub asked: Asked<'a>,
    /// The session is within TLS, and the peer is who it should be.
    pub secure: bool,
    /// The content was declared `BODY=BINARYMIME` (RFC 3030).
    pub binary: bool,
}

/// How the content follows the commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// After 354.
    Data,
    /// In one chunk behind the commands, in the same group.
    ChunkInGroup,
    /// In one chunk, once a recipient is accepted.
    ChunkAfter,
    /// It does not: the peer is only asked about the recipients.
    None,
}

/// Where one recipient stands.
#[derive(Debug)]
enum Standing {
    /// Decided without a RCPT.
    NotAsked(Fate),
    /// RCPT is not answered yet.
    Asked,
    /// RCPT was answered with 2yz; end-of-data decides.
    Accepted,
    Decided(Fate),
}

/// A transaction that is under way.
#[derive(Debug)]
pub(super) struct Open {
    standings: Vec<Standing>,
    /// The commands as octets, and how much of them has been handed out.
    commands: Vec<u8>,
    sent: usize,
    pub ending: Ending,
    content_bytes: u64,
    /// RSET goes in front.
    pub resets: bool,
    /// A reply to one of the commands has come.
    pub answered: bool,
    /// MAIL was answered with 2yz, so the peer is within a transaction.
    pub mail_accepted: bool,
    /// The peer accepted a recipient after it had refused MAIL.
    pub is_misordered: bool,
    /// By LMTP: a recipient has its reply to the content.
    pub some_replied: bool,
}

impl Open {
    /// Writes the commands and decides at once about the recipients for whom nothing need be asked:
    /// a message too large for the peer, addresses that cannot be put in a command.
    pub fn new<'a, R: Iterator<Item = Rcpt<'a>>>(
        transaction: Transaction<'a, R>,
        ending: Ending,
        reset: bool,
        extensions: &Extensions,
        peer: &Peer,
    ) -> Self {
        let Transaction { binary, .. } = transaction;
        let refused = refuse_locally(&transaction, extensions, peer).or_else(|| {
            let passes = extensions.binary_mime && ending != Ending::Data;
            (binary && !passes).then(|| no_binary(peer))
        });
        let Transaction { sender, recipients, content_bytes, eight_bit, asked, .. } = transaction;
        let utf8 = extensions.smtputf8 && asked.parameters.is_some_and(|of| of.smtputf8);
        let mut commands = Vec::with_capacity(128);
        if reset {
            commands.extend_from_slice(b"RSET\r\n");
        }
        let parameters = parameters::of_mail(&asked, extensions);
        let size = (extensions.size && ending != Ending::None).then_some(content_bytes);
        write_mail(&mut commands, sender, size, (eight_bit, binary), extensions, &parameters);
        let standings: Vec<Standing> = recipients
            .map(|recipient| match &refused {
                Some(failure) => Standing::NotAsked(Fate::Failed(failure.clone())),
                None if !fits_in_a_command(recipient.address) => {
                    Standing::NotAsked(Fate::Failed(bad_recipient()))
                }
                None if !utf8 && !recipient.address.is_ascii() => {
                    Standing::NotAsked(Fate::Failed(parameters::without_utf8(peer)))
                }
                None => {
                    let parameters = parameters::of_rcpt(recipient.parameters, extensions);
                    write_all(&mut commands, format_args!("RCPT TO:<{}>{parameters}\r\n", recipient.address));
                    Standing::Asked
                }
            })
            .collect();
        match ending {
            Ending::Data => commands.extend_from_slice(b"DATA\r\n"),
            Ending::ChunkInGroup => write_chunk(&mut commands, content_bytes),
            Ending::ChunkAfter | Ending::None => {}
        }
        Self {
            standings,
            commands,
            sent: 0,
            ending,
            content_bytes,
            resets: reset,
            answered: false,
            mail_accepted: false,
            is_misordered: false,
            some_replied: false,
        }
    }

    /// Whether there is a recipient about whom the peer is asked.
    pub fn is_asked(&self) -> bool {
        self.next_asked(0).is_some()
    }

    /// The next recipient from `from` on for whom there is a RCPT among the commands.
    pub fn next_asked(&self, from: usize) -> Option<usize> {
        (from..self.standings.len()).find(|&index| !matches!(self.standings[index], Standing::NotAsked(_)))
    }

    /// At least one recipient waits for end-of-data.
    pub fn has_accepted(&self) -> bool {
        self.standings.iter().any(|standing| matches!(standing, Standing::Accepted))
    }

    /// More than one does.
    pub fn has_several(&self) -> bool {
        self.standings.iter().filter(|standing| matches!(standing, Standing::Accepted)).nth(1).is_some()
    }

    /// The first recipient that waits for its reply to the content (RFC 2033 section 4.2).
    pub fn decide_next(&mut self, fate: Fate) {
        let next = self.standings.iter_mut().find(|standing| matches!(standing, Standing::Accepted));
        if let Some(next) = next {
            *next = Standing::Decided(fate);
            self.some_replied = true;
        }
    }

    /// Hands out everything that is left, in one group (RFC 2920 section 3.1).
    pub fn send_group(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.commands[self.sent..]);
        self.sent = self.commands.len();
    }

    /// Hands out the next command.
    pub fn send_one(&mut self, out: &mut Vec<u8>) {
        let rest = &self.commands[self.sent..];
        let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        out.extend_from_slice(&rest[..end]);
        self.sent += end;
    }

    /// The command for a chunk that is to follow now.
    pub fn send_chunk(&self, out: &mut Vec<u8>) {
        write_chunk(out, self.content_bytes);
    }

    pub fn accept(&mut self, index: usize, reply: Reply) {
        match &self.standings[index] {
            Standing::Asked if self.ending == Ending::None => {
                self.standings[index] = Standing::Decided(Fate::Delivered(reply));
            }
            Standing::Asked => self.standings[index] = Standing::Accepted,
            _ => self.is_misordered = true,
        }
    }

    /// A recipient that fell with MAIL keeps that failure: what RCPT says then follows from it.
    pub fn refuse(&mut self, index: usize, failure: Failure) {
        if matches!(self.standings[index], Standing::Asked) {
            self.standings[index] = Standing::Decided(Fate::Failed(failure));
        }
    }

    /// The reply to end-of-data holds for every recipient that was accepted.
    pub fn deliver(&mut self, reply: &Reply) {
        self.decide_accepted(&Fate::Delivered(reply.clone()));
    }

    pub fn fail_accepted(&mut self, failure: Failure) {
        self.decide_accepted(&Fate::Failed(failure));
    }

    /// Every recipient that has no fate yet.
    pub fn fail_undecided(&mut self, failure: &Failure) {
        for standing in &mut self.standings {
            if matches!(standing, Standing::Asked | Standing::Accepted) {
                *standing = Standing::Decided(Fate::Failed(failure.clone()));
            }
        }
    }

    fn decide_accepted(&mut self, fate: &Fate) {
        for standing in &mut self.standings {
            if matches!(standing, Standing::Accepted) {
                *standing = Standing::Decided(fate.clone());
            }
        }
    }

    /// One fate per recipient, in the order given. Every recipient must have been decided.
    pub fn into_fates(self) -> Vec<Fate> {
        let decided = self.standings.into_iter().map(|standing| match standing {
            Standing::Decided(fate) | Standing::NotAsked(fate) => fate,
            undecided => panic!("a transaction ended with a recipient {undecided:?}"),
        });
        decided.collect()
    }
}

fn write_mail(
    commands: &mut Vec<u8>,
    sender: &str,
    size: Option<u64>,
    (eight_bit, binary): (bool, bool),
    extensions: &Extensions,
    parameters: &str,
) {
    write_all(commands, format_args!("MAIL FROM:<{sender}>"));
    if let Some(bytes) = size {
        write_all(commands, format_args!(" SIZE={bytes}"));
    }
    if binary {
        commands.extend_from_slice(b" BODY=BINARYMIME");
    } else if eight_bit && extensions.eight_bit_mime {
        commands.extend_from_slice(b" BODY=8BITMIME");
    }
    commands.extend_from_slice(parameters.as_bytes());
    commands.extend_from_slice(b"\r\n");
}

fn write_chunk(commands: &mut Vec<u8>, octets: u64) {
    write_all(commands, format_args!("BDAT {octets} LAST\r\n"));
}

fn write_all(commands: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    commands.write_fmt(text).expect("a Vec takes everything");
}

/// What speaks against the whole transaction before a word has been said.
fn refuse_locally<R>(
    transaction: &Transaction<'_, R>,
    extensions: &Extensions,
    peer: &Peer,
) -> Option<Failure> {
    let Transaction { sender, content_bytes: bytes, eight_bit, binary, asked, secure, .. } = transaction;
    let bytes = *bytes;
    if let Some(size_max) = extensions.size_max.filter(|&size_max| bytes > size_max) {
        let text = format!(
            "message size {bytes} exceeds size limit {size_max} of server {host}",
            host = peer.host()
        );
        return Some(Failure::local(Scope::Host, Status::TOO_LARGE_FOR_HOST, text));
    }
    if let Some(failure) = parameters::refusal(asked, sender, extensions, peer, *secure) {
        return Some(failure);
    }
    if *eight_bit && !binary && !extensions.eight_bit_mime {
        let text = format!("8BITMIME is required, but was not offered by host {}", peer.host());
        return Some(Failure::local(Scope::Host, Status::NEEDS_EIGHT_BIT, text));
    }
    if !fits_in_a_command(sender) {
        let text = "the sender address has characters that cannot be sent in MAIL".to_owned();
        return Some(Failure::local(Scope::Message, Status::BAD_SENDER_SYNTAX, text));
    }
    None
}

/// RFC 3030 section 3: such a message is converted, which the relay does not, or returned.
fn no_binary(peer: &Peer) -> Failure {
    let text = format!(
        "the message has binary content (BODY=BINARYMIME), which {} does not take; send it again with that encoded in base64",
        peer.host()
    );
    Failure::local(Scope::Host, Status::MEDIA_NOT_SUPPORTED, text)
}

fn bad_recipient() -> Failure {
    let text = "the recipient address has characters that cannot be sent in RCPT".to_owned();
    Failure::local(Scope::Recipient, Status::BAD_RECIPIENT_SYNTAX, text)
}

/// No control characters: a line end would be a command of its own. Whether UTF-8 may be sent is asked apart.
fn fits_in_a_command(path: &str) -> bool {
    path.bytes().all(|byte| byte >= b' ' && byte != 0x7f)
}
