//! Reading ahead: when messages are read in the order of the log, one big read serves many of them.
//!
//! Lives in a spool's table of segments, on its shard. After a restart, or when the backlog is larger than
//! what travels in memory, deliveries ask for one message after the other; each would cost two reads of a few
//! KiB. When reads follow each other closely, the next one takes [`WINDOW_BYTES`] around it, and those that
//! follow are served from that. One window per spool is kept; nothing of it is trusted: every record is
//! verified as if it came from the device, and what does not verify is read from the device again
//! (`reading::fetch_verified`). What verifies is right, however old the window is: a record is never written
//! over within a life of its segment, and the next life has another sequence and another seed.

use std::ops::{Deref, Range};
use std::rc::Rc;

/// Octets of a window: some 60 messages of 4 KiB. Prevents: memory by backlog.
const WINDOW_BYTES: u64 = 256 << 10;
/// How far a window reaches back: a commit record is read first, and lies behind the message's octets.
const BACK_BYTES: u64 = 64 << 10;
/// Reads at most this far apart belong to one run.
const NEAR_BYTES: u64 = 64 << 10;
/// Reads of a run before one reads ahead. Prevents: big reads for messages here and there.
const RUN_MIN: u32 = 2;
/// Larger reads are worth one of their own.
const SMALL_BYTES: u64 = 64 << 10;

const _: () = assert!(BACK_BYTES + SMALL_BYTES <= WINDOW_BYTES);

/// Octets that were read, or a part of those read for others.
pub(crate) enum Octets<B> {
    Own(B),
    Part(Rc<dyn Deref<Target = [u8]>>, Range<usize>),
}

impl<B: Deref<Target = [u8]>> Deref for Octets<B> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Part(bytes, range) => &bytes[range.clone()],
        }
    }
}

struct Window {
    segment: u64,
    start: u64,
    bytes: Rc<dyn Deref<Target = [u8]>>,
}

#[derive(Default)]
pub(crate) struct ReadAhead {
    window: Option<Window>,
    /// Where the last read was: segment and position.
    last: (u64, u64),
    /// Reads near each other up to now.
    run: u32,
    /// The window that is being read, or was last: segment and start. It is not read twice.
    claimed: (u64, u64),
}

impl std::fmt::Debug for ReadAhead {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ReadAhead").field("run", &self.run).finish_non_exhaustive()
    }
}

impl ReadAhead {
    /// The octets, when the window has them. Every read is announced here.
    pub fn find<B>(&mut self, segment: u64, position: u64, len: u64) -> Option<Octets<B>> {
        let near = self.last.0 == segment && self.last.1.abs_diff(position) <= NEAR_BYTES;
        self.run = if near { self.run.saturating_add(1) } else { 0 };
        self.last = (segment, position);
        let window = self.window.as_ref().filter(|window| window.segment == segment)?;
        let from = usize::try_from(position.checked_sub(window.start)?).ok()?;
        let range = from..from.checked_add(len as usize)?;
        (range.end <= window.bytes.len()).then(|| Octets::Part(window.bytes.clone(), range))
    }

    /// Where to read a window, when the read just announced should: start and octets. `end` is that of the
    /// segment.
    pub fn plan(&mut self, segment: u64, position: u64, len: u64, end: u64) -> Option<(u64, usize)> {
        let claimed = self.claimed.0 == segment
            && (self.claimed.1..self.claimed.1 + WINDOW_BYTES).contains(&(position + len));
        if self.run < RUN_MIN || len > SMALL_BYTES || claimed {
            return None;
        }
        let start = position.saturating_sub(BACK_BYTES);
        self.claimed = (segment, start);
        Some((start, WINDOW_BYTES.min(end.saturating_sub(start)) as usize))
    }

    pub fn keep(&mut self, segment: u64, start: u64, bytes: Rc<dyn Deref<Target = [u8]>>) {
        self.window = Some(Window { segment, start, bytes });
    }

    #[cfg(test)]
    pub fn has_window(&self) -> bool {
        self.window.is_some()
    }

    /// What the window holds did not verify.
    pub fn forget(&mut self) {
        self.window = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(ahead: &mut ReadAhead, segment: u64, position: u64, len: u64) -> Option<Vec<u8>> {
        ahead.find::<Vec<u8>>(segment, position, len).map(|octets| octets.to_vec())
    }

    #[test]
    fn only_a_run_of_near_small_reads_reads_ahead_and_each_window_once() {
        let mut ahead = ReadAhead::default();
        let end = 64 << 20;
        let mut planned = Vec::new();
        for at in 0..4u64 {
            assert_eq!(find(&mut ahead, 7, 1_000_000 + at * 8192, 500), None);
            planned.push(ahead.plan(7, 1_000_000 + at * 8192, 500, end));
        }
        let start = 1_016_384 - BACK_BYTES;
        assert_eq!(planned, [None, None, Some((start, WINDOW_BYTES as usize)), None]);
        assert_eq!(find(&mut ahead, 7, 9_000_000, 500), None);
        assert_eq!(ahead.plan(7, 9_000_000, 500, end), None, "far away a run ends");
        for _ in 0..3 {
            assert_eq!(find(&mut ahead, 8, 50_000, 500), None);
        }
        assert_eq!(ahead.plan(8, 50_000, SMALL_BYTES + 1, end), None, "large ones are read for themselves");
        assert_eq!(ahead.plan(8, 50_000, 500, 60_000), Some((0, 60_000)), "not beyond the segment");
    }

    #[test]
    fn a_window_serves_what_lies_wholly_in_it_and_only_of_its_segment() {
        let mut ahead = ReadAhead::default();
        ahead.keep(3, 4096, Rc::new(vec![1u8, 2, 3, 4]));
        assert_eq!(find(&mut ahead, 3, 4097, 3), Some(vec![2, 3, 4]));
        for (segment, position, len) in [(3, 4095, 2), (3, 4097, 4), (4, 4097, 3), (3, u64::MAX, 1)] {
            assert_eq!(find(&mut ahead, segment, position, len), None, "{segment} {position} {len}");
        }
        ahead.forget();
        assert_eq!(find(&mut ahead, 3, 4097, 3), None);
    }
}
