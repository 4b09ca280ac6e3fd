//! What other threads ask of an ingest shard.
//!
//! The loop never waits for anything itself: whatever takes time becomes a task.

use super::outcomes::apply_report;
use super::recovery::LOADS_AT_ONCE;
use super::{IngestShard, ShardSpool};
use super::{backup, restore};
use crate::channel::Receiver;
use crate::shard::links::{Loaded, QueueItem, QueueRecipient, ToIngest};
use futures_util::future::join_all;
use sluice_queue::{QueueId, RecipientStatus};
use std::rc::Rc;
use std::sync::Arc;

/// Content octets that travel with one answer; the rest of a large message is asked for piece by piece.
pub const WINDOW_BYTES: usize = 256 * 1024;
/// Messages in one page of a listing.
pub const PAGE_MAX: usize = 1_000;

/// Serves until told to finish.
pub(crate) async fn serve_inbox(shard: Rc<IngestShard>, mut inbox: Receiver<ToIngest>) {
    loop {
        match inbox.receive().await {
            ToIngest::Load { id, content, reply } => spawn(&shard, async move |shard| {
                let _ = reply.send(load(shard, id, content).await);
            }),
            ToIngest::Read { id, offset, reply } => spawn(&shard, async move |shard| {
                let octets = match shard.spool_of(id) {
                    Some(spool) => {
                        spool.read(id, offset, WINDOW_BYTES).await.map_err(|error| error.to_string())
                    }
                    None => Err(format!("no spool here holds {id}")),
                };
                let _ = reply.send(octets);
            }),
            ToIngest::Report(report) => apply_report(&shard, report),
            ToIngest::Page { after, limit, reply } => spawn(&shard, async move |shard| {
                let _ = reply.send(page(shard, after, limit.min(PAGE_MAX)).await);
            }),
            ToIngest::Show { id, reply } => spawn(&shard, async move |shard| {
                let item = match shard.spool_of(id) {
                    Some(spool) => item(spool, id).await,
                    None => None,
                };
                let _ = reply.send(item);
            }),
            ToIngest::Snapshot { lease, reply } => {
                spawn(&shard, async move |shard| backup::hold(shard, lease, reply).await);
            }
            ToIngest::Relatives(ancestry) => shard.relatives.tell(&ancestry),
            ToIngest::Knowledge { reply } => drop(reply.send(restore::knowledge(shard.spools()))),
            ToIngest::Restore { source, dry_run, items, reply } => spawn(&shard, async move |shard| {
                let each = async |restored: Vec<_>| shard.hand_over_arrived(&restored, "restored").await;
                let _ = reply.send(restore::take_in(&shard.spool, source, dry_run, items, each).await);
            }),
            ToIngest::Tls(tls) => *shard.tls.borrow_mut() = tls,
            ToIngest::Stop => shard.stop.stop(),
            ToIngest::Finish => return,
        }
    }
}

fn spawn<F>(shard: &Rc<IngestShard>, task: F)
where
    F: AsyncFnOnce(&IngestShard) + 'static,
{
    let shard = shard.clone();
    glommio::spawn_local(async move { task(&shard).await }).detach();
}

async fn load(shard: &IngestShard, id: QueueId, content: bool) -> Result<Loaded, String> {
    let spool = shard.spool_of(id).ok_or_else(|| format!("no spool here holds {id}"))?;
    let message = spool.load_without_reasons(id).await.map_err(|error| error.to_string())?;
    let head = match content {
        true => spool.read_loaded(&message, 0, WINDOW_BYTES).await.map_err(|error| error.to_string())?,
        false => Vec::new(),
    };
    Ok(Loaded {
        envelope: Arc::new(message.envelope),
        states: message.states,
        content_bytes: message.content_bytes,
        flags: message.flags,
        head,
    })
}

/// Messages of all spools of this shard in the order of their ids.
async fn page(shard: &IngestShard, after: Option<QueueId>, limit: usize) -> Vec<QueueItem> {
    let mut ids: Vec<(QueueId, &ShardSpool)> = Vec::new();
    for spool in shard.spools() {
        ids.extend(spool.live(after, limit).into_iter().map(|id| (id, spool)));
    }
    ids.sort_unstable_by_key(|(id, _)| *id);
    ids.truncate(limit);
    let mut items = Vec::with_capacity(ids.len());
    for some in ids.chunks(LOADS_AT_ONCE) {
        let loaded = join_all(some.iter().map(|(id, spool)| item(spool, *id))).await;
        items.extend(loaded.into_iter().flatten());
        glommio::executor().yield_task_queue_now().await;
    }
    items
}

async fn item(spool: &ShardSpool, id: QueueId) -> Option<QueueItem> {
    let message = spool.load(id).await.ok()?;
    Some(describe(id, &message))
}

/// A message in the words that `sluice queue` prints.
pub fn describe(id: QueueId, message: &sluice_queue::Message) -> QueueItem {
    let envelope = &message.envelope;
    let recipients = envelope.recipients.iter().enumerate().map(|(index, recipient)| {
        let (state, reason) = (message.states[index], message.reasons[index].as_ref());
        QueueRecipient {
            address: recipient.address.clone(),
            status: status_word(state.status, reason.is_some()).into(),
            attempts: state.attempts,
            reason: reason.map(|reason| reason.text.clone()).unwrap_or_default(),
        }
    });
    QueueItem {
        id: id.to_string(),
        arrived_micros: envelope.arrived_micros,
        octets: message.content_bytes,
        sender: envelope.sender.clone(),
        client: envelope.client.clone(),
        helo: envelope.helo.clone(),
        listener: envelope.listener.clone(),
        origin: envelope.origin.map(|origin| [origin.id.to_string(), origin.lineage.to_string()]),
        recipients: recipients.collect(),
    }
}

fn status_word(status: RecipientStatus, tried: bool) -> &'static str {
    match (status, tried) {
        (RecipientStatus::Waiting, false) => "queued",
        (RecipientStatus::Waiting, true) => "deferred",
        (RecipientStatus::Delivered, _) => "sent",
        (RecipientStatus::Bounced, _) => "bounced",
        (RecipientStatus::Expired, _) => "expired",
        (RecipientStatus::Deleted, _) => "deleted",
        (RecipientStatus::Moved, _) => "moved",
    }
}
