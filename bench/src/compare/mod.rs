//! Relay and Postfix on the same work in the same run, side by side.
//!
//! For each cell (ends, size, sessions) and each round every server is measured once, in turns, so that a machine
//! that drifts drifts for all. Each measurement starts its server anew on an empty queue, warms it up, waits until it
//! rests, and measures from the first message sent to the last one that the sink has got ([`measure`]). Servers,
//! generator and sink are processes of their own, each in a group whose CPU time is counted exactly.
//!
//! Runs on the main thread; ends and removes everything that it started, also when it fails or is interrupted.

mod device;
mod ends;
mod install;
pub(crate) mod measure;
mod report;
mod servers;

pub(crate) use servers::{accepts, await_free};

use crate::args;
use crate::stop::Stop;
use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The relay's program
    #[arg(long, default_value = "target/release/sluice")]
    pub relay: PathBuf,
    /// What to measure
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "limit,relay,postfix-stock,postfix-tuned"
    )]
    pub servers: Vec<Kind>,
    /// Whose generator and sink
    #[arg(long, value_enum, value_delimiter = ',', default_value = "own,postfix")]
    pub ends: Vec<Ends>,
    /// Messages of each measurement
    #[arg(long, default_value_t = 10_000)]
    pub messages: u64,
    /// Messages before it, not measured
    #[arg(long, default_value_t = 1_000)]
    pub warm_up: u64,
    /// Connections of the generator
    #[arg(long, value_delimiter = ',', default_value = "20,100")]
    pub sessions: Vec<usize>,
    /// Octets of each message's content
    #[arg(long, value_delimiter = ',', default_value = "4096")]
    pub size: Vec<usize>,
    /// Measurements of each kind; the tables show medians
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// One message on a connection instead of many
    #[arg(long)]
    pub one_per_connection: bool,
    /// CPUs of the relay's ingest shards; without it the relay's default
    #[arg(long)]
    pub ingest_cpus: Option<args::Cpus>,
    /// CPUs of the relay's delivery shards; without it the relay's default
    #[arg(long)]
    pub delivery_cpus: Option<args::Cpus>,
    /// CPUs of the own generator
    #[arg(long)]
    pub source_cpus: Option<args::Cpus>,
    /// CPUs of the own sink
    #[arg(long)]
    pub sink_cpus: Option<args::Cpus>,
    /// Directory for queues, spools and configurations; its file system is what is measured
    #[arg(long, default_value = "/var/tmp")]
    pub dir: PathBuf,
    /// First of the three ports to use on 127.0.0.1
    #[arg(long, default_value_t = 26_100)]
    pub port: u16,
    /// Longest time for one measurement
    #[arg(long, default_value = "5m", value_parser = args::duration)]
    pub patience: Duration,
    /// Install the Debian package postfix if it is missing (as root)
    #[arg(long)]
    pub install: bool,
    /// Write the tables and all measurements to this directory
    #[arg(long, num_args = 0..=1, default_missing_value = "bench/results", value_name = "DIR")]
    pub save: Option<PathBuf>,
    /// Name of the machine in the saved files; without it the host name
    #[arg(long)]
    pub machine: Option<String>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Generator straight into sink: what no server can exceed here
    Limit,
    Relay,
    PostfixStock,
    PostfixTuned,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Limit => "limit (no server)",
            Kind::Relay => "Sluice",
            Kind::PostfixStock => "Postfix, stock",
            Kind::PostfixTuned => "Postfix, tuned",
        }
    }
}

/// Generator and sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
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

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub ends: Ends,
    pub size: usize,
    pub sessions: usize,
}

/// Measures everything and prints the tables; `false` when a measurement failed or is missing.
pub fn run(options: &Options) -> Result<bool> {
    ensure!(options.rounds > 0 && options.messages > 0, "--rounds and --messages must be at least 1");
    ensure!(options.port < 65_533, "--port needs two more ports behind it");
    let stop = Stop::at_signals()?;
    install::provide(options)?;
    let (servers, mut missing) = available(options)?;
    let work = WorkDirectory::create(&options.dir)?;
    let mut results = Vec::new();
    for cell in cells(options) {
        for round in 1..=options.rounds {
            for kind in &servers {
                if stop.is_set() {
                    bail!("interrupted");
                }
                let what =
                    format!("{} · {} octets · {} sessions", cell.ends.name(), cell.size, cell.sessions);
                match measure::measure(options, work.path(), *kind, cell, &stop) {
                    Ok(figures) => {
                        let (rate, cpu) = (figures.messages_per_second, figures.server_cpu_ms);
                        eprintln!("{what} · round {round} · {}: {rate:.0}/s, {cpu:.4} ms", kind.name());
                        results.push(report::Row { kind: *kind, cell, round, figures });
                    }
                    Err(error) => {
                        eprintln!("{what} · round {round} · {}: {error:#}", kind.name());
                        missing.push(format!("{}, {what}, round {round}: {error:#}", kind.name()));
                    }
                }
            }
        }
    }
    let text = report::markdown(options, &results, &missing);
    print!("{text}");
    if let Some(directory) = &options.save {
        report::save(options, directory, &text, &results, &missing)?;
    }
    Ok(missing.is_empty())
}

fn cells(options: &Options) -> Vec<Cell> {
    let mut cells = Vec::new();
    for ends in &options.ends {
        for size in &options.size {
            cells.extend(options.sessions.iter().map(|sessions| Cell {
                ends: *ends,
                size: *size,
                sessions: *sessions,
            }));
        }
    }
    cells
}

/// The servers that can be measured here, and a sentence for each that cannot.
fn available(options: &Options) -> Result<(Vec<Kind>, Vec<String>)> {
    let (mut servers, mut missing) = (Vec::new(), Vec::new());
    for kind in &options.servers {
        let obstacle = match kind {
            Kind::Limit => None,
            Kind::Relay if options.relay.is_file() => None,
            Kind::Relay => {
                Some(format!("there is no {}; build it, or name it with --relay", options.relay.display()))
            }
            Kind::PostfixStock | Kind::PostfixTuned => install::postfix_obstacle(),
        };
        match obstacle {
            None => servers.push(*kind),
            Some(obstacle) => {
                eprintln!("{} is left out: {obstacle}", kind.name());
                missing.push(format!("{}: {obstacle}", kind.name()));
            }
        }
    }
    if options.ends.contains(&Ends::Postfix) {
        ensure!(install::has_ends(), "smtp-source and smtp-sink are missing; use --install, or --ends own");
    }
    ensure!(!servers.is_empty(), "nothing is left to measure");
    Ok((servers, missing))
}

/// A directory of this run, removed at its end.
pub(crate) struct WorkDirectory(PathBuf);

impl WorkDirectory {
    pub fn create(parent: &Path) -> Result<Self> {
        let path = parent.join(format!("sluice-bench-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(WorkDirectory(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
