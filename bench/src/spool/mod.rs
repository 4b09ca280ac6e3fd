//! The spool against the disk that it lies on.
//!
//! Three parts: how near a commit comes to the disk's own limit ([`fio`] and [`commits`], in turns, so that a machine
//! that drifts drifts for both), what the relay writes for a message (`written`), and what a message costs when many
//! wait (`backlog`). Runs on the main thread; executors and programs of its own do the work, in a directory that is
//! removed at the end.

mod backlog;
mod commits;
mod fio;
mod report;
mod written;

use crate::servers::WorkDirectory;
use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_value = "commit,backlog")]
    pub parts: Vec<Part>,
    /// Measurements of each kind; the tables show medians
    #[arg(long, default_value_t = 7)]
    pub rounds: usize,
    /// Time of each measurement
    #[arg(long, default_value = "500ms", value_parser = crate::args::duration)]
    pub time: Duration,
    /// Part commit: committers at a time
    #[arg(long, value_delimiter = ',', default_value = "1,4,20,100")]
    pub committers: Vec<usize>,
    /// Part commit: mean pause between a committer's messages in microseconds
    #[arg(long, value_delimiter = ',', default_value = "0,500")]
    pub pause: Vec<u64>,
    /// Octets of each message's content; parts commit and backlog use the first
    #[arg(long, value_delimiter = ',', default_value = "4096,1024,16384,65536")]
    pub size: Vec<usize>,
    /// Part written: connections of the generator
    #[arg(long, value_delimiter = ',', default_value = "1,20,100")]
    pub sessions: Vec<usize>,
    /// Part written: messages of each measurement
    #[arg(long, default_value_t = 10_000)]
    pub messages: u64,
    /// Part written: the relay's program
    #[arg(long, default_value = "target/release/sluice")]
    pub relay: PathBuf,
    /// Part backlog: waiting messages; 1000000 of 4 KiB need 5 GB of disk
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000")]
    pub backlog: Vec<usize>,
    /// CPU of the executor and of fio
    #[arg(long, default_value_t = 0)]
    pub cpu: usize,
    /// Directory to write in; its file system is what is measured
    #[arg(long, default_value = "/var/tmp")]
    pub dir: PathBuf,
    /// Write the tables and all measurements to this directory
    #[arg(long, num_args = 0..=1, default_missing_value = "bench/results", value_name = "DIR")]
    pub save: Option<PathBuf>,
    /// Name of the machine in the saved files; without it the host name
    #[arg(long)]
    pub machine: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// A commit against fio's write of the same size
    Commit,
    /// Octets and writes of the relay for a message
    Written,
    /// A message in and out when many wait
    Backlog,
}

/// All that was measured, every round.
#[derive(Default)]
pub struct Results {
    pub limits: Vec<fio::Figures>,
    pub commits: Vec<commits::Figures>,
    pub written: Vec<written::Figures>,
    pub backlog: Vec<backlog::Figures>,
}

/// Measures and prints the tables.
pub fn run(options: &Options) -> Result<bool> {
    ensure!(options.rounds > 0, "--rounds must be at least 1");
    let size = *options.size.first().context("--size names no size")?;
    let work = WorkDirectory::create(&options.dir)?;
    let mut results = Results::default();
    for part in &options.parts {
        match part {
            Part::Commit => commit(options, &work, size, &mut results)?,
            Part::Written => written(options, &work, &mut results)?,
            Part::Backlog => results.backlog = backlog(options, &work, size)?,
        }
    }
    let text = report::markdown(options, &results);
    print!("{text}");
    if let Some(directory) = &options.save {
        report::save(options, directory, &text, &results)?;
    }
    Ok(true)
}

fn commit(options: &Options, work: &WorkDirectory, size: usize, results: &mut Results) -> Result<()> {
    let limit = fio::Limit::prepare(work.path(), options.cpu)?;
    for round in 1..=options.rounds {
        let mine = options.clone();
        let commits = commits::on_a_spool(work.path(), options.cpu, async move |spool| {
            commits::warm_up(&spool, size).await?;
            let mut all = Vec::new();
            for pause in &mine.pause {
                for committers in &mine.committers {
                    all.push(commits::measure(&spool, *committers, size, mine.time, *pause).await?);
                }
            }
            Ok(all)
        })?;
        let mut blocks = vec![4096];
        blocks.extend(commits.iter().filter(|one| one.pause_us == 0).map(commits::Figures::batch_bytes));
        blocks.dedup();
        for block in blocks {
            results.limits.push(limit.measure(block, options.time)?);
        }
        eprintln!("commit, round {round} of {}", options.rounds);
        results.commits.extend(commits);
    }
    Ok(())
}

fn written(options: &Options, work: &WorkDirectory, results: &mut Results) -> Result<()> {
    for size in &options.size {
        for sessions in &options.sessions {
            let figures = written::measure(&options.relay, work, *size, *sessions, options.messages)?;
            eprintln!("written, {size} octets, {sessions} sessions: {:.0}/s", figures.messages_per_second);
            results.written.push(figures);
        }
    }
    Ok(())
}

fn backlog(options: &Options, work: &WorkDirectory, size: usize) -> Result<Vec<backlog::Figures>> {
    let mine = options.clone();
    commits::on_a_spool(work.path(), options.cpu, async move |spool| {
        let mut all = Vec::new();
        for backlog in &mine.backlog {
            all.push(backlog::measure(&spool, *backlog, size, mine.time).await?);
            eprintln!("backlog of {backlog}");
        }
        Ok(all)
    })
}
