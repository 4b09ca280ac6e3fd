//! Octets beyond ASCII as ASCII: quoted-printable (RFC 2045 section 6.7) for parts of a DSN, encoded words (RFC 2047)
//! for its subject and its author's name. So a DSN passes hosts without 8BITMIME and SMTPUTF8.
//!
//! Pure.

use base64ct::{Base64, Encoding};

/// Octets of a line (RFC 2045 section 6.7).
const LINE_BYTES_MAX: usize = 76;
/// Octets of text in one encoded word, which has at most 75.
const WORD_BYTES_MAX: usize = 45;

/// Lines ended by CRLF stay lines.
pub(super) fn quoted_printable(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() + octets.len() / 8);
    let mut column = 0;
    let mut at = 0;
    while let Some(&octet) = octets.get(at) {
        if octets[at..].starts_with(b"\r\n") {
            out.extend_from_slice(b"\r\n");
            (at, column) = (at + 2, 0);
            continue;
        }
        let ends_line = octets[at + 1..].starts_with(b"\r\n") || at + 1 == octets.len();
        let plain =
            matches!(octet, b'!'..=b'<' | b'>'..=b'~') || (matches!(octet, b' ' | b'\t') && !ends_line);
        let needed = if plain { 1 } else { 3 };
        if column + needed > LINE_BYTES_MAX - 1 {
            out.extend_from_slice(b"=\r\n");
            column = 0;
        }
        match plain {
            true => out.push(octet),
            false => out.extend_from_slice(format!("={octet:02X}").as_bytes()),
        }
        column += needed;
        at += 1;
    }
    out
}

/// A text for an unstructured field; ASCII stays as it is.
pub(super) fn words(text: &str) -> String {
    if text.is_ascii() {
        return text.to_owned();
    }
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (word, behind) = rest.split_at(rest.floor_char_boundary(WORD_BYTES_MAX));
        words.push(format!("=?utf-8?B?{}?=", Base64::encode_string(word.as_bytes())));
        rest = behind;
    }
    words.join(" ")
}

/// A display name (RFC 5322 section 3.4).
pub(super) fn display_name(text: &str) -> String {
    let is_phrase = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~ ".contains(c);
    match text {
        _ if !text.is_ascii() => words(text),
        _ if text.chars().all(is_phrase) => text.to_owned(),
        _ => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_words_become_ascii() {
        for (octets, expected) in [
            (&b"plain text\r\n"[..], &b"plain text\r\n"[..]),
            ("Gr\u{fc}\u{df}e = x \r\n\r\ny\t".as_bytes(), b"Gr=C3=BC=C3=9Fe =3D x=20\r\n\r\ny=09"),
            (b"\0\r\n.\r\n", b"=00\r\n.\r\n"),
        ] {
            assert_eq!(quoted_printable(octets), expected, "{}", octets.escape_ascii());
        }
        let long = quoted_printable(&"\u{fc}".repeat(500).into_bytes());
        assert!(long.split(|&octet| octet == b'\n').all(|line| line.len() <= 77));
        assert_eq!(words("plain"), "plain");
        let subject = words(&"Ihre Nachricht verz\u{f6}gert sich ".repeat(4));
        assert!(
            subject.split(' ').all(|word| word.len() <= 75 && word.starts_with("=?utf-8?B?")),
            "{subject}"
        );
        assert_eq!(display_name("Mail Delivery System"), "Mail Delivery System");
        assert_eq!(display_name("A <b> \"c\\"), "\"A <b> \\\"c\\\\\"");
        assert!(display_name("Z\u{fc}rich").starts_with("=?utf-8?B?"));
    }
}
