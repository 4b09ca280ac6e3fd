//! A real OpenSMTPD that relays all it gets to `relay.test`, by TLS with a verified certificate.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::Way;
use super::namespace::{Ending, Namespace, unpacked};
use crate::Port;
use crate::wait::SOON;

/// One running instance. Dropping it ends it.
pub struct OpenSmtpd {
    directory: TempDir,
    port: Port,
    _process: Ending,
}

impl OpenSmtpd {
    /// Starts it; `None`, said loudly, when it is not there.
    ///
    /// # Panics
    /// When it does not start; shows its log.
    pub fn start(relay: SocketAddr, way: Way, trusted: &str) -> Option<Self> {
        let package = unpacked("opensmtpd")?;
        let directory = tempfile::Builder::new().prefix("sluice-opensmtpd-").tempdir().expect("a directory");
        let root = directory.path();
        let (port, config, hosts) = (Port::reserve(), root.join("smtpd.conf"), root.join("hosts"));
        let protocol = match way {
            Way::StartTls => "smtp+tls",
            Way::Implicit => "smtps",
        };
        let text = format!(
            "smtp max-message-size 64M\nlisten on 127.0.0.1 port {} hostname opensmtpd.test\n\
             action \"out\" relay host \"{protocol}://relay.test:{}\" tls helo opensmtpd.test\n\
             match from any for any action \"out\"\n",
            port.number(),
            relay.port()
        );
        fs::write(&config, text).expect("a file");
        fs::write(&hosts, format!("127.0.0.1 localhost\n{} relay.test\n", relay.ip())).expect("a file");
        let output = fs::File::create(root.join("output")).expect("a file");
        let namespace = Namespace {
            directory: root,
            users: &["opensmtpd", "opensmtpq"],
            bound: &[
                (hosts, "/etc/hosts"),
                (PathBuf::from(trusted), "/etc/ssl/certs/ca-certificates.crt"),
                (package.join("usr/libexec"), "/usr/libexec"),
            ],
            empty: &["/run", "/var/spool", "/var/lib"],
            made: &["/var/lib/opensmtpd/empty", "/var/spool/smtpd"],
        };
        let program = package.join("usr/sbin/smtpd");
        let command = [program.to_str().expect("UTF-8"), "-dv", "-f", config.to_str().expect("UTF-8")];
        let process = Ending(namespace.start(&command, output));
        let server = Self { directory, port, _process: process };
        let start = Instant::now();
        while TcpStream::connect(server.address()).is_err() {
            assert!(start.elapsed() < SOON, "OpenSMTPD does not start:\n{}", server.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("output")).unwrap_or_default()
    }
}

impl Drop for OpenSmtpd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of OpenSMTPD:\n{}", self.log());
        }
    }
}
