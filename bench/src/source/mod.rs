//! The load generator: sessions on pinned glommio executors, closed loop or open loop.
//!
//! `run` lives on the main thread: it starts one executor per CPU, waits and adds up. Sessions ([`session`]) are
//! local tasks of their executor and share its [`Shared`]; between executors only the message counter is shared.
//!
//! Closed loop: a session sends its next message when the last one is answered, so a slow server is asked less.
//! Open loop (`--rate`): each message is due at a time of its own, whatever the server does ([`mod@pace`]); a free session
//! takes the next due message, and its latency counts from when it was due. So a stall of the server shows in every
//! message that had to wait for it (no coordinated omission).

mod mix;
mod pace;
mod report;
mod session;

pub use mix::Mix;
pub use pace::Arrivals;
pub use report::{Failure, Report};

use crate::message::Recipe;
use crate::stop::Stop;
use crate::tls::handshakes;
use crate::{args, process};
use anyhow::{Context as _, Result, bail, ensure};
use clap::{ArgAction, Args};
use pace::Pace;
use report::Tally;
use rustls::pki_types::ServerName;
use std::cell::RefCell;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Messages when neither `--messages` nor `--seconds` is given.
const MESSAGES_DEFAULT: u64 = 10_000;
/// Open loop: time between start and the first message, for the sessions to connect.
const LEAD: Duration = Duration::from_millis(300);

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Server to send to, host:port
    #[arg(long)]
    pub target: String,
    /// CPUs to run on, one pinned executor each, like 0-1,4; without it one that the kernel may move
    #[arg(long)]
    pub cpus: Option<args::Cpus>,
    /// Connections at the same time
    #[arg(long, default_value_t = 20)]
    pub sessions: usize,
    /// Messages to send in all; 10,000 if --seconds is not given either
    #[arg(long)]
    pub messages: Option<u64>,
    /// Start no message after this many seconds
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Messages per second (open loop); without it each session sends as fast as it is answered (closed loop)
    #[arg(long)]
    pub rate: Option<f64>,
    /// Open loop: the gaps between the times when messages are due; the same in each run of so many messages
    #[arg(long, value_enum, default_value_t = Arrivals::Random)]
    pub arrivals: Arrivals,
    /// Messages on one connection, then QUIT and a new one; 0: no limit
    #[arg(long, default_value_t = 0)]
    pub messages_per_connection: u64,
    /// Recipients of each message
    #[arg(long, default_value_t = 1)]
    pub recipients: usize,
    /// Octets of each message's content; small ones grow to hold the header section (about 350)
    #[arg(long, default_value_t = 4096)]
    pub size: usize,
    /// Sizes instead, each with its share, like 1024:7,65536:3; each message has one of them, by its number
    #[arg(long, conflicts_with = "size")]
    pub sizes: Option<Mix>,
    /// Send MAIL, RCPT and DATA in one piece (RFC 2920), if the server announces PIPELINING
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    pub pipeline: bool,
    /// Speak TLS after STARTTLS, with a server whose certificate these (PEM) vouch for
    #[arg(long, value_name = "FILE")]
    pub starttls: Option<PathBuf>,
    /// Resume TLS sessions, by TLS 1.2: a session before the first message gets what all others resume. Without it every
    /// handshake is a full one
    #[arg(long, default_value_t = false, action = ArgAction::Set, value_name = "BOOL")]
    pub tls_resume: bool,
    /// The name that the certificate must have
    #[arg(long, default_value = "localhost")]
    pub tls_name: String,
    /// Let some lines begin with dots
    #[arg(long)]
    pub dots: bool,
    /// Reverse-path; %n is the message's number, %s the session's
    #[arg(long, default_value = "source@source.example")]
    pub from: String,
    /// Forward-path; %n and %s as above, %r is the recipient's number
    #[arg(long, default_value = "recipient%r@sink.example")]
    pub to: String,
    /// Longest wait for a connection or a reply
    #[arg(long, default_value = "60s", value_parser = args::duration)]
    pub timeout: Duration,
    /// Run number in the messages, hexadecimal; without it one from the clock
    #[arg(long)]
    pub run: Option<String>,
    /// Write the numbers of the acknowledged messages to this file, one a line as they are acknowledged
    #[arg(long)]
    pub acknowledged: Option<PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
}

/// What the sessions of one executor share.
struct Shared {
    options: Options,
    target: SocketAddr,
    composers: mix::Composers,
    pace: Arc<Pace>,
    tally: RefCell<Tally>,
    tls: Option<futures_rustls::TlsConnector>,
}

/// Sends the load and prints the figures; `false` when a message failed.
pub fn run(options: &Options) -> Result<bool> {
    ensure!(options.sessions > 0, "--sessions must be at least 1");
    ensure!(options.recipients > 0, "--recipients must be at least 1");
    ensure!(options.rate.is_none_or(|rate| rate.is_finite() && rate > 0.0), "--rate must be above 0");
    let target = resolve(&options.target)?;
    ServerName::try_from(options.tls_name.as_str()).context("--tls-name is no name of a server")?;
    let tls = match &options.starttls {
        Some(trusted) if options.tls_resume => {
            let config = handshakes::client(trusted, handshakes::RESUMABLE, true)?;
            // Sessions that begin together would find nothing to resume.
            let first = handshakes::session(target, handshakes::Kind::Resumed, &config, &options.tls_name);
            first.context("the TLS session that is to be resumed")?;
            Some(config)
        }
        Some(trusted) => Some(handshakes::client(trusted, rustls::ALL_VERSIONS, false)?),
        None => None,
    };
    let stop = Stop::at_signals()?;
    let run = run_number(options)?;
    let pace = Arc::new(pace(options, stop));
    let acknowledged = report::Acknowledged::create(options.acknowledged.as_deref())?;
    let started = SystemTime::now() + pace.start().saturating_duration_since(Instant::now());
    let cpu_before = process::own_cpu();
    let builders = args::executors(options.cpus.as_ref());
    let executors = builders.len();
    let mut threads = Vec::new();
    for (index, builder) in builders.into_iter().enumerate() {
        let recipe = recipe(options, run);
        let (options, pace, acknowledged) = (options.clone(), pace.clone(), acknowledged.clone());
        let tls = tls.clone().map(futures_rustls::TlsConnector::from);
        let thread = builder.name("source").spawn(move || async move {
            let tally = RefCell::new(Tally::new(acknowledged));
            let composers = mix::Composers::new(recipe, options.sizes.as_ref());
            let shared = Rc::new(Shared { options, target, composers, pace, tally, tls });
            let numbers = (index..shared.options.sessions).step_by(executors);
            let sessions: Vec<_> =
                numbers.map(|number| glommio::spawn_local(session::run(shared.clone(), number))).collect();
            for session in sessions {
                session.await;
            }
            let cpu = process::own_cpu();
            (shared.tally.take(), cpu)
        });
        threads.push(thread.map_err(|error| anyhow::anyhow!("cannot start an executor: {error}"))?);
    }
    let mut tally = Tally::default();
    let mut cpu_after = cpu_before;
    for thread in threads {
        match thread.join() {
            Ok((part, cpu)) => {
                tally.add(&part);
                cpu_after = cpu_after.max(cpu);
            }
            Err(error) => bail!("an executor ended: {error}"),
        }
    }
    acknowledged.flush()?;
    let report = Report::new(options, run, started, &tally, &pace, cpu_after.saturating_sub(cpu_before));
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{}", report.text()),
    }
    Ok(report.complete())
}

fn pace(options: &Options, stop: Stop) -> Pace {
    let messages = match (options.messages, options.seconds) {
        (None, None) => Some(MESSAGES_DEFAULT),
        (messages, _) => messages,
    };
    let lead = if options.rate.is_some() { LEAD } else { Duration::ZERO };
    let rate = options.rate.map(|rate| (rate, options.arrivals));
    Pace::new(Instant::now() + lead, rate, messages, options.seconds.map(Duration::from_secs), stop)
}

fn resolve(target: &str) -> Result<SocketAddr> {
    let mut addresses = target
        .to_socket_addrs()
        .with_context(|| format!("--target {target:?} is no host:port that resolves"))?;
    addresses.next().with_context(|| format!("--target {target:?} has no address"))
}

fn run_number(options: &Options) -> Result<u32> {
    match &options.run {
        Some(text) => u32::from_str_radix(text, 16)
            .with_context(|| format!("--run {text:?} is no hexadecimal number of at most 8 digits")),
        None => {
            let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
            Ok((nanos ^ (nanos >> 32) ^ u64::from(std::process::id()) << 16) as u32)
        }
    }
}

fn recipe(options: &Options, run: u32) -> Recipe {
    Recipe {
        run,
        from: options.from.clone(),
        to: options.to.clone(),
        recipients: options.recipients,
        size: options.size,
        dots: options.dots,
        date: jiff::Zoned::now().strftime("%a, %d %b %Y %H:%M:%S %z").to_string(),
    }
}
