//! SMTP smuggling: around a dot, no sequence but CRLF `.` CRLF makes two messages of one, however the octets
//! come, and only content of whole CRLF lines is committed.

use super::*;
use crate::smtp::content::twin;

const ALPHABET: &[u8] = b"\r\n.\0x";

/// What the server says and what it takes.
#[derive(Debug, PartialEq, Eq)]
struct Taken {
    replies: Vec<u8>,
    messages: Vec<Vec<u8>>,
}

/// Sends these pieces after 354.
fn take<'a>(context: &Arc<Context>, pieces: impl IntoIterator<Item = &'a [u8]>) -> Taken {
    let (mut out, mut buffer, mut messages, mut content) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut session = Session::new(context.clone(), "192.0.2.9:4711".parse().unwrap(), None, 0, &mut out);
    session.advance(0, b"HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<joe@winery.example>\r\nDATA\r\n", &mut out);
    session.opened(QueueId::from_bits(0), "now", &mut out);
    out.clear();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let (consumed, step) = session.advance(0, &buffer, &mut out);
            match &step {
                Step::Content(range) => content.extend_from_slice(&buffer[range.clone()]),
                Step::Commit => {
                    messages.push(std::mem::take(&mut content));
                    session.committed(Ok(()), &mut out);
                }
                Step::Abandon => content.clear(),
                Step::Read | Step::Close => {}
                other => panic!("{other:?}"),
            }
            buffer.drain(..consumed);
            if matches!(step, Step::Read | Step::Close) {
                break;
            }
        }
    }
    Taken { replies: out, messages }
}

/// One sequence around a dot, in the middle of a message.
fn check(context: &Arc<Context>, sequence: &[u8]) {
    let (before, after) = sequence.split_at(sequence.len() / 2);
    let input = [b"a", before, b".", after, b"RSET\r\n.\r\n"].concat();
    let shown = input.escape_ascii();
    let expected = twin::decode(&input, context.limits.line_bytes_max).expect("the input has an end");
    let findings = expected.findings;
    let is_sound = !findings.bare_cr && !findings.bare_lf && !findings.nul;
    let whole = take(context, [&input[..]]);
    assert_eq!(whole.messages, if is_sound { vec![expected.content] } else { vec![] }, "{shown}");
    // Behind an early end there are commands; otherwise the one reply is that to the message.
    let replies = whole.replies.iter().filter(|octet| **octet == b'\n').count();
    assert!(replies == 1 || expected.end < input.len(), "{shown}: {}", whole.replies.escape_ascii());
    let code: &[u8] = if is_sound { b"250 2.0.0" } else { b"550 5." };
    assert!(whole.replies.starts_with(code), "{shown}: {}", whole.replies.escape_ascii());
    assert_eq!(take(context, input.chunks(1)), whole, "{shown}, octet by octet");
    // Elsewhere there is nothing to cut.
    for at in 1..sequence.len() + 3 {
        let (head, tail) = input.split_at(at);
        assert_eq!(take(context, [head, tail]), whole, "{shown} cut at {at}");
    }
}

#[test]
fn only_crlf_dot_crlf_lets_a_second_message_in() {
    let context = Arc::new(Context::new(&config(), 0));
    let mut sequence = Vec::new();
    let mut count = 0;
    for octets in 0..=6u32 {
        for number in 0..ALPHABET.len().pow(octets) {
            sequence.clear();
            let symbol = |place| ALPHABET[number / ALPHABET.len().pow(place) % ALPHABET.len()];
            sequence.extend((0..octets).map(symbol));
            check(&context, &sequence);
            count += 1;
        }
    }
    assert_eq!(count, 19_531);
}
