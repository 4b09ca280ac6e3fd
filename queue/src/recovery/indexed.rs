//! Takes a sealed segment by its index: two reads, no bodies.
//!
//! All of the index verifies before anything of it counts; else the segment is walked as if it had none.

use super::decide::Evidence;
use super::replay::Replay;
use crate::footer::Footer;
use crate::layout::{BATCH_HEADER, BLOCK, BatchHeader};
use crate::record::{IndexView, Record, read_laid_out, read_record};
use crate::segments::{Mark, Segment, Table};
use crate::storage::SegmentFile;
use futures_util::stream::{self, Stream, StreamExt};
use std::rc::Rc;

/// Segments whose ends are read at the same time; an index of 64 MiB of small mail is some 2 MiB.
const READ_AHEAD: usize = 4;

/// What was read of a segment's end.
pub(super) struct Ending<B> {
    pub bytes_read: u64,
    footer: Option<Footer>,
    index: Option<B>,
}

/// The endings of segments, in their order; the next few are read while one is looked at.
pub(super) fn read_endings<F: SegmentFile>(
    table: &Table<F>,
) -> impl Stream<Item = Ending<F::Bytes>> + use<F> {
    let one = |segment: &Segment<F>| {
        let (file, seed, bytes) = (segment.file.clone(), segment.seed, segment.bytes);
        read_ending(file, segment.mark.sequence, seed, bytes)
    };
    let reads: Vec<_> = table.segments.values().map(one).collect();
    stream::iter(reads).buffered(READ_AHEAD)
}

/// Reads footer and index of a segment. What the device refuses here it will refuse to the walk too, which
/// reports it.
async fn read_ending<F: SegmentFile>(file: Rc<F>, sequence: u64, seed: u32, bytes: u64) -> Ending<F::Bytes> {
    let mut ending = Ending { bytes_read: 0, footer: None, index: None };
    let Some(at) = bytes.checked_sub(BLOCK as u64) else { return ending };
    let Ok(block) = file.read(at, BLOCK).await else { return ending };
    ending.bytes_read += block.len() as u64;
    ending.footer = Footer::find(seed, sequence, &block);
    let usable = |footer: &Footer| footer.knowledge.is_ours() && footer.fits(bytes, 0);
    if let Some(footer) = ending.footer.filter(usable) {
        let read = file.read(footer.index_position as u64, footer.index_bytes as usize).await;
        ending.index = read.ok();
        ending.bytes_read += ending.index.as_ref().map_or(0, |index| index.len() as u64);
    }
    ending
}

impl<B: std::ops::Deref<Target = [u8]>> Ending<B> {
    /// Of a segment of `bytes` that follows on the batch `batch_before`.
    pub fn evidence(&self, mark: &Mark, seed: u32, bytes: u64, batch_before: u64) -> Evidence {
        let Some(footer) = self.footer else { return Evidence::NoFooter };
        if !footer.knowledge.is_ours() {
            return Evidence::Later;
        }
        if !footer.fits(bytes, batch_before) {
            return Evidence::Astray;
        }
        match self.index.as_ref().is_some_and(|index| verifies(index, mark, seed, &footer)) {
            true => Evidence::GoodIndex,
            false => Evidence::BadIndex,
        }
    }

    /// Has the replay take a verified index; gives the sequence of the segment's last batch.
    pub fn take(&self, mark: &Rc<Mark>, replay: &mut Replay) -> Option<u64> {
        let (footer, index) = (self.footer?, self.index.as_ref()?);
        replay.trust(mark, footer.id_micros);
        for view in parts(index, footer.index_parts) {
            view.entries().flatten().for_each(|noted| replay.noted(mark, &noted));
        }
        replay.report.batches += footer.batches;
        replay.report.records += footer.records;
        replay.report.segments_indexed += 1;
        Some(footer.last_batch)
    }
}

/// Whether every batch, record and entry is what it should be.
fn verifies(index: &[u8], mark: &Mark, seed: u32, footer: &Footer) -> bool {
    let mut at = 0;
    for part in 0..footer.index_parts {
        let sequence = footer.last_batch - (footer.index_parts - part) as u64;
        let Some(header) = BatchHeader::decode(seed, mark.sequence, &index[at.min(index.len())..]) else {
            return false;
        };
        let end = at + BATCH_HEADER + header.payload_bytes as usize;
        let Some(record) = index.get(at + BATCH_HEADER..end) else { return false };
        let Ok(found) = read_record(seed, record) else { return false };
        let Record::Index(view) = &found.record else { return false };
        let place = footer.index_position as u64 + at as u64;
        let whole = header.belongs_at(place)
            && header.sequence == sequence
            && header.records == 1
            && found.bytes == record.len();
        if !whole || view.part != part || !view.entries().all(|noted| noted.is_some()) {
            return false;
        }
        at += BatchHeader::batch_bytes(header.payload_bytes as usize);
    }
    at == footer.index_bytes as usize
}

/// The records of an index that verified.
fn parts(index: &[u8], count: u32) -> impl Iterator<Item = IndexView<'_>> {
    let mut at = 0;
    (0..count).map_while(move |_| {
        let found = read_laid_out(index.get(at + BATCH_HEADER..)?)?;
        at += BatchHeader::batch_bytes(found.bytes);
        match found.record {
            Record::Index(view) => Some(view),
            _ => None,
        }
    })
}
