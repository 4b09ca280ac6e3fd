//! The certificate that all servers and the sink of a run show.

use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The name in it.
pub const NAME: &str = "bench.example";

/// Certificate and key, made anew for a run.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Certificate {
    /// A self-signed one for [`NAME`]; `algorithm` as `openssl req -newkey` takes it.
    pub fn create(directory: &Path, algorithm: &str) -> Result<Self> {
        let made = Self { certificate: directory.join("certificate.pem"), key: directory.join("key.pem") };
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-nodes", "-days", "2", "-subj", &format!("/CN={NAME}")]);
        command.args(["-addext", &format!("subjectAltName=DNS:{NAME}")]);
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
