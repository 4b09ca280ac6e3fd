//! What a flush means to the spool's device.

use super::disks::{for_each, is_virtual};
use crate::host::Host;
use crate::knob::{Finding, Knob};

pub const KNOB: Knob = Knob {
    name: "disk-cache",
    purpose: "Each 250 waits until the device's own cache is flushed; a cache that survives a power cut needs no flush.",
    check: |host, plan| for_each(host, plan, check),
};

/// Never changed from here: `write through` on a device whose cache is lost at a power cut loses mail.
fn check(host: &Host, disk: &str) -> Finding {
    let path = format!("{disk}/queue/write_cache");
    match host.read(&path).as_deref() {
        None => Finding::Absent(format!("{path} is not there")),
        Some("write through") => Finding::Fine(format!(
            "{path} is write through: the device needs no flush; make sure that this is true of it"
        )),
        Some(found) if is_virtual(disk) => Finding::Fine(format!(
            "{path} is {found}: each batch of mail waits for one flush, by what the hypervisor makes of it"
        )),
        Some(found) => Finding::Advice(format!(
            "{path} is {found}: each batch of mail waits for one flush; a device with power-loss protection, which shows write through, is the largest gain there is"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;

    #[test]
    fn a_cache_that_must_be_flushed_is_told_of_where_another_device_can_be_had() {
        let table = [
            ("/sys/devices/pci/nvme/nvme0/nvme0n1", "write back", true),
            ("/sys/devices/pci/nvme/nvme0/nvme0n1", "write through", false),
            ("/sys/devices/pci/virtio1/block/vda", "write back", false),
            ("/sys/devices/pci/ata1/host0/sda", "write back", true),
        ];
        for (disk, text, advised) in table {
            let path = format!("{disk}/queue/write_cache");
            let (_directory, host) = played::host(&[(&path, text)]);
            assert_eq!(matches!(check(&host, disk), Finding::Advice(_)), advised, "{disk} {text}");
        }
    }
}
