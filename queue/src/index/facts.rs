//! What steering and listing see of a message without a read from disk. Borrows from the index.

use super::Index;
use super::entry::{Entry, Place};
use super::shelf::{Chunk, Slot};
use crate::envelope::RecipientState;
use crate::id::QueueId;
use crate::parameters::Schedule;
use crate::reading::Reason;
use crate::record::{ContentFlags, OutcomeKind};

/// One message of a spool that is not finished.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    pub(super) chunk: &'a Chunk,
    pub(super) slot: &'a Slot,
    pub(super) index: &'a Index,
    pub(super) damaged: bool,
}

/// One recipient of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecipientFacts<'a> {
    /// Its place in the envelope, which is its name in outcomes.
    pub index: u32,
    pub address: &'a str,
    pub state: RecipientState,
    /// Where it goes instead of by its domain's route: `HOST:PORT` or `mx:DOMAIN`.
    pub via: Option<&'a str>,
    /// The text of the last outcome; `None` also when it is only on disk.
    pub reason: Option<&'a str>,
    /// There is a reason, but it found no room in memory: [`crate::Spool::load`] reads it.
    pub reason_on_disk: bool,
    /// What kind of outcome the reason is of.
    pub kind: Option<OutcomeKind>,
    /// Microseconds since 1970 of the last attempt, where the reason is of one.
    pub tried_micros: Option<u64>,
}

impl<'a> Facts<'a> {
    pub fn id(&self) -> QueueId {
        self.slot.id
    }

    /// Microseconds since 1970.
    pub fn arrived_micros(&self) -> u64 {
        self.slot.arrived_micros
    }

    pub fn content_bytes(&self) -> u64 {
        self.slot.entry.content_bytes
    }

    pub fn flags(&self) -> ContentFlags {
        ContentFlags::from_bits(self.slot.flags)
    }

    /// The reverse-path; empty is the null one.
    pub fn sender(&self) -> &'a str {
        &self.chunk.text(self.slot)[..self.slot.sender_bytes as usize]
    }

    pub fn recipients_count(&self) -> u32 {
        self.slot.recipients
    }

    /// Recipients that are still waiting.
    pub fn unfinished(&self) -> u32 {
        self.slot.unfinished
    }

    /// Its octets are not all readable: it is shown, and never delivered.
    pub fn damaged(&self) -> bool {
        self.damaged
    }

    /// All recipients in their order, the finished too.
    pub fn recipients(&self) -> impl Iterator<Item = RecipientFacts<'a>> + use<'a> {
        let Self { chunk, slot, index: Index { texts, .. }, .. } = *self;
        let mut rest = &chunk.text(slot)[slot.sender_bytes as usize..];
        chunk.standings(slot).iter().zip(0..).map(move |(standing, index)| {
            let (address, behind) = rest.split_at(standing.address_bytes as usize);
            rest = behind;
            let last = standing.last();
            let text = last.and_then(|last| last.text).map(|text| texts.get(text));
            RecipientFacts {
                index,
                address,
                state: standing.state(),
                via: slot.entry.via(index).map(|via| texts.get(via)),
                reason: text,
                reason_on_disk: last.is_some() && text.is_none(),
                kind: last.map(|last| last.kind),
                tried_micros: last.filter(|last| !last.kind.steers()).map(|last| last.at_micros),
            }
        })
    }

    /// When it is to be tried, as far as that is not the same for every message.
    pub fn schedule(&self) -> Schedule {
        self.index.schedules.get(&self.slot.id).copied().unwrap_or_default()
    }

    pub(crate) fn entry(&self) -> &'a Entry {
        &self.slot.entry
    }

    pub(crate) fn states(&self) -> Vec<RecipientState> {
        self.chunk.standings(self.slot).iter().map(|standing| standing.state()).collect()
    }

    pub(crate) fn vias(&self) -> Vec<(u32, Box<str>)> {
        let vias = self.slot.entry.detail.as_ref().map_or(&[][..], |detail| &detail.vias);
        vias.iter().map(|(at, via)| (*at, self.index.texts.get(*via).into())).collect()
    }

    /// Per recipient: the reason, or where it lies.
    pub(crate) fn reasons(&self) -> (Vec<Option<Reason>>, Vec<Option<Place>>) {
        let standings = self.chunk.standings(self.slot).iter().zip(0..);
        let reason = |(standing, at): (&super::standing::Standing, u32)| {
            let last = standing.last();
            let here = last.and_then(|last| {
                let text = self.index.texts.get(last.text?).to_owned();
                Some(Reason { kind: last.kind, at_micros: last.at_micros, text })
            });
            (here, self.slot.entry.reason_place(at).cloned())
        };
        standings.map(reason).unzip()
    }
}
