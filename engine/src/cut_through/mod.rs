//! Cut-through: what an ingest shard asks of a delivery shard while a client waits, and what comes back.
//!
//! Everything here is `Send`. Two questions: does the next hop take this recipient (at RCPT), and this message (at
//! end-of-data)?
//!
//! **One message, one place.** The message is at every moment in one of these, which [`Claim`] decides:
//!
//! ```text
//!  offered ──begin()──▶ begun: the next hop is being told ──reply──▶ taken: 250, nothing stays here
//!     │                     │                           └─────────▶ refused by all: 5yz, nothing stays here
//!     │ withdraw()          │ deadline: committed to the spool, 250; whatever the next hop says then is
//!     ▼                     ▼           the outcome of the queued message's first attempt
//!  queued as always      queued, and not handed over before that attempt has ended
//! ```
//!
//! So 250 is said when the message is on the disk or the next hop has taken it, never otherwise; a late reply does
//! not make a duplicate; and what nobody can know (the connection breaks, or the relay dies, between end-of-data and
//! its reply, RFC 1047) is tried again, as everywhere in the relay: rather twice than never.

mod answers;

pub use answers::{Answers, Key};

use crate::shard::links::{Disposition, Fate, HeldContent, NextHop};
use crate::smtp::said::Said;
use crate::tls::outward::PeerTls;
use sluice_queue::{ContentFlags, Envelope, QueueId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::oneshot;

/// A question, for the delivery shard that has connections to the next hop.
pub enum Ask {
    Recipient {
        next_hop: NextHop,
        /// The forward-path without angle brackets; ASCII.
        address: Box<str>,
        wait: Duration,
        reply: oneshot::Sender<Taken>,
    },
    Message(Box<Offer>),
}

/// Whether a next hop takes a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    Yes,
    /// 5yz to RCPT.
    No(Arc<Said>),
    /// 4yz to RCPT.
    NotNow(Arc<Said>),
    /// Nobody said anything of this recipient.
    Unknown,
}

/// A whole message for one next hop.
pub struct Offer {
    pub id: QueueId,
    pub next_hop: NextHop,
    pub recipients: Vec<u32>,
    pub envelope: Arc<Envelope>,
    pub content: HeldContent,
    pub flags: ContentFlags,
    /// For a connection to be had.
    pub wait: Duration,
    pub claim: Arc<Claim>,
    /// Dropped without an answer: nobody knows more of the message than the claim says.
    pub reply: oneshot::Sender<Ended>,
}

/// How an offer ended.
pub enum Ended {
    /// The next hop was not told of the message.
    Untried(String),
    Tried(Box<Tried>),
}

/// What the next hop said of the message.
pub struct Tried {
    /// One for each recipient of the offer. [`Disposition::Deferred`] stands for everything that is not final.
    pub fates: Vec<Fate>,
    /// Of the first recipient that was refused.
    pub said: Option<Said>,
    /// What the next hop asked those to wait that it put off.
    pub wait: Option<Duration>,
    /// `host[ip]:port`.
    pub relay: String,
    pub tls: Option<PeerTls>,
    /// Wall clock, microseconds.
    pub began_micros: u64,
    /// Zero on a connection that was there before.
    pub setup_micros: u64,
    pub ended_micros: u64,
}

impl Tried {
    /// By all of its recipients' next hop, and the sender is owed no notice.
    pub fn is_taken(&self) -> bool {
        !self.fates.is_empty() && self.fates.iter().all(|fate| fate.disposition == Disposition::Delivered)
    }

    /// By the next hop, for one of its recipients at least.
    pub fn is_any_taken(&self) -> bool {
        let is_taken =
            |fate: &Fate| matches!(fate.disposition, Disposition::Delivered | Disposition::Relayed);
        self.fates.iter().any(is_taken)
    }

    /// For all recipients.
    pub fn is_refused(&self) -> bool {
        !self.fates.is_empty() && self.fates.iter().all(|fate| fate.disposition == Disposition::Bounced)
    }
}

/// Who decides over a message that was offered.
#[derive(Debug, Default)]
pub struct Claim(AtomicU8);

const OFFERED: u8 = 0;
const BEGUN: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Claim {
    /// The next hop may be told of the message now; `false`: it was withdrawn.
    #[must_use]
    pub fn begin(&self) -> bool {
        self.0.compare_exchange(OFFERED, BEGUN, SeqCst, SeqCst).is_ok()
    }

    /// The next hop will not be told of the message; `false`: it has been.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        self.0.compare_exchange(OFFERED, WITHDRAWN, SeqCst, SeqCst).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_won_by_one_side() {
        let claim = Claim::default();
        assert!(claim.begin() && !claim.withdraw() && !claim.begin());
        let claim = Claim::default();
        assert!(claim.withdraw() && !claim.begin() && !claim.withdraw());
    }
}
