//! What is due when: a heap by time. Pure; one per delivery shard.
//!
//! An entry that waits costs its place in the heap and nothing else until its time comes.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Entries by their time in milliseconds; entries of the same time come out in the order they went in.
pub struct Timetable<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    next_number: u64,
}

struct Entry<T> {
    due: u64,
    number: u64,
    what: T,
}

impl<T> Default for Timetable<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), next_number: 0 }
    }
}

impl<T> Timetable<T> {
    /// True when the entry is now the first: a timer that waits for the former first is set too late.
    pub fn insert(&mut self, due: u64, what: T) -> bool {
        let number = self.next_number;
        self.next_number += 1;
        self.heap.push(Reverse(Entry { due, number, what }));
        self.heap.peek().is_some_and(|Reverse(first)| first.number == number)
    }

    pub fn next_due(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(entry)| entry.due)
    }

    pub fn take_due(&mut self, now: u64) -> Option<T> {
        if self.next_due()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry.what)
    }

    /// Everything, in no order; nothing is left.
    pub fn take_all(&mut self) -> Vec<(u64, T)> {
        let entries = std::mem::take(&mut self.heap).into_vec();
        entries.into_iter().map(|Reverse(entry)| (entry.due, entry.what)).collect()
    }

    pub fn len(&self) -> usize {
        self.heap.len()
    }

    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_out_by_time_and_then_by_order() {
        let mut timetable = Timetable::default();
        assert!(timetable.insert(20, "c"));
        assert!(timetable.insert(10, "a"));
        assert!(!timetable.insert(10, "b"));
        assert_eq!(timetable.next_due(), Some(10));
        assert_eq!(timetable.take_due(9), None);
        assert_eq!(timetable.take_due(15), Some("a"));
        assert_eq!(timetable.take_due(15), Some("b"));
        assert_eq!(timetable.take_due(15), None);
        assert_eq!(timetable.take_due(20), Some("c"));
        assert!(timetable.is_empty());
    }

    #[test]
    fn what_is_taken_out_whole_can_be_put_back() {
        let mut timetable = Timetable::default();
        for (due, what) in [(20, "c"), (10, "a"), (10, "b")] {
            timetable.insert(due, what);
        }
        let mut all = timetable.take_all();
        assert!(timetable.is_empty());
        all.sort_unstable();
        assert_eq!(all, [(10, "a"), (10, "b"), (20, "c")]);
        for (due, what) in all {
            timetable.insert(due, what);
        }
        assert_eq!(timetable.take_due(10), Some("a"));
    }
}
