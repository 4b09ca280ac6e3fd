//! The knobs, a file for each.

mod card_interrupts;
mod clock_source;
mod connection_tracking;
mod daemons;
mod disk_cache;
mod disk_scheduler;
mod disks;
mod file_system;
mod governor;
mod handshakes;
mod io_uring;
mod isolation;
mod kernel;
mod layout;
mod limits;
mod local_ports;
mod mount_options;
mod network_cards;
mod numa_balancing;
mod packet_queue;
mod packet_steering;
mod send_queues;
mod slow_start;
mod socket_buffers;
mod somaxconn;
mod swappiness;

use crate::knob::Knob;

const KNOBS: [&Knob; 25] = [
    &kernel::KNOB,
    &io_uring::KNOB,
    &limits::MEMLOCK,
    &limits::NOFILE,
    &governor::KNOB,
    &isolation::KNOB,
    &layout::KNOB,
    &clock_source::KNOB,
    &swappiness::KNOB,
    &numa_balancing::KNOB,
    &somaxconn::KNOB,
    &handshakes::KNOB,
    &packet_queue::KNOB,
    &local_ports::KNOB,
    &slow_start::KNOB,
    &socket_buffers::KNOB,
    &connection_tracking::KNOB,
    &card_interrupts::KNOB,
    &packet_steering::KNOB,
    &send_queues::KNOB,
    &daemons::KNOB,
    &disk_scheduler::KNOB,
    &disk_cache::KNOB,
    &file_system::KNOB,
    &mount_options::KNOB,
];

/// In the order in which they are shown.
pub fn all() -> impl Iterator<Item = &'static Knob> {
    KNOBS.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;
    use crate::knob::Finding;
    use crate::plan::{Plan, Profile, played::plan};
    use std::collections::BTreeSet;

    #[test]
    fn every_knob_has_a_name_of_its_own_says_what_it_is_good_for_and_is_documented() {
        const README: &str = include_str!("../../README.md");
        let names: BTreeSet<_> = all().map(|knob| knob.name).collect();
        assert_eq!(names.len(), all().count());
        for knob in all() {
            assert!(knob.purpose.ends_with('.') && !knob.purpose.contains('\n'), "{}", knob.name);
            assert!(README.contains(&format!("`{}`", knob.name)), "tuning/README.md lacks {}", knob.name);
        }
    }

    /// A container shows next to nothing of its host.
    #[test]
    fn a_host_that_shows_nothing_needs_no_change() {
        let (_directory, host) = played::host(&[]);
        for profile in [Profile::Small, Profile::Medium, Profile::Large] {
            let plan = Plan { profile, spool: "/var/spool/sluice".into(), ..plan(16) };
            for knob in all() {
                let findings = (knob.check)(&host, &plan);
                let changes = findings.iter().filter(|found| matches!(found, Finding::Wrong { .. })).count();
                assert_eq!(changes, 0, "{}: {findings:?}", knob.name);
                assert!(!findings.is_empty(), "{} says nothing", knob.name);
            }
        }
    }
}
