//! What the threads of the relay say to each other, and the mailboxes that carry it.
//!
//! ```text
//! ingest ──Handover, Ask, Steer──▶ delivery ──Load, Read, Report, Withdrawn──▶ ingest
//!                      ingest, delivery ──Question──▶ service
//!          admin (service) ──Page, Show, Summary, Change, Snapshot, Restore──▶ ingest
//!          admin (service) ──Troubles──▶ delivery
//! ```
//!
//! Everything here is `Send` and owned; nothing refers back into a shard.

use crate::channel::Sender;
use crate::config::SmartHost;
use crate::cut_through::Ask;
use crate::mta_sts;
use crate::policy::Identity;
use crate::recipients::Holder;
use crate::resolve::mx::{Addresses, MailHosts, TlsaRecords};
use crate::resolve::service::Answer;
use crate::restore::wire::Item;
use crate::restore::{Knowledge, Report as RestoreReport};
use crate::smtp::sasl;
use crate::steering::{self, Condition, HopTrouble, Request, SummaryOptions, Tally, Targets};
use crate::tls;
use crate::tls_report::Observed;
use sluice_queue::{
    Ancestry, ContentFlags, DeliverBy, Envelope, Needed, QueueId, RecipientState, Source, SpoolNumber,
};
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use tokio::sync::{mpsc, oneshot};

/// Handovers waiting for a delivery shard. Past it they wait, without their content, in the ingest shard.
pub const HANDOVERS_MAX: usize = 16 * 1024;
/// Requests and reports waiting for an ingest shard; past it the delivery side waits.
pub const REPORTS_MAX: usize = 16 * 1024;
/// Questions waiting for the service thread; past it the delivery side waits, and logins cannot be verified.
pub const QUESTIONS_MAX: usize = 4 * 1024;

/// All mailboxes; every thread holds one of these.
pub struct Links {
    pub ingest: Vec<Sender<ToIngest>>,
    pub delivery: Vec<Sender<ToDelivery>>,
    pub service: Sender<Question>,
}

impl Links {
    /// The ingest shard that looks after a spool: its own, or one that was adopted because its shard
    /// does not exist any more.
    pub fn owner(&self, spool: SpoolNumber) -> usize {
        spool.get() as usize % self.ingest.len()
    }

    pub fn owner_of(&self, id: QueueId) -> &Sender<ToIngest> {
        &self.ingest[self.owner(id.spool())]
    }
}

/// Where a group of recipients goes: one queue, one set of connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// Index in `Config::routes`.
    pub route: u16,
    /// The recipients' domain on an MX route; `None` on a route with smart hosts.
    pub domain: Option<Arc<str>>,
    /// The host that an administrator has rerouted it to, or that the route's table names; then there is no domain.
    pub via: Option<Arc<SmartHost>>,
    pub choice: Choice,
}

/// Which of the hosts of a route it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Choice {
    /// What the route says for each attempt; or `via`, where an administrator has rerouted it.
    #[default]
    Route,
    /// The one that the table of the route names for the recipient: `via`; without it, the table is to be asked.
    Table,
    /// The smart host of this index first, whose share it is; the others when that fails.
    Share(u16),
}

impl NextHop {
    /// What a route does by itself.
    pub fn of_route(route: u16) -> Self {
        Self { route, domain: None, via: None, choice: Choice::Route }
    }

    /// Smart hosts take more than one core's worth, so each delivery shard has a slice of them.
    pub fn is_spread(&self) -> bool {
        self.domain.is_none() && (self.via.is_none() || self.choice == Choice::Table)
    }

    /// An administrator has sent it to a host that the configuration need not know.
    pub fn is_rerouted(&self) -> bool {
        self.via.is_some() && self.choice != Choice::Table
    }

    /// The table of the route is to be asked.
    pub fn is_unsorted(&self) -> bool {
        self.via.is_none() && self.choice == Choice::Table
    }
}

/// The recipients of one message that go to one next hop, by their index in the envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    One(u32),
    Many(Box<[u32]>),
}

impl Group {
    pub fn new(mut indexes: Vec<u32>) -> Self {
        match indexes.len() {
            1 => Self::One(indexes.remove(0)),
            _ => Self::Many(indexes.into()),
        }
    }

    pub fn indexes(&self) -> &[u32] {
        match self {
            Self::One(index) => std::slice::from_ref(index),
            Self::Many(indexes) => indexes,
        }
    }
}

/// A message, or the part of it that goes to one next hop, given to the delivery shard.
pub struct Handover {
    pub id: QueueId,
    pub next_hop: NextHop,
    pub group: Group,
    pub attempts: u16,
    pub notified: bool,
    /// When its clock began: at its arrival, or at its release.
    pub arrived_micros: u64,
    /// Not to be tried before (RFC 4865).
    pub release_micros: Option<u64>,
    /// RFC 6710.
    pub priority: i8,
    /// The end of the last attempt, of a message that an earlier run put off; its wait goes on from there.
    pub tried_micros: Option<u64>,
    pub luggage: Luggage,
}

/// What most messages that wait do not have, at the cost of a pointer.
#[derive(Default)]
pub struct Luggage(Option<Box<(Option<Fresh>, Option<DeliverBy>)>>);

impl Luggage {
    /// `fresh`: the message itself, when it has just come in and the budget allowed.
    pub fn new(fresh: Option<Fresh>, by: Option<DeliverBy>) -> Self {
        Self((fresh.is_some() || by.is_some()).then(|| Box::new((fresh, by))))
    }

    pub fn fresh(&self) -> Option<&Fresh> {
        self.0.as_ref()?.0.as_ref()
    }

    /// RFC 2852.
    pub fn by(&self) -> Option<DeliverBy> {
        self.0.as_ref()?.1
    }

    /// The same for what is read back from the spool.
    pub fn stored(&self) -> Self {
        Self::new(None, self.by())
    }
}

/// A message that never left memory.
pub struct Fresh {
    pub envelope: Arc<Envelope>,
    pub content: HeldContent,
    pub flags: ContentFlags,
}

/// The budget for content that is handed over in memory; shared by all ingest shards.
pub struct Budget {
    left: AtomicUsize,
}

impl Budget {
    pub fn new(octets: usize) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(octets) })
    }

    /// Content counted against the budget until its last holder drops it; `None` when there is no room.
    pub fn hold(self: &Arc<Self>, content: Arc<Vec<u8>>) -> Option<HeldContent> {
        let octets = content.len();
        self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(octets)).ok()?;
        Some(HeldContent(Arc::new(Held { content, budget: self.clone() })))
    }
}

struct Held {
    content: Arc<Vec<u8>>,
    budget: Arc<Budget>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.content.len(), Relaxed);
    }
}

#[derive(Clone)]
pub struct HeldContent(Arc<Held>);

impl Deref for HeldContent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.content
    }
}

pub enum ToDelivery {
    Handover(Handover),
    /// A client waits: see `crate::cut_through`.
    Ask(Ask),
    /// Something is done with messages that were handed over before.
    Steer {
        order: Order,
        targets: Arc<Targets>,
        /// The ingest shard that asks.
        ingest: usize,
        reply: oneshot::Sender<Steered>,
    },
    /// Which next hops are down?
    Troubles {
        reply: oneshot::Sender<Vec<HopTrouble>>,
    },
    /// Open transactions may end; nothing new begins.
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The delivery shard gives them up; what is in hands at this moment when it leaves them, which
    /// [`ToIngest::Withdrawn`] tells.
    Withdraw,
    /// Their waits are over.
    Retry,
}

/// What an order came to, by message and recipient.
#[derive(Debug, Default)]
pub struct Steered {
    /// In hands at this moment.
    pub under_way: Vec<(QueueId, Vec<u32>)>,
    /// Brought forward; an id may be here more than once.
    pub forward: Vec<(QueueId, u32)>,
}

/// A message as the spool has it.
pub struct Loaded {
    pub envelope: Arc<Envelope>,
    pub states: Vec<RecipientState>,
    pub content_bytes: u64,
    pub flags: ContentFlags,
    /// The first octets of the content; all of it when it is small.
    pub head: Vec<u8>,
}

pub enum ToIngest {
    /// `content`: with the first octets of the content.
    Load {
        id: QueueId,
        content: bool,
        reply: oneshot::Sender<Result<Loaded, String>>,
    },
    Read {
        id: QueueId,
        offset: u64,
        reply: oneshot::Sender<Result<Vec<u8>, String>>,
    },
    Report(Report),
    /// Recipients that were withdrawn while they were in hands have left them. Whatever was reported of them
    /// was reported before.
    Withdrawn {
        id: QueueId,
        recipients: Vec<u32>,
    },
    /// The answer to [`ToDelivery::Steer`], behind every report that was made before it.
    Steered {
        steered: Steered,
        reply: oneshot::Sender<Steered>,
    },
    /// A message of the relay's own making.
    Submit {
        envelope: Box<Envelope>,
        content: Vec<u8>,
        reply: oneshot::Sender<Result<QueueId, String>>,
    },
    /// Delivery of these ends in a fault of the program again and again: hold them.
    HoldFaulty {
        id: QueueId,
        recipients: Vec<u32>,
    },
    /// Up to `limit` messages with an id above `after` that match, in order.
    Page {
        after: Option<QueueId>,
        limit: usize,
        condition: Arc<Condition>,
        reply: oneshot::Sender<Vec<QueueItem>>,
    },
    Show {
        id: QueueId,
        reply: oneshot::Sender<Option<QueueItem>>,
    },
    Summary {
        options: SummaryOptions,
        reply: oneshot::Sender<Tally>,
    },
    /// A change that an administrator asks for.
    Change {
        request: Arc<Request>,
        who: Who,
        reply: oneshot::Sender<steering::Answer>,
    },
    /// Names what a copy of the spools needs now, and keeps it while the lease lasts.
    Snapshot {
        lease: Arc<Lease>,
        reply: oneshot::Sender<Vec<Needed>>,
    },
    /// What the spools of another ingest shard know, said once at the start.
    Relatives(Ancestry),
    /// What do the spools here know?
    Knowledge {
        reply: oneshot::Sender<Knowledge>,
    },
    /// Bring in the copy of a spool.
    Restore {
        source: Source,
        dry_run: bool,
        items: mpsc::Receiver<Item>,
        reply: oneshot::Sender<RestoreReport>,
    },
    /// Certificates that were read again: for handshakes from now on.
    Tls(tls::Listeners),
    /// Somebody wants to see sessions.
    Trace(Arc<crate::trace::Trace>),
    /// No new session; open ones end within the bound.
    Stop,
    /// The delivery shards are done: write out what is left and end.
    Finish,
}

/// How long the ingest shards keep what a backup copies: until one side ends it.
#[derive(Default)]
pub struct Lease {
    over: AtomicBool,
    steps: AtomicU64,
}

impl Lease {
    /// The copying has come so much further; `false`: what is copied is not kept any more.
    pub fn go_on(&self, _octets: u64) -> bool {
        self.steps.fetch_add(1, Relaxed);
        !self.is_over()
    }

    /// Changes as long as the copying goes on.
    pub fn progress(&self) -> u64 {
        self.steps.load(Relaxed)
    }

    pub fn is_over(&self) -> bool {
        self.over.load(SeqCst)
    }

    /// `true` for whoever ended it.
    pub fn end(&self) -> bool {
        !self.over.swap(true, SeqCst)
    }
}

/// What the delivery of a message came to, for some of its recipients.
pub struct Report {
    pub id: QueueId,
    pub fates: Vec<Fate>,
}

/// The state of one recipient after an attempt.
pub struct Fate {
    pub recipient: u32,
    pub attempts: u16,
    pub disposition: Disposition,
    /// Enhanced status code (RFC 3463).
    pub dsn: String,
    /// One sentence for people: what the next hop said, or what went wrong on the way to it.
    pub text: String,
    /// The next hop's own words (RFC 3464 Diagnostic-Code).
    pub reply: Option<String>,
    /// The host that gave the reply; empty when none did.
    pub remote: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    Delivered,
    /// Delivered to a next hop that will not tell the sender what he asked to be told: the relay does.
    Relayed,
    /// `notice`: tell the sender now that it takes longer. `notified`: the sender has been told.
    Deferred {
        notice: bool,
        notified: bool,
    },
    Bounced,
    Expired,
}

/// Who asks for a change: the credentials of the process at the other end of `admin.sock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    pub uid: u32,
    pub pid: i32,
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "uid {}, pid {}", self.uid, self.pid)
    }
}

/// A message in the queue, for people.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct QueueItem {
    pub id: String,
    pub arrived_micros: u64,
    pub octets: u64,
    pub sender: String,
    /// This and the next two are read from the disk, for one message at a time; empty in a list.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub helo: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub listener: String,
    /// Set aside: not all of its octets can be read.
    #[serde(default)]
    pub damaged: bool,
    /// The queue id that it had first, and in which spool (its lineage), when it came from another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<[String; 2]>,
    /// MT-PRIORITY (RFC 6710); 0 is what everybody has.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i8,
    /// Not tried before (RFC 4865), microseconds since 1970; there as long as that is in the future.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_micros: Option<u64>,
    /// BY (RFC 2852): the deadline, microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver_by_micros: Option<u64>,
    /// At the deadline the message is returned, and not only a notice sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deliver_by_returns: bool,
    /// `FULL` or `HDRS` (RFC 3461); this and the next three are read from the disk, as the client is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ret: String,
    /// In xtext, as it came.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub envid: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub smtputf8: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub require_tls: bool,
    pub recipients: Vec<QueueRecipient>,
}

#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct QueueRecipient {
    pub address: String,
    /// `queued`, `deferred`, `held`, `damaged` (with all of its message), or how it ended.
    pub status: String,
    pub attempts: u16,
    /// Where it goes; empty when it is finished.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub next_hop: String,
    /// An administrator has sent it there.
    #[serde(default)]
    pub rerouted: bool,
    /// Why it is still here; empty before the first attempt.
    pub reason: String,
    /// NOTIFY, as RCPT writes it; this and the next are read from the disk, for one message at a time.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub notify: String,
    /// ORCPT, as it came.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub orcpt: String,
}

fn is_zero(priority: &i8) -> bool {
    *priority == 0
}

/// Asked of the service thread.
pub enum Question {
    Mx {
        resolver: usize,
        domain: Arc<str>,
        reply: oneshot::Sender<Answer<MailHosts>>,
    },
    Addresses {
        resolver: usize,
        host: Arc<str>,
        reply: oneshot::Sender<Answer<Addresses>>,
    },
    Tlsa {
        resolver: usize,
        host: Arc<str>,
        port: u16,
        reply: oneshot::Sender<Answer<TlsaRecords>>,
    },
    /// Which server holds a mailbox, as the directory of this route says.
    Holder {
        route: usize,
        recipient: Arc<str>,
        reply: oneshot::Sender<Answer<Holder>>,
    },
    /// What a domain demands of its senders (RFC 8461); `route` is an index in `Config::routes`.
    MtaSts {
        route: usize,
        domain: Arc<str>,
        reply: oneshot::Sender<Answer<mta_sts::Found>>,
    },
    /// What a session with a host has shown, for reports. Nobody answers.
    TlsObserved(Box<Observed>),
    /// Of a session, for its client.
    Login {
        client: IpAddr,
        ask: sasl::Ask,
        reply: oneshot::Sender<sasl::Answer<Arc<Identity>>>,
    },
    /// May this login send one message more, to so many recipients?
    Spend {
        login: Arc<Identity>,
        recipients: usize,
        reply: oneshot::Sender<bool>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_given_back_with_the_last_holder() {
        let budget = Budget::new(10);
        let held = budget.hold(Arc::new(vec![0; 7])).unwrap();
        assert!(budget.hold(Arc::new(vec![0; 4])).is_none());
        let again = held.clone();
        drop(held);
        assert!(budget.hold(Arc::new(vec![0; 4])).is_none());
        drop(again);
        assert!(budget.hold(Arc::new(vec![0; 10])).is_some());
    }
}
