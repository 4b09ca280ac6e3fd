//! The kernel's side of TCP: queues, ports, buffers.

use crate::host::Host;
use crate::knob::{Finding, Knob, Step};

pub const KNOBS: &[Knob] = &[
    Knob {
        name: "somaxconn",
        purpose: "Connections that wait for accept(): a burst past it waits for a retransmitted SYN, a second or more.",
        check: |host, plan| {
            vec![Finding::at_least(host, "/proc/sys/net/core/somaxconn", plan.profile.backlog())]
        },
    },
    Knob {
        name: "handshakes",
        purpose: "Connections in their handshake, and cookies once that is full, so that a SYN flood shuts nobody out.",
        check: |host, plan| {
            let backlog = plan.profile.backlog() * 2;
            vec![
                Finding::at_least(host, "/proc/sys/net/ipv4/tcp_max_syn_backlog", backlog),
                Finding::at_least(host, "/proc/sys/net/ipv4/tcp_syncookies", 1),
            ]
        },
    },
    Knob {
        name: "packet-queue",
        purpose: "Packets that wait for a CPU between card and TCP; those past it are lost and sent again.",
        check: |host, plan| {
            vec![Finding::at_least(host, "/proc/sys/net/core/netdev_max_backlog", plan.profile.packets())]
        },
    },
    Knob {
        name: "local-ports",
        purpose: "Ports for connections out: a pair of own and next hop's address can use each once a minute only.",
        check: |host, _| vec![local_ports(host)],
    },
    Knob {
        name: "slow-start",
        purpose: "A pooled connection that was quiet keeps its congestion window, so the next message starts at full speed.",
        check: |host, _| vec![Finding::of_value(host, "/proc/sys/net/ipv4/tcp_slow_start_after_idle", "0")],
    },
    Knob {
        name: "socket-buffers",
        purpose: "Octets that a socket may have under way; with less, a distant peer is served below the speed of its line.",
        check: |host, plan| {
            let bytes = plan.profile.buffer_bytes();
            vec![
                Finding::at_least(host, "/proc/sys/net/core/rmem_max", bytes),
                Finding::at_least(host, "/proc/sys/net/core/wmem_max", bytes),
                third(host, "/proc/sys/net/ipv4/tcp_rmem", bytes),
                third(host, "/proc/sys/net/ipv4/tcp_wmem", bytes),
            ]
        },
    },
    Knob {
        name: "connection-tracking",
        purpose: "Where the firewall tracks connections, its table must hold all of them; a full one drops packets.",
        check: |host, plan| {
            let wanted = (plan.profile.backlog() * 32).max(262_144);
            vec![Finding::at_least(host, "/proc/sys/net/netfilter/nf_conntrack_max", wanted)]
        },
    },
];

const PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Below are the ports of services.
const FIRST_PORT: u64 = 10_240;
const LAST_PORT: u64 = 65_535;
/// As many as that are enough for one connection in a millisecond to one address.
const PORTS_MIN: u64 = 50_000;

fn local_ports(host: &Host) -> Finding {
    let Some(found) = host.read(PORTS) else { return Finding::Absent(format!("{PORTS} is not there")) };
    let mut numbers = found.split_whitespace().map(|number| number.parse::<u64>());
    let range = match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Some((first, last)),
        _ => None,
    };
    let shown = found.split_whitespace().collect::<Vec<_>>().join(" ");
    match range {
        Some((first, last)) if last.saturating_sub(first) >= PORTS_MIN => {
            Finding::Fine(format!("net.ipv4.ip_local_port_range is {shown}"))
        }
        _ => Finding::wrong(PORTS, shown, &format!("{FIRST_PORT} {LAST_PORT}")),
    }
}

/// `tcp_rmem` and `tcp_wmem`: the least, the usual and the most octets; only the most is looked at.
fn third(host: &Host, path: &str, wanted: u64) -> Finding {
    let Some(found) = host.read(path) else { return Finding::Absent(format!("{path} is not there")) };
    let numbers: Vec<&str> = found.split_whitespace().collect();
    let name = crate::knob::name_of(path);
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
    fn a_wide_range_of_ports_is_left_alone_and_a_narrow_one_widened() {
        let table = [
            ("32768\t60999", true),
            ("10240\t65535", false),
            ("1024 65535", false),
            ("15000 65535", false),
            ("65535 1024", true),
            ("1024", true),
        ];
        for (found, changed) in table {
            let (_directory, host) = played::host(&[(PORTS, found)]);
            let finding = local_ports(&host);
            match finding {
                Finding::Wrong { steps, .. } => {
                    assert!(changed, "{found}");
                    let found = found.replace('\t', " ");
                    let wanted = "10240 65535".to_owned();
                    assert_eq!(steps, [Step::Write { path: PORTS.into(), found, wanted }]);
                }
                other => assert!(!changed, "{found}: {other:?}"),
            }
        }
    }

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
