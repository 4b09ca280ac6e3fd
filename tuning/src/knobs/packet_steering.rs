//! Which CPU goes on with the packets of a card (RPS, RFS).

use super::isolation::isolated;
use super::network_cards::{for_each, queues};
use crate::cpus::show;
use crate::host::Host;
use crate::knob::{Finding, Knob, Step, mask, same_mask};
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "packet-steering",
    purpose: "Packets are handled on the CPU of their session (RFS); those of a card with too few queues are spread (RPS).",
    check: |host, plan| for_each(host, |card| check(host, plan, card)),
};

/// The card's hash and the kernel's choice of a shard are unrelated, so that with two shards half of the packets
/// come to the wrong one, and with many nearly all do, whatever the number of queues.
fn check(host: &Host, plan: &Plan, card: &str) -> Vec<Finding> {
    let queues = queues(host, card, "rx-");
    let shards = plan.shards();
    if queues.is_empty() || shards.len() < 2 {
        return vec![Finding::Fine(format!("{card}: there is one shard only"))];
    }
    let flows = plan.profile.flows();
    let each = (flows / queues.len() as u64).max(1).next_power_of_two();
    let spread = if queues.len() < plan.ingest.len() { may_spread_to(host, plan) } else { Vec::new() };
    let mut findings = vec![Finding::at_least(host, "/proc/sys/net/core/rps_sock_flow_entries", flows)];
    for queue in &queues {
        let queue = format!("/sys/class/net/{card}/queues/{queue}");
        if !spread.is_empty() {
            findings.push(of_mask(host, &format!("{queue}/rps_cpus"), &spread));
        }
        findings.push(Finding::at_least(host, &format!("{queue}/rps_flow_cnt"), each));
    }
    findings
}

/// The kernel takes isolated CPUs, and those of full dynticks, out of the mask, and refuses one that is empty then.
/// RFS leads packets there all the same.
fn may_spread_to(host: &Host, plan: &Plan) -> Vec<usize> {
    let ticks = host.cpus("/sys/devices/system/cpu/nohz_full").unwrap_or_default();
    let closed = [isolated(host), ticks].concat();
    plan.ingest.iter().copied().filter(|cpu| !closed.contains(cpu)).collect()
}

/// A file with a set of CPUs.
pub(super) fn of_mask(host: &Host, path: &str, cpus: &[usize]) -> Finding {
    let wanted = mask(cpus);
    match host.read(path) {
        None => Finding::Absent(format!("{path} is not there")),
        Some(found) if same_mask(&found, &wanted) => Finding::Fine(format!("{path} is {found}")),
        Some(found) => Finding::Wrong {
            sentence: format!("{path} is {found}, should be {wanted} (CPU {})", show(cpus)),
            steps: vec![Step::Write { path: path.to_owned(), found, wanted }],
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::network_cards::played::{card, writes};
    use super::*;
    use crate::plan::played::plan;

    const ENTRIES: &str = "/proc/sys/net/core/rps_sock_flow_entries";
    const ISOLATED: &str = "/sys/devices/system/cpu/isolated";

    fn queue(number: usize, file: &str) -> String {
        format!("/sys/class/net/eth0/queues/rx-{number}/{file}")
    }

    #[test]
    fn packets_of_a_single_queue_are_spread_as_far_as_the_kernel_lets_them() {
        let table = [
            (vec![], Some("1fc")),
            (vec![(ISOLATED, "2-3,9")], Some("1f0")),
            (vec![(ISOLATED, "2-6"), ("/sys/devices/system/cpu/nohz_full", "7")], Some("100")),
            (vec![("/sys/devices/system/cpu/nohz_full", "(null)")], Some("1fc")),
            (vec![(ISOLATED, "2-15")], None),
        ];
        for (files, spread) in table {
            let (_directory, host) = card(1, &files);
            let mut expected = vec![(ENTRIES.to_owned(), "131072".to_owned())];
            expected.extend(spread.map(|mask| (queue(0, "rps_cpus"), mask.to_owned())));
            expected.push((queue(0, "rps_flow_cnt"), "131072".to_owned()));
            assert_eq!(writes(check(&host, &plan(16), "eth0")), expected, "{files:?}");
        }
    }

    #[test]
    fn sessions_are_followed_as_soon_as_there_are_two_shards() {
        for (queues, cpus, each) in [(7, 16, "32768"), (2, 2, "4096"), (1, 2, "8192")] {
            let (_directory, host) = card(queues, &[]);
            let plan = plan(cpus);
            let mut expected = vec![(ENTRIES.to_owned(), plan.profile.flows().to_string())];
            expected.extend((0..queues).map(|number| (queue(number, "rps_flow_cnt"), each.to_owned())));
            assert_eq!(writes(check(&host, &plan, "eth0")), expected, "{queues} {cpus}");
        }
        let (_directory, host) = card(2, &[]);
        assert_eq!(writes(check(&host, &plan(1), "eth0")), []);
    }
}
