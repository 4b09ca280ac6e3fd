//! A session's questions to the next hop while its client waits: does it take this recipient, and this message?
//!
//! Lives on one ingest shard with the task of the session, which waits; the shard goes on. `crate::cut_through` has
//! what can happen to a message meanwhile.

use super::SessionTask;
use crate::clock;
use crate::config::{CutThroughMode, RouteCutThrough, Undecided};
use crate::cut_through::{Ask, Claim, Ended, Offer, Taken};
use crate::intake::handover::{delivery_shard, groups, next_hop_of};
use crate::observe::log;
use crate::session::{Checked, Step};
use crate::shard::links::{HeldContent, NextHop, ToDelivery};
use crate::smtp::said::Said;
use futures_lite::FutureExt as _;
use sluice_queue::{ContentFlags, Draft, Envelope, QueueId};
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot::{self, error::TryRecvError};

/// More than a delivery shard takes for itself.
const MARGIN: Duration = Duration::from_millis(500);

/// What is to be done with a message that was offered.
pub(super) enum Offered {
    /// The next hop has it, for all of its recipients.
    Taken(Ended),
    Refused(Said),
    /// It is to be committed, and then to be seen to.
    Queue(Option<Unfinished>),
}

/// An offer whose message goes into the spool all the same.
pub(super) struct Unfinished {
    pub content: HeldContent,
    pub so_far: SoFar,
}

pub(super) enum SoFar {
    Ended(Ended),
    /// The next hop is being told of it; its answer comes here.
    UnderWay(oneshot::Receiver<Ended>),
}

impl SessionTask<'_> {
    /// Answers [`Step::Check`]. Returns for how many milliseconds the client is to wait.
    pub(super) async fn check(&mut self) -> Option<u64> {
        let checked = self.ask_about_recipient().await;
        let step = self.session.checked(clock::monotonic_millis(), checked, &mut self.out);
        self.log_refusals();
        match step {
            Some(Step::Pause(millis)) => Some(millis),
            _ => None,
        }
    }

    async fn ask_about_recipient(&self) -> Checked {
        let address = self.session.recipient_to_check();
        let shard = self.shard;
        let hop = next_hop_of(&shard.config, address);
        let Some(route) = self.allowed(&hop, CutThroughMode::Recipients) else { return Checked::Accepted };
        // How a next hop without SMTPUTF8 takes it shows when it is delivered.
        let taken = match address.is_ascii() {
            true => self.ask(hop, address, route.wait).await,
            false => Taken::Unknown,
        };
        match (taken, route.undecided) {
            (Taken::Yes, _) => Checked::Accepted,
            (Taken::No(said), _) => Checked::Refused(Said::clone(&said)),
            (Taken::NotNow(said), Undecided::Defer) => Checked::Refused(Said::clone(&said)),
            (Taken::Unknown, Undecided::Defer) => {
                shard.counters.recipients_unchecked_total.add(1);
                Checked::Unanswered
            }
            (Taken::NotNow(_) | Taken::Unknown, Undecided::Accept) => {
                shard.counters.recipients_unchecked_total.add(1);
                Checked::Accepted
            }
        }
    }

    /// The route of a next hop, when it allows that much.
    fn allowed(&self, hop: &NextHop, mode: CutThroughMode) -> Option<&RouteCutThrough> {
        let config = &self.shard.config;
        let route = &config.routes.get(usize::from(hop.route))?.cut_through;
        (config.listeners[self.listener].cut_through.min(route.mode) >= mode).then_some(route)
    }

    /// The same recipient is always asked about on the same delivery shard, which remembers the answer.
    async fn ask(&self, next_hop: NextHop, address: &str, wait: Duration) -> Taken {
        let mut hasher = DefaultHasher::new();
        next_hop.hash(&mut hasher);
        // A next hop of one shard is asked there, where its pace is known.
        if next_hop.is_spread() {
            address.to_ascii_lowercase().hash(&mut hasher);
        }
        let shards = &self.shard.links.delivery;
        let shard = (hasher.finish() % shards.len() as u64) as usize;
        let (reply, answer) = oneshot::channel();
        let ask = Ask::Recipient { next_hop, address: address.into(), wait, reply };
        if shards[shard].try_send(ToDelivery::Ask(ask)).is_err() {
            return Taken::Unknown;
        }
        within(wait + MARGIN, answer).await.and_then(Result::ok).unwrap_or(Taken::Unknown)
    }

    /// Offers the message to its next hop, where listener and route want that and it can be done.
    pub(super) async fn offer(
        &self,
        draft: &Draft,
        envelope: &Arc<Envelope>,
        flags: ContentFlags,
    ) -> Offered {
        let not = Offered::Queue(None);
        let Some((next_hop, recipients, wait)) = self.for_one_next_hop(draft.id(), envelope) else {
            return not;
        };
        if draft.bytes() > self.shard.config.cut_through.message_bytes_max {
            return not;
        }
        // What was written while it came is read back. Where that fails the commit will tell.
        let Ok(content) = self.shard.spool.read_draft(draft).await else { return not };
        let Some(content) = self.shard.budget.hold(Arc::new(content)) else { return not };
        let shard = delivery_shard(&next_hop, draft.id(), self.shard.links.delivery.len());
        let (claim, (reply, mut answer)) = (Arc::new(Claim::default()), oneshot::channel());
        let offer = Offer {
            id: draft.id(),
            next_hop,
            recipients,
            envelope: envelope.clone(),
            content: content.clone(),
            flags,
            wait,
            claim: claim.clone(),
            reply,
        };
        if self.shard.links.delivery[shard].try_send(ToDelivery::Ask(Ask::Message(Box::new(offer)))).is_err()
        {
            return not;
        }
        let ended = match within(wait, &mut answer).await {
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Ended::Untried("its attempt had no end".into()),
            None if claim.withdraw() => Ended::Untried("the next hop did not take it in time".into()),
            // Between the look and the claim its answer may have come.
            None => match answer.try_recv() {
                Ok(ended) => ended,
                Err(TryRecvError::Closed) => Ended::Untried("its attempt had no end".into()),
                Err(TryRecvError::Empty) => {
                    return Offered::Queue(Some(Unfinished { content, so_far: SoFar::UnderWay(answer) }));
                }
            },
        };
        match &ended {
            Ended::Tried(tried) if tried.is_taken() => Offered::Taken(ended),
            Ended::Tried(tried) if tried.is_refused() => match &tried.said {
                Some(said) => Offered::Refused(said.clone()),
                None => Offered::Queue(Some(Unfinished { content, so_far: SoFar::Ended(ended) })),
            },
            _ => Offered::Queue(Some(Unfinished { content, so_far: SoFar::Ended(ended) })),
        }
    }

    /// The next hop of all recipients, when it allows messages and the message has no times of its own.
    fn for_one_next_hop(&self, id: QueueId, envelope: &Envelope) -> Option<(NextHop, Vec<u32>, Duration)> {
        let config = &self.shard.config;
        if config.listeners[self.listener].cut_through < CutThroughMode::Message {
            return None;
        }
        let schedule = envelope.schedule();
        if schedule.release_micros.is_some() || schedule.deliver_by.is_some() {
            return None;
        }
        let recipients = envelope.recipients.iter().zip(0..);
        let recipients = recipients.map(|(recipient, index)| (index, &*recipient.address, None));
        let mut groups = groups(config, id, &envelope.sender, recipients);
        let (next_hop, recipients) = groups.pop().filter(|_| groups.is_empty())?;
        let wait = self.allowed(&next_hop, CutThroughMode::Message)?.wait;
        Some((next_hop, recipients, wait))
    }

    /// A message that was offered in vain is durable: what the next hop said of it holds, what it has yet to say is
    /// waited for by a task, and all else is handed over.
    pub(super) fn see_to(
        &self,
        id: QueueId,
        envelope: &Arc<Envelope>,
        flags: ContentFlags,
        unfinished: Unfinished,
    ) {
        let Unfinished { content, so_far } = unfinished;
        self.shard.counters.messages_cut_through_queued_total.add(1);
        match so_far {
            SoFar::Ended(ended) => self.shard.take_up(id, envelope, content, flags, ended),
            SoFar::UnderWay(answer) => {
                let why =
                    "cut-through: the next hop has not answered in time; queued, and its answer waited for";
                log::note("ingest", &format!("{id}: {why}"));
                let (shard, envelope) = (self.shard.clone(), envelope.clone());
                shard.clone().spawn_late(async move {
                    let unknown = || Ended::Untried("its attempt had no end".into());
                    let ended = answer.await.unwrap_or_else(|_| unknown());
                    shard.take_up(id, &envelope, content, flags, ended);
                });
            }
        }
    }
}

/// `None`: not within that time.
async fn within<T>(wait: Duration, answer: impl Future<Output = T>) -> Option<T> {
    let too_late = async {
        glommio::timer::sleep(wait).await;
        None
    };
    async { Some(answer.await) }.or(too_late).await
}
