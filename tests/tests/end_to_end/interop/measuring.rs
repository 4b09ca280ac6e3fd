//! The commands that measure abuse and TLS, in a short form: they work, and their bounds hold here, too.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use sluice_tests::interop::{Flow, Way};
use sluice_tests::process::{run, run_ok};
use sluice_tests::{Port, Postfix, heavy, skipped, tools};

const LONG: Duration = Duration::from_secs(300);

/// Descriptors that the short form asks for.
const DESCRIPTORS: u64 = 4_000;

fn bench(command: &str) -> Command {
    let mut bench = Command::new(tools::built("sluice-bench"));
    bench.arg(command);
    bench
}

fn open_files_hard() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("/proc/self/limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    match line.split_whitespace().nth(4) {
        Some("unlimited") => u64::MAX,
        word => word.and_then(|word| word.parse().ok()).unwrap_or(0),
    }
}

#[test]
fn abuse_from_all_sides_hardly_touches_a_normal_client() {
    if !sluice_tests::is_root() && open_files_hard() < DESCRIPTORS {
        return skipped("2,000 idle connections need a limit of open files that only root may set");
    }
    let _quiet = heavy();
    let (port, sink) = (Port::reserve(), Port::reserve());
    let directory = tempfile::Builder::new().prefix("sluice-abuse-").tempdir().expect("a directory");
    let mut command = bench("abuse");
    command.args(["--together", "--json", "--idle", "2000", "--slow", "200", "--connects", "200"]);
    command.args(["--recipients", "500", "--addresses", "400", "--seconds", "6", "--rate", "30"]);
    // Other tests run meanwhile and take the cores; the long form has no allowance.
    command.args(["--allowance", "2s", "--memory-mib", "300"]);
    command.args(["--port", &port.number().to_string(), "--sink-port", &sink.number().to_string()]);
    command.arg("--relay").arg(tools::built("sluice")).arg("--dir").arg(directory.path());
    let output = run(&mut command, LONG);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.stdout.is_empty(), "{said}");
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found["faults"], serde_json::json!([]), "{found}");
    assert_eq!(
        (&found["delivered"], &found["damaged"]),
        (&found["acknowledged"], &serde_json::json!(0)),
        "{found}"
    );
    let all = &found["phases"][1];
    println!(
        "2,000 idle, 200 slow, 200 connections and 500 refused recipients a second: p99 {} ms, quiet {} ms, {} MiB",
        all["p99_ms"], found["phases"][0]["p99_ms"], all["memory_mib"]
    );
    let count = |name: &str| all["counts"][name].as_u64().expect("a count");
    assert!(count("held") + count("ended") >= 2200, "{found}");
    assert!(count("greeted") + count("refused") > 500 && count("recipients") > 500, "{found}");
}

#[test]
fn the_generator_speaks_starttls() {
    let mut flow = Flow::start();
    let mut command = bench("source");
    command.args([
        "--json",
        "--messages",
        "200",
        "--sessions",
        "4",
        "--size",
        "70000",
        "--to",
        "bob@inside.test",
    ]);
    command.args(["--target", &flow.address(Way::StartTls).to_string()]);
    command.args(["--starttls", &flow.trusted(), "--tls-name", "relay.test"]);
    let report: Value = serde_json::from_str(&run_ok(&mut command, LONG)).expect("JSON");
    assert_eq!((&report["accepted"], &report["failed"]), (&200.into(), &0.into()), "{report}");
    flow.inbox.wait_for(200, LONG);
    // The log is whole when the relay has ended.
    let log = flow.relay.stop();
    assert_eq!(log.matching(&["from=<source@source.example>", "tls=TLSv1.3"]).len(), 200);
}

#[test]
fn tls_is_measured_beside_postfix() {
    if Postfix::is_missing() {
        return;
    }
    let port = Port::reserve();
    let directory = tempfile::Builder::new().prefix("sluice-tls-").tempdir().expect("a directory");
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("chmod");
    let mut command = bench("tls");
    command.args(["--rounds", "1", "--length", "300ms", "--messages", "20", "--sessions", "2"]);
    command.args(["--port", &port.number().to_string()]).arg("--dir").arg(directory.path());
    let table = run_ok(command.arg("--relay").arg(tools::built("sluice")), LONG);
    for server in ["Sluice", "Postfix"] {
        for work in
            ["no TLS", "full handshake, TLS 1.3", "resumed handshake, TLS 1.2", "64 KiB messages, STARTTLS"]
        {
            assert!(table.contains(&format!("| {work} | {server} | ")), "{server} {work}: {table}");
        }
    }
}
