use super::*;
use crate::envelope::{Body, Envelope, Recipient, RecipientState, RecipientStatus};

const SEED: u32 = 77;

fn envelope() -> Envelope {
    Envelope {
        sender: "a@out.example".into(),
        recipients: ["b@in.example", "ü@in.example"].map(Recipient::new).into(),
        body: Body::EightBit,
        arrived_micros: 1_795_000_000_000_000,
        listener: "outside".into(),
        helo: "mx.out.example".into(),
        client: "203.0.113.9".into(),
        ..Envelope::default()
    }
}

#[test]
fn every_body_has_a_code_of_its_own_and_an_unknown_one_is_read_as_7bit() {
    for (code, body) in [(0, Body::SevenBit), (1, Body::EightBit), (2, Body::Binary)] {
        assert_eq!((body.code(), Body::of(code)), (code, body));
    }
    assert_eq!(Body::of(255), Body::SevenBit);
}

fn outcomes() -> Vec<Outcome> {
    use OutcomeKind::*;
    [Delivered, Deferred, Bounced, Expired, Held, Released, Rerouted, Deleted, Moved]
        .into_iter()
        .zip(0..)
        .map(|(kind, recipient)| Outcome {
            recipient,
            kind,
            attempts: 9,
            notified: recipient % 2 == 0,
            at_micros: 5,
            text: "450 4.2.0 später".into(),
        })
        .collect()
}

fn commit_record(states: &[RecipientState]) -> Vec<u8> {
    let envelope = envelope();
    let extents = [ExtentAt { segment: 3, position: 4096, octets: 10, crc: 1 }];
    let tail = Some(ExtentAt { segment: 4, position: 8192, octets: 5, crc: 2 });
    let commit = CommitToWrite {
        id: 42,
        content_bytes: 15,
        flags: ContentFlags { eight_bit: false, dot_lines: true },
        envelope: &envelope,
        extents: &extents,
        tail,
        states,
    };
    let mut out = vec![0xff; RECORD_HEADER + commit_bytes(&envelope, 2).unwrap()];
    let written = Pen::new(&mut out, 0, SEED).commit(&commit);
    assert_eq!((written.at, written.bytes), (0, out.len()), "the size was reckoned rightly");
    out
}

fn outcome_record() -> Vec<u8> {
    let mut out = vec![0xff; RECORD_HEADER + outcome_bytes(&outcomes())];
    let written = Pen::new(&mut out, 0, SEED).outcomes(42, &outcomes());
    assert_eq!(written.bytes, out.len());
    out
}

fn extent_record() -> Vec<u8> {
    let mut out = vec![0xff; RECORD_HEADER + EXTENT_HEAD + 5];
    Pen::new(&mut out, 0, SEED).extent(42, 10, b"hello");
    out
}

#[test]
fn a_commit_survives_the_disk() {
    let bytes = commit_record(&[RecipientState::NEW, RecipientState { attempts: 3, ..RecipientState::NEW }]);
    let Record::Commit(view) = read_record(SEED, &bytes).unwrap().record else { panic!("a commit") };
    assert_eq!(view.envelope(), envelope());
    assert_eq!(view.people().map(|(_, state)| state.attempts).collect::<Vec<_>>(), [0, 3]);
    assert_eq!((view.id, view.content_bytes, view.recipients), (42, 15, 2));
    assert_eq!(view.flags, ContentFlags { eight_bit: false, dot_lines: true });
    assert_eq!(view.extents().map(|e| (e.segment, e.octets)).collect::<Vec<_>>(), [(3, 10), (4, 5)]);
}

#[test]
fn every_state_survives_the_disk() {
    use RecipientStatus::*;
    for status in [Waiting, Delivered, Bounced, Expired, Deleted, Moved] {
        for (notified, held) in [(false, false), (true, false), (false, true), (true, true)] {
            let state = RecipientState { status, attempts: 9, notified, held };
            let bytes = commit_record(&[state, RecipientState::NEW]);
            let Record::Commit(view) = read_record(SEED, &bytes).unwrap().record else { panic!("a commit") };
            assert_eq!(
                view.people().map(|(_, state)| state).collect::<Vec<_>>(),
                [state, RecipientState::NEW]
            );
        }
    }
}

#[test]
fn outcomes_change_states_as_their_kinds_say() {
    use OutcomeKind::*;
    use RecipientStatus as Is;
    let state = |status, attempts, held| RecipientState { status, attempts, notified: attempts == 7, held };
    let (waits, held) = (state(Is::Waiting, 3, false), state(Is::Waiting, 3, true));
    let table = [
        (waits, Delivered, state(Is::Delivered, 7, false)),
        (held, Delivered, state(Is::Delivered, 7, false)),
        (waits, Deferred, state(Is::Waiting, 7, false)),
        (held, Deferred, state(Is::Waiting, 7, true)),
        (held, Bounced, state(Is::Bounced, 7, false)),
        (held, Expired, state(Is::Expired, 7, false)),
        (waits, Held, held),
        (held, Held, held),
        (held, Released, waits),
        (waits, Released, waits),
        (held, Rerouted, held),
        (held, Deleted, state(Is::Deleted, 7, false)),
        (waits, Moved, state(Is::Moved, 7, false)),
    ];
    for (before, kind, after) in table {
        let outcome =
            Outcome { recipient: 0, kind, attempts: 7, notified: true, at_micros: 0, text: "".into() };
        assert_eq!(outcome.applied_to(before), after, "{before:?} {kind:?}");
        assert_eq!(kind.finishes(), after.is_finished());
        let finished = state(Is::Bounced, 1, false);
        assert_eq!(outcome.applied_to(finished), finished, "{kind:?}");
    }
}

#[test]
fn outcomes_survive_the_disk_and_long_texts_are_cut_between_characters() {
    let bytes = outcome_record();
    let Record::Outcome(view) = read_record(SEED, &bytes).unwrap().record else { panic!("an outcome") };
    assert_eq!(view.entries().collect::<Vec<_>>(), outcomes());

    let long = vec![Outcome { text: "ü".repeat(OUTCOME_TEXT_MAX), ..outcomes()[0].clone() }];
    let mut out = vec![0; RECORD_HEADER + outcome_bytes(&long)];
    Pen::new(&mut out, 0, SEED).outcomes(1, &long);
    let Record::Outcome(view) = read_record(SEED, &out).unwrap().record else { panic!("an outcome") };
    assert_eq!(view.entries().next().unwrap().text, "ü".repeat(OUTCOME_TEXT_MAX / 2));
}

#[test]
fn extents_and_seals_survive_the_disk() {
    let bytes = extent_record();
    let found = read_record(SEED, &bytes).unwrap();
    assert!(matches!(found.record, Record::Extent { id: 42, offset: 10, octets: b"hello" }));
    for seal in [Seal::Full, Seal::Cut, Seal::Closed] {
        let mut out = [0xff; SEAL_RECORD];
        Pen::new(&mut out, 0, SEED).seal(seal, (4096, 8192));
        assert!(matches!(read_record(SEED, &out).unwrap().record, Record::Seal));
    }
}

/// A commit record with every attribute.
fn asking_record() -> Vec<u8> {
    let envelope = &crate::tests::parameters::envelopes()[0];
    let commit = CommitToWrite {
        id: 42,
        content_bytes: 0,
        flags: ContentFlags::default(),
        envelope,
        extents: &[],
        tail: None,
        states: &[],
    };
    let mut out = vec![0xff; RECORD_HEADER + commit_bytes(envelope, 0).unwrap()];
    assert_eq!(Pen::new(&mut out, 0, SEED).commit(&commit).bytes, out.len());
    out
}

#[test]
fn every_kind_of_parameter_survives_the_disk() {
    let bytes = asking_record();
    let Record::Commit(view) = read_record(SEED, &bytes).unwrap().record else { panic!("a commit") };
    let envelope = &crate::tests::parameters::envelopes()[0];
    assert_eq!((view.envelope(), view.schedule()), (Envelope::clone(envelope), envelope.schedule()));
    assert_eq!(view.unknown_attributes(), 0);
}

#[test]
fn every_truncation_and_every_flipped_bit_is_noticed() {
    for bytes in [commit_record(&[]), asking_record(), outcome_record(), extent_record()] {
        for end in 0..bytes.len() {
            assert!(read_record(SEED, &bytes[..end]).is_err(), "cut at {end}");
        }
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert!(read_record(SEED, &bad).is_err(), "bit {at}");
        }
        assert!(read_record(SEED + 1, &bytes).is_err(), "another life of the segment");
    }
}

#[test]
fn payloads_that_sum_rightly_but_lie_never_panic() {
    for bytes in [commit_record(&[]), asking_record(), outcome_record(), extent_record()] {
        for at in 0..bytes.len() - RECORD_HEADER {
            for value in [0, 1, 0x7f, 0xff] {
                let mut payload = bytes[RECORD_HEADER..].to_vec();
                payload[at] = value;
                let mut out = vec![0; RECORD_HEADER + payload.len()];
                Pen::new(&mut out, 0, SEED).record(bytes[4], |pen| pen.bytes(&payload));
                if let Ok(Found { record: Record::Commit(view), .. }) = read_record(SEED, &out) {
                    assert_eq!(view.envelope().recipients.len(), view.recipients as usize);
                }
            }
        }
    }
}

#[test]
fn unknown_types_attributes_and_kinds_are_stepped_over() {
    let mut out = [0; RECORD_HEADER + 3];
    Pen::new(&mut out, 0, SEED).record(200, |pen| pen.bytes(b"new"));
    assert!(matches!(read_record(SEED, &out).unwrap().record, Record::Unknown));

    let mut payload = commit_record(&[])[RECORD_HEADER..].to_vec();
    payload.extend([9, 0, 3, 0, 0, 0, b'x', b'y', b'z']);
    let mut out = vec![0; RECORD_HEADER + payload.len()];
    Pen::new(&mut out, 0, SEED).record(TYPE_COMMIT, |pen| pen.bytes(&payload));
    let Record::Commit(view) = read_record(SEED, &out).unwrap().record else { panic!("a commit") };
    assert_eq!((view.unknown_attributes(), view.envelope()), (1, envelope()));

    let mut payload = outcome_record()[RECORD_HEADER..].to_vec();
    payload[12 + 4] = 99;
    let mut out = vec![0; RECORD_HEADER + payload.len()];
    Pen::new(&mut out, 0, SEED).record(TYPE_OUTCOME, |pen| pen.bytes(&payload));
    let Record::Outcome(view) = read_record(SEED, &out).unwrap().record else { panic!("an outcome") };
    assert_eq!((view.unknown_entries, view.entries().count()), (1, 8));
}

#[test]
fn a_text_that_does_not_fit_its_field_is_refused() {
    let long = Envelope { helo: "x".repeat(65536), ..envelope() };
    assert_eq!(commit_bytes(&long, 0), None);
}
