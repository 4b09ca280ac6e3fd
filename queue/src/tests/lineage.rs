//! A spool keeps its lineage as long as one of its segments lives, and one of version 1 gets one.

use super::harness::*;
use crate::layout::{BLOCK, FORMAT_VERSION, HeaderFound, SegmentHeader};
use crate::*;

fn headers(storage: &MemoryStorage) -> Vec<SegmentHeader> {
    let mut headers = Vec::new();
    for slot in storage.slots() {
        storage.damage(slot, |octets| {
            if let HeaderFound::Valid(header) = SegmentHeader::find(&octets[..BLOCK]) {
                headers.push(header);
            }
        });
    }
    headers
}

/// Makes every segment one of version 1. The checksums of batches do not depend on it.
fn as_version_1(storage: &MemoryStorage) {
    for slot in storage.slots() {
        storage.damage(slot, |octets| {
            if let HeaderFound::Valid(header) = SegmentHeader::find(&octets[..BLOCK]) {
                SegmentHeader { version: 1, lineage: None, ..header }.encode(&mut octets[..BLOCK]);
            }
        });
    }
}

async fn fill(spool: &Spool<MemoryStorage>, messages: u64) {
    for tag in 0..messages {
        deliver_in(spool, &content(tag, 8000), 1).await.unwrap();
    }
}

#[test]
fn every_segment_has_the_lineage_of_its_spool_and_a_start_finds_it_again() {
    let storage = MemoryStorage::new();
    let first = opened(storage.clone(), small(), |spool, _| async move {
        fill(&spool, 30).await;
        spool.lineage()
    });
    let again = opened(storage.clone(), small(), |spool, _| async move {
        fill(&spool, 30).await;
        spool.lineage()
    });
    assert_eq!(first, again);
    let headers = headers(&storage);
    assert!(headers.len() > 4 && headers.iter().all(|header| header.lineage == Some(first)));
    let other = opened(MemoryStorage::new(), small(), |spool, _| async move { spool.lineage() });
    assert_ne!(first, other);
}

#[test]
fn a_spool_of_version_1_is_read_and_gets_a_lineage_with_its_next_segment() {
    let storage = MemoryStorage::new();
    opened(storage.clone(), small(), |spool, _| async move { fill(&spool, 20).await });
    as_version_1(&storage);
    let (old, lineage) = opened(storage.clone(), small(), |spool, recovery| async move {
        assert_eq!((recovery.messages, &recovery.damages[..]), (20, &[][..]));
        let old = spool.inner.table.borrow().segments.len();
        fill(&spool, 20).await;
        (old, spool.lineage())
    });
    let mut headers = headers(&storage);
    headers.sort_by_key(|header| header.sequence);
    assert!(headers.len() > old);
    for (at, header) in headers.iter().enumerate() {
        let expected = if at < old { (1, None) } else { (FORMAT_VERSION, Some(lineage)) };
        assert_eq!((header.version, header.lineage), expected);
    }
    opened(storage, small(), |spool, recovery| async move {
        assert_eq!((recovery.messages, spool.lineage()), (40, lineage));
    });
}
