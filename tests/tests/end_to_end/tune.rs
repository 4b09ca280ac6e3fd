//! `sluice tune`, and where the threads of the relay run.

use sluice_tests::process::{run, run_ok};
use sluice_tests::tools::built;
use sluice_tests::wait::SOON;
use sluice_tests::{Relay, is_root, skipped};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use tempfile::TempDir;

/// Nothing is sent.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

fn prepared() -> Relay {
    Relay::builder().inward(NOBODY).prepare()
}

#[test]
fn the_script_is_one_that_a_shell_takes_and_names_what_the_check_names() {
    let relay = prepared();
    let check = relay.sluice(&["tune", "check"]);
    let table = String::from_utf8_lossy(&check.stdout);
    let changes: Vec<&str> = table.lines().filter(|line| line.starts_with("CHANGE")).collect();
    println!("{table}");
    assert_eq!(check.status.code(), Some(i32::from(!changes.is_empty())), "{table}");
    assert!(table.lines().any(|line| line.contains("somaxconn")), "{table}");

    let script = relay.sluice_ok(&["tune"]);
    let file = relay.directory().join("tune.sh");
    fs::write(&file, &script).expect("written");
    run_ok(Command::new("sh").arg("-n").arg(&file), SOON);
    assert_eq!(run(Command::new("sh").arg(&file), SOON).status.code(), Some(64), "neither apply nor undo");
    for change in changes {
        let sentence = change.splitn(3, char::is_whitespace).last().expect("a sentence").trim();
        let sentence = sentence.split_once(' ').expect("a name and a sentence").1.trim();
        assert!(script.contains(sentence), "{sentence}: {script}");
    }
}

#[test]
fn an_unknown_knob_is_refused_with_the_names_of_all() {
    let output = prepared().sluice(&["tune", "check", "--only", "warp"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{told}");
    assert!(told.contains("warp") && told.contains("local-ports"), "{told}");
}

/// In a network namespace of its own, whose settings are nobody else's.
#[test]
fn what_is_applied_holds_until_it_is_undone() {
    if !is_root() {
        return skipped("a network namespace wants root");
    }
    let directory = TempDir::new().expect("a directory");
    let (program, record) = (built("sluice"), directory.path().join("record"));
    let absent = directory.path().join("absent.toml");
    let script = "set -eu\n\
        tune() { \"$SLUICE\" tune \"$1\" --profile large --config \"$ABSENT\" --record \"$RECORD\" --only somaxconn --only slow-start; }\n\
        show() { cat /proc/sys/net/core/somaxconn /proc/sys/net/ipv4/tcp_slow_start_after_idle; }\n\
        show; tune check || echo \"code $?\"; tune apply; show; tune check; tune apply; tune undo; show; tune undo";
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", script]);
    command.env("SLUICE", program).env("RECORD", &record).env("ABSENT", absent);
    let told = run_ok(&mut command, SOON);
    println!("{told}");
    let settings: Vec<&str> = told.lines().filter(|line| line.parse::<u64>().is_ok()).collect();
    assert_eq!(settings, ["4096", "1", "32768", "0", "4096", "1"], "{told}");
    assert!(told.contains("code 1"), "{told}");
    assert_eq!(told.matches("changed ").count(), 4, "{told}");
    assert_eq!(told.matches("nothing to change").count(), 2, "{told}");
    assert!(!record.exists(), "what is undone needs no record");
}

#[test]
fn threads_run_where_they_are_told_to() {
    let allowed = sluice_tuning::cpus_allowed();
    let (first, last) = (allowed[0], allowed[allowed.len() - 1]);
    let mut relay = Relay::builder().inward(NOBODY).cpus(&first.to_string(), &last.to_string()).prepare();
    relay.start_with(&["--service-cpus", &last.to_string()]);
    let tasks = format!("/proc/{}/task", relay.pid());
    let mut seen = Vec::new();
    for task in fs::read_dir(&tasks).expect("its threads").flatten() {
        let status = fs::read_to_string(task.path().join("status")).expect("a thread");
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).expect(name).trim().to_owned()
        };
        seen.push((field("Name:"), field("Cpus_allowed_list:")));
    }
    for (name, cpu) in [("ingest shard 0", first), ("delivery shard", last), ("service", last), ("log", last)]
    {
        assert!(seen.contains(&(name.to_owned(), cpu.to_string())), "{name} on {cpu}: {seen:?}");
    }
}
