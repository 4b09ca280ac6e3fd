//! The device beneath the spool: its scheduler, and what a flush means to it.

use super::memory::chosen;
use crate::host::Host;
use crate::knob::{Finding, Knob, Step};
use crate::mounts;
use crate::plan::Plan;

pub const KNOBS: &[Knob] = &[
    Knob {
        name: "disk-scheduler",
        purpose: "A device without moving parts needs no scheduler: the relay writes one batch after the other.",
        check: |host, plan| for_each_disk(host, plan, scheduler),
    },
    Knob {
        name: "disk-completion",
        purpose: "The end of a write is told on the CPU that asked for it.",
        check: |host, plan| for_each_disk(host, plan, completion),
    },
    Knob {
        name: "disk-cache",
        purpose: "Each 250 waits until the device's own cache is flushed; a cache that survives a power cut needs no flush.",
        check: |host, plan| for_each_disk(host, plan, cache),
    },
];

/// Over the disks that the spool is on, in the end: below a logical volume there may be several.
fn for_each_disk(host: &Host, plan: &Plan, check: fn(&Host, &str) -> Finding) -> Vec<Finding> {
    let disks = mounts::disks(host, &plan.spool);
    if disks.is_empty() {
        let text = format!("{} is on no device that this host shows", plan.spool);
        return vec![Finding::Absent(text)];
    }
    disks.iter().map(|disk| check(host, disk)).collect()
}

fn scheduler(host: &Host, disk: &str) -> Finding {
    let path = format!("{disk}/queue/scheduler");
    let Some(text) = host.read(&path) else { return Finding::Absent(format!("{path} is not there")) };
    let turns = host.number(&format!("{disk}/queue/rotational")) == Some(1);
    // A virtual disk says that it turns when it does not know better.
    let is_virtual = disk.contains("/virtio") || disk.contains("/vbd") || disk.contains("/nvme");
    let wanted = if turns && !is_virtual { "mq-deadline" } else { "none" };
    match chosen(&text) {
        Some(found) if found == wanted => Finding::Fine(format!("{path} is {found}")),
        Some(found) if text.split_whitespace().any(|offered| offered == wanted) => Finding::Wrong {
            sentence: format!("{path} is {found}, should be {wanted}"),
            steps: vec![Step::Write { path: path.clone(), found: found.into(), wanted: wanted.into() }],
        },
        Some(found) => Finding::Fine(format!("{path} is {found}, and {wanted} is not offered")),
        None => Finding::Fine(format!("{path} is {text}")),
    }
}

fn completion(host: &Host, disk: &str) -> Finding {
    Finding::of_value(host, &format!("{disk}/queue/rq_affinity"), "2")
}

fn cache(host: &Host, disk: &str) -> Finding {
    let path = format!("{disk}/queue/write_cache");
    match host.read(&path).as_deref() {
        None => Finding::Absent(format!("{path} is not there")),
        Some("write through") => Finding::Fine(format!(
            "{path} is write through: the device needs no flush; make sure that this is true of it"
        )),
        Some(found) => Finding::Fine(format!(
            "{path} is {found}: each batch of mail waits for one flush; a device with power-loss protection is the largest gain there is"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;

    #[test]
    fn the_scheduler_fits_the_device() {
        let nvme = "/sys/devices/pci0000:00/nvme/nvme0/nvme0n1";
        let sata = "/sys/devices/pci0000:00/ata1/host0/sda";
        let vda = "/sys/devices/pci0000:00/virtio1/block/vda";
        let table = [
            (nvme, "0", "[none] mq-deadline", None),
            (nvme, "0", "none [mq-deadline]", Some("none")),
            (sata, "1", "none mq-deadline [bfq]", Some("mq-deadline")),
            (sata, "1", "[mq-deadline] none", None),
            (sata, "0", "[mq-deadline] none", Some("none")),
            (vda, "1", "[mq-deadline] none", Some("none")),
            (vda, "1", "[mq-deadline]", None),
            (vda, "1", "none", None),
        ];
        for (disk, rotational, text, wanted) in table {
            let scheduler_file = format!("{disk}/queue/scheduler");
            let rotational_file = format!("{disk}/queue/rotational");
            let (_directory, host) = played::host(&[(&scheduler_file, text), (&rotational_file, rotational)]);
            match (scheduler(&host, disk), wanted) {
                (Finding::Wrong { steps, .. }, Some(wanted)) => {
                    assert!(
                        matches!(&steps[..], [Step::Write { wanted: step, .. }] if step == wanted),
                        "{text}"
                    );
                }
                (Finding::Fine(_), None) => {}
                (found, wanted) => panic!("{disk} {text}: {found:?}, not {wanted:?}"),
            }
        }
    }
}
