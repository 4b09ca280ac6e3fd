//! A queue that has been filled while nothing listened behind it, and the server that empties it: the relay, or an
//! instance of Postfix of its own.
//!
//! Postfix is filled without its queue manager, so that its messages lie in `incoming`, untried, and go at once when it
//! starts with one: the kindest start that there is for it. The relay is filled while its next hop refuses.

use super::own_program;
use crate::process::{self, Group};
use crate::servers::{accepts, await_free};
use crate::stop::Stop;
use anyhow::{Context as _, Result, bail, ensure};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const POSTFIX: &str = "/usr/sbin/postfix";
const MAIN: &str = include_str!("postfix-main.cf");
const MASTER: &str = include_str!("postfix-master.cf");
const RELAY: &str = include_str!("relay.toml");

/// In the queue manager's place while the queue is filled: who tells it of a message finds somebody who listens, and
/// does not wait a second for one.
const NO_MANAGER: &str = "qmgr unix n - n - 1 anvil";

/// Sessions that fill it.
const FILLING: &str = "20";
const START_WAIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    Relay,
    Postfix,
}

/// What is started, and where.
#[derive(Clone, Debug)]
pub struct Plan {
    pub sender: Sender,
    /// The relay's program.
    pub relay: PathBuf,
    /// To be made, and removed at the end.
    pub directory: PathBuf,
    pub listen: u16,
    pub next_hop: u16,
    /// Further lines of relay.toml or main.cf.
    pub settings: String,
}

/// A full queue. Dropping it removes it.
pub struct Queue {
    plan: Plan,
}

/// The server at work. Dropping it ends it.
pub struct Running {
    pub group: Group,
    child: Child,
    postfix: Option<PathBuf>,
}

impl Queue {
    /// Makes it and puts so many messages in, each of so many octets.
    pub fn fill(plan: Plan, messages: u64, size: usize, stop: &Stop) -> Result<Queue> {
        let queue = Queue { plan };
        queue.prepare()?;
        let server = queue.run(false, stop)?;
        let status = Command::new(own_program()?)
            .args(["source", "--json", "--sessions", FILLING, "--target"])
            .arg(format!("127.0.0.1:{}", queue.plan.listen))
            .args(["--messages", &messages.to_string(), "--size", &size.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .context("the generator")?;
        ensure!(status.success(), "the generator could not fill the queue");
        drop(server);
        Ok(queue)
    }

    /// Starts the server on it.
    pub fn start(&self, stop: &Stop) -> Result<Running> {
        self.run(true, stop)
    }

    fn prepare(&self) -> Result<()> {
        let Plan { sender, directory, next_hop, listen, settings, .. } = &self.plan;
        for part in ["config", "queue", "data"] {
            fs::create_dir_all(directory.join(part))?;
        }
        let path = |part: &str| directory.join(part).display().to_string();
        let fill_in = |text: &str| {
            text.replace("@CONFIG@", &path("config"))
                .replace("@QUEUE@", &path("queue"))
                .replace("@DATA@", &path("data"))
                .replace("@LOG@", &path("maillog"))
                .replace("@LISTEN@", &listen.to_string())
                .replace("@PEER@", &next_hop.to_string())
        };
        match sender {
            Sender::Relay => {
                fs::write(directory.join("config/relay.toml"), fill_in(RELAY) + "\n" + settings)?;
            }
            Sender::Postfix => {
                let owned = Command::new("chown").arg("postfix").arg(directory.join("data")).status()?;
                ensure!(owned.success(), "cannot give a directory to the user postfix");
                fs::write(directory.join("config/main.cf"), fill_in(MAIN) + "\n" + settings)?;
            }
        }
        Ok(())
    }

    fn run(&self, with_manager: bool, stop: &Stop) -> Result<Running> {
        let Plan { sender, relay, directory, listen, .. } = &self.plan;
        let config = directory.join("config");
        let (program, arguments, postfix) = match sender {
            Sender::Relay => {
                let program = fs::canonicalize(relay)
                    .with_context(|| format!("cannot find the relay {}", relay.display()))?;
                let config = config.join("relay.toml").display().to_string();
                (program, vec!["run".to_owned(), "--config".to_owned(), config], None)
            }
            Sender::Postfix => {
                let master = MASTER.replace("@LISTEN@", &listen.to_string());
                let master = match with_manager {
                    true => master,
                    false => master
                        .lines()
                        .map(|line| if line.starts_with("qmgr") { NO_MANAGER } else { line })
                        .fold(String::new(), |all, line| all + line + "\n"),
                };
                fs::write(config.join("master.cf"), master)?;
                let arguments = vec!["-c".to_owned(), config.display().to_string(), "start-fg".to_owned()];
                (PathBuf::from(POSTFIX), arguments, Some(config))
            }
        };
        await_free(*listen, stop)?;
        let log = directory.join("log");
        let output = File::options().create(true).append(true).open(&log)?;
        let errors = output.try_clone()?;
        let mut group = Group::new("server");
        let child = group.start(&program, &arguments, |command| {
            command.stdin(Stdio::null()).stdout(output).stderr(errors);
        })?;
        let mut running = Running { group, child, postfix };
        let deadline = Instant::now() + START_WAIT;
        while !accepts(*listen) {
            if let Some(status) = running.child.try_wait()? {
                bail!("the server ended: {status}; its last words: {}", last_words(&log));
            }
            ensure!(!stop.is_set(), "interrupted");
            ensure!(
                Instant::now() < deadline,
                "the server does not accept; its last words: {}",
                last_words(&log)
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(running)
    }
}

fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().rev().take(3).collect::<Vec<_>>().join(" | ")
}

impl Drop for Queue {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.plan.directory);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(config) = &self.postfix {
            let mut command = Command::new(POSTFIX);
            command.arg("-c").arg(config).arg("stop");
            let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
            let _ = process::wait_child(&mut self.child, Duration::from_secs(5));
        }
        process::end_child(&mut self.child);
        self.group.end();
    }
}

/// Why Postfix cannot be measured; `None` when it can.
pub fn postfix_obstacle() -> Option<&'static str> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let is_root = user.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0");
    match (Path::new(POSTFIX).exists(), is_root) {
        (false, _) => Some("the package postfix is not installed"),
        (true, false) => Some("Postfix starts only as root"),
        (true, true) => None,
    }
}
