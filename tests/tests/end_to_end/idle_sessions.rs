//! Ten thousand idle sessions cost less than 200 MiB.

use std::process::Command;

use sluice_tests::process::run;
use sluice_tests::wait::SOON;
use sluice_tests::{Client, Inbox, Relay, heavy, skipped};

const SESSIONS: usize = 10_000;
const MIB: u64 = 1 << 20;

/// Raises this process's limit of open files, by prlimit(1).
fn raise_open_files(files: usize) -> bool {
    let pid = std::process::id().to_string();
    let mut command = Command::new("prlimit");
    command.args(["--pid", &pid, &format!("--nofile={files}:{files}")]);
    run(&mut command, SOON).status.success() || open_files_max() >= files
}

fn open_files_max() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("/proc/self/limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    line.split_whitespace().nth(3).and_then(|soft| soft.parse().ok()).unwrap_or(0)
}

#[test]
fn ten_thousand_idle_sessions_cost_less_than_200_mib() {
    let _quiet = heavy();
    if !raise_open_files(3 * SESSIONS) {
        return skipped("10,000 sessions need a higher limit of open files");
    }
    let inbox = Inbox::start();
    let relay = Relay::builder().inward(inbox.address()).start();
    let before = relay.resident_bytes();
    let mut sessions: Vec<Client> = Vec::with_capacity(SESSIONS);
    while sessions.len() < SESSIONS {
        // All of a group are opened before the first greeting is read.
        let group: Vec<Client> =
            (0..100).map(|_| Client::open(relay.outside()).expect("a connection")).collect();
        for mut client in group {
            client.reply().expect(220, "");
            client.command("EHLO client.test").expect(250, "");
            sessions.push(client);
        }
    }
    let idle = relay.resident_bytes();
    println!(
        "{SESSIONS} idle sessions: {} MiB resident, {} KiB each over the {} MiB at start",
        idle / MIB,
        idle.saturating_sub(before) / SESSIONS as u64 / 1024,
        before / MIB
    );
    assert!(idle < 200 * MIB, "{} MiB", idle / MIB);
    for client in sessions.iter_mut().step_by(997) {
        client.command("NOOP").expect(250, "");
    }
}
