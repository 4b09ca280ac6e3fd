//! What an ingest shard does about its own spools' condition: room, faults, writes that hang.
//!
//! Looked at by the shard's tick. The relay's level ([`crate::space`]) is the same for all shards; a spool
//! that finds no room, has failed or hangs stops new mail of its own shard at once.
//!
//! | condition | new mail | log |
//! |---|---|---|
//! | no room for another segment | 452 4.3.1 at MAIL, until there is some again | when it begins and ends |
//! | a write failed | 451 4.3.0 at MAIL, until a restart; deliveries go on | once |
//! | a write does not come back within `spool.write_wait` | 451 4.3.0 at MAIL and to who waits for it | when it begins and ends |

use super::{IngestShard, ShardSpool};
use crate::clock;
use crate::observe::log;
use crate::session::Refusal;
use crate::shard::event::Stop;
use crate::space::Level;
use std::rc::Rc;
use std::time::Duration;

/// Between tries to create a segment while there is no room.
const LOOK: Duration = Duration::from_millis(500);

/// What was seen of one spool, to tell what is new.
#[derive(Debug, Default)]
pub struct Condition {
    short: bool,
    failed: bool,
    hangs: bool,
    /// Batches written when this was looked at last, and since when that has not changed.
    batches: u64,
    since: u64,
}

/// Tries again while there is no room. Runs as long as the shard.
pub async fn look_for_room(spool: ShardSpool) {
    loop {
        glommio::timer::sleep(LOOK).await;
        spool.look_for_room().await;
    }
}

impl IngestShard {
    /// Why no new mail is taken now.
    pub fn refuses(&self) -> Option<Refusal> {
        let no_space = self.space.level() >= Level::Refuse;
        self.refusing.get().or(no_space.then_some(Refusal::NoSpace))
    }

    /// What is wrong with the spools here, a sentence each.
    pub(super) fn spool_warnings(&self) -> Vec<String> {
        let conditions = self.conditions.borrow();
        let mut warnings = Vec::new();
        for (index, spool) in self.numbered_spools() {
            let name = spool.number().get();
            if let Some(fault) = spool.fault() {
                warnings.push(format!(
                    "spool {name} has failed ({fault}): it takes nothing more until a restart, new mail is answered 451 4.3.0, what is delivered is not recorded"
                ));
            } else if conditions[index].hangs {
                warnings.push(format!(
                    "spool {name}: a write has not come back: new mail is answered 451 4.3.0 until it does"
                ));
            } else if let Some(why) = spool.shortage() {
                warnings.push(format!("spool {name}: no room for another segment ({why})"));
            }
        }
        warnings
    }

    /// Each with its place in `conditions`, which stays when another one is removed.
    fn numbered_spools(&self) -> impl Iterator<Item = (usize, &ShardSpool)> {
        let all = std::iter::once(&self.spool).chain(&self.adopted).enumerate();
        all.filter(|(_, spool)| !spool.is_retired())
    }

    /// Looks at all spools; for the tick.
    pub(super) fn look_at_spools(&self) {
        let mut conditions = self.conditions.borrow_mut();
        let mut refusing = None;
        let mut sums = [0; 7];
        for (index, spool) in self.numbered_spools() {
            let condition = &mut conditions[index];
            let name = spool.number().get();
            let stats = spool.stats();
            let short = spool.shortage();
            if short.is_some() != condition.short {
                condition.short = short.is_some();
                log::note(
                    "ingest",
                    &match &short {
                        Some(why) => format!(
                            "error: spool {name}: no room for another segment ({why}); new mail is refused with 452 4.3.1 until there is, delivery goes on"
                        ),
                        None => format!("spool {name}: there is room for new mail again"),
                    },
                );
            }
            if let Some(fault) = spool.fault().filter(|_| !condition.failed) {
                condition.failed = true;
                log::note(
                    "ingest",
                    &format!(
                        "error: spool {name}: {fault}; it takes nothing more until a restart: new mail is answered 451 4.3.0. Delivery of what can be read goes on, but is not recorded: after the restart it is repeated. See to the disk, then restart"
                    ),
                );
            }
            self.look_for_hang(condition, spool, stats.batches);
            if index == 0 {
                refusing = match (condition.failed || condition.hangs, condition.short) {
                    (true, _) => Some(Refusal::Storage),
                    (false, true) => Some(Refusal::NoSpace),
                    (false, false) => None,
                };
            }
            let used = [
                stats.segment_bytes,
                stats.segments_idle as u64 * self.config.spool.segment_bytes,
                stats.live_bytes,
                stats.reserved_bytes,
                condition.short as u64,
                condition.failed as u64,
                condition.hangs as u64,
            ];
            sums.iter_mut().zip(used).for_each(|(sum, of)| *sum += of);
            spool.hurry_compaction(self.space.level() >= Level::Slow);
        }
        self.refusing.set(refusing);
        let counters = &self.counters;
        let gauges = [
            &counters.spool_bytes,
            &counters.spool_idle_bytes,
            &counters.spool_live_bytes,
            &counters.spool_reserved_bytes,
            &counters.spools_short,
            &counters.spools_failed,
            &counters.spools_hanging,
        ];
        gauges.iter().zip(sums).for_each(|(gauge, sum)| gauge.set(sum));
        counters.spool_full.set(matches!(self.refuses(), Some(Refusal::NoSpace)) as u64);
    }

    fn look_for_hang(&self, condition: &mut Condition, spool: &ShardSpool, batches: u64) {
        let now = clock::monotonic_millis();
        if !spool.is_writing() || batches != condition.batches {
            (condition.batches, condition.since) = (batches, now);
        }
        let bound = self.config.spool.write_wait;
        let hangs =
            u128::from(now.saturating_sub(condition.since)) >= bound.as_millis() && spool.fault().is_none();
        if hangs == condition.hangs {
            return;
        }
        condition.hangs = hangs;
        let name = spool.number().get();
        if hangs {
            log::note(
                "ingest",
                &format!(
                    "error: spool {name}: a write has not come back for {} s (spool.write_wait); who waits for it and new mail are answered 451 4.3.0 until it does",
                    bound.as_secs()
                ),
            );
            self.hang.borrow().stop();
        } else {
            log::note("ingest", &format!("spool {name}: writes come back again; new mail is accepted"));
            *self.hang.borrow_mut() = Rc::new(Stop::default());
        }
    }
}
