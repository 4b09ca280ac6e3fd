//! Tables, pictures and data of a comparison, and the files that keep them.

use super::chart::{self, Bar, Panel};
use super::measure::Figures;
use super::scenario::{Task, Work};
use super::subject::Subject;
use super::{Options, targets};
use crate::figures::{median, short};
use crate::place;
use crate::servers::{Kind, install};
use serde::Serialize;
use serde_json::json;
use std::fmt::Write as _;
use std::path::Path;

/// From this share of all CPU time on, generator and sink are what is measured.
const ENDS_SHARE: f64 = 0.8;
/// The same from this share of the straight row's rate.
const STRAIGHT_SHARE: f64 = 0.8;

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub subject: Subject,
    pub round: usize,
    pub figures: Figures,
}

/// All measurements of one kind of work.
#[derive(Clone, Debug, Serialize)]
pub struct Result {
    pub work: Work,
    pub rows: Vec<Row>,
}

impl Result {
    fn of(&self, subject: Subject) -> impl Iterator<Item = &Figures> {
        self.rows.iter().filter(move |row| row.subject == subject).map(|row| &row.figures)
    }

    pub fn median(&self, subject: Subject, value: impl Fn(&Figures) -> Option<f64>) -> Option<f64> {
        median(&self.of(subject).filter_map(value).collect::<Vec<_>>())
    }
}

pub struct Report<'a> {
    options: &'a Options,
    servers: &'a [Kind],
    results: &'a [Result],
    missing: &'a [String],
    targets: Vec<targets::Target>,
}

impl<'a> Report<'a> {
    pub fn new(
        options: &'a Options,
        servers: &'a [Kind],
        results: &'a [Result],
        missing: &'a [String],
    ) -> Self {
        Report { options, servers, results, missing, targets: targets::all(results) }
    }

    /// With links to the pictures, when there are some: `stem` is the beginning of their names.
    pub fn markdown(&self, stem: Option<&str>) -> String {
        let mut out = format!(
            "# Comparison of {}\n\n{}\n\nEverything runs on this one machine: {}. Medians of the rounds, which go \
             through all rows in turns. CPU: user and system milliseconds per message of all the server's processes \
             ({}), which is seconds per thousand messages. Memory: the peak of the proportional set size. Flushes and \
             KiB written: what reached the block device, per message.\n",
            place::today(),
            place::sentence(self.options.machine.as_deref(), &self.options.dir),
            "generator, server and sink share its cores and caches",
            self.results
                .iter()
                .find_map(|r| Some(r.rows.first()?.figures.cpu_method))
                .unwrap_or("not measured"),
        );
        if !self.options.quick {
            out.push_str(&self.targets_table());
        }
        out.push_str(&self.servers_table());
        for (name, title, _) in stem.iter().flat_map(|_| PICTURES) {
            let _ = writeln!(out, "\n![{title}]({}-{name}.svg)", stem.unwrap_or_default());
        }
        for result in self.results {
            out.push_str(&table(result));
        }
        if !self.missing.is_empty() {
            out.push_str("\n## Missing\n\n");
            self.missing.iter().for_each(|sentence| out.push_str(&format!("- {sentence}\n")));
        }
        out
    }

    fn targets_table(&self) -> String {
        let mut out = "\n## Targets\n\n| work | asked | measured | met |\n|---|---|---|---|\n".to_owned();
        for target in &self.targets {
            let met = match target.met {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "–",
            };
            let _ = writeln!(out, "| {} | {} | {} | {met} |", target.work, target.asked, target.measured);
        }
        out
    }

    fn servers_table(&self) -> String {
        let mut out =
            "\n## Servers\n\n| server | version | synced before the 250 |\n|---|---|---|\n".to_owned();
        for kind in self.servers {
            let version = install::version(*kind, &self.options.relay, &self.options.unpacked);
            let version = version.unwrap_or("not there".to_owned());
            let _ = writeln!(out, "| {} | {version} | {} |", kind.name(), kind.synced());
        }
        out
    }

    /// Writes `DATE-MACHINE-compare.md`, `.json` and the pictures.
    pub fn save(&self, directory: &Path) -> anyhow::Result<()> {
        let name = format!("{}-compare", place::machine(self.options.machine.as_deref()));
        let stem = place::stem(directory, &name)?;
        place::write(directory, &format!("{stem}.md"), &self.markdown(Some(&stem)))?;
        let all = json!({
            "date": place::today(),
            "about": place::sentence(self.options.machine.as_deref(), &self.options.dir),
            "targets": self.targets, "results": self.results, "missing": self.missing,
        });
        place::write(directory, &format!("{stem}.json"), &serde_json::to_string_pretty(&all)?)?;
        for (name, title, picture) in PICTURES {
            let panels: Vec<_> = self.results.iter().filter_map(|result| panel(result, picture)).collect();
            if !panels.is_empty() {
                let text = chart::svg(title, picture.unit, &panels);
                place::write(directory, &format!("{stem}-{name}.svg"), &text)?;
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Picture {
    unit: &'static str,
    value: fn(&Figures) -> Option<f64>,
    /// Rows without a server belong to it too.
    straight: bool,
}

const PICTURES: [(&str, &str, Picture); 3] = [
    (
        "rate",
        "Messages per second",
        Picture { unit: "messages/s", value: |figures| Some(figures.messages_per_second), straight: true },
    ),
    (
        "cpu",
        "CPU of the server for a thousand messages",
        Picture { unit: "seconds", value: |figures| Some(figures.server_cpu_ms), straight: false },
    ),
    (
        "latency",
        "Final dot to 250, 99th percentile",
        Picture {
            unit: "milliseconds",
            value: |figures| Some(figures.end_of_data.as_ref()?.p99_ms),
            straight: true,
        },
    ),
];

fn panel(result: &Result, picture: Picture) -> Option<Panel> {
    if result.work.task == Task::Idle {
        return None;
    }
    let bars: Vec<_> = result
        .work
        .servers
        .iter()
        .filter(|subject| picture.straight || matches!(subject, Subject::Server(_)))
        .filter_map(|subject| {
            let value = result.median(*subject, picture.value)?;
            Some(Bar { label: subject.name(), value, color: color(*subject) })
        })
        .collect();
    (!bars.is_empty()).then(|| Panel { title: result.work.title(), bars })
}

fn color(subject: Subject) -> &'static str {
    match subject {
        Subject::Straight | Subject::Fdatasync => "#b0b0b0",
        Subject::Server(Kind::Relay) => "#1f77b4",
        Subject::Server(_) => "#e08a3c",
    }
}

fn table(result: &Result) -> String {
    let work = &result.work;
    if work.task == Task::Idle {
        return idle_table(result);
    }
    let mut out = format!(
        "\n## {}\n\nScenario `{}`, {} rounds, {} messages in the longest measurement.\n\n\
         | server | messages/s | CPU ms | memory MiB | flushes | KiB written | dot→250 p50 / p99 / p99.9 ms | \
         transaction p50 / p99 ms | generator CPU ms | sink CPU ms |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        capital(&work.title()),
        work.name,
        work.rounds,
        result.rows.iter().map(|row| row.figures.messages).max().unwrap_or(0),
    );
    for subject in &work.servers {
        if let Some(line) = line(result, *subject) {
            out.push_str(&line);
        }
    }
    for subject in &work.servers {
        out.push_str(&limit_sentence(result, *subject));
    }
    out + &factors(result)
}

fn line(result: &Result, subject: Subject) -> Option<String> {
    let text = |value: Option<f64>| value.map_or("–".to_owned(), short);
    let of = |value: fn(&Figures) -> Option<f64>| text(result.median(subject, value));
    let server = |value: fn(&Figures) -> Option<f64>| match subject {
        Subject::Server(_) => of(value),
        _ => "–".to_owned(),
    };
    let end = |value: fn(&Figures) -> Option<f64>| match subject {
        Subject::Fdatasync => "–".to_owned(),
        _ => of(value),
    };
    let rate = result.median(subject, |f| Some(f.messages_per_second))?;
    let repeats: u64 = result.of(subject).filter_map(|f| f.repeats).sum();
    let mut name = subject.name().to_owned();
    if let Some(saturated) = result.median(subject, |f| f.saturated_rate) {
        name += &format!(" (saturated {saturated:.0}/s)");
    }
    if repeats > 0 {
        name += &format!(" ({repeats} repeats)");
    }
    Some(format!(
        "| {name} | {rate:.0} | {} | {} | {} | {} | {} / {} / {} | {} / {} | {} | {} |\n",
        server(|f| Some(f.server_cpu_ms)),
        server(|f| Some(f.memory_pss_mib)),
        server(|f| f.flushes),
        server(|f| f.written_kib),
        of(|f| Some(f.end_of_data.as_ref()?.p50_ms)),
        of(|f| Some(f.end_of_data.as_ref()?.p99_ms)),
        of(|f| Some(f.end_of_data.as_ref()?.p999_ms)),
        of(|f| Some(f.transaction.as_ref()?.p50_ms)),
        of(|f| Some(f.transaction.as_ref()?.p99_ms)),
        end(|f| Some(f.source_cpu_ms)),
        end(|f| Some(f.sink_cpu_ms)),
    ))
}

/// Says it when generator and sink are what limits the server's row.
fn limit_sentence(result: &Result, subject: Subject) -> String {
    if !matches!(subject, Subject::Server(_)) || result.work.load.is_some() {
        return String::new();
    }
    let of = |value: fn(&Figures) -> Option<f64>| result.median(subject, value);
    let (Some(rate), Some(server)) = (of(|f| Some(f.messages_per_second)), of(|f| Some(f.server_cpu_ms)))
    else {
        return String::new();
    };
    let ends = of(|f| Some(f.source_cpu_ms + f.sink_cpu_ms)).unwrap_or(0.0);
    let share = ends / (ends + server).max(1e-9);
    let straight = result.median(Subject::Straight, |f| Some(f.messages_per_second));
    let mut reasons = Vec::new();
    if let Some(straight) = straight.filter(|straight| rate >= STRAIGHT_SHARE * straight) {
        let percent = rate / straight * 100.0;
        reasons.push(format!("it reaches {percent:.0} % of the row without a server"));
    }
    if share >= ENDS_SHARE {
        reasons.push(format!("they take {:.0} % of all CPU time", share * 100.0));
    }
    if reasons.is_empty() {
        return String::new();
    }
    let reasons = reasons.join(", and ");
    format!("\n**Generator and sink are the limit of {} here: {reasons}. It can do more.**\n", subject.name())
}

/// The relay against each other server, in a sentence.
fn factors(result: &Result) -> String {
    let find = |kind| {
        let subject = Subject::Server(kind);
        let rate = result.median(subject, |f| Some(f.messages_per_second))?;
        Some((rate, result.median(subject, |f| Some(f.server_cpu_ms))?))
    };
    let Some((rate, cpu)) = find(Kind::Relay) else { return String::new() };
    let sentences: Vec<_> = Kind::ALL[1..]
        .iter()
        .filter_map(|kind| {
            let (other_rate, other_cpu) = find(*kind)?;
            let (faster, cheaper) = (rate / other_rate, other_cpu / cpu.max(1e-9));
            let name = kind.name();
            Some(format!(
                "{} times the messages and 1/{} of the CPU of {name}",
                short(faster),
                short(cheaper)
            ))
        })
        .collect();
    match (sentences.is_empty(), result.work.load) {
        (true, _) | (_, Some(_)) => String::new(),
        (false, None) => format!("\nSluice: {}.\n", sentences.join("; ")),
    }
}

fn idle_table(result: &Result) -> String {
    let mut out = format!(
        "\n## {}\n\n| server | resident at start, MiB | resident with the sessions, MiB | CPU, % of a core |\n\
         |---|--:|--:|--:|\n",
        capital(&result.work.title())
    );
    for subject in &result.work.servers {
        let of = |value: fn(&super::idle::Figures) -> f64| {
            result.median(*subject, |figures| figures.idle.as_ref().map(value)).map_or("–".to_owned(), short)
        };
        let (start, full, cpu) = (of(|i| i.start_rss_mib), of(|i| i.rss_mib), of(|i| i.cpu_percent));
        let _ = writeln!(out, "| {} | {start} | {full} | {cpu} |", subject.name());
    }
    out
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Summary;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn row(subject: Subject, round: usize, rate: f64, cpu: f64) -> Row {
        let latency = Summary { p50_ms: 1.0, p99_ms: 2.0, p999_ms: 3.0, ..Summary::default() };
        let figures = Figures {
            messages: 10,
            seconds: 1.0,
            messages_per_second: rate,
            server_cpu_ms: cpu,
            source_cpu_ms: 0.05,
            sink_cpu_ms: 0.05,
            memory_pss_mib: 20.0,
            flushes: Some(1.0),
            end_of_data: Some(latency.clone()),
            transaction: Some(latency),
            repeats: Some(0),
            cpu_method: "test",
            ..Figures::default()
        };
        Row { subject, round, figures }
    }

    fn result() -> Result {
        let relay = Subject::Server(Kind::Relay);
        let rows = vec![
            row(Subject::Straight, 1, 6_200.0, 0.0),
            row(relay, 1, 5_000.0, 0.1),
            row(relay, 2, 6_000.0, 0.02),
            row(relay, 3, 1.0, 0.3),
            row(Subject::Server(Kind::PostfixStock), 1, 500.0, 2.0),
        ];
        Result { work: Work::plain(4096, 20), rows }
    }

    #[test]
    fn tables_show_medians_factors_limits_and_what_is_missing() {
        let options = Cli::parse_from(["compare"]).options;
        let (results, missing) = ([result()], ["Exim: not there".to_owned()]);
        let servers = [Kind::PostfixStock];
        let text = Report::new(&options, &servers, &results, &missing).markdown(None);
        for expected in [
            "| Sluice | 5000 | 0.100 | 20.0 | 1.00 | – | 1.00 / 2.00 / 3.00 | 1.00 / 2.00 | 0.050 | 0.050 |",
            "Sluice: 10.0 times the messages and 1/20.0 of the CPU of Postfix, stock.",
            "limit of Sluice here: it reaches 81 % of the row without a server. It can do more.",
            "| end to end, 4 KiB, 20 sessions, own generator and sink | at least 15 times the best Postfix | 10.0 times \
             | **no** |",
            "- Exim: not there",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(!text.contains("| Exim |") && !text.contains("limit of Postfix"), "{text}");
    }

    #[test]
    fn a_second_result_of_a_day_does_not_replace_the_first() {
        let options = Cli::parse_from(["compare", "--machine", "a b"]).options;
        let directory = tempfile::tempdir().unwrap();
        let results = [result()];
        for _ in 0..2 {
            Report::new(&options, &[], &results, &[]).save(directory.path()).unwrap();
        }
        let mut names: Vec<_> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let stem = format!("{}-a-b-compare", place::today());
        let mut expected = Vec::new();
        for stem in [stem.clone(), format!("{stem}-2")] {
            let endings = ["-cpu.svg", "-latency.svg", "-rate.svg", ".json", ".md"];
            expected.extend(endings.map(|ending| format!("{stem}{ending}")));
            let text = std::fs::read_to_string(directory.path().join(format!("{stem}.md"))).unwrap();
            assert!(text.contains(&format!("({stem}-rate.svg)")), "{text}");
        }
        expected.sort();
        assert_eq!(names, expected);
    }
}
