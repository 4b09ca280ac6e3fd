//! The relay's log, read line by line while it runs.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Lines kept; a relay that says more than this in one test is a fault of its own.
const LINES_MAX: usize = 2_000_000;

#[derive(Default)]
struct State {
    lines: Vec<String>,
    ended: bool,
}

/// All lines that a process has written so far. Clones share them.
#[derive(Clone, Default)]
pub struct Log {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Log {
    /// Reads `source` to its end on a thread of its own. A carriage return ends a line, too: that is how
    /// running counters are shown.
    pub fn follow(source: impl Read + Send + 'static) -> (Self, JoinHandle<()>) {
        let log = Self::default();
        let writer = log.clone();
        let thread = thread::spawn(move || {
            let mut input = BufReader::new(source);
            let mut line = Vec::new();
            while let Ok(bytes @ [_, ..]) = input.fill_buf() {
                let taken = bytes.len();
                for &byte in bytes {
                    if !matches!(byte, b'\n' | b'\r') {
                        line.push(byte);
                    } else if !line.is_empty() {
                        writer.push(String::from_utf8_lossy(&line).into_owned());
                        line.clear();
                    }
                }
                input.consume(taken);
            }
            if !line.is_empty() {
                writer.push(String::from_utf8_lossy(&line).into_owned());
            }
            let (state, changed) = &*writer.shared;
            state.lock().expect("log").ended = true;
            changed.notify_all();
        });
        (log, thread)
    }

    fn push(&self, line: String) {
        if std::env::var_os("SLUICE_TEST_LOG").is_some() {
            eprintln!("relay: {line}");
        }
        let (state, changed) = &*self.shared;
        let mut state = state.lock().expect("log");
        assert!(state.lines.len() < LINES_MAX, "the log is endless");
        state.lines.push(line);
        changed.notify_all();
    }

    pub fn lines(&self) -> Vec<String> {
        self.shared.0.lock().expect("log").lines.clone()
    }

    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// Lines that contain all of `parts`.
    pub fn matching(&self, parts: &[&str]) -> Vec<String> {
        let state = self.shared.0.lock().expect("log");
        state.lines.iter().filter(|line| parts.iter().all(|part| line.contains(part))).cloned().collect()
    }

    /// The first line, past or to come, that contains all of `parts`; `None` after `limit` or at the end.
    pub fn find_within(&self, limit: Duration, parts: &[&str]) -> Option<String> {
        let deadline = Instant::now() + limit;
        let (state, changed) = &*self.shared;
        let mut state = state.lock().expect("log");
        let mut seen = 0;
        loop {
            if let Some(line) =
                state.lines[seen..].iter().find(|line| parts.iter().all(|part| line.contains(part)))
            {
                return Some(line.clone());
            }
            seen = state.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return None;
            }
            state = changed.wait_timeout(state, left).expect("log").0;
        }
    }

    /// As [`Log::find_within`].
    ///
    /// # Panics
    /// When no such line comes; shows the log.
    #[track_caller]
    pub fn wait_for(&self, limit: Duration, parts: &[&str]) -> String {
        self.find_within(limit, parts).unwrap_or_else(|| panic!("no {parts:?} in the log:\n{}", self.tail()))
    }

    /// The end of the log, for the message of a failure.
    pub fn tail(&self) -> String {
        let lines = self.lines();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

/// The value of `key=` in a log line, without angle brackets; what stands in quotes is taken whole.
pub fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let marker = format!("{key}=");
    let at = line
        .match_indices(&marker)
        .map(|(at, _)| at)
        .find(|&at| at == 0 || matches!(line.as_bytes()[at - 1], b' ' | b',' | b'{'))?;
    let rest = &line[at + marker.len()..];
    let value = if let Some(quoted) = rest.strip_prefix('"') {
        quoted.split('"').next()?
    } else if let Some(path) = rest.strip_prefix('<') {
        path.split('>').next()?
    } else {
        rest.split([',', ' ']).next()?
    };
    Some(value)
}

const QUEUE_ID_LEN: usize = 13;

/// Whether a word has the form of a queue id (13 characters of Crockford's base 32).
pub fn is_queue_id(word: &str) -> bool {
    word.len() == QUEUE_ID_LEN
        && word
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (byte.is_ascii_uppercase() && !b"ILOU".contains(&byte)))
        && word.starts_with(|c: char| c.is_ascii_digit())
        && word.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// The queue ids named in a text, in order.
pub fn queue_ids(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| is_queue_id(word))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_as_postfix_writes_them() {
        let line = "66SZ3QT4H0000: to=<bob@b.test>, relay=mx.b.test[127.0.0.2]:25, delay=0.3, \
                    delays=0.1/0/0.1/0.1, dsn=2.0.0, status=sent (250 to=nobody)";
        let value = |key| field(line, key);
        assert_eq!(value("to"), Some("bob@b.test"));
        assert_eq!(value("relay"), Some("mx.b.test[127.0.0.2]:25"));
        assert_eq!(value("delay"), Some("0.3"));
        assert_eq!(value("delays"), Some("0.1/0/0.1/0.1"));
        assert_eq!((value("dsn"), value("status"), value("from")), (Some("2.0.0"), Some("sent"), None));
        assert_eq!(queue_ids(line), ["66SZ3QT4H0000"]);
    }

    #[test]
    fn a_line_is_awaited_and_the_end_ends_the_wait() {
        let (log, thread) = Log::follow(&b"first\nsecond one\nlast"[..]);
        assert_eq!(log.wait_for(crate::wait::SOON, &["sec", "one"]), "second one");
        thread.join().unwrap();
        assert_eq!(log.find_within(crate::wait::SOON, &["third"]), None);
        assert_eq!(log.lines(), ["first", "second one", "last"]);
    }
}
