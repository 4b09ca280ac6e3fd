//! `sluice-bench distance` and `drain` in a short form: they work, and the bound holds here, too.

use std::process::Command;
use std::time::Duration;

use sluice_tests::process::run_ok;
use sluice_tests::{Port, Postfix, heavy, tools};

const LONG: Duration = Duration::from_secs(300);

fn bench(command: &str, ports: &[Port], directory: &tempfile::TempDir) -> Command {
    let mut bench = Command::new(tools::built("sluice-bench"));
    bench.arg(command).arg("--relay").arg(tools::built("sluice"));
    bench
        .args(["--rounds", "1", "--port", &ports[0].number().to_string()])
        .arg("--dir")
        .arg(directory.path());
    bench
}

/// With 50 ms there and back one connection to a peer with CHUNKING carries ten times what Postfix's client carries.
/// Exit code 0 says that it did.
#[test]
fn over_a_long_way_one_connection_carries_ten_times_what_postfix_carries() {
    if Postfix::is_missing() {
        return;
    }
    let _quiet = heavy();
    let (ports, directory) = (Port::reserve_run(3), tempfile::tempdir_in("/var/tmp").expect("a directory"));
    let mut command = bench("distance", &ports, &directory);
    command.args(["--messages", "800", "--postfix-messages", "40", "--factor", "10"]);
    println!("{}", run_ok(&mut command, LONG));
}

#[test]
fn a_full_queue_is_drained_in_turns_with_postfix() {
    if Postfix::is_missing() {
        return;
    }
    let _quiet = heavy();
    let (ports, directory) = (Port::reserve_run(2), tempfile::tempdir_in("/var/tmp").expect("a directory"));
    let mut command = bench("drain", &ports, &directory);
    command.args(["--messages", "300"]);
    let text = run_ok(&mut command, LONG);
    for row in ["limit (generator into peer)", "Sluice", "Postfix, stock", "Postfix, tuned"] {
        assert!(text.lines().any(|line| line.starts_with(row)), "{text}");
    }
}
