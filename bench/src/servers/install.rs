//! What must be on the machine: Postfix with smtp-source and smtp-sink from its package; OpenSMTPD and Exim, whose
//! packages Debian will not install beside it, unpacked into a directory; Haraka and all that it needs by npm into the
//! same directory, each in one version that runs on the Node.js of Debian 12; openssl, which makes the certificates.

use super::Kind;
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

pub const SMTP_SOURCE: &str = "/usr/sbin/smtp-source";
pub const SMTP_SINK: &str = "/usr/sbin/smtp-sink";
pub const POSTFIX: &str = "/usr/sbin/postfix";
const SYSTEM_PID_FILE: &str = "/var/spool/postfix/pid/master.pid";

/// Directories below that of unpacked servers.
pub const OPENSMTPD: &str = "opensmtpd";
pub const EXIM: &str = "exim4-daemon-light";
pub const HARAKA: &str = "haraka";

/// Libraries that the unpacked programs need.
const OPENSMTPD_NEEDS: &[&str] = &["libdb5.3", "libevent-2.1-7", "libpam0g", "libssl3", "zlib1g"];
const EXIM_NEEDS: &[&str] = &["libdb5.3", "libgnutls-dane0", "libidn12", "libnsl2", "libpcre2-8-0"];
const HARAKA_PACKAGES: &str = include_str!("haraka-packages.json");

/// Installs what is missing of the servers, and of smtp-source and smtp-sink where `ends` wants them. What could not
/// be had is said and left out.
pub fn provide(servers: &[Kind], ends: bool, unpacked: &Path) -> Result<()> {
    let wanted = |kinds: &[Kind]| servers.iter().any(|kind| kinds.contains(kind));
    ensure!(is_root() || !(ends || wanted(&Kind::ALL[1..])), "--install must be run as root");
    fs::create_dir_all(unpacked).with_context(|| format!("cannot create {}", unpacked.display()))?;
    type Install<'a> = &'a dyn Fn() -> Result<()>;
    let tries: [(bool, &str, Install<'_>); 5] = [
        (true, "OpenSSL", &openssl),
        (ends || wanted(&Kind::POSTFIX), "Postfix", &postfix),
        (wanted(&[Kind::OpenSmtpd]), "OpenSMTPD", &|| unpack(unpacked, OPENSMTPD, OPENSMTPD_NEEDS)),
        (wanted(&[Kind::Exim]), "Exim", &|| unpack(unpacked, EXIM, EXIM_NEEDS)),
        (wanted(&[Kind::Haraka]), "Haraka", &|| haraka(unpacked)),
    ];
    for (wanted, name, install) in tries {
        if wanted && let Err(error) = install() {
            eprintln!("{name} could not be installed: {error:#}");
        }
    }
    Ok(())
}

/// For the certificate of a run.
fn openssl() -> Result<()> {
    if has_program("openssl") {
        return Ok(());
    }
    apt_get(&["update"])?;
    apt_get(&["install", "-y", "--no-install-recommends", "openssl"])
}

/// Whether it can be run by its name.
fn has_program(name: &str) -> bool {
    let mut command = Command::new(name);
    // What openssl calls its version is no option.
    command.arg(if name == "openssl" { "version" } else { "--version" });
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn postfix() -> Result<()> {
    if has_ends() && Path::new(POSTFIX).exists() {
        return Ok(());
    }
    let ran_before = Path::new(SYSTEM_PID_FILE).exists();
    apt_get(&["update"])?;
    apt_get(&["install", "-y", "--no-install-recommends", "postfix"])?;
    // The package starts a server for the whole machine, which nobody asked for.
    if !ran_before && Path::new(SYSTEM_PID_FILE).exists() {
        let _ = Command::new(POSTFIX).arg("stop").stdout(std::io::stderr()).status();
    }
    Ok(())
}

fn unpack(unpacked: &Path, package: &str, libraries: &[&str]) -> Result<()> {
    if unpacked.join(package).is_dir() {
        return Ok(());
    }
    apt_get(&["update"])?;
    apt_get(&[&["install", "-y", "--no-install-recommends"], libraries].concat())?;
    let part = unpacked.join(format!("part-{}", std::process::id()));
    fs::create_dir_all(&part)?;
    let done = (|| {
        command(Command::new("apt-get").args(["download", package]).current_dir(&part))?;
        let mut files = fs::read_dir(&part)?.flatten().map(|entry| entry.path());
        let file = files.find(|path| path.extension().is_some_and(|end| end == "deb"));
        let file = file.context("apt-get brought no package")?;
        command(Command::new("dpkg").arg("-x").arg(file).arg(part.join("tree")))?;
        Ok(fs::rename(part.join("tree"), unpacked.join(package))?)
    })();
    let _ = fs::remove_dir_all(&part);
    done
}

fn haraka(unpacked: &Path) -> Result<()> {
    if !has_program("node") || !has_program("npm") {
        apt_get(&["update"])?;
        apt_get(&["install", "-y", "--no-install-recommends", "nodejs", "npm"])?;
    }
    let to = unpacked.join(HARAKA);
    let listed = to.join("package.json");
    let complete = to.join("complete");
    if complete.exists() && fs::read_to_string(&listed).is_ok_and(|text| text == HARAKA_PACKAGES) {
        return Ok(());
    }
    let _ = fs::remove_file(&complete);
    fs::create_dir_all(&to)?;
    fs::write(&listed, HARAKA_PACKAGES)?;
    let options = ["install", "--omit=optional", "--no-package-lock", "--no-audit", "--no-fund", "--silent"];
    command(Command::new("npm").args(options).current_dir(&to))?;
    Ok(fs::write(complete, "")?)
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    command(Command::new("apt-get").arg("-qq").args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
}

fn command(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).stdout(std::io::stderr()).status();
    let status = status.with_context(|| format!("cannot run {:?}", command.get_program()))?;
    ensure!(status.success(), "{command:?} failed");
    Ok(())
}

pub fn has_ends() -> bool {
    [SMTP_SOURCE, SMTP_SINK].iter().all(|program| Path::new(program).exists())
}

/// Why the server cannot be measured; `None` when it can.
pub fn obstacle(kind: Kind, relay: &Path, unpacked: &Path) -> Option<String> {
    let there = |name: &str| {
        let path = unpacked.join(name);
        (!path.exists()).then(|| format!("there is no {}; use --install", path.display()))
    };
    let root = || (!is_root()).then(|| format!("{} starts only as root", kind.name()));
    match kind {
        Kind::Relay if relay.is_file() => None,
        Kind::Relay => Some(format!("there is no {}; build it, or name it with --relay", relay.display())),
        Kind::PostfixStock | Kind::PostfixTuned | Kind::PostfixLean if !Path::new(POSTFIX).exists() => {
            Some("the package postfix is not installed; use --install".to_owned())
        }
        Kind::PostfixStock | Kind::PostfixTuned | Kind::PostfixLean => root(),
        Kind::OpenSmtpd => there(&format!("{OPENSMTPD}/usr/sbin/smtpd")).or_else(root),
        Kind::Exim => there(&format!("{EXIM}/usr/sbin/exim4")).or_else(root),
        Kind::Haraka => there(&format!("{HARAKA}/node_modules/Haraka/bin/haraka")),
        Kind::Bare => has_bare().err().map(|error| format!("sluice-bench bare cannot be run: {error:#}")),
    }
}

/// The version that will be measured, as the server says it.
pub fn version(kind: Kind, relay: &Path, unpacked: &Path) -> Option<String> {
    let said = |program: &Path, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
    };
    match kind {
        Kind::Relay => said(relay, &["--version"]),
        Kind::PostfixStock | Kind::PostfixTuned | Kind::PostfixLean => {
            said(Path::new("/usr/sbin/postconf"), &["-d", "-h", "mail_version"])
                .map(|v| format!("Postfix {v}"))
        }
        Kind::OpenSmtpd => said(&unpacked.join(OPENSMTPD).join("usr/sbin/smtpd"), &["-h"])
            .map(|line| line.trim_start_matches("version: ").to_owned()),
        Kind::Exim => debian_version(&unpacked.join(EXIM).join("usr/share/doc/exim4-daemon-light"))
            .map(|v| format!("Exim {v}")),
        Kind::Bare => Some("sluice-bench bare".to_owned()),
        Kind::Haraka => {
            let package = unpacked.join(HARAKA).join("node_modules/Haraka/package.json");
            let package: serde_json::Value = serde_json::from_str(&fs::read_to_string(package).ok()?).ok()?;
            Some(format!("Haraka {}", package["version"].as_str()?))
        }
    }
}

fn has_bare() -> Result<()> {
    let mut help = Command::new(std::env::current_exe()?);
    let status =
        help.args(["bare", "--help"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    ensure!(status.status()?.success(), "this build does not have it");
    Ok(())
}

/// The newest in the package's change log, which is compressed.
fn debian_version(documents: &Path) -> Option<String> {
    let output = Command::new("zcat").arg(documents.join("changelog.Debian.gz")).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.split_once('(')?.1.split_once(')')?.0.to_owned())
}

pub fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    // Real, effective, saved, file system.
    user.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}
