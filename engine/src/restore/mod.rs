//! `sluice queue restore`: what the command, the relay's admin interface and an ingest shard say to each
//! other about it.
//!
//! ```text
//! command: reads the copy ──frames over admin.sock──▶ service: picks the shard ──Items──▶ ingest: `intake::restore`
//! ```
//!
//! The command reads the copy, so the relay needs no right to it, and its memory does not grow with it: a
//! few items are under way at a time, and whoever is slow holds up whoever is before him.

pub mod copy;
mod parameters;
pub mod wire;

use serde::{Deserialize, Serialize};
use sluice_queue::{Ancestry, Brought, Lineage, QueueId};
use std::collections::BTreeSet;

/// What spools of a relay know, of themselves and of others.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    /// Each spool and the highest id that it has given out.
    pub own: Vec<(Lineage, QueueId)>,
    pub ancestry: Ancestry,
}

impl Knowledge {
    pub fn merge(&mut self, other: Self) {
        self.own.extend(other.own);
        self.ancestry.merge(&other.ancestry);
    }

    pub fn own_lineages(&self) -> BTreeSet<Lineage> {
        self.own.iter().map(|(lineage, _)| *lineage).collect()
    }

    /// Everything that is here or was; of its own spools that is every id given out.
    pub fn known(&self) -> Vec<Ancestry> {
        let own = self.own.iter().map(|(lineage, floor)| {
            let mut one = Ancestry::default();
            one.advance(*lineage, *floor, []);
            one
        });
        own.chain([self.ancestry.clone()]).collect()
    }
}

/// What came of the copy of one spool; also, summed, what `--json` prints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub restored: u64,
    pub restored_bytes: u64,
    /// They wait here already.
    pub here: u64,
    /// They were here and are finished.
    pub finished: u64,
    /// So old that they may have been here.
    pub doubtful: u64,
    /// Could not be read from the copy.
    pub damaged: u64,
    /// Do not fit here.
    pub refused: u64,
    /// Why it ended before its end.
    pub stopped: Option<String>,
}

impl Report {
    pub fn new(brought: Brought, stopped: Option<String>) -> Self {
        let Brought { restored, restored_bytes, here, finished, doubtful, damaged, refused } = brought;
        Self { restored, restored_bytes, here, finished, doubtful, damaged, refused, stopped }
    }

    pub fn add(&mut self, other: &Self) {
        self.restored += other.restored;
        self.restored_bytes += other.restored_bytes;
        self.here += other.here;
        self.finished += other.finished;
        self.doubtful += other.doubtful;
        self.damaged += other.damaged;
        self.refused += other.refused;
        self.stopped = self.stopped.take().or_else(|| other.stopped.clone());
    }
}
