//! The sink's side of a dialogue (RFC 5321, 2920, 1870, 6152, 3030). Pure: octets in, replies out.
//!
//! States: `AwaitCommand` → DATA → `AwaitContent` → end of data → `AwaitCommand`;
//! `AwaitCommand` → BDAT n → `AwaitChunk` → n octets → `AwaitCommand`. A transaction is open between MAIL and the
//! end of its message; RSET, EHLO and HELO end it without one.

use super::faults::{Faults, Phase};
use super::report::Tally;
use super::verify::Verifier;
use crate::wire::{Content, Lines};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Read,
    /// After the replies have been sent.
    Close,
    /// After the replies have been sent: what was read behind the command is gone (RFC 3207 section 4.2).
    StartTls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "states are named for what they await")]
enum State {
    AwaitCommand,
    AwaitContent,
    AwaitChunk { left: u64, last: bool },
}

pub struct Session {
    state: State,
    lines: Lines,
    line: Vec<u8>,
    content: Content,
    verifier: Verifier,
    chunking: bool,
    starttls: bool,
    mail: bool,
    /// Accepted recipients of the open transaction.
    recipients: u64,
    /// CRC of the first one's address, to tell a repeated message from a divided one.
    first_recipient: u32,
}

impl Session {
    pub fn new(chunking: bool, starttls: bool) -> Self {
        Session {
            state: State::AwaitCommand,
            lines: Lines::default(),
            line: Vec::new(),
            content: Content::default(),
            verifier: Verifier::default(),
            chunking,
            starttls,
            mail: false,
            recipients: 0,
            first_recipient: 0,
        }
    }

    pub fn greet(&mut self, full: bool, faults: &mut Faults, out: &mut Vec<u8>) -> Next {
        let strike = if full { Some(421) } else { faults.strike(Phase::Connect) };
        match strike {
            Some(code) => {
                refuse(code, out);
                Next::Close
            }
            None => {
                out.extend_from_slice(b"220 sink.example ESMTP\r\n");
                Next::Read
            }
        }
    }

    /// Whether a message is underway.
    pub fn in_transaction(&self) -> bool {
        self.mail
    }

    /// Takes what was read, to the last octet; appends the replies in order.
    pub fn handle(
        &mut self,
        mut input: &[u8],
        faults: &mut Faults,
        tally: &mut Tally,
        out: &mut Vec<u8>,
    ) -> Next {
        while !input.is_empty() {
            match self.state {
                State::AwaitCommand => {
                    let mut line = std::mem::take(&mut self.line);
                    let complete = self.lines.take(&mut input, &mut line);
                    let next = match complete {
                        Ok(true) => self.command(&line, faults, tally, out),
                        Ok(false) => Next::Read,
                        Err(_) => {
                            tally.protocol_errors += 1;
                            out.extend_from_slice(b"500 5.5.2 line too long\r\n");
                            Next::Close
                        }
                    };
                    self.line = line;
                    if next != Next::Read {
                        return next;
                    }
                }
                State::AwaitContent => {
                    let verifier = &mut self.verifier;
                    if self.content.take(&mut input, |octets| verifier.take(octets)) {
                        self.finish(faults, tally, out);
                    }
                }
                State::AwaitChunk { left, last } => {
                    let (chunk, rest) = input.split_at(left.min(input.len() as u64) as usize);
                    input = rest;
                    self.verifier.take(chunk);
                    self.chunk(left - chunk.len() as u64, last, faults, tally, out);
                }
            }
        }
        Next::Read
    }

    fn command(&mut self, line: &[u8], faults: &mut Faults, tally: &mut Tally, out: &mut Vec<u8>) -> Next {
        let end = memchr::memchr(b' ', line).unwrap_or(line.len());
        let (verb, rest) = line.split_at(end);
        let verb = verb.to_ascii_uppercase();
        let reply: &[u8] = match &verb[..] {
            b"EHLO" | b"HELO" => return self.hello(&verb, faults, tally, out),
            b"MAIL" => return self.mail(faults, tally, out),
            b"RCPT" => return self.rcpt(rest, faults, tally, out),
            b"DATA" => return self.data(faults, tally, out),
            b"BDAT" if self.chunking => return self.bdat(rest, faults, tally, out),
            b"RSET" => {
                self.reset();
                b"250 2.0.0 ok\r\n"
            }
            b"NOOP" => b"250 2.0.0 ok\r\n",
            b"STARTTLS" if self.starttls => {
                self.reset();
                self.starttls = false;
                out.extend_from_slice(b"220 2.0.0 go on\r\n");
                return Next::StartTls;
            }
            b"QUIT" => {
                self.reset();
                out.extend_from_slice(b"221 2.0.0 bye\r\n");
                return Next::Close;
            }
            _ => {
                tally.protocol_errors += 1;
                b"500 5.5.2 unknown command\r\n"
            }
        };
        out.extend_from_slice(reply);
        Next::Read
    }

    fn hello(&mut self, verb: &[u8], faults: &mut Faults, tally: &mut Tally, out: &mut Vec<u8>) -> Next {
        self.reset();
        if let Some(code) = faults.strike(Phase::Ehlo) {
            return strike(code, "ehlo", tally, out);
        }
        if verb == b"HELO" {
            out.extend_from_slice(b"250 sink.example\r\n");
            return Next::Read;
        }
        out.extend_from_slice(b"250-sink.example\r\n250-PIPELINING\r\n250-SIZE 0\r\n");
        if self.chunking {
            out.extend_from_slice(b"250-CHUNKING\r\n");
        }
        if self.starttls {
            out.extend_from_slice(b"250-STARTTLS\r\n");
        }
        out.extend_from_slice(b"250 8BITMIME\r\n");
        Next::Read
    }

    fn mail(&mut self, faults: &mut Faults, tally: &mut Tally, out: &mut Vec<u8>) -> Next {
        if self.mail {
            return wrong_order("503 5.5.1 a transaction is open", tally, out);
        }
        if let Some(code) = faults.strike(Phase::Mail) {
            return strike(code, "mail", tally, out);
        }
        self.mail = true;
        out.extend_from_slice(b"250 2.1.0 ok\r\n");
        Next::Read
    }

    fn rcpt(&mut self, rest: &[u8], faults: &mut Faults, tally: &mut Tally, out: &mut Vec<u8>) -> Next {
        if !self.mail {
            // In a pipelined group this is the answer to a refused MAIL, not the client's mistake.
            out.extend_from_slice(b"503 5.5.1 MAIL first\r\n");
            return Next::Read;
        }
        if let Some(code) = faults.strike(Phase::Rcpt) {
            return strike(code, "rcpt", tally, out);
        }
        if self.recipients == 0 {
            self.first_recipient = crc32c::crc32c(&rest.to_ascii_lowercase());
        }
        self.recipients += 1;
        out.extend_from_slice(b"250 2.1.5 ok\r\n");
        Next::Read
    }

    fn data(&mut self, faults: &mut Faults, tally: &mut Tally, out: &mut Vec<u8>) -> Next {
        if self.recipients == 0 {
            out.extend_from_slice(b"503 5.5.1 no valid recipients\r\n");
            return Next::Read;
        }
        if let Some(code) = faults.strike(Phase::Data) {
            return strike(code, "data", tally, out);
        }
        self.state = State::AwaitContent;
        out.extend_from_slice(b"354 go on\r\n");
        Next::Read
    }

    fn bdat(&mut self, rest: &[u8], faults: &mut Faults, tally: &mut Tally, out: &mut Vec<u8>) -> Next {
        let text = String::from_utf8_lossy(rest).to_ascii_uppercase();
        let mut words = text.split_whitespace();
        let (size, last) = (words.next().and_then(|word| word.parse().ok()), words.next());
        let (Some(left), None | Some("LAST")) = (size, last) else {
            tally.protocol_errors += 1;
            // Where the next command begins cannot be known.
            out.extend_from_slice(b"501 5.5.4 BDAT needs a size\r\n");
            return Next::Close;
        };
        self.state = State::AwaitChunk { left, last: last.is_some() };
        if left == 0 {
            self.chunk(0, last.is_some(), faults, tally, out);
        }
        Next::Read
    }

    fn chunk(&mut self, left: u64, last: bool, faults: &mut Faults, tally: &mut Tally, out: &mut Vec<u8>) {
        self.state = match left {
            0 => State::AwaitCommand,
            _ => State::AwaitChunk { left, last },
        };
        match (left, last) {
            (0, _) if self.recipients == 0 => {
                self.verifier.finish();
                out.extend_from_slice(b"503 5.5.1 no valid recipients\r\n");
            }
            (0, true) => self.finish(faults, tally, out),
            (0, false) => out.extend_from_slice(b"250 2.0.0 ok\r\n"),
            _ => {}
        }
    }

    /// A message has come whole.
    fn finish(&mut self, faults: &mut Faults, tally: &mut Tally, out: &mut Vec<u8>) {
        let octets = self.verifier.octets();
        let verdict = self.verifier.finish();
        match faults.strike(Phase::Dot) {
            Some(code) => {
                strike(code, "dot", tally, out);
            }
            None => {
                tally.message(verdict, octets, self.recipients, self.first_recipient);
                out.extend_from_slice(b"250 2.0.0 ok\r\n");
            }
        }
        self.reset();
    }

    fn reset(&mut self) {
        self.state = State::AwaitCommand;
        self.verifier.finish();
        self.mail = false;
        self.recipients = 0;
    }
}

fn strike(code: u16, phase: &str, tally: &mut Tally, out: &mut Vec<u8>) -> Next {
    *tally.refused.entry(format!("{phase} {code}")).or_default() += 1;
    refuse(code, out);
    // RFC 5321 3.8: with 421 the server closes.
    if code == 421 { Next::Close } else { Next::Read }
}

fn refuse(code: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{code} {}.0.0 refused on purpose\r\n", code / 100).as_bytes());
}

fn wrong_order(reply: &str, tally: &mut Tally, out: &mut Vec<u8>) -> Next {
    tally.protocol_errors += 1;
    out.extend_from_slice(reply.as_bytes());
    out.extend_from_slice(b"\r\n");
    Next::Read
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
