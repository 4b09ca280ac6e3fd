//! xtext (RFC 3461 section 4): printable ASCII but `+` and `=`, and everything else as `+` with two
//! hexadecimal digits in upper case.

/// The octets behind an xtext; `None` when it is none.
pub fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        octets.push(match byte {
            b'+' => (digit(rest.next()?)? << 4) | digit(rest.next()?)?,
            b'=' => return None,
            b'!'..=b'~' => byte,
            _ => return None,
        });
    }
    Some(octets)
}

/// Appends a text as xtext.
pub fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'+' | b'=' => push_hex(byte, out),
            b'!'..=b'~' => out.push(byte as char),
            _ => push_hex(byte, out),
        }
    }
}

/// Whether it is an xtext of nothing but printable ASCII and spaces.
pub fn is_printable(text: &str) -> bool {
    decoded(text).is_some_and(|octets| octets.iter().all(|octet| (b' '..=b'~').contains(octet)))
}

fn push_hex(byte: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('+');
    out.push(DIGITS[usize::from(byte >> 4)] as char);
    out.push(DIGITS[usize::from(byte & 15)] as char);
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_xtext_is_decoded_and_every_text_survives() {
        for (text, expected) in [
            ("", Some(&b""[..])),
            ("abc<>@", Some(b"abc<>@")),
            ("a+2Bb+3Dc", Some(b"a+b=c")),
            ("+00+FF", Some(b"\0\xff")),
            ("+", None),
            ("+2", None),
            ("+2b", None),
            ("a=b", None),
            ("a b", None),
            ("ü", None),
            ("a\u{7f}", None),
        ] {
            assert_eq!(decoded(text).as_deref(), expected, "{text}");
        }
        for text in ["", "a+b=c d", "ü\r\n\0", "\u{7f}~!"] {
            let mut out = String::new();
            encode(text, &mut out);
            assert_eq!(decoded(&out).unwrap(), text.as_bytes(), "{out}");
        }
        assert!(is_printable("QQ+20x") && !is_printable("a+0Ab") && !is_printable("a+FFb"));
    }
}
