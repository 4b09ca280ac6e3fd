//! Two tables for each kind of work, what was reached and what was around, and sentences that read them. Pure.

use super::Options;
use super::ends;
use super::measure::Figures;
use super::report::Result;
use super::scenario::{Task, Work};
use super::spread::Spread;
use super::subject::Subject;
use super::targets::CORES_BUSY;
use crate::figures::short;
use crate::servers::Kind;
use std::fmt::Write as _;

/// From this share of all CPU time on, generator and sink are what is measured.
const ENDS_SHARE: f64 = 0.8;
/// The same from this share of the straight row's rate.
const STRAIGHT_SHARE: f64 = 0.8;
/// From this share of its threads' time on, an end may be what holds the others up.
const END_BUSY: f64 = 0.8;
/// From this percentage of the time on, a device that always has something to do may be.
const DEVICE_BUSY: f64 = 80.0;
/// A machine that was busier before a measurement was not idle; its look is of 200 ms, in steps of 10 ms a core.
const BUSY_BEFORE: f64 = 10.0;
/// Where fdatasync takes so many times as long before one row as before another, the disk was not the same.
const DISK_CHANGE: f64 = 2.0;
/// Where the generator is later than this share of the latency, the latency is the generator's.
const LATE_SHARE: f64 = 0.5;

type Value = fn(&Figures) -> Option<f64>;

const RATE: Value = |figures| Some(figures.messages_per_second);
const CPU: Value = |figures| Some(figures.server_cpu_ms).filter(|cpu| *cpu > 0.0);
const BUSY: Value = |figures| Some(figures.machine?.busy_percent);
const LATE: Value = |figures| Some(figures.lag.as_ref()?.p99_ms);

pub fn of(result: &Result, options: &Options) -> String {
    let work = &result.work;
    if work.task == Task::Idle {
        return idle(result);
    }
    let mut out = format!(
        "\n## {}\n\nScenario `{}`.\n\n\
         | server | rounds | messages/s | CPU ms | memory MiB | flushes | KiB written | \
         dot→250 p50 / p99 / p99.9 ms | transaction p50 / p99 ms |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        capital(&work.title()),
        work.name,
    );
    let rows: Vec<_> = work.servers.iter().copied().filter(|one| result.of(*one).next().is_some()).collect();
    rows.iter().for_each(|subject| out.push_str(&line(result, *subject)));
    let late = if work.is_open_loop() { " generator late p99 ms |" } else { "" };
    let _ = write!(
        out,
        "\n| around | seconds | cores busy / iowait / steal % | others % | device busy % | busy before % | fdatasync before, ms | \
         generator CPU ms, of its threads | sink CPU ms, of its threads |{late} limit |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|{}---|\n",
        if work.is_open_loop() { "--:|" } else { "" }
    );
    rows.iter().for_each(|subject| out.push_str(&around(result, *subject, options)));
    rows.iter().for_each(|subject| out.push_str(&limit_sentence(result, *subject, options)));
    rows.iter().for_each(|subject| out.push_str(&late_sentence(result, *subject)));
    out + &machine_sentences(result) + &factors(result)
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

/// What else was going on while the row was measured.
fn around(result: &Result, subject: Subject, options: &Options) -> String {
    let of = |value: Value| result.spread(subject, value);
    let end = |cpu: Value, busy: Option<f64>| match (subject, of(cpu)) {
        (Subject::Fdatasync, _) | (_, None) => "–".to_owned(),
        (_, Some(cpu)) => format!("{}, {:.0} %", short(cpu.median), busy.unwrap_or(0.0) * 100.0),
    };
    let whole = |value: Value| of(value).map_or("–".to_owned(), |spread| format!("{:.0}", spread.median));
    let [source, sink] = ends_busy(result, subject, options);
    let late = match result.work.is_open_loop() {
        true => format!(" {} |", middle(of(LATE))),
        false => String::new(),
    };
    format!(
        "| {} | {} | {} / {} / {} | {} | {} | {} | {} | {} | {} |{late} {} |\n",
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

/// What share of their threads' time generator and sink used.
fn ends_busy(result: &Result, subject: Subject, options: &Options) -> [Option<f64>; 2] {
    let (source, sink) = ends::threads(result.work.ends, options);
    let share = |threads: usize, cpu: fn(&Figures) -> f64| {
        let busy = |f: &Figures| Some(cpu(f) / 1e3 * f.messages_per_second / threads as f64);
        result.spread(subject, busy).map(|busy| busy.median)
    };
    [share(source, |f| f.source_cpu_ms), share(sink, |f| f.sink_cpu_ms)]
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

/// Says it when generator and sink may be what limits the server's row.
fn limit_sentence(result: &Result, subject: Subject, options: &Options) -> String {
    if !matches!(subject, Subject::Server(_)) {
        return String::new();
    }
    let mut reasons = Vec::new();
    let share = result.factor(subject, Subject::Straight, RATE).map(|share| share.median);
    if let Some(share) = share.filter(|share| *share >= STRAIGHT_SHARE && !result.work.is_open_loop()) {
        reasons.push(format!("it reaches {:.0} % of the row without a server", share * 100.0));
    }
    let of_all = result.spread(subject, |f| {
        let ends = f.source_cpu_ms + f.sink_cpu_ms;
        Some(ends / (ends + f.server_cpu_ms)).filter(|share| share.is_finite())
    });
    if let Some(share) = of_all.filter(|share| share.median >= ENDS_SHARE) {
        reasons.push(format!("they take {:.0} % of all CPU time", share.median * 100.0));
    }
    for (name, busy) in ["the generator", "the sink"].iter().zip(ends_busy(result, subject, options)) {
        if let Some(busy) = busy.filter(|busy| *busy >= END_BUSY) {
            reasons.push(format!("{name} uses {:.0} % of its threads' time", busy * 100.0));
        }
    }
    if reasons.is_empty() {
        return String::new();
    }
    let reasons = reasons.join(", and ");
    format!(
        "\n**Generator and sink may be the limit of {} here: {reasons}. It may do more.**\n",
        subject.name()
    )
}

fn late_sentence(result: &Result, subject: Subject) -> String {
    let lateness = result.spread(subject, |f| Some(LATE(f)? / f.transaction.as_ref()?.p99_ms));
    let Some(share) = lateness.filter(|share| share.median > LATE_SHARE) else { return String::new() };
    format!(
        "\n**The generator was late with {}: the p99 of its lateness is {:.0} % of the p99 of the latency, which says \
         as much about the generator.**\n",
        subject.name(),
        share.median * 100.0
    )
}

/// About the machine and the disk, over all rows.
fn machine_sentences(result: &Result) -> String {
    let mut out = String::new();
    let before: Vec<f64> = result.rows.iter().filter_map(|row| row.figures.busy_before_percent).collect();
    let busy: Vec<f64> = before.iter().copied().filter(|percent| *percent > BUSY_BEFORE).collect();
    if let Some(most) = busy.iter().copied().reduce(f64::max) {
        let _ = write!(
            out,
            "\n**The machine was not idle before {} of {} measurements: up to {most:.0} % of its cores were busy.**\n",
            busy.len(),
            before.len()
        );
    }
    let disk = result.rows.iter().filter_map(|row| Some(row.figures.disk_before.as_ref()?.p50_ms));
    let disk = Spread::of(&disk.collect::<Vec<_>>());
    if let Some(disk) = disk.filter(|disk| disk.least > 0.0 && disk.most >= DISK_CHANGE * disk.least) {
        let _ = write!(
            out,
            "\n**The disk was not the same for all measurements: before them an fdatasync took from {} to {} ms.**\n",
            short(disk.least),
            short(disk.most)
        );
    }
    out
}

/// The relay against each other server, in a sentence.
fn factors(result: &Result) -> String {
    let relay = Subject::Server(Kind::Relay);
    let part = |kind: Kind| -> Option<String> {
        let other = Subject::Server(kind);
        let cpu = result.factor(other, relay, CPU)?.with(|times| format!("1/{}", short(times)));
        let name = kind.name();
        Some(match open_loop(&result.work) {
            None => {
                let rate = result.factor(relay, other, RATE)?.text();
                format!("{rate} times the messages and {cpu} of the CPU of {name}")
            }
            Some(_) => match result.factor(other, relay, |f| f.transaction.as_ref()?.p50()) {
                Some(p50) => {
                    let p50 = p50.with(|times| format!("1/{}", short(times)));
                    format!("{cpu} of the CPU and {p50} of the median latency of {name}")
                }
                None => format!("{cpu} of the CPU of {name}"),
            },
        })
    };
    let sentences: Vec<_> = Kind::ALL.into_iter().skip(1).filter_map(part).collect();
    match sentences.is_empty() {
        true => String::new(),
        false => {
            format!("\nSluice{}: {}.\n", open_loop(&result.work).unwrap_or_default(), sentences.join("; "))
        }
    }
}

/// How the rates of an open loop compare.
fn open_loop(work: &Work) -> Option<&'static str> {
    match (work.load, work.rate) {
        (Some(_), _) => Some(", each server at its own rate"),
        (None, Some(_)) => Some(", all at the same rate"),
        (None, None) => None,
    }
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
    out + &machine_sentences(result)
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}
