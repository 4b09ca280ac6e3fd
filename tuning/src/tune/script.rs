//! The changes as a shell script, which applies and undoes them with the same care: it looks before and after each,
//! runs on this host only, and undoes what it has done.

use super::record::RECORD;
use super::{Report, one_line};
use crate::knob::{Finding, Knob, Step};
use std::fmt::Write as _;

const FUNCTIONS: &str = include_str!("script.sh");

impl Report {
    /// `sh FILE apply`, `sh FILE undo`.
    pub fn script(&self, host_name: &str) -> String {
        let mut apply = String::new();
        for (knob, finding) in self.findings() {
            match finding {
                Finding::Wrong { sentence, steps } => {
                    let (name, purpose) = (knob.name, knob.purpose);
                    let _ = writeln!(apply, "    # {name}: {purpose}\n    # {}", one_line(sentence));
                    steps.iter().for_each(|step| apply.push_str(&command(knob, step, "")));
                }
                Finding::Advice(sentence) | Finding::Must(sentence) => {
                    let _ = writeln!(apply, "    # {}, by hand: {}", knob.name, one_line(sentence));
                }
                Finding::Fine(_) | Finding::Absent(_) => {}
            }
        }
        let steps: Vec<(&Knob, &Step)> = self.steps().collect();
        let undo: String = steps.iter().rev().map(|(knob, step)| command(knob, step, "_back")).collect();
        let (host, profile) = (one_line(host_name), self.plan.profile.name());
        format!(
            "#!/bin/sh\n\
             # The settings of {host} for the relay (profile {profile}): sh THIS-FILE apply, sh THIS-FILE undo.\n\
             # Nothing of it outlives a boot; sluice-tune.service applies it at each one.\n\
             host={}\n\
             record='{RECORD}'\n\
             {FUNCTIONS}\n\
             case $1 in\n\
             apply)\n{apply}    :\n    ;;\n\
             undo)\n{undo}    :\n    ;;\n\
             esac\n\
             exit $failed\n",
            quoted(&host)
        )
    }
}

fn command(knob: &Knob, step: &Step, back: &str) -> String {
    let word = match step {
        Step::Write { .. } => "put",
        Step::Remount { .. } => "remount",
    };
    let (place, found, wanted) = step.parts();
    let words = [knob.name, place, found, wanted].map(quoted).join(" ");
    format!("    {word}{back} {words}\n")
}

/// For a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
