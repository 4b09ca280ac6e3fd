//! The window of connections that were quiet.

use crate::knob::{Finding, Knob};

pub const KNOB: Knob = Knob {
    name: "slow-start",
    purpose: "A pooled connection that was quiet keeps its congestion window, so the next message starts at full speed.",
    check: |host, _| vec![Finding::of_value(host, "/proc/sys/net/ipv4/tcp_slow_start_after_idle", "0")],
};
