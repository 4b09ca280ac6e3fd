//! A real Exim that relays all it gets to one host, by TLS with a verified certificate.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::path::Path;

use tempfile::TempDir;

use super::Way;
use super::namespace::{Ending, Namespace, unpacked};
use crate::wait::SOON;
use crate::{Port, wait};

const USER: &str = "Debian-exim";

/// One running instance. Dropping it ends it.
pub struct Exim {
    directory: TempDir,
    port: Port,
    _process: Ending,
}

impl Exim {
    /// Starts it; `None`, said loudly, when it is not there.
    ///
    /// # Panics
    /// When it does not start; shows its log.
    pub fn start(relay: SocketAddr, way: Way, trusted: &str) -> Option<Self> {
        let program = unpacked("exim4-daemon-light")?.join("usr/sbin/exim4");
        let directory = tempfile::Builder::new().prefix("sluice-exim-").tempdir().expect("a directory");
        let root = directory.path();
        fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("permissions");
        for part in ["spool", "log"] {
            fs::create_dir(root.join(part)).expect("a directory");
            let uid = Some(Namespace::uid(0));
            chown(root.join(part), uid, uid).expect("chown");
        }
        // What its own user must read.
        fs::copy(trusted, root.join("trusted.pem")).expect("a file");
        let (port, config) = (Port::reserve(), root.join("exim.conf"));
        fs::write(&config, configuration(root, &program, port.number(), relay, way)).expect("a file");
        let output = fs::File::create(root.join("output")).expect("a file");
        let namespace = Namespace { directory: root, users: &[USER], bound: &[], empty: &[], made: &[] };
        let (program, config) = (program.to_str().expect("UTF-8"), config.to_str().expect("UTF-8"));
        let process = Ending(namespace.start(&[program, "-C", config, "-bdf", "-q1s"], output));
        let exim = Self { directory, port, _process: process };
        let listens = || TcpStream::connect(exim.address()).is_ok();
        let start = std::time::Instant::now();
        while !listens() {
            assert!(start.elapsed() < SOON, "Exim does not start:\n{}", exim.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Some(exim)
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    pub fn log(&self) -> String {
        ["output", "log/mainlog", "log/paniclog", "log/rejectlog"]
            .map(|name| fs::read_to_string(self.directory.path().join(name)).unwrap_or_default())
            .concat()
    }

    /// Waits until `count` lines of its log contain `part`; gives them.
    #[track_caller]
    pub fn wait_log(&self, count: usize, part: &str) -> Vec<String> {
        wait::until(SOON, &format!("{count} lines with {part:?} in Exim's log"), || {
            let log = self.log();
            let lines: Vec<String> =
                log.lines().filter(|line| line.contains(part)).map(str::to_owned).collect();
            (lines.len() >= count).then_some(lines)
        })
    }
}

impl Drop for Exim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of Exim:\n{}", self.log());
        }
    }
}

fn configuration(root: &Path, program: &Path, port: u16, relay: SocketAddr, way: Way) -> String {
    let (root, program) = (root.display(), program.display());
    let transport = match way {
        Way::StartTls => "hosts_require_tls = *",
        Way::Implicit => "protocol = smtps",
    };
    format!(
        "\
keep_environment =
exim_path = {program}
primary_hostname = exim.test
spool_directory = {root}/spool
log_file_path = {root}/log/%slog
log_selector = +smtp_confirmation +tls_cipher +tls_certificate_verified
pid_file_path = {root}/pid
exim_user = {USER}
exim_group = {USER}
never_users =
deliver_drop_privilege
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
tls_advertise_hosts =
disable_ipv6 = true
host_lookup =
rfc1413_query_timeout = 0s
smtp_accept_max = 50
smtp_accept_queue_per_connection = 0
acl_smtp_rcpt = accept
acl_smtp_data = accept
accept_8bitmime = true

begin routers
all:
  driver = manualroute
  domains = *
  transport = relay
  route_list = * {host}
  self = send
  no_more

begin transports
relay:
  driver = smtp
  port = {relay_port}
  {transport}
  hosts_try_chunking = *
  tls_verify_certificates = {root}/trusted.pem
  tls_verify_cert_hostnames =
  tls_sni = relay.test

begin retry
* * F,1h,1s
",
        host = relay.ip(),
        relay_port = relay.port(),
    )
}
