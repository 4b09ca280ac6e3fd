//! The end of a segment: its index, its seal, its footer. Lives in a spool, on its shard, in its writer.
//!
//! Each is durable before the next is written, and the footer before the next segment gets its header. What
//! a stop leaves in between is in `FORMAT.md`. Place for all of it is kept free while batches are written:
//! an index never makes a batch that was promised its place wait.

use crate::desk::Active;
use crate::digest::{self, Digest};
use crate::error::Fault;
use crate::footer::Footer;
use crate::layout::{BATCH_HEADER, BLOCK};
use crate::record::{Knowledge, Pen, SEAL_RECORD, Seal};
use crate::recovery::CutAt;
use crate::segments::{Segment, Status};
use crate::spool::Spool;
use crate::storage::{SegmentFile, Storage};
use std::rc::Rc;

/// What the end of a segment takes: a block for the seal, one for the footer.
pub(crate) const END_BYTES: u64 = 2 * BLOCK as u64;

/// Whether a segment has place for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Enough,
    /// Only when the segment goes without an index: for what no other segment has more place for.
    WithoutIndex,
    No,
}

impl<F> Segment<F> {
    /// Whether a batch of `bytes` at `position`, which adds at most `growth` to the entries of the index,
    /// leaves place for the end.
    pub fn room(&self, position: u64, bytes: u64, growth: usize) -> Room {
        let end = position + bytes + END_BYTES;
        let entries = self.digest.as_ref().map(|digest| digest.entry_bytes() + growth);
        let index = entries.map_or(0, digest::disk_bytes_max) as u64;
        if end + index <= self.bytes {
            Room::Enough
        } else if position == BLOCK as u64 && end <= self.bytes {
            Room::WithoutIndex
        } else {
            Room::No
        }
    }
}

/// Where an index came to lie.
#[derive(Clone, Copy, Debug, Default)]
struct Lies {
    position: u32,
    bytes: u32,
    parts: u32,
}

impl<S: Storage> Spool<S> {
    /// Ends a segment. It cannot be written any more, whatever happens.
    pub(crate) async fn seal(&self, active: Active, seal: Seal) -> Result<(), Fault> {
        let (file, seed, end, digest) = {
            let mut table = self.inner.table.borrow_mut();
            let segment = table.segments.get_mut(&active.sequence).expect("the active segment is there");
            self.inner.desk.borrow_mut().active = None;
            (segment.file.clone(), segment.seed, segment.bytes, segment.digest.take())
        };
        let index_max = |digest: &Digest| digest::disk_bytes_max(digest.entry_bytes()) as u64;
        // After a cut there may be no place: the next start reads the batches.
        let mut digest = digest
            .filter(|digest| digest.is_sound() && active.position + index_max(digest) + END_BYTES <= end);
        let mut position = active.position;
        let lies = match &mut digest {
            Some(digest) => self.write_index(&file, seed, active, digest).await?,
            None => Lies::default(),
        };
        position += lies.bytes as u64;
        let header = self.batch_header(active.sequence, SEAL_RECORD, 1);
        let mut buffer = file.buffer(BLOCK);
        let out = buffer.as_mut();
        out.fill(0);
        Pen::new(out, BATCH_HEADER, seed).seal(seal, (lies.position, lies.bytes));
        header.encode(seed, out);
        self.write_end(&file, position, buffer, "sealing a segment").await?;
        self.inner.desk.borrow_mut().last_batch = header.sequence;
        if let Some(digest) = digest {
            let footer = Footer {
                knowledge: Knowledge::OURS,
                segment: active.sequence,
                last_batch: header.sequence,
                batches: digest.batches + 1,
                records: digest.records + 1,
                id_micros: digest.id_micros,
                index_position: if lies.parts > 0 { lies.position } else { position as u32 },
                index_bytes: lies.bytes,
                index_parts: lies.parts,
            };
            assert!(footer.fits(end, header.sequence - 1 - lies.parts as u64), "{footer:?} in {end}");
            let mut buffer = file.buffer(BLOCK);
            footer.encode(seed, buffer.as_mut());
            self.write_end(&file, end - BLOCK as u64, buffer, "writing a segment footer").await?;
        }
        let mut table = self.inner.table.borrow_mut();
        let segment = table.segments.get_mut(&active.sequence).expect("the active segment is there");
        if segment.status == Status::Active {
            segment.status = Status::Sealed;
        }
        Ok(())
    }

    /// Writes the records of an index, a batch each, so that the shard does other things in between.
    async fn write_index(
        &self,
        file: &Rc<S::File>,
        seed: u32,
        active: Active,
        digest: &mut Digest,
    ) -> Result<Lies, Fault> {
        let mut lies = Lies { position: active.position as u32, ..Lies::default() };
        for (count, entries) in digest.parts() {
            let (payload_bytes, bytes) = digest::part_bytes(entries.len());
            let header = self.batch_header(active.sequence, payload_bytes, 1);
            let mut buffer = file.buffer(bytes);
            let out = buffer.as_mut();
            let mut pen = Pen::new(out, BATCH_HEADER, seed);
            pen.index(lies.parts, count, &entries);
            let end = pen.at();
            assert_eq!(end, BATCH_HEADER + payload_bytes, "sizes are reckoned before the buffer is made");
            out[end..].fill(0);
            header.encode(seed, out);
            let position = active.position + lies.bytes as u64;
            self.write_end(file, position, buffer, "writing a segment index").await?;
            self.inner.desk.borrow_mut().last_batch = header.sequence;
            lies.bytes += bytes as u32;
            lies.parts += 1;
        }
        digest.batches += lies.parts as u64;
        digest.records += lies.parts as u64;
        if lies.parts == 0 {
            lies.position = 0;
        }
        Ok(lies)
    }

    async fn write_end(
        &self,
        file: &Rc<S::File>,
        position: u64,
        mut buffer: <S::File as SegmentFile>::Buffer,
        doing: &'static str,
    ) -> Result<(), Fault> {
        let bytes = buffer.as_mut().len() as u64;
        file.write(position, buffer).await.map_err(|error| Fault::new(doing, &error))?;
        self.inner.desk.borrow_mut().stats.bytes_written += bytes;
        Ok(())
    }

    /// Ends the log that a crash left open.
    pub(crate) async fn seal_cut(&self, cut: CutAt) -> Result<(), Fault> {
        let end = self.inner.table.borrow().segments[&cut.segment].bytes;
        if cut.position + BLOCK as u64 > end {
            return Ok(());
        }
        self.seal(Active { sequence: cut.segment, position: cut.position }, Seal::Cut).await
    }
}
