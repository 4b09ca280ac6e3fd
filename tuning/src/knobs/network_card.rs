//! Network cards: which CPU takes a card's interrupts, and which goes on with its packets.
//!
//! A session lives on the CPU of its shard, so its packets are best handled there. A card with as many queues as
//! there are ingest shards has one of them for each; one with fewer leaves the spreading to the kernel (RPS, and
//! RFS, which finds the CPU of the session).

use crate::cpus::show;
use crate::host::Host;
use crate::knob::{Finding, Knob, Step, mask, same_mask};
use crate::plan::Plan;

pub const KNOBS: &[Knob] = &[
    Knob {
        name: "card-interrupts",
        purpose: "Each queue of a card interrupts the CPU of one ingest shard; a single queue those that are kept for the kernel.",
        check: |host, plan| for_each_card(host, |card| interrupts(host, plan, card)),
    },
    Knob {
        name: "packet-steering",
        purpose: "Packets of a card with too few queues are handled on the CPU of their session (RPS and RFS).",
        check: |host, plan| for_each_card(host, |card| steering(host, plan, card)),
    },
    Knob {
        name: "send-queues",
        purpose: "A CPU sends through a queue of its own, so that no two wait for each other (XPS).",
        check: |host, plan| for_each_card(host, |card| send_queues(host, plan, card)),
    },
    Knob {
        name: "irqbalance",
        purpose: "A daemon that moves interrupts about undoes what is set here.",
        check: |host, _| vec![irqbalance(host)],
    },
];

/// Cards: interfaces with a device, which are up.
fn cards(host: &Host) -> Vec<String> {
    let has_device = |name: &String| host.has(&format!("/sys/class/net/{name}/device"));
    let is_up = |name: &String| {
        host.read(&format!("/sys/class/net/{name}/operstate")).is_none_or(|state| state != "down")
    };
    host.entries("/sys/class/net").into_iter().filter(|name| has_device(name) && is_up(name)).collect()
}

fn for_each_card(host: &Host, check: impl Fn(&str) -> Vec<Finding>) -> Vec<Finding> {
    let findings: Vec<Finding> = cards(host).iter().flat_map(|card| check(card)).collect();
    match findings.is_empty() {
        true => vec![Finding::Absent("no network card shows such a setting".into())],
        false => findings,
    }
}

fn queues(host: &Host, card: &str, kind: &str) -> Vec<String> {
    let queues = host.entries(&format!("/sys/class/net/{card}/queues"));
    queues.into_iter().filter(|queue| queue.starts_with(kind)).collect()
}

/// The interrupts of a card's receiving queues, in their order.
fn receiving_interrupts(host: &Host, card: &str) -> Vec<String> {
    let device = format!("/sys/class/net/{card}/device");
    // The interrupts of a virtio card are those of the device above it.
    let numbers = [format!("{device}/msi_irqs"), format!("{device}/../msi_irqs")];
    let numbers = numbers.iter().map(|path| host.entries(path)).find(|found| !found.is_empty());
    let action = |irq: &String| host.read(&format!("/sys/kernel/irq/{irq}/actions")).unwrap_or_default();
    let receives = |irq: &String| {
        let action = action(irq).to_ascii_lowercase();
        ["input", "rx", card].iter().any(|word| action.contains(word)) && !action.contains("config")
    };
    numbers.unwrap_or_default().into_iter().filter(receives).collect()
}

fn interrupts(host: &Host, plan: &Plan, card: &str) -> Vec<Finding> {
    let interrupts = receiving_interrupts(host, card);
    let one_each = interrupts.len() >= plan.ingest.len();
    let wanted = |index: usize| match one_each {
        true => plan.ingest[index % plan.ingest.len()].to_string(),
        false => show(&plan.service),
    };
    let check = |(index, irq): (usize, &String)| {
        let path = format!("/proc/irq/{irq}/smp_affinity_list");
        // The kernel spreads these itself, and lets nobody change them.
        let effective = format!("/proc/irq/{irq}/effective_affinity_list");
        let wanted = wanted(index);
        let found = host.read(&path)?;
        let is_there = found == wanted || host.read(&effective).is_some_and(|cpus| cpus == wanted);
        Some(match is_there {
            true => Finding::Fine(format!("interrupt {irq} of {card} goes to CPU {wanted}")),
            false => Finding::wrong(&path, found, &wanted),
        })
    };
    match plan.has_shards_apart() || one_each && plan.ingest.len() > 1 {
        true => interrupts.iter().enumerate().filter_map(check).collect(),
        false => Vec::new(),
    }
}

fn steering(host: &Host, plan: &Plan, card: &str) -> Vec<Finding> {
    let queues = queues(host, card, "rx-");
    let needed = !queues.is_empty() && plan.ingest.len() > 1 && queues.len() < plan.ingest.len();
    if !needed {
        let text =
            format!("{card} has {} receiving queues for {} ingest shards", queues.len(), plan.ingest.len());
        return vec![Finding::Fine(text)];
    }
    let flows = plan.profile.flows();
    let mut findings = vec![Finding::at_least(host, "/proc/sys/net/core/rps_sock_flow_entries", flows)];
    for queue in &queues {
        let queue = format!("/sys/class/net/{card}/queues/{queue}");
        let each = (flows / queues.len() as u64).next_power_of_two();
        findings.push(of_mask(host, &format!("{queue}/rps_cpus"), &plan.ingest));
        findings.push(Finding::at_least(host, &format!("{queue}/rps_flow_cnt"), each));
    }
    findings
}

fn send_queues(host: &Host, plan: &Plan, card: &str) -> Vec<Finding> {
    let queues = queues(host, card, "tx-");
    if queues.len() < 2 {
        return vec![Finding::Fine(format!("{card} has one sending queue"))];
    }
    let check = |(index, queue): (usize, &String)| {
        let of_queue = |cpu: &usize| {
            plan.online.iter().position(|online| online == cpu).unwrap_or(0) % queues.len() == index
        };
        let cpus: Vec<usize> = plan.online.iter().copied().filter(of_queue).collect();
        of_mask(host, &format!("/sys/class/net/{card}/queues/{queue}/xps_cpus"), &cpus)
    };
    queues.iter().enumerate().map(check).collect()
}

fn of_mask(host: &Host, path: &str, cpus: &[usize]) -> Finding {
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

fn irqbalance(host: &Host) -> Finding {
    let is_process = |name: &String| name.bytes().all(|b| b.is_ascii_digit());
    let runs =
        host.entries("/proc").iter().filter(|name| is_process(name)).any(|process| {
            host.read(&format!("/proc/{process}/comm")).is_some_and(|comm| comm == "irqbalance")
        });
    match runs {
        true => Finding::Advice(
            "irqbalance runs and moves interrupts about: systemctl disable --now irqbalance (undo: systemctl enable --now irqbalance)".into(),
        ),
        false => Finding::Fine("irqbalance does not run".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;
    use crate::plan::Profile;

    fn plan(cpus: usize) -> Plan {
        let online: Vec<usize> = (0..cpus).collect();
        let profile = Profile::of(cpus);
        let (ingest, delivery, service) = Plan::divide(profile, &online);
        Plan { profile, online, ingest, delivery, service, spool: String::new() }
    }

    fn card(receiving: usize) -> Vec<(String, String)> {
        let mut files = vec![("/sys/class/net/eth0/operstate".to_owned(), "up".to_owned())];
        for queue in 0..receiving {
            let irq = 40 + queue;
            files.push((format!("/sys/class/net/eth0/device/msi_irqs/{irq}"), "msix".into()));
            files.push((format!("/sys/kernel/irq/{irq}/actions"), format!("eth0-TxRx-{queue}")));
            files.push((format!("/proc/irq/{irq}/smp_affinity_list"), "0-15".into()));
            files.push((format!("/sys/class/net/eth0/queues/rx-{queue}/rps_cpus"), "0000".into()));
            files.push((format!("/sys/class/net/eth0/queues/rx-{queue}/rps_flow_cnt"), "0".into()));
            files.push((format!("/sys/class/net/eth0/queues/tx-{queue}/xps_cpus"), "0000".into()));
        }
        files.push(("/proc/sys/net/core/rps_sock_flow_entries".into(), "0".into()));
        files
    }

    fn writes(findings: Vec<Finding>) -> Vec<(String, String)> {
        let steps = findings.into_iter().flat_map(|finding| match finding {
            Finding::Wrong { steps, .. } => steps,
            _ => Vec::new(),
        });
        steps
            .map(|step| match step {
                Step::Write { path, wanted, .. } => (path, wanted),
                Step::Remount { .. } => panic!("a card is not mounted"),
            })
            .collect()
    }

    fn played(receiving: usize) -> (tempfile::TempDir, Host) {
        let files = card(receiving);
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (&**path, &**text)).collect();
        played::host(&files)
    }

    #[test]
    fn a_queue_for_each_ingest_shard_interrupts_its_cpu_and_needs_no_steering() {
        let (_directory, host) = played(7);
        let plan = plan(16);
        assert_eq!(plan.ingest, [2, 3, 4, 5, 6, 7, 8]);
        let interrupts = writes(interrupts(&host, &plan, "eth0"));
        let expected: Vec<_> = (0..7)
            .map(|n| (format!("/proc/irq/{}/smp_affinity_list", 40 + n), (2 + n).to_string()))
            .collect();
        assert_eq!(interrupts, expected);
        assert_eq!(writes(steering(&host, &plan, "eth0")), []);
        assert_eq!(writes(send_queues(&host, &plan, "eth0")).len(), 7);
    }

    #[test]
    fn a_single_queue_interrupts_what_is_kept_and_its_packets_are_steered() {
        let (_directory, host) = played(1);
        let plan = plan(16);
        let interrupts = writes(interrupts(&host, &plan, "eth0"));
        assert_eq!(interrupts, [("/proc/irq/40/smp_affinity_list".to_owned(), "0-1".to_owned())]);
        let steering = writes(steering(&host, &plan, "eth0"));
        let queue = "/sys/class/net/eth0/queues/rx-0";
        let expected = [
            ("/proc/sys/net/core/rps_sock_flow_entries".to_owned(), "131072".to_owned()),
            (format!("{queue}/rps_cpus"), "1fc".to_owned()),
            (format!("{queue}/rps_flow_cnt"), "131072".to_owned()),
        ];
        assert_eq!(steering, expected);
    }

    #[test]
    fn two_cpus_and_one_queue_are_left_as_they_are() {
        let (_directory, host) = played(1);
        let plan = plan(2);
        for findings in [interrupts, steering, send_queues].map(|check| check(&host, &plan, "eth0")) {
            assert_eq!(writes(findings), []);
        }
    }

    #[test]
    fn a_daemon_that_balances_interrupts_is_named() {
        let (_directory, host) = played::host(&[("/proc/77/comm", "irqbalance"), ("/proc/78/comm", "sshd")]);
        assert!(matches!(irqbalance(&host), Finding::Advice(text) if text.contains("undo")));
        let (_directory, host) =
            played::host(&[("/proc/78/comm", "sshd"), ("/proc/self/comm", "irqbalance")]);
        assert!(matches!(irqbalance(&host), Finding::Fine(_)));
    }
}
