//! All knobs together: look at the host, say what is to be changed, print it as a script, change it, undo it.
//!
//! Each change is written down before it is made (knob, place, value found, value wanted), so that whatever happens in
//! between can be undone; after it the place is read again. Undoing leaves alone what somebody else has changed since.

mod change;
mod record;
mod script;
#[cfg(test)]
mod tests;

pub use change::undo;
pub use record::RECORD;

use crate::host::Host;
use crate::knob::{Finding, Knob, Step};
use crate::knobs;
use crate::mounts;
use crate::plan::Plan;
use std::fmt::Write as _;

/// What was found, knob by knob.
pub struct Report {
    pub plan: Plan,
    pub items: Vec<(&'static Knob, Vec<Finding>)>,
}

/// What became of a step.
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    Changed(String),
    /// Somebody else has changed it since, or it is not for anybody to change.
    LeftAlone(String),
    Failed(String),
}

/// That each of these names is a knob's.
///
/// # Errors
/// One that is none, in a sentence.
pub fn known(only: &[String]) -> Result<(), String> {
    match only.iter().find(|name| knobs::all().all(|knob| knob.name != **name)) {
        None => Ok(()),
        Some(unknown) => {
            let names: Vec<_> = knobs::all().map(|knob| knob.name).collect();
            Err(format!("there is no knob {unknown}; there are {}", names.join(", ")))
        }
    }
}

impl Report {
    /// Looks at the knobs of these names, or at all of them. Changes nothing.
    ///
    /// # Errors
    /// A name that no knob has.
    pub fn look(host: &Host, plan: Plan, only: &[String]) -> Result<Self, String> {
        known(only)?;
        let chosen = knobs::all().filter(|knob| only.is_empty() || only.iter().any(|name| name == knob.name));
        let look = |knob: &'static Knob| {
            let findings = (knob.check)(host, &plan).into_iter();
            (knob, findings.map(|finding| within_reach(host, finding)).collect())
        };
        let items = chosen.map(look).collect();
        Ok(Self { plan, items })
    }

    fn findings(&self) -> impl Iterator<Item = (&'static Knob, &Finding)> {
        self.items.iter().flat_map(|(knob, findings)| findings.iter().map(|finding| (*knob, finding)))
    }

    /// The changes, in order.
    pub fn steps(&self) -> impl Iterator<Item = (&'static Knob, &Step)> {
        self.findings().flat_map(|(knob, finding)| {
            let steps: &[Step] = match finding {
                Finding::Wrong { steps, .. } => steps,
                _ => &[],
            };
            steps.iter().map(move |step| (knob, step))
        })
    }

    /// What a person has to change before mail is safe.
    pub fn musts(&self) -> usize {
        self.findings().filter(|(_, finding)| matches!(finding, Finding::Must(_))).count()
    }

    /// A line for each finding.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for (knob, finding) in self.findings() {
            let (word, sentence) = match finding {
                Finding::Fine(sentence) => ("ok", sentence),
                Finding::Wrong { sentence, .. } => ("CHANGE", sentence),
                Finding::Advice(sentence) => ("BY HAND", sentence),
                Finding::Must(sentence) => ("MUST", sentence),
                Finding::Absent(sentence) => ("-", sentence),
            };
            let _ = writeln!(text, "{word:<8} {:<20} {}", knob.name, one_line(sentence));
        }
        text
    }
}

/// In a container the files are there to be read.
fn within_reach(host: &Host, finding: Finding) -> Finding {
    let is_read_only = |step: &Step| match step {
        Step::Write { path, .. } => mounts::of(host, path).is_some_and(|mount| mount.is_read_only()),
        Step::Remount { .. } => false,
    };
    match finding {
        Finding::Wrong { sentence, steps } if steps.iter().any(is_read_only) => Finding::Advice(format!(
            "{sentence}; it is read-only here, change it on the host of this container"
        )),
        other => other,
    }
}

fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}
