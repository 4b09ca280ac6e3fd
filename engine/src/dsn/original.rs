//! What a DSN takes from the header section of the original.
//!
//! Pure. The octets come from whoever sent the original: nothing is assumed about them.

use super::HEADER_BYTES_MAX;

/// Octets of a returned line without CRLF (RFC 5322 section 2.1.1).
const LINE_BYTES_MAX: usize = 998;

/// Octets of a message id that is referred to.
const MESSAGE_ID_BYTES_MAX: usize = 250;

/// The header section up to the empty line, cut at a line end within [`HEADER_BYTES_MAX`]. Lines that
/// are too long are folded; NUL, bare CR and bare LF become `?`; 8-bit octets stay.
pub(crate) fn returned(header: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(header.len().min(HEADER_BYTES_MAX));
    for line in lines(header) {
        let pieces = line.len().div_ceil(LINE_BYTES_MAX - 1);
        if octets.len() + line.len() + 3 * pieces > HEADER_BYTES_MAX {
            break;
        }
        for (number, piece) in line.chunks(LINE_BYTES_MAX - 1).enumerate() {
            if number > 0 {
                octets.extend_from_slice(b"\r\n ");
            }
            octets.extend(
                piece.iter().map(|&octet| if matches!(octet, 0 | b'\r' | b'\n') { b'?' } else { octet }),
            );
        }
        octets.extend_from_slice(b"\r\n");
    }
    octets
}

/// Whether the whole message can be put into a DSN as it is: lines that are not too long, ended by CRLF, and
/// no NUL.
pub(super) fn is_returnable(content: &[u8]) -> bool {
    let lines = content.strip_suffix(b"\r\n").unwrap_or(content).split(|&octet| octet == b'\n');
    let mut lines = lines.peekable();
    while let Some(line) = lines.next() {
        let line = match (line.strip_suffix(b"\r"), lines.peek()) {
            (Some(line), _) => line,
            (None, None) => line,
            (None, Some(_)) => return false,
        };
        if line.len() > LINE_BYTES_MAX || memchr::memchr2(0, b'\r', line).is_some() {
            return false;
        }
    }
    true
}

/// The message id with its angle brackets, when there is one that can be referred to.
pub(crate) fn message_id(header: &[u8]) -> Option<String> {
    const NAME: &[u8] = b"message-id:";
    let field = lines(header)
        .find(|line| line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))?;
    let value = std::str::from_utf8(&field[NAME.len()..]).ok()?.trim_matches([' ', '\t']);
    let is_sound = value.len() <= MESSAGE_ID_BYTES_MAX
        && value.starts_with('<')
        && value.find('>') == Some(value.len() - 1)
        && value.bytes().all(|byte| byte.is_ascii_graphic());
    is_sound.then(|| value.to_owned())
}

/// The lines ended by CRLF, without it, up to the empty line. A line without end counts: the caller
/// may have had no more than the front part.
fn lines(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = header;
    std::iter::from_fn(move || {
        let end = memchr::memmem::find(rest, b"\r\n");
        let (line, behind) = match end {
            Some(at) => (&rest[..at], &rest[at + 2..]),
            None => (rest, &rest[rest.len()..]),
        };
        rest = behind;
        (!line.is_empty()).then_some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_section_is_returned_and_nothing_else() {
        let table: [(&[u8], &[u8]); 9] = [
            (b"", b""),
            (b"A: b\r\n", b"A: b\r\n"),
            (b"A: b\r\nC: d\r\n\r\nbody", b"A: b\r\nC: d\r\n"),
            (b"A: b\r\n folded\r\n", b"A: b\r\n folded\r\n"),
            (b"A: b\r\nC: half", b"A: b\r\nC: half\r\n"),
            (b"\r\nbody", b""),
            (b"A: \xc3\xbc\xff\r\n", b"A: \xc3\xbc\xff\r\n"),
            (b"A: a\0b\nc\rd\r\n", b"A: a?b?c?d\r\n"),
            (b"A: b\r", b"A: b?\r\n"),
        ];
        for (header, expected) in table {
            assert_eq!(returned(header), expected, "{}", header.escape_ascii());
        }
    }

    #[test]
    fn a_long_header_section_is_cut_at_a_line_end() {
        let line = [b"X: ".as_slice(), &[b'x'; 95], b"\r\n"].concat();
        let octets = returned(&line.repeat(1_000));
        assert!(octets.len() <= HEADER_BYTES_MAX && octets.len() > HEADER_BYTES_MAX - 2 * line.len());
        assert_eq!(octets.len() % line.len(), 0);
    }

    #[test]
    fn a_line_too_long_is_folded() {
        for length in [998, 999, 2_000, 5_000] {
            let octets = returned(&[b"X: ".as_slice(), &vec![b'x'; length]].concat());
            let text = String::from_utf8(octets).unwrap();
            assert!(text.lines().all(|line| line.len() <= LINE_BYTES_MAX), "{length}");
            assert!(text.lines().skip(1).all(|line| line.starts_with(' ')), "{length}");
            assert_eq!(text.matches('x').count(), length);
        }
    }

    #[test]
    fn only_a_sound_message_id_is_referred_to() {
        let long = format!("Message-ID: <{}@b>", "a".repeat(MESSAGE_ID_BYTES_MAX));
        let table = [
            ("Message-ID: <a@b>\r\n", Some("<a@b>")),
            ("Subject: x\r\nMESSAGE-id:<a@b> \r\n\r\n", Some("<a@b>")),
            ("Message-ID: a@b\r\n", None),
            ("Message-ID:\r\n", None),
            ("Message-ID: <a@b> <c@d>\r\n", None),
            ("Message-ID: <a b>\r\n", None),
            ("Message-ID: <a\nBcc:x>\r\n", None),
            ("Message-ID: <\r\n", None),
            ("Subject: x\r\n\r\nMessage-ID: <a@b>\r\n", None),
            (&long, None),
        ];
        for (header, expected) in table {
            assert_eq!(message_id(header.as_bytes()).as_deref(), expected, "{header:?}");
        }
    }
}
