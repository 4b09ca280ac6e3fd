//! A receiving site: the hosts that a next hop leads to, as one receiver sees who sends to it. Next hops with the
//! same hosts share one: 10,000 domains of one provider are one receiver, with one number of connections, one
//! rate, one state of health.
//!
//! Lives on one delivery shard. A site that more than one shard sends to is divided: the [`Census`] counts the
//! shards, and each has its slice of the limits.
//!
//! Which hosts are one site: the set of their names, or, for receivers that give each customer a name of its own,
//! the `[[site]]` whose patterns they fit. Sites of different routes are different: so are their limits, their
//! source addresses and their TLS.

use super::hop::{Hop, Trouble};
use super::idle::IdleOfSite;
use super::lookup::Candidate;
use super::pace::{Rate, Window};
use crate::clock::{mail_date, wall_micros};
use crate::config::{Config, SiteRule};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// A site that nothing was delivered to for so long after it was suspended is a new one. Prevents domains of which
/// nobody hears again from taking all memory.
const SUSPENSION_KEPT_MILLIS: u64 = 6 * 3_600_000;

/// Cells of the census. Two sites in one cell only make each other's slices smaller.
const CENSUS_CELLS: usize = 1 << 18;

/// What sites are told apart by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SiteKey {
    pub route: u16,
    /// The names of the hosts, lower case, sorted, by commas; or the name of a `[[site]]`.
    pub name: Rc<str>,
}

/// What a site may take, of all shards together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub connections_max: usize,
    /// 0: any.
    pub messages_per_minute: u32,
    pub connections_per_minute: u32,
}

/// Slower for a while, because the site said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slow {
    pub connections: usize,
    pub messages_per_minute: u32,
    /// On the shard's monotonic clock.
    pub until_millis: u64,
}

/// How many delivery shards send to a site, for all of them. Nobody is asked and nobody waits.
pub struct Census(Box<[AtomicU16]>);

impl Default for Census {
    fn default() -> Self {
        Self((0..CENSUS_CELLS).map(|_| AtomicU16::new(0)).collect())
    }
}

impl Census {
    fn cell(&self, key: &SiteKey) -> &AtomicU16 {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
        &self.0[hash as usize % CENSUS_CELLS]
    }
}

pub struct Site {
    pub key: SiteKey,
    census: Arc<Census>,
    limits: Limits,
    /// So many shards have a part of it; 0: as the census says.
    slices: usize,
    window: RefCell<Window>,
    /// Open, being opened, and those whose task has been started.
    connections: Cell<usize>,
    /// Of those, the ones that were greeted.
    serving: Cell<usize>,
    /// Of those, the ones that leave because there are too many.
    leaving: Cell<usize>,
    messages: RefCell<Rate>,
    opens: RefCell<Rate>,
    slow: Cell<Option<Slow>>,
    /// Since when (wall clock, microseconds), and why.
    slow_since: RefCell<(u64, Rc<str>)>,
    /// Suspended so many times in a row, and when it was last.
    suspensions: Cell<u32>,
    suspended_millis: Cell<u64>,
    trouble: RefCell<Option<Trouble>>,
    /// Next hops with mail that wait for a place, each once.
    waiting: RefCell<VecDeque<Rc<Hop>>>,
    /// Next hops that are down because the site is; one more, which is not here, looks at it.
    followers: RefCell<VecDeque<Rc<Hop>>>,
    /// A look at those that wait stands in the timetable.
    turn_planned: Cell<bool>,
    pub idle: IdleOfSite,
}

impl Site {
    /// `slices`: how many shards have a part of it for certain; 0: as the census says.
    pub fn new(key: SiteKey, limits: Limits, slices: usize, census: Arc<Census>) -> Self {
        census.cell(&key).fetch_add(1, Relaxed);
        let site = Self {
            key,
            census,
            limits,
            slices,
            window: RefCell::new(Window::new(limits.connections_max)),
            connections: Cell::default(),
            serving: Cell::default(),
            messages: RefCell::default(),
            opens: RefCell::default(),
            slow: Cell::default(),
            slow_since: RefCell::new((0, "".into())),
            suspensions: Cell::default(),
            suspended_millis: Cell::default(),
            trouble: RefCell::default(),
            waiting: RefCell::default(),
            followers: RefCell::default(),
            turn_planned: Cell::default(),
            leaving: Cell::default(),
            idle: IdleOfSite::default(),
        };
        site.apply_limits();
        site
    }

    fn slices(&self) -> usize {
        match self.slices {
            0 => usize::from(self.census.cell(&self.key).load(Relaxed)).max(1),
            slices => slices,
        }
    }

    /// The limits as they are now, with this shard's slice of them.
    fn apply_limits(&self) {
        let slices = self.slices();
        let Limits { mut connections_max, mut messages_per_minute, connections_per_minute } = self.limits;
        if let Some(slow) = self.slow.get() {
            connections_max = connections_max.min(slow.connections);
            messages_per_minute = match (messages_per_minute, slow.messages_per_minute) {
                (0, other) | (other, 0) => other,
                (own, slow) => own.min(slow),
            };
        }
        self.window.borrow_mut().set_max(connections_max.div_ceil(slices));
        self.messages.borrow_mut().set(messages_per_minute, slices);
        self.opens.borrow_mut().set(connections_per_minute, slices);
    }

    /// Whether a connection may be opened, and a message sent over it.
    ///
    /// # Errors
    /// Not now; when time will help, the moment from which on.
    pub fn look(&self, now: u64) -> Result<(), Option<u64>> {
        self.refresh(now);
        if self.is_down() || self.connections.get() >= self.window.borrow().allowed() {
            return Err(None);
        }
        self.opens.borrow().look(now).and_then(|()| self.messages.borrow().look(now)).map_err(Some)
    }

    /// Back to what it was when the time of being slow is over; with another slice when shards come or go.
    fn refresh(&self, now: u64) {
        if self.slow.get().is_some_and(|slow| slow.until_millis <= now) {
            self.slow.set(None);
        }
        self.apply_limits();
    }

    /// A connection is about to be opened: its turn among those of a minute.
    ///
    /// # Errors
    /// There is none before this moment.
    pub fn take_open(&self, now: u64) -> Result<(), u64> {
        self.opens.borrow_mut().take(now)
    }

    /// A message is about to be sent.
    ///
    /// # Errors
    /// There is no turn before this moment.
    pub fn take_message(&self, now: u64) -> Result<(), u64> {
        self.messages.borrow_mut().take(now)
    }

    /// One that would be sent now would have to wait until then.
    pub fn look_message(&self, now: u64) -> Result<(), u64> {
        self.messages.borrow().look(now)
    }

    pub fn add_connections(&self, count: usize) {
        self.connections.set(self.connections.get() + count);
    }

    pub fn remove_connections(&self, count: usize) {
        self.connections.set(self.connections.get() - count);
    }

    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    /// More connections than there may be: some have to go.
    pub fn is_crowded(&self) -> bool {
        self.connections.get() - self.leaving.get() > self.window.borrow().allowed()
    }

    /// A host has greeted on a connection, which counts as serving from now on.
    pub fn greeted(self: &Rc<Self>) -> Serving {
        self.serving.set(self.serving.get() + 1);
        self.window.borrow_mut().greeted();
        Serving { site: self.clone(), leaving: Cell::new(false) }
    }

    pub fn serving(&self) -> usize {
        self.serving.get()
    }

    /// A message was delivered.
    pub fn succeeded(&self) {
        self.suspensions.set(0);
        self.window.borrow_mut().succeeded();
    }

    pub fn halve(&self, now: u64) {
        self.window.borrow_mut().halve(now);
    }

    pub fn hold(&self) {
        self.window.borrow_mut().hold(self.serving.get());
    }

    /// `reason`: what the host said. True when that is new, and not only for longer.
    pub fn slow_down(&self, slow: Slow, reason: Rc<str>) -> bool {
        let was = self.slow.replace(Some(slow));
        if was.is_none() {
            *self.slow_since.borrow_mut() = (wall_micros(), reason);
        }
        self.apply_limits();
        was.is_none()
    }

    pub fn slow(&self, now: u64) -> Option<Slow> {
        self.slow.get().filter(|slow| slow.until_millis > now)
    }

    /// Since when (wall clock, microseconds) it is slow, until when, and what it said.
    pub fn why_slow(&self, now: u64) -> Option<(u64, String)> {
        let slow = self.slow(now)?;
        let left_micros = (slow.until_millis - now) * 1_000;
        let until = mail_date(wall_micros().saturating_add(left_micros));
        let (since, reason) = &*self.slow_since.borrow();
        let Slow { connections, messages_per_minute, .. } = slow;
        let rate = match messages_per_minute {
            0 => "any number of".to_owned(),
            rate => rate.to_string(),
        };
        Some((*since, format!("{connections} connections, {rate} messages a minute until {until}: {reason}")))
    }

    /// Counts a suspension. Returns how many there have been in a row without a message delivered in between.
    pub fn suspended(&self, now: u64) -> u32 {
        self.suspended_millis.set(now);
        self.suspensions.set(self.suspensions.get().saturating_add(1));
        self.suspensions.get()
    }

    /// It answers at no address, or does not want to be talked to now.
    pub fn set_down(&self, trouble: Trouble) {
        self.window.borrow_mut().restart();
        *self.trouble.borrow_mut() = Some(trouble);
    }

    pub fn is_down(&self) -> bool {
        self.trouble.borrow().is_some()
    }

    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble.borrow().clone()
    }

    /// It answers: whoever followed it may go on.
    pub fn set_up(&self) -> VecDeque<Rc<Hop>> {
        *self.trouble.borrow_mut() = None;
        self.followers.take()
    }

    pub fn follow(&self, hop: &Rc<Hop>) {
        self.followers.borrow_mut().push_back(hop.clone());
    }

    /// Another next hop that may look at the site in place of one that has nothing to send any more.
    pub fn next_follower(&self) -> Option<Rc<Hop>> {
        self.followers.borrow_mut().pop_front()
    }

    pub fn push_waiting(&self, hop: &Rc<Hop>) {
        self.waiting.borrow_mut().push_back(hop.clone());
    }

    pub fn pop_waiting(&self) -> Option<Rc<Hop>> {
        self.waiting.borrow_mut().pop_front()
    }

    /// The first in line, when it is such a one.
    pub fn pop_waiting_if(&self, is_meant: impl Fn(&Rc<Hop>) -> bool) -> Option<Rc<Hop>> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.front().is_some_and(is_meant) { waiting.pop_front() } else { None }
    }

    /// Some next hop waits for a place.
    pub fn is_wanted(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Whether another next hop than this waits for a place.
    pub fn is_wanted_beside(&self, hop: &Rc<Hop>) -> bool {
        self.waiting.borrow().iter().take(2).any(|other| !Rc::ptr_eq(other, hop))
    }

    /// True for the one who is to plan the next look.
    pub fn begin_planning(&self) -> bool {
        !self.turn_planned.replace(true)
    }

    pub fn is_planned(&self) -> bool {
        self.turn_planned.get()
    }

    pub fn end_planning(&self) {
        self.turn_planned.set(false);
    }

    /// Nothing is known of it that the next one with this key would not find out.
    pub fn is_forgettable(&self, now: u64) -> bool {
        self.connections.get() == 0
            && !self.is_down()
            && self.slow(now).is_none()
            && (self.suspensions.get() == 0 || now >= self.suspended_millis.get() + SUSPENSION_KEPT_MILLIS)
            && self.look_message(now).is_ok()
            && self.opens.borrow().look(now).is_ok()
    }
}

/// A connection that serves, until it is dropped.
pub struct Serving {
    site: Rc<Site>,
    leaving: Cell<bool>,
}

impl Serving {
    /// Whether this connection has to go because there are too many. Once it is said it stays so.
    pub fn must_leave(&self) -> bool {
        if !self.leaving.get() && self.site.is_crowded() {
            self.leaving.set(true);
            self.site.leaving.set(self.site.leaving.get() + 1);
        }
        self.leaving.get()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.site.serving.set(self.site.serving.get() - 1);
        if self.leaving.get() {
            self.site.leaving.set(self.site.leaving.get() - 1);
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.census.cell(&self.key).fetch_sub(1, Relaxed);
    }
}

/// The names of the hosts of a next hop, lower case, sorted, by commas.
pub fn names_of(candidates: &[Candidate]) -> Rc<str> {
    let mut names: Vec<String> =
        candidates.iter().map(|candidate| candidate.peer.name.to_ascii_lowercase()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(",").into()
}

/// The `[[site]]` that all of the names fit.
pub fn rule_of<'a>(config: &'a Config, names: &str) -> Option<&'a SiteRule> {
    let fits =
        |rule: &&SiteRule| names.split(',').all(|name| rule.hosts.iter().any(|pattern| pattern.fits(name)));
    config.sites.iter().find(fits)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::verdict::Peer;
    use super::*;

    fn key(name: &str) -> SiteKey {
        SiteKey { route: 0, name: name.into() }
    }

    const LIMITS: Limits = Limits { connections_max: 20, messages_per_minute: 60, connections_per_minute: 0 };

    pub fn site() -> Rc<Site> {
        Rc::new(Site::new(key("mx"), LIMITS, 1, Arc::default()))
    }

    fn allowed(site: &Site) -> usize {
        (0..1_000).for_each(|_| site.succeeded());
        site.look(0).ok();
        site.window.borrow().allowed()
    }

    #[test]
    fn next_hops_with_the_same_hosts_have_one_name_whatever_the_order() {
        let candidate = |name: &str, last: u8| Candidate {
            peer: Peer { name: name.into(), address: ([192, 0, 2, last], 25).into() },
            rank: 0,
            secure: false,
            canonical: None,
            expanded: None,
        };
        let one = [candidate("mx2.example", 1), candidate("MX1.example", 2), candidate("mx1.example", 3)];
        assert_eq!(&*names_of(&one), "mx1.example,mx2.example");
        assert_eq!(names_of(&[candidate("mx1.example", 9), candidate("mx2.example", 8)]), names_of(&one));
    }

    #[test]
    fn receivers_that_name_each_customer_are_one_site_by_rule() {
        let config = Config::demonstration();
        let name = |names: &str| rule_of(&config, names).map(|rule| rule.name.as_str());
        assert_eq!(name("a-example.mail.protection.outlook.com"), Some("exchange-online"));
        assert_eq!(name("hotmail-com.olc.protection.outlook.com"), Some("outlook.com"));
        assert_eq!(name("a.mail.protection.outlook.com,mx.example"), None, "all of the names");
        assert_eq!(name("mx.example"), None);
    }

    #[test]
    fn shards_that_send_to_the_same_site_divide_its_limits_between_them() {
        let census = Arc::new(Census::default());
        let site = || Site::new(key("mx.example"), LIMITS, 0, census.clone());
        let one = site();
        assert_eq!(allowed(&one), 20);
        let others = [site(), site()];
        assert_eq!(allowed(&one), 7);
        one.take_message(0).unwrap();
        assert_eq!(one.look_message(1), Err(3_000));
        drop(others);
        assert_eq!(allowed(&one), 20);
        let fixed = Site::new(key("smart"), LIMITS, 4, census.clone());
        assert_eq!(allowed(&fixed), 5);
    }

    #[test]
    fn a_site_is_slow_until_its_time_is_over() {
        let site = Site::new(key("mx"), Limits { messages_per_minute: 0, ..LIMITS }, 1, Arc::default());
        allowed(&site);
        let slow = Slow { connections: 2, messages_per_minute: 60, until_millis: 5_000 };
        assert!(site.slow_down(slow, "slower".into()) && !site.slow_down(slow, "slower".into()));
        assert_eq!(site.window.borrow().allowed(), 2);
        assert_eq!([site.take_message(0), site.take_message(0)], [Ok(()), Err(1_000)]);
        assert!(!site.is_forgettable(4_999));
        site.add_connections(2);
        assert_eq!(site.look(4_999), Err(None));
        assert_eq!(site.look(5_000), Ok(()), "the others may come again");
        assert_eq!((0..100).map(|_| site.take_message(5_001)).filter(Result::is_ok).count(), 100);
        site.remove_connections(2);
        assert!(site.is_forgettable(5_001));
    }
}
