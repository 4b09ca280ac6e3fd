//! Content whose line endings are repaired while it passes.
//!
//! Pure; a part of [`Decoder`]. A bare LF gets a CR in front, a bare CR an LF behind it, NUL is left out;
//! everything else is a range of the input, so nothing is copied where nothing is repaired. A bare CR is
//! one that no LF follows in the input: `CR NUL LF` is two line endings.
//!
//! Only a CRLF of the client's own begins a line that can be end-of-data: a repaired line ending, and a
//! NUL that was left out, lead to [`Awaits::Text`] in column 0. A dot there is content, and noted
//! ([`Findings::dot_lines`]), so that it is stuffed when the message is sent on.

#[cfg(doc)]
use super::Findings;
use super::{Awaits, Decoder, Framing, Piece};
use memchr::memchr3;

impl Decoder {
    pub(super) fn repair(&mut self, input: &[u8], mut start: usize) -> (usize, Piece) {
        let mut at = start;
        while at < input.len() {
            let next = input[at];
            match self.awaits {
                Awaits::AfterCr if next != b'\n' => {
                    if start < at {
                        return self.content(input, start, at, at);
                    }
                    self.findings.bare_cr = true;
                    return (at, self.insert(b"\n", Awaits::Text));
                }
                Awaits::AfterCr => {
                    at += 1;
                    self.findings.octets += 1;
                    self.end_line();
                    continue;
                }
                Awaits::BareLf => {
                    at += 1;
                    self.findings.octets += 1;
                    self.end_line();
                    self.awaits = Awaits::Text;
                    continue;
                }
                Awaits::LineStart if next == b'.' && self.framing == Framing::Dots => break,
                Awaits::LineStart | Awaits::AfterDot | Awaits::Text => {}
            }
            match next {
                b'\r' => {
                    at += 1;
                    self.findings.octets += 1;
                    self.awaits = Awaits::AfterCr;
                }
                b'\n' => {
                    if start < at {
                        return self.content(input, start, at, at);
                    }
                    self.findings.bare_lf = true;
                    return (at, self.insert(b"\r", Awaits::BareLf));
                }
                0 => {
                    self.findings.nul = true;
                    self.awaits = Awaits::Text;
                    if start < at {
                        return self.content(input, start, at, at + 1);
                    }
                    at += 1;
                    start = at;
                }
                _ => {
                    let rest = &input[at..];
                    let octets = memchr3(b'\r', b'\n', 0, rest).unwrap_or(rest.len());
                    self.findings.dot_lines |= self.column == 0 && next == b'.';
                    self.text(&rest[..octets]);
                    at += octets;
                }
            }
        }
        if start < at { self.content(input, start, at, at) } else { (at, Piece::More) }
    }

    fn content(&mut self, input: &[u8], start: usize, end: usize, consumed: usize) -> (usize, Piece) {
        self.findings.eight_bit = self.findings.eight_bit || !input[start..end].is_ascii();
        (consumed, Piece::Content(start..end))
    }

    /// An LF put in ends the line; behind a CR put in, the LF is still to come.
    fn insert(&mut self, octet: &'static [u8], then: Awaits) -> Piece {
        self.findings.octets += 1;
        if then == Awaits::Text {
            self.end_line();
        }
        self.awaits = then;
        Piece::Insert(octet)
    }
}
