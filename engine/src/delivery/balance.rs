//! Smart hosts with weights: which one a message goes to, and which one takes over.
//!
//! Pure. The share of a host is decided by the message's id, not by connections: a connection takes messages as
//! fast as its host does, so counting connections would give a fast host more than its weight, and at low load
//! one connection would have everything. The id does not change, so the same message goes to the same host after a
//! restart. The hosts of the first priority whose weight is above 0 have shares; when the host of a
//! share fails, each new connection for that share goes to another host of the same priority, by smooth weighted
//! round robin among those that answer, and to the next priority only when all of them fail.

use crate::config::BalancedHost;
use crate::shard::links::{Choice, NextHop};
use sluice_queue::QueueId;

/// Turns of the hosts of one route.
#[derive(Debug, Default)]
pub struct Turns(Vec<i64>);

/// The hosts that have shares: of the first priority, with a weight.
fn sharing(hosts: &[BalancedHost]) -> impl Iterator<Item = (usize, &BalancedHost)> {
    let first = hosts.first().map(|host| host.priority);
    let sharing = hosts.iter().enumerate().take_while(move |(_, host)| Some(host.priority) == first);
    sharing.filter(|(_, host)| host.weight > 0)
}

/// Whose share a message is. Where one host has everything there are no shares.
pub fn share(route: u16, hosts: &[BalancedHost], id: QueueId) -> NextHop {
    let whole = NextHop::of_route(route);
    if sharing(hosts).nth(1).is_none() {
        return whole;
    }
    let sum: u64 = sharing(hosts).map(|(_, host)| u64::from(host.weight)).sum();
    let mut point = spread(id.bits()) % sum;
    for (index, host) in sharing(hosts) {
        match point.checked_sub(u64::from(host.weight)) {
            Some(rest) => point = rest,
            None => return NextHop { choice: Choice::Share(index as u16), ..whole },
        }
    }
    whole
}

/// splitmix64: ids that follow each other must not fall into one share.
fn spread(bits: u64) -> u64 {
    let mut bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The hosts in the order in which one connection tries them: the host of the share first; then, by priorities,
/// those that answer by turns, those without a weight, and those that do not answer.
pub fn order(
    hosts: &[BalancedHost],
    choice: Choice,
    turns: &mut Turns,
    answers: impl Fn(usize) -> bool,
) -> Vec<usize> {
    turns.0.resize(hosts.len(), 0);
    let mut order = Vec::with_capacity(hosts.len());
    if let Choice::Share(index) = choice
        && answers(usize::from(index))
        && usize::from(index) < hosts.len()
    {
        order.push(usize::from(index));
    }
    for group in hosts.chunk_by(|one, other| one.priority == other.priority) {
        let start = hosts.iter().position(|host| host.priority == group[0].priority).unwrap_or(0);
        let indexes = || (start..start + group.len()).filter(|index| !order.contains(index));
        let (live, dead): (Vec<usize>, Vec<usize>) = indexes().partition(|&index| answers(index));
        // A turn is paid only where it decides whom the connection goes to.
        let first = if order.is_empty() { next(hosts, turns, &live) } else { None };
        let mut rest: Vec<usize> = live.into_iter().filter(|index| Some(*index) != first).collect();
        rest.sort_by_key(|&index| (hosts[index].weight == 0, -turns.0[index]));
        order.extend(first.into_iter().chain(rest).chain(dead));
    }
    order
}

/// Smooth weighted round robin: who has waited longest for its weight.
fn next(hosts: &[BalancedHost], turns: &mut Turns, live: &[usize]) -> Option<usize> {
    let sum: i64 = live.iter().map(|&index| i64::from(hosts[index].weight)).sum();
    live.iter().for_each(|&index| turns.0[index] += i64::from(hosts[index].weight));
    let weighted = live.iter().copied().filter(|&index| hosts[index].weight > 0);
    let next = weighted.max_by_key(|&index| (turns.0[index], usize::MAX - index))?;
    turns.0[next] -= sum;
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SmartHost;

    fn hosts(of: &[(u16, u32)]) -> Vec<BalancedHost> {
        let host = |(index, &(priority, weight)): (usize, &(u16, u32))| BalancedHost {
            host: SmartHost { host: format!("h{index}.example"), port: 25 },
            priority,
            weight,
        };
        of.iter().enumerate().map(host).collect()
    }

    fn counts(hosts: &[BalancedHost], messages: u64, step: u64) -> Vec<u64> {
        let mut counts = vec![0; hosts.len()];
        for n in 0..messages {
            let choice = share(3, hosts, QueueId::from_bits(1_700_000_000_000_000 + n * step)).choice;
            let Choice::Share(index) = choice else { panic!("{choice:?}") };
            counts[usize::from(index)] += 1;
        }
        counts
    }

    #[test]
    fn shares_follow_the_weights_whatever_the_rhythm_of_the_ids() {
        let hosts = hosts(&[(0, 3), (0, 1), (0, 0), (1, 5)]);
        for step in [1, 7, 64, 1_000, 1_024, 65_536] {
            let counts = counts(&hosts, 10_000, step);
            assert!((7_300..=7_700).contains(&counts[0]), "step {step}: {counts:?}");
            assert_eq!((counts[0] + counts[1], counts[2], counts[3]), (10_000, 0, 0), "step {step}");
        }
    }

    #[test]
    fn one_host_alone_has_everything_without_a_share() {
        let id = QueueId::from_bits(1);
        for alone in [&[(0, 1)][..], &[(0, 1), (1, 1)], &[(0, 1), (0, 0)], &[]] {
            assert_eq!(share(2, &hosts(alone), id), NextHop::of_route(2), "{alone:?}");
        }
    }

    #[test]
    fn hosts_in_a_plain_list_are_tried_in_their_order() {
        let hosts = hosts(&[(0, 1), (1, 1), (2, 1)]);
        let mut turns = Turns::default();
        for _ in 0..3 {
            assert_eq!(order(&hosts, Choice::Route, &mut turns, |_| true), [0, 1, 2]);
        }
        assert_eq!(
            order(&hosts, Choice::Route, &mut turns, |index| index != 0),
            [0, 1, 2],
            "memory puts it last"
        );
    }

    #[test]
    fn the_share_of_a_host_that_fails_goes_to_the_others_by_their_weights() {
        let hosts = hosts(&[(0, 3), (0, 2), (0, 1), (0, 0), (1, 1)]);
        let mut turns = Turns::default();
        assert_eq!(order(&hosts, Choice::Share(0), &mut turns, |_| true)[0], 0);
        let mut first = vec![0; hosts.len()];
        for _ in 0..300 {
            let order = order(&hosts, Choice::Share(0), &mut turns, |index| index != 0);
            let mut all = order.clone();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3, 4], "every host once");
            assert_eq!(order[2..], [3, 0, 4], "without a weight, dead, of the next priority");
            first[order[0]] += 1;
        }
        assert_eq!(first, [0, 200, 100, 0, 0]);
    }

    #[test]
    fn the_next_priority_comes_when_the_first_is_dead() {
        let hosts = hosts(&[(0, 1), (0, 1), (5, 1), (5, 1)]);
        let mut turns = Turns::default();
        // Memory moves the dead ones behind all others.
        let order = order(&hosts, Choice::Share(1), &mut turns, |index| index > 1);
        assert_eq!(order[..2], [0, 1]);
        assert_eq!(order.len(), 4);
    }
}
