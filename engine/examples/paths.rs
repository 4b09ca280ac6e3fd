//! The hot paths of a message, each by itself, for counting instructions and allocations under valgrind.
//!
//! `paths` lists them; `paths NAME ROUNDS` runs one so many times. Everything is in memory and in one thread, the
//! clock stands still: two runs do the same. `tests/tests/cost.rs` counts, and holds the figures against
//! `tests/cost.txt`.

use futures_lite::future::{block_on, or, zip};
use sluice::config::Config;
use sluice::delivery::client::{Asked, Client, ClientSettings, Event, Opening, Rcpt, StartTls, Transaction};
use sluice::delivery::verdict::Peer;
use sluice::observe::line;
use sluice::session::{Context, Session, Step};
use sluice::smtp::content::{Decoder, Piece};
use sluice::smtp::parse_command;
use sluice_queue::{
    Body, ContentFlags, Envelope, MemoryStorage, Options, Outcome, OutcomeKind, QueueId, Recipient, Spool,
    SpoolNumber,
};
use std::hint::black_box;
use std::sync::Arc;

const NOW_MICROS: u64 = 1_795_000_000_000_000;
const LINE_OCTETS_MAX: usize = 998;
/// Messages that are committed together in `commit of a group`.
const GROUP: usize = 16;

const CONFIG: &str = r#"
hostname   = "relay.example"
postmaster = "postmaster@relay.example"
[spool]
path = "/nowhere"
[[listener]]
name    = "inside"
bind    = ["127.0.0.1:2525"]
clients = ["127.0.0.0/8"]
relay   = "any"
tls     = "off"
[[route]]
domains = ["*"]
hosts   = ["127.0.0.1:2600"]
"#;

/// Name, what one round of it is, and what does so many rounds.
type Path = (&'static str, &'static str, fn(u64));

const PATHS: &[Path] = &[
    ("command", "four command lines of a message parsed", command),
    ("noop", "a session answers NOOP", noop),
    ("session", "a session takes a message of 4 KiB, pipelined", session),
    ("content", "64 KiB of text scanned for the end of data", content),
    ("commit", "a message of 4 KiB into the spool, alone in its batch, and its outcome", commit),
    ("group", "16 messages of 4 KiB into the spool in one batch, and their outcomes", group),
    ("client", "a client session sends a message, without its content", client),
    ("line", "the log line of an accepted message", log_line),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else {
        return PATHS.iter().for_each(|(name, what, _)| println!("{name}: {what}"));
    };
    let rounds = arguments.next().and_then(|rounds| rounds.parse().ok()).expect("paths NAME ROUNDS");
    let (.., run) = PATHS.iter().find(|path| path.0 == name).expect("a path of the list");
    run(rounds);
}

fn config() -> Config {
    Config::parse(CONFIG, "paths").expect("a sound configuration")
}

/// A header and lines of text, `octets` long, without the final dot.
fn text(octets: usize) -> Vec<u8> {
    let mut text = b"From: <source@source.example>\r\nSubject: one of many\r\n\r\n".to_vec();
    while text.len() + 2 < octets {
        let len = (octets - text.len() - 2).min(72);
        text.extend((0..len).map(|at| b'a' + (at * 7 % 26) as u8));
        text.extend_from_slice(b"\r\n");
    }
    text
}

fn command(rounds: u64) {
    let lines = [
        "EHLO source.example",
        "MAIL FROM:<source@source.example> SIZE=4096",
        "RCPT TO:<recipient@sink.example>",
        "DATA",
    ];
    for _ in 0..rounds {
        let parsed = lines.iter().filter(|line| parse_command(black_box(line.as_bytes())).is_ok()).count();
        assert_eq!(parsed, lines.len());
    }
}

/// A session that has been greeted and has said EHLO.
fn greeted() -> Session {
    let context = Arc::new(Context::new(&config(), 0));
    let mut out = Vec::new();
    let client = "127.0.0.1:4711".parse().expect("an address");
    let mut session = Session::new(context, client, None, 0, &mut out);
    session.set_wall_clock(NOW_MICROS);
    let hello = b"EHLO source.example\r\n";
    assert_eq!(session.advance(0, hello, &mut out), (hello.len(), Step::Read));
    session
}

fn noop(rounds: u64) {
    let (mut session, mut out) = (greeted(), Vec::with_capacity(1024));
    for _ in 0..rounds {
        let (consumed, step) = session.advance(0, black_box(b"NOOP\r\n"), &mut out);
        assert_eq!((consumed, step), (6, Step::Read));
        assert!(out.starts_with(b"250 "));
        out.clear();
    }
}

fn session(rounds: u64) {
    let (mut session, mut out) = (greeted(), Vec::with_capacity(1024));
    let commands =
        b"MAIL FROM:<source@source.example> SIZE=4096\r\nRCPT TO:<recipient@sink.example>\r\nDATA\r\n";
    let mut content = text(4096);
    content.extend_from_slice(b".\r\n");
    let number = SpoolNumber::new(0).expect("a number");
    let mut stored = Vec::with_capacity(8192);
    for round in 0..rounds {
        for input in [&commands[..], &content] {
            let mut used = 0;
            loop {
                let (consumed, step) = session.advance(0, &input[used..], &mut out);
                let start = used;
                used += consumed;
                match step {
                    Step::Read => break,
                    Step::Open => {
                        let id = QueueId::new(NOW_MICROS + round, number);
                        let received = session.opened(id, "Sun, 22 Nov 2026 01:20:05 +0000", &mut out);
                        stored.extend_from_slice(&received);
                    }
                    Step::Content(range) => {
                        stored.extend_from_slice(&input[start + range.start..start + range.end]);
                    }
                    Step::Commit => {
                        assert_eq!(session.take_envelope(NOW_MICROS).recipients.len(), 1);
                        session.committed(Ok(()), &mut out);
                    }
                    other => panic!("{other:?} in a plain message"),
                }
            }
            out.clear();
        }
        assert!(stored.len() > 4096);
        stored.clear();
    }
}

fn content(rounds: u64) {
    let mut wire = text(65_536);
    wire.extend_from_slice(b".\r\n");
    for _ in 0..rounds {
        let mut decoder = Decoder::new(LINE_OCTETS_MAX);
        let (mut start, mut octets) = (0, 0);
        loop {
            let end = (start + 16_384).min(wire.len());
            let (consumed, piece) = decoder.decode(black_box(&wire[start..end]));
            start += consumed;
            match piece {
                Piece::Content(range) => octets += range.len(),
                Piece::End => break,
                Piece::More => {}
                Piece::Insert(_) => unreachable!("the strict rules put nothing in"),
            }
        }
        assert_eq!(octets, wire.len() - 3);
    }
}

fn envelope() -> Envelope {
    Envelope {
        sender: "source@source.example".into(),
        recipients: vec![Recipient::new("recipient@sink.example")],
        body: Body::SevenBit,
        arrived_micros: NOW_MICROS,
        listener: "inside".into(),
        helo: "source.example".into(),
        client: "127.0.0.1".into(),
        ..Envelope::default()
    }
}

fn delivered() -> Vec<Outcome> {
    vec![Outcome {
        recipient: 0,
        kind: OutcomeKind::Delivered,
        attempts: 1,
        notified: false,
        at_micros: NOW_MICROS,
        text: String::new(),
    }]
}

/// Runs work on a spool in memory, beside the spool's writer.
fn on_spool<F: Future<Output = ()>>(work: impl FnOnce(Spool<MemoryStorage>) -> F) {
    let number = SpoolNumber::new(0).expect("a number");
    let opened = Spool::open(MemoryStorage::new(), number, Options::default());
    let spool = block_on(opened).expect("an empty spool").0;
    let writer = spool.clone();
    block_on(or(work(spool), async move { writer.writer().await }));
}

async fn store(spool: &Spool<MemoryStorage>, content: &[u8]) -> QueueId {
    let mut draft = spool.begin(NOW_MICROS);
    spool.append(&mut draft, black_box(content)).await.expect("memory takes it");
    spool.commit(draft, Arc::new(envelope()), ContentFlags::default()).await.expect("memory takes it").id
}

fn commit(rounds: u64) {
    let content = text(4096);
    on_spool(async |spool| {
        for _ in 0..rounds {
            let id = store(&spool, &content).await;
            spool.record(id, delivered());
        }
    });
}

fn group(rounds: u64) {
    let content = text(4096);
    on_spool(async |spool| {
        for _ in 0..rounds {
            let (spool, content) = (&spool, &content);
            let all =
                (1..GROUP).fold(boxed(async move { vec![store(spool, content).await] }), |others, _| {
                    boxed(async move {
                        let (mut ids, id) = zip(others, store(spool, content)).await;
                        ids.push(id);
                        ids
                    })
                });
            all.await.into_iter().for_each(|id| spool.record(id, delivered()));
        }
    });
}

type Ids<'a> = std::pin::Pin<Box<dyn Future<Output = Vec<QueueId>> + 'a>>;

fn boxed<'a>(work: impl Future<Output = Vec<QueueId>> + 'a) -> Ids<'a> {
    Box::pin(work)
}

fn client(rounds: u64) {
    let settings = ClientSettings::of_routes(&config()).remove(0);
    let opening = Opening { starttls: StartTls::Never, in_tls: false, login: None };
    let peer = Peer { name: "sink.example".into(), address: "127.0.0.1:2600".parse().expect("an address") };
    let mut client = Client::new(settings, peer, opening, 0);
    let mut out = Vec::with_capacity(1024);
    let greeting = b"220 sink.example ESMTP\r\n";
    assert_eq!(client.advance(0, greeting, &mut out), (greeting.len(), Event::Read));
    let hello = b"250-sink.example\r\n250-PIPELINING\r\n250-SIZE\r\n250 8BITMIME\r\n";
    assert_eq!(client.advance(0, hello, &mut out), (hello.len(), Event::Ready));
    let to = Recipient::new("recipient@sink.example");
    for _ in 0..rounds {
        out.clear();
        let transaction = Transaction {
            sender: "source@source.example",
            recipients: std::iter::once(Rcpt::from(&to)),
            content_bytes: 4096,
            eight_bit: false,
            binary: false,
            asked: Asked { parameters: None, header_utf8: false, now_micros: NOW_MICROS },
            secure: false,
        };
        client.begin(0, transaction, &mut out);
        assert_eq!(client.advance(0, b"", &mut out), (0, Event::Read));
        let replies = b"250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go on\r\n";
        let (consumed, event) = client.advance(0, black_box(replies), &mut out);
        assert!(consumed == replies.len() && matches!(event, Event::Send(_)), "{event:?}");
        client.content_sent(0);
        let (_, event) = client.advance(0, black_box(b"250 2.0.0 taken\r\n"), &mut out);
        assert!(matches!(event, Event::Finished(_)), "{event:?}");
    }
}

fn log_line(rounds: u64) {
    let (envelope, mut text) = (envelope(), Vec::with_capacity(512));
    let id = QueueId::new(NOW_MICROS, SpoolNumber::new(0).expect("a number"));
    for _ in 0..rounds {
        text.clear();
        line::accepted(&mut text, black_box(id), &envelope, 4096);
        assert!(text.ends_with(b"listener=inside"));
    }
}
