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
use super::outcomes::{Has, returned, tell};
use super::{IngestShard, ShardSpool};
use crate::clock;
use crate::observe::{line, log};
use crate::shard::links::{Order, Steered, ToDelivery, Who};
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
/// Handovers that may wait before more messages are looked at: the delivery shards keep up, memory is kept.
pub(super) const OVERFLOW_MAX: usize = 16 * 1024;
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
}

/// Carries a change out on the spools of this shard.
pub async fn steer(shard: &Rc<IngestShard>, request: &Request, who: Who) -> Answer {
    let _turn = shard.turn.take().await;
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
                let seen = known::one(spool, id, |subject, known| self.judge(subject, known, &mut targets));
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
            after =
                known::slice(spool, after, SLICE, |subject, known| self.judge(subject, known, &mut targets));
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
        let (mut unchanged, mut under_way) = (0, 0);
        let mut chosen = Vec::new();
        for known in known {
            if !condition.matches_recipient(&known.part, &self.hops) {
                continue;
            }
            if steering.is_telling(subject.id, known.index) {
                under_way += 1;
            } else if decide(action, known.part.state, known.part.via) == Decision::Change {
                chosen.push(known.index);
            } else {
                unchanged += 1;
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
        // A retry counts by these lists; otherwise a whole message needs none.
        let whole = chosen.len() == known.len() && *action != Action::Retry;
        targets.push(subject.id, if whole { Which::All } else { Which::Some(chosen.into()) });
    }

    /// Ids of spools that nobody has.
    fn look_for_strangers(&mut self) {
        let shard = self.shard;
        let strange =
            |id: &&QueueId| shard.links.owner(id.spool()) == shard.index && shard.spool_of(**id).is_none();
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
            let Which::Some(chosen) = which else { continue };
            if self.shard.unmoved.contains(*id) {
                self.shard.unmoved.bring_forward(*id, chosen);
                self.answer.count(chosen.len() as u64, 0, 0);
                continue;
            }
            // What is neither waits in line for a next hop that answers: it is being tried now.
            let in_line = (chosen.len() as u64).saturating_sub(forward + busy);
            self.answer.count(forward, in_line, busy);
        }
    }
}

impl Change<'_> {
    /// Records the change of what was chosen, piece by piece, each durable before the next.
    async fn record(
        &mut self,
        spool: &ShardSpool,
        targets: &Targets,
        under_way: &UnderWay,
    ) -> Result<(), CommitError> {
        for piece in targets.as_slice().chunks(UNSYNCED_MAX) {
            let mut done = Done::default();
            for (n, (id, which)) in piece.iter().enumerate() {
                let mut settled = Settled::default();
                known::one(spool, *id, |subject, known| {
                    settled = self.settle(subject, known, which, under_way);
                });
                self.answer.count(settled.changed, settled.unchanged, settled.busy);
                if !settled.outcomes.is_empty() {
                    spool.record(*id, std::mem::take(&mut settled.outcomes));
                }
                done.add(*id, settled);
                if n % SLICE == SLICE - 1 {
                    glommio::yield_if_needed().await;
                }
            }
            self.send_back(spool, &mut done.returned).await;
            spool.sync().await?;
            self.write_lines(done.lines).await;
            self.hand_over(spool, &done.handed).await;
        }
        Ok(())
    }

    /// What becomes of the chosen recipients of one message, as they stand now.
    fn settle(
        &mut self,
        subject: &Subject<'_>,
        known: &[Known<'_>],
        which: &Which,
        under_way: &UnderWay,
    ) -> Settled {
        let mut settled = Settled::default();
        let steering = &self.shard.steering;
        for known in known.iter().filter(|known| which.contains(known.index)) {
            let state = known.part.state;
            let place = (subject.id, known.index);
            if state.is_finished() || steering.is_telling(subject.id, known.index) {
                // Decided since it was chosen.
                settled.busy += 1;
                continue;
            }
            if decide(&self.request.action, state, known.part.via) == Decision::Leave {
                settled.unchanged += 1;
                continue;
            }
            let in_hands = under_way.contains(place) && !steering.left_early.borrow().contains(&place);
            if in_hands {
                settled.busy += 1;
                self.remember(place, known, &mut settled);
            } else {
                settled.changed += 1;
                self.change_one(place, known, &mut settled);
            }
            let ends_later = in_hands && self.request.action.ends_mail();
            if !ends_later {
                self.tell_of(subject, known, &mut settled);
            }
        }
        settled
    }

    /// A recipient that nobody has in hands.
    fn change_one(&self, (id, index): (QueueId, u32), known: &Known<'_>, settled: &mut Settled) {
        let state = known.part.state;
        let (kind, text) = match &self.request.action {
            Action::Bounce(_) => return settled.returned.push((index, state.attempts)),
            Action::Retry => return,
            Action::Hold => (OutcomeKind::Held, String::new()),
            Action::Delete => (OutcomeKind::Deleted, String::new()),
            Action::Reroute(to) => (OutcomeKind::Rerouted, to.via()),
            Action::Release => (OutcomeKind::Released, String::new()),
        };
        settled.outcomes.push(outcome(index, kind, state, self.now, text));
        let goes_on = match self.request.action {
            Action::Release => true,
            Action::Reroute(_) => !state.held,
            _ => false,
        };
        if !goes_on {
            return;
        }
        match self.shard.steering.leaving.borrow_mut().get_mut(&(id, index)) {
            Some(then) => *then = Then::HandOver,
            None => settled.handed.push(index),
        }
    }

    /// A recipient in hands: the change waits for the end of the attempt.
    fn remember(&self, place: (QueueId, u32), known: &Known<'_>, settled: &mut Settled) {
        let state = known.part.state;
        let (then, kind, text) = match &self.request.action {
            Action::Reroute(to) if state.held => {
                return settled.outcomes.push(outcome(
                    place.1,
                    OutcomeKind::Rerouted,
                    state,
                    self.now,
                    to.via(),
                ));
            }
            Action::Reroute(to) => (Then::HandOver, OutcomeKind::Rerouted, to.via()),
            Action::Bounce(text) => (Then::Bounce(text.clone(), self.who), OutcomeKind::Held, String::new()),
            Action::Delete => (Then::Delete(self.who), OutcomeKind::Held, String::new()),
            Action::Hold | Action::Release | Action::Retry => {
                (Then::StayHeld, OutcomeKind::Held, String::new())
            }
        };
        settled.outcomes.push(outcome(place.1, kind, state, self.now, text));
        self.shard.steering.leaving.borrow_mut().insert(place, then);
    }

    /// The line in the log; of mail that lives on, only so many.
    fn tell_of(&mut self, subject: &Subject<'_>, known: &Known<'_>, settled: &mut Settled) {
        self.lines += 1;
        if self.request.action.ends_mail() || self.lines <= LINES_MAX {
            settled.lines.push(line_of(subject, known, &self.request.action, self.who));
        }
    }

    /// Lines about mail that ends are not dropped when the log is slow: the change waits for it.
    async fn write_lines(&self, lines: Vec<Vec<u8>>) {
        for line in lines {
            log::room().await;
            log::write("ingest", |text| text.extend_from_slice(&line));
        }
    }

    /// DSNs for recipients that an administrator returns.
    async fn send_back(&self, spool: &ShardSpool, returned_to: &mut Vec<(QueueId, Vec<(u32, u16)>)>) {
        let Action::Bounce(text) = &self.request.action else { return };
        for some in returned_to.chunks(BOUNCES_AT_ONCE) {
            let tells = some.iter().map(|(id, recipients)| {
                tell(self.shard, spool, returned(self.shard, *id, recipients, text), self.now, Has::Turn)
            });
            futures_util::future::join_all(tells).await;
        }
        returned_to.clear();
    }

    async fn hand_over(&self, spool: &ShardSpool, handed: &[(QueueId, Vec<u32>)]) {
        for (n, (id, recipients)) in handed.iter().enumerate() {
            // What waits to be moved is handed over when it has moved.
            if !self.shard.unmoved.contains(*id) {
                self.shard.hand_over_some(spool, *id, recipients);
            }
            if n % SLICE == SLICE - 1 {
                glommio::yield_if_needed().await;
            }
        }
        self.shard.overflow_below(OVERFLOW_MAX).await;
    }
}

/// What the change of one message comes to.
#[derive(Default)]
struct Settled {
    changed: u64,
    unchanged: u64,
    busy: u64,
    outcomes: Vec<Outcome>,
    /// To be handed to delivery when that is durable.
    handed: Vec<u32>,
    /// To be returned to the sender, with their attempts.
    returned: Vec<(u32, u16)>,
    lines: Vec<Vec<u8>>,
}

/// What is left to be done for a piece of the targets.
#[derive(Default)]
struct Done {
    handed: Vec<(QueueId, Vec<u32>)>,
    returned: Vec<(QueueId, Vec<(u32, u16)>)>,
    lines: Vec<Vec<u8>>,
}

impl Done {
    fn add(&mut self, id: QueueId, settled: Settled) {
        if !settled.handed.is_empty() {
            self.handed.push((id, settled.handed));
        }
        if !settled.returned.is_empty() {
            self.returned.push((id, settled.returned));
        }
        self.lines.extend(settled.lines);
    }
}

/// Recipients that the delivery shards had in hands.
#[derive(Default)]
struct UnderWay(HashMap<QueueId, Vec<u32>>);

impl UnderWay {
    fn of(steered: Vec<Steered>) -> Self {
        let mut all: HashMap<QueueId, Vec<u32>> = HashMap::new();
        for (id, recipients) in steered.into_iter().flat_map(|steered| steered.under_way) {
            all.entry(id).or_default().extend(recipients);
        }
        Self(all)
    }

    fn contains(&self, (id, index): (QueueId, u32)) -> bool {
        self.0.get(&id).is_some_and(|recipients| recipients.contains(&index))
    }

    fn count(&self, id: QueueId) -> u64 {
        self.0.get(&id).map_or(0, |recipients| recipients.len() as u64)
    }
}

fn outcome(recipient: u32, kind: OutcomeKind, state: RecipientState, now: u64, text: String) -> Outcome {
    Outcome { recipient, kind, attempts: state.attempts, notified: state.notified, at_micros: now, text }
}

fn line_of(subject: &Subject<'_>, known: &Known<'_>, action: &Action, who: Who) -> Vec<u8> {
    let mut text = Vec::new();
    line::steered(
        &mut text,
        &line::Steered {
            id: subject.id,
            recipient: known.part.address,
            sender: subject.sender,
            octets: subject.content_bytes,
            status: action.done(),
            who: &who.to_string(),
            to: match action {
                Action::Reroute(to) => Some(to.to_string()),
                _ => None,
            },
        },
    );
    text
}

impl IngestShard {
    /// Asks all delivery shards, behind everything that was handed to them.
    async fn ask_delivery(&self, order: Order, targets: &Arc<Targets>) -> Vec<Steered> {
        let mut answers = Vec::new();
        for index in 0..self.links.delivery.len() {
            let (reply, answer) = oneshot::channel();
            let targets = targets.clone();
            self.send_to(index, ToDelivery::Steer { order, targets, ingest: self.index, reply });
            answers.push(answer);
        }
        let mut steered = Vec::new();
        for answer in answers {
            // An answer that does not come is that of a shard that has stopped: nothing is in its hands.
            steered.extend(answer.await);
        }
        steered
    }

    /// Recipients that had been withdrawn have left the hands that they were in.
    pub fn withdrawn(self: &Rc<Self>, id: QueueId, recipients: Vec<u32>) {
        for index in recipients {
            let then = self.steering.leaving.borrow_mut().remove(&(id, index));
            if then.is_none() && self.steering.is_asking.get() {
                self.steering.left_early.borrow_mut().insert((id, index));
            }
            if let Some(then) = then
                && !self.steering.is_telling(id, index)
            {
                self.finish_leaving(id, index, then);
            }
        }
    }

    fn finish_leaving(self: &Rc<Self>, id: QueueId, index: u32, then: Then) {
        let Some(spool) = self.spool_of(id) else { return };
        let (action, who) = match then {
            Then::StayHeld => return,
            Then::HandOver => return self.hand_over_some(spool, id, &[index]),
            Then::Bounce(text, who) => (Action::Bounce(text), who),
            Then::Delete(who) => (Action::Delete, who),
        };
        let mut found = None;
        known::one(spool, id, |subject, known| {
            let known = known.iter().find(|known| known.index == index && !known.part.state.is_finished());
            found = known.map(|known| (known.part.state, line_of(subject, known, &action, who)));
        });
        // Otherwise it was delivered, or has ended in another way.
        let Some((state, line)) = found else { return };
        let now = clock::wall_micros();
        log::write("ingest", |text| text.extend_from_slice(&line));
        let Action::Bounce(text) = action else {
            return spool.record(id, vec![outcome(index, OutcomeKind::Deleted, state, now, String::new())]);
        };
        self.steering.begin_telling(id, std::iter::once(index));
        let (shard, spool) = (self.clone(), spool.clone());
        glommio::spawn_local(async move {
            tell(&shard, &spool, returned(&shard, id, &[(index, state.attempts)], &text), now, Has::None)
                .await;
            shard.steering.end_telling(id, std::iter::once(index));
        })
        .detach();
    }

    /// A message whose delivery ends in a fault of the program is held until somebody has looked at it.
    pub fn hold_faulty(&self, id: QueueId, recipients: &[u32]) {
        let Some(spool) = self.spool_of(id) else { return };
        let text = "held: its delivery ended twice in a fault of the program";
        let now = clock::wall_micros();
        let held = |&recipient: &u32| Outcome {
            recipient,
            kind: OutcomeKind::Held,
            attempts: 0,
            notified: false,
            at_micros: now,
            text: text.into(),
        };
        spool.record(id, recipients.iter().map(held).collect());
    }
}
