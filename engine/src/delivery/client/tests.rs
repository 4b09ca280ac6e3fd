//! Scripted dialogues. `S:` is a line of the peer, `C:` a line of the client, `>` a call of the rim,
//! `=` an event. The runner plays `S:` and `>`, and what then comes out must be the whole script.
//! Each script is played with the peer's octets whole, one by one, and split in two at every place.

mod against_server;
mod asking;
mod auth;
mod chunking;
mod lmtp;
mod misbehaving;
mod pipelined;
mod starttls;

use super::*;
use crate::delivery::verdict::Fate;

const HOUR: Millis = 3_600_000;
const GREETED: &str = "\
S: 220 mx.example ESMTP
C: EHLO relay.example
S: 250-mx.example
S: 250-8BITMIME
S: 250-SIZE 1000
S: 250 PIPELINING
= ready
";
const GREETED_PLAIN: &str = "\
S: 220 mx.example ESMTP
C: EHLO relay.example
S: 250 mx.example
= ready
";
/// A group with two recipients, after `GREETED`.
const GROUP: &str = "\
> begin s@a.example 10 r1@b.example r2@b.example
C: MAIL FROM:<s@a.example> SIZE=10
C: RCPT TO:<r1@b.example>
C: RCPT TO:<r2@b.example>
C: DATA
";

fn settings() -> Arc<ClientSettings> {
    let timeouts = ClientTimeouts { greeting: 1, reply: 10, data: 100, block: 1_000, end_of_data: 10_000 };
    Arc::new(ClientSettings {
        hostname: "relay.example".into(),
        timeouts,
        chunking: true,
        protocol: Protocol::Smtp,
    })
}

/// A transaction of which nothing was asked.
fn plain<'a, R: Iterator<Item = Rcpt<'a>>>(sender: &'a str, recipients: R) -> Transaction<'a, R> {
    Transaction {
        sender,
        recipients,
        content_bytes: 1,
        eight_bit: false,
        binary: false,
        asked: Asked::default(),
        secure: false,
    }
}

fn new_client(starttls: StartTls) -> Client {
    open_client(Opening { starttls, in_tls: false, login: None })
}

fn open_client(opening: Opening) -> Client {
    Client::new(settings(), peer(), opening, HOUR)
}

fn peer() -> Peer {
    Peer { name: "mx.example".into(), address: "192.0.2.1:25".parse().unwrap() }
}

fn show_failure(failure: &Failure) -> String {
    assert_eq!(failure.lasting, failure.status.0 == 5, "{failure:?}");
    format!("{:?} {}", failure.scope, failure.status).to_lowercase()
}

fn show_fates(fates: &[Fate]) -> String {
    let show = |fate: &Fate| match fate {
        Fate::Delivered(reply) => format!("delivered {}", Status::of(reply)),
        Fate::Failed(failure) => show_failure(failure),
    };
    fates.iter().map(show).collect::<Vec<_>>().join(", ")
}

fn show_end(end: &SessionFailure) -> String {
    let stale = if end.was_stale { " stale" } else { "" };
    format!("= failed {}{stale}: {}", show_failure(&end.failure), show_fates(&end.fates))
        .trim_end()
        .to_owned()
}

/// How the octets of a peer are cut into pieces.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Whole,
    Single,
    At(usize),
}

impl Cut {
    fn pieces(self, octets: &[u8]) -> Vec<&[u8]> {
        match self {
            Cut::Whole => vec![octets],
            Cut::Single => octets.chunks(1).collect(),
            Cut::At(at) => <[&[u8]; 2]>::from(octets.split_at(at.min(octets.len()))).to_vec(),
        }
    }
}

struct Play {
    client: Client,
    transcript: String,
    /// The rim has closed the connection, so what is left of the peer's octets is never read.
    is_over: bool,
}

impl Play {
    fn put(&mut self, line: &str) {
        self.transcript.push_str(line);
        self.transcript.push('\n');
    }

    fn put_commands(&mut self, out: &[u8]) {
        let text = std::str::from_utf8(out).unwrap();
        assert!(text.is_empty() || text.ends_with("\r\n"), "{text:?}");
        text.split_terminator("\r\n").for_each(|line| self.put(&format!("C: {line}")));
    }

    fn feed(&mut self, mut input: &[u8]) {
        while !self.is_over {
            let mut out = Vec::new();
            let (consumed, event) = self.client.advance(HOUR, input, &mut out);
            input = &input[consumed..];
            self.put_commands(&out);
            match event {
                Event::Read => {
                    assert!(input.is_empty(), "Read with input left");
                    return;
                }
                Event::StartTls => {
                    self.put("= start tls");
                    assert!(input.is_empty(), "the rim drops nothing, the client ends");
                    return;
                }
                Event::Ready => self.put("= ready"),
                Event::Send(Framing::Dots) => self.put("= send"),
                Event::Send(Framing::Counted) => self.put("= send chunk"),
                Event::Finished(fates) => {
                    let open = if self.client.is_closed() { ", close" } else { "" };
                    self.put(&format!("= finished {}{open}", show_fates(&fates)));
                    self.is_over = self.client.is_closed();
                }
                Event::Failed(end) => {
                    self.put(&show_end(&end));
                    self.is_over = true;
                    assert_closed(&mut self.client);
                }
                Event::Closed => {
                    self.put("= closed");
                    self.is_over = true;
                }
            }
        }
    }

    fn call(&mut self, call: &str) {
        let mut out = Vec::new();
        let words: Vec<&str> = call.split(' ').collect();
        match words[0] {
            "begin" | "begin8" | "begin-binary" => {
                let transaction = Transaction {
                    sender: words[1],
                    recipients: words[3..].iter().copied().map(Rcpt::from),
                    content_bytes: words[2].parse().unwrap(),
                    eight_bit: words[0] == "begin8",
                    asked: Asked::default(),
                    secure: false,
                    binary: words[0] == "begin-binary",
                };
                self.client.begin(HOUR, transaction, &mut out);
                self.put_commands(&out);
                self.feed(b"");
            }
            "ask" => {
                self.client.ask(HOUR, words[1], &mut out);
                self.put_commands(&out);
                self.feed(b"");
            }
            "sent" => self.client.content_sent(HOUR),
            "tls" => {
                self.client.tls_started(HOUR, &mut out);
                self.put_commands(&out);
            }
            "quit" => {
                self.client.quit(HOUR, &mut out);
                self.put_commands(&out);
            }
            "eof" => {
                let end = self.client.disconnected();
                self.put(&show_end(&end));
                assert_closed(&mut self.client);
            }
            "timeout" => {
                let end = self.client.timed_out();
                self.put(&show_end(&end));
            }
            other => panic!("no call {other}"),
        }
    }
}

fn assert_closed(client: &mut Client) {
    let mut out = Vec::new();
    assert_eq!(client.advance(HOUR, b"250 late\r\n", &mut out), (10, Event::Closed));
    assert!(out.is_empty() && !client.is_ready());
    assert_eq!(client.deadline(), Millis::MAX);
}

/// The first lines of a script, `WISH:`, say what the caller wishes.
fn wishes(opening: &mut Opening, wish: &str) {
    match wish {
        "WISH: may" => opening.starttls = StartTls::May,
        "WISH: must" => opening.starttls = StartTls::Must,
        "WISH: in tls" => opening.in_tls = true,
        "WISH: login" | "WISH: login in clear text" => {
            let login = crate::config::Login {
                user: "relay".into(),
                password: "secret".into(),
                in_clear_text: wish.ends_with("clear text"),
            };
            opening.login = Some(Arc::new(login));
        }
        other => panic!("{other}"),
    }
}

fn play(script: &str, cut: Cut) -> String {
    let mut lines = script.lines().peekable();
    let mut opening = Opening { starttls: StartTls::Never, in_tls: false, login: None };
    let mut settings = settings();
    if lines.next_if_eq(&"WISH: lmtp").is_some() {
        settings = Arc::new(ClientSettings { protocol: Protocol::Lmtp, ..ClientSettings::clone(&settings) });
    }
    while let Some(wish) = lines.next_if(|line| line.starts_with("WISH: ")) {
        wishes(&mut opening, wish);
    }
    let client = Client::new(settings, peer(), opening, HOUR);
    let mut play = Play { client, transcript: String::new(), is_over: false };
    while let Some(line) = lines.next() {
        if let Some(call) = line.strip_prefix("> ") {
            play.put(line);
            play.call(call);
        } else if line.starts_with("S: ") {
            let mut block = Vec::new();
            let mut next = Some(line);
            while let Some(line) = next {
                play.put(line);
                block.extend_from_slice(line.strip_prefix("S: ").unwrap().as_bytes());
                block.extend_from_slice(b"\r\n");
                next = lines.next_if(|line| line.starts_with("S: "));
            }
            cut.pieces(&block).into_iter().for_each(|piece| play.feed(piece));
        }
    }
    play.transcript
}

fn holds(script: &str) {
    let longest = script.len() + 2 * script.lines().count();
    let cuts = [Cut::Whole, Cut::Single].into_iter().chain((1..longest.min(400)).map(Cut::At));
    for cut in cuts {
        let spoken: String =
            script.split_inclusive('\n').filter(|line| !line.starts_with("WISH: ")).collect();
        assert_eq!(play(script, cut), spoken, "cut: {cut:?}");
    }
}

#[test]
fn a_pipelined_transaction_goes_as_one_group() {
    holds(&format!(
        "{GREETED}{GROUP}\
S: 250 2.1.0 Ok
S: 250 2.1.5 Ok
S: 250 2.1.5 Ok
S: 354 Go
= send
> sent
S: 250 2.0.0 Ok: queued as 1
= finished delivered 2.0.0, delivered 2.0.0
> begin  10 r3@b.example
C: MAIL FROM:<> SIZE=10
C: RCPT TO:<r3@b.example>
C: DATA
S: 250 Ok
S: 250 Ok
S: 354 Go
= send
> sent
S: 250 Ok
= finished delivered 2.0.0
> quit
C: QUIT
S: 221 Bye
= closed
"
    ));
}

#[test]
fn without_pipelining_each_command_waits_for_its_reply() {
    holds(&format!(
        "{GREETED_PLAIN}\
> begin s@a.example 10 r1@b.example r2@b.example
C: MAIL FROM:<s@a.example>
S: 250 Ok
C: RCPT TO:<r1@b.example>
S: 550 5.1.1 No
C: RCPT TO:<r2@b.example>
S: 251 Ok
C: DATA
S: 354 Go
= send
> sent
S: 250 Ok
= finished recipient 5.1.1, delivered 2.0.0
"
    ));
}

#[test]
fn ehlo_falls_back_to_helo() {
    for code in [500, 502, 550, 554] {
        holds(&format!(
            "S: 220 mx
C: EHLO relay.example
S: {code} What?
C: HELO relay.example
S: 250 mx
= ready
> begin s@a.example 99999 r1@b.example
C: MAIL FROM:<s@a.example>
S: 250 Ok
C: RCPT TO:<r1@b.example>
> eof
= failed session 4.4.2: session 4.4.2
"
        ));
    }
}

#[test]
fn every_class_of_reply_to_greeting_ehlo_and_helo() {
    let ehlo = "S: 220 mx\nC: EHLO relay.example\n";
    let helo = format!("{ehlo}S: 500 No\nC: HELO relay.example\n");
    let table = [
        ("", "S: 320 x\n= failed session 4.5.0:\n"),
        ("", "S: 421 x\n= failed session 4.0.0:\n"),
        ("", "S: 450 4.7.1 x\n= failed session 4.7.1:\n"),
        ("", "S: 554 x\n= failed session 5.0.0:\n"),
        ("", "S: 220-one\nS: 250 two\n= failed session 4.5.0:\n"),
        ("", "S: hello\n= failed session 4.5.0:\n"),
        (ehlo, "S: 354 x\n= failed session 4.5.0:\n"),
        (ehlo, "S: 421 4.3.2 x\n= failed session 4.3.2:\n"),
        (ehlo, "S: 450 x\n= failed session 4.0.0:\n"),
        (ehlo, "S: \n= failed session 4.5.0:\n"),
        (&helo, "S: 354 x\n= failed session 4.5.0:\n"),
        (&helo, "S: 421 x\n= failed session 4.0.0:\n"),
        (&helo, "S: 450 x\n= failed session 4.0.0:\n"),
        (&helo, "S: 550 5.7.1 x\n= failed session 5.7.1:\n"),
    ];
    for (before, rest) in table {
        holds(&format!("{before}{rest}"));
    }
}

#[test]
fn every_class_of_reply_within_a_pipelined_group() {
    // Octets of one connection: replies to MAIL, RCPT, RCPT, DATA, and what becomes of them.
    let table = [
        // MAIL refused: everything behind it follows from that.
        ("S: 450 4.7.1 x\nS: 503 x\nS: 503 x\nS: 503 x", "= finished message 4.7.1, message 4.7.1"),
        ("S: 550 x\nS: 503 x\nS: 503 x\nS: 503 x", "= finished message 5.0.0, message 5.0.0"),
        ("S: 354 x", "= failed session 4.5.0: session 4.5.0, session 4.5.0"),
        ("S: 421 x", "= failed session 4.0.0: session 4.0.0, session 4.0.0"),
        ("S: 550 x\nS: 421 x", "= failed session 4.0.0: message 5.0.0, message 5.0.0"),
        ("S: bad", "= failed session 4.5.0: session 4.5.0, session 4.5.0"),
        // MAIL refused, a recipient accepted all the same, 354: no "." must be sent.
        ("S: 550 x\nS: 250 x\nS: 503 x\nS: 354 x", "= failed session 4.5.0: message 5.0.0, message 5.0.0"),
        // RCPT.
        ("S: 250 x\nS: 354 x", "= failed session 4.5.0: session 4.5.0, session 4.5.0"),
        ("S: 250 x\nS: 550 5.1.1 x\nS: 421 x", "= failed session 4.0.0: recipient 5.1.1, session 4.0.0"),
        ("S: 250 x\nS: 250 x\nS: 421 x", "= failed session 4.0.0: session 4.0.0, session 4.0.0"),
        ("S: 250 x\nS: 450 x\nS: 452 x\nS: 503 x", "= finished recipient 4.0.0, recipient 4.0.0"),
        ("S: 250 x\nS: 552 x\nS: 552 5.2.2 x\nS: 554 x", "= finished recipient 4.0.0, recipient 5.2.2"),
        ("S: 250 x\nS: 552 5.5.3 x\nS: 550 x\nS: 554 x", "= finished recipient 4.5.3, recipient 5.0.0"),
        // DATA.
        ("S: 250 x\nS: 250 x\nS: 550 x\nS: 451 4.3.0 x", "= finished message 4.3.0, recipient 5.0.0"),
        ("S: 250 x\nS: 250 x\nS: 250 x\nS: 554 x", "= finished message 5.0.0, message 5.0.0"),
        ("S: 250 x\nS: 250 x\nS: 250 x\nS: 250 x", "= failed session 4.5.0: session 4.5.0, session 4.5.0"),
        ("S: 250 x\nS: 250 x\nS: 550 x\nS: 421 x", "= failed session 4.0.0: session 4.0.0, recipient 5.0.0"),
        ("S: 250 x\nS: 250 x\nS: 550 x\nS: 354 x", "= send"),
    ];
    for (replies, result) in table {
        holds(&format!("{GREETED}{GROUP}{replies}\n{result}\n"));
    }
}

#[test]
fn every_class_of_reply_without_pipelining() {
    let mail = "> begin s@a.example 1 r1@b.example\nC: MAIL FROM:<s@a.example>\n";
    let rcpt = format!("{mail}S: 250 x\nC: RCPT TO:<r1@b.example>\n");
    let data = format!("{rcpt}S: 250 x\nC: DATA\n");
    let again = "> begin s@a.example 1 r1@b.example\n";
    let table = [
        (mail, format!("S: 452 x\n= finished message 4.0.0\n{again}C: MAIL FROM:<s@a.example>\n")),
        (mail, format!("S: 553 x\n= finished message 5.0.0\n{again}C: MAIL FROM:<s@a.example>\n")),
        (mail, "S: 334 x\n= failed session 4.5.0: session 4.5.0\n".into()),
        (&rcpt, format!("S: 452 x\n= finished recipient 4.0.0\n{again}C: RSET\n")),
        (&rcpt, format!("S: 550 x\n= finished recipient 5.0.0\n{again}C: RSET\n")),
        (&rcpt, "S: 334 x\n= failed session 4.5.0: session 4.5.0\n".into()),
        (&data, format!("S: 452 x\n= finished message 4.0.0\n{again}C: RSET\n")),
        (&data, format!("S: 550 x\n= finished message 5.0.0\n{again}C: RSET\n")),
        (&data, "S: 250 x\n= failed session 4.5.0: session 4.5.0\n".into()),
        (&data, "S: 421 x\n= failed session 4.0.0: session 4.0.0\n".into()),
    ];
    for (before, rest) in table {
        holds(&format!("{GREETED_PLAIN}{before}{rest}"));
    }
}

#[test]
fn every_class_of_reply_to_the_content() {
    let sending = format!("{GREETED}{GROUP}S: 250 x\nS: 250 x\nS: 550 x\nS: 354 x\n= send\n");
    let table = [
        ("> sent\nS: 250 x\n", "= finished delivered 2.0.0, recipient 5.0.0"),
        ("> sent\nS: 354 x\n", "= failed session 4.5.0: session 4.5.0, recipient 5.0.0"),
        ("> sent\nS: 421 x\n", "= failed session 4.0.0: session 4.0.0, recipient 5.0.0"),
        ("> sent\nS: 451 4.7.1 x\n", "= finished message 4.7.1, recipient 5.0.0"),
        ("> sent\nS: 554 5.6.0 x\n", "= finished message 5.6.0, recipient 5.0.0"),
        ("> sent\nS: rubbish\n", "= failed session 4.5.0: session 4.5.0, recipient 5.0.0"),
        // Before end-of-data was sent.
        ("S: 552 5.3.4 x\n", "= finished message 5.3.4, recipient 5.0.0, close"),
        ("S: 452 x\n", "= finished message 4.0.0, recipient 5.0.0, close"),
        ("S: 250 x\n", "= failed session 4.5.0: session 4.5.0, recipient 5.0.0"),
        ("S: 421 x\n", "= failed session 4.0.0: session 4.0.0, recipient 5.0.0"),
    ];
    for (rest, result) in table {
        holds(&format!("{sending}{rest}{result}\n"));
    }
}

/// RFC 2920 section 3.1.
#[test]
fn a_354_without_recipients_is_answered_with_a_dot_alone() {
    for last in ["250 x", "354 x", "451 x", "554 5.5.1 no valid recipients"] {
        holds(&format!(
            "{GREETED}{GROUP}S: 250 x\nS: 550 x\nS: 450 x\nS: 354 x\nC: .\nS: {last}\n\
             = finished recipient 5.0.0, recipient 4.0.0\n> quit\nC: QUIT\nS: 500 x\n= closed\n"
        ));
    }
}

#[test]
fn a_transaction_left_half_way_is_reset_before_the_next() {
    let refused = "S: 250 x\nS: 550 x\nS: 550 x\nS: 554 x\n= finished recipient 5.0.0, recipient 5.0.0\n";
    let next = GROUP.replacen("C: MAIL", "C: RSET\nC: MAIL", 1);
    let accepted = "S: 250 x\nS: 250 x\nS: 250 x\nS: 250 x\nS: 354 x\n= send\n> sent\n";
    let done = "S: 250 x\n= finished delivered 2.0.0, delivered 2.0.0\n";
    holds(&format!("{GREETED}{GROUP}{refused}{next}{accepted}{done}{GROUP}"));
    let failed = "S: 250 x\n> eof\n= failed session 4.4.2 stale: session 4.4.2, session 4.4.2\n";
    holds(&format!("{GREETED}{GROUP}{refused}{next}{failed}"));
    let rset_refused = "S: 500 x\n= failed session 4.5.0: session 4.5.0, session 4.5.0\n";
    holds(&format!("{GREETED}{GROUP}{refused}{next}{rset_refused}"));
}

/// RFC 1870 section 6.1.
#[test]
fn a_message_above_the_peers_size_is_not_even_begun() {
    holds(&format!(
        "{GREETED}\
> begin s@a.example 1001 r1@b.example r2@b.example
= finished host 5.3.4, host 5.3.4
> begin s@a.example 1000 r1@b.example
C: MAIL FROM:<s@a.example> SIZE=1000
C: RCPT TO:<r1@b.example>
C: DATA
"
    ));
}

/// RFC 6152.
#[test]
fn eight_bit_content_is_declared_where_the_peer_knows_it() {
    let rest = "C: RCPT TO:<r@b.example>\nC: DATA\n";
    let begin = "> begin8 s@a.example 5 r@b.example\n";
    holds(&format!("{GREETED}{begin}C: MAIL FROM:<s@a.example> SIZE=5 BODY=8BITMIME\n{rest}"));
    holds(&format!("{GREETED_PLAIN}{begin}= finished host 5.6.3\n"));
}

#[test]
fn an_address_never_becomes_a_command() {
    holds(&format!(
        "{GREETED}\
> begin s@a.example 1 r\t1@b.example r2@b.example gr\u{fc}n@b.example
C: MAIL FROM:<s@a.example> SIZE=1
C: RCPT TO:<r2@b.example>
C: DATA
S: 250 x
S: 250 x
S: 354 x
= send
> sent
S: 250 x
= finished recipient 5.1.3, delivered 2.0.0, host 5.6.7
> begin s\u{7f}@a.example 1 r2@b.example
= finished message 5.1.7
"
    ));
    let mut client = new_client(StartTls::Never);
    let mut out = Vec::new();
    client.advance(HOUR, b"220 mx\r\n", &mut out);
    client.advance(HOUR, b"250 mx\r\n", &mut out);
    out.clear();
    let recipients = ["a@b>\r\nRCPT TO:<c@d"].into_iter();
    client.begin(HOUR, plain("", recipients.map(Rcpt::from)), &mut out);
    assert!(out.is_empty());
}

#[test]
fn a_peer_that_closes_at_any_point_leaves_every_recipient_in_a_defined_state() {
    let session = "session 4.4.2";
    let none = format!("= failed {session}:");
    let both = format!("= failed {session}: {session}, {session}");
    let in_group = format!("{GREETED}{GROUP}");
    let one_refused = format!("= failed {session}: recipient 5.0.0, {session}");
    let table = [
        (String::new(), &none),
        ("S: 220 mx\nC: EHLO relay.example\n".into(), &none),
        ("S: 220 mx\nC: EHLO relay.example\nS: 500 x\nC: HELO relay.example\n".into(), &none),
        (GREETED.into(), &none),
        (in_group.clone(), &both),
        (format!("{in_group}S: 250 x\n"), &both),
        (format!("{in_group}S: 250 x\nS: 550 x\n"), &one_refused),
        (format!("{in_group}S: 250 x\nS: 550 x\nS: 250 x\n"), &one_refused),
        (format!("{in_group}S: 250 x\nS: 550 x\nS: 250 x\nS: 354 x\n= send\n"), &one_refused),
        (format!("{in_group}S: 250 x\nS: 550 x\nS: 250 x\nS: 354 x\n= send\n> sent\n"), &one_refused),
        (format!("{GREETED}> quit\nC: QUIT\n"), &none),
    ];
    for (before, result) in table {
        holds(&format!("{before}> eof\n{result}\n"));
        holds(&format!("{before}> timeout\n{result}\n"));
    }
    let nobody = "S: 250 x\nS: 550 x\nS: 550 x\nS: 354 x\nC: .\n";
    holds(&format!("{in_group}{nobody}> eof\n= failed {session}: recipient 5.0.0, recipient 5.0.0\n"));
}

#[test]
fn an_unused_connection_that_the_peer_closed_is_stale_and_not_a_failure() {
    let group = GROUP.replace(" r2@b.example", "").replace("C: RCPT TO:<r2@b.example>\n", "");
    let first = "S: 250 x\nS: 250 x\nS: 354 x\n= send\n> sent\nS: 250 x\n= finished delivered 2.0.0\n";
    let used = format!("{GREETED}{group}{first}");
    holds(&format!("{used}> eof\n= failed session 4.4.2 stale:\n"));
    holds(&format!("{used}S: 421 4.4.2 idle\n= failed session 4.4.2 stale:\n"));
    holds(&format!("{used}{group}> eof\n= failed session 4.4.2 stale: session 4.4.2\n"));
    holds(&format!("{used}{group}S: 421 idle\n= failed session 4.0.0 stale: session 4.0.0\n"));
    holds(&format!("{used}{group}S: 250 x\n> eof\n= failed session 4.4.2: session 4.4.2\n"));
}

#[test]
fn an_unasked_reply_ends_an_idle_session() {
    holds(&format!("{GREETED}S: 250 x\n= failed session 4.5.0:\n"));
}

/// RFC 5321 section 6.3.
#[test]
fn a_peer_with_our_own_name_is_a_loop() {
    holds("S: 220 x\nC: EHLO relay.example\nS: 250 RELAY.example hi\n= failed host 5.4.6:\n");
    holds("S: 220 relay.example\nC: EHLO relay.example\nS: 250 relay.example.org\n= ready\n");
}

/// RFC 5321 section 4.5.3.2.
#[test]
fn every_state_has_its_deadline() {
    let mut client = new_client(StartTls::Never);
    let mut out = Vec::new();
    assert_eq!(client.deadline(), HOUR + 1, "greeting");
    client.advance(HOUR, b"220", &mut out);
    assert_eq!(client.deadline(), HOUR + 1, "half a reply is no progress");
    client.advance(HOUR, b" mx\r\n", &mut out);
    assert_eq!(client.deadline(), HOUR + 10, "EHLO");
    client.advance(HOUR, b"250-mx\r\n250 PIPELINING\r\n", &mut out);
    assert_eq!(client.deadline(), Millis::MAX, "ready");
    let recipients = ["r@b.example"].into_iter();
    let transaction = plain("", recipients.map(Rcpt::from));
    client.begin(HOUR, transaction, &mut out);
    assert_eq!(client.deadline(), HOUR + 10, "MAIL");
    client.advance(HOUR + 5, b"250 x\r\n", &mut out);
    assert_eq!(client.deadline(), HOUR + 15, "RCPT");
    client.advance(HOUR, b"250 x\r\n", &mut out);
    assert_eq!(client.deadline(), HOUR + 100, "DATA");
    client.advance(HOUR, b"354 x\r\n", &mut out);
    assert_eq!(client.deadline(), HOUR + 1_000, "block");
    client.progress(HOUR + 7);
    assert_eq!(client.deadline(), HOUR + 1_007, "next block");
    client.content_sent(HOUR);
    assert_eq!(client.deadline(), HOUR + 10_000, "end-of-data");
    let end = client.timed_out();
    let text = "conversation with mx.example[192.0.2.1] timed out while \
                sending end of data -- message may be sent more than once";
    assert_eq!((end.failure.text.as_str(), client.deadline()), (text, Millis::MAX));
}

#[test]
fn texts_read_as_in_postfix_logs() {
    let text = |before: &str, last: &[u8]| {
        let mut client = new_client(StartTls::Never);
        let mut out = Vec::new();
        client.advance(HOUR, before.as_bytes(), &mut out);
        match client.advance(HOUR, last, &mut out).1 {
            Event::Failed(end) => end.failure.text,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        text("", b"554 5.7.1 No\r\n"),
        "host mx.example[192.0.2.1] refused to talk to me: 554 5.7.1 No"
    );
    assert_eq!(
        text("220 x\r\n", b"SSH-2.0\x07\r\n"),
        "host mx.example[192.0.2.1] sent what is not an SMTP reply: \"SSH-2.0?\" \
         (while performing the EHLO handshake)"
    );
    let mut play = Play { client: new_client(StartTls::Never), transcript: String::new(), is_over: false };
    play.feed(b"220 x\r\n");
    play.feed(b"250 mx\r\n");
    play.call("begin s@a.example 1 r@b.example");
    let mut out = Vec::new();
    let (_, event) = play.client.advance(HOUR, b"550-5.7.1 Not\r\n550 5.7.1 you\r\n", &mut out);
    let Event::Finished(fates) = event else { panic!("{event:?}") };
    let Fate::Failed(failure) = &fates[0] else { panic!("{fates:?}") };
    let expected = "host mx.example[192.0.2.1] said: 550 5.7.1 Not you (in reply to MAIL FROM command)";
    assert_eq!(failure.text, expected);
}

#[test]
fn a_peer_that_never_ends_its_reply_is_given_up() {
    let mut client = new_client(StartTls::Never);
    let mut out = Vec::new();
    let banner = b"220-and so on\r\n".repeat(1_000);
    let (_, event) = client.advance(HOUR, &banner, &mut out);
    assert!(matches!(event, Event::Failed(end) if end.failure.status == Status::PROTOCOL));
    let hundred_lines = [b"220-and so on\r\n".repeat(100).as_slice(), b"220 end\r\n"].concat();
    assert_eq!(new_client(StartTls::Never).advance(HOUR, &hundred_lines, &mut out).1, Event::Read);
}

#[test]
fn a_reply_sent_ahead_is_never_taken_for_a_later_one() {
    let both = "session 4.5.0, session 4.5.0";
    let table = [
        ("250 x\r\n250 x\r\n250 x\r\n354 x\r\n250 x\r\n", format!("= failed session 4.5.0: {both}\n")),
        ("250 x\r\n250 x\r\n250 x\r\n354 x\r\n2", format!("= failed session 4.5.0: {both}\n")),
        (
            "250 x\r\n550 x\r\n550 x\r\n503 x\r\n250 x\r\n",
            "= finished recipient 5.0.0, recipient 5.0.0, close\n".into(),
        ),
    ];
    for (octets, expected) in table {
        let mut play =
            Play { client: new_client(StartTls::Never), transcript: String::new(), is_over: false };
        play.feed(b"220 x\r\n");
        play.feed(b"250-mx\r\n250 PIPELINING\r\n");
        play.call("begin s@a.example 1 r1@b.example r2@b.example");
        play.transcript.clear();
        play.feed(octets.as_bytes());
        assert_eq!(play.transcript, expected, "{octets:?}");
    }
    let ahead: [&[&[u8]]; 4] = [
        &[b"220 x\r\n250 x\r\n"],
        &[b"220 x\r\n", b"250 mx\r\n250 x\r\n"],
        &[b"220 x\r\n", b"500 x\r\n250 x\r\n"],
        &[b"220 x\r\n", b"250 x\r\n", b"250 x\r\n250 x\r\n"],
    ];
    for pieces in ahead {
        let mut play =
            Play { client: new_client(StartTls::Never), transcript: String::new(), is_over: false };
        for piece in pieces {
            if play.client.is_ready() {
                play.call("begin s@a.example 1 r1@b.example");
            }
            play.feed(piece);
        }
        let end = play.transcript.lines().last().unwrap();
        assert!(end.starts_with("= failed session 4.5.0:"), "{}", play.transcript);
        assert!(!play.transcript.contains("RCPT"), "{}", play.transcript);
    }
}

/// Drives a client through replies with these codes, one by one, as the rim would.
fn drive(offers: &str, codes: &[u16]) -> Option<Vec<Fate>> {
    let mut client = new_client(StartTls::Never);
    let mut out = Vec::new();
    client.advance(HOUR, b"220 x\r\n", &mut out);
    let ehlo = format!("250-mx\r\n{offers}250 HELP\r\n");
    client.advance(HOUR, ehlo.as_bytes(), &mut out);
    let recipients = ["r1@b.example", "r2@b.example"].into_iter();
    client.begin(HOUR, plain("", recipients.map(Rcpt::from)), &mut out);
    if let (_, Event::Send(_)) = client.advance(HOUR, b"", &mut out) {
        client.content_sent(HOUR);
    }
    for code in codes {
        let (_, event) = client.advance(HOUR, format!("{code} x\r\n").as_bytes(), &mut out);
        match event {
            Event::Read => {}
            // What the rim does, and then lets the session go on.
            Event::Send(_) => client.content_sent(HOUR),
            Event::Finished(fates) => return Some(fates),
            Event::Failed(end) => return Some(end.fates),
            Event::Ready | Event::StartTls | Event::Closed => panic!("{event:?} within a transaction"),
        }
    }
    client.timed_out();
    None
}

/// What must be true of every dialogue: a recipient is delivered only if MAIL, its own RCPT, DATA and
/// end-of-data were all accepted, and it is bounced only by a 5yz that concerns it.
#[test]
fn every_sequence_of_replies_delivers_exactly_what_was_accepted() {
    const CODES: [u16; 5] = [250, 354, 421, 450, 550];
    let mut finished = 0;
    for offers in ["250-PIPELINING\r\n", ""] {
        for number in 0..CODES.len().pow(5) {
            let codes: Vec<u16> =
                (0..5).map(|place| CODES[number / CODES.len().pow(place) % CODES.len()]).collect();
            let Some(fates) = drive(offers, &codes) else { continue };
            finished += 1;
            assert_eq!(fates.len(), 2, "{codes:?}");
            for (index, fate) in fates.iter().enumerate() {
                let accepted = codes[0] == 250 && codes[1 + index] == 250;
                let whole = codes[1..3].iter().all(|code| [250, 450, 550].contains(code));
                let delivered = accepted && whole && codes[3] == 354 && codes[4] == 250;
                assert_eq!(matches!(fate, Fate::Delivered(_)), delivered, "{codes:?} {index}");
                if let Fate::Failed(failure) = fate {
                    let said_so = [codes[0], codes[1 + index], codes[3], codes[4]].contains(&550);
                    assert!(!failure.lasting || said_so, "{codes:?} {index}");
                }
            }
        }
    }
    assert!(finished > 4_000, "{finished}");
}

/// The same where the content goes in a chunk: there is no reply to DATA.
#[test]
fn every_sequence_of_replies_to_a_chunk_delivers_exactly_what_was_accepted() {
    const CODES: [u16; 5] = [250, 354, 421, 450, 550];
    let mut finished = 0;
    for offers in ["250-CHUNKING\r\n250-PIPELINING\r\n", "250-CHUNKING\r\n"] {
        for number in 0..CODES.len().pow(4) {
            let codes: Vec<u16> =
                (0..4).map(|place| CODES[number / CODES.len().pow(place) % CODES.len()]).collect();
            let Some(fates) = drive(offers, &codes) else { continue };
            finished += 1;
            for (index, fate) in fates.iter().enumerate() {
                let accepted = codes[0] == 250 && codes[1 + index] == 250;
                let whole = codes[1..3].iter().all(|code| [250, 450, 550].contains(code));
                let delivered = accepted && whole && codes[3] == 250;
                assert_eq!(matches!(fate, Fate::Delivered(_)), delivered, "{codes:?} {index}");
                if let Fate::Failed(failure) = fate {
                    let said_so = [codes[0], codes[1 + index], codes[3]].contains(&550);
                    assert!(!failure.lasting || said_so, "{codes:?} {index}");
                }
            }
        }
    }
    assert!(finished > 1_000, "{finished}");
}

#[test]
fn a_refusal_in_the_middle_of_the_content_is_no_stale_connection() {
    let (mut client, mut out) = (new_client(StartTls::Never), Vec::new());
    client.advance(0, b"220 mx ESMTP\r\n", &mut out);
    assert_eq!(client.advance(0, b"250-mx\r\n250 PIPELINING\r\n", &mut out).1, Event::Ready);
    client.begin(0, plain("a@x", ["b@y"].into_iter().map(Rcpt::from)), &mut out);
    let (_, event) = client.advance(0, b"250 ok\r\n250 ok\r\n354 go\r\n", &mut out);
    assert_eq!(event, Event::Send(Framing::Dots));
    let (_, event) = client.advance(0, b"552 5.3.4 too big\r\n", &mut out);
    assert!(matches!(&event, Event::Finished(fates) if fates.len() == 1), "{event:?}");
    let failed = client.disconnected();
    assert!(!failed.was_stale && failed.fates.is_empty(), "{failed:?}");
}

/// RFC 3461, RFC 6531: what the peer offers is passed on; without SMTPUTF8 only who needs it fails.
#[test]
fn what_was_asked_for_is_passed_on_to_who_offers_it() {
    use sluice_queue::{MailParameters, Notify, RcptParameters};
    let mail = MailParameters { envid: "QQ".into(), smtputf8: true, ..MailParameters::default() };
    let rcpt = RcptParameters { notify: Some(Notify::NEVER), orcpt: "rfc822;o@x".into() };
    let asked = Asked { parameters: Some(&mail), header_utf8: false, now_micros: 0 };
    for (ehlo, expected, fates) in [
        (
            "250-mx\r\n250-PIPELINING\r\n250-DSN\r\n250 SMTPUTF8\r\n",
            "MAIL FROM:<s@a> ENVID=QQ SMTPUTF8\r\nRCPT TO:<r@b> NOTIFY=NEVER ORCPT=rfc822;o@x\r\nRCPT TO:<\u{f6}@b>\r\nDATA\r\n",
            "",
        ),
        ("250-mx\r\n250 PIPELINING\r\n", "MAIL FROM:<s@a>\r\nRCPT TO:<r@b>\r\nDATA\r\n", "host 5.6.7"),
    ] {
        let (mut client, mut out) = (new_client(StartTls::Never), Vec::new());
        client.advance(HOUR, b"220 mx\r\n", &mut out);
        client.advance(HOUR, ehlo.as_bytes(), &mut out);
        out.clear();
        let recipients = [Rcpt { address: "r@b", parameters: Some(&rcpt) }, Rcpt::from("\u{f6}@b")];
        let transaction = Transaction { asked, ..plain("s@a", recipients.into_iter()) };
        client.begin(HOUR, transaction, &mut out);
        assert_eq!(String::from_utf8(std::mem::take(&mut out)).unwrap(), expected);
        if !fates.is_empty() {
            let replies = b"250 x\r\n250 x\r\n554 5.0.0 x\r\n";
            let (_, event) = client.advance(HOUR, replies, &mut out);
            let Event::Finished(found) = event else { panic!("{event:?}") };
            assert_eq!(show_fates(&found[1..]), fates);
        }
    }
}
