//! Swap is for emergencies.

use crate::host::Host;
use crate::knob::{Finding, Knob};

pub const KNOB: Knob = Knob {
    name: "swappiness",
    purpose: "The relay's memory stays in memory; a page that must be read from swap stops a whole shard.",
    check: |host, _| vec![check(host)],
};

const PATH: &str = "/proc/sys/vm/swappiness";
const MAX: u64 = 10;

fn check(host: &Host) -> Finding {
    match (host.read(PATH), host.number(PATH)) {
        (Some(found), Some(number)) if number <= MAX => Finding::Fine(format!("vm.swappiness is {found}")),
        (Some(found), _) => Finding::wrong(PATH, found, &MAX.to_string()),
        (None, _) => Finding::Absent(format!("{PATH} is not there")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;

    #[test]
    fn swap_is_for_emergencies() {
        for (found, fine) in [("60", false), ("10", true), ("0", true), ("x", false)] {
            let (_directory, host) = played::host(&[(PATH, found)]);
            assert_eq!(matches!(check(&host), Finding::Fine(_)), fine, "{found}");
        }
    }
}
