//! Reads a spool directory segment by segment, in big reads, in the order of the log.
//!
//! Async because storage is; decides nothing itself (`decide`) and keeps nothing (`replay`).

use super::decide::{Found, Later, Soundness, Standing, Verdict, Way, decide, way};
use super::indexed::{Ending, read_endings};
use super::replay::Replay;
use super::{Cut, DamageKind, Recovery};
use crate::ancestry::Ancestry;
use crate::canary::{Canary, sings};
use crate::digest::Digest;
use crate::error::{Fault, OpenError};
use crate::index::Index;
use crate::layout::{BLOCK, BatchHeader, HeaderFound, SegmentHeader};
use crate::lineage::Lineage;
use crate::options::SEGMENT_BYTES_MAX;
use crate::record::{self, Record};
use crate::segments::{Mark, REFERS_TO_NONE, Segment, Status, Table};
use crate::storage::{SegmentFile, Storage};
use futures_lite::StreamExt;
use std::collections::btree_map::Entry;
use std::io;
use std::rc::Rc;

/// What numbers leap when a start could not read everything: more than what was not read can have used.
/// Given out again they would be a second segment of the same number, or batches that look like old ones,
/// as soon as the rest can be read again; and what is in those was acknowledged.
const SEGMENTS_LEAPT: u64 = 1 << 20;
const BATCHES_LEAPT: u64 = 1 << 40;

/// Segments of versions before have no index and get none: who wrote them would not know it.
const INDEX_SINCE: u16 = 2;
/// Octets read at a time.
const WINDOW: usize = 4 << 20;

/// Everything a start found.
pub(crate) struct Recovered<F> {
    pub table: Table<F>,
    pub index: Index,
    pub report: Recovery,
    /// Where the last segment wants its seal.
    pub cut: Option<CutAt>,
    /// Files whose creation was not finished, or that were never used.
    pub unborn: Vec<Unborn<F>>,
    pub last_segment: u64,
    pub last_batch: u64,
    /// Every id given out before has at most these microseconds.
    pub id_micros: u64,
    pub ancestry: Ancestry,
    pub ancestry_at: Vec<Rc<Mark>>,
    /// The latest segment that has one, and it.
    pub lineage: Option<(u64, Lineage)>,
}

pub(crate) struct Unborn<F> {
    pub slot: u32,
    pub bytes: u64,
    pub file: F,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CutAt {
    pub segment: u64,
    pub position: u64,
}

/// What a start reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Indexes, where there are any.
    Indexes,
    /// Every batch of every segment: verifies all that is on disk.
    Batches,
}

/// Reads a spool. Writes nothing.
pub(crate) async fn recover<S: Storage>(
    storage: &S,
    spool: u16,
    reading: Reading,
) -> Result<Recovered<S::File>, OpenError> {
    let mut found = Recovered {
        table: Table::new(),
        index: Index::default(),
        report: Recovery::default(),
        cut: None,
        unborn: Vec::new(),
        last_segment: 0,
        last_batch: 0,
        id_micros: 0,
        ancestry: Ancestry::default(),
        ancestry_at: Vec::new(),
        lineage: None,
    };
    let mut replay = Replay::default();
    let slots = storage.list().await.map_err(|error| device("listing the spool", &error))?;
    for slot in slots {
        found.table.next_slot = found.table.next_slot.max(slot.saturating_add(1));
        take_file(storage, spool, slot, &mut found, &mut replay.report).await?;
    }
    let sequences: Vec<u64> = found.table.segments.keys().copied().collect();
    found.last_segment = sequences.last().copied().unwrap_or(0);
    let mut endings = Box::pin(read_endings(&found.table));
    for sequence in sequences {
        let segment = found.table.segments.get_mut(&sequence).expect("listed above");
        replay.segment(&segment.mark, segment.slot);
        let ending = endings.next().await.expect("each segment has an end");
        if let Some(last_batch) = take_by_index(segment, ending, found.last_batch, reading, &mut replay) {
            segment.digest = None;
            found.last_batch = last_batch;
            found.cut = None;
            continue;
        }
        let standing = if sequence == found.last_segment { Standing::Last } else { Standing::Earlier };
        let mut scan = Scan {
            segment,
            standing,
            last_batch: found.last_batch,
            window: None,
            replay: &mut replay,
            cut: None,
        };
        scan.run().await;
        found.last_batch = scan.last_batch;
        found.cut = scan.cut;
        if found.cut.is_none() || segment.status == Status::Damaged {
            segment.digest = None;
        }
    }
    replay.close();
    if !replay.report.damages.is_empty() {
        found.last_segment = found.last_segment.saturating_add(SEGMENTS_LEAPT);
        found.last_batch = found.last_batch.saturating_add(BATCHES_LEAPT);
    }
    found.id_micros = found.id_micros.max(replay.id_micros);
    let damaged = |segment: &&Segment<S::File>| segment.status == Status::Damaged;
    let damaged_first = found.table.segments.values().find(damaged).map(|segment| segment.mark.sequence);
    for (sequence, segment) in &mut found.table.segments {
        segment.refers_to = replay.refers_to(*sequence, damaged_first);
    }
    (found.ancestry, found.ancestry_at) = (replay.ancestry, replay.ancestry_at);
    found.index = replay.index;
    found.report = replay.report;
    found.report.segments = found.table.segments.len();
    found.report.cut = found.report.cut.filter(|cut| cut.torn || cut.offset > BLOCK as u64);
    Ok(found)
}

/// Takes a segment by its index, when that can be; gives its last batch.
fn take_by_index<F: SegmentFile>(
    segment: &Segment<F>,
    ending: Ending<F::Bytes>,
    batch_before: u64,
    reading: Reading,
    replay: &mut Replay,
) -> Option<u64> {
    let soundness = match (segment.status, reading) {
        (Status::Damaged, _) | (_, Reading::Batches) => Soundness::Doubtful,
        _ => Soundness::Sound,
    };
    replay.report.bytes_read += ending.bytes_read;
    let evidence = ending.evidence(&segment.mark, segment.seed, segment.bytes, batch_before);
    match way(evidence, soundness) {
        Way::Index => ending.take(&segment.mark, replay),
        Way::Walk => None,
        Way::WalkAndCount => {
            replay.report.indexes_lost += 1;
            None
        }
    }
}

fn device(doing: &'static str, error: &io::Error) -> OpenError {
    OpenError::Device(Fault::new(doing, error))
}

/// Reads the header of one file and files it.
async fn take_file<S: Storage>(
    storage: &S,
    spool: u16,
    slot: u32,
    found: &mut Recovered<S::File>,
    report: &mut Recovery,
) -> Result<(), OpenError> {
    let file = storage.open(slot).await.map_err(|error| device("opening a segment", &error))?;
    let bytes = file.size().await.map_err(|error| device("measuring a segment", &error))?;
    let header = match file.read(0, BLOCK).await {
        Ok(block) => SegmentHeader::find(&block),
        Err(error) => {
            report.damage(slot, None, 0, DamageKind::Read(error.to_string()));
            return Ok(());
        }
    };
    let header = match header {
        HeaderFound::Unborn => {
            found.unborn.push(Unborn { slot, bytes, file });
            return Ok(());
        }
        HeaderFound::Newer(version) => return Err(OpenError::Newer { slot, version }),
        HeaderFound::Damaged => {
            report.damage(slot, None, 0, DamageKind::Header);
            return Ok(());
        }
        HeaderFound::Valid(header) => header,
    };
    found.id_micros = found.id_micros.max(header.id_floor);
    if header.spool != spool {
        report.damage(slot, Some(header.sequence), 0, DamageKind::ForeignSpool(header.spool));
        return Ok(());
    }
    found.lineage = found.lineage.max(header.lineage.map(|lineage| (header.sequence, lineage)));
    let short = bytes < header.segment_bytes;
    if short {
        report.damage(slot, Some(header.sequence), bytes, DamageKind::Short);
    }
    match found.table.segments.entry(header.sequence) {
        Entry::Occupied(_) => report.damage(slot, Some(header.sequence), 0, DamageKind::Twin),
        Entry::Vacant(place) => {
            place.insert(Segment {
                mark: Mark::new(header.sequence),
                slot,
                bytes: header.segment_bytes.min(bytes).min(SEGMENT_BYTES_MAX),
                file: Rc::new(file),
                seed: header.seed(),
                status: if short { Status::Damaged } else { Status::Sealed },
                refers_to: REFERS_TO_NONE,
                digest: (header.version >= INDEX_SINCE).then(|| Box::new(Digest::new(header.id_floor))),
                linked: false,
            });
        }
    }
    Ok(())
}

struct Scan<'a, F: SegmentFile> {
    segment: &'a mut Segment<F>,
    standing: Standing,
    last_batch: u64,
    window: Option<(u64, F::Bytes)>,
    replay: &'a mut Replay,
    cut: Option<CutAt>,
}

impl<F: SegmentFile> Scan<'_, F> {
    async fn run(&mut self) {
        let mut position = BLOCK as u64;
        loop {
            match self.step(position).await {
                Ok(Some(next)) => position = next,
                Ok(None) => return,
                Err(error) => {
                    self.damage(position, DamageKind::Read(error.to_string()));
                    return;
                }
            }
        }
    }

    /// Takes the batch at `position`; gives the place of the next one.
    async fn step(&mut self, position: u64) -> io::Result<Option<u64>> {
        let header = self.header_at(position).await?;
        let header =
            header.filter(|header| header.sequence > self.last_batch || sings(Canary::ReadsOldLives));
        let Some(header) = header else {
            let expected = self.last_batch + 1;
            let (later, next) = self.later(position, expected).await?;
            let verdict = decide(Found::NoHeader, self.standing, later);
            return Ok(self.obey(verdict, position, DamageKind::Batch).and(next));
        };
        let behind = position + BatchHeader::batch_bytes(header.payload_bytes as usize) as u64;
        let (seals, whole) = self.take_batch(position, &header, true).await?;
        if whole {
            return Ok((!seals).then_some(behind));
        }
        let (later, _) = self.later(position, header.sequence).await?;
        let verdict = decide(Found::BadRecord, self.standing, later);
        if self.obey(verdict, position, DamageKind::Record).is_none() {
            return Ok(None);
        }
        let (seals, _) = self.take_batch(position, &header, false).await?;
        Ok((!seals).then_some(behind))
    }

    /// Does what the table says; `None` when the segment ends here.
    fn obey(&mut self, verdict: Verdict, position: u64, damage: DamageKind) -> Option<()> {
        let segment = self.segment.mark.sequence;
        match verdict {
            Verdict::End | Verdict::Cut => {
                let torn = verdict == Verdict::Cut;
                self.cut = Some(CutAt { segment, position });
                self.replay.report.cut = Some(Cut { segment, offset: position, torn });
                None
            }
            Verdict::Mend => {
                self.damage(position, damage);
                Some(())
            }
            Verdict::Stop => {
                self.damage(position, DamageKind::SealMissing);
                None
            }
        }
    }

    fn damage(&mut self, position: u64, what: DamageKind) {
        self.segment.status = Status::Damaged;
        let sequence = Some(self.segment.mark.sequence);
        self.replay.report.damage(self.segment.slot, sequence, position, what);
    }

    /// The batch header at `position`, if there is one that belongs there and whose batch fits in the segment. The last block is
    /// for a seal only.
    async fn header_at(&mut self, position: u64) -> io::Result<Option<BatchHeader>> {
        let (seed, sequence, end) = (self.segment.seed, self.segment.mark.sequence, self.segment.bytes);
        let header = BatchHeader::decode(seed, sequence, self.view(position, BLOCK).await?);
        Ok(header.filter(|header| {
            let bytes = BatchHeader::batch_bytes(header.payload_bytes as usize) as u64;
            header.belongs_at(position) && position + bytes <= end
        }))
    }

    /// Reads the records of a batch. With `all_or_nothing` they count only when all verify; gives whether
    /// the batch seals the segment and whether it was whole.
    async fn take_batch(
        &mut self,
        position: u64,
        header: &BatchHeader,
        all_or_nothing: bool,
    ) -> io::Result<(bool, bool)> {
        let end = crate::layout::BATCH_HEADER + header.payload_bytes as usize;
        let mark = self.segment.mark.clone();
        let seed = self.segment.seed;
        self.view(position, end).await?;
        let batch = Self::part(&self.window, position, end);
        let mut found = Vec::with_capacity((header.records as usize).min(end / record::RECORD_HEADER));
        let mut whole = batch.len() == end;
        let mut at = crate::layout::BATCH_HEADER;
        while at < batch.len() {
            match record::read_record(seed, &batch[at..]) {
                Ok(record) => {
                    let bytes = record.bytes;
                    found.push(record::Found { at, ..record });
                    at += bytes;
                }
                Err(malformed) => {
                    whole = false;
                    let Some(next) = malformed.next else { break };
                    at += next;
                }
            }
        }
        whole &= found.len() == header.records as usize;
        if all_or_nothing && !whole {
            return Ok((false, false));
        }
        let seals = found.iter().any(|found| matches!(found.record, Record::Seal));
        for record in &found {
            self.replay.record(&mark, (position + record.at as u64) as u32, record);
        }
        if self.standing == Standing::Last
            && let Some(digest) = &mut self.segment.digest
        {
            digest.batches += 1;
            for record in &found {
                let octets = &batch[record.at..record.at + record.bytes];
                digest.record((position + record.at as u64) as u32, record, octets);
            }
        }
        self.replay.report.batches += 1;
        self.last_batch = header.sequence;
        Ok((seals, whole))
    }

    /// What batches behind `position` say of the batch `expected`, and where the first of them starts.
    async fn later(&mut self, position: u64, expected: u64) -> io::Result<(Later, Option<u64>)> {
        let (mut later, mut first) = (Later::None, None);
        let mut at = position + BLOCK as u64;
        while at + BLOCK as u64 <= self.segment.bytes {
            let header = self.header_at(at).await?.filter(|header| header.sequence > expected);
            if let Some(header) = header {
                first = first.or(Some(at));
                later = Later::InFlight;
                if header.durable_through >= expected {
                    return Ok((Later::Proves, first));
                }
            }
            at += BLOCK as u64;
        }
        Ok((later, first))
    }

    /// `len` octets at `position`, fewer at the end of the segment.
    async fn view(&mut self, position: u64, len: usize) -> io::Result<&[u8]> {
        let left = self.segment.bytes.saturating_sub(position);
        let len = len.min(usize::try_from(left).unwrap_or(usize::MAX));
        let covered = self.window.as_ref().is_some_and(|(start, bytes)| {
            *start <= position && position + len as u64 <= start + bytes.len() as u64
        });
        if !covered {
            self.window = None;
            let wanted = len.max(WINDOW).min(usize::try_from(left).unwrap_or(usize::MAX));
            let bytes = self.segment.file.read(position, wanted).await?;
            self.replay.report.bytes_read += bytes.len() as u64;
            self.window = Some((position, bytes));
        }
        Ok(Self::part(&self.window, position, len))
    }

    fn part(window: &Option<(u64, F::Bytes)>, position: u64, len: usize) -> &[u8] {
        let Some((start, bytes)) = window else { return &[] };
        let from = ((position - start) as usize).min(bytes.len());
        &bytes[from..from.saturating_add(len).min(bytes.len())]
    }
}
