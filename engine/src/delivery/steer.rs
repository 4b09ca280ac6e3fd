//! What an administrator's change means for the messages that a delivery shard has.
//!
//! Lives on one delivery shard. The ingest shard has decided already which recipients are meant; here they
//! are withdrawn, or have their next attempt brought forward.
//!
//! The pass over everything that waits is free of races although it yields: in one step, without an await,
//! what is in hands is marked and every hop's queue and the timetable are taken out whole. From then on
//! nothing that was there before can be anywhere else, and what is found not to be meant is put back piece
//! by piece. Passes never overlap: the inbox waits for one to end, and so every later handover and every
//! later change finds things in their places.

use super::hands::Slot;
use super::hop::{Hop, Item};
use super::shard::{DeliveryShard, Due};
use crate::clock::{monotonic_millis, wall_micros};
use crate::shard::links::{Order, Steered, ToIngest};
use crate::steering::{HopTrouble, Targets, Which};
use sluice_queue::QueueId;
use std::collections::VecDeque;
use std::rc::Rc;

/// Items looked at between two yields.
const SLICE: usize = 512;

/// What waited in one hop when the pass began.
struct Taken {
    hop: Rc<Hop>,
    ready: VecDeque<Item>,
    unannounced: VecDeque<Item>,
    /// This pass keeps others from settling the hop meanwhile.
    settles: bool,
}

/// One pass: what it looks for, and what it found.
struct Pass<'a> {
    shard: &'a Rc<DeliveryShard>,
    order: Order,
    targets: &'a Targets,
    near: usize,
    seen: usize,
    forward: Vec<(QueueId, u32)>,
    /// Hops that are down and that a message which is to be tried now waits for.
    wanted: Vec<Rc<Hop>>,
}

impl DeliveryShard {
    /// Carries an order out.
    pub async fn steer(self: &Rc<Self>, order: Order, targets: &Targets) -> Steered {
        let under_way = match order {
            Order::Withdraw => self.hands.mark(targets),
            Order::Retry => self.hands.find(targets),
        };
        let hops = self.take_queues();
        let timetable = self.timetable.borrow_mut().take_all();
        let waiting: usize = hops.iter().map(|taken| taken.ready.len() + taken.unannounced.len()).sum();
        self.passing.set(waiting + timetable.len());
        if order == Order::Retry {
            self.lookup.forget_failed();
            self.memory.borrow_mut().forget_all();
        }
        let mut pass =
            Pass { shard: self, order, targets, near: 0, seen: 0, forward: Vec::new(), wanted: Vec::new() };
        for taken in hops {
            pass.hop(taken).await;
        }
        pass.timetable(timetable).await;
        self.passing.set(0);
        for hop in std::mem::take(&mut pass.wanted) {
            self.probe_now(&hop);
        }
        Steered { under_way, forward: pass.forward }
    }

    fn take_queues(&self) -> Vec<Taken> {
        let hops = self.hops.borrow();
        let waiting = hops.values().filter(|hop| hop.waiting_len() > 0);
        waiting
            .map(|hop| {
                let (ready, unannounced) = hop.take_all();
                Taken { hop: hop.clone(), ready, unannounced, settles: hop.begin_settling() }
            })
            .collect()
    }

    /// Next hops that answer at no address, or that are sent to more slowly for a while, for people.
    pub fn troubles(&self) -> Vec<HopTrouble> {
        let hops = self.hops.borrow();
        let now = monotonic_millis();
        let troubles = hops.values().filter_map(|hop| {
            let (since_micros, reason, is_slow) = match hop.down_since() {
                Some((trouble, since_micros)) => (since_micros, trouble.text.to_string(), false),
                None => {
                    let (since_micros, reason) = hop.site()?.why_slow(now)?;
                    (since_micros, reason, true)
                }
            };
            Some(HopTrouble { next_hop: self.name_of(&hop.next_hop), since_micros, reason, is_slow })
        });
        troubles.collect()
    }

    /// Registers a message that is taken out of its hop until what is returned is dropped.
    pub fn in_hands(self: &Rc<Self>, item: &Item) -> InHands {
        InHands { shard: self.clone(), slot: self.hands.take(item) }
    }
}

impl Pass<'_> {
    async fn hop(&mut self, taken: Taken) {
        let Taken { hop, ready, unannounced, settles } = taken;
        for (queue, announced) in [(ready, true), (unannounced, false)] {
            for item in queue {
                match self.order {
                    Order::Withdraw => {
                        let (_, rest) = self.divide(item);
                        rest.into_iter().for_each(|item| give_back(&hop, item, announced));
                    }
                    Order::Retry => {
                        self.retry_ready(&hop, &item);
                        give_back(&hop, item, announced);
                    }
                }
                self.breathe().await;
            }
        }
        if settles {
            hop.end_settling();
        }
        if hop.has_unannounced() {
            self.shard.settle_down(&hop, false);
        }
        self.shard.feed(&hop);
    }

    async fn timetable(&mut self, entries: Vec<(u64, Due)>) {
        let now = wall_micros();
        for (due, what) in entries {
            match what {
                what @ (Due::Probe(_) | Due::Site(_)) => self.shard.plan(due, what),
                // Who asked for a later release is not sent before, whoever hurries (RFC 4865).
                Due::Item(hop, item) if self.order == Order::Retry && item.arrived_micros > now => {
                    self.shard.plan(due, Due::Item(hop, item));
                }
                Due::Item(hop, item) => {
                    let (meant, rest) = self.divide(item);
                    rest.into_iter().for_each(|item| self.shard.plan(due, Due::Item(hop.clone(), item)));
                    if let Some(item) = meant.filter(|_| self.order == Order::Retry) {
                        self.forward.push((item.id, item.group.indexes().len() as u32));
                        self.want(&hop);
                        self.shard.make_ready(&hop, item);
                    }
                }
            }
            self.breathe().await;
        }
    }

    /// A message that is ready already: it is brought forward only by a look at its hop when that is down.
    fn retry_ready(&mut self, hop: &Rc<Hop>, item: &Item) {
        let Some(which) = self.targets.find(item.id, &mut self.near) else { return };
        let meant = item.group.indexes().iter().filter(|&&index| which.contains(index)).count();
        if hop.trouble().is_some() && meant > 0 {
            self.forward.push((item.id, meant as u32));
            self.want(hop);
        }
    }

    fn want(&mut self, hop: &Rc<Hop>) {
        let known = self.wanted.last().is_some_and(|last| Rc::ptr_eq(last, hop));
        if hop.trouble().is_some() && !known {
            self.wanted.push(hop.clone());
        }
    }

    /// The recipients of an item that are meant, and the others.
    fn divide(&mut self, item: Item) -> (Option<Item>, Option<Item>) {
        match self.targets.find(item.id, &mut self.near) {
            None => (None, Some(item)),
            Some(Which::All) => (Some(item), None),
            Some(which) => {
                let (meant, rest): (Vec<u32>, Vec<u32>) =
                    item.group.indexes().iter().partition(|&&index| which.contains(index));
                if meant.is_empty() {
                    return (None, Some(item));
                }
                if rest.is_empty() {
                    return (Some(item), None);
                }
                let meant = item.with_group(meant);
                let mut rest = item.with_group(rest);
                rest.luggage = item.luggage;
                (Some(meant), Some(rest))
            }
        }
    }

    async fn breathe(&mut self) {
        self.seen += 1;
        if self.seen.is_multiple_of(SLICE) {
            let passing = &self.shard.passing;
            passing.set(passing.get().saturating_sub(SLICE));
            glommio::yield_if_needed().await;
        }
    }
}

fn give_back(hop: &Hop, item: Item, announced: bool) {
    if announced { hop.push(item) } else { hop.push_unannounced(item) }
}

/// A message in hands. Dropped when it has left them, whatever became of it.
pub struct InHands {
    shard: Rc<DeliveryShard>,
    slot: Slot,
}

impl InHands {
    /// Only these recipients are still here; the others have gone back to their hop.
    pub fn cover(&self, recipients: &[u32]) {
        self.shard.hands.cover(self.slot, recipients);
    }
}

impl Drop for InHands {
    fn drop(&mut self) {
        if let Some((id, recipients)) = self.shard.hands.release(self.slot) {
            self.shard.tell(ToIngest::Withdrawn { id, recipients }, id);
        }
    }
}

impl DeliveryShard {
    /// Tells the ingest shard of a message from a place that cannot wait.
    pub(super) fn tell(&self, what: ToIngest, id: QueueId) {
        let Err(what) = self.links.owner_of(id).try_send(what) else { return };
        // While the shard stops its executor may be gone; what is not told then, the next start finds out.
        if !self.is_stopping() {
            let links = self.links.clone();
            glommio::spawn_local(async move { links.owner_of(id).send(what).await }).detach();
        }
    }
}
