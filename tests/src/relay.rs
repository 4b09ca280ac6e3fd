//! The relay under test: its configuration, its process, its log and its queue.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;

use crate::log::{Log, queue_ids};
use crate::process::{self, exit_within, run, run_ok};
use crate::wait::{self, SOON};
use crate::{Port, tools};

/// How long a start may take: rings, segments, recovery.
const START: Duration = Duration::from_secs(60);

/// What a relay is started with. The default: an outside listener (`relay = "accepted"`) and an inside
/// listener (`relay = "any"`) for loopback clients, accepted domain `inside.test`, no routes, retries by
/// the second.
#[derive(Clone, Debug)]
pub struct RelayBuilder {
    hostname: String,
    accepted: Vec<String>,
    routes: String,
    resolvers: String,
    retry: [String; 4],
    cpus: [String; 2],
    sections: String,
    clients: [String; 2],
    start: Duration,
}

impl Default for RelayBuilder {
    fn default() -> Self {
        Self {
            hostname: "relay.test".into(),
            accepted: vec!["inside.test".into()],
            routes: String::new(),
            resolvers: String::new(),
            retry: ["1s", "2s", "5d", "4h"].map(str::to_owned),
            cpus: ["0", "1"].map(str::to_owned),
            sections: String::new(),
            clients: ["127.0.0.0/8", "127.0.0.0/8"].map(str::to_owned),
            start: START,
        }
    }
}

impl RelayBuilder {
    /// The relay's name in place of `relay.test`.
    pub fn hostname(mut self, name: &str) -> Self {
        self.hostname = name.to_owned();
        self
    }

    /// Accepted domains in place of `inside.test`.
    pub fn accepted(mut self, domains: &[&str]) -> Self {
        self.accepted = domains.iter().map(|&domain| domain.to_owned()).collect();
        self
    }

    /// The next route: these domains to smart hosts.
    pub fn smart_hosts(mut self, domains: &[&str], hosts: &[SocketAddr]) -> Self {
        let hosts: Vec<String> = hosts.iter().map(SocketAddr::to_string).collect();
        let _ = writeln!(self.routes, "[[route]]\ndomains = {domains:?}\nhosts = {hosts:?}\n");
        self
    }

    /// The next route: `inside.test` to this host.
    pub fn inward(self, host: SocketAddr) -> Self {
        self.smart_hosts(&["inside.test"], &[host])
    }

    /// The last route: everything else to this host.
    pub fn outward(self, host: SocketAddr) -> Self {
        self.smart_hosts(&["*"], &[host])
    }

    /// The last route: everything else by MX, asked of this DNS server, delivered to this port.
    pub fn outward_by_mx(mut self, dns: SocketAddr, port: u16) -> Self {
        let _ = writeln!(
            self.routes,
            "[[route]]\ndomains = [\"*\"]\nmx = true\nport = {port}\nresolver = \"external\"\n"
        );
        let _ = writeln!(self.resolvers, "[[resolver]]\nname = \"external\"\nservers = [\"{dns}\"]\n");
        self
    }

    pub fn retry(mut self, first: &str, longest: &str, expire: &str) -> Self {
        self.retry = [first, longest, expire, "4h"].map(str::to_owned);
        self
    }

    /// The delay notice comes after this.
    pub fn notice(mut self, notice: &str) -> Self {
        self.retry[3] = notice.to_owned();
        self
    }

    pub fn cpus(mut self, ingest: &str, delivery: &str) -> Self {
        self.cpus = [ingest, delivery].map(str::to_owned);
        self
    }

    /// Another section or table, as TOML.
    pub fn section(mut self, toml: &str) -> Self {
        self.sections.push_str(toml);
        self.sections.push('\n');
        self
    }

    /// Who may connect to the outside and to the inside listener.
    pub fn clients(mut self, outside: &str, inside: &str) -> Self {
        self.clients = [outside, inside].map(str::to_owned);
        self
    }

    /// Writes the configuration into a directory of its own, and starts nothing.
    pub fn prepare(self) -> Relay {
        let directory = tempfile::Builder::new().prefix("sluice-relay-").tempdir().expect("a directory");
        let (outside, inside) = (Port::reserve(), Port::reserve());
        let config = directory.path().join("relay.toml");
        fs::write(&config, self.toml(directory.path(), &outside, &inside)).expect("the configuration");
        Relay { directory, config, outside, inside, start: self.start, running: None }
    }

    /// Starts the relay and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready; shows its log.
    #[track_caller]
    pub fn start(self) -> Relay {
        let mut relay = self.prepare();
        relay.start();
        relay
    }

    fn toml(&self, directory: &Path, outside: &Port, inside: &Port) -> String {
        let [first, longest, expire, notice] = &self.retry;
        let [ingest, delivery] = &self.cpus;
        let spool = directory.join("spool");
        let mut toml = format!(
            "hostname = {hostname:?}\npostmaster = \"postmaster@inside.test\"\n\n\
             [spool]\npath = {spool:?}\n\n\
             [shards]\ningest_cpus = \"{ingest}\"\ndelivery_cpus = \"{delivery}\"\n\n\
             [domains]\naccepted = {accepted:?}\n\n\
             [retry]\nfirst = \"{first}\"\nlongest = \"{longest}\"\nexpire = \"{expire}\"\nnotice = \"{notice}\"\n\n\
             [admin]\nbind = \"\"\n\n{sections}\n",
            hostname = self.hostname,
            accepted = self.accepted,
            sections = self.sections,
        );
        let listeners = [("outside", outside, "accepted"), ("inside", inside, "any")];
        for ((name, port, relay), clients) in listeners.iter().zip(&self.clients) {
            let _ = writeln!(
                toml,
                "[[listener]]\nname = \"{name}\"\nbind = [\"{}\"]\nclients = [\"{clients}\"]\nrelay = \"{relay}\"\n\
                 tls = \"off\"\n",
                port.address()
            );
        }
        toml + &self.routes + &self.resolvers
    }
}

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

    /// Starts the process and waits for nothing.
    pub fn launch(&mut self, arguments: &[&str]) {
        assert!(self.running.is_none(), "the relay runs already");
        // Should the test process die, its relay must not stay behind.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .args(self.command_line())
            .args(arguments)
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
