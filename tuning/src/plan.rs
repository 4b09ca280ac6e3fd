//! What the host is to be tuned for: which CPUs do what, and how much of everything.
//!
//! Reads the host's CPUs; pure besides.

use crate::container;
use crate::host::Host;
use crate::topology::Topology;

/// How large the host is meant to be; decides amounts, and whether CPUs are kept for the shards alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// One or two CPUs, which do everything.
    #[default]
    Small,
    /// Three to eight: one is left to the kernel and to the service thread.
    Medium,
    /// More: two are, and the shards have theirs for themselves.
    Large,
}

impl Profile {
    pub fn of(cpus: usize) -> Self {
        match cpus {
            0..=2 => Self::Small,
            3..=8 => Self::Medium,
            _ => Self::Large,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }

    /// CPUs that no shard should have.
    pub fn kept(self) -> usize {
        match self {
            Self::Small => 0,
            Self::Medium => 1,
            Self::Large => 2,
        }
    }

    /// Connections that may wait for accept() on one socket; twice as many may be in their handshake.
    pub fn backlog(self) -> u64 {
        match self {
            Self::Small => 4_096,
            Self::Medium => 8_192,
            Self::Large => 32_768,
        }
    }

    /// Packets that one CPU may have waiting between the card and TCP.
    pub fn packets(self) -> u64 {
        match self {
            Self::Small => 2_000,
            Self::Medium => 5_000,
            Self::Large => 20_000,
        }
    }

    /// The most octets that one socket may buffer.
    pub fn buffer_bytes(self) -> u64 {
        match self {
            Self::Small => 4 << 20,
            Self::Medium => 8 << 20,
            Self::Large => 16 << 20,
        }
    }

    /// Entries of the table that leads a packet to the CPU of its session.
    pub fn flows(self) -> u64 {
        match self {
            Self::Small => 8_192,
            Self::Medium => 32_768,
            Self::Large => 131_072,
        }
    }
}

/// What an operator has said; what is empty or nothing is the plan's to say.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub profile: Option<Profile>,
    pub ingest: Vec<usize>,
    pub delivery: Vec<usize>,
    pub service: Vec<usize>,
    pub spool: String,
}

/// Which CPUs do what. All lists ascend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub profile: Profile,
    pub online: Vec<usize>,
    pub ingest: Vec<usize>,
    pub delivery: Vec<usize>,
    /// For the service thread, and for the kernel where it has a choice.
    pub service: Vec<usize>,
    /// CPUs that were named and that this host, or this container, does not have.
    pub left_out: Vec<usize>,
    /// Where the spool is.
    pub spool: String,
    /// Open files that the configured sessions and connections may need; the caller's to say.
    pub files: u64,
}

/// CPUs of the ingest shards, of the delivery shards, and of the rest.
pub type Division = (Vec<usize>, Vec<usize>, Vec<usize>);

impl Plan {
    /// What was asked for, as far as this host has it, and the best division of it for the rest.
    pub fn of(host: &Host, wanted: Wanted) -> Self {
        let online = online(host);
        let profile = wanted.profile.unwrap_or_else(|| Profile::of(online.len()));
        let (ingest, delivery, _) =
            Self::divide(profile, &Topology::of(host, &online, &wanted.spool).order());
        let mut left_out = Vec::new();
        let mut named = |cpus: Vec<usize>| {
            let (mut here, absent): (Vec<usize>, _) = cpus.into_iter().partition(|cpu| online.contains(cpu));
            left_out.extend(absent);
            ascending(&mut here);
            here
        };
        let or = |named: Vec<usize>, other: Vec<usize>| if named.is_empty() { other } else { named };
        let (named_ingest, named_delivery) = (named(wanted.ingest), named(wanted.delivery));
        let free = |cpus: &[usize], others: &[usize]| {
            cpus.iter().copied().filter(|cpu| !others.contains(cpu)).collect::<Vec<_>>()
        };
        let beside = |own: &[usize], other: &[usize], taken: &[usize]| {
            or(or(free(own, taken), free(other, taken)), own.to_vec())
        };
        let (for_ingest, for_delivery) =
            (beside(&ingest, &delivery, &named_delivery), beside(&delivery, &ingest, &named_ingest));
        let ingest = or(named_ingest, for_ingest);
        let delivery = or(named_delivery, for_delivery);
        let is_free = |cpu: &usize| !ingest.contains(cpu) && !delivery.contains(cpu);
        let rest = online.iter().copied().filter(is_free).collect();
        let service = or(or(named(wanted.service), rest), online.clone());
        ascending(&mut left_out);
        Self { profile, online, ingest, delivery, service, left_out, spool: wanted.spool, files: 0 }
    }

    /// What a host with these CPUs is best divided into: as many ingest as delivery shards, and none on what is
    /// kept for the rest. `order` is that of [`Topology::order`].
    pub fn divide(profile: Profile, order: &[usize]) -> Division {
        let sorted = |cpus: &[usize]| {
            let mut cpus = cpus.to_vec();
            ascending(&mut cpus);
            cpus
        };
        let kept = profile.kept().min(order.len().saturating_sub(2));
        let (service, shards) = order.split_at(kept);
        if shards.len() < 2 {
            return (sorted(shards), sorted(shards), sorted(order));
        }
        let (ingest, delivery) = shards.split_at(shards.len().div_ceil(2));
        let service = if service.is_empty() { order } else { service };
        (sorted(ingest), sorted(delivery), sorted(service))
    }

    /// The CPUs of the shards, ascending, each once.
    pub fn shards(&self) -> Vec<usize> {
        let mut shards = [self.ingest.as_slice(), self.delivery.as_slice()].concat();
        shards.sort_unstable();
        shards.dedup();
        shards
    }

    /// Whether the shards have CPUs that nothing else needs to run on.
    pub fn has_shards_apart(&self) -> bool {
        let shards = self.shards();
        self.online.iter().any(|cpu| !shards.contains(cpu))
    }
}

fn ascending(cpus: &mut Vec<usize>) {
    cpus.sort_unstable();
    cpus.dedup();
}

/// The CPUs of this host or container; those that this process runs on where nothing says.
fn online(host: &Host) -> Vec<usize> {
    let online = host.cpus("/sys/devices/system/cpu/online").unwrap_or_else(crate::cpus_allowed);
    let Some(open) = container::cpus(host) else { return online };
    let both: Vec<usize> = online.iter().copied().filter(|cpu| open.contains(cpu)).collect();
    if both.is_empty() { online } else { both }
}

#[cfg(test)]
pub(crate) mod played {
    use super::*;

    /// The best division of a host with so many CPUs of one thread each.
    pub fn plan(cpus: usize) -> Plan {
        let online: Vec<usize> = (0..cpus).collect();
        let profile = Profile::of(cpus);
        let (ingest, delivery, service) = Plan::divide(profile, &online);
        Plan { profile, online, ingest, delivery, service, ..Plan::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played::{host, host_of};
    use crate::topology;

    #[test]
    fn every_host_is_divided_so_that_each_role_has_a_cpu() {
        for count in 1..200 {
            let plan = played::plan(count);
            assert!(
                !plan.ingest.is_empty() && !plan.delivery.is_empty() && !plan.service.is_empty(),
                "{count}"
            );
            assert!(plan.ingest.len().abs_diff(plan.delivery.len()) <= 1, "{count}");
            assert_eq!(plan.has_shards_apart(), count > 2, "{count}");
            if plan.has_shards_apart() {
                assert!(plan.service.iter().all(|cpu| !plan.shards().contains(cpu)), "{count}");
                assert_eq!(plan.shards().len() + plan.service.len(), count, "{count}");
            }
        }
    }

    #[test]
    fn the_service_has_the_cpus_that_no_shard_has_unless_it_is_given_some() {
        type Lists = (&'static [usize], &'static [usize], &'static [usize]);
        let table: [(&str, Lists, Lists, &[usize]); 7] = [
            ("0-7", (&[0], &[1], &[]), (&[0], &[1], &[2, 3, 4, 5, 6, 7]), &[]),
            ("0-7", (&[0], &[1], &[0]), (&[0], &[1], &[0]), &[]),
            ("0-1", (&[0], &[1], &[]), (&[0], &[1], &[0, 1]), &[]),
            ("0-3", (&[3, 2, 2, 9], &[1, 8], &[]), (&[2, 3], &[1], &[0]), &[8, 9]),
            ("0-3", (&[9], &[], &[]), (&[1, 2], &[3], &[0]), &[9]),
            ("0-3", (&[3], &[], &[]), (&[3], &[1, 2], &[0]), &[]),
            ("0", (&[], &[], &[]), (&[0], &[0], &[0]), &[]),
        ];
        for (online, given, planned, left_out) in table {
            let (_directory, host) = host(&[("/sys/devices/system/cpu/online", online)]);
            let wanted = Wanted {
                ingest: given.0.to_vec(),
                delivery: given.1.to_vec(),
                service: given.2.to_vec(),
                ..Wanted::default()
            };
            let plan = Plan::of(&host, wanted);
            let lists = (&plan.ingest[..], &plan.delivery[..], &plan.service[..]);
            assert_eq!((lists, &plan.left_out[..]), (planned, left_out), "{online} {given:?}");
        }
    }

    #[test]
    fn the_threads_of_a_core_stay_together_and_the_rest_has_a_core() {
        let (_directory, host) = host_of(&topology::played::files(1, 6));
        let plan = Plan::of(&host, Wanted::default());
        assert_eq!(plan.service, [0, 6]);
        assert_eq!(plan.ingest, [1, 2, 3, 7, 8]);
        assert_eq!(plan.delivery, [4, 5, 9, 10, 11]);
    }

    #[test]
    fn a_container_is_divided_as_far_as_its_cpuset_goes() {
        let (_directory, host) = host(&[
            ("/sys/devices/system/cpu/online", "0-15"),
            ("/sys/fs/cgroup/cgroup.type", "domain"),
            ("/sys/fs/cgroup/cpuset.cpus.effective", "4-5"),
        ]);
        let plan = Plan::of(&host, Wanted { ingest: vec![0, 4], ..Wanted::default() });
        assert_eq!((plan.online, plan.ingest, plan.delivery), (vec![4, 5], vec![4], vec![5]));
        assert_eq!((plan.left_out, plan.profile), (vec![0], Profile::Small));
    }
}
