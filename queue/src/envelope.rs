//! What the spool knows of a message beside its octets (RFC 5321 section 2.3.1).
//!
//! Plain data, `Send`, shared between an ingest shard and the delivery shards behind an `Arc`.

use crate::ancestry::Origin;
use crate::parameters::{DeliverBy, MailParameters, Notify, RcptParameters, Schedule};

/// The envelope of a message, as it was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The reverse-path without its angle brackets; empty is the null reverse-path `<>`.
    pub sender: String,
    /// At least one; their order is the order of RCPT, and their index is their name in outcomes.
    pub recipients: Vec<Recipient>,
    /// The BODY parameter of MAIL (RFC 6152, RFC 3030).
    pub body: Body,
    /// Microseconds since 1970 when end-of-data was reached.
    pub arrived_micros: u64,
    /// The listener that took the message in; `dsn` for a message that the relay made itself.
    pub listener: String,
    /// What the client called itself in EHLO or HELO.
    pub helo: String,
    /// The client's address, as text without a port; empty for the relay's own messages.
    pub client: String,
    /// The name that the message had first, when it was moved or restored from another spool.
    pub origin: Option<Origin>,
    /// What MAIL asked for by parameters beside SIZE and BODY; `None` for most messages.
    pub parameters: Option<Box<MailParameters>>,
}

/// One forward-path of an envelope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipient {
    /// The forward-path without its angle brackets.
    pub address: String,
    /// What RCPT asked for by parameters; `None` for most recipients.
    pub parameters: Option<Box<RcptParameters>>,
}

impl Recipient {
    /// One whose RCPT had no parameters.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), parameters: None }
    }

    /// What NOTIFY asked for, if it was given.
    pub fn notify(&self) -> Option<Notify> {
        self.parameters.as_ref()?.notify
    }
}

/// RFC 6152 and RFC 3030: what the sender declared the content to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body {
    #[default]
    SevenBit,
    EightBit,
    /// RFC 3030 section 3: octets of any kind, not in lines. Never to be sent by DATA.
    Binary,
}

impl Body {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::SevenBit => 0,
            Self::EightBit => 1,
            Self::Binary => 2,
        }
    }

    /// What no version has written counts as the mildest.
    pub(crate) const fn of(code: u8) -> Self {
        match code {
            1 => Self::EightBit,
            2 => Self::Binary,
            _ => Self::SevenBit,
        }
    }
}

impl Envelope {
    /// When the message is to be tried, and until when.
    pub fn schedule(&self) -> Schedule {
        self.parameters.as_ref().map_or_else(Schedule::default, |parameters| parameters.schedule)
    }

    /// The message was given with SMTPUTF8 (RFC 6531).
    pub fn is_utf8(&self) -> bool {
        self.parameters.as_ref().is_some_and(|parameters| parameters.smtputf8)
    }

    /// DELIVERBY (RFC 2852).
    pub fn deliver_by(&self) -> Option<DeliverBy> {
        self.schedule().deliver_by
    }
}

/// Where one recipient of a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecipientState {
    pub status: RecipientStatus,
    /// Finished attempts at delivery that ended in a deferral; stays at its maximum.
    pub attempts: u16,
    /// A delay notice has been sent to the sender.
    pub notified: bool,
    /// Not tried until it is released. Independent of the attempts; only who waits can be held.
    pub held: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecipientStatus {
    Waiting,
    Delivered,
    Bounced,
    Expired,
    /// Taken out of the queue; nobody is told.
    Deleted,
    /// Finished here: it lives on in another spool.
    Moved,
}

impl RecipientState {
    pub const NEW: Self =
        Self { status: RecipientStatus::Waiting, attempts: 0, notified: false, held: false };

    pub fn is_finished(self) -> bool {
        self.status != RecipientStatus::Waiting
    }

    /// Whether it is to be tried.
    pub fn is_open(self) -> bool {
        !self.is_finished() && !self.held
    }
}
