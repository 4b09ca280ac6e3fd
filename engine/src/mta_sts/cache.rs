//! The policies that were fetched, until they expire (RFC 8461 section 3.3), and the file that keeps them over
//! a restart.
//!
//! Anybody can have policies, as many and as large as the bounds let them be, and as lasting. So what makes room says
//! nothing of how long a policy would hold: of too many it is the one that was not used for the longest time, of too
//! large ones the largest.
//!
//! Pure: times are seconds since 1970 and come from the caller, the file's octets go through [`Cache::encode`]
//! and [`Cache::decode`].
//!
//! ```json
//! {"version": 1, "policies": [{"domain": "a.example", "id": "20260101", "fetched": 1795310405,
//!                              "used": 1795312345,
//!                              "policy": "version: STSv1\nmode: enforce\nmx: mx.a.example\nmax_age: 604800"}]}
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::policy::Policy;

/// Policies that are kept; past it the one that was not used for the longest time makes room.
pub const POLICIES_MAX: usize = 10_000;
/// Octets of all of them, nearly; past it the largest make room.
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
    entries: HashMap<String, Kept>,
    octets: usize,
}

#[derive(Debug)]
struct Kept {
    entry: Entry,
    /// When it was asked for last; to fetch it again is no use.
    used: u64,
}

/// What a file held.
#[derive(Debug)]
pub struct Decoded {
    pub cache: Cache,
    /// Policies that cannot be read, and are left out.
    pub bad: usize,
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
    /// Older files do not tell.
    #[serde(default)]
    used: Option<u64>,
    policy: String,
}

impl Cache {
    /// The policy of a domain, where it has one that holds.
    pub fn get(&mut self, domain: &str, now: u64) -> Option<&Entry> {
        let kept = self.entries.get_mut(domain).filter(|kept| kept.entry.holds(now))?;
        kept.used = now;
        Some(&kept.entry)
    }

    /// The same, and no use of it.
    pub fn peek(&self, domain: &str, now: u64) -> Option<&Entry> {
        self.entries.get(domain).map(|kept| &kept.entry).filter(|entry| entry.holds(now))
    }

    /// Keeps a policy; the one that it replaces leaves it the time of its last use.
    pub fn put(&mut self, domain: &str, entry: Entry, now: u64) {
        let used = self.entries.get(domain).map_or(now, |kept| kept.used);
        self.keep(domain, Kept { entry, used }, now);
    }

    fn keep(&mut self, domain: &str, kept: Kept, now: u64) {
        let weight = kept.entry.weight();
        self.remove(domain);
        while self.entries.len() >= POLICIES_MAX || self.octets + weight > OCTETS_MAX {
            let too_many = self.entries.len() >= POLICIES_MAX;
            let rank = |kept: &Kept| {
                let lightness = if too_many { 0 } else { OCTETS_MAX.saturating_sub(kept.entry.weight()) };
                (kept.entry.holds(now), lightness, kept.used)
            };
            let first = self.entries.iter().min_by_key(|(_, kept)| rank(kept));
            let Some(first) = first.map(|(name, _)| name.clone()) else { break };
            self.remove(&first);
        }
        self.octets += weight;
        self.entries.insert(domain.to_owned(), kept);
    }

    fn remove(&mut self, domain: &str) {
        if let Some(kept) = self.entries.remove(domain) {
            self.octets -= kept.entry.weight();
        }
    }

    /// Domains whose policy holds and is to be fetched again, those used last first.
    pub fn to_refresh(&self, now: u64) -> Vec<String> {
        let is_old = |kept: &Kept| kept.entry.holds(now) && kept.entry.wants_refresh(now);
        let mut old: Vec<(&String, &Kept)> = self.entries.iter().filter(|(_, kept)| is_old(kept)).collect();
        old.sort_unstable_by_key(|(_, kept)| std::cmp::Reverse(kept.used));
        old.into_iter().map(|(domain, _)| domain.clone()).collect()
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
            .map(|(domain, Kept { entry, used })| Row {
                domain: domain.clone(),
                id: entry.id.clone(),
                fetched: entry.fetched,
                used: Some(*used),
                policy: entry.policy.lines().collect::<Vec<_>>().join("\n"),
            })
            .collect();
        policies.sort_by(|one, other| one.domain.cmp(&other.domain));
        serde_json::to_vec(&File { version: VERSION, policies }).unwrap_or_default()
    }

    /// Reads a file; what does not hold any more is left out, and so is what cannot be read.
    ///
    /// # Errors
    /// What is wrong with the file as such: nothing of it counts then.
    pub fn decode(octets: &[u8], now: u64) -> Result<Decoded, String> {
        let file: File = serde_json::from_slice(octets).map_err(|error| error.to_string())?;
        if file.version != VERSION {
            return Err(format!("its version is {}, not {VERSION}", file.version));
        }
        let mut decoded = Decoded { cache: Self::default(), bad: 0 };
        for row in file.policies.into_iter().take(POLICIES_MAX) {
            let Ok(policy) = Policy::parse(row.policy.as_bytes()) else {
                decoded.bad += 1;
                continue;
            };
            let used = row.used.unwrap_or(row.fetched).min(now);
            let entry = Entry { id: row.id, policy: Arc::new(policy), fetched: row.fetched };
            if entry.holds(now) {
                decoded.cache.keep(&row.domain, Kept { entry, used }, now);
            }
        }
        Ok(decoded)
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
            let old = cache.to_refresh(now);
            assert_eq!(
                (found, old),
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
        cache.get("week.test", 2_000);
        let Decoded { cache: mut read, bad } = Cache::decode(&cache.encode(), 1_000 + 3_600).expect("a file");
        assert_eq!((read.len(), bad, read.entries["week.test"].used), (1, 0, 2_000));
        assert_eq!(read.get("week.test", 5_000), Some(&entry(1_000, 7 * 86_400)));
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
            good.replace("1000", "-1"),
        ] {
            assert!(Cache::decode(bad.as_bytes(), 1_000).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_policy_that_cannot_be_read_costs_no_other() {
        let mut cache = Cache::default();
        for domain in ["a.test", "b.test", "c.test"] {
            cache.put(domain, entry(1_000, 3_600), 1_000);
        }
        let good = String::from_utf8(cache.encode()).expect("JSON");
        let many = format!("{}*.a.test", "x.test\\nmx: ".repeat(300));
        for (from, to) in [("mode: enforce", "mode: perhaps"), ("*.a.test", many.as_str())] {
            assert!(good.contains(from));
            let Decoded { cache: mut read, bad } =
                Cache::decode(good.replacen(from, to, 1).as_bytes(), 1_000).expect("a file");
            assert_eq!((read.len(), bad), (2, 1), "{to}");
            assert!(read.get("a.test", 1_000).is_none() && read.get("c.test", 1_000).is_some());
        }
        let old = good.replace("\"used\":1000,", "");
        assert_eq!(Cache::decode(old.as_bytes(), 1_000).expect("an older file").cache.len(), 3);
    }

    #[test]
    fn of_too_many_the_one_that_was_not_used_for_the_longest_time_makes_room() {
        let mut cache = Cache::default();
        cache.put("honest.test", entry(1_000, 86_400), 1_000);
        cache.put("forgotten.test", entry(1_000, 31_557_600), 1_000);
        for number in 0..POLICIES_MAX as u64 + 100 {
            // However long these would hold.
            cache.put(&format!("{number}.test"), entry(1_001, 31_557_600), 1_001);
            assert!(cache.get("honest.test", 1_002).is_some());
        }
        assert_eq!(cache.len(), POLICIES_MAX);
        assert!(cache.get("forgotten.test", 1_002).is_none());
    }

    #[test]
    fn to_fetch_a_policy_again_is_no_use_of_it() {
        let mut cache = Cache::default();
        cache.put("a.test", entry(1_000, 86_400), 1_000);
        cache.put("a.test", entry(2_000, 86_400), 2_000);
        assert_eq!(cache.entries["a.test"].used, 1_000);
        cache.put("b.test", entry(1_000, 86_400), 1_500);
        assert_eq!(cache.to_refresh(80_000), ["b.test", "a.test"], "what is used goes first");
    }

    #[test]
    fn of_too_large_ones_the_largest_make_room() {
        let mut cache = Cache::default();
        cache.put("honest.test", entry(1_000, 3_600), 1_000);
        for number in 0..1_000 {
            let mx = vec!["a".repeat(250); 60 + number % 4];
            let policy = Policy { mode: Mode::Enforce, mx, max_age_seconds: 31_557_600 };
            let large = Entry { id: "1".into(), policy: Arc::new(policy), fetched: 1_000 };
            cache.put(&format!("large-{number}.test"), large, 1_001);
        }
        assert!(cache.octets <= OCTETS_MAX && cache.octets > OCTETS_MAX / 2);
        assert_eq!(cache.octets, cache.entries.values().map(|kept| kept.entry.weight()).sum::<usize>());
        assert!(cache.get("honest.test", 1_001).is_some() && cache.get("large-999.test", 1_001).is_some());
    }
}
