//! Programs that change these settings on their own.

use super::network_cards::is_balanced;
use crate::cpus::show;
use crate::host::Host;
use crate::knob::{Finding, Knob};
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "daemons",
    purpose: "A daemon that tunes the host as well has the last word: interrupts, clocks and queues go its way.",
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Finding> {
    let mut findings = Vec::new();
    if is_balanced(host) {
        findings.push(Finding::Advice(format!(
            "irqbalance runs and moves interrupts about: systemctl disable --now irqbalance (undo: systemctl enable --now irqbalance), or IRQBALANCE_BANNED_CPULIST={} in /etc/default/irqbalance",
            show(&plan.shards())
        )));
    }
    if !host.processes("tuned").is_empty() {
        findings.push(Finding::Advice(
            "tuned runs and sets governors, sysctls and schedulers by its profile: tuned-adm off (undo: tuned-adm profile NAME), or write a profile that agrees".into(),
        ));
    }
    // The kernel knows the first 15 octets of a name.
    if !host.processes("power-profiles-").is_empty() {
        findings.push(Finding::Advice(
            "power-profiles-daemon runs and sets governors: systemctl disable --now power-profiles-daemon (undo: enable --now), or powerprofilesctl set performance".into(),
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::Fine("no other program that tunes a host runs".into()));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;
    use crate::plan::played::plan;

    #[test]
    fn each_daemon_that_tunes_is_named_with_the_way_back() {
        for (process, comm, named) in [
            ("77", "irqbalance", true),
            ("77", "tuned", true),
            ("77", "power-profiles-", true),
            ("77", "sshd", false),
            ("self", "irqbalance", false),
        ] {
            let path = format!("/proc/{process}/comm");
            let (_directory, host) = played::host(&[(&path, comm), ("/proc/78/comm", "sh")]);
            let findings = check(&host, &plan(4));
            let advised = matches!(&findings[..], [Finding::Advice(text)] if text.contains("undo"));
            assert_eq!(advised, named, "{comm}: {findings:?}");
        }
    }
}
