//! The addresses in a header field such as From or To (RFC 5322 section 3.4), and how one takes another's place.
//!
//! Pure. The value comes as octets, folded as it is, and nothing is assumed about it. Found are addr-specs, in
//! angle brackets, in groups or alone, also in the obsolete form with white space and comments between their
//! words. Not looked into: comments, quoted strings that are no local part, encoded words, source routes. What
//! is no address stays octet by octet; where nothing is changed, everything does.

use std::ops::Range;

/// Octets of a line past which an address that takes another's place goes on a new line (RFC 5322 section 2.1.1).
const LINE_BYTES_MAX: usize = 990;
/// Nested comments past which the rest of a value is taken for one.
const NESTING_MAX: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// White space and line ends.
    Blank,
    Comment,
    /// An atom; also UTF-8 (RFC 6532).
    Atom,
    Quoted,
    /// `[192.0.2.1]`.
    Literal,
    EncodedWord,
    /// One octet of its own: `@ . < > , ; :` and what belongs nowhere.
    Special(u8),
}

struct Token {
    kind: Kind,
    span: Range<usize>,
}

/// One address of a value: where it stands, and its text without what may stand between its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub span: Range<usize>,
    /// `local@domain`, the local part as written.
    pub address: String,
    /// Comments within the span.
    comments: Vec<Range<usize>>,
}

/// The addresses of a field's value, in order. Such as are not UTF-8 are passed over.
pub fn addresses(value: &[u8]) -> Vec<Found> {
    let tokens = tokens(value);
    let at_signs = (0..tokens.len()).filter(|&index| tokens[index].kind == Kind::Special(b'@'));
    let mut found: Vec<Found> = Vec::new();
    for at in at_signs {
        let Some(first) = words(&tokens, at, Direction::Back) else { continue };
        let Some(last) = words(&tokens, at, Direction::Ahead) else { continue };
        let span = tokens[first].span.start..tokens[last].span.end;
        if found.last().is_some_and(|before| before.span.end > span.start) {
            continue;
        }
        let inside = &tokens[first..=last];
        let words = inside.iter().filter(|token| !matches!(token.kind, Kind::Blank | Kind::Comment));
        let octets: Vec<u8> = words.flat_map(|token| &value[token.span.clone()]).copied().collect();
        let comments = inside.iter().filter(|token| token.kind == Kind::Comment);
        let comments = comments.map(|token| token.span.clone()).collect();
        if let Ok(address) = String::from_utf8(octets) {
            found.push(Found { span, address, comments });
        }
    }
    found
}

/// The value with each address replaced for which `replace` has another one; `None` when it has none.
/// `column`: octets of the line in front of the value.
pub fn replaced(
    value: &[u8],
    column: usize,
    mut replace: impl FnMut(&str) -> Option<String>,
) -> Option<Vec<u8>> {
    let mut out: Option<Vec<u8>> = None;
    let mut copied = 0;
    for found in addresses(value) {
        let Some(new) = replace(&found.address) else { continue };
        let out = out.get_or_insert_with(|| Vec::with_capacity(value.len() + new.len()));
        out.extend_from_slice(&value[copied..found.span.start]);
        let line = match out.iter().rposition(|&octet| octet == b'\n') {
            Some(end) => out.len() - end - 1,
            None => column + out.len(),
        };
        if line + new.len() > LINE_BYTES_MAX {
            out.extend_from_slice(b"\r\n ");
        }
        out.extend_from_slice(new.as_bytes());
        for comment in found.comments {
            out.push(b' ');
            out.extend_from_slice(&value[comment]);
        }
        copied = found.span.end;
        // What is left of a line that was full goes on the next one, at the first place where it may.
        let rest = &value[copied..];
        let line_rest = memchr::memchr(b'\r', rest).unwrap_or(rest.len());
        let line = out.len() - out.iter().rposition(|&octet| octet == b'\n').map_or(0, |end| end + 1);
        if line + line_rest > LINE_BYTES_MAX + 8 {
            let comma = rest[..line_rest].iter().position(|octet| matches!(octet, b',' | b'>' | b';'));
            if let Some(at) =
                comma.filter(|at| rest.get(at + 1).is_some_and(|next| matches!(next, b' ' | b'\t')))
            {
                out.extend_from_slice(&rest[..=at]);
                out.extend_from_slice(b"\r\n");
                copied += at + 1;
            }
        }
    }
    let mut out = out?;
    out.extend_from_slice(&value[copied..]);
    Some(out)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Back,
    Ahead,
}

/// The outermost token of the words and dots beside the `@` at `at`.
fn words(tokens: &[Token], at: usize, direction: Direction) -> Option<usize> {
    let step = |from: usize| {
        let mut index = from;
        loop {
            index = match direction {
                Direction::Back => index.checked_sub(1)?,
                Direction::Ahead => index + 1,
            };
            let token = tokens.get(index)?;
            if !matches!(token.kind, Kind::Blank | Kind::Comment) {
                return Some(index);
            }
        }
    };
    let is_word = |index: &usize| match (tokens[*index].kind, direction) {
        (Kind::Atom, _) | (Kind::Quoted, Direction::Back) => true,
        (Kind::Literal, Direction::Ahead) => true,
        _ => false,
    };
    let mut outermost = step(at).filter(is_word)?;
    while let Some(word) =
        step(outermost).filter(|&dot| tokens[dot].kind == Kind::Special(b'.')).and_then(step).filter(is_word)
    {
        outermost = word;
    }
    Some(outermost)
}

fn tokens(value: &[u8]) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&octet) = value.get(at) {
        let (kind, octets) = match octet {
            b' ' | b'\t' | b'\r' | b'\n' => {
                (Kind::Blank, run(&value[at..], |octet| octet.is_ascii_whitespace()))
            }
            b'(' => (Kind::Comment, comment(&value[at..])),
            b'"' => (Kind::Quoted, closed(&value[at..], b'"')),
            b'[' => (Kind::Literal, closed(&value[at..], b']')),
            b'=' => match encoded_word(&value[at..]) {
                Some(octets) => (Kind::EncodedWord, octets),
                None => (Kind::Atom, run(&value[at..], is_atom)),
            },
            _ if is_atom(octet) => (Kind::Atom, run(&value[at..], is_atom)),
            _ => (Kind::Special(octet), 1),
        };
        tokens.push(Token { kind, span: at..at + octets });
        at += octets;
    }
    tokens
}

fn run(octets: &[u8], is: fn(u8) -> bool) -> usize {
    octets.iter().position(|&octet| !is(octet)).unwrap_or(octets.len())
}

fn is_atom(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&octet) || octet >= 0x80
}

/// Up to the octet that closes it; without one, everything.
fn closed(octets: &[u8], close: u8) -> usize {
    let mut at = 1;
    while let Some(&octet) = octets.get(at) {
        match octet {
            b'\\' => at += 2,
            _ if octet == close => return at + 1,
            _ => at += 1,
        }
    }
    octets.len()
}

fn comment(octets: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while let Some(&octet) = octets.get(at) {
        match octet {
            b'\\' => at += 1,
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return at.min(octets.len());
        }
        if depth > NESTING_MAX {
            break;
        }
    }
    octets.len()
}

/// `=?charset?encoding?text?=` (RFC 2047 section 2); senders write octets into it that belong quoted.
fn encoded_word(octets: &[u8]) -> Option<usize> {
    let word = run(octets, |octet| octet > b' ' && octet < 0x7f);
    let mut marks = memchr::memchr_iter(b'?', octets[..word].strip_prefix(b"=?")?);
    let text = 2 + marks.nth(1)? + 1;
    let end = memchr::memmem::find(&octets[text..word], b"?=")?;
    Some(text + end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(value: &str) -> Vec<String> {
        addresses(value.as_bytes()).into_iter().map(|found| found.address).collect()
    }

    #[test]
    fn addresses_are_found_wherever_they_stand() {
        let table: [(&str, &[&str]); 27] = [
            ("a@x.example", &["a@x.example"]),
            (" <a@x.example>", &["a@x.example"]),
            ("Ann <a@x.example>, b@y.example", &["a@x.example", "b@y.example"]),
            ("Ann Other <a@x.example>,\r\n\t\"B, C\" <b@y.example>", &["a@x.example", "b@y.example"]),
            ("\"a@x.example\" <b@y.example>", &["b@y.example"]),
            ("\"a b\"@x.example", &["\"a b\"@x.example"]),
            ("(a@x.example) b@y.example (c@z.example (d@z.example))", &["b@y.example"]),
            ("=?utf-8?Q?a@x.example?= <b@y.example>", &["b@y.example"]),
            ("=?utf-8?Q?a?=b@y.example", &["b@y.example"]),
            ("=x=@y.example", &["=x=@y.example"]),
            (
                "Friends: a@x.example, Bob <b@y.example>;, c@z.example",
                &["a@x.example", "b@y.example", "c@z.example"],
            ),
            ("undisclosed-recipients:;", &[]),
            ("<@one.example,@two.example:a@x.example>", &["a@x.example"]),
            ("a . b @ x . example", &["a.b@x.example"]),
            ("a(one)@(two)x.example", &["a@x.example"]),
            ("a@\r\n x.example", &["a@x.example"]),
            ("a@[192.0.2.1]", &["a@[192.0.2.1]"]),
            ("Ann a@x.example", &["a@x.example"]),
            ("a@b@x.example", &["a@b"]),
            ("@x.example", &[]),
            ("a@", &[]),
            ("a@.x", &[]),
            ("\"open a@x.example", &[]),
            ("(open a@x.example", &[]),
            ("j\u{f6}rg@b\u{fc}ro.example", &["j\u{f6}rg@b\u{fc}ro.example"]),
            ("<>", &[]),
            ("\\a@x.example", &["a@x.example"]),
        ];
        for (value, expected) in table {
            assert_eq!(found(value), expected, "{value:?}");
        }
        let deep = "(".repeat(5_000) + "a@x.example";
        assert!(found(&deep).is_empty());
    }

    #[test]
    fn what_is_no_address_stays_octet_by_octet() {
        let swap = |address: &str| (address == "a@x.example").then(|| "b@y.example".to_owned());
        let table: [(&[u8], Option<&[u8]>); 8] = [
            (b" Ann <a@x.example>\r\n", Some(b" Ann <b@y.example>\r\n")),
            (
                b" \"a@x.example\"\t<a@x.example> ,\r\n\tc@z\r\n",
                Some(b" \"a@x.example\"\t<b@y.example> ,\r\n\tc@z\r\n"),
            ),
            (b" a (why) @ x.example, d@e\r\n", Some(b" b@y.example (why), d@e\r\n")),
            (b" a@x.example", Some(b" b@y.example")),
            (b" \xff\xfe <a@x.example>\r\n", Some(b" \xff\xfe <b@y.example>\r\n")),
            (b" \xff@x.example\r\n", None),
            (b" c@x.example\r\n", None),
            (b"", None),
        ];
        for (value, expected) in table {
            assert_eq!(replaced(value, 5, swap).as_deref(), expected, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn a_line_does_not_become_too_long() {
        let grow =
            |address: &str| address.strip_suffix("@x").map(|local| format!("{local}@{}", "y".repeat(60)));
        for count in [50, 100, 140] {
            let value = " ".to_owned() + &["a@x, b@z"].repeat(count).join(", ") + "\r\n";
            let out = String::from_utf8(replaced(value.as_bytes(), 3, grow).unwrap()).unwrap();
            assert!(out.split("\r\n").all(|line| line.len() <= 998), "{count}");
            assert!(out.split("\r\n").skip(1).all(|line| line.is_empty() || line.starts_with(' ')), "{out}");
            assert_eq!(out.matches("@yyy").count(), count);
        }
    }
}
