//! TLS of the relay and of Postfix in the same run: handshakes, and octets through STARTTLS.
//!
//! Both servers show the same certificate and get the same clients: threads that only shake hands ([`handshakes`]), and
//! the own generator for messages, which both servers store and do not deliver. In each round every server is started
//! anew and goes through all measurements, in turns, so that a machine that drifts drifts for all. What a handshake
//! costs is the difference to a session without TLS.

pub mod handshakes;
mod report;

use crate::args;
use crate::process::Group;
use crate::servers::{self, Certificate, Mode, NAME, NOBODY, Server, Setup, WorkDirectory, rest};
use crate::source;
use crate::stop::Stop;
use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use handshakes::Kind as Session;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const WARM_UP: Duration = Duration::from_secs(1);

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The relay's program
    #[arg(long, default_value = "target/release/sluice")]
    pub relay: PathBuf,
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_value = "relay,postfix")]
    pub servers: Vec<Kind>,
    /// Measurements of each kind; the table shows medians
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Time of each measurement of handshakes
    #[arg(long, default_value = "4s", value_parser = args::duration)]
    pub length: Duration,
    /// Clients at the same time
    #[arg(long, default_value_t = 8)]
    pub sessions: usize,
    /// Messages of 64 KiB of each measurement of octets
    #[arg(long, default_value_t = 2_000)]
    pub messages: u64,
    /// Key of the certificate: ec:P-256, ec:P-384, rsa:2048 ...
    #[arg(long, default_value = "ec:P-256")]
    pub key: String,
    /// Directory for queues, spools and configurations
    #[arg(long, default_value = "/var/tmp")]
    pub dir: PathBuf,
    /// Port of the servers on 127.0.0.1
    #[arg(long, default_value_t = 26_300)]
    pub port: u16,
    /// Write the table and all measurements to this directory
    #[arg(long, num_args = 0..=1, default_missing_value = "bench/results", value_name = "DIR")]
    pub save: Option<PathBuf>,
    /// Name of the machine in the saved files; without it the host name
    #[arg(long)]
    pub machine: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
pub enum Kind {
    Relay,
    Postfix,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Relay => "Sluice",
            Kind::Postfix => "Postfix",
        }
    }

    fn server(self) -> servers::Kind {
        match self {
            Kind::Relay => servers::Kind::Relay,
            Kind::Postfix => servers::Kind::PostfixStock,
        }
    }
}

/// One measurement: `amount` sessions or MiB.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub server: Kind,
    pub work: &'static str,
    pub round: usize,
    pub amount: f64,
    pub seconds: f64,
    pub server_cpu_seconds: f64,
    pub client_cpu_seconds: f64,
}

/// Measures everything and prints the table; `false` when Postfix is missing.
pub fn run(options: &Options) -> Result<bool> {
    ensure!(options.rounds > 0 && options.sessions > 0, "--rounds and --sessions must be at least 1");
    let stop = Stop::at_signals()?;
    let work = WorkDirectory::create(&options.dir)?;
    let shown = Certificate::create(work.path(), &options.key)?;
    let mut all = Vec::new();
    for round in 1..=options.rounds {
        for &kind in &options.servers {
            ensure!(!stop.is_set(), "interrupted");
            let directory = work.path().join("server");
            let setup = Setup {
                mode: Mode::Keep,
                certificate: Some(shown.clone()),
                ..Setup::new(directory.clone(), &options.relay, options.port, NOBODY)
            };
            let server = Server::start(kind.server(), &setup, &stop)?;
            let mut measured = measure(options, kind, round, &server.group, &shown.certificate)
                .with_context(|| format!("{}, round {round}", kind.name()))?;
            drop(server);
            let _ = std::fs::remove_dir_all(directory);
            for figures in &measured {
                let rate = figures.amount / figures.seconds;
                let cpu = figures.server_cpu_seconds * 1e3 / figures.amount;
                eprintln!(
                    "round {round} · {} · {}: {rate:.0}/s, {cpu:.4} ms each",
                    kind.name(),
                    figures.work
                );
            }
            all.append(&mut measured);
        }
    }
    let text = report::markdown(options, &all);
    print!("{text}");
    if let Some(directory) = &options.save {
        report::save(options, directory, &text, &all)?;
    }
    Ok(true)
}

fn measure(
    options: &Options,
    kind: Kind,
    round: usize,
    group: &Group,
    trusted: &Path,
) -> Result<Vec<Figures>> {
    let target = ([127, 0, 0, 1], options.port).into();
    let mut all = Vec::new();
    let mut take = |work: &'static str, act: &mut dyn FnMut() -> Result<(f64, f64, f64)>| -> Result<()> {
        rest(group);
        let before = group.cpu();
        let (amount, seconds, client_cpu_seconds) = act().context(work)?;
        rest(group);
        let server_cpu_seconds = group.cpu().saturating_sub(before).as_secs_f64();
        ensure!(amount > 0.0, "{work}: nothing was done");
        all.push(Figures {
            server: kind,
            work,
            round,
            amount,
            seconds,
            server_cpu_seconds,
            client_cpu_seconds,
        });
        Ok(())
    };
    handshakes::run(target, Session::Full, trusted, options.sessions, WARM_UP)?;
    for session in [Session::Clear, Session::Full, Session::Resumed] {
        take(session.name(), &mut || {
            let began = Instant::now();
            let done = handshakes::run(target, session, trusted, options.sessions, options.length)?;
            let wanted = if session == Session::Resumed { done.sessions } else { 0 };
            ensure!(done.resumed == wanted, "{} of {} sessions were resumed", done.resumed, done.sessions);
            let took = began.elapsed().as_secs_f64();
            Ok((done.sessions as f64, took, done.cpu.as_secs_f64()))
        })?;
    }
    for (work, tls) in [(report::CLEAR_OCTETS, None), (report::TLS_OCTETS, Some(trusted))] {
        take(work, &mut || octets(options, tls))?;
    }
    Ok(all)
}

/// Messages of 64 KiB through the own generator: MiB, seconds, its CPU seconds.
fn octets(options: &Options, trusted: Option<&Path>) -> Result<(f64, f64, f64)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["source", "--json", "--size", "65536", "--target", &format!("127.0.0.1:{}", options.port)]);
    command.args(["--sessions", &options.sessions.to_string(), "--messages", &options.messages.to_string()]);
    if let Some(trusted) = trusted {
        command.arg("--starttls").arg(trusted).args(["--tls-name", NAME, "--tls-resume", "false"]);
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("the generator")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "the generator failed: {text}");
    let report: source::Report = serde_json::from_str(&text).context("the generator's report")?;
    Ok((report.mebibytes_per_second * report.seconds, report.seconds, report.cpu_seconds))
}
