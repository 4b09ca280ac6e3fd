//! A figure over several rounds: the middle one, the least and the greatest. Pure.

use crate::figures::{median, short};
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
    pub rounds: usize,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let (least, most) =
            (values.iter().copied().reduce(f64::min)?, values.iter().copied().reduce(f64::max)?);
        Some(Spread { median: median(values)?, least, most, rounds: values.len() })
    }

    /// `22.7 (19.1–26.3)`; of one round its figure alone.
    pub fn text(&self) -> String {
        self.with(short)
    }

    /// The same, each figure as `write` has it.
    pub fn with(&self, write: impl Fn(f64) -> String) -> String {
        match self.rounds {
            1 => write(self.median),
            _ => format!("{} ({}–{})", write(self.median), write(self.least), write(self.most)),
        }
    }

    /// Whether a bound holds in every round (`true`), in none (`false`), or not in all. `holds` says it of one figure
    /// and must have one limit only.
    pub fn judge(&self, holds: impl Fn(f64) -> bool) -> Option<bool> {
        let (least, most) = (holds(self.least), holds(self.most));
        (least == most).then_some(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_and_both_ends() {
        let spread = Spread::of(&[19.0, 26.04, 22.7]).unwrap();
        assert_eq!(spread.text(), "22.7 (19.0–26.0)");
        assert_eq!(Spread::of(&[0.5]).unwrap().text(), "0.500");
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn rounds_that_disagree_decide_nothing() {
        let spread = Spread::of(&[1.0, 2.0, 3.0]).unwrap();
        assert_eq!(spread.judge(|value| value >= 1.0), Some(true));
        assert_eq!(spread.judge(|value| value >= 2.0), None);
        assert_eq!(spread.judge(|value| value >= 3.5), Some(false));
    }
}
