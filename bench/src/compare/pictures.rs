//! The pictures of a comparison: rates of saturated servers, CPU, latencies. Pure.

use super::chart::{self, Bar, Panel};
use super::measure::Figures;
use super::report::Result;
use super::scenario::Task;
use super::subject::Subject;
use crate::servers::Kind;

#[derive(Clone, Copy)]
struct Picture {
    unit: &'static str,
    value: fn(&Figures) -> Option<f64>,
    /// Rows without a server belong to it too.
    straight: bool,
    /// Open loops belong to it: the figure is not the rate that was asked for.
    open_loop: bool,
}

const PICTURES: [(&str, &str, Picture); 3] = [
    (
        "rate",
        "Messages per second",
        Picture {
            unit: "messages/s",
            value: |figures| Some(figures.messages_per_second),
            straight: true,
            open_loop: false,
        },
    ),
    (
        "cpu",
        "CPU of the server for a thousand messages",
        Picture {
            unit: "seconds",
            value: |figures| Some(figures.server_cpu_ms).filter(|cpu| *cpu > 0.0),
            straight: false,
            open_loop: true,
        },
    ),
    (
        "latency",
        "Final dot to 250, 99th percentile",
        Picture {
            unit: "milliseconds",
            value: |figures| figures.end_of_data.as_ref()?.p99(),
            straight: true,
            open_loop: true,
        },
    ),
];

/// Name, title and SVG of each that has something to show.
pub fn all(results: &[Result], about: &str) -> Vec<(&'static str, &'static str, String)> {
    let mut all = Vec::new();
    for (name, title, picture) in PICTURES {
        let panels: Vec<_> = results.iter().filter_map(|result| panel(result, picture)).collect();
        if !panels.is_empty() {
            let how = "Bars: the median of the rounds; lines: from the least to the greatest.";
            all.push((name, title, chart::svg(title, &[about, how], picture.unit, &panels)));
        }
    }
    all
}

fn panel(result: &Result, picture: Picture) -> Option<Panel> {
    let work = &result.work;
    if work.task == Task::Idle || (work.is_open_loop() && !picture.open_loop) {
        return None;
    }
    let is_shown = |subject: &&Subject| match subject {
        Subject::Server(_) => true,
        Subject::Straight => picture.straight,
        Subject::Fdatasync => false,
    };
    let bars = work.servers.iter().filter(is_shown).filter_map(|subject| {
        let value = result.spread(*subject, picture.value)?;
        let label = match subject {
            Subject::Server(kind) if !is_synced(*kind) => format!("{} (not synced)", subject.name()),
            _ => subject.name().to_owned(),
        };
        Some(Bar { label, value, color: color(*subject) })
    });
    let bars: Vec<Bar> = bars.collect();
    let rounds = bars.iter().map(|bar| bar.value.rounds);
    let (least, most) = (rounds.clone().min()?, rounds.max()?);
    let rounds = if least == most { most.to_string() } else { format!("{least} to {most}") };
    let title = format!("{}; {rounds} {}", work.title(), if most == 1 { "round" } else { "rounds" });
    Some(Panel { title, bars })
}

/// Whether a message is on the disk when it is acknowledged.
fn is_synced(kind: Kind) -> bool {
    !kind.synced().starts_with("nothing")
}

fn color(subject: Subject) -> &'static str {
    match subject {
        Subject::Straight | Subject::Fdatasync => "#b0b0b0",
        Subject::Server(Kind::Relay) => "#1f77b4",
        Subject::Server(kind) if is_synced(kind) => "#e08a3c",
        Subject::Server(_) => "#f2cfae",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::report::Row;
    use crate::compare::scenario::Work;

    fn result(work: Work) -> Result {
        let row = |subject| {
            let figures = Figures { messages_per_second: 700.0, server_cpu_ms: 0.1, ..Figures::default() };
            Row { subject, round: 1, figures }
        };
        let subjects = [Subject::Straight, Subject::Fdatasync, Subject::Server(Kind::OpenSmtpd)];
        let work = Work { servers: subjects.to_vec(), ..work };
        Result { work, rows: subjects.map(row).to_vec() }
    }

    #[test]
    fn a_picture_shows_what_its_figure_says_something_of() {
        let plain = all(&[result(Work::plain(4096, 1))], "here.");
        let names: Vec<_> = plain.iter().map(|(name, ..)| *name).collect();
        assert_eq!(names, ["rate", "cpu"], "no latency was measured");
        let rate = &plain[0].2;
        for part in ["straight (no server)", "OpenSMTPD (not synced)", "1 session, ", "; 1 round<", "here.<"]
        {
            assert!(rate.contains(part), "{part}: {rate}");
        }
        assert!(!rate.contains("fdatasync"), "{rate}");
        let open = all(&[result(Work { load: Some(50), ..Work::plain(4096, 20) })], "here.");
        assert_eq!(open.iter().map(|(name, ..)| *name).collect::<Vec<_>>(), ["cpu"]);
    }
}
