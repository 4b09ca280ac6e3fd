//! Two tables for each kind of work: what was reached, and what was around. Pure.

use super::Options;
use super::remarks::{self, CPU, END_BUSY, LATE, RATE, Value, ends_busy};
use super::report::Result;
use super::scenario::{Task, Tls};
use super::spread::Spread;
use super::subject::Subject;
use super::targets::CORES_BUSY;
use crate::figures::short;
use std::fmt::Write as _;

/// From this percentage of the time on, a device that always has something to do may be.
const DEVICE_BUSY: f64 = 80.0;
const BUSY: Value = |figures| Some(figures.machine?.busy_percent);

pub fn of(result: &Result, options: &Options) -> String {
    let work = &result.work;
    if work.task == Task::Idle {
        return idle(result);
    }
    let mut out = format!(
        "\n## {}\n\nScenario `{}`{}.\n\n\
         | server | rounds | messages/s | CPU ms | memory MiB | flushes | KiB written | \
         dot→250 p50 / p99 / p99.9 ms | transaction p50 / p99 ms |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        capital(&work.title()),
        work.name,
        if work.is_open_loop() {
            "; messages are due after random gaps, the same for all servers"
        } else {
            ""
        },
    );
    let rows: Vec<_> = work.servers.iter().copied().filter(|one| result.of(*one).next().is_some()).collect();
    rows.iter().for_each(|subject| out.push_str(&line(result, *subject)));
    let (more, lines) = more_columns(result);
    let _ = write!(
        out,
        "\n| around | seconds | cores busy / iowait / steal % | others % | device busy % | busy before % | fdatasync before, ms | \
         generator CPU ms, of its threads | sink CPU ms, of its threads |{more} limit |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|{}---|\n",
        "--:|".repeat(lines)
    );
    rows.iter().for_each(|subject| out.push_str(&around(result, *subject, options)));
    out + &remarks::of(result, &rows, options)
}

fn text(spread: Option<Spread>) -> String {
    spread.map_or("–".to_owned(), |spread| spread.text())
}

fn middle(spread: Option<Spread>) -> String {
    spread.map_or("–".to_owned(), |spread| short(spread.median))
}

fn line(result: &Result, subject: Subject) -> String {
    let of = |value: Value| result.spread(subject, value);
    let server = |value: Value| match subject {
        Subject::Server(_) => of(value),
        _ => None,
    };
    let repeats: u64 = result.of(subject).filter_map(|row| row.figures.repeats).sum();
    let mut name = subject.name().to_owned();
    if let Some(saturated) = of(|f| f.saturated_rate) {
        name += &format!(" (saturated {:.0}/s)", saturated.median);
    }
    if repeats > 0 {
        name += &format!(" ({repeats} repeats)");
    }
    format!(
        "| {name} | {} | {} | {} | {} | {} | {} | {} / {} / {} | {} / {} |\n",
        result.of(subject).count(),
        of(RATE).map_or("–".to_owned(), |rate| rate.with(|rate| format!("{rate:.0}"))),
        text(server(CPU)),
        middle(server(|f| Some(f.memory_pss_mib))),
        middle(server(|f| f.flushes)),
        middle(server(|f| f.written_kib)),
        middle(of(|f| f.end_of_data.as_ref()?.p50())),
        middle(of(|f| f.end_of_data.as_ref()?.p99())),
        middle(of(|f| f.end_of_data.as_ref()?.p999())),
        text(of(|f| f.transaction.as_ref()?.p50())),
        text(of(|f| f.transaction.as_ref()?.p99())),
    )
}

/// Heads of the columns of the second table that only some work has, and how many they are.
fn more_columns(result: &Result) -> (String, usize) {
    let mut heads = Vec::new();
    if result.work.is_open_loop() {
        heads.push("generator late p99 ms");
    }
    if result.work.tls != Tls::Off {
        heads.push("handshakes a message, generator: full / resumed");
        heads.push("sink: full / resumed");
    }
    (heads.iter().map(|head| format!(" {head} |")).collect(), heads.len())
}

/// What else was going on while the row was measured.
fn around(result: &Result, subject: Subject, options: &Options) -> String {
    let of = |value: Value| result.spread(subject, value);
    let end = |cpu: Value, busy: Option<f64>| match (subject, of(cpu)) {
        (Subject::Fdatasync, _) | (_, None) => "–".to_owned(),
        (_, Some(cpu)) => format!("{}, {:.0} %", short(cpu.median), busy.unwrap_or(0.0) * 100.0),
    };
    let whole = |value: Value| of(value).map_or("–".to_owned(), |spread| format!("{:.0}", spread.median));
    let [source, sink] = ends_busy(result, subject, options);
    let mut more = String::new();
    if result.work.is_open_loop() {
        let _ = write!(more, " {} |", middle(of(LATE)));
    }
    if result.work.tls != Tls::Off {
        let inward = [of(|f| f.handshakes_in_full), of(|f| f.handshakes_in_resumed)].map(middle);
        let outward = [of(|f| f.handshakes_full), of(|f| f.handshakes_resumed)].map(middle);
        let _ = write!(more, " {} / {} | {} / {} |", inward[0], inward[1], outward[0], outward[1]);
    }
    format!(
        "| {} | {} | {} / {} / {} | {} | {} | {} | {} | {} | {} |{more} {} |\n",
        subject.name(),
        of(|f| Some(f.seconds)).map_or("–".to_owned(), |seconds| seconds.with(|one| format!("{one:.1}"))),
        whole(BUSY),
        whole(|f| Some(f.machine?.iowait_percent)),
        whole(|f| Some(f.machine?.steal_percent)),
        whole(|f| f.others_percent),
        whole(|f| f.device_busy_percent),
        of(|f| f.busy_before_percent)
            .map_or("–".to_owned(), |before| before.with(|percent| format!("{percent:.0}"))),
        text(of(|f| Some(f.disk_before.as_ref()?.p50_ms))),
        end(|f| Some(f.source_cpu_ms), source),
        end(|f| Some(f.sink_cpu_ms), sink),
        limits(result, subject, options),
    )
}

/// In a word or two.
fn limits(result: &Result, subject: Subject, options: &Options) -> String {
    let of = |value: Value| result.spread(subject, value).map_or(0.0, |spread| spread.median);
    let [source, sink] = ends_busy(result, subject, options).map(|busy| busy.unwrap_or(0.0) >= END_BUSY);
    let is_disk = subject == Subject::Fdatasync;
    let reasons = [
        (is_disk, "disk"),
        (of(BUSY) >= CORES_BUSY, "cores"),
        (source && !is_disk, "generator may"),
        (sink && !is_disk, "sink may"),
        (of(|f| f.device_busy_percent) >= DEVICE_BUSY, "disk may"),
        (result.work.is_open_loop(), "the rate asked for"),
    ];
    let found: Vec<_> = reasons.iter().filter(|(holds, _)| *holds).map(|(_, name)| *name).collect();
    if found.is_empty() { "none seen".to_owned() } else { found.join(", ") }
}

fn idle(result: &Result) -> String {
    let mut out = format!(
        "\n## {}\n\n| server | rounds | resident at start, MiB | resident with the sessions, MiB | CPU, % of a core |\n\
         |---|--:|--:|--:|--:|\n",
        capital(&result.work.title())
    );
    for subject in &result.work.servers {
        let of = |value: fn(&super::idle::Figures) -> f64| {
            text(result.spread(*subject, |figures| figures.idle.as_ref().map(value)))
        };
        let (start, full, cpu) = (of(|i| i.start_rss_mib), of(|i| i.rss_mib), of(|i| i.cpu_percent));
        let rounds = result.of(*subject).count();
        let _ = writeln!(out, "| {} | {rounds} | {start} | {full} | {cpu} |", subject.name());
    }
    out + &remarks::of_machine(result)
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}
