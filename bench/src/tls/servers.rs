//! A server that takes mail over STARTTLS and keeps it: the relay with a next hop that is not there, or an instance of
//! Postfix that puts everything on hold. Both show the same certificate and may hand out tickets.

use super::{Kind, Options};
use crate::compare::{accepts, await_free};
use crate::process::{self, Group};
use crate::stop::Stop;
use anyhow::{Context as _, Result, ensure};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const POSTFIX: &str = "/usr/sbin/postfix";
const MAIN: &str = include_str!("../compare/postfix-main.cf");
const MASTER: &str = include_str!("../compare/postfix-master.cf");
const RELAY: &str = include_str!("relay.toml");
/// After those of the comparison; the last setting of a name counts.
const MAIN_TLS: &str = "
smtpd_tls_security_level = may
smtpd_tls_cert_file = @CERTIFICATE@
smtpd_tls_key_file = @KEY@
smtpd_recipient_restrictions = check_client_access static:HOLD, permit_mynetworks, reject
message_size_limit = 67108864
";
const MASTER_TLS: &str = "tlsmgr unix - - n 1000? 1 tlsmgr\n";

/// The port of the next hop, where nobody listens (tcpmux, RFC 1078, long out of use).
const NOBODY: &str = "1";

const START_WAIT: Duration = Duration::from_secs(30);

/// Certificate and key, made anew for a run.
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Certificate {
    /// A self-signed one for [`super::handshakes::NAME`]; `algorithm` as `openssl req -newkey` takes it.
    pub fn create(directory: &Path, algorithm: &str) -> Result<Self> {
        let made = Self { certificate: directory.join("certificate.pem"), key: directory.join("key.pem") };
        let name = super::handshakes::NAME;
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-nodes", "-days", "2", "-subj", &format!("/CN={name}")]);
        command.args(["-addext", &format!("subjectAltName=DNS:{name}")]);
        // A certificate of an authority is taken for no server's.
        command.args(["-addext", "basicConstraints=critical,CA:FALSE", "-newkey"]);
        match algorithm.split_once(':') {
            Some(("ec", curve)) => {
                command.args(["ec", "-pkeyopt", &format!("ec_paramgen_curve:{curve}")]);
            }
            _ => {
                command.arg(algorithm);
            }
        }
        command.arg("-keyout").arg(&made.key).arg("-out").arg(&made.certificate).stderr(Stdio::null());
        ensure!(command.status().context("cannot run openssl")?.success(), "openssl made no certificate");
        Ok(made)
    }
}

pub struct Server {
    pub group: Group,
    child: Child,
    postfix: Option<PathBuf>,
    directory: PathBuf,
}

impl Server {
    /// Starts it on the run's port and waits until it accepts connections.
    pub fn start(
        options: &Options,
        kind: Kind,
        work: &Path,
        shown: &Certificate,
        stop: &Stop,
    ) -> Result<Self> {
        let directory = work.join("server");
        fs::create_dir_all(&directory)?;
        await_free(options.port, stop)?;
        let (program, arguments, postfix) = match kind {
            Kind::Relay => relay(options, &directory, shown)?,
            Kind::Postfix => postfix(options, &directory, shown)?,
        };
        let mut group = Group::new("tls");
        let log = directory.join("log");
        let output = File::create(&log)?;
        let errors = output.try_clone()?;
        let child = group.start(&program, &arguments, |command| {
            command.stdin(Stdio::null()).stdout(output).stderr(errors);
        })?;
        let mut server = Server { group, child, postfix, directory };
        let deadline = Instant::now() + START_WAIT;
        while !accepts(options.port) {
            let ended = server.child.try_wait()?.is_some();
            ensure!(
                !ended && Instant::now() < deadline && !stop.is_set(),
                "{} does not start: {}",
                kind.name(),
                fs::read_to_string(&log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(config) = &self.postfix {
            let _ = Command::new(POSTFIX)
                .arg("-c")
                .arg(config)
                .arg("stop")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            let _ = process::wait_child(&mut self.child, Duration::from_secs(5));
        }
        process::end_child(&mut self.child);
        self.group.end();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

type Prepared = (PathBuf, Vec<String>, Option<PathBuf>);

fn relay(options: &Options, directory: &Path, shown: &Certificate) -> Result<Prepared> {
    let spool = directory.join("spool");
    fs::create_dir_all(&spool)?;
    let text = RELAY
        .replace("@SPOOL@", &spool.display().to_string())
        .replace("@LISTEN@", &options.port.to_string())
        .replace("@NOBODY@", NOBODY)
        .replace("@CERTIFICATE@", &shown.certificate.display().to_string())
        .replace("@KEY@", &shown.key.display().to_string());
    let config = directory.join("relay.toml");
    fs::write(&config, text)?;
    let program = fs::canonicalize(&options.relay)
        .with_context(|| format!("cannot find the relay {}", options.relay.display()))?;
    Ok((program, vec!["run".into(), "--config".into(), config.display().to_string()], None))
}

fn postfix(options: &Options, directory: &Path, shown: &Certificate) -> Result<Prepared> {
    let (config, queue, data) = (directory.join("config"), directory.join("queue"), directory.join("data"));
    for path in [&config, &queue, &data] {
        fs::create_dir_all(path)?;
    }
    let owned = Command::new("chown").arg("postfix").arg(&data).status().context("cannot run chown")?;
    ensure!(owned.success(), "cannot give {} to the user postfix", data.display());
    let text = (MAIN.to_owned() + MAIN_TLS)
        .replace("@CONFIG@", &config.display().to_string())
        .replace("@QUEUE@", &queue.display().to_string())
        .replace("@DATA@", &data.display().to_string())
        .replace("@SINK@", NOBODY)
        .replace("smtpd_tls_security_level = none\n", "")
        .replace("@CERTIFICATE@", &shown.certificate.display().to_string())
        .replace("@KEY@", &shown.key.display().to_string());
    fs::write(config.join("main.cf"), text)?;
    let master = MASTER.replace("@LISTEN@", &options.port.to_string()) + MASTER_TLS;
    fs::write(config.join("master.cf"), master)?;
    let arguments = vec!["-c".to_owned(), config.display().to_string(), "start-fg".to_owned()];
    Ok((POSTFIX.into(), arguments, Some(config)))
}
