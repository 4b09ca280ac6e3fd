//! What a run of the generator counted, and how it is printed.

use super::Options;
use super::pace::{Arrivals, Pace};
use crate::figures::{Latency, Summary, short, table};
use anyhow::{Context as _, Result};
use rustls::HandshakeKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What the sessions of one executor counted.
#[derive(Default)]
pub struct Tally {
    pub connections: u64,
    pub accepted: u64,
    pub failed: u64,
    /// Octets of content of the accepted messages.
    pub octets: u64,
    pub handshakes_full: u64,
    pub handshakes_resumed: u64,
    pub failures: BTreeMap<String, Failure>,
    pub connect: Latency,
    pub transaction: Latency,
    pub end_of_data: Latency,
    /// Open loop: how late a message was started.
    pub lag: Latency,
    pub first: Option<Instant>,
    pub last: Option<Instant>,
    pub acknowledged: Acknowledged,
}

/// Failures of one kind, with the first one's text.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Failure {
    pub count: u64,
    pub first: String,
}

impl Tally {
    pub fn new(acknowledged: Acknowledged) -> Self {
        Tally { acknowledged, ..Tally::default() }
    }

    /// Counts a failure under its phase and reply code (or what went wrong instead).
    pub fn failure(&mut self, kind: String, text: &str) {
        let failure = self.failures.entry(kind).or_default();
        failure.count += 1;
        if failure.count == 1 {
            failure.first = text.to_owned();
        }
    }

    /// A TLS handshake that is done.
    pub fn handshake(&mut self, kind: Option<HandshakeKind>) {
        match kind {
            Some(HandshakeKind::Resumed) => self.handshakes_resumed += 1,
            _ => self.handshakes_full += 1,
        }
    }

    pub fn add(&mut self, other: &Tally) {
        self.connections += other.connections;
        self.accepted += other.accepted;
        self.failed += other.failed;
        self.octets += other.octets;
        self.handshakes_full += other.handshakes_full;
        self.handshakes_resumed += other.handshakes_resumed;
        for (kind, failure) in &other.failures {
            let sum =
                self.failures.entry(kind.clone()).or_insert_with(|| Failure { count: 0, ..failure.clone() });
            sum.count += failure.count;
        }
        self.connect.add(&other.connect);
        self.transaction.add(&other.transaction);
        self.end_of_data.add(&other.end_of_data);
        self.lag.add(&other.lag);
        self.first = [self.first, other.first].into_iter().flatten().min();
        self.last = self.last.max(other.last);
    }
}

/// The file of acknowledged numbers, if one was asked for. Written line by line and at once, so that it is right
/// also when the generator is killed; that costs a system call a message.
#[derive(Clone, Default)]
pub struct Acknowledged(Option<Arc<Mutex<File>>>);

impl Acknowledged {
    pub fn create(path: Option<&Path>) -> Result<Self> {
        let create =
            |path: &Path| File::create(path).with_context(|| format!("cannot create {}", path.display()));
        Ok(Acknowledged(path.map(create).transpose()?.map(|file| Arc::new(Mutex::new(file)))))
    }

    pub fn note(&self, number: u64) {
        if let Some(file) = &self.0 {
            let mut file = file.lock().expect("no holder of this lock panics");
            // Reported at the end, by flush.
            let _ = writeln!(file, "{number}");
        }
    }

    pub fn flush(&self) -> Result<()> {
        match &self.0 {
            Some(file) => file
                .lock()
                .expect("no holder of this lock panics")
                .sync_all()
                .context("cannot write the numbers"),
            None => Ok(()),
        }
    }
}

/// The figures of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Hexadecimal.
    pub run: String,
    pub sessions: usize,
    pub size: usize,
    pub recipients: usize,
    /// Messages per second asked for; none in the closed loop.
    pub rate: Option<f64>,
    /// Open loop: how the times were spread.
    pub arrivals: Option<Arrivals>,
    pub pipeline: bool,
    /// Nanoseconds since 1970 when the run began; in the open loop, when the first message was due.
    pub started_unix_nanos: u64,
    /// From the first message's start (open loop: from when it was due) to the last one's answer.
    pub seconds: f64,
    pub connections: u64,
    pub accepted: u64,
    pub failed: u64,
    /// Planned and never started: the open loop gave up, or a signal came.
    pub not_sent: u64,
    /// TLS handshakes by their kind, as the client's library says it; each is of a connection.
    pub handshakes_full: u64,
    pub handshakes_resumed: u64,
    pub messages_per_second: f64,
    pub mebibytes_per_second: f64,
    /// The generator's own user and system time.
    pub cpu_seconds: f64,
    pub cpu_ms_per_message: f64,
    pub failures: BTreeMap<String, Failure>,
    pub connect: Summary,
    pub transaction: Summary,
    pub end_of_data: Summary,
    pub lag: Summary,
}

impl Report {
    pub(super) fn new(
        options: &Options,
        run: u32,
        started: SystemTime,
        tally: &Tally,
        pace: &Pace,
        cpu: Duration,
    ) -> Self {
        let first = tally.first.filter(|_| options.rate.is_none()).unwrap_or(pace.start());
        let seconds = tally.last.map_or(0.0, |last| last.saturating_duration_since(first).as_secs_f64());
        let per_second = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
        Report {
            run: format!("{run:08x}"),
            sessions: options.sessions,
            size: options.size,
            recipients: options.recipients,
            rate: options.rate,
            arrivals: options.rate.map(|_| options.arrivals),
            pipeline: options.pipeline,
            started_unix_nanos: started.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64,
            seconds,
            connections: tally.connections,
            accepted: tally.accepted,
            failed: tally.failed,
            not_sent: pace
                .planned()
                .map_or(0, |planned| planned.saturating_sub(tally.accepted + tally.failed)),
            handshakes_full: tally.handshakes_full,
            handshakes_resumed: tally.handshakes_resumed,
            messages_per_second: per_second(tally.accepted as f64),
            mebibytes_per_second: per_second(tally.octets as f64 / f64::from(1 << 20)),
            cpu_seconds: cpu.as_secs_f64(),
            cpu_ms_per_message: cpu.as_secs_f64() * 1e3 / tally.accepted.max(1) as f64,
            failures: tally.failures.clone(),
            connect: tally.connect.summary(),
            transaction: tally.transaction.summary(),
            end_of_data: tally.end_of_data.summary(),
            lag: tally.lag.summary(),
        }
    }

    /// Share of the TLS handshakes that resumed a session; `None` where there was none.
    pub fn resumed_share(&self) -> Option<f64> {
        let all = self.handshakes_full + self.handshakes_resumed;
        (all > 0).then(|| self.handshakes_resumed as f64 / all as f64)
    }

    /// Every message was accepted, for every recipient, without a detour.
    pub fn complete(&self) -> bool {
        self.failed == 0 && self.not_sent == 0 && self.failures.is_empty() && self.accepted > 0
    }

    pub(super) fn text(&self) -> String {
        let mut out = format!(
            "run {}: {} accepted, {} failed, {} not sent, {} connections in {:.3} s\n\
             {} messages/s, {} MiB/s, generator CPU {:.4} ms a message\n\n",
            self.run,
            self.accepted,
            self.failed,
            self.not_sent,
            self.connections,
            self.seconds,
            short(self.messages_per_second),
            short(self.mebibytes_per_second),
            self.cpu_ms_per_message,
        );
        let header = ["latency, ms", "count", "p50", "p90", "p99", "p99.9", "max"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        let row = |name: &str, s: &Summary| {
            let mut row = vec![name.to_owned(), s.count.to_string()];
            row.extend([s.p50_ms, s.p90_ms, s.p99_ms, s.p999_ms, s.max_ms].map(|ms| format!("{ms:.3}")));
            row
        };
        rows.push(row("final dot to 250", &self.end_of_data));
        rows.push(row("transaction", &self.transaction));
        rows.push(row("connect to 220", &self.connect));
        if self.rate.is_some() {
            rows.push(row("started late", &self.lag));
        }
        out.push_str(&table(&rows));
        if self.handshakes_full + self.handshakes_resumed > 0 {
            let (full, resumed) = (self.handshakes_full, self.handshakes_resumed);
            out.push_str(&format!("{full} full TLS handshakes, {resumed} resumed\n"));
        }
        for (kind, failure) in &self.failures {
            out.push_str(&format!("{} × {kind}, first: {}\n", failure.count, failure.first));
        }
        out
    }
}
