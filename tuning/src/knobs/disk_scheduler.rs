//! Who orders the writes to the spool's device.

use super::disks::{for_each, is_virtual};
use crate::host::Host;
use crate::knob::{Finding, Knob, Step};

pub const KNOB: Knob = Knob {
    name: "disk-scheduler",
    purpose: "A device without moving parts needs no scheduler: the relay writes one batch after the other.",
    check: |host, plan| for_each(host, plan, check),
};

const WANTED: &str = "none";

fn check(host: &Host, disk: &str) -> Finding {
    let path = format!("{disk}/queue/scheduler");
    let Some(text) = host.read(&path) else { return Finding::Absent(format!("{path} is not there")) };
    let turns = host.number(&format!("{disk}/queue/rotational")) != Some(0);
    if turns && !is_virtual(disk) && !disk.contains("/nvme") {
        return Finding::Fine(format!("{path} is {text}: a disk that turns needs its scheduler"));
    }
    match chosen(&text) {
        Some(found) if found != WANTED && text.split_whitespace().any(|offered| offered == WANTED) => {
            Finding::Wrong {
                sentence: format!("{path} is {found}, should be {WANTED}"),
                steps: vec![Step::Write { path: path.clone(), found: found.into(), wanted: WANTED.into() }],
            }
        }
        Some(found) => Finding::Fine(format!("{path} is {found}")),
        None => Finding::Fine(format!("{path} is {text}")),
    }
}

/// The one in brackets of `none [mq-deadline]`.
fn chosen(text: &str) -> Option<&str> {
    text.split_once('[')?.1.split_once(']').map(|(chosen, _)| chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;

    #[test]
    fn a_device_without_moving_parts_has_no_scheduler_and_a_turning_one_keeps_its_own() {
        let nvme = "/sys/devices/pci0000:00/nvme/nvme0/nvme0n1";
        let sata = "/sys/devices/pci0000:00/ata1/host0/sda";
        let vda = "/sys/devices/pci0000:00/virtio1/block/vda";
        let table = [
            (nvme, "0", "[none] mq-deadline", false),
            (nvme, "0", "none [mq-deadline]", true),
            (sata, "1", "none mq-deadline [bfq]", false),
            (sata, "1", "[mq-deadline] none", false),
            (sata, "0", "[mq-deadline] none", true),
            (sata, "", "[mq-deadline] none", false),
            (vda, "1", "[mq-deadline] none", true),
            (vda, "1", "[mq-deadline]", false),
            (vda, "1", "none", false),
        ];
        for (disk, rotational, text, changed) in table {
            let scheduler_file = format!("{disk}/queue/scheduler");
            let rotational_file = format!("{disk}/queue/rotational");
            let (_directory, host) = played::host(&[(&scheduler_file, text), (&rotational_file, rotational)]);
            let finding = check(&host, disk);
            assert_eq!(matches!(finding, Finding::Wrong { .. }), changed, "{disk} {text}: {finding:?}");
        }
    }

    #[test]
    fn what_is_chosen_stands_in_brackets() {
        let table = [("a [b] c", Some("b")), ("[a] b", Some("a")), ("none", None), ("[none", None)];
        for (text, expected) in table {
            assert_eq!(chosen(text), expected, "{text}");
        }
    }
}
