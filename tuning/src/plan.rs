//! What the host is to be tuned for: which CPUs do what, and how much of everything.
//!
//! Pure.

/// How large the host is meant to be; decides amounts, and whether CPUs are kept for the shards alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// One or two CPUs, which do everything.
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
    fn kept(self) -> usize {
        match self {
            Self::Small => 0,
            Self::Medium => 1,
            Self::Large => 2,
        }
    }

    /// Connections that may wait for accept() on one socket, and half as many again in their handshake.
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

/// Which CPUs do what. All lists ascend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub profile: Profile,
    pub online: Vec<usize>,
    pub ingest: Vec<usize>,
    pub delivery: Vec<usize>,
    /// For the service thread, and for the kernel where it has a choice.
    pub service: Vec<usize>,
    /// Where the spool is.
    pub spool: String,
}

impl Plan {
    /// What a host with these CPUs is best divided into: as many ingest as delivery shards, and none on what is
    /// kept for the rest.
    pub fn divide(profile: Profile, online: &[usize]) -> (Vec<usize>, Vec<usize>, Vec<usize>) {
        let kept = profile.kept().min(online.len().saturating_sub(2));
        let (service, shards) = online.split_at(kept);
        if shards.len() < 2 {
            return (shards.to_vec(), shards.to_vec(), online.to_vec());
        }
        let (ingest, delivery) = shards.split_at(shards.len().div_ceil(2));
        let service = if service.is_empty() { online } else { service };
        (ingest.to_vec(), delivery.to_vec(), service.to_vec())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_is_divided_so_that_each_role_has_a_cpu() {
        for count in 1..200 {
            let online: Vec<usize> = (0..count).collect();
            let profile = Profile::of(count);
            let (ingest, delivery, service) = Plan::divide(profile, &online);
            assert!(!ingest.is_empty() && !delivery.is_empty() && !service.is_empty(), "{count}");
            assert!(ingest.len().abs_diff(delivery.len()) <= 1, "{count}");
            let plan = Plan { profile, online, ingest, delivery, service, spool: String::new() };
            assert_eq!(plan.has_shards_apart(), count > 2, "{count}");
            if plan.has_shards_apart() {
                assert!(plan.service.iter().all(|cpu| !plan.shards().contains(cpu)), "{count}");
                assert_eq!(plan.shards().len() + plan.service.len(), count, "{count}");
            }
        }
    }
}
