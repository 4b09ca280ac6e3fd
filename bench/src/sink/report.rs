//! What the sink counted, and how it is printed.

use super::seen::{Seen, Sight};
use super::verify::Verdict;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What the connections of one executor counted.
#[derive(Default)]
pub struct Tally {
    pub connections: u64,
    pub accept_errors: u64,
    /// Messages answered with 250.
    pub messages: u64,
    pub intact: u64,
    pub damaged: u64,
    /// Without a check.
    pub unchecked: u64,
    pub repeats: u64,
    /// Transactions that brought a known message for other recipients.
    pub parts: u64,
    pub recipients: u64,
    /// Octets of content.
    pub octets: u64,
    pub protocol_errors: u64,
    /// Connections that ended within a transaction.
    pub broken_off: u64,
    pub handshakes_full: u64,
    pub handshakes_resumed: u64,
    pub handshakes_failed: u64,
    pub refused: BTreeMap<String, u64>,
    pub first: Option<SystemTime>,
    pub last: Option<SystemTime>,
    pub received: Received,
    seen: Seen,
}

impl Tally {
    pub fn new(received: Received) -> Self {
        Tally { received, ..Tally::default() }
    }

    /// Counts a message that was answered with 250.
    pub fn message(&mut self, verdict: Verdict, octets: u64, recipients: u64, first_recipient: u32) {
        self.messages += 1;
        self.octets += octets;
        self.recipients += recipients;
        match verdict {
            Verdict::Intact(check) => {
                self.intact += 1;
                let sight = self.seen.note((check.run, check.number), first_recipient);
                self.sight(sight);
                self.received.note(check.run, check.number);
            }
            Verdict::Damaged(_) => self.damaged += 1,
            Verdict::Unchecked => self.unchecked += 1,
        }
        let now = SystemTime::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    pub fn handshake(&mut self, resumed: bool) {
        match resumed {
            true => self.handshakes_resumed += 1,
            false => self.handshakes_full += 1,
        }
    }

    /// Different messages: intact ones once each, and those that cannot be told apart.
    pub fn distinct(&self) -> u64 {
        self.seen.distinct() + self.unchecked
    }

    pub fn add(&mut self, other: Tally) {
        self.connections += other.connections;
        self.accept_errors += other.accept_errors;
        self.messages += other.messages;
        self.intact += other.intact;
        self.damaged += other.damaged;
        self.unchecked += other.unchecked;
        self.repeats += other.repeats;
        self.parts += other.parts;
        self.recipients += other.recipients;
        self.octets += other.octets;
        self.protocol_errors += other.protocol_errors;
        self.broken_off += other.broken_off;
        self.handshakes_full += other.handshakes_full;
        self.handshakes_resumed += other.handshakes_resumed;
        self.handshakes_failed += other.handshakes_failed;
        for (kind, count) in other.refused {
            *self.refused.entry(kind).or_default() += count;
        }
        self.first = [self.first, other.first].into_iter().flatten().min();
        self.last = self.last.max(other.last);
        let mut corrections = Vec::new();
        self.seen.add(other.seen, |sight| corrections.push(sight));
        corrections.into_iter().for_each(|sight| self.sight(sight));
    }

    fn sight(&mut self, sight: Sight) {
        match sight {
            Sight::New => {}
            Sight::Part => self.parts += 1,
            Sight::Repeat => self.repeats += 1,
        }
    }
}

/// The file of received numbers, if one was asked for; see the generator's list of acknowledged ones.
#[derive(Clone, Default)]
pub struct Received(Option<Arc<Mutex<File>>>);

impl Received {
    pub fn create(path: Option<&Path>) -> Result<Self> {
        let create =
            |path: &Path| File::create(path).with_context(|| format!("cannot create {}", path.display()));
        Ok(Received(path.map(create).transpose()?.map(|file| Arc::new(Mutex::new(file)))))
    }

    fn note(&self, run: u32, number: u64) {
        if let Some(file) = &self.0 {
            // Reported at the end, by flush.
            let _ = writeln!(file.lock().expect("no holder of this lock panics"), "{run:08x}-{number}");
        }
    }

    pub fn flush(&self) -> Result<()> {
        match &self.0 {
            Some(file) => Ok(file.lock().expect("no holder of this lock panics").sync_all()?),
            None => Ok(()),
        }
    }
}

/// The figures of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub connections: u64,
    pub accept_errors: u64,
    pub messages: u64,
    /// Different messages.
    pub distinct: u64,
    pub intact: u64,
    pub damaged: u64,
    pub unchecked: u64,
    pub repeats: u64,
    pub parts: u64,
    pub recipients: u64,
    pub octets: u64,
    pub protocol_errors: u64,
    pub broken_off: u64,
    /// Of TLS.
    pub handshakes_full: u64,
    pub handshakes_resumed: u64,
    pub handshakes_failed: u64,
    pub refused: BTreeMap<String, u64>,
    /// Nanoseconds since 1970 of the first and last message.
    pub first_unix_nanos: Option<u64>,
    pub last_unix_nanos: Option<u64>,
    /// Between them.
    pub seconds: f64,
    pub messages_per_second: f64,
    /// The sink's own user and system time.
    pub cpu_seconds: f64,
    pub cpu_ms_per_message: f64,
}

impl Report {
    pub fn new(tally: &Tally, cpu: Duration) -> Self {
        let since_1970 =
            |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let (first, last) = (tally.first.map(since_1970), tally.last.map(since_1970));
        let seconds = last.unwrap_or(0).saturating_sub(first.unwrap_or(0)) as f64 / 1e9;
        Report {
            connections: tally.connections,
            accept_errors: tally.accept_errors,
            messages: tally.messages,
            distinct: tally.distinct(),
            intact: tally.intact,
            damaged: tally.damaged,
            unchecked: tally.unchecked,
            repeats: tally.repeats,
            parts: tally.parts,
            recipients: tally.recipients,
            octets: tally.octets,
            protocol_errors: tally.protocol_errors,
            broken_off: tally.broken_off,
            handshakes_full: tally.handshakes_full,
            handshakes_resumed: tally.handshakes_resumed,
            handshakes_failed: tally.handshakes_failed,
            refused: tally.refused.clone(),
            first_unix_nanos: first,
            last_unix_nanos: last,
            seconds,
            messages_per_second: if seconds > 0.0 { tally.messages as f64 / seconds } else { 0.0 },
            cpu_seconds: cpu.as_secs_f64(),
            cpu_ms_per_message: cpu.as_secs_f64() * 1e3 / tally.messages.max(1) as f64,
        }
    }

    /// Nothing came damaged or twice.
    pub fn intact(&self) -> bool {
        self.damaged == 0 && self.repeats == 0
    }
}
