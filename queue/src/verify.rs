//! Reads all of a spool, bodies too, and says what is wrong with it and what that means for mail.
//!
//! By plain reads, with nothing written. Blocks; for a command, never on a shard. What it goes by is what a
//! start goes by ([`recover`]); besides, it looks at what a start forgives: a header of which one copy is
//! lost, a file of another size; and it reads every waiting message as a delivery would.
//!
//! On the spool of a running relay, files change while they are read. What is damaged stays so, and what
//! only looked so does not: so there a finding counts when [`LOOKS`] looks have it.
//!
//! What no reading can tell: a segment file that is gone is noticed only by messages that have octets in it
//! and their commit record elsewhere; and a last batch that was lost looks as if it had never been written.

mod finding;

pub use finding::{Finding, Flaw, Means};

use crate::error::{Fault, OpenError, ReadError};
use crate::id::{QueueId, SpoolNumber};
use crate::index::Index;
use crate::layout::{BATCH_HEADER, BLOCK, BatchHeader, HeaderFound, SegmentHeader};
use crate::reading;
use crate::record;
use crate::recovery::{DamageKind, Reading, recover};
use crate::segments::Table;
use crate::storage::{ReaderStorage, SegmentFile, Storage};
use futures_lite::future::block_on;
use std::cell::RefCell;
use std::path::Path;

/// How often a finding in the spool of a running relay must be seen.
const LOOKS: usize = 3;
/// Octets of a message read at a time; never less than an extent has.
const READ_MAX: usize = usize::MAX;

/// What a spool was found to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    pub segments: usize,
    pub batches: u64,
    pub records: u64,
    /// Messages that wait and were read whole.
    pub messages: usize,
    /// Octets of their content.
    pub content_bytes: u64,
    /// Octets read from the device, some more than once.
    pub bytes_read: u64,
    /// Messages of which not all octets are readable: shown as damaged, not delivered.
    pub messages_damaged: Vec<QueueId>,
    /// In the order in which they were met; of damages at most [`crate::DAMAGES_MAX`].
    pub findings: Vec<Finding>,
    /// Damages beyond those.
    pub findings_more: u64,
}

impl Verified {
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.findings_more == 0
    }

    /// The device refused to read something, so that what is there is not known.
    pub fn unread(&self) -> bool {
        self.findings.iter().any(|finding| finding.flaw.is_unread())
    }
}

/// Verifies the spool directory `dir` (a `shard-NNNN`, whose number is `number`); `live`: a relay runs on it.
///
/// # Errors
/// The directory or a file cannot be opened, or a later version of this program wrote the spool.
pub fn verify(dir: &Path, number: SpoolNumber, live: bool) -> Result<Verified, OpenError> {
    block_on(verify_storage(&ReaderStorage::new(dir), number, live))
}

pub(crate) async fn verify_storage<S: Storage>(
    storage: &S,
    number: SpoolNumber,
    live: bool,
) -> Result<Verified, OpenError> {
    let mut found = look(storage, number).await?;
    if live {
        for _ in 1..LOOKS {
            if found.is_clean() {
                break;
            }
            let mut again = look(storage, number).await?;
            again.findings.retain(|finding| found.findings.contains(finding));
            again.findings_more = again.findings_more.min(found.findings_more);
            again.bytes_read += found.bytes_read;
            found = again;
        }
        found.messages_damaged.retain(|id| found.findings.iter().any(|of| of.ids.contains(id)));
    }
    Ok(found)
}

/// Reads everything once.
async fn look<S: Storage>(storage: &S, number: SpoolNumber) -> Result<Verified, OpenError> {
    let recovered = recover(storage, number.get(), Reading::Batches).await?;
    let report = recovered.report;
    let mut found = Verified {
        segments: report.segments,
        batches: report.batches,
        records: report.records,
        bytes_read: report.bytes_read,
        findings_more: report.damages_more,
        ..Verified::default()
    };
    look_at_headers(storage, &mut found).await?;
    for damage in report.damages {
        if let DamageKind::Extent(id) = damage.what {
            found.messages_damaged.push(id);
        }
        let mut ids = match (&damage.what, damage.segment) {
            (DamageKind::Extent(id), _) => vec![*id],
            (DamageKind::Record, Some(segment)) => named_in(&recovered.table, segment, damage.offset).await,
            _ => Vec::new(),
        };
        // A record that does not verify may name anything.
        ids.retain(|id| id.spool() == number);
        found.findings.push(Finding {
            slot: damage.slot,
            segment: damage.segment,
            offset: damage.offset,
            flaw: Flaw::Damage(damage.what),
            ids,
        });
    }
    let ids: Vec<QueueId> = recovered.index.page(None, usize::MAX);
    let table = RefCell::new(recovered.table);
    for id in ids {
        look_at_message(&table, &recovered.index, id, &mut found).await;
    }
    Ok(found)
}

/// What of the headers a start forgives.
async fn look_at_headers<S: Storage>(storage: &S, found: &mut Verified) -> Result<(), OpenError> {
    let device = |error| OpenError::Device(Fault::new("opening a segment", &error));
    for slot in storage.list().await.map_err(device)? {
        let file = storage.open(slot).await.map_err(device)?;
        let size = file.size().await.map_err(device)?;
        // What cannot be read at all is a damage already.
        let Ok(block) = file.read(0, BLOCK).await else { continue };
        found.bytes_read += block.len() as u64;
        let HeaderFound::Valid(header) = SegmentHeader::find(&block) else { continue };
        let mut note = |offset, flaw| {
            let segment = Some(header.sequence);
            found.findings.push(Finding { slot, segment, offset, flaw, ids: Vec::new() });
        };
        for (offset, copy) in SegmentHeader::copies(&block) {
            if !matches!(copy, HeaderFound::Valid(_)) {
                note(offset, Flaw::HeaderCopy);
            }
        }
        if size > header.segment_bytes {
            note(header.segment_bytes, Flaw::Long);
        }
    }
    Ok(())
}

/// Ids in the records of a batch that do not verify, as far as they can be believed.
async fn named_in<F: SegmentFile>(table: &Table<F>, segment: u64, position: u64) -> Vec<QueueId> {
    let mut ids = Vec::new();
    let Some(segment) = table.get(segment) else { return ids };
    let Ok(block) = segment.file.read(position, BLOCK).await else { return ids };
    let header = BatchHeader::decode(segment.seed, segment.mark.sequence, &block);
    let Some(header) = header else { return ids };
    let end = BATCH_HEADER + header.payload_bytes as usize;
    let Ok(batch) = segment.file.read(position, end).await else { return ids };
    let mut at = BATCH_HEADER;
    while at < batch.len() {
        match record::read_record(segment.seed, &batch[at..]) {
            Ok(found) => at += found.bytes,
            Err(malformed) => {
                ids.extend(record::id_in(&batch[at..]).map(QueueId::from_bits));
                let Some(next) = malformed.next else { break };
                at += next;
            }
        }
    }
    ids.dedup();
    ids
}

/// Reads a message as a delivery would.
async fn look_at_message<F: SegmentFile>(
    table: &RefCell<Table<F>>,
    index: &Index,
    id: QueueId,
    found: &mut Verified,
) {
    match read_message(table, index, id).await {
        Ok(bytes) => {
            found.messages += 1;
            found.content_bytes += bytes;
            found.bytes_read += bytes;
        }
        Err(error) => {
            let place = index.get(id).map(|facts| facts.entry().commit.clone());
            let commit = place.map_or((None, 0), |at| (Some(at.segment.sequence), at.position as u64));
            let (segment, offset) = match error {
                ReadError::Damaged { segment, position } => (Some(segment), position as u64),
                _ => commit,
            };
            let slot = segment.and_then(|segment| table.borrow().get(segment).map(|of| of.slot));
            found.messages_damaged.push(id);
            found.findings.push(Finding {
                slot: slot.unwrap_or_default(),
                segment,
                offset,
                flaw: Flaw::Message(error),
                ids: vec![id],
            });
        }
    }
}

/// Octets of the content.
async fn read_message<F: SegmentFile>(
    table: &RefCell<Table<F>>,
    index: &Index,
    id: QueueId,
) -> Result<u64, ReadError> {
    let message = reading::load(table, reading::known(index, id, true), id).await?;
    let mut bytes = 0;
    while bytes < message.content_bytes {
        let held = reading::held(index, id);
        let octets = reading::read_loaded(table, held, &message, bytes, READ_MAX).await?;
        if octets.is_empty() {
            break;
        }
        bytes += octets.len() as u64;
    }
    Ok(bytes)
}
