//! The queue id: the one name of a message in the spool, in the log and on the command line.
//!
//! A [`QueueId`] is 64 bits: 52 bits of microseconds since 1970 (they last until 2112) and 12 bits
//! of spool number. So ids sort by arrival, and an id tells which spool holds the message. The spool
//! keeps them strictly rising; the clock gives only their rough place.
//!
//! As text: 13 characters of Crockford's base 32 (no I, L, O, U), most significant first, upper case.

use std::fmt;
use std::str::FromStr;

/// How many spools one relay can have: what 12 bits can tell apart.
pub const SPOOLS_MAX: u16 = 1 << SPOOL_BITS;
const SPOOL_BITS: u32 = 12;
const TEXT_LEN: usize = 13;
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The number of a spool directory (`shard-NNNN`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpoolNumber(u16);

impl SpoolNumber {
    /// `None` when the number does not fit in a queue id.
    pub const fn new(number: u16) -> Option<Self> {
        if number < SPOOLS_MAX { Some(Self(number)) } else { None }
    }

    pub const fn get(self) -> u16 {
        self.0
    }
}

/// The name of a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(u64);

impl QueueId {
    /// Microseconds beyond 52 bits wrap; the spool keeps ids rising all the same.
    pub const fn new(micros: u64, spool: SpoolNumber) -> Self {
        Self((micros << SPOOL_BITS) | spool.0 as u64)
    }

    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub const fn bits(self) -> u64 {
        self.0
    }

    pub const fn micros(self) -> u64 {
        self.0 >> SPOOL_BITS
    }

    pub const fn spool(self) -> SpoolNumber {
        SpoolNumber((self.0 & (SPOOLS_MAX as u64 - 1)) as u16)
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; TEXT_LEN];
        for (place, slot) in text.iter_mut().rev().enumerate() {
            *slot = ALPHABET[(self.0 >> (5 * place)) as usize & 31];
        }
        f.write_str(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueueId({self})")
    }
}

/// Why a text is not a queue id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAQueueId;

impl fmt::Display for NotAQueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a queue id is 13 characters of 0-9 and A-Z without I, L, O and U")
    }
}

impl std::error::Error for NotAQueueId {}

impl FromStr for QueueId {
    type Err = NotAQueueId;

    fn from_str(text: &str) -> Result<Self, NotAQueueId> {
        if text.len() != TEXT_LEN {
            return Err(NotAQueueId);
        }
        text.bytes()
            .try_fold(0u64, |bits, byte| {
                let digit =
                    ALPHABET.iter().position(|&c| c == byte.to_ascii_uppercase()).ok_or(NotAQueueId)?;
                if bits >> 59 != 0 {
                    return Err(NotAQueueId);
                }
                Ok(bits << 5 | digit as u64)
            })
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_form() {
        let spool = SpoolNumber::new(4095).unwrap();
        for micros in [0, 1, 1_795_000_000_000_000, (1 << 52) - 1] {
            let id = QueueId::new(micros, spool);
            assert_eq!(id.to_string().len(), TEXT_LEN);
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(id.to_string().to_lowercase().parse(), Ok(id));
            assert_eq!((id.micros(), id.spool()), (micros, spool));
        }
    }

    #[test]
    fn ids_sort_by_time_and_their_texts_do_too() {
        let spool = SpoolNumber::new(3).unwrap();
        let (early, late) = (QueueId::new(5, spool), QueueId::new(6, spool));
        assert!(early < late && early.to_string() < late.to_string());
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in
            ["", "0", "000000000000", "00000000000000", "000000000000U", "ZZZZZZZZZZZZZ", "0000000000é0"]
        {
            assert_eq!(text.parse::<QueueId>(), Err(NotAQueueId), "{text}");
        }
    }
}
