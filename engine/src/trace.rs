//! Live dialogues of sessions, for an administrator who asks for them (`sluice trace`).
//!
//! ```text
//! admin (service thread) ──ToIngest::Trace──▶ every ingest shard: Traces
//!            ◀── lines, bounded, never waited for ── the tasks of sessions that match
//! ```
//!
//! A trace ends when its reader goes away. A reader that is too slow loses lines, and is told how many;
//! no session ever waits for one. What is shown of a dialogue, and what is masked, is `session::tap`'s.

use crate::config::Network;
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use tokio::sync::mpsc;

/// Octets of lines that wait for a reader. Prevents: a reader that has stopped from taking all memory.
pub const WAITING_OCTETS_MAX: usize = 1024 * 1024;
/// The same as pieces, of which each holds at least one line.
const WAITING_MAX: usize = 4 * 1024;
/// Traces at a time.
pub const TRACES_MAX: usize = 8;

/// Which sessions are meant.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub client: Network,
    /// Index in `Config::listeners`; `None`: any.
    pub listener: Option<usize>,
}

/// The shards' end.
pub struct Trace {
    wanted: Wanted,
    lines: mpsc::Sender<String>,
    waiting: Arc<AtomicUsize>,
    dropped: AtomicU64,
}

/// The reader's end.
pub struct Reader {
    lines: mpsc::Receiver<String>,
    waiting: Arc<AtomicUsize>,
}

pub fn trace(wanted: Wanted) -> (Arc<Trace>, Reader) {
    let (sender, lines) = mpsc::channel(WAITING_MAX);
    let waiting = Arc::new(AtomicUsize::new(0));
    let trace = Trace { wanted, lines: sender, waiting: waiting.clone(), dropped: AtomicU64::new(0) };
    (Arc::new(trace), Reader { lines, waiting })
}

impl Reader {
    /// The next lines; `None` when the shards have gone.
    pub async fn next(&mut self) -> Option<String> {
        let lines = self.lines.recv().await?;
        self.waiting.fetch_sub(lines.len(), Relaxed);
        Some(lines)
    }
}

impl Trace {
    /// Hands lines over, or drops and counts them.
    pub fn tell(&self, lines: &str) {
        let count = lines.lines().count() as u64;
        let dropped = self.dropped.swap(0, Relaxed);
        let text = match dropped {
            0 => lines.to_owned(),
            dropped => format!("-- {dropped} lines dropped: they came faster than they were read\n{lines}"),
        };
        let octets = text.len();
        let taken = self.waiting.fetch_add(octets, Relaxed);
        if taken + octets > WAITING_OCTETS_MAX || self.lines.try_send(text).is_err() {
            self.waiting.fetch_sub(octets, Relaxed);
            self.dropped.fetch_add(dropped + count, Relaxed);
        }
    }

    fn is_over(&self) -> bool {
        self.lines.is_closed()
    }

    fn wants(&self, listener: usize, client: IpAddr) -> bool {
        self.wanted.client.contains(client) && self.wanted.listener.is_none_or(|wanted| wanted == listener)
    }
}

/// All traces of one ingest shard. A session looks again whenever the generation has changed.
#[derive(Default)]
pub struct Traces {
    generation: Cell<u64>,
    all: RefCell<Vec<Arc<Trace>>>,
}

impl Traces {
    pub fn generation(&self) -> u64 {
        self.generation.get()
    }

    pub fn begin(&self, trace: Arc<Trace>) {
        self.all.borrow_mut().push(trace);
        self.generation.set(self.generation.get() + 1);
    }

    /// Forgets those whose readers have gone.
    pub fn sweep(&self) {
        let mut all = self.all.borrow_mut();
        let before = all.len();
        all.retain(|trace| !trace.is_over());
        if all.len() < before {
            self.generation.set(self.generation.get() + 1);
        }
    }

    /// Those that a session is to tell.
    pub fn of(&self, listener: usize, client: IpAddr) -> Vec<Arc<Trace>> {
        self.all.borrow().iter().filter(|trace| trace.wants(listener, client)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;

    fn wanted(listener: Option<usize>) -> Wanted {
        Wanted { client: Network { address: "192.0.2.0".parse().unwrap(), prefix: 24 }, listener }
    }

    #[test]
    fn sessions_are_matched_by_client_and_listener_until_the_reader_goes() {
        let traces = Traces::default();
        let ((any, reader), (one, _other)) = (trace(wanted(None)), trace(wanted(Some(1))));
        traces.begin(any);
        traces.begin(one);
        let count = |listener, client: &str| traces.of(listener, client.parse().unwrap()).len();
        assert_eq!((count(0, "192.0.2.9"), count(1, "192.0.2.9"), count(1, "192.0.3.9")), (1, 2, 0));
        let generation = traces.generation();
        traces.sweep();
        assert_eq!(traces.generation(), generation, "nothing has changed");
        drop(reader);
        traces.sweep();
        assert_eq!((count(0, "192.0.2.9"), traces.generation()), (0, generation + 1));
    }

    #[test]
    fn a_reader_that_does_not_read_loses_lines_and_learns_how_many() {
        let (trace, mut reader) = trace(wanted(None));
        let line = format!("{}\n", "x".repeat(1023));
        for _ in 0..2_000 {
            trace.tell(&line);
        }
        let mut kept = 0;
        while trace.waiting.load(Relaxed) > 0 {
            let text = block_on(reader.next()).unwrap();
            assert_eq!(text, line);
            kept += 1;
        }
        assert_eq!(kept, WAITING_OCTETS_MAX / 1024);
        trace.tell("after\n");
        let text = block_on(reader.next()).unwrap();
        let told =
            format!("-- {} lines dropped: they came faster than they were read\nafter\n", 2_000 - kept);
        assert_eq!(text, told);
    }

    #[test]
    fn short_lines_are_bounded_too() {
        let (trace, _reader) = trace(wanted(None));
        (0..2 * WAITING_MAX).for_each(|_| trace.tell("x\n"));
        assert_eq!(trace.dropped.load(Relaxed), WAITING_MAX as u64);
    }
}
