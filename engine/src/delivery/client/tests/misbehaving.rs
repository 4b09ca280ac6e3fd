//! Peers that misbehave at every point: a table of what a peer may say in place of a reply, at each command, by DATA,
//! by BDAT, without PIPELINING, through STARTTLS and AUTH. What must come of each cell is worked out here from the
//! rules of RFC 5321, independently of the states of the client.

use super::*;
use crate::config::Login;
use crate::delivery::reply_reader::REPLY_LINES_MAX;

/// Where the peer is asked for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    EhloInTls,
    Auth,
    Mail,
    Rcpt,
    Data,
    /// In the middle of the content.
    Content,
    EndOfData,
    Chunk,
    /// RSET of the second transaction.
    Rset,
    /// MAIL of the second transaction.
    MailAgain,
    /// Nothing is asked: between two transactions.
    Idle,
    Quit,
}

const POINTS: [Point; 16] = [
    Point::Greeting,
    Point::Ehlo,
    Point::Helo,
    Point::StartTls,
    Point::EhloInTls,
    Point::Auth,
    Point::Mail,
    Point::Rcpt,
    Point::Data,
    Point::Content,
    Point::EndOfData,
    Point::Chunk,
    Point::Rset,
    Point::MailAgain,
    Point::Idle,
    Point::Quit,
];

/// What comes in place of the reply.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Say {
    /// A sound reply of this code.
    Code(u16),
    /// Not a reply.
    Noise(&'static str, Vec<u8>),
    /// A half reply, then nothing more until the deadline.
    Silence(&'static str),
    /// A half reply, then the end of the connection.
    Cut(&'static str),
}

fn sayings() -> Vec<Say> {
    let noise = |name, octets: &[u8]| Say::Noise(name, octets.to_vec());
    let endless = |line: &[u8]| line.repeat(REPLY_LINES_MAX + 1);
    let mut all: Vec<Say> = [
        220, 221, 250, 251, 252, 334, 354, 399, 421, 450, 452, 455, 500, 502, 503, 521, 530, 550, 552, 554,
        555,
    ]
    .map(Say::Code)
    .into();
    all.extend([
        noise("1yz", b"150 Wait\r\n"),
        noise("6yz", b"650 No such class\r\n"),
        noise("0yz", b"050 x\r\n"),
        noise("9yz", b"999 x\r\n"),
        noise("two digits", b"25 Ok\r\n"),
        noise("four digits", b"2500 Ok\r\n"),
        noise("no code", b"Ok\r\n"),
        noise("empty line", b"\r\n"),
        noise("NUL", b"\0\0\0\0\r\n"),
        noise("NUL for the space", b"250\0Ok\r\n"),
        noise("tab for the space", b"250\tOk\r\n"),
        noise("HTTP", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
        noise("TLS alert", b"\x15\x03\x01\x00\x02\x02\x28\r\n"),
        noise("mismatched codes", b"250-a\r\n550 b\r\n"),
        noise("mismatched within", b"550-a\r\n250-b\r\n550 c\r\n"),
        noise("endless multiline", &endless(b"250-x\r\n")),
        noise("endless refusal", &endless(b"550-x\r\n")),
        noise("endless empty lines", &endless(b"250-\r\n")),
        noise("a line without end", &[b'2'; 5_000]),
        noise("huge lines", &[b"250-".as_slice(), &[b'a'; 1_900], b"\r\n"].concat().repeat(20)),
    ]);
    all.extend(["", "2", "250", "250 Ok", "250-Ok\r\n", "550-5.1.1 No\r\n5"].map(Say::Silence));
    all.extend(["", "2", "250 Ok", "250-Ok\r\n250", "421 4.", "550-x\r\n"].map(Say::Cut));
    all
}

/// How a code may be dressed without meaning anything else.
fn dresses(code: u16) -> Vec<Vec<u8>> {
    let long = "x".repeat(594);
    let hundred: String = (0..100).map(|number| format!("{code}-line {number}\r\n")).collect();
    [
        format!("{code} text\r\n"),
        format!("{code}\r\n"),
        format!("{code} \r\n"),
        format!("{code} bare LF\n"),
        format!("{code} {long}\r\n"),
        format!("{code}-one\r\n{code}-\r\n{code} three\r\n"),
        format!("{hundred}{code} end\r\n"),
    ]
    .map(String::into_bytes)
    .into_iter()
    .chain([[format!("{code} ").as_bytes(), b"a\0b\x07\xff\xfe\r\n"].concat()])
    .collect()
}

/// What must come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// The session goes on: it can be driven to its end by good replies.
    On,
    /// The transaction is over; the session goes on. Lasting or not.
    Refused { lasting: bool },
    /// The transaction is over and so is the session; nothing is returned to a sender.
    RefusedAndClosed { lasting: bool },
    /// Both recipients are delivered.
    Delivered,
    /// The session is over; what was open waits.
    Failed,
    /// QUIT is through: nothing is open and nothing is expected.
    Closed,
}

/// The table.
fn expected(point: Point, say: &Say) -> Expected {
    use Expected::{Closed, Delivered, Failed, On, Refused, RefusedAndClosed};
    let Say::Code(code) = *say else { return Failed };
    let class = code / 100;
    let lasting = class == 5;
    match (point, class) {
        (Point::Quit, _) => Closed,
        (_, _) if code == 421 => Failed,
        (Point::Greeting | Point::Helo, 2) => On,
        // It may know HELO.
        (Point::Ehlo, 2 | 5) => On,
        (Point::EhloInTls | Point::Auth, 2) => On,
        // In clear text then: the route may.
        (Point::StartTls, _) => On,
        (Point::Greeting | Point::Ehlo | Point::Helo | Point::EhloInTls | Point::Auth, _) => Failed,
        (Point::Mail | Point::Rcpt | Point::MailAgain, 2) => On,
        (Point::Mail | Point::Rcpt | Point::Data | Point::MailAgain, 4 | 5) => {
            Refused { lasting: lasting && !(point == Point::Rcpt && code == 552) }
        }
        (Point::Data, 3) => On,
        // What is left of the content cannot be taken back.
        (Point::Content, 4 | 5) => RefusedAndClosed { lasting },
        (Point::EndOfData | Point::Chunk, 2) => Delivered,
        // It announced BDAT and does not know it: never the message's fault.
        (Point::Chunk, 5) if matches!(code, 500..=504) => RefusedAndClosed { lasting: false },
        (Point::EndOfData | Point::Chunk, 4 | 5) => Refused { lasting },
        (Point::Rset, 2) => On,
        // Nothing was asked.
        (Point::Idle | Point::Content | Point::Rset, _) => Failed,
        (_, _) => Failed,
    }
}

/// A conversation that has come to `point`, and what the client has been told since.
struct Talk {
    client: Client,
    /// A transaction with two recipients is open.
    open: bool,
    now: Millis,
    closed: bool,
}

/// What the client said when it was given a reply.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    StartTls,
    Ready,
    Send,
    Finished(Vec<Fate>),
    Failed(SessionFailure),
    Closed,
}

impl Talk {
    fn new(point: Point) -> Self {
        let starttls = match point {
            Point::StartTls | Point::EhloInTls => StartTls::May,
            _ => StartTls::Never,
        };
        let login = (point == Point::Auth)
            .then(|| Arc::new(Login { user: "u".into(), password: "secret".into(), in_clear_text: true }));
        let client = open_client(Opening { starttls, in_tls: false, login });
        let mut talk = Self { client, open: false, now: HOUR, closed: false };
        talk.come_to(point);
        talk
    }

    /// Feeds octets in pieces of at most `piece`; the first event that matters is given.
    fn hear(&mut self, octets: &[u8], piece: usize) -> Told {
        let pieces: Vec<&[u8]> = if octets.is_empty() { vec![b""] } else { octets.chunks(piece).collect() };
        for octets in pieces {
            let mut out = Vec::new();
            let (consumed, event) = self.client.advance(self.now, octets, &mut out);
            assert!(out.is_empty() || out.ends_with(b"\r\n"), "{out:?}");
            let told = match event {
                Event::Read => {
                    assert_eq!(consumed, octets.len());
                    continue;
                }
                Event::StartTls => Told::StartTls,
                Event::Ready => Told::Ready,
                Event::Send(_) => Told::Send,
                Event::Finished(fates) => Told::Finished(fates),
                Event::Failed(end) => Told::Failed(end),
                Event::Closed => Told::Closed,
            };
            self.open &= !matches!(told, Told::Finished(_) | Told::Failed(_));
            self.closed = self.client.is_closed();
            return told;
        }
        Told::Nothing
    }

    fn say(&mut self, reply: &str) -> Told {
        self.hear(format!("{reply}\r\n").as_bytes(), usize::MAX)
    }

    fn begin(&mut self) {
        let recipients = ["r1@b.example", "r2@b.example"].into_iter();
        self.client.begin(self.now, plain("s@a.example", recipients.map(Rcpt::from)), &mut Vec::new());
        self.open = true;
        if self.hear(b"", 1) == Told::Send {
            self.client.content_sent(self.now);
        }
    }

    fn come_to(&mut self, point: Point) {
        if point == Point::Greeting {
            return;
        }
        self.say("220 mx");
        match point {
            Point::Ehlo => return,
            Point::Helo => {
                self.say("500 What?");
                return;
            }
            Point::Auth => {
                self.say("250-mx\r\n250 AUTH PLAIN");
                return;
            }
            Point::StartTls | Point::EhloInTls => {
                self.say("250-mx\r\n250 STARTTLS");
                if point == Point::EhloInTls {
                    assert_eq!(self.say("220 Go"), Told::StartTls);
                    self.client.tls_started(self.now, &mut Vec::new());
                }
                return;
            }
            Point::Chunk | Point::Rset => {
                self.say("250-mx\r\n250-PIPELINING\r\n250 CHUNKING");
            }
            _ => {
                self.say("250 mx");
            }
        }
        assert!(self.client.is_ready());
        match point {
            Point::Idle => {
                self.finish_one();
                return;
            }
            Point::Quit => {
                self.client.quit(self.now, &mut Vec::new());
                return;
            }
            Point::MailAgain => self.finish_one(),
            _ => {}
        }
        self.begin();
        let before: &[&str] = match point {
            Point::Mail | Point::MailAgain => &[],
            Point::Rcpt => &["250 Ok"],
            Point::Data => &["250 Ok", "250 Ok", "250 Ok"],
            Point::Content | Point::EndOfData => &["250 Ok", "250 Ok", "250 Ok", "354 Go"],
            Point::Chunk => &["250 Ok", "250 Ok", "250 Ok"],
            Point::Rset => &["250 Ok", "250 Ok", "250 Ok", "554 No"],
            other => unreachable!("{other:?}"),
        };
        for reply in before {
            self.say(reply);
        }
        match point {
            Point::EndOfData => self.client.content_sent(self.now),
            Point::Rset => self.begin(),
            _ => {}
        }
    }

    fn finish_one(&mut self) {
        self.begin();
        for reply in ["250 Ok", "250 Ok", "250 Ok", "354 Go"] {
            self.say(reply);
        }
        self.client.content_sent(self.now);
        assert!(matches!(self.say("250 Kept"), Told::Finished(_)));
    }

    /// Good replies from here on: the session must come to its end, with the fates of what is open.
    fn drive_to_the_end(&mut self, point: Point) -> Option<Vec<Fate>> {
        for step in 0.. {
            assert!(step < 20, "no end from {point:?}");
            if self.closed {
                return None;
            }
            if self.client.is_ready() {
                self.client.quit(self.now, &mut Vec::new());
                assert_eq!(self.say("221 Bye"), Told::Closed);
                return None;
            }
            let reply = if self.client.doing() == "sending DATA command" { "354 Go" } else { "250 Ok" };
            match self.say(reply) {
                Told::Send => self.client.content_sent(self.now),
                Told::Finished(fates) => return Some(fates),
                Told::Failed(end) => panic!("good replies after {point:?}: {end:?}"),
                Told::StartTls => self.client.tls_started(self.now, &mut Vec::new()),
                Told::Nothing | Told::Ready | Told::Closed => {}
            }
        }
        None
    }
}

/// Plays one cell in pieces of so many octets, and checks what comes of it.
fn play_cell(point: Point, say: &Say, octets: &[u8], piece: usize) {
    let what = format!("{point:?}, {say:?}, pieces of {piece}");
    let mut talk = Talk::new(point);
    let was_open = talk.open;
    let mut told = talk.hear(octets, piece);
    match say {
        Say::Silence(_) | Say::Cut(_) if told == Told::Nothing => {
            let deadline = talk.client.deadline();
            assert!(deadline < Millis::MAX || point == Point::Idle, "{what}: waits for ever");
            talk.now = deadline;
            let end = match say {
                Say::Silence(_) => talk.client.timed_out(),
                _ => talk.client.disconnected(),
            };
            assert!(talk.client.is_closed(), "{what}");
            talk.open = false;
            talk.closed = true;
            told = Told::Failed(end);
        }
        _ => {}
    }
    let expected = match say {
        // A reply that is whole before the end counts.
        Say::Silence(_) | Say::Cut(_) => Expected::Failed,
        _ => expected(point, say),
    };
    match (expected, told) {
        (Expected::On, Told::Nothing | Told::StartTls | Told::Ready | Told::Send) => {
            if talk.client.state == State::AwaitHandshake {
                talk.client.tls_started(talk.now, &mut Vec::new());
            } else if talk.client.state == State::Sending {
                talk.client.content_sent(talk.now);
            }
            talk.drive_to_the_end(point);
        }
        (Expected::Refused { lasting }, Told::Finished(fates)) => {
            check_refused(&fates, lasting, point, &what);
            assert!(!talk.closed, "{what}");
            talk.drive_to_the_end(point);
        }
        // One recipient of two, or MAIL where the others of the group are still to come.
        (Expected::Refused { lasting }, Told::Nothing) if was_open => {
            let fates = talk.drive_to_the_end(point).unwrap_or_else(|| panic!("{what}: no fates"));
            check_refused(&fates, lasting, point, &what);
        }
        (Expected::RefusedAndClosed { lasting }, Told::Finished(fates)) => {
            check_refused(&fates, lasting, point, &what);
            assert!(talk.closed, "{what}");
        }
        (Expected::Delivered, Told::Finished(fates)) => {
            assert!(fates.iter().all(|fate| matches!(fate, Fate::Delivered(_))), "{what}: {fates:?}");
            assert!(!talk.closed, "{what}");
        }
        (Expected::Failed, Told::Failed(end)) => {
            assert_eq!(end.fates.len(), if was_open { 2 } else { 0 }, "{what}");
            for fate in &end.fates {
                assert!(
                    matches!(fate, Fate::Failed(failure) if !failure.lasting || failure.scope == Scope::Session),
                    "{what}: {fate:?}"
                );
            }
            assert!(talk.closed, "{what}");
            assert_eq!(
                talk.client.advance(talk.now, b"250 Ok\r\n", &mut Vec::new()).1,
                Event::Closed,
                "{what}"
            );
        }
        // Whatever comes of QUIT, nothing is open.
        (Expected::Closed, Told::Closed | Told::Failed(_)) => assert!(talk.closed, "{what}"),
        (Expected::Failed, Told::Closed) if point == Point::Quit => assert!(talk.closed, "{what}"),
        (expected, told) => panic!("{what}: {told:?} where {expected:?} is due"),
    }
}

fn check_refused(fates: &[Fate], lasting: bool, point: Point, what: &str) {
    assert_eq!(fates.len(), 2, "{what}");
    let refused = if point == Point::Rcpt { &fates[..1] } else { fates };
    for fate in refused {
        let Fate::Failed(failure) = fate else { panic!("{what}: {fate:?}") };
        assert_eq!((failure.lasting, failure.status.0 == 5), (lasting, lasting), "{what}");
    }
    if point == Point::Rcpt {
        assert!(matches!(fates[1], Fate::Delivered(_)), "{what}: {fates:?}");
    }
}

#[test]
fn every_saying_at_every_point_leaves_a_defined_state() {
    let mut cells = 0;
    for point in POINTS {
        for say in sayings() {
            let octets: Vec<Vec<u8>> = match &say {
                Say::Code(code) => dresses(*code),
                Say::Noise(_, octets) => vec![octets.clone()],
                Say::Silence(half) | Say::Cut(half) => vec![half.as_bytes().to_vec()],
            };
            // 220 would be the way into TLS, and into TLS only a handshake leads.
            if point == Point::StartTls && say == Say::Code(220) {
                continue;
            }
            for octets in octets {
                for piece in [usize::MAX, 1, 7, 512] {
                    play_cell(point, &say, &octets, piece);
                    cells += 1;
                }
            }
        }
    }
    assert!(cells > 5_000, "{cells}");
}

/// CVE-2011-0411 and its kin for a client: what stands behind a reply was put there before the peer could know what
/// it would be asked. Behind the 220 of STARTTLS it could have come from anybody on the way.
#[test]
fn replies_ahead_of_their_question_are_taken_at_no_point() {
    let injections: [&[u8]; 6] = [
        b"250 2.0.0 Ok\r\n",
        b"250-mx\r\n250-AUTH PLAIN\r\n250 CHUNKING\r\n",
        b"2",
        b"\n",
        b"\0",
        b"250 2.1.0 a\r\n250 2.1.5 b\r\n250 2.1.5 c\r\n354 d\r\n250 2.0.0 e\r\n",
    ];
    let asking = [
        (Point::Greeting, "220 mx"),
        (Point::Ehlo, "250-mx\r\n250 STARTTLS"),
        (Point::Ehlo, "500 What?"),
        (Point::StartTls, "220 Go"),
        (Point::StartTls, "454 No"),
        (Point::EhloInTls, "250 mx"),
        (Point::Auth, "235 Ok"),
        (Point::Mail, "250 Ok"),
        (Point::Rcpt, "250 Ok"),
        (Point::Data, "354 Go"),
        (Point::EndOfData, "250 Kept"),
    ];
    for (point, reply) in asking {
        for injection in injections {
            let mut talk = Talk::new(point);
            let was_open = talk.open;
            let octets = [reply.as_bytes(), b"\r\n", injection].concat();
            match talk.hear(&octets, usize::MAX) {
                Told::Failed(end) => assert_eq!(end.fates.len(), if was_open { 2 } else { 0 }, "{point:?}"),
                // The transaction was over already, by its own reply; nothing more is believed.
                Told::Finished(_) => assert_eq!(point, Point::EndOfData),
                told => panic!("{point:?} {:?}: {told:?}", injection.escape_ascii().to_string()),
            }
            assert!(talk.closed, "{point:?} {:?}", injection.escape_ascii().to_string());
        }
    }
}

/// The same for what comes while the handshake is under way.
#[test]
fn octets_between_220_and_the_handshake_end_the_session() {
    let mut talk = Talk::new(Point::StartTls);
    assert_eq!(talk.say("220 Go"), Told::StartTls);
    assert!(matches!(talk.say("250 injected"), Told::Failed(_)));
}

/// More replies than commands, or in another order than theirs, deliver nothing that was not accepted.
#[test]
fn a_group_with_too_many_replies_or_in_another_order_delivers_nothing() {
    let table = [
        // Too many.
        "250 a\r\n250 b\r\n250 c\r\n250 d\r\n354 e\r\n250 f\r\n",
        // 354 first.
        "354 e\r\n250 a\r\n250 b\r\n250 c\r\n",
        // 354 between.
        "250 a\r\n354 e\r\n250 b\r\n250 c\r\n",
        // The end first.
        "250 a\r\n250 b\r\n250 c\r\n250 kept\r\n354 e\r\n",
        // One too few, then the end.
        "250 a\r\n250 b\r\n354 e\r\n250 kept\r\n",
        // All of another transaction.
        "250 a\r\n250 b\r\n250 c\r\n354 e\r\n250 kept\r\n250 a\r\n",
    ];
    for replies in table {
        for piece in [usize::MAX, 1] {
            let mut talk = Talk::new(Point::Ehlo);
            assert_eq!(talk.say("250-mx\r\n250 PIPELINING"), Told::Ready);
            talk.begin();
            let mut told = talk.hear(replies.as_bytes(), piece);
            if told == Told::Send {
                // Octet by octet the 354 is not seen to have something behind it yet: the rim goes on writing.
                told = talk.say("250 unasked");
            }
            let Told::Failed(end) = told else { panic!("{replies:?}: {told:?}") };
            assert_eq!(end.fates.len(), 2, "{replies:?}");
            assert!(
                end.fates.iter().all(|fate| matches!(fate, Fate::Failed(f) if !f.lasting)),
                "{replies:?}"
            );
        }
    }
}
