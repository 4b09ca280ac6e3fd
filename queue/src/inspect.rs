//! A look at a spool from outside: by plain reads, with nothing written, whether or not a relay runs on it.
//!
//! Blocks; for commands, never on a shard.

use crate::ancestry::{Ancestry, Origin};
use crate::envelope::RecipientState;
use crate::error::{OpenError, ReadError};
use crate::id::{QueueId, SpoolNumber};
use crate::index::{Counts, Facts, Index};
use crate::lineage::Lineage;
use crate::reading::{self, Message};
use crate::recovery::{CutAt, Reading, Recovery, recover};
use crate::segments::Table;
use crate::storage::ReaderStorage;
use crate::storage::reader::ReaderFile;
use futures_lite::future::block_on;
use std::cell::RefCell;
use std::path::Path;

/// A relay may be writing while we read: what then looks like damage is gone on another look.
const LOOKS_MAX: usize = 3;

/// A spool as it was at one moment.
pub struct Inspection {
    index: Index,
    ancestry: Ancestry,
    id_floor: QueueId,
    pub(crate) table: RefCell<Table<ReaderFile>>,
    pub(crate) number: SpoolNumber,
    pub(crate) cut: Option<CutAt>,
    pub(crate) last_batch: u64,
    pub recovery: Recovery,
    /// `None` when no segment of version 2 was found.
    pub lineage: Option<Lineage>,
}

/// Reads the spool directory `dir` (a `shard-NNNN`, whose number is `number`).
///
/// While a relay writes there, messages of the last moment may be missing, and when segments are being
/// recycled damage may be reported that is none.
///
/// # Errors
/// As [`crate::Spool::open`].
pub fn inspect(dir: &Path, number: SpoolNumber) -> Result<Inspection, OpenError> {
    let mut look = 1;
    loop {
        let found = block_on(recover(&ReaderStorage::new(dir), number.get(), Reading::Indexes))?;
        if found.report.damages.is_empty() || look == LOOKS_MAX {
            return Ok(Inspection {
                index: found.index,
                ancestry: found.ancestry,
                id_floor: QueueId::new(found.id_micros, number),
                table: RefCell::new(found.table),
                number,
                cut: found.cut,
                last_batch: found.last_batch,
                recovery: found.report,
                lineage: found.lineage.map(|(_, lineage)| lineage),
            });
        }
        look += 1;
    }
}

impl Inspection {
    /// Ids of waiting messages after `after`, rising, at most `count`.
    pub fn live(&self, after: Option<QueueId>, count: usize) -> Vec<QueueId> {
        self.index.page(after, count)
    }

    /// Ids of messages whose octets are not all readable.
    pub fn damaged(&self) -> Vec<QueueId> {
        self.index.damaged().map(|(id, _)| id).collect()
    }

    /// As [`crate::Spool::survey`].
    pub fn survey(
        &self,
        after: Option<QueueId>,
        count: usize,
        each: impl FnMut(&Facts<'_>),
    ) -> Option<QueueId> {
        self.index.survey(after, count, each)
    }

    /// As [`crate::Spool::facts`].
    pub fn facts<T>(&self, id: QueueId, see: impl FnOnce(&Facts<'_>) -> T) -> Option<T> {
        self.index.get(id).as_ref().map(see)
    }

    /// As [`crate::Spool::counts`].
    pub fn counts(&self) -> Counts {
        self.index.counts()
    }

    pub fn states(&self, id: QueueId) -> Option<Vec<RecipientState>> {
        self.index.get(id).map(|facts| facts.states())
    }

    /// What the spool knew of others.
    pub fn ancestry(&self) -> &Ancestry {
        &self.ancestry
    }

    /// The origin of a message, when it has one.
    pub fn origin_of(&self, id: QueueId) -> Option<Origin> {
        self.index.origins.get(id)
    }

    /// Every id that was given out before has at most this.
    pub fn id_floor(&self) -> QueueId {
        self.id_floor
    }

    /// As [`crate::Spool::load`].
    pub fn load(&self, id: QueueId) -> Result<Message, ReadError> {
        block_on(reading::load(&self.table, reading::known(&self.index, id, true), id))
    }

    /// As [`crate::Spool::read`].
    pub fn read(&self, id: QueueId, offset: u64, len_max: usize) -> Result<Vec<u8>, ReadError> {
        let held = reading::held(&self.index, id);
        block_on(reading::read(&self.table, held, id, offset, len_max))
    }

    /// As [`crate::Spool::read_loaded`].
    pub fn read_loaded(&self, message: &Message, offset: u64, len_max: usize) -> Result<Vec<u8>, ReadError> {
        let held = reading::held(&self.index, message.id);
        block_on(reading::read_loaded(&self.table, held, message, offset, len_max))
    }
}
