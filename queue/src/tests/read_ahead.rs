//! Reading in the order of the log, which reads ahead: the same octets, and one bad block costs one message.

use super::harness::*;
use crate::*;

#[test]
fn what_is_written_behind_a_window_after_it_was_read_is_found_all_the_same() {
    opened(MemoryStorage::new(), Options { segment_bytes: 1 << 20, ..small() }, async |spool, _| {
        let mut read_ahead = false;
        for round in 0..6 {
            for at in 0..10 {
                deliver_in(&spool, &content(round * 10 + at, 700 + 300 * at as usize), 1).await.unwrap();
            }
            for (at, id) in spool.live(None, 99).into_iter().enumerate() {
                let message = spool.load_without_reasons(id).await.unwrap();
                let octets = spool.read_loaded(&message, 0, usize::MAX).await.unwrap();
                assert!(octets == content(at as u64, 700 + 300 * (at % 10)), "message {at}, round {round}");
                read_ahead |= spool.inner.table.borrow().ahead.has_window();
            }
        }
        assert!(read_ahead, "or this shows nothing");
    });
}

#[test]
fn damage_in_a_window_costs_only_the_message_that_it_is_in() {
    let storage = MemoryStorage::new();
    let ids = opened(storage.clone(), small(), async |spool, _| {
        for at in 0..40 {
            deliver_in(&spool, &content(at, 900), 1).await.unwrap();
        }
        let ids = spool.live(None, 99);
        spool.close().await.unwrap();
        ids
    });
    let needle = content(20, 900);
    opened(storage.clone(), small(), async |spool, _| {
        for slot in storage.slots() {
            storage.damage(slot, |octets| {
                if let Some(at) = octets.windows(needle.len()).position(|window| window == needle) {
                    octets[at + 100] ^= 1;
                }
            });
        }
        let mut bad = Vec::new();
        for (at, id) in ids.iter().enumerate() {
            let message = spool.load_without_reasons(*id).await.unwrap();
            match spool.read_loaded(&message, 0, usize::MAX).await {
                Ok(octets) => assert!(octets == content(at as u64, 900), "message {at}"),
                Err(error) => bad.push((at, matches!(error, ReadError::Damaged { .. }))),
            }
        }
        assert_eq!(bad, [(20, true)]);
    });
}
