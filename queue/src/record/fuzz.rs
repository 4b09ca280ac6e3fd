//! Records from octets that nobody vouches for: never a panic, and what a payload says it says again when it
//! is written and read once more. The first octet is the type; the payload's checksum is made to fit.

use super::*;

const SEED: u32 = 77;

pub fn check(input: &[u8]) {
    let _ = read_record(SEED, input).map(|found| found.bytes);
    let _ = id_in(input);
    let Some((&kind, payload)) = input.split_first() else { return };
    let mut bytes = vec![0; RECORD_HEADER + payload.len()];
    Pen::new(&mut bytes, 0, SEED).record(kind, |pen| pen.bytes(payload));
    let Ok(found) = read_record(SEED, &bytes) else { return };
    assert_eq!((found.bytes, found.at), (bytes.len(), 0));
    match found.record {
        Record::Commit(view) => {
            let once = commit_again(&view);
            let Some(once) = once else { return };
            let found = read_record(SEED, &once).expect("what was just written");
            let Record::Commit(again) = found.record else { panic!("a commit") };
            assert_eq!((view.id, view.envelope()), (again.id, again.envelope()));
            assert_eq!((view.content_bytes, view.flags), (again.content_bytes, again.flags));
            assert!(view.extents().eq(again.extents()) && view.people().eq(again.people()));
        }
        Record::Outcome(view) => {
            let entries: Vec<Outcome> = view.entries().collect();
            assert!(view.kinds().eq(entries.iter().map(|entry| (entry.recipient, entry.kind))));
            let once = outcomes_again(view.id, &entries);
            let found = read_record(SEED, &once).expect("what was just written");
            let Record::Outcome(again) = found.record else { panic!("an outcome") };
            let again: Vec<Outcome> = again.entries().collect();
            assert_eq!(outcomes_again(view.id, &again), once);
        }
        Record::Index(view) => assert!(view.entries().count() <= payload.len()),
        Record::Ancestry(ancestry) => {
            assert_eq!(Ancestry::decode(&ancestry.encode()), Some(ancestry));
        }
        Record::Extent { octets, .. } => assert!(octets.len() <= payload.len()),
        Record::Seal | Record::Unknown => {}
    }
}

/// `None` when a text does not fit its field.
fn commit_again(view: &CommitView<'_>) -> Option<Vec<u8>> {
    let (envelope, extents): (_, Vec<ExtentAt>) = (view.envelope(), view.extents().collect());
    let states: Vec<_> = view.people().map(|(_, state)| state).collect();
    let mut bytes = vec![0; RECORD_HEADER + commit_bytes(&envelope, extents.len())?];
    let (id, content_bytes, flags) = (view.id, view.content_bytes, view.flags);
    let commit = CommitToWrite {
        id,
        content_bytes,
        flags,
        envelope: &envelope,
        extents: &extents,
        tail: None,
        states: &states,
    };
    Pen::new(&mut bytes, 0, SEED).commit(&commit);
    Some(bytes)
}

fn outcomes_again(id: u64, entries: &[Outcome]) -> Vec<u8> {
    let mut bytes = vec![0; RECORD_HEADER + outcome_bytes(entries)];
    Pen::new(&mut bytes, 0, SEED).outcomes(id, entries);
    bytes
}
