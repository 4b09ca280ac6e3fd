//! The messages of the generator, and the check by which the sink knows them again.
//!
//! Pure: no clock, no I/O, no randomness. The same recipe and number always give the same octets.
//!
//! A message is a header section, an empty line and a body of text lines. One header field carries the check,
//! `X-Sluice-Check: RUN-NUMBER-CRC-LENGTH`: the run (hexadecimal), the message's number in the run, and the
//! CRC-32C (8 hexadecimal digits) and the octets of the body *as composed*, before dot-stuffing. A relay may add
//! header fields; a body that differs in one octet, or in its length, does not verify.
//!
//! Invariants: every line is at most 78 characters (RFC 5322 2.1.1) and ends in CRLF; the content has exactly
//! `size` octets, or the smallest possible number above it.

use std::fmt::Write as _;

/// Name of the header field that carries the check, with the colon.
pub const CHECK_FIELD: &str = "X-Sluice-Check:";

/// Different bodies in one run, so that a mix-up of two messages shows.
const FILLS: usize = 8;
/// Longest text of a line, without CRLF.
const LINE_CHARS_MAX: usize = 76;
/// Octets of the part of a body that belongs to one message alone.
const OWN_OCTETS_MIN: usize = 24;
/// For the reserve of the header section: numbers are not expected above it. Larger ones only make the message
/// larger.
const NUMBER_MAX: u64 = 9_999_999_999;

/// What all messages of a run have in common.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Tells the messages of one run from those of another.
    pub run: u32,
    /// Reverse-path; see [`expand`].
    pub from: String,
    /// Forward-path; see [`expand`].
    pub to: String,
    /// Recipients of each message, at least 1.
    pub recipients: usize,
    /// Octets of the content, header section included, dots not yet doubled.
    pub size: usize,
    /// Some lines begin with a dot, some are nothing but dots.
    pub dots: bool,
    /// The Date field's value (RFC 5322 3.3), the same for all.
    pub date: String,
}

/// Replaces `%n` by the message's number, `%s` by the session's and `%r` by the recipient's.
pub fn expand(template: &str, number: u64, session: usize, recipient: usize, out: &mut String) {
    let mut rest = template;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let (value, skip) = match rest.as_bytes().get(at + 1) {
            Some(b'n') => (number, 2),
            Some(b's') => (session as u64, 2),
            Some(b'r') => (recipient as u64, 2),
            _ => {
                out.push('%');
                rest = &rest[at + 1..];
                continue;
            }
        };
        // Writing to a String cannot fail.
        let _ = write!(out, "{value}");
        rest = &rest[at + skip..];
    }
    out.push_str(rest);
}

/// Makes the messages of one run.
pub struct Composer {
    recipe: Recipe,
    fills: Vec<Fill>,
    size: usize,
}

/// The part of a body that many messages share, prepared once.
struct Fill {
    plain: Vec<u8>,
    /// Dot-stuffed (RFC 5321 4.5.2), with the final dot.
    wire: Vec<u8>,
}

impl Composer {
    pub fn new(recipe: Recipe) -> Self {
        let mut head = String::new();
        write_head(&recipe, NUMBER_MAX, 999_999, 0, 999_999_999, &mut head);
        let fill_octets = recipe.size.saturating_sub(head.len() + OWN_OCTETS_MIN);
        // A body of one octet cannot be: the shortest line is CRLF.
        let fill_octets = if fill_octets == 1 { 0 } else { fill_octets };
        let fills = (0..FILLS as u64)
            .map(|seed| {
                let mut plain = Vec::with_capacity(fill_octets);
                write_lines(fill_octets, seed, recipe.dots, &mut plain);
                let mut wire = Vec::with_capacity(fill_octets + fill_octets / 32 + 3);
                stuff_dots(&plain, &mut wire);
                wire.extend_from_slice(b".\r\n");
                Fill { plain, wire }
            })
            .collect();
        let size = recipe.size;
        Composer { recipe, fills, size }
    }

    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Replaces `out` by message `number` as it goes over the wire after the 354: dots doubled, final dot at the
    /// end. Returns the octets of the content itself.
    pub fn compose(&self, number: u64, session: usize, out: &mut Vec<u8>) -> usize {
        let fill = &self.fills[(number % FILLS as u64) as usize];
        let mut head = String::with_capacity(512);
        write_head(&self.recipe, number, session, 0, fill.plain.len() + OWN_OCTETS_MIN, &mut head);
        // The check's digits are of fixed width up to here, so the head's length is already the final one.
        let own_octets = self.size.saturating_sub(head.len() + fill.plain.len()).max(OWN_OCTETS_MIN);
        let mut own = Vec::with_capacity(own_octets);
        write_lines(own_octets, number, false, &mut own);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&own), &fill.plain);
        head.clear();
        write_head(&self.recipe, number, session, crc, own_octets + fill.plain.len(), &mut head);
        out.clear();
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&own);
        out.extend_from_slice(&fill.wire);
        head.len() + own_octets + fill.plain.len()
    }
}

fn write_head(recipe: &Recipe, number: u64, session: usize, crc: u32, body_octets: usize, out: &mut String) {
    out.push_str("From: <");
    expand(&recipe.from, number, session, 0, out);
    out.push_str(">\r\nTo: <");
    expand(&recipe.to, number, session, 0, out);
    let run = recipe.run;
    let _ = write!(
        out,
        ">\r\nSubject: Message {number} of run {run:08x}\r\n\
         Date: {date}\r\n\
         Message-ID: <{number}.{run:08x}@sluice-bench.invalid>\r\n\
         {CHECK_FIELD} {check}\r\n\r\n",
        date = recipe.date,
        check = Check { run, number, crc, body_octets: body_octets as u64 },
    );
}

/// Appends exactly `octets` octets (not 1) of text lines.
fn write_lines(octets: usize, seed: u64, dots: bool, out: &mut Vec<u8>) {
    const LETTERS: &[u8; 32] = b"etaoin shrdlu cmfwyp vbgkqj xz e";
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    let mut left = octets;
    while left >= 2 {
        state = next_state(state);
        let chars = match left {
            0..=78 => left - 2,
            _ => 40 + (state >> 33) as usize % (LINE_CHARS_MAX - 40 + 1),
        };
        let start = out.len();
        let mut bits = state;
        for at in 0..chars {
            if at % 12 == 0 {
                bits = next_state(bits);
            }
            out.push(LETTERS[(bits >> (at % 12 * 5)) as usize & 31]);
        }
        state = bits;
        if dots && chars > 0 {
            match state >> 40 & 7 {
                0 => out[start] = b'.',
                1 => out[start..start + chars.min(2)].fill(b'.'),
                2 if left > 160 => {
                    // A line that is nothing but one dot: what an end-of-data looks like before stuffing.
                    out.truncate(start + 1);
                    out[start] = b'.';
                }
                _ => {}
            }
        }
        left -= out.len() - start + 2;
        out.extend_from_slice(b"\r\n");
    }
    debug_assert_eq!(left, 0);
}

/// One step of xorshift64; `state` is not 0.
pub fn next_state(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^ state << 17
}

/// Doubles the dot at the start of every line (RFC 5321 4.5.2).
pub fn stuff_dots(plain: &[u8], out: &mut Vec<u8>) {
    for line in plain.split_inclusive(|octet| *octet == b'\n') {
        if line[0] == b'.' {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
}

/// What the check field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    pub run: u32,
    pub number: u64,
    /// CRC-32C of the body.
    pub crc: u32,
    pub body_octets: u64,
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}-{}-{:08x}-{:09}", self.run, self.number, self.crc, self.body_octets)
    }
}

impl Check {
    /// Reads the check out of a header section; `None` if there is none or it is not well-formed.
    pub fn find(head: &[u8]) -> Option<Check> {
        let field = head.split(|octet| *octet == b'\n').find(|line| {
            line.get(..CHECK_FIELD.len()).is_some_and(|n| n.eq_ignore_ascii_case(CHECK_FIELD.as_bytes()))
        })?;
        let text = std::str::from_utf8(&field[CHECK_FIELD.len()..]).ok()?.trim();
        let mut parts = text.split('-');
        let check = Check {
            run: u32::from_str_radix(parts.next()?, 16).ok()?,
            number: parts.next()?.parse().ok()?,
            crc: u32::from_str_radix(parts.next()?, 16).ok()?,
            body_octets: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(size: usize, dots: bool) -> Recipe {
        Recipe {
            run: 0xbeef,
            from: "from@a.example".into(),
            to: "to%r-%n@b.example".into(),
            recipients: 1,
            size,
            dots,
            date: "Sun, 22 Nov 2026 00:00:00 +0000".into(),
        }
    }

    fn unstuffed(wire: &[u8]) -> Vec<u8> {
        let lines: Vec<_> = wire.split_inclusive(|o| *o == b'\n').collect();
        let (last, lines) = lines.split_last().unwrap();
        assert_eq!(last, b".\r\n");
        lines.iter().flat_map(|l| l.strip_prefix(b".").unwrap_or(l).to_vec()).collect()
    }

    #[test]
    fn content_has_the_size_asked_for_and_its_check_verifies() {
        for size in [1, 400, 500, 501, 1024, 4096, 65536] {
            for dots in [false, true] {
                let composer = Composer::new(recipe(size, dots));
                for number in [0, 7, 99, 123_456] {
                    let mut wire = Vec::new();
                    let octets = composer.compose(number, 3, &mut wire);
                    let content = unstuffed(&wire);
                    assert_eq!(content.len(), octets, "size {size}");
                    assert!(size < 400 || octets == size, "size {size} became {octets}");
                    let split = content.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
                    let check = Check::find(&content[..split]).unwrap();
                    let body = &content[split..];
                    assert_eq!((check.run, check.number), (0xbeef, number));
                    assert_eq!((check.body_octets, check.crc), (body.len() as u64, crc32c::crc32c(body)));
                }
            }
        }
    }

    #[test]
    fn lines_are_short_end_in_crlf_and_begin_with_dots_only_when_asked() {
        for dots in [false, true] {
            let mut wire = Vec::new();
            Composer::new(recipe(65536, dots)).compose(1, 0, &mut wire);
            let content = unstuffed(&wire);
            let lines: Vec<_> = content.split_inclusive(|o| *o == b'\n').collect();
            assert!(lines.iter().all(|l| l.ends_with(b"\r\n") && l.len() <= 80));
            assert_eq!(content.iter().filter(|o| **o == b'\r').count(), lines.len());
            assert_eq!(lines.iter().any(|l| l[0] == b'.'), dots);
            assert_eq!(lines.contains(&&b".\r\n"[..]), dots);
        }
    }

    #[test]
    fn same_number_gives_same_octets_and_another_number_others() {
        let composer = Composer::new(recipe(2048, true));
        let of = |number| {
            let mut wire = Vec::new();
            composer.compose(number, 0, &mut wire);
            wire
        };
        assert_eq!(of(5), of(5));
        assert_ne!(of(5), of(5 + FILLS as u64));
    }

    #[test]
    fn templates_expand_numbers_and_keep_other_percents() {
        let mut out = String::new();
        expand("a%n.%s.%r%x%", 1, 2, 3, &mut out);
        assert_eq!(out, "a1.2.3%x%");
    }

    #[test]
    fn malformed_checks_are_none() {
        for text in
            ["", "X-Sluice-Check: 1-2-3\r\n", "X-Sluice-Check: g-2-3-4\r\n", "X-Sluice-Check: 1-2-3-4-5\r\n"]
        {
            assert_eq!(Check::find(text.as_bytes()), None, "{text}");
        }
        let found = Check::find(b"A: b\r\nx-sluice-check: 1-2-a-4\r\n\r\n");
        assert_eq!(found, Some(Check { run: 1, number: 2, crc: 10, body_octets: 4 }));
    }
}
