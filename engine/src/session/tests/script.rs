//! Plays the dialogues of `dialogues/*.txt`.
//!
//! A dialogue begins with `## its name`. Its lines, each after a word:
//!
//! | word | means |
//! |---|---|
//! | `listener`, `client`, `limit`, `tls`, `extension`, `line_endings`, `binarymime`, `srs` (its domain) | set before the session begins; `outside`, `192.0.2.9` and the defaults otherwise |
//! | `C` | the client sends a line with CRLF |
//! | `c` | the client sends octets as they are |
//! | `S` | the server sends a line that begins so |
//! | `S+` | the server sends one or more lines that begin so |
//! | `opens`, `loses`, `commits` | how the next message fares in the spool: `no-space`, `storage`, `busy`, `stopping` |
//! | `mail` | the spool refuses new mail for one of these reasons from now on, or `ok` |
//! | `logins` | how every login fares from now on: `unavailable`, `locked`, or `ok`; ann@winery.example has the password `secret`, the token `good` and, by SCRAM, the password of RFC 7677 |
//! | `cut_through` | set before the session begins: `recipients` or `message` |
//! | `checks` | what the next hop says of recipients from now on: `ok`, `unknown`, or a reply, as `550 5.1.1 no such user`; it knows joe@winery.example in every case |
//! | `says` | what the next hop says of the next message, likewise |
//! | `checked` | the recipients about whom the next hop has been asked so far |
//! | `noted` | what one of the notes for the log holds |
//! | `stored` | the message committed last, without the Received field |
//! | `received` | what the Received field of the message opened last holds |
//! | `from`, `to`, `body` | its envelope |
//! | `asked`, `rcpt` | what MAIL, and each RCPT, asked for by parameters |
//! | `ehlo` | the server answers EHLO with, among others, these lines, parted by `; `; without those behind a `!` |
//! | `dot_lines` | whether the message committed last has lines that begin with a dot |
//! | `declared` | the size by which the message opened last was known |
//! | `dropped` | so many drafts have been dropped so far |
//! | `wait` | so many milliseconds pass |
//! | `stop` | the relay shuts down |
//! | `xclient` | set before the session begins: the network of proxies |
//! | `recipients` | set before the session begins: entries of the table of the first route, which refuses all others |
//! | `denied` | set before the session begins: a domain that is no next hop |
//! | `early` | the client talks before the greeting |
//! | `allow` | so many messages and recipients are allowed from now on |
//! | `load` | `normal`, `busy` or `overloaded` from now on |
//! | `excuse` | so many milliseconds pass in which the rim does not read |
//! | `turned-away` | the next client that XCLIENT names is over a limit |
//! | `paused` | for so many milliseconds replies have been held back so far |
//! | `tapped` | what a watcher has seen of the client since the last time begins so, lines joined by ` / ` |
//! | `closed` | the session is over |
//!
//! `C*3` and `S*3` repeat, and `{}` is the number; `\r`, `\n`, `\t`, `\0`, `\xff` and `\\` are octets, `\(x*9)`
//! nine times x. A handshake that the session asks for succeeds. Lines of the client that follow each other are one group. Each dialogue is played with
//! its groups whole, octet by octet, and in two pieces cut at every place (20 places in a long one), unless its name begins with
//! `whole:`; a message open at its end is a failure.

use super::super::*;
use crate::config::{ClientLimits, CutThroughMode, Extensions, LineEndings, TlsMode};
use crate::load::Level;
use crate::policy::tests::config;
use crate::policy::{Identity, SenderPattern};
use crate::smtp::command::AUTH_OCTETS_MAX;
use crate::smtp::said::Said;
use crate::smtp::sasl::scram::{Parameters, Verifier};
use crate::smtp::sasl::{self, Answer, Ask, Bindings, Credentials};
use sluice_queue::SpoolNumber;
use std::time::Duration;

/// 2026-11-22T12:00:00Z, all the time.
const CLOCK: u64 = 1_795_348_800_000_000;

#[derive(Debug)]
pub(super) struct Dialogue {
    pub name: String,
    /// The number in its file, the word, how often, the text.
    lines: Vec<(usize, String, usize, String)>,
}

pub(super) fn dialogues(text: &str) -> Vec<Dialogue> {
    let mut dialogues: Vec<Dialogue> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if let Some(name) = line.strip_prefix("## ") {
            dialogues.push(Dialogue { name: name.into(), lines: Vec::new() });
        } else if !line.is_empty() && !line.starts_with("# ") {
            let (word, text) =
                line.split_once(':').unwrap_or_else(|| panic!("line {}: no colon", number + 1));
            let (word, times) = word.split_once('*').unwrap_or((word, "1"));
            let dialogue = dialogues.last_mut().expect("a dialogue begins with its name");
            let text = text.strip_prefix(' ').unwrap_or(text);
            dialogue.lines.push((number + 1, word.into(), times.parse().unwrap(), text.into()));
        }
    }
    dialogues
}

fn octets(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.extend_from_slice(before.as_bytes());
        let (kind, mut tail) = after.split_at(1);
        match kind {
            "r" => out.push(b'\r'),
            "n" => out.push(b'\n'),
            "t" => out.push(b'\t'),
            "0" => out.push(0),
            "\\" => out.push(b'\\'),
            "x" => {
                out.push(u8::from_str_radix(&tail[..2], 16).unwrap());
                tail = &tail[2..];
            }
            "(" => {
                let (repeat, end) = tail.split_once(')').unwrap();
                let (what, times) = repeat.split_once('*').unwrap();
                out.extend(octets(what).repeat(times.parse().unwrap()));
                tail = end;
            }
            other => panic!("unknown escape {other}"),
        }
        rest = tail;
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// How a group of client lines is cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Whole,
    EveryOctet,
    At(usize),
}

/// The rim of one session: an input buffer and a spool of one draft.
struct Rim {
    session: Session,
    now: u64,
    buffer: Vec<u8>,
    out: Vec<u8>,
    /// What was written before all input was used up.
    flushed: Vec<u8>,
    draft: Option<Vec<u8>>,
    received: String,
    stored: Vec<u8>,
    envelope: Option<Envelope>,
    dropped: usize,
    declared: Option<u64>,
    opens: Option<Refusal>,
    loses: Option<Refusal>,
    commits: Option<Refusal>,
    turned_away: Option<TurnedAway>,
    checks: Option<Checked>,
    checked: Vec<String>,
    says: Option<Said>,
    paused: u64,
    /// How logins are refused, whoever it is.
    logins: Option<sasl::Refusal>,
}

/// RFC 7677 section 3.
const SALT: &[u8] = b"\x5b\x6d\x99\x68\x9d\x12\x35\x8e\xec\xa0\x4b\x14\x12\x36\xfa\x81";

fn verdict(credentials: &Credentials) -> Answer<Arc<Identity>> {
    let senders = vec![SenderPattern::Address("ann@winery.example".into())];
    let accepted = |signature| {
        let login = "ann@winery.example".into();
        Answer::Accepted { identity: Arc::new(Identity { login, senders: senders.clone() }), signature }
    };
    let refused = Answer::Refused(sasl::Refusal::Credentials);
    match credentials {
        Credentials::Password { login, password } => {
            let right = login == "ann@winery.example" && password.expose() == b"secret";
            if right { accepted(None) } else { refused }
        }
        Credentials::Scram { text, proof, .. } => {
            let verifier = Verifier::derive("pencil", SALT, 4096);
            verifier.verify(text, proof.expose()).map_or(refused, |signature| accepted(Some(signature)))
        }
        Credentials::Token { token, .. } if token.expose() == b"good" => accepted(None),
        Credentials::Token { .. } => refused,
    }
}

impl Rim {
    fn feed(&mut self, octets: &[u8]) {
        self.buffer.extend_from_slice(octets);
        loop {
            let (consumed, step) = self.session.advance(self.now, &self.buffer, &mut self.out);
            match &step {
                Step::Content(range) => match (self.loses.take(), &mut self.draft) {
                    (None, draft) => {
                        let draft = draft.as_mut().expect("content needs a draft");
                        draft.extend_from_slice(&self.buffer[range.clone()]);
                    }
                    (Some(why), _) => {
                        self.drop_draft();
                        self.session.content_lost(why, &mut self.out);
                    }
                },
                Step::Insert(octets) => {
                    self.draft.as_mut().expect("content needs a draft").extend_from_slice(octets);
                }
                Step::Open => self.open(),
                Step::Abandon => self.drop_draft(),
                Step::Commit => self.commit(),
                Step::Close => {
                    assert!(self.session.is_closed());
                    self.dropped += usize::from(self.draft.take().is_some());
                }
                Step::StartTls => {
                    self.buffer.clear();
                    self.session.tls_started(self.now, facts());
                    self.flushed.append(&mut self.out);
                    continue;
                }
                Step::Flush => self.flushed.append(&mut self.out),
                Step::Pause(millis) => {
                    self.paused += *millis;
                    self.now += *millis;
                    self.flushed.append(&mut self.out);
                }
                Step::Readmit => {
                    let turned_away = self.turned_away.take().map_or(Ok(()), Err);
                    self.session.readmitted(turned_away, &mut self.out);
                }
                Step::Authenticate => self.authenticate(),
                Step::Check => self.check(),
                Step::Read => assert!(self.buffer.len() - consumed < AUTH_OCTETS_MAX),
            }
            self.buffer.drain(..consumed);
            if matches!(step, Step::Read | Step::Close) {
                self.flushed.append(&mut self.out);
                std::mem::swap(&mut self.flushed, &mut self.out);
                return;
            }
        }
    }

    fn open(&mut self) {
        assert!(self.draft.is_none());
        if let Some(why) = self.opens.take() {
            return self.session.open_failed(why, &mut self.out);
        }
        self.declared = self.session.declared_size();
        let id = QueueId::new(self.now, SpoolNumber::new(7).unwrap());
        let field = self.session.opened(id, "Sun, 22 Nov 2026 01:41:40 +0000", &mut self.out);
        self.received = String::from_utf8(field).unwrap();
        self.draft = Some(Vec::new());
    }

    fn commit(&mut self) {
        self.stored = self.draft.take().expect("a commit needs a draft");
        assert_eq!(self.stored.len() as u64, self.session.findings().octets);
        assert_eq!(self.session.deadline(), u64::MAX);
        self.envelope = Some(self.session.take_envelope(1));
        if let Some(said) = self.says.take() {
            let envelope = self.envelope.take().expect("an envelope was taken");
            return self.session.refused_by_next_hop(&said, &envelope, &mut self.out);
        }
        let result = self.commits.take().map_or(Ok(()), Err);
        self.session.committed(result, &mut self.out);
    }

    /// Knows Ann and her password, as the RFC's user and its pencil.
    fn authenticate(&mut self) {
        assert_eq!(self.session.deadline(), u64::MAX);
        let ask = self.session.take_ask();
        let answer = match (self.logins, ask) {
            (Some(refusal), _) => Answer::Refused(refusal),
            (None, Ask::Parameters { .. }) => {
                let nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".into();
                Answer::Parameters(Parameters { salt: SALT.to_vec(), iterations: 4096, nonce })
            }
            (None, Ask::Verify(credentials)) => verdict(&credentials),
        };
        if let Some(Step::Pause(millis)) = self.session.answered(self.now, answer, &mut self.out) {
            self.paused += millis;
            self.now += millis;
        }
    }

    fn check(&mut self) {
        assert_eq!(self.session.deadline(), u64::MAX);
        let recipient = self.session.recipient_to_check().to_owned();
        let known = recipient == "joe@winery.example";
        self.checked.push(recipient);
        let checked = self.checks.clone().filter(|_| !known).unwrap_or(Checked::Accepted);
        if let Some(Step::Pause(millis)) = self.session.checked(self.now, checked, &mut self.out) {
            self.paused += millis;
            self.now += millis;
        }
    }

    fn drop_draft(&mut self) {
        self.draft.take().expect("only a draft can be abandoned");
        self.dropped += 1;
    }
}

/// A reply of the next hop.
fn said(text: &str) -> Said {
    let mut words = text.splitn(3, ' ');
    let (code, enhanced, text) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let mut enhanced = enhanced.split('.').map(|part| part.parse::<u16>().unwrap());
    let mut next = || enhanced.next().unwrap();
    let enhanced = (u8::try_from(next()).unwrap(), next(), next());
    Said::new(code.parse().unwrap(), Some(enhanced), text)
}

fn refusal(word: &str) -> Option<Refusal> {
    Some(match word {
        "no-space" => Refusal::NoSpace,
        "login-limit" => Refusal::LoginLimit,
        "storage" => Refusal::Storage,
        "busy" => Refusal::Busy,
        "stopping" => Refusal::ShuttingDown,
        other => panic!("unknown refusal {other}"),
    })
}

fn tls_mode(word: &str) -> TlsMode {
    match word {
        "offer" => TlsMode::Offer,
        "require" => TlsMode::Require,
        "implicit" => TlsMode::Implicit,
        other => panic!("unknown mode {other}"),
    }
}

/// What every handshake here comes to.
fn facts() -> TlsFacts {
    let cipher = "TLS_AES_256_GCM_SHA384".into();
    let bindings = Bindings { exporter: Some([7; 32]), end_point: None };
    TlsFacts { version: "TLSv1.3", cipher, resumed: false, name: None, client: None, bindings }
}

fn client_limit(limits: &mut ClientLimits, name: &str, value: usize) {
    let millis = std::time::Duration::from_millis(value as u64);
    match name {
        "soft_errors_max" => limits.soft_errors_max = value,
        "error_delay" => limits.error_delay = millis,
        "junk_commands_max" => limits.junk_commands_max = value,
        "invalid_recipients_max" => limits.invalid_recipients_max = value,
        "session_time_max" => limits.session_time_max = millis,
        "bytes_per_second_min" => limits.bytes_per_second_min = value as u64,
        "slow_window" => limits.slow_window = millis,
        other => panic!("unknown limit {other}"),
    }
}

fn begin(dialogue: &Dialogue) -> Rim {
    let mut config = config();
    let (mut listener, mut client, mut mode) = (0, "192.0.2.9", TlsMode::Off);
    let (mut line_endings, mut binarymime) = (LineEndings::Strict, false);
    for (_, word, _, text) in &dialogue.lines {
        match word.as_str() {
            "listener" => listener = config.listeners.iter().position(|one| one.name == *text).unwrap(),
            "client" => client = text,
            "tls" => mode = tls_mode(text),
            "xclient" => config.listeners[listener].xclient = vec![crate::config::network(text).unwrap()],
            "recipients" => {
                let table = crate::recipients::file::RecipientFile::of(&text.replace("; ", "\n"));
                config.routes[0].recipients = Some(crate::config::Recipients {
                    table: crate::config::Table::File(Arc::new(table)),
                    unknown: crate::config::Unknown::Refuse,
                    detail: Some('+'),
                });
            }
            "denied" => config.next_hops.deny.push(crate::config::HopPattern::Name(text.clone())),
            "line_endings" if text == "repair" => line_endings = LineEndings::Repair,
            "binarymime" if text == "true" => binarymime = true,
            "cut_through" => {
                config.listeners[listener].cut_through = match text.as_str() {
                    "recipients" => CutThroughMode::Recipients,
                    "message" => CutThroughMode::Message,
                    other => panic!("unknown mode {other}"),
                }
            }
            "srs" => {
                let valid = std::time::Duration::from_secs(21 * 86_400);
                let srs = crate::rewrite::srs::Srs::new(text.clone(), &["tops3cret".to_owned()], valid, 4);
                config.srs = Some(Arc::new(srs));
            }
            "limit" => {
                let (name, value) = text.split_once(' ').unwrap();
                let (limits, value): (_, usize) = (&mut config.limits, value.parse().unwrap());
                match name {
                    "message_bytes_max" => limits.message_bytes_max = value as u64,
                    "recipients_max" => limits.recipients_max = value,
                    "line_bytes_max" => limits.line_bytes_max = value,
                    "header_bytes_max" => limits.header_bytes_max = value as u64,
                    "received_max" => limits.received_max = value,
                    "errors_max" => limits.errors_max = value,
                    "transactions_max" => limits.transactions_max = value,
                    other => client_limit(&mut config.listeners[listener].limits, other, value),
                }
            }
            _ => {}
        }
    }
    config.listeners[listener].tls = mode;
    config.listeners[listener].extensions = Extensions::of(config.listeners[listener].relay);
    for (_, _, _, text) in dialogue.lines.iter().filter(|line| line.1 == "extension") {
        extension(&mut config.listeners[listener].extensions, text);
    }
    config.listeners[listener].line_endings = line_endings;
    config.listeners[listener].binarymime = binarymime;
    let tls = (mode == TlsMode::Implicit).then(facts);
    let mut out = Vec::new();
    let client = SocketAddr::new(client.parse().unwrap(), 4711);
    let mut session = Session::new(Arc::new(Context::new(&config, listener)), client, tls, 0, &mut out);
    session.set_wall_clock(CLOCK);
    session.tap(true);
    Rim {
        session,
        now: 0,
        buffer: Vec::new(),
        out,
        flushed: Vec::new(),
        draft: None,
        received: String::new(),
        stored: Vec::new(),
        envelope: None,
        dropped: 0,
        turned_away: None,
        checks: None,
        checked: Vec::new(),
        says: None,
        paused: 0,
        declared: None,
        opens: None,
        loses: None,
        commits: None,
        logins: None,
    }
}

fn extension(extensions: &mut Extensions, text: &str) {
    let (name, value) = text.split_once(' ').unwrap();
    let seconds = || Duration::from_secs(value.parse().unwrap());
    match name {
        "dsn" => extensions.dsn = value == "true",
        "smtputf8" => extensions.smtputf8 = value == "true",
        "mt_priority" => extensions.mt_priority = value == "true",
        "deliver_by" => extensions.deliver_by = value == "true",
        "deliver_by_min" => extensions.deliver_by_min = seconds(),
        "hold_max" => extensions.hold_max = seconds(),
        other => panic!("unknown extension {other}"),
    }
}

/// Gives all that the server said.
fn play_cut(dialogue: &Dialogue, cut: Cut) -> Vec<u8> {
    let mut rim = begin(dialogue);
    let mut group: Vec<u8> = Vec::new();
    let mut said: usize = 0;
    for (number, word, times, text) in &dialogue.lines {
        let place = || format!("{:?}, line {number}, {cut:?}", dialogue.name);
        if !matches!(word.as_str(), "C" | "c") && !group.is_empty() {
            let early = rim.out[said..].escape_ascii();
            assert!(said == rim.out.len(), "{}: nobody expects {early}", place());
            for piece in pieces(&group, cut) {
                rim.feed(piece);
            }
            group.clear();
        }
        for time in 0..*times {
            let text = octets(&text.replace("{}", &time.to_string()));
            match word.as_str() {
                "C" => group.extend([&text[..], b"\r\n"].concat()),
                "c" => group.extend(text),
                "ehlo" => said += expect_ehlo(&rim.out[said..], &String::from_utf8_lossy(&text), &place()),
                "S" => said += expect_line(&rim.out[said..], &text, &place()),
                "S+" => {
                    said += expect_line(&rim.out[said..], &text, &place());
                    while rim.out[said..].starts_with(&text) {
                        said += expect_line(&rim.out[said..], &text, &place());
                    }
                }
                _ => other(&mut rim, word, &String::from_utf8_lossy(&text), &text, &place()),
            }
        }
    }
    let rest = rim.out[said..].escape_ascii();
    assert!(said == rim.out.len(), "{}: the server goes on: {rest}", dialogue.name);
    assert!(group.is_empty() && rim.draft.is_none(), "{}: something is left", dialogue.name);
    rim.out
}

fn pieces(group: &[u8], cut: Cut) -> Vec<&[u8]> {
    match cut {
        Cut::Whole => vec![group],
        Cut::EveryOctet => group.chunks(1).collect(),
        Cut::At(at) => {
            let (head, tail) = group.split_at(at.min(group.len()));
            vec![head, tail]
        }
    }
}

fn expect_line(out: &[u8], expected: &[u8], place: &str) -> usize {
    let end = out.windows(2).position(|w| w == b"\r\n");
    let Some(end) = end else { panic!("{place}: the server is silent") };
    let line = &out[..end];
    assert!(line.starts_with(expected), "{place}: the server says {}", line.escape_ascii());
    end + 2
}

/// All lines of a reply to EHLO.
fn expect_ehlo(out: &[u8], expected: &str, place: &str) -> usize {
    let text = str::from_utf8(out).unwrap();
    let last = text.split_inclusive("\r\n").position(|line| line.starts_with("250 "));
    let last = last.unwrap_or_else(|| panic!("{place}: the server says {text}"));
    let lines: Vec<&str> = text.split_inclusive("\r\n").take(last + 1).collect();
    assert!(lines.iter().all(|line| line.starts_with("250")), "{place}: {lines:?}");
    for wanted in expected.split("; ").filter(|wanted| !wanted.is_empty()) {
        match wanted.strip_prefix('!') {
            Some(word) => assert!(lines.iter().all(|line| !line[4..].starts_with(word)), "{place}: {word}"),
            None => assert!(lines.iter().any(|line| line[4..].trim_end() == wanted), "{place}: {lines:?}"),
        }
    }
    lines.concat().len()
}

/// What MAIL asked for, in few words.
fn asked(envelope: &Envelope) -> String {
    let Some(of) = &envelope.parameters else { return String::new() };
    let mut words = Vec::new();
    words.extend(of.ret.map(|ret| format!("ret={ret:?}")));
    words.extend((!of.envid.is_empty()).then(|| format!("envid={}", of.envid)));
    words.extend(of.smtputf8.then(|| "smtputf8".into()));
    words.extend(of.require_tls.then(|| "requiretls".into()));
    words.extend((of.schedule.priority != 0).then(|| format!("priority={}", of.schedule.priority)));
    let from_now = |micros: u64| (micros as i64 - CLOCK as i64) / 1_000_000;
    words.extend(of.schedule.deliver_by.map(|by| {
        let trace = if by.trace { ",trace" } else { "" };
        format!("by={},{:?}{trace}", from_now(by.deadline_micros), by.mode)
    }));
    words.extend(of.schedule.release_micros.map(|micros| format!("release={}", from_now(micros))));
    words.join(" ")
}

/// What each RCPT asked for.
fn asked_by_rcpt(envelope: &Envelope) -> String {
    let one = |recipient: &Recipient| match &recipient.parameters {
        None => "-".to_owned(),
        Some(of) => {
            let notify = of.notify.map_or(String::new(), |of| {
                let kinds = [(of.success, "success"), (of.failure, "failure"), (of.delay, "delay")];
                kinds.iter().filter(|kind| kind.0).map(|kind| kind.1).collect::<Vec<_>>().join("+")
            });
            let notify = if of.notify.is_some() && notify.is_empty() { "never".into() } else { notify };
            format!("{notify}/{}", of.orcpt)
        }
    };
    envelope.recipients.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn other(rim: &mut Rim, word: &str, text: &str, raw: &[u8], place: &str) {
    let envelope = || rim.envelope.as_ref().expect(place);
    match word {
        "listener" | "client" | "limit" | "tls" | "extension" | "xclient" | "line_endings" | "binarymime"
        | "cut_through" | "srs" | "recipients" | "denied" => {}
        "asked" => assert_eq!(asked(envelope()), text, "{place}"),
        "rcpt" => assert_eq!(asked_by_rcpt(envelope()), text, "{place}"),
        "early" => {
            rim.session.talked_early(&mut rim.out);
            rim.feed(b"");
        }
        "allow" => {
            let (messages, recipients) = text.split_once(' ').unwrap();
            let allowance =
                Allowance { messages: messages.parse().unwrap(), recipients: recipients.parse().unwrap() };
            rim.session.allow(allowance);
        }
        "load" => rim.session.set_load(match text {
            "normal" => Level::Normal,
            "busy" => Level::Busy,
            "overloaded" => Level::Overloaded,
            other => panic!("unknown level {other}"),
        }),
        "excuse" => {
            let millis: u64 = text.parse().unwrap();
            rim.now += millis;
            rim.session.excuse(millis);
        }
        "turned-away" => rim.turned_away = Some(TurnedAway::AddressConnections),
        "paused" => assert_eq!(rim.paused.to_string(), text, "{place}"),
        "tapped" => {
            let tapped = rim.session.take_tapped();
            let tapped = tapped.trim_end().replace("C: ", "").replace('\n', " / ");
            assert_eq!(tapped, text, "{place}");
        }
        "mail" => rim.session.refuse_mail(Some(text).filter(|text| *text != "ok").and_then(refusal)),
        "loses" => rim.loses = refusal(text),
        "opens" => rim.opens = refusal(text),
        "commits" => rim.commits = refusal(text),
        "checks" => {
            rim.checks = match text {
                "ok" => None,
                "unknown" => Some(Checked::Unanswered),
                reply => Some(Checked::Refused(said(reply))),
            }
        }
        "says" => rim.says = Some(said(text)),
        "checked" => assert_eq!(rim.checked.join(" "), text, "{place}"),
        "logins" => {
            rim.logins = match text {
                "unavailable" => Some(sasl::Refusal::Unavailable),
                "locked" => Some(sasl::Refusal::TooManyFailures),
                "ok" => None,
                other => panic!("unknown refusal {other}"),
            }
        }
        "noted" => {
            let notes: Vec<_> = rim.session.take_notes().iter().map(|note| format!("{note:?}")).collect();
            assert!(notes.iter().any(|note| note.contains(text)), "{place}: {notes:?}");
        }
        "stored" => {
            assert_eq!(rim.stored.escape_ascii().to_string(), raw.escape_ascii().to_string(), "{place}")
        }
        "received" => assert!(rim.received.contains(text), "{place}: {}", rim.received),
        "from" => assert_eq!(envelope().sender, text, "{place}"),
        "to" => {
            let to: Vec<_> = envelope().recipients.iter().map(|one| one.address.as_str()).collect();
            assert_eq!(to.join(" "), text, "{place}");
        }
        "body" => assert_eq!(format!("{:?}", envelope().body), text, "{place}"),
        "dot_lines" => assert_eq!(rim.session.findings().dot_lines.to_string(), text, "{place}"),
        "declared" => assert_eq!(format!("{:?}", rim.declared), text, "{place}"),
        "dropped" => assert_eq!(rim.dropped.to_string(), text, "{place}"),
        "wait" => {
            rim.now += text.parse::<u64>().unwrap();
            if rim.now >= rim.session.deadline() {
                rim.session.timed_out(&mut rim.out);
                rim.feed(b"");
            }
        }
        "stop" => {
            rim.session.shutting_down(&mut rim.out);
            rim.feed(b"");
        }
        "closed" => assert!(rim.session.is_closed(), "{place}"),
        unknown => panic!("{place}: unknown word {unknown}"),
    }
}

/// All that the server says in a dialogue, and the limits that it sets.
pub(super) fn seen(dialogue: &Dialogue) -> (Vec<u8>, Vec<String>) {
    let limits = dialogue.lines.iter().filter(|(_, word, ..)| word == "limit");
    let names = limits.map(|(.., text)| text.split(' ').next().unwrap_or_default().to_owned());
    (play_cut(dialogue, Cut::Whole), names.collect())
}

/// Plays a dialogue in every way.
pub(super) fn play(dialogue: &Dialogue) {
    const CUTS_OF_LONG: usize = 20;
    const LONG: usize = 1500;
    play_cut(dialogue, Cut::Whole);
    if dialogue.name.starts_with("whole:") {
        return;
    }
    play_cut(dialogue, Cut::EveryOctet);
    // Written length: an upper bound of a group's, which is what matters.
    let sent = dialogue.lines.iter().filter(|(_, word, ..)| matches!(word.as_str(), "C" | "c"));
    let longest: usize = sent.map(|(_, _, times, text)| times * (text.len() + 2)).sum();
    let step = if longest > LONG { longest / CUTS_OF_LONG } else { 1 };
    (1..longest).step_by(step).for_each(|at| drop(play_cut(dialogue, Cut::At(at))));
}
