//! The session, by dialogues and by tables.

mod complete;
mod script;
mod smuggling;

use super::*;
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

dialogues! { basics syntax limits content sequence relay starttls }

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
    assert!(size_of::<Session>() <= 512, "{} octets", size_of::<Session>());
}

/// A group of small commands with long replies neither takes memory nor is it handled at one go.
#[test]
fn replies_are_flushed_within_a_long_group_of_commands() {
    let (mut session, mut out) = (session(&[]), Vec::new());
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
