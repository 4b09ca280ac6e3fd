//! Which message comes next, and when it is due.
//!
//! Shared by all executors; the counter is its only state. Takes the time as an argument.

use crate::stop::Stop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Open loop: this long after the end of the schedule no overdue message is started any more; those are reported
/// as not sent. Keeps a run against a server that cannot follow from going on for ever.
pub const OVERDUE_MAX: Duration = Duration::from_secs(60);

pub struct Pace {
    start: Instant,
    /// Messages per second; `None` is the closed loop.
    rate: Option<f64>,
    messages: Option<u64>,
    length: Option<Duration>,
    taken: AtomicU64,
    stop: Stop,
}

/// A message to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    pub number: u64,
    /// When it is due; `None` in the closed loop.
    pub due: Option<Instant>,
}

impl Pace {
    pub fn new(
        start: Instant,
        rate: Option<f64>,
        messages: Option<u64>,
        length: Option<Duration>,
        stop: Stop,
    ) -> Self {
        Pace { start, rate, messages, length, taken: AtomicU64::new(0), stop }
    }

    /// When the first message is due.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// Takes the next message; `None` when the run is over.
    pub fn next(&self, now: Instant) -> Option<Turn> {
        if self.stop.is_set() || self.given_up(now) {
            return None;
        }
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        if self.planned().is_some_and(|planned| number >= planned) {
            return None;
        }
        Some(Turn {
            number,
            due: self.rate.map(|rate| self.start + Duration::from_secs_f64(number as f64 / rate)),
        })
    }

    /// Messages that the run is to have; `None` when only its length is set.
    pub fn planned(&self) -> Option<u64> {
        let scheduled = match (self.rate, self.length) {
            (Some(rate), Some(length)) => Some((rate * length.as_secs_f64()).floor() as u64),
            _ => None,
        };
        match (self.messages, scheduled) {
            (Some(messages), Some(scheduled)) => Some(messages.min(scheduled)),
            (messages, scheduled) => messages.or(scheduled),
        }
    }

    fn given_up(&self, now: Instant) -> bool {
        match (self.rate, self.length, self.planned()) {
            (None, Some(length), _) => now >= self.start + length,
            (Some(rate), _, Some(planned)) => {
                let length = Duration::try_from_secs_f64(planned as f64 / rate).unwrap_or(Duration::MAX);
                self.start.checked_add(length).is_some_and(|end| now >= end + OVERDUE_MAX)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn closed_loop_ends_after_its_messages_or_its_time() {
        let now = Instant::now();
        let pace = Pace::new(now, None, Some(2), None, Stop::default());
        assert_eq!(pace.next(now), Some(Turn { number: 0, due: None }));
        assert_eq!(pace.next(now + SECOND * 1000), Some(Turn { number: 1, due: None }));
        assert_eq!(pace.next(now), None);
        let pace = Pace::new(now, None, None, Some(SECOND), Stop::default());
        assert!(pace.next(now + SECOND / 2).is_some());
        assert!(pace.next(now + SECOND).is_none());
    }

    #[test]
    fn open_loop_messages_are_due_at_the_rate_however_late_they_are_taken() {
        let now = Instant::now();
        let pace = Pace::new(now, Some(10.0), None, Some(SECOND), Stop::default());
        assert_eq!(pace.planned(), Some(10));
        for number in 0..10 {
            let turn = pace.next(now + SECOND * 30).unwrap();
            assert_eq!((turn.number, turn.due), (number, Some(now + SECOND / 10 * number as u32)));
        }
        assert_eq!(pace.next(now), None);
    }

    #[test]
    fn open_loop_gives_up_what_is_long_overdue() {
        let now = Instant::now();
        let pace = Pace::new(now, Some(10.0), Some(10), None, Stop::default());
        assert!(pace.next(now + SECOND + OVERDUE_MAX / 2).is_some());
        assert!(pace.next(now + SECOND + OVERDUE_MAX).is_none());
    }

    #[test]
    fn a_signal_ends_the_run() {
        let stop = Stop::default();
        let pace = Pace::new(Instant::now(), None, None, None, stop.clone());
        assert!(pace.next(Instant::now()).is_some());
        stop.set();
        assert!(pace.next(Instant::now()).is_none());
    }
}
