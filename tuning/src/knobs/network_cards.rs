//! Network cards: which there are, their queues and interrupts, and whose queue is whose.
//!
//! A session lives on the CPU of its shard, so its packets are best handled there. But the card's choice of a queue
//! (a hash of its own) and the kernel's choice of a shard know nothing of each other: queues spread the work over
//! the ingest shards' CPUs, and RFS then leads each packet to the CPU of its session.

use crate::host::Host;
use crate::knob::Finding;
use crate::plan::Plan;

/// Runs a check over the cards: interfaces with a device, which are up.
pub fn for_each(host: &Host, check: impl Fn(&str) -> Vec<Finding>) -> Vec<Finding> {
    let has_device = |name: &String| host.has(&format!("/sys/class/net/{name}/device"));
    let is_up = |name: &String| {
        host.read(&format!("/sys/class/net/{name}/operstate")).is_none_or(|state| state != "down")
    };
    let cards = host.entries("/sys/class/net").into_iter().filter(|name| has_device(name) && is_up(name));
    let findings: Vec<Finding> = cards.flat_map(|card| check(&card)).collect();
    match findings.is_empty() {
        true => vec![Finding::Absent("no network card shows such a setting".into())],
        false => findings,
    }
}

/// The queues of a card, of a kind (`rx-`, `tx-`).
pub fn queues(host: &Host, card: &str, kind: &str) -> Vec<String> {
    let queues = host.entries(&format!("/sys/class/net/{card}/queues"));
    queues.into_iter().filter(|queue| queue.starts_with(kind)).collect()
}

/// The interrupts of a card's receiving queues, in their order.
pub fn interrupts(host: &Host, card: &str) -> Vec<String> {
    let device = format!("/sys/class/net/{card}/device");
    // The interrupts of a virtio card are those of the device above it.
    let numbers = [format!("{device}/msi_irqs"), format!("{device}/../msi_irqs")];
    let numbers =
        numbers.iter().map(|path| host.entries(path)).find(|found| !found.is_empty()).unwrap_or_default();
    let card = card.to_ascii_lowercase();
    let action = |irq: &String| {
        let actions = host.read(&format!("/sys/kernel/irq/{irq}/actions")).unwrap_or_default();
        actions.to_ascii_lowercase()
    };
    let receiving: Vec<String> =
        numbers.iter().filter(|irq| receives(&action(irq), &card)).cloned().collect();
    if !receiving.is_empty() {
        return receiving;
    }
    // A card with one interrupt for everything gives it its own name.
    let bare: Vec<String> = numbers.into_iter().filter(|irq| action(irq) == card).collect();
    if bare.len() == 1 { bare } else { Vec::new() }
}

/// By the name that the driver gives an interrupt; both in lower case.
fn receives(action: &str, card: &str) -> bool {
    let name = action.replace(card, "");
    let has = |word: &str| name.contains(word);
    let numbered = |word: &str| {
        let mut after = name.match_indices(word).map(|(at, _)| &name[at + word.len()..]);
        after.any(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    };
    // mlx5_comp0@pci:…, gve-ntfy-blk0 and eth0-ntfy-block.0, mana_q0@pci:…
    let queue = has("rx") || has("input") || numbered("comp") || has("ntfy") || numbered("_q");
    queue && !["config", "event", "async", "mgmnt"].iter().any(|other| has(other))
}

/// The CPU for each receiving interrupt of a card with several queues: `queues` are spread over the ingest shards.
/// `None`: its interrupts are not given out one by one.
pub fn cpu_of_queue(plan: &Plan, queues: usize) -> Option<Vec<usize>> {
    let shards = plan.ingest.len();
    let worth_it = queues > 1 && (plan.has_shards_apart() || shards > 1);
    let cpu = |queue: usize| plan.ingest[queue * shards / queues];
    worth_it.then(|| (0..queues).map(cpu).collect())
}

/// Whether the daemon that moves interrupts about runs.
pub fn is_balanced(host: &Host) -> bool {
    !host.processes("irqbalance").is_empty()
}

#[cfg(test)]
pub(crate) mod played {
    use super::*;
    use crate::host::played::host_of;
    use crate::knob::Step;

    /// `eth0` with so many queues in each direction, and other files.
    pub fn card(queues: usize, others: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let mut files = vec![("/sys/class/net/eth0/operstate".to_owned(), "up".to_owned())];
        for queue in 0..queues {
            let irq = 40 + queue;
            files.push((format!("/sys/class/net/eth0/device/msi_irqs/{irq}"), "msix".into()));
            files.push((format!("/sys/kernel/irq/{irq}/actions"), format!("eth0-TxRx-{queue}")));
            files.push((format!("/proc/irq/{irq}/smp_affinity_list"), "0-15".into()));
            files.push((format!("/sys/class/net/eth0/queues/rx-{queue}/rps_cpus"), "0000".into()));
            files.push((format!("/sys/class/net/eth0/queues/rx-{queue}/rps_flow_cnt"), "0".into()));
            files.push((format!("/sys/class/net/eth0/queues/tx-{queue}/xps_cpus"), "0000".into()));
        }
        files.push(("/proc/sys/net/core/rps_sock_flow_entries".into(), "0".into()));
        files.extend(others.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())));
        host_of(&files)
    }

    /// What is to be written, by place.
    pub fn writes(findings: Vec<Finding>) -> Vec<(String, String)> {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played::host_of;
    use crate::plan::played::plan;

    #[test]
    fn receiving_interrupts_are_known_by_the_names_of_many_drivers() {
        let table: [(&str, &[&str], &[usize]); 13] = [
            ("eth0", &["eth0-TxRx-0", "eth0-TxRx-1", "eth0"], &[0, 1]),
            ("eth0", &["eth0", "eth0-TxRx-0"], &[1]),
            ("eth0", &["eth0"], &[0]),
            ("eth0", &["eth0", "eth0"], &[]),
            ("ens5", &["ena-mgmnt@pci:0000:00:05.0", "ens5-Tx-Rx-0", "ens5-Tx-Rx-1"], &[1, 2]),
            ("eth0", &["virtio0-config", "virtio0-input.0", "virtio0-output.0"], &[1]),
            ("eth0", &["mlx5_async0@pci:0000:01:00.0", "mlx5_comp0@pci:0000:01:00.0"], &[1]),
            ("eth0", &["gve-ntfy-blk0@pci:0", "gve-mgmnt@pci:0"], &[0]),
            ("eth0", &["eth0-ntfy-block.0", "eth0-ntfy-block.1"], &[0, 1]),
            ("eth0", &["mana_hwc@pci:7870", "mana_q0@pci:7870", "mana_q1@pci:7870"], &[1, 2]),
            ("eth0", &["eth0-tx-0", "eth0-rx-0"], &[1]),
            ("eth0", &["eth0-event-rx-1", "eth0-rxtx-0"], &[1]),
            ("ENRX0", &["enrx0-tx-0", "ENRX0-Rx-0"], &[1]),
        ];
        for (card, actions, receiving) in table {
            let files: Vec<_> = actions
                .iter()
                .enumerate()
                .flat_map(|(irq, action)| {
                    [
                        (format!("/sys/class/net/{card}/device/msi_irqs/{irq}"), "msix".to_owned()),
                        (format!("/sys/kernel/irq/{irq}/actions"), (*action).to_owned()),
                    ]
                })
                .collect();
            let (_directory, host) = host_of(&files);
            let expected: Vec<String> = receiving.iter().map(ToString::to_string).collect();
            assert_eq!(interrupts(&host, card), expected, "{card} {actions:?}");
        }
    }

    #[test]
    fn queues_are_spread_evenly_over_the_ingest_shards_however_many_there_are() {
        let plan = plan(16);
        assert_eq!(plan.ingest, [2, 3, 4, 5, 6, 7, 8]);
        let table: [(usize, Option<&[usize]>); 5] = [
            (1, None),
            (2, Some(&[2, 5])),
            (4, Some(&[2, 3, 5, 7])),
            (7, Some(&[2, 3, 4, 5, 6, 7, 8])),
            (14, Some(&[2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8])),
        ];
        for (queues, cpus) in table {
            assert_eq!(cpu_of_queue(&plan, queues).as_deref(), cpus, "{queues}");
        }
        assert_eq!(cpu_of_queue(&self::plan(2), 2), None, "both CPUs have work of both kinds");
    }
}
