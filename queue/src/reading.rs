//! Reading messages back from segments: for delivery, and for a look from outside. Lives with its spool.
//!
//! Everything read is verified, every time.

use crate::draft::Draft;
use crate::envelope::{Envelope, RecipientState};
use crate::error::{Fault, ReadError};
use crate::id::QueueId;
use crate::index::{Index, Place};
use crate::read_ahead::Octets;
use crate::record::{
    ContentFlags, EXTENT_HEAD, ExtentAt, Outcome, OutcomeKind, OutcomeView, RECORD_HEADER, Record,
    read_record,
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
    /// Recipients that go elsewhere than by their domain's route: index, and `HOST:PORT` or `mx:DOMAIN`.
    pub vias: Vec<(u32, Box<str>)>,
    pub content_bytes: u64,
    pub flags: ContentFlags,
    /// Where the content lies.
    extents: Vec<ExtentAt>,
    /// Where the commit record lay that this was read from.
    commit: (u64, u32),
    /// A later version put attributes into the commit record that this one does not know.
    pub(crate) unknown_attributes: bool,
}

impl Message {
    /// Whether the message still lies where it lay when it was loaded.
    fn lies_at(&self, commit: &Place) -> bool {
        self.commit == (commit.segment.sequence, commit.position)
    }
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
    let octets = fetch_verified(table, &known.commit).await?;
    let damaged = || damaged(&known.commit);
    let found = read_record(octets.seed, &octets.bytes).map_err(|_| damaged())?;
    let Record::Commit(commit) = found.record else { return Err(damaged()) };
    if commit.id != id.bits() || commit.recipients as usize != known.states.len() {
        return Err(damaged());
    }
    let (envelope, content_bytes, flags) = (commit.envelope(), commit.content_bytes, commit.flags);
    let extents = commit.extents().collect();
    let unknown_attributes = commit.unknown_attributes() > 0;
    let at = (known.commit.segment.sequence, known.commit.position);
    let reasons = reasons(table, id, known.reasons, &known.places).await?;
    Ok(Message {
        id,
        envelope,
        states: known.states,
        reasons,
        vias: known.vias,
        content_bytes,
        flags,
        extents,
        commit: at,
        unknown_attributes,
    })
}

/// What the index knows of a message, taken out so that no borrow is held while reading.
pub(crate) struct Known {
    commit: Place,
    states: Vec<RecipientState>,
    reasons: Vec<Option<Reason>>,
    /// Of reasons that are only on disk.
    places: Vec<Option<Place>>,
    vias: Vec<(u32, Box<str>)>,
}

pub(crate) fn known(index: &Index, id: QueueId, with_reasons: bool) -> Option<Known> {
    let facts = index.get(id)?;
    let (commit, states) = (facts.entry().commit.clone(), facts.states());
    let (reasons, places) = match with_reasons {
        true => facts.reasons(),
        false => (vec![None; states.len()], Vec::new()),
    };
    Some(Known { commit, states, reasons, places, vias: facts.vias() })
}

async fn reasons<F: SegmentFile>(
    table: &RefCell<Table<F>>,
    id: QueueId,
    mut reasons: Vec<Option<Reason>>,
    places: &[Option<Place>],
) -> Result<Vec<Option<Reason>>, ReadError> {
    for (recipient, place) in places.iter().enumerate() {
        let Some(place) = place else { continue };
        if reasons[recipient].is_some() {
            continue;
        }
        // A reason is for people only: a message is not held up by one that is damaged.
        let octets = match fetch(table, place).await {
            Ok(octets) => octets,
            Err(ReadError::Device(fault)) => return Err(ReadError::Device(fault)),
            Err(_) => continue,
        };
        let found = read_record(octets.seed, &octets.bytes).map(|found| found.record);
        let Ok(Record::Outcome(outcome)) = found else { continue };
        if outcome.id == id.bits() {
            fill(&mut reasons, &outcome, places, place);
        }
    }
    Ok(reasons)
}

/// One record speaks of many recipients; it is read once for all of those that it is the last of.
fn fill(reasons: &mut [Option<Reason>], outcome: &OutcomeView<'_>, places: &[Option<Place>], place: &Place) {
    let same = |other: &Place| other.segment == place.segment && other.position == place.position;
    let entries = outcome.entries().filter(Outcome::is_reason);
    for Outcome { recipient, kind, at_micros, text, .. } in entries {
        let at = recipient as usize;
        if places.get(at).is_some_and(|other| other.as_ref().is_some_and(same)) {
            reasons[at] = Some(Reason { kind, at_micros, text });
        }
    }
}

/// Where a message lies, taken out of the index. Keeps all its segments while it is read: it may be moved,
/// or finish, meanwhile.
pub(crate) struct Held {
    commit: Place,
    _extents: Vec<Rc<Mark>>,
}

pub(crate) fn held(index: &Index, id: QueueId) -> Option<Held> {
    let facts = index.get(id)?;
    let entry = facts.entry();
    Some(Held { commit: entry.commit.clone(), _extents: entry.extents_held() })
}

/// Up to `len_max` octets of the content from `offset` on, and never beyond the end of an extent: so a
/// reader that goes on where the last read ended, with `len_max` of at least `extent_bytes_max`, has every
/// extent read and verified once. Empty at the end of the content.
pub(crate) async fn read<F: SegmentFile>(
    table: &RefCell<Table<F>>,
    held: Option<Held>,
    id: QueueId,
    offset: u64,
    len_max: usize,
) -> Result<Vec<u8>, ReadError> {
    let Held { commit, .. } = held.as_ref().ok_or(ReadError::Unknown)?;
    let octets = fetch_verified(table, commit).await?;
    let found = read_record(octets.seed, &octets.bytes).map_err(|_| damaged(commit))?;
    let Record::Commit(view) = found.record else { return Err(damaged(commit)) };
    if view.id != id.bits() {
        return Err(damaged(commit));
    }
    read_among(table, id, view.extents(), offset, len_max).await
}

/// The same for a message that was loaded: saves reading its commit record again, unless the message was
/// moved since.
pub(crate) async fn read_loaded<F: SegmentFile>(
    table: &RefCell<Table<F>>,
    held: Option<Held>,
    message: &Message,
    offset: u64,
    len_max: usize,
) -> Result<Vec<u8>, ReadError> {
    let there = held.as_ref().is_some_and(|held| message.lies_at(&held.commit));
    if !there {
        return read(table, held, message.id, offset, len_max).await;
    }
    read_among(table, message.id, message.extents.iter().copied(), offset, len_max).await
}

/// Appends what of a draft was written to `content`.
pub(crate) async fn read_draft<F: SegmentFile>(
    table: &RefCell<Table<F>>,
    draft: &Draft,
    content: &mut Vec<u8>,
) -> Result<(), ReadError> {
    let mut start = 0;
    for extent in &draft.extents {
        let at = extent.at();
        let len = at.octets as usize;
        content.extend(read_extent(table, draft.id, start, &at, 0, len).await?);
        start += len as u64;
    }
    Ok(())
}

async fn read_among<F: SegmentFile>(
    table: &RefCell<Table<F>>,
    id: QueueId,
    extents: impl Iterator<Item = ExtentAt>,
    offset: u64,
    len_max: usize,
) -> Result<Vec<u8>, ReadError> {
    let mut start = 0;
    for extent in extents {
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
        segment: Mark::new(extent.segment),
        position: extent.position,
        bytes: (RECORD_HEADER + EXTENT_HEAD) as u32 + extent.octets,
    };
    let record = fetch_verified(table, &place).await?;
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
    bytes: Octets<B>,
    seed: u32,
}

/// A record, from the read-ahead only if it verifies there: what it is, the caller sees.
async fn fetch_verified<F: SegmentFile>(
    table: &RefCell<Table<F>>,
    place: &Place,
) -> Result<Fetched<F::Bytes>, ReadError> {
    let fetched = fetch_ahead(table, place).await?;
    if matches!(fetched.bytes, Octets::Part(..)) && read_record(fetched.seed, &fetched.bytes).is_err() {
        table.borrow_mut().ahead.forget();
        return fetch(table, place).await;
    }
    Ok(fetched)
}

/// Takes it from the read-ahead, or reads ahead, when reads follow each other closely.
async fn fetch_ahead<F: SegmentFile>(
    table: &RefCell<Table<F>>,
    place: &Place,
) -> Result<Fetched<F::Bytes>, ReadError> {
    let (sequence, position, len) = (place.segment.sequence, place.position as u64, place.bytes as u64);
    let planned = {
        let table = &mut *table.borrow_mut();
        let segment = table.segments.get(&sequence).ok_or_else(|| damaged(place))?;
        if let Some(bytes) = table.ahead.find(sequence, position, len) {
            return Ok(Fetched { bytes, seed: segment.seed });
        }
        let window = table.ahead.plan(sequence, position, len, segment.bytes);
        window.map(|window| (window, segment.file.clone(), segment.seed))
    };
    // What cannot be read in one piece is tried by itself: one bad block is the loss of one message.
    if let Some(((start, window), file, seed)) = planned
        && let Ok(bytes) = file.read(start, window).await
    {
        let table = &mut *table.borrow_mut();
        table.ahead.keep(sequence, start, Rc::new(bytes));
        if let Some(bytes) = table.ahead.find(sequence, position, len) {
            return Ok(Fetched { bytes, seed });
        }
    }
    fetch(table, place).await
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
        Ok(bytes) => Ok(Fetched { bytes: Octets::Own(bytes), seed }),
        Err(error) => Err(ReadError::Device(Fault::new("reading a segment", &error))),
    }
}

fn damaged(place: &Place) -> ReadError {
    ReadError::Damaged { segment: place.segment.sequence, position: place.position }
}
