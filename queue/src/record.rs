//! The record codec: what a batch carries. Pure; version 2 of the format (`FORMAT.md`).
//!
//! Record: header of 12 octets, then the payload. Integers are little-endian, nothing is aligned.
//!
//! | at | octets | what |
//! |---:|---:|---|
//! | 0 | 4 | payload octets |
//! | 4 | 1 | type: 1 extent, 2 commit, 3 outcome, 4 seal, 5 index, 6 ancestry; a reader skips and counts any other |
//! | 5 | 3 | zero |
//! | 8 | 4 | CRC-32C, from the segment's seed, over the 8 octets before and the payload |
//!
//! Extent: id 8, offset of its first octet in the message 8, octets.
//!
//! Commit: id 8, arrival in µs 8, content octets 8, content flags 1, body 1, extent count 4, recipient
//! count 4, lengths of sender, listener, helo and client 2 each; then per extent: segment sequence 8,
//! position of its record 4, its octets 4, the checksum in its record 4; then the four texts; then per
//! recipient: status 1, attempts 2, flags 1 (1 notified, 2 held), length 2, address; then attributes up to the end, each
//! tag 2, length 4, value. Their table is in `FORMAT.md`; unknown tags are skipped.
//!
//! Outcome: id 8, entry count 4; per entry: recipient 4, kind 1, attempts 2, notified 1, time in µs 8,
//! text length 2, text. An entry of an unknown kind is skipped.
//!
//! Seal: why 1 (0 full, 1 cut at recovery, 2 closed), 3 zero, position 4 and octets 4 of the batches of the
//! index (zero: there is none, or nothing is in it). The last record of a segment.
//!
//! Index: number of this record of the index 4, entry count 4; per entry: what 1, position 4 and octets 4 of
//! the record that it repeats, octets 4, then by what it is: 1 the payload of a commit record whose listener,
//! helo and client are empty; 2 the payload of an outcome record; 3 and 4 an id 8 of a message that ended in
//! this segment (3 it has no commit record here, 4 it has), position and octets being zero; 5 the
//! payload of an ancestry record.
//!
//! Ancestry: octets of [`Ancestry::encode`]: what of other spools was brought into this one.

mod attributes;
mod commit;
mod index;
mod outcome;

pub use commit::ContentFlags;
pub(crate) use commit::{CommitToWrite, CommitView, commit_bytes};
pub(crate) use index::{At, ENTRY_HEAD, IndexView, Noted, index_bytes};
pub use outcome::{OUTCOME_TEXT_MAX, Outcome, OutcomeKind};
pub(crate) use outcome::{OutcomeView, outcome_bytes, put_outcomes};

use crate::ancestry::Ancestry;
use crate::canary::{Canary, sings};
use crc32c::crc32c_append;

pub(crate) const RECORD_HEADER: usize = 12;
pub(crate) const EXTENT_HEAD: usize = 16;
const TYPE_EXTENT: u8 = 1;
const TYPE_COMMIT: u8 = 2;
const TYPE_OUTCOME: u8 = 3;
const TYPE_SEAL: u8 = 4;
const TYPE_INDEX: u8 = 5;
const TYPE_ANCESTRY: u8 = 6;
const SEAL_BYTES: usize = 12;
/// Octets of the one record of a batch that seals a segment.
pub(crate) const SEAL_RECORD: usize = RECORD_HEADER + SEAL_BYTES;

const _: () = assert!(4 + 1 + 3 + 4 == RECORD_HEADER && 8 + 8 == EXTENT_HEAD);
const _: () = assert!(SEAL_RECORD + crate::layout::BATCH_HEADER <= crate::layout::BLOCK);

/// The highest of each that a program knows: what says whether it can make use of another one's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Knowledge {
    /// Types of records, kinds of outcomes, tags of attributes.
    pub types: u8,
    pub kinds: u8,
    pub tags: u16,
}

impl Knowledge {
    pub const OURS: Self = Self { types: TYPE_ANCESTRY, kinds: outcome::KINDS, tags: attributes::TAGS };

    pub fn is_ours(self) -> bool {
        let ours = Self::OURS;
        self.types <= ours.types && self.kinds <= ours.kinds && self.tags <= ours.tags
    }
}

/// Where a record lies and what it must sum to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExtentAt {
    pub segment: u64,
    pub position: u32,
    pub octets: u32,
    pub crc: u32,
}

/// Why a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seal {
    Full = 0,
    Cut = 1,
    Closed = 2,
}

/// One record as found on disk.
#[derive(Debug)]
pub(crate) enum Record<'a> {
    Extent {
        id: u64,
        offset: u64,
        octets: &'a [u8],
    },
    Commit(CommitView<'a>),
    Outcome(OutcomeView<'a>),
    Seal,
    Index(IndexView<'a>),
    Ancestry(Ancestry),
    /// Of a type that this version does not know.
    Unknown,
}

/// A record that verified: where it starts in the bytes walked, its length with header, its checksum.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub at: usize,
    pub bytes: usize,
    pub crc: u32,
    pub record: Record<'a>,
}

/// Bytes that are not the record they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// Octets to the next record when the length could be believed.
    pub next: Option<usize>,
}

/// Reads the record at the start of `bytes`.
pub(crate) fn read_record(seed: u32, bytes: &[u8]) -> Result<Found<'_>, Malformed> {
    let (head, payload) = split(bytes).ok_or(Malformed { next: None })?;
    let malformed = Malformed { next: Some(RECORD_HEADER + payload.len()) };
    let whole = crc32c_append(crc32c_append(seed, &head[..8]), payload) == crc_in(head);
    if !whole && !sings(Canary::SkipsChecksums) {
        return Err(malformed);
    }
    decode(head, payload).ok_or(malformed)
}

/// The same for a record that this program has just laid out: its checksum is believed.
pub(crate) fn read_laid_out(bytes: &[u8]) -> Option<Found<'_>> {
    let (head, payload) = split(bytes)?;
    decode(head, payload)
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(RECORD_HEADER)?;
    let length = u32::from_le_bytes(head[..4].try_into().ok()?) as usize;
    Some((head, rest.get(..length)?))
}

fn crc_in(head: &[u8]) -> u32 {
    u32::from_le_bytes(head[8..12].try_into().expect("four octets"))
}

fn decode<'a>(head: &[u8], payload: &'a [u8]) -> Option<Found<'a>> {
    let mut rest = Cursor::new(payload);
    let record = match head[4] {
        TYPE_EXTENT => {
            let (id, offset) = (rest.u64()?, rest.u64()?);
            Record::Extent { id, offset, octets: rest.rest }
        }
        TYPE_COMMIT => Record::Commit(CommitView::decode(payload)?),
        TYPE_OUTCOME => Record::Outcome(OutcomeView::decode(payload)?),
        TYPE_SEAL => Record::Seal,
        TYPE_INDEX => Record::Index(IndexView::decode(payload)?),
        TYPE_ANCESTRY => Record::Ancestry(Ancestry::decode(payload)?),
        _ => Record::Unknown,
    };
    Some(Found { at: 0, bytes: RECORD_HEADER + payload.len(), crc: crc_in(head), record })
}

/// The id that a record which may not verify seems to be about.
pub(crate) fn id_in(bytes: &[u8]) -> Option<u64> {
    let about_a_message = matches!(bytes.get(4)?, &TYPE_EXTENT | &TYPE_COMMIT | &TYPE_OUTCOME);
    let id = bytes.get(RECORD_HEADER..RECORD_HEADER + 8)?;
    about_a_message.then(|| u64::from_le_bytes(id.try_into().expect("eight octets")))
}

/// Writes records one after the other into a buffer whose size was reckoned before.
pub(crate) struct Pen<'a> {
    out: &'a mut [u8],
    at: usize,
    seed: u32,
}

/// Where a record came to lie, from the start of the pen's buffer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    pub at: usize,
    pub bytes: usize,
    pub crc: u32,
}

impl<'a> Pen<'a> {
    pub fn new(out: &'a mut [u8], at: usize, seed: u32) -> Self {
        Self { out, at, seed }
    }

    pub fn at(&self) -> usize {
        self.at
    }

    pub fn extent(&mut self, id: u64, offset: u64, octets: &[u8]) -> Written {
        self.record(TYPE_EXTENT, |pen| {
            pen.u64(id);
            pen.u64(offset);
            pen.bytes(octets);
        })
    }

    pub fn commit(&mut self, commit: &CommitToWrite<'_>) -> Written {
        self.record(TYPE_COMMIT, |pen| commit.put(pen))
    }

    pub fn outcomes(&mut self, id: u64, outcomes: &[Outcome]) -> Written {
        self.record(TYPE_OUTCOME, |pen| put_outcomes(pen, id, outcomes))
    }

    pub fn ancestry(&mut self, ancestry: &Ancestry) -> Written {
        self.record(TYPE_ANCESTRY, |pen| pen.bytes(&ancestry.encode()))
    }

    /// `index`: position and octets of its batches.
    pub fn seal(&mut self, seal: Seal, index: (u32, u32)) -> Written {
        self.record(TYPE_SEAL, |pen| {
            pen.u32(seal as u32);
            pen.u32(index.0);
            pen.u32(index.1);
        })
    }

    /// `entries` holds `count` of them.
    pub fn index(&mut self, part: u32, count: u32, entries: &[u8]) -> Written {
        self.record(TYPE_INDEX, |pen| {
            pen.u32(part);
            pen.u32(count);
            pen.bytes(entries);
        })
    }

    fn record(&mut self, kind: u8, put: impl FnOnce(&mut Self)) -> Written {
        let start = self.at;
        self.at += RECORD_HEADER;
        put(self);
        let end = self.at;
        let length = (end - start - RECORD_HEADER) as u32;
        let record = &mut self.out[start..end];
        record[..4].copy_from_slice(&length.to_le_bytes());
        record[4..8].copy_from_slice(&[kind, 0, 0, 0]);
        let crc = crc32c_append(crc32c_append(self.seed, &record[..8]), &record[RECORD_HEADER..]);
        record[8..12].copy_from_slice(&crc.to_le_bytes());
        Written { at: start, bytes: end - start, crc }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }
}

/// Takes fields off the front of a payload; `None` when it is too short.
#[derive(Clone, Debug)]
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn text(&mut self, count: usize) -> Option<&'a str> {
        std::str::from_utf8(self.take(count)?).ok()
    }

    fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;

#[cfg(test)]
mod tests;
