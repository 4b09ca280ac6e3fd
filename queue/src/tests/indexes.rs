//! A start from indexes comes to exactly what a start from all batches comes to.

use super::harness::*;
use crate::digest::PART_BYTES;
use crate::layout::BLOCK;
use crate::recovery::{Reading, recover};
use crate::*;
use futures_lite::future::block_on;

/// All that a start finds, as text; and what it damaged, and how many segments it took by their index.
fn found<S: Storage>(storage: &S, reading: Reading) -> Option<(String, Recovery)> {
    let mut found = block_on(recover(storage, number().get(), reading)).ok()?;
    let report = found.report.clone();
    (found.report.bytes_read, found.report.segments_indexed, found.report.indexes_lost) = (0, 0, 0);
    let segments = found.table.segments.values().map(|of| {
        let refers_to = of.refers_to;
        format!("{:?} {} {} {} {:?} {refers_to}\n", of.mark, of.slot, of.bytes, of.seed, of.status)
    });
    let mut text: String = segments.collect();
    for (id, entry) in found.index.waiting_after(None).chain(found.index.damaged()) {
        text += &format!("{id} {:?} {:?}\n", entry.commit, entry.extents_held());
    }
    found.index.survey(None, usize::MAX, |facts| {
        text += &format!("{} {} {} ", facts.id(), facts.arrived_micros(), facts.content_bytes());
        text += &format!("{:?} {} {}\n", facts.flags(), facts.sender(), facts.damaged());
        facts.recipients().for_each(|recipient| text += &format!("  {recipient:?}\n"));
    });
    text += &format!("{:?}\n{:?}\n{:?}\n", found.index.counts(), found.report, found.cut);
    text += &format!("{:?}\n", found.ancestry);
    text += &format!("{} {} {}\n", found.last_segment, found.last_batch, found.id_micros);
    Some((text, report))
}

/// Opens the spool both ways, without writing. Gives how many segments were taken by their index.
pub fn compare_readings<S: Storage>(storage: &S) -> usize {
    let (Some((indexes, by_index)), Some((batches, by_batch))) =
        (found(storage, Reading::Indexes), found(storage, Reading::Batches))
    else {
        return 0;
    };
    assert_eq!((by_batch.segments_indexed, by_batch.indexes_lost), (0, 0));
    if by_batch.damages.is_empty() {
        assert!(indexes == batches, "by indexes\n{indexes}\nby batches\n{batches}");
    }
    by_index.segments_indexed
}

/// A spool of many small segments, most of whose messages are finished; the relay then stops in order.
fn many(storage: &MemoryStorage) -> Vec<QueueId> {
    opened(storage.clone(), small(), |spool, _| async move {
        let mut waiting = Vec::new();
        for round in 0..80 {
            let id = deliver_in(&spool, &content(round, 3000 + 100 * round as usize), 2).await.unwrap().id;
            match round % 8 {
                0 => waiting.push(id),
                4 => {
                    spool.record(id, vec![outcome(1, OutcomeKind::Deferred), outcome(0, OutcomeKind::Held)]);
                    waiting.push(id);
                }
                _ => spool.record(id, delivered(2)),
            }
        }
        spool.close().await.unwrap();
        waiting
    })
}

fn reopen(storage: &MemoryStorage) -> (Recovery, Vec<QueueId>) {
    let opening = Spool::open(storage.clone(), number(), small());
    let (spool, recovery) = block_on(opening).unwrap();
    (recovery, spool.live(None, 999))
}

#[test]
fn a_start_reads_indexes_and_no_bodies() {
    let storage = MemoryStorage::new();
    let waiting = many(&storage);
    assert!(compare_readings(&storage) > 10);
    let (recovery, live) = reopen(&storage);
    assert_eq!(live, waiting);
    assert_eq!((recovery.segments_indexed, recovery.indexes_lost), (recovery.segments, 0));
    let blocks = recovery.bytes_read / BLOCK as u64;
    assert!(blocks <= 3 * recovery.segments as u64, "{blocks} blocks of {} segments", recovery.segments);
    opened(storage, small(), |spool, _| async move {
        for id in waiting {
            assert_eq!(spool.load(id).await.unwrap().envelope, *envelope(2));
            read_all(&spool, id).await.unwrap();
        }
    });
}

#[test]
fn an_index_that_does_not_verify_costs_a_walk_and_loses_nothing() {
    let storage = MemoryStorage::new();
    let waiting = many(&storage);
    let (whole, _) = reopen(&storage);
    let last_block = small().segment_bytes as usize - BLOCK;
    // In the footer, in its unused part, in the index's header, in its entries.
    let mut index_at = 0;
    storage.damage(2, |octets| {
        index_at = u32::from_le_bytes(octets[last_block + 56..][..4].try_into().unwrap()) as usize;
    });
    let table = [
        (last_block, 0, 1),
        (last_block + 60, 0, 1),
        (last_block + 100, 0, 0),
        (index_at, 1, 1),
        (index_at + 64, 1, 1),
        (index_at + 100, 1, 1),
    ];
    for (at, lost, walked) in table {
        let copy = storage.snapshot();
        copy.damage(2, |octets| octets[at] ^= 1);
        let (recovery, live) = reopen(&copy);
        assert_eq!(live, waiting, "octet {at}");
        assert_eq!(recovery.indexes_lost, lost, "octet {at}");
        assert_eq!(whole.segments_indexed - recovery.segments_indexed, walked, "octet {at}");
        // What is damaged in a record of the index is damage; without a footer nothing else is missing.
        assert_eq!(recovery.damages.len(), lost, "octet {at}");
    }
}

#[test]
fn an_index_of_another_life_or_another_segment_is_not_taken() {
    let storage = MemoryStorage::new();
    let waiting = many(&storage);
    let last_block = small().segment_bytes as usize - BLOCK;
    let mut other = Vec::new();
    storage.damage(1, |octets| other = octets[last_block..].to_vec());
    storage.damage(2, |octets| octets[last_block..].copy_from_slice(&other));
    let (recovery, live) = reopen(&storage);
    assert_eq!((live, recovery.segments - recovery.segments_indexed), (waiting, 1));
    assert_eq!((recovery.indexes_lost, recovery.damages), (0, vec![]));
}

#[test]
fn an_index_of_many_messages_is_written_in_parts() {
    let options = Options { segment_bytes: 4 << 20, ..small() };
    let storage = MemoryStorage::new();
    let count = opened(storage.clone(), options, |spool, _| async move {
        let mut count = 0;
        while spool.inner.desk.borrow().last_segment < 3 {
            let clients = (0..100u8).map(|tag| {
                let spool = spool.clone();
                let client: std::pin::Pin<Box<dyn Future<Output = _>>> =
                    Box::pin(async move { deliver_in(&spool, &[tag; 100], 1).await.unwrap() });
                client
            });
            count += together(clients.collect()).await.len();
        }
        spool.close().await.unwrap();
        count
    });
    assert_eq!(compare_readings(&storage), 3);
    let mut parts = 0;
    storage.damage(0, |octets| {
        parts = u32::from_le_bytes(octets[(4 << 20) - BLOCK + 64..][..4].try_into().unwrap());
    });
    assert!(parts > 3, "{parts} parts of {PART_BYTES} octets for {count} messages");
    opened(storage, options, |spool, recovery| async move {
        assert_eq!((recovery.messages, recovery.segments_indexed), (count, 3));
        assert_eq!(spool.messages(), count);
    });
}

#[test]
fn a_message_too_big_for_an_index_beside_it_goes_without_one() {
    let storage = MemoryStorage::new();
    let id = opened(storage.clone(), small(), |spool, _| async move {
        deliver_in(&spool, b"first", 1).await.unwrap();
        let id = deliver_in(&spool, b"x", 1500).await.unwrap().id;
        deliver_in(&spool, &content(1, 8000), 1).await.unwrap();
        spool.close().await.unwrap();
        id
    });
    let indexed = compare_readings(&storage);
    opened(storage, small(), |spool, recovery| async move {
        assert_eq!(recovery.segments - indexed, 1, "the segment of that message is walked");
        assert_eq!(spool.load(id).await.unwrap().envelope, *envelope(1500));
    });
}

/// Whatever this version does not know, a start after the next must see it again.
#[test]
fn a_segment_that_is_cut_gets_its_index_then() {
    let storage = MemoryStorage::new();
    let ids = opened(storage.clone(), small(), |spool, _| async move {
        let mut ids = Vec::new();
        for tag in 0..3 {
            ids.push(deliver_in(&spool, &content(tag, 5000), 1).await.unwrap().id);
        }
        spool.record(ids[1], delivered(1));
        spool.sync().await.unwrap();
        vec![ids[0], ids[2]]
    });
    assert_eq!(compare_readings(&storage), 0);
    let (first, live) = reopen(&storage);
    assert_eq!((first.segments_indexed, first.cut.is_some(), &live), (0, true, &ids));
    assert_eq!(compare_readings(&storage), 1);
    let (second, live) = reopen(&storage);
    assert_eq!((second.segments_indexed, second.cut, &live), (1, None, &ids));
}
