//! Where the index keeps its messages: chunks of entries in the order of their ids, each chunk with the
//! texts and the standings of its messages end to end.
//!
//! Pure data. Ids rise, so nearly every message comes last, and most go soon: the last chunk takes them
//! without an allocation. A chunk behind it is kept tight: rebuilt when a quarter of it is gone, and joined
//! with its neighbour when few are left. (A `BTreeMap` that is filled in order leaves its nodes half empty.)
//!
//! Invariants: chunks and slots rise by id; a chunk's `first` is at most the id of its first slot; only
//! the last chunk may be empty.

use super::entry::Entry;
use super::standing::Standing;
use crate::envelope::RecipientState;
use crate::id::QueueId;
use std::collections::VecDeque;

/// Messages of a chunk that is filled at its end.
const CHUNK_MESSAGES: usize = 128;
/// Messages of a chunk into which others came in between; then it is split.
const CHUNK_MESSAGES_MAX: usize = 2 * CHUNK_MESSAGES;
/// Octets of texts after which a chunk takes no more messages. With the texts of one more commit record
/// places in it fit 32 bits.
const CHUNK_TEXT_MAX: usize = 1 << 20;
/// A chunk with fewer is joined with its neighbour, if both have no more than three times as many.
const CHUNK_MESSAGES_FEW: usize = CHUNK_MESSAGES / 4;
/// Octets of texts of the last chunk that are not worth a rebuild.
const LAST_DEAD_MIN: usize = 16 << 10;

const _: () = assert!(CHUNK_TEXT_MAX as u64 + crate::options::SEGMENT_BYTES_MAX <= u32::MAX as u64);

/// One message. Its texts are the sender and the recipients, end to end.
#[derive(Debug)]
pub(super) struct Slot {
    pub id: QueueId,
    pub entry: Entry,
    pub arrived_micros: u64,
    text_at: u32,
    standings_at: u32,
    pub recipients: u32,
    pub unfinished: u32,
    pub sender_bytes: u16,
    pub flags: u8,
}

const _: () = assert!(size_of::<Slot>() == 72, "a waiting message must stay small");

/// What is needed to enter a message, beside its entry.
pub(super) struct NewSlot<'a> {
    pub arrived_micros: u64,
    pub flags: u8,
    pub sender: &'a str,
}

#[derive(Debug)]
pub(super) struct Chunk {
    first: QueueId,
    slots: Vec<Slot>,
    text: String,
    standings: Vec<Standing>,
    dead_text: usize,
    dead_standings: usize,
}

impl Chunk {
    fn new(first: QueueId) -> Self {
        let (slots, text, standings) = Default::default();
        Self { first, slots, text, standings, dead_text: 0, dead_standings: 0 }
    }

    /// Sender and recipients, end to end.
    pub fn text(&self, slot: &Slot) -> &str {
        &self.text[slot.text_at as usize..]
    }

    pub fn standings(&self, slot: &Slot) -> &[Standing] {
        &self.standings[slot.standings_at as usize..][..slot.recipients as usize]
    }

    fn text_bytes(&self, slot: &Slot) -> usize {
        let recipients = self.standings(slot).iter().map(|standing| standing.address_bytes as usize);
        slot.sender_bytes as usize + recipients.sum::<usize>()
    }

    fn find(&self, id: QueueId) -> Result<usize, usize> {
        match self.slots.last() {
            Some(last) if last.id == id => Ok(self.slots.len() - 1),
            Some(last) if last.id > id => self.slots.binary_search_by_key(&id, |slot| slot.id),
            _ => Err(self.slots.len()),
        }
    }

    fn is_full(&self) -> bool {
        self.slots.len() >= CHUNK_MESSAGES || self.text.len() >= CHUNK_TEXT_MAX
    }

    fn is_crowded(&self) -> bool {
        self.slots.len() >= CHUNK_MESSAGES_MAX || self.text.len() >= CHUNK_TEXT_MAX
    }

    fn insert<'a>(
        &mut self,
        at: usize,
        id: QueueId,
        entry: Entry,
        new: &NewSlot<'_>,
        recipients: impl Iterator<Item = (&'a str, RecipientState)>,
    ) {
        let (text_at, standings_at) = (self.text.len() as u32, self.standings.len());
        self.text.push_str(new.sender);
        let mut unfinished = 0;
        for (address, state) in recipients {
            self.text.push_str(address);
            unfinished += !state.is_finished() as u32;
            self.standings.push(Standing::new(state, address.len() as u16));
        }
        let recipients = (self.standings.len() - standings_at) as u32;
        let slot = Slot {
            id,
            entry,
            arrived_micros: new.arrived_micros,
            text_at,
            standings_at: standings_at as u32,
            recipients,
            unfinished,
            sender_bytes: new.sender.len() as u16,
            flags: new.flags,
        };
        self.slots.insert(at, slot);
    }

    fn remove(&mut self, at: usize) -> Slot {
        self.dead_text += self.text_bytes(&self.slots[at]);
        let slot = self.slots.remove(at);
        self.dead_standings += slot.recipients as usize;
        if self.slots.is_empty() {
            self.text.clear();
            self.standings.clear();
            (self.dead_text, self.dead_standings) = (0, 0);
        }
        slot
    }

    /// Whether a quarter of it is gone.
    fn is_loose(&self) -> bool {
        self.dead_text * 4 > self.text.len() || self.dead_standings * 4 > self.standings.len()
    }

    /// Takes over the messages of `other`, which are behind its own, or before them.
    fn take(&mut self, other: Chunk) {
        let (before, after) = (std::mem::replace(self, Chunk::new(self.first.min(other.first))), other);
        let (before, after) = if before.first < after.first { (before, after) } else { (after, before) };
        let slots = before.slots.len() + after.slots.len();
        let live = |chunk: &Chunk| {
            (chunk.text.len() - chunk.dead_text, chunk.standings.len() - chunk.dead_standings)
        };
        let (text, standings) = (live(&before).0 + live(&after).0, live(&before).1 + live(&after).1);
        self.slots.reserve_exact(slots);
        self.text.reserve_exact(text);
        self.standings.reserve_exact(standings);
        for chunk in [before, after] {
            let Chunk { slots, text, standings, .. } = chunk;
            for slot in slots {
                self.copy(slot, &text, &standings);
            }
        }
    }

    fn copy(&mut self, slot: Slot, text: &str, standings: &[Standing]) {
        let standings = &standings[slot.standings_at as usize..][..slot.recipients as usize];
        let recipients = standings.iter().map(|standing| standing.address_bytes as usize).sum::<usize>();
        let bytes = slot.sender_bytes as usize + recipients;
        let (text_at, standings_at) = (self.text.len() as u32, self.standings.len() as u32);
        self.text.push_str(&text[slot.text_at as usize..][..bytes]);
        self.standings.extend_from_slice(standings);
        self.slots.push(Slot { text_at, standings_at, ..slot });
    }

    /// As small as it can be.
    fn rebuild(&mut self) {
        self.take(Chunk::new(self.first));
    }

    /// Gives away the messages from `at` on.
    fn split(&mut self, at: usize) -> Chunk {
        let (text, standings) = (std::mem::take(&mut self.text), std::mem::take(&mut self.standings));
        let slots = std::mem::take(&mut self.slots);
        let mut behind = Chunk::new(slots[at].id);
        (self.dead_text, self.dead_standings) = (0, 0);
        for (number, slot) in slots.into_iter().enumerate() {
            let to = if number < at { &mut *self } else { &mut behind };
            to.copy(slot, &text, &standings);
        }
        self.tighten();
        behind.tighten();
        behind
    }

    fn tighten(&mut self) {
        self.slots.shrink_to_fit();
        self.text.shrink_to_fit();
        self.standings.shrink_to_fit();
    }
}

/// Where a message is, until something is entered or removed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    chunk: usize,
    at: usize,
}

/// Messages by id.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    chunks: VecDeque<Chunk>,
    messages: usize,
}

impl Shelf {
    pub fn len(&self) -> usize {
        self.messages
    }

    /// The chunk that has the id if any has.
    fn chunk_of(&self, id: QueueId) -> usize {
        match self.chunks.back() {
            Some(last) if last.first <= id => self.chunks.len() - 1,
            _ => self.chunks.partition_point(|chunk| chunk.first <= id).saturating_sub(1),
        }
    }

    pub fn find(&self, id: QueueId) -> Option<Spot> {
        let chunk = self.chunk_of(id);
        Some(Spot { chunk, at: self.chunks.get(chunk)?.find(id).ok()? })
    }

    pub fn contains(&self, id: QueueId) -> bool {
        self.find(id).is_some()
    }

    pub fn get(&self, id: QueueId) -> Option<(&Chunk, &Slot)> {
        let spot = self.find(id)?;
        let chunk = &self.chunks[spot.chunk];
        Some((chunk, &chunk.slots[spot.at]))
    }

    pub fn at_mut(&mut self, spot: Spot) -> (&mut Slot, &mut [Standing]) {
        let Chunk { slots, standings, .. } = &mut self.chunks[spot.chunk];
        let slot = &mut slots[spot.at];
        let standings = &mut standings[slot.standings_at as usize..][..slot.recipients as usize];
        (slot, standings)
    }

    /// The id must not be there.
    pub fn insert<'a>(
        &mut self,
        id: QueueId,
        entry: Entry,
        new: &NewSlot<'_>,
        recipients: impl Iterator<Item = (&'a str, RecipientState)>,
    ) {
        if self.chunks.is_empty() {
            self.chunks.push_back(Chunk::new(id));
        }
        let mut chunk = self.chunk_of(id);
        let mut at = match self.chunks[chunk].find(id) {
            Err(at) => at,
            Ok(_) => unreachable!("{id} is there already"),
        };
        if at < self.chunks[chunk].slots.len() && self.chunks[chunk].is_crowded() {
            let behind = self.chunks[chunk].split(at);
            self.chunks.insert(chunk + 1, behind);
        }
        if at == self.chunks[chunk].slots.len() && self.chunks[chunk].is_full() {
            if self.chunks[chunk].is_loose() {
                self.chunks[chunk].rebuild();
            }
            self.chunks[chunk].tighten();
            (chunk, at) = (chunk + 1, 0);
            self.chunks.insert(chunk, Chunk::new(id));
        }
        let is_last = chunk + 1 == self.chunks.len();
        let into = &mut self.chunks[chunk];
        into.first = into.first.min(id);
        into.insert(at, id, entry, new, recipients);
        if !is_last {
            into.tighten();
        }
        self.messages += 1;
    }

    pub fn remove(&mut self, spot: Spot) -> Slot {
        let Spot { chunk: number, at } = spot;
        let is_last = number + 1 == self.chunks.len();
        let chunk = &mut self.chunks[number];
        let slot = chunk.remove(at);
        self.messages -= 1;
        if is_last {
            if chunk.dead_text > LAST_DEAD_MIN && chunk.dead_text * 4 > chunk.text.len() * 3 {
                chunk.rebuild();
            }
        } else if chunk.slots.is_empty() {
            self.chunks.remove(number);
        } else {
            let joined = chunk.slots.len() < CHUNK_MESSAGES_FEW && self.join(number);
            if !joined && self.chunks[number].is_loose() {
                self.chunks[number].rebuild();
            }
        }
        slot
    }

    /// Joins a chunk with a neighbour that has not too many either; never with the last one.
    fn join(&mut self, number: usize) -> bool {
        let with = [number.checked_sub(1), Some(number + 1)].into_iter().flatten().find(|&with| {
            let few = |chunk: &Chunk| chunk.slots.len() <= 3 * CHUNK_MESSAGES_FEW && !chunk.is_full();
            with + 1 < self.chunks.len() && few(&self.chunks[with])
        });
        let Some(with) = with else { return false };
        let other = self.chunks.remove(number.max(with)).expect("it is there");
        self.chunks[number.min(with)].take(other);
        true
    }

    /// The messages behind `after`, in the order of their ids.
    pub fn iter(&self, after: Option<QueueId>) -> impl Iterator<Item = (&Chunk, &Slot)> {
        let from = after.map_or(0, |id| self.chunk_of(id));
        let chunks = self.chunks.range(from.min(self.chunks.len())..);
        chunks.enumerate().flat_map(move |(number, chunk)| {
            let start = match after {
                Some(after) if number == 0 => chunk.slots.partition_point(|slot| slot.id <= after),
                _ => 0,
            };
            chunk.slots[start..].iter().map(move |slot| (chunk, slot))
        })
    }

    /// Octets of memory, slack included.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        let of = |chunk: &Chunk| {
            chunk.slots.capacity() * size_of::<Slot>()
                + chunk.text.capacity()
                + chunk.standings.capacity() * size_of::<Standing>()
        };
        self.chunks.capacity() * size_of::<Chunk>() + self.chunks.iter().map(of).sum::<usize>()
    }
}
