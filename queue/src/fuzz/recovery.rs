//! A start over a spool that something has been done to: it never panics, and the start after it finds the
//! same messages.
//!
//! The input is what is done to the files of one small spool, five octets each: what (by its remainder of 8),
//! which file, position 2, value.
//!
//! | what | does |
//! |---:|---|
//! | 0, 1 | changes an octet |
//! | 2, 3 | changes an octet and makes the checksum of the record that holds it fit again |
//! | 4 | changes an octet of the header of the batch in this block, and makes its checksum fit |
//! | 5 | puts one block over another one, as a device may that writes to a wrong place |
//! | 6 | loses the block |
//! | 7 | cuts the file off |

use crate::layout::{BATCH_HEADER, BLOCK, BatchHeader, HeaderFound, SegmentHeader};
use crate::record::RECORD_HEADER;
use crate::storage::MemoryStorage;
use crate::{
    Body, ContentFlags, Envelope, Options, Outcome, OutcomeKind, QueueId, Recipient, Spool, SpoolNumber,
};
use crc32c::crc32c_append;
use futures_lite::future::{block_on, or, pending};
use std::sync::Arc;

const NOW: u64 = 1_795_000_000_000_000;
/// Messages that are read after a start.
const READ_MAX: usize = 16;

thread_local! {
    static SPOOL: MemoryStorage = spool();
}

pub fn check(input: &[u8]) {
    let storage = SPOOL.with(MemoryStorage::snapshot);
    input.chunks_exact(5).take(32).for_each(|act| damage(&storage, act));
    let first = start(&storage);
    assert_eq!(start(&storage), first);
}

/// The messages that a start finds; `None` where it refuses.
fn start(storage: &MemoryStorage) -> Option<Vec<QueueId>> {
    block_on(async {
        let (spool, _) = Spool::open(storage.clone(), number(), options()).await.ok()?;
        let live = spool.live(None, usize::MAX);
        for id in live.iter().take(READ_MAX) {
            let read = spool.load(*id).await.is_ok();
            let octets = spool.read(*id, 0, 100).await;
            assert!(octets.is_ok_and(|octets| octets.len() <= 100) || !read || spool.contains(*id));
        }
        Some(live)
    })
}

fn damage(storage: &MemoryStorage, act: &[u8]) {
    let slots = storage.slots();
    let slot = slots[usize::from(act[1]) % slots.len()];
    let position = usize::from(u16::from_le_bytes([act[2], act[3]]));
    let (block, value) = (position / BLOCK * BLOCK, act[4]);
    storage.damage(slot, |octets| {
        if position >= octets.len() || block + BLOCK > octets.len() {
            return;
        }
        match act[0] % 8 {
            0 | 1 => octets[position] ^= value,
            2 | 3 => change_in_record(octets, position, value),
            4 => change_in_batch_header(octets, block, position % BATCH_HEADER, value),
            5 => {
                let from = usize::from(value) * BLOCK % octets.len();
                if from + BLOCK <= octets.len() {
                    octets.copy_within(from..from + BLOCK, block);
                }
            }
            6 => octets[block..block + BLOCK].fill(0),
            _ => octets.truncate(position),
        }
    });
}

fn header(octets: &[u8]) -> Option<SegmentHeader> {
    match SegmentHeader::find(octets.get(..BLOCK)?) {
        HeaderFound::Valid(header) => Some(header),
        _ => None,
    }
}

fn change_in_batch_header(octets: &mut [u8], block: usize, at: usize, value: u8) {
    let Some(header) = header(octets) else { return };
    let head = &mut octets[block..block + BATCH_HEADER];
    head[at] ^= value;
    let crc = crc32c_append(crc32c_append(header.seed(), &head[..4]), &head[8..]);
    head[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Looks for the record from batch to batch, as a start does.
fn change_in_record(octets: &mut [u8], position: usize, value: u8) {
    let Some(header) = header(octets) else { return };
    let mut at = BLOCK;
    while at <= position
        && let Some(batch) = BatchHeader::decode(header.seed(), header.sequence, &octets[at..])
    {
        let payload_end = at + BATCH_HEADER + batch.payload_bytes as usize;
        let end = at + BatchHeader::batch_bytes(batch.payload_bytes as usize);
        let mut record = at + BATCH_HEADER;
        while record + RECORD_HEADER <= payload_end.min(octets.len()) {
            let length =
                u32::from_le_bytes(octets[record..record + 4].try_into().expect("four octets")) as usize;
            let next = record.saturating_add(RECORD_HEADER).saturating_add(length);
            if next > octets.len() {
                return;
            }
            if (record..next).contains(&position) {
                octets[position] ^= value;
                let whole = &mut octets[record..next];
                let crc = crc32c_append(crc32c_append(header.seed(), &whole[..8]), &whole[RECORD_HEADER..]);
                return whole[8..12].copy_from_slice(&crc.to_le_bytes());
            }
            record = next;
        }
        at = end;
    }
}

fn number() -> SpoolNumber {
    SpoolNumber::new(3).expect("a number")
}

fn options() -> Options {
    Options {
        segment_bytes: 64 << 10,
        extent_bytes_max: 8 << 10,
        batch_bytes_max: 32 << 10,
        spare_segments: 1,
        idle_segments_max: 8,
        ..Options::default()
    }
}

/// Sealed segments with an index and one that is not sealed: what a crash leaves.
fn spool() -> MemoryStorage {
    let storage = MemoryStorage::new();
    let (spool, _) = block_on(Spool::open(storage.clone(), number(), options())).expect("it opens");
    let writer = async {
        spool.writer().await;
        pending().await
    };
    block_on(or(writer, async {
        for tag in 0..24u32 {
            let mut draft = spool.begin(NOW);
            spool.append(&mut draft, &vec![tag as u8; 300 * tag as usize]).await.expect("room");
            let id = spool.commit(draft, envelope(), ContentFlags::default()).await.expect("room").id;
            let kinds =
                [OutcomeKind::Deferred, OutcomeKind::Held, OutcomeKind::Delivered, OutcomeKind::Bounced];
            let outcome = |recipient| Outcome {
                recipient,
                kind: kinds[tag as usize / 2 % 4],
                attempts: 1,
                notified: false,
                at_micros: NOW,
                text: "450 4.2.0 later".into(),
            };
            spool.record(id, (0..tag % 3).map(outcome).collect());
        }
        spool.sync().await.expect("room");
    }));
    storage
}

fn envelope() -> Arc<Envelope> {
    let recipient = |number| Recipient::new(format!("person{number}@winery.example"));
    Arc::new(Envelope {
        sender: "sender@out.example".into(),
        recipients: (0..2).map(recipient).collect(),
        body: Body::SevenBit,
        arrived_micros: NOW,
        listener: "outside".into(),
        helo: "mx.out.example".into(),
        client: "203.0.113.9".into(),
        ..Envelope::default()
    })
}
