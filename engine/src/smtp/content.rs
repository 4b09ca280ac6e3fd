//! The end of a message: the only place in the program that decides it (RFC 5321 section 4.1.1.4).
//!
//! Pure and incremental, on the ingest shard. [`Decoder`] reads what a client sends after 354, cut
//! anywhere, and yields ranges of it that are content; nothing is copied. End-of-data is exactly
//! CRLF `.` CRLF, and the CRLF before the dot may be the one that ended DATA, so `.` CRLF alone is the
//! empty message. Dot-stuffing is undone (RFC 5321 section 4.5.2). Bare CR, bare LF and everything else
//! that a receiver wants to know is noted in [`Findings`] while the octets pass once; whether it is
//! refused is the session's business. A bare CR or LF never begins or ends a line here.
//!
//! What comes by BDAT has no end and no dot-stuffing ([`Framing::Counted`], RFC 3030): `chunks` counts it
//! off, and [`Decoder::finish`] completes its last line. With [`Rules::Repair`] a bare CR or LF becomes
//! CRLF and NUL is left out (`content/repair.rs`); the end of the message is found before that, so a
//! repaired line never ends one. With [`Rules::Binary`] only the header section consists of lines.
//!
//! The cost is one `memchr2` a line and two wide passes a piece (NUL, eighth bit).

mod repair;

use memchr::{memchr, memchr2};
use std::ops::Range;

/// How the end of the content is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// DATA: by end-of-data; lines are dot-stuffed.
    Dots,
    /// BDAT: by counting; there is no stuffing.
    Counted,
}

/// What is made of octets that are not lines of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// They pass and are noted, so that the session can refuse them.
    Strict,
    /// Bare CR and bare LF become CRLF, NUL is left out; both are noted.
    Repair,
    /// The header section as with `Strict`; behind it nothing is looked at (RFC 3030 section 3). Only
    /// for [`Framing::Counted`].
    Binary,
}

/// What was seen in the content so far. All counts are of content, after dot-stuffing was undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Octets of content.
    pub octets: u64,
    /// A CR that no LF follows (RFC 5321 section 2.3.8).
    pub bare_cr: bool,
    /// An LF that no CR precedes.
    pub bare_lf: bool,
    pub nul: bool,
    /// An octet above 127, whatever BODY said.
    pub eight_bit: bool,
    /// A line of the content begins with a dot, so it must be stuffed to be sent by DATA.
    pub dot_lines: bool,
    /// A line longer than the limit that [`Decoder::new`] was given.
    pub long_line: bool,
    /// Received fields in the header section.
    pub received: u32,
    /// Octets of the header section, with the empty line that ends it; `None` while that has not come.
    pub header_octets: Option<u64>,
}

/// What [`Decoder::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// No content in what was consumed; the rest, at most one octet, decides nothing yet.
    More,
    /// Octets of the input that are content; never empty. They may end before what was consumed.
    Content(Range<usize>),
    /// Octets of content that the input does not have: half of a repaired line ending.
    Insert(&'static [u8]),
    /// End-of-data was consumed. What follows is a command.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    /// Directly after CRLF, or at the very start.
    LineStart,
    /// After CRLF and a dot, which is held back.
    AfterDot,
    /// Inside a line.
    Text,
    /// Inside a line, after a CR that already counts as content.
    AfterCr,
    /// Before a bare LF whose CR has been put in.
    BareLf,
}

/// Finds content and its end in octets that come in any pieces.
#[derive(Clone, Debug)]
pub struct Decoder {
    awaits: Awaits,
    framing: Framing,
    rules: Rules,
    /// Octets of the current line so far, without a CR that may be the end of it.
    column: usize,
    line_octets_max: usize,
    field: FieldName,
    findings: Findings,
}

impl Decoder {
    /// Reads what follows 354, by the strict rules. `line_octets_max`: octets of a line without its CRLF.
    pub fn new(line_octets_max: usize) -> Self {
        Self::with(Framing::Dots, Rules::Strict, line_octets_max)
    }

    /// # Panics
    /// With binary content that ends with a dot: no octets could be told from its end.
    pub fn with(framing: Framing, rules: Rules, line_octets_max: usize) -> Self {
        assert!(rules != Rules::Binary || framing == Framing::Counted, "binary content has no end-of-data");
        Self {
            awaits: Awaits::LineStart,
            framing,
            rules,
            column: 0,
            line_octets_max,
            field: FieldName::AtStart(0),
            findings: Findings::default(),
        }
    }

    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// Reads from the start of `input`; returns how many octets it consumed and what they were.
    ///
    /// The next call must begin with the octets that were not consumed. After [`Piece::More`] that
    /// consumed nothing it must bring at least one octet more. After [`Piece::End`] the decoder is used up.
    pub fn decode(&mut self, input: &[u8]) -> (usize, Piece) {
        let mut start = 0;
        if self.awaits == Awaits::LineStart && self.framing == Framing::Dots && input.first() == Some(&b'.') {
            self.awaits = Awaits::AfterDot;
            start = 1;
        }
        if self.awaits == Awaits::AfterDot {
            match &input[start..] {
                [] | [b'\r'] => return (start, Piece::More),
                [b'\r', b'\n', ..] => return (start + 2, Piece::End),
                // The dot was stuffing; what follows it begins the line.
                [first, ..] => {
                    self.awaits = Awaits::Text;
                    self.findings.dot_lines |= *first == b'.';
                }
            }
        }
        match self.rules {
            Rules::Strict if self.framing == Framing::Dots => self.lines::<true, false>(input, start),
            Rules::Strict => self.lines::<false, false>(input, start),
            Rules::Repair => self.repair(input, start),
            Rules::Binary if self.findings.header_octets.is_some() => self.anything(input),
            Rules::Binary => self.lines::<false, true>(input, start),
        }
    }

    /// Content that came by BDAT is complete: what is still to be added to it, so that it ends with a line
    /// ending like any that came by DATA. Call it again until there is nothing more.
    ///
    /// # Panics
    /// When the content has an end of its own.
    pub fn finish(&mut self) -> Option<&'static [u8]> {
        assert_eq!(self.framing, Framing::Counted, "end-of-data finishes what came by DATA");
        if self.rules == Rules::Binary && self.findings.header_octets.is_some() {
            return None;
        }
        let missing: &[u8] = match self.awaits {
            Awaits::LineStart => return None,
            Awaits::Text | Awaits::AfterDot if self.column == 0 => return None,
            Awaits::Text | Awaits::AfterDot => b"\r\n",
            Awaits::AfterCr => {
                self.findings.bare_cr = true;
                b"\n"
            }
            Awaits::BareLf => b"\n",
        };
        self.findings.octets += missing.len() as u64;
        self.end_line();
        Some(missing)
    }

    /// Up to what may be end-of-data, and up to the end of the header section where only that is wanted.
    /// What differs is known when this is compiled, because the loop is what content costs.
    fn lines<const DOTS: bool, const HEADER_ONLY: bool>(
        &mut self,
        input: &[u8],
        start: usize,
    ) -> (usize, Piece) {
        let mut at = start;
        while at < input.len() {
            if self.awaits == Awaits::LineStart && input[at] == b'.' {
                if DOTS {
                    break;
                }
                self.findings.dot_lines = true;
            }
            let octets = self.step(&input[at..]);
            at += octets;
            if HEADER_ONLY && self.findings.header_octets.is_some() {
                break;
            }
        }
        if start == at {
            return (at, Piece::More);
        }
        let content = &input[start..at];
        self.findings.nul = self.findings.nul || memchr(0, content).is_some();
        self.findings.eight_bit = self.findings.eight_bit || !content.is_ascii();
        (at, Piece::Content(start..at))
    }

    fn anything(&mut self, input: &[u8]) -> (usize, Piece) {
        self.findings.octets += input.len() as u64;
        let piece = if input.is_empty() { Piece::More } else { Piece::Content(0..input.len()) };
        (input.len(), piece)
    }

    /// Takes the rest of a line with its CRLF, or as much of it as is sure; returns its octets.
    #[inline(always)]
    fn step(&mut self, rest: &[u8]) -> usize {
        if self.awaits == Awaits::AfterCr {
            return self.after_cr(rest[0]);
        }
        let text_octets = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        self.text(&rest[..text_octets]);
        match &rest[text_octets..] {
            [b'\r', b'\n', ..] => {
                self.findings.octets += 2;
                self.end_line();
                text_octets + 2
            }
            [b'\r', ..] => {
                self.findings.octets += 1;
                self.awaits = Awaits::AfterCr;
                text_octets + 1
            }
            [] => text_octets,
            _ => {
                self.findings.bare_lf = true;
                self.stray();
                self.findings.octets += 1;
                text_octets + 1
            }
        }
    }

    /// Decides what the CR before `next` was; returns how many octets that took.
    fn after_cr(&mut self, next: u8) -> usize {
        if next == b'\n' {
            self.findings.octets += 1;
            self.end_line();
            return 1;
        }
        self.findings.bare_cr = true;
        self.stray();
        0
    }

    #[inline(always)]
    fn text(&mut self, text: &[u8]) {
        self.awaits = Awaits::Text;
        self.findings.octets += text.len() as u64;
        self.findings.received += u32::from(self.field.read(text));
        self.grow(text.len());
    }

    /// A bare CR or LF is an octet of its line like any other.
    fn stray(&mut self) {
        self.awaits = Awaits::Text;
        self.field.read(b"\n");
        self.grow(1);
    }

    #[inline(always)]
    fn grow(&mut self, octets: usize) {
        self.column += octets;
        self.findings.long_line |= self.column > self.line_octets_max;
    }

    #[inline(always)]
    fn end_line(&mut self) {
        if self.findings.header_octets.is_none() {
            if self.column == 0 {
                self.findings.header_octets = Some(self.findings.octets);
            }
            self.field = if self.column == 0 { FieldName::Other } else { FieldName::AtStart(0) };
        }
        self.awaits = Awaits::LineStart;
        self.column = 0;
    }
}

/// Looks for the field name `Received` at the start of a header line, whatever pieces it comes in.
#[derive(Clone, Copy, Debug)]
enum FieldName {
    /// So many octets of it have been seen.
    AtStart(u8),
    /// Not this field, or known already, or not in the header section.
    Other,
}

impl FieldName {
    const RECEIVED: &[u8] = b"received:";

    /// `true` at the octet that completes the name.
    fn read(&mut self, text: &[u8]) -> bool {
        let Self::AtStart(seen) = *self else { return false };
        let wanted = &Self::RECEIVED[usize::from(seen)..];
        let octets = wanted.len().min(text.len());
        if !text[..octets].eq_ignore_ascii_case(&wanted[..octets]) {
            *self = Self::Other;
            return false;
        }
        let complete = octets == wanted.len();
        *self = if complete { Self::Other } else { Self::AtStart(seen + octets as u8) };
        complete
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod twin;

#[cfg(test)]
mod tests;
