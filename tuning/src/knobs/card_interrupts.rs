//! Which CPU takes a card's interrupts.

use super::network_cards::{cpu_of_queue, for_each, interrupts, is_balanced};
use crate::cpus::show;
use crate::host::Host;
use crate::knob::{Finding, Knob};
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "card-interrupts",
    purpose: "The queues of a card interrupt the CPUs of the ingest shards in turn; a single queue those that are kept for the kernel.",
    check: |host, plan| for_each(host, |card| check(host, plan, card)),
};

fn check(host: &Host, plan: &Plan, card: &str) -> Vec<Finding> {
    let interrupts = interrupts(host, card);
    let cpus = cpu_of_queue(plan, interrupts.len());
    if cpus.is_none() && !plan.has_shards_apart() {
        return Vec::new();
    }
    let check = |(index, irq): (usize, &String)| {
        let path = format!("/proc/irq/{irq}/smp_affinity_list");
        let wanted = cpus.as_ref().map_or_else(|| show(&plan.service), |cpus| cpus[index].to_string());
        let found = host.read(&path)?;
        let effective = host.read(&format!("/proc/irq/{irq}/effective_affinity_list"));
        let is_there = found == wanted || effective.is_some_and(|cpus| cpus == wanted);
        Some(match is_there {
            true => Finding::Fine(format!("interrupt {irq} of {card} goes to CPU {wanted}")),
            false => Finding::wrong(&path, found, &wanted),
        })
    };
    let findings: Vec<Finding> = interrupts.iter().enumerate().filter_map(check).collect();
    let wrong = findings.iter().filter(|finding| matches!(finding, Finding::Wrong { .. })).count();
    if wrong == 0 || !is_balanced(host) {
        return findings;
    }
    vec![Finding::Advice(format!(
        "{wrong} interrupts of {card} are elsewhere, and irqbalance, which runs, would move them away again: stop it (systemctl disable --now irqbalance; undo: systemctl enable --now irqbalance), or keep it off the shards' CPUs with IRQBALANCE_BANNED_CPULIST={} in /etc/default/irqbalance and let RFS bring the packets there",
        show(&plan.shards())
    ))]
}

#[cfg(test)]
mod tests {
    use super::super::network_cards::played::{card, writes};
    use super::*;
    use crate::plan::played::plan;

    #[test]
    fn queues_interrupt_the_ingest_shards_and_a_single_one_what_is_kept() {
        let table: [(usize, usize, &[&str]); 5] = [
            (7, 16, &["2", "3", "4", "5", "6", "7", "8"]),
            (3, 16, &["2", "4", "6"]),
            (1, 16, &["0-1"]),
            (1, 2, &[]),
            (2, 2, &[]),
        ];
        for (queues, cpus, wanted) in table {
            let (_directory, host) = card(queues, &[]);
            let expected: Vec<_> = wanted
                .iter()
                .enumerate()
                .map(|(n, cpus)| (format!("/proc/irq/{}/smp_affinity_list", 40 + n), (*cpus).to_owned()))
                .collect();
            assert_eq!(writes(check(&host, &plan(cpus), "eth0")), expected, "{queues} queues, {cpus} CPUs");
        }
    }

    #[test]
    fn while_a_daemon_moves_interrupts_about_nothing_is_changed() {
        let (_directory, host) = card(2, &[("/proc/77/comm", "irqbalance")]);
        let findings = check(&host, &plan(16), "eth0");
        assert!(
            matches!(&findings[..], [Finding::Advice(text)] if text.contains("IRQBALANCE_BANNED_CPULIST=2-15 ")),
            "{findings:?}"
        );
        host.write("/proc/irq/40/smp_affinity_list", "2").expect("written");
        host.write("/proc/irq/41/smp_affinity_list", "5").expect("written");
        assert_eq!(check(&host, &plan(16), "eth0").len(), 2, "and what is right is no matter");
    }
}
