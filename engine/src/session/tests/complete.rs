//! Nothing is left out: every command in every state, every limit, every answer.

use super::*;
use crate::smtp::command::NotOffered;
use crate::smtp::parse_command;
use State::*;

const HELLO: &str = "EHLO c.example";
const MAIL: &str = "MAIL FROM:<a@b.example>";
const RCPT: &str = "RCPT TO:<joe@winery.example>";

/// What leads to each state that awaits a command: AwaitHello, AwaitMail, AwaitRcpt, AwaitRcptOrData, AwaitBdat.
const SCRIPTS: [&[&str]; 5] =
    [&[], &[HELLO], &[HELLO, MAIL], &[HELLO, MAIL, RCPT], &[HELLO, MAIL, RCPT, "BDAT 0"]];

/// The code of the reply in each of them, 0 where another thing comes before it, and the state that follows.
type Row = [(u16, State); 5];

/// The same code in every state, and the state stays.
const fn everywhere(code: u16) -> Row {
    [(code, AwaitHello), (code, AwaitMail), (code, AwaitRcpt), (code, AwaitRcptOrData), (code, AwaitBdat)]
}

/// In each state another code, and the state stays.
const fn staying(codes: [u16; 5]) -> Row {
    let [a, b, c, d, e] = codes;
    [(a, AwaitHello), (b, AwaitMail), (c, AwaitRcpt), (d, AwaitRcptOrData), (e, AwaitBdat)]
}

/// The table. Each row has the commands that it stands for, so that the compiler asks for a row where a
/// command has none.
macro_rules! rows {
    ($($command:pat => $line:expr, $row:expr;)*) => {
        const ROWS: &[(&str, Row)] = &[$(($line, $row)),*];

        fn has_a_row(command: &Command<'_>, line: &str) -> bool {
            match command {
                $($command => line == $line,)*
            }
        }
    };
}

rows! {
    Command::Ehlo(_) => HELLO, [(250, AwaitMail); 5];
    Command::Helo(_) => "HELO c.example", [(250, AwaitMail); 5];
    Command::Mail(_) => MAIL,
        [(503, AwaitHello), (250, AwaitRcpt), (503, AwaitRcpt), (503, AwaitRcptOrData), (503, AwaitBdat)];
    Command::Rcpt(_) => RCPT,
        [(503, AwaitHello), (503, AwaitMail), (250, AwaitRcptOrData), (250, AwaitRcptOrData), (503, AwaitBdat)];
    Command::Data => "DATA",
        [(503, AwaitHello), (503, AwaitMail), (554, AwaitRcpt), (0, AwaitSpool), (503, AwaitBdat)];
    // The answer to a refused chunk comes at its end.
    Command::Bdat(_) => "BDAT 1 LAST",
        [(0, AwaitChunkEnd), (0, AwaitChunkEnd), (0, AwaitChunkEnd), (0, AwaitSpool), (0, AwaitChunk)];
    Command::Rset => "RSET", [(250, AwaitHello), (250, AwaitMail), (250, AwaitMail), (250, AwaitMail), (250, AwaitMail)];
    Command::Noop => "NOOP", everywhere(250);
    Command::Vrfy => "VRFY x", everywhere(252);
    Command::Help => "HELP", everywhere(214);
    Command::Quit => "QUIT", [(221, Closed); 5];
    Command::StartTls => "STARTTLS", everywhere(502);
    Command::Auth(_) => "AUTH PLAIN", everywhere(502);
    Command::Xclient(_) => "XCLIENT NAME=x", everywhere(502);
    Command::NotOffered(NotOffered::Etrn) => "ETRN x", everywhere(502);
    Command::NotOffered(NotOffered::Expn) => "EXPN x", everywhere(502);
    Command::NotOffered(NotOffered::Turn) => "TURN", everywhere(502);
}

/// Other lines: chunks of no octets, and what is no command.
const OTHERS: &[(&str, Row)] = &[
    (
        "BDAT 0 LAST",
        [(503, AwaitHello), (503, AwaitMail), (554, AwaitMail), (0, AwaitSpool), (0, AwaitCommit)],
    ),
    (
        "BDAT 0 LOST",
        [(501, AwaitHello), (501, AwaitMail), (501, AwaitMail), (501, AwaitMail), (501, AwaitMail)],
    ),
    ("BDAT x LAST", [(501, Closed); 5]),
    ("FOO", everywhere(500)),
    ("GET / HTTP/1.0", [(500, Closed); 5]),
    ("VRFY", staying([501; 5])),
];

/// RFC 5321 section 4.1.4.
#[test]
fn every_verb_has_its_answer_in_every_state() {
    for (line, _) in ROWS {
        let command = parse_command(line.as_bytes()).unwrap_or_else(|fault| panic!("{line}: {fault:?}"));
        assert!(has_a_row(&command, line), "{line} is {command:?}");
    }
    for (line, answers) in ROWS.iter().chain(OTHERS) {
        for (script, (code, next)) in SCRIPTS.iter().zip(answers) {
            let (mut session, mut out) = (after(script), Vec::new());
            let input = format!("{line}\r\n");
            let (mut consumed, mut step) = session.advance(0, input.as_bytes(), &mut out);
            // What there is of a message goes before the answer.
            if step == Step::Abandon {
                assert_eq!(script.len(), 4, "{line} after {script:?}: there is no message");
                let (more, then) = session.advance(0, &input.as_bytes()[consumed..], &mut out);
                (consumed, step) = (consumed + more, then);
            }
            assert_eq!(consumed, input.len());
            let said = out.get(..3).map_or(0, |digits| str::from_utf8(digits).unwrap().parse().unwrap());
            assert_eq!((said, session.state), (*code, *next), "{line} after {script:?}");
            let expected = match next {
                AwaitSpool => Step::Open,
                AwaitCommit => Step::Commit,
                Closed => Step::Close,
                _ => Step::Read,
            };
            assert_eq!(step, expected, "{line} after {script:?}");
        }
    }
}

/// A session that has been told these lines.
fn after(script: &[&str]) -> Session {
    let (commands, chunk) = script.split_at(script.len().min(3));
    let (mut session, mut out) = (session(commands), Vec::new());
    for line in chunk {
        let line = format!("{line}\r\n");
        assert_eq!(session.advance(0, line.as_bytes(), &mut out), (line.len(), Step::Open));
        session.opened(QueueId::from_bits(0), "now", &mut out);
        assert_eq!(session.advance(0, b"", &mut out), (0, Step::Read));
    }
    session
}

/// Whether octets in this state are taken for a command. The compiler asks where a state is new; one that is
/// to be answered with yes belongs into `SCRIPTS`.
fn awaits_a_command(state: State) -> bool {
    match state {
        AwaitHello | AwaitMail | AwaitRcpt | AwaitRcptOrData | AwaitBdat => true,
        AwaitSpool | AwaitContent | AwaitEnd | AwaitChunk | AwaitChunkEnd => false,
        AwaitCommit | AwaitHandshake | AwaitAdmission | Closed => false,
        // A line of an AUTH exchange is none.
        AwaitResponse | AwaitAnswer => false,
        AwaitCheck => false,
    }
}

#[test]
fn the_table_has_a_column_for_every_state_that_awaits_a_command() {
    let states: Vec<State> = SCRIPTS.iter().map(|script| after(script).state).collect();
    assert_eq!(states, [AwaitHello, AwaitMail, AwaitRcpt, AwaitRcptOrData, AwaitBdat]);
    assert!(states.into_iter().all(awaits_a_command));
}

/// What all dialogues show: the replies, and the limits that they set.
fn shown() -> (String, Vec<String>) {
    let (mut replies, mut limits) = (Vec::new(), Vec::new());
    for dialogue in DIALOGUES.iter().flat_map(|text| script::dialogues(text)) {
        let (said, names) = script::seen(&dialogue);
        replies.extend(said);
        limits.extend(names);
    }
    (String::from_utf8(replies).unwrap(), limits)
}

/// Limits that no session knows of.
const LIMITS_OF_THE_RIM: &[&str] = &["sessions_max"];

/// Answers that no session gives: they come where there is none (shown by the end-to-end tests of limits), and
/// a client to whom the last one would be said is refused before.
const ANSWERS_OF_OTHERS: &[&str] = &[
    "TOO_MANY_SESSIONS",
    "OVERLOADED",
    "TOO_MANY_FROM_NETWORK",
    "TOO_OFTEN_FROM_ADDRESS",
    "TOO_OFTEN_FROM_NETWORK",
    "INTERNAL_FAULT",
    "CLIENT_DENIED",
];

#[test]
fn every_limit_is_set_in_a_dialogue() {
    let (_, limits) = shown();
    let all = format!("{:?}", config().limits);
    let (_, fields) = all.split_once('{').expect("a struct");
    let fields = fields.split(',').filter_map(|field| Some(field.split_once(':')?.0.trim()));
    let missing: Vec<&str> = fields.filter(|field| !limits.iter().any(|limit| limit == field)).collect();
    assert_eq!(missing, LIMITS_OF_THE_RIM);
}

#[test]
fn every_answer_is_given_in_a_dialogue() {
    let (replies, _) = shown();
    let is_missing = |answer: &Answer| {
        let mut words = Vec::new();
        answer.put_with(&mut words, "\0");
        let words = String::from_utf8(words).unwrap();
        let (front, back) = words.trim_end().split_once('\0').unwrap_or((words.trim_end(), ""));
        !replies.lines().any(|line| line.starts_with(front) && line.ends_with(back))
    };
    let missing = reply::ANSWERS.iter().filter(|(_, answer)| is_missing(answer)).map(|(name, _)| *name);
    assert_eq!(missing.collect::<Vec<_>>(), ANSWERS_OF_OTHERS);
}
