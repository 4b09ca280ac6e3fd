//! Resource limits: those of a relay that runs, for a shell's own say nothing about it.

use crate::cpus::PINNED_MAX;
use crate::host::Host;
use crate::knob::{Finding, Knob};
use crate::memlock::BYTES_PER_EXECUTOR;
use crate::nofile::FILES_MIN;
use crate::plan::Plan;

pub const MEMLOCK: Knob = Knob {
    name: "memlock",
    purpose: "Memory that may be locked: each shard asks for 512 KiB and does not start without.",
    check: |host, plan| vec![memlock(host, plan)],
};

pub const NOFILE: Knob = Knob {
    name: "nofile",
    purpose: "Open files: a session is one, and so is a connection out.",
    check: |host, plan| vec![nofile(host, plan)],
};

fn memlock(host: &Host, plan: &Plan) -> Finding {
    let shards = (plan.ingest.len() + plan.delivery.len()).clamp(1, 2 * PINNED_MAX) as u64;
    check(host, "Max locked memory", BYTES_PER_EXECUTOR * shards, "LimitMEMLOCK=infinity")
}

fn nofile(host: &Host, plan: &Plan) -> Finding {
    let wanted = plan.files.max(FILES_MIN);
    check(host, "Max open files", wanted, &format!("LimitNOFILE={wanted}"))
}

/// The hard limit counts: the relay raises the soft one by itself.
fn check(host: &Host, name: &str, wanted: u64, setting: &str) -> Finding {
    let Some((pid, text)) = relay_limits(host) else {
        return Finding::Absent(format!(
            "no relay runs here whose limits could be seen; its unit wants {setting}"
        ));
    };
    let hard = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().nth(1));
    let found = match hard {
        Some("unlimited") => u64::MAX,
        hard => match hard.and_then(|hard| hard.parse().ok()) {
            Some(found) => found,
            None => return Finding::Absent(format!("/proc/{pid}/limits has no \"{name}\"")),
        },
    };
    match found >= wanted {
        true => Finding::Fine(format!("{name} of the relay (process {pid}) is {}", hard.unwrap_or_default())),
        false => Finding::Advice(format!(
            "{name} of the relay (process {pid}) is {found}, should be {wanted}: set {setting} in its unit (systemctl edit sluice), then restart it"
        )),
    }
}

/// The process and the limits of a relay that runs. Other commands of the program have other limits.
fn relay_limits(host: &Host) -> Option<(String, String)> {
    let runs = |pid: &String| {
        let command = host.read(&format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split('\0').nth(1) == Some("run")
    };
    let pid = host.processes("sluice").into_iter().find(runs)?;
    let limits = host.read(&format!("/proc/{pid}/limits"))?;
    Some((pid, limits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;
    use crate::plan::played::plan;

    const RUN: &str = "/usr/local/bin/sluice\0run\0--config\0/etc/sluice/relay.toml\0";

    #[test]
    fn the_limits_are_those_of_the_relay_that_runs_and_else_the_units_line_is_told() {
        let word = |finding: &Finding| match finding {
            Finding::Fine(_) => "fine",
            Finding::Advice(_) => "advice",
            Finding::Absent(_) => "absent",
            _ => "other",
        };
        let table = [
            (RUN, "sluice", "8388608", "1048576", "fine", "fine"),
            (RUN, "sluice", "unlimited", "unlimited", "fine", "fine"),
            (RUN, "sluice", "65536", "4096", "advice", "advice"),
            (RUN, "other", "65536", "4096", "absent", "absent"),
            ("sluice\0tune\0", "sluice", "65536", "4096", "absent", "absent"),
            (RUN, "sluice", "x", "", "absent", "absent"),
        ];
        for (command, name, memory, files, memlock_is, nofile_is) in table {
            let limits = format!(
                "Limit                     Soft Limit           Hard Limit           Units\n\
                 Max open files            1024                 {files}              files\n\
                 Max locked memory         65536                {memory}             bytes"
            );
            let (_directory, host) = played::host(&[
                ("/proc/9/comm", name),
                ("/proc/9/cmdline", command),
                ("/proc/9/limits", &limits),
            ]);
            let plan = Plan { files: 40_400, ..plan(16) };
            let found = (memlock(&host, &plan), nofile(&host, &plan));
            assert_eq!(
                (word(&found.0), word(&found.1)),
                (memlock_is, nofile_is),
                "{command} {memory} {files}"
            );
        }
        let (_directory, host) = played::host(&[]);
        let Finding::Absent(text) = nofile(&host, &Plan { files: 40_400, ..plan(2) }) else {
            panic!("no relay")
        };
        assert!(text.contains("LimitNOFILE=40400"), "{text}");
    }
}
