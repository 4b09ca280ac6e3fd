//! Guests of a next hop: a question or a message whose client waits for the answer (cut-through).
//!
//! Lives on one delivery shard. A guest waits at its [`Hop`] and is served by the connections of that
//! hop, which are those of the queue: so it counts at the site, keeps its rates and the warm-up of the source
//! address, and what the host says is heeded, all as of any delivery. A connection that is free serves a guest before
//! the next message of the queue, then one of these, so neither holds the other up.
//!
//! Where there is no place or no turn in time, or the next hop is down, a guest is turned away: a message goes by the
//! queue, of a recipient nobody can say anything. How one is served is in [`table`](super::table).

use super::hop::Hop;
use super::places::NoTurn;
use crate::clock::{mail_date, monotonic_millis, wall_micros};
use crate::cut_through::{Ended, Key, Offer, Taken};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::oneshot;

/// To those that wait when the relay stops.
pub const STOPS: &str = "the relay stops";
/// To one whose time is over.
pub const TOO_LATE: &str = "no connection could be had in time";

/// One that waits, or is served.
pub struct Guest {
    pub number: u64,
    /// It waits no longer than until then, on the shard's monotonic clock.
    pub until_millis: u64,
    pub wants: Wants,
}

pub enum Wants {
    /// To know whether a recipient is taken. `address`: as the next hop is told it.
    Answer { key: Key, address: Box<str>, reply: oneshot::Sender<Taken> },
    /// A message taken. `begun`: it has its claim. `_over` goes with the guest.
    Delivery { offer: Box<Offer>, begun: bool, _over: oneshot::Sender<()> },
}

impl Guest {
    fn turn_away(self, why: &str) {
        match self.wants {
            Wants::Answer { reply, .. } => drop(reply.send(Taken::Unknown)),
            Wants::Delivery { offer, .. } => drop(offer.reply.send(Ended::Untried(why.into()))),
        }
    }
}

/// The guests of one next hop, in order.
#[derive(Default)]
pub struct Guests {
    waiting: RefCell<VecDeque<Guest>>,
    /// The number of the last one.
    last: Cell<u64>,
    /// Those that are served.
    served: Cell<usize>,
}

impl Guests {
    /// Returns its number.
    pub fn push(&self, wants: Wants, until_millis: u64) -> u64 {
        let number = self.last.get() + 1;
        self.last.set(number);
        self.waiting.borrow_mut().push_back(Guest { number, until_millis, wants });
        number
    }

    /// One that was taken is to be served by another connection, if its time is not over.
    pub fn push_front(&self, guest: Guest, now: u64) {
        match now < guest.until_millis {
            true => self.waiting.borrow_mut().push_front(guest),
            false => guest.turn_away(TOO_LATE),
        }
    }

    pub fn take(&self) -> Option<Guest> {
        self.waiting.borrow_mut().pop_front()
    }

    /// That one, while it waits.
    pub fn take_back(&self, number: u64) -> Option<Guest> {
        let mut waiting = self.waiting.borrow_mut();
        let place = waiting.iter().position(|guest| guest.number == number)?;
        waiting.remove(place)
    }

    pub fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }

    pub fn served(&self) -> usize {
        self.served.get()
    }

    pub fn turn_away(&self, why: &str) {
        self.waiting.take().into_iter().for_each(|guest| guest.turn_away(why));
    }

    /// The site's rates leave no turn before this moment. A message has the queue to go by; a question that can wait
    /// so long does.
    pub fn no_turn_before(&self, at: u64) {
        let goes = |guest: &Guest| at >= guest.until_millis || matches!(guest.wants, Wants::Delivery { .. });
        let (gone, stay): (VecDeque<_>, VecDeque<_>) = self.waiting.take().into_iter().partition(goes);
        self.waiting.replace(stay);
        gone.into_iter().for_each(|guest| guest.turn_away(&words(&NoTurn::Before(at))));
    }
}

/// A guest is being served until this is dropped.
pub struct AtTable(Rc<Hop>);

impl AtTable {
    pub fn of(hop: &Rc<Hop>) -> Self {
        hop.guests.served.set(hop.guests.served.get() + 1);
        Self(hop.clone())
    }
}

impl Drop for AtTable {
    fn drop(&mut self) {
        let served = &self.0.guests.served;
        served.set(served.get() - 1);
    }
}

/// One that waits, for who brought it: it leaves when this is dropped.
pub struct Waits {
    pub hop: Rc<Hop>,
    pub number: u64,
}

impl Waits {
    pub fn turn_away(&self, why: &str) {
        self.hop.guests.take_back(self.number).into_iter().for_each(|guest| guest.turn_away(why));
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        drop(self.hop.guests.take_back(self.number));
    }
}

/// Why a guest has no turn.
pub fn words(why: &NoTurn) -> String {
    match why {
        NoTurn::Before(at) => {
            let wait = Duration::from_millis(at.saturating_sub(monotonic_millis()));
            let at = mail_date(wall_micros() + wait.as_micros() as u64);
            format!("its site has no turn before {at}")
        }
        NoTurn::Exhausted => "the source address is being warmed up and has sent today's number".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::links::{Budget, NextHop};
    use sluice_queue::{ContentFlags, QueueId};
    use std::sync::Arc;

    fn question(guests: &Guests, until_millis: u64) -> oneshot::Receiver<Taken> {
        let (reply, taken) = oneshot::channel();
        let key = (NextHop::of_route(0), "a@b.test".into());
        guests.push(Wants::Answer { key, address: "a@b.test".into(), reply }, until_millis);
        taken
    }

    fn offer(guests: &Guests, until_millis: u64) -> oneshot::Receiver<Ended> {
        let (reply, ended) = oneshot::channel();
        let offer = Offer {
            id: QueueId::from_bits(1),
            next_hop: NextHop::of_route(0),
            recipients: vec![0],
            envelope: Arc::default(),
            content: Budget::new(1).hold(Arc::default()).unwrap(),
            flags: ContentFlags::default(),
            wait: Duration::ZERO,
            claim: Arc::default(),
            reply,
        };
        let wants = Wants::Delivery { offer: Box::new(offer), begun: false, _over: oneshot::channel().0 };
        guests.push(wants, until_millis);
        ended
    }

    #[test]
    fn without_a_turn_messages_go_by_the_queue_and_questions_wait_as_long_as_they_can() {
        let guests = Guests::default();
        let (mut long, mut short) = (question(&guests, 2_000), question(&guests, 1_000));
        let mut message = offer(&guests, 2_000);
        guests.no_turn_before(1_000);
        assert_eq!(guests.waiting(), 1);
        assert!(long.try_recv().is_err());
        assert_eq!(short.try_recv(), Ok(Taken::Unknown));
        let Ok(Ended::Untried(why)) = message.try_recv() else { panic!("it has its end") };
        assert!(why.starts_with("its site has no turn before "), "{why}");
    }

    #[test]
    fn one_that_is_to_be_served_elsewhere_comes_first_and_waits_no_longer_than_it_would_have() {
        let guests = Guests::default();
        let (mut first, _second) = (offer(&guests, 1_000), offer(&guests, 2_000));
        let taken = guests.take().unwrap();
        guests.push_front(taken, 999);
        let taken = guests.take().unwrap();
        assert_eq!(taken.until_millis, 1_000, "the first");
        guests.push_front(taken, 1_000);
        assert_eq!(guests.waiting(), 1);
        assert!(matches!(first.try_recv(), Ok(Ended::Untried(why)) if why == TOO_LATE));
    }

    #[test]
    fn one_whose_client_is_gone_waits_no_more() {
        let hop = Rc::new(Hop::new(NextHop::of_route(0)));
        let _taken = question(&hop.guests, 1_000);
        let number = hop.guests.push(
            Wants::Answer {
                key: (NextHop::of_route(0), "c@d.test".into()),
                address: "c@d.test".into(),
                reply: oneshot::channel().0,
            },
            1_000,
        );
        drop(Waits { hop: hop.clone(), number });
        assert_eq!(hop.guests.waiting(), 1);
        assert!(hop.guests.take_back(number).is_none());
        assert!(!hop.is_unused());
    }
}
