//! The queue of connections that wait to be accepted.

use crate::host::Host;
use crate::knob::{Finding, Knob};
use crate::plan::Plan;

pub const KNOB: Knob = Knob {
    name: "somaxconn",
    purpose: "Connections that wait for accept(): a burst past it waits for a retransmitted SYN, a second or more.",
    check: |host, plan| vec![check(host, plan)],
};

const PATH: &str = "/proc/sys/net/core/somaxconn";

/// The relay asks for the longest queue there is, and the kernel cuts that to this when a socket begins to listen.
fn check(host: &Host, plan: &Plan) -> Finding {
    let finding = Finding::at_least(host, PATH, plan.profile.backlog());
    finding.with("a relay that runs already is to be restarted for it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;
    use crate::plan::{Profile, played::plan};

    #[test]
    fn the_queue_fits_the_profile_and_a_running_relay_is_thought_of() {
        for (found, cpus, fine) in
            [("4096", 2, true), ("4096", 64, false), ("65535", 64, true), ("128", 2, false)]
        {
            let (_directory, host) = played::host(&[(PATH, found)]);
            match check(&host, &plan(cpus)) {
                Finding::Fine(_) => assert!(fine, "{found} {cpus}"),
                Finding::Wrong { sentence, .. } => {
                    assert!(!fine && sentence.contains("restarted"), "{sentence}")
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(Profile::Large.backlog() > Profile::Small.backlog());
    }
}
