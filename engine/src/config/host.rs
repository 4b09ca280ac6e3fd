//! What this configuration asks of the host, put to the checks of `sluice-tuning` before a start.

use sluice_tuning::{Finding, Needs, start_checks};

use super::types::{Config, Delivery, Limits, Shards};

/// Files besides sessions and connections out: segments, sockets to the resolvers, the admin's.
const FILES_BESIDES: usize = 2_048;

impl Config {
    /// What is wrong with the host for this configuration, in the order of mending; empty when nothing is.
    /// Raises this process's soft resource limits where that helps. Call it before the first shard starts.
    pub fn start_checks(&self) -> Vec<Finding> {
        let Shards { ingest_cpus, delivery_cpus, service_cpus, .. } = &self.shards;
        let cpus = [ingest_cpus.as_slice(), delivery_cpus.as_slice(), service_cpus.as_slice()].concat();
        start_checks(&Needs {
            cpus: &cpus,
            executors: ingest_cpus.len() + delivery_cpus.len(),
            sessions_max: self.limits.sessions_max.saturating_mul(ingest_cpus.len()),
            files_besides: files_besides(&self.delivery),
        })
    }
}

impl Limits {
    /// Open files that all sessions of so many ingest shards and everything besides may need.
    pub fn files_wanted(&self, delivery: &Delivery, ingest_shards: usize) -> usize {
        self.sessions_max.saturating_mul(ingest_shards).saturating_add(files_besides(delivery))
    }
}

fn files_besides(delivery: &Delivery) -> usize {
    FILES_BESIDES.saturating_add(delivery.connections_total_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_this_host_lacks_is_found_before_the_start() {
        let mut config = Config::demonstration();
        let named =
            |config: &Config| config.start_checks().iter().filter(|finding| finding.name == "cpus").count();
        assert_eq!(named(&config), 0);
        config.override_cpus([None, Some("4095"), None]).expect("a list");
        assert_eq!(named(&config), 1);
    }
}
