//! `sluice tune`: what of the host is to be changed for the relay, as a table, as a script, or done at once.
//!
//! The knobs are those of `sluice-tuning`; here is what the configuration tells them, and what is printed.

use super::{CONFIGURATION, Failed, IO_ERROR, NO, USAGE, check, print};
use crate::config::Config;
use sluice_tuning::host::Host;
use sluice_tuning::plan::{Plan, Profile};
use sluice_tuning::tune::{self, Done, Report};
use std::fmt::Write;
use std::path::Path;

/// Where the spool of a host without configuration is assumed.
const SPOOL: &str = "/var/spool/sluice";

/// What the command line asks for.
pub struct Wishes {
    /// By the number of CPUs unless given.
    pub profile: Option<Profile>,
    /// Names of knobs; empty: all.
    pub only: Vec<String>,
}

/// The configuration, where there is a file of this name: a host may be tuned before it has one.
pub fn config(path: &Path) -> Result<Option<Config>, Failed> {
    if path.exists() { check::load_for_queue(path).map(Some) } else { Ok(None) }
}

/// Prints what was found. Fails when something is to be changed.
pub fn check(config: Option<Config>, wishes: Wishes) -> Result<(), Failed> {
    let start = config.as_ref().map(start_checks).unwrap_or_default();
    let report = look(config, wishes)?;
    print(&format!("{}{start}{}", heading(&report.plan), report.table()))?;
    match report.steps().count() {
        0 => Ok(()),
        count => Err(Failed::new(NO, format_args!("{count} settings are to be changed"))),
    }
}

pub fn script(config: Option<Config>, wishes: Wishes) -> Result<(), Failed> {
    let host = sluice_tuning::hostname().unwrap_or_else(|| "this host".into());
    print(&look(config, wishes)?.script(&host))
}

pub fn apply(config: Option<Config>, wishes: Wishes, record: &Path) -> Result<(), Failed> {
    let report = look(config, wishes)?;
    let done = report.apply(&Host::this(), record).map_err(|error| Failed::io(record.display(), &error))?;
    tell(&done)
}

pub fn undo(record: &Path) -> Result<(), Failed> {
    let done = tune::undo(&Host::this(), record).map_err(|error| Failed::io(record.display(), &error))?;
    tell(&done)
}

fn look(config: Option<Config>, wishes: Wishes) -> Result<Report, Failed> {
    let plan = plan(config, wishes.profile)?;
    Report::look(&Host::this(), plan, &wishes.only).map_err(|sentence| Failed::new(USAGE, sentence))
}

fn plan(config: Option<Config>, profile: Option<Profile>) -> Result<Plan, Failed> {
    let online = sluice_tuning::cpus_online();
    let profile = profile.unwrap_or_else(|| Profile::of(online.len()));
    let (mut ingest, mut delivery, mut service) = Plan::divide(profile, &online);
    let mut spool = SPOOL.to_owned();
    if let Some(config) = config {
        (ingest, delivery) = (config.shards.ingest_cpus, config.shards.delivery_cpus);
        if !config.shards.service_cpus.is_empty() {
            service = config.shards.service_cpus;
        }
        let path = std::path::absolute(&config.spool.path).unwrap_or(config.spool.path);
        spool = path.to_str().map(str::to_owned).ok_or_else(|| {
            Failed::new(CONFIGURATION, format_args!("spool.path: {} is not UTF-8", path.display()))
        })?;
    }
    for cpus in [&mut ingest, &mut delivery, &mut service] {
        cpus.sort_unstable();
        cpus.dedup();
    }
    Ok(Plan { profile, online, ingest, delivery, service, spool })
}

fn heading(plan: &Plan) -> String {
    use sluice_tuning::cpus::show;
    format!(
        "profile {}: CPU {}; ingest {}, delivery {}, service {}; spool {}\n\n",
        plan.profile.name(),
        show(&plan.online),
        show(&plan.ingest),
        show(&plan.delivery),
        show(&plan.service),
        plan.spool
    )
}

/// What a start would say of this host, for the limits of this shell.
fn start_checks(config: &Config) -> String {
    let mut text = String::new();
    for finding in config.start_checks() {
        let _ = writeln!(text, "{:<8} {:<20} {}", "START", finding.name, finding.sentence);
    }
    text
}

fn tell(done: &[Done]) -> Result<(), Failed> {
    let mut text = String::new();
    let mut failed = 0;
    for done in done {
        let (word, sentence) = match done {
            Done::Changed(sentence) => ("changed", sentence),
            Done::LeftAlone(sentence) => ("left", sentence),
            Done::Failed(sentence) => ("FAILED", sentence),
        };
        failed += usize::from(matches!(done, Done::Failed(_)));
        let _ = writeln!(text, "{word:<8} {sentence}");
    }
    if done.is_empty() {
        text.push_str("nothing to change\n");
    }
    print(&text)?;
    match failed {
        0 => Ok(()),
        count => Err(Failed::new(IO_ERROR, format_args!("{count} settings could not be changed"))),
    }
}
