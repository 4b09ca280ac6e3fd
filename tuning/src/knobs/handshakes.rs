//! Connections in the middle of their handshake.

use crate::host::Host;
use crate::knob::{Finding, Knob};
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "handshakes",
    purpose: "Connections in their handshake, and cookies once that is full, so that a SYN flood shuts nobody out.",
    check,
};

const COOKIES: &str = "/proc/sys/net/ipv4/tcp_syncookies";

/// Cookies exactly at 1: 2 sends them always, and they carry no window scale for whoever has no timestamps.
fn check(host: &Host, plan: &Plan) -> Vec<Finding> {
    let wanted = plan.profile.backlog() * 2;
    vec![
        Finding::at_least(host, "/proc/sys/net/ipv4/tcp_max_syn_backlog", wanted),
        Finding::of_value(host, COOKIES, "1"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;

    #[test]
    fn cookies_are_for_floods_only() {
        for (found, fine) in [("0", false), ("1", true), ("2", false)] {
            let (_directory, host) = played::host(&[(COOKIES, found)]);
            assert_eq!(matches!(check(&host, &Plan::default())[1], Finding::Fine(_)), fine, "{found}");
        }
    }
}
