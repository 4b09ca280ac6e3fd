//! Header fields of the relay's own making (RFC 5322 section 2.2), safe whatever the values hold.
//!
//! Pure. Values become printable ASCII, and are folded.

/// Octets of a line to fold at, without CRLF (RFC 5322 section 2.1.1).
const LINE_BYTES_WANTED: usize = 76;

/// Octets of a word that is too long for a line of its own; the rest of it is cut off.
const WORD_BYTES_MAX: usize = 900;

/// A header section that grows field by field.
#[derive(Default)]
pub(super) struct Fields {
    octets: Vec<u8>,
    /// Values may be UTF-8.
    utf8: bool,
}

impl Fields {
    pub fn new(utf8: bool) -> Self {
        Self { octets: Vec::new(), utf8 }
    }

    /// Adds a field. Runs of white space in the value count as one space.
    pub fn put(&mut self, name: &str, value: &str) {
        self.octets.extend_from_slice(name.as_bytes());
        self.octets.push(b':');
        put_folded(&mut self.octets, name.len() + 1, &printable(value, self.utf8));
        self.octets.extend_from_slice(b"\r\n");
    }

    pub fn into_octets(self) -> Vec<u8> {
        self.octets
    }
}

/// Every word with a space in front, on a new line where the line at hand is full. `column` is the
/// length of the line so far.
fn put_folded(octets: &mut Vec<u8>, mut column: usize, value: &str) {
    for word in value.split_ascii_whitespace() {
        let word = &word[..word.floor_char_boundary(WORD_BYTES_MAX)];
        if column + 1 + word.len() > LINE_BYTES_WANTED && column > 1 {
            octets.extend_from_slice(b"\r\n");
            column = 0;
        }
        octets.push(b' ');
        octets.extend_from_slice(word.as_bytes());
        column += 1 + word.len();
    }
}

/// Text for people, wrapped and indented; ends with CRLF.
pub(super) fn wrapped(text: &str, indent: usize, utf8: bool) -> Vec<u8> {
    let mut octets = Vec::new();
    for word in printable(text, utf8).split_ascii_whitespace() {
        let word = &word[..word.floor_char_boundary(WORD_BYTES_MAX)];
        let line = octets.len() - octets.iter().rposition(|&octet| octet == b'\n').map_or(0, |at| at + 1);
        if line == 0 {
            octets.resize(octets.len() + indent, b' ');
        } else if line + 1 + word.len() > LINE_BYTES_WANTED {
            octets.extend_from_slice(b"\r\n");
            octets.resize(octets.len() + indent, b' ');
        } else {
            octets.push(b' ');
        }
        octets.extend_from_slice(word.as_bytes());
    }
    octets.extend_from_slice(b"\r\n");
    octets
}

/// Printable ASCII: everything else becomes `?`, white space of any kind a space.
pub(super) fn ascii(text: &str) -> String {
    printable(text, false)
}

/// The same; with `utf8` characters beyond ASCII stay, but for those that end lines or turn the direction of
/// the text around them.
pub(super) fn printable(text: &str, utf8: bool) -> String {
    let one = |c: char| match c {
        ' '..='~' => c,
        '\t' | '\r' | '\n' => ' ',
        '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => '?',
        _ if utf8 && !c.is_control() => c,
        _ => '?',
    };
    text.chars().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(name: &str, value: &str) -> String {
        let mut fields = Fields::default();
        fields.put(name, value);
        String::from_utf8(fields.into_octets()).unwrap()
    }

    #[test]
    fn a_value_never_becomes_a_field() {
        let table = [
            ("a", "X: a\r\n"),
            ("", "X:\r\n"),
            ("a\r\nBcc: b", "X: a Bcc: b\r\n"),
            ("a\n\nb", "X: a b\r\n"),
            ("a\0b\u{7f}\u{85}\u{2028}c", "X: a?b???c\r\n"),
            ("Grüße", "X: Gr??e\r\n"),
            ("  a \t b  ", "X: a b\r\n"),
        ];
        for (value, expected) in table {
            assert_eq!(put("X", value), expected, "{value:?}");
        }
    }

    #[test]
    fn long_values_are_folded_and_longer_words_cut() {
        let value = ["word"; 500].join(" ") + " " + &"w".repeat(5_000) + " end";
        let field = put("Diagnostic-Code", &value);
        let lines: Vec<&str> = field.strip_suffix("\r\n").unwrap().split("\r\n").collect();
        assert!(lines.iter().all(|line| line.len() <= 998));
        assert!(lines[1..].iter().all(|line| line.starts_with(' ') && !line.trim().is_empty()));
        let first = lines.iter().position(|line| line.len() > LINE_BYTES_WANTED).unwrap();
        assert_eq!(lines[first].len(), WORD_BYTES_MAX + 1);
        let unfolded = field.replace("\r\n ", " ");
        assert!(unfolded.starts_with("Diagnostic-Code: word word") && unfolded.ends_with("w end\r\n"));
    }

    #[test]
    fn text_is_wrapped_and_indented() {
        let text = String::from_utf8(wrapped(&["word"; 40].join(" "), 4, false)).unwrap();
        assert!(text.ends_with("word\r\n"));
        for line in text.lines() {
            assert!(line.starts_with("    word") && line.len() <= LINE_BYTES_WANTED, "{line}");
        }
        assert_eq!(text.split_ascii_whitespace().count(), 40);
        assert_eq!(wrapped("", 4, false), b"\r\n");
        assert_eq!(wrapped("ö\u{2028}\u{85}", 0, true), "ö??\r\n".as_bytes());
    }
}
