//! Reading replies, for the client session (RFC 5321 section 4.2, RFC 2034).
//!
//! Pure and incremental, on the delivery shard. Tolerant where peers in use need it: long lines, a code
//! without text, any second digit, stray CRs before CRLF. Strict where a mistake could make one reply
//! look like two or a refusal like a success: a line that ends in bare LF, a line that does not begin
//! with a code, lines of one reply with different codes, an end that does not come.

use memchr::memchr;
use std::fmt;

/// Octets of one line with its CRLF; RFC 5321 section 4.5.3.1.5 allows 512.
pub const LINE_OCTETS_MAX: usize = 2048;
/// Lines of one reply.
pub const LINES_MAX: usize = 100;
/// Octets of the text of one reply.
pub const TEXT_OCTETS_MAX: usize = 64 * 1024;

/// One whole reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// The enhanced status code (RFC 3463) of the first line, if its class is that of the code.
    pub enhanced: Option<(u8, u16, u16)>,
    /// The text of the lines without codes, joined by `\n`. Octets that are not UTF-8 and control
    /// characters are replaced, so it can stand in a log line and in a DSN.
    pub text: String,
}

impl Reply {
    /// 2yz.
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 3yz.
    pub fn is_intermediate(&self) -> bool {
        self.code / 100 == 3
    }

    /// 4yz: the same command may work later.
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// 5yz.
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.split('\n')
    }
}

/// The reply on one line, as logs and DSNs quote it: `550 5.1.1 no such user`.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some((class, subject, detail)) = self.enhanced {
            write!(f, " {class}.{subject}.{detail}")?;
        }
        self.lines().filter(|line| !line.is_empty()).try_for_each(|line| write!(f, " {line}"))
    }
}

/// Why what a server sent is no reply. Always the server's fault; the connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyFault {
    /// A line does not begin with a code and a separator.
    Malformed,
    BareLf,
    /// Lines of one reply with different codes.
    CodesDiffer,
    LineTooLong,
    TooManyLines,
    TooLong,
}

impl fmt::Display for ReplyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "a reply line without a reply code",
            Self::BareLf => "a reply line that ends in bare LF",
            Self::CodesDiffer => "lines of one reply with different codes",
            Self::LineTooLong => "a reply line of more than 2048 octets",
            Self::TooManyLines => "a reply of more than 100 lines",
            Self::TooLong => "a reply of more than 64 KiB",
        })
    }
}

impl std::error::Error for ReplyFault {}

/// Reads one reply after another; keeps no octet between calls but the text of a reply begun.
#[derive(Clone, Debug, Default)]
pub struct ReplyReader {
    begun: Option<Begun>,
}

#[derive(Clone, Debug)]
struct Begun {
    reply: Reply,
    lines: usize,
}

impl ReplyReader {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether some but not all lines of a reply have been read.
    pub fn is_inside(&self) -> bool {
        self.begun.is_some()
    }

    /// Reads whole lines from the start of `input` until a reply is complete; returns how many octets
    /// that took. Without a reply, the caller keeps what was not consumed, at most
    /// [`LINE_OCTETS_MAX`] octets, and calls again with more.
    ///
    /// # Errors
    /// After a [`ReplyFault`] the place in the stream is lost, and the connection must be closed.
    pub fn read(&mut self, input: &[u8]) -> Result<(usize, Option<Reply>), ReplyFault> {
        let mut consumed = 0;
        loop {
            let rest = &input[consumed..];
            let Some(lf) = memchr(b'\n', rest) else {
                let too_long = rest.len() >= LINE_OCTETS_MAX;
                return if too_long { Err(ReplyFault::LineTooLong) } else { Ok((consumed, None)) };
            };
            if lf >= LINE_OCTETS_MAX {
                return Err(ReplyFault::LineTooLong);
            }
            let mut line = rest[..lf].strip_suffix(b"\r").ok_or(ReplyFault::BareLf)?;
            while let Some(shorter) = line.strip_suffix(b"\r") {
                line = shorter;
            }
            consumed += lf + 1;
            if self.line(line)? {
                return Ok((consumed, self.begun.take().map(|begun| begun.reply)));
            }
        }
    }

    /// `true` when it was the last line of its reply.
    fn line(&mut self, line: &[u8]) -> Result<bool, ReplyFault> {
        let (code, last, text) = split(line).ok_or(ReplyFault::Malformed)?;
        let (enhanced, bare) = enhanced(code, text);
        let Some(begun) = &mut self.begun else {
            self.begun = Some(Begun { reply: Reply { code, enhanced, text: printable(bare) }, lines: 1 });
            return Ok(last);
        };
        let reply = &mut begun.reply;
        if code != reply.code {
            return Err(ReplyFault::CodesDiffer);
        }
        begun.lines += 1;
        if begun.lines > LINES_MAX {
            return Err(ReplyFault::TooManyLines);
        }
        reply.text.push('\n');
        reply.text.push_str(&printable(if enhanced == reply.enhanced { bare } else { text }));
        if reply.text.len() > TEXT_OCTETS_MAX {
            return Err(ReplyFault::TooLong);
        }
        Ok(last)
    }
}

/// `Reply-code [ ( "-" / SP ) text ]`.
fn split(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (code, rest) = line.split_at_checked(3)?;
    if !code.iter().all(u8::is_ascii_digit) || !matches!(code[0], b'2'..=b'5') {
        return None;
    }
    let code = code.iter().fold(0, |n, digit| n * 10 + u16::from(digit - b'0'));
    match rest {
        [] => Some((code, true, rest)),
        [b' ', text @ ..] => Some((code, true, text)),
        [b'-', text @ ..] => Some((code, false, text)),
        _ => None,
    }
}

/// `class "." subject "." detail`, and the text after it (RFC 2034 section 4).
fn enhanced(code: u16, text: &[u8]) -> (Option<(u8, u16, u16)>, &[u8]) {
    let octets = text.iter().position(|&b| b == b' ').unwrap_or(text.len());
    match status(code, &text[..octets]) {
        Some(status) => (Some(status), text.get(octets + 1..).unwrap_or_default()),
        None => (None, text),
    }
}

fn status(code: u16, word: &[u8]) -> Option<(u8, u16, u16)> {
    let mut numbers = word.split(|&b| b == b'.').map(number);
    let (class, subject, detail) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let fits = numbers.next().is_none() && matches!(class, 2 | 4 | 5) && class == code / 100;
    fits.then_some((class as u8, subject, detail))
}

/// `1*3DIGIT`.
fn number(digits: &[u8]) -> Option<u16> {
    let fits = (1..=3).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    fits.then(|| digits.iter().fold(0, |n, digit| n * 10 + u16::from(digit - b'0')))
}

fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(code: u16, enhanced: Option<(u8, u16, u16)>, text: &str) -> Reply {
        Reply { code, enhanced, text: text.into() }
    }

    /// Feeds the stream in two pieces, what is left of the first with the second.
    fn read(stream: &[u8], cut: usize) -> Result<Vec<Reply>, ReplyFault> {
        let mut reader = ReplyReader::new();
        let (mut replies, mut at) = (Vec::new(), 0);
        for end in [cut, stream.len()] {
            loop {
                let (consumed, reply) = reader.read(&stream[at..end])?;
                at += consumed;
                match reply {
                    Some(reply) => replies.push(reply),
                    None => break,
                }
            }
        }
        Ok(replies)
    }

    #[test]
    fn replies_are_read_in_any_pieces() {
        for (stream, expected) in [
            (&b"250 2.1.0 Ok\r\n"[..], vec![reply(250, Some((2, 1, 0)), "Ok")]),
            (b"250\r\n", vec![reply(250, None, "")]),
            (b"250 \r\n", vec![reply(250, None, "")]),
            (b"250 Ok\r\r\n", vec![reply(250, None, "Ok")]),
            (b"354 go\r\n250 2.0.0\r\n", vec![reply(354, None, "go"), reply(250, Some((2, 0, 0)), "")]),
            (b"250-a\r\n250-PIPELINING\r\n250 SIZE 1\r\n", vec![reply(250, None, "a\nPIPELINING\nSIZE 1")]),
            (b"550-5.1.1 no\r\n550 5.1.1 such user\r\n", vec![reply(550, Some((5, 1, 1)), "no\nsuch user")]),
            (b"550-5.1.1 no\r\n550 5.1.2 x\r\n", vec![reply(550, Some((5, 1, 1)), "no\n5.1.2 x")]),
            (b"571 5.7.123 no\r\n", vec![reply(571, Some((5, 7, 123)), "no")]),
            // Not the class of the code, not three numbers, too many digits: text.
            (b"550 4.1.1 x\r\n", vec![reply(550, None, "4.1.1 x")]),
            (b"220 2.1 x\r\n", vec![reply(220, None, "2.1 x")]),
            (b"220 2.1.1.1 x\r\n", vec![reply(220, None, "2.1.1.1 x")]),
            (b"220 2.1.1234 x\r\n", vec![reply(220, None, "2.1.1234 x")]),
            (b"220 a\x1b\x00\xffb\r\n", vec![reply(220, None, "a  \u{fffd}b")]),
        ] {
            for cut in 0..=stream.len() {
                assert_eq!(read(stream, cut), Ok(expected.clone()), "{} cut at {cut}", stream.escape_ascii());
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_an_error_in_any_pieces() {
        for (stream, fault) in [
            (&b"\r\n"[..], ReplyFault::Malformed),
            (b"25\r\n", ReplyFault::Malformed),
            (b"250Ok\r\n", ReplyFault::Malformed),
            (b"150 x\r\n", ReplyFault::Malformed),
            (b"650 x\r\n", ReplyFault::Malformed),
            (b"2x0 x\r\n", ReplyFault::Malformed),
            (b"HTTP/1.1 400\r\n", ReplyFault::Malformed),
            (b"250 a\n250 b\r\n", ReplyFault::BareLf),
            (b"\n", ReplyFault::BareLf),
            (b"250-a\r\n550 b\r\n", ReplyFault::CodesDiffer),
            (b"250-a\r\nx\r\n", ReplyFault::Malformed),
        ] {
            for cut in 0..=stream.len() {
                assert_eq!(read(stream, cut), Err(fault), "{} cut at {cut}", stream.escape_ascii());
            }
        }
    }

    #[test]
    fn a_reply_is_bounded_in_every_direction() {
        let line = |octets: usize| format!("{:x<1$}\r\n", "250 ", octets - 2);
        assert!(read(line(2048).as_bytes(), 0).is_ok());
        assert_eq!(read(line(2049).as_bytes(), 0), Err(ReplyFault::LineTooLong));
        assert_eq!(read(&[b'2'; 4096], 0), Err(ReplyFault::LineTooLong));
        let lines = |count: usize| format!("{}250 x\r\n", "250-x\r\n".repeat(count - 1));
        assert_eq!(read(lines(100).as_bytes(), 0).map(|replies| replies.len()), Ok(1));
        assert_eq!(read(lines(101).as_bytes(), 0), Err(ReplyFault::TooManyLines));
        let long = format!("{:x<2000}\r\n", "250-").repeat(40);
        assert_eq!(read(long.as_bytes(), 0), Err(ReplyFault::TooLong));
    }

    #[test]
    fn a_reply_is_quoted_on_one_line() {
        assert_eq!(reply(550, Some((5, 1, 1)), "no\nsuch user").to_string(), "550 5.1.1 no such user");
        assert_eq!(reply(250, None, "").to_string(), "250");
    }
}
