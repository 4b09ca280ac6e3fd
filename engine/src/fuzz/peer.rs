//! The client session with a peer that answers what it likes: every recipient gets exactly one fate, no
//! command line but its own leaves, and nothing panics.
//!
//! The first octet says how many recipients there are, whether a time-out or an end strikes, and what is wanted
//! of TLS and BDAT; the rest is what the peer
//! says, one line at a time, so that nothing comes unasked.

use crate::config::Protocol;
use crate::delivery::client::{
    Asked, Client, ClientSettings, ClientTimeouts, Event, Opening, Rcpt, StartTls, Transaction,
};
use crate::delivery::verdict::Peer;
use std::sync::Arc;

/// Transactions on one connection.
const TRANSACTIONS_MAX: u32 = 4;

pub fn check(input: &[u8]) {
    let Some((&setup, said)) = input.split_first() else { return };
    let recipients = ["r1@b.example", "r2@b.example", "r3@b.example"];
    let recipients = &recipients[..1 + usize::from(setup & 3) % 3];
    let mut peer =
        Conversation { client: client(setup), recipients, binary: setup & 32 != 0, open: false, over: false };
    let mut lines = said.split_inclusive(|&octet| octet == b'\n').peekable();
    let mut reply = Vec::new();
    while let Some(line) = lines.next() {
        // A reply of several lines comes at one go.
        reply.extend_from_slice(line);
        if line.get(3) == Some(&b'-') && lines.peek().is_some() {
            continue;
        }
        peer.feed(&reply);
        reply.clear();
        if peer.over {
            return;
        }
    }
    let end = if setup & 4 == 0 { peer.client.disconnected() } else { peer.client.timed_out() };
    assert_eq!(end.fates.len(), if peer.open { recipients.len() } else { 0 });
}

struct Conversation<'a> {
    client: Client,
    recipients: &'a [&'a str],
    binary: bool,
    open: bool,
    over: bool,
}

impl Conversation<'_> {
    fn feed(&mut self, mut input: &[u8]) {
        loop {
            let mut out = Vec::new();
            let (consumed, event) = self.client.advance(0, input, &mut out);
            input = &input[consumed..];
            assert!(out.is_empty() || out.ends_with(b"\r\n"));
            match event {
                Event::Read => return assert!(input.is_empty()),
                Event::StartTls => {
                    let mut out = Vec::new();
                    self.client.tls_started(0, &mut out);
                    assert!(out.starts_with(b"EHLO "));
                    return;
                }
                Event::Ready => self.begin(),
                Event::Send(_) => self.client.content_sent(0),
                Event::Finished(fates) => {
                    assert!(std::mem::take(&mut self.open) && fates.len() == self.recipients.len());
                    if !self.client.is_ready() || self.client.transactions() >= TRANSACTIONS_MAX {
                        self.over = true;
                        return;
                    }
                    self.begin();
                }
                Event::Failed(end) => {
                    assert_eq!(end.fates.len(), if self.open { self.recipients.len() } else { 0 });
                    self.over = true;
                    return;
                }
                Event::Closed => {
                    self.over = true;
                    return;
                }
            }
        }
    }

    fn begin(&mut self) {
        let mut out = Vec::new();
        let transaction = Transaction {
            sender: "s@a.example",
            content_bytes: 10,
            recipients: self.recipients.iter().map(|&address| Rcpt::from(address)),
            eight_bit: true,
            binary: self.binary,
            asked: Asked { parameters: None, header_utf8: false, now_micros: 0 },
            secure: false,
        };
        self.client.begin(0, transaction, &mut out);
        self.open = true;
    }
}

fn client(setup: u8) -> Client {
    let timeouts = ClientTimeouts { greeting: 1, reply: 1, data: 1, block: 1, end_of_data: 1 };
    let protocol = if setup & 0b11_1000 == 0b11_1000 { Protocol::Lmtp } else { Protocol::Smtp };
    let (hostname, chunking) = ("relay.example".into(), setup & 128 == 0);
    let settings = Arc::new(ClientSettings { hostname, timeouts, chunking, protocol });
    let starttls = [StartTls::Never, StartTls::May, StartTls::Must][usize::from(setup >> 3) % 3];
    let opening = Opening { starttls, in_tls: setup & 64 != 0, login: None };
    let peer = Peer { name: "mx.example".into(), address: "192.0.2.1:25".parse().expect("an address") };
    Client::new(settings, peer, opening, 0)
}
