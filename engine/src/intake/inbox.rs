//! What other threads ask of an ingest shard.
//!
//! The loop never waits for anything itself: whatever takes time becomes a task.

use super::outcomes::apply_report;
use super::steer::{OVERFLOW_MAX, steer};
use super::submission::submit;
use super::{IngestShard, backup, look, restore};
use crate::channel::Receiver;
use crate::shard::links::{Loaded, ToIngest};
use sluice_queue::QueueId;
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
            ToIngest::Submit { envelope, content, reply } => spawn(&shard, async move |shard| {
                let _ = reply.send(submit(shard, *envelope, content).await);
            }),
            ToIngest::Withdrawn { id, recipients } => shard.withdrawn(id, recipients),
            ToIngest::Steered { steered, reply } => drop(reply.send(steered)),
            ToIngest::HoldFaulty { id, recipients } => {
                shard.hold_faulty(id, &recipients);
                shard.notify_of_fault(id);
            }
            ToIngest::Change { request, who, reply } => spawn(&shard, async move |shard| {
                let _ = reply.send(steer(shard, &request, who).await);
            }),
            ToIngest::Summary { options, reply } => spawn(&shard, async move |shard| {
                let _ = reply.send(look::tally(shard, options).await);
            }),
            ToIngest::Page { after, limit, condition, reply } => spawn(&shard, async move |shard| {
                let _ = reply.send(look::page(shard, after, limit.min(PAGE_MAX), &condition).await);
            }),
            ToIngest::Show { id, reply } => spawn(&shard, async move |shard| {
                let _ = reply.send(look::show(shard, id).await);
            }),
            ToIngest::Snapshot { lease, reply } => {
                spawn(&shard, async move |shard| backup::hold(shard, lease, reply).await);
            }
            ToIngest::Relatives(ancestry) => shard.relatives.tell(&ancestry),
            ToIngest::Knowledge { reply } => drop(reply.send(restore::knowledge(shard.spools()))),
            ToIngest::Restore { source, dry_run, items, reply } => spawn(&shard, async move |shard| {
                let each = async |restored: Vec<_>| {
                    shard.hand_over_arrived(&restored, "restored");
                    shard.overflow_below(OVERFLOW_MAX).await;
                };
                let (spool, turn) = (&shard.spool, &shard.turn);
                let _ = reply.send(restore::take_in(spool, turn, source, dry_run, items, each).await);
            }),
            ToIngest::Tls(tls) => *shard.tls.borrow_mut() = tls,
            ToIngest::Trace(trace) => shard.traces.begin(trace),
            ToIngest::Stop => shard.stop.stop(),
            ToIngest::Finish => return,
        }
    }
}

fn spawn<F>(shard: &Rc<IngestShard>, task: F)
where
    F: AsyncFnOnce(&Rc<IngestShard>) + 'static,
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
