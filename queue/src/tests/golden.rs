//! Spools of every version that was ever in use, and what is in them: they open for ever.
//!
//! `tests/data/NAME.spool` holds the files of a spool, `NAME.txt` what is in it, one message a line. The
//! former: the files one after the other, each as slot 4, length of the file 8, count of runs 4, and per
//! run position 8, length 4, octets; what is between runs is zero. Integers are little-endian.

use super::harness::*;
use crate::*;
use std::fmt::Write as _;
use std::path::PathBuf;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn packed(storage: &MemoryStorage) -> Vec<u8> {
    const RUN: usize = 64;
    let mut out = Vec::new();
    for slot in storage.slots() {
        storage.damage(slot, |octets| {
            out.extend(slot.to_le_bytes());
            out.extend((octets.len() as u64).to_le_bytes());
            let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
            for (at, piece) in octets.chunks(RUN).enumerate() {
                let (start, end) = (at * RUN, at * RUN + piece.len());
                if piece.iter().any(|octet| *octet != 0) {
                    match runs.last_mut() {
                        Some(last) if last.end == start => last.end = end,
                        _ => runs.push(start..end),
                    }
                }
            }
            out.extend((runs.len() as u32).to_le_bytes());
            for run in runs {
                out.extend((run.start as u64).to_le_bytes());
                out.extend((run.len() as u32).to_le_bytes());
                out.extend(&octets[run]);
            }
        });
    }
    out
}

fn unpacked(packed: &[u8]) -> MemoryStorage {
    let storage = MemoryStorage::new();
    let mut rest = packed;
    let mut take = |count: usize| {
        let (taken, more) = rest.split_at_checked(count)?;
        rest = more;
        Some(taken.to_vec())
    };
    let number = |octets: Vec<u8>| octets.iter().rev().fold(0u64, |sum, octet| sum << 8 | *octet as u64);
    while let Some(slot) = take(4).map(number) {
        let bytes = take(8).map(number).unwrap();
        let created = futures_lite::future::block_on(storage.create(slot as u32, bytes));
        drop(created.unwrap());
        for _ in 0..take(4).map(number).unwrap() {
            let (at, len) = (take(8).map(number).unwrap() as usize, take(4).map(number).unwrap() as usize);
            let run = take(len).unwrap();
            storage.damage(slot as u32, |octets| octets[at..at + len].copy_from_slice(&run));
        }
    }
    storage
}

/// One line a message: its id, what is known of it, its recipients and a checksum of its octets.
async fn written_down(spool: &Spool<MemoryStorage>) -> String {
    let mut out = String::new();
    for id in spool.live(None, 999) {
        let message = spool.load(id).await.unwrap();
        let octets = read_all(spool, id).await.unwrap();
        let of = &message.envelope;
        write!(out, "{id} from={} body={:?} arrived={} ", of.sender, of.body, of.arrived_micros).unwrap();
        write!(out, "by={} helo={} client={} ", of.listener, of.helo, of.client).unwrap();
        let flags = (message.flags.eight_bit as u8, message.flags.dot_lines as u8);
        of.origin.iter().for_each(|origin| write!(out, "origin={origin:?} ").unwrap());
        write!(out, "octets={} crc={:08x} flags={flags:?}", octets.len(), crc32c::crc32c(&octets)).unwrap();
        let people = of.recipients.iter().zip(&message.states).zip(&message.reasons);
        for ((recipient, state), reason) in people {
            let reason = reason.as_ref().map(|of| (of.kind, of.at_micros, &of.text[..]));
            write!(out, " to={}:{:?}:{}", recipient.address, state.status, state.attempts).unwrap();
            write!(out, ":{}:{reason:?}", state.notified).unwrap();
            out.push_str(if state.held { ":held" } else { "" });
        }
        spool.survey(None, usize::MAX, |facts| {
            let vias = facts.recipients().filter_map(|of| Some((of.index, of.via?)));
            if facts.id() == id {
                vias.for_each(|(at, via)| write!(out, " via={at}:{via}").unwrap());
            }
        });
        let asked: Vec<_> = of.recipients.iter().filter_map(|of| of.parameters.as_ref()).collect();
        if of.parameters.is_some() || !asked.is_empty() {
            write!(out, " mail={:?} rcpt={asked:?}", of.parameters).unwrap();
        }
        out.push('\n');
    }
    out
}

fn deferred(recipient: u32, attempts: u16, notified: bool) -> Outcome {
    let text = format!("450 4.2.0 später, {attempts}");
    Outcome { attempts, notified, text, ..outcome(recipient, OutcomeKind::Deferred) }
}

/// A history with some of everything.
async fn history(spool: &Spool<MemoryStorage>) {
    let waits = |tag: u64, bytes: usize, recipients: usize| {
        let spool = spool.clone();
        async move { deliver_in(&spool, &content(tag, bytes), recipients).await.unwrap().id }
    };
    let old = waits(1, 5000, 3).await;
    spool.record(old, vec![outcome(0, OutcomeKind::Delivered), deferred(1, 2, true)]);
    waits(2, 0, 1).await;
    let long = waits(3, 20_000, 1).await;
    spool.record(long, vec![deferred(0, 1, false)]);
    for _ in 0..30 {
        // Zeros, which take no place here.
        let id = deliver_in(spool, &[0; 8000], 1).await.unwrap().id;
        spool.record(id, delivered(1));
    }
    spool.sync().await.unwrap();
    spool.inner.desk.borrow_mut().compaction.slack_segments = 0;
    let mut moved = 0;
    for _ in 0..20 {
        moved += spool.compact_step().await.unwrap().messages;
    }
    assert!(moved > 0);
    let bounced = waits(4, 100, 2).await;
    let mut dsn = spool.begin(NOW);
    spool.append(&mut dsn, &content(5, 300)).await.unwrap();
    let bounce = vec![outcome(0, OutcomeKind::Bounced), outcome(1, OutcomeKind::Expired)];
    let lineage = Lineage::from_octets(*b"another spool 16").expect("it is not zero");
    let origin = Some(Origin { lineage, id: QueueId::from_bits(old.bits() - 1024) });
    let null =
        Envelope { sender: String::new(), body: Body::EightBit, origin, ..Envelope::clone(&envelope(1)) };
    let flags = ContentFlags { eight_bit: true, dot_lines: true };
    spool.commit_with(dsn, null.into(), flags, (bounced, bounce)).await.unwrap();
    waits(6, 30_000, 2).await;
    let steered = waits(8, 50, 3).await;
    let rerouted = Outcome { text: "192.0.2.1:25".into(), ..outcome(1, OutcomeKind::Rerouted) };
    spool.record(steered, vec![outcome(0, OutcomeKind::Held), rerouted, outcome(2, OutcomeKind::Deleted)]);
    let held = waits(9, 60, 1).await;
    spool.record(held, vec![outcome(0, OutcomeKind::Held)]);
    spool.sync().await.unwrap();
    spool.record(held, vec![outcome(0, OutcomeKind::Released)]);
    let elsewhere = waits(10, 70, 1).await;
    spool.record(elsewhere, vec![outcome(0, OutcomeKind::Moved)]);
    spool.record(old, vec![deferred(1, 3, true), deferred(2, 1, false)]);
    spool.sync().await.unwrap();
}

fn check(name: &str, cut: bool) {
    let packed = std::fs::read(path(&format!("{name}.spool"))).unwrap();
    assert!(packed.len() < 200 << 10, "{name} is {} octets", packed.len());
    let expected = std::fs::read_to_string(path(&format!("{name}.txt"))).unwrap();
    assert!(expected.lines().count() > 4);
    let storage = unpacked(&packed);
    for life in 0..3 {
        opened(storage.clone(), small(), |spool, recovery| {
            let expected = &expected;
            async move {
                assert_eq!((&recovery.damages[..], recovery.unknown), (&[][..], 0), "{name}, life {life}");
                assert_eq!(recovery.cut.is_some(), cut && life == 0, "{name}, life {life}");
                let indexed = recovery.segments_indexed + (cut && life == 0) as usize;
                assert_eq!(indexed == recovery.segments, name.starts_with("v2"), "{name}, life {life}");
                assert_eq!(written_down(&spool).await, *expected, "{name}, life {life}");
                for round in 0..20 {
                    let id = deliver_in(&spool, &content(round, 8000), 1).await.unwrap().id;
                    spool.record(id, delivered(1));
                }
                while spool.compact_step().await.unwrap().more {}
                spool.close().await.unwrap();
            }
        });
    }
}

#[test]
fn spools_of_version_2_open_and_hold_what_is_written_down() {
    check("v2-closed", false);
    check("v2-crashed", true);
    check("v2-parameters", false);
}

#[test]
fn spools_of_version_1_open_and_hold_what_is_written_down() {
    check("v1-closed", false);
    check("v1-crashed", true);
}

/// Makes the files anew, into the directory that the variable names. For a new version of the format only:
/// those of older ones cannot be made again.
#[test]
fn golden_spools_are_made_when_asked_for() {
    let Some(dir) = std::env::var_os("SLUICE_GOLDEN_DIR").map(PathBuf::from) else { return };
    for (name, close) in [("v2-closed", true), ("v2-crashed", false), ("v2-parameters", true)] {
        let storage = MemoryStorage::new();
        let (text, torn) = opened(storage.clone(), small(), |spool, _| async move {
            if name == "v2-parameters" {
                super::parameters::deliver_all(&spool).await;
            } else {
                history(&spool).await;
            }
            let text = written_down(&spool).await;
            if close {
                spool.close().await.unwrap();
                return (text, None);
            }
            // Two blocks, of which the last one was not written.
            deliver_in(&spool, &content(7, 6000), 1).await.unwrap();
            let active = spool.inner.desk.borrow().active.unwrap();
            let slot = spool.inner.table.borrow().segments[&active.sequence].slot;
            (text, Some((slot, active.position as usize - 4096)))
        });
        if let Some((slot, position)) = torn {
            storage.damage(slot, |octets| octets[position..position + 4096].fill(0));
        }
        std::fs::write(dir.join(format!("{name}.spool")), packed(&storage)).unwrap();
        std::fs::write(dir.join(format!("{name}.txt")), text).unwrap();
    }
}
