//! The sending side alone: what comes out of a queue that is full, to a near peer ([`drain`]) and to a far one
//! ([`distance`]).
//!
//! Each measurement fills a queue while the peer is not there, ends the server, starts peer and server, and measures at
//! the peer: so neither the generator nor the receiving side is in the figures. Relay and Postfix take turns.

pub mod distance;
pub mod drain;
pub mod proxy;
mod queue;

use crate::process::{self, Group};
use crate::sink;
use crate::stop::Stop;
use anyhow::{Context as _, Result, bail, ensure};
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Between two looks whether the sink has ended.
const LOOK: Duration = Duration::from_millis(2);
/// A server rests when it used less than [`REST_CPU`] in this time.
const REST_WINDOW: Duration = Duration::from_millis(300);
const REST_CPU: Duration = Duration::from_millis(5);
const REST_WAIT: Duration = Duration::from_secs(5);

/// The peer: our sink as a process of its own, which ends when it has everything.
struct Peer {
    group: Group,
    child: Child,
}

impl Peer {
    fn start(port: u16, messages: u64, chunking: bool, stop: &Stop) -> Result<Peer> {
        crate::servers::await_free(port, stop)?;
        let mut arguments = vec!["sink".to_owned(), "--bind".to_owned(), format!("127.0.0.1:{port}")];
        arguments.extend(["--expect".to_owned(), messages.to_string()]);
        arguments.extend(chunking.then(|| "--chunking".to_owned()));
        let mut group = Group::new("sink");
        let child = group.start(&own_program()?, &arguments, |command| {
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        })?;
        let mut peer = Peer { group, child };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !crate::servers::accepts(port) {
            ensure!(peer.child.try_wait()?.is_none(), "the sink did not start");
            ensure!(!stop.is_set() && Instant::now() < deadline, "the sink does not accept");
            std::thread::sleep(LOOK);
        }
        Ok(peer)
    }

    /// Waits until it has everything; every message must be intact and different.
    fn finish(mut self, messages: u64, deadline: Instant, stop: &Stop) -> Result<(sink::Report, Duration)> {
        while self.child.try_wait()?.is_none() {
            ensure!(!stop.is_set(), "interrupted");
            ensure!(Instant::now() < deadline, "the sink has not got everything within --patience");
            std::thread::sleep(LOOK);
        }
        let cpu = self.group.cpu();
        let mut text = String::new();
        self.child.stdout.take().context("a pipe")?.read_to_string(&mut text)?;
        let report: sink::Report = serde_json::from_str(&text).context("the sink's report cannot be read")?;
        if report.damaged > 0 || report.intact < messages {
            bail!("{} of {messages} messages came intact, {} damaged", report.intact, report.damaged);
        }
        Ok((report, cpu))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        process::end_child(&mut self.child);
    }
}

fn own_program() -> Result<PathBuf> {
    std::env::current_exe().context("the own program")
}

/// Messages a second between the first and the last one at the peer.
fn rate(report: &sink::Report, messages: u64) -> Result<f64> {
    let (Some(first), Some(last)) = (report.first_unix_nanos, report.last_unix_nanos) else {
        bail!("the sink saw no message");
    };
    ensure!(messages > 1, "one message has no rate");
    Ok((messages - 1) as f64 / (last.saturating_sub(first).max(1) as f64 / 1e9))
}

/// Waits until the group has stopped working.
fn rest(group: &Group) {
    let deadline = Instant::now() + REST_WAIT;
    let mut before = group.cpu();
    while Instant::now() < deadline {
        std::thread::sleep(REST_WINDOW);
        let now = group.cpu();
        if now.saturating_sub(before) < REST_CPU {
            return;
        }
        before = now;
    }
}
