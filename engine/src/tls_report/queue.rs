//! The tally that grows, the reports that wait to be sent, and the file that keeps both over a restart.
//!
//! Pure: times are seconds since 1970 and come from the caller. A report stays here until it is sent or given up: one
//! that is on its way counts as tried, and is due again when that try is long over, so that neither a crash nor a stop
//! loses it. A report waits for a part of `spread` that its
//! domain's name decides, so that not all senders report at midnight (RFC 8460 section 4.2).

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

use super::Observed;
use super::tally::{PolicyReport, Tally};

/// Reports that wait; past it those of the day at hand are left out.
const WAITING_MAX: usize = 20_000;
/// After that many tries a report is given up; RFC 8460 section 4.1 asks for a day.
pub const TRIES_MAX: u32 = 24;
const VERSION: u32 = 1;

/// One report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    pub domain: String,
    /// The period, without its last second's end.
    pub start: u64,
    pub end: u64,
    pub due: u64,
    pub tries: u32,
    pub policies: Vec<PolicyReport>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    version: u32,
    /// When the period at hand began.
    start: u64,
    tally: Tally,
    pub waiting: Vec<Waiting>,
}

impl Queue {
    pub fn new(now: u64, period: u64) -> Self {
        Self { version: VERSION, start: begin(now, period), tally: Tally::default(), waiting: Vec::new() }
    }

    pub fn add(&mut self, seen: &Observed) {
        self.tally.add(seen);
    }

    /// Ends the period at hand when its time is over: its reports wait.
    pub fn turn(&mut self, now: u64, period: u64, spread: u64) -> bool {
        let start = begin(now, period);
        if start == self.start {
            return false;
        }
        let (begun, tally) = (self.start, std::mem::take(&mut self.tally));
        self.start = start;
        // A clock that was set back tells nothing of when the sessions were.
        let end = begun.saturating_add(period).min(now.max(begun));
        for (domain, policies) in tally.domains {
            if self.waiting.len() >= WAITING_MAX {
                break;
            }
            let due = now + part(&domain, begun, spread);
            self.waiting.push(Waiting { domain, start: begun, end, due, tries: 0, policies });
        }
        true
    }

    /// The report to try next, if one is due: of those with the fewest tries, so that those that go nowhere hold up no
    /// other, the one that is due the longest. The next try of it is due after `pause`, which is longer than a try
    /// takes.
    pub fn next_due(&mut self, now: u64, pause: u64) -> Option<Waiting> {
        let due = self.waiting.iter_mut().filter(|report| report.due <= now);
        let report = due.min_by_key(|report| (report.tries, report.due))?;
        report.tries += 1;
        report.due = now.saturating_add(pause);
        Some(report.clone())
    }

    /// A report that was tried needs no other try.
    pub fn sent(&mut self, tried: &Waiting) {
        let is_same =
            |one: &Waiting| (one.start, one.end) == (tried.start, tried.end) && one.domain == tried.domain;
        if let Some(place) = self.waiting.iter().position(is_same) {
            self.waiting.swap_remove(place);
        }
    }

    /// A report that was tried could not be sent; false when it is given up.
    pub fn failed(&mut self, tried: &Waiting) -> bool {
        let kept = tried.tries < TRIES_MAX;
        if !kept {
            self.sent(tried);
        }
        kept
    }

    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// # Errors
    /// What is wrong with the octets.
    pub fn decode(octets: &[u8]) -> Result<Self, String> {
        let queue: Self = serde_json::from_slice(octets).map_err(|error| error.to_string())?;
        if queue.version != VERSION {
            return Err(format!("its version is {}, not {VERSION}", queue.version));
        }
        Ok(queue)
    }
}

/// Periods count from 1970, so that a day is a day of UTC.
fn begin(now: u64, period: u64) -> u64 {
    now - now % period.max(1)
}

fn part(domain: &str, start: u64, spread: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (domain, start).hash(&mut hasher);
    hasher.finish() % (spread + 1)
}

#[cfg(test)]
mod tests {
    use super::super::Applied;
    use super::*;

    const DAY: u64 = 86_400;

    fn seen(domain: &str) -> Observed {
        let host = String::new();
        Observed {
            domain: domain.into(),
            applied: Applied::None,
            local: None,
            host,
            address: None,
            failure: None,
        }
    }

    fn take_due(queue: &mut Queue, now: u64) -> Vec<Waiting> {
        let next = || {
            let report = queue.next_due(now, 3_600)?;
            queue.sent(&report);
            Some(report)
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_day_ends_at_midnight_and_its_reports_wait_a_while() {
        let mut queue = Queue::new(10 * DAY + 5, DAY);
        for number in 0..100 {
            queue.add(&seen(&format!("{number}.test")));
        }
        assert!(!queue.turn(11 * DAY - 1, DAY, 3_600) && take_due(&mut queue, u64::MAX).is_empty());
        assert!(queue.turn(11 * DAY, DAY, 3_600) && !queue.turn(11 * DAY, DAY, 3_600));
        let early = take_due(&mut queue, 11 * DAY + 1_800).len();
        assert!((20..80).contains(&early), "{early} of 100 in the first half");
        let late = take_due(&mut queue, 11 * DAY + 3_600);
        assert_eq!(early + late.len(), 100);
        assert!(late.iter().all(|report| (report.start, report.end) == (10 * DAY, 11 * DAY)));
    }

    #[test]
    fn a_report_that_cannot_be_sent_is_tried_for_a_while() {
        let mut queue = Queue::new(0, DAY);
        queue.add(&seen("a.test"));
        queue.turn(DAY, DAY, 0);
        let mut tries = 0;
        let mut now = DAY;
        while let Some(report) = queue.next_due(now, 3_600) {
            tries += 1;
            assert_eq!((queue.failed(&report), report.tries), (tries < TRIES_MAX, tries));
            assert!(queue.next_due(now + 3_599, 3_600).is_none());
            now += 3_600;
        }
        assert_eq!(tries, TRIES_MAX);
        assert!(queue.waiting.is_empty());
    }

    #[test]
    fn a_report_on_its_way_outlives_a_crash_and_is_not_sent_by_two() {
        let mut queue = Queue::new(0, DAY);
        queue.add(&seen("a.test"));
        queue.turn(DAY, DAY, 0);
        let tried = queue.next_due(DAY, 3_600).expect("a report");
        assert!(queue.next_due(DAY, 3_600).is_none());
        let mut after = Queue::decode(&queue.encode()).expect("a queue");
        assert_eq!(after.next_due(DAY + 3_600, 3_600).expect("the report").domain, "a.test");
        queue.sent(&tried);
        assert!(queue.waiting.is_empty() && queue.next_due(u64::MAX, 3_600).is_none());
    }

    #[test]
    fn what_was_not_tried_yet_goes_before_what_failed() {
        let mut queue = Queue::new(0, DAY);
        (0..50).for_each(|number| queue.add(&seen(&format!("{number}.silent.test"))));
        queue.turn(DAY, DAY, 0);
        for _ in 0..50 {
            let report = queue.next_due(DAY, 3_600).expect("a report");
            assert!(queue.failed(&report));
        }
        queue.add(&seen("new.test"));
        queue.turn(2 * DAY, DAY, 0);
        assert_eq!(queue.next_due(2 * DAY, 3_600).expect("a report").domain, "new.test");
    }

    #[test]
    fn a_restart_loses_nothing_and_a_day_that_passed_meanwhile_ends() {
        let mut queue = Queue::new(DAY, DAY);
        queue.add(&seen("a.test"));
        queue.turn(2 * DAY, DAY, 0);
        queue.add(&seen("b.test"));
        let mut again = Queue::decode(&queue.encode()).expect("a queue");
        assert_eq!(again, queue);
        again.turn(5 * DAY, DAY, 0);
        let due = take_due(&mut again, 5 * DAY);
        let shown: Vec<_> = due.iter().map(|one| (one.domain.as_str(), one.start, one.end)).collect();
        assert_eq!(shown, [("a.test", DAY, 2 * DAY), ("b.test", 2 * DAY, 3 * DAY)]);
        for bad in ["", "{}", "{\"version\":2,\"start\":0,\"tally\":{\"domains\":{}},\"waiting\":[]}"] {
            assert!(Queue::decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
