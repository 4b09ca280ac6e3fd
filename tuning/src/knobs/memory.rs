//! Memory: what the kernel does with it behind the relay's back.

use crate::host::Host;
use crate::knob::{Finding, Knob, Step};
use crate::plan::Plan;

pub const KNOBS: &[Knob] = &[
    Knob {
        name: "swappiness",
        purpose: "The relay's memory stays in memory; a page that must be read from swap stops a whole shard.",
        check: |host, _| vec![swappiness(host)],
    },
    Knob {
        name: "huge-pages",
        purpose: "Huge pages are for programs that ask for them: made behind a program's back they take memory and time.",
        check: |host, _| vec![huge_pages(host)],
    },
    Knob {
        name: "numa-balancing",
        purpose: "Pinned shards have their memory beside them, so looking for pages to move is lost time.",
        check: numa,
    },
];

const SWAPPINESS: &str = "/proc/sys/vm/swappiness";
const SWAPPINESS_MAX: u64 = 10;

fn swappiness(host: &Host) -> Finding {
    match (host.read(SWAPPINESS), host.number(SWAPPINESS)) {
        (Some(found), Some(number)) if number <= SWAPPINESS_MAX => {
            Finding::Fine(format!("vm.swappiness is {found}"))
        }
        (Some(found), _) => Finding::wrong(SWAPPINESS, found, &SWAPPINESS_MAX.to_string()),
        (None, _) => Finding::Absent(format!("{SWAPPINESS} is not there")),
    }
}

fn huge_pages(host: &Host) -> Finding {
    const PATH: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
    let Some(found) = host.read(PATH) else { return Finding::Absent(format!("{PATH} is not there")) };
    match chosen(&found) {
        Some("always") => Finding::Wrong {
            sentence: format!("{PATH} is always, should be madvise"),
            steps: vec![Step::Write { path: PATH.into(), found: "always".into(), wanted: "madvise".into() }],
        },
        Some(found) => Finding::Fine(format!("huge pages: {found}")),
        None => Finding::Absent(format!("{PATH} holds \"{found}\"")),
    }
}

/// The one in brackets of `always [madvise] never`.
pub(super) fn chosen(text: &str) -> Option<&str> {
    text.split_once('[')?.1.split_once(']').map(|(chosen, _)| chosen)
}

fn numa(host: &Host, _: &Plan) -> Vec<Finding> {
    if !host.has("/sys/devices/system/node/node1") {
        return vec![Finding::Absent("this host has one memory for all CPUs".into())];
    }
    vec![
        Finding::of_value(host, "/proc/sys/kernel/numa_balancing", "0"),
        Finding::of_value(host, "/proc/sys/vm/zone_reclaim_mode", "0"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;

    #[test]
    fn what_is_chosen_stands_in_brackets() {
        let table = [
            ("always [madvise] never", Some("madvise")),
            ("[always] madvise never", Some("always")),
            ("none", None),
            ("[none", None),
        ];
        for (text, expected) in table {
            assert_eq!(chosen(text), expected, "{text}");
        }
    }

    #[test]
    fn swap_is_for_emergencies() {
        for (found, fine) in [("60", false), ("10", true), ("0", true), ("x", false)] {
            let (_directory, host) = played::host(&[(SWAPPINESS, found)]);
            assert_eq!(matches!(swappiness(&host), Finding::Fine(_)), fine, "{found}");
        }
    }

    #[test]
    fn huge_pages_can_be_put_back_as_they_were() {
        let (_directory, host) =
            played::host(&[("/sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never")]);
        let Finding::Wrong { steps, .. } = huge_pages(&host) else { panic!("should be changed") };
        assert!(
            matches!(&steps[..], [Step::Write { found, wanted, .. }] if found == "always" && wanted == "madvise")
        );
    }
}
