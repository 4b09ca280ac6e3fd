//! The devices beneath the spool.

use crate::host::Host;
use crate::knob::Finding;
use crate::mounts;
use crate::plan::Plan;

/// Runs a check over the disks that the spool is on, in the end: below a logical volume there may be several.
pub fn for_each(host: &Host, plan: &Plan, check: fn(&Host, &str) -> Finding) -> Vec<Finding> {
    let disks = mounts::disks(host, &plan.spool);
    if disks.is_empty() {
        let kind = mounts::of(host, &plan.spool).map(|mount| mount.kind);
        let why = match kind.as_deref() {
            Some("zfs") => "on zfs, which keeps to itself what disks it is on (zpool status)",
            Some("overlay" | "aufs") => "in the layers of a container, whose disk is the host's",
            _ => "on no device that this host shows",
        };
        return vec![Finding::Absent(format!("{} is {why}", plan.spool))];
    }
    disks.iter().map(|disk| check(host, disk)).collect()
}

/// What a hypervisor shows as a disk: it says that it turns when it does not know better.
pub fn is_virtual(disk: &str) -> bool {
    ["/virtio", "/vbd", "/vmbus"].iter().any(|bus| disk.contains(bus))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;

    #[test]
    fn a_spool_without_a_disk_is_told_with_the_reason() {
        for (kind, why) in [("zfs", "zpool status"), ("overlay", "container"), ("tmpfs", "no device")] {
            let mounts = format!("1 0 0:30 / / rw - {kind} pool/spool rw");
            let (_directory, host) = played::host(&[("/proc/self/mountinfo", &mounts)]);
            let plan = Plan { spool: "/var/spool/sluice".into(), ..Plan::default() };
            let findings = for_each(&host, &plan, |_, _| Finding::Fine(String::new()));
            assert!(matches!(&findings[..], [Finding::Absent(text)] if text.contains(why)), "{findings:?}");
        }
    }
}
