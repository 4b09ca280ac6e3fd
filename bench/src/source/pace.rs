//! Which message comes next, and when it is due.
//!
//! Shared by all executors; what comes next is its only state. Takes the time as an argument.
//!
//! Open loop: the first message is due at the start. The gaps to the others are exponential, as those of clients that
//! know nothing of each other (a Poisson process), so that messages come in bunches; or all the same. The random ones
//! come from a fixed seed and are stretched so that the whole schedule has exactly the rate asked for: every run of so
//! many messages has the same schedule, whoever is measured.

use crate::message::next_state;
use crate::stop::Stop;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Open loop: this long after the end of the schedule no overdue message is started any more; those are reported
/// as not sent. Keeps a run against a server that cannot follow from going on for ever.
pub const OVERDUE_MAX: Duration = Duration::from_secs(60);
/// Of the gaps; any number but 0.
const SEED: u64 = 0x005e_ed0f_6a75;

/// How the messages of an open loop are spread over its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrivals {
    /// Exponential gaps, as of many independent clients
    Random,
    /// All gaps the same
    Even,
}

pub struct Pace {
    start: Instant,
    /// Messages per second, and how they are spread; `None` is the closed loop.
    rate: Option<(f64, Arrivals)>,
    messages: Option<u64>,
    length: Option<Duration>,
    coming: Mutex<Coming>,
    /// Seconds that a random gap of 1 stands for.
    stretch: f64,
    stop: Stop,
}

/// The next message.
struct Coming {
    number: u64,
    /// When it is due, in seconds after the start.
    due: f64,
    gaps: Gaps,
}

/// A message to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    pub number: u64,
    /// When it is due; `None` in the closed loop.
    pub due: Option<Instant>,
}

/// Exponential gaps, 1 on average.
struct Gaps(u64);

impl Iterator for Gaps {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        self.0 = next_state(self.0);
        // 53 bits, the half of one added: above 0 and below 1.
        let uniform = ((self.0 >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        Some(-uniform.ln())
    }
}

impl Pace {
    pub fn new(
        start: Instant,
        rate: Option<(f64, Arrivals)>,
        messages: Option<u64>,
        length: Option<Duration>,
        stop: Stop,
    ) -> Self {
        let coming = Mutex::new(Coming { number: 0, due: 0.0, gaps: Gaps(SEED) });
        let mut pace = Pace { start, rate, messages, length, coming, stretch: 0.0, stop };
        if let Some((rate, Arrivals::Random)) = rate {
            // The time after the last message counts, so that each has one gap.
            let planned = pace.planned().unwrap_or(0);
            let all: f64 = Gaps(SEED).take(usize::try_from(planned).unwrap_or(usize::MAX)).sum();
            pace.stretch = if all > 0.0 { planned as f64 / rate / all } else { 1.0 / rate };
        }
        pace
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
        let mut coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        let number = coming.number;
        if self.planned().is_some_and(|planned| number >= planned) {
            return None;
        }
        coming.number += 1;
        let due = coming.due;
        match self.rate {
            None => return Some(Turn { number, due: None }),
            // By the number and not by steps, whose errors would add up.
            Some((rate, Arrivals::Even)) => coming.due = (number + 1) as f64 / rate,
            Some((_, Arrivals::Random)) => {
                coming.due += self.stretch * coming.gaps.next().expect("gaps without end");
            }
        }
        Some(Turn { number, due: Some(self.start + Duration::from_secs_f64(due)) })
    }

    /// Messages that the run is to have; `None` when only its length is set.
    pub fn planned(&self) -> Option<u64> {
        let scheduled = match (self.rate, self.length) {
            (Some((rate, _)), Some(length)) => Some((rate * length.as_secs_f64()).floor() as u64),
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
            (Some((rate, _)), _, Some(planned)) => {
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
        let pace = Pace::new(now, Some((10.0, Arrivals::Even)), None, Some(SECOND), Stop::default());
        assert_eq!(pace.planned(), Some(10));
        for number in 0..10 {
            let turn = pace.next(now + SECOND * 30).unwrap();
            assert_eq!((turn.number, turn.due), (number, Some(now + SECOND / 10 * number as u32)));
        }
        assert_eq!(pace.next(now), None);
    }

    /// Seconds after the start at which each message is due.
    fn schedule(rate: f64, messages: u64) -> Vec<f64> {
        let now = Instant::now();
        let pace = Pace::new(now, Some((rate, Arrivals::Random)), Some(messages), None, Stop::default());
        let due = |_| (pace.next(now).unwrap().due.unwrap() - now).as_secs_f64();
        let all = (0..messages).map(due).collect();
        assert_eq!(pace.next(now), None);
        all
    }

    #[test]
    fn random_gaps_are_exponential_at_the_rate_and_the_same_in_each_run() {
        let all = schedule(100.0, 10_000);
        assert_eq!(all, schedule(100.0, 10_000));
        assert_eq!(all[0], 0.0);
        let last = *all.last().unwrap();
        assert!(last < 100.0 && last > 99.8, "{last}");
        let gaps: Vec<f64> = all.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| *gap >= 0.0));
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        // Of exponential gaps the deviation is the mean, and e^-1 of them are longer than that.
        assert!((deviation / mean - 1.0).abs() < 0.05, "{mean} {deviation}");
        let longer = gaps.iter().filter(|gap| **gap > mean).count() as f64 / gaps.len() as f64;
        assert!((longer - (-1.0_f64).exp()).abs() < 0.02, "{longer}");
    }

    #[test]
    fn open_loop_gives_up_what_is_long_overdue() {
        let now = Instant::now();
        let pace = Pace::new(now, Some((10.0, Arrivals::Random)), Some(10), None, Stop::default());
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
