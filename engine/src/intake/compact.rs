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
use std::time::{Duration, Instant};

/// Between looks while there is nothing to do.
const LOOK: Duration = Duration::from_secs(1);
/// Percent of the time that it takes at least while room is short.
const SHARE_HURRIED: u32 = 50;

/// Runs as long as the shard; ends when the spool takes nothing more.
/// `share`: percent of the time that steps may take, `spool.compaction_share`.
pub async fn compact(spool: ShardSpool, space: Arc<Space>, share: u32) {
    let mut pause = LOOK;
    loop {
        glommio::timer::sleep(pause).await;
        let begun = Instant::now();
        pause = match spool.compact_step().await {
            Ok(step) if step.more && space.level() >= Level::Slow => {
                pause_after(begun.elapsed(), share.max(SHARE_HURRIED))
            }
            Ok(step) if step.more => pause_after(begun.elapsed(), share),
            // Without room nothing is lost by waiting; the look at the free space has said so.
            Ok(_) | Err(CommitError::Full) => LOOK,
            Err(error) => return log::note("ingest", &format!("compaction of the spool ends: {error}")),
        };
    }
}

/// So that steps like the one that took `step` take `share` percent of the time.
fn pause_after(step: Duration, share: u32) -> Duration {
    step * (100 - share.min(100)) / share.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_take_their_share_of_the_time() {
        for (share, pause) in [(1, 990), (10, 90), (50, 10), (100, 0)] {
            assert_eq!(pause_after(Duration::from_millis(10), share).as_millis(), pause, "{share}");
        }
    }
}
