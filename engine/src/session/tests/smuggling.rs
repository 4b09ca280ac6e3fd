//! SMTP smuggling: around a dot, no sequence but CRLF `.` CRLF makes two messages of one, however the octets
//! come, by DATA and by BDAT, and only content of whole CRLF lines is committed.

use super::*;
use crate::smtp::content::twin;

const ALPHABET: &[u8] = b"\r\n.\0x";
/// Of 0 to 6 symbols.
const SEQUENCES: usize = 19_531;

/// What the server says and what it takes.
#[derive(Debug, PartialEq, Eq)]
struct Taken {
    replies: Vec<u8>,
    messages: Vec<Vec<u8>>,
}

/// Sends these pieces behind `command`, which opens the message.
fn take<'a>(context: &Arc<Context>, command: &[u8], pieces: impl IntoIterator<Item = &'a [u8]>) -> Taken {
    let (mut out, mut buffer, mut messages, mut content) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut session = Session::new(context.clone(), "192.0.2.9:4711".parse().unwrap(), None, 0, &mut out);
    let opening = [b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<joe@winery.example>\r\n", command].concat();
    assert_eq!(session.advance(0, &opening, &mut out), (opening.len(), Step::Open));
    session.opened(QueueId::from_bits(0), "now", &mut out);
    out.clear();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let (consumed, step) = session.advance(0, &buffer, &mut out);
            match &step {
                Step::Content(range) => content.extend_from_slice(&buffer[range.clone()]),
                Step::Insert(octets) => content.extend_from_slice(octets),
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

/// Whole, octet by octet, and cut at every place of the sequence: elsewhere there is nothing to cut.
fn take_in_every_way(context: &Arc<Context>, command: &[u8], input: &[u8], sequence: usize) -> Taken {
    let whole = take(context, command, [input]);
    let shown = input.escape_ascii();
    assert_eq!(take(context, command, input.chunks(1)), whole, "{shown}, octet by octet");
    for at in 1..sequence + 3 {
        let (head, tail) = input.split_at(at);
        assert_eq!(take(context, command, [head, tail]), whole, "{shown} cut at {at}");
    }
    whole
}

/// Every sequence, around a dot in the middle of a message that ends itself.
fn every_sequence(mut check: impl FnMut(&[u8], usize)) {
    let mut count = 0;
    for octets in 0..=6u32 {
        for number in 0..ALPHABET.len().pow(octets) {
            let symbol = |place| ALPHABET[number / ALPHABET.len().pow(place) % ALPHABET.len()];
            let sequence: Vec<u8> = (0..octets).map(symbol).collect();
            let (before, after) = sequence.split_at(sequence.len() / 2);
            check(&[b"a", before, b".", after, b"RSET\r\n.\r\n"].concat(), sequence.len());
            count += 1;
        }
    }
    assert_eq!(count, SEQUENCES);
}

fn context(line_endings: LineEndings) -> Arc<Context> {
    let mut config = config();
    config.listeners[0].line_endings = line_endings;
    Arc::new(Context::new(&config, 0))
}

#[test]
fn only_crlf_dot_crlf_lets_a_second_message_in() {
    let context = context(LineEndings::Strict);
    every_sequence(|input, sequence| {
        let shown = input.escape_ascii();
        let expected = twin::decode(input, context.limits.line_bytes_max).expect("the input has an end");
        let findings = expected.findings;
        let is_sound = !findings.bare_cr && !findings.bare_lf && !findings.nul;
        let whole = take_in_every_way(&context, b"DATA\r\n", input, sequence);
        assert_eq!(whole.messages, if is_sound { vec![expected.content] } else { vec![] }, "{shown}");
        // Behind an early end there are commands; otherwise the one reply is that to the message.
        let replies = whole.replies.iter().filter(|octet| **octet == b'\n').count();
        assert!(replies == 1 || expected.end < input.len(), "{shown}: {}", whole.replies.escape_ascii());
        let code: &[u8] = if is_sound { b"250 2.0.0" } else { b"550 5." };
        assert!(whole.replies.starts_with(code), "{shown}: {}", whole.replies.escape_ascii());
    });
}

/// Where the message ends is decided before anything is mended.
#[test]
fn repair_lets_no_second_message_in() {
    let context = context(LineEndings::Repair);
    every_sequence(|input, sequence| {
        let shown = input.escape_ascii();
        let limit = context.limits.line_bytes_max;
        let expected = twin::decode_repairing(input, limit).expect("the input has an end");
        assert_eq!(expected.end, twin::decode(input, limit).expect("the same end").end, "{shown}");
        let whole = take_in_every_way(&context, b"DATA\r\n", input, sequence);
        let findings = twin::findings(&expected.content, limit);
        assert!(!findings.bare_cr && !findings.bare_lf && !findings.nul, "{shown}");
        assert_eq!(whole.messages, [expected.content], "{shown}");
        let replies = whole.replies.iter().filter(|octet| **octet == b'\n').count();
        assert!(replies == 1 || expected.end < input.len(), "{shown}: {}", whole.replies.escape_ascii());
    });
}

/// A chunk is one message or none whatever it holds, and what is behind it a command. By the strict rules what is
/// stored is the chunk; repaired, it consists of whole lines.
fn chunks(line_endings: LineEndings) {
    let context = context(line_endings);
    let (limit, repairs) = (context.limits.line_bytes_max, line_endings == LineEndings::Repair);
    every_sequence(|chunk, sequence| {
        let shown = chunk.escape_ascii();
        let command = format!("BDAT {} LAST\r\n", chunk.len());
        let input = [chunk, b"NOOP\r\n"].concat();
        let whole = take_in_every_way(&context, command.as_bytes(), &input, sequence);
        let stored = twin::counted(chunk, repairs, limit).0;
        let findings = twin::findings(&stored, limit);
        let is_sound = !findings.bare_cr && !findings.bare_lf && !findings.nul;
        assert!(is_sound || !repairs, "{shown}");
        assert!(repairs || stored == chunk, "{shown}");
        assert_eq!(whole.messages, if is_sound { vec![stored] } else { vec![] }, "{shown}");
        let replies: Vec<&[u8]> = whole.replies.split_inclusive(|octet| *octet == b'\n').collect();
        let code: &[u8] = if is_sound { b"250 2.0.0" } else { b"550 5." };
        assert_eq!(replies.len(), 2, "{shown}: {}", whole.replies.escape_ascii());
        assert!(replies[0].starts_with(code) && replies[1].starts_with(b"250"), "{shown}");
    });
}

/// RFC 3030 section 2.
#[test]
fn a_chunk_is_never_two_messages_whatever_it_holds() {
    chunks(LineEndings::Strict);
}

#[test]
fn a_chunk_that_is_repaired_is_never_two_messages_either() {
    chunks(LineEndings::Repair);
}
