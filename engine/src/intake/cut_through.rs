//! Messages that were offered to their next hop while the client waited: what is logged of them, and how those that
//! went into the spool all the same go on from there.
//!
//! Lives on one ingest shard. Until [`IngestShard::take_up`] a message that was offered is *arriving*: no change of
//! the queue sees it, and it is handed over nowhere else.

use super::IngestShard;
use super::outcomes::apply_report;
use crate::clock::wall_micros;
use crate::cut_through::{Ended, Tried};
use crate::observe::line::{self, Delays};
use crate::observe::log;
use crate::shard::event::Event;
use crate::shard::links::{Disposition, Fate, HeldContent, Report};
use sluice_queue::{ContentFlags, Envelope, QueueId};
use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

/// Attempts that go on after their message was acknowledged.
#[derive(Default)]
pub struct Late {
    count: Cell<usize>,
    ended: Event,
}

impl IngestShard {
    /// Runs what waits for the end of an attempt.
    pub(super) fn spawn_late(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let shard = self.clone();
        self.late.count.set(self.late.count.get() + 1);
        glommio::spawn_local(async move {
            let _ends = Ends(shard);
            task.await;
        })
        .detach();
    }

    /// Waits until every attempt of which a delivery shard has told the end is recorded.
    pub async fn late_ended(&self) {
        while self.late.count.get() > 0 {
            self.late.ended.wait().await;
        }
    }

    /// What the next hop said of a message that is durable becomes its first attempt; what is left of its
    /// recipients is handed over, to be tried when the wait is over that the next hop asked for.
    pub(super) fn take_up(
        self: &Rc<Self>,
        id: QueueId,
        envelope: &Arc<Envelope>,
        content: HeldContent,
        flags: ContentFlags,
        ended: Ended,
    ) {
        let mut left: Vec<u32> = (0..).take(envelope.recipients.len()).collect();
        let mut not_before_micros = None;
        match ended {
            Ended::Untried(why) => {
                log::note("ingest", &format!("{id}: cut-through: not handed over: {why}; queued"));
            }
            Ended::Tried(tried) => {
                log_tried(id, envelope, &tried);
                not_before_micros =
                    tried.wait.map(|wait| wall_micros().saturating_add(wait.as_micros() as u64));
                let fates: Vec<Fate> = tried.fates.into_iter().filter(is_final).collect();
                left.retain(|index| fates.iter().all(|fate| fate.recipient != *index));
                if !fates.is_empty() {
                    apply_report(self, Report { id, fates });
                }
            }
        }
        self.hand_over_held(id, envelope, Some(content), flags, not_before_micros, |index| {
            left.contains(&index)
        });
    }
}

struct Ends(Rc<IngestShard>);

impl Drop for Ends {
    fn drop(&mut self) {
        let late = &self.0.late;
        late.count.set(late.count.get() - 1);
        late.ended.raise();
    }
}

fn is_final(fate: &Fate) -> bool {
    !matches!(fate.disposition, Disposition::Deferred { .. })
}

/// One line for each recipient, as of a delivery from the queue.
pub(super) fn log_tried(id: QueueId, envelope: &Envelope, tried: &Tried) {
    let arrived = envelope.arrived_micros;
    let delays = Delays {
        receiving: arrived.saturating_sub(id.micros()),
        waiting: tried.began_micros.saturating_sub(arrived).saturating_sub(tried.setup_micros),
        connecting: tried.setup_micros,
        transaction: tried.ended_micros.saturating_sub(tried.began_micros),
    };
    for fate in &tried.fates {
        let Some(recipient) = envelope.recipients.get(fate.recipient as usize) else { continue };
        let reply = format!("cut-through: {}", fate.text);
        let attempt = line::Attempt {
            id,
            recipient: &recipient.address,
            relay: &tried.relay,
            delays,
            tls: tried.tls.as_ref(),
            dsn: if fate.dsn.is_empty() { "4.0.0" } else { &fate.dsn },
            status: match fate.disposition {
                Disposition::Delivered | Disposition::Relayed => "sent",
                Disposition::Bounced | Disposition::Expired => "bounced",
                Disposition::Deferred { .. } => "deferred",
            },
            reply: &reply,
        };
        log::write("delivery", |text| line::attempt(text, &attempt));
    }
}
