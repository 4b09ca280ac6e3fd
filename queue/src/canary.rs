//! Deliberate faults, each of which the simulation must find (`tests/simulation/canary.rs`).
//!
//! In a build that is not for the spool's own tests no canary ever sings, and the compiler knows it. In
//! tests one may sing, on one thread.

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Canary {
    /// Callers are answered before their batch is written.
    AnswersEarly,
    /// A batch whose write failed counts as written.
    IgnoresWriteErrors,
    /// A new file is used before its entry in the directory is durable.
    ForgetsDirectories,
    /// The next segment begins before the last one has its seal.
    ForgetsSeals,
    /// A dead segment is overwritten although commit records that it speaks of still exist.
    RecyclesEarly,
    /// Records are believed without their checksum.
    SkipsChecksums,
    /// What an earlier life of a segment left behind counts.
    ReadsOldLives,
    /// A start does not look which ids were given out.
    GivesIdsAgain,
    /// A message that is moved loses the states of its recipients.
    MovesForgetStates,
}

#[cfg(not(test))]
pub(crate) const fn sings(_: Canary) -> bool {
    false
}

#[cfg(test)]
thread_local! {
    static SINGING: std::cell::Cell<Option<Canary>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
pub(crate) fn sings(canary: Canary) -> bool {
    SINGING.get() == Some(canary)
}

/// Has a canary sing on this thread, or none.
#[cfg(test)]
pub(crate) fn set(canary: Option<Canary>) {
    SINGING.set(canary);
}
