//! The tables of a comparison, and the files that keep them.

use super::measure::Figures;
use super::{Cell, Kind, Options};
use crate::figures::{median, short};
use crate::place::{self, today};
use anyhow::Result;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// One measurement with its place.
pub struct Row {
    pub kind: Kind,
    pub cell: Cell,
    pub round: usize,
    pub figures: Figures,
}

pub fn markdown(options: &Options, rows: &[Row], missing: &[String]) -> String {
    let mut out = format!("# Comparison of {}\n\n{}\n", today(), machine_sentence(options));
    let _ = writeln!(
        out,
        "{} messages a measurement after {} of warm-up, {}, one recipient, everything on one machine, medians of {} \
         rounds in turns. CPU is user and system milliseconds per message ({}). Memory is the peak of the \
         proportional set size. Flushes and KiB written are what reached the block device, per message.\n",
        options.messages,
        options.warm_up,
        if options.one_per_connection { "one on a connection" } else { "many on a connection" },
        options.rounds,
        rows.first().map_or("not measured", |row| row.figures.cpu_method),
    );
    for cell in super::cells(options) {
        let _ = writeln!(
            out,
            "## {} octets, {} sessions, {}\n\n\
             | server | messages/s | CPU ms | memory MiB | flushes | KiB written | dot→250 p50 / p99 ms | \
             generator CPU ms | sink CPU ms |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|",
            cell.size,
            cell.sessions,
            cell.ends.name()
        );
        for kind in &options.servers {
            if let Some(line) = line(*kind, &of(rows, cell, *kind)) {
                out.push_str(&line);
            }
        }
        out.push_str(&factors(rows, cell));
        out.push('\n');
    }
    if !missing.is_empty() {
        out.push_str("## Missing\n\n");
        missing.iter().for_each(|sentence| out.push_str(&format!("- {sentence}\n")));
    }
    out
}

fn of(rows: &[Row], cell: Cell, kind: Kind) -> Vec<&Figures> {
    rows.iter().filter(|row| row.kind == kind && row.cell == cell).map(|row| &row.figures).collect()
}

fn middle(figures: &[&Figures], value: impl Fn(&Figures) -> Option<f64>) -> Option<f64> {
    median(&figures.iter().filter_map(|one| value(one)).collect::<Vec<_>>())
}

fn line(kind: Kind, figures: &[&Figures]) -> Option<String> {
    let text = |value: Option<f64>| value.map_or("–".to_owned(), short);
    let server = |value: Option<f64>| if kind == Kind::Limit { "–".to_owned() } else { text(value) };
    let rate = middle(figures, |f| Some(f.messages_per_second))?;
    let latency = match (middle(figures, |f| f.end_of_data_p50_ms), middle(figures, |f| f.end_of_data_p99_ms))
    {
        (Some(p50), Some(p99)) => format!("{} / {}", short(p50), short(p99)),
        _ => "–".to_owned(),
    };
    let repeats: u64 = figures.iter().filter_map(|f| f.repeats).sum();
    let repeats = if repeats > 0 { format!(" ({repeats} repeats)") } else { String::new() };
    Some(format!(
        "| {}{repeats} | {rate:.0} | {} | {} | {} | {} | {latency} | {} | {} |\n",
        kind.name(),
        server(middle(figures, |f| Some(f.server_cpu_ms))),
        server(middle(figures, |f| Some(f.memory_pss_mib))),
        server(middle(figures, |f| f.flushes)),
        server(middle(figures, |f| f.written_kib)),
        text(middle(figures, |f| Some(f.source_cpu_ms))),
        text(middle(figures, |f| Some(f.sink_cpu_ms))),
    ))
}

/// The relay against each Postfix, in a sentence.
fn factors(rows: &[Row], cell: Cell) -> String {
    let find = |kind| {
        let figures = of(rows, cell, kind);
        Some((
            middle(&figures, |f| Some(f.messages_per_second))?,
            middle(&figures, |f| Some(f.server_cpu_ms))?,
        ))
    };
    let Some((rate, cpu)) = find(Kind::Relay) else { return String::new() };
    let mut out = String::new();
    for kind in [Kind::PostfixStock, Kind::PostfixTuned] {
        if let Some((other_rate, other_cpu)) = find(kind) {
            let (faster, cheaper) = (rate / other_rate, other_cpu / cpu.max(1e-9));
            let _ = writeln!(
                out,
                "\nAgainst {}: {} times the messages per second, 1/{} of the CPU per message.",
                kind.name(),
                short(faster),
                short(cheaper)
            );
        }
    }
    out
}

/// Writes `DATE-MACHINE.md` and `.json`.
pub fn save(options: &Options, directory: &Path, text: &str, rows: &[Row], missing: &[String]) -> Result<()> {
    let measurements: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "server": row.kind.name(), "ends": row.cell.ends.name(), "size": row.cell.size,
                "sessions": row.cell.sessions, "round": row.round, "figures": row.figures,
            })
        })
        .collect();
    let all = json!({
        "date": today(), "machine": machine(options), "about": machine_sentence(options),
        "measurements": measurements, "missing": missing,
    });
    place::save(directory, &machine(options), text, &all)
}

fn machine(options: &Options) -> String {
    place::machine(options.machine.as_deref())
}

/// Hardware, kernel, file system and versions.
fn machine_sentence(options: &Options) -> String {
    format!(
        "{} Postfix {}, relay {}.\n",
        place::sentence(options.machine.as_deref(), &options.dir),
        version("/usr/sbin/postconf", &["-d", "-h", "mail_version"]),
        version(&options.relay.display().to_string(), &["--version"]),
    )
}

fn version(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
    output.map_or("not there".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Ends;
    use clap::Parser;
    use std::fs;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn row(kind: Kind, round: usize, rate: f64, cpu: f64) -> Row {
        let figures = Figures {
            messages: 10,
            seconds: 1.0,
            messages_per_second: rate,
            server_cpu_ms: cpu,
            source_cpu_ms: 0.05,
            sink_cpu_ms: 0.05,
            memory_pss_mib: 20.0,
            memory_rss_mib: 30.0,
            flushes: Some(1.0),
            written_kib: None,
            spool_writes: None,
            spool_kib: None,
            end_of_data_p50_ms: Some(1.0),
            end_of_data_p99_ms: Some(2.0),
            repeats: Some(0),
            cpu_method: "test",
        };
        Row { kind, cell: Cell { ends: Ends::Own, size: 4096, sessions: 20 }, round, figures }
    }

    #[test]
    fn tables_show_medians_factors_and_what_is_missing() {
        let options = Cli::parse_from(["compare", "--ends", "own", "--sessions", "20"]).options;
        let rows = [
            row(Kind::Relay, 1, 5_000.0, 0.1),
            row(Kind::Relay, 2, 6_000.0, 0.2),
            row(Kind::Relay, 3, 1.0, 0.3),
            row(Kind::PostfixStock, 1, 500.0, 2.0),
        ];
        let text = markdown(&options, &rows, &["Postfix, tuned: not there".to_owned()]);
        let expected = "| Sluice | 5000 | 0.200 | 20.0 | 1.00 | – | 1.00 / 2.00 | 0.050 | 0.050 |";
        assert!(text.contains(expected), "{text}");
        assert!(
            text.contains("Against Postfix, stock: 10.0 times the messages per second, 1/10.0 of the CPU"),
            "{text}"
        );
        assert!(!text.contains("| Postfix, tuned") && text.contains("- Postfix, tuned: not there"), "{text}");
    }

    #[test]
    fn a_second_result_of_a_day_does_not_replace_the_first() {
        let options = Cli::parse_from(["compare", "--machine", "a b"]).options;
        let directory = tempfile::tempdir().unwrap();
        for text in ["one", "two"] {
            save(&options, directory.path(), text, &[], &[]).unwrap();
        }
        let read =
            |ending: &str| fs::read_to_string(directory.path().join(format!("{}-a-b{ending}", today())));
        assert_eq!((read(".md").unwrap(), read("-2.md").unwrap()), ("one".to_owned(), "two".to_owned()));
        assert!(read(".json").is_ok() && read("-2.json").is_ok());
    }
}
