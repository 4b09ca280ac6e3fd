//! Messages over one connection, one behind the other without waiting as far as the peer's extensions allow
//! (see [`Client`](super::client::Client)), until it is used up, unused for too long, or broken.
//!
//! Lives on one delivery shard, in the task of the connection. A message is in `flights` from its first
//! command until all its recipients are settled or have gone back to the hop. What a host has decided is
//! settled before a backup host is asked. A fault of the program in one message puts that message off and ends
//! the connection; the others go back untried.

use super::client::Event;
use super::connection::Connection;
use super::guest::{AtTable, STOPS};
use super::hop::{Hop, Item};
use super::idle::Call;
use super::lookup::Candidate;
use super::message::Message;
use super::opening::open_one;
use super::places::{NoTurn, TURN_MESSAGES};
use super::settle::{Attempted, Tells, Timing, put_off_faulty, settle_attempt};
use super::shard::DeliveryShard;
use super::site::Serving;
use super::steer::InHands;
use super::table::{Served, Table};
use super::verdict::{Fate, Outcome, Peer, Verdict};
use crate::clock::{monotonic_millis, wall_micros};
use crate::config::RouteLimits;
use crate::rewrite::Rules;
use crate::smtp::content::Framing;
use crate::tls::outward::PeerTls;
use futures_lite::FutureExt;
use sluice_queue::{Envelope, RecipientState};
use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

/// Content under way on one connection past which no further message begins. Bounds the memory, and what is
/// sent once more when the connection breaks.
const BYTES_UNDER_WAY_MAX: u64 = 512 * 1024;
/// The same for recipients: their replies must fit into the buffers of the connection.
const RECIPIENTS_UNDER_WAY_MAX: usize = 256;

/// A connection to a host that took over from another one ends after this, so that the other one has its mail
/// again when it is back.
const DETOUR_AGE_MAX: Duration = Duration::from_secs(60);

/// Serves until the connection has come to its end, which it says with QUIT where it can.
/// `serves`: the hop that it serves at first, and the one that it serves in the end.
pub async fn serve(
    shard: &Rc<DeliveryShard>,
    serves: &RefCell<Rc<Hop>>,
    connection: Connection,
    backups: &[Candidate],
    serving: Serving,
) {
    let hop = serves.borrow().clone();
    let mut lane = Lane::new(shard, hop, connection, backups, serving);
    loop {
        match AssertUnwindSafe(lane.step()).catch_unwind().await {
            Ok(Step::On) => {}
            Ok(Step::Paced(at)) if lane.may_rest_until(at) => {
                let wait = at.saturating_sub(monotonic_millis()).max(1);
                glommio::timer::sleep(Duration::from_millis(wait)).await;
            }
            Ok(step @ (Step::Idle | Step::TurnOver)) => match lane.next_work(step).await {
                Call::Work => {}
                Call::Switch(next) => {
                    lane.switch(next, serves);
                    match shard.taken_over(&lane.connection, &lane.hop.next_hop).await {
                        Some(backups) => lane.backups = backups.into(),
                        None => return lane.connection.quit(),
                    }
                }
                Call::Leave => return lane.connection.quit(),
            },
            Ok(Step::UsedUp | Step::Paced(_)) => return lane.connection.quit(),
            Ok(Step::Broken) => return lane.give_back(),
            Err(_) => {
                shard.counters.delivery_panics_total.add(1);
                lane.after_a_fault();
                return lane.give_back();
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    On,
    /// Nothing is under way and nothing is ready.
    Idle,
    /// Nothing is under way, and others wait for the place.
    TurnOver,
    /// Nothing is under way, and the site's rate has no turn before that.
    Paced(u64),
    /// Nothing is under way and nothing more is to begin.
    UsedUp,
    Broken,
}

/// A connection and the messages on it, the oldest first.
struct Lane<'a> {
    shard: &'a Rc<DeliveryShard>,
    hop: Rc<Hop>,
    connection: Connection,
    serving: Serving,
    /// The other hosts of the hop that it serves.
    backups: Rc<[Candidate]>,
    flights: VecDeque<Flight>,
    /// A message that was taken from the hop and has not begun yet.
    taken: Option<Item>,
    /// The flight that is worked on, for a fault to be blamed on.
    at: Option<usize>,
    /// For the log line of the first message.
    setup_micros: u64,
    begun: usize,
    /// The host has taken a message over it.
    has_delivered: bool,
    /// The host takes no further message over it.
    is_worn: bool,
    /// Of those, the ones since it took its hop over, or since nobody else waited.
    turn: usize,
    /// What it did last was for a guest.
    served_guest: bool,
    limits: RouteLimits,
    /// It goes to a host that took over from another one.
    is_detour: bool,
}

/// A host, what its TLS is, and what it tells senders of.
type Reached<'a> = (&'a Peer, Option<Rc<PeerTls>>, Tells);

/// One message under way.
struct Flight {
    item: Item,
    message: Message,
    /// Those that are not decided yet.
    recipients: Vec<u32>,
    timing: Timing,
    hands: InHands,
}

impl<'a> Lane<'a> {
    fn new(
        shard: &'a Rc<DeliveryShard>,
        hop: Rc<Hop>,
        connection: Connection,
        backups: &[Candidate],
        serving: Serving,
    ) -> Self {
        let setup_micros = connection.setup_micros;
        let flights = VecDeque::new();
        let limits = shard.limits_of(&hop.next_hop);
        let is_detour = shard.is_detour(&hop.next_hop, connection.peer());
        Self {
            shard,
            hop,
            connection,
            serving,
            backups: backups.into(),
            flights,
            taken: None,
            at: None,
            setup_micros,
            begun: 0,
            has_delivered: false,
            is_worn: false,
            turn: 0,
            served_guest: false,
            limits,
            is_detour,
        }
    }

    async fn step(&mut self) -> Step {
        if self.guest_is_next() {
            if self.flights.is_empty() {
                return self.serve_guest().await;
            }
            let event = self.connection.next_event().await;
            return self.handle(event).await;
        }
        let over = match self.turn_for_a_message() {
            Ok(()) => match self.hop.take() {
                Some(item) => {
                    self.taken = Some(item);
                    return self.begin().await;
                }
                None => Step::Idle,
            },
            Err(over) => over,
        };
        if self.flights.is_empty() {
            return over;
        }
        let event = self.connection.next_event().await;
        self.handle(event).await
    }

    /// Takes the site's and the address's turn for a message, when there is a message and it may begin.
    ///
    /// # Errors
    /// What is to be done instead, when nothing is under way.
    fn turn_for_a_message(&mut self) -> Result<(), Step> {
        let (shard, hop) = (self.shard, &self.hop);
        if !self.has_room() || hop.is_down() || self.serving.must_leave() {
            return Err(Step::UsedUp);
        }
        if hop.ready_len() == 0 {
            return Err(Step::Idle);
        }
        if self.turn >= TURN_MESSAGES {
            if shard.is_wanted(hop) {
                return Err(Step::TurnOver);
            }
            self.turn = 0;
        }
        shard.take_turn(hop, self.connection.source).map_err(|why| match why {
            NoTurn::Before(at) => Step::Paced(at),
            NoTurn::Exhausted => Step::UsedUp,
        })
    }

    /// A client waits: it comes before the next message, but not before every message.
    fn guest_is_next(&self) -> bool {
        let (shard, hop) = (self.shard, &self.hop);
        shard.has_guest(hop)
            && (!self.served_guest || hop.ready_len() == 0)
            && (self.turn < TURN_MESSAGES || !shard.is_wanted(hop))
            && self.has_room()
            && !hop.is_down()
            && !self.serving.must_leave()
    }

    async fn serve_guest(&mut self) -> Step {
        let (shard, hop) = (self.shard, &self.hop.clone());
        let Some(guest) = hop.guests.take() else { return Step::On };
        let at_table = AtTable::of(hop);
        shard.feed(hop);
        (self.served_guest, self.begun, self.turn) = (true, self.begun + 1, self.turn + 1);
        let table = Table {
            shard,
            hop,
            last_host: self.backups.is_empty(),
            setup_micros: std::mem::take(&mut self.setup_micros),
            has_delivered: self.has_delivered,
        };
        match table.serve(&mut self.connection, guest).await {
            Served::Over { delivered } => self.has_delivered |= delivered,
            Served::Elsewhere(guest) => {
                hop.guests.push_front(guest, monotonic_millis());
                self.is_worn = true;
                // It may have become so meanwhile.
                match hop.trouble() {
                    Some(trouble) => hop.guests.turn_away(&trouble.text),
                    None if shard.is_stopping() => hop.guests.turn_away(STOPS),
                    None => {}
                }
            }
        }
        drop(at_table);
        shard.feed(hop);
        if self.connection.is_closed() { Step::Broken } else { Step::On }
    }

    /// A wait for the rate's turn that is no longer than an unused connection is kept.
    fn may_rest_until(&self, at: u64) -> bool {
        let idle_millis = self.shard.config.delivery.idle.as_millis() as u64;
        !self.shard.is_stopping() && at <= monotonic_millis() + idle_millis
    }

    /// What a connection with nothing under way does next.
    async fn next_work(&self, step: Step) -> Call {
        let shared = self.shard.may_be_shared(&self.hop.next_hop);
        if let Some(next) = self.shard.next_in_line(&self.hop, shared) {
            return Call::Switch(next);
        }
        if step == Step::TurnOver || self.shard.is_wanted(&self.hop) {
            return Call::Leave;
        }
        self.shard.wait_for_work(&self.hop, shared, self.age_left()).await
    }

    fn switch(&mut self, next: Rc<Hop>, serves: &RefCell<Rc<Hop>>) {
        let from = std::mem::replace(&mut self.hop, next.clone());
        *serves.borrow_mut() = next;
        self.turn = 0;
        self.shard.switch(&from, &self.hop);
    }

    fn has_room(&self) -> bool {
        let bytes: u64 = self.flights.iter().map(|flight| flight.message.content_bytes).sum();
        let recipients: usize = self.flights.iter().map(|flight| flight.recipients.len()).sum();
        self.connection.can_begin()
            && !self.is_worn
            && !self.shard.is_stopping()
            && self.begun < self.limits.messages_per_connection_max
            && !self.age_left().is_zero()
            && bytes < BYTES_UNDER_WAY_MAX
            && recipients < RECIPIENTS_UNDER_WAY_MAX
    }

    /// Until the connection is too old for another message.
    fn age_left(&self) -> Duration {
        let age_max = self.shard.config.delivery.connection_age_max;
        let age_max = if self.is_detour { age_max.min(DETOUR_AGE_MAX) } else { age_max };
        age_max.saturating_sub(self.connection.age())
    }

    /// The message that was taken: its commands, and its content where no answer is needed for that.
    async fn begin(&mut self) -> Step {
        let (shard, hop) = (self.shard, &self.hop.clone());
        let Some(item) = &self.taken else { return Step::On };
        let hands = shard.in_hands(item);
        #[cfg(test)]
        super::simulation::fault_point(item.id);
        shard.feed(hop);
        let loaded = Message::of(item, &shard.links).await;
        let Some(item) = self.taken.take() else { return Step::On };
        let (mut message, states) = match loaded {
            Ok(found) => found,
            Err(error) => {
                shard.unreadable(hop, item, &error);
                return Step::On;
            }
        };
        let mut rest = still_waiting(&item, states.as_deref());
        if rest.is_empty() {
            return Step::On;
        }
        let route = shard.config.routes.get(usize::from(hop.next_hop.route));
        let rules = route.and_then(|route| route.rewrite.as_ref());
        let mut now = self.connection.take_share(&message, &mut rest, self.limits.recipients_max);
        if let Some(rules) = rules.filter(|rules| rules.divides_recipients()) {
            let others = divide(&mut now, &message.envelope, rules);
            rest.splice(0..0, others);
        }
        if !rest.is_empty() {
            shard.give_back(hop, item.with_group(rest));
            hands.cover(&now);
            shard.feed(hop);
        }
        if let Some(rules) = rules
            && let Err(error) = message.rewrite(rules, &now, &shard.config).await
        {
            shard.unreadable(hop, item.with_group(now), &error);
            return Step::On;
        }
        let setup_micros = std::mem::take(&mut self.setup_micros);
        let timing = Timing { began_micros: wall_micros(), setup_micros, ended_micros: 0 };
        shard.transaction_began();
        self.begun += 1;
        self.turn += 1;
        self.served_guest = false;
        self.connection.begin(&message, &now);
        self.flights.push_back(Flight { item, message, recipients: now, timing, hands });
        let event = self.connection.event_at_hand();
        self.handle(event).await
    }

    async fn handle(&mut self, event: Event) -> Step {
        let mut event = event;
        loop {
            event = match event {
                Event::Read => return Step::On,
                Event::Send(framing) => {
                    let index = if framing == Framing::Dots { 0 } else { self.flights.len() - 1 };
                    self.at = Some(index);
                    match self.connection.send(&self.flights[index].message, framing).await {
                        Ok(Some(event)) => event,
                        Ok(None) => {
                            self.at = None;
                            return Step::On;
                        }
                        Err(error) => {
                            self.unreadable(index, &error);
                            return Step::Broken;
                        }
                    }
                }
                Event::Finished(fates) => {
                    self.finish(fates).await;
                    return if self.connection.is_closed() { Step::Broken } else { Step::On };
                }
                Event::Failed(failed) => {
                    if !failed.was_stale && !self.flights.is_empty() {
                        self.finish(failed.fates).await;
                    }
                    return Step::Broken;
                }
                other => unreachable!("{other:?} within a transaction"),
            }
        }
    }

    /// The oldest message has its fates. For the recipients that this host put off, each of the backup hosts
    /// is asked in turn.
    async fn finish(&mut self, fates: Vec<Fate>) {
        self.at = Some(0);
        let (shard, hop) = (self.shard, &self.hop.clone());
        // Many hosts take a number of messages over one connection, and say 4yz to the next MAIL: it is for another one.
        if self.has_delivered && self.connection.is_put_off_at_mail() {
            self.at = None;
            self.is_worn = true;
            return self.flights.pop_front().into_iter().for_each(|flight| flight.leave(shard, hop));
        }
        self.has_delivered |= fates.iter().any(|fate| matches!(fate, Fate::Delivered(_)));
        let Some(flight) = self.flights.front_mut() else { return };
        let connection = &self.connection;
        let here = (connection.peer(), connection.tls.clone(), connection.tells());
        let backups = self.backups.clone();
        flight.settle(shard, hop, None, fates, here, backups.is_empty()).await;
        for (index, backup) in backups.iter().enumerate() {
            if flight.recipients.is_empty() || shard.is_stopping() {
                break;
            }
            let last_host = index + 1 == backups.len();
            if let Err(error) = flight.with_backup(shard, hop, backup, last_host).await {
                self.unreadable(0, &error);
                return;
            }
        }
        self.at = None;
        if let Some(flight) = self.flights.pop_front() {
            flight.leave(shard, hop);
        }
    }

    fn unreadable(&mut self, index: usize, error: &str) {
        self.at = None;
        let Some(flight) = self.flights.remove(index) else { return };
        self.shard.unreadable(&self.hop, flight.item.with_group(flight.recipients), error);
        self.shard.transaction_ended();
    }

    /// What was under way goes back, in the order in which it came.
    fn give_back(mut self) {
        while let Some(flight) = self.flights.pop_back() {
            flight.leave(self.shard, &self.hop);
        }
    }

    /// The message at which the program failed is put off.
    fn after_a_fault(&mut self) {
        if let Some(item) = self.taken.take() {
            put_off_faulty(self.shard, &self.hop, item);
        }
        if let Some(flight) = self.at.take().and_then(|index| self.flights.remove(index)) {
            put_off_faulty(self.shard, &self.hop, flight.item.with_group(flight.recipients));
            self.shard.transaction_ended();
        }
    }
}

impl Flight {
    /// Recipients that nobody decided go back to where they came from.
    fn leave(self, shard: &Rc<DeliveryShard>, hop: &Rc<Hop>) {
        if !self.recipients.is_empty() {
            let mut rest = self.item.with_group(self.recipients);
            rest.luggage = self.item.luggage;
            shard.give_back(hop, rest);
        }
        shard.transaction_ended();
        drop(self.hands);
        shard.feed(hop);
    }

    /// Recipients that are decided leave the flight once that is reported. `asked`: whose fates these are; `None`:
    /// all of the flight's.
    async fn settle(
        &mut self,
        shard: &Rc<DeliveryShard>,
        hop: &Rc<Hop>,
        asked: Option<&[u32]>,
        fates: Vec<Fate>,
        (peer, tls, tells): Reached<'_>,
        last_host: bool,
    ) {
        let asked = asked.unwrap_or(&self.recipients);
        assert_eq!(fates.len(), asked.len(), "every recipient has its fate");
        let mut attempted = Vec::with_capacity(fates.len());
        let mut heeded = None;
        for (&recipient, fate) in asked.iter().zip(&fates) {
            let wait = shard.heed_fate(hop, peer, fate, &mut heeded);
            if let Some(verdict) = Verdict::of(fate, Some(peer), last_host) {
                let (relay, tls) = (peer.to_string(), tls.clone());
                attempted.push(Attempted { recipient, verdict, relay, tls, tells, wait });
            }
        }
        if attempted.iter().any(|done| done.verdict.outcome == Outcome::Delivered) {
            hop.site().iter().for_each(|site| site.succeeded());
        }
        self.timing.ended_micros = wall_micros();
        let some_stay = attempted.len() < self.recipients.len();
        let decided: Option<HashSet<u32>> =
            some_stay.then(|| attempted.iter().map(|done| done.recipient).collect());
        settle_attempt(shard, hop, &self.item, &self.message, attempted, self.timing).await;
        match decided {
            None => self.recipients.clear(),
            Some(decided) => self.recipients.retain(|recipient| !decided.contains(recipient)),
        }
    }

    /// Transactions of its own with another host, as many as its limits demand.
    ///
    /// # Errors
    /// The spool could not give the content.
    async fn with_backup(
        &mut self,
        shard: &Rc<DeliveryShard>,
        hop: &Rc<Hop>,
        candidate: &Candidate,
        last_host: bool,
    ) -> Result<(), String> {
        let peer = &candidate.peer;
        let most = shard.limits_of(&hop.next_hop).recipients_max;
        let mut left = self.recipients.clone();
        let mut backup: Option<Connection> = None;
        while !left.is_empty() {
            self.timing = Timing { began_micros: wall_micros(), setup_micros: 0, ended_micros: 0 };
            if backup.as_ref().is_none_or(|backup| !backup.can_begin()) {
                backup.take().into_iter().for_each(leave_politely);
                match open_one(shard, &hop.next_hop, candidate).await {
                    Ok(opened) => backup = Some(opened),
                    Err(failure) => {
                        let fates = vec![Fate::Failed(failure); left.len()];
                        let nothing = (peer, None, Tells::default());
                        self.settle(shard, hop, Some(&left), fates, nothing, last_host).await;
                        break;
                    }
                }
            }
            let Some(backup) = &mut backup else { break };
            self.timing.setup_micros = std::mem::take(&mut backup.setup_micros);
            let now = backup.take_share(&self.message, &mut left, most);
            let fates = backup.transact(&self.message, &now).await?;
            let (tls, tells) = (backup.tls.clone(), backup.tells());
            self.settle(shard, hop, Some(&now), fates, (peer, tls, tells), last_host).await;
        }
        backup.into_iter().for_each(leave_politely);
        Ok(())
    }
}

fn leave_politely(connection: Connection) {
    if !connection.is_closed() {
        connection.quit();
    }
}

/// Keeps those who get the same envelope sender as the first; gives the others, who wait for a transaction of
/// their own.
fn divide(recipients: &mut Vec<u32>, envelope: &Envelope, rules: &Rules) -> Vec<u32> {
    let now = wall_micros();
    let sender =
        |index: &u32| rules.sender(&envelope.sender, &envelope.recipients[*index as usize].address, now);
    let Some(first) = recipients.first().map(sender) else { return Vec::new() };
    let (same, others) = std::mem::take(recipients).into_iter().partition(|index| sender(index) == first);
    *recipients = same;
    others
}

/// The recipients of an item that nobody has decided yet.
fn still_waiting(item: &Item, states: Option<&[RecipientState]>) -> Vec<u32> {
    let is_waiting = |index: u32| {
        states.is_none_or(|states| states.get(index as usize).is_some_and(|state| state.is_open()))
    };
    item.group.indexes().iter().copied().filter(|&index| is_waiting(index)).collect()
}
