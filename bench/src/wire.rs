//! The little SMTP that generator and sink need, written for them alone.
//!
//! Pure. It shares nothing with the relay on purpose: a mistake there must not be repeated, and so hidden, here.
//!
//! [`Replies`] cuts a server's octets into replies (RFC 5321 4.2); [`Lines`] cuts a client's octets into command
//! lines (2.3.8); [`Content`] finds the end of data, CRLF `.` CRLF, and undoes dot-stuffing (4.5.2). All three take
//! their input in pieces of any size.

use futures_lite::{AsyncRead, AsyncWrite};
use memchr::memmem;
use std::ops::Range;

/// Longest reply line that is believed; a peer that sends more is broken.
pub const REPLY_LINE_OCTETS_MAX: usize = 4096;
/// Longest command line that the sink accepts (RFC 5321 4.5.3.1.4 asks for 512; extensions add to it).
pub const COMMAND_LINE_OCTETS_MAX: usize = 4096;

/// A connection, clear or in TLS.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// A complete reply, all its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    span: Range<usize>,
}

/// The server sent something that is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAReply;

/// Replies cut out of a stream.
#[derive(Default)]
pub struct Replies {
    buffer: Vec<u8>,
    start: usize,
}

impl Replies {
    /// Adds what was read. Spans of earlier replies are no longer valid.
    pub fn push(&mut self, octets: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(octets);
    }

    /// The next complete reply, `None` when more octets are needed.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, NotAReply> {
        let mut at = self.start;
        loop {
            let rest = &self.buffer[at..];
            let Some(end) = memchr::memchr(b'\n', rest) else {
                return if rest.len() > REPLY_LINE_OCTETS_MAX { Err(NotAReply) } else { Ok(None) };
            };
            let line = &rest[..end];
            let digits = line.get(..3).filter(|d| d.iter().all(u8::is_ascii_digit)).ok_or(NotAReply)?;
            let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
            at += end + 1;
            match line.get(3) {
                Some(b'-') => continue,
                None | Some(b' ' | b'\r') => {
                    let span = self.start..at;
                    self.start = at;
                    return Ok(Some(Reply { code, span }));
                }
                Some(_) => return Err(NotAReply),
            }
        }
    }

    /// The reply's text, lines and codes as sent. Valid until the next [`push`](Self::push).
    pub fn text(&self, reply: &Reply) -> String {
        String::from_utf8_lossy(&self.buffer[reply.span.clone()]).trim_end().to_owned()
    }

    /// Whether the EHLO reply names the extension.
    pub fn announces(&self, reply: &Reply, keyword: &str) -> bool {
        self.text(reply).lines().skip(1).any(|line| {
            line.get(4..)
                .and_then(|l| l.split_whitespace().next())
                .is_some_and(|k| k.eq_ignore_ascii_case(keyword))
        })
    }
}

/// A command line was longer than [`COMMAND_LINE_OCTETS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineTooLong;

/// Command lines cut out of a stream.
#[derive(Default)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes one line, CRLF (or bare LF) removed, from the front of `input`; `None` when it is not complete, and
    /// then all of `input` has been taken.
    pub fn take(&mut self, input: &mut &[u8], line: &mut Vec<u8>) -> Result<bool, LineTooLong> {
        let Some(end) = memchr::memchr(b'\n', input) else {
            self.partial.extend_from_slice(input);
            *input = &[];
            return if self.partial.len() > COMMAND_LINE_OCTETS_MAX { Err(LineTooLong) } else { Ok(false) };
        };
        line.clear();
        line.append(&mut self.partial);
        line.extend_from_slice(&input[..end]);
        *input = &input[end + 1..];
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if line.len() > COMMAND_LINE_OCTETS_MAX { Err(LineTooLong) } else { Ok(true) }
    }
}

/// Where the content scanner stands, named for what came last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum After {
    /// CRLF, or the beginning.
    #[default]
    LineEnd,
    /// A dot at the start of a line, not yet passed on.
    Dot,
    /// A dot at the start of a line and CR, neither passed on.
    DotCr,
    /// CR within a line, passed on.
    Cr,
    Text,
}

/// Finds the end of data. Passes the content on, stuffing undone, in pieces.
#[derive(Default)]
pub struct Content {
    after: After,
}

impl Content {
    /// Takes content from the front of `input` up to the end of data or the end of `input`, whichever comes first;
    /// `true` when the end of data was met, and then the scanner is ready for the next message.
    pub fn take(&mut self, input: &mut &[u8], mut pass: impl FnMut(&[u8])) -> bool {
        while let Some(&octet) = input.first() {
            self.after = match (self.after, octet) {
                (After::LineEnd, b'.') => {
                    *input = &input[1..];
                    After::Dot
                }
                (After::Dot, b'\r') => {
                    *input = &input[1..];
                    After::DotCr
                }
                (After::DotCr, b'\n') => {
                    *input = &input[1..];
                    self.after = After::LineEnd;
                    return true;
                }
                // The first dot was stuffing, or the sender forgot it; what follows is content either way.
                (After::DotCr, _) => {
                    pass(b"\r");
                    After::Cr
                }
                (After::Dot, _) => After::Text,
                (After::Cr, b'\n') => {
                    pass(b"\n");
                    *input = &input[1..];
                    After::LineEnd
                }
                (After::LineEnd | After::Cr | After::Text, _) => Self::run(input, &mut pass),
            };
        }
        false
    }

    /// Passes on everything up to and with the next CRLF that a dot follows, or all.
    fn run(input: &mut &[u8], pass: &mut impl FnMut(&[u8])) -> After {
        let (text, rest) = match memmem::find(input, b"\r\n.") {
            Some(at) => input.split_at(at + 2),
            None => input.split_at(input.len()),
        };
        pass(text);
        *input = rest;
        match text {
            [.., b'\r', b'\n'] => After::LineEnd,
            [.., b'\r'] => After::Cr,
            _ => After::Text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_cut_at_every_split() {
        let stream =
            b"220 hello\r\n250-a.example\r\n250-PIPELINING\r\n250 SIZE 10\r\n354\r\n550 5.1.1 no\r\n";
        for split in 0..=stream.len() {
            let mut replies = Replies::default();
            let mut seen = Vec::new();
            for piece in [&stream[..split], &stream[split..]] {
                replies.push(piece);
                while let Some(reply) = replies.next_reply().unwrap() {
                    seen.push((reply.code, replies.text(&reply)));
                    if reply.code == 250 {
                        assert!(replies.announces(&reply, "size") && replies.announces(&reply, "PIPELINING"));
                        assert!(
                            !replies.announces(&reply, "a.example") && !replies.announces(&reply, "8BITMIME")
                        );
                    }
                }
            }
            assert_eq!(seen.iter().map(|(code, _)| *code).collect::<Vec<_>>(), [220, 250, 354, 550]);
            assert_eq!(seen[3].1, "550 5.1.1 no");
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for text in ["hello\r\n", "2\r\n", "25x a\r\n", "250:a\r\n", "250-a\r\nb\r\n"] {
            let mut replies = Replies::default();
            replies.push(text.as_bytes());
            assert_eq!(replies.next_reply(), Err(NotAReply), "{text}");
        }
        let mut replies = Replies::default();
        replies.push(&[b'2'; REPLY_LINE_OCTETS_MAX + 1]);
        assert_eq!(replies.next_reply(), Err(NotAReply));
    }

    #[test]
    fn lines_are_cut_at_every_split_and_bounded() {
        let stream = b"EHLO a\r\nQUIT\nNO\rOP\r\n";
        for split in 0..=stream.len() {
            let (mut lines, mut line, mut seen) = (Lines::default(), Vec::new(), Vec::new());
            for mut piece in [&stream[..split], &stream[split..]] {
                while lines.take(&mut piece, &mut line).unwrap() {
                    seen.push(String::from_utf8(line.clone()).unwrap());
                }
            }
            assert_eq!(seen, ["EHLO a", "QUIT", "NO\rOP"]);
        }
        let long = [b'x'; COMMAND_LINE_OCTETS_MAX + 1];
        assert_eq!(Lines::default().take(&mut &long[..], &mut Vec::new()), Err(LineTooLong));
    }

    #[test]
    fn content_ends_only_at_crlf_dot_crlf_at_every_split() {
        let table: &[(&str, &str, &str)] = &[
            (".\r\nX", "", "X"),
            ("a\r\n.\r\n", "a\r\n", ""),
            ("..\r\n.\r\n", ".\r\n", ""),
            ("...a\r\n.\r\nQUIT\r\n", "..a\r\n", "QUIT\r\n"),
            (".a\r\n.\r\n", "a\r\n", ""),
            ("a\n.\nb\r\n.\r\n", "a\n.\nb\r\n", ""),
            ("a\n.\r\nb\r\n.\r\n", "a\n.\r\nb\r\n", ""),
            ("a\r.\r\nb\r\n.\r\n", "a\r.\r\nb\r\n", ""),
            ("a\r\n.\rb\r\n.\r\n", "a\r\n\rb\r\n", ""),
            ("a\r\n.\r\r\n.\r\n", "a\r\n\r\r\n", ""),
            ("a\r\n.\nb\r\n.\r\n", "a\r\n\nb\r\n", ""),
            ("a\r\r\n.\r\n", "a\r\r\n", ""),
            ("\r\n\r\n.\r\n", "\r\n\r\n", ""),
        ];
        for (wire, plain, rest) in table {
            for split in 0..=wire.len() {
                let (mut content, mut out, mut left, mut ends) =
                    (Content::default(), Vec::new(), Vec::new(), 0);
                for mut piece in [&wire.as_bytes()[..split], &wire.as_bytes()[split..]] {
                    if ends == 0 && content.take(&mut piece, |octets| out.extend_from_slice(octets)) {
                        ends += 1;
                    }
                    left.extend_from_slice(piece);
                }
                assert_eq!(
                    (ends, &out[..], &left[..]),
                    (1, plain.as_bytes(), rest.as_bytes()),
                    "{wire:?} at {split}"
                );
            }
        }
    }
}
