//! The kind of the spool's file system.

use crate::host::Host;
use crate::knob::{Finding, Knob};
use crate::mounts::{self, Mount};
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "file-system",
    purpose: "The spool is on a file system that keeps what it has confirmed, and that direct writes are fast on.",
    check: |host, plan| on_mount(host, plan, check),
};

/// Runs a check on what the spool is on.
pub(super) fn on_mount(host: &Host, plan: &Plan, check: fn(&Mount) -> Vec<Finding>) -> Vec<Finding> {
    match mounts::of(host, &plan.spool) {
        Some(mount) => check(&mount),
        None => vec![Finding::Absent("/proc/self/mountinfo does not tell where the spool is".into())],
    }
}

fn check(mount: &Mount) -> Vec<Finding> {
    let Mount { point, kind, .. } = mount;
    vec![match kind.as_str() {
        "xfs" | "ext4" => Finding::Fine(format!("{point} is {kind}")),
        "tmpfs" | "ramfs" => Finding::Must(format!(
            "{point} is {kind}, in memory: all mail is lost when the host goes down; put the spool on XFS or ext4"
        )),
        "overlay" | "aufs" => Finding::Advice(format!(
            "{point} is {kind}, the layers of a container: give the spool a volume on XFS or ext4"
        )),
        "nfs" | "nfs4" | "cifs" | "fuse" => Finding::Advice(format!(
            "{point} is {kind}, behind a network: what it has confirmed may not be on a disk, and it may hang; put the spool on a disk of this host"
        )),
        "btrfs" | "zfs" | "bcachefs" => Finding::Advice(format!(
            "{point} is {kind}, which copies each block that is written: XFS or ext4 take a batch with one write"
        )),
        other => Finding::Advice(format!(
            "{point} is {other}, on which nobody has measured the relay; XFS and ext4 are known"
        )),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;

    #[test]
    fn what_does_not_keep_mail_is_named_and_memory_is_refused() {
        for (kind, word) in [
            ("xfs", "fine"),
            ("ext4", "fine"),
            ("tmpfs", "must"),
            ("nfs4", "advice"),
            ("overlay", "advice"),
            ("new", "advice"),
        ] {
            let mounts = format!("1 0 8:1 / / rw,noatime - {kind} x rw");
            let (_directory, host) = played::host(&[("/proc/self/mountinfo", &mounts)]);
            let plan = Plan { spool: "/var".into(), ..Plan::default() };
            let found = match (KNOB.check)(&host, &plan).remove(0) {
                Finding::Fine(_) => "fine",
                Finding::Must(_) => "must",
                Finding::Advice(_) => "advice",
                other => panic!("{other:?}"),
            };
            assert_eq!(found, word, "{kind}");
        }
    }
}
