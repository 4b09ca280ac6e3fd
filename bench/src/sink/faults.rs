//! Refusals on purpose: which phase, which reply, how often. Pure; the "chance" is a fixed sequence per seed.

use crate::message::next_state;
use std::str::FromStr;

/// Where a refusal applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Connect,
    Ehlo,
    Mail,
    Rcpt,
    /// The DATA command.
    Data,
    /// After the content.
    Dot,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Often {
    Always,
    /// The n-th, the 2n-th and so on.
    Each(u64),
    Percent(f64),
}

/// One `--refuse`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refusal {
    phase: Phase,
    code: u16,
    often: Often,
}

impl FromStr for Refusal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no refusal; write it like rcpt:550, data:451/10 or dot:452%5");
        let (phase, rest) = text.split_once(':').ok_or_else(wrong)?;
        let phase = match phase {
            "connect" => Phase::Connect,
            "ehlo" => Phase::Ehlo,
            "mail" => Phase::Mail,
            "rcpt" => Phase::Rcpt,
            "data" => Phase::Data,
            "dot" => Phase::Dot,
            _ => return Err(wrong()),
        };
        let (code, often) = match rest.find(['/', '%']) {
            None => (rest, Often::Always),
            Some(at) if rest.as_bytes()[at] == b'/' => {
                let each = rest[at + 1..].parse().ok().filter(|each| *each > 0);
                (&rest[..at], Often::Each(each.ok_or_else(wrong)?))
            }
            Some(at) => {
                let percent = rest[at + 1..].parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
                (&rest[..at], Often::Percent(percent.ok_or_else(wrong)?))
            }
        };
        let code = code.parse().ok().filter(|code| (400..600).contains(code)).ok_or_else(wrong)?;
        Ok(Refusal { phase, code, often })
    }
}

/// The refusals of one executor, with their counts.
pub struct Faults {
    rules: Vec<(Refusal, u64)>,
    state: u64,
}

impl Faults {
    pub fn new(refusals: &[Refusal], seed: u64) -> Self {
        let state = next_state(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Faults { rules: refusals.iter().map(|rule| (*rule, 0)).collect(), state }
    }

    /// The code to refuse with, if this one is to be refused. The first rule that strikes decides.
    pub fn strike(&mut self, phase: Phase) -> Option<u16> {
        for (rule, count) in self.rules.iter_mut().filter(|(rule, _)| rule.phase == phase) {
            *count += 1;
            let strikes = match rule.often {
                Often::Always => true,
                Often::Each(each) => count.is_multiple_of(each),
                Often::Percent(percent) => {
                    self.state = next_state(self.state);
                    ((self.state >> 11) as f64 / (1u64 << 53) as f64) * 100.0 < percent
                }
            };
            if strikes {
                return Some(rule.code);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strikes(rule: &str, phase: Phase, times: usize) -> usize {
        let mut faults = Faults::new(&[rule.parse().unwrap()], 1);
        (0..times).filter(|_| faults.strike(phase).is_some()).count()
    }

    #[test]
    fn refusals_strike_always_each_nth_or_by_chance() {
        assert_eq!(strikes("rcpt:550", Phase::Rcpt, 10), 10);
        assert_eq!(strikes("rcpt:550", Phase::Mail, 10), 0);
        assert_eq!(strikes("data:451/3", Phase::Data, 10), 3);
        let by_chance = strikes("dot:452%20", Phase::Dot, 10_000);
        assert!((1_800..2_200).contains(&by_chance), "{by_chance}");
    }

    #[test]
    fn malformed_refusals_are_refused() {
        for text in [
            "",
            "rcpt",
            "rcpt:",
            "rcpt:250",
            "rcpt:600",
            "quit:421",
            "rcpt:550/0",
            "rcpt:550%101",
            "rcpt:550%x",
        ] {
            assert!(text.parse::<Refusal>().is_err(), "{text}");
        }
    }
}
