//! Every sort of damage is found where it is, and it is said what it means for which messages.

use super::harness::*;
use crate::layout::{BATCH_HEADER, BLOCK, BatchHeader, HeaderFound, SEGMENT_HEADER_COPY_AT, SegmentHeader};
use crate::record::{RECORD_HEADER, Record, read_record};
use crate::verify::verify_storage;
use crate::*;
use futures_lite::future::block_on;
use std::ops::Range;

/// What a batch of the spool below is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// Of an index, which a start can do without.
    Other,
    Extent,
    Commit,
    Outcome,
    Seal,
}

/// A record: its segment file, its batch, its place, the message that it is about.
#[derive(Clone, Debug)]
struct Laid {
    slot: u32,
    batch: Range<usize>,
    sort: Sort,
    at: Range<usize>,
    id: Option<QueueId>,
}

struct Sample {
    storage: MemoryStorage,
    /// Small, with its extent and its commit record in one batch.
    small: QueueId,
    /// Its extents begin in the first segment, its commit record is in a later one.
    long: QueueId,
    /// One recipient is finished, one deferred.
    begun: QueueId,
    records: Vec<Laid>,
}

fn sample() -> Sample {
    let storage = MemoryStorage::new();
    let [small_one, long, begun] = opened(storage.clone(), small(), |spool, _| async move {
        let small_one = deliver_in(&spool, &content(1, 3000), 1).await.unwrap().id;
        let begun = deliver_in(&spool, &content(2, 2000), 2).await.unwrap().id;
        spool.record(begun, vec![outcome(0, OutcomeKind::Delivered), outcome(1, OutcomeKind::Deferred)]);
        spool.sync().await.unwrap();
        let long = deliver_in(&spool, &content(3, 80_000), 1).await.unwrap().id;
        deliver_in(&spool, &content(4, 100), 1).await.unwrap();
        spool.close().await.unwrap();
        [small_one, long, begun]
    });
    let records = storage.slots().into_iter().flat_map(|slot| laid(&storage, slot)).collect();
    Sample { storage, small: small_one, long, begun, records }
}

/// The records of a segment file.
fn laid(storage: &MemoryStorage, slot: u32) -> Vec<Laid> {
    let mut records = Vec::new();
    storage.damage(slot, |octets| {
        let HeaderFound::Valid(header) = SegmentHeader::find(&octets[..BLOCK]) else { return };
        let (seed, mut at) = (header.seed(), BLOCK);
        while let Some(batch) = BatchHeader::decode(seed, header.sequence, &octets[at..]) {
            let end = at + BATCH_HEADER + batch.payload_bytes as usize;
            let mut place = at + BATCH_HEADER;
            while place < end {
                let found = read_record(seed, &octets[place..end]).unwrap();
                let (sort, id) = match &found.record {
                    Record::Extent { id, .. } => (Sort::Extent, Some(*id)),
                    Record::Commit(commit) => (Sort::Commit, Some(commit.id)),
                    Record::Outcome(outcome) => (Sort::Outcome, Some(outcome.id)),
                    Record::Seal => (Sort::Seal, None),
                    _ => (Sort::Other, None),
                };
                let (at, id) = (place..place + found.bytes, id.map(QueueId::from_bits));
                place = at.end;
                records.push(Laid { slot, batch: 0..0, sort, at, id });
            }
            let next = at + BatchHeader::batch_bytes(batch.payload_bytes as usize);
            records.iter_mut().filter(|of| of.at.start > at).for_each(|of| of.batch = at..next);
            at = next;
            if at >= octets.len() {
                break;
            }
        }
    });
    records
}

impl Sample {
    /// The first record of this sort about the message, or about any.
    fn record(&self, sort: Sort, id: Option<QueueId>) -> Laid {
        let wanted = |of: &&Laid| of.sort == sort && (id.is_none() || of.id == id);
        self.records.iter().find(wanted).expect("there is one").clone()
    }

    fn flip(&self, slot: u32, at: usize) {
        self.storage.damage(slot, |octets| octets[at] ^= 0x20);
    }

    fn verify(&self) -> Verified {
        block_on(verify_storage(&self.storage, number(), false)).unwrap()
    }
}

type Expected = (&'static str, Means, u32, u64, Vec<QueueId>);

fn findings(verified: &Verified) -> Vec<Expected> {
    let of = |finding: &Finding| {
        let Finding { slot, offset, flaw, ids, .. } = finding;
        (flaw.name(), flaw.means(), *slot, *offset, ids.clone())
    };
    verified.findings.iter().map(of).collect()
}

#[test]
fn a_sound_spool_is_read_whole_and_found_clean() {
    let sample = sample();
    let found = sample.verify();
    assert!(found.is_clean() && !found.unread(), "{found:?}");
    assert_eq!((found.segments, found.messages, found.content_bytes), (3, 4, 3000 + 2000 + 80_000 + 100));
    assert!(found.bytes_read > 85_100 && found.records == sample.records.len() as u64, "{found:?}");
}

#[test]
fn every_sort_of_damage_is_found_where_it_is() {
    use Means::{Damaged, Lost, Nothing};
    type Bend = fn(&Sample) -> Vec<Expected>;
    let rows: &[(&str, Bend)] = &[
        ("first copy of a header", |sample| {
            sample.flip(0, 20);
            vec![("header-copy", Nothing, 0, 0, vec![])]
        }),
        ("second copy of a header", |sample| {
            sample.flip(0, SEGMENT_HEADER_COPY_AT + 20);
            vec![("header-copy", Nothing, 0, SEGMENT_HEADER_COPY_AT as u64, vec![])]
        }),
        ("header of a batch", |sample| {
            let of = sample.record(Sort::Commit, Some(sample.small));
            sample.flip(of.slot, of.batch.start + 30);
            vec![("batch", Lost, of.slot, of.batch.start as u64, vec![])]
        }),
        ("octets of a message in one batch", |sample| {
            let of = sample.record(Sort::Extent, Some(sample.small));
            sample.flip(of.slot, of.at.start + 500);
            let commit = sample.record(Sort::Commit, Some(sample.small));
            vec![
                ("record", Lost, of.slot, of.batch.start as u64, vec![sample.small]),
                ("extent", Damaged, of.slot, commit.at.start as u64, vec![sample.small]),
            ]
        }),
        ("octets of a message with its commit record elsewhere", |sample| {
            let of = sample.record(Sort::Extent, Some(sample.long));
            sample.flip(of.slot, of.at.end - 1);
            let commit = sample.record(Sort::Commit, Some(sample.long));
            assert_ne!(of.slot, commit.slot);
            vec![
                ("record", Lost, of.slot, of.batch.start as u64, vec![sample.long]),
                ("extent", Damaged, commit.slot, commit.at.start as u64, vec![sample.long]),
            ]
        }),
        ("header of a record", |sample| {
            let of = sample.record(Sort::Commit, Some(sample.small));
            sample.flip(of.slot, of.at.start + 5);
            vec![("record", Lost, of.slot, of.batch.start as u64, vec![sample.small])]
        }),
        ("commit record", |sample| {
            let of = sample.record(Sort::Commit, Some(sample.small));
            sample.flip(of.slot, of.at.start + RECORD_HEADER + 20);
            vec![("record", Lost, of.slot, of.batch.start as u64, vec![sample.small])]
        }),
        ("outcome", |sample| {
            let of = sample.record(Sort::Outcome, Some(sample.begun));
            sample.flip(of.slot, of.at.end - 1);
            vec![("record", Lost, of.slot, of.batch.start as u64, vec![sample.begun])]
        }),
        ("seal", |sample| {
            let of = sample.record(Sort::Seal, None);
            sample.flip(of.slot, of.batch.start + 8);
            vec![("seal-missing", Lost, of.slot, of.batch.start as u64, vec![])]
        }),
        ("two files that are the same segment", |sample| {
            let mut same = Vec::new();
            sample.storage.damage(0, |octets| same = octets.clone());
            drop(block_on(sample.storage.create(77, 0)).unwrap());
            sample.storage.damage(77, |octets| *octets = same);
            vec![("twin", Lost, 77, 0, vec![])]
        }),
        ("file with more than the segment", |sample| {
            sample.storage.damage(1, |octets| octets.extend([0; BLOCK]));
            vec![("long", Nothing, 1, small().segment_bytes, vec![])]
        }),
        ("file that ends early, behind all that was written", |sample| {
            let last = sample.records.last().unwrap().slot;
            sample.storage.damage(last, |octets| octets.truncate(octets.len() - BLOCK));
            vec![("short", Lost, last, small().segment_bytes - BLOCK as u64, vec![])]
        }),
        ("segment file that is gone", |sample| {
            let of = sample.record(Sort::Extent, Some(sample.long));
            block_on(sample.storage.remove(of.slot)).unwrap();
            let commit = sample.record(Sort::Commit, Some(sample.long));
            vec![("extent", Damaged, commit.slot, commit.at.start as u64, vec![sample.long])]
        }),
        ("both copies of a header", |sample| {
            sample.flip(0, 20);
            sample.flip(0, SEGMENT_HEADER_COPY_AT + 21);
            let commit = sample.record(Sort::Commit, Some(sample.long));
            vec![
                ("header", Lost, 0, 0, vec![]),
                ("extent", Damaged, commit.slot, commit.at.start as u64, vec![sample.long]),
            ]
        }),
    ];
    for (name, bend) in rows {
        let sample = sample();
        let expected = bend(&sample);
        let found = sample.verify();
        assert_eq!(findings(&found), expected, "{name}: {found:?}");
        let damaged = expected.iter().filter(|of| of.1 == Damaged).flat_map(|of| of.4.clone());
        assert_eq!(found.messages_damaged, damaged.collect::<Vec<_>>(), "{name}");
        for finding in &found.findings {
            assert!(finding.to_string().contains(&finding.flaw.means().to_string()), "{finding}");
        }
    }
}

#[test]
fn a_segment_of_another_spool_and_one_of_a_later_version_are_named() {
    let sample = sample();
    let found = block_on(verify_storage(&sample.storage, SpoolNumber::new(4).unwrap(), false)).unwrap();
    let first = ("foreign-spool", Means::Nothing, 0, 0, vec![]);
    assert_eq!(findings(&found)[0], first);
    sample.storage.damage(1, |octets| {
        for at in [0, SEGMENT_HEADER_COPY_AT] {
            let head = &mut octets[at..at + 64];
            (head[8], head[9]) = (99, 0);
            head[12..16].fill(0);
            let crc = crc32c::crc32c(head).to_le_bytes();
            head[12..16].copy_from_slice(&crc);
        }
    });
    let refused = block_on(verify_storage(&sample.storage, number(), false));
    assert_eq!(refused, Err(OpenError::Newer { slot: 1, version: 99 }));
}

#[test]
fn a_device_that_does_not_read_is_told_from_damage() {
    let storage = FaultyStorage::new(sample().storage, Default::default());
    storage.set(|faults| faults.read_error = true);
    let found = block_on(verify_storage(&storage, number(), false)).unwrap();
    assert!(found.unread() && found.messages == 0, "{found:?}");
    assert!(found.findings.iter().all(|finding| finding.flaw.means() == Means::Unread), "{found:?}");
}

/// What is seen once only, because a relay went on meanwhile, does not count; what stays does.
#[test]
fn on_a_live_spool_what_passes_is_not_damage() {
    let sample = sample();
    sample.flip(0, 20);
    let storage = FaultyStorage::new(sample.storage.clone(), Default::default());
    let mut passed = 0;
    for seed in 0..120 {
        storage.set(|faults| (faults.seed, faults.reads_elsewhere_one_in) = (seed, 60));
        let once = block_on(verify_storage(&storage, number(), false)).unwrap();
        let live = block_on(verify_storage(&storage, number(), true)).unwrap();
        passed += (once.findings.len() > 1) as usize;
        assert!(live.findings.len() <= 1, "{live:?}");
    }
    assert!(passed > 5, "{passed} looks saw what was not there");
}
