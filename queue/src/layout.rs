//! The bytes of blocks: segment header and batch header. Pure; version 2 of the format (`FORMAT.md`).
//!
//! All integers are little-endian. A segment is a file of blocks of 4096 octets.
//!
//! Segment header, in block 0, twice (at 0 and at 2048, so that one bad sector does not lose it):
//!
//! | at | octets | what |
//! |---:|---:|---|
//! | 0 | 8 | magic `SLUICESG` |
//! | 8 | 2 | format version |
//! | 10 | 2 | spool number |
//! | 12 | 4 | CRC-32C of the 64 octets, this field being zero |
//! | 16 | 8 | segment sequence, from 1, rising over the life of the spool |
//! | 24 | 8 | segment_bytes |
//! | 32 | 8 | salt, drawn for this life of the segment |
//! | 40 | 8 | id floor: every queue id given out before has at most these microseconds |
//! | 48 | 16 | lineage: the same in every segment of a spool; zero in version 1 |
//!
//! Batch header, at the start of a block:
//!
//! | at | octets | what |
//! |---:|---:|---|
//! | 0 | 4 | magic `SLBT` |
//! | 4 | 4 | CRC-32C of the salt, then of these 64 octets without this field |
//! | 8 | 8 | segment sequence |
//! | 16 | 8 | batch sequence, from 1, rising over the life of the spool |
//! | 24 | 8 | durable_through: all batches up to this one were durable when this one was laid out |
//! | 32 | 4 | payload octets (the records; zero padding to the block follows) |
//! | 36 | 4 | record count |
//! | 40 | 4 | number of the block in the segment where the batch starts; zero: not said |
//! | 44 | 20 | zero |
//!
//! The salt enters every checksum of the segment. So what an earlier life of the file left behind never
//! verifies, and neither does a batch header that somebody put into the body of a message.

use crate::canary::{Canary, sings};
use crate::lineage::Lineage;
use crc32c::{crc32c, crc32c_append};

/// The unit of writing: what one device write does not mix with another one.
pub(crate) const BLOCK: usize = 4096;
pub(crate) const FORMAT_VERSION: u16 = 2;
pub(crate) const SEGMENT_HEADER: usize = 64;
pub(crate) const SEGMENT_HEADER_COPY_AT: usize = 2048;
pub(crate) const BATCH_HEADER: usize = 64;
const SEGMENT_MAGIC: [u8; 8] = *b"SLUICESG";
const BATCH_MAGIC: [u8; 4] = *b"SLBT";

const _: () = assert!(SEGMENT_HEADER_COPY_AT >= SEGMENT_HEADER && SEGMENT_HEADER_COPY_AT.is_multiple_of(512));
const _: () = assert!(SEGMENT_HEADER_COPY_AT + SEGMENT_HEADER <= BLOCK);
const _: () = assert!(48 + 16 == SEGMENT_HEADER && 44 + 20 == BATCH_HEADER);

/// What a valid segment header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Of the format, as the segment was written: 1 to [`FORMAT_VERSION`].
    pub version: u16,
    pub spool: u16,
    pub sequence: u64,
    pub segment_bytes: u64,
    pub salt: u64,
    pub id_floor: u64,
    /// `None` in version 1.
    pub lineage: Option<Lineage>,
}

/// What block 0 of a segment file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFound {
    /// Nothing was ever written: the file was created and not yet taken into use.
    Unborn,
    Valid(SegmentHeader),
    /// Written by a version of this program that knows more than this one.
    Newer(u16),
    Damaged,
}

impl SegmentHeader {
    /// Fills block 0.
    pub fn encode(&self, block: &mut [u8]) {
        assert_eq!(block.len(), BLOCK);
        block.fill(0);
        let mut head = [0u8; SEGMENT_HEADER];
        head[..8].copy_from_slice(&SEGMENT_MAGIC);
        head[8..10].copy_from_slice(&self.version.to_le_bytes());
        head[10..12].copy_from_slice(&self.spool.to_le_bytes());
        head[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        head[24..32].copy_from_slice(&self.segment_bytes.to_le_bytes());
        head[32..40].copy_from_slice(&self.salt.to_le_bytes());
        head[40..48].copy_from_slice(&self.id_floor.to_le_bytes());
        head[48..].copy_from_slice(&self.lineage.map_or([0; 16], Lineage::octets));
        let crc = crc32c(&head);
        head[12..16].copy_from_slice(&crc.to_le_bytes());
        block[..SEGMENT_HEADER].copy_from_slice(&head);
        block[SEGMENT_HEADER_COPY_AT..][..SEGMENT_HEADER].copy_from_slice(&head);
    }

    /// Reads block 0. Two valid copies that differ are a header that a crash caught half rewritten;
    /// nothing of the earlier life was live then, so the later one counts.
    pub fn find(block: &[u8]) -> HeaderFound {
        if block.iter().all(|&octet| octet == 0) {
            return HeaderFound::Unborn;
        }
        if block.len() < BLOCK {
            return HeaderFound::Damaged;
        }
        let first = Self::decode(&block[..SEGMENT_HEADER]);
        let copy = Self::decode(&block[SEGMENT_HEADER_COPY_AT..][..SEGMENT_HEADER]);
        match (first, copy) {
            (HeaderFound::Valid(a), HeaderFound::Valid(b)) if b.sequence > a.sequence => copy,
            (HeaderFound::Valid(_), _) | (HeaderFound::Newer(_), _) => first,
            _ => copy,
        }
    }

    /// Both copies by themselves, with their offsets. `block` is whole.
    pub fn copies(block: &[u8]) -> [(u64, HeaderFound); 2] {
        [0, SEGMENT_HEADER_COPY_AT].map(|at| (at as u64, Self::decode(&block[at..][..SEGMENT_HEADER])))
    }

    fn decode(head: &[u8]) -> HeaderFound {
        let mut zeroed = [0u8; SEGMENT_HEADER];
        zeroed.copy_from_slice(head);
        zeroed[12..16].fill(0);
        if head[..8] != SEGMENT_MAGIC || crc32c(&zeroed) != u32_at(head, 12) {
            return HeaderFound::Damaged;
        }
        match u16::from_le_bytes([head[8], head[9]]) {
            version @ 1..=FORMAT_VERSION => HeaderFound::Valid(Self {
                version,
                spool: u16::from_le_bytes([head[10], head[11]]),
                sequence: u64_at(head, 16),
                segment_bytes: u64_at(head, 24),
                salt: u64_at(head, 32),
                id_floor: u64_at(head, 40),
                lineage: Lineage::from_octets(head[48..].try_into().expect("sixteen octets")),
            }),
            version if version > FORMAT_VERSION => HeaderFound::Newer(version),
            _ => HeaderFound::Damaged,
        }
    }

    /// What every checksum in this life of the segment starts from.
    pub fn seed(&self) -> u32 {
        if sings(Canary::ReadsOldLives) { 0 } else { crc32c(&self.salt.to_le_bytes()) }
    }
}

/// What a valid batch header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub segment: u64,
    pub sequence: u64,
    pub durable_through: u64,
    pub payload_bytes: u32,
    pub records: u32,
    /// The block where it belongs; 0, which is the segment header's: not said.
    pub block: u32,
}

impl BatchHeader {
    /// Whether the batch belongs where it was found. One that does not was written, or read, at a place
    /// that nobody asked for.
    pub fn belongs_at(&self, position: u64) -> bool {
        self.block == 0 || self.block as u64 * BLOCK as u64 == position
    }

    /// Octets of a batch with this payload on disk: whole blocks.
    pub fn batch_bytes(payload_bytes: usize) -> usize {
        (BATCH_HEADER + payload_bytes).next_multiple_of(BLOCK)
    }

    pub fn encode(&self, seed: u32, out: &mut [u8]) {
        let head = &mut out[..BATCH_HEADER];
        head.fill(0);
        head[..4].copy_from_slice(&BATCH_MAGIC);
        head[8..16].copy_from_slice(&self.segment.to_le_bytes());
        head[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        head[24..32].copy_from_slice(&self.durable_through.to_le_bytes());
        head[32..36].copy_from_slice(&self.payload_bytes.to_le_bytes());
        head[36..40].copy_from_slice(&self.records.to_le_bytes());
        head[40..44].copy_from_slice(&self.block.to_le_bytes());
        let crc = Self::checksum(seed, head);
        head[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// `None` when there is no batch of this life of this segment.
    pub fn decode(seed: u32, segment: u64, block: &[u8]) -> Option<Self> {
        let head = block.get(..BATCH_HEADER)?;
        if head[..4] != BATCH_MAGIC || u32_at(head, 4) != Self::checksum(seed, head) {
            return None;
        }
        let found = Self {
            segment: u64_at(head, 8),
            sequence: u64_at(head, 16),
            durable_through: u64_at(head, 24),
            payload_bytes: u32_at(head, 32),
            records: u32_at(head, 36),
            block: u32_at(head, 40),
        };
        let own_life = found.segment == segment || sings(Canary::ReadsOldLives);
        (own_life && found.durable_through < found.sequence).then_some(found)
    }

    fn checksum(seed: u32, head: &[u8]) -> u32 {
        crc32c_append(crc32c_append(seed, &head[..4]), &head[8..BATCH_HEADER])
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four octets"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight octets"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader {
        version: FORMAT_VERSION,
        spool: 7,
        sequence: 9,
        segment_bytes: 1 << 20,
        salt: 0x5a17,
        id_floor: 1234,
        lineage: None,
    };

    fn header() -> SegmentHeader {
        SegmentHeader { lineage: Lineage::from_octets(*b"sixteen octets!!"), ..HEADER }
    }

    fn block() -> Vec<u8> {
        let mut block = vec![0xff; BLOCK];
        header().encode(&mut block);
        block
    }

    #[test]
    fn a_segment_header_survives_the_loss_of_either_sector() {
        assert_eq!(SegmentHeader::find(&block()), HeaderFound::Valid(header()));
        for start in [0, SEGMENT_HEADER_COPY_AT] {
            let mut torn = block();
            torn[start..start + 512].fill(0xee);
            assert_eq!(SegmentHeader::find(&torn), HeaderFound::Valid(header()), "sector at {start}");
        }
    }

    #[test]
    fn every_flipped_bit_in_both_copies_is_noticed() {
        for at in 0..SEGMENT_HEADER {
            for bit in 0..8 {
                let mut bad = block();
                bad[at] ^= 1 << bit;
                bad[SEGMENT_HEADER_COPY_AT + at] ^= 1 << bit;
                assert_eq!(SegmentHeader::find(&bad), HeaderFound::Damaged, "octet {at} bit {bit}");
            }
        }
    }

    #[test]
    fn a_header_of_version_1_is_read_and_has_no_lineage() {
        let first = SegmentHeader { version: 1, ..HEADER };
        let mut block = vec![0; BLOCK];
        first.encode(&mut block);
        assert_eq!(block[48..64], [0; 16]);
        assert_eq!(SegmentHeader::find(&block), HeaderFound::Valid(first));
    }

    #[test]
    fn a_half_rewritten_header_counts_as_the_later_one() {
        let later = SegmentHeader { sequence: 10, salt: 1, ..header() };
        let mut rewritten = vec![0; BLOCK];
        later.encode(&mut rewritten);
        for (from, to) in [(&rewritten, block()), (&block(), rewritten.clone())] {
            let mut torn = to;
            torn[..512].copy_from_slice(&from[..512]);
            assert_eq!(SegmentHeader::find(&torn), HeaderFound::Valid(later));
        }
    }

    #[test]
    fn what_was_never_written_is_unborn_and_a_later_version_is_named() {
        assert_eq!(SegmentHeader::find(&[0; BLOCK]), HeaderFound::Unborn);
        assert_eq!(SegmentHeader::find(&[]), HeaderFound::Unborn);
        assert_eq!(SegmentHeader::find(&[1; 100]), HeaderFound::Damaged);
        let mut newer = block();
        newer[8] = FORMAT_VERSION as u8 + 1;
        newer[12..16].fill(0);
        let crc = crc32c(&newer[..SEGMENT_HEADER]);
        newer[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::find(&newer), HeaderFound::Newer(FORMAT_VERSION + 1));
    }

    #[test]
    fn a_batch_header_is_known_only_in_its_own_segment_and_life() {
        let batch = BatchHeader {
            segment: 9,
            sequence: 44,
            durable_through: 43,
            payload_bytes: 100,
            records: 2,
            block: 5,
        };
        let mut block = [0u8; BLOCK];
        batch.encode(HEADER.seed(), &mut block);
        assert_eq!(BatchHeader::decode(HEADER.seed(), 9, &block), Some(batch));
        assert_eq!(BatchHeader::decode(HEADER.seed(), 8, &block), None);
        assert_eq!(BatchHeader::decode(HEADER.seed() + 1, 9, &block), None);
        for at in 0..BATCH_HEADER {
            let mut bad = block;
            bad[at] ^= 0x10;
            assert_eq!(BatchHeader::decode(HEADER.seed(), 9, &bad), None, "octet {at}");
        }
    }

    #[test]
    fn a_batch_knows_where_it_belongs_unless_it_does_not_say() {
        let batch = |block| BatchHeader {
            segment: 9,
            sequence: 44,
            durable_through: 43,
            payload_bytes: 100,
            records: 2,
            block,
        };
        assert!(batch(5).belongs_at(5 * BLOCK as u64) && !batch(5).belongs_at(6 * BLOCK as u64));
        assert!(batch(0).belongs_at(5 * BLOCK as u64));
    }

    #[test]
    fn a_batch_takes_whole_blocks() {
        for (payload, blocks) in [(0, 1), (BLOCK - BATCH_HEADER, 1), (BLOCK - BATCH_HEADER + 1, 2)] {
            assert_eq!(BatchHeader::batch_bytes(payload), blocks * BLOCK);
        }
    }
}
