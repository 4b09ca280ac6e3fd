//! A real Exim: one that relays all it gets to one host, by TLS with a verified certificate, or one that files it.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::path::Path;

use tempfile::TempDir;

use super::Way;
use super::namespace::{Ending, Namespace, unpacked};
use crate::wait::SOON;
use crate::{Maildir, Port, wait};

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
        Self::run(|root, program, port| {
            // What its own user must read.
            fs::copy(trusted, root.join("trusted.pem")).expect("a file");
            configuration(root, program, port, relay, way)
        })
    }

    /// Starts one with the configuration that `of` makes of its directory, its program and its port.
    fn run(of: impl FnOnce(&Path, &Path, u16) -> String) -> Option<Self> {
        let program = unpacked("exim4-daemon-light")?.join("usr/sbin/exim4");
        let directory = tempfile::Builder::new().prefix("sluice-exim-").tempdir().expect("a directory");
        let root = directory.path();
        fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("permissions");
        for part in ["spool", "log", "mail"] {
            fs::create_dir(root.join(part)).expect("a directory");
            let uid = Some(Namespace::uid(0));
            chown(root.join(part), uid, uid).expect("chown");
        }
        let (port, config) = (Port::reserve(), root.join("exim.conf"));
        fs::write(&config, of(root, &program, port.number())).expect("a file");
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

    /// Starts one that files what it gets for anybody in a Maildir, `mail`; `None`, said loudly, when it is not there.
    /// It offers CHUNKING, PIPELINING and, with a certificate and its key, STARTTLS.
    ///
    /// # Panics
    /// When it does not start; shows its log.
    pub fn filing(tls: Option<(&Path, &Path)>) -> Option<Self> {
        Self::run(|root, program, port| {
            let mut offer = "tls_advertise_hosts =".to_owned();
            if let Some((certificate, key)) = tls {
                // What its own user must read.
                for (from, to) in [(certificate, "own.pem"), (key, "own.key")] {
                    fs::copy(from, root.join(to)).expect("a file");
                    let uid = Some(Namespace::uid(0));
                    chown(root.join(to), uid, uid).expect("chown");
                }
                let root = root.display();
                offer = format!(
                    "tls_advertise_hosts = *\ntls_certificate = {root}/own.pem\ntls_privatekey = {root}/own.key"
                );
            }
            filing(root, program, port, &offer)
        })
    }

    /// The Maildir of one that files.
    pub fn maildir(&self) -> Maildir {
        Maildir::at(self.directory.path().join("mail"))
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

/// What both kinds have; `offer`: what it does about TLS with its clients.
fn common(root: &Path, program: &Path, port: u16, offer: &str) -> String {
    let (root, program) = (root.display(), program.display());
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
{offer}
disable_ipv6 = true
host_lookup =
rfc1413_query_timeout = 0s
smtp_accept_max = 50
smtp_accept_queue_per_connection = 0
acl_smtp_rcpt = accept
acl_smtp_data = accept
accept_8bitmime = true
chunking_advertise_hosts = *
pipelining_advertise_hosts = *
"
    )
}

/// All mail into one Maildir.
fn filing(root: &Path, program: &Path, port: u16, offer: &str) -> String {
    format!(
        "\
{common}
smtp_accept_max_per_connection = 0

begin routers
all:
  driver = accept
  transport = file

begin transports
file:
  driver = appendfile
  directory = {root}/mail
  maildir_format
  user = {USER}
  group = {USER}

begin retry
* * F,1h,1s
",
        common = common(root, program, port, offer),
        root = root.display(),
    )
}

fn configuration(root: &Path, program: &Path, port: u16, relay: SocketAddr, way: Way) -> String {
    let transport = match way {
        Way::StartTls => "hosts_require_tls = *",
        Way::Implicit => "protocol = smtps",
    };
    format!(
        "\
{common}
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
        common = common(root, program, port, "tls_advertise_hosts ="),
        root = root.display(),
        host = relay.ip(),
        relay_port = relay.port(),
    )
}
