//! Which messages have come, so that repeats and losses show. Pure.

use std::collections::{HashMap, HashSet};

/// A message: run and number in it.
pub type Key = (u32, u64);

/// What a message is to those that came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    New,
    /// Known, but for other recipients: a relay has split it.
    Part,
    /// Known, for the same first recipient.
    Repeat,
}

/// A message's first recipient, hashed, is kept with it: a message for many may rightly come in several
/// transactions, but never twice for the same.
#[derive(Default)]
pub struct Seen {
    first: HashMap<Key, u32>,
    /// The parts after the first.
    parts: HashSet<(Key, u32)>,
}

impl Seen {
    pub fn note(&mut self, key: Key, recipient: u32) -> Sight {
        match self.first.get(&key) {
            None => {
                self.first.insert(key, recipient);
                Sight::New
            }
            Some(first) if *first == recipient => Sight::Repeat,
            Some(_) => match self.parts.insert((key, recipient)) {
                true => Sight::Part,
                false => Sight::Repeat,
            },
        }
    }

    /// Takes in what another executor has seen; calls `correct` for each message that was thought new there.
    pub fn add(&mut self, other: Seen, mut correct: impl FnMut(Sight)) {
        for (key, recipient) in other.first {
            match self.note(key, recipient) {
                Sight::New => {}
                sight => correct(sight),
            }
        }
        for (key, recipient) in other.parts {
            if self.note(key, recipient) == Sight::Repeat {
                correct(Sight::Repeat);
            }
        }
    }

    pub fn distinct(&self) -> u64 {
        self.first.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_told_from_parts() {
        let mut seen = Seen::default();
        let sights =
            [((1, 5), 7), ((1, 5), 8), ((1, 5), 8), ((1, 5), 7), ((2, 5), 7)].map(|(k, r)| seen.note(k, r));
        assert_eq!(sights, [Sight::New, Sight::Part, Sight::Repeat, Sight::Repeat, Sight::New]);
        assert_eq!(seen.distinct(), 2);
    }

    #[test]
    fn a_repeat_on_another_executor_shows_when_they_are_added() {
        let (mut one, mut other) = (Seen::default(), Seen::default());
        one.note((1, 1), 7);
        other.note((1, 1), 7);
        other.note((1, 2), 7);
        let mut corrections = Vec::new();
        one.add(other, |sight| corrections.push(sight));
        assert_eq!((corrections, one.distinct()), (vec![Sight::Repeat], 2));
    }
}
