//! What a run under abuse found, against its bounds, and its table.

use super::{Options, Outcome, Phase};
use crate::place;
use anyhow::Result;
use std::fmt::Write as _;
use std::path::Path;

/// The quiet p99 that attacks are measured against: the larger of the first and the last phase, which differ by what
/// else the machine did meanwhile.
fn quiet_p99(phases: &[Phase]) -> f64 {
    [phases.first(), phases.last()].into_iter().flatten().map(|phase| phase.p99_ms).fold(0.0, f64::max)
}

/// Each bound that was broken, in words.
pub fn faults(
    options: &Options,
    phases: &[Phase],
    acknowledged: u64,
    delivered: u64,
    damaged: u64,
) -> Vec<String> {
    let mut faults = Vec::new();
    let bound = (quiet_p99(phases) * options.factor).max(options.allowance.as_secs_f64() * 1e3);
    for phase in phases {
        if phase.p99_ms > bound {
            faults.push(format!("{}: p99 is {:.2} ms, the bound {bound:.2} ms", phase.name, phase.p99_ms));
        }
        if phase.failed > 0 {
            faults.push(format!("{}: {} messages of the normal client failed", phase.name, phase.failed));
        }
        if phase.memory_mib > options.memory_mib as f64 {
            faults.push(format!("{}: {:.0} MiB resident", phase.name, phase.memory_mib));
        }
    }
    if delivered < acknowledged {
        faults.push(format!("{} of {acknowledged} acknowledged messages are lost", acknowledged - delivered));
    }
    if damaged > 0 {
        faults.push(format!("{damaged} messages are damaged"));
    }
    faults
}

pub fn markdown(options: &Options, outcome: &Outcome) -> String {
    let mut out = format!(
        "# Abuse, {}\n\n{}\n\n\
         A normal client sends {} messages of 4 KiB a second, five on a connection, {} s in each phase, while others \
         attack: {} connections that say nothing, {} that send content at one octet a second (both from {} \
         addresses), {} connection attempts a second from one address, {} recipients a second that are refused. \
         Latency is that of a whole transaction, from when its message was due. The attackers run on the same machine, at \
         nice 19: they would be other machines. CPU in percent of one core.\n\n\
         | phase | messages | p50 ms | p99 ms | max ms | p99 / quiet | relay CPU | attackers' CPU | relay RSS MiB | \
         held | ended | slow octets | greeted | refused | failed | recipients |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        place::today(),
        place::sentence(options.machine.as_deref(), &options.dir),
        options.rate,
        options.seconds,
        options.idle,
        options.slow,
        options.addresses,
        options.connects,
        options.recipients,
    );
    let quiet = quiet_p99(&outcome.phases);
    for phase in &outcome.phases {
        let counts = &phase.counts;
        let _ = writeln!(
            out,
            "| {} | {} | {:.2} | {:.2} | {:.1} | {:.2} | {:.1} % | {:.1} % | {:.0} | {} | {} | {} | {} | {} | {} | {} |",
            phase.name,
            phase.accepted,
            phase.p50_ms,
            phase.p99_ms,
            phase.max_ms,
            phase.p99_ms / quiet,
            phase.relay_cpu,
            phase.attack_cpu,
            phase.memory_mib,
            counts.held,
            counts.ended,
            counts.octets,
            counts.greeted,
            counts.refused,
            counts.failed,
            counts.recipients,
        );
    }
    let _ = writeln!(
        out,
        "\n{} messages were acknowledged, {} arrived intact, {} damaged. Held: idle and slow connections that stood \
         at the end of the phase; ended: those that the relay ended or refused. Greeted, refused, failed: attempts of \
         the flood.",
        outcome.acknowledged, outcome.delivered, outcome.damaged
    );
    match outcome.faults.as_slice() {
        [] => out.push_str("All bounds held.\n"),
        faults => faults.iter().for_each(|fault| out.push_str(&format!("- {fault}\n"))),
    }
    out
}

pub fn save(options: &Options, directory: &Path, text: &str, outcome: &Outcome) -> Result<()> {
    let name = format!("{}-abuse", place::machine(options.machine.as_deref()));
    place::save(directory, &name, text, &serde_json::to_value(outcome)?)
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

    fn phase(name: &'static str, p99_ms: f64) -> Phase {
        Phase {
            name,
            accepted: 10,
            failed: 0,
            p50_ms: 1.0,
            p99_ms,
            max_ms: 9.0,
            relay_cpu: 5.0,
            attack_cpu: 5.0,
            memory_mib: 30.0,
            counts: Default::default(),
        }
    }

    #[test]
    fn every_bound_that_is_broken_is_named() {
        let options = Cli::parse_from(["abuse"]).options;
        let good = [phase("quiet", 2.0), phase("all", 5.9), phase("quiet again", 1.0)];
        assert!(faults(&options, &good, 30, 30, 0).is_empty());
        let mut bad = good.clone();
        (bad[1].p99_ms, bad[1].failed, bad[1].memory_mib) = (6.1, 1, 1025.0);
        assert_eq!(faults(&options, &bad, 30, 29, 1).len(), 5);
        let allowed = Cli::parse_from(["abuse", "--allowance", "7ms"]).options;
        assert_eq!(faults(&allowed, &bad, 30, 30, 0).len(), 2, "the p99 is allowed");
    }

    #[test]
    fn the_table_has_a_line_for_each_phase() {
        let options = Cli::parse_from(["abuse"]).options;
        let phases = vec![phase("quiet", 2.0), phase("all at once", 4.0), phase("quiet again", 1.0)];
        let outcome = Outcome { phases, acknowledged: 3, delivered: 3, damaged: 0, faults: Vec::new() };
        let text = markdown(&options, &outcome);
        assert!(text.contains("| all at once | 10 | 1.00 | 4.00 | 9.0 | 2.00 |"), "{text}");
        assert!(text.contains("All bounds held."), "{text}");
    }
}
