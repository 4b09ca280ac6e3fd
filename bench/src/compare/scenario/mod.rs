//! The work to measure, as data. Pure; [`file`](mod@file) reads it.

mod file;

pub use file::{parse, read};

use super::subject::Subject;
use crate::servers::Kind;
use crate::source::Mix;
use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

const SESSIONS_MAX: usize = 20_000;
/// Postfix and the relay take as many in one transaction without being told to.
const RECIPIENTS_MAX: usize = 1_000;
const SECONDS_MAX: f64 = 600.0;
const ROUNDS_MAX: usize = 99;
/// Messages per second of an open loop.
const RATE_MAX: f64 = 1e6;

/// Generator and sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ends {
    /// sluice-bench source and sink: pipelined, every message checked
    Own,
    /// smtp-source and smtp-sink
    Postfix,
}

impl Ends {
    pub fn name(self) -> &'static str {
        match self {
            Ends::Own => "sluice-bench source and sink",
            Ends::Postfix => "smtp-source and smtp-sink",
        }
    }
}

/// What the server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Takes and delivers.
    EndToEnd,
    /// Takes and stores, and tries nothing.
    Accept,
    /// Is started on a full queue and delivers it.
    Deliver,
    /// Holds sessions that say nothing.
    Idle,
}

/// Which legs are in TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    Off,
    /// From the generator to the server.
    In,
    /// From the server to the sink.
    Out,
    Both,
}

impl Tls {
    pub fn inward(self) -> bool {
        matches!(self, Tls::In | Tls::Both)
    }

    pub fn outward(self) -> bool {
        matches!(self, Tls::Out | Tls::Both)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handshakes {
    Full,
    /// The generator resumes its sessions, and the sink hands out tickets.
    Resumed,
}

/// How many measurements the work is, and how long they take, roughly: what one takes beside its own length is as on two
/// cores of 2.5 GHz.
pub fn length(works: &[Work]) -> (usize, Duration) {
    let (mut rows, mut seconds) = (0, 0.0);
    for work in works {
        for subject in &work.servers {
            // A start, a warm-up of a second, rests and an end; servers of many processes take longer.
            let beside = match subject {
                Subject::Fdatasync => 0.5,
                Subject::Straight | Subject::Server(Kind::Relay | Kind::Bare) => 2.7,
                Subject::Server(_) => 4.0,
            };
            let measured = match work.task {
                // Memory at the start, ten thousand connections, ten seconds at least.
                Task::Idle => work.seconds.max(10.0) + 10.0,
                // A start on nothing, the filling of the queue, and its emptying.
                Task::Deliver => 2.0 * work.seconds + 2.0 * beside,
                _ if work.load.is_some() => 2.0 * work.seconds + 1.0,
                _ => work.seconds,
            };
            // The rate is taken before the first round.
            let before = if work.ends == Ends::Postfix { 6.0 } else { 1.0 };
            let rounds = work.rounds_of(*subject);
            rows += rounds;
            seconds += rounds as f64 * (measured + beside) + before;
        }
    }
    (rows, Duration::from_secs_f64(seconds))
}

/// Octets of each message, or a mix of sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Size {
    Octets(usize),
    /// `1024:7,65536:3`
    Mix(String),
}

impl Size {
    pub fn mean(&self) -> f64 {
        match self {
            Size::Octets(octets) => *octets as f64,
            Size::Mix(text) => text.parse::<Mix>().map_or(0.0, |mix| mix.mean()),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Size::Octets(octets) if octets.is_multiple_of(1024) => write!(f, "{} KiB", octets / 1024),
            Size::Octets(octets) => write!(f, "{octets} octets"),
            Size::Mix(_) => write!(f, "mixed sizes ({:.1} KiB on average)", self.mean() / 1024.0),
        }
    }
}

/// One kind of work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Work {
    pub name: String,
    pub task: Task,
    pub ends: Ends,
    pub size: Size,
    pub sessions: usize,
    /// 0: no limit.
    pub messages_per_connection: u64,
    pub recipients: usize,
    pub tls: Tls,
    pub handshakes: Handshakes,
    /// Open loop at so many percent of the rate that the server reached in a saturated round just before.
    pub load: Option<u32>,
    /// Open loop at so many messages a second, the same for all servers.
    pub rate: Option<f64>,
    /// CPU lists of the relay's shards.
    pub ingest_cpus: Option<String>,
    pub delivery_cpus: Option<String>,
    /// How long the relay's shards look for more work before they sleep: its `shards.spin`.
    pub spin: Option<String>,
    pub servers: Vec<Subject>,
    /// Odd, so that the middle one is a round and no mean.
    pub rounds: usize,
    /// Of OpenSMTPD, Exim and Haraka, which most targets do not speak of.
    pub rounds_of_others: usize,
    /// How long a measurement is to last: the number of messages follows from the rate of the warm-up.
    pub seconds: f64,
    /// Exactly so many instead.
    pub messages: Option<u64>,
    /// Messages before, not measured.
    pub warm_up: u64,
}

impl Work {
    /// Generator to sink through one server, many messages on a connection, as in most rows.
    pub fn plain(size: usize, sessions: usize) -> Self {
        Work {
            name: "plain".to_owned(),
            task: Task::EndToEnd,
            ends: Ends::Own,
            size: Size::Octets(size),
            sessions,
            messages_per_connection: 0,
            recipients: 1,
            tls: Tls::Off,
            handshakes: Handshakes::Resumed,
            load: None,
            rate: None,
            ingest_cpus: None,
            delivery_cpus: None,
            spin: None,
            servers: Subject::all(),
            rounds: 3,
            rounds_of_others: 3,
            seconds: 5.0,
            messages: None,
            warm_up: 500,
        }
    }

    /// What is done, in words.
    pub fn title(&self) -> String {
        let task = match self.task {
            Task::EndToEnd => "end to end",
            Task::Accept => "accept only",
            Task::Deliver => "deliver only",
            Task::Idle => return format!("{} idle sessions", self.sessions),
        };
        let sessions = if self.sessions == 1 { "session" } else { "sessions" };
        let mut title = format!("{task}, {}, {} {sessions}", self.size, self.sessions);
        if self.messages_per_connection > 0 {
            title += &format!(", {} on a connection", self.messages_per_connection);
        }
        if self.recipients > 1 {
            title += &format!(", {} recipients", self.recipients);
        }
        if self.tls != Tls::Off {
            let legs = match self.tls {
                Tls::Both => "both legs",
                Tls::In => "inward",
                _ => "outward",
            };
            let kind = if self.handshakes == Handshakes::Full { "full" } else { "resumed" };
            title += &format!(", TLS {legs} ({kind} handshakes)");
        }
        if let Some(load) = self.load {
            title += &format!(", open loop at {load} %");
        }
        if let Some(rate) = self.rate {
            title += &format!(", open loop at {rate}/s");
        }
        if let (Some(ingest), Some(delivery)) = (&self.ingest_cpus, &self.delivery_cpus) {
            title += &format!(", ingest on CPU {ingest}, delivery on {delivery}");
        }
        if let Some(spin) = &self.spin {
            title += &format!(", spin {spin}");
        }
        title + ", " + self.ends.name()
    }

    /// Whether both are the same work, whatever the name, the servers and the length.
    pub fn is_kind(&self, other: &Work) -> bool {
        let tls = |work: &Work| (work.tls, (work.tls != Tls::Off).then_some(work.handshakes));
        let shards = |work: &Work| (work.ingest_cpus.clone(), work.delivery_cpus.clone(), work.spin.clone());
        (self.task, self.ends, self.sessions) == (other.task, other.ends, other.sessions)
            && (&self.size, self.recipients) == (&other.size, other.recipients)
            && self.messages_per_connection == other.messages_per_connection
            && (self.load, self.rate) == (other.load, other.rate)
            && tls(self) == tls(other)
            && shards(self) == shards(other)
    }

    pub fn is_open_loop(&self) -> bool {
        self.load.is_some() || self.rate.is_some()
    }

    /// How many rounds the server takes part in.
    pub fn rounds_of(&self, subject: Subject) -> usize {
        match subject {
            Subject::Server(Kind::OpenSmtpd | Kind::Exim | Kind::Haraka) => {
                self.rounds_of_others.min(self.rounds)
            }
            _ => self.rounds,
        }
    }

    /// Who is measured in a round (from 1), in its order: each round begins with another one, and every second goes
    /// backwards, so that nobody always comes behind the same one.
    pub fn order(&self, round: usize) -> Vec<Subject> {
        let mut order: Vec<_> =
            self.servers.iter().copied().filter(|subject| round <= self.rounds_of(*subject)).collect();
        let length = order.len().max(1);
        order.rotate_left((round - 1) % length);
        if round.is_multiple_of(2) {
            order.reverse();
        }
        order
    }

    pub fn check(&self) -> Result<()> {
        ensure!((1..=SESSIONS_MAX).contains(&self.sessions), "sessions must be from 1 to {SESSIONS_MAX}");
        ensure!(
            (1..=RECIPIENTS_MAX).contains(&self.recipients),
            "recipients must be from 1 to {RECIPIENTS_MAX}"
        );
        for rounds in [self.rounds, self.rounds_of_others] {
            let fits = (1..=ROUNDS_MAX).contains(&rounds) && rounds % 2 == 1;
            ensure!(fits, "rounds must be an odd number from 1 to {ROUNDS_MAX}");
        }
        ensure!(self.seconds > 0.0 && self.seconds <= SECONDS_MAX, "seconds must be up to {SECONDS_MAX}");
        ensure!(self.warm_up > 0, "warm_up must be at least 1: the rate is taken from it");
        ensure!(self.load.is_none_or(|load| (1..=100).contains(&load)), "load must be from 1 to 100");
        let fits = |rate: f64| rate > 0.0 && rate <= RATE_MAX;
        ensure!(self.rate.is_none_or(fits), "rate must be above 0 and up to {RATE_MAX}");
        ensure!(self.load.is_none() || self.rate.is_none(), "load and rate are two ways to say how fast");
        ensure!(!self.servers.is_empty(), "servers must not be empty");
        match &self.size {
            Size::Octets(octets) => ensure!((1..=64 << 20).contains(octets), "size must be from 1 to 64 MiB"),
            Size::Mix(text) => drop(text.parse::<Mix>().map_err(anyhow::Error::msg)?),
        }
        for cpus in [&self.ingest_cpus, &self.delivery_cpus].into_iter().flatten() {
            cpus.parse::<crate::args::Cpus>().map_err(anyhow::Error::msg)?;
        }
        if self.ends == Ends::Postfix {
            let plain = self.task == Task::EndToEnd && !self.is_open_loop() && self.recipients == 1;
            let fixed = matches!(self.size, Size::Octets(_)) && self.tls == Tls::Off;
            ensure!(
                plain && fixed && self.messages_per_connection <= 1,
                "with the ends of Postfix: end-to-end, one recipient, one size, no TLS, no load, no rate"
            );
        }
        let is_queue = matches!(self.task, Task::Deliver | Task::Idle);
        ensure!(!is_queue || !self.is_open_loop(), "load and rate are of no use where nothing is sent");
        for subject in &self.servers {
            match (subject, self.task) {
                (Subject::Straight, Task::Deliver | Task::Idle) => {
                    bail!("straight has no queue and no sessions")
                }
                (Subject::Fdatasync, task) if task != Task::Accept => bail!("fdatasync belongs to accept"),
                (Subject::Server(Kind::Bare), _) => {
                    let plain = self.task == Task::EndToEnd && self.ends == Ends::Own;
                    ensure!(
                        plain && self.tls == Tls::Off && self.recipients == 1,
                        "bare: end-to-end, own ends, one recipient, no TLS"
                    );
                }
                (Subject::Server(kind), Task::Idle) if *kind != Kind::Relay => {
                    bail!("idle sessions are measured of the relay only")
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
