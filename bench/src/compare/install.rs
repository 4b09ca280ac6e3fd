//! What must be on the machine: the package postfix, with smtp-source and smtp-sink.

use super::{Ends, Kind, Options};
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;

pub const SMTP_SOURCE: &str = "/usr/sbin/smtp-source";
pub const SMTP_SINK: &str = "/usr/sbin/smtp-sink";
pub const POSTFIX: &str = "/usr/sbin/postfix";
const SYSTEM_PID_FILE: &str = "/var/spool/postfix/pid/master.pid";

/// Installs the package if it is wanted, missing, and `--install` is given.
pub fn provide(options: &Options) -> Result<()> {
    let servers = [Kind::PostfixStock, Kind::PostfixTuned];
    let wanted =
        options.ends.contains(&Ends::Postfix) || options.servers.iter().any(|kind| servers.contains(kind));
    if !options.install || !wanted || (has_ends() && Path::new(POSTFIX).exists()) {
        return Ok(());
    }
    ensure!(is_root(), "--install must be run as root");
    let ran_before = Path::new(SYSTEM_PID_FILE).exists();
    for arguments in [&["update"][..], &["install", "-y", "--no-install-recommends", "postfix"]] {
        let status = Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(std::io::stderr())
            .status()
            .context("cannot run apt-get")?;
        ensure!(status.success(), "apt-get {} failed", arguments.join(" "));
    }
    // The package starts a server for the whole machine, which nobody asked for.
    if !ran_before && Path::new(SYSTEM_PID_FILE).exists() {
        let _ = Command::new(POSTFIX).arg("stop").stdout(std::io::stderr()).status();
    }
    Ok(())
}

pub fn has_ends() -> bool {
    [SMTP_SOURCE, SMTP_SINK].iter().all(|program| Path::new(program).exists())
}

/// Why Postfix cannot be measured; `None` when it can.
pub fn postfix_obstacle() -> Option<String> {
    match (Path::new(POSTFIX).exists(), is_root()) {
        (false, _) => Some("the package postfix is not installed; use --install".to_owned()),
        (true, false) => Some("Postfix starts only as root".to_owned()),
        (true, true) => None,
    }
}

pub fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    // Real, effective, saved, file system.
    user.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}
