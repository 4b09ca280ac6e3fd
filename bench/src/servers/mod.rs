//! The servers under test, each with the same task: take mail from 127.0.0.1 for any domain and hand all of it to one
//! next hop on 127.0.0.1, durable before the 250 as far as it can be told to.
//!
//! [`Server::start`] writes a configuration below a directory of its own, starts the server there and waits until it
//! accepts. What one has written stays when it ends, so that it can be started again on the same queue. Started and
//! ended by the main thread of a command; one at a time.

mod certificate;
pub mod install;
mod namespace;
mod prepare;
mod queued;
pub mod rest;

pub use certificate::{Certificate, NAME};
pub use queued::queued;
pub use rest::{WorkDirectory, accepts, await_free, rest};

use crate::process::{self, Group};
use crate::stop::Stop;
use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use prepare::Prepared;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time from start to the first accepted connection.
const START_WAIT: Duration = Duration::from_secs(30);
/// Longest time that a server's own command may take to stop it.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// A port of 127.0.0.1 where nobody listens (tcpmux, RFC 1078, long out of use).
pub const NOBODY: u16 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Relay,
    PostfixStock,
    PostfixTuned,
    /// As the tuned one, with few processes
    PostfixLean,
    /// OpenSMTPD; the name that kebab-case would give nobody writes
    #[value(name = "opensmtpd")]
    #[serde(rename = "opensmtpd")]
    OpenSmtpd,
    Exim,
    Haraka,
    /// `sluice-bench bare`, which moves the same octets and looks at nothing: the physical limit, no mail server
    Bare,
}

impl Kind {
    /// The mail servers; the relay is the first.
    pub const ALL: [Kind; 7] = [
        Kind::Relay,
        Kind::PostfixStock,
        Kind::PostfixTuned,
        Kind::PostfixLean,
        Kind::OpenSmtpd,
        Kind::Exim,
        Kind::Haraka,
    ];
    /// One program with three settings, of which the best counts.
    pub const POSTFIX: [Kind; 3] = [Kind::PostfixStock, Kind::PostfixTuned, Kind::PostfixLean];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Relay => "Sluice",
            Kind::PostfixStock => "Postfix, stock",
            Kind::PostfixTuned => "Postfix, tuned",
            Kind::PostfixLean => "Postfix, lean",
            Kind::OpenSmtpd => "OpenSMTPD",
            Kind::Exim => "Exim",
            Kind::Haraka => "Haraka",
            Kind::Bare => "bare program",
        }
    }

    /// What it syncs before it answers the final dot with 250, as its system calls show.
    pub fn synced(self) -> &'static str {
        match self {
            Kind::Relay => "one data-sync write for all messages of a batch",
            Kind::PostfixStock | Kind::PostfixTuned | Kind::PostfixLean => "fsync of its queue file",
            Kind::OpenSmtpd => "nothing: it calls fsync for no message, and has no setting for it",
            Kind::Bare => "one data-sync write for a group of messages",
            Kind::Exim => "fsync of both files of a message (and again for each delivery)",
            Kind::Haraka => "fsync of its queue file, by the comparison's plugin: it means to, and does not",
        }
    }
}

/// What it does with what it has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Hands it to the next hop.
    Deliver,
    /// Stores it and tries nothing.
    Keep,
}

/// Where and how to start.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Of this instance; made if it is not there.
    pub directory: PathBuf,
    /// The relay's program.
    pub relay: PathBuf,
    /// Where packages were unpacked; see [`install`].
    pub unpacked: PathBuf,
    pub listen: u16,
    pub next_hop: u16,
    /// Port of the relay's metrics; without it there are none.
    pub admin: Option<u16>,
    pub mode: Mode,
    /// Offers STARTTLS to clients with it.
    pub certificate: Option<Certificate>,
    /// Hands on by STARTTLS only, any certificate.
    pub outward_tls: bool,
    /// Sessions that must be possible at a time.
    pub sessions: usize,
    /// Sessions that the generator opens at a time: Postfix has a process for each.
    pub clients: usize,
    /// CPU lists of the relay's shards; without them its defaults.
    pub ingest_cpus: Option<String>,
    pub delivery_cpus: Option<String>,
    /// The relay's `shards.spin`, as it writes it; without it its default.
    pub spin: Option<String>,
}

impl Setup {
    pub fn new(directory: PathBuf, relay: &Path, listen: u16, next_hop: u16) -> Self {
        Setup {
            directory,
            relay: relay.to_owned(),
            unpacked: PathBuf::new(),
            listen,
            next_hop,
            admin: None,
            mode: Mode::Deliver,
            certificate: None,
            outward_tls: false,
            sessions: 20_000,
            clients: 20,
            ingest_cpus: None,
            delivery_cpus: None,
            spin: None,
        }
    }
}

/// A running server. Dropping it ends it and all its processes; its files stay.
pub struct Server {
    pub group: Group,
    child: Child,
    stop: Ending,
}

/// How it is ended.
enum Ending {
    Terminate,
    /// With all that is in its process namespace.
    Kill,
    Command(PathBuf, Vec<String>),
}

impl Server {
    /// Starts it and waits until it accepts connections.
    pub fn start(kind: Kind, setup: &Setup, stop: &Stop) -> Result<Server> {
        fs::create_dir_all(&setup.directory)?;
        let Prepared { program, arguments, stop: ending } =
            prepare::prepare(kind, setup).with_context(|| format!("{} cannot be set up", kind.name()))?;
        await_free(setup.listen, stop)?;
        let mut group = Group::new("server");
        let log = setup.directory.join("log");
        let output = File::create(&log)?;
        let errors = output.try_clone()?;
        let child = group.start(&program, &arguments, |command| {
            command.stdin(Stdio::null()).stdout(output).stderr(errors);
        })?;
        let mut server = Server { group, child, stop: ending };
        server.await_port(setup.listen, stop).with_context(|| {
            let text = fs::read(&log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let tail: Vec<_> = text.lines().rev().take(5).collect();
            format!("{} did not start; its last words: {}", kind.name(), tail.join(" | "))
        })?;
        Ok(server)
    }

    fn await_port(&mut self, port: u16, stop: &Stop) -> Result<()> {
        let deadline = Instant::now() + START_WAIT;
        while !accepts(port) {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended: {status}");
            }
            ensure!(!stop.is_set(), "interrupted");
            ensure!(Instant::now() < deadline, "nothing accepts on port {port} after {START_WAIT:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Whether the process that was started still runs.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the server ended in the middle of the measurement: {status}"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        match &self.stop {
            Ending::Terminate => {}
            Ending::Kill => drop(self.child.kill()),
            Ending::Command(program, arguments) => {
                let mut command = Command::new(program);
                command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                let _ = command.status();
                let _ = process::wait_child(&mut self.child, STOP_WAIT);
            }
        }
        process::end_child(&mut self.child);
        self.group.end();
        let _ = self.child.wait();
    }
}

/// Turns a queue that was filled under [`Mode::Keep`] into one that the next start under [`Mode::Deliver`] tries at
/// once; before that start.
pub fn release(kind: Kind, setup: &Setup) -> Result<()> {
    match kind {
        Kind::PostfixStock | Kind::PostfixTuned | Kind::PostfixLean => {
            let config = setup.directory.join("config").display().to_string();
            run("postsuper", &["-c", &config, "-H", "ALL"])
        }
        _ => Ok(()),
    }
}

/// What is to be said to a server that was just started for that; after it.
pub fn hurry(kind: Kind, setup: &Setup) -> Result<()> {
    match kind {
        // What it has tried in vain would wait for the time of its next attempt.
        Kind::Relay => {
            let (relay, config) = (setup.relay.display().to_string(), setup.directory.join("relay.toml"));
            run(&relay, &["queue", "retry", "--all", "--config", &config.display().to_string()])
        }
        _ => Ok(()),
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
    Ok(())
}
