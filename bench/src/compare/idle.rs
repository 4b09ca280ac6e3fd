//! What a relay costs that does nothing: just started, and with many sessions that say nothing.

use super::Bench;
use super::measure::{self, setup};
use super::scenario::Work;
use crate::abuse::attack::{Attack, Scale};
use crate::process;
use crate::servers::{Kind, Mode, Server, rest};
use anyhow::{Result, ensure};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Addresses of 127.0.0.0/8 that the sessions come from.
const ADDRESSES: usize = 2_000;
/// Longest wait until all sessions stand.
const PATIENCE: Duration = Duration::from_secs(60);
/// CPU is counted for at least this long.
const SECONDS_MIN: f64 = 10.0;
const LOOK: Duration = Duration::from_millis(100);
/// Descriptors beside those of the sessions.
const DESCRIPTORS_SPARE: usize = 1_800;

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figures {
    /// After the start, before the first session.
    pub start_rss_mib: f64,
    pub start_pss_mib: f64,
    /// With all of them.
    pub held: u64,
    pub rss_mib: f64,
    /// Of one core, of the server, while the sessions stood.
    pub cpu_percent: f64,
}

pub fn measure(bench: &Bench<'_>, work: &Work) -> Result<measure::Figures> {
    process::raise_open_files(work.sessions + DESCRIPTORS_SPARE)?;
    let mut setup = setup(bench, work, Mode::Keep);
    setup.sessions = work.sessions + 1_000;
    let mut server = Server::start(Kind::Relay, &setup, bench.stop)?;
    rest(&server.group);
    let mib = |octets: u64| octets as f64 / f64::from(1 << 20);
    let start = server.group.memory();
    let scale = Scale { idle: work.sessions, slow: 0, connects: 0, recipients: 0 };
    let attack = Attack::start(([127, 0, 0, 1], setup.listen).into(), scale, ADDRESSES);
    let deadline = Instant::now() + PATIENCE;
    while !attack.is_complete() && Instant::now() < deadline {
        ensure!(!bench.stop.is_set(), "interrupted");
        std::thread::sleep(LOOK);
    }
    rest(&server.group);
    let (began, before) = (Instant::now(), server.group.cpu());
    std::thread::sleep(Duration::from_secs_f64(work.seconds.max(SECONDS_MIN)));
    server.check()?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu = server.group.cpu().saturating_sub(before);
    let (memory, counts) = (server.group.memory(), attack.counts());
    ensure!(counts.held == work.sessions as u64, "{} of {} sessions stand", counts.held, work.sessions);
    Ok(measure::Figures {
        seconds,
        memory_pss_mib: mib(memory.pss),
        memory_rss_mib: mib(memory.rss),
        idle: Some(Figures {
            start_rss_mib: mib(start.rss),
            start_pss_mib: mib(start.pss),
            held: counts.held,
            rss_mib: mib(memory.rss),
            cpu_percent: cpu.as_secs_f64() / seconds * 100.0,
        }),
        cpu_method: server.group.method(),
        ..measure::Figures::default()
    })
}
