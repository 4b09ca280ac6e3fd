//! Memory of hosts with several nodes.

use crate::host::Host;
use crate::knob::{Finding, Knob};
use crate::topology;

pub const KNOB: Knob = Knob {
    name: "numa-balancing",
    purpose: "Pinned shards have their memory beside them, so looking for pages to move is lost time.",
    check: |host, _| check(host),
};

fn check(host: &Host) -> Vec<Finding> {
    if topology::nodes(host).len() < 2 {
        return vec![Finding::Absent("this host has one memory for all CPUs".into())];
    }
    ["/proc/sys/kernel/numa_balancing", "/proc/sys/vm/zone_reclaim_mode"]
        .map(|path| Finding::of_value(host, path, "0"))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;

    #[test]
    fn pages_are_moved_about_where_there_are_two_nodes_of_whatever_number() {
        let files = |second: &str| {
            ["node0", second].map(|node| (format!("/sys/devices/system/node/{node}/cpulist"), "0".to_owned()))
        };
        for (second, changes) in [("node1", 1), ("node8", 1), ("node0", 0), ("has_cpu", 0)] {
            let mut files = files(second).to_vec();
            files.push(("/proc/sys/kernel/numa_balancing".into(), "1".into()));
            let (_directory, host) = played::host_of(&files);
            let wrong =
                check(&host).iter().filter(|finding| matches!(finding, Finding::Wrong { .. })).count();
            assert_eq!(wrong, changes, "{second}");
        }
    }
}
