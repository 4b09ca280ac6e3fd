//! The knobs, a file for each part of the host.

mod cpu;
mod disk;
mod file_system;
mod memory;
mod network;
mod network_card;

use crate::knob::Knob;

/// In the order in which they are shown.
pub fn all() -> impl Iterator<Item = &'static Knob> {
    [cpu::KNOBS, memory::KNOBS, network::KNOBS, network_card::KNOBS, disk::KNOBS, file_system::KNOBS]
        .into_iter()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;
    use crate::knob::Finding;
    use crate::plan::{Plan, Profile};
    use std::collections::BTreeSet;

    #[test]
    fn every_knob_has_a_name_of_its_own_and_says_what_it_is_good_for() {
        let names: BTreeSet<_> = all().map(|knob| knob.name).collect();
        assert_eq!(names.len(), all().count());
        assert!(all().all(|knob| knob.purpose.ends_with('.') && !knob.purpose.contains('\n')));
    }

    /// A container shows next to nothing of its host.
    #[test]
    fn a_host_that_shows_nothing_needs_no_change() {
        let (_directory, host) = played::host(&[]);
        for profile in [Profile::Small, Profile::Medium, Profile::Large] {
            let plan = Plan {
                profile,
                online: (0..16).collect(),
                ingest: vec![2, 3],
                delivery: vec![4, 5],
                service: vec![0, 1],
                spool: "/var/spool/sluice".into(),
            };
            for knob in all() {
                let findings = (knob.check)(&host, &plan);
                let changes = findings.iter().filter(|found| matches!(found, Finding::Wrong { .. })).count();
                assert_eq!(changes, 0, "{}: {findings:?}", knob.name);
                assert!(!findings.is_empty(), "{} says nothing", knob.name);
            }
        }
    }
}
