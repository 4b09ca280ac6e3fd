//! From a directory to the file system that it is on, and to the disks beneath that.

use crate::host::Host;

/// A line of `/proc/self/mountinfo` (proc(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub point: String,
    pub kind: String,
    /// `MAJOR:MINOR`; 0:N where the file system is of several devices or of none.
    pub device: String,
    /// The device's name, or whatever the file system calls its source.
    pub source: String,
    /// Of this mount: `rw`, `noatime`.
    pub options: Vec<String>,
    /// Of the file system itself, wherever it is mounted: `discard`.
    pub of_file_system: Vec<String>,
}

impl Mount {
    /// Whether an option holds, be it one that the kernel shows by showing no other.
    pub fn holds(&self, option: &str) -> bool {
        let has = |option: &str| self.options.iter().chain(&self.of_file_system).any(|shown| shown == option);
        match option {
            "strictatime" => !has("noatime") && !has("relatime"),
            "nodiscard" => !has("discard"),
            option => has(option),
        }
    }

    /// Nothing can be written through it.
    pub fn is_read_only(&self) -> bool {
        self.holds("ro")
    }
}

/// Devices that devices are made of, no deeper than this: a loop in a broken `/sys` ends.
const DEPTH_MAX: usize = 8;

/// The file system that a directory is on, or will be on when it is made; links are followed.
pub fn of(host: &Host, directory: &str) -> Option<Mount> {
    let directory = host.real(directory);
    let text = host.read("/proc/self/mountinfo")?;
    let mounts = text.lines().filter_map(parse);
    // The last of the longest hides the others.
    mounts.filter(|mount| is_below(&directory, &mount.point)).fold(None, |best: Option<Mount>, mount| {
        match best {
            Some(best) if best.point.len() > mount.point.len() => Some(best),
            _ => Some(mount),
        }
    })
}

/// What is mounted at exactly this place; the last hides the others.
pub fn at(host: &Host, point: &str) -> Option<Mount> {
    host.read("/proc/self/mountinfo")?.lines().filter_map(parse).rfind(|mount| mount.point == point)
}

/// The disks beneath a directory, as absolute paths below `/sys/devices`.
pub fn disks(host: &Host, directory: &str) -> Vec<String> {
    let mut disks = Vec::new();
    let devices = of(host, directory).map(|mount| devices(host, &mount)).unwrap_or_default();
    devices.iter().for_each(|device| add_disks(host, device, DEPTH_MAX, &mut disks));
    disks
}

/// The block devices of a file system.
fn devices(host: &Host, mount: &Mount) -> Vec<String> {
    if let Some(device) = host.resolve(&format!("/sys/dev/block/{}", mount.device)) {
        return vec![device];
    }
    // btrfs has a number of its own, names one of its devices as the source and lists all of them.
    let source = host.resolve(&mount.source).unwrap_or_else(|| mount.source.clone());
    let name = source.rsplit_once('/').map_or(source.as_str(), |(_, name)| name);
    let pools = host.entries("/sys/fs/btrfs").into_iter().map(|pool| format!("/sys/fs/btrfs/{pool}/devices"));
    let pool = pools.into_iter().find(|devices| host.entries(devices).iter().any(|device| device == name));
    let names = pool.map_or_else(|| vec![name.to_owned()], |pool| host.entries(&pool));
    names.iter().filter_map(|name| host.resolve(&format!("/sys/class/block/{name}"))).collect()
}

fn add_disks(host: &Host, device: &str, depth: usize, disks: &mut Vec<String>) {
    let slaves = host.entries(&format!("{device}/slaves"));
    for slave in slaves.iter().filter(|_| depth > 0) {
        if let Some(slave) = host.resolve(&format!("{device}/slaves/{slave}")) {
            add_disks(host, &slave, depth - 1, disks);
        }
    }
    if slaves.is_empty() {
        // A partition has no queue of its own; its disk is the directory above.
        let above = device.rsplit_once('/').map_or(device, |(above, _)| above);
        let disk = if host.has(&format!("{device}/queue")) { device } else { above };
        if !disks.iter().any(|known| known == disk) {
            disks.push(disk.to_owned());
        }
    }
}

fn is_below(directory: &str, point: &str) -> bool {
    let point = point.trim_end_matches('/');
    directory.strip_prefix(point).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn parse(line: &str) -> Option<Mount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut fields = mount.split(' ');
    let device = fields.nth(2)?.to_owned();
    let point = unescape(fields.nth(1)?);
    let options = fields.next()?;
    let mut fields = file_system.split(' ');
    let kind = fields.next()?.to_owned();
    let source = unescape(fields.next().unwrap_or_default());
    let words = |text: &str| text.split(',').map(str::to_owned).collect();
    let of_file_system = words(fields.next().unwrap_or_default());
    Some(Mount { point, kind, device, source, options: words(options), of_file_system })
}

/// White space and backslashes stand as `\040`.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;
    use std::os::unix::fs::symlink;

    const MOUNTS: &str = "\
        22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
        30 22 253:0 / /var rw,noatime shared:5 - xfs /dev/mapper/v-var rw,attr2\n\
        31 30 0:30 / /var/spool rw - tmpfs tmpfs rw\n\
        32 30 253:0 /s /var/spool\\040two rw - xfs /dev/mapper/v-var rw\n\
        broken";

    #[test]
    fn the_longest_mount_above_a_directory_is_its_own() {
        let (_directory, host) = played::host(&[("/proc/self/mountinfo", MOUNTS)]);
        let table = [
            ("/etc", "/", "ext4"),
            ("/", "/", "ext4"),
            ("/variety", "/", "ext4"),
            ("/var/lib", "/var", "xfs"),
            ("/var", "/var", "xfs"),
            ("/var/spool/sluice", "/var/spool", "tmpfs"),
            ("/var/spool two/x", "/var/spool two", "xfs"),
        ];
        for (directory, point, kind) in table {
            let mount = of(&host, directory).expect(directory);
            assert_eq!((mount.point.as_str(), mount.kind.as_str()), (point, kind), "{directory}");
        }
        let var = of(&host, "/var").expect("a mount");
        assert_eq!(
            (&var.options[..], &var.of_file_system[1..]),
            (&["rw", "noatime"].map(Into::into)[..], &["attr2".into()][..])
        );
        assert_eq!(at(&host, "/var").map(|mount| mount.source).as_deref(), Some("/dev/mapper/v-var"));
        assert_eq!(at(&host, "/var/lib"), None);
    }

    #[test]
    fn a_spool_behind_a_link_is_where_the_link_leads() {
        let (_directory, host) = played::host(&[("/proc/self/mountinfo", MOUNTS), ("/var/data/a", "")]);
        played::link(&host, "/var/data", "/spool");
        assert_eq!(of(&host, "/spool/sluice").expect("a mount").point, "/var");
    }

    #[test]
    fn options_hold_that_are_shown_by_no_other_being_shown() {
        let table = [
            ("rw,noatime", "rw", "noatime", true),
            ("rw,noatime", "rw", "strictatime", false),
            ("rw,relatime", "rw", "strictatime", false),
            ("rw", "rw", "strictatime", true),
            ("rw", "rw,discard", "discard", true),
            ("rw", "rw,discard", "nodiscard", false),
            ("rw", "rw", "nodiscard", true),
            ("ro", "rw", "ro", true),
        ];
        for (options, of_file_system, option, holds) in table {
            let line = format!("1 0 8:1 / / {options} - ext4 /dev/sda1 {of_file_system}");
            assert_eq!(parse(&line).expect("a mount").holds(option), holds, "{line} {option}");
        }
    }

    #[test]
    fn beneath_btrfs_are_all_devices_of_its_pool() {
        let sys = |disk: &str| format!("/sys/devices/pci/{disk}");
        let table: [(&[&str], &[&str]); 2] = [(&["sda", "sdb"], &["sda", "sdb"]), (&[], &["sda"])];
        for (pool, expected) in table {
            let mut files = vec![(
                "/proc/self/mountinfo".to_owned(),
                "1 0 0:27 / / rw,relatime - btrfs /dev/sda rw,compress=zstd:3".to_owned(),
            )];
            files
                .extend(["sda", "sdb"].map(|disk| (format!("{}/queue/scheduler", sys(disk)), "none".into())));
            files.extend(pool.iter().map(|disk| (format!("/sys/fs/btrfs/uuid/devices/{disk}/x"), "".into())));
            let (_directory, host) = played::host_of(&files);
            for disk in ["sda", "sdb"] {
                played::link(&host, &sys(disk), &format!("/sys/class/block/{disk}"));
            }
            assert_eq!(disks(&host, "/var"), expected.iter().map(|disk| sys(disk)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn beneath_a_logical_volume_are_the_disks_of_its_partitions() {
        let sda = "/sys/devices/pci/ata1/block/sda";
        let dm = "/sys/devices/virtual/block/dm-0";
        let files = [
            ("/proc/self/mountinfo".to_owned(), MOUNTS.to_owned()),
            (format!("{sda}/queue/scheduler"), "none".to_owned()),
            (format!("{sda}/sda1/partition"), "1".to_owned()),
            (format!("{sda}/sda2/partition"), "2".to_owned()),
            (format!("{dm}/queue/scheduler"), "none".to_owned()),
            (format!("{dm}/slaves/.keep"), String::new()),
            ("/sys/dev/block/.keep".to_owned(), String::new()),
        ];
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (&**path, &**text)).collect();
        let (_directory, host) = played::host(&files);
        std::fs::remove_file(host.path(&format!("{dm}/slaves/.keep"))).expect("removed");
        for (link, target) in [
            ("/sys/dev/block/8:1".to_owned(), format!("{sda}/sda1")),
            ("/sys/dev/block/253:0".to_owned(), dm.to_owned()),
            (format!("{dm}/slaves/sda2"), format!("{sda}/sda2")),
        ] {
            symlink(host.path(&target), host.path(&link)).expect("a link");
        }
        assert_eq!(disks(&host, "/etc"), [sda]);
        assert_eq!(disks(&host, "/var/lib"), [sda]);
        assert_eq!(disks(&host, "/var/spool"), [""; 0], "memory has no disk");
    }
}
