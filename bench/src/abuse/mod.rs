//! The relay under abuse: how long a normal client waits while others attack.
//!
//! One relay runs through phases: quiet, each attack alone, all of them at once, quiet again. In every phase the own
//! generator sends at a steady rate (open loop), so that a stall shows in all messages that were due meanwhile, and the
//! own sink checks what is delivered: at the end every acknowledged message must be there, octet by octet.
//!
//! Generator, relay and sink are processes of their own. The attackers ([`attack`]) are one thread of this process, so
//! that this process's CPU time is what they cost the machine; it yields to all others (nice 19), because the attackers
//! would be other machines.

pub(crate) mod attack;
mod report;

use crate::args;
use crate::process::{self, Group};
use crate::servers::{WorkDirectory, accepts, await_free};
use crate::source;
use crate::stop::Stop;
use anyhow::{Context as _, Result, ensure};
use attack::{Attack, Counts, Scale};
use clap::Args;
use serde::Serialize;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const RELAY: &str = include_str!("relay.toml");

const START_WAIT: Duration = Duration::from_secs(30);
/// Longest wait until an attack has all its connections, and until the relay has delivered everything.
const PATIENCE: Duration = Duration::from_secs(60);
/// The generator's own patience and its start and end.
const SOURCE_WAIT: Duration = Duration::from_secs(120);
/// Between two phases, for the relay to let go of what the attack held.
const REST: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(250);
/// Descriptors beside those of the attackers: the normal client's, the spool's, the program's.
const DESCRIPTORS_SPARE: usize = 1_800;

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The relay's program
    #[arg(long, default_value = "target/release/sluice")]
    pub relay: PathBuf,
    /// Connections that say nothing
    #[arg(long, default_value_t = 20_000)]
    pub idle: usize,
    /// Connections that send content at one octet a second
    #[arg(long, default_value_t = 2_000)]
    pub slow: usize,
    /// Connection attempts a second, all from one address
    #[arg(long, default_value_t = 1_000)]
    pub connects: usize,
    /// Recipients a second that the relay must refuse
    #[arg(long, default_value_t = 5_000)]
    pub recipients: usize,
    /// Addresses of 127.0.0.0/8 that the idle and slow ones come from
    #[arg(long, default_value_t = 2_000)]
    pub addresses: usize,
    /// Messages a second of the normal client
    #[arg(long, default_value_t = 50.0)]
    pub rate: f64,
    /// Seconds of each phase
    #[arg(long, default_value_t = 30)]
    pub seconds: u64,
    /// Only quiet, all attacks at once, quiet
    #[arg(long)]
    pub together: bool,
    /// Further lines of the relay's `[limits]`
    #[arg(long, default_value = "")]
    pub limits: String,
    /// Directory for spool and configuration
    #[arg(long, default_value = "/var/tmp")]
    pub dir: PathBuf,
    /// Port of the relay
    #[arg(long, default_value_t = 26_200)]
    pub port: u16,
    /// Port of the sink
    #[arg(long, default_value_t = 26_201)]
    pub sink_port: u16,
    /// Times that p99 may grow before the run counts as failed
    #[arg(long, default_value_t = 3.0)]
    pub factor: f64,
    /// A p99 up to this is good whatever the quiet one was
    #[arg(long, default_value = "0ms", value_parser = args::duration)]
    pub allowance: Duration,
    /// Resident memory of the relay in MiB before the run counts as failed
    #[arg(long, default_value_t = 1_024)]
    pub memory_mib: u64,
    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
    /// Write the table and all figures to this directory
    #[arg(long, num_args = 0..=1, default_missing_value = "bench/results", value_name = "DIR")]
    pub save: Option<PathBuf>,
    /// Name of the machine in the saved files; without it the host name
    #[arg(long)]
    pub machine: Option<String>,
}

/// What one phase found.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    pub name: &'static str,
    /// Of the normal client.
    pub accepted: u64,
    pub failed: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// Percent of one core.
    pub relay_cpu: f64,
    pub attack_cpu: f64,
    /// Peak of the relay's resident memory.
    pub memory_mib: f64,
    pub counts: Counts,
}

#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub phases: Vec<Phase>,
    pub acknowledged: u64,
    pub delivered: u64,
    pub damaged: u64,
    /// What did not hold, in words.
    pub faults: Vec<String>,
}

/// Runs all phases and prints the table; `false` when a bound was broken or a message is missing.
pub fn run(options: &Options) -> Result<bool> {
    ensure!(options.seconds > 0 && options.rate > 0.0, "--seconds and --rate must be above 0");
    ensure!((1..=60_000).contains(&options.addresses), "--addresses must be from 1 to 60000");
    let stop = Stop::at_signals()?;
    let descriptors = options.idle + options.slow + DESCRIPTORS_SPARE;
    process::raise_open_files(descriptors)?;
    let work = WorkDirectory::create(&options.dir)?;
    let mut bench = Bench::start(options, work.path(), descriptors, &stop)?;
    let mut phases = Vec::new();
    for (name, scale) in plan(options) {
        ensure!(!stop.is_set(), "interrupted");
        let phase = bench.phase(name, scale, &stop).with_context(|| format!("phase {name}"))?;
        eprintln!("{name}: p50 {:.2} ms, p99 {:.2} ms, {:?}", phase.p50_ms, phase.p99_ms, phase.counts);
        phases.push(phase);
    }
    let outcome = bench.finish(phases, &stop)?;
    let text = report::markdown(options, &outcome);
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&outcome)?),
        false => print!("{text}"),
    }
    if let Some(directory) = &options.save {
        report::save(options, directory, &text, &outcome)?;
    }
    Ok(outcome.faults.is_empty())
}

fn plan(options: &Options) -> Vec<(&'static str, Scale)> {
    let none = Scale { idle: 0, slow: 0, connects: 0, recipients: 0 };
    let all = Scale {
        idle: options.idle,
        slow: options.slow,
        connects: options.connects,
        recipients: options.recipients,
    };
    let mut plan = vec![("quiet", none)];
    if !options.together {
        plan.extend([
            ("idle connections", Scale { idle: all.idle, ..none }),
            ("slow senders", Scale { slow: all.slow, ..none }),
            ("connection flood", Scale { connects: all.connects, ..none }),
            ("refused recipients", Scale { recipients: all.recipients, ..none }),
        ]);
    }
    plan.extend([("all at once", all), ("quiet again", none)]);
    plan
}

struct Bench {
    options: Options,
    relay: Group,
    relay_child: Child,
    sink: Child,
    /// The sink's list of what came.
    received: PathBuf,
    acknowledged: u64,
}

impl Bench {
    fn start(options: &Options, work: &Path, descriptors: usize, stop: &Stop) -> Result<Self> {
        for port in [options.port, options.sink_port] {
            await_free(port, stop)?;
        }
        let sink = Command::new(std::env::current_exe()?)
            .args(["sink", "--bind", &format!("127.0.0.1:{}", options.sink_port), "--received"])
            .arg(work.join("received"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the sink")?;
        fs::create_dir(work.join("spool"))?;
        let text = RELAY
            .replace("@SPOOL@", &work.join("spool").display().to_string())
            .replace("@LISTEN@", &options.port.to_string())
            .replace("@SINK@", &options.sink_port.to_string())
            .replace("@SESSIONS@", &(options.idle + options.slow + 4_000).to_string())
            .replace("@LIMITS@", &options.limits);
        let config = work.join("relay.toml");
        fs::write(&config, text)?;
        let program = fs::canonicalize(&options.relay)
            .with_context(|| format!("cannot find the relay {}", options.relay.display()))?;
        let arguments = [
            format!("--nofile={descriptors}:{descriptors}"),
            program.display().to_string(),
            "run".to_owned(),
            "--config".to_owned(),
            config.display().to_string(),
        ];
        let mut relay = Group::new("abused");
        let log = File::create(work.join("log"))?;
        let relay_child = relay.start(Path::new("prlimit"), &arguments, |command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        })?;
        let received = work.join("received");
        let mut bench =
            Bench { options: options.clone(), relay, relay_child, sink, received, acknowledged: 0 };
        let deadline = Instant::now() + START_WAIT;
        while !accepts(options.port) || !accepts(options.sink_port) {
            bench.check()?;
            ensure!(Instant::now() < deadline && !stop.is_set(), "relay or sink do not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(bench)
    }

    fn check(&mut self) -> Result<()> {
        let ended = self.relay_child.try_wait()?;
        ensure!(ended.is_none(), "the relay ended: {ended:?}");
        Ok(())
    }

    fn phase(&mut self, name: &'static str, scale: Scale, stop: &Stop) -> Result<Phase> {
        let target = ([127, 0, 0, 1], self.options.port).into();
        let attack = Attack::start(target, scale, self.options.addresses);
        let deadline = Instant::now() + PATIENCE;
        while !attack.is_complete() && Instant::now() < deadline && !stop.is_set() {
            std::thread::sleep(LOOK);
        }
        let (counted, relay_cpu, own_cpu) = (attack.counts(), self.relay.cpu(), process::own_cpu());
        let began = Instant::now();
        let mut source = self.start_source()?;
        let mut memory = 0;
        while source.try_wait()?.is_none() {
            self.check()?;
            memory = memory.max(self.relay.memory().rss);
            if stop.is_set() || began.elapsed() > SOURCE_WAIT + Duration::from_secs(self.options.seconds) {
                let _ = source.kill();
            }
            std::thread::sleep(LOOK);
        }
        let took = began.elapsed().as_secs_f64();
        let percent = |cpu: Duration| cpu.as_secs_f64() / took * 100.0;
        let (relay_cpu, attack_cpu) = (
            percent(self.relay.cpu().saturating_sub(relay_cpu)),
            percent(process::own_cpu().saturating_sub(own_cpu)),
        );
        let counts = attack.counts().since(&counted);
        drop(attack);
        let report = source_report(source)?;
        self.acknowledged += report.accepted;
        std::thread::sleep(REST);
        Ok(Phase {
            name,
            accepted: report.accepted,
            failed: report.failed + report.not_sent,
            p50_ms: report.transaction.p50_ms,
            p99_ms: report.transaction.p99_ms,
            max_ms: report.transaction.max_ms,
            relay_cpu,
            attack_cpu,
            memory_mib: memory as f64 / f64::from(1 << 20),
            counts,
        })
    }

    fn start_source(&self) -> Result<Child> {
        let options = &self.options;
        Command::new(std::env::current_exe()?)
            .args([
                "source",
                "--json",
                "--sessions",
                "10",
                "--messages-per-connection",
                "5",
                "--size",
                "4096",
            ])
            .args(["--target", &format!("127.0.0.1:{}", options.port)])
            .args([
                "--arrivals",
                "even",
                "--rate",
                &options.rate.to_string(),
                "--seconds",
                &options.seconds.to_string(),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the generator")
    }

    /// Waits until all that was acknowledged is delivered, and ends everything.
    fn finish(mut self, phases: Vec<Phase>, stop: &Stop) -> Result<Outcome> {
        let deadline = Instant::now() + PATIENCE;
        let received =
            || fs::read(&self.received).map_or(0, |file| memchr::memchr_iter(b'\n', &file).count());
        while (received() as u64) < self.acknowledged && Instant::now() < deadline && !stop.is_set() {
            std::thread::sleep(LOOK);
        }
        self.check()?;
        process::end_child(&mut self.sink);
        let mut text = String::new();
        if let Some(mut output) = self.sink.stdout.take() {
            output.read_to_string(&mut text)?;
        }
        let sink: crate::sink::Report = serde_json::from_str(&text).context("the sink's report")?;
        let faults = report::faults(&self.options, &phases, self.acknowledged, sink.intact, sink.damaged);
        let (delivered, damaged) = (sink.intact, sink.damaged);
        Ok(Outcome { phases, acknowledged: self.acknowledged, delivered, damaged, faults })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        process::end_child(&mut self.relay_child);
        self.relay.end();
        let _ = self.relay_child.wait();
        process::end_child(&mut self.sink);
    }
}

fn source_report(mut source: Child) -> Result<source::Report> {
    let mut text = String::new();
    source.stdout.take().context("piped")?.read_to_string(&mut text)?;
    let _ = source.wait();
    serde_json::from_str(&text).context("the generator's report cannot be read")
}
