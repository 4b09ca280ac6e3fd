//! CPUs: their speed, and who else runs on those of the shards.

use crate::cpus::{parse, show};
use crate::host::Host;
use crate::knob::{Finding, Knob};
use crate::plan::{Plan, Profile};

pub const KNOBS: &[Knob] = &[
    Knob {
        name: "governor",
        purpose: "The clock of a shard's CPU stays high; else each quiet moment is paid with a slow start.",
        check: governor,
    },
    Knob {
        name: "isolation",
        purpose: "On large hosts the scheduler puts nothing else on the CPUs of the shards.",
        check: isolation,
    },
    Knob {
        name: "layout",
        purpose: "No shard shares its CPU with another while CPUs are free, and all of them are near one memory.",
        check: layout,
    },
    Knob {
        name: "clock-source",
        purpose: "The time is read from the CPU itself; any other source costs a microsecond or more each time.",
        check: |host, _| vec![clock_source(host)],
    },
];

fn governor(host: &Host, plan: &Plan) -> Vec<Finding> {
    let path = |cpu: &usize| format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
    let shards = plan.shards();
    if !shards.iter().any(|cpu| host.has(&path(cpu))) {
        return vec![Finding::Absent(
            "the CPUs show no governor (a virtual machine, or fixed by the firmware)".into(),
        )];
    }
    shards.iter().map(|cpu| Finding::of_value(host, &path(cpu), "performance")).collect()
}

fn isolation(host: &Host, plan: &Plan) -> Vec<Finding> {
    let wanted = plan.shards();
    if plan.profile != Profile::Large || !plan.has_shards_apart() {
        let text = "a host of this size has no CPU to spare, nothing is isolated";
        return vec![Finding::Fine(text.into())];
    }
    let Some(text) = host.read("/sys/devices/system/cpu/isolated") else {
        return vec![Finding::Absent("the kernel does not tell which CPUs are isolated".into())];
    };
    let isolated = parse(&text).unwrap_or_default();
    let list = show(&wanted);
    vec![match wanted.iter().all(|cpu| isolated.contains(cpu)) {
        true => Finding::Fine(format!("CPU {list} are isolated")),
        false => Finding::Advice(format!(
            "CPU {list} are not isolated: boot with isolcpus=domain,managed_irq,{list} nohz_full={list} rcu_nocbs={list} \
             (GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub; undo: take it out again); without a boot, \
             systemctl set-property --runtime system.slice AllowedCPUs={kept} and the same for user.slice, and \
             AllowedCPUs= of the relay's own slice",
            kept = show(&plan.service)
        )),
    }]
}

fn layout(host: &Host, plan: &Plan) -> Vec<Finding> {
    let mut findings = Vec::new();
    let both: Vec<usize> = plan.ingest.iter().copied().filter(|cpu| plan.delivery.contains(cpu)).collect();
    if !both.is_empty() && plan.online.len() > 1 {
        let (ingest, delivery, service) = Plan::divide(plan.profile, &plan.online);
        findings.push(Finding::Advice(format!(
            "CPU {} have an ingest and a delivery shard: in [shards] set ingest_cpus = \"{}\", delivery_cpus = \"{}\", service_cpus = \"{}\"",
            show(&both),
            show(&ingest),
            show(&delivery),
            show(&service)
        )));
    }
    if let Some(text) = on_several_nodes(host, plan) {
        findings.push(Finding::Advice(text));
    }
    if findings.is_empty() {
        let (ingest, delivery) = (show(&plan.ingest), show(&plan.delivery));
        findings
            .push(Finding::Fine(format!("ingest shards on CPU {ingest}, delivery shards on CPU {delivery}")));
    }
    findings
}

/// Each shard's memory is that of its own node, because it is pinned before it asks for any; what shards hand to
/// each other crosses nodes when they are not on one.
fn on_several_nodes(host: &Host, plan: &Plan) -> Option<String> {
    let nodes: Vec<(String, Vec<usize>)> = host
        .entries("/sys/devices/system/node")
        .into_iter()
        .filter(|name| name.strip_prefix("node").is_some_and(|number| number.parse::<u32>().is_ok()))
        .filter_map(|name| {
            let cpus = parse(&host.read(&format!("/sys/devices/system/node/{name}/cpulist"))?)?;
            Some((name, cpus))
        })
        .collect();
    let shards = plan.shards();
    let used: Vec<&str> = nodes
        .iter()
        .filter(|(_, cpus)| shards.iter().any(|cpu| cpus.contains(cpu)))
        .map(|(name, _)| name.as_str())
        .collect();
    let fits = nodes.iter().any(|(_, cpus)| cpus.len() >= shards.len());
    (used.len() > 1 && fits).then(|| {
        format!(
            "the shards are on the NUMA nodes {}, and one alone has enough CPUs: take those of the node that the network card and the disk are on",
            used.join(", ")
        )
    })
}

fn clock_source(host: &Host) -> Finding {
    const PATH: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    match host.read(PATH).as_deref() {
        None => Finding::Absent(format!("{PATH} is not there")),
        Some(found @ ("tsc" | "arch_sys_counter" | "kvm-clock" | "hyperv_clocksource_tsc_page")) => {
            Finding::Fine(format!("the clock source is {found}"))
        }
        Some(found) => Finding::Advice(format!(
            "the clock source is {found}, which each reading of the time waits for: boot with clocksource=tsc tsc=reliable \
             where the CPU's is dependable (undo: take it out again)"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;

    fn plan(ingest: &[usize], delivery: &[usize], cpus: usize) -> Plan {
        Plan {
            profile: Profile::of(cpus),
            online: (0..cpus).collect(),
            ingest: ingest.to_vec(),
            delivery: delivery.to_vec(),
            service: vec![0, 1],
            spool: String::new(),
        }
    }

    #[test]
    fn the_governor_of_the_shards_cpus_is_changed_and_of_no_others() {
        let path = |cpu: usize| format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
        let files: Vec<(String, &str)> =
            (0..4).map(|cpu| (path(cpu), if cpu == 2 { "performance" } else { "powersave" })).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (&**path, *text)).collect();
        let (_directory, host) = played::host(&files);
        let findings = governor(&host, &plan(&[1], &[2], 4));
        assert!(
            matches!(&findings[..], [Finding::Wrong { steps, .. }, Finding::Fine(_)] if steps.len() == 1)
        );
    }

    #[test]
    fn isolation_is_advised_on_large_hosts_until_it_is_there() {
        const ISOLATED: &str = "/sys/devices/system/cpu/isolated";
        let check = |text: &str, cpus| {
            let (_directory, host) = played::host(&[(ISOLATED, text)]);
            isolation(&host, &plan(&[2, 3], &[4, 5], cpus)).remove(0)
        };
        assert!(
            matches!(check("", 16), Finding::Advice(text) if text.contains("isolcpus=domain,managed_irq,2-5 "))
        );
        assert!(matches!(check("2-4", 16), Finding::Advice(_)));
        assert!(matches!(check("2-5", 16), Finding::Fine(_)));
        assert!(matches!(check("", 8), Finding::Fine(_)));
    }

    #[test]
    fn shards_on_one_cpu_or_on_two_nodes_are_told_of() {
        let files = [
            ("/sys/devices/system/node/node0/cpulist", "0-7"),
            ("/sys/devices/system/node/node1/cpulist", "8-15"),
            ("/sys/devices/system/node/power/control", "auto"),
        ];
        let (_directory, host) = played::host(&files);
        let advice = |plan: Plan| {
            let findings = layout(&host, &plan);
            findings.iter().filter(|finding| matches!(finding, Finding::Advice(_))).count()
        };
        assert_eq!(advice(plan(&[2], &[3], 16)), 0);
        assert_eq!(advice(plan(&[2], &[9], 16)), 1);
        assert_eq!(advice(plan(&[2, 9], &[2], 16)), 2);
        assert_eq!(
            advice(plan(&(0..8).collect::<Vec<_>>(), &(8..16).collect::<Vec<_>>(), 16)),
            0,
            "one is too small"
        );
    }

    #[test]
    fn clocks_that_are_slow_to_read_are_named() {
        const PATH: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        for (found, fine) in
            [("tsc", true), ("kvm-clock", true), ("hpet", false), ("acpi_pm", false), ("xen", false)]
        {
            let (_directory, host) = played::host(&[(PATH, found)]);
            assert_eq!(matches!(clock_source(&host), Finding::Fine(_)), fine, "{found}");
        }
    }
}
