//! What the relay is to reach, each with what was measured. Pure.

use super::measure::Figures;
use super::report::Result as Measured;
use super::scenario::{Ends, Handshakes, Size, Task, Tls, Work};
use super::subject::Subject;
use crate::figures::short;
use crate::servers::Kind;
use serde::Serialize;

/// Octets.
const SMALL: usize = 4 * 1024;
const LARGE: usize = 64 * 1024;

const POSTFIX: [Kind; 3] = Kind::POSTFIX;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Target {
    pub work: String,
    pub asked: String,
    pub measured: String,
    /// `None`: not measured in this run, or nothing to compare it with.
    pub met: Option<bool>,
}

impl Target {
    fn new(work: &str, asked: impl Into<String>, found: Option<(String, bool)>) -> Self {
        let (measured, met) = match found {
            Some((measured, met)) => (measured, Some(met)),
            None => ("not measured".to_owned(), None),
        };
        Target { work: work.to_owned(), asked: asked.into(), measured, met }
    }
}

pub fn all(results: &[Measured]) -> Vec<Target> {
    let mut all = Vec::new();
    for sessions in [20, 100] {
        end_to_end(results, sessions, &mut all);
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

/// The result of plain work that fits.
fn find(results: &[Measured], fits: impl Fn(&Work) -> bool) -> Option<&Measured> {
    results.iter().find(|result| {
        let work = &result.work;
        work.ingest_cpus.is_none() && work.delivery_cpus.is_none() && work.recipients == 1 && fits(work)
    })
}

fn saturated(results: &[Measured], ends: Ends, size: usize, sessions: usize) -> Option<&Measured> {
    find(results, |work| {
        work.task == Task::EndToEnd
            && work.ends == ends
            && work.size == Size::Octets(size)
            && work.sessions == sessions
            && work.messages_per_connection == 0
            && work.tls == Tls::Off
            && work.load.is_none()
    })
}

type Value = fn(&Figures) -> Option<f64>;

const RATE: Value = |figures| Some(figures.messages_per_second);
const CPU: Value = |figures| Some(figures.server_cpu_ms);
const P50: Value = |figures| Some(figures.transaction.as_ref()?.p50_ms);
const P99: Value = |figures| Some(figures.transaction.as_ref()?.p99_ms);

fn relay(result: &Measured, value: Value) -> Option<f64> {
    result.median(Subject::Server(Kind::Relay), value)
}

/// Of the settings of Postfix, by `better`.
fn postfix(result: &Measured, value: Value, better: fn(f64, f64) -> f64) -> Option<f64> {
    POSTFIX.iter().filter_map(|kind| result.median(Subject::Server(*kind), value)).reduce(better)
}

fn end_to_end(results: &[Measured], sessions: usize, all: &mut Vec<Target>) {
    let work = |ends: &str| format!("end to end, 4 KiB, {sessions} sessions, {ends}");
    let (tools, own) = (work("smtp-source and smtp-sink"), work("own generator and sink"));
    let result = saturated(results, Ends::Postfix, SMALL, sessions);
    let times = result.and_then(|r| Some(relay(r, RATE)? / postfix(r, RATE, f64::max)?));
    let share = result.and_then(|r| Some(postfix(r, CPU, f64::min)? / relay(r, CPU)?));
    let straight = result.and_then(|r| Some(relay(r, RATE)? / r.median(Subject::Straight, RATE)?));
    all.push(Target::new(&tools, "at least 10 times the best Postfix", at_least(times, 10.0, "times")));
    let cpu = share.map(|share| (format!("1/{}", short(share)), share >= 20.0));
    all.push(Target::new(&tools, "at most 1/20 of the best Postfix's CPU per message", cpu));
    let asked = "at least 0.5 of smtp-source straight into smtp-sink";
    all.push(Target::new(&tools, asked, at_least(straight, 0.5, "of it")));
    let result = saturated(results, Ends::Own, SMALL, sessions);
    let times = result.and_then(|r| Some(relay(r, RATE)? / postfix(r, RATE, f64::max)?));
    all.push(Target::new(&own, "at least 15 times the best Postfix", at_least(times, 15.0, "times")));
}

fn at_least(value: Option<f64>, bound: f64, unit: &str) -> Option<(String, bool)> {
    value.map(|value| (format!("{} {unit}", short(value)), value >= bound))
}

fn large(results: &[Measured], ends: Ends, all: &mut Vec<Target>) {
    let work = format!("end to end, 64 KiB, 20 sessions, {}", ends.name());
    let result = saturated(results, ends, LARGE, 20);
    let straight = result.and_then(|r| Some(relay(r, RATE)? / r.median(Subject::Straight, RATE)?));
    let share = result.and_then(|r| Some(postfix(r, CPU, f64::min)? / relay(r, CPU)?));
    let asked = "at least 0.7 of generator straight into sink";
    all.push(Target::new(&work, asked, at_least(straight, 0.7, "of it")));
    let cpu = share.map(|share| (format!("1/{}", short(share)), share >= 12.0));
    all.push(Target::new(&work, "at most 1/12 of the best Postfix's CPU per message", cpu));
}

fn one_after_the_other(results: &[Measured]) -> Target {
    let result = find(results, |work| {
        work.task == Task::Accept
            && work.sessions == 1
            && work.size == Size::Octets(SMALL)
            && work.load.is_none()
            && work.tls == Tls::Off
    });
    let found = result.and_then(|r| {
        let (took, sync) = (relay(r, P50)?, r.median(Subject::Fdatasync, P50)?);
        let trips = r.median(Subject::Straight, P50)?;
        let times = took / (sync + trips);
        let text = format!(
            "{} times: {} ms, against {} ms of fdatasync and {} ms of round trips",
            short(times),
            short(took),
            short(sync),
            short(trips)
        );
        Some((text, times <= 1.3))
    });
    Target::new(
        "accept only, 4 KiB, 1 session, one after the other, p50",
        "at most 1.3 times (one fdatasync + the bare round trips)",
        found,
    )
}

fn half_load(results: &[Measured], all: &mut Vec<Target>) {
    let work = "latency at 50 % load, 4 KiB";
    let result = find(results, |work| {
        work.task == Task::EndToEnd && work.load == Some(50) && work.size == Size::Octets(SMALL)
    });
    let own = result.and_then(|r| Some((relay(r, P50)?, relay(r, P99)?)));
    let factor = own.map(|(p50, p99)| {
        let text = format!("{} times: {} ms and {} ms", short(p99 / p50), short(p99), short(p50));
        (text, p99 <= 3.0 * p50)
    });
    all.push(Target::new(work, "p99 at most 3 times p50", factor));
    let others = result.and_then(|r| {
        let others = Kind::ALL.iter().skip(1);
        let p50s = others.filter_map(|kind| Some((kind.name(), r.median(Subject::Server(*kind), P50)?)));
        p50s.min_by(|a, b| a.1.total_cmp(&b.1))
    });
    let found = own.zip(others).map(|((_, p99), (name, p50))| {
        (format!("{} ms, against {} ms of {name}", short(p99), short(p50)), p99 < p50)
    });
    all.push(Target::new(work, "p99 below every other relay's p50", found));
}

/// Against `sluice-bench bare` on the same work.
fn bare(results: &[Measured]) -> Target {
    let found = results.iter().find_map(|r| {
        let (own, least) = (relay(r, CPU)?, r.median(Subject::Server(Kind::Bare), CPU)?);
        let text = format!("{} times: {} ms and {} ms", short(own / least), short(own), short(least));
        Some((text, own <= 2.0 * least))
    });
    let asked = "at most 2 times that of a program that only moves the same bytes by the same system calls";
    Target::new("accept + deliver CPU, 4 KiB, 20 sessions", asked, found)
}

fn tls(results: &[Measured], handshakes: Handshakes) -> Target {
    let name = if handshakes == Handshakes::Full { "full" } else { "resumed" };
    let result = find(results, |work| work.tls == Tls::Both && work.handshakes == handshakes);
    let times = result.and_then(|r| Some(relay(r, RATE)? / postfix(r, RATE, f64::max)?));
    let work = format!("TLS both legs, {name} handshakes, one message on a connection");
    Target::new(&work, "at least 5 times the best Postfix", at_least(times, 5.0, "times"))
}

fn idle(results: &[Measured], all: &mut Vec<Target>) {
    let result = find(results, |work| work.task == Task::Idle && work.sessions >= 10_000);
    let relay = Subject::Server(Kind::Relay);
    let value = |of: Value| result.and_then(|r| r.median(relay, of));
    let cpu = value(|figures| Some(figures.idle?.cpu_percent));
    let cpu = cpu.map(|percent| (format!("{} %", short(percent)), percent < 1.0));
    all.push(Target::new("10,000 idle sessions", "less than 1 % of a core", cpu));
    let memory = value(|figures| Some(figures.idle?.start_rss_mib));
    let memory = memory.map(|mib| (format!("{} MiB", short(mib)), mib < 40.0));
    all.push(Target::new("just started", "less than 40 MiB resident", memory));
}

/// The plain rows with other CPU lists, set against the one with one shard for each role.
fn shards(results: &[Measured]) -> Target {
    let shards = |cpus: &Option<String>| {
        cpus.as_deref().map(|c| c.parse::<crate::args::Cpus>().map_or(0, |c| c.0.len()))
    };
    let rate = |ingest: usize, delivery: usize| {
        let fits = |r: &&Measured| {
            (shards(&r.work.ingest_cpus), shards(&r.work.delivery_cpus)) == (Some(ingest), Some(delivery))
        };
        results.iter().filter(fits).filter_map(|r| relay(r, RATE)).reduce(f64::max)
    };
    let found = rate(1, 1).zip(rate(2, 2));
    Target {
        work: "1 → 2 shards for each role, 4 KiB".to_owned(),
        asked: "whatever the cores allow, with the limit named".to_owned(),
        measured: found.map_or("not measured".to_owned(), |(one, two)| {
            let factor = short(two / one);
            format!(
                "{factor} times: {} and {} messages/s; the ends share the same cores",
                short(two),
                short(one)
            )
        }),
        met: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::report::Row;
    use crate::figures::Summary;

    fn row(subject: Subject, rate: f64, cpu: f64, p50_ms: f64, p99_ms: f64) -> Row {
        let transaction = Some(Summary { p50_ms, p99_ms, ..Summary::default() });
        let figures =
            Figures { messages_per_second: rate, server_cpu_ms: cpu, transaction, ..Figures::default() };
        Row { subject, round: 1, figures }
    }

    fn met(results: &[Measured], work: &str, asked: &str) -> Option<bool> {
        let all = all(results);
        let fits = |target: &&Target| target.work.contains(work) && target.asked.contains(asked);
        all.iter().find(fits).unwrap_or_else(|| panic!("{work} {asked}: {all:?}")).met
    }

    #[test]
    fn each_target_is_met_or_missed_by_its_own_numbers() {
        let relay = Subject::Server(Kind::Relay);
        let [stock, tuned, _] = POSTFIX.map(Subject::Server);
        let result = |change: &dyn Fn(&mut Work), rows| {
            let mut work = Work::plain(4096, 20);
            change(&mut work);
            Measured { work, rows }
        };
        let results = [
            result(
                &|work| work.ends = Ends::Postfix,
                vec![
                    row(Subject::Straight, 9_000.0, 0.0, 1.0, 1.0),
                    row(relay, 5_000.0, 0.1, 1.0, 1.0),
                    row(stock, 400.0, 1.9, 1.0, 1.0),
                    row(tuned, 501.0, 2.5, 1.0, 1.0),
                ],
            ),
            result(
                &|work| (work.task, work.sessions) = (Task::Accept, 1),
                vec![
                    row(Subject::Straight, 0.0, 0.0, 0.1, 1.0),
                    row(Subject::Fdatasync, 0.0, 0.0, 0.1, 1.0),
                    row(relay, 0.0, 0.1, 0.25, 1.0),
                ],
            ),
            result(
                &|work| work.load = Some(50),
                vec![row(relay, 0.0, 0.1, 1.0, 3.1), row(stock, 0.0, 0.1, 3.2, 9.0)],
            ),
        ];
        assert_eq!(met(&results, "20 sessions, smtp", "10 times"), Some(false), "501 of tuned count");
        assert_eq!(met(&results, "20 sessions, smtp", "1/20"), Some(false), "1.9 ms of stock count");
        assert_eq!(met(&results, "20 sessions, smtp", "0.5 of"), Some(true));
        assert_eq!(met(&results, "20 sessions, own", "15 times"), None);
        assert_eq!(met(&results, "accept only", "1.3 times"), Some(true));
        assert_eq!(met(&results, "50 % load", "3 times p50"), Some(false));
        assert_eq!(met(&results, "50 % load", "every other"), Some(true));
        assert_eq!(met(&results, "10,000 idle", "1 %"), None);
    }
}
