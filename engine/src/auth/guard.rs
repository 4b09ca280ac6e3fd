//! What guessing passwords costs, and whom: delays and lock-outs (S29).
//!
//! Pure; one table on the service thread, which every AUTH goes through. A network is an address, of IPv6 the
//! /64. Failures are counted three ways, each count running out again at the rate of its bound in one lock-out:
//!
//! | count | what it leads to | spares |
//! |---|---|---|
//! | network and login | delay; at `failures_max` a lock-out of this network for this login | |
//! | network | delay; at `network_failures_max` a lock-out of this network | logins that came from it before |
//! | login | delay only | networks that it came from before |
//!
//! So nobody can lock a user out from elsewhere: whatever strangers try, a network that a login has come from
//! before is held up by its own failures only, and a new one is at most delayed. Attempts under way count as
//! failures until they end, so that many at once are no way around the bounds.
//!
//! Every table is bounded by [`ENTRIES_MAX`]; past it those go that were not touched longest.

use crate::config::Guessing;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};

/// Entries of each table, some 48 octets each.
const ENTRIES_MAX: usize = 32 * 1024;
/// Failures that cost nothing: people mistype.
const FREE: f64 = 2.0;
/// The first delay; each further failure doubles it.
const FIRST_DELAY_MILLIS: f64 = 250.0;
/// A whole network may fail so many times as often as one login before it is as slow.
const NETWORK_FACTOR: f64 = 10.0;
/// The same of a login from all networks.
const LOGIN_FACTOR: f64 = 4.0;
/// Attempts of one network under way. Prevents one client from taking every place.
const UNDER_WAY_MAX: u32 = 64;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Network(Ipv6Addr);

impl From<IpAddr> for Network {
    fn from(client: IpAddr) -> Self {
        Self(match client.to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => (u128::from(address) >> 64 << 64).into(),
        })
    }
}

#[derive(Clone, Copy, Default)]
struct Count {
    level: f64,
    under_way: u32,
    /// When `level` was so.
    at: u64,
    locked_until: u64,
}

impl Count {
    /// Lets run out what has passed.
    fn run_out(&mut self, now: u64, bound: f64, within: u64) {
        let passed = now.saturating_sub(self.at) as f64;
        self.level = (self.level - passed * bound / within.max(1) as f64).max(0.0);
        self.at = now;
    }
}

struct Table<K> {
    entries: HashMap<K, Count>,
    bound: f64,
    within: u64,
}

impl<K: Copy + Eq + Hash> Table<K> {
    fn new(bound: f64, within: u64) -> Self {
        Self { entries: HashMap::new(), bound, within }
    }

    fn get(&mut self, key: K, now: u64) -> &mut Count {
        if self.entries.len() >= ENTRIES_MAX && !self.entries.contains_key(&key) {
            self.forget_oldest();
        }
        let count = self.entries.entry(key).or_insert(Count { at: now, ..Count::default() });
        count.run_out(now, self.bound, self.within);
        count
    }

    /// A quarter of all, so that it is seldom.
    fn forget_oldest(&mut self) {
        let mut times: Vec<u64> = self.entries.values().map(|count| count.at).collect();
        let (_, limit, _) = times.select_nth_unstable(ENTRIES_MAX / 4);
        let limit = *limit;
        let mut left = ENTRIES_MAX / 4 + 1;
        self.entries.retain(|_, count| {
            let goes = count.at <= limit && left > 0;
            left -= usize::from(goes);
            !goes
        });
    }
}

/// What becomes of an attempt before anybody looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// After so many milliseconds.
    After(u64),
    LockedOut,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    Failed,
    /// Nobody could say.
    Unknown,
}

pub struct Guard {
    settings: Guessing,
    random: RandomState,
    pairs: Table<(Network, u64)>,
    networks: Table<Network>,
    logins: Table<u64>,
    /// Pairs that were accepted before; the counts in it mean nothing.
    known: Table<(Network, u64)>,
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Guard {
    pub fn new(settings: &Guessing) -> Self {
        let within = millis(settings.lockout);
        let (pair, network) = (f64::from(settings.failures_max), f64::from(settings.network_failures_max));
        Self {
            settings: settings.clone(),
            random: RandomState::new(),
            pairs: Table::new(pair, within),
            networks: Table::new(network, within),
            logins: Table::new(network, within),
            known: Table::new(0.0, within),
        }
    }

    /// Takes an attempt in; [`Guard::ended`] follows unless it is locked out. `login` is in its one form.
    pub fn begins(&mut self, now: u64, client: IpAddr, login: &str) -> Admission {
        let (network, login) = (Network::from(client), self.random.hash_one(login));
        let known = self.known.entries.contains_key(&(network, login));
        let (pair_bound, all_bound) = (self.pairs.bound, self.networks.bound);
        let (pair, all) = (self.pairs.get((network, login), now), self.networks.get(network, now));
        let strangers = if known { 0 } else { pair.under_way };
        let pair_locked = pair.locked_until > now
            || pair.level + f64::from(strangers) >= pair_bound
            || all.under_way >= UNDER_WAY_MAX;
        let all_locked = all.locked_until > now || all.level + f64::from(all.under_way) >= all_bound;
        if pair_locked || all_locked && !known {
            return Admission::LockedOut;
        }
        pair.under_way += 1;
        all.under_way += 1;
        let mut delay = self.delay(pair_level(&self.pairs, (network, login)));
        if !known {
            let (of_network, of_login) =
                (pair_level(&self.networks, network), self.logins.get(login, now).level);
            delay =
                delay.max(self.delay(of_network / NETWORK_FACTOR)).max(self.delay(of_login / LOGIN_FACTOR));
        }
        Admission::After(delay)
    }

    fn delay(&self, level: f64) -> u64 {
        if level < FREE {
            return 0;
        }
        let delay = FIRST_DELAY_MILLIS * (level - FREE).min(30.0).exp2();
        (delay as u64).min(millis(self.settings.delay_max))
    }

    /// The attempt has come to its end. True when the network is locked out from now on.
    pub fn ended(&mut self, now: u64, client: IpAddr, login: &str, outcome: Outcome) -> bool {
        let (network, login) = (Network::from(client), self.random.hash_one(login));
        let lockout = now.saturating_add(millis(self.settings.lockout));
        let (pair_bound, all_bound) = (self.pairs.bound, self.networks.bound);
        let (pair, all) = (self.pairs.get((network, login), now), self.networks.get(network, now));
        pair.under_way = pair.under_way.saturating_sub(1);
        all.under_way = all.under_way.saturating_sub(1);
        match outcome {
            Outcome::Unknown => {}
            Outcome::Accepted => {
                pair.level = 0.0;
                self.known.get((network, login), now);
            }
            Outcome::Failed => {
                let known = self.known.entries.contains_key(&(network, login));
                let counted = [(pair, pair_bound), (all, all_bound)];
                let mut locked = false;
                for (count, bound) in counted {
                    count.level += 1.0;
                    if count.level >= bound {
                        (count.level, count.locked_until) = (0.0, lockout);
                        locked = true;
                    }
                }
                if !known {
                    self.logins.get(login, now).level += 1.0;
                }
                return locked;
            }
        }
        false
    }
}

fn pair_level<K: Copy + Eq + Hash>(table: &Table<K>, key: K) -> f64 {
    table.entries.get(&key).map_or(0.0, |count| count.level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Admission::{After, LockedOut};

    const HOME: &str = "192.0.2.1";
    const EVIL: &str = "198.51.100.7";
    const MINUTE: u64 = 60_000;

    fn guard() -> Guard {
        Guard::new(&Guessing::default())
    }

    fn attempt(guard: &mut Guard, now: u64, client: &str, login: &str, outcome: Outcome) -> Admission {
        let client = client.parse().unwrap();
        let admission = guard.begins(now, client, login);
        if admission != LockedOut {
            guard.ended(now, client, login, outcome);
        }
        admission
    }

    #[test]
    fn delays_grow_and_end_in_a_lock_out_that_passes() {
        let mut guard = guard();
        let seen: Vec<_> = (0..11).map(|_| attempt(&mut guard, 0, EVIL, "ann", Outcome::Failed)).collect();
        let delays = [0, 0, 250, 500, 1000, 2000, 4000, 8000, 8000, 8000].map(After);
        assert_eq!(seen, [&delays[..], &[LockedOut]].concat());
        assert_eq!(attempt(&mut guard, 14 * MINUTE, EVIL, "ann", Outcome::Failed), LockedOut);
        assert_eq!(attempt(&mut guard, 15 * MINUTE, EVIL, "ann", Outcome::Accepted), After(0));
    }

    /// S29: stolen or guessed at, a login is not taken from its owner.
    #[test]
    fn strangers_cannot_lock_a_user_out() {
        let mut guard = guard();
        assert_eq!(attempt(&mut guard, 0, HOME, "ann", Outcome::Accepted), After(0));
        for number in 0..5_000u32 {
            let stranger = IpAddr::from((0xc633_6400 + number).to_be_bytes());
            guard.begins(1, stranger, "ann");
            guard.ended(1, stranger, "ann", Outcome::Failed);
        }
        assert_eq!(attempt(&mut guard, 2, HOME, "ann", Outcome::Accepted), After(0), "where she was before");
        assert_eq!(
            attempt(&mut guard, 2, "203.0.113.5", "ann", Outcome::Accepted),
            After(8000),
            "anywhere else"
        );
        assert_eq!(
            attempt(&mut guard, 2, "203.0.113.5", "bob", Outcome::Accepted),
            After(0),
            "another login"
        );
    }

    #[test]
    fn a_network_that_guesses_at_many_logins_is_locked_out_but_for_its_own() {
        let mut guard = guard();
        attempt(&mut guard, 0, HOME, "ann", Outcome::Accepted);
        let admitted = (0..200)
            .filter(|n| attempt(&mut guard, 1, HOME, &format!("user{n}"), Outcome::Failed) != LockedOut);
        assert_eq!(admitted.count(), 100);
        assert_eq!(attempt(&mut guard, 2, HOME, "fresh", Outcome::Accepted), LockedOut);
        assert_eq!(attempt(&mut guard, 2, HOME, "ann", Outcome::Accepted), After(0));
        assert_eq!(attempt(&mut guard, 2, EVIL, "fresh", Outcome::Accepted), After(0));
    }

    #[test]
    fn a_device_with_an_old_password_locks_nobody_out() {
        let mut guard = guard();
        for round in 0..1_000 {
            let admission = attempt(&mut guard, round * 5 * MINUTE, HOME, "ann", Outcome::Failed);
            assert_eq!(admission, After(0), "round {round}");
        }
    }

    #[test]
    fn attempts_at_once_are_no_way_around_the_bounds() {
        let mut guard = guard();
        let client: IpAddr = EVIL.parse().unwrap();
        let admitted = (0..1_000).filter(|_| guard.begins(0, client, "ann") != LockedOut).count();
        assert_eq!(admitted, 10);
        let mut guard = self::guard();
        let admitted = (0..1_000).filter(|n| guard.begins(0, client, &format!("u{n}")) != LockedOut).count();
        assert_eq!(admitted, UNDER_WAY_MAX as usize);
    }

    #[test]
    fn many_connections_of_a_known_login_are_let_in_at_once() {
        let mut guard = guard();
        let client: IpAddr = HOME.parse().unwrap();
        attempt(&mut guard, 0, HOME, "scanner", Outcome::Accepted);
        assert!((0..50).all(|_| guard.begins(1, client, "scanner") == After(0)));
    }

    #[test]
    fn what_nobody_could_verify_counts_for_nothing() {
        let mut guard = guard();
        assert!((0..1_000).all(|_| attempt(&mut guard, 0, HOME, "ann", Outcome::Unknown) == After(0)));
    }

    /// A client with a /64 is one network, and tables are bounded whatever comes.
    #[test]
    fn tables_are_bounded_and_ipv6_counts_by_its_64() {
        let mut guard = guard();
        for number in 0..10u32 {
            attempt(&mut guard, 0, &format!("2001:db8::{number}"), "ann", Outcome::Failed);
        }
        assert_eq!(attempt(&mut guard, 0, "2001:db8::ffff", "ann", Outcome::Failed), LockedOut);
        for number in 0..100_000u32 {
            let client = IpAddr::from(number.to_be_bytes());
            guard.begins(u64::from(number), client, "x");
            guard.ended(u64::from(number), client, "x", Outcome::Accepted);
        }
        for size in [guard.pairs.entries.len(), guard.networks.entries.len(), guard.known.entries.len()] {
            assert!((ENTRIES_MAX / 2..=ENTRIES_MAX).contains(&size), "{size}");
        }
    }
}
