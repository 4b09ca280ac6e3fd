//! Reads replies out of the octets of a peer (RFC 5321 section 4.2.1), however they were split.
//!
//! Pure. Holds at most one reply that is not complete yet, within [`REPLY_BYTES_MAX`]. A line may
//! end in a bare LF, as some old peers end theirs: nothing can be smuggled by it here, because a
//! reply is never passed on as octets. What is not printable becomes `?`.

use super::reply::Reply;

/// Octets of one reply line with its end; RFC 5321 section 4.5.3.1.5 allows 512. Past it the peer is
/// not speaking SMTP, and reading on would only fill memory.
pub const REPLY_LINE_BYTES_MAX: usize = 2_048;

/// Octets of one reply with all its lines. Prevents a peer that continues for ever.
pub const REPLY_BYTES_MAX: usize = 32 * 1_024;

/// Lines of one reply. Prevents the same with empty lines.
pub const REPLY_LINES_MAX: usize = 256;

/// What makes it impossible to go on reading replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadReply {
    /// A line without a reply code, or one whose code differs from the lines before. The line.
    Malformed(String),
    /// A bound of this module was passed.
    TooLong,
}

/// The state between two calls.
#[derive(Debug, Default)]
pub struct ReplyReader {
    line: Vec<u8>,
    reply: Option<Reply>,
    lines: usize,
    bytes: usize,
}

impl ReplyReader {
    /// Takes octets from `input` up to the end of one reply. Returns how many were taken, and the
    /// reply; `None` when all were taken and the reply is not complete yet.
    ///
    /// # Errors
    /// [`BadReply`]; the reader is of no more use then.
    pub fn read(&mut self, input: &[u8]) -> Result<(usize, Option<Reply>), BadReply> {
        let mut taken = 0;
        while let Some(end) = memchr::memchr(b'\n', &input[taken..]) {
            let piece = &input[taken..taken + end];
            taken += end + 1;
            self.count(piece.len() + 1)?;
            let complete = if self.line.is_empty() {
                self.end_line(piece)?
            } else {
                self.line.extend_from_slice(piece);
                let line = std::mem::take(&mut self.line);
                let complete = self.end_line(&line)?;
                self.line = line;
                self.line.clear();
                complete
            };
            if complete {
                self.lines = 0;
                self.bytes = 0;
                return Ok((taken, self.reply.take()));
            }
        }
        let rest = &input[taken..];
        self.count(rest.len())?;
        self.line.extend_from_slice(rest);
        Ok((input.len(), None))
    }

    /// Whether a part of a reply has been read.
    pub fn is_within_a_reply(&self) -> bool {
        self.reply.is_some() || !self.line.is_empty()
    }

    fn count(&mut self, octets: usize) -> Result<(), BadReply> {
        self.bytes += octets;
        let line_is_too_long = self.line.len() + octets > REPLY_LINE_BYTES_MAX;
        if line_is_too_long || self.bytes > REPLY_BYTES_MAX { Err(BadReply::TooLong) } else { Ok(()) }
    }

    /// Adds a line, given without its LF; true when it ended the reply.
    fn end_line(&mut self, line: &[u8]) -> Result<bool, BadReply> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (code, last, text) = split(line).ok_or_else(|| BadReply::Malformed(printable(line)))?;
        self.lines += 1;
        if self.lines > REPLY_LINES_MAX {
            return Err(BadReply::TooLong);
        }
        match &mut self.reply {
            None => {
                let (enhanced, text) = split_enhanced(code, text);
                self.reply = Some(Reply { code, enhanced, text: printable(text) });
            }
            Some(reply) if reply.code == code => {
                let (enhanced, rest) = split_enhanced(code, text);
                reply.text.push('\n');
                reply.text.push_str(&printable(if enhanced == reply.enhanced { rest } else { text }));
            }
            Some(_) => return Err(BadReply::Malformed(printable(line))),
        }
        Ok(last)
    }
}

/// Code, whether it is the last line, text.
fn split(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (code, rest) = line.split_at_checked(3)?;
    if !(b'2'..=b'5').contains(&code[0]) || !code.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = code.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest.split_first() {
        None => Some((code, true, rest)),
        Some((b' ', text)) => Some((code, true, text)),
        Some((b'-', text)) => Some((code, false, text)),
        Some(_) => None,
    }
}

/// Takes `5.1.1 ` off the front of a text (RFC 2034 section 4); its class must agree with the code.
fn split_enhanced(code: u16, text: &[u8]) -> (Option<(u8, u16, u16)>, &[u8]) {
    let end = memchr::memchr(b' ', text).unwrap_or(text.len());
    match parse_enhanced(&text[..end]) {
        Some(enhanced) if u16::from(enhanced.0) == code / 100 => {
            (Some(enhanced), text.get(end + 1..).unwrap_or_default())
        }
        _ => (None, text),
    }
}

fn parse_enhanced(word: &[u8]) -> Option<(u8, u16, u16)> {
    let mut parts = std::str::from_utf8(word).ok()?.split('.');
    let number = |part: &str| {
        let digits = (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        if digits { part.parse::<u16>().ok() } else { None }
    };
    let class = match parts.next()? {
        "2" => 2,
        "4" => 4,
        "5" => 5,
        _ => return None,
    };
    let enhanced = (class, number(parts.next()?)?, number(parts.next()?)?);
    parts.next().is_none().then_some(enhanced)
}

/// The octets as text for people: UTF-8 where it is, `?` for everything that cannot be printed.
fn printable(octets: &[u8]) -> String {
    let text = String::from_utf8_lossy(octets);
    if text.chars().any(|c| c.is_control() || c == char::REPLACEMENT_CHARACTER) {
        text.chars()
            .map(|c| if c.is_control() || c == char::REPLACEMENT_CHARACTER { '?' } else { c })
            .collect()
    } else {
        text.into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(code: u16, enhanced: Option<(u8, u16, u16)>, text: &str) -> Result<Reply, BadReply> {
        Ok(Reply { code, enhanced, text: text.into() })
    }

    fn malformed(line: &str) -> Result<Reply, BadReply> {
        Err(BadReply::Malformed(line.into()))
    }

    fn table() -> Vec<(Vec<u8>, Result<Reply, BadReply>)> {
        let long_line = |length: usize| [b"250 ".as_slice(), &vec![b'a'; length - 6], b"\r\n"].concat();
        let text_of = |length: usize| "a".repeat(length - 6);
        vec![
            (b"250 OK\r\n".into(), reply(250, None, "OK")),
            (b"250\r\n".into(), reply(250, None, "")),
            (b"250 \r\n".into(), reply(250, None, "")),
            (b"250 OK\n".into(), reply(250, None, "OK")),
            (b"354 End with .\r\n".into(), reply(354, None, "End with .")),
            (b"550 5.1.1 No\r\n".into(), reply(550, Some((5, 1, 1)), "No")),
            (b"550 5.1.1\r\n".into(), reply(550, Some((5, 1, 1)), "")),
            (b"550 5.7.999 No\r\n".into(), reply(550, Some((5, 7, 999)), "No")),
            (b"550 4.1.1 No\r\n".into(), reply(550, None, "4.1.1 No")),
            (b"550 5.1.1000 No\r\n".into(), reply(550, None, "5.1.1000 No")),
            (b"550 5.1.1.1 No\r\n".into(), reply(550, None, "5.1.1.1 No")),
            (b"550 5.1.+1 No\r\n".into(), reply(550, None, "5.1.+1 No")),
            (b"354 3.0.0 Go\r\n".into(), reply(354, None, "3.0.0 Go")),
            (
                b"250-a.example\r\n250-SIZE 1\r\n250 DSN\r\n".into(),
                reply(250, None, "a.example\nSIZE 1\nDSN"),
            ),
            (b"550-5.1.1 No\r\n550 5.1.1 such\r\n".into(), reply(550, Some((5, 1, 1)), "No\nsuch")),
            (b"550-5.1.1 No\r\n550 5.1.2 such\r\n".into(), reply(550, Some((5, 1, 1)), "No\n5.1.2 such")),
            (b"220 a\x00\x1bb\rc\xff\r\n".into(), reply(220, None, "a??b?c?")),
            ("220 Grüße\r\n".into(), reply(220, None, "Grüße")),
            (b"250-a\r\n251 b\r\n".into(), malformed("251 b")),
            (b"\r\n".into(), malformed("")),
            (b"25\r\n".into(), malformed("25")),
            (b"2500 x\r\n".into(), malformed("2500 x")),
            (b"150 x\r\n".into(), malformed("150 x")),
            (b"650 x\r\n".into(), malformed("650 x")),
            (b"2x0 x\r\n".into(), malformed("2x0 x")),
            (b"HTTP/1.1 400 Bad Request\r\n".into(), malformed("HTTP/1.1 400 Bad Request")),
            (long_line(REPLY_LINE_BYTES_MAX), reply(250, None, &text_of(REPLY_LINE_BYTES_MAX))),
            (long_line(REPLY_LINE_BYTES_MAX + 1), Err(BadReply::TooLong)),
            (b"250-\r\n".repeat(REPLY_LINES_MAX + 1), Err(BadReply::TooLong)),
            ([b"250-".as_slice(), &[b'a'; 1_000], b"\r\n"].concat().repeat(40), Err(BadReply::TooLong)),
        ]
    }

    /// Feeds the pieces; everything behind the reply must be left untaken.
    fn feed(pieces: &[&[u8]]) -> Result<Reply, BadReply> {
        let mut reader = ReplyReader::default();
        for (index, piece) in pieces.iter().enumerate() {
            let (taken, reply) = reader.read(piece)?;
            assert_eq!(taken, piece.len());
            if let Some(reply) = reply {
                assert_eq!(index, pieces.len() - 1, "complete before its end");
                assert!(!reader.is_within_a_reply());
                return Ok(reply);
            }
        }
        panic!("the reply did not end");
    }

    #[test]
    fn replies_are_read_whole_and_split_at_every_byte() {
        for (octets, expected) in table() {
            let shown = String::from_utf8_lossy(&octets[..octets.len().min(80)]).into_owned();
            assert_eq!(feed(&[&octets]), expected, "{shown}");
            if octets.len() < 4_000 {
                for at in 1..octets.len() {
                    let (front, back) = octets.split_at(at);
                    assert_eq!(feed(&[front, back]), expected, "{shown} at {at}");
                }
            }
            let single: Vec<&[u8]> = octets.chunks(1).collect();
            assert_eq!(feed(&single), expected, "{shown} octet by octet");
        }
    }

    #[test]
    fn replies_that_come_together_are_given_one_by_one() {
        let mut reader = ReplyReader::default();
        let input = b"250-a\r\n250 b\r\n550 c\r\n2";
        let (taken, first) = reader.read(input).unwrap();
        assert_eq!((taken, first.unwrap().text.as_str()), (14, "a\nb"));
        let (more, second) = reader.read(&input[taken..]).unwrap();
        assert_eq!((more, second.unwrap().code), (7, 550));
        assert_eq!(reader.read(&input[taken + more..]), Ok((1, None)));
        assert!(reader.is_within_a_reply());
    }

    #[test]
    fn a_line_without_end_is_cut_off_at_the_bound() {
        let mut reader = ReplyReader::default();
        assert_eq!(reader.read(&[b'2'; REPLY_LINE_BYTES_MAX]), Ok((REPLY_LINE_BYTES_MAX, None)));
        assert_eq!(reader.read(b"2"), Err(BadReply::TooLong));
    }
}
