//! What control groups (version 2) leave to the relay: CPUs, and time on them.

use crate::host::Host;

const ROOT: &str = "/sys/fs/cgroup";
/// Where the relay may be, from the host's or the container's own root.
const GROUPS: [&str; 4] =
    ["", "/sluice.slice", "/sluice.slice/sluice.service", "/system.slice/sluice.service"];

/// The CPUs of the container that this is; `None`: it is none, or has all of them.
pub fn cpus(host: &Host) -> Option<Vec<usize>> {
    // Only a group below the host's root has a type; at the root, CPUs of a partition would be missing.
    host.has(&format!("{ROOT}/cgroup.type")).then(|| host.cpus(&format!("{ROOT}/cpuset.cpus.effective")))?
}

/// The narrowest bound on CPU time: the file, and how many CPUs' time it gives, in hundredths.
pub fn time(host: &Host) -> Option<(String, u64)> {
    let bound = |group: &&str| {
        let path = format!("{ROOT}{group}/cpu.max");
        let text = host.read(&path)?;
        let mut words = text.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(quota)), Some(Ok(period))) = (words.next(), words.next()) else { return None };
        Some((path, quota.saturating_mul(100) / period.max(1)))
    };
    GROUPS.iter().filter_map(bound).min_by_key(|(_, hundredths)| *hundredths)
}

/// The CPUs that partitions keep for themselves (`cpuset.cpus.partition = isolated`); none where the kernel does not
/// say.
pub fn isolated(host: &Host) -> Vec<usize> {
    host.cpus(&format!("{ROOT}/cpuset.cpus.isolated")).unwrap_or_default()
}

/// Whether the slices of services and of users are kept off these CPUs.
pub fn slices_keep_off(host: &Host, cpus: &[usize]) -> bool {
    let keeps_off = |slice: &str| {
        let allowed = host.cpus(&format!("{ROOT}/{slice}/cpuset.cpus"));
        allowed.is_some_and(|allowed| !cpus.iter().any(|cpu| allowed.contains(cpu)))
    };
    let users = !host.has(&format!("{ROOT}/user.slice")) || keeps_off("user.slice");
    users && keeps_off("system.slice")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;

    #[test]
    fn a_container_has_the_cpus_of_its_cpuset_and_a_host_all() {
        let effective = ("/sys/fs/cgroup/cpuset.cpus.effective", "2-3");
        let (_directory, container) = played::host(&[effective, ("/sys/fs/cgroup/cgroup.type", "domain")]);
        assert_eq!(cpus(&container), Some(vec![2, 3]));
        let (_directory, host) = played::host(&[effective]);
        assert_eq!(cpus(&host), None, "CPUs of partitions are missing there");
    }

    #[test]
    fn the_narrowest_bound_on_time_counts() {
        type Files = &'static [(&'static str, &'static str)];
        let table: [(Files, Option<u64>); 4] = [
            (&[("", "max 100000")], None),
            (&[("", "150000 100000")], Some(150)),
            (&[("", "400000 100000"), ("/sluice.slice/sluice.service", "50000 100000")], Some(50)),
            (&[("/system.slice/sluice.service", "x y")], None),
        ];
        for (groups, hundredths) in table {
            let files: Vec<_> = groups
                .iter()
                .map(|(group, text)| (format!("/sys/fs/cgroup{group}/cpu.max"), (*text).to_owned()))
                .collect();
            let (_directory, host) = played::host_of(&files);
            assert_eq!(time(&host).map(|(_, hundredths)| hundredths), hundredths, "{groups:?}");
        }
    }

    #[test]
    fn slices_keep_off_when_both_name_other_cpus() {
        let path = |slice: &str| format!("/sys/fs/cgroup/{slice}.slice/cpuset.cpus");
        for (system, user, kept) in
            [("0-1", Some("0-1"), true), ("0-1", None, true), ("0-1", Some(""), false), ("0-2", None, false)]
        {
            let mut files = vec![(path("system"), system.to_owned())];
            files.extend(user.map(|user| (path("user"), user.to_owned())));
            let (_directory, host) = played::host_of(&files);
            assert_eq!(slices_keep_off(&host, &[2, 3]), kept, "{system} {user:?}");
        }
    }
}
