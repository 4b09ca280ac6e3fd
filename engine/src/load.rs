//! The load state: how much of sessions, memory and room for mail is taken, and what the relay does about it.
//! Pure but for [`Load`], which the service thread publishes and shards read.
//!
//! | level | entered at | what happens to clients of listeners that face strangers |
//! |---|---|---|
//! | normal | | |
//! | busy | `load.busy_percent` of the sessions of a shard or of the memory; the spool slows mail down | `load.command` and `load.content` in place of longer timeouts, also for sessions that wait already; half of every bound by address and network |
//! | overloaded | `load.overloaded_percent`, or the spool is full | besides, no new connection: 421 4.3.2 |
//!
//! Listeners with `relay = "any"` and clients in `limits.exempt` feel nothing of it. A level is entered at
//! once and left after [`CALM_LOOKS`] looks at figures an eighth below its mark, so that nothing flaps.

use crate::config::LoadMarks;
use crate::space;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// Looks at better figures before a level is left.
const CALM_LOOKS: u8 = 4;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Normal,
    Busy,
    Overloaded,
}

/// What one look found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Of the shard that has most, and what a shard may have.
    pub sessions: u64,
    pub sessions_max: u64,
    /// Octets that are resident, and that may be.
    pub memory: u64,
    pub memory_max: u64,
    pub space: space::Level,
}

/// The level now, and for how many looks the figures have been good enough to leave it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub level: Level,
    calm: u8,
}

fn percent(part: u64, whole: u64) -> u64 {
    (u128::from(part) * 100).checked_div(u128::from(whole)).unwrap_or(0).try_into().unwrap_or(u64::MAX)
}

/// The level that figures stand for when the marks are so many eighths of what they are.
fn natural(figures: &Figures, marks: &LoadMarks, eighths: u64) -> Level {
    let taken =
        percent(figures.sessions, figures.sessions_max).max(percent(figures.memory, figures.memory_max));
    let over = |mark: u32| taken * 8 >= u64::from(mark) * eighths;
    if over(marks.overloaded_percent) || figures.space == space::Level::Full {
        Level::Overloaded
    } else if over(marks.busy_percent) || figures.space > space::Level::Open {
        Level::Busy
    } else {
        Level::Normal
    }
}

/// What a look makes of the level.
pub fn judge(before: Standing, figures: &Figures, marks: &LoadMarks) -> Standing {
    let strict = natural(figures, marks, 8);
    let eased = natural(figures, marks, 7);
    if strict > before.level {
        Standing { level: strict, calm: 0 }
    } else if eased >= before.level {
        Standing { calm: 0, ..before }
    } else if before.calm + 1 < CALM_LOOKS {
        Standing { calm: before.calm + 1, ..before }
    } else {
        Standing { level: eased, calm: 0 }
    }
}

/// The line for the log when a level is entered or left.
pub fn sentence(now: Level, figures: &Figures, marks: &LoadMarks) -> String {
    let numbers = format!(
        "{} of {} sessions on the fullest ingest shard, {} of {} bytes of memory, room for mail {}",
        figures.sessions,
        figures.sessions_max,
        figures.memory,
        figures.memory_max,
        match figures.space {
            space::Level::Open => "open",
            space::Level::Slow => "short",
            space::Level::Refuse => "too little",
            space::Level::Full => "none",
        }
    );
    match now {
        Level::Normal => format!("load is normal again: {numbers}"),
        Level::Busy => format!(
            "warning: the relay is busy (load.busy_percent is {}): shorter timeouts and half the bounds for clients that are not exempt: {numbers}",
            marks.busy_percent
        ),
        Level::Overloaded => format!(
            "error: the relay is overloaded (load.overloaded_percent is {}): only trusted listeners and exempt clients get new connections, others 421: {numbers}",
            marks.overloaded_percent
        ),
    }
}

/// The last look's result, for all threads.
#[derive(Debug, Default)]
pub struct Load {
    level: AtomicU8,
    memory: AtomicU64,
    memory_max: AtomicU64,
}

impl Load {
    pub fn level(&self) -> Level {
        match self.level.load(Relaxed) {
            0 => Level::Normal,
            1 => Level::Busy,
            _ => Level::Overloaded,
        }
    }

    pub fn publish(&self, level: Level, figures: &Figures) {
        self.level.store(level as u8, Relaxed);
        self.memory.store(figures.memory, Relaxed);
        self.memory_max.store(figures.memory_max, Relaxed);
    }

    /// As `counters::sums` has them: name, kind, help, value.
    pub fn gauges(&self) -> Vec<(&'static str, &'static str, &'static str, u64)> {
        vec![
            ("load_level", "gauge", "Load: 0 normal, 1 busy, 2 overloaded.", self.level.load(Relaxed).into()),
            ("memory_resident_bytes", "gauge", "Resident memory of the relay.", self.memory.load(Relaxed)),
            (
                "memory_max_bytes",
                "gauge",
                "What load.busy_percent and load.overloaded_percent are percent of.",
                self.memory_max.load(Relaxed),
            ),
        ]
    }
}

/// What the process may have: as configured, else the limit of its control group, else the host's memory.
pub fn memory_max(configured: u64) -> u64 {
    if configured > 0 {
        return configured;
    }
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let group = read("/proc/self/cgroup").and_then(|text| group_path(&text).map(str::to_owned));
    let limits = group
        .into_iter()
        .flat_map(|group| above(&group))
        .filter_map(|group| read(&format!("/sys/fs/cgroup{group}/memory.max"))?.trim().parse::<u64>().ok());
    let host = read("/proc/meminfo").and_then(|text| kib_of(&text, "MemTotal:")).map(|kib| kib * 1024);
    limits.chain(host).min().unwrap_or(0)
}

/// Resident octets of this process.
pub fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    kib_of(&status, "VmRSS:").map_or(0, |kib| kib * 1024)
}

/// Its group in the unified hierarchy.
fn group_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::")).map(|path| path.trim_end_matches('/'))
}

/// A group and all that it is in.
fn above(group: &str) -> Vec<String> {
    let ends = group.match_indices('/').map(|(at, _)| at).chain([group.len()]);
    ends.map(|end| group[..end].to_owned()).collect()
}

fn kib_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::Level::{Busy, Normal, Overloaded};
    use super::*;

    fn marks() -> LoadMarks {
        LoadMarks { busy_percent: 75, overloaded_percent: 90, ..LoadMarks::default() }
    }

    fn sessions(sessions: u64) -> Figures {
        Figures { sessions, sessions_max: 1_000, memory: 0, memory_max: 1_000, space: space::Level::Open }
    }

    #[test]
    fn levels_begin_at_their_marks() {
        let full = Figures { memory_max: 0, sessions_max: 0, ..sessions(u64::MAX) };
        let table = [
            (sessions(0), Normal),
            (sessions(749), Normal),
            (sessions(750), Busy),
            (sessions(899), Busy),
            (sessions(900), Overloaded),
            (sessions(u64::MAX), Overloaded),
            (Figures { memory: 750, ..sessions(0) }, Busy),
            (Figures { memory: 900, ..sessions(0) }, Overloaded),
            (Figures { space: space::Level::Slow, ..sessions(0) }, Busy),
            (Figures { space: space::Level::Refuse, ..sessions(0) }, Busy),
            (Figures { space: space::Level::Full, ..sessions(0) }, Overloaded),
            (full, Normal),
        ];
        for (figures, level) in table {
            assert_eq!(judge(Standing::default(), &figures, &marks()).level, level, "{figures:?}");
        }
    }

    #[test]
    fn a_level_is_entered_at_once_and_left_after_some_looks_at_clearly_better_figures() {
        let looks = [
            (760, Busy),
            (740, Busy),
            (660, Busy),
            (650, Busy),
            (650, Busy),
            (650, Busy),
            (660, Busy),
            (650, Busy),
            (650, Busy),
            (650, Busy),
            (650, Normal),
            (950, Overloaded),
            (700, Overloaded),
            (700, Overloaded),
            (700, Overloaded),
            (700, Busy),
            (10, Busy),
            (10, Busy),
            (10, Busy),
            (10, Normal),
        ];
        let mut standing = Standing::default();
        for (number, (taken, level)) in looks.into_iter().enumerate() {
            standing = judge(standing, &sessions(taken), &marks());
            assert_eq!(standing.level, level, "look {number}: {taken}");
        }
    }

    #[test]
    fn what_is_published_is_read() {
        let load = Load::default();
        for level in [Normal, Busy, Overloaded, Normal] {
            load.publish(level, &sessions(1));
            assert_eq!((load.level(), load.gauges()[0].3), (level, level as u64));
        }
    }

    #[test]
    fn memory_is_what_the_kernel_says() {
        assert!(memory() > 100_000 && memory_max(0) > memory(), "{} of {}", memory(), memory_max(0));
        assert_eq!(memory_max(17), 17);
        assert_eq!(group_path("1:cpu:/x\n0::/a.slice/b.service\n"), Some("/a.slice/b.service"));
        assert_eq!(above("/a.slice/b.service"), ["", "/a.slice", "/a.slice/b.service"]);
        assert_eq!(above(""), [""]);
        assert_eq!(kib_of("MemFree: 1 kB\nMemTotal:  12 kB\n", "MemTotal:"), Some(12));
    }

    #[test]
    fn a_line_names_level_figures_and_key() {
        for (level, part) in
            [(Busy, "load.busy_percent is 75"), (Overloaded, "load.overloaded_percent is 90")]
        {
            let line = sentence(level, &sessions(17), &marks());
            assert!(line.contains(part) && line.contains("17 of 1000 sessions"), "{line}");
        }
        assert!(sentence(Normal, &sessions(17), &marks()).starts_with("load is normal again"));
    }
}
