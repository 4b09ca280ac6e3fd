//! What goes in comes out, in the same run and after a restart.

use super::harness::*;
use crate::*;

const SIZES: [usize; 9] = [0, 1, 4000, 4096, 8191, 8192, 8193, 50_000, 300_000];

#[test]
fn messages_of_every_size_come_back_byte_for_byte_now_and_after_a_restart() {
    let storage = MemoryStorage::new();
    let ids: Vec<QueueId> = opened(storage.clone(), small(), |spool, recovery| async move {
        assert_eq!(recovery, Recovery::default());
        let mut ids = Vec::new();
        for (tag, bytes) in SIZES.into_iter().enumerate() {
            let octets = content(tag as u64, bytes);
            let stored = deliver_in(&spool, &octets, 2).await.unwrap();
            assert_eq!(stored.content_bytes, bytes as u64);
            let in_memory = (bytes <= small().extent_bytes_max).then_some(octets.clone());
            assert_eq!(stored.content.as_deref(), in_memory.as_ref());
            assert_eq!(read_all(&spool, stored.id).await.unwrap(), octets);
            ids.push(stored.id);
        }
        spool.close().await.unwrap();
        ids
    });
    opened(storage, small(), |spool, recovery| async move {
        assert_eq!((recovery.messages, recovery.cut, &recovery.damages[..]), (SIZES.len(), None, &[][..]));
        assert_eq!(spool.live(None, 99), ids);
        for (tag, (id, bytes)) in ids.into_iter().zip(SIZES).enumerate() {
            assert_eq!(read_all(&spool, id).await.unwrap(), content(tag as u64, bytes));
            let message = spool.load(id).await.unwrap();
            let octets = content(tag as u64, bytes);
            let middle = bytes / 2;
            let piece = spool.read_loaded(&message, middle as u64, 100).await.unwrap();
            assert!(octets[middle..].starts_with(&piece) && piece.is_empty() == (middle == bytes));
            assert_eq!(
                (message.envelope, message.states),
                (Envelope::clone(&envelope(2)), vec![RecipientState::NEW; 2])
            );
        }
    });
}

#[test]
fn a_draft_is_read_back_while_it_arrives_and_stays_what_it_is() {
    opened(MemoryStorage::new(), small(), |spool, _| async move {
        for (tag, bytes) in SIZES.into_iter().enumerate() {
            let octets = content(tag as u64, bytes);
            let mut draft = spool.begin(1);
            for piece in octets.chunks(5_000) {
                spool.append(&mut draft, piece).await.unwrap();
            }
            assert_eq!(spool.read_draft(&draft).await.unwrap(), octets);
            let id = draft.id();
            spool.commit(draft, envelope(1), ContentFlags::default()).await.unwrap();
            assert_eq!(read_all(&spool, id).await.unwrap(), octets);
        }
    });
}

#[test]
fn outcomes_and_their_reasons_survive_a_restart_and_the_finished_do_not() {
    let storage = MemoryStorage::new();
    let (stays, goes) = opened(storage.clone(), small(), |spool, _| async move {
        let stays = deliver_in(&spool, b"stays", 3).await.unwrap().id;
        let goes = deliver_in(&spool, b"goes", 1).await.unwrap().id;
        spool.record(stays, vec![outcome(0, OutcomeKind::Delivered), outcome(2, OutcomeKind::Deferred)]);
        spool.record(goes, delivered(1));
        assert_eq!(spool.live(None, 9), [stays]);
        assert_eq!(spool.load(goes).await, Err(ReadError::Unknown));
        spool.sync().await.unwrap();
        (stays, goes)
    });
    opened(storage, small(), |spool, _| async move {
        assert_eq!(spool.live(None, 9), [stays]);
        assert!(!spool.contains(goes));
        let message = spool.load(stays).await.unwrap();
        let states: Vec<_> = message.states.iter().map(|state| state.status).collect();
        use RecipientStatus::{Delivered, Waiting};
        assert_eq!(states, [Delivered, Waiting, Waiting]);
        let reasons: Vec<_> = message.reasons.into_iter().map(|r| r.map(|r| r.text)).collect();
        assert_eq!(reasons, [Some("Delivered".into()), None, Some("Deferred".into())]);
    });
}

#[test]
fn many_commits_share_a_batch() {
    opened(MemoryStorage::new(), small(), |spool, _| async move {
        let clients = (0..50u8).map(|tag| {
            let spool = spool.clone();
            let client: std::pin::Pin<Box<dyn Future<Output = _>>> =
                Box::pin(async move { deliver_in(&spool, &[tag; 100], 1).await });
            client
        });
        let stored = together(clients.collect()).await;
        assert!(stored.iter().all(Result::is_ok));
        let stats = spool.stats();
        assert_eq!((stats.commits, stats.messages, stats.content_bytes), (50, 50, 5000));
        assert!(stats.batches <= 2, "{stats:?}");
    });
}

#[test]
fn ids_rise_whatever_the_clock_does_also_after_a_restart() {
    let storage = MemoryStorage::new();
    let last = opened(storage.clone(), small(), |spool, _| async move {
        let ids: Vec<_> = [NOW, NOW, NOW - 10, NOW + 5].map(|now| spool.begin(now).id()).into();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        assert!(ids.iter().all(|id| id.spool() == number()));
        let stored = deliver_in(&spool, b"x", 1).await.unwrap();
        spool.record(stored.id, delivered(1));
        spool.sync().await.unwrap();
        stored.id
    });
    opened(storage, small(), |spool, _| async move { assert!(spool.begin(0).id() > last) });
}

#[test]
fn a_dsn_and_the_end_of_its_message_are_one() {
    let storage = MemoryStorage::new();
    let dsn = opened(storage.clone(), small(), |spool, _| async move {
        let bounced = deliver_in(&spool, b"original", 1).await.unwrap().id;
        let mut draft = spool.begin(NOW);
        spool.append(&mut draft, b"a dsn").await.unwrap();
        let finishing = (bounced, vec![outcome(0, OutcomeKind::Bounced)]);
        let stored = spool.commit_with(draft, envelope(1), ContentFlags::default(), finishing).await;
        assert_eq!(spool.live(None, 9), [stored.as_ref().unwrap().id]);
        stored.unwrap().id
    });
    opened(storage, small(), |spool, _| async move { assert_eq!(spool.live(None, 9), [dsn]) });
}
