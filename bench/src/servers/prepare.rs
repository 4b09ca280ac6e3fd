//! Configuration and command line of each server. Writes files and starts nothing.

use super::install::{self, POSTFIX};
use super::namespace::Namespace;
use super::{Ending, Kind, Mode, NOBODY, Setup};
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Common to both rows of Postfix: what a relay needs, and nothing that a test machine lacks.
const POSTFIX_MAIN: &str = include_str!("postfix-main.cf");
/// The second and third row: as many settings as help a relay under load, with many processes and with few.
const POSTFIX_LOAD: &str = include_str!("postfix-load.cf");
const POSTFIX_TUNED: &str = include_str!("postfix-tuned.cf");
const POSTFIX_LEAN: &str = include_str!("postfix-lean.cf");
/// Processes of a service where main.cf does not say (`postconf -d default_process_limit`).
const POSTFIX_PROCESSES: usize = 100;
const POSTFIX_MASTER: &str = include_str!("postfix-master.cf");
const POSTFIX_TLS_IN: &str = include_str!("postfix-tls-in.cf");
const POSTFIX_TLS_OUT: &str = include_str!("postfix-tls-out.cf");
const POSTFIX_TLS_OUT_TUNED: &str = "smtp_tls_connection_reuse = yes\n";
const POSTFIX_KEEP: &str =
    "smtpd_recipient_restrictions = check_client_access static:HOLD, permit_mynetworks, reject\n";
const RELAY: &str = include_str!("relay.toml");
const OPENSMTPD: &str = include_str!("opensmtpd.conf");
const EXIM: &str = include_str!("exim.conf");
const HARAKA: &str = include_str!("haraka.js");

/// What is to be started.
pub struct Prepared {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub stop: Ending,
}

pub fn prepare(kind: Kind, setup: &Setup) -> Result<Prepared> {
    match kind {
        Kind::Relay => relay(setup),
        Kind::PostfixStock => postfix(setup, None),
        Kind::PostfixTuned => postfix(setup, Some(POSTFIX_TUNED)),
        Kind::PostfixLean => postfix(setup, Some(POSTFIX_LEAN)),
        Kind::OpenSmtpd => opensmtpd(setup),
        Kind::Exim => exim(setup),
        Kind::Haraka => haraka(setup),
        Kind::Bare => bare(setup),
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn relay(setup: &Setup) -> Result<Prepared> {
    let spool = setup.directory.join("spool");
    fs::create_dir_all(&spool)?;
    let keys =
        [("ingest_cpus", &setup.ingest_cpus), ("delivery_cpus", &setup.delivery_cpus), ("spin", &setup.spin)];
    let shards: String = keys
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key} = \"{}\"\n", value.as_ref()?)))
        .collect();
    let tls = setup.certificate.as_ref().map_or(String::new(), |shown| {
        format!("[tls]\ncertificate = {:?}\nkey = {:?}\n", text(&shown.certificate), text(&shown.key))
    });
    let next_hop = if setup.mode == Mode::Keep { NOBODY } else { setup.next_hop };
    let written = RELAY
        .replace("@SPOOL@", &text(&spool))
        .replace("@SHARDS@\n", &shards)
        .replace("@SESSIONS@", &setup.sessions.to_string())
        .replace("@TLS@\n", &tls)
        .replace("@ADMIN@", &setup.admin.map_or(String::new(), |port| format!("127.0.0.1:{port}")))
        .replace("@LISTEN@", &setup.listen.to_string())
        .replace("@OFFER@", if setup.certificate.is_some() { "offer" } else { "off" })
        .replace("@OUTWARD@", if setup.outward_tls { "encrypt" } else { "none" })
        .replace("@NEXT_HOP@", &next_hop.to_string());
    let config = setup.directory.join("relay.toml");
    fs::write(&config, written)?;
    let program = fs::canonicalize(&setup.relay)
        .with_context(|| format!("cannot find the relay {}", setup.relay.display()))?;
    let arguments = vec!["run".to_owned(), "--config".to_owned(), text(&config)];
    Ok(Prepared { program, arguments, stop: Ending::Terminate })
}

/// `processes`: what main.cf says about their number, and then it has what helps under load, too.
fn postfix(setup: &Setup, processes: Option<&str>) -> Result<Prepared> {
    let [config, queue, data] = ["config", "queue", "data"].map(|name| setup.directory.join(name));
    for path in [&config, &queue, &data] {
        fs::create_dir_all(path)?;
    }
    let owned = Command::new("chown").arg("postfix").arg(&data).status().context("cannot run chown")?;
    ensure!(owned.success(), "cannot give {} to the user postfix", data.display());
    let mut main = POSTFIX_MAIN
        .replace("@CONFIG@", &text(&config))
        .replace("@QUEUE@", &text(&queue))
        .replace("@DATA@", &text(&data))
        .replace("@LOG@", &text(&setup.directory.join("maillog")))
        .replace("@NEXT_HOP@", &setup.next_hop.to_string());
    if let Some(processes) = processes {
        main += POSTFIX_LOAD;
        main += processes;
    }
    match &setup.certificate {
        Some(shown) => {
            main += &POSTFIX_TLS_IN
                .replace("@CERTIFICATE@", &text(&shown.certificate))
                .replace("@KEY@", &text(&shown.key));
        }
        None => main += "smtpd_tls_security_level = none\n",
    }
    match (setup.outward_tls, processes.is_some()) {
        (true, true) => main += &(POSTFIX_TLS_OUT.to_owned() + POSTFIX_TLS_OUT_TUNED),
        (true, false) => main += POSTFIX_TLS_OUT,
        (false, _) => main += "smtp_tls_security_level = none\n",
    }
    if setup.mode == Mode::Keep {
        main += POSTFIX_KEEP;
    }
    fs::write(config.join("main.cf"), main)?;
    let master = POSTFIX_MASTER
        .replace("@LISTEN@", &setup.listen.to_string())
        .replace("@SMTPD@", &smtpd_processes(processes, setup.clients));
    fs::write(config.join("master.cf"), master)?;
    let arguments = |action: &str| vec!["-c".to_owned(), text(&config), action.to_owned()];
    Ok(Prepared {
        program: POSTFIX.into(),
        arguments: arguments("start-fg"),
        stop: Ending::Command(POSTFIX.into(), arguments("stop")),
    })
}

/// A session has a process of smtpd for itself, so fewer of these than sessions would leave some without a greeting. In
/// the column of master.cf: the number, or that main.cf's is enough.
fn smtpd_processes(main: Option<&str>, clients: usize) -> String {
    let said = main.into_iter().flat_map(str::lines);
    let mut limit =
        said.filter_map(|line| line.strip_prefix("default_process_limit = ")?.trim().parse().ok());
    match limit.next().unwrap_or(POSTFIX_PROCESSES) {
        limit if limit < clients => clients.to_string(),
        _ => "-".to_owned(),
    }
}

fn opensmtpd(setup: &Setup) -> Result<Prepared> {
    let package = setup.unpacked.join(install::OPENSMTPD);
    let (spool, config) = (setup.directory.join("spool"), setup.directory.join("smtpd.conf"));
    fs::create_dir_all(&spool)?;
    let (pki, offer) = match &setup.certificate {
        Some(shown) => {
            // It refuses a key that others may read.
            let key = setup.directory.join("key.pem");
            fs::copy(&shown.key, &key)?;
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
            let (certificate, key) = (text(&shown.certificate), text(&key));
            (format!("pki bench cert {certificate:?}\npki bench key {key:?}"), "tls pki bench")
        }
        None => (String::new(), ""),
    };
    let written = OPENSMTPD
        .replace("@PKI@", &pki)
        .replace("@OFFER@", offer)
        .replace("@LISTEN@", &setup.listen.to_string())
        .replace("@VERIFY@", if setup.outward_tls { "tls no-verify" } else { "" })
        .replace("@SCHEME@", if setup.outward_tls { "smtp+tls" } else { "smtp+notls" })
        .replace("@NEXT_HOP@", &setup.next_hop.to_string());
    fs::write(&config, written)?;
    // It asks for the client's name before its greeting, and its resolver turns to DNS first by default: a name
    // server that is slow, or away, would be what is measured.
    let names = setup.directory.join("resolv.conf");
    fs::write(&names, "lookup file\n")?;
    let namespace = Namespace {
        users: &["opensmtpd", "opensmtpq"],
        bound: &[
            (spool, "/var/spool"),
            (package.join("usr/libexec"), "/usr/libexec"),
            (names, "/etc/resolv.conf"),
        ],
        empty: &["/run", "/var/lib"],
        made: &["/var/lib/opensmtpd/empty", "/var/spool/smtpd"],
    };
    let program = text(&package.join("usr/sbin/smtpd"));
    let mut command = vec![program, "-d".to_owned(), "-f".to_owned(), text(&config)];
    if setup.mode == Mode::Keep {
        command.extend(["-P".to_owned(), "mta".to_owned()]);
    }
    in_namespace(&namespace, &setup.directory, &command)
}

fn exim(setup: &Setup) -> Result<Prepared> {
    let program = setup.unpacked.join(install::EXIM).join("usr/sbin/exim4");
    let directory = &setup.directory;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    let uid = Namespace::uid(0);
    for part in ["spool", "logs"] {
        fs::create_dir_all(directory.join(part))?;
        chown(directory.join(part), Some(uid), Some(uid))?;
    }
    let certificate = match &setup.certificate {
        Some(shown) => {
            let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
            fs::copy(&shown.certificate, &certificate)?;
            fs::copy(&shown.key, &key)?;
            chown(&key, Some(uid), Some(uid))?;
            format!("tls_certificate = {}\ntls_privatekey = {}", text(&certificate), text(&key))
        }
        None => String::new(),
    };
    let written = EXIM
        .replace("@PROGRAM@", &text(&program))
        .replace("@DIRECTORY@", &text(directory))
        .replace("@LISTEN@", &setup.listen.to_string())
        .replace("@OFFER@", if setup.certificate.is_some() { "*" } else { "" })
        .replace("@CERTIFICATE@", &certificate)
        .replace("@SESSIONS@", &setup.sessions.to_string())
        .replace("@KEEP@", if setup.mode == Mode::Keep { "queue_only = true" } else { "" })
        .replace("@NEXT_HOP@", &setup.next_hop.to_string())
        .replace("@OUTWARD@", if setup.outward_tls { OUT_TLS } else { "hosts_avoid_tls = *" });
    let config = directory.join("exim.conf");
    fs::write(&config, written)?;
    let start = if setup.mode == Mode::Keep { EXIM_START_KEEP } else { EXIM_START };
    let mut command = ["sh", "-c", start, "sh"].map(str::to_owned).to_vec();
    command.extend([text(&program), "-C".to_owned(), text(&config)]);
    in_namespace(&Namespace { users: &["Debian-exim"], ..Namespace::default() }, directory, &command)
}

/// A daemon, and as many queue runners as queue_run_max allows, which go through what lies in the queue at the start; on
/// an empty one they end at once. What comes later is delivered by the process that took it (Exim's specification,
/// chapter "How Exim receives and delivers mail"), and the daemon's own runner each ten minutes is for what was deferred.
const EXIM_START: &str = "i=0; while [ $i -lt 20 ]; do \"$@\" -q & i=$((i+1)); done; exec \"$@\" -bdf -q10m";
const EXIM_START_KEEP: &str = "exec \"$@\" -bdf";

const OUT_TLS: &str = "hosts_require_tls = *\n  tls_verify_hosts =\n  tls_try_verify_hosts =";

fn haraka(setup: &Setup) -> Result<Prepared> {
    let directory = &setup.directory;
    let package = setup.unpacked.join(install::HARAKA).join("node_modules/Haraka");
    for part in ["config", "plugins", "queue"] {
        fs::create_dir_all(directory.join(part))?;
    }
    let config = directory.join("config");
    fs::copy(package.join("config/connection.ini"), config.join("connection.ini"))?;
    let mut plugins = "bench\n".to_owned();
    if let Some(shown) = &setup.certificate {
        fs::copy(&shown.certificate, config.join("tls_cert.pem"))?;
        fs::copy(&shown.key, config.join("tls_key.pem"))?;
        plugins.insert_str(0, "tls\n");
    }
    let listen = format!("listen=127.0.0.1:{}\nnodes=cpus\n", setup.listen);
    let outbound = format!(
        "disabled={}\nenable_tls={}\nconcurrency_max=100\n",
        setup.mode == Mode::Keep,
        setup.outward_tls
    );
    let script = HARAKA.replace("@NEXT_HOP@", &setup.next_hop.to_string());
    for (path, written) in [
        (config.join("smtp.ini"), listen),
        (config.join("outbound.ini"), outbound),
        (config.join("me"), "haraka.example\n".to_owned()),
        (config.join("plugins"), plugins),
        (config.join("log.ini"), "level=NOTICE\n".to_owned()),
        (config.join("tls.ini"), "[outbound]\nrejectUnauthorized=false\n".to_owned()),
        (directory.join("plugins/bench.js"), script),
    ] {
        fs::write(path, written)?;
    }
    let command =
        [text(Path::new("node")), text(&package.join("bin/haraka")), "-c".to_owned(), text(directory)];
    if install::is_root() {
        return in_namespace(&Namespace::default(), directory, &command);
    }
    let [program, arguments @ ..] = command;
    let (program, arguments) = (program.into(), arguments.to_vec());
    Ok(Prepared { program, arguments, stop: Ending::Terminate })
}

fn bare(setup: &Setup) -> Result<Prepared> {
    let [bind, next] = [setup.listen, setup.next_hop].map(|port| format!("127.0.0.1:{port}"));
    let arguments = ["bare", "--bind", &bind, "--next", &next, "--dir"].map(str::to_owned);
    let arguments = arguments.into_iter().chain([text(&setup.directory)]).collect();
    Ok(Prepared { program: std::env::current_exe()?, arguments, stop: Ending::Terminate })
}

fn in_namespace(namespace: &Namespace<'_>, directory: &Path, command: &[String]) -> Result<Prepared> {
    let arguments = namespace.arguments(directory, command)?;
    Ok(Prepared { program: "setpriv".into(), arguments, stop: Ending::Kill })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_session_of_postfix_waits_for_a_process() {
        for (main, clients, said) in [
            (None, 20, "-"),
            (None, 100, "-"),
            (None, 1_000, "1000"),
            (Some(POSTFIX_TUNED), 200, "-"),
            (Some(POSTFIX_TUNED), 201, "201"),
            (Some(POSTFIX_LEAN), 20, "-"),
            (Some(POSTFIX_LEAN), 100, "100"),
        ] {
            assert_eq!(smtpd_processes(main, clients), said, "{main:?}, {clients}");
        }
    }

    #[test]
    fn no_setting_of_postfix_stands_twice() {
        for processes in [None, Some(POSTFIX_TUNED), Some(POSTFIX_LEAN)] {
            for tls in [POSTFIX_TLS_IN, POSTFIX_TLS_OUT] {
                let load = processes.map_or("", |_| POSTFIX_LOAD);
                let all = [POSTFIX_MAIN, load, processes.unwrap_or(""), tls].concat();
                let mut keys: Vec<_> =
                    all.lines().filter_map(|line| Some(line.split_once('=')?.0.trim())).collect();
                keys.retain(|key| !key.starts_with('#'));
                let count = keys.len();
                keys.sort_unstable();
                keys.dedup();
                assert_eq!(keys.len(), count, "{all}");
            }
        }
    }
}
