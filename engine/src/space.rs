//! Back pressure: how much room the spool has, and what the relay does about it. Pure but for [`Space`],
//! the figures that the service thread publishes and shards read.
//!
//! | level | entered | what happens |
//! |---|---|---|
//! | open | | |
//! | slow | less room than `spool.slow_bytes_min`, or an eighth of `spool.bytes_max` | 354 comes later, up to `spool.slow_delay_max`; a message without SIZE reserves its limit; compaction hurries |
//! | refuse | less than `spool.free_bytes_min`, or inodes than `spool.free_inodes_min` | MAIL is answered 452 4.3.1; transactions that are open go on |
//! | full | a spool could create no segment for new mail | DATA is answered 452 4.3.1, too; outcomes and DSNs use the spare segments |
//!
//! Room is what is free on the file system and what segments hold that can be used again: a spool that has
//! been emptied has room even before its segments are given back. Deliveries go on at every level.
//!
//! A level is left when the figures are an eighth better than where it is entered, at
//! [`CALM_LOOKS`] looks one after the other, so that nothing flaps.

use crate::config;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Looks at better figures before a level is left.
const CALM_LOOKS: u8 = 3;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Open,
    Slow,
    Refuse,
    Full,
}

impl Level {
    fn from(number: u8) -> Self {
        [Self::Open, Self::Slow, Self::Refuse, Self::Full][usize::from(number.min(3))]
    }
}

/// What one look found. Octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Free for this process on the file system.
    pub free_bytes: u64,
    /// `None`: the file system has no fixed number of inodes.
    pub free_inodes: Option<u64>,
    /// Segment files of all spools, and what of it can be used again at once.
    pub spool_bytes: u64,
    pub idle_bytes: u64,
    /// A spool could create no segment for new mail.
    pub short: bool,
}

/// Where levels begin, from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    pub slow_bytes: u64,
    pub refuse_bytes: u64,
    pub inodes: u64,
    /// 0: no quota.
    pub quota: u64,
    pub delay_max: Duration,
}

impl Marks {
    pub fn new(spool: &config::Spool) -> Self {
        Self {
            slow_bytes: spool.slow_bytes_min,
            refuse_bytes: spool.free_bytes_min,
            inodes: spool.free_inodes_min,
            quota: spool.bytes_max,
            delay_max: spool.slow_delay_max,
        }
    }

    /// An eighth more of everything: the marks for leaving a level.
    fn eased(&self) -> Self {
        let more = |bytes: u64| bytes.saturating_add(bytes.div_ceil(8));
        Self {
            slow_bytes: more(self.slow_bytes),
            refuse_bytes: more(self.refuse_bytes),
            inodes: more(self.inodes),
            ..*self
        }
    }
}

impl Figures {
    pub fn room_bytes(&self) -> u64 {
        self.free_bytes.saturating_add(self.idle_bytes)
    }

    fn quota_left(&self, marks: &Marks) -> u64 {
        match marks.quota {
            0 => u64::MAX,
            quota => quota.saturating_sub(self.spool_bytes).saturating_add(self.idle_bytes),
        }
    }
}

/// The level that figures stand for, whatever was before.
fn natural(figures: &Figures, marks: &Marks, quota_slow: u64) -> Level {
    let inodes_short = figures.free_inodes.is_some_and(|free| free < marks.inodes);
    if figures.short {
        Level::Full
    } else if figures.room_bytes() < marks.refuse_bytes || inodes_short {
        Level::Refuse
    } else if figures.room_bytes() < marks.slow_bytes || figures.quota_left(marks) < quota_slow {
        Level::Slow
    } else {
        Level::Open
    }
}

/// The level now, and for how many looks the figures have been good enough to leave it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub level: Level,
    calm: u8,
}

/// What a look makes of the level.
pub fn judge(before: Standing, figures: &Figures, marks: &Marks) -> Standing {
    let quota_slow = marks.quota / 8;
    let strict = natural(figures, marks, quota_slow);
    let eased = natural(figures, &marks.eased(), quota_slow + quota_slow / 8);
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

/// How long 354 is held back: from nothing where slowing down begins to the most where refusing does.
pub fn delay(level: Level, figures: &Figures, marks: &Marks) -> Duration {
    let way = |left: u64, from: u64, to: u64| match from.saturating_sub(to) {
        0 => 0.0,
        whole => from.saturating_sub(left.max(to)) as f64 / whole as f64,
    };
    let share = way(figures.room_bytes(), marks.slow_bytes, marks.refuse_bytes).max(way(
        figures.quota_left(marks),
        marks.quota / 8,
        0,
    ));
    if level == Level::Open { Duration::ZERO } else { marks.delay_max.mul_f64(share.clamp(0.0, 1.0)) }
}

/// The line for the log when a level is entered or left.
pub fn sentence(before: Level, now: Level, figures: &Figures, marks: &Marks) -> String {
    let inodes = figures.free_inodes.map_or(String::new(), |free| format!(", {free} inodes free"));
    let quota = match marks.quota {
        0 => String::new(),
        quota => format!(" of {quota} (spool.bytes_max)"),
    };
    let numbers = format!(
        "{} bytes free on the file system{inodes}, {} bytes in segments{quota}, {} of them can be used again",
        figures.free_bytes, figures.spool_bytes, figures.idle_bytes
    );
    let remedy = "free some room, give the spool more, or see what waits with sluice queue list";
    let what = match now {
        Level::Open => return format!("room for mail again, new mail is accepted as usual: {numbers}"),
        Level::Slow if before > now => "new mail is accepted again, and slowed down".to_owned(),
        Level::Slow => format!(
            "warning: the spool runs short of room (spool.slow_bytes_min is {}): new mail is slowed down",
            marks.slow_bytes
        ),
        Level::Refuse => format!(
            "error: too little room (spool.free_bytes_min is {}, spool.free_inodes_min {}): new mail is refused with 452 4.3.1",
            marks.refuse_bytes, marks.inodes
        ),
        Level::Full => {
            "error: no room for another segment: new mail is refused with 452 4.3.1, what is left is for deliveries".to_owned()
        }
    };
    format!("{what}, delivery goes on: {numbers}; {remedy}")
}

/// The figures of the last look, for all threads.
#[derive(Debug, Default)]
pub struct Space {
    level: AtomicU8,
    delay_millis: AtomicU64,
    free_bytes: AtomicU64,
    free_inodes: AtomicU64,
    /// 0: nobody has looked yet.
    room_bytes: AtomicU64,
}

impl Space {
    pub fn level(&self) -> Level {
        Level::from(self.level.load(Relaxed))
    }

    pub fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_millis.load(Relaxed))
    }

    /// Octets of room for mail of all shards, with what is promised to messages on their way. As much as
    /// can be when nobody has looked yet.
    pub fn room(&self) -> u64 {
        match self.room_bytes.load(Relaxed) {
            0 => u64::MAX,
            room => room,
        }
    }

    pub fn publish(&self, level: Level, delay: Duration, figures: &Figures, marks: &Marks) {
        self.room_bytes.store(figures.room_bytes().min(figures.quota_left(marks)), Relaxed);
        self.level.store(level as u8, Relaxed);
        self.delay_millis.store(delay.as_millis() as u64, Relaxed);
        self.free_bytes.store(figures.free_bytes, Relaxed);
        self.free_inodes.store(figures.free_inodes.unwrap_or(0), Relaxed);
    }

    /// The level in a sentence, unless it is open.
    pub fn warning(&self) -> Option<String> {
        let what = match self.level() {
            Level::Open => return None,
            Level::Slow => "the spool runs short of room: new mail is slowed down",
            Level::Refuse => "too little room: new mail is refused with 452 4.3.1",
            Level::Full => "no room for another segment: new mail is refused with 452 4.3.1",
        };
        let free = self.free_bytes.load(Relaxed);
        Some(format!("{what}, delivery goes on; {free} bytes free on the file system"))
    }

    /// As `counters::sums` has them: name, kind, help, value.
    pub fn gauges(&self) -> Vec<(&'static str, &'static str, &'static str, u64)> {
        vec![
            (
                "space_level",
                "gauge",
                "Room for mail: 0 open, 1 slowed down, 2 new mail refused, 3 full.",
                self.level.load(Relaxed).into(),
            ),
            (
                "space_delay_milliseconds",
                "gauge",
                "How long 354 is held back now.",
                self.delay_millis.load(Relaxed),
            ),
            (
                "space_free_bytes",
                "gauge",
                "Bytes free on the spool's file system.",
                self.free_bytes.load(Relaxed),
            ),
            (
                "space_free_inodes",
                "gauge",
                "Inodes free on the spool's file system; 0 where there is no fixed number.",
                self.free_inodes.load(Relaxed),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::Level::{Full, Open, Refuse, Slow};
    use super::*;

    const MARKS: Marks = Marks {
        slow_bytes: 800,
        refuse_bytes: 400,
        inodes: 80,
        quota: 0,
        delay_max: Duration::from_millis(1_000),
    };

    fn free(free_bytes: u64) -> Figures {
        Figures { free_bytes, free_inodes: Some(1_000), ..Figures::default() }
    }

    #[test]
    fn levels_begin_at_their_marks() {
        let quota = Marks { quota: 8_000, ..MARKS };
        let used = |spool_bytes, idle_bytes| Figures { spool_bytes, idle_bytes, ..free(9_000) };
        let table = [
            (free(800), MARKS, Open),
            (free(799), MARKS, Slow),
            (free(400), MARKS, Slow),
            (free(399), MARKS, Refuse),
            (free(0), MARKS, Refuse),
            (Figures { idle_bytes: 800, ..free(0) }, MARKS, Open),
            (Figures { short: true, ..free(9_000) }, MARKS, Full),
            (Figures { free_inodes: Some(79), ..free(9_000) }, MARKS, Refuse),
            (Figures { free_inodes: None, ..free(9_000) }, MARKS, Open),
            (used(7_000, 0), quota, Open),
            (used(7_001, 0), quota, Slow),
            (used(8_000, 1_000), quota, Open),
            (used(9_999, 0), quota, Slow),
            (free(0), Marks { slow_bytes: 0, refuse_bytes: 0, inodes: 0, ..MARKS }, Open),
        ];
        for (figures, marks, level) in table {
            assert_eq!(judge(Standing::default(), &figures, &marks).level, level, "{figures:?}");
        }
    }

    #[test]
    fn a_level_is_entered_at_once_and_left_after_some_looks_at_clearly_better_figures() {
        let looks = [
            (free(390), Refuse),
            (free(410), Refuse),
            (free(449), Refuse),
            (free(450), Refuse),
            (free(450), Refuse),
            (free(440), Refuse),
            (free(450), Refuse),
            (free(450), Refuse),
            (free(450), Slow),
            (free(2_000), Slow),
            (free(2_000), Slow),
            (free(850), Slow),
            (free(2_000), Slow),
            (free(2_000), Slow),
            (free(2_000), Open),
            (Figures { short: true, ..free(2_000) }, Full),
            (free(2_000), Full),
            (free(2_000), Full),
            (free(2_000), Open),
        ];
        let mut standing = Standing::default();
        for (number, (figures, level)) in looks.iter().enumerate() {
            standing = judge(standing, figures, &MARKS);
            assert_eq!(standing.level, *level, "look {number}");
        }
    }

    #[test]
    fn the_delay_grows_with_what_is_missing() {
        let table = [(900, 0), (800, 0), (700, 250), (600, 500), (400, 1_000), (0, 1_000)];
        for (bytes, millis) in table {
            assert_eq!(delay(Slow, &free(bytes), &MARKS).as_millis(), millis, "{bytes}");
        }
        assert_eq!(delay(Open, &free(600), &MARKS), Duration::ZERO);
        let quota = Marks { quota: 8_000, slow_bytes: 0, refuse_bytes: 0, ..MARKS };
        let half = Figures { spool_bytes: 7_500, ..free(9_000) };
        assert_eq!(delay(Slow, &half, &quota).as_millis(), 500);
    }

    #[test]
    fn only_a_level_that_is_not_open_is_a_warning() {
        let space = Space::default();
        assert_eq!(space.warning(), None);
        for (level, part) in [(Slow, "slowed down"), (Refuse, "too little room"), (Full, "another segment")] {
            space.publish(level, Duration::ZERO, &free(17), &MARKS);
            let warning = space.warning().unwrap();
            assert!(warning.contains(part) && warning.contains("17 bytes free"), "{warning}");
        }
    }

    #[test]
    fn a_line_names_figures_and_remedy() {
        let line = sentence(Open, Refuse, &free(17), &MARKS);
        for part in ["error: ", "17 bytes free", "452 4.3.1", "spool.free_bytes_min is 400", "sluice queue"] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(sentence(Refuse, Open, &free(9_000), &MARKS).starts_with("room for mail again"));
    }
}
