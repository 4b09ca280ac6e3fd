//! Who may have one more connection: places at the site (its window, its rates), places of the shard, and the lines
//! of those that wait for one.
//!
//! Lives on one delivery shard. A next hop stands in one line at most, at its end, and is fed when it is its turn;
//! one whose connections have had a turn of [`TURN_MESSAGES`] gives its place to who waits. So no queue, however
//! hot, starves another, and a next hop that waits costs nothing meanwhile. A connection without work never holds
//! a place that another one needs.

use super::hop::Hop;
use super::idle::{self, Call};
use super::lookup::Candidate;
use super::shard::{DeliveryShard, Due};
use super::site::{self, Limits, Site, SiteKey};
use super::worker;
use crate::clock::{monotonic_millis, wall_micros};
use crate::shard::links::{Choice, NextHop};
use crate::{config::Target, delivery::warm_up};
use futures_lite::FutureExt;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

/// Messages that a connection sends for one next hop while others wait for its place. More saves connections,
/// less lets them wait shorter.
pub const TURN_MESSAGES: usize = 20;

/// So many ready messages for each connection of a next hop are few.
const READY_PER_CONNECTION: usize = 4;
/// How long few messages wait for the connections that are there. Longer than most transactions take; short
/// beside what a connection that hangs would cost them.
const MOMENT_MILLIS: u64 = 200;

/// Why no message may begin over a connection now.
pub enum NoTurn {
    /// The site's rate has none before this moment of the shard's monotonic clock.
    Before(u64),
    /// The source address is being warmed up and has sent its number for today.
    Exhausted,
}

impl DeliveryShard {
    /// Gives ready messages and guests to connections, as far as there may be some. A few messages wait for a moment
    /// for the connections that are there: a new one costs more than they do. A guest does not.
    pub fn feed(self: &Rc<Self>, hop: &Rc<Hop>) {
        self.feed_as(hop, false);
    }

    /// `waited`: it has had its moment.
    fn feed_as(self: &Rc<Self>, hop: &Rc<Hop>, waited: bool) {
        let has_guest = self.has_guest(hop);
        if self.is_stopping() || (hop.ready_len() == 0 && !has_guest) || hop.is_down() {
            return;
        }
        let Some(site) = hop.site() else {
            // The first connection finds out which site it is.
            if hop.connections() == 0 {
                self.open_or_wait(hop);
            }
            return;
        };
        if site.is_down() {
            return self.follow(hop, &site);
        }
        if site.idle.call(hop) {
            return;
        }
        // Those that are being opened have their guests.
        let opens_for_guest = has_guest && hop.guests.waiting() > hop.opening();
        if hop.ready_len() == 0 && !opens_for_guest {
            return;
        }
        let now = monotonic_millis();
        let is_few = !opens_for_guest && hop.ready_len() < READY_PER_CONNECTION * hop.connections();
        match site.look(now) {
            Ok(()) if is_few && !waited => self.wait_at(&site, hop, Some(now + MOMENT_MILLIS)),
            Ok(()) => self.open_or_wait(hop),
            Err(later) => {
                // A connection to other hosts of the site is not to hold the place.
                match later {
                    None => drop(site.idle.evict()),
                    Some(at) => hop.guests.no_turn_before(at),
                }
                self.wait_at(&site, hop, later);
            }
        }
    }

    /// In line at the site; `later`: its rates leave no turn before that.
    pub(super) fn wait_at(self: &Rc<Self>, site: &Rc<Site>, hop: &Rc<Hop>, later: Option<u64>) {
        if !hop.set_in_line(true) {
            site.push_waiting(hop);
        }
        if let Some(at) = later
            && site.begin_planning()
        {
            self.plan(at, Due::Site(site.clone()));
        }
    }

    fn open_or_wait(self: &Rc<Self>, hop: &Rc<Hop>) {
        if self.has_place() {
            hop.connection_began();
            self.open(hop.clone());
        } else {
            if !hop.set_in_line(true) {
                self.starved.borrow_mut().push_back(hop.clone());
            }
            self.idle.evict();
        }
    }

    /// Whether one more connection may be opened, of all that there may be.
    pub(super) fn has_place(&self) -> bool {
        self.connections.get() < self.connections_total_max
    }

    /// Starts the task of a connection that counts at its hop already.
    pub(super) fn open(self: &Rc<Self>, hop: Rc<Hop>) {
        self.connections.set(self.connections.get() + 1);
        glommio::spawn_local(worker::run(self.clone(), hop)).detach();
    }

    /// The place is free for those that wait for one, in turn, and then for this hop.
    pub fn connection_ended(self: &Rc<Self>, hop: &Rc<Hop>) {
        self.connections.set(self.connections.get() - 1);
        hop.connection_ended();
        self.feed_starved();
        hop.site().iter().for_each(|site| self.feed_site(site));
        self.feed(hop);
    }

    fn feed_starved(self: &Rc<Self>) {
        while self.has_place() {
            let Some(hop) = self.starved.borrow_mut().pop_front() else { return };
            hop.set_in_line(false);
            self.feed(&hop);
            // It stood there for its site, too.
            hop.site().iter().for_each(|site| self.feed_site(site));
        }
    }

    /// Feeds those that wait at a site, as far as it takes more.
    pub(super) fn feed_site(self: &Rc<Self>, site: &Rc<Site>) {
        loop {
            if let Err(later) = site.look(monotonic_millis()) {
                if site.is_wanted()
                    && let Some(at) = later
                    && site.begin_planning()
                {
                    self.plan(at, Due::Site(site.clone()));
                }
                // What waits for a site that is down follows it when it is fed.
                if !site.is_down() {
                    return;
                }
            }
            let Some(hop) = site.pop_waiting() else { return };
            hop.set_in_line(false);
            self.feed_as(&hop, true);
            // One of them in the shard's line is enough: when it has its place, the next one follows.
            if !self.has_place() && !site.is_down() {
                return;
            }
        }
    }

    /// Another next hop waits for what this one has.
    pub fn is_wanted(&self, hop: &Rc<Hop>) -> bool {
        !self.starved.borrow().is_empty() || hop.site().is_some_and(|site| site.is_wanted_beside(hop))
    }

    /// The next hop that a connection which is free now should serve: the first in line at its site, when the
    /// connection may serve it.
    pub fn next_in_line(&self, hop: &Rc<Hop>, shared: bool) -> Option<Rc<Hop>> {
        let site = hop.site().filter(|_| shared)?;
        let next = site.pop_waiting_if(|next| next.has_hosts_of(hop) && !Rc::ptr_eq(next, hop))?;
        next.set_in_line(false);
        Some(next)
    }

    /// A connection of one next hop serves another one of the site from now on.
    pub fn switch(self: &Rc<Self>, from: &Rc<Hop>, to: &Rc<Hop>) {
        to.connection_began();
        from.connection_ended();
        self.feed(from);
    }

    /// Waits for work. [`Call::Leave`], too, when the connection has been unused for long enough or the shard stops.
    pub async fn wait_for_work(&self, hop: &Rc<Hop>, shared: bool, age_left: Duration) -> Call {
        let Some(site) = hop.site() else { return Call::Leave };
        let unused = async {
            glommio::timer::sleep(self.config.delivery.idle.min(age_left)).await;
            Call::Leave
        };
        idle::wait(&self.idle, &site, hop, shared, self.connections.get()).or(unused).await
    }

    /// The site that the hosts of a next hop are; it is the hop's from now on.
    pub fn site_of(self: &Rc<Self>, hop: &Rc<Hop>, candidates: &[Candidate]) -> Rc<Site> {
        let hosts = site::names_of(candidates);
        let route = hop.next_hop.route;
        let rule = site::rule_of(&self.config, &hosts);
        let name = rule.map_or_else(|| hosts.clone(), |rule| rule.name.as_str().into());
        let name = match is_spread(self, &hop.next_hop) {
            // Each smart host is a rank of its own, and some may lack an address now.
            true => match hop.next_hop.choice {
                // Its connections are not those of another share.
                Choice::Share(index) => format!("{}#{index}", self.name_of(&hop.next_hop)).into(),
                Choice::Route | Choice::Table => self.name_of(&hop.next_hop).into(),
            },
            false => name,
        };
        let key = SiteKey { route, name };
        if let Some(site) = hop.site().filter(|site| site.key == key) {
            return site;
        }
        let known = self.sites.borrow().get(&key).cloned();
        let site = known.unwrap_or_else(|| {
            let rates = self.config.routes.get(usize::from(route)).map(|route| route.rates);
            let rates = rates.unwrap_or(self.config.delivery.rates);
            let own = |of: fn(&crate::config::SiteRule) -> Option<u32>| rule.and_then(of);
            let limits = Limits {
                connections_max: rule
                    .and_then(|rule| rule.connections_max)
                    .unwrap_or(self.limits_of(&hop.next_hop).connections_max),
                messages_per_minute: own(|rule| rule.messages_per_minute)
                    .unwrap_or(rates.messages_per_minute),
                connections_per_minute: own(|rule| rule.connections_per_minute)
                    .unwrap_or(rates.connections_per_minute),
            };
            // Smart hosts are spread over all delivery shards, each with its slice of the limits.
            let slices = if is_spread(self, &hop.next_hop) { self.links.delivery.len() } else { 0 };
            let site = Rc::new(Site::new(key.clone(), limits, slices, self.common.census.clone()));
            self.sites.borrow_mut().insert(key, site.clone());
            site
        });
        hop.set_site(&site, hosts);
        site
    }

    /// The addresses of a route from which nothing may go out today are passed over. Returns what is left, and
    /// when the others may be used again, when that is nothing.
    pub fn without_exhausted(
        &self,
        next_hop: &NextHop,
        candidates: Vec<Candidate>,
    ) -> Result<Vec<Candidate>, u64> {
        let now = wall_micros();
        let sources = self.sources_of(next_hop);
        if self.common.warm_ups.is_empty() || sources.is_empty() {
            return Ok(candidates);
        }
        let usable = |candidate: &Candidate| {
            let v4 = candidate.peer.address.is_ipv4();
            let mut of_family = sources.iter().filter(|source| source.is_ipv4() == v4).peekable();
            of_family.peek().is_none() || of_family.any(|source| self.common.warm_ups.allows(*source, now))
        };
        let left: Vec<_> = candidates.into_iter().filter(usable).collect();
        if left.is_empty() { Err(warm_up::next_day_micros(now)) } else { Ok(left) }
    }

    /// Takes the site's and the source address's turn for a message that is about to begin.
    pub fn take_turn(&self, hop: &Hop, source: Option<IpAddr>) -> Result<(), NoTurn> {
        if !self.may_send_from(&hop.next_hop, source, false) {
            return Err(NoTurn::Exhausted);
        }
        hop.site().map_or(Ok(()), |site| site.take_message(monotonic_millis())).map_err(NoTurn::Before)?;
        match self.may_send_from(&hop.next_hop, source, true) {
            true => Ok(()),
            false => Err(NoTurn::Exhausted),
        }
    }

    /// Whether a message may go out over a connection from this address, as far as its warm-up is concerned.
    fn may_send_from(&self, next_hop: &NextHop, source: Option<IpAddr>, take: bool) -> bool {
        let Some(source) = source.filter(|_| !self.common.warm_ups.is_empty()) else { return true };
        if !self.sources_of(next_hop).contains(&source) {
            return true;
        }
        match take {
            true => self.common.warm_ups.take(source, wall_micros()),
            false => self.common.warm_ups.allows(source, wall_micros()),
        }
    }
}

fn is_spread(shard: &DeliveryShard, next_hop: &NextHop) -> bool {
    let route = shard.config.routes.get(usize::from(next_hop.route));
    next_hop.is_spread() && route.is_some_and(|route| matches!(route.target, Target::SmartHosts(_)))
}
