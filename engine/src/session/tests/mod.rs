//! The session, by dialogues and by tables.

mod complete;
mod script;
mod smuggling;

use super::*;
use crate::config::LineEndings;
use crate::policy::tests::config;

/// A file of dialogues, by its name; a failure names the dialogue and the line.
macro_rules! dialogues {
    ($($name:ident)*) => {
        /// The text of each file.
        const DIALOGUES: &[&str] =
            &[$(include_str!(concat!("../dialogues/", stringify!($name), ".txt"))),*];
        $(
            #[test]
            fn $name() {
                let text = include_str!(concat!("../dialogues/", stringify!($name), ".txt"));
                let dialogues = script::dialogues(text);
                assert!(!dialogues.is_empty());
                dialogues.iter().for_each(script::play);
            }
        )*
    };
}

dialogues! {
    basics syntax limits content sequence relay starttls bdat binarymime repair header extensions guard xclient
    cut_through
    auth
}

fn session(script: &[&str]) -> Session {
    let context = Arc::new(Context::new(&config(), 0));
    let mut out = Vec::new();
    let mut session = Session::new(context, "192.0.2.9:4711".parse().unwrap(), None, 0, &mut out);
    for line in script {
        let line = format!("{line}\r\n");
        assert_eq!(session.advance(0, line.as_bytes(), &mut out), (line.len(), Step::Read));
    }
    session
}

/// What a client can say in a few lines of a wild alphabet never makes the session panic, and the whole
/// input has the same replies as its octets one by one.
#[test]
fn short_conversations_of_odd_octets_are_answered_alike_in_any_pieces() {
    let words: [&[u8]; 8] =
        [b"\r\n", b"\n", b"\r", b"RSET", b" ", b"\0", b"\xff", b"MAIL FROM:<a@b.example>"];
    for number in 0..words.len().pow(5) {
        let input: Vec<u8> =
            (0..5).flat_map(|place| words[number / words.len().pow(place) % words.len()]).copied().collect();
        let (mut whole, mut apart) = (Vec::new(), Vec::new());
        session(&["EHLO c"]).advance(0, &input, &mut whole);
        let mut session = session(&["EHLO c"]);
        let mut start = 0;
        for end in 1..=input.len() {
            let (consumed, step) = session.advance(0, &input[start..end], &mut apart);
            assert_eq!(step, Step::Read);
            start += consumed;
        }
        assert_eq!(whole, apart, "{}", input.escape_ascii());
    }
}

#[test]
fn the_range_of_content_counts_from_the_start_of_the_input() {
    let mut session = session(&["HELO c", "MAIL FROM:<>", "RCPT TO:<joe@winery.example>"]);
    let mut out = Vec::new();
    assert_eq!(session.advance(0, b"DATA\r\n", &mut out), (6, Step::Open));
    session.opened(QueueId::from_bits(0), "now", &mut out);
    // The first dot is consumed without content, then a range begins behind it.
    assert_eq!(session.advance(0, b".", &mut out), (1, Step::Read));
    assert_eq!(session.advance(0, b".a\r\n..b", &mut out), (4, Step::Content(0..4)));
    assert_eq!(session.advance(0, b"..b", &mut out), (3, Step::Content(1..3)));
    assert!(session.is_in_message() && !session.is_closed());
    assert_eq!(session.content_refusal(), None);
    assert_eq!(session.advance(0, b"\0", &mut out), (1, Step::Abandon));
    assert_eq!(session.content_refusal(), Some(&reply::NUL_IN_CONTENT));
    assert_eq!((session.hello_name(), session.sender()), (Some("c"), Some("")));
    assert_eq!(session.recipients().len(), 1);
}

#[test]
fn an_octet_of_a_command_does_not_buy_more_time() {
    let mut session = session(&[]);
    assert_eq!(session.deadline(), 300_000);
    session.advance(200_000, b"NOO", &mut Vec::new());
    assert_eq!(session.deadline(), 300_000);
    session.advance(250_000, b"NOOP\r\n", &mut Vec::new());
    assert_eq!(session.deadline(), 550_000);
}

/// 20,000 sessions of a shard must fit beside everything else.
#[test]
fn an_idle_session_is_small() {
    assert!(size_of::<Session>() <= 448, "{} octets", size_of::<Session>());
}

/// A group of small commands with long replies neither takes memory nor is it handled at one go.
#[test]
fn replies_are_flushed_within_a_long_group_of_commands() {
    let mut config = config();
    config.listeners[0].limits.junk_commands_max = 0;
    let mut out = Vec::new();
    let client = "192.0.2.9:4711".parse().unwrap();
    let mut session = Session::new(Arc::new(Context::new(&config, 0)), client, None, 0, &mut out);
    let input = b"HELP\r\n".repeat(10_000);
    let (mut used, mut flushes) = (0, 0);
    loop {
        let (consumed, step) = session.advance(0, &input[used..], &mut out);
        used += consumed;
        assert!(out.len() < 2 * REPLIES_OCTETS_MAX);
        out.clear();
        match step {
            Step::Flush => flushes += 1,
            Step::Read => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(used, input.len());
    assert!(flushes > 10, "{flushes}");
}

/// RFC 8689 section 2: within TLS only; and only when the sending side can keep it.
#[test]
fn requiretls_is_announced_within_tls_by_who_can_keep_it() {
    let mut plain = session(&["EHLO c"]);
    let announced = |session: &Session, can: bool| {
        let mut lines = Vec::new();
        session.announce(&session.offers_with(can), &mut lines);
        lines.contains(&"REQUIRETLS".to_owned())
    };
    assert_eq!((announced(&plain, false), announced(&plain, true)), (false, false));
    let cipher = "TLS_AES_256_GCM_SHA384".into();
    plain.tls = Some(Box::new(TlsFacts {
        version: "TLSv1.3",
        cipher,
        resumed: false,
        name: None,
        client: None,
        bindings: Default::default(),
    }));
    assert_eq!((announced(&plain, false), announced(&plain, true)), (false, true));
}

/// Up to where content may come.
const OPENING: &[u8] = b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<joe@winery.example>\r\n";

fn new_session(context: &Arc<Context>) -> Session {
    Session::new(context.clone(), "192.0.2.9:4711".parse().unwrap(), None, 0, &mut Vec::new())
}

/// Feeds a stream in pieces of so many octets; gives the codes of the replies and the messages.
fn converse(session: &mut Session, stream: &[u8], piece: usize) -> (Vec<u16>, Vec<Vec<u8>>) {
    let (mut out, mut input) = (Vec::new(), Vec::new());
    let (mut draft, mut messages) = (Vec::new(), Vec::new());
    for octets in stream.chunks(piece) {
        input.extend_from_slice(octets);
        loop {
            let (consumed, step) = session.advance(0, &input, &mut out);
            match &step {
                Step::Open => drop(session.opened(QueueId::from_bits(0), "now", &mut out)),
                Step::Content(range) => draft.extend_from_slice(&input[range.clone()]),
                Step::Insert(octets) => draft.extend_from_slice(octets),
                Step::Abandon => draft.clear(),
                Step::Commit => {
                    messages.push(std::mem::take(&mut draft));
                    session.committed(Ok(()), &mut out);
                }
                Step::Close => draft.clear(),
                Step::Read
                | Step::Flush
                | Step::Pause(_)
                | Step::Readmit
                | Step::StartTls
                | Step::Authenticate
                | Step::Check => {}
            }
            input.drain(..consumed);
            if matches!(step, Step::Read | Step::Close) {
                break;
            }
        }
    }
    assert!(draft.is_empty() || session.is_in_message());
    let replies = String::from_utf8(out).unwrap();
    let codes = replies.lines().filter(|line| line.as_bytes()[3] == b' ');
    (codes.map(|line| line[..3].parse().unwrap()).collect(), messages)
}

/// The twin of BDAT: the whole stream at once, after MAIL and RCPT. For clients that say only BDAT and RSET.
fn bdat_twin(stream: &[u8]) -> (Vec<u16>, Vec<Vec<u8>>) {
    let (mut codes, mut messages) = (Vec::new(), Vec::new());
    let (mut in_transaction, mut failed, mut content) = (true, false, Vec::new());
    let mut rest = stream;
    while let Some(lf) = rest.iter().position(|octet| *octet == b'\n') {
        let line = String::from_utf8(rest[..lf].to_vec()).unwrap();
        rest = &rest[lf + 1..];
        let words: Vec<&str> = line.split(' ').collect();
        if line == "RSET\r" {
            (in_transaction, failed) = (false, false);
            codes.push(250);
            continue;
        }
        let size = words.get(1).and_then(|word| word.trim_end_matches('\r').parse::<usize>().ok());
        let (true, Some(size)) = (line.starts_with("BDAT ") && line.ends_with('\r'), size) else {
            codes.push(500);
            continue;
        };
        let Some((chunk, behind)) = rest.split_at_checked(size) else { break };
        rest = behind;
        let last = words.last() == Some(&"LAST\r");
        if !in_transaction && !failed {
            codes.push(503);
            continue;
        }
        content.extend_from_slice(chunk);
        // A CR at the very end may be the first half of CRLF yet.
        let decided = &content[..content.len() - usize::from(!last && content.ends_with(b"\r"))];
        let text = String::from_utf8(decided.to_vec()).unwrap().replace("\r\n", "");
        failed |= text.contains(['\r', '\n']);
        codes.push(if failed { 550 } else { 250 });
        if last && !failed {
            if !content.is_empty() && !content.ends_with(b"\r\n") {
                content.extend_from_slice(b"\r\n");
            }
            messages.push(content.clone());
        }
        (in_transaction, failed) = (!failed && !last, failed && !last);
        if last {
            content.clear();
        }
    }
    (codes, messages)
}

/// RFC 3030 section 2: chunks, commands between them, and octets that look like either, whole and octet by
/// octet.
#[test]
fn bdat_agrees_with_its_twin_on_every_short_stream() {
    let words: [&[u8]; 8] = [
        b"BDAT 0\r\n",
        b"BDAT 1\r\n",
        b"BDAT 2 LAST\r\n",
        b"BDAT 0 LAST\r\n",
        b"RSET\r\n",
        b"\r",
        b"\n",
        b".",
    ];
    let context = Arc::new(Context::new(&config(), 0));
    let mut messages = 0;
    for number in 0..words.len().pow(5) {
        let stream: Vec<u8> =
            (0..5).flat_map(|place| words[number / words.len().pow(place) % words.len()]).copied().collect();
        let expected = bdat_twin(&stream);
        messages += expected.1.len();
        for piece in [stream.len(), 1, 1 + number % stream.len()] {
            let mut session = new_session(&context);
            converse(&mut session, OPENING, OPENING.len());
            assert_eq!(converse(&mut session, &stream, piece), expected, "{}", stream.escape_ascii());
        }
    }
    assert!(messages > 5_000, "{messages}");
}
