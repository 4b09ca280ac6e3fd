//! Message contents: made for a test, and compared octet by octet with what arrived.

/// A small message with a header; the body's lines end with CRLF.
pub fn message(subject: &str, body: &str) -> Vec<u8> {
    let mut content = format!(
        "From: Alice <alice@client.test>\r\nTo: Bob <bob@inside.test>\r\nSubject: {subject}\r\n\
         Date: Sun, 22 Nov 2026 00:00:00 +0000\r\nMessage-ID: <{subject}@client.test>\r\n\r\n"
    );
    content.push_str(body);
    content.into_bytes()
}

/// A message of exactly `size` octets that names its number and can be checked alone: the filling is a
/// function of the number and the place.
///
/// # Panics
/// When `size` is too small for the header.
pub fn numbered(number: usize, size: usize) -> Vec<u8> {
    let mut content = message(&format!("numbered-{number}"), "");
    assert!(content.len() + 2 <= size, "{size} octets hold no header");
    let mut state = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while content.len() + 2 < size {
        let column = (size - content.len() - 2).min(76);
        for _ in 0..column {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            content.push(b'!' + ((state >> 40) % 90) as u8);
        }
        if content.len() + 4 <= size {
            content.extend_from_slice(b"\r\n");
        } else {
            content.resize(size - 2, b'=');
        }
    }
    content.extend_from_slice(b"\r\n");
    debug_assert_eq!(content.len(), size);
    content
}

/// The number that [`numbered`] put in, when the rest is as it was made.
///
/// # Errors
/// What is wrong with the message.
pub fn number_of(content: &[u8]) -> Result<usize, String> {
    let header = String::from_utf8_lossy(&content[..content.len().min(400)]);
    let number = header
        .split_once("Subject: numbered-")
        .and_then(|(_, rest)| rest.split("\r\n").next()?.parse().ok())
        .ok_or_else(|| format!("no number in {header:?}"))?;
    match first_difference(content, &numbered(number, content.len())) {
        None => Ok(number),
        Some(difference) => Err(format!("message {number} differs: {difference}")),
    }
}

/// The content as it travels after 354: dot-stuffed (RFC 5321 section 4.5.2) and with its end.
///
/// # Panics
/// When a content that is not empty does not end with CRLF.
pub fn dot_stuffed(content: &[u8]) -> Vec<u8> {
    assert!(content.is_empty() || content.ends_with(b"\r\n"), "content ends with CRLF");
    let mut wire = Vec::with_capacity(content.len() + content.len() / 64 + 8);
    for line in content.split_inclusive(|&byte| byte == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

/// What arrived without the one Received field that the relay put in front (RFC 5321 section 4.4).
///
/// # Panics
/// When there is no such field.
#[track_caller]
pub fn without_received(content: &[u8]) -> &[u8] {
    let (field, rest) = split_field(content);
    assert!(field.starts_with(b"Received: "), "no Received field first: {}", field.escape_ascii());
    rest
}

/// The first header field with its continuation lines, and the rest.
pub fn split_field(content: &[u8]) -> (&[u8], &[u8]) {
    let mut end = 0;
    loop {
        let Some(line) = content[end..].windows(2).position(|pair| pair == b"\r\n") else {
            return (content, &[]);
        };
        end += line + 2;
        if !matches!(content.get(end), Some(b' ' | b'\t')) {
            return content.split_at(end);
        }
    }
}

/// Where two contents differ, for people; `None` when they are equal.
pub fn first_difference(got: &[u8], expected: &[u8]) -> Option<String> {
    if got == expected {
        return None;
    }
    let at = got.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(got.len().min(expected.len()));
    let around = |bytes: &[u8]| {
        bytes[at.saturating_sub(30).min(bytes.len())..(at + 30).min(bytes.len())].escape_ascii().to_string()
    };
    Some(format!(
        "{} octets got, {} expected, first difference at {at}: got …{}… expected …{}…",
        got.len(),
        expected.len(),
        around(got),
        around(expected)
    ))
}

/// # Panics
/// When the contents differ; shows where.
#[track_caller]
pub fn assert_same(got: &[u8], expected: &[u8]) {
    if let Some(difference) = first_difference(got, expected) {
        panic!("{difference}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numbered_message_has_its_size_and_proves_itself() {
        for size in (230..700).chain([4096, 65_536]) {
            for number in [0, 7, 99_999] {
                let content = numbered(number, size);
                assert_eq!(content.len(), size);
                assert_eq!(number_of(&content), Ok(number));
                assert!(content.split(|&b| b == b'\n').all(|line| line.len() <= 999));
                let mut spoilt = content;
                spoilt[size - 3] ^= 1;
                assert!(number_of(&spoilt).is_err());
            }
        }
    }

    #[test]
    fn dots_are_stuffed_at_line_starts_only() {
        assert_eq!(dot_stuffed(b".\r\n..a\r\nb.\r\n"), b"..\r\n...a\r\nb.\r\n.\r\n");
        assert_eq!(dot_stuffed(b""), b".\r\n");
    }

    #[test]
    fn a_folded_received_field_is_taken_off_whole() {
        assert_eq!(
            without_received(b"Received: from a\r\n\tby b;\r\n c\r\nSubject: x\r\n"),
            b"Subject: x\r\n"
        );
    }
}
