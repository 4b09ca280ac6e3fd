//! Changes of the queue that an administrator asks for: chosen by condition, withdrawn from the delivery
//! shards, recorded in the spool, durable before the answer.
//!
//! On an ingest shard; one change at a time (the admin interface sees to that).
//!
//! ```text
//! hold, reroute, bounce, delete:  choose ─▶ withdraw from delivery ─▶ record ─▶ sync ─▶ (hand over) ─▶ answer
//! release:                        choose ─▶ record ─▶ sync ─▶ hand over ─▶ answer
//! retry:                          choose ─▶ bring forward in delivery ─▶ answer
//! ```
//!
//! A delivery shard's answer comes through this shard's mailbox, behind its reports. So when it is here,
//! everything that was delivered before is recorded, nothing that was withdrawn is in other hands, and what
//! is still under way is known by recipient. Of those this shard remembers what is to be done when they
//! leave the hands ([`Then`]); until then they are held in the spool, so that a crash forgets no order to
//! end or stop a message.
//!
//! | under way | recorded at once | when it was not delivered |
//! |---|---|---|
//! | hold | held | stays held |
//! | reroute | rerouted | is handed over, to its new next hop |
//! | bounce, delete | held | bounced, deleted |

use super::known::{self, Known};
use super::outcomes::{returned, tell};
use super::{IngestShard, ShardSpool};
use crate::clock;
use crate::observe::{line, log};
use crate::shard::event::Event;
use crate::shard::links::{Order, Steered, ToDelivery, ToIngest, Who};
use crate::steering::{Action, Answer, Decision, HopNames, Request, Subject, Targets, Which, decide};
use sluice_queue::{CommitError, Outcome, OutcomeKind, QueueId, RecipientState};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Messages looked at between two yields.
const SLICE: usize = 512;
/// Changed messages whose records may wait in memory to be written.
const UNSYNCED_MAX: usize = 8 * 1024;
/// DSNs of one bounce that are made at the same time.
const BOUNCES_AT_ONCE: usize = 64;
/// Log lines of one change on one shard, where the mail lives on. A message that ends always has its line.
const LINES_MAX: u64 = 1_000;

/// What is to be done with a recipient when it leaves the hands it is in, unless it was decided there.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Then {
    StayHeld,
    HandOver,
    Bounce(String, Who),
    Delete(Who),
}

/// What an ingest shard remembers for changes of its queue.
#[derive(Default)]
pub struct Steering {
    /// Committed and not handed over yet: not in the queue as far as an administrator is concerned.
    arriving: RefCell<HashSet<QueueId>>,
    /// Recipients with a final answer that is being recorded together with its DSN.
    telling: RefCell<HashMap<QueueId, Vec<u32>>>,
    /// Withdrawn and in hands still.
    leaving: RefCell<HashMap<(QueueId, u32), Then>>,
    /// Left the hands before the delivery shard's answer said that they were in some.
    left_early: RefCell<HashSet<(QueueId, u32)>>,
    /// A change waits for the delivery shards.
    is_asking: Cell<bool>,
    /// Spools whose messages of an earlier run are being handed over.
    recovering: Cell<usize>,
    recovered: Event,
}

impl Steering {
    pub fn arrives(&self, id: QueueId) {
        self.arriving.borrow_mut().insert(id);
    }

    pub fn has_arrived(&self, id: QueueId) {
        self.arriving.borrow_mut().remove(&id);
    }

    /// Final answers for these recipients are on their way into the spool.
    pub fn begin_telling(&self, id: QueueId, recipients: impl Iterator<Item = u32>) {
        self.telling.borrow_mut().entry(id).or_default().extend(recipients);
    }

    pub fn end_telling(&self, id: QueueId, recipients: impl Iterator<Item = u32>) {
        let recipients: Vec<u32> = recipients.collect();
        let mut telling = self.telling.borrow_mut();
        if let Some(told) = telling.get_mut(&id) {
            told.retain(|index| !recipients.contains(index));
            if told.is_empty() {
                telling.remove(&id);
            }
        }
    }

    fn is_telling(&self, id: QueueId, index: u32) -> bool {
        self.telling.borrow().get(&id).is_some_and(|told| told.contains(&index))
    }

    pub fn begin_recovering(&self) {
        self.recovering.set(self.recovering.get() + 1);
    }

    pub fn end_recovering(&self) {
        self.recovering.set(self.recovering.get() - 1);
        self.recovered.raise();
    }

    async fn wait_recovered(&self) {
        while self.recovering.get() > 0 {
            self.recovered.wait().await;
        }
    }
}

/// Carries a change out on the spools of this shard.
pub async fn steer(shard: &Rc<IngestShard>, request: &Request, who: Who) -> Answer {
    shard.steering.wait_recovered().await;
    let mut change = Change {
        shard,
        request,
        who,
        now: clock::wall_micros(),
        hops: HopNames::new(&shard.config),
        answer: Answer::default(),
        lines: 0,
    };
    let spools: Vec<ShardSpool> = shard.spools().cloned().collect();
    for spool in spools {
        if change.answer.failed.is_some() {
            break;
        }
        let targets = change.choose(&spool).await;
        if request.dry_run || targets.is_empty() {
            continue;
        }
        if let Err(error) = change.carry_out(&spool, targets).await {
            change.answer.failed = Some(error.to_string());
        }
    }
    change.look_for_strangers();
    change.answer
}

/// One change under way.
struct Change<'a> {
    shard: &'a Rc<IngestShard>,
    request: &'a Request,
    who: Who,
    now: u64,
    hops: HopNames,
    answer: Answer,
    lines: u64,
}

impl Change<'_> {
    /// The recipients that are to change. What matches and does not change is counted here.
    async fn choose(&mut self, spool: &ShardSpool) -> Targets {
        let mut targets = Targets::default();
        let ids = &self.request.condition.ids;
        if !ids.is_empty() {
            for (n, &id) in ids.iter().filter(|id| id.spool() == spool.number()).enumerate() {
                let seen = known::one(spool, id, |subject, known| self.judge(subject, known, &mut targets)).await;
                if !seen {
                    self.answer.unknown.push(id.to_string());
                }
                if n % SLICE == 0 {
                    glommio::yield_if_needed().await;
                }
            }
            return targets;
        }
        let mut after = None;
        loop {
            after = known::slice(spool, after, SLICE, |subject, known| self.judge(subject, known, &mut targets)).await;
            if after.is_none() {
                return targets;
            }
            glommio::yield_if_needed().await;
        }
    }

    fn judge(&mut self, subject: &Subject<'_>, known: &[Known<'_>], targets: &mut Targets) {
        let Request { action, condition, dry_run, .. } = self.request;
        let steering = &self.shard.steering;
        if !condition.matches_message(subject, self.now)
            || (subject.damaged && !action.reaches_damaged())
            || steering.arriving.borrow().contains(&subject.id)
        {
            return;
        }
        let (mut unchanged, mut under_way, mut others) = (0, 0, false);
        let mut chosen = Vec::new();
        for known in known {
            if !condition.matches_recipient(&known.part, &self.hops) {
                others |= !known.part.state.is_finished();
            } else if steering.is_telling(subject.id, known.index) {
                under_way += 1;
                others = true;
            } else if decide(action, known.part.state, known.part.via) == Decision::Change {
                chosen.push(known.index);
            } else {
                unchanged += 1;
                others = true;
            }
        }
        if chosen.is_empty() || *dry_run {
            if chosen.len() as u64 + unchanged + under_way > 0 {
                self.answer.count(chosen.len() as u64, unchanged, under_way);
            }
            return;
        }
        // The message itself is counted when it is known what became of those that were chosen.
        self.answer.unchanged.recipients += unchanged;
        self.answer.under_way.recipients += under_way;
        self.answer.matched.recipients += unchanged + under_way;
        targets.push(subject.id, if others { Which::Some(chosen.into()) } else { Which::All });
    }

    /// Ids of spools that nobody has.
    fn look_for_strangers(&mut self) {
        let shard = self.shard;
        let strange = |id: &&QueueId| {
            shard.links.owner(id.spool()) == shard.index && shard.spool_of(**id).is_none()
        };
        let strangers = self.request.condition.ids.iter().filter(strange).map(QueueId::to_string);
        self.answer.unknown.extend(strangers);
    }

    async fn carry_out(&mut self, spool: &ShardSpool, targets: Targets) -> Result<(), CommitError> {
        let targets = Arc::new(targets);
        match self.request.action {
            Action::Retry => {
                self.retry(&targets).await;
                Ok(())
            }
            Action::Release => self.record(spool, &targets, &UnderWay::default()).await,
            _ => {
                self.shard.steering.is_asking.set(true);
                let steered = self.shard.ask_delivery(Order::Withdraw, &targets).await;
                let done = self.record(spool, &targets, &UnderWay::of(steered)).await;
                self.shard.steering.is_asking.set(false);
                self.shard.steering.left_early.borrow_mut().clear();
                done
            }
        }
    }

    async fn retry(&mut self, targets: &Arc<Targets>) {
        let steered = self.shard.ask_delivery(Order::Retry, targets).await;
        let mut forward: HashMap<QueueId, u64> = HashMap::new();
        for (id, count) in steered.iter().flat_map(|steered| &steered.forward) {
            *forward.entry(*id).or_default() += u64::from(*count);
        }
        let under_way = UnderWay::of(steered);
        for (id, which) in targets.iter() {
            let forward = forward.get(id).copied().unwrap_or(0);
            let busy = under_way.count(*id);
            let all = match which {
                Which::Some(indexes) => indexes.len() as u64,
                Which::All => self.open_recipients(*id).max(forward + busy),
            };
            self.answer.count(forward, all.saturating_sub(forward + busy), busy);
        }
    }
}
