//! Chunks: content that BDAT counts off (RFC 3030 section 2).
//!
//! Pure. [`Chunk`] is what a command announced and how much of it is still to come; [`Chunk::decode`]
//! gives a decoder no octet beyond it. A size has 1 to 20 digits; one that does not fit is the largest
//! number, which every limit refuses.

use super::content::{Decoder, Piece};

/// Digits of a chunk's size: those of the largest number that SIZE may have (RFC 1870 section 4).
pub const SIZE_DIGITS_MAX: usize = 20;

/// A chunk, or what is left of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Octets still to come.
    pub octets: u64,
    /// It is the last one of its message.
    pub last: bool,
}

/// Why the argument of BDAT is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkFault {
    /// No size, so nobody can tell where the next command begins.
    Size,
    /// A size, and behind it something else than `LAST`. So many octets follow that are no commands.
    Marker(u64),
}

impl Chunk {
    /// `chunk-size [SP "LAST"]`, without white space around it. The marker is taken in any case.
    ///
    /// # Errors
    /// See [`ChunkFault`].
    pub fn parse(argument: &[u8]) -> Result<Self, ChunkFault> {
        let digits = argument.iter().take_while(|octet| octet.is_ascii_digit()).count();
        let (size, rest) = argument.split_at(digits);
        let is_size = (1..=SIZE_DIGITS_MAX).contains(&digits) && matches!(rest, [] | [b' ', ..]);
        if !is_size {
            return Err(ChunkFault::Size);
        }
        let octets = size
            .iter()
            .fold(0u64, |number, digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
        match rest.trim_ascii() {
            b"" => Ok(Self { octets, last: false }),
            word if word.eq_ignore_ascii_case(b"LAST") => Ok(Self { octets, last: true }),
            _ => Err(ChunkFault::Marker(octets)),
        }
    }

    /// Reads from the start of `input` what belongs to the chunk, as [`Decoder::decode`] does.
    pub fn decode(&mut self, decoder: &mut Decoder, input: &[u8]) -> (usize, Piece) {
        let within = self.within(input);
        let (octets, piece) = decoder.decode(&input[..within]);
        self.octets -= octets as u64;
        (octets, piece)
    }

    /// Passes over what belongs to the chunk; returns how many octets that were.
    pub fn skip(&mut self, input: &[u8]) -> usize {
        let within = self.within(input);
        self.octets -= within as u64;
        within
    }

    fn within(&self, input: &[u8]) -> usize {
        usize::try_from(self.octets).unwrap_or(usize::MAX).min(input.len())
    }
}

#[cfg(test)]
mod tests;
