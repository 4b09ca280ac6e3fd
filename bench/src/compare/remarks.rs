//! Sentences that read the tables of a kind of work: what may have been its limit, what was not as it should be, and how
//! the relay compares. Pure.

use super::measure::Figures;
use super::report::Result;
use super::scenario::{Handshakes, Work};
use super::spread::Spread;
use super::subject::Subject;
use super::{Options, ends};
use crate::figures::short;
use crate::servers::Kind;
use std::fmt::Write as _;

/// From this share of all CPU time on, generator and sink are what is measured.
const ENDS_SHARE: f64 = 0.8;
/// The same from this share of the straight row's rate.
const STRAIGHT_SHARE: f64 = 0.8;
/// From this share of its threads' time on, an end may be what holds the others up.
pub const END_BUSY: f64 = 0.8;
/// A machine that was busier before a measurement was not idle; its look is of 200 ms, in steps of 10 ms a core.
const BUSY_BEFORE: f64 = 10.0;
/// Where fdatasync takes so many times as long before one row as before another, the disk was not the same.
const DISK_CHANGE: f64 = 2.0;
/// Where the generator is later than this share of the latency, the latency is the generator's.
const LATE_SHARE: f64 = 0.5;

/// Where fewer of the handshakes are of the kind that was asked for, the row is of another kind.
const HANDSHAKES_SHARE: f64 = 0.95;

pub type Value = fn(&Figures) -> Option<f64>;

pub const RATE: Value = |figures| Some(figures.messages_per_second);
pub const CPU: Value = |figures| Some(figures.server_cpu_ms).filter(|cpu| *cpu > 0.0);
/// Of the generator.
pub const LATE: Value = |figures| Some(figures.lag.as_ref()?.p99_ms);

/// All of them, for the rows that there are.
pub fn of(result: &Result, rows: &[Subject], options: &Options) -> String {
    let each =
        |sentence: &dyn Fn(Subject) -> String| rows.iter().map(|row| sentence(*row)).collect::<String>();
    let mut out = each(&|row| limit_sentence(result, row, options));
    out += &each(&|row| late_sentence(result, row));
    out += &each(&|row| handshake_sentence(result, row));
    out + &of_machine(result) + &factors(result)
}

/// What share of their threads' time generator and sink used.
pub fn ends_busy(result: &Result, subject: Subject, options: &Options) -> [Option<f64>; 2] {
    let (source, sink) = ends::threads(result.work.ends, options);
    let share = |threads: usize, cpu: fn(&Figures) -> f64| {
        let busy = |f: &Figures| Some(cpu(f) / 1e3 * f.messages_per_second / threads as f64);
        result.spread(subject, busy).map(|busy| busy.median)
    };
    [share(source, |f| f.source_cpu_ms), share(sink, |f| f.sink_cpu_ms)]
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

/// The generator's handshakes alone: whether a server resumes those of its own is its affair.
fn handshake_sentence(result: &Result, subject: Subject) -> String {
    let wants_resumed = result.work.handshakes == Handshakes::Resumed;
    let share = result.spread(subject, |f| {
        let (full, resumed) = (f.handshakes_in_full?, f.handshakes_in_resumed?);
        Some(if wants_resumed { resumed } else { full } / (full + resumed)).filter(|share| share.is_finite())
    });
    let Some(share) = share.filter(|share| share.least < HANDSHAKES_SHARE) else { return String::new() };
    let kind = if wants_resumed { "resumed" } else { "full" };
    format!(
        "\n**Not what was asked for: with {} only {:.0} % of the generator's handshakes were {kind}.**\n",
        subject.name(),
        share.least * 100.0
    )
}

/// About the machine and the disk, over all rows.
pub fn of_machine(result: &Result) -> String {
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
