//! The bounds of a spool. Plain data.

use crate::error::OpenError;
use crate::layout::{BATCH_HEADER, BLOCK};
use crate::record::{EXTENT_HEAD, RECORD_HEADER};

/// Below, a segment would hold hardly more than one batch. The spool's own tests and fuzz targets go lower.
pub const SEGMENT_BYTES_MIN: u64 = if cfg!(any(test, fuzzing)) { 64 << 10 } else { 1 << 20 };
/// Positions in a segment are 32 bits.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 31;

/// What a spool may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Octets of a segment file. Bigger ones are written longer before space is needed again, smaller ones
    /// come free sooner. A spool may hold segments of several sizes. Prevents: one file without end.
    pub segment_bytes: u64,
    /// Octets of a message held in memory before they are written. Prevents: memory by message size.
    pub extent_bytes_max: usize,
    /// Payload at which a gathering batch takes no more groups. Prevents: one commit waiting for the
    /// writing of all others.
    pub batch_bytes_max: usize,
    /// Segments that new mail leaves alone, so that outcomes can be recorded, and space be won by it,
    /// when no file can be created. Prevents: a full disk that stays full.
    pub spare_segments: usize,
    /// Octets of segment files, all together; past it new mail is refused as when the device is full.
    /// Prevents: a queue that takes the disk from everybody else.
    pub bytes_max: u64,
    /// Segments without anything in them that are kept for use; more are given back to the file system.
    /// Prevents: a spool that stays as big as its worst day.
    pub idle_segments_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            extent_bytes_max: 256 << 10,
            batch_bytes_max: 1 << 20,
            spare_segments: 1,
            bytes_max: u64::MAX,
            idle_segments_max: 16,
        }
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let bounds = SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX;
        if !bounds.contains(&self.segment_bytes) || !self.segment_bytes.is_multiple_of(BLOCK as u64) {
            return Err(OpenError::Options("segment_bytes must be a multiple of 4 KiB, 1 MiB to 2 GiB"));
        }
        if self.extent_bytes_max < BLOCK || self.extent_bytes_max as u64 > self.segment_bytes / 2 {
            return Err(OpenError::Options("extent_bytes_max must be 4 KiB to half of segment_bytes"));
        }
        if self.batch_bytes_max < BLOCK || self.batch_bytes_max as u64 > SEGMENT_BYTES_MAX / 2 {
            return Err(OpenError::Options("batch_bytes_max must be 4 KiB to 1 GiB"));
        }
        Ok(())
    }

    /// The most that one group can hold: a segment without its header, its seal and its footer.
    pub(crate) fn group_bytes_max(&self) -> usize {
        self.segment_bytes as usize - 3 * BLOCK - BATCH_HEADER
    }

    /// Payload of a gathering batch; never more than fits in a segment.
    pub(crate) fn batch_payload_max(&self) -> usize {
        self.batch_bytes_max.min(self.group_bytes_max())
    }
}

const _: () = assert!(RECORD_HEADER + EXTENT_HEAD + BATCH_HEADER < BLOCK);
