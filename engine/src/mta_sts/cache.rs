//! The policies that were fetched, until they expire (RFC 8461 section 3.3), and the file that keeps them over
//! a restart.
//!
//! Pure: times are seconds since 1970 and come from the caller, the file's octets go through [`Cache::encode`]
//! and [`Cache::decode`].
//!
//! ```json
//! {"version": 1, "policies": [{"domain": "a.example", "id": "20260101", "fetched": 1795310405,
//!                              "policy": "version: STSv1\nmode: enforce\nmx: mx.a.example\nmax_age: 604800"}]}
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::policy::Policy;

/// Policies that are kept; past it the one that expires first makes room.
pub const POLICIES_MAX: usize = 10_000;
/// Octets of all of them, nearly; likewise.
const OCTETS_MAX: usize = 16 * 1024 * 1024;
/// Octets of the file; a longer one is not read.
pub const FILE_OCTETS_MAX: u64 = 64 * 1024 * 1024;
/// A policy is fetched again when it is as old as this, or has lived half of its time: before it expires, so
/// that who can hinder the fetch for a while gains nothing (RFC 8461 section 10.2).
const REFRESH_SECONDS: u64 = 86_400;
const VERSION: u32 = 1;

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What the TXT record said when it was fetched.
    pub id: String,
    pub policy: Arc<Policy>,
    pub fetched: u64,
}

impl Entry {
    pub fn expires(&self) -> u64 {
        self.fetched.saturating_add(self.policy.max_age_seconds)
    }

    /// Octets that it takes, nearly.
    fn weight(&self) -> usize {
        256 + self.policy.mx.iter().map(|mx| mx.len() + 32).sum::<usize>()
    }

    /// Whether it holds at this time; one from the future does not.
    fn holds(&self, now: u64) -> bool {
        (self.fetched..self.expires()).contains(&now)
    }

    pub fn wants_refresh(&self, now: u64) -> bool {
        let age = now.saturating_sub(self.fetched);
        age >= REFRESH_SECONDS.min(self.policy.max_age_seconds / 2)
    }
}

/// By domain, in lower case.
#[derive(Debug, Default)]
pub struct Cache {
    entries: HashMap<String, Entry>,
    octets: usize,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    policies: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    domain: String,
    id: String,
    fetched: u64,
    policy: String,
}

impl Cache {
    /// The policy of a domain, where it has one that holds.
    pub fn get(&self, domain: &str, now: u64) -> Option<&Entry> {
        self.entries.get(domain).filter(|entry| entry.holds(now))
    }

    pub fn put(&mut self, domain: &str, entry: Entry, now: u64) {
        let weight = entry.weight();
        self.remove(domain);
        while self.entries.len() >= POLICIES_MAX || self.octets + weight > OCTETS_MAX {
            let rank = |entry: &Entry| (entry.holds(now), entry.expires());
            let first = self.entries.iter().min_by_key(|(_, entry)| rank(entry));
            let Some(first) = first.map(|(name, _)| name.clone()) else { break };
            self.remove(&first);
        }
        self.octets += weight;
        self.entries.insert(domain.to_owned(), entry);
    }

    fn remove(&mut self, domain: &str) {
        if let Some(entry) = self.entries.remove(domain) {
            self.octets -= entry.weight();
        }
    }

    /// Domains whose policy holds and is to be fetched again.
    pub fn to_refresh(&self, now: u64) -> Vec<String> {
        let old = self.entries.iter().filter(|(_, entry)| entry.holds(now) && entry.wants_refresh(now));
        old.map(|(domain, _)| domain.clone()).collect()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.len()
    }

    /// The octets of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut policies: Vec<Row> = self
            .entries
            .iter()
            .map(|(domain, entry)| Row {
                domain: domain.clone(),
                id: entry.id.clone(),
                fetched: entry.fetched,
                policy: entry.policy.lines().collect::<Vec<_>>().join("\n"),
            })
            .collect();
        policies.sort_by(|one, other| one.domain.cmp(&other.domain));
        serde_json::to_vec(&File { version: VERSION, policies }).unwrap_or_default()
    }

    /// Reads a file; what does not hold any more is left out.
    ///
    /// # Errors
    /// What is wrong with it: nothing of it counts then.
    pub fn decode(octets: &[u8], now: u64) -> Result<Self, String> {
        let file: File = serde_json::from_slice(octets).map_err(|error| error.to_string())?;
        if file.version != VERSION {
            return Err(format!("its version is {}, not {VERSION}", file.version));
        }
        let mut cache = Self::default();
        for row in file.policies.into_iter().take(POLICIES_MAX) {
            let policy = Policy::parse(row.policy.as_bytes())
                .map_err(|fault| format!("the policy of {}: {fault}", row.domain))?;
            let entry = Entry { id: row.id, policy: Arc::new(policy), fetched: row.fetched };
            if entry.holds(now) {
                cache.put(&row.domain, entry, now);
            }
        }
        Ok(cache)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mta_sts::policy::Mode;

    fn entry(fetched: u64, max_age_seconds: u64) -> Entry {
        let policy = Policy { mode: Mode::Enforce, mx: vec!["*.a.test".into()], max_age_seconds };
        Entry { id: "1".into(), policy: Arc::new(policy), fetched }
    }

    #[test]
    fn a_policy_holds_until_it_expires_and_is_refreshed_before() {
        let mut cache = Cache::default();
        cache.put("week.test", entry(1_000, 7 * 86_400), 1_000);
        cache.put("hour.test", entry(1_000, 3_600), 1_000);
        for (now, week, hour, refresh) in [
            (999, false, false, vec![]),
            (1_000, true, true, vec![]),
            (1_000 + 1_799, true, true, vec![]),
            (1_000 + 1_800, true, true, vec!["hour.test"]),
            (1_000 + 3_600, true, false, vec![]),
            (1_000 + 86_400, true, false, vec!["week.test"]),
            (1_000 + 7 * 86_400, false, false, vec![]),
        ] {
            let found = (cache.get("week.test", now).is_some(), cache.get("hour.test", now).is_some());
            assert_eq!(
                (found, cache.to_refresh(now)),
                ((week, hour), refresh.iter().map(ToString::to_string).collect()),
                "{now}"
            );
        }
    }

    #[test]
    fn the_file_gives_back_what_holds() {
        let mut cache = Cache::default();
        cache.put("week.test", entry(1_000, 7 * 86_400), 1_000);
        cache.put("hour.test", entry(1_000, 3_600), 1_000);
        let read = Cache::decode(&cache.encode(), 1_000 + 3_600).expect("a file");
        assert_eq!(read.get("week.test", 5_000), Some(&entry(1_000, 7 * 86_400)));
        assert_eq!(read.len(), 1);
    }

    #[test]
    fn a_damaged_file_is_none() {
        let mut cache = Cache::default();
        cache.put("a.test", entry(1_000, 3_600), 1_000);
        let good = String::from_utf8(cache.encode()).expect("JSON");
        for bad in [
            String::new(),
            good[..good.len() / 2].to_owned(),
            good.replace("\"version\":1", "\"version\":2"),
            good.replace("mode: enforce", "mode: perhaps"),
            good.replace("1000", "-1"),
        ] {
            assert!(Cache::decode(bad.as_bytes(), 1_000).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_cache_is_bounded_and_loses_what_expires_first() {
        let mut cache = Cache::default();
        for number in 0..=POLICIES_MAX as u64 {
            cache.put(&format!("{number}.test"), entry(1_000, 10_000 + number), 1_000);
        }
        assert_eq!(cache.len(), POLICIES_MAX);
        assert!(cache.get("0.test", 1_001).is_none() && cache.get("1.test", 1_001).is_some());
        let mx = vec!["a".repeat(250); 250];
        for number in 0..1_000 {
            let policy = Policy { mode: Mode::Enforce, mx: mx.clone(), max_age_seconds: 100_000 + number };
            let large = Entry { id: "1".into(), policy: Arc::new(policy), fetched: 1_000 };
            cache.put(&format!("large-{number}.test"), large, 1_000);
        }
        assert!(cache.octets <= OCTETS_MAX && cache.octets > OCTETS_MAX / 2);
        assert_eq!(cache.octets, cache.entries.values().map(Entry::weight).sum::<usize>());
        assert!(cache.get("large-0.test", 1_001).is_none() && cache.get("large-999.test", 1_001).is_some());
    }
}
