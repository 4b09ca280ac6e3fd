//! Keeps the disk use of a spool bounded: messages that wait long are moved out of segments that they
//! keep from being used again (`queue/FORMAT.md`).
//!
//! One task per spool on its ingest shard. A step moves about a mebibyte; the pause between steps is the
//! share of the disk's time that this may take.

use super::ShardSpool;
use crate::observe::log;
use crate::space::{Level, Space};
use sluice_queue::CommitError;
use std::sync::Arc;
use std::time::Duration;

/// Between looks while there is nothing to do.
const LOOK: Duration = Duration::from_secs(1);
/// Between steps while there is: about 10 MiB a second at most.
const STEP: Duration = Duration::from_millis(100);
/// While room is short: about 100 MiB a second.
const STEP_HURRIED: Duration = Duration::from_millis(10);

/// Runs as long as the shard; ends when the spool takes nothing more.
pub async fn compact(spool: ShardSpool, space: Arc<Space>) {
    let mut pause = LOOK;
    loop {
        glommio::timer::sleep(pause).await;
        pause = match spool.compact_step().await {
            Ok(step) if step.more && space.level() >= Level::Slow => STEP_HURRIED,
            Ok(step) if step.more => STEP,
            // Without room nothing is lost by waiting; the look at the free space has said so.
            Ok(_) | Err(CommitError::Full) => LOOK,
            Err(error) => return log::note("ingest", &format!("compaction of the spool ends: {error}")),
        };
    }
}
