//! Octets under way on a socket.

use crate::host::Host;
use crate::knob::{Finding, Knob, Step, name_of};
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "socket-buffers",
    purpose: "Octets that a socket may have under way; with less, a distant peer is served below the speed of its line.",
    check,
};

fn check(host: &Host, plan: &Plan) -> Vec<Finding> {
    let bytes = plan.profile.buffer_bytes();
    vec![
        Finding::at_least(host, "/proc/sys/net/core/rmem_max", bytes),
        Finding::at_least(host, "/proc/sys/net/core/wmem_max", bytes),
        third(host, "/proc/sys/net/ipv4/tcp_rmem", bytes),
        third(host, "/proc/sys/net/ipv4/tcp_wmem", bytes),
    ]
}

/// `tcp_rmem` and `tcp_wmem`: the least, the usual and the most octets; only the most is looked at.
fn third(host: &Host, path: &str, wanted: u64) -> Finding {
    let Some(found) = host.read(path) else { return Finding::Absent(format!("{path} is not there")) };
    let numbers: Vec<&str> = found.split_whitespace().collect();
    let name = name_of(path);
    match numbers.as_slice() {
        [_, _, most] if most.parse::<u64>().is_ok_and(|most| most >= wanted) => {
            Finding::Fine(format!("the most of {name} is {most}"))
        }
        [least, usual, most] => Finding::Wrong {
            sentence: format!("the most of {name} is {most}, should be {wanted}"),
            steps: vec![Step::Write {
                path: path.to_owned(),
                found: numbers.join(" "),
                wanted: format!("{least} {usual} {wanted}"),
            }],
        },
        _ => Finding::Absent(format!("{path} holds \"{found}\", which is not three numbers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;

    #[test]
    fn of_the_three_numbers_of_a_buffer_only_the_largest_is_changed() {
        let path = "/proc/sys/net/ipv4/tcp_wmem";
        let (_directory, host) = played::host(&[(path, "4096\t16384\t1048576")]);
        let Finding::Wrong { steps, .. } = third(&host, path, 4 << 20) else { panic!("should be changed") };
        let (found, wanted) = ("4096 16384 1048576".to_owned(), "4096 16384 4194304".to_owned());
        assert_eq!(steps, [Step::Write { path: path.into(), found, wanted }]);
        assert!(matches!(third(&host, path, 1 << 20), Finding::Fine(_)));
    }
}
