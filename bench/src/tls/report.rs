//! The table of TLS measurements.

use super::handshakes::Kind as Session;
use super::{Figures, Kind, Options};
use crate::figures::{median, short};
use crate::place;
use anyhow::Result;
use std::fmt::Write as _;
use std::path::Path;

pub const CLEAR_OCTETS: &str = "64 KiB messages, no TLS";
pub const TLS_OCTETS: &str = "64 KiB messages, STARTTLS";

fn middle(all: &[Figures], server: Kind, work: &str, value: impl Fn(&Figures) -> f64) -> Option<f64> {
    median(&all.iter().filter(|f| f.server == server && f.work == work).map(value).collect::<Vec<_>>())
}

/// Server CPU in milliseconds for one session or MiB.
fn cost(all: &[Figures], server: Kind, work: &str) -> Option<f64> {
    middle(all, server, work, |f| f.server_cpu_seconds * 1e3 / f.amount)
}

pub fn markdown(options: &Options, all: &[Figures]) -> String {
    let mut out = format!(
        "# TLS, {}\n\n{}\n\nCertificate with a key {}, {} clients at a time, STARTTLS. Client and server share \
         the machine's cores; medians of {} rounds in turns. Messages are stored and not delivered. CPU is user and \
         system time of all the server's processes.\n",
        place::today(),
        place::sentence(options.machine.as_deref(), &options.dir),
        options.key,
        options.sessions,
        options.rounds,
    );
    out.push_str(
        "\n| sessions | server | sessions/s | server CPU ms each | client CPU ms each |\n|---|---|--:|--:|--:|\n",
    );
    for session in [Session::Clear, Session::Full, Session::Resumed] {
        lines(&mut out, options, all, session.name());
    }
    out.push_str(
        "\n| octets | server | MiB/s | server CPU ms each MiB | client CPU ms each MiB |\n|---|---|--:|--:|--:|\n",
    );
    for work in [CLEAR_OCTETS, TLS_OCTETS] {
        lines(&mut out, options, all, work);
    }
    out.push_str(
        "\nWhat TLS alone costs, the difference to the same without it:\n\n\
         | server | CPU s for 1,000 full handshakes | full ones for each CPU second | CPU s for 1,000 resumed ones | \
         resumed ones for each CPU second | CPU ms for each MiB |\n|---|--:|--:|--:|--:|--:|\n",
    );
    for &server in &options.servers {
        let over = |work: &str, base: &str| Some(cost(all, server, work)? - cost(all, server, base)?);
        let text = |value: Option<f64>| value.map_or("–".to_owned(), short);
        let each = |value: Option<f64>| value.filter(|ms| *ms > 0.0).map(|ms| 1e3 / ms);
        let clear = Session::Clear.name();
        let (full, resumed) = (over(Session::Full.name(), clear), over(Session::Resumed.name(), clear));
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            server.name(),
            text(full),
            text(each(full)),
            text(resumed),
            text(each(resumed)),
            text(over(TLS_OCTETS, CLEAR_OCTETS)),
        );
    }
    out
}

fn lines(out: &mut String, options: &Options, all: &[Figures], work: &str) {
    for &server in &options.servers {
        let of =
            |value: &dyn Fn(&Figures) -> f64| middle(all, server, work, value).map_or("–".to_owned(), short);
        let _ = writeln!(
            out,
            "| {work} | {} | {} | {} | {} |",
            server.name(),
            of(&|f| f.amount / f.seconds),
            of(&|f| f.server_cpu_seconds * 1e3 / f.amount),
            of(&|f| f.client_cpu_seconds * 1e3 / f.amount),
        );
    }
}

pub fn save(options: &Options, directory: &Path, text: &str, all: &[Figures]) -> Result<()> {
    let name = format!("{}-tls", place::machine(options.machine.as_deref()));
    place::save(directory, &name, text, &serde_json::to_value(all)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn what_tls_costs_is_the_difference_to_a_session_without() {
        let options = Cli::parse_from(["tls", "--servers", "relay"]).options;
        let figures = |work, cpu| Figures {
            server: Kind::Relay,
            work,
            round: 1,
            amount: 1000.0,
            seconds: 2.0,
            server_cpu_seconds: cpu,
            client_cpu_seconds: 1.0,
        };
        let all = [
            figures(Session::Clear.name(), 0.1),
            figures(Session::Full.name(), 0.6),
            figures(Session::Resumed.name(), 0.35),
        ];
        let text = markdown(&options, &all);
        assert!(text.contains("| Sluice | 0.500 | 2000 | 0.250 | 4000 | – |"), "{text}");
    }
}
