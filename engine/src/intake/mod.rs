//! One ingest shard: its sessions, its spool, and what it hands to the delivery shards.
//!
//! Lives on one glommio executor; nothing here is shared with another thread but what
//! [`shard::links`](crate::shard::links) carries.
//!
//! Invariants: 250 after end-of-data is written only after [`Spool::commit`] has resolved; a message
//! that is committed is handed over exactly once in this run, in memory or, when there is no room,
//! as an index entry that makes the delivery shard ask for it.

mod adoption;
mod backup;
mod buffers;
mod compact;
mod cut_through;
mod handover;
mod inbox;
pub mod known;
pub mod limits;
mod look;
mod notices;
mod outcomes;
mod recovery;
pub mod restore;
mod room;
pub mod session_task;
mod shares;
mod steer;
mod submission;
mod transport;
mod turn;

use crate::config::Config;
use crate::load::{self, Load};
use crate::observe::counters;
use crate::session::{self, Refusal};
use crate::shard::event::{Event, Stop};
use crate::shard::links::{Budget, Links, ToDelivery};
use crate::space::Space;
use crate::tls;
use crate::trace::Traces;
use adoption::Relatives;
use buffers::Buffers;
use limits::Limiter;
use shares::Shares;
use sluice_queue::{GlommioStorage, QueueId, Spool, SpoolNumber};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use steer::Steering;
use turn::Unmoved;

pub(crate) use adoption::resume;
pub(crate) use compact::compact;
pub use handover::mx_route;
pub(crate) use handover::pump_overflow;
pub(crate) use inbox::serve_inbox;
pub use look::{describe, tell_origin};
pub(crate) use recovery::{OpenedSpools, open_spools};
pub use recovery::{Size, open_spool, spool_directory, spool_numbers};
pub(crate) use room::look_for_room;
pub use turn::Turn;

/// The spools that a start has opened for a shard.
pub(crate) struct Opened {
    pub own: ShardSpool,
    pub adopted: Vec<ShardSpool>,
    pub damaged: Vec<SpoolNumber>,
}

pub type ShardSpool = Spool<GlommioStorage>;

/// What all tasks of one ingest shard share.
pub struct IngestShard {
    pub index: usize,
    pub config: Arc<Config>,
    pub links: Arc<Links>,
    pub counters: Arc<counters::Ingest>,
    /// By listener.
    pub contexts: Vec<Arc<session::Context>>,
    /// New mail goes here.
    pub spool: ShardSpool,
    /// Spools of shards that do not exist any more; they are emptied and take no new mail.
    pub adopted: Vec<ShardSpool>,
    /// By listener; another one after a reload.
    pub tls: RefCell<tls::Listeners>,
    pub stop: Stop,
    /// Kept by the service thread: how much room there is.
    pub space: Arc<Space>,
    pub budget: Arc<Budget>,
    /// Why this shard takes no new mail, whatever the level.
    refusing: Cell<Option<Refusal>>,
    /// By spool: the own, then all that were adopted.
    conditions: RefCell<Vec<room::Condition>>,
    /// Said while a write hangs.
    hang: RefCell<Rc<Stop>>,
    /// Of the room for mail, by client.
    shares: Rc<Shares>,
    sessions: Cell<usize>,
    /// Kept by the service thread: how busy the relay is.
    pub load: Arc<Load>,
    /// Of the last tick.
    load_level: Cell<load::Level>,
    pub limiter: Arc<Limiter>,
    pub traces: Traces,
    /// The second of the last line about a client that was turned away, and how many had none since.
    turned_away: Cell<(u64, u64)>,
    session_ended: Event,
    buffers: Buffers,
    /// What found a delivery shard's mailbox full, in order; `None` in front while that one is on its way.
    overflow: RefCell<VecDeque<(usize, Option<ToDelivery>)>>,
    overflow_grew: Event,
    /// Something waits for the next tick.
    pub stirred: Event,
    steering: Steering,
    turn: Turn,
    notices: notices::Notices,
    unmoved: Unmoved,
    late: cut_through::Late,
    /// What the other shards said at the start.
    relatives: Relatives,
    /// Adopted spools in which the start found damage: they are kept for people to look at.
    damaged: Vec<SpoolNumber>,
}

/// What the parts of an ingest shard are made of.
pub struct Parts {
    pub index: usize,
    pub config: Arc<Config>,
    pub links: Arc<Links>,
    pub counters: Arc<counters::Ingest>,
    pub contexts: Vec<Arc<session::Context>>,
    pub space: Arc<Space>,
    pub tls: tls::Listeners,
    pub budget: Arc<Budget>,
    pub load: Arc<Load>,
    pub limiter: Arc<Limiter>,
}

impl IngestShard {
    pub(crate) fn new(parts: Parts, opened: Opened) -> Self {
        let conditions =
            std::iter::repeat_with(room::Condition::default).take(1 + opened.adopted.len()).collect();
        Self {
            index: parts.index,
            config: parts.config,
            links: parts.links,
            counters: parts.counters,
            contexts: parts.contexts,
            spool: opened.own,
            adopted: opened.adopted,
            tls: RefCell::new(parts.tls),
            stop: Stop::default(),
            space: parts.space,
            refusing: Cell::new(None),
            conditions: RefCell::new(conditions),
            hang: RefCell::default(),
            budget: parts.budget,
            shares: Rc::default(),
            sessions: Cell::new(0),
            load: parts.load,
            load_level: Cell::default(),
            limiter: parts.limiter,
            traces: Traces::default(),
            turned_away: Cell::default(),
            session_ended: Event::default(),
            buffers: Buffers::default(),
            overflow: RefCell::default(),
            overflow_grew: Event::default(),
            stirred: Event::default(),
            steering: Steering::default(),
            turn: Turn::default(),
            notices: notices::Notices::default(),
            unmoved: Unmoved::default(),
            late: cut_through::Late::default(),
            relatives: Relatives::default(),
            damaged: opened.damaged,
        }
    }

    /// The spool that holds a message, when this shard looks after it.
    pub fn spool_of(&self, id: QueueId) -> Option<&ShardSpool> {
        self.spools().find(|spool| spool.number() == id.spool())
    }

    /// The first turn of a run: for what earlier ones have left. Changes of the queue wait for it.
    pub(crate) fn first_turn(&self) -> turn::Held {
        self.turn.first()
    }

    pub fn spools(&self) -> impl Iterator<Item = &ShardSpool> {
        std::iter::once(&self.spool).chain(&self.adopted).filter(|spool| !spool.is_retired())
    }

    fn is_damaged(&self, number: SpoolNumber) -> bool {
        self.damaged.contains(&number)
    }

    /// Waits until the last session has ended.
    pub async fn sessions_ended(&self) {
        while self.sessions.get() > 0 {
            self.session_ended.wait().await;
        }
    }

    /// What a ticker does a few times a second.
    pub fn tick(self: &Rc<Self>) {
        let (mut live, mut deferred, mut held) = (0, 0, 0);
        let (mut batches, mut bytes, mut moved) = (0, 0, 0);
        for spool in self.spools() {
            spool.nudge();
            self.claim(spool);
            let stats = spool.stats();
            live += stats.messages as u64;
            let counts = spool.counts();
            deferred += counts.deferred as u64;
            held += counts.held as u64;
            batches += stats.batches;
            bytes += stats.bytes_written;
            moved += stats.moved;
        }
        self.counters.messages_queued.set(live);
        self.counters.recipients_deferred.set(deferred);
        self.counters.recipients_held.set(held);
        self.counters.batches_total.set(batches);
        self.counters.spool_bytes_written_total.set(bytes);
        self.counters.messages_moved_total.set(moved);
        self.counters.sessions.set(self.sessions.get() as u64);
        self.look_at_spools();
        self.look_for_notices();
        self.traces.sweep();
        let level = self.load.level();
        if self.load_level.replace(level) != level {
            self.stop.stir();
        }
    }

    /// A session that ended by a fault while its message was being committed has told nobody of it.
    fn claim(self: &Rc<Self>, spool: &ShardSpool) {
        for id in spool.unclaimed() {
            self.hand_over_stored(spool, id);
        }
    }
}
