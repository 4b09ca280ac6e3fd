//! One next hop as its delivery shard sees it: the messages that are ready for it, how many
//! connections it has and may have, and whether it answers at all.
//!
//! Lives on one delivery shard. A hop that answers at no address is *down*: its messages wait here
//! without burning attempts, one connection at a time probes it, and when it answers again the
//! number of connections starts at one and grows with each success.

use super::ready::Ready;
use crate::shard::links::{Group, Luggage, NextHop};
use sluice_queue::QueueId;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Connections that a hop begins with, as Postfix does (initial_destination_concurrency).
const CONNECTIONS_FIRST: usize = 5;

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
    /// The most connections that this shard may have to it.
    connections_max: usize,
    connections_allowed: Cell<usize>,
    connections: Cell<usize>,
    ready: RefCell<Ready>,
    /// Messages that came while the hop was down and of which log and spool do not know it yet.
    unannounced: RefCell<VecDeque<Item>>,
    /// A task goes through the messages that wait.
    settling: Cell<bool>,
    /// A probe stands in the timetable.
    probe_planned: Cell<bool>,
    /// Waits for a place among all connections of the shard.
    starved: Cell<bool>,
    /// Connections without work, the one that was used last at the end.
    idle: RefCell<Vec<Rc<Idle>>>,
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

#[derive(Default)]
struct Idle {
    waker: RefCell<Option<Waker>>,
    called: Cell<bool>,
}

impl Hop {
    pub fn new(next_hop: NextHop, connections_max: usize) -> Self {
        let connections_max = connections_max.max(1);
        Self {
            next_hop,
            connections_max,
            connections_allowed: Cell::new(connections_max.min(CONNECTIONS_FIRST)),
            connections: Cell::new(0),
            ready: RefCell::default(),
            unannounced: RefCell::default(),
            settling: Cell::new(false),
            probe_planned: Cell::new(false),
            starved: Cell::new(false),
            idle: RefCell::default(),
            down: RefCell::default(),
            table_version: Cell::new(0),
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

    /// Whether it was already waiting for a place among all connections.
    pub fn set_starved(&self, starved: bool) -> bool {
        self.starved.replace(starved)
    }

    /// Nothing waits, nothing runs: the hop can be forgotten.
    pub fn is_unused(&self) -> bool {
        self.is_empty() && self.connections.get() == 0
    }

    /// Gives new work to a connection that waits, or says that a new connection should be opened.
    pub fn call(&self) -> Call {
        if self.down.borrow().is_some() || self.ready_len() == 0 {
            return Call::Nobody;
        }
        if let Some(idle) = self.idle.borrow_mut().pop() {
            idle.called.set(true);
            if let Some(waker) = idle.waker.take() {
                waker.wake();
            }
            return Call::Idle;
        }
        if self.connections.get() < self.connections_allowed.get() {
            self.connections.set(self.connections.get() + 1);
            return Call::Open;
        }
        Call::Nobody
    }

    /// The place of a connection that has no work; `call` ends the wait.
    pub async fn wait_for_call(&self) {
        let idle = Rc::new(Idle::default());
        self.idle.borrow_mut().push(idle.clone());
        let _leaves = Leaves { hop: self, idle: idle.clone() };
        poll_fn(|context| {
            if idle.called.get() {
                return Poll::Ready(());
            }
            *idle.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Wakes all connections that wait, so that they can end.
    pub fn call_all(&self) {
        for idle in self.idle.take() {
            idle.called.set(true);
            if let Some(waker) = idle.waker.take() {
                waker.wake();
            }
        }
    }

    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    /// Another connection was refused while these work: no more than these.
    pub fn shrink(&self) {
        self.connections_allowed.set(self.connections.get().saturating_sub(1).max(1));
    }

    pub fn connection_ended(&self) {
        self.connections.set(self.connections.get() - 1);
    }

    pub fn succeeded(&self) {
        let allowed = self.connections_allowed.get();
        if allowed < self.connections_max {
            self.connections_allowed.set(allowed + 1);
        }
    }

    /// The hop answers: true when it was down before.
    pub fn set_up(&self) -> bool {
        self.down.take().is_some()
    }

    /// The hop answers at no address, as was found at `now_micros`. Returns how often in a row that was found.
    pub fn set_down(&self, trouble: Trouble, now_micros: u64) -> u32 {
        self.connections_allowed.set(1);
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

    pub fn trouble(&self) -> Option<Trouble> {
        self.down.borrow().as_ref().map(|down| down.trouble.clone())
    }

    /// A probe is a connection like another, but the only one.
    pub fn begin_probe(&self) -> bool {
        let free = self.connections.get() == 0 && self.down.borrow().is_some();
        if free {
            self.connections.set(1);
        }
        free
    }
}

/// What [`Hop::call`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Idle,
    /// A place for a connection has been taken for the caller, who opens it.
    Open,
    Nobody,
}

struct Leaves<'a> {
    hop: &'a Hop,
    idle: Rc<Idle>,
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.hop.idle.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.idle));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};
    use sluice_queue::SpoolNumber;

    fn hop(connections_max: usize) -> Hop {
        Hop::new(NextHop::of_route(0), connections_max)
    }

    fn item(n: u64) -> Item {
        Item::of(QueueId::new(n, SpoolNumber::new(0).unwrap()), Group::One(0))
    }

    fn trouble() -> Trouble {
        Trouble { dsn: "4.4.1".into(), text: "no answer".into(), remote: "".into(), reply: None }
    }

    #[test]
    fn connections_are_opened_up_to_what_is_allowed() {
        let hop = hop(2);
        assert_eq!(hop.call(), Call::Nobody);
        hop.push(item(1));
        assert_eq!([hop.call(), hop.call(), hop.call()], [Call::Open, Call::Open, Call::Nobody]);
        hop.connection_ended();
        assert_eq!(hop.call(), Call::Open);
    }

    #[test]
    fn an_idle_connection_is_called_before_another_is_opened() {
        let hop = hop(5);
        let mut wait = Box::pin(hop.wait_for_call());
        block_on(async {
            assert_eq!(poll_once(&mut wait).await, None);
            hop.push(item(1));
            assert_eq!(hop.call(), Call::Idle);
            assert_eq!(poll_once(&mut wait).await, Some(()));
        });
        drop(wait);
        assert_eq!(hop.call(), Call::Open);
    }

    #[test]
    fn a_connection_that_stops_waiting_is_not_called() {
        let hop = hop(5);
        let mut wait = Box::pin(hop.wait_for_call());
        block_on(async { assert_eq!(poll_once(&mut wait).await, None) });
        drop(wait);
        hop.push(item(1));
        assert_eq!(hop.call(), Call::Open);
    }

    #[test]
    fn a_hop_that_is_down_gets_one_probe_and_then_grows_from_one_connection() {
        let hop = hop(20);
        hop.push(item(1));
        assert_eq!(hop.set_down(trouble(), 10), 1);
        assert_eq!(hop.call(), Call::Nobody);
        assert!(hop.begin_probe());
        assert!(!hop.begin_probe());
        assert_eq!(hop.set_down(trouble(), 20), 2);
        assert_eq!(hop.down_since(), Some((trouble(), 10)));
        hop.connection_ended();
        assert!(hop.begin_probe());
        assert!(hop.set_up());
        assert_eq!(hop.call(), Call::Nobody, "the probe's own connection is the one allowed");
        hop.succeeded();
        assert_eq!([hop.call(), hop.call()], [Call::Open, Call::Nobody]);
    }
}
