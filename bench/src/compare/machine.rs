//! What the whole machine did with its cores, from /proc/stat: how busy they were while a row was measured, and whether
//! anybody else was at work before.
//!
//! Times there are in ticks of 10 ms over all cores; a short look is coarse.

use serde::Serialize;
use std::fs;
use std::time::Duration;

/// USER_HZ, 100 on every architecture that io_uring runs on.
const TICK: f64 = 0.01;

/// Seconds since boot, over all cores.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Times {
    pub busy: f64,
    idle: f64,
    iowait: f64,
    steal: f64,
}

/// Percent of all cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Shares {
    /// In programs, the kernel and its interrupts.
    pub busy_percent: f64,
    /// Idle while a program waited for a disk.
    pub iowait_percent: f64,
    /// Taken by the host of a virtual machine.
    pub steal_percent: f64,
}

impl Times {
    /// `None` where /proc/stat is not as the kernel's documentation has it.
    pub fn now() -> Option<Times> {
        Times::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal.
    fn parse(text: &str) -> Option<Times> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<f64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
        let [user, nice, system, idle, iowait, irq, softirq, steal] = *ticks.get(..8)? else { return None };
        let busy = user + nice + system + irq + softirq;
        Some(Times { busy: busy * TICK, idle: idle * TICK, iowait: iowait * TICK, steal: steal * TICK })
    }

    fn all(&self) -> f64 {
        self.busy + self.idle + self.iowait + self.steal
    }

    /// Percent of all that went by since `before`.
    pub fn percent_since(&self, before: &Times, seconds: f64) -> f64 {
        seconds.max(0.0) / (self.all() - before.all()).max(TICK) * 100.0
    }

    pub fn since(&self, before: &Times) -> Shares {
        let percent = |now: f64, then: f64| self.percent_since(before, now - then);
        Shares {
            busy_percent: percent(self.busy, before.busy),
            iowait_percent: percent(self.iowait, before.iowait),
            steal_percent: percent(self.steal, before.steal),
        }
    }
}

/// Watches the machine for so long, doing nothing: what others take.
pub fn busy_percent_for(time: Duration) -> Option<f64> {
    let before = Times::now()?;
    std::thread::sleep(time);
    Some(Times::now()?.since(&before).busy_percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_all_cores() {
        let parse = |line: &str| Times::parse(&format!("{line}\ncpu0 1 2 3\n")).unwrap();
        let before = parse("cpu  100 0 100 1000 50 0 0 0 0 0");
        let after = parse("cpu  140 5 130 1100 60 3 2 10 0 0");
        let shares = after.since(&before);
        assert!((shares.busy_percent - 40.0).abs() < 1e-9, "{shares:?}");
        assert!((shares.iowait_percent - 5.0).abs() < 1e-9, "{shares:?}");
        assert!((shares.steal_percent - 5.0).abs() < 1e-9, "{shares:?}");
        assert_eq!(Times::parse("cpu  1 2 3\n"), None);
        assert!(Times::now().is_some());
    }
}
