//! Counts and rates by key, for all ingest shards, in memory that is allocated once.
//!
//! Every shard reads and writes it, without locks: cells are atomics, and each operation touches
//! [`ROWS`] of them, one in each row, chosen by a keyed hash, so nobody can aim at another client's cells.
//! No key is stored, so nothing can be filled up, evicted or searched, whatever addresses an attacker
//! sprays.
//!
//! **Error**, to one side only: a key is never counted too low, so no limit is too wide (but by the shards
//! that ask within the same microsecond). It is counted too high when it shares all its cells:
//! - [`Counts`] (a count-min sketch): with N connections open and as many columns, by more than 3
//!   with a probability of e⁻⁴, 2 percent; by more than that practically never.
//! - [`Rates`]: a cell has the *latest* of its keys, not their sum, so a client is refused wrongly only when
//!   in each of the four rows another one near its limit has the same cell: with h such clients
//!   (h / columns)⁴; 1,000 of them: one refusal in a million.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Cells of a key.
const ROWS: usize = 4;
/// A row has at least this many cells, and at most so many that 16 bits of a hash say which.
const COLUMNS_MIN: usize = 1 << 12;
const COLUMNS_MAX: usize = 1 << 16;
/// Cells of a row of [`Rates`].
const RATE_COLUMNS: usize = 1 << 15;

/// Where a key has its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u64);

impl Place {
    fn cells(self, columns: usize) -> [usize; ROWS] {
        std::array::from_fn(|row| row * columns + ((self.0 >> (16 * row)) as usize & (columns - 1)))
    }
}

/// How keys become places; another one in each process.
#[derive(Default)]
pub struct Keys(RandomState);

impl Keys {
    pub fn place(&self, key: &impl std::hash::Hash) -> Place {
        Place(self.0.hash_one(key))
    }
}

/// How many there are at a time.
pub struct Counts {
    columns: usize,
    cells: Box<[AtomicU32]>,
}

impl Counts {
    /// For about so many connections at a time: 16 octets of memory for each, 64 KiB to 1 MiB in all.
    pub fn new(expected: usize) -> Self {
        let columns = expected.next_power_of_two().clamp(COLUMNS_MIN, COLUMNS_MAX);
        Self { columns, cells: (0..ROWS * columns).map(|_| AtomicU32::new(0)).collect() }
    }

    pub fn count(&self, place: Place) -> u32 {
        place.cells(self.columns).iter().map(|&cell| self.cells[cell].load(Relaxed)).min().unwrap_or(0)
    }

    pub fn add(&self, place: Place) {
        for cell in place.cells(self.columns) {
            self.cells[cell].fetch_add(1, Relaxed);
        }
    }

    /// Takes back one [`Counts::add`].
    pub fn take(&self, place: Place) {
        for cell in place.cells(self.columns) {
            self.cells[cell].fetch_sub(1, Relaxed);
        }
    }
}

/// So many within so long; a client that was quiet for that long may have all of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub count: u32,
    pub window_micros: u64,
}

impl Rate {
    fn interval(self) -> u64 {
        (self.window_micros / u64::from(self.count.max(1))).max(1)
    }
}

/// Token buckets in the form of GCRA: a cell holds the time at which its bucket is full again.
pub struct Rates {
    cells: Box<[AtomicU64]>,
}

impl Default for Rates {
    fn default() -> Self {
        Self { cells: (0..ROWS * RATE_COLUMNS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Rates {
    fn full_at(&self, place: Place) -> u64 {
        place.cells(RATE_COLUMNS).iter().map(|&cell| self.cells[cell].load(Relaxed)).min().unwrap_or(0)
    }

    /// How many more the rate allows now. `now`: microseconds of any clock that never goes back.
    pub fn left(&self, place: Place, rate: Rate, now: u64) -> u32 {
        let used = self.full_at(place).saturating_sub(now);
        let left = (rate.interval() * u64::from(rate.count)).saturating_sub(used) / rate.interval();
        u32::try_from(left).unwrap_or(u32::MAX).min(rate.count)
    }

    /// So many more have come.
    pub fn charge(&self, place: Place, rate: Rate, count: u32, now: u64) {
        let full = self.full_at(place).max(now).saturating_add(rate.interval() * u64::from(count));
        for cell in place.cells(RATE_COLUMNS) {
            self.cells[cell].fetch_max(full, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_what_was_added_and_not_taken() {
        let (keys, counts) = (Keys::default(), Counts::new(100));
        let (one, other) = (keys.place(&"one"), keys.place(&"other"));
        assert_eq!(counts.count(one), 0);
        (0..7).for_each(|_| counts.add(one));
        counts.add(other);
        counts.take(one);
        assert_eq!((counts.count(one), counts.count(other)), (6, 1));
        (0..6).for_each(|_| counts.take(one));
        counts.take(other);
        assert!(counts.cells.iter().all(|cell| cell.load(Relaxed) == 0));
    }

    #[test]
    fn a_rate_gives_its_burst_and_then_one_an_interval() {
        let (keys, rates) = (Keys::default(), Rates::default());
        let rate = Rate { count: 60, window_micros: 60_000_000 };
        let place = keys.place(&1);
        assert_eq!(rates.left(place, rate, 5), 60);
        rates.charge(place, rate, 60, 5);
        // At each time so many are left.
        for (now, left) in
            [(5, 0), (999_000, 0), (1_000_005, 1), (2_500_000, 2), (60_000_005, 60), (u64::MAX / 2, 60)]
        {
            assert_eq!(rates.left(place, rate, now), left, "{now}");
        }
        rates.charge(place, rate, 1, 1_000_005);
        assert_eq!(rates.left(place, rate, 1_000_005), 0);
        assert_eq!(rates.left(place, rate, 2_000_005), 1);
    }

    #[test]
    fn odd_rates_neither_divide_by_zero_nor_give_more_than_they_say() {
        let (keys, rates) = (Keys::default(), Rates::default());
        for (number, count) in [0, 1, 7, 1_000_000, u32::MAX].into_iter().enumerate() {
            let rate = Rate { count, window_micros: 1_000_000 };
            let place = keys.place(&number);
            assert_eq!(rates.left(place, rate, 0), count);
            rates.charge(place, rate, count, 0);
            assert_eq!(rates.left(place, rate, 0), 0, "{count}");
        }
    }

    /// What the head of the file says of errors, with every connection from another address.
    #[test]
    fn strangers_do_not_make_a_client_look_busy() {
        let (keys, counts, rates) = (Keys::default(), Counts::new(16_384), Rates::default());
        let rate = Rate { count: 300, window_micros: 60_000_000 };
        for stranger in 0..16_384 {
            counts.add(keys.place(&("stranger", stranger)));
        }
        for stranger in 0..1_000 {
            rates.charge(keys.place(&("stranger", stranger)), rate, 300, 0);
        }
        let clients = (0..10_000).map(|client| keys.place(&("client", client)));
        let (mut high, mut refused) = (0, 0);
        for place in clients {
            high += usize::from(counts.count(place) > 3);
            refused += usize::from(rates.left(place, rate, 0) == 0);
        }
        assert!(high <= 200, "{high} of 10000");
        assert!(refused <= 1, "{refused} of 10000");
    }

    #[test]
    fn threads_that_count_at_once_lose_nothing() {
        let (keys, counts) = (Keys::default(), Counts::new(1));
        let place = keys.place(&0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| counts.add(place)));
            }
        });
        assert_eq!(counts.count(place), 40_000);
    }
}
