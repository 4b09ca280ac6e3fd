//! One delivery shard: its next hops, its timetable, its connections.
//!
//! Lives on one glommio executor. Every message it has been handed is, at every moment, in exactly
//! one of four places: ready in a hop, in the timetable, in the hands of one connection or settling task
//! ([`hands`](super::hands)), or finished and reported. What an administrator withdraws is in none of them.

use super::broken_tls::BrokenTls;
use super::client::ClientSettings;
use super::connect::Sources;
use super::connection::Scratch;
use super::cut_through::CutThroughState;
use super::guest::STOPS;
use super::hands::Hands;
use super::hop::{Hop, Item};
use super::idle::IdleOfShard;
use super::lookup::{Candidate, Lookup, NotFound};
use super::memory::Memory;
use super::site::{Census, Site, SiteKey};
use super::verdict::Peer;
use super::warm_up::WarmUps;
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
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Next hops that are counted for the gauges within one tick, on average.
const HOPS_PER_TICK: usize = 1_000;
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
    pub(super) cut_through: CutThroughState,
    /// Items that a pass has taken out of their places and not put back yet.
    pub(super) passing: Cell<usize>,
    timer_is_late: Event,
    stopping: Cell<bool>,
    transactions: Cell<usize>,
    transaction_over: Event,
    /// Connections of all hops, and the most there may be.
    pub(super) connections: Cell<usize>,
    pub(super) connections_total_max: usize,
    /// Hops that wait for a place among them.
    pub(super) starved: RefCell<VecDeque<Rc<Hop>>>,
    pub(super) idle: IdleOfShard,
    pub(super) sites: RefCell<HashMap<SiteKey, Rc<Site>>>,
    pub(super) common: Arc<Common>,
    /// Ticks until the next hops are counted again.
    uncounted: Cell<usize>,
}

/// What the delivery shards have in common.
pub struct Common {
    pub census: Arc<Census>,
    pub warm_ups: WarmUps,
}

impl Common {
    pub fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self { census: Arc::default(), warm_ups: WarmUps::new(&config.warm_ups) })
    }
}

pub(super) enum Due {
    Item(Rc<Hop>, Item),
    Probe(Rc<Hop>),
    /// Its rates have a turn again.
    Site(Rc<Site>),
}

impl DeliveryShard {
    /// `tls`: by route.
    pub fn new(
        config: Arc<Config>,
        links: Arc<Links>,
        counters: Arc<counters::Delivery>,
        tls: &[RouteTls],
        common: Arc<Common>,
    ) -> Self {
        let connections_total_max = config.delivery.connections_total_max.div_ceil(links.delivery.len());
        Self {
            settings: ClientSettings::of_routes(&config),
            lookup: Lookup::new(&config),
            memory: RefCell::default(),
            cut_through: CutThroughState::new(&config.cut_through, links.delivery.len()),
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
            idle: IdleOfShard::default(),
            sites: RefCell::default(),
            common,
            uncounted: Cell::default(),
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
        let addresses = self.sources_of(next_hop);
        Sources {
            addresses,
            turn: &self.source_turn,
            warm_ups: (!self.common.warm_ups.is_empty()).then_some(&self.common.warm_ups),
        }
    }

    pub(super) fn sources_of(&self, next_hop: &NextHop) -> &[IpAddr] {
        self.config.routes.get(usize::from(next_hop.route)).map_or(&[], |route| &route.source)
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

    pub(super) fn hop(&self, next_hop: &NextHop) -> Rc<Hop> {
        if let Some(hop) = self.hops.borrow().get(next_hop) {
            return hop.clone();
        }
        let hop = Rc::new(Hop::new(next_hop.clone()));
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
        if hop.is_down() && !item.announced {
            hop.push_unannounced(item);
            self.settle_down(hop, false);
        } else {
            if hop.is_down() {
                hop.note_event(self.event_of(hop, &item));
            }
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

    /// What a ticker does a few times a second. Counting a million next hops would take a good part of that.
    pub fn tick(&self) {
        self.counters.connections_out.set(self.connections.get() as u64);
        let uncounted = self.uncounted.get();
        if uncounted > 0 {
            return self.uncounted.set(uncounted - 1);
        }
        self.uncounted.set(self.hops.borrow().len() / HOPS_PER_TICK);
        let hops = self.hops.borrow();
        let ready: usize = hops.values().map(|hop| hop.waiting_len()).sum();
        let probes = hops.values().filter(|hop| hop.is_planned()).count();
        let turns = self.sites.borrow().values().filter(|site| site.is_planned()).count();
        let down = hops.values().filter(|hop| hop.is_down()).count();
        self.counters.messages_waiting.set(
            (ready + (self.timetable.borrow().len() + self.passing.get()).saturating_sub(probes + turns))
                as u64,
        );
        self.counters.next_hops.set(hops.len() as u64);
        self.counters.next_hops_down.set(down as u64);
    }

    /// Forgets next hops that have nothing to do, so that a million domains seen once cost nothing.
    pub fn forget_unused(&self) {
        self.hops.borrow_mut().retain(|_, hop| Rc::strong_count(hop) > 1 || !hop.is_unused());
        self.idle.forget_ended();
        let now = monotonic_millis();
        self.sites.borrow_mut().retain(|_, site| Rc::strong_count(site) > 1 || !site.is_forgettable(now));
        self.lookup.forget_expired();
    }

    #[cfg(test)]
    pub fn time_has_jumped(&self) {
        self.timer_is_late.raise();
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
            ToDelivery::Ask(ask) => shard.asked(ask),
            // Later handovers wait: they must find everything in its place.
            ToDelivery::Steer { order, targets, ingest, reply } => {
                let steered = shard.steer(order, &targets).await;
                shard.links.ingest[ingest].send(ToIngest::Steered { steered, reply }).await;
            }
            ToDelivery::Troubles { reply } => drop(reply.send(shard.troubles())),
            ToDelivery::Stop => {
                shard.stopping.set(true);
                shard.hops.borrow().values().for_each(|hop| hop.guests.turn_away(STOPS));
                shard.sites.borrow().values().for_each(|site| site.idle.call_all());
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
            Some(Due::Site(site)) => {
                site.end_planning();
                shard.feed_site(&site);
            }
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
