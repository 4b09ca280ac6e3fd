//! Where the time comes from.

use crate::host::Host;
use crate::knob::{Finding, Knob};

pub const KNOB: Knob = Knob {
    name: "clock-source",
    purpose: "The time is read from the CPU itself; any other source costs a microsecond or more each time.",
    check: |host, _| vec![check(host)],
};

const DIRECTORY: &str = "/sys/devices/system/clocksource/clocksource0";
/// Those that a program reads without asking the kernel.
const FAST: [&str; 6] =
    ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter", "timebase", "riscv_clocksource"];

fn check(host: &Host) -> Finding {
    let path = format!("{DIRECTORY}/current_clocksource");
    let Some(found) = host.read(&path) else { return Finding::Absent(format!("{path} is not there")) };
    if FAST.contains(&found.as_str()) {
        return Finding::Fine(format!("the clock source is {found}"));
    }
    let offered = host.read(&format!("{DIRECTORY}/available_clocksource")).unwrap_or_default();
    let better = offered.split_whitespace().find(|name| FAST.contains(name));
    let what = match better {
        Some("tsc") => {
            "boot with clocksource=tsc tsc=reliable where the CPU's is dependable (undo: take it out again)"
                .into()
        }
        Some(better) => format!("boot with clocksource={better} (undo: take it out again)"),
        None => format!(
            "the kernel offers none that is faster ({offered}); a virtual machine gets one from its hypervisor, an x86 CPU whose TSC the kernel gave up says why in dmesg"
        ),
    };
    Finding::Advice(format!("the clock source is {found}, which each reading of the time waits for: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;

    #[test]
    fn clocks_that_are_slow_to_read_are_named_with_what_is_there_in_their_place() {
        let (current, available) =
            (format!("{DIRECTORY}/current_clocksource"), format!("{DIRECTORY}/available_clocksource"));
        let table = [
            ("tsc", "tsc hpet", ""),
            ("kvm-clock", "", ""),
            ("arch_sys_counter", "arch_sys_counter", ""),
            ("hpet", "tsc hpet", "clocksource=tsc"),
            ("xen", "xen kvm-clock", "clocksource=kvm-clock"),
            ("jiffies", "jiffies", "offers none"),
            ("acpi_pm", "hpet acpi_pm", "offers none"),
        ];
        for (found, offered, advice) in table {
            let (_directory, host) = played::host(&[(&current, found), (&available, offered)]);
            match check(&host) {
                Finding::Fine(_) => assert_eq!(advice, "", "{found}"),
                Finding::Advice(text) => assert!(!advice.is_empty() && text.contains(advice), "{text}"),
                other => panic!("{found}: {other:?}"),
            }
        }
    }
}
