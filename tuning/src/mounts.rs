//! From a directory to the file system that it is on, and to the disks beneath that.

use crate::host::Host;

/// A line of `/proc/self/mountinfo` (proc(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub point: String,
    pub kind: String,
    /// `MAJOR:MINOR`.
    pub device: String,
    /// Of the mount and of the file system.
    pub options: Vec<String>,
}

/// Devices that devices are made of, no deeper than this: a loop in a broken `/sys` ends.
const DEPTH_MAX: usize = 8;

/// The file system that a directory is on, or will be on when it is made.
pub fn of(host: &Host, directory: &str) -> Option<Mount> {
    let text = host.read("/proc/self/mountinfo")?;
    let mounts = text.lines().filter_map(parse);
    // The last of the longest hides the others.
    mounts.filter(|mount| is_below(directory, &mount.point)).fold(None, |best: Option<Mount>, mount| {
        match best {
            Some(best) if best.point.len() > mount.point.len() => Some(best),
            _ => Some(mount),
        }
    })
}

/// The disks beneath a directory, as absolute paths below `/sys/devices`.
pub fn disks(host: &Host, directory: &str) -> Vec<String> {
    let device =
        of(host, directory).and_then(|mount| host.resolve(&format!("/sys/dev/block/{}", mount.device)));
    let mut disks = Vec::new();
    if let Some(device) = device {
        add_disks(host, &device, DEPTH_MAX, &mut disks);
    }
    disks
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
    let of_file_system = fields.nth(1).unwrap_or_default();
    let options = options.split(',').chain(of_file_system.split(',')).map(str::to_owned).collect();
    Some(Mount { point, kind, device, options })
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
        let options = of(&host, "/var").expect("a mount").options;
        assert_eq!(options, ["rw", "noatime", "rw", "attr2"]);
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
