//! The relay under test: its configuration, its process, its log and its queue.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;

mod builder;

pub use builder::RelayBuilder;

use crate::log::{Log, queue_ids};
use crate::process::{self, exit_within, run, run_ok};
use crate::wait::{self, SOON};
use crate::{Port, tools};

/// How long a start may take: rings, segments, recovery.
const START: Duration = Duration::from_secs(60);

struct Running {
    child: Child,
    log: Log,
    reader: Option<JoinHandle<()>>,
}

/// One relay with its spool; it can be stopped, killed and started again. Dropping it kills it.
pub struct Relay {
    directory: TempDir,
    config: PathBuf,
    outside: Port,
    inside: Port,
    start: Duration,
    environment: Vec<(String, String)>,
    running: Option<Running>,
}

impl Relay {
    pub fn builder() -> RelayBuilder {
        RelayBuilder::default()
    }

    /// Starts the process and waits until it says that it is ready.
    ///
    /// # Panics
    /// When it is not ready in time; shows its log.
    #[track_caller]
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// As [`Relay::start`], with more arguments.
    #[track_caller]
    pub fn start_with(&mut self, arguments: &[&str]) {
        self.launch(arguments);
        let log = self.log();
        if log.find_within(self.start, &["ready"]).is_none() {
            panic!("the relay is not ready:\n{}", log.tail());
        }
    }

    /// As [`Relay::start`], with these variables in its environment.
    #[track_caller]
    pub fn start_with_environment(&mut self, variables: &[(&str, &str)]) {
        self.environment = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        self.start();
    }

    /// Starts the process and waits for nothing.
    pub fn launch(&mut self, arguments: &[&str]) {
        assert!(self.running.is_none(), "the relay runs already");
        // Should the test process die, its relay must not stay behind.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .args(self.command_line())
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the relay starts");
        let (log, reader) = Log::follow(child.stderr.take().expect("piped"));
        self.running = Some(Running { child, log, reader: Some(reader) });
    }

    /// Program and arguments of `sluice run`.
    pub fn command_line(&self) -> Vec<std::ffi::OsString> {
        vec![tools::built("sluice").into(), "run".into(), "--config".into(), self.config.clone().into()]
    }

    pub fn outside(&self) -> SocketAddr {
        self.outside.address()
    }

    pub fn inside(&self) -> SocketAddr {
        self.inside.address()
    }

    pub fn config(&self) -> &Path {
        &self.config
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn spool(&self) -> PathBuf {
        self.directory.path().join("spool")
    }

    /// Changes the configuration file by replacing a text that must be there.
    #[track_caller]
    pub fn edit_config(&self, from: &str, to: &str) {
        let toml = fs::read_to_string(&self.config).expect("the configuration");
        assert!(toml.contains(from), "no {from:?} in\n{toml}");
        fs::write(&self.config, toml.replacen(from, to, 1)).expect("the configuration");
    }

    /// The log since the last start.
    ///
    /// # Panics
    /// When the relay does not run.
    #[track_caller]
    pub fn log(&self) -> Log {
        self.running.as_ref().expect("the relay runs").log.clone()
    }

    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("the relay runs").child.id()
    }

    /// Whether the process is there; a relay that has died by itself is not.
    pub fn is_running(&mut self) -> bool {
        self.running
            .as_mut()
            .is_some_and(|running| running.child.try_wait().expect("a child of ours").is_none())
    }

    /// A metric, by its name without `sluice_`, summed over all shards.
    ///
    /// # Panics
    /// When there is none of that name.
    #[track_caller]
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.metrics();
        let value = text.lines().find_map(|line| line.strip_prefix(&format!("sluice_{name} "))?.parse().ok());
        value.unwrap_or_else(|| panic!("no metric {name} in\n{text}"))
    }

    /// The page of metrics, as `admin.sock` has it.
    fn metrics(&self) -> String {
        let mut socket = UnixStream::connect(self.spool().join("admin.sock")).expect("admin.sock");
        socket.set_read_timeout(Some(SOON)).expect("a positive time");
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        socket.write_all(request).expect("a request");
        let mut text = String::new();
        socket.read_to_string(&mut text).expect("an answer");
        text
    }

    /// CPU time of the process so far.
    pub fn cpu_time(&self) -> Duration {
        Duration::from_secs_f64(process::cpu_seconds(self.pid()))
    }

    pub fn resident_bytes(&self) -> u64 {
        process::resident_bytes(self.pid())
    }

    /// SIGTERM without waiting.
    pub fn terminate(&self) {
        process::signal(self.pid(), "TERM");
    }

    /// SIGTERM, and the process must end by itself with exit code 0 within `limit`. Gives its whole log.
    #[track_caller]
    pub fn stop_within(&mut self, limit: Duration) -> Log {
        self.terminate();
        let (status, log) = self.wait_exit(limit);
        assert!(status.success(), "{status}\n{}", log.tail());
        log
    }

    #[track_caller]
    pub fn stop(&mut self) -> Log {
        self.stop_within(SOON * 2)
    }

    /// Waits until the process has ended.
    #[track_caller]
    pub fn wait_exit(&mut self, limit: Duration) -> (ExitStatus, Log) {
        let running = self.running.as_mut().expect("the relay runs");
        let Some(status) = exit_within(&mut running.child, limit) else {
            panic!("the relay did not end within {limit:?}:\n{}", running.log.tail());
        };
        if let Some(reader) = running.reader.take() {
            let _ = reader.join();
        }
        let log = running.log.clone();
        self.running = None;
        (status, log)
    }

    /// `kill -9`, and wait until the kernel has given up the ports: it takes an io_uring down after the
    /// process has ended, and with it the listeners.
    #[track_caller]
    pub fn kill(&mut self) -> Log {
        let log = self.kill_at_once();
        for address in [self.outside(), self.inside()] {
            wait::until_true(SOON, "a free port after a kill", || TcpListener::bind(address).is_ok());
        }
        log
    }

    /// `kill -9` alone.
    #[track_caller]
    pub fn kill_at_once(&mut self) -> Log {
        let running = self.running.as_mut().expect("the relay runs");
        assert!(
            running.child.try_wait().expect("a child of ours").is_none(),
            "the relay died by itself:\n{}",
            running.log.tail()
        );
        running.child.kill().expect("kill");
        self.wait_exit(SOON).1
    }

    /// Runs another command of the program on this relay's configuration.
    pub fn sluice(&self, arguments: &[&str]) -> Output {
        run(&mut self.sluice_command(arguments), SOON * 2)
    }

    /// As [`Relay::sluice`], and it must succeed; gives what it printed.
    #[track_caller]
    pub fn sluice_ok(&self, arguments: &[&str]) -> String {
        run_ok(&mut self.sluice_command(arguments), SOON * 2)
    }

    fn sluice_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(tools::built("sluice"));
        command.args(arguments).arg("--config").arg(&self.config);
        command
    }

    /// The ids that `sluice queue list` shows.
    #[track_caller]
    pub fn queue(&self) -> Vec<String> {
        self.queue_within(SOON * 2)
    }

    /// As [`Relay::queue`], for a long queue.
    #[track_caller]
    pub fn queue_within(&self, limit: Duration) -> Vec<String> {
        let mut ids = queue_ids(&run_ok(&mut self.sluice_command(&["queue", "list"]), limit));
        ids.dedup();
        ids
    }

    /// Waits until the queue shows exactly `count` messages.
    #[track_caller]
    pub fn wait_queue(&self, count: usize, limit: Duration) -> Vec<String> {
        wait::until(limit, &format!("a queue of {count} messages"), || {
            Some(self.queue()).filter(|queue| queue.len() == count)
        })
    }

    /// Waits until nothing is left in the queue.
    #[track_caller]
    pub fn wait_empty(&self) {
        self.wait_queue(0, SOON);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        if std::thread::panicking() {
            eprintln!("log of the relay:\n{}", running.log.tail());
        }
        let _ = running.child.kill();
        let _ = running.child.wait();
    }
}
