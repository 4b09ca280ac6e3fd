//! A whole dialogue: the same octets whole and in pieces give the same replies, the same messages and the same
//! notes for the log; every message that is committed is what slow twins make of the octets that the client sent
//! for it by DATA or BDAT, and has neither bare CR or LF nor NUL; every reply is printable and short.
//!
//! The input: [`HEAD_OCTETS`] that set the scene, then what the client sends. Octets go to the session in
//! groups, as a client that waits sends them: behind DATA and STARTTLS a group ends, unless the scene says that
//! the client does not wait; then all that follows is in one group, and no piece ends directly behind DATA,
//! because what came with DATA in one piece has an answer of its own.
//!
//! | octet | says |
//! |---:|---|
//! | 0 | bit 0: inside listener; 1 and 2: TLS mode; 3: small limits; 4: the client does not wait; 5: its address is not admitted; 6: line endings are repaired; 7: BINARYMIME is offered, and recipients are checked |
//! | 1 | where groups are cut |
//! | 2, 3 | how the steps that the rim carries out end, one half octet each, in turns |
//! | 4 | what happens once: the spool refuses mail, takes it again, the relay stops, much time passes |
//! | 5, 6 | behind so many octets |
//! | 7 | how much time passes behind each group |

use super::cuts::Cuts;
use crate::config::{Config, CutThroughMode, LineEndings, TlsMode};
use crate::policy::Identity;
use crate::session::{Checked, Context, Note, Refusal, Session, Step, TurnedAway};
use crate::smtp::command::AUTH_OCTETS_MAX;
use crate::smtp::content::twin;
use crate::smtp::reply::REPLY_OCTETS_MAX;
use crate::smtp::said::Said;
use crate::smtp::sasl::{self, Answer, Ask, Bindings, Credentials, Mechanism, scram};
use crate::tls::TlsFacts;
use sluice_queue::{Body, QueueId, SpoolNumber};
use std::sync::{Arc, OnceLock};

const HEAD_OCTETS: usize = 8;

pub fn check(input: &[u8]) {
    let Some((head, said)) = input.split_first_chunk() else { return };
    let scene = Scene { head: *head };
    let groups = scene.groups(said);
    let whole = scene.play(&groups, |group| vec![group]);
    let mut cuts = Cuts::new(head[1]);
    let cut = scene.play(&groups, |group| scene.pieces(said, group, &mut cuts));
    assert_eq!(whole, cut);
    sound_replies(&whole.replies);
}

/// RFC 5321 section 4.2.
fn sound_replies(replies: &[u8]) {
    for line in replies.split_inclusive(|&octet| octet == b'\n') {
        let shown = line.escape_ascii();
        assert!(line.ends_with(b"\r\n") && line.len() <= REPLY_OCTETS_MAX, "{shown}");
        assert!(
            line[..line.len() - 2].iter().all(|&octet| octet == b' ' || octet.is_ascii_graphic()),
            "{shown}"
        );
        assert!(line[..3].iter().all(u8::is_ascii_digit) && matches!(line[3], b' ' | b'-'), "{shown}");
    }
}

/// All that can be seen from outside.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    replies: Vec<u8>,
    /// What was committed or refused at the end, with its envelope and Received field.
    messages: Vec<(String, String, Vec<u8>)>,
    /// Steps that the rim was asked for and that store or promise something.
    steps: Vec<&'static str>,
    notes: Vec<Note>,
}

struct Scene {
    head: [u8; HEAD_OCTETS],
}

impl Scene {
    fn has(&self, bit: u8) -> bool {
        self.head[0] & 1 << bit != 0
    }

    fn context(&self) -> Arc<Context> {
        static CONTEXTS: OnceLock<Vec<Arc<Context>>> = OnceLock::new();
        CONTEXTS.get_or_init(contexts)[usize::from(self.head[0] & 15 | self.head[0] >> 6 << 4)].clone()
    }

    fn groups<'a>(&self, said: &'a [u8]) -> Vec<&'a [u8]> {
        let event = usize::from(u16::from_le_bytes([self.head[5], self.head[6]])).min(said.len());
        let mut ends = vec![event, said.len()];
        if !self.has(4) {
            ends.extend(lines(said).filter(|(line, _)| is_last_of_group(line)).map(|(_, end)| end));
        }
        ends.sort_unstable();
        ends.dedup();
        let mut start = 0;
        ends.into_iter().map(|end| &said[std::mem::replace(&mut start, end)..end]).collect()
    }

    fn pieces<'a>(&self, said: &[u8], group: &'a [u8], cuts: &mut Cuts) -> Vec<&'a [u8]> {
        // A group may begin within such a line.
        let before = group.as_ptr().addr() - said.as_ptr().addr();
        let forbidden: Vec<usize> = lines(said)
            .filter(|(line, end)| *end > before && is_last_of_group(line))
            .map(|(_, end)| end - before)
            .collect();
        let (mut pieces, mut start, mut end) = (Vec::new(), 0, 0);
        while end < group.len() {
            end = (end + cuts.next()).min(group.len());
            if end == group.len() || !forbidden.contains(&end) {
                pieces.push(&group[start..end]);
                start = end;
            }
        }
        pieces
    }

    fn play<'a>(&self, groups: &[&'a [u8]], mut cut: impl FnMut(&'a [u8]) -> Vec<&'a [u8]>) -> Seen {
        let context = self.context();
        let tls = (context.tls == TlsMode::Implicit).then(facts);
        let mut out = Vec::new();
        let client =
            if self.has(5) { "[2001:db8::7]:9" } else { "192.0.2.9:4711" }.parse().expect("an address");
        let session = Session::new(context, client, tls, 0, &mut out);
        let mut rim = Rim {
            scene: self,
            session,
            now: 0,
            answers: 0,
            buffer: Vec::new(),
            out,
            draft: None,
            sent: Vec::new(),
            opening: Vec::new(),
            received: String::new(),
            dropping: false,
            seen: Seen::default(),
        };
        let event = usize::from(u16::from_le_bytes([self.head[5], self.head[6]]));
        let (mut at, mut happened) = (0, false);
        for group in groups {
            if at >= event && !std::mem::replace(&mut happened, true) {
                rim.event();
            }
            rim.dropping = false;
            cut(group).into_iter().for_each(|piece| rim.feed(piece));
            at += group.len();
            rim.pass_time(u64::from(self.head[7]) * 500);
        }
        rim.seen.replies.append(&mut rim.out);
        rim.seen
    }
}

/// The lines ended by LF, without CRLF, each with the place behind it.
fn lines(octets: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    let mut end = 0;
    octets.split_inclusive(|&octet| octet == b'\n').filter_map(move |line| {
        end += line.len();
        Some((line.strip_suffix(b"\r\n")?, end))
    })
}

/// Whether a line is, or in the middle of a chunk may hide, a command behind which a group ends.
fn is_last_of_group(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    let ends_with =
        |verb: &[u8]| line.len() >= verb.len() && line[line.len() - verb.len()..].eq_ignore_ascii_case(verb);
    ends_with(b"DATA") || ends_with(b"STARTTLS")
}

/// The rim of one session.
struct Rim<'a> {
    scene: &'a Scene,
    session: Session,
    now: u64,
    answers: usize,
    buffer: Vec<u8>,
    out: Vec<u8>,
    draft: Option<Vec<u8>>,
    /// What the client sent of the open message, with the commands between its chunks.
    sent: Vec<u8>,
    /// The command that opened it.
    opening: Vec<u8>,
    received: String,
    /// What is left of the group was sent before the handshake.
    dropping: bool,
    seen: Seen,
}

impl Rim<'_> {
    fn feed(&mut self, octets: &[u8]) {
        if self.dropping {
            return;
        }
        self.buffer.extend_from_slice(octets);
        loop {
            let (consumed, step) = self.session.advance(self.now, &self.buffer, &mut self.out);
            assert!(consumed <= self.buffer.len());
            if self.draft.is_some() {
                self.sent.extend_from_slice(&self.buffer[..consumed]);
            }
            self.seen.notes.append(&mut self.session.take_notes());
            match &step {
                Step::Content(range) => {
                    assert!(!range.is_empty() && range.end <= consumed);
                    let draft = self.draft.as_mut().expect("content needs a draft");
                    draft.extend_from_slice(&self.buffer[range.clone()]);
                }
                Step::Insert(octets) => {
                    self.draft.as_mut().expect("content needs a draft").extend_from_slice(octets);
                }
                Step::Open => self.open(consumed),
                // A message far too long is abandoned, or closes the session at once when it comes in one piece.
                Step::Abandon => drop(self.draft.take().expect("only a draft can be abandoned")),
                Step::Commit => self.commit(),
                Step::StartTls => {
                    self.seen.steps.push("tls");
                    self.seen.replies.append(&mut self.out);
                    self.session.tls_started(self.now, facts());
                    self.buffer.clear();
                    self.dropping = true;
                    return;
                }
                Step::Flush => self.seen.replies.append(&mut self.out),
                Step::Pause(_) => self.seen.replies.append(&mut self.out),
                Step::Readmit => self.readmit(),
                Step::Authenticate => self.authenticate(),
                Step::Check => self.check(),
                Step::Read => assert!(self.buffer.len() - consumed < AUTH_OCTETS_MAX),
                Step::Close => {
                    assert!(self.session.is_closed());
                    self.draft = None;
                }
            }
            self.buffer.drain(..consumed);
            if matches!(step, Step::Read | Step::Close) {
                self.seen.replies.append(&mut self.out);
                return;
            }
        }
    }

    /// How the next step that the rim carries out ends: well, mostly.
    fn answer(&mut self) -> Option<Refusal> {
        let octet = self.scene.head[2 + self.answers / 2 % 2];
        let half = if self.answers.is_multiple_of(2) { octet & 15 } else { octet >> 4 };
        self.answers += 1;
        match half {
            12 => Some(Refusal::NoSpace),
            13 => Some(Refusal::Storage),
            14 => Some(Refusal::Busy),
            15 => Some(Refusal::ShuttingDown),
            _ => None,
        }
    }

    fn open(&mut self, consumed: usize) {
        let commands = &self.buffer[..consumed];
        let start = commands[..consumed - 1].iter().rposition(|&octet| octet == b'\n').map_or(0, |at| at + 1);
        self.opening = commands[start..].to_vec();
        assert!(self.draft.is_none() && self.session.deadline() == u64::MAX);
        self.seen.steps.push("open");
        if let Some(why) = self.answer() {
            return self.session.open_failed(why, &mut self.out);
        }
        let id = QueueId::new(self.now, SpoolNumber::new(7).expect("a spool"));
        let field = self.session.opened(id, "Sun, 22 Nov 2026 01:41:40 +0000", &mut self.out);
        self.received = String::from_utf8(field).expect("text");
        self.draft = Some(Vec::new());
        self.sent.clear();
    }

    fn commit(&mut self) {
        self.seen.steps.push("commit");
        let content = self.draft.take().expect("a commit needs a draft");
        assert_eq!(self.session.findings().octets, content.len() as u64);
        let envelope = self.session.take_envelope(1);
        let binary = envelope.body == Body::Binary;
        let expected = self.expected(binary);
        assert_eq!(content, expected, "{}", self.sent.escape_ascii());
        let findings = twin::findings(&content, self.session.context().limits.line_bytes_max);
        let sound = !findings.bare_cr && !findings.bare_lf && !findings.nul && !findings.long_line;
        assert!(sound || binary, "{}", content.escape_ascii());
        assert!(!envelope.recipients.is_empty());
        let field = twin::findings(self.received.as_bytes(), 998);
        assert!(!field.bare_cr && !field.bare_lf && !field.nul && !field.long_line);
        let received = std::mem::take(&mut self.received);
        self.seen.messages.push((format!("{envelope:?}"), received, content));
        let result = self.answer().map_or(Ok(()), Err);
        self.session.committed(result, &mut self.out);
    }

    fn readmit(&mut self) {
        self.seen.steps.push("readmit");
        let admitted = self.answer().map_or(Ok(()), |_| Err(TurnedAway::AddressRate));
        self.session.readmitted(admitted, &mut self.out);
    }

    fn check(&mut self) {
        self.seen.steps.push("check");
        assert!(!self.session.recipient_to_check().is_empty() && self.session.deadline() == u64::MAX);
        let checked = match self.answer() {
            None => Checked::Accepted,
            Some(Refusal::Busy) => Checked::Unanswered,
            Some(_) => Checked::Refused(Said::new(550, Some((5, 1, 1)), "no\r\n250 yes")),
        };
        self.session.checked(self.now, checked, &mut self.out);
    }

    fn authenticate(&mut self) {
        self.seen.steps.push("authenticate");
        let refusal = self.answer();
        let answer = match (self.session.take_ask(), refusal) {
            (_, Some(Refusal::Busy)) => Answer::Refused(sasl::Refusal::Unavailable),
            (_, Some(_)) => Answer::Refused(sasl::Refusal::Credentials),
            (Ask::Parameters { .. }, None) => {
                let nonce = "3rfcNHYJY1ZVvWVs7j".into();
                Answer::Parameters(scram::Parameters { salt: b"salt".to_vec(), iterations: 4096, nonce })
            }
            (Ask::Verify(credentials), None) => {
                let is_scram = matches!(credentials, Credentials::Scram { .. });
                let identity = Identity { login: "joe@winery.example".into(), senders: Vec::new() };
                Answer::Accepted { identity: Arc::new(identity), signature: is_scram.then_some([7; 32]) }
            }
        };
        self.session.answered(self.now, answer, &mut self.out);
    }

    /// What the twins make of what the client sent.
    fn expected(&self, binary: bool) -> Vec<u8> {
        let context = self.session.context();
        let line_octets_max = context.limits.line_bytes_max;
        let repairs = context.line_endings == LineEndings::Repair && !binary;
        if self.opening[..4].eq_ignore_ascii_case(b"DATA") {
            let decode = if repairs { twin::decode_repairing } else { twin::decode };
            let decoded = decode(&self.sent, line_octets_max).expect("what is committed has an end");
            assert_eq!(decoded.end, self.sent.len());
            return decoded.content;
        }
        let octets = chunks(&self.opening, &self.sent);
        match binary && memchr::memmem::find(&[b"\r\n", &octets[..]].concat(), b"\r\n\r\n").is_some() {
            true => octets,
            false => twin::counted(&octets, repairs, line_octets_max).0,
        }
    }

    fn event(&mut self) {
        match self.scene.head[4] % 8 {
            1 => self.session.refuse_mail(Some(Refusal::NoSpace)),
            2 => self.session.refuse_mail(Some(Refusal::Storage)),
            3 => self.session.refuse_mail(None),
            4 => self.session.shutting_down(&mut self.out),
            5 => self.pass_time(400_000),
            _ => {}
        }
    }

    fn pass_time(&mut self, millis: u64) {
        self.now += millis;
        if self.now >= self.session.deadline() {
            self.session.timed_out(&mut self.out);
        }
        if self.session.is_closed() {
            self.draft = None;
        }
    }
}

/// The octets of the chunks, the first of which is announced by `line`; between them there are commands.
fn chunks<'a>(mut line: &'a [u8], mut sent: &'a [u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    loop {
        let text = String::from_utf8_lossy(line).to_ascii_uppercase();
        if let Some(argument) = text.strip_prefix("BDAT ").and_then(|text| text.strip_suffix("\r\n")) {
            let mut words = argument.split_ascii_whitespace();
            let size = words.next().expect("a size").parse().expect("a size that memory has");
            let (chunk, rest) = sent.split_at(size);
            octets.extend_from_slice(chunk);
            sent = rest;
            if words.next() == Some("LAST") {
                assert!(sent.is_empty(), "the last chunk ends the message");
                return octets;
            }
        }
        let end = memchr::memchr(b'\n', sent).expect("another command") + 1;
        (line, sent) = sent.split_at(end);
    }
}

/// What every handshake here comes to.
fn facts() -> TlsFacts {
    let cipher = "TLS_AES_256_GCM_SHA384".into();
    let bindings = Bindings { exporter: Some([7; 32]), end_point: None };
    TlsFacts { version: "TLSv1.3", cipher, resumed: false, name: None, client: None, bindings }
}

/// By bit: inside listener (with XCLIENT; the outside one has AUTH), TLS mode in two bits, small limits, repair,
/// BINARYMIME.
fn contexts() -> Vec<Arc<Context>> {
    const CONFIG: &str = r#"
        hostname = "relay.winery.example"
        postmaster = "postmaster@winery.example"
        spool.path = "spool"
        domains.accepted = ["winery.example"]
        admin.bind = ""
        [[listener]]
        name = "outside"
        bind = ["127.0.0.1:2525"]
        clients = ["0.0.0.0/0"]
        relay = "accepted"
        tls = "off"
        [[listener]]
        name = "inside"
        bind = ["127.0.0.1:2526"]
        clients = ["192.0.2.0/24"]
        relay = "any"
        tls = "off"
        [[route]]
        domains = ["*"]
        hosts = ["127.0.0.1:2527"]
    "#;
    let config = Config::parse(CONFIG, "fuzz.toml").unwrap_or_else(|error| panic!("{error}"));
    let context = |way: usize| {
        let mut config = config.clone();
        let listener = way & 1;
        config.listeners[listener].tls =
            [TlsMode::Off, TlsMode::Offer, TlsMode::Require, TlsMode::Implicit][way >> 1 & 3];
        if way & 16 != 0 {
            config.listeners[listener].line_endings = LineEndings::Repair;
        }
        config.listeners[listener].binarymime = way & 32 != 0;
        if way & 32 != 0 {
            config.listeners[listener].cut_through = CutThroughMode::Message;
        }
        if way & 8 != 0 {
            let limits = &mut config.limits;
            limits.message_bytes_max = 64;
            limits.recipients_max = 2;
            limits.line_bytes_max = 20;
            limits.header_bytes_max = 48;
            limits.received_max = 2;
            limits.errors_max = 3;
            limits.transactions_max = 2;
        }
        config.listeners[listener].xclient = match listener {
            0 => Vec::new(),
            _ => config.listeners[listener].clients.clone(),
        };
        let mut context = Context::new(&config, listener);
        if listener == 0 {
            context.mechanisms = Mechanism::ALL.to_vec();
        }
        Arc::new(context)
    };
    (0..64).map(context).collect()
}
