//! A condition: which recipients of which messages are meant. All its parts must hold.
//!
//! Pure; ages are reckoned from a time that the caller gives. As JSON it is what the admin interface takes
//! and what the command line sends:
//!
//! ```json
//! {"ids": ["6C3A11B24EW00"], "sender": "*@winery.example", "recipient": "bob@*", "domain": "away.example",
//!  "next_hop": "10.1.0.10:25", "older_than_seconds": 3600, "younger_than_seconds": 86400,
//!  "larger_than_octets": 1048576, "smaller_than_octets": 4096, "reason": "greylisted", "state": "deferred"}
//! ```
//!
//! Every field may be left out; an unknown one is refused, because a condition with a slip in it would
//! mean more messages than its author.

use super::hops::HopNames;
use super::pattern::Pattern;
use super::{Part, Subject};
use serde::{Deserialize, Serialize};
use sluice_queue::QueueId;
use std::fmt;
use std::str::FromStr;

/// Queue ids in one condition. Prevents a request that takes all memory.
pub const IDS_MAX: usize = 100_000;
const MICROS: u64 = 1_000_000;

/// Which recipients are meant; without any field, all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Condition {
    #[serde(with = "id_texts", skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<QueueId>,
    #[serde(with = "text", skip_serializing_if = "Option::is_none")]
    pub sender: Option<Pattern>,
    #[serde(with = "text", skip_serializing_if = "Option::is_none")]
    pub recipient: Option<Pattern>,
    /// The recipient's domain.
    #[serde(with = "text", skip_serializing_if = "Option::is_none")]
    pub domain: Option<Pattern>,
    #[serde(with = "text", skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<Pattern>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub younger_than_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub larger_than_octets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smaller_than_octets: Option<u64>,
    /// Part of the reason why it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
}

/// Where a recipient stands that is not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Never tried.
    Queued,
    /// Tried, or kept by a next hop that is down; waits for the next time.
    Deferred,
    /// Not tried until it is released.
    Held,
    /// Of a message that is set aside because not all of it can be read.
    Damaged,
}

impl State {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Queued, "queued"),
        (Self::Deferred, "deferred"),
        (Self::Held, "held"),
        (Self::Damaged, "damaged"),
    ];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL[*self as usize].1)
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|(_, word)| *word == text);
        found.map(|(state, _)| state).ok_or_else(|| "allowed: queued, deferred, held, damaged".into())
    }
}

impl Condition {
    /// Whether it means everything: such a change wants to be said expressly.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Puts the ids in order, which [`Self::matches_message`] relies on.
    ///
    /// # Errors
    /// More ids than [`IDS_MAX`].
    pub fn prepare(&mut self) -> Result<(), String> {
        if self.ids.len() > IDS_MAX {
            return Err(format!("{} queue ids; allowed: {IDS_MAX} at a time", self.ids.len()));
        }
        self.ids.sort_unstable();
        self.ids.dedup();
        Ok(())
    }

    /// The part that concerns the message as a whole.
    pub fn matches_message(&self, subject: &Subject<'_>, now_micros: u64) -> bool {
        let age = now_micros.saturating_sub(subject.arrived_micros);
        let span = |seconds: u64| seconds.saturating_mul(MICROS);
        (self.ids.is_empty() || self.ids.binary_search(&subject.id).is_ok())
            && self.older_than_seconds.is_none_or(|seconds| age > span(seconds))
            && self.younger_than_seconds.is_none_or(|seconds| age < span(seconds))
            && self.larger_than_octets.is_none_or(|octets| subject.content_bytes > octets)
            && self.smaller_than_octets.is_none_or(|octets| subject.content_bytes < octets)
            && self.sender.as_ref().is_none_or(|pattern| pattern.matches(subject.sender))
            && self.state.is_none_or(|state| (state == State::Damaged) == subject.damaged)
    }

    /// The part that concerns one recipient of a message that matches. One that is finished never does.
    pub fn matches_recipient(&self, part: &Part<'_>, hops: &HopNames) -> bool {
        let Some(standing) = part.standing() else { return false };
        self.state.is_none_or(|state| state == State::Damaged || state == standing)
            && self.recipient.as_ref().is_none_or(|pattern| pattern.matches(part.address))
            && self.domain.as_ref().is_none_or(|pattern| pattern.matches(part.domain()))
            && self.next_hop.as_ref().is_none_or(|pattern| hops.matches(pattern, part))
            && self
                .reason
                .as_ref()
                .is_none_or(|text| part.reason.is_some_and(|reason| contains(reason, text)))
    }
}

fn contains(text: &str, part: &str) -> bool {
    let (text, part) = (text.as_bytes(), part.as_bytes());
    part.is_empty() || text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

/// An optional value by its text form.
mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::fmt::Display;
    use std::str::FromStr;

    pub fn serialize<T: Display, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.collect_str(value),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err = String>,
        D: Deserializer<'de>,
    {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

mod id_texts {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use sluice_queue::QueueId;

    pub fn serialize<S: Serializer>(ids: &[QueueId], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(ids.iter().map(QueueId::to_string))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<QueueId>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        let parse = |text: String| text.parse().map_err(|error| D::Error::custom(format!("{text}: {error}")));
        texts.into_iter().map(parse).collect()
    }
}

#[cfg(test)]
mod tests;
