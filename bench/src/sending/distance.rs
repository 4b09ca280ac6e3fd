//! What one connection carries over a long way: the relay by BDAT and by DATA, and Postfix's client, from full queues
//! through a proxy that delays each direction.
//!
//! Postfix may have one connection, too (`default_destination_concurrency_limit = 1`), and keeps it
//! (`smtp_connection_cache_destinations`), so that both are asked for the same: one connection, used again.

use super::proxy::{Proxy, Way};
use super::queue::{Plan, Queue, Sender, postfix_obstacle};
use super::{Peer, rate};
use crate::stop::Stop;
use crate::{args, figures, place};
use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The relay's program
    #[arg(long, default_value = "target/release/sluice")]
    pub relay: PathBuf,
    /// Half of a round trip
    #[arg(long, default_value = "25ms", value_parser = args::duration)]
    pub delay: Duration,
    /// KiB a second of each direction; 0: no limit
    #[arg(long, default_value_t = 0)]
    pub rate_kib: u64,
    /// Every so many-th segment is late by 200 ms, as after a loss; 0: none
    #[arg(long, default_value_t = 0)]
    pub stall_every: u64,
    /// Messages that the relay has in its queue
    #[arg(long, default_value_t = 3_000)]
    pub messages: u64,
    /// Messages that Postfix has, which takes longer for each
    #[arg(long, default_value_t = 150)]
    pub postfix_messages: u64,
    /// Octets of each message's content
    #[arg(long, default_value_t = 4_096)]
    pub size: usize,
    /// Measurements of each kind; the table shows medians
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// How many times Postfix's rate the relay's by BDAT must be
    #[arg(long, default_value_t = 10.0)]
    pub factor: f64,
    /// Directory for queues and configurations
    #[arg(long, default_value = "/var/tmp")]
    pub dir: PathBuf,
    /// First of the three ports to use on 127.0.0.1
    #[arg(long, default_value_t = 26_120)]
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
    RelayChunking,
    RelayData,
    /// Its client knows no BDAT, whatever the peer offers.
    Postfix,
}

const KINDS: [Kind; 3] = [Kind::RelayChunking, Kind::RelayData, Kind::Postfix];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::RelayChunking => "Sluice, peer with CHUNKING",
            Kind::RelayData => "Sluice, peer without (DATA)",
            Kind::Postfix => "Postfix, peer with CHUNKING",
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    kind: &'static str,
    round: usize,
    messages: u64,
    messages_per_second: f64,
    connections: u64,
}

/// Measures and prints the table; `false` when the relay is not `--factor` times as fast, or something is missing.
pub fn run(options: &Options) -> Result<bool> {
    ensure!(
        options.rounds > 0 && options.messages > 1 && options.postfix_messages > 1,
        "too little to measure"
    );
    ensure!(options.port < 65_533, "--port needs two more ports behind it");
    let stop = Stop::at_signals()?;
    let obstacle = postfix_obstacle();
    let work = crate::servers::WorkDirectory::create(&options.dir)?;
    let mut all = Vec::new();
    for round in 1..=options.rounds {
        for kind in KINDS.into_iter().filter(|kind| obstacle.is_none() || *kind != Kind::Postfix) {
            let figures = measure(options, work.path().join(format!("{kind:?}")), kind, round, &stop)
                .with_context(|| format!("{}, round {round}", kind.name()))?;
            eprintln!("round {round} · {}: {:.1}/s", kind.name(), figures.messages_per_second);
            all.push(figures);
        }
    }
    let (text, good) = report(options, &all, obstacle);
    print!("{text}");
    if let Some(directory) = &options.save {
        let name = format!("{}-distance", place::machine(options.machine.as_deref()));
        place::save(directory, &name, &text, &serde_json::to_value(&all)?)?;
    }
    Ok(good)
}

fn measure(options: &Options, directory: PathBuf, kind: Kind, round: usize, stop: &Stop) -> Result<Figures> {
    let (sender, messages, settings) = match kind {
        Kind::Postfix => (Sender::Postfix, options.postfix_messages, POSTFIX_ONE_CONNECTION),
        _ => (Sender::Relay, options.messages, RELAY_ONE_CONNECTION),
    };
    let plan = Plan {
        sender,
        relay: options.relay.clone(),
        directory,
        listen: options.port + 1,
        next_hop: options.port + 2,
        settings: settings.to_owned(),
    };
    let queue = Queue::fill(plan, messages, options.size, stop)?;
    let deadline = Instant::now() + options.patience;
    let peer = Peer::start(options.port, messages, kind != Kind::RelayData, stop)?;
    let way = Way { delay: options.delay, rate: options.rate_kib * 1024, stall_every: options.stall_every };
    let proxy = Proxy::start(options.port + 2, ([127, 0, 0, 1], options.port).into(), way)?;
    let _running = queue.start(stop)?;
    let (found, _) = peer.finish(messages, deadline, stop)?;
    Ok(Figures {
        kind: kind.name(),
        round,
        messages,
        messages_per_second: rate(&found, messages)?,
        connections: proxy.connections(),
    })
}

const RELAY_ONE_CONNECTION: &str = "[delivery]\nconnections_max = 1\nmessages_per_connection_max = 1000000\n";

/// One connection that is kept, and no pauses between attempts.
const POSTFIX_ONE_CONNECTION: &str = "\
default_destination_concurrency_limit = 1
initial_destination_concurrency = 1
smtp_connection_cache_destinations = static:all
smtp_connection_reuse_count_limit = 1000000
smtp_connection_reuse_time_limit = 1h
smtp_connection_cache_time_limit = 30s
";

/// The table, and whether the bound holds.
fn report(options: &Options, all: &[Figures], obstacle: Option<&str>) -> (String, bool) {
    let of = |kind: Kind| {
        let rates: Vec<f64> =
            all.iter().filter(|one| one.kind == kind.name()).map(|one| one.messages_per_second).collect();
        figures::median(&rates)
    };
    let postfix = of(Kind::Postfix);
    let mut rows = vec![["sender", "messages/s", "times Postfix", "connections"].map(str::to_owned).to_vec()];
    for kind in KINDS {
        let Some(median) = of(kind) else { continue };
        let times = postfix.map_or("–".to_owned(), |postfix| format!("{:.1}", median / postfix));
        let connections = all.iter().filter(|one| one.kind == kind.name()).map(|one| one.connections).max();
        rows.push(vec![
            kind.name().to_owned(),
            figures::short(median),
            times,
            connections.unwrap_or(0).to_string(),
        ]);
    }
    let mut text = format!(
        "# One connection over {} ms there and back\n\n{}\n\nMessages of {} octets, {} rounds, medians; from full queues, \
         counted at the peer.\n\n{}\n",
        2 * options.delay.as_millis(),
        place::sentence(options.machine.as_deref(), &options.dir),
        options.size,
        options.rounds,
        figures::table(&rows)
    );
    let good = match (of(Kind::RelayChunking), postfix) {
        (Some(relay), Some(postfix)) if relay >= options.factor * postfix => true,
        (Some(relay), Some(postfix)) => {
            text += &format!(
                "\n**Too slow**: {:.1} times Postfix's rate, and {} are demanded.\n",
                relay / postfix,
                options.factor
            );
            false
        }
        _ => {
            text += &format!("\n**Incomplete**: {}.\n", obstacle.unwrap_or("a measurement is missing"));
            false
        }
    };
    (text, good)
}
