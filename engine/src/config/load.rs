//! `[load]`: from when on the relay counts as busy or overloaded, and what it gives clients then.

use std::time::Duration;

use super::document::Section;

/// See `crate::load`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadMarks {
    /// Percent of `limits.sessions_max`, or of the memory.
    pub busy_percent: u32,
    pub overloaded_percent: u32,
    /// What 100 percent of the memory are; 0: the limit of the control group, else what the host has.
    pub memory_bytes_max: u64,
    /// In place of `timeouts.command` and `timeouts.content` while the relay is busy.
    pub command: Duration,
    pub content: Duration,
}

impl Default for LoadMarks {
    fn default() -> Self {
        Self {
            busy_percent: 75,
            overloaded_percent: 90,
            memory_bytes_max: 0,
            command: Duration::from_secs(10),
            content: Duration::from_secs(30),
        }
    }
}

pub(super) fn load(mut section: Section<'_>) -> LoadMarks {
    const SHORTEST: Duration = Duration::from_millis(100);
    const HOUR: Duration = Duration::from_secs(3_600);
    let absent = LoadMarks::default();
    let busy = section.count("busy_percent", 1..=100);
    let overloaded = section.count("overloaded_percent", 1..=100);
    let mut time = |key, absent| section.duration(key, SHORTEST..=HOUR).map_or(absent, |at| at.value);
    let (command, content) = (time("command", absent.command), time("content", absent.content));
    let marks = LoadMarks {
        busy_percent: busy.as_ref().map_or(absent.busy_percent, |at| at.value),
        overloaded_percent: overloaded.as_ref().map_or(absent.overloaded_percent, |at| at.value),
        memory_bytes_max: section
            .size("memory_bytes_max", 0..=1 << 50)
            .map_or(absent.memory_bytes_max, |at| at.value),
        command,
        content,
    };
    if marks.busy_percent > marks.overloaded_percent {
        let (key, line) = match (&busy, &overloaded) {
            (Some(at), _) => ("busy_percent", at.line),
            (None, Some(at)) => ("overloaded_percent", at.line),
            (None, None) => unreachable!("the defaults ascend"),
        };
        let wrong = format!(
            "busy_percent {} is more than overloaded_percent {}; allowed: busy_percent <= overloaded_percent",
            marks.busy_percent, marks.overloaded_percent
        );
        section.fault(line, key, wrong);
    }
    section.finish();
    marks
}
