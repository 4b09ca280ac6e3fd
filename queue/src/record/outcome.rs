//! The outcome record: what became of recipients. Byte table in the parent module's head.

use super::{Cursor, Pen};
use crate::envelope::{RecipientState, RecipientStatus};

const FIXED: usize = 8 + 4;
const ENTRY: usize = 4 + 1 + 2 + 1 + 8 + 2;
const _: () = assert!(FIXED == 12 && ENTRY == 18);

/// Octets of the text of an outcome that are kept: so that a peer's long reply does not fill the spool.
pub const OUTCOME_TEXT_MAX: usize = 512;

/// What happened to one recipient of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its index in the envelope.
    pub recipient: u32,
    pub kind: OutcomeKind,
    /// Finished attempts that ended in a deferral, with this one. Means nothing where the kind leaves the
    /// state of attempts alone ([`OutcomeKind::steers`]).
    pub attempts: u16,
    /// A delay notice has been sent to the sender. Means nothing where `attempts` does not.
    pub notified: bool,
    /// Microseconds since 1970.
    pub at_micros: u64,
    /// The reason, for people, but for two kinds that say what it is; what is past [`OUTCOME_TEXT_MAX`]
    /// octets is cut.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeKind {
    Delivered,
    /// An attempt failed for now. Who is held stays so.
    Deferred,
    Bounced,
    Expired,
    /// Not to be tried until released. A text is the reason from now on; without one the last stays.
    Held,
    /// To be tried again.
    Released,
    /// The text is where to: `HOST:PORT` or `mx:DOMAIN`; empty is back to the route of its domain.
    Rerouted,
    /// Finished, and nobody is told.
    Deleted,
    /// Finished here. The text is the queue id that it has in the spool where it lives on.
    Moved,
}

/// The highest code of a kind.
pub(super) const KINDS: u8 = OutcomeKind::ALL.len() as u8;

impl OutcomeKind {
    const ALL: [Self; 9] = [
        Self::Delivered,
        Self::Deferred,
        Self::Bounced,
        Self::Expired,
        Self::Held,
        Self::Released,
        Self::Rerouted,
        Self::Deleted,
        Self::Moved,
    ];

    /// Whether the recipient is finished by it.
    pub fn finishes(self) -> bool {
        !matches!(self, Self::Deferred) && !self.steers()
    }

    /// Says how a recipient that waits is to be treated, and nothing of an attempt.
    pub fn steers(self) -> bool {
        matches!(self, Self::Held | Self::Released | Self::Rerouted)
    }

    pub(crate) const CODE_MAX: u8 = 9;

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Delivered => 1,
            Self::Deferred => 2,
            Self::Bounced => 3,
            Self::Expired => 4,
            Self::Held => 5,
            Self::Released => 6,
            Self::Rerouted => 7,
            Self::Deleted => 8,
            Self::Moved => 9,
        }
    }

    pub(crate) fn of(code: u8) -> Option<Self> {
        Self::ALL.get((code as usize).checked_sub(1)?).copied()
    }
}

impl Outcome {
    /// Where the recipient stands after this. Whoever is finished stays so.
    pub fn applied_to(&self, before: RecipientState) -> RecipientState {
        if before.is_finished() {
            return before;
        }
        let status = match self.kind {
            OutcomeKind::Held => return RecipientState { held: true, ..before },
            OutcomeKind::Released => return RecipientState { held: false, ..before },
            OutcomeKind::Rerouted => return before,
            OutcomeKind::Deferred => RecipientStatus::Waiting,
            OutcomeKind::Delivered => RecipientStatus::Delivered,
            OutcomeKind::Bounced => RecipientStatus::Bounced,
            OutcomeKind::Expired => RecipientStatus::Expired,
            OutcomeKind::Deleted => RecipientStatus::Deleted,
            OutcomeKind::Moved => RecipientStatus::Moved,
        };
        let held = before.held && status == RecipientStatus::Waiting;
        RecipientState { status, attempts: self.attempts, notified: self.notified, held }
    }

    /// Whether it says why the recipient stands where it does, from now on.
    pub(crate) fn is_reason(&self) -> bool {
        !self.kind.steers() || (self.kind == OutcomeKind::Held && !self.text.is_empty())
    }

    pub(crate) fn text_kept(&self) -> &str {
        &self.text[..self.text.floor_char_boundary(OUTCOME_TEXT_MAX)]
    }
}

/// Payload octets of the record.
pub(crate) fn outcome_bytes(outcomes: &[Outcome]) -> usize {
    FIXED + outcomes.iter().map(|outcome| ENTRY + outcome.text_kept().len()).sum::<usize>()
}

pub(crate) fn put_outcomes(pen: &mut Pen<'_>, id: u64, outcomes: &[Outcome]) {
    pen.u64(id);
    pen.u32(outcomes.len() as u32);
    for outcome in outcomes {
        let text = outcome.text_kept();
        pen.u32(outcome.recipient);
        pen.u8(outcome.kind.code());
        pen.u16(outcome.attempts);
        pen.u8(outcome.notified as u8);
        pen.u64(outcome.at_micros);
        pen.u16(text.len() as u16);
        pen.bytes(text.as_bytes());
    }
}

/// An outcome record on disk, checked through.
#[derive(Clone, Debug)]
pub(crate) struct OutcomeView<'a> {
    pub id: u64,
    count: u32,
    entries: Cursor<'a>,
    /// Entries whose kind this version does not know.
    pub unknown_entries: u32,
}

impl<'a> OutcomeView<'a> {
    pub(super) fn decode(payload: &'a [u8]) -> Option<Self> {
        let mut rest = Cursor::new(payload);
        let (id, count) = (rest.u64()?, rest.u32()?);
        let entries = rest.clone();
        let mut unknown_entries = 0;
        for _ in 0..count {
            unknown_entries += take_entry(&mut rest)?.is_none() as u32;
        }
        Some(Self { id, count, entries, unknown_entries })
    }

    /// Recipient and kind of each entry.
    pub fn kinds(&self) -> impl Iterator<Item = (u32, OutcomeKind)> + use<'a> {
        let mut rest = self.entries.clone();
        let mut next = move || {
            let (recipient, code) = (rest.u32()?, rest.u8()?);
            rest.take(2 + 1 + 8)?;
            let length = rest.u16()?;
            rest.take(length as usize)?;
            Some(OutcomeKind::of(code).map(|kind| (recipient, kind)))
        };
        (0..self.count).map_while(move |_| next()).flatten()
    }

    pub fn entries(&self) -> impl Iterator<Item = Outcome> + use<'a> {
        let mut rest = self.entries.clone();
        (0..self.count).map_while(move |_| take_entry(&mut rest)).flatten()
    }
}

/// Outer `None`: too short. Inner `None`: of an unknown kind.
fn take_entry(rest: &mut Cursor<'_>) -> Option<Option<Outcome>> {
    let (recipient, code) = (rest.u32()?, rest.u8()?);
    let (attempts, notified, at_micros) = (rest.u16()?, rest.u8()? != 0, rest.u64()?);
    let length = rest.u16()?;
    let text = rest.text(length as usize)?;
    Some(OutcomeKind::of(code).map(|kind| Outcome {
        recipient,
        kind,
        attempts,
        notified,
        at_micros,
        text: text.to_owned(),
    }))
}
