//! A comparison as a page and as data, and the files that keep them. A page is the command's output and nothing else:
//! what is to be said of it comes in by `--notes`.

use super::measure::Figures;
use super::origin::Origin;
use super::scenario::Work;
use super::spread::Spread;
use super::subject::Subject;
use super::{Options, pictures, tables, targets};
use crate::place;
use crate::servers::{Kind, install};
use serde::Serialize;
use serde_json::json;
use std::fmt::Write as _;
use std::path::Path;

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
    pub fn of(&self, subject: Subject) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.subject == subject)
    }

    /// With the rounds that they are of.
    pub fn values(&self, subject: Subject, value: impl Fn(&Figures) -> Option<f64>) -> Vec<(usize, f64)> {
        self.of(subject).filter_map(|row| Some((row.round, value(&row.figures)?))).collect()
    }

    pub fn spread(&self, subject: Subject, value: impl Fn(&Figures) -> Option<f64>) -> Option<Spread> {
        let values: Vec<_> = self.values(subject, value).into_iter().map(|(_, value)| value).collect();
        Spread::of(&values)
    }

    /// One over the other, of the same round each: what drifts between rounds is in both.
    pub fn factor(
        &self,
        over: Subject,
        under: Subject,
        value: impl Fn(&Figures) -> Option<f64> + Copy,
    ) -> Option<Spread> {
        let under = self.values(under, value);
        let factors = self.values(over, value).into_iter().filter_map(|(round, over)| {
            let (_, under) = under.iter().find(|(of, under)| *of == round && *under > 0.0)?;
            Some(over / under)
        });
        Spread::of(&factors.collect::<Vec<_>>())
    }
}

/// What a page says beside the figures.
pub struct About<'a> {
    pub options: &'a Options,
    pub origin: Origin,
    pub servers: &'a [Kind],
    pub missing: &'a [String],
    pub notes: Option<&'a str>,
}

pub struct Report<'a> {
    about: About<'a>,
    results: &'a [Result],
    targets: Vec<targets::Target>,
}

const PREFACE: &str = "Everything runs on this one machine: generator, server and sink share its cores and caches. \
    A figure is the median of its rounds, with the least and the greatest behind it; the rounds go through all rows \
    in turns, in an order that changes. A factor is that of figures of the same round. CPU: user and system \
    milliseconds per message of all the server's processes";

const PREFACE_TABLES: &str = "which is seconds per thousand messages. Memory: the proportional set size. Flushes and \
    KiB written: what reached the block device, per message. A percentile with fewer than ten samples above it is not \
    given. The second table of each work has what was around: how long a measurement took, how busy the cores of the \
    whole machine were (all of them are 100 %; iowait is idle time, and waiting for sockets by io_uring counts as such), \
    how much of that was neither server, ends nor this program (threads of the kernel, which belong to no server's \
    account, and other programs), how long the device had something in flight, how busy the cores were before, and \
    what an fdatasync of 4 KiB took just before.";

impl<'a> Report<'a> {
    pub fn new(about: About<'a>, results: &'a [Result]) -> Self {
        Report { about, results, targets: targets::all(results) }
    }

    /// With links to the pictures that were written: names of files, and titles.
    pub fn markdown(&self, pictures: &[(String, &str)]) -> String {
        let About { options, origin, missing, notes, .. } = &self.about;
        let method = self.results.iter().find_map(|result| Some(result.rows.first()?.figures.cpu_method));
        let mut out = format!(
            "# Comparison of {}\n\n{}\n\n{PREFACE} ({}), {PREFACE_TABLES}\n\n{}",
            place::today(),
            place::sentence(options.machine.as_deref(), &options.dir),
            method.unwrap_or("not measured"),
            origin.markdown(),
        );
        if !options.quick {
            out.push_str(&self.targets_table());
        }
        out.push_str(&self.servers_table());
        for (file, title) in pictures {
            let _ = writeln!(out, "\n![{title}]({file})");
        }
        for result in self.results {
            out.push_str(&tables::of(result, options));
        }
        if !missing.is_empty() {
            out.push_str("\n## Missing\n\n");
            missing.iter().for_each(|sentence| out.push_str(&format!("- {sentence}\n")));
        }
        if let Some(notes) = notes {
            let _ = write!(out, "\n## Notes\n\n{}\n", notes.trim());
        }
        out
    }

    fn targets_table(&self) -> String {
        let mut out = "\n## Targets\n\nMet: in every round; no: in none; undecided: the rounds disagree.\n\n\
                       | work | asked | measured | rounds | met |\n|---|---|---|--:|---|\n"
            .to_owned();
        for target in &self.targets {
            let (measured, met) = (&target.measured, target.verdict.text());
            let _ = writeln!(
                out,
                "| {} | {} | {measured} | {} | {met} |",
                target.work, target.asked, target.rounds
            );
        }
        out
    }

    fn servers_table(&self) -> String {
        let mut out =
            "\n## Servers\n\n| server | version | synced before the 250 |\n|---|---|---|\n".to_owned();
        let options = self.about.options;
        for kind in self.about.servers {
            let version = install::version(*kind, &options.relay, &options.unpacked);
            let version = version.unwrap_or("not there".to_owned());
            let _ = writeln!(out, "| {} | {version} | {} |", kind.name(), kind.synced());
        }
        out
    }

    /// Writes `DATE-MACHINE-compare.md`, `.json` and the pictures.
    pub fn save(&self, directory: &Path) -> anyhow::Result<()> {
        let options = self.about.options;
        let name = format!("{}-compare", place::machine(options.machine.as_deref()));
        let stem = place::stem(directory, &name)?;
        let about = place::sentence(options.machine.as_deref(), &options.dir);
        let mut written = Vec::new();
        for (name, title, text) in pictures::all(self.results, &format!("{}. {about}", place::today())) {
            let file = format!("{stem}-{name}.svg");
            place::write(directory, &file, &text)?;
            written.push((file, title));
        }
        place::write(directory, &format!("{stem}.md"), &self.markdown(&written))?;
        let all = json!({
            "date": place::today(), "about": about, "origin": self.about.origin,
            "targets": self.targets, "results": self.results, "missing": self.about.missing,
            "notes": self.about.notes,
        });
        place::write(directory, &format!("{stem}.json"), &serde_json::to_string_pretty(&all)?)
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
