//! The kernel's version, as at a start.

use crate::host::Host;
use crate::kernel::judge;
use crate::knob::{Finding, Knob};

pub const KNOB: Knob = Knob {
    name: "kernel",
    purpose: "A kernel whose io_uring has what the relay uses.",
    check: |host, _| vec![check(host)],
};

fn check(host: &Host) -> Finding {
    const PATH: &str = "/proc/sys/kernel/osrelease";
    match host.read(PATH) {
        None => Finding::Absent(format!("{PATH} is not there")),
        Some(release) => match judge(&release) {
            Some(found) => Finding::Must(found.sentence),
            None => Finding::Fine(format!("the kernel is {release}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;

    #[test]
    fn an_old_kernel_is_to_be_replaced_first() {
        for (release, old) in [("5.4.0-42-generic", true), ("6.1.0-18-amd64", false)] {
            let (_directory, host) = played::host(&[("/proc/sys/kernel/osrelease", release)]);
            assert_eq!(matches!(check(&host), Finding::Must(_)), old, "{release}");
        }
    }
}
