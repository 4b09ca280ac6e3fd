//! Waiting for what announces itself by no event (a file in a Maildir, a figure in /proc): asked again at
//! short intervals, within a bound.

use std::time::{Duration, Instant};

/// How long a thing that should happen at once may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

const INTERVAL: Duration = Duration::from_millis(20);

/// Asks until there is an answer.
///
/// # Panics
/// When `limit` passes first; `what` says what was awaited.
#[track_caller]
pub fn until<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(INTERVAL);
    }
}

/// As [`until`], for a condition.
#[track_caller]
pub fn until_true(limit: Duration, what: &str, mut ask: impl FnMut() -> bool) {
    until(limit, what, || ask().then_some(()));
}
