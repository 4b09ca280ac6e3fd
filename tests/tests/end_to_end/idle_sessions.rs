//! Ten thousand idle sessions cost less than 200 MiB, and next to no CPU time.

use std::thread;
use std::time::Duration;

use sluice_tests::{Client, Inbox, Relay, heavy, skipped};

const SESSIONS: usize = 10_000;
const MIB: u64 = 1 << 20;
/// How long they are watched, and what the relay may use of one core meanwhile. The program of the tests is not
/// optimised.
const WATCHED: Duration = Duration::from_secs(5);
const CORE_PERCENT_MAX: f64 = 3.0;

fn open_files_max() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("/proc/self/limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    line.split_whitespace().nth(3).and_then(|soft| soft.parse().ok()).unwrap_or(0)
}

#[test]
fn ten_thousand_idle_sessions_cost_less_than_200_mib() {
    let _quiet = heavy();
    if open_files_max() < SESSIONS + 2000 {
        return skipped("10,000 sessions need a limit of open files of 12,000: ulimit -n 12000");
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
    let used = relay.cpu_time();
    thread::sleep(WATCHED);
    let used = relay.cpu_time().saturating_sub(used);
    let percent = used.as_secs_f64() / WATCHED.as_secs_f64() * 100.0;
    println!("{SESSIONS} idle sessions: {percent:.2} % of a core");
    assert!(percent < CORE_PERCENT_MAX, "{percent:.2} % of a core");
    for client in sessions.iter_mut().step_by(997) {
        client.command("NOOP").expect(250, "");
    }
}
