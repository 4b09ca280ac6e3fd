//! The end of a segment: its index, its seal, its footer. Lives in a spool, on its shard, in its writer.
//!
//! Each is durable before the next is written, and the footer before the next segment gets its header. What
//! a stop leaves in between is in `FORMAT.md`. Place for all of it is kept free while batches are written:
//! an index never makes a batch that was promised its place wait.

use crate::canary::{Canary, sings};
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

impl<F> Segment<F> {
    /// Octets left at `position` for a batch that adds at most `growth` to the entries of the index, when
    /// the end of the segment has what it needs.
    pub fn room(&self, position: u64, growth: usize) -> u64 {
        let entries = self.digest.as_ref().map(|digest| digest.entry_bytes() + growth);
        let index = entries.map_or(0, digest::disk_bytes_max) as u64;
        self.room_without_index(position).saturating_sub(index)
    }

    pub fn room_without_index(&self, position: u64) -> u64 {
        self.bytes.saturating_sub(position + END_BYTES)
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
    /// Ends a segment, with nothing in flight. It cannot be written any more, whatever happens.
    pub(crate) async fn seal(&self, active: Active, seal: Seal) -> Result<(), Fault> {
        let (file, seed, end, digest) = {
            let mut table = self.inner.table.borrow_mut();
            let segment = table.segments.get_mut(&active.sequence).expect("the active segment is there");
            let mut desk = self.inner.desk.borrow_mut();
            desk.active = None;
            // What was left in it is none any more.
            desk.space.shrink(u64::MAX);
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
        let header = self.batch_header(Active { position, ..active }, SEAL_RECORD, 1);
        let mut buffer = file.buffer(BLOCK);
        let out = buffer.as_mut();
        out.fill(0);
        Pen::new(out, BATCH_HEADER, seed).seal(seal, (lies.position, lies.bytes));
        header.encode(seed, out);
        if !sings(Canary::ForgetsSeals) {
            self.write_end(&file, position, buffer, "sealing a segment").await?;
        }
        self.durable(header.sequence);
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
            let position = active.position + lies.bytes as u64;
            let header = self.batch_header(Active { position, ..active }, payload_bytes, 1);
            let mut buffer = file.buffer(bytes);
            let out = buffer.as_mut();
            let mut pen = Pen::new(out, BATCH_HEADER, seed);
            pen.index(lies.parts, count, &entries);
            let end = pen.at();
            assert_eq!(end, BATCH_HEADER + payload_bytes, "sizes are reckoned before the buffer is made");
            out[end..].fill(0);
            header.encode(seed, out);
            self.write_end(file, position, buffer, "writing a segment index").await?;
            self.durable(header.sequence);
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

    fn durable(&self, sequence: u64) {
        let mut desk = self.inner.desk.borrow_mut();
        (desk.last_batch, desk.durable_batch) = (sequence, sequence);
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
