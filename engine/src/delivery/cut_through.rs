//! The delivery side of cut-through: recipients and messages for which a client of an ingest shard waits.
//!
//! Lives on one delivery shard. What a client waits for becomes a [guest](super::guest) of its next hop and is served
//! over that hop's connections, as many at a time as `cut_through.connections_max` says. A question that is under way
//! is not asked again; who asks too gets the same answer.

use super::balance;
use super::guest::{TOO_LATE, Waits, Wants};
use super::hop::Hop;
use super::shard::DeliveryShard;
use super::sorting::{Server, server_of};
use crate::clock::monotonic_millis;
use crate::config::{CutThrough, Target};
use crate::cut_through::{Answers, Ask, Ended, Key, Offer, Taken};
use crate::observe::log;
use crate::shard::links::{Choice, NextHop};
use crate::smtp::said::Said;
use futures_lite::FutureExt;
use sluice_queue::{QueueId, Recipient};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Questions under way on one shard, each about another recipient. Prevents guessing of addresses from taking all
/// memory; past it the answer is that nobody can say.
const QUESTIONS_MAX: usize = 1024;
/// Offers under way on one shard. Past it messages are queued as always.
const OFFERS_MAX: usize = 1024;

/// What a delivery shard keeps for it.
pub struct CutThroughState {
    answers: RefCell<Answers>,
    /// Who waits for each question that is under way.
    questions: RefCell<HashMap<Key, Vec<oneshot::Sender<Taken>>>>,
    offers: Cell<usize>,
    /// Guests of one next hop that are served at a time.
    served_max: usize,
}

impl CutThroughState {
    pub fn new(config: &CutThrough, shards: usize) -> Self {
        Self {
            answers: RefCell::new(Answers::new(config, shards)),
            questions: RefCell::default(),
            offers: Cell::new(0),
            served_max: config.connections_max.div_ceil(shards),
        }
    }

    pub(super) fn remember(&self, key: &Key, taken: &Taken) {
        self.answers.borrow_mut().put(key, taken, monotonic_millis());
    }
}

impl DeliveryShard {
    pub(super) fn asked(self: &Rc<Self>, ask: Ask) {
        match ask {
            Ask::Recipient { next_hop, address, wait, reply } => {
                self.asked_about(&next_hop, &address, wait, reply);
            }
            Ask::Message(offer) => self.offered(*offer),
        }
    }

    fn asked_about(
        self: &Rc<Self>,
        next_hop: &NextHop,
        address: &str,
        wait: Duration,
        reply: oneshot::Sender<Taken>,
    ) {
        let key = Answers::key(next_hop, address);
        let state = &self.cut_through;
        if let Some(taken) = state.answers.borrow().get(&key, monotonic_millis()) {
            return drop(reply.send(taken));
        }
        let mut questions = state.questions.borrow_mut();
        if let Some(waiting) = questions.get_mut(&key) {
            return waiting.push(reply);
        }
        if questions.len() >= QUESTIONS_MAX || self.is_stopping() {
            return drop(reply.send(Taken::Unknown));
        }
        questions.insert(key.clone(), vec![reply]);
        // A task that is spawned runs at once.
        drop(questions);
        let shard = self.clone();
        glommio::spawn_local(async move {
            let found = AssertUnwindSafe(find_out(&shard, &key, wait)).catch_unwind().await;
            let taken = found.unwrap_or_else(|_| {
                shard.counters.delivery_panics_total.add(1);
                log::note("delivery", "error: an internal fault while a recipient was asked about");
                Taken::Unknown
            });
            shard.cut_through.remember(&key, &taken);
            let waiting = shard.cut_through.questions.borrow_mut().remove(&key).unwrap_or_default();
            waiting.into_iter().for_each(|reply| drop(reply.send(taken.clone())));
        })
        .detach();
    }

    fn offered(self: &Rc<Self>, offer: Offer) {
        let offers = &self.cut_through.offers;
        if offers.get() >= OFFERS_MAX || self.is_stopping() {
            return drop(offer.reply.send(Ended::Untried("too much is on its way already".into())));
        }
        offers.set(offers.get() + 1);
        let shard = self.clone();
        glommio::spawn_local(async move {
            if AssertUnwindSafe(take_offer(&shard, offer)).catch_unwind().await.is_err() {
                shard.counters.delivery_panics_total.add(1);
                log::note("delivery", "error: an internal fault while a message was handed over");
            }
            let offers = &shard.cut_through.offers;
            offers.set(offers.get() - 1);
        })
        .detach();
    }

    /// A guest waits at the next hop. One that is down, or whose site is, turns it away at once.
    fn receive(self: &Rc<Self>, next_hop: &NextHop, wants: Wants, wait: Duration) -> Waits {
        let hop = self.hop(next_hop);
        let until_millis = monotonic_millis() + wait.as_millis() as u64;
        let waits = Waits { number: hop.guests.push(wants, until_millis), hop };
        match waits.hop.trouble() {
            Some(trouble) => waits.turn_away(&trouble.text),
            None => self.feed(&waits.hop),
        }
        waits
    }

    /// A guest waits at the next hop, and no more are served than may be at a time.
    pub(super) fn has_guest(&self, hop: &Hop) -> bool {
        hop.guests.waiting() > 0 && hop.guests.served() < self.cut_through.served_max
    }

    /// The share that a message, or a question, is of smart hosts with weights.
    fn share_of(&self, next_hop: NextHop, id: QueueId) -> NextHop {
        let route = self.config.routes.get(usize::from(next_hop.route));
        match route.map(|route| &route.target) {
            Some(Target::SmartHosts(hosts)) if next_hop.via.is_none() && next_hop.choice == Choice::Route => {
                balance::share(next_hop.route, hosts, id)
            }
            _ => next_hop,
        }
    }
}

async fn find_out(shard: &Rc<DeliveryShard>, key: &Key, wait: Duration) -> Taken {
    let (next_hop, written) = key;
    // Asked about as the next hop will be told it.
    let route = shard.config.routes.get(usize::from(next_hop.route));
    let rewritten = route
        .and_then(|route| route.rewrite.as_ref())
        .and_then(|rules| rules.recipient(&Recipient::new(written.as_ref())));
    let address = rewritten.map_or_else(|| written.clone(), |recipient| (*recipient.address).into());
    let asked = async {
        let next_hop = match server_of(shard, next_hop, written).await {
            Server::Is(next_hop) => next_hop,
            Server::Nowhere => {
                let text = "the table of recipients does not have the address";
                return Taken::No(Arc::new(Said::new(550, Some((5, 1, 1)), text)));
            }
            Server::Unclear => return Taken::Unknown,
        };
        let point = BuildHasherDefault::<DefaultHasher>::default().hash_one(written);
        let next_hop = shard.share_of(next_hop, QueueId::from_bits(point));
        let (reply, answer) = oneshot::channel();
        let _waits = shard.receive(&next_hop, Wants::Answer { key: key.clone(), address, reply }, wait);
        answer.await.unwrap_or(Taken::Unknown)
    };
    let too_late = async {
        glommio::timer::sleep(wait).await;
        Taken::Unknown
    };
    asked.or(too_late).await
}

/// The server that has all recipients of an offer.
async fn server_of_all(shard: &Rc<DeliveryShard>, offer: &Offer) -> Option<NextHop> {
    let mut one = None;
    for &index in &offer.recipients {
        let address = &offer.envelope.recipients.get(index as usize)?.address;
        let Server::Is(next_hop) = server_of(shard, &offer.next_hop, address).await else { return None };
        if one.get_or_insert_with(|| next_hop.clone()) != &next_hop {
            return None;
        }
    }
    one
}

async fn take_offer(shard: &Rc<DeliveryShard>, offer: Offer) {
    let Some(next_hop) = server_of_all(shard, &offer).await else {
        let why = "its recipients are not all known to be on one server";
        return drop(offer.reply.send(Ended::Untried(why.into())));
    };
    let (next_hop, wait) = (shard.share_of(next_hop, offer.id), offer.wait);
    let (_over, mut over) = oneshot::channel();
    let wants = Wants::Delivery { offer: Box::new(offer), begun: false, _over };
    let waits = shard.receive(&next_hop, wants, wait);
    let ended = async {
        let _ = (&mut over).await;
        true
    };
    let too_late = async {
        glommio::timer::sleep(wait).await;
        false
    };
    if !ended.or(too_late).await {
        waits.turn_away(TOO_LATE);
        let _ = over.await;
    }
}
