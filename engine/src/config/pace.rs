//! At what pace mail goes out: rates, receiving sites, the back-off table, and the warm-up of source addresses.
//!
//! Plain data and its reading. `engine/src/delivery/backoff.rs` applies the table,
//! `engine/src/delivery/site.rs` the limits.

use super::document::{At, Notes, Section};
use super::read::RouteDraft;
use super::value;
use crate::delivery::backoff::{Action, Pattern, Rule};
use std::net::IpAddr;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
/// Days of a schedule.
const SCHEDULE_DAYS_MAX: usize = 366;

const BUILT_IN: &str = include_str!("../delivery/backoff.toml");

/// What goes to one receiving site a minute; 0: any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    pub messages_per_minute: u32,
    pub connections_per_minute: u32,
}

/// Hosts that are one receiver although each of its customers has names of his own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteRule {
    pub name: String,
    pub hosts: Vec<Pattern>,
    /// Its own limits, where it has some.
    pub connections_max: Option<usize>,
    pub messages_per_minute: Option<u32>,
    pub connections_per_minute: Option<u32>,
}

/// A source address that peers do not know yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmUp {
    pub source: IpAddr,
    /// Days since 1970, in UTC.
    pub began_day: u64,
    /// The most messages of each day; after the last there is no limit.
    pub schedule: Vec<u32>,
}

/// The two keys of a section; what it does not say is as in `absent`.
pub(super) fn rates(section: &mut Section<'_>, absent: Rates) -> Rates {
    let mut count = |key, absent| section.count(key, 0..=1_000_000).map_or(absent, |at| at.value);
    Rates {
        messages_per_minute: count("messages_per_minute", absent.messages_per_minute),
        connections_per_minute: count("connections_per_minute", absent.connections_per_minute),
    }
}

pub(super) fn site(mut section: Section<'_>) -> Option<SiteRule> {
    section.demand("name", "a name of your choice for the log");
    section.demand("hosts", "patterns of host names, [\"*.mail.protection.outlook.com\"]");
    let name = section.text("name", value::label);
    let hosts = section.list("hosts", pattern).unwrap_or_default();
    section.refuse_empty("hosts");
    let rule = name.map(|name| SiteRule {
        name: name.value,
        hosts: hosts.into_iter().map(|at| at.value).collect(),
        connections_max: section.count("connections_max", 1..=10_000).map(|at| at.value as usize),
        messages_per_minute: section.count("messages_per_minute", 0..=1_000_000).map(|at| at.value),
        connections_per_minute: section.count("connections_per_minute", 0..=1_000_000).map(|at| at.value),
    });
    section.finish();
    rule
}

pub(super) fn warm_up(mut section: Section<'_>) -> Option<At<WarmUp>> {
    section.demand("source", "an address that a route has in `source`");
    section.demand("began", "the first day, \"2026-11-22\"");
    section.demand("schedule", "the most messages of each day, \"50, 100, 500\"");
    let source = section.text("source", value::address);
    let began = section.text("began", day);
    let schedule = section.text("schedule", schedule);
    let line = section.line;
    section.finish();
    let warm_up = WarmUp { source: source?.value, began_day: began?.value, schedule: schedule?.value };
    Some(At { value: warm_up, line })
}

fn schedule(text: &str) -> Result<Vec<u32>, value::Wrong> {
    let days: Option<Vec<u32>> = text.split(',').map(|day| day.trim().parse().ok()).collect();
    days.filter(|days| days.len() <= SCHEDULE_DAYS_MAX).ok_or_else(|| {
        format!("\"{text}\" is not a schedule; allowed: 1 to {SCHEDULE_DAYS_MAX} numbers, \"50, 100, 500\"")
    })
}

/// What no route sends from would be counted by nobody; and an address has one schedule.
pub(super) fn check_warm_ups(notes: &Notes, warm_ups: &[At<WarmUp>], routes: &[RouteDraft]) {
    for (index, warm_up) in warm_ups.iter().enumerate() {
        let source = warm_up.value.source;
        let wrong = if !routes.iter().any(|route| route.source.contains(&source)) {
            "is the source of no route; allowed: an address that a route has in `source`"
        } else if warm_ups[..index].iter().any(|earlier| earlier.value.source == source) {
            "has a schedule already; allowed: one for each address"
        } else {
            continue;
        };
        notes.fault(warm_up.line, "warm_up.source", format!("{source} {wrong}"));
    }
}

fn day(text: &str) -> Result<u64, value::Wrong> {
    let wrong = || format!("\"{text}\" is not a day; allowed: as in \"2026-11-22\"");
    let date: jiff::civil::Date = text.parse().map_err(|_| wrong())?;
    let epoch = jiff::civil::date(1970, 1, 1);
    let since = date.since(epoch).map_err(|_| wrong())?;
    u64::try_from(since.get_days()).map_err(|_| wrong())
}

fn pattern(text: &str) -> Result<Pattern, value::Wrong> {
    match text.is_empty() || text.len() > 255 {
        true => Err("is empty or too long; allowed: 1 to 255 characters, * for any run of them".into()),
        false => Ok(Pattern::new(text)),
    }
}

pub(super) fn backoff(mut section: Section<'_>) -> Option<Rule> {
    #[derive(Clone, Copy)]
    enum Word {
        None,
        Slow,
        Suspend,
        Wait,
    }
    section.demand("reply", "a pattern of the whole reply, \"421 4.7.28 *\"");
    section.demand("action", "\"slow\", \"suspend\", \"wait\" or \"none\"");
    let words =
        [("none", Word::None), ("slow", Word::Slow), ("suspend", Word::Suspend), ("wait", Word::Wait)];
    let action = section.choice("action", &words);
    let reply = section.text("reply", pattern);
    let hosts = section.list("hosts", pattern).unwrap_or_default();
    let time = section.duration("time", SECOND..=7 * DAY);
    let connections = section.count("connections", 1..=10_000);
    let messages = section.count("messages_per_minute", 0..=1_000_000);
    let rule = reply.zip(action).map(|(reply, action)| {
        let absent = if matches!(action.value, Word::Wait) { Duration::ZERO } else { 15 * 60 * SECOND };
        let time = time.map_or(absent, |at| at.value);
        let action = match action.value {
            Word::None => Action::Nothing,
            Word::Slow => Action::Slow {
                connections: connections.map_or(1, |at| at.value as usize),
                messages_per_minute: messages.map_or(0, |at| at.value),
                time,
            },
            Word::Suspend => Action::Suspend { time },
            Word::Wait => Action::Wait { time },
        };
        Rule { reply: reply.value, hosts: hosts.into_iter().map(|at| at.value).collect(), action }
    });
    section.finish();
    rule
}

/// The table that comes with the program.
pub fn built_in_backoff() -> Vec<Rule> {
    super::read_built_in(BUILT_IN, |root| root.sections("backoff").into_iter().filter_map(backoff).collect())
}

/// Sites that come with the program: receivers that give each customer a host name of his own.
pub(super) fn built_in_sites() -> Vec<SiteRule> {
    let site = |name: &str, hosts: &[&str]| SiteRule {
        name: name.to_owned(),
        hosts: hosts.iter().map(|host| Pattern::new(host)).collect(),
        connections_max: None,
        messages_per_minute: None,
        connections_per_minute: None,
    };
    vec![
        site("exchange-online", &["*.mail.protection.outlook.com", "*.mx.microsoft"]),
        site("outlook.com", &["*.olc.protection.outlook.com"]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_table_is_sound_and_about_class_4_only() {
        let rules = built_in_backoff();
        assert_eq!(rules.len(), BUILT_IN.lines().filter(|line| *line == "[[backoff]]").count());
        for rule in &rules {
            assert!(rule.reply.to_string().starts_with('4'), "{}", rule.reply);
            assert_ne!(rule.action, Action::Nothing, "{}", rule.reply);
        }
    }

    #[test]
    fn schedules() {
        assert_eq!(schedule("50, 100,500"), Ok(vec![50, 100, 500]));
        for wrong in ["", "50,", "many", "-1", "99999999999"] {
            assert!(schedule(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn days() {
        assert_eq!(day("1970-01-02"), Ok(1));
        assert_eq!(day("2026-11-22"), Ok(20_779));
        for wrong in ["", "1969-12-31", "2026-13-01", "yesterday"] {
            assert!(day(wrong).is_err(), "{wrong}");
        }
    }
}
