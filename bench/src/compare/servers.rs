//! Starts a server under test on an empty queue and ends it: the relay, or an instance of Postfix of its own.
//!
//! Every server gets the same task: take mail from 127.0.0.1 for any domain without TLS and relay all of it to the
//! sink. All that is written lies below the run's directory.

use super::install::POSTFIX;
use super::{Kind, Options};
use crate::process::{self, Group};
use crate::stop::Stop;
use anyhow::{Context as _, Result, bail, ensure};
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time from start to the first accepted connection.
const START_WAIT: Duration = Duration::from_secs(30);

/// Longest time until the port of a server that has ended is free.
const FREE_WAIT: Duration = Duration::from_secs(10);

/// Common to both rows: what a relay needs, and nothing that a test machine lacks.
const MAIN: &str = include_str!("postfix-main.cf");
/// The second row: as many settings as help a relay under load.
const TUNED: &str = include_str!("postfix-tuned.cf");
const MASTER: &str = include_str!("postfix-master.cf");
const RELAY: &str = include_str!("relay.toml");

pub struct Server {
    pub group: Group,
    child: Child,
    postfix_config: Option<PathBuf>,
    directory: PathBuf,
}

impl Server {
    /// Starts it below `directory` and waits until it accepts connections. `None` for [`Kind::Limit`].
    pub fn start(options: &Options, directory: &Path, kind: Kind, stop: &Stop) -> Result<Option<Server>> {
        let directory = directory.join("server");
        let prepared = match kind {
            Kind::Limit => return Ok(None),
            Kind::Relay => relay(options, &directory)?,
            Kind::PostfixStock => postfix(options, &directory, "")?,
            Kind::PostfixTuned => postfix(options, &directory, TUNED)?,
        };
        await_free(options.port + 1, stop)?;
        let mut group = Group::new("server");
        let log = directory.join("log");
        let output = File::create(&log)?;
        let errors = output.try_clone()?;
        let child = group.start(&prepared.program, &prepared.arguments, |command| {
            command.stdin(Stdio::null()).stdout(output).stderr(errors);
        })?;
        let mut server = Server { group, child, postfix_config: prepared.postfix_config, directory };
        server.await_port(options.port + 1, stop).with_context(|| {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let tail: Vec<_> = text.lines().rev().take(5).collect();
            format!("{} did not start; its last words: {}", kind.name(), tail.join(" | "))
        })?;
        Ok(Some(server))
    }

    fn await_port(&mut self, port: u16, stop: &Stop) -> Result<()> {
        let deadline = Instant::now() + START_WAIT;
        while !accepts(port) {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended: {status}");
            }
            ensure!(!stop.is_set(), "interrupted");
            ensure!(Instant::now() < deadline, "nothing accepts on port {port} after {START_WAIT:?}");
            std::thread::sleep(Duration::from_millis(20));
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
        match &self.postfix_config {
            Some(config) => {
                let _ = postfix_stop(config).status();
                if process::wait_child(&mut self.child, Duration::from_secs(5)).is_none() {
                    process::end_child(&mut self.child);
                }
            }
            None => process::end_child(&mut self.child),
        }
        self.group.end();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn postfix_stop(config: &Path) -> Command {
    let mut command = Command::new(POSTFIX);
    command
        .arg("-c")
        .arg(config)
        .arg("stop")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Whether something accepts connections on the loopback address.
pub fn accepts(port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_secs(1)).is_ok()
}

/// Waits until nothing listens on the port. The kernel takes the rings of an ended process down in its own time, and
/// a listener with a pending accept goes with them.
pub fn await_free(port: u16, stop: &Stop) -> Result<()> {
    let deadline = Instant::now() + FREE_WAIT;
    while accepts(port) {
        ensure!(Instant::now() < deadline, "port {port} is taken; choose others with --port");
        ensure!(!stop.is_set(), "interrupted");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

struct Prepared {
    program: PathBuf,
    arguments: Vec<String>,
    postfix_config: Option<PathBuf>,
}

fn relay(options: &Options, directory: &Path) -> Result<Prepared> {
    let spool = directory.join("spool");
    fs::create_dir_all(&spool)?;
    let shards: String = [("ingest_cpus", &options.ingest_cpus), ("delivery_cpus", &options.delivery_cpus)]
        .into_iter()
        .filter_map(|(key, cpus)| {
            let numbers: Vec<_> = cpus.as_ref()?.0.iter().map(usize::to_string).collect();
            Some(format!("{key} = \"{}\"\n", numbers.join(",")))
        })
        .collect();
    let text = RELAY
        .replace("@SPOOL@", &spool.display().to_string())
        .replace("@SHARDS@\n", &shards)
        .replace("@ADMIN@", &(options.port + 2).to_string())
        .replace("@LISTEN@", &(options.port + 1).to_string())
        .replace("@SINK@", &options.port.to_string());
    let config = directory.join("relay.toml");
    fs::write(&config, text)?;
    let program = fs::canonicalize(&options.relay)
        .with_context(|| format!("cannot find the relay {}", options.relay.display()))?;
    let arguments = ["run".to_owned(), "--config".to_owned(), config.display().to_string()];
    Ok(Prepared { program, arguments: arguments.to_vec(), postfix_config: None })
}

fn postfix(options: &Options, directory: &Path, settings: &str) -> Result<Prepared> {
    let (config, queue, data) = (directory.join("config"), directory.join("queue"), directory.join("data"));
    for path in [&config, &queue, &data] {
        fs::create_dir_all(path)?;
    }
    let owned = Command::new("chown").arg("postfix").arg(&data).status().context("cannot run chown")?;
    ensure!(owned.success(), "cannot give {} to the user postfix", data.display());
    let paths = MAIN
        .replace("@CONFIG@", &config.display().to_string())
        .replace("@QUEUE@", &queue.display().to_string())
        .replace("@DATA@", &data.display().to_string())
        .replace("@SINK@", &options.port.to_string());
    fs::write(config.join("main.cf"), paths + settings)?;
    fs::write(config.join("master.cf"), MASTER.replace("@LISTEN@", &(options.port + 1).to_string()))?;
    let arguments = ["-c".to_owned(), config.display().to_string(), "start-fg".to_owned()];
    Ok(Prepared { program: POSTFIX.into(), arguments: arguments.to_vec(), postfix_config: Some(config) })
}
