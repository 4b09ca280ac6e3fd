//! Source addresses that peers do not know yet, and how many messages each has sent today.
//!
//! Shared by all delivery shards: one atomic number an address, no lock. Days are those of UTC, counted from the
//! one on which the address began; a restart begins the day's count anew. A message counts when it begins.

use crate::config::WarmUp;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const DAY_MICROS: u64 = 86_400_000_000;
/// The day is kept above the count of its messages.
const COUNT_BITS: u32 = 40;

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
        true => word & ((1 << COUNT_BITS) - 1),
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

    #[test]
    fn the_next_day_begins_at_midnight() {
        assert_eq!(next_day_micros(0), DAY_MICROS);
        assert_eq!(next_day_micros(DAY_MICROS - 1), DAY_MICROS);
        assert_eq!(next_day_micros(DAY_MICROS), 2 * DAY_MICROS);
    }
}
