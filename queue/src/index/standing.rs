//! Where one recipient stands, in 16 octets. Pure data; part of the index of a spool.

use super::texts::Symbol;
use crate::envelope::{RecipientState, RecipientStatus};
use crate::record::{Outcome, OutcomeKind};

/// Packed: bits 0 to 2 status, 3 notified, 4 held, 5 to 8 kind of the reason (0: none), 9 to 63 its time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    packed: u64,
    reason: Symbol,
    attempts: u16,
    pub address_bytes: u16,
}

const _: () = assert!(size_of::<Standing>() == 16);

const STATUS: u64 = 0b111;
const NOTIFIED: u64 = 1 << 3;
const HELD: u64 = 1 << 4;
const STATE: u64 = STATUS | NOTIFIED | HELD;
const KIND_AT: u32 = 5;
const KIND: u64 = 0xf << KIND_AT;
const TIME_AT: u32 = 9;
/// Later times count as this one: the year 3111.
const TIME_MAX: u64 = u64::MAX >> TIME_AT;
/// Instead of a symbol: the text found no room in memory.
const ON_DISK: Symbol = Symbol(u32::MAX);

/// The last outcome of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Last {
    pub kind: OutcomeKind,
    pub at_micros: u64,
    /// `None`: only on disk.
    pub text: Option<Symbol>,
}

impl Last {
    pub fn of(outcome: &Outcome, text: Option<Symbol>) -> Self {
        Self { kind: outcome.kind, at_micros: outcome.at_micros.min(TIME_MAX), text }
    }
}

impl Standing {
    pub fn new(state: RecipientState, address_bytes: u16) -> Self {
        let mut standing = Self { packed: 0, reason: Symbol::EMPTY, attempts: 0, address_bytes };
        standing.set_state(state);
        standing
    }

    pub fn state(&self) -> RecipientState {
        let status = RecipientStatus::of((self.packed & STATUS) as u8);
        RecipientState {
            status: status.expect("only states are packed"),
            attempts: self.attempts,
            notified: self.packed & NOTIFIED != 0,
            held: self.packed & HELD != 0,
        }
    }

    pub fn set_state(&mut self, state: RecipientState) {
        let flags = (state.notified as u64 * NOTIFIED) | (state.held as u64 * HELD);
        self.packed = (self.packed & !STATE) | state.status.code() as u64 | flags;
        self.attempts = state.attempts;
    }

    pub fn last(&self) -> Option<Last> {
        let kind = OutcomeKind::of(((self.packed & KIND) >> KIND_AT) as u8)?;
        let text = (self.reason != ON_DISK).then_some(self.reason);
        Some(Last { kind, at_micros: self.packed >> TIME_AT, text })
    }

    /// Gives the symbol that it does not use any more.
    pub fn set_last(&mut self, last: Option<Last>) -> Symbol {
        let before = self.last().and_then(|last| last.text).unwrap_or(Symbol::EMPTY);
        self.packed &= STATE;
        self.reason = Symbol::EMPTY;
        if let Some(Last { kind, at_micros, text }) = last {
            self.packed |= ((kind.code() as u64) << KIND_AT) | (at_micros.min(TIME_MAX) << TIME_AT);
            self.reason = text.unwrap_or(ON_DISK);
        }
        before
    }
}

const _: () = assert!(RecipientStatus::CODE_MAX as u64 <= STATUS);
const _: () = assert!((OutcomeKind::CODE_MAX as u64) << KIND_AT <= KIND);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_and_reason_are_packed_without_touching_each_other() {
        for code in 0..=RecipientStatus::CODE_MAX {
            for kind in (0..=OutcomeKind::CODE_MAX).map(OutcomeKind::of) {
                for flags in 0..4 {
                    let (notified, held) = (flags & 1 != 0, flags & 2 != 0);
                    let status = RecipientStatus::of(code).unwrap();
                    let state = RecipientState { status, attempts: 65_535, notified, held };
                    let last = kind.map(|kind| Last {
                        kind,
                        at_micros: 1_795_000_000_000_000,
                        text: (flags != 1).then_some(Symbol(7)),
                    });
                    let mut standing = Standing::new(RecipientState::NEW, 5);
                    assert_eq!(standing.set_last(last), Symbol::EMPTY);
                    standing.set_state(state);
                    assert_eq!((standing.state(), standing.last()), (state, last));
                    let kept = last.and_then(|last| last.text).unwrap_or(Symbol::EMPTY);
                    assert_eq!(standing.set_last(None), kept);
                    assert_eq!((standing.state(), standing.last()), (state, None));
                }
            }
        }
    }
}
