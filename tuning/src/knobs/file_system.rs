//! The file system of the spool: its kind and its options.

use crate::host::Host;
use crate::knob::{Finding, Knob, Step};
use crate::mounts::{self, Mount};
use crate::plan::Plan;

pub const KNOBS: &[Knob] = &[
    Knob {
        name: "file-system",
        purpose: "The spool is on a file system that keeps what it has confirmed, and that direct writes are fast on.",
        check: |host, plan| on_mount(host, plan, kind),
    },
    Knob {
        name: "mount-options",
        purpose: "Reading changes nothing on the disk, and writing is never confirmed before it has happened.",
        check: |host, plan| on_mount(host, plan, options),
    },
];

fn on_mount(host: &Host, plan: &Plan, check: fn(&Mount) -> Vec<Finding>) -> Vec<Finding> {
    match mounts::of(host, &plan.spool) {
        Some(mount) => check(&mount),
        None => vec![Finding::Absent("/proc/self/mountinfo does not tell where the spool is".into())],
    }
}

fn kind(mount: &Mount) -> Vec<Finding> {
    let Mount { point, kind, .. } = mount;
    vec![match kind.as_str() {
        "xfs" | "ext4" => Finding::Fine(format!("{point} is {kind}")),
        "tmpfs" | "ramfs" => Finding::Advice(format!(
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

fn options(mount: &Mount) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(option) =
        mount.options.iter().find(|option| matches!(option.as_str(), "nobarrier" | "barrier=0"))
    {
        findings.push(Finding::Advice(format!(
            "{} is mounted with {option}: mail that was confirmed is lost at a power cut; take it out of /etc/fstab",
            mount.point
        )));
    }
    if mount.options.iter().any(|option| option == "discard") {
        findings.push(Finding::Advice(format!(
            "{} is mounted with discard, so that each deleted segment waits for the device: take it out of /etc/fstab and enable fstrim.timer",
            mount.point
        )));
    }
    findings.push(match mount.options.iter().any(|option| option == "noatime") {
        true => Finding::Fine(format!("{} is mounted with noatime", mount.point)),
        false => Finding::Wrong {
            sentence: format!("{} is mounted without noatime (keep it in /etc/fstab as well)", mount.point),
            steps: vec![Step::Remount {
                mount: mount.point.clone(),
                found: if mount.options.iter().any(|option| option == "strictatime") {
                    "strictatime"
                } else {
                    "relatime"
                }
                .into(),
                wanted: "noatime".into(),
            }],
        },
    });
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, options: &[&str]) -> Mount {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Mount { point: "/var".into(), kind: kind.into(), device: "8:1".into(), options }
    }

    #[test]
    fn what_does_not_keep_mail_is_named() {
        for (name, fine) in [
            ("xfs", true),
            ("ext4", true),
            ("tmpfs", false),
            ("nfs4", false),
            ("overlay", false),
            ("new", false),
        ] {
            assert_eq!(matches!(kind(&mount(name, &[]))[0], Finding::Fine(_)), fine, "{name}");
        }
    }

    #[test]
    fn options_that_lose_mail_or_time_are_found() {
        let count = |options_given: &[&str]| {
            let findings = options(&mount("ext4", options_given));
            let advice = findings.iter().filter(|finding| matches!(finding, Finding::Advice(_))).count();
            let wrong = findings.iter().filter(|finding| matches!(finding, Finding::Wrong { .. })).count();
            (advice, wrong)
        };
        assert_eq!(count(&["rw", "noatime"]), (0, 0));
        assert_eq!(count(&["rw", "relatime"]), (0, 1));
        assert_eq!(count(&["rw", "noatime", "discard", "barrier=0"]), (2, 0));
    }
}
