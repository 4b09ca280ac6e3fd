//! What the relay is to reach, each with what was measured. Pure.
//!
//! Every target is about one kind of work ([`Work::is_kind`]) and needs rows of certain subjects; a result that differs
//! in one key is not taken for it. Factors are those of figures of the same round. A target is met when every round
//! meets it and missed when none does; where rounds disagree it is undecided.

use super::measure::Figures;
use super::report::Result as Measured;
use super::scenario::{Ends, Handshakes, Task, Tls, Work};
use super::spread::Spread;
use super::subject::Subject;
use crate::figures::short;
use crate::servers::Kind;
use serde::Serialize;

/// Octets.
const SMALL: usize = 4 * 1024;
const LARGE: usize = 64 * 1024;

const RELAY: Subject = Subject::Server(Kind::Relay);
const BARE: Subject = Subject::Server(Kind::Bare);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// In every round.
    Met,
    /// In no round.
    Missed,
    /// In some rounds.
    Undecided,
    NotMeasured,
    /// There is no bound: the figure stands for itself.
    Stated,
}

impl Verdict {
    pub fn text(self) -> &'static str {
        match self {
            Verdict::Met => "yes",
            Verdict::Missed => "**no**",
            Verdict::Undecided => "undecided",
            Verdict::NotMeasured | Verdict::Stated => "–",
        }
    }

    fn of(judged: Option<bool>) -> Self {
        match judged {
            Some(true) => Verdict::Met,
            Some(false) => Verdict::Missed,
            None => Verdict::Undecided,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Target {
    pub work: String,
    pub asked: String,
    pub measured: String,
    pub rounds: usize,
    pub verdict: Verdict,
}

/// What was found, in words, in how many rounds, and what it says of the bound.
struct Found(String, usize, Verdict);

impl Found {
    fn new(text: String, spread: &Spread, holds: impl Fn(f64) -> bool) -> Self {
        Found(text, spread.rounds, Verdict::of(spread.judge(holds)))
    }
}

impl Target {
    fn new(work: &str, asked: &str, found: Option<Found>) -> Self {
        let Found(measured, rounds, verdict) =
            found.unwrap_or_else(|| Found("not measured".to_owned(), 0, Verdict::NotMeasured));
        Target { work: work.to_owned(), asked: asked.to_owned(), measured, rounds, verdict }
    }
}

pub fn all(results: &[Measured]) -> Vec<Target> {
    let mut all = Vec::new();
    for sessions in [20, 100] {
        small(results, sessions, &mut all);
    }
    for ends in [Ends::Postfix, Ends::Own] {
        large(results, ends, &mut all);
    }
    all.push(one_after_the_other(results));
    half_load(results, &mut all);
    all.push(bare(results));
    for handshakes in [Handshakes::Full, Handshakes::Resumed] {
        all.push(tls(results, handshakes));
    }
    idle(results, &mut all);
    all.push(shards(results));
    all
}

/// The kinds of work that the targets are about.
mod kinds {
    use super::*;

    pub fn saturated(ends: Ends, size: usize, sessions: usize) -> Work {
        Work { ends, ..Work::plain(size, sessions) }
    }

    pub fn one_after_the_other() -> Work {
        Work { task: Task::Accept, ..Work::plain(SMALL, 1) }
    }

    pub fn half_load() -> Work {
        Work { load: Some(50), ..Work::plain(SMALL, 20) }
    }

    pub fn tls(handshakes: Handshakes) -> Work {
        Work { tls: Tls::Both, handshakes, messages_per_connection: 1, ..Work::plain(SMALL, 20) }
    }

    pub fn idle() -> Work {
        Work { task: Task::Idle, ..Work::plain(SMALL, 10_000) }
    }

    /// All on one core, a core for each role, and two shards for each role.
    pub fn shards() -> [Work; 3] {
        [("0", "0"), ("0", "1"), ("0-1", "0-1")].map(|(ingest, delivery)| {
            let (ingest_cpus, delivery_cpus) = (Some(ingest.to_owned()), Some(delivery.to_owned()));
            Work { ingest_cpus, delivery_cpus, ..Work::plain(SMALL, 20) }
        })
    }
}

/// The first result of this kind of work that was to have all these rows.
fn find<'a>(results: &'a [Measured], kind: &Work, rows: &[Subject]) -> Option<&'a Measured> {
    let fits = |result: &&Measured| {
        result.work.is_kind(kind) && rows.iter().all(|row| result.work.servers.contains(row))
    };
    results.iter().find(fits)
}

/// The first of this kind with a row of some Postfix.
fn with_postfix<'a>(results: &'a [Measured], kind: &Work) -> Option<&'a Measured> {
    let mut settings = Kind::POSTFIX.into_iter().map(Subject::Server);
    settings.find_map(|setting| find(results, kind, &[RELAY, setting]))
}

type Value = fn(&Figures) -> Option<f64>;

const RATE: Value = |figures| Some(figures.messages_per_second);
const CPU: Value = |figures| Some(figures.server_cpu_ms).filter(|cpu| *cpu > 0.0);
const P50: Value = |figures| figures.transaction.as_ref()?.p50();
const P99: Value = |figures| figures.transaction.as_ref()?.p99();

/// The setting of Postfix whose median is the best.
fn postfix(result: &Measured, value: Value, is_better: fn(&f64, &f64) -> bool) -> Option<Kind> {
    let medians = Kind::POSTFIX
        .into_iter()
        .filter_map(|kind| Some((kind, result.spread(Subject::Server(kind), value)?.median)));
    let best = medians.reduce(|best, one| if is_better(&one.1, &best.1) { one } else { best });
    best.map(|(kind, _)| kind)
}

/// The relay's messages over those of the best Postfix.
fn times_postfix(result: Option<&Measured>, bound: f64) -> Option<Found> {
    let result = result?;
    let best = postfix(result, RATE, f64::gt)?;
    let times = result.factor(RELAY, Subject::Server(best), RATE)?;
    Some(Found::new(format!("{} times {}", times.text(), best.name()), &times, |times| times >= bound))
}

/// The best Postfix's CPU over the relay's.
fn share_of_postfix(result: Option<&Measured>, bound: f64) -> Option<Found> {
    let result = result?;
    let best = postfix(result, CPU, f64::lt)?;
    let times = result.factor(Subject::Server(best), RELAY, CPU)?;
    let text = format!("{} of {}", times.with(|times| format!("1/{}", short(times))), best.name());
    Some(Found::new(text, &times, |times| times >= bound))
}

fn share_of_straight(result: Option<&Measured>, bound: f64) -> Option<Found> {
    let share = result?.factor(RELAY, Subject::Straight, RATE)?;
    Some(Found::new(format!("{} of it", share.text()), &share, |share| share >= bound))
}

fn small(results: &[Measured], sessions: usize, all: &mut Vec<Target>) {
    let work = |ends: &str| format!("end to end, 4 KiB, {sessions} sessions, {ends}");
    let (tools, own) = (work("smtp-source and smtp-sink"), work("own generator and sink"));
    let result = find(results, &kinds::saturated(Ends::Postfix, SMALL, sessions), &[RELAY]);
    all.push(Target::new(&tools, "at least 10 times the best Postfix", times_postfix(result, 10.0)));
    let asked = "at most 1/20 of the best Postfix's CPU per message";
    all.push(Target::new(&tools, asked, share_of_postfix(result, 20.0)));
    let asked = "at least 0.5 of smtp-source straight into smtp-sink";
    all.push(Target::new(&tools, asked, share_of_straight(result, 0.5)));
    let result = with_postfix(results, &kinds::saturated(Ends::Own, SMALL, sessions));
    all.push(Target::new(&own, "at least 15 times the best Postfix", times_postfix(result, 15.0)));
}

fn large(results: &[Measured], ends: Ends, all: &mut Vec<Target>) {
    let work = format!("end to end, 64 KiB, 20 sessions, {}", ends.name());
    let kind = kinds::saturated(ends, LARGE, 20);
    let result = find(results, &kind, &[RELAY, Subject::Straight]);
    let asked = "at least 0.7 of generator straight into sink";
    all.push(Target::new(&work, asked, share_of_straight(result, 0.7)));
    let result = with_postfix(results, &kind);
    let asked = "at most 1/12 of the best Postfix's CPU per message";
    all.push(Target::new(&work, asked, share_of_postfix(result, 12.0)));
}

fn one_after_the_other(results: &[Measured]) -> Target {
    let (sync, straight) = (Subject::Fdatasync, Subject::Straight);
    let result = find(results, &kinds::one_after_the_other(), &[RELAY, sync, straight]);
    let found = result.and_then(|result| {
        let [relay, syncs, trips] = [RELAY, sync, straight].map(|subject| result.values(subject, P50));
        let of = |all: &[(usize, f64)], round| all.iter().find(|one| one.0 == round).map(|one| one.1);
        let times =
            relay.iter().filter_map(|(round, took)| Some(took / (of(&syncs, *round)? + of(&trips, *round)?)));
        let times = Spread::of(&times.collect::<Vec<_>>())?;
        let [took, sync, trips] = [RELAY, sync, straight].map(|subject| result.spread(subject, P50));
        let text = format!(
            "{} times: {} ms, against {} ms of fdatasync and {} ms of round trips",
            times.text(),
            took?.text(),
            sync?.text(),
            trips?.text()
        );
        Some(Found::new(text, &times, |times| times <= 1.3))
    });
    Target::new(
        "accept only, 4 KiB, 1 session, one after the other, p50",
        "at most 1.3 times (one fdatasync + the bare round trips)",
        found,
    )
}

fn half_load(results: &[Measured], all: &mut Vec<Target>) {
    let work = "latency at 50 % load, 4 KiB";
    let result = find(results, &kinds::half_load(), &[RELAY]);
    let found = result.and_then(|result| {
        let times = result.spread(RELAY, |figures| Some(P99(figures)? / P50(figures)?))?;
        let (p50, p99) = (result.spread(RELAY, P50)?, result.spread(RELAY, P99)?);
        let text = format!("{} times: {} ms and {} ms", times.text(), p99.text(), p50.text());
        Some(Found::new(text, &times, |times| times <= 3.0))
    });
    all.push(Target::new(work, "p99 at most 3 times p50", found));
    let found = result.and_then(below_all_others);
    all.push(Target::new(work, "p99 below every other relay's p50", found));
}

/// Met when no round of the relay reaches any round of another; missed when every round reaches all of one's.
fn below_all_others(result: &Measured) -> Option<Found> {
    let p99 = result.spread(RELAY, P99)?;
    let others = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Relay);
    let others: Vec<_> = others.map(|kind| (kind, result.spread(Subject::Server(kind), P50))).collect();
    let lacking: Vec<_> =
        others.iter().filter(|(_, p50)| p50.is_none()).map(|(kind, _)| kind.name()).collect();
    if !lacking.is_empty() {
        let text = format!("not measured of {}", lacking.join("; "));
        return Some(Found(text, p99.rounds, Verdict::NotMeasured));
    }
    let others = others.into_iter().filter_map(|(kind, p50)| Some((kind, p50?)));
    let all: Vec<(Kind, Spread)> = others.collect();
    let (kind, nearest) = all.iter().min_by(|a, b| a.1.median.total_cmp(&b.1.median))?;
    let verdict = if all.iter().all(|(_, p50)| p99.most < p50.least) {
        Verdict::Met
    } else if all.iter().any(|(_, p50)| p99.least >= p50.most) {
        Verdict::Missed
    } else {
        Verdict::Undecided
    };
    let text = format!("{} ms, against {} ms of {}", p99.text(), nearest.text(), kind.name());
    Some(Found(text, p99.rounds, verdict))
}

/// Against `sluice-bench bare` on the same work.
fn bare(results: &[Measured]) -> Target {
    let result = find(results, &kinds::saturated(Ends::Own, SMALL, 20), &[RELAY, BARE]);
    let found = result.and_then(|result| {
        let times = result.factor(RELAY, BARE, CPU)?;
        let (own, least) = (result.spread(RELAY, CPU)?, result.spread(BARE, CPU)?);
        let text = format!("{} times: {} ms and {} ms", times.text(), own.text(), least.text());
        Some(Found::new(text, &times, |times| times <= 2.0))
    });
    let asked = "at most 2 times that of a program that only moves the same bytes by the same system calls";
    Target::new("accept + deliver CPU, 4 KiB, 20 sessions", asked, found)
}

fn tls(results: &[Measured], handshakes: Handshakes) -> Target {
    let name = if handshakes == Handshakes::Full { "full" } else { "resumed" };
    let result = find(results, &kinds::tls(handshakes), &[RELAY]);
    let work = format!("TLS both legs, {name} handshakes, one message on a connection");
    Target::new(&work, "at least 5 times the best Postfix", times_postfix(result, 5.0))
}

fn idle(results: &[Measured], all: &mut Vec<Target>) {
    let result = find(results, &kinds::idle(), &[RELAY]);
    let value = |of: Value| result.and_then(|result| result.spread(RELAY, of));
    let cpu = value(|figures| Some(figures.idle?.cpu_percent));
    let cpu = cpu.map(|cpu| Found::new(format!("{} %", cpu.text()), &cpu, |percent| percent < 1.0));
    all.push(Target::new("10,000 idle sessions", "less than 1 % of a core", cpu));
    let memory = value(|figures| Some(figures.idle?.start_rss_mib));
    let memory = memory.map(|mib| Found::new(format!("{} MiB", mib.text()), &mib, |mib| mib < 40.0));
    all.push(Target::new("just started", "less than 40 MiB resident", memory));
}

/// From this share of all CPU time on, the machine's cores are the limit.
pub const CORES_BUSY: f64 = 90.0;

/// The three layouts side by side, and whether the cores had more to give.
fn shards(results: &[Measured]) -> Target {
    let found = || {
        let [together, apart, twice] = kinds::shards();
        let of = |work: &Work, value: Value| find(results, work, &[RELAY])?.spread(RELAY, value);
        let (one, two) = (of(&apart, RATE)?, of(&twice, RATE)?);
        let busy: Value = |figures| Some(figures.machine?.busy_percent);
        let part = |name: &str, work: &Work| {
            let rate = of(work, RATE).map_or("not measured".to_owned(), |rate| rate.text() + "/s");
            let busy = of(work, busy).map_or(String::new(), |busy| format!(", cores {} % busy", busy.text()));
            format!("{name}: {rate}{busy}")
        };
        let limit = match of(&twice, busy)?.median >= CORES_BUSY {
            true => "the limit is the cores, which the ends share",
            false => "the cores are not the limit",
        };
        let text = format!(
            "{} times; {}; {}; {}; {limit}",
            short(two.median / one.median),
            part("both roles on one core", &together),
            part("a core for each", &apart),
            part("two shards of each", &twice),
        );
        Some(Found(text, two.rounds, Verdict::Stated))
    };
    Target::new(
        "1 → 2 shards for each role, 4 KiB",
        "whatever the cores allow, with the limit named",
        found(),
    )
}

#[cfg(test)]
#[path = "targets_tests.rs"]
mod tests;
