//! Reading messages back from segments: for delivery, and for a look from outside. Lives with its spool.
//!
//! Everything read is verified, every time.

use crate::envelope::{Envelope, RecipientState};
use crate::error::{Fault, ReadError};
use crate::id::QueueId;
use crate::index::{Index, Place};
use crate::record::{
    ContentFlags, EXTENT_HEAD, ExtentAt, Outcome, OutcomeKind, RECORD_HEADER, Record, read_record,
};
use crate::segments::{Mark, Table};
use crate::storage::SegmentFile;
use std::cell::RefCell;
use std::rc::Rc;

/// A waiting message without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub id: QueueId,
    pub envelope: Envelope,
    /// One per recipient, in their order.
    pub states: Vec<RecipientState>,
    /// One per recipient: what happened last, where something did.
    pub reasons: Vec<Option<Reason>>,
    pub content_bytes: u64,
    pub flags: ContentFlags,
}

/// The last outcome of a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    pub kind: OutcomeKind,
    /// Microseconds since 1970.
    pub at_micros: u64,
    pub text: String,
}

pub(crate) async fn load<F: SegmentFile>(
    table: &RefCell<Table<F>>,
    known: Option<Known>,
    id: QueueId,
) -> Result<Message, ReadError> {
    let known = known.ok_or(ReadError::Unknown)?;
    let octets = fetch(table, &known.commit).await?;
    let damaged = || damaged(&known.commit);
    let found = read_record(octets.seed, &octets.bytes).map_err(|_| damaged())?;
    let Record::Commit(commit) = found.record else { return Err(damaged()) };
    if commit.id != id.bits() || commit.recipients as usize != known.states.len() {
        return Err(damaged());
    }
    let (envelope, content_bytes, flags) = (commit.envelope(), commit.content_bytes, commit.flags);
    let reasons = reasons(table, id, &known.reasons).await?;
    Ok(Message { id, envelope, states: known.states, reasons, content_bytes, flags })
}

/// What the index knows of a message, taken out so that no borrow is held while reading.
pub(crate) struct Known {
    commit: Place,
    states: Vec<RecipientState>,
    reasons: Vec<Option<Place>>,
}

pub(crate) fn known(index: &Index, id: QueueId) -> Option<Known> {
    let entry = index.get(id)?;
    Some(Known { commit: entry.commit.clone(), states: entry.states(), reasons: entry.reasons() })
}

async fn reasons<F: SegmentFile>(
    table: &RefCell<Table<F>>,
    id: QueueId,
    places: &[Option<Place>],
) -> Result<Vec<Option<Reason>>, ReadError> {
    let mut reasons = vec![None; places.len()];
    for (recipient, place) in places.iter().enumerate() {
        let Some(place) = place else { continue };
        if reasons[recipient].is_some() {
            continue;
        }
        let octets = fetch(table, place).await?;
        let found = read_record(octets.seed, &octets.bytes).map_err(|_| damaged(place))?;
        let Record::Outcome(outcome) = found.record else { return Err(damaged(place)) };
        if outcome.id != id.bits() {
            return Err(damaged(place));
        }
        // One record speaks of many recipients; it is read once for all of those that it is the last of.
        for entry in outcome.entries() {
            let at = entry.recipient as usize;
            let same = |other: &Place| other.segment == place.segment && other.position == place.position;
            if places.get(at).is_some_and(|other| other.as_ref().is_some_and(same)) {
                let Outcome { kind, at_micros, text, .. } = entry;
                reasons[at] = Some(Reason { kind, at_micros, text });
            }
        }
    }
    Ok(reasons)
}

/// Up to `len_max` octets of the content from `offset` on, and never beyond the end of an extent: so a
/// reader that goes on where the last read ended, with `len_max` of at least `extent_bytes_max`, has every
/// extent read and verified once. Empty at the end of the content.
pub(crate) async fn read<F: SegmentFile>(
    table: &RefCell<Table<F>>,
    commit: Option<Place>,
    id: QueueId,
    offset: u64,
    len_max: usize,
) -> Result<Vec<u8>, ReadError> {
    let commit = commit.ok_or(ReadError::Unknown)?;
    let octets = fetch(table, &commit).await?;
    let found = read_record(octets.seed, &octets.bytes).map_err(|_| damaged(&commit))?;
    let Record::Commit(view) = found.record else { return Err(damaged(&commit)) };
    if view.id != id.bits() {
        return Err(damaged(&commit));
    }
    let mut start = 0;
    for extent in view.extents() {
        let end = start + extent.octets as u64;
        if offset < end {
            let skip = (offset - start) as usize;
            let len = len_max.min(extent.octets as usize - skip);
            return read_extent(table, id, start, &extent, skip, len).await;
        }
        start = end;
    }
    Ok(Vec::new())
}

async fn read_extent<F: SegmentFile>(
    table: &RefCell<Table<F>>,
    id: QueueId,
    offset: u64,
    extent: &ExtentAt,
    skip: usize,
    len: usize,
) -> Result<Vec<u8>, ReadError> {
    let place = Place {
        segment: Rc::new(Mark { sequence: extent.segment }),
        position: extent.position,
        bytes: (RECORD_HEADER + EXTENT_HEAD) as u32 + extent.octets,
    };
    let record = fetch(table, &place).await?;
    let found = read_record(record.seed, &record.bytes).map_err(|_| damaged(&place))?;
    match found.record {
        Record::Extent { id: of, offset: at, octets }
            if (of, at, found.crc) == (id.bits(), offset, extent.crc)
                && octets.len() == extent.octets as usize =>
        {
            Ok(octets[skip..skip + len].to_vec())
        }
        _ => Err(damaged(&place)),
    }
}

struct Fetched<B> {
    bytes: B,
    seed: u32,
}

async fn fetch<F: SegmentFile>(
    table: &RefCell<Table<F>>,
    place: &Place,
) -> Result<Fetched<F::Bytes>, ReadError> {
    let (file, seed) = {
        let table = table.borrow();
        let segment = table.get(place.segment.sequence).ok_or_else(|| damaged(place))?;
        (segment.file.clone(), segment.seed)
    };
    match file.read(place.position as u64, place.bytes as usize).await {
        Ok(bytes) => Ok(Fetched { bytes, seed }),
        Err(error) => Err(ReadError::Device(Fault::new("reading a segment", &error))),
    }
}

fn damaged(place: &Place) -> ReadError {
    ReadError::Damaged { segment: place.segment.sequence, position: place.position }
}
