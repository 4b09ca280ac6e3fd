//! The options that the spool's file system is mounted with.

use super::file_system::on_mount;
use crate::knob::{Finding, Knob, Step};
use crate::mounts::Mount;

pub const KNOB: Knob = Knob {
    name: "mount-options",
    purpose: "Reading changes nothing on the disk, and writing is never confirmed before it has happened.",
    check: |host, plan| on_mount(host, plan, check),
};

fn check(mount: &Mount) -> Vec<Finding> {
    let mut findings: Vec<Finding> = told(mount).collect();
    if mount.kind == "ext4" && mount.holds("discard") {
        findings.push(remount(
            mount,
            ("discard", "nodiscard"),
            "with discard, so that each deleted segment waits for the device (take it out of /etc/fstab as well, and enable fstrim.timer)",
        ));
    }
    if !matches!(mount.kind.as_str(), "xfs" | "ext4" | "btrfs") {
        findings
            .push(Finding::Fine(format!("{} is {}, whose options are left alone", mount.point, mount.kind)));
    } else if mount.holds("noatime") {
        findings.push(Finding::Fine(format!("{} is mounted with noatime", mount.point)));
    } else {
        let found = if mount.holds("relatime") { "relatime" } else { "strictatime" };
        findings.push(remount(mount, (found, "noatime"), "without noatime (keep it in /etc/fstab as well)"));
    }
    findings
}

fn remount(mount: &Mount, (found, wanted): (&str, &str), how: &str) -> Finding {
    let mount = mount.point.clone();
    Finding::Wrong {
        sentence: format!("{mount} is mounted {how}"),
        steps: vec![Step::Remount { mount, found: found.into(), wanted: wanted.into() }],
    }
}

/// Options that only the one who has set them can take away.
fn told(mount: &Mount) -> impl Iterator<Item = Finding> {
    const LOSES: [&str; 2] = ["nobarrier", "barrier=0"];
    let options = mount.options.iter().chain(&mount.of_file_system);
    options.filter_map(move |option| {
        let Mount { point, kind, .. } = mount;
        let told =
            |what: &str| format!("{point} is mounted with {option}: {what}; take it out of /etc/fstab");
        match (option.as_str(), kind.as_str()) {
            (option, _) if LOSES.contains(&option) => {
                Some(Finding::Must(told("mail that was confirmed is lost at a power cut")))
            }
            ("ro", _) => Some(Finding::Must(format!("{point} is read-only: no mail can be taken"))),
            ("sync" | "dirsync", _) => {
                Some(Finding::Advice(told("each write waits for the device, and not once a batch")))
            }
            ("data=journal", "ext4") => Some(Finding::Advice(told("each octet of mail is written twice"))),
            ("discard", "xfs" | "btrfs") => Some(Finding::Advice(told(
                "each deleted segment waits for the device, which fstrim.timer does better",
            ))),
            (option, "btrfs") if option.starts_with("compress") => Some(Finding::Advice(told(
                "a direct write is compressed on the way, which takes CPU time and makes it a buffered one",
            ))),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_lose_mail_or_time_are_found() {
        // Of what is a must, advice, and remounted from what to what.
        type Row =
            (&'static str, &'static str, &'static str, usize, usize, &'static [(&'static str, &'static str)]);
        let table: [Row; 14] = [
            ("ext4", "rw,noatime", "rw", 0, 0, &[]),
            ("ext4", "rw,relatime", "rw", 0, 0, &[("relatime", "noatime")]),
            ("xfs", "rw", "rw", 0, 0, &[("strictatime", "noatime")]),
            ("ext4", "rw,noatime", "rw,discard", 0, 0, &[("discard", "nodiscard")]),
            ("ext4", "rw,noatime", "rw,barrier=0", 1, 0, &[]),
            ("xfs", "rw,noatime", "rw,nobarrier,discard", 1, 1, &[]),
            ("ext4", "ro,noatime", "ro", 2, 0, &[]),
            ("ext4", "rw,noatime", "rw,sync,dirsync", 0, 2, &[]),
            ("ext4", "rw,noatime", "rw,data=journal", 0, 1, &[]),
            ("ext4", "rw,noatime", "rw,data=ordered", 0, 0, &[]),
            ("btrfs", "rw,noatime", "rw,compress=zstd:3", 0, 1, &[]),
            ("btrfs", "rw,noatime", "rw,compress-force=lzo", 0, 1, &[]),
            ("tmpfs", "rw,relatime", "rw", 0, 0, &[]),
            ("nfs4", "rw,relatime", "rw,sync", 0, 1, &[]),
        ];
        for (kind, options, of_file_system, musts, advice, remounts) in table {
            let words = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
            let mount = Mount {
                point: "/var".into(),
                kind: kind.into(),
                device: "8:1".into(),
                source: "/dev/sda1".into(),
                options: words(options),
                of_file_system: words(of_file_system),
            };
            let findings = check(&mount);
            let count = |is: fn(&Finding) -> bool| findings.iter().filter(|finding| is(finding)).count();
            let found = (
                count(|finding| matches!(finding, Finding::Must(_))),
                count(|finding| matches!(finding, Finding::Advice(_))),
            );
            assert_eq!(found, (musts, advice), "{kind} {options} {of_file_system}: {findings:?}");
            let steps: Vec<_> = findings
                .iter()
                .filter_map(|finding| match finding {
                    Finding::Wrong { steps, .. } => Some(&steps[0]),
                    _ => None,
                })
                .map(|step| (step.parts().1, step.parts().2))
                .collect();
            assert_eq!(steps, remounts, "{kind} {options} {of_file_system}");
        }
    }
}
