//! Whether the kernel lets the relay use io_uring.

use crate::host::Host;
use crate::knob::{Finding, Knob, Step};

pub const KNOB: Knob = Knob {
    name: "io_uring",
    purpose: "The relay does all its work through io_uring, which a host may keep closed.",
    check: |host, _| vec![check(host)],
};

const SWITCH: &str = "/proc/sys/kernel/io_uring_disabled";
const GROUP: &str = "/proc/sys/kernel/io_uring_group";
/// The relay's, of sysusers.d/sluice.conf.
const NAME: &str = "sluice";

/// Opened no further than needed: to the relay's group where there is one, else to everybody.
fn check(host: &Host) -> Finding {
    let Some(switch) = host.read(SWITCH) else {
        return Finding::Absent(format!("{SWITCH} is not there: nothing is closed"));
    };
    let group = host.read(GROUP).unwrap_or_default();
    let own = group_of(host, NAME);
    if switch == "0" {
        return Finding::Fine("io_uring is open to everybody".into());
    }
    let write = |path: &str, found: &str, wanted: &str| Step::Write {
        path: path.to_owned(),
        found: found.to_owned(),
        wanted: wanted.to_owned(),
    };
    match (switch.as_str(), own) {
        ("1", Some(own)) if own == group => Finding::Fine(format!("io_uring is open to the group {NAME}")),
        ("1", Some(own)) => Finding::Wrong {
            sentence: format!(
                "io_uring is closed to the group {NAME}: kernel.io_uring_group is {group}, should be {own}"
            ),
            steps: vec![write(GROUP, &group, &own)],
        },
        (_, Some(own)) => {
            let steps = [write(GROUP, &group, &own), write(SWITCH, &switch, "1")];
            Finding::Wrong {
                sentence: format!(
                    "io_uring is closed to everybody: should be open to the group {NAME} ({own})"
                ),
                steps: steps.into_iter().filter(|step| step.parts().1 != step.parts().2).collect(),
            }
        }
        ("1", None) if group != "-1" && !group.is_empty() => {
            Finding::Fine(format!("io_uring is open to the group {group}, which must be the relay's"))
        }
        (_, None) => Finding::wrong(SWITCH, switch, "0")
            .with(&format!("with a group {NAME}, it would be opened to that only")),
    }
}

/// The number of a group of `/etc/group`.
fn group_of(host: &Host, name: &str) -> Option<String> {
    let text = host.read("/etc/group")?;
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    let number = line.split(':').nth(2)?;
    number.parse::<u32>().ok().map(|number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;

    #[test]
    fn io_uring_is_opened_to_the_relays_group_and_no_further() {
        const OWN: &str = "root:x:0:\nsluice:x:991:\nsluice2:x:5:";
        type Row =
            (&'static str, &'static str, &'static str, Option<&'static [(&'static str, &'static str)]>);
        let table: [Row; 8] = [
            ("0", "-1", OWN, None),
            ("1", "991", OWN, None),
            ("1", "-1", OWN, Some(&[(GROUP, "991")])),
            ("2", "-1", OWN, Some(&[(GROUP, "991"), (SWITCH, "1")])),
            ("2", "991", OWN, Some(&[(SWITCH, "1")])),
            ("1", "100", "root:x:0:", None),
            ("1", "-1", "root:x:0:", Some(&[(SWITCH, "0")])),
            ("2", "100", "sluice:x:bad:", Some(&[(SWITCH, "0")])),
        ];
        for (switch, group, groups, wanted) in table {
            let (_directory, host) =
                played::host(&[(SWITCH, switch), (GROUP, group), ("/etc/group", groups)]);
            let finding = check(&host);
            let steps = match &finding {
                Finding::Wrong { steps, .. } => {
                    Some(steps.iter().map(|step| (step.parts().0, step.parts().2)).collect::<Vec<_>>())
                }
                _ => None,
            };
            assert_eq!(steps.as_deref(), wanted, "{switch} {group} {groups}: {finding:?}");
        }
    }
}
