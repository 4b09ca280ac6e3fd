//! Addresses that have lately failed or been too slow: tried after the others for a while.
//!
//! Lives on one delivery shard; the caller brings the clock. It changes the order of an attempt and never
//! what may be tried: with nothing else left, what failed is tried again.

use super::lookup::Candidate;
use std::collections::HashMap;
use std::net::SocketAddr;

/// How long an address is remembered. Short: a host that is back should not wait for its mail, and a host
/// that is not costs one connection timed out in so many seconds.
const REMEMBERED_MILLIS: u64 = 60_000;

/// Addresses remembered. Prevents a flood of dead hosts from taking all memory; past it new ones are not.
const REMEMBERED_MAX: usize = 10_000;

/// Ranks of remembered failures come behind all others.
const FAILED_RANK: usize = 1 << 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    /// Another address of the same rank answered first although this one had been tried before it.
    Slow,
    /// It could not be connected to.
    Failed,
}

#[derive(Default)]
pub struct Memory {
    marks: HashMap<SocketAddr, (Mark, u64)>,
}

impl Memory {
    pub fn failed(&mut self, address: SocketAddr, now: u64) {
        self.mark(address, Mark::Failed, now);
    }

    pub fn slow(&mut self, address: SocketAddr, now: u64) {
        self.mark(address, Mark::Slow, now);
    }

    pub fn answered(&mut self, address: SocketAddr) {
        self.marks.remove(&address);
    }

    /// It could not be connected to lately.
    pub fn has_failed(&self, address: SocketAddr, now: u64) -> bool {
        self.marks.get(&address).is_some_and(|(mark, until)| *mark == Mark::Failed && *until > now)
    }

    pub fn forget_all(&mut self) {
        self.marks.clear();
    }

    fn mark(&mut self, address: SocketAddr, mark: Mark, now: u64) {
        if self.marks.len() >= REMEMBERED_MAX && !self.marks.contains_key(&address) {
            self.marks.retain(|_, (_, until)| *until > now);
        }
        if self.marks.len() < REMEMBERED_MAX || self.marks.contains_key(&address) {
            self.marks.insert(address, (mark, now + REMEMBERED_MILLIS));
        }
    }

    /// Slow ones last within their rank, failed ones behind all ranks.
    pub fn order(&self, candidates: &mut [Candidate], now: u64) {
        if self.marks.is_empty() {
            return;
        }
        let mark = |candidate: &Candidate| {
            let (mark, until) = self.marks.get(&candidate.peer.address)?;
            (*until > now).then_some(*mark)
        };
        for candidate in candidates.iter_mut().filter(|candidate| mark(candidate) == Some(Mark::Failed)) {
            candidate.rank += FAILED_RANK;
        }
        candidates.sort_by_key(|candidate| (candidate.rank, mark(candidate)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::verdict::Peer;
    use super::*;

    fn address(last: usize) -> SocketAddr {
        format!("192.0.2.{last}:25").parse().unwrap()
    }

    fn order(memory: &Memory, now: u64) -> String {
        let candidate = |(last, rank)| Candidate {
            peer: Peer { name: "x".into(), address: address(last) },
            rank,
            secure: false,
            canonical: None,
            expanded: None,
        };
        let mut all: Vec<Candidate> = [(1, 10), (2, 10), (3, 20)].map(candidate).into();
        memory.order(&mut all, now);
        assert!(all.is_sorted_by_key(|candidate| candidate.rank));
        all.iter().map(|candidate| candidate.peer.address.ip().to_string().split_off(8)).collect()
    }

    #[test]
    fn what_failed_comes_last_what_was_slow_last_of_its_rank_and_all_is_forgotten_in_time() {
        let mut memory = Memory::default();
        assert_eq!(order(&memory, 0), "123");
        memory.slow(address(1), 0);
        assert_eq!(order(&memory, 1), "213");
        memory.failed(address(1), 0);
        assert_eq!(order(&memory, 1), "231");
        memory.failed(address(2), 500);
        assert_eq!(order(&memory, 501), "312", "the first two, in their order");
        memory.failed(address(3), 500);
        assert_eq!(order(&memory, 501), "123", "nothing else is left");
        assert_eq!(order(&memory, 60_000), "123");
        memory.answered(address(2));
        assert_eq!(order(&memory, 501), "213");
        memory.forget_all();
        assert_eq!(order(&memory, 501), "123");
    }

    #[test]
    fn memory_is_bounded_and_makes_room_by_time() {
        let mut memory = Memory::default();
        let many = |n: usize| SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 25));
        for n in 0..REMEMBERED_MAX + 100 {
            memory.failed(many(n), 0);
        }
        assert_eq!(memory.marks.len(), REMEMBERED_MAX);
        memory.slow(many(0), 1);
        assert_eq!(memory.marks[&many(0)], (Mark::Slow, 1 + REMEMBERED_MILLIS));
        memory.failed(address(1), REMEMBERED_MILLIS);
        assert_eq!(memory.marks.len(), 2);
    }
}
