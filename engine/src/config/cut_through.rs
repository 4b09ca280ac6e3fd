//! Cut-through: what a listener asks of the next hop while its client waits, what a route allows, and the answers
//! that are kept.

use std::time::Duration;

use super::document::{At, Section};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// How much of a message is settled with the next hop before the client has its reply. Each contains the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum CutThroughMode {
    /// Nothing: the spool answers for everything.
    #[default]
    Off,
    /// Recipients, at RCPT.
    Recipients,
    /// And the message, at end-of-data.
    Message,
}

/// What becomes of a recipient of whom the next hop does not say in time whether it takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Undecided {
    #[default]
    Accept,
    Defer,
}

/// A route's side of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteCutThrough {
    /// The most that a listener may ask of it. Default off.
    pub mode: CutThroughMode,
    /// How long a client waits. Default 10 s.
    pub wait: Duration,
    pub undecided: Undecided,
}

impl Default for RouteCutThrough {
    fn default() -> Self {
        Self { mode: CutThroughMode::Off, wait: 10 * SECOND, undecided: Undecided::Accept }
    }
}

/// `[cut_through]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutThrough {
    /// How long an answer is kept: 2yz, 5yz, 4yz.
    pub positive_expire: Duration,
    pub negative_expire: Duration,
    pub temporary_expire: Duration,
    /// Answers of each kind that are kept, over all delivery shards.
    pub answers_max: usize,
    /// Larger messages are queued. Default 10 MiB.
    pub message_bytes_max: u64,
    /// Clients that are served at a time at one next hop, over all shards.
    pub connections_max: usize,
}

impl Default for CutThrough {
    fn default() -> Self {
        Self {
            positive_expire: DAY,
            negative_expire: 600 * SECOND,
            temporary_expire: 30 * SECOND,
            answers_max: 100_000,
            message_bytes_max: 10 << 20,
            connections_max: 10,
        }
    }
}

const MODES: [(&str, CutThroughMode); 3] = [
    ("off", CutThroughMode::Off),
    ("recipients", CutThroughMode::Recipients),
    ("message", CutThroughMode::Message),
];

pub(super) fn general(mut section: Section<'_>) -> CutThrough {
    let absent = CutThrough::default();
    let mut time =
        |key, absent| section.duration(key, Duration::ZERO..=60 * DAY).map_or(absent, |at| at.value);
    let (positive_expire, negative_expire, temporary_expire) = (
        time("positive_expire", absent.positive_expire),
        time("negative_expire", absent.negative_expire),
        time("temporary_expire", absent.temporary_expire),
    );
    let message_bytes_max =
        section.size("message_bytes_max", 0..=1 << 32).map_or(absent.message_bytes_max, |at| at.value);
    let mut count =
        |key, range, absent: usize| section.count(key, range).map_or(absent, |at| at.value as usize);
    let cut_through = CutThrough {
        positive_expire,
        negative_expire,
        temporary_expire,
        answers_max: count("answers_max", 0..=10_000_000, absent.answers_max),
        message_bytes_max,
        connections_max: count("connections_max", 1..=10_000, absent.connections_max),
    };
    section.finish();
    cut_through
}

pub(super) fn of_listener(section: &mut Section<'_>) -> Option<At<CutThroughMode>> {
    section.choice("cut_through", &MODES)
}

pub(super) fn of_route(section: &mut Section<'_>) -> RouteCutThrough {
    let absent = RouteCutThrough::default();
    let words = [("accept", Undecided::Accept), ("defer", Undecided::Defer)];
    RouteCutThrough {
        mode: section.choice("cut_through", &MODES).map_or(absent.mode, |at| at.value),
        // Longer than a client waits for the reply to RCPT (RFC 5321 section 4.5.3.2.3) is of no use to anybody.
        wait: section
            .duration("cut_through_wait", SECOND / 10..=240 * SECOND)
            .map_or(absent.wait, |at| at.value),
        undecided: section.choice("cut_through_undecided", &words).map_or(absent.undecided, |at| at.value),
    }
}
