//! The session, by dialogues and by tables.

mod script;

use super::*;
use crate::policy::tests::config;

/// A file of dialogues, by its name; a failure names the dialogue and the line.
macro_rules! dialogues {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let dialogues = script::dialogues(include_str!(concat!("../dialogues/", stringify!($name), ".txt")));
            assert!(!dialogues.is_empty());
            dialogues.iter().for_each(script::play);
        }
    )*};
}

dialogues! { basics syntax limits content sequence relay starttls auth }

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

/// RFC 5321 section 4.1.4: every verb in every state that awaits a command.
#[test]
fn every_verb_has_its_answer_in_every_state() {
    const HELLO: &str = "EHLO c.example";
    const MAIL: &str = "MAIL FROM:<a@b.example>";
    const RCPT: &str = "RCPT TO:<joe@winery.example>";
    let states: [&[&str]; 4] = [&[], &[HELLO], &[HELLO, MAIL], &[HELLO, MAIL, RCPT]];
    use State::*;
    // The reply's code in AwaitHello, AwaitMail, AwaitRcpt, AwaitRcptOrData, and the state that follows.
    let table: &[(&str, [(u16, State); 4])] = &[
        (HELLO, [(250, AwaitMail); 4]),
        ("HELO c.example", [(250, AwaitMail); 4]),
        (MAIL, [(503, AwaitHello), (250, AwaitRcpt), (503, AwaitRcpt), (503, AwaitRcptOrData)]),
        (RCPT, [(503, AwaitHello), (503, AwaitMail), (250, AwaitRcptOrData), (250, AwaitRcptOrData)]),
        ("DATA", [(503, AwaitHello), (503, AwaitMail), (554, AwaitRcpt), (0, AwaitSpool)]),
        ("RSET", [(250, AwaitHello), (250, AwaitMail), (250, AwaitMail), (250, AwaitMail)]),
        ("NOOP", [(250, AwaitHello), (250, AwaitMail), (250, AwaitRcpt), (250, AwaitRcptOrData)]),
        ("VRFY x", [(252, AwaitHello), (252, AwaitMail), (252, AwaitRcpt), (252, AwaitRcptOrData)]),
        ("HELP", [(214, AwaitHello), (214, AwaitMail), (214, AwaitRcpt), (214, AwaitRcptOrData)]),
        ("QUIT", [(221, Closed); 4]),
        ("AUTH PLAIN", [(502, AwaitHello), (502, AwaitMail), (502, AwaitRcpt), (502, AwaitRcptOrData)]),
        ("BDAT 1 LAST", [(502, AwaitHello), (502, AwaitMail), (502, AwaitRcpt), (502, AwaitRcptOrData)]),
        ("ETRN x", [(502, AwaitHello), (502, AwaitMail), (502, AwaitRcpt), (502, AwaitRcptOrData)]),
        ("EXPN x", [(502, AwaitHello), (502, AwaitMail), (502, AwaitRcpt), (502, AwaitRcptOrData)]),
        ("STARTTLS", [(502, AwaitHello), (502, AwaitMail), (502, AwaitRcpt), (502, AwaitRcptOrData)]),
        ("TURN", [(502, AwaitHello), (502, AwaitMail), (502, AwaitRcpt), (502, AwaitRcptOrData)]),
        ("FOO", [(500, AwaitHello), (500, AwaitMail), (500, AwaitRcpt), (500, AwaitRcptOrData)]),
        ("GET / HTTP/1.0", [(500, Closed); 4]),
    ];
    for (line, answers) in table {
        for (script, (code, next)) in states.iter().zip(answers) {
            let mut session = session(script);
            let mut out = Vec::new();
            let (consumed, step) = session.advance(0, format!("{line}\r\n").as_bytes(), &mut out);
            assert_eq!(consumed, line.len() + 2);
            let said = out.get(..3).map_or(0, |digits| str::from_utf8(digits).unwrap().parse().unwrap());
            assert_eq!((said, session.state), (*code, *next), "{line} after {script:?}");
            let expected = match next {
                AwaitSpool => Step::Open,
                Closed => Step::Close,
                _ => Step::Read,
            };
            assert_eq!(step, expected, "{line} after {script:?}");
        }
    }
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

/// SMTP smuggling: around a dot, no sequence but CRLF.CRLF makes two messages of one, and only a message
/// of whole CRLF lines is committed.
#[test]
fn only_crlf_dot_crlf_lets_a_second_message_in() {
    let alphabet = b"\r\n.\0x";
    let mut out = Vec::new();
    for number in 0..alphabet.len().pow(6) {
        let around = (0..6).map(|place| alphabet[number / alphabet.len().pow(place) % alphabet.len()]);
        let mut input = b"a".to_vec();
        input.extend(around);
        input.extend_from_slice(b"RSET\r\n.\r\n");
        let mut session = session(&["HELO c", "MAIL FROM:<>", "RCPT TO:<joe@winery.example>"]);
        session.advance(0, b"DATA\r\n", &mut out);
        session.opened(QueueId::from_bits(0), "now", &mut out);
        out.clear();
        let (mut at, mut messages) = (0, 0);
        loop {
            let (consumed, step) = session.advance(0, &input[at..], &mut out);
            at += consumed;
            match step {
                Step::Read => break,
                Step::Commit => {
                    messages += 1;
                    session.committed(Ok(()), &mut out);
                }
                _ => {}
            }
        }
        let text = input.escape_ascii();
        let ends_early = input.windows(5).position(|w| w == b"\r\n.\r\n").unwrap() < input.len() - 5;
        let replies = out.windows(2).filter(|w| w == b"\r\n").count();
        // Behind an early end there are commands: the RSET and what stands before it, and the dot.
        assert!(messages <= 1 && (replies == 1 || ends_early), "{text}: {}", out.escape_ascii());
        if messages == 1 && !ends_early {
            let body = &input[..input.len() - 3];
            let bare = |octet: u8| {
                body.iter().filter(|b| **b == octet).count()
                    != body.windows(2).filter(|w| w == b"\r\n").count()
            };
            assert!(!bare(b'\r') && !bare(b'\n') && !body.contains(&0), "{text}");
        }
    }
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
