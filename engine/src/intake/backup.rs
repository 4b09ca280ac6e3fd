//! An ingest shard's part in a backup: names what the copy needs of its spools, and keeps that.
//!
//! Nothing is read or written here but what was pending anyway. The copying is the service thread's
//! (`admin::backup`), which says through the [`Lease`] that it goes on and when it is over.

use super::IngestShard;
use crate::clock;
use crate::observe::log;
use crate::shard::links::Lease;
use sluice_queue::Needed;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How often is looked whether the copying is over.
const LOOK: Duration = Duration::from_millis(100);
/// A copy that makes no progress for so long (a network file system that hangs) is left to itself, and the
/// segments go back into use. Prevents: a spool that grows for ever.
pub const IDLE_MAX: Duration = Duration::from_secs(300);

/// Answers with what is needed of all spools here, then keeps it until the lease ends.
pub(super) async fn hold(shard: &IngestShard, lease: Arc<Lease>, reply: oneshot::Sender<Vec<Needed>>) {
    for spool in shard.spools() {
        // What cannot be written now is not in the copy, like after a crash: those deliveries are repeated.
        let _ = spool.sync().await;
    }
    // All at one moment: a message that is being moved from one to the other is in one of them, or in both.
    let now = clock::wall_micros();
    let snapshots: Vec<_> = shard.spools().map(|spool| spool.snapshot(now)).collect();
    let needed = snapshots.iter().map(|snapshot| snapshot.needed.clone()).collect();
    if reply.send(needed).is_err() {
        return;
    }
    let (mut seen, mut idle) = (lease.progress(), Duration::ZERO);
    while !lease.is_over() {
        glommio::timer::sleep(LOOK).await;
        let progress = lease.progress();
        idle = if progress == seen { idle + LOOK } else { Duration::ZERO };
        seen = progress;
        if idle >= IDLE_MAX && lease.end() {
            log::note("ingest", "error: a backup made no progress and was left to itself");
        }
    }
}
