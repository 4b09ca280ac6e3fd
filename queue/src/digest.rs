//! What a segment will mean to a start: gathered record by record, written as its index when it is sealed.
//!
//! Pure; lives beside the segment that is being written, on the spool's shard. It is a function of the
//! segment's own records and of its id floor, and knows nothing of other segments. The rule by which a
//! start from indexes comes to the same as one from the records:
//!
//! - A commit record is kept, and the outcomes behind it; what was before it in this segment is replaced.
//! - A message that was committed and finished here leaves nothing, if no earlier segment can have a commit
//!   record of it: its id is above the floor, below which are all ids given out before. Else it leaves that
//!   it ended.
//! - Outcomes of messages committed elsewhere are kept, in their order. Of two deferrals of the same
//!   recipients, one after the other, the later one says all.
//! - When the writer knows that such a message is finished by them, it leaves that it ended.
//!
//! - What ancestry records say is joined, as a start joins it.
//!
//! No index is made of a segment in which something is damaged or not known to this version: who reads it
//! again shall see that again.

use crate::ancestry::Ancestry;
use crate::id::QueueId;
use crate::layout::{BATCH_HEADER, BLOCK, BatchHeader};
use crate::record::{
    At, CommitView, ENTRY_HEAD, Found, Noted, OutcomeKind, OutcomeView, RECORD_HEADER, Record, index_bytes,
    read_laid_out,
};
use std::collections::BTreeMap;

/// Octets of entries after which a record of the index is closed: so that laying one out takes well below a
/// millisecond. Prevents: a shard that stands still while a segment is sealed.
pub(crate) const PART_BYTES: usize = 256 << 10;
/// Octets of entries beyond which a segment goes without an index. Prevents: memory by segment size.
pub(crate) const INDEX_BYTES_MAX: usize = 64 << 20;

/// Octets on disk, at most, of an index with these octets of entries.
pub(crate) fn disk_bytes_max(entries: usize) -> usize {
    match entries {
        0 => 0,
        // One part.
        1..PART_BYTES => part_bytes(entries).1,
        // Each but the last is as long as that, and wastes less than a block.
        _ => entries + (entries / PART_BYTES + 1) * (part_bytes(0).1 + BLOCK),
    }
}

/// The most by which a batch with records of these octets adds to the entries.
pub(crate) fn growth_max(records: usize, octets: usize) -> usize {
    octets + records * ENTRY_HEAD
}

#[derive(Debug)]
pub(crate) struct Digest {
    /// The segment's: all ids given out before it have at most these microseconds.
    id_floor: u64,
    messages: BTreeMap<u64, Gathered>,
    /// What its ancestry records say together, and the octets of the entry for it.
    ancestry: Option<(Ancestry, usize)>,
    entry_bytes: usize,
    pub batches: u64,
    pub records: u64,
    pub id_micros: u64,
    unknown: bool,
}

/// What is kept of one message.
#[derive(Debug, Default)]
struct Gathered {
    /// Its entries, as they will be written.
    octets: Vec<u8>,
    count: u32,
    /// Of the commit record that is here.
    open: Option<Open>,
    /// Where the last entry starts, when it is of nothing but deferrals, and whose.
    deferrals: Option<(usize, Box<[u32]>)>,
    ended: bool,
}

/// Recipients of a message that are not finished.
#[derive(Debug)]
struct Open {
    count: u32,
    /// By recipient; empty when there is one only.
    finished: Box<[bool]>,
}

impl Open {
    fn of(commit: &CommitView<'_>) -> Self {
        let finished: Box<[bool]> = match commit.recipients {
            1 => Box::default(),
            _ => commit.people().map(|(_, state)| state.is_finished()).collect(),
        };
        let count = commit.people().filter(|(_, state)| !state.is_finished()).count() as u32;
        Self { count, finished }
    }

    fn finish(&mut self, recipient: u32) {
        let open = match self.finished.get_mut(recipient as usize) {
            Some(finished) => !std::mem::replace(finished, true),
            None => self.finished.is_empty() && recipient == 0,
        };
        self.count = self.count.saturating_sub(open as u32);
    }
}

impl Digest {
    pub fn new(id_floor: u64) -> Self {
        Self {
            id_floor,
            messages: BTreeMap::new(),
            ancestry: None,
            entry_bytes: 0,
            batches: 0,
            records: 0,
            id_micros: 0,
            unknown: false,
        }
    }

    /// Octets of all entries.
    pub fn entry_bytes(&self) -> usize {
        self.entry_bytes
    }

    /// Whether an index may be made of this.
    pub fn is_sound(&self) -> bool {
        !self.unknown && self.entry_bytes <= INDEX_BYTES_MAX
    }

    /// Takes a batch that this program has laid out, and that will lie at `position`.
    pub fn batch(&mut self, position: u64, batch: &[u8], payload_bytes: usize) {
        self.batches += 1;
        let end = BATCH_HEADER + payload_bytes;
        let mut at = BATCH_HEADER;
        while at < end {
            let Some(found) = read_laid_out(&batch[at..end]) else {
                // What cannot be read back will not be found by a start either; it shall say so.
                self.unknown = true;
                return;
            };
            let bytes = found.bytes;
            self.record((position + at as u64) as u32, &found, &batch[at..at + bytes]);
            at += bytes;
        }
    }

    /// `record`: its octets, with its header; `position`: where it lies in the segment.
    pub fn record(&mut self, position: u32, found: &Found<'_>, record: &[u8]) {
        self.records += 1;
        let at = At { position, bytes: found.bytes as u32 };
        match &found.record {
            Record::Extent { id, .. } => self.seen(*id),
            Record::Commit(commit) => self.commit(at, commit),
            Record::Outcome(outcome) => self.outcome(at, outcome, &record[RECORD_HEADER..]),
            Record::Ancestry(said) => self.ancestry(said),
            Record::Seal | Record::Index(_) => {}
            Record::Unknown => self.unknown = true,
        }
    }

    fn seen(&mut self, id: u64) {
        self.id_micros = self.id_micros.max(QueueId::from_bits(id).micros());
    }

    fn ancestry(&mut self, said: &Ancestry) {
        let (mut all, bytes) = self.ancestry.take().unwrap_or_default();
        all.merge(said);
        let now = ENTRY_HEAD + all.encoded_len();
        self.entry_bytes = self.entry_bytes + now - bytes;
        self.ancestry = Some((all, now));
    }

    fn commit(&mut self, at: At, commit: &CommitView<'_>) {
        self.seen(commit.id);
        self.unknown |= commit.unknown_attributes() > 0;
        let mut gathered = Gathered { count: 1, open: Some(Open::of(commit)), ..Gathered::default() };
        Noted::put_commit(&mut gathered.octets, at, commit);
        self.entry_bytes += gathered.octets.len();
        if let Some(replaced) = self.messages.insert(commit.id, gathered) {
            self.entry_bytes -= replaced.octets.len();
        }
        self.settle(commit.id);
    }

    fn outcome(&mut self, at: At, outcome: &OutcomeView<'_>, payload: &[u8]) {
        self.seen(outcome.id);
        self.unknown |= outcome.unknown_entries > 0;
        let gathered = self.messages.entry(outcome.id).or_default();
        if gathered.ended {
            return;
        }
        let before = gathered.octets.len();
        gathered.add(at, outcome, payload);
        self.entry_bytes = self.entry_bytes + gathered.octets.len() - before;
        self.settle(outcome.id);
    }

    /// A message that was committed here and is finished leaves nothing, or that it ended.
    fn settle(&mut self, id: u64) {
        let finished = |gathered: &Gathered| gathered.open.as_ref().is_some_and(|open| open.count == 0);
        if !self.messages.get(&id).is_some_and(finished) {
            return;
        }
        if QueueId::from_bits(id).micros() <= self.id_floor {
            self.end(id, true);
        } else if let Some(gone) = self.messages.remove(&id) {
            self.entry_bytes -= gone.octets.len();
        }
    }

    /// The outcomes gathered so far have finished the message.
    pub fn ended(&mut self, id: QueueId) {
        let id = id.bits();
        if self.messages.get(&id).is_some_and(|gathered| gathered.open.is_none() && !gathered.ended) {
            self.end(id, false);
        }
    }

    fn end(&mut self, id: u64, here: bool) {
        let mut ended = Gathered { count: 1, ended: true, ..Gathered::default() };
        Noted::put_ended(&mut ended.octets, id, here);
        self.entry_bytes += ended.octets.len();
        if let Some(replaced) = self.messages.insert(id, ended) {
            self.entry_bytes -= replaced.octets.len();
        }
    }

    /// The records of the index: entry counts and entries, in the order of the ids.
    pub fn parts(&self) -> Parts<'_> {
        Parts { ancestry: self.ancestry.as_ref().map(|(all, _)| all), rest: self.messages.values() }
    }
}

impl Gathered {
    fn add(&mut self, at: At, outcome: &OutcomeView<'_>, payload: &[u8]) {
        let deferrals = outcome.kinds().all(|(_, kind)| kind == OutcomeKind::Deferred);
        let whose: Option<Box<[u32]>> = deferrals.then(|| outcome.kinds().map(|(of, _)| of).collect());
        if let (Some((start, of)), Some(whose)) = (&self.deferrals, &whose)
            && of == whose
        {
            self.octets.truncate(*start);
            self.count -= 1;
        }
        self.deferrals = whose.map(|whose| (self.octets.len(), whose));
        Noted::put_outcome(&mut self.octets, at, payload);
        self.count += 1;
        if let Some(open) = &mut self.open {
            let finishing = outcome.kinds().filter(|(_, kind)| kind.finishes());
            finishing.for_each(|(recipient, _)| open.finish(recipient));
        }
    }
}

/// See [`Digest::parts`].
pub(crate) struct Parts<'a> {
    ancestry: Option<&'a Ancestry>,
    rest: std::collections::btree_map::Values<'a, u64, Gathered>,
}

impl Iterator for Parts<'_> {
    type Item = (u32, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        let (mut count, mut entries) = (0, Vec::new());
        if let Some(ancestry) = self.ancestry.take() {
            count += 1;
            Noted::put_ancestry(&mut entries, ancestry);
        }
        for gathered in self.rest.by_ref() {
            count += gathered.count;
            entries.extend_from_slice(&gathered.octets);
            if entries.len() >= PART_BYTES {
                break;
            }
        }
        (count > 0).then_some((count, entries))
    }
}

/// Octets of the batch that holds a part.
pub(crate) fn part_bytes(entries: usize) -> (usize, usize) {
    let payload = RECORD_HEADER + index_bytes(entries);
    (payload, BatchHeader::batch_bytes(payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Body, Envelope, Recipient};
    use crate::record::{
        CommitToWrite, ContentFlags, Outcome, Pen, commit_bytes, outcome_bytes, read_record,
    };

    const FLOOR: u64 = 1000;

    fn id(micros: u64) -> QueueId {
        QueueId::new(micros, crate::SpoolNumber::new(3).unwrap())
    }

    fn commit(digest: &mut Digest, position: u32, id: QueueId, recipients: usize) {
        let envelope = Envelope {
            sender: "a@out.example".into(),
            recipients: vec![Recipient::new("b@in.example"); recipients],
            body: Body::SevenBit,
            arrived_micros: 5,
            listener: "outside".into(),
            helo: "mx.out.example".into(),
            client: "203.0.113.9".into(),
            ..Envelope::default()
        };
        let (extents, tail, states) = (&[][..], None, &[][..]);
        let (id, flags) = (id.bits(), ContentFlags::default());
        let commit =
            CommitToWrite { id, content_bytes: 0, flags, envelope: &envelope, extents, tail, states };
        let mut out = vec![0; RECORD_HEADER + commit_bytes(&envelope, 0).unwrap()];
        Pen::new(&mut out, 0, 1).commit(&commit);
        take(digest, position, &out);
    }

    fn outcomes(digest: &mut Digest, position: u32, id: QueueId, of: &[(u32, OutcomeKind)]) {
        let of = of.iter().map(|&(recipient, kind)| Outcome {
            recipient,
            kind,
            attempts: 1,
            notified: false,
            at_micros: 9,
            text: "450 later".into(),
        });
        let outcomes: Vec<_> = of.collect();
        let mut out = vec![0; RECORD_HEADER + outcome_bytes(&outcomes)];
        Pen::new(&mut out, 0, 1).outcomes(id.bits(), &outcomes);
        take(digest, position, &out);
    }

    fn take(digest: &mut Digest, position: u32, record: &[u8]) {
        let before = digest.entry_bytes();
        digest.record(position, &read_record(1, record).unwrap(), record);
        assert!(digest.entry_bytes() <= before + growth_max(1, record.len()), "the promise was kept");
    }

    /// What the index would say, in short: what, id, position.
    fn said(digest: &Digest) -> Vec<(&'static str, QueueId, u32)> {
        let mut said = Vec::new();
        for (count, entries) in digest.parts() {
            let mut out = vec![0; RECORD_HEADER + index_bytes(entries.len())];
            Pen::new(&mut out, 0, 1).index(0, count, &entries);
            let Record::Index(view) = read_record(1, &out).unwrap().record else { panic!("an index") };
            said.extend(view.entries().map(|noted| match noted.expect("it is whole") {
                Noted::Commit(at, commit) => ("commit", QueueId::from_bits(commit.id), at.position),
                Noted::Outcome(at, outcome) => ("outcome", QueueId::from_bits(outcome.id), at.position),
                Noted::Ended(id) => ("ended", QueueId::from_bits(id), 0),
                Noted::EndedHere(id) => ("ended here", QueueId::from_bits(id), 0),
                Noted::Ancestry(_) => panic!("there was none"),
            }));
        }
        let bytes: usize = digest.parts().map(|(_, entries)| entries.len()).sum();
        assert_eq!(bytes, digest.entry_bytes(), "what was reckoned is what is written");
        said
    }

    #[test]
    fn what_was_committed_and_finished_here_leaves_something_only_if_it_may_be_known_elsewhere() {
        use OutcomeKind::{Bounced, Deferred, Delivered};
        let (old, new) = (id(FLOOR), id(FLOOR + 1));
        let mut digest = Digest::new(FLOOR);
        for of in [old, new] {
            commit(&mut digest, 1, of, 2);
            outcomes(&mut digest, 2, of, &[(0, Delivered), (0, Delivered), (1, Deferred), (7, Bounced)]);
        }
        assert_eq!(
            said(&digest),
            [("commit", old, 1), ("outcome", old, 2), ("commit", new, 1), ("outcome", new, 2)]
        );
        for of in [old, new] {
            outcomes(&mut digest, 3, of, &[(1, Bounced)]);
        }
        assert_eq!(said(&digest), [("ended here", old, 0)]);
    }

    #[test]
    fn a_commit_record_replaces_all_that_was_said_before() {
        let mut digest = Digest::new(FLOOR);
        outcomes(&mut digest, 1, id(5), &[(0, OutcomeKind::Deferred)]);
        commit(&mut digest, 2, id(5), 1);
        outcomes(&mut digest, 3, id(5), &[(0, OutcomeKind::Held)]);
        assert_eq!(said(&digest), [("commit", id(5), 2), ("outcome", id(5), 3)]);
        commit(&mut digest, 4, id(5), 1);
        assert_eq!(said(&digest), [("commit", id(5), 4)]);
    }

    #[test]
    fn of_deferrals_in_a_row_the_last_one_is_kept_and_nothing_else_is_left_out() {
        use OutcomeKind::{Deferred, Held, Released};
        let mut digest = Digest::new(FLOOR);
        type Round<'a> = (&'a [(u32, OutcomeKind)], &'a [u32]);
        let history: [Round<'_>; 7] = [
            (&[(0, Deferred)], &[1]),
            (&[(0, Deferred)], &[2]),
            (&[(0, Deferred), (1, Deferred)], &[2, 3]),
            (&[(0, Deferred), (1, Deferred)], &[2, 4]),
            (&[(0, Held)], &[2, 4, 5]),
            (&[(0, Deferred)], &[2, 4, 5, 6]),
            (&[(0, Released)], &[2, 4, 5, 6, 7]),
        ];
        for ((of, kept), position) in history.into_iter().zip(1..) {
            outcomes(&mut digest, position, id(5), of);
            assert_eq!(said(&digest).iter().map(|(.., at)| *at).collect::<Vec<_>>(), kept);
        }
        digest.ended(id(5));
        assert_eq!(said(&digest), [("ended", id(5), 0)]);
    }

    #[test]
    fn an_index_of_any_size_fits_in_what_is_kept_free_for_it() {
        for entries in [0, 1, 3900, 4096, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 10 * PART_BYTES + 7] {
            let full = (0..entries / PART_BYTES).map(|_| part_bytes(PART_BYTES).1);
            let rest = entries % PART_BYTES;
            let rest = if rest > 0 { part_bytes(rest).1 } else { 0 };
            assert!(full.sum::<usize>() + rest <= disk_bytes_max(entries), "{entries}");
        }
    }
}
