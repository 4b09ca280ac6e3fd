//! A relay that cannot start says so in one clear sentence that names the remedy, and exits with the code of
//! sysexits(3) that fits. It never half starts.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Output};

use sluice_tests::process::run;
use sluice_tests::wait::SOON;
use sluice_tests::{Port, Relay, is_root, seccomp, skipped, tools};

const EX_UNAVAILABLE: i32 = 69;
const EX_OSERR: i32 = 71;
const EX_CANTCREAT: i32 = 73;
const EX_IOERR: i32 = 74;
const EX_TEMPFAIL: i32 = 75;
const EX_NOPERM: i32 = 77;
const EX_CONFIG: i32 = 78;

const NOBODY: u32 = 65_534;

fn relay() -> Relay {
    Relay::builder().inward("127.0.0.1:9".parse().unwrap()).prepare()
}

fn sluice_run(relay: &Relay, arguments: &[&str]) -> Output {
    let words = relay.command_line();
    run(Command::new(&words[0]).args(&words[1..]).args(arguments), SOON)
}

/// One sentence, with all of `parts` in it, and one of the exit codes.
#[track_caller]
fn expect_refusal(output: &Output, codes: &[i32], parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    println!("{}: {}", output.status, text.trim_end());
    let code = output.status.code().unwrap_or_else(|| panic!("no exit code: {}\n{text}", output.status));
    assert!(codes.contains(&code), "exit code {code}, {codes:?} expected:\n{text}");
    for noise in ["panicked", "RUST_BACKTRACE", "unwrap()", "Os {", "Custom {", "GlommioError"] {
        assert!(!text.contains(noise), "{noise} is nothing for people:\n{text}");
    }
    // Warnings may come before; what refuses the start is one line.
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("sluice: warning: ")).collect();
    assert!(lines.len() == 1 && lines[0].len() < 500, "one sentence:\n{text}");
    for part in parts {
        assert!(text.to_lowercase().contains(&part.to_lowercase()), "no {part:?} in:\n{text}");
    }
}

/// The program where another user can run it, with the relay's directory open to that user.
fn open_to_nobody(relay: &Relay) -> PathBuf {
    fs::set_permissions(relay.directory(), Permissions::from_mode(0o755)).expect("permissions");
    fs::set_permissions(relay.config(), Permissions::from_mode(0o644)).expect("permissions");
    let program = relay.directory().join("sluice");
    fs::copy(tools::built("sluice"), &program).expect("a copy of the program");
    program
}

/// Runs the relay without any privilege; `limits` are arguments of prlimit.
fn run_as_nobody(relay: &Relay, limits: &[&str]) -> Output {
    let program = open_to_nobody(relay);
    let mut command = Command::new("prlimit");
    command.args(limits).args([
        "--core=0",
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
    ]);
    command.args(["--inh-caps=-all", "--no-new-privs", "--"]).arg(program);
    run(command.args(["run", "--config"]).arg(relay.config()), SOON)
}

#[test]
fn an_unknown_key_names_key_and_line() {
    let relay = relay();
    relay.edit_config("[spool]\n", "[spool]\nspeed = \"high\"\n");
    expect_refusal(&sluice_run(&relay, &[]), &[EX_CONFIG], &["speed", "relay.toml:5"]);
    let output = relay.sluice(&["check"]);
    expect_refusal(&output, &[EX_CONFIG], &["speed", "relay.toml:5"]);
}

#[test]
fn a_wrong_value_says_what_is_allowed() {
    let relay = relay();
    relay.edit_config("notice = \"4h\"", "notice = \"soon\"");
    expect_refusal(&sluice_run(&relay, &[]), &[EX_CONFIG], &["retry.notice", "soon", "allowed"]);
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_named() {
    let relay = relay();
    relay.edit_config("[spool]", "[spool");
    expect_refusal(&sluice_run(&relay, &[]), &[EX_CONFIG], &["relay.toml:4"]);
    fs::remove_file(relay.config()).unwrap();
    expect_refusal(&sluice_run(&relay, &[]), &[EX_CONFIG, 66], &["relay.toml"]);
}

#[test]
fn a_cpu_that_the_machine_does_not_have_is_named() {
    let relay = relay();
    expect_refusal(
        &sluice_run(&relay, &["--ingest-cpus", "0,4000"]),
        &[EX_CONFIG],
        &["4000", "--ingest-cpus"],
    );
    expect_refusal(
        &sluice_run(&relay, &["--delivery-cpus", "1-"]),
        &[EX_CONFIG, 64],
        &["1-", "--delivery-cpus"],
    );
    relay.edit_config("ingest_cpus = \"0\"", "ingest_cpus = \"4000\"");
    expect_refusal(&sluice_run(&relay, &[]), &[EX_CONFIG], &["4000", "[shards]"]);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let relay = relay();
    let _taken = TcpListener::bind(relay.inside()).unwrap();
    expect_refusal(
        &sluice_run(&relay, &[]),
        &[EX_UNAVAILABLE, EX_OSERR],
        &[&relay.inside().to_string(), "taken"],
    );
}

#[test]
fn a_spool_that_is_no_directory_is_named() {
    let relay = relay();
    fs::write(relay.spool(), "in the way").unwrap();
    let spool = relay.spool();
    expect_refusal(
        &sluice_run(&relay, &[]),
        &[EX_CANTCREAT, EX_IOERR, EX_CONFIG],
        &[spool.to_str().unwrap(), "directory"],
    );
    assert_eq!(fs::read_to_string(relay.spool()).unwrap(), "in the way", "nothing was touched");
}

#[test]
fn a_spool_that_another_relay_uses_is_left_alone() {
    let mut relay = relay();
    relay.start();
    let (outside, inside) = (Port::reserve(), Port::reserve());
    relay.edit_config(&relay.outside().to_string(), &outside.address().to_string());
    relay.edit_config(&relay.inside().to_string(), &inside.address().to_string());
    expect_refusal(
        &sluice_run(&relay, &[]),
        &[EX_UNAVAILABLE, EX_CANTCREAT, EX_OSERR, EX_NOPERM, EX_TEMPFAIL],
        &[relay.spool().to_str().unwrap()],
    );
    sluice_tests::Client::hello(relay.outside()).quit();
    relay.stop();
}

#[test]
fn a_spool_that_may_not_be_read_is_named() {
    if !is_root() {
        return skipped("another user's spool needs root");
    }
    let relay = relay();
    fs::create_dir(relay.spool()).unwrap();
    fs::set_permissions(relay.spool(), Permissions::from_mode(0o700)).unwrap();
    let spool = relay.spool();
    let output = run_as_nobody(&relay, &[]);
    expect_refusal(&output, &[EX_NOPERM, EX_CANTCREAT], &[spool.to_str().unwrap(), "permission"]);
}

#[test]
fn too_little_locked_memory_names_the_limit() {
    if !is_root() {
        return skipped("a start without privileges under a chosen limit needs root");
    }
    let relay = relay();
    fs::create_dir(relay.spool()).unwrap();
    chown(relay.spool(), Some(NOBODY), Some(NOBODY)).unwrap();
    let output = run_as_nobody(&relay, &["--memlock=65536:65536"]);
    expect_refusal(&output, &[EX_OSERR, EX_UNAVAILABLE], &["memlock"]);
}

#[test]
fn forbidden_io_uring_names_what_forbids_it() {
    if !seccomp::is_possible() {
        return skipped("no seccomp filter can be set here");
    }
    let relay = relay();
    let words = relay.command_line();
    let mut command = seccomp::without_io_uring(words[0].as_ref());
    let output = run(command.args(&words[1..]), SOON);
    expect_refusal(&output, &[EX_OSERR, EX_UNAVAILABLE], &["io_uring", "seccomp"]);
}
