//! The index record: what a segment means to a start, without its bodies. Byte table in the parent's head.
//!
//! It repeats those records of its segment that still matter when it is sealed: commit records and
//! outcomes as they are (but for what only people look at), and of messages that ended, that they did.
//! A start that takes the entries one by one does what it does with the records themselves.

use super::{CommitView, Cursor, OutcomeView};
use crate::ancestry::Ancestry;

const HEAD: usize = 4 + 4;
/// What stands before each entry.
pub(crate) const ENTRY_HEAD: usize = 1 + 4 + 4 + 4;
const _: () = assert!(HEAD == 8 && ENTRY_HEAD == 13);

/// Payload octets of a record with these octets of entries.
pub(crate) fn index_bytes(entries: usize) -> usize {
    HEAD + entries
}

const WHAT_COMMIT: u8 = 1;
const WHAT_OUTCOME: u8 = 2;
const WHAT_ENDED: u8 = 3;
const WHAT_ENDED_HERE: u8 = 4;
const WHAT_ANCESTRY: u8 = 5;

/// Where the record lies that an entry repeats: from the start of the segment, with its header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct At {
    pub position: u32,
    pub bytes: u32,
}

/// One entry of an index.
#[derive(Debug)]
pub(crate) enum Noted<'a> {
    Commit(At, CommitView<'a>),
    Outcome(At, OutcomeView<'a>),
    /// A message whose commit record is in an earlier segment ended by outcomes in this one.
    Ended(u64),
    /// A message with a commit record in this segment, and perhaps in an earlier one, ended in this one.
    EndedHere(u64),
    /// What the ancestry records of this segment say together.
    Ancestry(Ancestry),
}

fn put(out: &mut Vec<u8>, what: u8, at: At, payload: impl FnOnce(&mut Vec<u8>)) {
    out.push(what);
    out.extend(at.position.to_le_bytes());
    out.extend(at.bytes.to_le_bytes());
    let length_at = out.len();
    out.extend([0; 4]);
    payload(out);
    let length = (out.len() - length_at - 4) as u32;
    out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

impl Noted<'_> {
    pub fn put_commit(out: &mut Vec<u8>, at: At, commit: &CommitView<'_>) {
        put(out, WHAT_COMMIT, at, |out| commit.put_slim(out));
    }

    /// `payload`: of the outcome record.
    pub fn put_outcome(out: &mut Vec<u8>, at: At, payload: &[u8]) {
        put(out, WHAT_OUTCOME, at, |out| out.extend_from_slice(payload));
    }

    pub fn put_ancestry(out: &mut Vec<u8>, ancestry: &Ancestry) {
        put(out, WHAT_ANCESTRY, At::default(), |out| out.extend(ancestry.encode()));
    }

    pub fn put_ended(out: &mut Vec<u8>, id: u64, here: bool) {
        let what = if here { WHAT_ENDED_HERE } else { WHAT_ENDED };
        put(out, what, At::default(), |out| out.extend(id.to_le_bytes()));
    }
}

/// An index record on disk. Its entries are checked one by one.
#[derive(Clone, Debug)]
pub(crate) struct IndexView<'a> {
    /// Which batch of the index this is, from 0.
    pub part: u32,
    count: u32,
    entries: Cursor<'a>,
}

impl<'a> IndexView<'a> {
    /// `None` when an entry is not what it should be.
    pub(super) fn decode(payload: &'a [u8]) -> Option<Self> {
        let mut rest = Cursor::new(payload);
        let (part, count) = (rest.u32()?, rest.u32()?);
        Some(Self { part, count, entries: rest })
    }

    /// Inner `None`: an entry that is not what it should be; nothing follows it.
    pub fn entries(&self) -> impl Iterator<Item = Option<Noted<'a>>> + use<'a> {
        let mut rest = self.entries.clone();
        let mut left = self.count;
        std::iter::from_fn(move || {
            if left == 0 {
                return (!std::mem::take(&mut rest.rest).is_empty()).then_some(None);
            }
            let noted = take_entry(&mut rest);
            left = if noted.is_some() { left - 1 } else { 0 };
            if noted.is_none() {
                rest.rest = &[];
            }
            Some(noted)
        })
    }
}

fn take_entry<'a>(rest: &mut Cursor<'a>) -> Option<Noted<'a>> {
    let what = rest.u8()?;
    let at = At { position: rest.u32()?, bytes: rest.u32()? };
    let length = rest.u32()?;
    let payload = rest.take(length as usize)?;
    Some(match what {
        WHAT_COMMIT => Noted::Commit(at, CommitView::decode(payload)?),
        WHAT_OUTCOME => Noted::Outcome(at, OutcomeView::decode(payload)?),
        WHAT_ENDED | WHAT_ENDED_HERE => {
            let id = u64::from_le_bytes(payload.try_into().ok()?);
            if what == WHAT_ENDED { Noted::Ended(id) } else { Noted::EndedHere(id) }
        }
        WHAT_ANCESTRY => Noted::Ancestry(Ancestry::decode(payload)?),
        _ => return None,
    })
}
