//! The footer: the last block of a sealed segment, by which a start finds its index. Pure; `FORMAT.md`.
//!
//! All integers are little-endian. The rest of the block is zero.
//!
//! | at | octets | what |
//! |---:|---:|---|
//! | 0 | 8 | magic `SLUICEFT` |
//! | 8 | 4 | CRC-32C from the seed of the 96 octets without this field |
//! | 12 | 1 | highest type of record that the writer knew |
//! | 13 | 1 | highest kind of outcome that it knew |
//! | 14 | 2 | highest tag of an attribute that it knew |
//! | 16 | 8 | segment sequence |
//! | 24 | 8 | batch sequence of the seal |
//! | 32 | 8 | batches in the segment, with those of the index and the seal |
//! | 40 | 8 | records in the segment, with those of the index and the seal |
//! | 48 | 8 | highest microseconds of a queue id in the segment |
//! | 56 | 4 | position of the first batch of the index |
//! | 60 | 4 | octets of the batches of the index; the seal follows them |
//! | 64 | 4 | batches of the index |
//! | 68 | 28 | zero |
//!
//! It is written when everything before it is durable, and a segment has none while it can be written to.
//! So a footer that verifies says that the segment is whole, and where its index is. One that does not
//! verify says nothing.

use crate::layout::{BLOCK, u32_at, u64_at};
use crate::record::Knowledge;
use crc32c::crc32c_append;

pub(crate) const FOOTER: usize = 96;
const MAGIC: [u8; 8] = *b"SLUICEFT";

const _: () = assert!(8 + 4 + 1 + 1 + 2 + 5 * 8 + 3 * 4 + 28 == FOOTER && FOOTER <= 512);

/// What a valid footer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub knowledge: Knowledge,
    pub segment: u64,
    /// Batch sequence of the seal.
    pub last_batch: u64,
    pub batches: u64,
    pub records: u64,
    pub id_micros: u64,
    pub index_position: u32,
    pub index_bytes: u32,
    pub index_parts: u32,
}

impl Footer {
    /// Fills the last block.
    pub fn encode(&self, seed: u32, block: &mut [u8]) {
        assert_eq!(block.len(), BLOCK);
        block.fill(0);
        let head = &mut block[..FOOTER];
        head[..8].copy_from_slice(&MAGIC);
        head[12] = self.knowledge.types;
        head[13] = self.knowledge.kinds;
        head[14..16].copy_from_slice(&self.knowledge.tags.to_le_bytes());
        let long = [self.segment, self.last_batch, self.batches, self.records, self.id_micros];
        for (at, value) in (16..).step_by(8).zip(long) {
            head[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        for (at, value) in (56..).step_by(4).zip([self.index_position, self.index_bytes, self.index_parts]) {
            head[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let crc = Self::checksum(seed, head);
        head[8..12].copy_from_slice(&crc.to_le_bytes());
    }

    /// `None` when there is no footer of this life of this segment.
    pub fn find(seed: u32, segment: u64, block: &[u8]) -> Option<Self> {
        let head = block.get(..FOOTER)?;
        if head[..8] != MAGIC || u32_at(head, 8) != Self::checksum(seed, head) {
            return None;
        }
        let found = Self {
            knowledge: Knowledge {
                types: head[12],
                kinds: head[13],
                tags: u16::from_le_bytes([head[14], head[15]]),
            },
            segment: u64_at(head, 16),
            last_batch: u64_at(head, 24),
            batches: u64_at(head, 32),
            records: u64_at(head, 40),
            id_micros: u64_at(head, 48),
            index_position: u32_at(head, 56),
            index_bytes: u32_at(head, 60),
            index_parts: u32_at(head, 64),
        };
        (found.segment == segment).then_some(found)
    }

    /// Whether its places are within a segment of `segment_bytes`, and its batches behind `batch_before`.
    pub fn fits(&self, segment_bytes: u64, batch_before: u64) -> bool {
        let (start, bytes) = (self.index_position as u64, self.index_bytes as u64);
        let block = BLOCK as u64;
        let aligned = start.is_multiple_of(block) && bytes.is_multiple_of(block);
        let within = start >= block && start + bytes + 2 * block <= segment_bytes;
        let parts = self.index_parts as u64;
        let counted = (parts == 0) == (bytes == 0) && parts * block <= bytes;
        // The seal and every batch of the index have a sequence of their own.
        aligned && within && counted && self.last_batch > batch_before.saturating_add(parts)
    }

    fn checksum(seed: u32, head: &[u8]) -> u32 {
        crc32c_append(crc32c_append(seed, &head[..8]), &head[12..FOOTER])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND: Footer = Footer {
        knowledge: Knowledge::OURS,
        segment: 9,
        last_batch: 77,
        batches: 30,
        records: 99,
        id_micros: 1_795_000_000_000_000,
        index_position: 8 << 12,
        index_bytes: 3 << 12,
        index_parts: 2,
    };

    #[test]
    fn a_footer_survives_the_disk_and_every_flipped_bit_is_noticed() {
        let mut block = [0xff; BLOCK];
        FOUND.encode(5, &mut block);
        assert_eq!(Footer::find(5, 9, &block), Some(FOUND));
        assert_eq!((Footer::find(6, 9, &block), Footer::find(5, 8, &block)), (None, None));
        assert_eq!(Footer::find(5, 9, &block[..FOOTER - 1]), None);
        for bit in 0..FOOTER * 8 {
            let mut bad = block;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Footer::find(5, 9, &bad), None, "bit {bit}");
        }
    }

    #[test]
    fn places_beyond_the_segment_and_batches_of_the_past_do_not_fit() {
        let table = [
            (FOUND, 13 << 12, 74, true),
            (FOUND, 12 << 12, 74, false),
            (FOUND, 13 << 12, 75, false),
            (Footer { index_position: 0, ..FOUND }, 13 << 12, 0, false),
            (Footer { index_position: (8 << 12) + 1, ..FOUND }, 20 << 12, 0, false),
            (Footer { index_bytes: 100, ..FOUND }, 20 << 12, 0, false),
            (Footer { index_parts: 0, ..FOUND }, 20 << 12, 0, false),
            (Footer { index_parts: 4, ..FOUND }, 20 << 12, 0, false),
            (Footer { index_parts: 0, index_bytes: 0, ..FOUND }, 10 << 12, 76, true),
            (Footer { index_position: !4095, index_bytes: !4095, ..FOUND }, 1 << 31, 0, false),
        ];
        for (footer, segment_bytes, before, fits) in table {
            assert_eq!(footer.fits(segment_bytes, before), fits, "{footer:?} in {segment_bytes}");
        }
    }
}
