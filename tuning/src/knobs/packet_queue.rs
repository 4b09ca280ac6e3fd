//! Packets between card and TCP.

use crate::knob::{Finding, Knob};

pub const KNOB: Knob = Knob {
    name: "packet-queue",
    purpose: "Packets that wait for a CPU between card and TCP; those past it are lost and sent again.",
    check: |host, plan| {
        vec![Finding::at_least(host, "/proc/sys/net/core/netdev_max_backlog", plan.profile.packets())]
    },
};
