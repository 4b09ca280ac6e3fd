//! What clients know of the messages that they sent into a relay that is cut off again and again: which
//! were acknowledged. None of those may be lost, none may be corrupt; a message may come twice.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::message::{number_of, numbered, without_received};
use crate::wait::{SOON, until_true};
use crate::{Client, Inbox, Relay};

/// Clients that send at the same time.
const CLIENTS: usize = 8;

/// What the clients know, over all rounds.
#[derive(Default)]
pub struct Ledger {
    next: AtomicUsize,
    acknowledged: Mutex<Vec<usize>>,
    unanswered: AtomicUsize,
    refused: Mutex<Vec<String>>,
}

/// What came of the messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    pub acknowledged: usize,
    /// Acknowledged, and not delivered.
    pub lost: Vec<usize>,
    /// Deliveries beyond the first of a message.
    pub duplicates: usize,
    pub unanswered: usize,
    /// Delivered though the client never heard of it.
    pub unanswered_delivered: usize,
}

/// How many rounds a test goes: its own number, or what `SLUICE_ROUNDS` asks for.
///
/// # Panics
/// When `SLUICE_ROUNDS` is no number.
pub fn rounds(usual: usize) -> usize {
    match std::env::var("SLUICE_ROUNDS") {
        Ok(asked) => asked.parse().expect("SLUICE_ROUNDS is a number"),
        Err(_) => usual,
    }
}

/// The size of a message by its number: small ones, and some of several blocks.
fn octets(number: usize) -> usize {
    match number % 16 {
        0 => 70_000,
        1..=3 => 4096,
        _ => 400 + number % 700,
    }
}

impl Ledger {
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.lock().expect("ledger").len()
    }

    /// Replies other than 250 that clients have got at the end of a message.
    pub fn refusals(&self) -> Vec<String> {
        self.refused.lock().expect("ledger").clone()
    }

    /// Load on a relay until `enough` more messages are acknowledged or `over` says so; then `cut`, after
    /// which the relay must answer nobody any more, and the clients' end.
    pub fn load(
        &self,
        relay: &mut Relay,
        enough: usize,
        mut over: impl FnMut() -> bool,
        cut: impl FnOnce(&mut Relay),
    ) {
        let (outside, goal) = (relay.outside(), self.acknowledged() + enough);
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| self.send_until_cut(outside));
            }
            until_true(SOON * 2, "the round's messages are acknowledged", || {
                assert!(relay.is_running(), "the relay died by itself:\n{}", relay.log().tail());
                over() || self.acknowledged() >= goal
            });
            cut(relay);
        });
    }

    /// Sends until the relay is gone or takes no more.
    fn send_until_cut(&self, relay: SocketAddr) {
        let Ok((mut client, greeting)) = Client::try_connect(relay) else { return };
        if greeting.code != 220
            || client.try_send(b"EHLO client.test\r\n").is_err()
            || client.try_reply().is_err()
        {
            return;
        }
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            match client.try_message("x@away.test", "bob@inside.test", &numbered(number, octets(number))) {
                Ok(reply) if reply.code == 250 => {
                    self.acknowledged.lock().expect("ledger").push(number);
                }
                Ok(reply) => return self.refused.lock().expect("ledger").push(reply.text()),
                Err(_) => {
                    self.unanswered.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
        }
    }

    /// Compares with what has been delivered.
    ///
    /// # Panics
    /// When a message was delivered with other octets than those sent.
    pub fn balance(&self, inbox: &Inbox) -> Balance {
        let mut copies = vec![0usize; self.next.load(Ordering::Relaxed)];
        inbox.for_each(|got| {
            let number = number_of(without_received(&got.content)).expect("an uncorrupted message");
            copies[number] += 1;
        });
        let acknowledged = self.acknowledged.lock().expect("ledger");
        let lost: Vec<usize> = acknowledged.iter().copied().filter(|&number| copies[number] == 0).collect();
        let delivered = copies.iter().filter(|&&copies| copies > 0).count();
        Balance {
            acknowledged: acknowledged.len(),
            duplicates: copies.iter().map(|copies| copies.saturating_sub(1)).sum(),
            unanswered: self.unanswered.load(Ordering::Relaxed),
            unanswered_delivered: delivered + lost.len() - acknowledged.len(),
            lost,
        }
    }
}
