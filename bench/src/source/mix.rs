//! Messages of several sizes in fixed shares. Pure: which size a message has follows from its number alone.

use crate::message::{Composer, Recipe, next_state};
use std::str::FromStr;

/// Sizes in octets with their shares, at least one; written `1024:7,65536:3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix(pub Vec<(usize, u32)>);

/// Above this a mix is a slip: each size keeps prepared bodies in memory.
const SIZES_MAX: usize = 64;
const OCTETS_MAX: usize = 64 << 20;

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no list of sizes; write it like 1024:7,65536:3");
        let mut sizes = Vec::new();
        for part in text.split(',') {
            let (size, share) = part.split_once(':').ok_or_else(wrong)?;
            let size = size.trim().parse().ok().filter(|size| (1..=OCTETS_MAX).contains(size));
            let share = share.trim().parse().ok().filter(|share| (1..=1_000_000).contains(share));
            sizes.push((size.ok_or_else(wrong)?, share.ok_or_else(wrong)?));
        }
        if sizes.len() > SIZES_MAX { Err(wrong()) } else { Ok(Mix(sizes)) }
    }
}

impl Mix {
    /// Octets of a message on average.
    pub fn mean(&self) -> f64 {
        let shares: f64 = self.0.iter().map(|(_, share)| f64::from(*share)).sum();
        self.0.iter().map(|(size, share)| *size as f64 * f64::from(*share)).sum::<f64>() / shares
    }

    /// The place in the list of the size that the message has.
    fn place(&self, number: u64) -> usize {
        let all: u64 = self.0.iter().map(|(_, share)| u64::from(*share)).sum();
        let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..3).for_each(|_| state = next_state(state));
        let mut at = (state >> 16) % all;
        for (place, (_, share)) in self.0.iter().enumerate() {
            match at.checked_sub(u64::from(*share)) {
                Some(rest) => at = rest,
                None => return place,
            }
        }
        unreachable!("`at` is below the sum of all shares")
    }
}

impl std::fmt::Display for Mix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<_> = self.0.iter().map(|(size, share)| format!("{size}:{share}")).collect();
        f.write_str(&parts.join(","))
    }
}

/// A composer for each size.
pub(super) struct Composers {
    mix: Option<Mix>,
    all: Vec<Composer>,
}

impl Composers {
    pub fn new(recipe: Recipe, mix: Option<&Mix>) -> Self {
        let of = |size| Composer::new(Recipe { size, ..recipe.clone() });
        let all = match mix {
            Some(Mix(sizes)) => sizes.iter().map(|(size, _)| of(*size)).collect(),
            None => vec![of(recipe.size)],
        };
        Composers { mix: mix.cloned(), all }
    }

    /// The one for the message.
    pub fn of(&self, number: u64) -> &Composer {
        &self.all[self.mix.as_ref().map_or(0, |mix| mix.place(number))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_kept_over_many_messages() {
        let mix: Mix = "1024:70,4096:25,65536:5".parse().unwrap();
        let mut counts = [0_i32; 3];
        (0..100_000).for_each(|number| counts[mix.place(number)] += 1);
        for (count, share) in counts.iter().zip([70_000, 25_000, 5_000]) {
            assert!((count - share).abs() < 1_000, "{counts:?}");
        }
        assert_eq!(mix.mean(), (1024.0 * 70.0 + 4096.0 * 25.0 + 65536.0 * 5.0) / 100.0);
        assert_eq!(mix.to_string().parse(), Ok(mix));
    }

    #[test]
    fn malformed_mixes_are_refused() {
        for text in ["", "1024", "1024:", "0:1", "1024:0", "a:1", "1024:1,", "99999999999:1"] {
            assert!(text.parse::<Mix>().is_err(), "{text}");
        }
    }
}
