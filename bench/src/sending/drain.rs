//! How fast a full queue empties to a near peer: the relay, and Postfix with its stock settings and tuned, on the same
//! messages in the same run.
//!
//! The rate is counted at the peer, from the first message to the last. CPU is that of all the server's processes from
//! its start on a full queue until it rests: the start, the reading of the queue and the removal of what is delivered
//! count. In front of the rows stands what the peer can take at most, from a generator without a server.

use super::queue::{Plan, Queue, Running, Sender, postfix_obstacle};
use super::{Peer, own_program, rate, rest};
use crate::stop::Stop;
use crate::{args, figures, place};
use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A server that has this share of what the peer takes at most may have been held up by the peer.
const LIMIT_SHARE: f64 = 0.8;

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The relay's program
    #[arg(long, default_value = "target/release/sluice")]
    pub relay: PathBuf,
    /// Messages in the relay's queue, and from the generator in the row without a server
    #[arg(long, default_value_t = 100_000)]
    pub messages: u64,
    /// Messages in Postfix's queue, which takes longer for each
    #[arg(long, default_value_t = 20_000)]
    pub postfix_messages: u64,
    /// Octets of each message's content
    #[arg(long, default_value_t = 4_096)]
    pub size: usize,
    /// The peer does not offer CHUNKING
    #[arg(long)]
    pub data: bool,
    /// Measurements of each kind; the table shows medians
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Directory for queues and configurations; its file system is what is measured
    #[arg(long, default_value = "/var/tmp")]
    pub dir: PathBuf,
    /// First of the two ports to use on 127.0.0.1
    #[arg(long, default_value_t = 26_130)]
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
    /// The generator straight into the peer.
    Limit,
    Relay,
    PostfixStock,
    PostfixTuned,
}

const KINDS: [Kind; 4] = [Kind::Limit, Kind::Relay, Kind::PostfixStock, Kind::PostfixTuned];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Limit => "limit (generator into peer)",
            Kind::Relay => "Sluice",
            Kind::PostfixStock => "Postfix, stock",
            Kind::PostfixTuned => "Postfix, tuned",
        }
    }

    fn is_postfix(self) -> bool {
        matches!(self, Kind::PostfixStock | Kind::PostfixTuned)
    }
}

/// What helps Postfix to empty a queue.
const POSTFIX_TUNED: &str = "\
default_process_limit = 200
initial_destination_concurrency = 50
smtp_destination_concurrency_limit = 100
smtp_connection_cache_destinations = static:all
smtp_connection_reuse_count_limit = 1000
smtp_connection_cache_time_limit = 5s
max_use = 10000
qmgr_message_active_limit = 40000
enable_long_queue_ids = yes
";

#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    kind: &'static str,
    round: usize,
    messages: u64,
    messages_per_second: f64,
    /// Per message.
    server_cpu_ms: f64,
    peer_cpu_ms: f64,
    connections: u64,
    repeats: u64,
    /// From the server's start to the first message at the peer.
    first_seconds: f64,
}

/// Measures and prints the table; `false` when something is missing.
pub fn run(options: &Options) -> Result<bool> {
    ensure!(
        options.rounds > 0 && options.messages > 1 && options.postfix_messages > 1,
        "too little to measure"
    );
    ensure!(options.port < 65_534, "--port needs one more port behind it");
    let stop = Stop::at_signals()?;
    let obstacle = postfix_obstacle();
    let work = crate::servers::WorkDirectory::create(&options.dir)?;
    let mut all = Vec::new();
    for round in 1..=options.rounds {
        for kind in KINDS.into_iter().filter(|kind| obstacle.is_none() || !kind.is_postfix()) {
            let figures = match kind {
                Kind::Limit => limit(options, round, &stop),
                _ => measure(options, work.path().join(format!("{kind:?}")), kind, round, &stop),
            };
            let figures = figures.with_context(|| format!("{}, round {round}", kind.name()))?;
            eprintln!(
                "round {round} · {}: {:.0}/s, {:.4} ms",
                kind.name(),
                figures.messages_per_second,
                figures.server_cpu_ms
            );
            all.push(figures);
        }
    }
    let text = report(options, &all, obstacle);
    print!("{text}");
    if let Some(directory) = &options.save {
        let name = format!("{}-drain", place::machine(options.machine.as_deref()));
        place::save(directory, &name, &text, &serde_json::to_value(&all)?)?;
    }
    Ok(obstacle.is_none())
}

fn measure(options: &Options, directory: PathBuf, kind: Kind, round: usize, stop: &Stop) -> Result<Figures> {
    let (sender, settings, messages) = match kind {
        Kind::PostfixStock => (Sender::Postfix, "", options.postfix_messages),
        Kind::PostfixTuned => (Sender::Postfix, POSTFIX_TUNED, options.postfix_messages),
        _ => (Sender::Relay, "", options.messages),
    };
    let plan = Plan {
        sender,
        relay: options.relay.clone(),
        directory,
        listen: options.port + 1,
        next_hop: options.port,
        settings: settings.to_owned(),
    };
    let queue = Queue::fill(plan, messages, options.size, stop)?;
    let deadline = Instant::now() + options.patience;
    let peer = Peer::start(options.port, messages, !options.data, stop)?;
    let started = unix_nanos();
    let running: Running = queue.start(stop)?;
    let (found, peer_cpu) = peer.finish(messages, deadline, stop)?;
    rest(&running.group);
    let first = found.first_unix_nanos.unwrap_or(started);
    Ok(Figures {
        kind: kind.name(),
        round,
        messages,
        messages_per_second: rate(&found, messages)?,
        server_cpu_ms: per_message(running.group.cpu(), messages),
        peer_cpu_ms: per_message(peer_cpu, messages),
        connections: found.connections,
        repeats: found.repeats,
        first_seconds: first.saturating_sub(started) as f64 / 1e9,
    })
}

/// What generator and peer can do without a server between them.
fn limit(options: &Options, round: usize, stop: &Stop) -> Result<Figures> {
    let deadline = Instant::now() + options.patience;
    let peer = Peer::start(options.port, options.messages, !options.data, stop)?;
    let status = Command::new(own_program()?)
        .args(["source", "--json", "--sessions", "20", "--target"])
        .arg(format!("127.0.0.1:{}", options.port))
        .args(["--messages", &options.messages.to_string(), "--size", &options.size.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("the generator")?;
    ensure!(status.success(), "the generator failed");
    let (found, peer_cpu) = peer.finish(options.messages, deadline, stop)?;
    Ok(Figures {
        kind: Kind::Limit.name(),
        round,
        messages: options.messages,
        messages_per_second: rate(&found, options.messages)?,
        server_cpu_ms: 0.0,
        peer_cpu_ms: per_message(peer_cpu, options.messages),
        connections: found.connections,
        repeats: found.repeats,
        first_seconds: 0.0,
    })
}

fn per_message(time: Duration, messages: u64) -> f64 {
    time.as_secs_f64() * 1e3 / messages as f64
}

fn unix_nanos() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

fn report(options: &Options, all: &[Figures], obstacle: Option<&str>) -> String {
    let median = |kind: Kind, of: fn(&Figures) -> f64| {
        let values: Vec<f64> = all.iter().filter(|one| one.kind == kind.name()).map(of).collect();
        figures::median(&values)
    };
    let heads = [
        "",
        "messages",
        "seconds",
        "messages/s",
        "CPU ms",
        "peer CPU ms",
        "first after s",
        "connections",
        "twice",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let columns: [fn(&Figures) -> f64; 8] = [
        |one| one.messages as f64,
        |one| one.messages as f64 / one.messages_per_second,
        |one| one.messages_per_second,
        |one| one.server_cpu_ms,
        |one| one.peer_cpu_ms,
        |one| one.first_seconds,
        |one| one.connections as f64,
        |one| one.repeats as f64,
    ];
    for kind in KINDS {
        if median(kind, |one| one.messages_per_second).is_none() {
            continue;
        }
        let cells = columns.iter().map(|of| median(kind, *of).map_or_else(String::new, figures::short));
        rows.push(std::iter::once(kind.name().to_owned()).chain(cells).collect());
    }
    let mut text = format!(
        "# A full queue empties\n\n{}\n\nMessages of {} octets, peer {} CHUNKING, {} rounds, medians.\n\n{}\n",
        place::sentence(options.machine.as_deref(), &options.dir),
        options.size,
        if options.data { "without" } else { "with" },
        options.rounds,
        figures::table(&rows)
    );
    let of = |kind| median(kind, |one| one.messages_per_second);
    if let (Some(limit), Some(relay)) = (of(Kind::Limit), of(Kind::Relay))
        && relay > LIMIT_SHARE * limit
    {
        text += &format!(
            "\n**The peer may be the bottleneck**: it takes {limit:.0}/s from the generator, and the relay reached \
             {relay:.0}/s. Give the sink more CPU, or compare CPU only.\n"
        );
    }
    if let (Some(relay), Some(peer)) =
        (median(Kind::Relay, |f| f.server_cpu_ms), median(Kind::Relay, |f| f.peer_cpu_ms))
        && peer > relay
    {
        text +=
            &format!("\nThe peer used more CPU ({peer:.4} ms a message) than the relay ({relay:.4} ms).\n");
    }
    if let Some(obstacle) = obstacle {
        text += &format!("\n**Incomplete**: {obstacle}.\n");
    }
    text
}
