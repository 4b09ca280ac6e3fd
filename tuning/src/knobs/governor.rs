//! The clock of the shards' CPUs.

use crate::host::Host;
use crate::knob::{Finding, Knob};
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "governor",
    purpose: "The clock of a shard's CPU stays high; else each quiet moment is paid with a slow start.",
    check,
};

const WANTED: &str = "performance";

fn check(host: &Host, plan: &Plan) -> Vec<Finding> {
    let of = |cpu: usize, file: &str| format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/{file}");
    let shards = plan.shards();
    if !shards.iter().any(|cpu| host.has(&of(*cpu, "scaling_governor"))) {
        let text = "the CPUs show no governor (a virtual machine, or fixed by the firmware)";
        return vec![Finding::Absent(text.into())];
    }
    let check = |&cpu: &usize| {
        let path = of(cpu, "scaling_governor");
        let offered = host.read(&of(cpu, "scaling_available_governors"));
        match (offered, host.read(&path)) {
            (Some(offered), Some(found))
                if found != WANTED && !offered.split_whitespace().any(|name| name == WANTED) =>
            {
                Finding::Advice(format!(
                    "{path} is {found}, and {WANTED} is not offered (only {offered}): load the governor (modprobe cpufreq_performance) or set it in the firmware"
                ))
            }
            _ => Finding::of_value(host, &path, WANTED),
        }
    };
    shards.iter().map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;

    #[test]
    fn the_governor_of_the_shards_cpus_is_changed_where_it_is_offered_and_of_no_others() {
        let path = |cpu: usize, file: &str| format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/{file}");
        let files: Vec<_> =
            [(0, "powersave", ""), (1, "powersave", "performance powersave"), (2, "performance", "x")]
                .into_iter()
                .flat_map(|(cpu, found, offered)| {
                    [("scaling_governor", found), ("scaling_available_governors", offered)]
                        .map(|(file, text)| (path(cpu, file), text.to_owned()))
                })
                .chain([(path(3, "scaling_governor"), "powersave".to_owned())])
                .chain([(path(4, "scaling_governor"), "powersave".to_owned())])
                .chain([(path(4, "scaling_available_governors"), "powersave schedutil".to_owned())])
                .collect();
        let (_directory, host) = played::host_of(&files);
        let plan = Plan { ingest: vec![1, 2], delivery: vec![3, 4], ..Plan::default() };
        let findings = check(&host, &plan);
        assert!(
            matches!(
                &findings[..],
                [Finding::Wrong { .. }, Finding::Fine(_), Finding::Wrong { .. }, Finding::Advice(_)]
            ),
            "{findings:?}"
        );
    }
}
