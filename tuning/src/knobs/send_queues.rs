//! Through which queue of a card a CPU sends (XPS).

use super::network_cards::{cpu_of_queue, for_each, interrupts, is_balanced, queues};
use super::packet_steering::of_mask;
use crate::host::Host;
use crate::knob::{Finding, Knob, same_mask};
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "send-queues",
    purpose: "A shard sends through the queue whose interrupts it takes, so that no two CPUs wait for each other (XPS).",
    check: |host, plan| for_each(host, |card| check(host, plan, card)),
};

/// The delivery shards, which take no interrupts, share the queues out among themselves. Where interrupts are not
/// given out, a map that the driver has made is as good.
fn check(host: &Host, plan: &Plan, card: &str) -> Vec<Finding> {
    let queues = queues(host, card, "tx-");
    if queues.len() < 2 {
        return vec![Finding::Fine(format!("{card} has one sending queue"))];
    }
    let given = cpu_of_queue(plan, interrupts(host, card).len()).filter(|_| !is_balanced(host));
    let check = |(index, queue): (usize, &String)| {
        let path = format!("/sys/class/net/{card}/queues/{queue}/xps_cpus");
        let turn =
            |cpus: &[usize]| cpus.iter().copied().skip(index).step_by(queues.len()).collect::<Vec<_>>();
        let Some(given) = &given else {
            return match host.read(&path) {
                Some(found) if !same_mask(&found, "0") => {
                    Some(Finding::Fine(format!("{path} is {found}, of the driver")))
                }
                _ => Some(of_mask(host, &path, &turn(&plan.online))).filter(|_| index < plan.online.len()),
            };
        };
        let mut cpus: Vec<usize> =
            given.get(index).copied().into_iter().chain(turn(&plan.delivery)).collect();
        cpus.sort_unstable();
        cpus.dedup();
        (!cpus.is_empty()).then(|| of_mask(host, &path, &cpus))
    };
    queues.iter().enumerate().filter_map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::super::network_cards::played::{card, writes};
    use super::*;
    use crate::plan::played::plan;

    fn masks(host: &Host, cpus: usize) -> Vec<String> {
        writes(check(host, &plan(cpus), "eth0")).into_iter().map(|(_, mask)| mask).collect()
    }

    #[test]
    fn a_queue_sends_for_the_cpu_of_its_interrupts_and_for_delivery_shards_in_turn() {
        // Ingest 2-8, delivery 9-15.
        let (_directory, host) = card(4, &[]);
        assert_eq!(masks(&host, 16), ["2204", "4408", "8820", "1080"]);
        let (_directory, host) = card(7, &[]);
        assert_eq!(masks(&host, 16), ["204", "408", "810", "1020", "2040", "4080", "8100"]);
        let (_directory, host) = card(1, &[]);
        assert_eq!(masks(&host, 16), [""; 0]);
    }

    #[test]
    fn a_map_of_the_driver_stays_where_interrupts_are_not_given_out() {
        let path = "/sys/class/net/eth0/queues/tx-0/xps_cpus";
        let (_directory, host) = card(2, &[]);
        assert_eq!(masks(&host, 2), ["1", "2"]);
        host.write(path, "3").expect("written");
        assert_eq!(masks(&host, 2), ["2"]);
        let (_directory, host) = card(2, &[("/proc/7/comm", "irqbalance"), (path, "5")]);
        assert_eq!(masks(&host, 16).len(), 1, "somebody else gives them out");
    }
}
