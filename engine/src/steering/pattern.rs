//! Patterns for addresses, domains and next hops: text in which `*` stands for any characters.
//!
//! Pure. Capitals do not matter, neither in domains (RFC 5321 section 2.4) nor, because an administrator
//! who looks for somebody means him however he was written, in local parts.

use std::fmt;
use std::str::FromStr;

/// Octets of a pattern. Prevents one that takes long for each of a million addresses.
const PATTERN_BYTES_MAX: usize = 512;
/// Stars in a pattern, for the same reason.
const STARS_MAX: usize = 8;

/// A pattern, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    has_star: bool,
}

impl Pattern {
    pub fn matches(&self, text: &str) -> bool {
        match self.has_star {
            false => self.text.eq_ignore_ascii_case(text),
            true => matches_stars(self.text.as_bytes(), text.as_bytes()),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Pattern {
    type Err = String;

    /// Angle brackets about it are taken off, so `<>` is the null reverse-path.
    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
        if text.is_empty() {
            return Err("an empty pattern; the null reverse-path is written <>".into());
        }
        let bare = bare.unwrap_or(text);
        if bare.len() > PATTERN_BYTES_MAX {
            return Err(format!("a pattern of {} octets; allowed: {PATTERN_BYTES_MAX}", bare.len()));
        }
        let stars = bare.bytes().filter(|&octet| octet == b'*').count();
        if stars > STARS_MAX {
            return Err(format!("a pattern with {stars} stars; allowed: {STARS_MAX}"));
        }
        Ok(Self { text: bare.into(), has_star: stars > 0 })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.text {
            "" => f.write_str("<>"),
            text => f.write_str(text),
        }
    }
}

/// Goes back to the last star only: what an earlier one took stays right whatever follows.
fn matches_stars(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(octet) if octet.eq_ignore_ascii_case(&text[t]) => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                None => return false,
                Some((at, taken)) => {
                    *taken += 1;
                    p = *at + 1;
                    t = *taken;
                }
            },
        }
    }
    pattern[p..].iter().all(|&octet| octet == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), None) => naive(rest, text),
            (Some((b'*', rest)), Some((_, after))) => naive(rest, text) || naive(pattern, after),
            (Some((p, rest)), Some((t, after))) => p.eq_ignore_ascii_case(t) && naive(rest, after),
            _ => false,
        }
    }

    #[test]
    fn a_star_stands_for_any_characters_and_capitals_do_not_matter() {
        let table = [
            ("a@b.test", "a@b.test", true),
            ("A@b.Test", "a@B.tesT", true),
            ("a@b.test", "xa@b.test", false),
            ("*@b.test", "anybody@B.TEST", true),
            ("*@b.test", "@b.test", true),
            ("*@b.test", "a@xb.test", false),
            ("*.test", "b.test", true),
            ("*.test", "test", false),
            ("<>", "", true),
            ("<>", "a@b.test", false),
            ("<a@b.test>", "a@b.test", true),
            ("*", "", true),
            ("*", "anything", true),
            ("a*b*c", "aXXbYYbZZc", true),
            ("a*b*c", "aXXbYYbZZ", false),
            ("**a", "bba", true),
        ];
        for (pattern, text, expected) in table {
            let read: Pattern = pattern.parse().unwrap();
            assert_eq!(read.matches(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn the_matcher_agrees_with_its_naive_twin() {
        let letters = [b'a', b'b', b'*'];
        for number in 0..3usize.pow(5) {
            let pattern: Vec<u8> = (0..5).map(|place| letters[number / 3usize.pow(place) % 3]).collect();
            for len in 0..6u32 {
                for text in 0..2usize.pow(len) {
                    let text: Vec<u8> = (0..len).map(|place| letters[text >> place & 1]).collect();
                    assert_eq!(
                        matches_stars(&pattern, &text),
                        naive(&pattern, &text),
                        "{:?} on {:?}",
                        String::from_utf8_lossy(&pattern),
                        String::from_utf8_lossy(&text)
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in [String::new(), "a".repeat(513), "*a".repeat(9)] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
        assert_eq!("<>".parse::<Pattern>().unwrap().to_string(), "<>");
    }
}
