//! One next hop as its delivery shard sees it: the messages that are ready for it, how many connections it has,
//! and whether it answers at all. How many it may have, its [`Site`] knows.
//!
//! Lives on one delivery shard. A hop that answers at no address is *down*: its messages wait here without
//! burning attempts, and one connection at a time probes it.

use super::guest::Guests;
use super::ready::Ready;
use super::site::Site;
use crate::shard::links::{Group, Luggage, NextHop};
use sluice_queue::QueueId;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

/// A message in the schedule: an index entry, and the message itself while it is fresh.
pub struct Item {
    pub id: QueueId,
    pub group: Group,
    pub attempts: u16,
    /// The sender has been told that it takes longer.
    pub notified: bool,
    /// The log and the spool know why it waits.
    pub announced: bool,
    /// How often its delivery ended in a fault of the program.
    pub faults: u8,
    /// RFC 6710.
    pub priority: i8,
    /// When its clock began: at its arrival, or at its release.
    pub arrived_micros: u64,
    pub luggage: Luggage,
}

const _: () = assert!(size_of::<Item>() == 48, "a waiting message must stay small");

impl Item {
    /// One that nothing is known of but these.
    #[cfg(test)]
    pub fn of(id: QueueId, group: Group) -> Self {
        Self {
            id,
            group,
            attempts: 0,
            notified: false,
            announced: false,
            faults: 0,
            priority: 0,
            arrived_micros: 0,
            luggage: Luggage::default(),
        }
    }
}

/// Why a hop cannot be used, in the words of a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub dsn: Rc<str>,
    pub text: Rc<str>,
    /// The host that said so; empty when none did.
    pub remote: Rc<str>,
    /// Its own words.
    pub reply: Option<Rc<str>>,
}

pub struct Hop {
    pub next_hop: NextHop,
    connections: Cell<usize>,
    /// Of those, the ones that no host has greeted yet.
    opening: Cell<usize>,
    /// The site that its hosts are, and their names; nobody knows before the first look-up.
    site: RefCell<Option<(Rc<Site>, Rc<str>)>>,
    ready: RefCell<Ready>,
    /// Whose clients wait for a connection of this hop.
    pub guests: Guests,
    /// Messages that came while the hop was down and of which log and spool do not know it yet.
    unannounced: RefCell<VecDeque<Item>>,
    /// A task goes through the messages that wait.
    settling: Cell<bool>,
    /// A probe stands in the timetable.
    probe_planned: Cell<bool>,
    /// Waits in the line of its site or of the shard for a place for one more connection.
    in_line: Cell<bool>,
    /// The first moment at which one of those that wait expires or is due for a notice, wall clock.
    event_micros: Cell<u64>,
    down: RefCell<Option<Down>>,
    /// The version of the route's table by which its messages came here, as far as that was looked at.
    pub table_version: Cell<u64>,
}

struct Down {
    trouble: Trouble,
    probes: u32,
    /// Wall clock, microseconds.
    since_micros: u64,
}

impl Hop {
    pub fn new(next_hop: NextHop) -> Self {
        Self {
            next_hop,
            connections: Cell::new(0),
            opening: Cell::new(0),
            site: RefCell::default(),
            ready: RefCell::default(),
            guests: Guests::default(),
            unannounced: RefCell::default(),
            settling: Cell::new(false),
            probe_planned: Cell::new(false),
            in_line: Cell::new(false),
            event_micros: Cell::new(0),
            down: RefCell::default(),
            table_version: Cell::new(0),
        }
    }

    pub fn site(&self) -> Option<Rc<Site>> {
        self.site.borrow().as_ref().map(|(site, _)| site.clone())
    }

    /// `hosts`: their names. Its connections count there from now on.
    pub fn set_site(&self, site: &Rc<Site>, hosts: Rc<str>) {
        let was = self.site.replace(Some((site.clone(), hosts)));
        if let Some((was, _)) = was {
            was.remove_connections(self.connections.get());
        }
        site.add_connections(self.connections.get());
    }

    /// Its site has other hosts, too: those whose names fit a `[[site]]`.
    pub fn is_of_a_rule(&self) -> bool {
        let site = self.site.borrow();
        self.next_hop.domain.is_some() && site.as_ref().is_some_and(|(site, hosts)| site.key.name != *hosts)
    }

    /// Both lead to the same hosts, as far as is known.
    pub fn has_hosts_of(&self, other: &Hop) -> bool {
        match (&*self.site.borrow(), &*other.site.borrow()) {
            (Some((one, hosts)), Some((other, others))) => Rc::ptr_eq(one, other) && hosts == others,
            _ => false,
        }
    }

    pub fn push(&self, item: Item) {
        self.ready.borrow_mut().push(item);
    }

    /// Gives back a message that was taken and not tried.
    pub fn push_front(&self, item: Item) {
        self.ready.borrow_mut().push_front(item);
    }

    pub fn take(&self) -> Option<Item> {
        self.ready.borrow_mut().take()
    }

    /// The first message of a priority, for who goes through all of them.
    pub fn take_of(&self, priority: i8) -> Option<Item> {
        self.ready.borrow_mut().take_of(priority)
    }

    /// Each priority of messages that are ready, and how many have it.
    pub fn ready_counts(&self) -> Vec<(i8, usize)> {
        self.ready.borrow().counts()
    }

    /// Messages that wait here, told of or not.
    pub fn waiting_len(&self) -> usize {
        self.ready_len() + self.unannounced.borrow().len()
    }

    pub fn ready_len(&self) -> usize {
        self.ready.borrow().len()
    }

    pub fn push_unannounced(&self, item: Item) {
        self.unannounced.borrow_mut().push_back(item);
    }

    pub fn take_unannounced(&self) -> Option<Item> {
        self.unannounced.borrow_mut().pop_front()
    }

    pub fn has_unannounced(&self) -> bool {
        !self.unannounced.borrow().is_empty()
    }

    /// Takes everything that waits here out: what is ready, and what came unannounced.
    pub fn take_all(&self) -> (VecDeque<Item>, VecDeque<Item>) {
        (self.ready.borrow_mut().take_all(), self.unannounced.take())
    }

    /// Nobody waits for this hop, in whatever state.
    pub fn is_empty(&self) -> bool {
        self.ready.borrow().is_empty() && self.unannounced.borrow().is_empty() && !self.settling.get()
    }

    /// True for the one task that is to go through the messages that wait.
    pub fn begin_settling(&self) -> bool {
        !self.settling.replace(true)
    }

    #[cfg(test)]
    pub fn is_settling(&self) -> bool {
        self.settling.get()
    }

    pub fn end_settling(&self) {
        self.settling.set(false);
    }

    /// True for the one who is to plan the next probe.
    pub fn begin_planning(&self) -> bool {
        !self.probe_planned.replace(true)
    }

    pub fn is_planned(&self) -> bool {
        self.probe_planned.get()
    }

    pub fn end_planning(&self) {
        self.probe_planned.set(false);
    }

    /// Whether it was already in a line for a place.
    pub fn set_in_line(&self, in_line: bool) -> bool {
        self.in_line.replace(in_line)
    }

    /// One of those that wait here expires then, or is due for a notice.
    pub fn note_event(&self, at_micros: u64) {
        self.event_micros.set(self.event_micros.get().min(at_micros));
    }

    /// Whether something is due for one of those that wait; if so, they are all looked at, and what each waits
    /// for is noted anew.
    pub fn take_event(&self, now_micros: u64) -> bool {
        let is_due = self.event_micros.get() <= now_micros;
        if is_due {
            self.event_micros.set(u64::MAX);
        }
        is_due
    }

    /// Nothing waits, nothing runs: the hop can be forgotten.
    pub fn is_unused(&self) -> bool {
        self.is_empty() && self.guests.waiting() == 0 && self.connections.get() == 0
    }

    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    pub fn opening(&self) -> usize {
        self.opening.get()
    }

    /// A connection begins, or takes this next hop over from another of the site.
    pub fn connection_began(&self) {
        self.connections.set(self.connections.get() + 1);
        self.site.borrow().iter().for_each(|(site, _)| site.add_connections(1));
    }

    pub fn connection_ended(&self) {
        self.connections.set(self.connections.get() - 1);
        self.site.borrow().iter().for_each(|(site, _)| site.remove_connections(1));
    }

    /// The hop answers: true when it was down before.
    pub fn set_up(&self) -> bool {
        self.down.take().is_some()
    }

    /// The hop answers at no address, as was found at `now_micros`. Its guests do not wait for the end of that. Returns
    /// how often in a row it was found.
    pub fn set_down(&self, trouble: Trouble, now_micros: u64) -> u32 {
        self.guests.turn_away(&trouble.text);
        // Those that wait here have not been looked at yet.
        if self.down.borrow().is_none() {
            self.event_micros.set(0);
        }
        let mut down = self.down.borrow_mut();
        let probes = down.as_ref().map_or(0, |down| down.probes).saturating_add(1);
        let since_micros = down.as_ref().map_or(now_micros, |down| down.since_micros);
        *down = Some(Down { trouble, probes, since_micros });
        probes
    }

    /// What is wrong with it, and since when (wall clock, microseconds).
    pub fn down_since(&self) -> Option<(Trouble, u64)> {
        self.down.borrow().as_ref().map(|down| (down.trouble.clone(), down.since_micros))
    }

    /// The waits between probes begin anew.
    pub fn reset_probes(&self) {
        if let Some(down) = &mut *self.down.borrow_mut() {
            down.probes = 0;
        }
    }

    pub fn is_down(&self) -> bool {
        self.down.borrow().is_some()
    }

    pub fn trouble(&self) -> Option<Trouble> {
        self.down.borrow().as_ref().map(|down| down.trouble.clone())
    }

    /// A probe is a connection like another, but the only one.
    pub fn begin_probe(&self) -> bool {
        let free = self.connections.get() == 0 && self.down.borrow().is_some();
        if free {
            self.connection_began();
        }
        free
    }
}

/// A connection of a hop is being opened until this is dropped.
pub struct Opening(Rc<Hop>);

impl Opening {
    pub fn of(hop: &Rc<Hop>) -> Self {
        hop.opening.set(hop.opening.get() + 1);
        Self(hop.clone())
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.opening.set(self.0.opening.get() - 1);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::site::tests::site;
    use super::*;
    use sluice_queue::SpoolNumber;

    pub fn hop() -> Hop {
        Hop::new(NextHop::of_route(0))
    }

    pub fn item(n: u64) -> Item {
        Item::of(QueueId::new(n, SpoolNumber::new(0).unwrap()), Group::One(0))
    }

    fn trouble() -> Trouble {
        Trouble { dsn: "4.4.1".into(), text: "no answer".into(), remote: "".into(), reply: None }
    }

    #[test]
    fn its_connections_count_at_its_site_wherever_that_moves() {
        let (hop, one, other) = (hop(), site(), site());
        hop.connection_began();
        hop.set_site(&one, "a".into());
        hop.connection_began();
        assert_eq!(one.connections(), 2);
        hop.set_site(&other, "b".into());
        assert_eq!((one.connections(), other.connections()), (0, 2));
        hop.set_site(&other, "c".into());
        hop.connection_ended();
        assert_eq!((other.connections(), hop.connections()), (1, 1));
    }

    #[test]
    fn a_hop_that_is_down_gets_one_probe() {
        let hop = hop();
        hop.push(item(1));
        assert!(!hop.begin_probe(), "it is not down");
        assert_eq!(hop.set_down(trouble(), 10), 1);
        assert!(hop.begin_probe());
        assert!(!hop.begin_probe());
        assert_eq!(hop.set_down(trouble(), 20), 2);
        assert_eq!(hop.down_since(), Some((trouble(), 10)));
        hop.connection_ended();
        assert!(hop.begin_probe());
        assert!(hop.set_up() && !hop.set_up());
    }

    #[test]
    fn those_that_wait_are_looked_at_when_something_is_due_for_one_of_them_and_not_before() {
        let hop = hop();
        hop.set_down(trouble(), 1);
        assert!(hop.take_event(1), "once at the beginning");
        assert!(!hop.take_event(1_000_000));
        hop.note_event(300);
        hop.note_event(200);
        hop.set_down(trouble(), 2);
        assert!(!hop.take_event(199));
        assert!(hop.take_event(200));
        assert!(!hop.take_event(u64::MAX - 1));
    }
}
