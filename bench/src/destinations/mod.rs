//! What many destinations cost the relay, and whether some that are slow or dead slow the others.
//!
//! Three kinds of work in turns, each with a relay that is started anew: all messages to one domain; the same number
//! to many, each with a host name of its own; the same with some domains whose host says nothing or is not there.
//! Time and CPU count from the first message sent in to the last that has arrived at a host that takes mail.

mod ends;

use crate::process::{Group, end_child};
use crate::servers::{WorkDirectory, accepts, rest};
use crate::stop::Stop;
use crate::{args, figures, place};
use anyhow::{Context as _, Result, ensure};
use clap::Args;
use ends::{Arrivals, Host, host_of};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

const START_WAIT: Duration = Duration::from_secs(20);
const CONFIGURATION: &str = include_str!("relay.toml");

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The relay's program
    #[arg(long, default_value = "target/release/sluice")]
    pub relay: PathBuf,
    /// Domains
    #[arg(long, default_value_t = 10_000)]
    pub destinations: u64,
    /// Messages to each, one behind the other
    #[arg(long, default_value_t = 10)]
    pub each: u64,
    /// One domain of so many is silent or absent
    #[arg(long, default_value_t = 100)]
    pub troubled: u64,
    /// Measurements of each kind; the table shows medians
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// CPU per message may be this many times that of one destination; 0: any
    #[arg(long, default_value_t = 1.5)]
    pub factor: f64,
    /// Directory for the spool
    #[arg(long, default_value = "/var/tmp")]
    pub dir: PathBuf,
    /// First of the three ports to use on 127.0.0.1
    #[arg(long, default_value_t = 26_400)]
    pub port: u16,
    /// Longest time for one measurement
    #[arg(long, default_value = "5m", value_parser = args::duration)]
    pub patience: Duration,
    /// Write the table and all measurements to this directory
    #[arg(long, num_args = 0..=1, default_missing_value = "bench/results", value_name = "DIR")]
    pub save: Option<PathBuf>,
    /// Name of the machine in the saved files; without it the host name
    #[arg(long)]
    pub machine: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    One,
    Many,
    Troubled,
}

const KINDS: [Kind; 3] = [Kind::One, Kind::Many, Kind::Troubled];

#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    kind: &'static str,
    round: usize,
    messages: u64,
    messages_per_second: f64,
    cpu_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
    connections: u64,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::One => "one destination",
            Kind::Many => "many destinations",
            Kind::Troubled => "many, some slow or dead",
        }
    }

    fn domain_of(self) -> fn(u64, u64) -> u64 {
        match self {
            Kind::One => |_, _| 0,
            Kind::Many | Kind::Troubled => |number, each| number / each,
        }
    }
}

/// Measures and prints the table; `false` when many destinations cost more than `--factor` allows.
pub fn run(options: &Options) -> Result<bool> {
    ensure!(options.rounds > 0 && options.each > 0 && options.destinations > 0, "too little to measure");
    ensure!(options.port < 65_533, "--port needs two more ports behind it");
    let stop = Stop::at_signals()?;
    let work = WorkDirectory::create(&options.dir)?;
    let mut all = Vec::new();
    for round in 1..=options.rounds {
        for kind in KINDS {
            ensure!(!stop.is_set(), "interrupted");
            let directory = work.path().join(format!("{kind:?}-{round}"));
            let figures = measure(options, kind, round, &directory, &stop)
                .with_context(|| format!("{}, round {round}", kind.name()))?;
            eprintln!(
                "round {round} · {}: {:.0}/s, {:.4} ms, p99 {:.0} ms",
                figures.kind, figures.messages_per_second, figures.cpu_ms, figures.p99_ms
            );
            all.push(figures);
        }
    }
    let text = report(options, &all);
    print!("{text}");
    if let Some(directory) = &options.save {
        let name = format!("{}-destinations", place::machine(options.machine.as_deref()));
        place::save(directory, &name, &text, &serde_json::to_value(&all)?)?;
    }
    let cpu = |kind: Kind| median(&all, kind, |figures| figures.cpu_ms);
    let worst = cpu(Kind::Many).max(cpu(Kind::Troubled)) / cpu(Kind::One);
    Ok(options.factor == 0.0 || worst <= options.factor)
}

fn measure(options: &Options, kind: Kind, round: usize, directory: &Path, stop: &Stop) -> Result<Figures> {
    let messages = options.destinations * options.each;
    let troubled = if kind == Kind::Troubled { options.troubled } else { 0 };
    let healthy = (0..options.destinations).filter(|&domain| host_of(domain, troubled) == Host::Takes);
    let wanted = healthy.count() as u64 * options.each;
    let arrivals = Arrivals::new(messages);
    let ends = ends::serve(options.port, troubled, arrivals.clone())?;
    let listen = options.port + 2;
    let (mut group, mut relay) = start(options, directory, listen, stop)?;
    rest(&group);
    let (cpu, began) = (group.cpu(), Instant::now());
    ends::send(([127, 0, 0, 1], listen).into(), &arrivals, kind.domain_of(), options.each)?;
    while arrivals.count() < wanted {
        ensure!(!stop.is_set(), "interrupted");
        ensure!(
            began.elapsed() < options.patience,
            "{} of {wanted} messages have arrived; the relay's log is lost with its directory",
            arrivals.count()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let seconds = began.elapsed().as_secs_f64();
    rest(&group);
    let cpu = group.cpu().saturating_sub(cpu);
    end_child(&mut relay);
    group.end();
    drop(ends);
    let latencies = arrivals.latencies();
    ensure!(latencies.len() as u64 == wanted, "{} messages arrived, not {wanted}", latencies.len());
    let quantile = |share: usize| latencies[(latencies.len() - 1) * share / 100] as f64 / 1e3;
    Ok(Figures {
        kind: kind.name(),
        round,
        messages: wanted,
        messages_per_second: wanted as f64 / seconds,
        cpu_ms: cpu.as_secs_f64() * 1e3 / wanted as f64,
        p50_ms: quantile(50),
        p99_ms: quantile(99),
        connections: arrivals.connections(),
    })
}

fn start(
    options: &Options,
    directory: &Path,
    listen: u16,
    stop: &Stop,
) -> Result<(Group, std::process::Child)> {
    std::fs::create_dir_all(directory)?;
    let configuration = CONFIGURATION
        .replace("@SPOOL@", &directory.join("spool").display().to_string())
        .replace("@LISTEN@", &listen.to_string())
        .replace("@PORT@", &options.port.to_string())
        .replace("@NAMES@", &(options.port + 1).to_string());
    let file = directory.join("relay.toml");
    std::fs::write(&file, configuration)?;
    let log = std::fs::File::create(directory.join("log"))?;
    let mut group = Group::new("destinations");
    let arguments = ["run".to_owned(), "--config".to_owned(), file.display().to_string()];
    let mut relay = group.start(&options.relay, &arguments, |command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    })?;
    let began = Instant::now();
    while !accepts(listen) {
        let ended = relay.try_wait()?.is_some();
        if ended || stop.is_set() || began.elapsed() > START_WAIT {
            let log = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
            anyhow::bail!("the relay does not start:\n{log}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok((group, relay))
}

fn median(all: &[Figures], kind: Kind, of: fn(&Figures) -> f64) -> f64 {
    let values: Vec<f64> = all.iter().filter(|figures| figures.kind == kind.name()).map(of).collect();
    figures::median(&values).unwrap_or(f64::NAN)
}

fn report(options: &Options, all: &[Figures]) -> String {
    let Options { destinations, each, troubled, rounds, .. } = options;
    let mut text = format!(
        "# Many destinations, {}\n\n{}\n\n{destinations} domains with a host name of their own, {each} messages of 2 KiB to each, one behind the other; in the last row one domain of {troubled} is silent or absent, and only the others' messages count. Medians of {rounds} rounds.\n\n| work | messages/s | CPU ms | of one | p50 ms | p99 ms | connections |\n|---|---|---|---|---|---|---|\n",
        place::today(),
        place::sentence(options.machine.as_deref(), &options.dir),
    );
    let one = median(all, Kind::One, |figures| figures.cpu_ms);
    for kind in KINDS {
        let of = |figure| median(all, kind, figure);
        let cpu = of(|figures| figures.cpu_ms);
        text.push_str(&format!(
            "| {} | {:.0} | {cpu:.4} | {:.2} | {:.0} | {:.0} | {:.0} |\n",
            kind.name(),
            of(|figures| figures.messages_per_second),
            cpu / one,
            of(|figures| figures.p50_ms),
            of(|figures| figures.p99_ms),
            of(|figures| figures.connections as f64),
        ));
    }
    text
}
