//! Who else runs on the CPUs of the shards.
//!
//! Full dynticks (`nohz_full=`) is not advised: it makes each system call dearer, and a shard makes many.

use crate::container;
use crate::cpus::show;
use crate::host::Host;
use crate::knob::{Finding, Knob};
use crate::plan::{Plan, Profile};

pub const KNOB: Knob = Knob {
    name: "isolation",
    purpose: "On large hosts the scheduler puts nothing else on the CPUs of the shards.",
    check: |host, plan| vec![check(host, plan)],
};

/// The CPUs that the scheduler gives to nobody who does not ask for them by number: since the boot, or as a
/// partition.
pub fn isolated(host: &Host) -> Vec<usize> {
    let booted = host.cpus("/sys/devices/system/cpu/isolated").unwrap_or_default();
    [booted, container::isolated(host)].concat()
}

fn check(host: &Host, plan: &Plan) -> Finding {
    let wanted = plan.shards();
    if plan.profile != Profile::Large || !plan.has_shards_apart() {
        let text = "a host of this size has no CPU to spare, nothing is isolated";
        return Finding::Fine(text.into());
    }
    let isolated = isolated(host);
    let (list, kept) = (show(&wanted), show(&plan.service));
    if wanted.iter().all(|cpu| isolated.contains(cpu)) {
        return Finding::Fine(format!("CPU {list} are isolated"));
    }
    if container::slices_keep_off(host, &wanted) {
        return Finding::Fine(format!("services and users are kept off CPU {list} by their slices"));
    }
    if plan.service.iter().any(|cpu| wanted.contains(cpu)) {
        return Finding::Advice(format!(
            "CPU {list} are not isolated, and cannot be while the service thread is on CPU {kept}: give shards.service_cpus CPUs that no shard has"
        ));
    }
    Finding::Advice(format!(
        "CPU {list} are not isolated: run `systemctl set-property --runtime system.slice AllowedCPUs={kept}` and \
         `systemctl set-property --runtime user.slice AllowedCPUs={kept}`, for the relay is in sluice.slice and keeps all \
         (undo: `systemctl set-property --runtime system.slice AllowedCPUs=` and \
         `systemctl set-property --runtime user.slice AllowedCPUs=`); or for good, boot with \
         isolcpus=domain,managed_irq,{list} (GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub; undo: take it \
         out again); and name CPU {kept} in shards.service_cpus"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;
    use crate::plan::played::plan;

    fn of(files: &[(&str, &str)], cpus: usize, service: &[usize]) -> Finding {
        let (_directory, host) = played::host(files);
        let shards =
            Plan { ingest: vec![2, 3], delivery: vec![4, 5], service: service.to_vec(), ..plan(cpus) };
        check(&host, &shards)
    }

    #[test]
    fn isolation_is_advised_on_large_hosts_until_it_is_there() {
        const BOOTED: &str = "/sys/devices/system/cpu/isolated";
        const PARTITIONS: &str = "/sys/fs/cgroup/cpuset.cpus.isolated";
        const SYSTEM: &str = "/sys/fs/cgroup/system.slice/cpuset.cpus";
        type Files = &'static [(&'static str, &'static str)];
        let table: [(Files, usize, bool); 7] = [
            (&[(BOOTED, "")], 16, false),
            (&[(BOOTED, "2-4")], 16, false),
            (&[(BOOTED, "2-5")], 16, true),
            (&[(BOOTED, "2-3"), (PARTITIONS, "4-5")], 16, true),
            (&[(SYSTEM, "0-1")], 16, true),
            (&[(SYSTEM, "0-2")], 16, false),
            (&[(BOOTED, "")], 8, true),
        ];
        for (files, cpus, fine) in table {
            assert_eq!(matches!(of(files, cpus, &[0, 1]), Finding::Fine(_)), fine, "{files:?} {cpus}");
        }
    }

    #[test]
    fn the_advice_can_be_typed_and_undone_and_stops_not_the_relay_itself() {
        let Finding::Advice(text) = of(&[], 16, &[0, 1]) else { panic!("should be advised") };
        for words in [
            "system.slice AllowedCPUs=0-1`",
            "user.slice AllowedCPUs=0-1`",
            "system.slice AllowedCPUs=`",
            "user.slice AllowedCPUs=`",
            "isolcpus=domain,managed_irq,2-5 ",
            "sluice.slice",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains("nohz_full"));
        let unit = include_str!("../../systemd/sluice.service");
        assert!(unit.lines().any(|line| line == "Slice=sluice.slice"), "what the advice leans on");
        let Finding::Advice(text) = of(&[], 16, &[0, 2]) else { panic!("should be advised") };
        assert!(text.contains("shards.service_cpus") && !text.contains("AllowedCPUs"), "{text}");
    }
}
