//! The device changes what was durable: it is reported where it is, and the rest is kept.

use super::harness::*;
use crate::layout::{BATCH_HEADER, BLOCK, BatchHeader, HeaderFound, SegmentHeader};
use crate::*;

/// Three messages, a batch each, in one segment; the relay then stops without sealing.
fn three() -> (MemoryStorage, [QueueId; 3]) {
    let storage = MemoryStorage::new();
    let ids = opened(storage.clone(), small(), |spool, _| async move {
        let mut ids = Vec::new();
        for tag in 0..3 {
            ids.push(deliver_in(&spool, &content(tag, 5000), 1).await.unwrap().id);
        }
        ids.try_into().unwrap()
    });
    (storage, ids)
}

/// Where the batches of the first segment lie.
fn batches(storage: &MemoryStorage) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    storage.damage(0, |octets| {
        let HeaderFound::Valid(header) = SegmentHeader::find(&octets[..BLOCK]) else { panic!("a header") };
        let mut at = BLOCK;
        while let Some(batch) = BatchHeader::decode(header.seed(), header.sequence, &octets[at..]) {
            let end = at + BatchHeader::batch_bytes(batch.payload_bytes as usize);
            found.push(at..end);
            at = end;
        }
    });
    found
}

fn reopen(storage: &MemoryStorage) -> (Recovery, Vec<QueueId>) {
    opened(storage.clone(), small(), |spool, recovery| async move { (recovery, spool.live(None, 99)) })
}

fn whats(recovery: &Recovery) -> Vec<(&DamageKind, u64)> {
    recovery.damages.iter().map(|damage| (&damage.what, damage.offset)).collect()
}

#[test]
fn a_clean_end_is_sealed_and_a_torn_tail_is_cut_without_a_report() {
    let (storage, ids) = three();
    let places = batches(&storage);
    let end = places[2].end as u64;
    let copy = storage.snapshot();
    let (recovery, live) = reopen(&copy);
    assert_eq!((recovery.cut, live), (Some(Cut { segment: 1, offset: end, torn: false }), ids.to_vec()));
    assert_eq!(reopen(&copy).0.cut, None, "the seal holds");

    storage.damage(0, |octets| octets[places[2].start + BLOCK] ^= 1);
    let (recovery, live) = reopen(&storage);
    let torn = Cut { segment: 1, offset: places[2].start as u64, torn: true };
    assert_eq!((recovery.cut, &recovery.damages[..], &live[..]), (Some(torn), &[][..], &ids[..2]));
}

#[test]
fn every_octet_of_a_durable_batch_that_changes_is_reported_or_does_not_matter() {
    let (storage, ids) = three();
    let places = batches(&storage);
    let payload_end = places[1].start + BATCH_HEADER + 5000 + 300;
    for at in (places[1].start..payload_end).step_by(7) {
        let damaged = storage.snapshot();
        damaged.damage(0, |octets| octets[at] ^= 0x40);
        let (recovery, live) = reopen(&damaged);
        assert!(live.contains(&ids[0]) && live.contains(&ids[2]), "octet {at}");
        match live.contains(&ids[1]) {
            false => assert_eq!(recovery.damages[0].offset, places[1].start as u64, "octet {at}"),
            true => assert_eq!(recovery.damages, [], "octet {at}"),
        }
    }
}

/// A later batch that the device put over an earlier one: were it taken for what belongs there, all between
/// the two would pass for what an earlier life left behind.
#[test]
fn a_batch_written_at_another_place_of_its_segment_is_noticed() {
    let (storage, ids) = three();
    let places = batches(&storage);
    storage.damage(0, |octets| octets.copy_within(places[2].clone(), places[0].start));
    let (recovery, live) = reopen(&storage);
    assert_eq!(whats(&recovery), [(&DamageKind::Batch, places[0].start as u64)]);
    assert_eq!(live, ids[1..]);
}

#[test]
fn a_message_whose_octets_do_not_verify_is_set_aside_and_named() {
    let (storage, ids) = three();
    let places = batches(&storage);
    storage.damage(0, |octets| octets[places[1].start + 2000] ^= 1);
    opened(storage, small(), |spool, recovery| async move {
        let [at_batch, at_message] = &whats(&recovery)[..] else { panic!("{recovery:?}") };
        assert_eq!(*at_batch, (&DamageKind::Record, places[1].start as u64));
        assert_eq!(at_message.0, &DamageKind::Extent(ids[1]));
        assert_eq!((&recovery.messages_damaged[..], spool.damaged()), (&ids[1..2], vec![ids[1]]));
        assert_eq!(spool.live(None, 9), [ids[0], ids[2]]);
        assert_eq!(spool.load(ids[1]).await.unwrap().envelope, *envelope(1), "the envelope is readable");
        assert!(matches!(spool.read(ids[1], 0, 9).await, Err(ReadError::Damaged { .. })));
        ids.iter().for_each(|id| spool.record(*id, delivered(1)));
        spool.sync().await.unwrap();
        for tag in 0..40 {
            let id = deliver_in(&spool, &content(tag, 8000), 1).await.unwrap().id;
            spool.record(id, delivered(1));
        }
        assert_eq!(spool.inner.table.borrow().segments[&1].slot, 0, "what is damaged is not overwritten");
    });
}

#[test]
fn a_lost_header_a_foreign_and_a_doubled_segment_are_each_named() {
    let (storage, _) = three();
    let (copy, twin) = (storage.snapshot(), storage.snapshot());
    copy.damage(0, |octets| octets[..BLOCK].fill(7));
    let (recovery, live) = reopen(&copy);
    assert_eq!((whats(&recovery), live), (vec![(&DamageKind::Header, 0)], vec![]));

    let other = SpoolNumber::new(4).unwrap();
    let opening = Spool::open(storage.snapshot(), other, small());
    let (spool, recovery) = futures_lite::future::block_on(opening).unwrap();
    assert_eq!((whats(&recovery), spool.messages()), (vec![(&DamageKind::ForeignSpool(3), 0)], 0));

    let mut same = Vec::new();
    twin.damage(0, |octets| same = octets.clone());
    let created = futures_lite::future::block_on(twin.create(77, 0));
    drop(created.unwrap());
    twin.damage(77, |octets| *octets = same);
    assert_eq!(whats(&reopen(&twin).0), [(&DamageKind::Twin, 0)]);
}

#[test]
fn a_segment_that_ends_without_its_seal_before_others_is_damaged() {
    let (storage, ids) = three();
    drop(reopen(&storage));
    let [.., index, seal] = &batches(&storage)[..] else { panic!("the end was sealed") };
    let later = opened(storage.clone(), small(), |spool, _| async move {
        deliver_in(&spool, b"in the next segment", 1).await.unwrap().id
    });
    let all = [&ids[..], &[later]].concat();
    storage.damage(0, |octets| octets[seal.clone()].fill(0));
    let (recovery, live) = reopen(&storage);
    assert_eq!((whats(&recovery), &live), (vec![], &all), "the index says all that the segment held");
    // Without a footer all of it is read.
    storage.damage(0, |octets| octets[(64 << 10) - BLOCK..].fill(0));
    let (recovery, live) = reopen(&storage);
    assert_eq!(whats(&recovery), [(&DamageKind::SealMissing, seal.start as u64)]);
    assert_eq!((live, recovery.indexes_lost), (all.clone(), 0));
    storage.damage(0, |octets| octets[index.clone()].fill(0));
    let (recovery, live) = reopen(&storage);
    assert_eq!(whats(&recovery), [(&DamageKind::SealMissing, index.start as u64)]);
    assert_eq!(live, all);
}

#[test]
fn a_spool_of_a_later_version_is_not_touched() {
    let (storage, _) = three();
    storage.damage(0, |octets| {
        for at in [0, crate::layout::SEGMENT_HEADER_COPY_AT] {
            let head = &mut octets[at..at + 64];
            head[8] = 9;
            head[12..16].fill(0);
            let crc = crc32c::crc32c(head).to_le_bytes();
            head[12..16].copy_from_slice(&crc);
        }
    });
    let opening = futures_lite::future::block_on(Spool::open(storage, number(), small()));
    assert_eq!(opening.err(), Some(OpenError::Newer { slot: 0, version: 9 }));
}

#[test]
fn rubbish_in_files_is_reported_and_never_a_panic() {
    let (storage, _) = three();
    let mut random = 12345u64;
    for _ in 0..300 {
        let copy = storage.snapshot();
        copy.damage(0, |octets| {
            for _ in 0..20 {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let at = (random >> 33) as usize % (32 << 10);
                octets[at] = (random >> 20) as u8;
            }
            octets.truncate((64 << 10) - (random >> 40) as usize % (60 << 10));
        });
        let opening = Spool::open(copy, number(), small());
        let (spool, recovery) = futures_lite::future::block_on(opening).unwrap();
        assert!(spool.messages() + recovery.damages.len() + recovery.cut.iter().len() > 0);
    }
}
