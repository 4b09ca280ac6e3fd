//! The relay and other mail servers on the same work in the same run, side by side.
//!
//! What is measured stands in files ([`scenario`]). For each kind of work and each round every server is measured
//! once, in turns whose order changes from round to round, so that a machine that drifts drifts for all. Each measurement starts its server anew on an empty
//! queue, warms it up, waits until it rests, and measures ([`measure`]). Servers, generator and sink are processes of
//! their own, each in a group whose CPU time is counted exactly.
//!
//! Runs on the main thread; ends and removes everything that it started, also when it fails or is interrupted.

mod account;
mod bed;
mod chart;
mod device;
mod disk;
mod ends;
mod idle;
mod machine;
pub(crate) mod measure;
mod origin;
mod pictures;
mod remarks;
mod report;
pub(crate) mod scenario;
mod spread;
pub(crate) mod subject;
mod tables;
mod targets;

use crate::args;
use crate::servers::{Certificate, Kind, WorkDirectory, install};
use crate::stop::Stop;
use anyhow::{Context as _, Result, ensure};
use clap::Args;
use scenario::{Ends, Tls, Work};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;
use subject::Subject;

const CORE: &str = include_str!("../../scenarios/core.toml");
const QUICK: &str = include_str!("../../scenarios/quick.toml");

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Files that say what to measure, such as bench/scenarios/full.toml; without one that of the targets, core.toml
    #[arg(long, value_delimiter = ',', value_name = "FILE")]
    pub scenarios: Vec<PathBuf>,
    /// One small measurement of each server, to see that everything works
    #[arg(long, conflicts_with = "scenarios")]
    pub quick: bool,
    /// Only scenarios whose name contains one of these
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    pub only: Vec<String>,
    /// Only these: straight, fdatasync, relay, postfix-stock, postfix-tuned, postfix-lean, opensmtpd, exim, haraka, bare
    #[arg(long, value_delimiter = ',')]
    pub servers: Vec<Subject>,
    /// Instead of each scenario's own, an odd number
    #[arg(long)]
    pub rounds: Option<usize>,
    /// Instead of each scenario's own
    #[arg(long)]
    pub seconds: Option<f64>,
    /// The relay's program
    #[arg(long, default_value = "target/release/sluice")]
    pub relay: PathBuf,
    /// Where OpenSMTPD, Exim and Haraka are, unpacked
    #[arg(long, default_value = "target/interop", value_name = "DIR")]
    pub unpacked: PathBuf,
    /// Install what is missing (as root): postfix and libraries from Debian, OpenSMTPD, Exim and Haraka into --unpacked
    #[arg(long)]
    pub install: bool,
    /// Key of the certificate, where TLS is measured: ec:P-256, ec:P-384, rsa:2048 ...
    #[arg(long, default_value = "ec:P-256")]
    pub key: String,
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
    /// Write tables, pictures and all measurements to this directory
    #[arg(long, num_args = 0..=1, default_missing_value = "bench/results", value_name = "DIR")]
    pub save: Option<PathBuf>,
    /// Markdown to put at the end of the tables: why a target was missed, and what was tried
    #[arg(long, value_name = "FILE")]
    pub notes: Option<PathBuf>,
    /// Name of the machine in the saved files; without it the host name
    #[arg(long)]
    pub machine: Option<String>,
}

/// What all measurements of a run share.
pub struct Bench<'a> {
    pub options: &'a Options,
    /// Of the run; its file system is what is measured.
    pub directory: &'a Path,
    /// Made when some work wants TLS.
    pub certificate: Option<&'a Certificate>,
    pub stop: &'a Stop,
    /// Saturated rates of earlier rounds, by subject and title of the work.
    pub rates: RefCell<Vec<((Subject, String), f64)>>,
}

impl Bench<'_> {
    /// Messages per second that an earlier round has found.
    fn known_rate(&self, subject: Subject, work: &Work) -> Option<f64> {
        let key = (subject, work.title());
        self.rates.borrow().iter().find(|(one, _)| *one == key).map(|(_, rate)| *rate)
    }

    fn note_rate(&self, subject: Subject, work: &Work, rate: f64) {
        let key = (subject, work.title());
        let mut rates = self.rates.borrow_mut();
        rates.retain(|(one, _)| *one != key);
        rates.push((key, rate));
    }
}

/// Measures everything and prints the tables; `false` when a measurement failed or a server is missing.
pub fn run(options: &Options) -> Result<bool> {
    ensure!(options.port < 65_533, "--port needs two more ports behind it");
    if options.save.is_some() && !options.quick {
        origin::refuse_debug(&options.relay)?;
    }
    let notes = options
        .notes
        .as_ref()
        .map(|path| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display())));
    let notes = notes.transpose()?;
    let all = works(options)?;
    let stop = Stop::at_signals()?;
    let (wanted, ends) = wanted(&all);
    if options.install {
        install::provide(&wanted, ends, &options.unpacked)?;
    }
    let (works, mut missing) = available(options, all, &wanted, ends)?;
    let work_directory = WorkDirectory::create(&options.dir)?;
    let certificate = match works.iter().any(|work| work.tls != Tls::Off) {
        true => Some(Certificate::create(work_directory.path(), &options.key)?),
        false => None,
    };
    let directory = work_directory.path();
    let bench = Bench {
        options,
        directory,
        certificate: certificate.as_ref(),
        stop: &stop,
        rates: RefCell::default(),
    };
    let origin = origin::Origin::of(&options.relay);
    let (rows, time) = scenario::length(&works);
    eprintln!("{rows} measurements, about {} minutes", time.as_secs().div_ceil(60));
    let mut results = Vec::new();
    for work in &works {
        let rows = take_turns(&bench, work, &mut missing);
        results.push(report::Result { work: work.clone(), rows });
    }
    if stop.is_set() {
        missing.push("the run was interrupted: what is here came before".to_owned());
    }
    let about =
        report::About { options, origin, servers: &wanted, missing: &missing, notes: notes.as_deref() };
    let report = report::Report::new(about, &results);
    print!("{}", report.markdown(&[]));
    if let Some(directory) = &options.save {
        report.save(directory)?;
    }
    Ok(missing.is_empty())
}

/// All rounds of one kind of work; what there is when the run is interrupted.
fn take_turns(bench: &Bench<'_>, work: &Work, missing: &mut Vec<String>) -> Vec<report::Row> {
    let mut rows = Vec::new();
    for round in 1..=work.rounds {
        for subject in work.order(round) {
            if bench.stop.is_set() {
                return rows;
            }
            let what = format!("{} · round {round} · {}", work.title(), subject.name());
            match measure::measure(bench, subject, work) {
                Ok(figures) => {
                    eprintln!(
                        "{what}: {:.0}/s, {:.4} ms",
                        figures.messages_per_second, figures.server_cpu_ms
                    );
                    rows.push(report::Row { subject, round, figures });
                }
                Err(_) if bench.stop.is_set() => {}
                Err(error) => {
                    eprintln!("{what}: {error:#}");
                    missing.push(format!("{what}: {error:#}"));
                }
            }
        }
    }
    rows
}

/// What the command line asks for.
fn works(options: &Options) -> Result<Vec<Work>> {
    let mut all = match (options.quick, options.scenarios.as_slice()) {
        (true, _) => scenario::parse(QUICK)?,
        (false, []) => scenario::parse(CORE)?,
        (false, files) => {
            let mut all = Vec::new();
            for file in files {
                all.extend(scenario::read(file)?);
            }
            all
        }
    };
    all.retain(|work| options.only.is_empty() || options.only.iter().any(|part| work.name.contains(part)));
    for work in &mut all {
        work.servers.retain(|subject| options.servers.is_empty() || options.servers.contains(subject));
        work.rounds = options.rounds.unwrap_or(work.rounds);
        work.rounds_of_others = options.rounds.unwrap_or(work.rounds_of_others);
        work.seconds = options.seconds.unwrap_or(work.seconds).max(0.01);
    }
    all.retain(|work| !work.servers.is_empty());
    ensure!(!all.is_empty(), "--only and --servers leave nothing to measure");
    all.iter().try_for_each(Work::check)?;
    Ok(all)
}

/// The servers that some work asks for, and whether some asks for Postfix's generator and sink.
fn wanted(works: &[Work]) -> (Vec<Kind>, bool) {
    let asked = |kind: &Kind| works.iter().any(|work| work.servers.contains(&Subject::Server(*kind)));
    let kinds = Kind::ALL.into_iter().chain([Kind::Bare]).filter(|kind| asked(kind)).collect();
    (kinds, works.iter().any(|work| work.ends == Ends::Postfix))
}

/// The work without the servers that cannot be measured here, and a sentence for each of these.
fn available(
    options: &Options,
    mut works: Vec<Work>,
    wanted: &[Kind],
    ends: bool,
) -> Result<(Vec<Work>, Vec<String>)> {
    let mut missing = Vec::new();
    for kind in wanted {
        if let Some(obstacle) = install::obstacle(*kind, &options.relay, &options.unpacked) {
            eprintln!("SKIPPED: {}: {obstacle}", kind.name());
            missing.push(format!("{}: {obstacle}", kind.name()));
            works.iter_mut().for_each(|work| work.servers.retain(|one| *one != Subject::Server(*kind)));
        }
    }
    if ends && !install::has_ends() {
        let obstacle = "smtp-source and smtp-sink: the package postfix is not installed; use --install";
        eprintln!("SKIPPED: {obstacle}");
        missing.push(obstacle.to_owned());
        works.retain(|work| work.ends != Ends::Postfix);
    }
    works.retain(|work| !work.servers.is_empty());
    ensure!(!works.is_empty(), "nothing is left to measure");
    Ok((works, missing))
}
