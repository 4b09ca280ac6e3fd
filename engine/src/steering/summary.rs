//! The queue in a few numbers: totals, by next hop, and the table of domains by age that Postfix's users
//! know from `qshape`.
//!
//! Pure. Each ingest shard fills a [`Tally`] slice by slice; tallies are added up and cut to the largest
//! rows. As in `qshape`, the table counts recipients by their domain, or with `senders` messages by the
//! domain of their sender.

use super::hops::{HopNames, lower};
use super::{Part, State, Subject, domain_of};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The columns of the age table: younger than so many minutes, in the first that fits; one more for the rest.
pub const AGES_MINUTES: [u64; 9] = [5, 10, 20, 40, 80, 160, 320, 640, 1280];
const COLUMNS: usize = AGES_MINUTES.len() + 1;
const MINUTE_MICROS: u64 = 60_000_000;
/// Names longer than a domain can be (a local name without a domain, say) are not kept whole.
const NAME_BYTES_MAX: usize = 255;

/// What is to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SummaryOptions {
    /// The age table by sender domain.
    pub senders: bool,
    /// Rows of each table; the rest is counted in the totals only.
    pub limit: usize,
}

/// The counts of one shard.
#[derive(Debug, Default)]
pub struct Tally {
    totals: Totals,
    hops: HashMap<Box<str>, HopCount>,
    domains: HashMap<Box<str>, [u64; COLUMNS]>,
    warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub messages: u64,
    pub octets: u64,
    /// Recipients that wait; the next four are how.
    pub recipients: u64,
    pub queued: u64,
    pub deferred: u64,
    pub held: u64,
    /// Recipients of messages that are set aside.
    pub damaged: u64,
    pub messages_held: u64,
    pub messages_damaged: u64,
    /// Microseconds since 1970; zero when nothing waits.
    pub oldest_micros: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct HopCount {
    recipients: u64,
    deferred: u64,
    held: u64,
    oldest_micros: u64,
}

fn older(a: u64, b: u64) -> u64 {
    match (a, b) {
        (0, other) | (other, 0) => other,
        (a, b) => a.min(b),
    }
}

fn column(age_micros: u64) -> usize {
    let minutes = age_micros / MINUTE_MICROS;
    AGES_MINUTES.iter().position(|&limit| minutes < limit).unwrap_or(AGES_MINUTES.len())
}

fn bounded(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_BYTES_MAX)]
}

/// The entry of a name, which is copied only when it is new.
fn entry<'a, T: Default>(map: &'a mut HashMap<Box<str>, T>, name: &str) -> &'a mut T {
    let name = bounded(name);
    if !map.contains_key(name) {
        map.insert(name.into(), T::default());
    }
    map.get_mut(name).expect("it has just been put there")
}

impl Tally {
    /// Counts one message.
    pub fn add<'a>(
        &mut self,
        subject: &Subject<'a>,
        parts: impl Iterator<Item = Part<'a>>,
        hops: &HopNames,
        options: SummaryOptions,
        now_micros: u64,
    ) {
        let column = column(now_micros.saturating_sub(subject.arrived_micros));
        self.totals.messages += 1;
        self.totals.octets = self.totals.octets.saturating_add(subject.content_bytes);
        self.totals.oldest_micros = older(self.totals.oldest_micros, subject.arrived_micros);
        self.totals.messages_damaged += subject.damaged as u64;
        let mut has_held = false;
        for part in parts {
            let Some(standing) = part.standing() else { continue };
            self.totals.recipients += 1;
            has_held |= standing == State::Held;
            *match standing {
                _ if subject.damaged => &mut self.totals.damaged,
                State::Queued | State::Damaged => &mut self.totals.queued,
                State::Deferred => &mut self.totals.deferred,
                State::Held => &mut self.totals.held,
            } += 1;
            let hop = entry(&mut self.hops, &hops.name(&part));
            hop.recipients += 1;
            hop.deferred += (standing == State::Deferred) as u64;
            hop.held += (standing == State::Held) as u64;
            hop.oldest_micros = older(hop.oldest_micros, subject.arrived_micros);
            if !options.senders {
                entry(&mut self.domains, &lower(part.domain()))[column] += 1;
            }
        }
        self.totals.messages_held += has_held as u64;
        if options.senders {
            let name = if subject.sender.is_empty() { "<>" } else { domain_of(subject.sender) };
            entry(&mut self.domains, &lower(name))[column] += 1;
        }
    }

    /// A sentence about what is not as it should be.
    pub fn warn(&mut self, sentence: String) {
        self.warnings.push(sentence);
    }

    pub fn merge(&mut self, other: Self) {
        self.warnings.extend(other.warnings);
        let (to, from) = (&mut self.totals, other.totals);
        to.messages += from.messages;
        to.octets = to.octets.saturating_add(from.octets);
        to.recipients += from.recipients;
        to.queued += from.queued;
        to.deferred += from.deferred;
        to.held += from.held;
        to.damaged += from.damaged;
        to.messages_held += from.messages_held;
        to.messages_damaged += from.messages_damaged;
        to.oldest_micros = older(to.oldest_micros, from.oldest_micros);
        for (name, count) in other.hops {
            let hop = self.hops.entry(name).or_default();
            hop.recipients += count.recipients;
            hop.deferred += count.deferred;
            hop.held += count.held;
            hop.oldest_micros = older(hop.oldest_micros, count.oldest_micros);
        }
        for (name, columns) in other.domains {
            let to = self.domains.entry(name).or_default();
            to.iter_mut().zip(columns).for_each(|(to, count)| *to += count);
        }
    }

    /// The largest rows of each table. `troubles`: next hops that are down.
    pub fn finish(self, options: SummaryOptions, troubles: Vec<HopTrouble>) -> Summary {
        let mut columns = [0; COLUMNS];
        self.domains.values().for_each(|row| columns.iter_mut().zip(row).for_each(|(all, one)| *all += one));
        let mut domains: Vec<ShapeRow> = self
            .domains
            .into_iter()
            .map(|(domain, ages)| ShapeRow { domain: domain.into(), total: ages.iter().sum(), ages })
            .collect();
        let mut next_hops: Vec<HopRow> = self
            .hops
            .into_iter()
            .map(|(name, count)| HopRow {
                down: troubles.iter().find(|trouble| *trouble.next_hop == *name).cloned(),
                next_hop: name.into(),
                recipients: count.recipients,
                deferred: count.deferred,
                held: count.held,
                oldest_micros: count.oldest_micros,
            })
            .collect();
        domains.sort_unstable_by(|a, b| b.total.cmp(&a.total).then_with(|| a.domain.cmp(&b.domain)));
        next_hops.sort_unstable_by(|a, b| {
            b.recipients.cmp(&a.recipients).then_with(|| a.next_hop.cmp(&b.next_hop))
        });
        let (domains_total, next_hops_total) = (domains.len(), next_hops.len());
        domains.truncate(options.limit);
        next_hops.truncate(options.limit);
        Summary {
            warnings: self.warnings,
            totals: self.totals,
            next_hops,
            next_hops_total,
            senders: options.senders,
            ages_minutes: AGES_MINUTES.to_vec(),
            all: ShapeRow { domain: "TOTAL".into(), total: columns.iter().sum(), ages: columns },
            domains,
            domains_total,
        }
    }
}

/// The whole answer; as JSON what the admin interface gives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// What is wrong with the spools and their room, a sentence each; empty when nothing is.
    #[serde(default)]
    pub warnings: Vec<String>,
    #[serde(flatten)]
    pub totals: Totals,
    /// By how much waits for them.
    pub next_hops: Vec<HopRow>,
    /// Those that were cut off included.
    pub next_hops_total: usize,
    /// The table below is by sender domain and counts messages; otherwise by recipient domain, and counts
    /// recipients.
    pub senders: bool,
    /// Each column of `ages` but the last: younger than so many minutes.
    pub ages_minutes: Vec<u64>,
    pub all: ShapeRow,
    pub domains: Vec<ShapeRow>,
    pub domains_total: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopRow {
    pub next_hop: String,
    pub recipients: u64,
    pub deferred: u64,
    pub held: u64,
    pub oldest_micros: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<HopTrouble>,
}

/// A next hop that answers at no address, or that is sent to more slowly because it asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopTrouble {
    pub next_hop: String,
    /// Microseconds since 1970.
    pub since_micros: u64,
    pub reason: String,
    /// It takes mail, at a lower pace for a while.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_slow: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShapeRow {
    pub domain: String,
    pub total: u64,
    pub ages: [u64; COLUMNS],
}

#[cfg(test)]
mod tests;
