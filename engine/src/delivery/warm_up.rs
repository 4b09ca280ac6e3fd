//! Source addresses that peers do not know yet, and how many messages each has sent today.
//!
//! Shared by all delivery shards: one atomic number an address, no lock. Days are those of UTC, counted from the
//! one on which the address began. A message counts when it begins. [`warm_up_keeper`](super::warm_up_keeper) keeps
//! the counts over a restart, as
//!
//! ```json
//! {"version": 1, "addresses": [{"source": "203.0.113.11", "day": 20779, "sent": 37}]}
//! ```

use crate::config::WarmUp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const DAY_MICROS: u64 = 86_400_000_000;
/// The day is kept above the count of its messages.
const COUNT_BITS: u32 = 40;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
const DAY_MAX: u64 = u64::MAX >> COUNT_BITS;
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    addresses: Vec<Sent>,
}

/// What went out from an address on a day, counted from 1970 in UTC.
#[derive(Serialize, Deserialize)]
struct Sent {
    source: IpAddr,
    day: u64,
    sent: u64,
}

pub struct WarmUps(Vec<(WarmUp, AtomicU64)>);

impl WarmUps {
    pub fn new(schedules: &[WarmUp]) -> Self {
        Self(schedules.iter().map(|schedule| (schedule.clone(), AtomicU64::new(0))).collect())
    }

    fn of(&self, source: IpAddr) -> Option<&(WarmUp, AtomicU64)> {
        self.0.iter().find(|(schedule, _)| schedule.source == source)
    }

    /// Whether one more message may go out from this address now.
    pub fn allows(&self, source: IpAddr, now_micros: u64) -> bool {
        let Some((schedule, sent)) = self.of(source) else { return true };
        let Some(limit) = limit(schedule, now_micros) else { return true };
        count_of(sent.load(Relaxed), now_micros) < u64::from(limit)
    }

    /// Counts one. `false`: the day's number was full.
    pub fn take(&self, source: IpAddr, now_micros: u64) -> bool {
        let Some((schedule, sent)) = self.of(source) else { return true };
        let Some(limit) = limit(schedule, now_micros) else { return true };
        let day = now_micros / DAY_MICROS;
        let one_more = |word| {
            let count = count_of(word, now_micros);
            (count < u64::from(limit)).then_some((day << COUNT_BITS) | (count + 1))
        };
        sent.fetch_update(Relaxed, Relaxed, one_more).is_ok()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The counts for the file; the same octets as long as nothing was counted.
    pub fn encode(&self) -> Vec<u8> {
        let sent = |(schedule, sent): &(WarmUp, AtomicU64)| {
            let word = sent.load(Relaxed);
            Sent { source: schedule.source, day: word >> COUNT_BITS, sent: word & COUNT_MAX }
        };
        let file = File { version: VERSION, addresses: self.0.iter().map(sent).collect() };
        serde_json::to_vec(&file).unwrap_or_default()
    }

    /// Takes over what an earlier run counted. Addresses that have no schedule any more are left out.
    ///
    /// # Errors
    /// What is wrong with the octets; nothing was taken over then.
    pub fn restore(&self, octets: &[u8]) -> Result<(), String> {
        let file: File = serde_json::from_slice(octets).map_err(|error| error.to_string())?;
        if file.version != VERSION {
            return Err(format!("its version is {}, not {VERSION}", file.version));
        }
        if let Some(bad) = file.addresses.iter().find(|of| of.day > DAY_MAX || of.sent > COUNT_MAX) {
            return Err(format!("{} messages on day {} cannot be", bad.sent, bad.day));
        }
        for Sent { source, day, sent } in file.addresses {
            if let Some((_, word)) = self.of(source) {
                word.store((day << COUNT_BITS) | sent, Relaxed);
            }
        }
        Ok(())
    }
}

/// When the next day begins, wall clock.
pub fn next_day_micros(now_micros: u64) -> u64 {
    (now_micros / DAY_MICROS + 1) * DAY_MICROS
}

/// `None`: no limit any more. Before the first day nothing goes out.
fn limit(schedule: &WarmUp, now_micros: u64) -> Option<u32> {
    match (now_micros / DAY_MICROS).checked_sub(schedule.began_day) {
        None => Some(0),
        Some(day) => schedule.schedule.get(day as usize).copied(),
    }
}

fn count_of(word: u64, now_micros: u64) -> u64 {
    match word >> COUNT_BITS == now_micros / DAY_MICROS {
        true => word & COUNT_MAX,
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_sends_more_each_day_and_then_as_much_as_there_is() {
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        let warm_ups = WarmUps::new(&[WarmUp { source, began_day: 100, schedule: vec![2, 3] }]);
        let sent_on = |day: u64| {
            let at = |n: u64| day * DAY_MICROS + n;
            let sent = (0..10).filter(|&n| warm_ups.take(source, at(n))).count();
            assert_eq!(warm_ups.allows(source, at(11)), sent == 10);
            sent
        };
        assert_eq!([99, 100, 101, 102, 103].map(sent_on), [0, 2, 3, 10, 10]);
        assert!((0..10).all(|_| warm_ups.take("192.0.2.2".parse().unwrap(), 0)), "others are free");
    }

    fn at(source: &str, schedule: &[u32]) -> WarmUps {
        let source = source.parse().unwrap();
        WarmUps::new(&[WarmUp { source, began_day: 100, schedule: schedule.to_vec() }])
    }

    #[test]
    fn a_restart_in_the_middle_of_a_day_goes_on_with_its_count_and_the_next_day_is_a_new_one() {
        let source = "2001:db8::1".parse().unwrap();
        let before = at("2001:db8::1", &[5, 7]);
        let (day, next_day) = (100 * DAY_MICROS, 101 * DAY_MICROS);
        assert!((0..3).all(|_| before.take(source, day)));
        let octets = before.encode();
        assert_eq!(octets, before.encode(), "nothing new, nothing to write");
        let after = at("2001:db8::1", &[5, 7]);
        after.restore(&octets).unwrap();
        assert_eq!((0..9).filter(|_| after.take(source, day)).count(), 2);
        let late = at("2001:db8::1", &[5, 7]);
        late.restore(&octets).unwrap();
        assert_eq!((0..9).filter(|_| late.take(source, next_day)).count(), 7);
        let lower = at("2001:db8::1", &[2]);
        lower.restore(&octets).unwrap();
        assert!(!lower.take(source, day), "a schedule that was lowered meanwhile");
        let other = at("2001:db8::2", &[5]);
        other.restore(&octets).unwrap();
        assert_eq!((0..9).filter(|_| other.take("2001:db8::2".parse().unwrap(), day)).count(), 5);
    }

    #[test]
    fn octets_that_are_no_counts_change_nothing() {
        let source = "192.0.2.1".parse().unwrap();
        let good = br#"{"version":1,"addresses":[{"source":"192.0.2.1","day":100,"sent":2}]}"#;
        let cut = (0..good.len()).map(|at| good[..at].to_vec());
        let wrong = [
            r#"{"version":2,"addresses":[]}"#,
            r#"{"version":1,"addresses":[{"source":"192.0.2.1","day":100,"sent":-1}]}"#,
            r#"{"version":1,"addresses":[{"source":"192.0.2.1","day":100,"sent":1099511627776}]}"#,
            r#"{"version":1,"addresses":[{"source":"192.0.2.1","day":100,"sent":2},{"source":"192.0.2.1","day":16777216,"sent":2}]}"#,
            r#"{"version":1,"addresses":[{"source":"mx","day":100,"sent":2}]}"#,
            r#"[]"#,
        ];
        for octets in cut.chain(wrong.iter().map(|text| text.as_bytes().to_vec())) {
            let warm_ups = at("192.0.2.1", &[3]);
            assert!(warm_ups.restore(&octets).is_err(), "{}", String::from_utf8_lossy(&octets));
            assert_eq!((0..9).filter(|_| warm_ups.take(source, 100 * DAY_MICROS)).count(), 3);
        }
        let warm_ups = at("192.0.2.1", &[3]);
        warm_ups.restore(good).unwrap();
        assert_eq!((0..9).filter(|_| warm_ups.take(source, 100 * DAY_MICROS)).count(), 1);
    }

    #[test]
    fn the_next_day_begins_at_midnight() {
        assert_eq!(next_day_micros(0), DAY_MICROS);
        assert_eq!(next_day_micros(DAY_MICROS - 1), DAY_MICROS);
        assert_eq!(next_day_micros(DAY_MICROS), 2 * DAY_MICROS);
    }
}
