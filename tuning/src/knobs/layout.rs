//! Which CPUs the shards have: enough of them, none twice, near each other.

use crate::container;
use crate::cpus::show;
use crate::host::Host;
use crate::knob::{Finding, Knob};
use crate::plan::Plan;
use crate::topology::Topology;

pub const KNOB: Knob = Knob {
    name: "layout",
    purpose: "No shard shares its CPU with another while CPUs are free, and all of them are near one memory.",
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Finding> {
    let topology = Topology::of(host, &plan.online, &plan.spool);
    let advice = [
        absent(plan),
        division(plan, &topology),
        threads(plan, &topology),
        nodes(plan, &topology),
        time(host, plan),
    ];
    let mut findings: Vec<Finding> = advice.into_iter().flatten().map(Finding::Advice).collect();
    if findings.is_empty() {
        let (ingest, delivery) = (show(&plan.ingest), show(&plan.delivery));
        findings
            .push(Finding::Fine(format!("ingest shards on CPU {ingest}, delivery shards on CPU {delivery}")));
    }
    findings
}

fn absent(plan: &Plan) -> Option<String> {
    (!plan.left_out.is_empty()).then(|| {
        format!(
            "CPU {} are named for the relay, and this host has CPU {}: the relay does not start so; correct [shards], or bring them online",
            show(&plan.left_out),
            show(&plan.online)
        )
    })
}

/// Shards on one CPU, or more CPUs without a shard than are kept for the rest.
fn division(plan: &Plan, topology: &Topology) -> Option<String> {
    let both: Vec<usize> = plan.ingest.iter().copied().filter(|cpu| plan.delivery.contains(cpu)).collect();
    let shards = plan.shards();
    let idle: Vec<usize> = plan.online.iter().copied().filter(|cpu| !shards.contains(cpu)).collect();
    let what = if !both.is_empty() && plan.online.len() > 1 {
        format!("CPU {} have an ingest and a delivery shard", show(&both))
    } else if idle.len() > plan.profile.kept() {
        format!("CPU {} have no shard", show(&idle))
    } else {
        return None;
    };
    let (ingest, delivery, service) = Plan::divide(plan.profile, &topology.order());
    Some(format!(
        "{what}: where the relay is to have the whole host, set in [shards] ingest_cpus = \"{}\", delivery_cpus = \"{}\", service_cpus = \"{}\"",
        show(&ingest),
        show(&delivery),
        show(&service)
    ))
}

/// Two threads of a core do the work of little more than one.
fn threads(plan: &Plan, topology: &Topology) -> Option<String> {
    let shards = plan.shards();
    let cores = topology.cores();
    let on = |core: &Vec<usize>| core.iter().filter(|cpu| shards.contains(cpu)).count();
    let crowded: Vec<String> = cores.iter().filter(|core| on(core) > 1).map(|core| show(core)).collect();
    let free: Vec<usize> =
        cores.iter().filter(|core| on(core) == 0).filter_map(|core| core.first().copied()).collect();
    let spare = free.len() > plan.profile.kept().div_ceil(2);
    (!crowded.is_empty() && spare).then(|| {
        format!(
            "CPU {} are threads of one core each and have a shard each, while the cores of CPU {} have none: take one thread of each core first",
            crowded.join(" and "),
            show(&free)
        )
    })
}

/// Each shard's memory is that of its own node, because it is pinned before it asks for any; what shards hand to
/// each other crosses nodes when they are not on one.
fn nodes(plan: &Plan, topology: &Topology) -> Option<String> {
    let nodes = topology.nodes();
    let shards = plan.shards();
    let used: Vec<usize> = nodes
        .iter()
        .filter(|(_, cpus)| shards.iter().any(|cpu| cpus.contains(cpu)))
        .map(|(node, _)| *node)
        .collect();
    let fits = |node: &usize| nodes.get(node).is_some_and(|cpus| cpus.len() >= shards.len());
    let best = topology.near.filter(fits).or_else(|| used.iter().copied().find(fits))?;
    let is_there = used == [best] || used.len() == 1 && topology.near.is_none();
    (!is_there).then(|| {
        let why = if topology.near == Some(best) {
            ", which the network card or the spool's disk is on,"
        } else {
            ""
        };
        format!(
            "the shards are on the NUMA nodes {}, and node {best}{why} alone has enough CPUs: {}",
            show(&used),
            show(&nodes[&best])
        )
    })
}

/// A bound on CPU time stops every thread of the relay for the rest of each period.
fn time(host: &Host, plan: &Plan) -> Option<String> {
    let (path, hundredths) = container::time(host)?;
    let shards = plan.shards().len();
    (hundredths < shards as u64 * 100).then(|| {
        format!(
            "{path} gives the time of {}.{:02} CPUs to {shards} CPUs with shards, which stand still for the rest of each period: take the bound away (CPUQuota= of the unit, --cpus of the container) or bound the CPUs themselves (AllowedCPUs=, --cpuset-cpus)",
            hundredths / 100,
            hundredths % 100
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played::{host, host_of, link};
    use crate::plan::{Profile, Wanted, played::plan};
    use crate::topology::played::files;

    fn shards(ingest: &[usize], delivery: &[usize], cpus: usize) -> Plan {
        Plan { ingest: ingest.to_vec(), delivery: delivery.to_vec(), ..plan(cpus) }
    }

    fn advice(findings: &[Finding]) -> Vec<&str> {
        findings
            .iter()
            .filter_map(|finding| match finding {
                Finding::Advice(text) => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_large_host_with_two_shards_is_told_of_its_idle_cpus() {
        let (_directory, host) = host(&[("/sys/devices/system/cpu/online", "0-63")]);
        let given = Wanted { ingest: vec![0], delivery: vec![1], ..Wanted::default() };
        let plan = Plan::of(&host, given);
        assert_eq!((plan.profile, plan.service.len()), (Profile::Large, 62));
        let findings = check(&host, &plan);
        let wanted = "CPU 2-63 have no shard: where the relay is to have the whole host, set in [shards] ingest_cpus = \"2-32\", delivery_cpus = \"33-63\", service_cpus = \"0-1\"";
        assert_eq!(advice(&findings), [wanted]);
        let best = Plan::of(&host, Wanted::default());
        assert_eq!(advice(&check(&host, &best)), [""; 0]);
    }

    #[test]
    fn shards_on_one_cpu_or_on_two_nodes_are_told_of() {
        let nodes = [
            ("/sys/devices/system/node/node0/cpulist", "0-7"),
            ("/sys/devices/system/node/node1/cpulist", "8-15"),
            ("/sys/devices/system/node/power/control", "auto"),
        ];
        let (_directory, host) = host(&nodes);
        let halves = ((0..7).collect::<Vec<_>>(), (7..14).collect::<Vec<_>>());
        let table: [(&[usize], &[usize], usize); 4] = [
            (&halves.0, &halves.1, 0),
            (&[2, 3, 4], &[5, 6, 7], 1),
            (&[2, 3, 4], &[5, 6, 9], 2),
            (&[2, 9], &[2], 2),
        ];
        for (ingest, delivery, count) in table {
            let findings = check(&host, &shards(ingest, delivery, 16));
            assert_eq!(advice(&findings).len(), count, "{ingest:?} {delivery:?}: {findings:?}");
        }
    }

    #[test]
    fn the_node_of_the_card_is_named() {
        let mut files = files(2, 8);
        files.push(("/sys/devices/pci/card/numa_node".into(), "1".into()));
        let (_directory, host) = host_of(&files);
        link(&host, "/sys/devices/pci/card", "/sys/class/net/eth0/device");
        let told = |ingest: &[usize], delivery: &[usize]| {
            nodes(&shards(ingest, delivery, 32), &Topology::of(&host, &(0..32).collect::<Vec<_>>(), "/x"))
        };
        let text = told(&[2], &[3]).expect("the wrong node");
        assert!(text.contains("node 1, which the network card") && text.ends_with("8-15,24-31"), "{text}");
        assert_eq!(told(&[8], &[9]), None);
    }

    #[test]
    fn two_threads_of_one_core_are_told_of_while_cores_are_free() {
        let (_directory, host) = host_of(&files(1, 8));
        let topology = Topology::of(&host, &(0..16).collect::<Vec<_>>(), "/x");
        let text = threads(&shards(&[1], &[9], 16), &topology).expect("one core");
        assert!(text.starts_with("CPU 1,9 are threads of one core"), "{text}");
        assert_eq!(threads(&shards(&[1], &[2], 16), &topology), None);
        let all: Vec<usize> = (1..8).chain(9..16).collect();
        assert_eq!(threads(&shards(&all[..7], &all[7..], 16), &topology), None, "no core is free");
    }

    #[test]
    fn a_bound_on_cpu_time_and_cpus_that_are_not_there_are_told_of() {
        let (_directory, host) = host(&[("/sys/fs/cgroup/cpu.max", "150000 100000")]);
        let findings = check(&host, &Plan { left_out: vec![7], ..plan(2) });
        let told = advice(&findings);
        assert!(told[0].starts_with("CPU 7 are named") && told[1].contains("1.50 CPUs to 2"), "{told:?}");
        let (_directory, host) = self::host(&[("/sys/fs/cgroup/cpu.max", "200000 100000")]);
        assert_eq!(advice(&check(&host, &plan(2))), [""; 0]);
    }
}
