//! `sluice tune`: what of the host is to be changed for the relay, as a table, as a script, or done at once.
//!
//! The knobs are those of `sluice-tuning`; here is what the configuration tells them, and what is printed.

use super::{CONFIGURATION, Failed, IO_ERROR, NO, USAGE, check, print};
use crate::config::{Config, Delivery, Limits, Shards};
use sluice_tuning::Severity;
use sluice_tuning::host::Host;
use sluice_tuning::plan::{Plan, Profile, Wanted};
use sluice_tuning::tune::{self, Done, Report};
use std::fmt::Write;
use std::io::ErrorKind;
use std::path::Path;

/// Where the configuration is expected; a host may be tuned before it has one there.
const CONFIG: &str = "/etc/sluice/relay.toml";
/// Where the spool of a host without configuration is assumed.
const SPOOL: &str = "/var/spool/sluice";

/// What the command line asks for.
pub struct Wishes {
    /// By the number of CPUs unless given.
    pub profile: Option<Profile>,
    /// Names of knobs; empty: all.
    pub only: Vec<String>,
    /// CPUs of ingest shards, delivery shards and the rest; they precede the configuration's.
    pub cpus: [Option<String>; 3],
}

/// What is known of the relay on this host.
pub struct Relay {
    config: Option<Config>,
    /// Where from, in words.
    source: String,
}

/// The configuration of this file; without one given, that of the usual place, or none where there is none. A file
/// that cannot be read is no reason to tune for another relay.
pub fn relay(given: Option<&Path>) -> Result<Relay, Failed> {
    let path = given.unwrap_or(Path::new(CONFIG));
    let is_absent = || std::fs::metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    if given.is_none() && is_absent() {
        return Ok(Relay { config: None, source: format!("no configuration ({CONFIG} is not there)") });
    }
    let config = check::load_for_queue(path)?;
    Ok(Relay { config: Some(config), source: format!("configuration {}", path.display()) })
}

/// Prints what was found. Fails when something is to be changed, or the relay would not start.
pub fn check(relay: &Relay, wishes: &Wishes) -> Result<(), Failed> {
    let plan = plan(relay, wishes)?;
    let (start, fatal) = start_checks(relay, wishes)?;
    let report = look(plan, wishes)?;
    print(&format!("{}{start}{}", heading(relay, &report.plan), report.table()))?;
    let (steps, musts) = (report.steps().count(), report.musts() + fatal);
    let by_hand = format!("{musts} must be by hand, or mail is lost or the relay does not start");
    match (steps, musts) {
        (0, 0) => Ok(()),
        (0, _) => Err(Failed::new(NO, format_args!("no settings are to be changed by apply; {by_hand}"))),
        (_, 0) => Err(Failed::new(NO, format_args!("{steps} settings are to be changed"))),
        _ => Err(Failed::new(NO, format_args!("{steps} settings are to be changed; {by_hand}"))),
    }
}

pub fn script(relay: &Relay, wishes: &Wishes) -> Result<(), Failed> {
    let host = sluice_tuning::hostname().unwrap_or_else(|| "this host".into());
    print(&look(plan(relay, wishes)?, wishes)?.script(&host))
}

pub fn apply(relay: &Relay, wishes: &Wishes, record: &Path) -> Result<(), Failed> {
    tell(&look(plan(relay, wishes)?, wishes)?.apply(&Host::this(), record))
}

pub fn undo(record: &Path, only: &[String]) -> Result<(), Failed> {
    tune::known(only).map_err(|sentence| Failed::new(USAGE, sentence))?;
    let done = tune::undo(&Host::this(), record, only);
    tell(&done.map_err(|error| Failed::io(record.display(), &error))?)
}

fn look(plan: Plan, wishes: &Wishes) -> Result<Report, Failed> {
    Report::look(&Host::this(), plan, &wishes.only).map_err(|sentence| Failed::new(USAGE, sentence))
}

fn plan(relay: &Relay, wishes: &Wishes) -> Result<Plan, Failed> {
    let shards = relay.config.as_ref().map(|config| &config.shards);
    let named = shards_named(wishes)?;
    let pick = |index: usize, of: fn(&Shards) -> &Vec<usize>| match wishes.cpus[index] {
        Some(_) => of(&named).clone(),
        None => shards.map(of).cloned().unwrap_or_default(),
    };
    let mut spool = SPOOL.to_owned();
    if let Some(config) = &relay.config {
        let path = std::path::absolute(&config.spool.path).unwrap_or(config.spool.path.clone());
        spool = path.to_str().map(str::to_owned).ok_or_else(|| {
            Failed::new(CONFIGURATION, format_args!("spool.path: {} is not UTF-8", path.display()))
        })?;
    }
    let wanted = Wanted {
        profile: wishes.profile,
        ingest: pick(0, |shards| &shards.ingest_cpus),
        delivery: pick(1, |shards| &shards.delivery_cpus),
        service: pick(2, |shards| &shards.service_cpus),
        spool,
    };
    let mut plan = Plan::of(&Host::this(), wanted);
    let files =
        |limits: &Limits, delivery: &Delivery| limits.files_wanted(delivery, plan.ingest.len()) as u64;
    plan.files = match &relay.config {
        Some(config) => files(&config.limits, &config.delivery),
        None => files(&Limits::default(), &Delivery::default()),
    };
    Ok(plan)
}

/// The lists of the command line, in place of those of a configuration that nobody has asked for.
fn shards_named(wishes: &Wishes) -> Result<Shards, Failed> {
    let mut named = Config::demonstration();
    let lists = wishes.cpus.each_ref().map(Option::as_deref);
    named.override_cpus(lists).map_err(|error| Failed::new(CONFIGURATION, error))?;
    Ok(named.shards)
}

fn heading(relay: &Relay, plan: &Plan) -> String {
    use sluice_tuning::cpus::show;
    format!(
        "{}; profile {}: CPU {}; ingest {}, delivery {}, service {}; spool {}\n\n",
        relay.source,
        plan.profile.name(),
        show(&plan.online),
        show(&plan.ingest),
        show(&plan.delivery),
        show(&plan.service),
        plan.spool
    )
}

/// What a start would say of this host, for the limits of this shell, and how much of it would end the start.
fn start_checks(relay: &Relay, wishes: &Wishes) -> Result<(String, usize), Failed> {
    let Some(config) = &relay.config else { return Ok((String::new(), 0)) };
    let mut config = config.clone();
    let lists = wishes.cpus.each_ref().map(Option::as_deref);
    config.override_cpus(lists).map_err(|error| Failed::new(CONFIGURATION, error))?;
    let findings = config.start_checks();
    let mut text = String::new();
    for finding in &findings {
        let word = if finding.severity == Severity::Fatal { "MUST" } else { "START" };
        let _ = writeln!(text, "{word:<8} {:<20} {}", finding.name, finding.sentence);
    }
    Ok((text, findings.iter().filter(|finding| finding.severity == Severity::Fatal).count()))
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
