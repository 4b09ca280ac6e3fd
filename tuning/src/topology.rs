//! Which CPUs are threads of one core, and which are near one memory (NUMA node), as `/sys` shows it.

use crate::host::Host;
use crate::mounts;
use std::collections::BTreeMap;

const NODES: &str = "/sys/devices/system/node";
/// From a device up to the bus that knows its node.
const ABOVE_MAX: usize = 16;

pub struct Topology {
    /// Ascending.
    cpus: Vec<Cpu>,
    /// The node that the network card is on, or else the spool's disk; `None`: nothing says.
    pub near: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cpu {
    number: usize,
    node: usize,
    /// The first thread of the same core.
    core: usize,
}

impl Topology {
    /// Of these CPUs. Where the host shows nothing, each is a core of its own, on node 0.
    pub fn of(host: &Host, cpus: &[usize], spool: &str) -> Self {
        let nodes = nodes(host);
        let node_of =
            |cpu: usize| nodes.iter().find(|(_, cpus)| cpus.contains(&cpu)).map_or(0, |(node, _)| *node);
        let core_of = |cpu: usize| {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            host.cpus(&path).and_then(|threads| threads.into_iter().min()).unwrap_or(cpu)
        };
        let cpu = |&number: &usize| Cpu { number, node: node_of(number), core: core_of(number) };
        let near = if nodes.len() > 1 { near(host, spool) } else { None };
        Self { cpus: cpus.iter().map(cpu).collect(), near }
    }

    /// The order in which CPUs are given out: the node of card and disk first, core by core, the threads of a core
    /// beside each other.
    pub fn order(&self) -> Vec<usize> {
        let mut cpus = self.cpus.clone();
        cpus.sort_by_key(|cpu| {
            (self.near.is_some_and(|near| near != cpu.node), cpu.node, cpu.core, cpu.number)
        });
        cpus.into_iter().map(|cpu| cpu.number).collect()
    }

    /// The CPUs of each core.
    pub fn cores(&self) -> Vec<Vec<usize>> {
        self.by(|cpu| cpu.core).into_values().collect()
    }

    /// The CPUs of each node.
    pub fn nodes(&self) -> BTreeMap<usize, Vec<usize>> {
        self.by(|cpu| cpu.node)
    }

    fn by(&self, key: impl Fn(&Cpu) -> usize) -> BTreeMap<usize, Vec<usize>> {
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for cpu in &self.cpus {
            groups.entry(key(cpu)).or_default().push(cpu.number);
        }
        groups
    }
}

/// The memories of the host and the CPUs beside each. A node without CPUs is one too.
pub fn nodes(host: &Host) -> Vec<(usize, Vec<usize>)> {
    let number = |name: &String| name.strip_prefix("node")?.parse::<usize>().ok();
    let nodes = host.entries(NODES).into_iter().filter_map(|name| number(&name));
    nodes.map(|node| (node, host.cpus(&format!("{NODES}/node{node}/cpulist")).unwrap_or_default())).collect()
}

fn near(host: &Host, spool: &str) -> Option<usize> {
    let cards = host.entries("/sys/class/net").into_iter();
    let cards = cards.filter_map(|card| host.resolve(&format!("/sys/class/net/{card}/device")));
    cards.chain(mounts::disks(host, spool)).find_map(|device| node_of(host, &device))
}

/// A device says it itself, or one that it hangs on does; -1 is nothing said.
fn node_of(host: &Host, device: &str) -> Option<usize> {
    let mut path = device;
    for _ in 0..ABOVE_MAX {
        if let Some(node) = host.number(&format!("{path}/numa_node")) {
            return usize::try_from(node).ok();
        }
        path = path.rsplit_once('/')?.0;
    }
    None
}

#[cfg(test)]
pub(crate) mod played {
    //! The files of a host with threads and nodes.

    /// `nodes` memories of `cores` cores each, with two threads, numbered as Intel does: the second threads follow
    /// all of the first.
    pub fn files(nodes: usize, cores: usize) -> Vec<(String, String)> {
        let all = nodes * cores;
        let mut files = vec![("/sys/devices/system/cpu/online".to_owned(), format!("0-{}", 2 * all - 1))];
        for cpu in 0..2 * all {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            files.push((path, format!("{},{}", cpu % all, cpu % all + all)));
        }
        for node in 0..nodes {
            let (first, last) = (node * cores, (node + 1) * cores - 1);
            let path = format!("/sys/devices/system/node/node{node}/cpulist");
            files.push((path, format!("{first}-{last},{}-{}", first + all, last + all)));
        }
        files
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played::{host, host_of, link};

    #[test]
    fn cpus_are_given_out_core_by_core_on_the_node_of_the_card() {
        const CARD: &str = "/sys/devices/pci0000:80/0000:80:01.0";
        for (node, near, order) in [
            ("1", Some(1), [2, 6, 3, 7, 0, 4, 1, 5]),
            ("0", Some(0), [0, 4, 1, 5, 2, 6, 3, 7]),
            ("-1", None, [0, 4, 1, 5, 2, 6, 3, 7]),
        ] {
            let mut files = played::files(2, 2);
            files.push((format!("{CARD}/numa_node"), node.into()));
            files.push((format!("{CARD}/virtio1/.keep"), String::new()));
            let (_directory, host) = host_of(&files);
            link(&host, &format!("{CARD}/virtio1"), "/sys/class/net/eth0/device");
            let topology = Topology::of(&host, &(0..8).collect::<Vec<_>>(), "/var/spool/sluice");
            assert_eq!((topology.near, topology.order().as_slice()), (near, order.as_slice()), "{node}");
            assert_eq!(topology.cores(), [[0, 4], [1, 5], [2, 6], [3, 7]]);
            assert_eq!(topology.nodes()[&1], [2, 3, 6, 7]);
        }
    }

    #[test]
    fn without_a_card_the_disk_says_where_to_be() {
        const DISK: &str = "/sys/devices/pci0000:40/0000:40:02.0/nvme/nvme0/nvme0n1";
        let mut files = played::files(2, 2);
        files.push(("/proc/self/mountinfo".into(), "1 0 259:0 / / rw - xfs /dev/nvme0n1 rw".into()));
        files.push(("/sys/devices/pci0000:40/0000:40:02.0/numa_node".into(), "1".into()));
        files.push((format!("{DISK}/queue/scheduler"), "none".into()));
        let (_directory, host) = host_of(&files);
        link(&host, DISK, "/sys/dev/block/259:0");
        assert_eq!(Topology::of(&host, &[0, 1], "/var").near, Some(1));
    }

    #[test]
    fn a_host_that_shows_nothing_has_one_node_and_a_core_for_each_cpu() {
        let (_directory, host) = host(&[]);
        let topology = Topology::of(&host, &[0, 1, 5], "/");
        assert_eq!((topology.order(), topology.nodes().len(), topology.cores().len()), (vec![0, 1, 5], 1, 3));
    }
}
