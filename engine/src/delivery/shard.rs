//! One delivery shard: its next hops, its timetable, its connections.
//!
//! Lives on one glommio executor. Every message it has been handed is, at every moment, in exactly
//! one of four places: ready in a hop, in the timetable, in the hands of one connection or settling task
//! ([`hands`](super::hands)), or finished and reported. What an administrator withdraws is in none of them.

use super::broken_tls::BrokenTls;
use super::client::ClientSettings;
use super::connect::Sources;
use super::connection::Scratch;
use super::hands::Hands;
use super::hop::{Call, Hop, Item, Trouble};
use super::lookup::{Candidate, Lookup, NotFound};
use super::memory::Memory;
use super::settle::{Waits, settle_trouble};
use super::verdict::Peer;
use super::worker;
use crate::channel::Receiver;
use crate::clock::{monotonic_millis, wall_micros};
use crate::config::{BalancedHost, Config, Login, Retry, RouteLimits, SmartHost, Target, Timeouts};
use crate::observe::{counters, log};
use crate::schedule::retry;
use crate::schedule::timetable::Timetable;
use crate::shard::event::Event;
use crate::shard::links::{Choice, Handover, Links, NextHop, ToDelivery, ToIngest};
use crate::steering::Destination;
use crate::tls::outward::RouteTls;
use futures_lite::FutureExt;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The first probe of a next hop that is down comes after this, each further one twice as late.
const PROBE_FIRST: Duration = Duration::from_secs(1);
/// Smart hosts are probed at least this often, so that mail flows soon after a maintenance.
const PROBE_LONGEST: Duration = Duration::from_secs(60);
/// A message that the spool could not give is asked for again after this.
const UNREADABLE_WAIT: Duration = Duration::from_secs(60);

pub struct DeliveryShard {
    pub config: Arc<Config>,
    pub links: Arc<Links>,
    pub counters: Arc<counters::Delivery>,
    /// By route; behind them those of a host that is no route's, by protocol.
    settings: Vec<Arc<ClientSettings>>,
    pub scratch: Scratch,
    /// By route.
    tls: Vec<RouteTls>,
    pub broken_tls: BrokenTls,
    pub(super) lookup: Lookup,
    pub(super) memory: RefCell<Memory>,
    /// Whose turn it is among the source addresses of a route.
    source_turn: Cell<usize>,
    pub(super) hops: RefCell<HashMap<NextHop, Rc<Hop>>>,
    pub(super) timetable: RefCell<Timetable<Due>>,
    pub(super) hands: Hands,
    /// Items that a pass has taken out of their places and not put back yet.
    pub(super) passing: Cell<usize>,
    timer_is_late: Event,
    stopping: Cell<bool>,
    transactions: Cell<usize>,
    transaction_over: Event,
    /// Connections of all hops, and the most there may be.
    connections: Cell<usize>,
    connections_total_max: usize,
    /// Hops that wait for a place among them.
    starved: RefCell<VecDeque<Rc<Hop>>>,
}

pub(super) enum Due {
    Item(Rc<Hop>, Item),
    Probe(Rc<Hop>),
}

impl DeliveryShard {
    /// `tls`: by route.
    pub fn new(
        config: Arc<Config>,
        links: Arc<Links>,
        counters: Arc<counters::Delivery>,
        tls: &[RouteTls],
    ) -> Self {
        let connections_total_max = config.delivery.connections_total_max.div_ceil(links.delivery.len());
        Self {
            settings: ClientSettings::of_routes(&config),
            lookup: Lookup::new(&config),
            memory: RefCell::default(),
            source_turn: Cell::default(),
            config,
            links,
            counters,
            scratch: Scratch::default(),
            tls: tls.iter().map(RouteTls::for_another_shard).collect(),
            broken_tls: BrokenTls::default(),
            hops: RefCell::default(),
            timetable: RefCell::default(),
            hands: Hands::default(),
            passing: Cell::new(0),
            timer_is_late: Event::default(),
            stopping: Cell::new(false),
            transactions: Cell::new(0),
            transaction_over: Event::default(),
            connections: Cell::new(0),
            connections_total_max,
            starved: RefCell::default(),
        }
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    pub fn transaction_began(&self) {
        self.transactions.set(self.transactions.get() + 1);
    }

    pub fn transaction_ended(&self) {
        self.transactions.set(self.transactions.get() - 1);
        self.transaction_over.raise();
    }

    /// The retry schedule of a next hop.
    pub fn retry_of(&self, next_hop: &NextHop) -> &Retry {
        self.config.routes.get(usize::from(next_hop.route)).map_or(&self.config.retry, |route| &route.retry)
    }

    /// What there is to connect to, in the order of an attempt.
    pub async fn candidates(&self, next_hop: &NextHop) -> Result<Vec<Candidate>, NotFound> {
        let now = monotonic_millis();
        let has_failed = |address| self.memory.borrow().has_failed(address, now);
        let mut found = self.lookup.candidates(&self.config, &self.links, next_hop, has_failed).await?;
        self.memory.borrow().order(&mut found, monotonic_millis());
        Ok(found)
    }

    /// The addresses from which a next hop is connected to.
    pub fn sources(&self, next_hop: &NextHop) -> Sources<'_> {
        let route = self.config.routes.get(usize::from(next_hop.route));
        Sources { addresses: route.map_or(&[], |route| &route.source), turn: &self.source_turn }
    }

    /// What the route of a next hop that was found demands.
    pub fn tls_of(&self, next_hop: &NextHop) -> &RouteTls {
        // A host that an administrator named may serve a domain without a route: the last is for those.
        let last = self.tls.last().expect("there is always one");
        self.tls.get(usize::from(next_hop.route)).unwrap_or(last)
    }

    /// Who the relay is to the smart hosts of the next hop; nobody to one that it was rerouted to.
    pub fn login_of(&self, next_hop: &NextHop) -> Option<Arc<Login>> {
        let route = self.config.routes.get(usize::from(next_hop.route))?;
        if next_hop.is_rerouted() { None } else { route.login.clone() }
    }

    /// Name, protocol and time-outs for sessions with a next hop. A host that mail was rerouted to is spoken to
    /// by SMTP, but for a socket of this host, which only LMTP servers have.
    pub fn settings_of(&self, next_hop: &NextHop) -> Arc<ClientSettings> {
        let routes = self.config.routes.len();
        let place = match &next_hop.via {
            Some(host) if next_hop.is_rerouted() => routes + usize::from(host.socket().is_some()),
            _ => usize::from(next_hop.route).min(routes),
        };
        self.settings[place].clone()
    }

    pub fn timeouts_of(&self, next_hop: &NextHop) -> &Timeouts {
        let route = self.config.routes.get(usize::from(next_hop.route));
        route.map_or(&self.config.timeouts, |route| &route.timeouts)
    }

    /// The bounds of the route of a next hop that was found.
    pub fn limits_of(&self, next_hop: &NextHop) -> RouteLimits {
        let route = self.config.routes.get(usize::from(next_hop.route));
        route.map_or_else(|| RouteLimits::of(&self.config.delivery), |route| route.limits.clone())
    }

    /// Whether a host is not the one that a next hop prefers.
    pub fn is_detour(&self, next_hop: &NextHop, peer: &Peer) -> bool {
        let Some(Target::SmartHosts(hosts)) =
            self.config.routes.get(usize::from(next_hop.route)).map(|route| &route.target)
        else {
            return false;
        };
        let preferred = match next_hop.choice {
            Choice::Share(index) => hosts.get(usize::from(index)),
            Choice::Route if next_hop.via.is_none() && hosts.len() > 1 => hosts.first(),
            Choice::Route | Choice::Table => None,
        };
        preferred.is_some_and(|BalancedHost { host, .. }| {
            host.host != peer.name || host.socket().is_none() && host.port != peer.address.port()
        })
    }

    /// Gives ready messages to connections, as far as there may be some.
    pub fn feed(self: &Rc<Self>, hop: &Rc<Hop>) {
        if self.stopping.get() || hop.call() != Call::Open {
            return;
        }
        if self.has_place() {
            self.open(hop.clone());
        } else {
            hop.connection_ended();
            if !hop.set_starved(true) {
                self.starved.borrow_mut().push_back(hop.clone());
            }
        }
    }

    /// Whether one more connection may be opened, of all that there may be.
    pub(super) fn has_place(&self) -> bool {
        self.connections.get() < self.connections_total_max
    }

    /// Starts the task of a connection for which the hop has given a place.
    pub(super) fn open(self: &Rc<Self>, hop: Rc<Hop>) {
        self.connections.set(self.connections.get() + 1);
        glommio::spawn_local(worker::run(self.clone(), hop)).detach();
    }

    /// The place is free for this hop and, in turn, for those that had to wait for one.
    pub fn connection_ended(self: &Rc<Self>, hop: &Rc<Hop>) {
        self.connections.set(self.connections.get() - 1);
        hop.connection_ended();
        let starved = self.starved.borrow_mut().pop_front();
        if let Some(starved) = starved {
            starved.set_starved(false);
            self.feed(&starved);
        }
        self.feed(hop);
    }

    pub(super) fn hop(&self, next_hop: &NextHop) -> Rc<Hop> {
        if let Some(hop) = self.hops.borrow().get(next_hop) {
            return hop.clone();
        }
        // Smart hosts are spread over all delivery shards, each with its slice of the limit.
        let slices = if next_hop.is_spread() { self.links.delivery.len() } else { 1 };
        let hop =
            Rc::new(Hop::new(next_hop.clone(), self.limits_of(next_hop).connections_max.div_ceil(slices)));
        self.hops.borrow_mut().insert(next_hop.clone(), hop.clone());
        hop
    }

    fn accept(self: &Rc<Self>, handover: Handover) {
        let hop = self.hop(&handover.next_hop);
        let item = Item {
            id: handover.id,
            group: handover.group,
            attempts: handover.attempts,
            notified: handover.notified,
            announced: handover.attempts > 0,
            faults: 0,
            priority: handover.priority,
            arrived_micros: handover.arrived_micros,
            luggage: handover.luggage,
        };
        let release =
            handover.release_micros.map(|release| release.saturating_sub(wall_micros()).div_ceil(1_000));
        let wait = handover.tried_micros.and_then(|tried| self.wait_millis(&hop, &item, tried));
        match release.filter(|wait| *wait > 0).or(wait) {
            Some(wait) => self.put_off(&hop, item, monotonic_millis() + wait),
            None => self.make_ready(&hop, item),
        }
    }

    /// What is left of the wait of a message that an earlier run put off; `None` when its time has come.
    /// One that only waited for a hop that was down has no wait of its own.
    fn wait_millis(&self, hop: &Hop, item: &Item, tried_micros: u64) -> Option<u64> {
        if item.attempts == 0 {
            return None;
        }
        let retry = self.retry_of(&hop.next_hop);
        let due = tried_micros.saturating_add(retry::wait_micros(retry, item.attempts, item.id));
        let due = due.min(retry::expires_micros(retry, item.arrived_micros));
        let due = item.luggage.by().map_or(due, |by| due.min(by.deadline_micros));
        match due.saturating_sub(wall_micros()) {
            0 => None,
            left => Some(left.div_ceil(1_000)),
        }
    }

    pub(super) fn make_ready(self: &Rc<Self>, hop: &Rc<Hop>, item: Item) {
        if hop.trouble().is_some() && !item.announced {
            hop.push_unannounced(item);
            self.settle_down(hop, false);
        } else {
            hop.push(item);
            self.feed(hop);
        }
    }

    /// A message waits for its next attempt, but for recipients that were withdrawn.
    pub fn put_off(&self, hop: &Rc<Hop>, item: Item, due: u64) {
        if let Some(item) = self.hands.strain(item) {
            // The table may say something else then.
            let hop = self.unsorted(hop).unwrap_or_else(|| hop.clone());
            self.plan(due, Due::Item(hop, item));
        }
    }

    /// A message that was taken and not tried goes back to the front, but for recipients that were withdrawn.
    pub fn give_back(&self, hop: &Hop, item: Item) {
        self.hands.strain(item).into_iter().for_each(|item| hop.push_front(item));
    }

    /// The spool cannot give the message: it stays there, and the log says so.
    pub fn unreadable(&self, hop: &Rc<Hop>, item: Item, error: &str) {
        log::note("delivery", &format!("{}: error: cannot be read from the spool: {error}", item.id));
        self.put_off(hop, item, monotonic_millis() + UNREADABLE_WAIT.as_millis() as u64);
    }

    pub(super) fn plan(&self, due: u64, what: Due) {
        if self.timetable.borrow_mut().insert(due, what) {
            self.timer_is_late.raise();
        }
    }

    pub fn hop_answers(self: &Rc<Self>, hop: &Rc<Hop>) {
        if hop.set_up() {
            log::note("delivery", &format!("next hop {} answers again", self.name_of(&hop.next_hop)));
        }
    }

    /// No host of the hop can be reached now. Its messages wait, and one probe at a time looks.
    pub fn hop_is_down(self: &Rc<Self>, hop: &Rc<Hop>, trouble: Trouble) {
        let probes = hop.set_down(trouble.clone(), wall_micros());
        let longest = match hop.next_hop.domain {
            None => PROBE_LONGEST.min(self.retry_of(&hop.next_hop).first),
            Some(_) => self.retry_of(&hop.next_hop).first,
        };
        let wait = PROBE_FIRST.saturating_mul(1 << (probes - 1).min(16)).min(longest);
        if probes == 1 {
            let name = self.name_of(&hop.next_hop);
            log::note(
                "delivery",
                &format!("warning: next hop {name} is down ({}); its mail waits", trouble.text),
            );
        }
        if hop.begin_planning() {
            self.plan(monotonic_millis() + wait.as_millis() as u64, Due::Probe(hop.clone()));
        }
        self.settle_down(hop, true);
    }

    /// Makes sure that a hop that is down is looked at again.
    pub fn plan_probe(&self, hop: &Rc<Hop>) {
        if hop.trouble().is_some() && hop.begin_planning() {
            self.plan(monotonic_millis() + PROBE_LONGEST.as_millis() as u64, Due::Probe(hop.clone()));
        }
    }

    fn probe(self: &Rc<Self>, hop: Rc<Hop>) {
        hop.end_planning();
        if self.stopping.get() || hop.trouble().is_none() {
            return;
        }
        self.sort_again(&hop);
        if hop.is_empty() {
            // Nobody waits for it now; the next message finds out how it is.
            hop.set_up();
        } else if self.has_place() && hop.begin_probe() {
            self.open(hop);
        } else if hop.begin_planning() {
            self.plan(monotonic_millis() + PROBE_FIRST.as_millis() as u64, Due::Probe(hop));
        }
    }

    /// The next hop can never be reached: everything that is ready for it bounces.
    pub async fn refuse_all(self: &Rc<Self>, hop: &Rc<Hop>, trouble: Trouble) {
        hop.set_up();
        for _ in 0..hop.ready_len() {
            let Some(item) = hop.take() else { return };
            let _hands = self.in_hands(&item);
            settle_trouble(self, hop, item, &trouble, Waits::Refused).await;
            glommio::yield_if_needed().await;
        }
    }

    /// Has one task look after the messages of a hop that is down: tell of those that have just come, and
    /// with `all` see which of the others expire or are due for a notice.
    pub(super) fn settle_down(self: &Rc<Self>, hop: &Rc<Hop>, all: bool) {
        if !hop.begin_settling() {
            return;
        }
        let (shard, hop) = (self.clone(), hop.clone());
        glommio::spawn_local(async move {
            let settled = AssertUnwindSafe(shard.settle_waiting(&hop, all)).catch_unwind().await;
            if settled.is_err() {
                shard.counters.delivery_panics_total.add(1);
                log::note("delivery", "error: an internal fault while messages waited");
            }
            hop.end_settling();
            shard.feed(&hop);
        })
        .detach();
    }

    /// Goes once through the messages that are ready, in order; those that go on waiting stay in order.
    async fn settle_waiting(self: &Rc<Self>, hop: &Rc<Hop>, all: bool) {
        let counts = if all { hop.ready_counts() } else { Vec::new() };
        for priority in counts.into_iter().flat_map(|(priority, count)| std::iter::repeat_n(priority, count))
        {
            // Asked first: an item that is taken must be put back.
            let Some(trouble) = hop.trouble() else { break };
            let Some(item) = hop.take_of(priority) else { continue };
            let _hands = self.in_hands(&item);
            if let Some(item) = settle_trouble(self, hop, item, &trouble, Waits::Down).await {
                self.hands.strain(item).into_iter().for_each(|item| hop.push(item));
            }
            glommio::yield_if_needed().await;
        }
        while let Some(item) = hop.take_unannounced() {
            let _hands = self.in_hands(&item);
            let item = match hop.trouble() {
                Some(trouble) => settle_trouble(self, hop, item, &trouble, Waits::Down).await,
                None => Some(item),
            };
            item.and_then(|item| self.hands.strain(item)).into_iter().for_each(|item| hop.push(item));
            glommio::yield_if_needed().await;
        }
    }

    pub(super) fn name_of(&self, next_hop: &NextHop) -> String {
        let name = |host: &SmartHost| Destination::Host(host.clone()).to_string();
        if let Some(via) = &next_hop.via {
            return name(via);
        }
        if next_hop.is_unsorted() {
            return format!("the table of route {}", next_hop.route);
        }
        match (
            &next_hop.domain,
            self.config.routes.get(usize::from(next_hop.route)).map(|route| &route.target),
        ) {
            (Some(domain), _) => domain.to_string(),
            (None, Some(Target::SmartHosts(hosts))) => {
                hosts.iter().map(|host| name(&host.host)).collect::<Vec<_>>().join(", ")
            }
            (None, _) => "without a route".into(),
        }
    }

    /// What a ticker does a few times a second.
    pub fn tick(&self) {
        let hops = self.hops.borrow();
        let ready: usize = hops.values().map(|hop| hop.waiting_len()).sum();
        let probes = hops.values().filter(|hop| hop.is_planned()).count();
        let down = hops.values().filter(|hop| hop.trouble().is_some()).count();
        self.counters.messages_waiting.set(
            (ready + (self.timetable.borrow().len() + self.passing.get()).saturating_sub(probes)) as u64,
        );
        self.counters.next_hops.set(hops.len() as u64);
        self.counters.next_hops_down.set(down as u64);
        self.counters.connections_out.set(self.connections.get() as u64);
    }

    /// Forgets next hops that have nothing to do, so that a million domains seen once cost nothing.
    pub fn forget_unused(&self) {
        self.hops.borrow_mut().retain(|_, hop| Rc::strong_count(hop) > 1 || !hop.is_unused());
        self.lookup.forget_expired();
    }

    /// Waits until no transaction is open.
    pub async fn transactions_over(&self) {
        while self.transactions.get() > 0 {
            self.transaction_over.wait().await;
        }
    }
}

/// Takes what the ingest shards hand over, until told to stop.
pub async fn serve_inbox(shard: Rc<DeliveryShard>, mut inbox: Receiver<ToDelivery>) {
    loop {
        match inbox.receive().await {
            ToDelivery::Handover(handover) => shard.accept(handover),
            // Later handovers wait: they must find everything in its place.
            ToDelivery::Steer { order, targets, ingest, reply } => {
                let steered = shard.steer(order, &targets).await;
                shard.links.ingest[ingest].send(ToIngest::Steered { steered, reply }).await;
            }
            ToDelivery::Troubles { reply } => drop(reply.send(shard.troubles())),
            ToDelivery::Stop => {
                shard.stopping.set(true);
                shard.hops.borrow().values().for_each(|hop| hop.call_all());
                return;
            }
        }
    }
}

/// Brings back what was put off when its time comes. Runs as long as the shard.
pub async fn keep_time(shard: Rc<DeliveryShard>) {
    loop {
        let now = monotonic_millis();
        let due = shard.timetable.borrow_mut().take_due(now);
        match due {
            Some(Due::Item(hop, item)) => shard.make_ready(&hop, item),
            Some(Due::Probe(hop)) => shard.probe(hop),
            None => wait_until_due(&shard, now).await,
        }
        glommio::yield_if_needed().await;
    }
}

async fn wait_until_due(shard: &DeliveryShard, now: u64) {
    let next = shard.timetable.borrow().next_due();
    match next {
        None => shard.timer_is_late.wait().await,
        Some(due) => {
            let wait = Duration::from_millis(due.saturating_sub(now).max(1));
            shard
                .timer_is_late
                .wait()
                .or(async {
                    glommio::timer::sleep(wait).await;
                })
                .await;
        }
    }
}
