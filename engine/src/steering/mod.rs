//! Steering the queue: which recipients of which waiting messages an administrator means, what is to be
//! done with them, and how that is counted.
//!
//! Pure, and free of the spool's types but for ids and states: a [`Subject`] and its [`Part`]s are what the
//! index in memory knows of a message, so a condition never needs the disk. The async rim is
//! `intake::steer` (who records) and `delivery::steer` (who lets go of what it has).
//!
//! A change concerns recipients, not messages: a message of which only some recipients match stays as it is
//! for the others. Each recipient that matches ends in exactly one count of the [`Answer`].

mod action;
mod condition;
mod hops;
mod pattern;
mod summary;
mod targets;

pub use action::{Action, Answer, Count, Decision, Destination, Request, decide};
pub use condition::{Condition, IDS_MAX, State};
pub use hops::HopNames;
pub use pattern::Pattern;
pub use summary::{AGES_MINUTES, HopRow, HopTrouble, ShapeRow, Summary, SummaryOptions, Tally};
pub use targets::{Targets, Which};

use sluice_queue::{QueueId, RecipientState, Schedule};

/// What the index knows of one waiting message.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub id: QueueId,
    /// Microseconds since 1970.
    pub arrived_micros: u64,
    pub content_bytes: u64,
    /// Empty is the null reverse-path.
    pub sender: &'a str,
    /// Set aside: not all of its octets can be read.
    pub damaged: bool,
    /// When it is tried, as far as that is not the same for every message.
    pub schedule: Schedule,
}

/// What the index knows of one recipient of it.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    pub address: &'a str,
    pub state: RecipientState,
    /// Where it goes instead of by its domain's route.
    pub via: Option<&'a str>,
    /// Why it is still here; `None` before the first attempt.
    pub reason: Option<&'a str>,
}

impl Part<'_> {
    pub fn domain(&self) -> &str {
        domain_of(self.address)
    }

    /// `None` for a recipient that is finished.
    pub fn standing(&self) -> Option<State> {
        match self.state {
            state if state.is_finished() => None,
            state if state.held => Some(State::Held),
            state if state.attempts > 0 || self.reason.is_some() => Some(State::Deferred),
            _ => Some(State::Queued),
        }
    }
}

/// Behind the last `@`; empty for the null reverse-path and for `postmaster` without a domain.
pub fn domain_of(address: &str) -> &str {
    address.rsplit_once('@').map_or("", |(_, domain)| domain)
}
