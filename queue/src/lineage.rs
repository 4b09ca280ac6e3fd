//! The lineage of a spool: what tells one spool from every other, wherever its files are carried.
//!
//! Plain data. Drawn when a spool is created and the same in the header of each of its segments; a spool of
//! format version 1 has none until its first segment of version 2.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

/// 16 octets that no other spool has; never all zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lineage([u8; 16]);

impl Lineage {
    /// `None` for zeros, which a segment of version 1 has in its place.
    pub fn from_octets(octets: [u8; 16]) -> Option<Self> {
        (octets != [0; 16]).then_some(Self(octets))
    }

    pub fn octets(self) -> [u8; 16] {
        self.0
    }

    /// A new one. Not pure: the operating system's randomness is in the keys of the hasher.
    pub(crate) fn draw() -> Self {
        let keys = RandomState::new();
        let halves = [keys.hash_one(0u8), keys.hash_one(1u8)].map(u64::to_le_bytes);
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&halves[0]);
        octets[8..].copy_from_slice(&halves[1]);
        Self::from_octets(octets).unwrap_or(Self([1; 16]))
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lineage({self})")
    }
}
