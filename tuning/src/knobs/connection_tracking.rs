//! The firewall's table of connections.

use crate::knob::{Finding, Knob};

pub const KNOB: Knob = Knob {
    name: "connection-tracking",
    purpose: "Where the firewall tracks connections, its table must hold all of them; a full one drops packets.",
    check: |host, plan| {
        let wanted = (plan.profile.backlog() * 32).max(262_144);
        vec![Finding::at_least(host, "/proc/sys/net/netfilter/nf_conntrack_max", wanted)]
    },
};
