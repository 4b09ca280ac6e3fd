//! Content made ready for DATA on the sending side (RFC 5321 section 4.5.2).
//!
//! Pure, on the delivery shard. The [`Stuffer`] names ranges of the content that are to be written one
//! after the other; a dot that begins a line is doubled by ranges that overlap by it, so nothing is
//! copied. A dot is doubled after every LF, not only after CRLF: content in the spool holds no bare LF,
//! and should some ever come here all the same, it cannot end the message at a lenient next hop.
//!
//! A content without lines that begin with a dot (`Findings::dot_lines`) needs no pass at all.

use memchr::memmem;
use std::ops::Range;

/// Stuffs one message, whose content may come in several pieces.
#[derive(Clone, Debug)]
pub struct Stuffer {
    at_line_start: bool,
    after_cr: bool,
}

impl Default for Stuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Stuffer {
    pub fn new() -> Self {
        Self { at_line_start: true, after_cr: false }
    }

    /// The ranges of this piece to write, in order; all of them must be taken.
    pub fn stuff<'a>(&mut self, content: &'a [u8]) -> impl Iterator<Item = Range<usize>> + 'a {
        // A dot at the very start of a line is doubled by a range that holds only it.
        let first_dot = (self.at_line_start && content.first() == Some(&b'.')).then_some(0..1);
        if let Some(&last) = content.last() {
            self.at_line_start = last == b'\n';
            self.after_cr = last == b'\r';
        }
        let mut start = 0;
        let dots = memmem::find_iter(content, b"\n.").map(|at| at + 2).chain([content.len()]);
        let pieces = dots.map(move |end| {
            let piece = start..end;
            start = end.saturating_sub(1);
            piece
        });
        first_dot.into_iter().chain(pieces.filter(|piece| !piece.is_empty()))
    }

    /// What ends the message: a CRLF where the content has none at its end, then `.` CRLF.
    pub fn finish(&self) -> &'static [u8] {
        match (self.at_line_start, self.after_cr) {
            (true, _) => b".\r\n",
            (false, true) => b"\n.\r\n",
            (false, false) => b"\r\n.\r\n",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::content::{Decoder, Piece};

    fn stuffed(content: &[u8], cut: usize) -> Vec<u8> {
        let mut stuffer = Stuffer::new();
        let mut out = Vec::new();
        for piece in [&content[..cut], &content[cut..]] {
            stuffer.stuff(piece).for_each(|range| out.extend_from_slice(&piece[range]));
        }
        out.extend_from_slice(stuffer.finish());
        out
    }

    #[test]
    fn dots_at_line_starts_are_doubled_and_the_end_is_added() {
        for (content, expected) in [
            (&b""[..], &b".\r\n"[..]),
            (b"x", b"x\r\n.\r\n"),
            (b"x\r", b"x\r\n.\r\n"),
            (b"x\r\n", b"x\r\n.\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"..\r\n.\r\n", b"...\r\n..\r\n.\r\n"),
            (b"a.b\r\n.c\r\n", b"a.b\r\n..c\r\n.\r\n"),
            (b"a\n.\r\n", b"a\n..\r\n.\r\n"),
            (b"\r\n", b"\r\n.\r\n"),
        ] {
            for cut in 0..=content.len() {
                assert_eq!(stuffed(content, cut), expected, "{} cut at {cut}", content.escape_ascii());
            }
        }
    }

    #[test]
    fn what_was_stuffed_comes_out_of_the_decoder_as_it_was() {
        let alphabet = [&b"\r\n"[..], b".", b"x", b"\0"];
        for number in 0..alphabet.len().pow(6) {
            let mut content: Vec<u8> =
                (0..6).flat_map(|place| alphabet[number / 4usize.pow(place) % 4]).copied().collect();
            content.extend_from_slice(b"\r\n");
            let stream = stuffed(&content, number % content.len());
            let mut decoder = Decoder::new(998);
            let (mut at, mut decoded) = (0, Vec::new());
            loop {
                let (consumed, piece) = decoder.decode(&stream[at..]);
                match piece {
                    Piece::Content(range) => decoded.extend_from_slice(&stream[at..][range]),
                    Piece::End => break assert_eq!(at + consumed, stream.len()),
                    Piece::More | Piece::Insert(_) => {}
                }
                at += consumed;
            }
            assert_eq!(decoded, content);
        }
    }
}
