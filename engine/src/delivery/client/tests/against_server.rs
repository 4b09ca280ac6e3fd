//! The client session against the relay's own server session, in virtual time: two pure machines and a simulated
//! link that delays, divides and joins octets by a seed, and is cut, or falls silent, behind any octet of either
//! direction. Whatever happens, every message arrives; and what is told of it is true:
//!
//! - delivered: the server has it, once for this;
//! - not sent (its content had not left as a whole): the server does not have it from this connection;
//! - unknown (its content had left and its reply had not come): it is sent again, and these alone may arrive twice.

use super::*;
use crate::policy::tests::config;
use crate::session::{Context, Session, Step};
use crate::smtp::stuffing::Stuffer;
use sluice_queue::QueueId;
use std::collections::VecDeque;

/// Turns of one simulation; more would be an endless loop.
const TURNS_MAX: usize = 20_000;
/// Connections for one simulation: the first is cut, and a further one finishes.
const CONNECTIONS_MAX: usize = 3;
const MESSAGES: usize = 5;
/// Lines of content that begin with a dot, or look like commands.
const BODY: &str = ".\r\n..dots\r\nQUIT\r\n.\r\n";

/// SplitMix64.
struct Seed(u64);

impl Seed {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

/// What happens to the link.
#[derive(Clone, Copy, Debug)]
struct Accident {
    direction: Direction,
    /// Behind so many octets of it.
    behind: usize,
    /// Nothing is carried any more and nobody is told, in place of a connection that breaks.
    silent: bool,
}

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    segments: VecDeque<(Millis, Vec<u8>)>,
    carried: usize,
}

impl Pipe {
    fn push(&mut self, now: Millis, octets: &[u8], seed: &mut Seed) {
        let mut rest = octets;
        while !rest.is_empty() {
            let len = match seed.below(4) {
                0 => 1 + seed.below(5) as usize,
                _ => 1 + seed.below(1_500) as usize,
            };
            let (segment, behind) = rest.split_at(len.min(rest.len()));
            let before = self.segments.back().map_or(0, |(at, _)| *at);
            self.segments.push_back((before.max(now + 1 + seed.below(60)), segment.to_vec()));
            rest = behind;
        }
    }

    fn due(&self) -> Millis {
        self.segments.front().map_or(Millis::MAX, |(at, _)| *at)
    }

    fn pop(&mut self, now: Millis) -> Vec<u8> {
        let mut octets = Vec::new();
        while self.due() <= now {
            octets.extend(self.segments.pop_front().expect("one is due").1);
        }
        octets
    }
}

/// The server's rim: a spool in memory.
struct Receiver {
    session: Session,
    input: Vec<u8>,
    draft: Vec<u8>,
    /// When the commit that is under way is durable.
    durable: Option<Millis>,
    closed: bool,
}

impl Receiver {
    fn new(context: &Arc<Context>, now: Millis, out: &mut Vec<u8>) -> Self {
        let client = "192.0.2.9:4711".parse().unwrap();
        let session = Session::new(context.clone(), client, None, now, out);
        Self { session, input: Vec::new(), draft: Vec::new(), durable: None, closed: false }
    }

    fn turn(&mut self, now: Millis, out: &mut Vec<u8>, seed: &mut Seed, kept: &mut Vec<Vec<u8>>) {
        if self.durable.is_some_and(|at| at <= now) {
            self.durable = None;
            kept.push(std::mem::take(&mut self.draft));
            self.session.committed(Ok(()), out);
        }
        while self.durable.is_none() && !self.closed {
            let (consumed, step) = self.session.advance(now, &self.input, out);
            match &step {
                Step::Open => drop(self.session.opened(QueueId::from_bits(0), "now", out)),
                Step::Content(range) => self.draft.extend_from_slice(&self.input[range.clone()]),
                Step::Insert(octets) => self.draft.extend_from_slice(octets),
                Step::Commit => self.durable = Some(now + 1 + seed.below(20)),
                Step::Close => self.closed = true,
                Step::Read | Step::Flush => {}
                other => panic!("{other:?} from a client of our own"),
            }
            self.input.drain(..consumed);
            if step == Step::Read {
                break;
            }
        }
    }
}

/// A message on its way, by its number.
struct Flight {
    number: usize,
    /// Its content has left as a whole.
    sent: bool,
}

/// The client's rim, as `serve` is.
struct Sender {
    client: Client,
    carried: Vec<u8>,
    flights: VecDeque<Flight>,
}

/// What is known of one message in the end.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    delivered: usize,
    unknown: usize,
}

struct World {
    seed: Seed,
    now: Millis,
    waiting: VecDeque<usize>,
    accounts: [Account; MESSAGES],
    kept: Vec<Vec<u8>>,
    content_bytes: usize,
    /// Octets that each direction carried on the first connection.
    carried: [usize; 2],
}

impl World {
    fn content(&self, number: usize) -> Vec<u8> {
        let mut content = format!("Subject: {number}\r\n\r\n{BODY}").into_bytes();
        while content.len() < self.content_bytes {
            content.extend_from_slice(b".line of content\r\n");
        }
        content
    }

    /// One turn of the client; true when the connection has come to its end.
    fn send(&mut self, sender: &mut Sender, out: &mut Vec<u8>) -> bool {
        loop {
            if sender.client.can_begin()
                && let Some(number) = self.waiting.pop_front()
            {
                let recipients = ["joe@winery.example", "ann@winery.example"].into_iter();
                let transaction = Transaction {
                    content_bytes: self.content(number).len() as u64,
                    ..plain("s@a.example", recipients.map(Rcpt::from))
                };
                sender.client.begin(self.now, transaction, out);
                sender.flights.push_back(Flight { number, sent: false });
            }
            let (consumed, event) = sender.client.advance(self.now, &sender.carried, out);
            sender.carried.drain(..consumed);
            match event {
                Event::Read if sender.client.is_ready() && self.waiting.is_empty() => {
                    sender.client.quit(self.now, out);
                    return false;
                }
                Event::Read if sender.client.can_begin() && !self.waiting.is_empty() => {}
                Event::Read => return false,
                Event::Ready => {}
                Event::Send(framing) => {
                    let last = sender.flights.len() - 1;
                    let flight = &mut sender.flights[if framing == Framing::Dots { 0 } else { last }];
                    let content = self.content(flight.number);
                    match framing {
                        Framing::Counted => out.extend_from_slice(&content),
                        Framing::Dots => {
                            let mut stuffer = Stuffer::new();
                            stuffer.stuff(&content).for_each(|range| out.extend_from_slice(&content[range]));
                            out.extend_from_slice(stuffer.finish());
                        }
                    }
                    flight.sent = true;
                    sender.client.content_sent(self.now);
                }
                Event::Finished(fates) => {
                    let flight = sender.flights.pop_front().expect("one is under way");
                    assert!(fates.iter().all(|fate| matches!(fate, Fate::Delivered(_))), "{fates:?}");
                    self.accounts[flight.number].delivered += 1;
                }
                Event::Failed(end) => {
                    self.end(sender, &end);
                    return true;
                }
                Event::Closed => return true,
                Event::StartTls => panic!("nobody wished for TLS"),
            }
        }
    }

    /// The connection is gone: nothing is returned to a sender, and all that was under way goes again.
    fn end(&mut self, sender: &mut Sender, end: &SessionFailure) {
        let asked = if sender.flights.is_empty() { 0 } else { 2 };
        assert_eq!(end.fates.len(), asked);
        assert!(
            end.fates.iter().all(|fate| matches!(fate, Fate::Failed(failure) if !failure.lasting)),
            "{end:?}"
        );
        if let Some(oldest) = sender.flights.front() {
            let says_so = end.failure.text.ends_with("message may be sent more than once");
            assert_eq!(says_so, oldest.sent, "{}", end.failure.text);
        }
        while let Some(flight) = sender.flights.pop_back() {
            self.accounts[flight.number].unknown += usize::from(flight.sent);
            self.waiting.push_front(flight.number);
        }
    }

    /// One connection, until both sides are through.
    fn connect(&mut self, context: &Arc<Context>, chunking: bool, accident: Option<Accident>) {
        let peer = Peer { name: "mx.example".into(), address: "192.0.2.1:25".parse().unwrap() };
        let timeouts = ClientTimeouts {
            greeting: 300_000,
            reply: 300_000,
            data: 120_000,
            block: 180_000,
            end_of_data: 600_000,
        };
        let settings = Arc::new(ClientSettings {
            hostname: "relay.example".into(),
            timeouts,
            chunking,
            protocol: crate::config::Protocol::Smtp,
        });
        let opening = Opening { starttls: StartTls::Never, in_tls: false, login: None };
        let client = Client::new(settings, peer, opening, self.now);
        let mut sender = Sender { client, carried: Vec::new(), flights: VecDeque::new() };
        let (mut to_server, mut to_client) = (Pipe::default(), Pipe::default());
        let mut out = Vec::new();
        let mut receiver = Receiver::new(context, self.now, &mut out);
        to_client.push(self.now, &out, &mut self.seed);
        let mut happened = false;
        for _ in 0..TURNS_MAX {
            let timers = sender.client.deadline().min(receiver.durable.unwrap_or(Millis::MAX));
            self.now = self.now.max(to_server.due().min(to_client.due()).min(timers));
            let mut broken = false;
            for (direction, pipe, input) in [
                (Direction::ToServer, &mut to_server, &mut receiver.input),
                (Direction::ToClient, &mut to_client, &mut sender.carried),
            ] {
                let mut octets = pipe.pop(self.now);
                if let Some(accident) = accident.filter(|accident| accident.direction == direction)
                    && pipe.carried + octets.len() >= accident.behind
                    && !happened
                {
                    octets.truncate(accident.behind - pipe.carried);
                    (happened, broken) = (true, !accident.silent);
                } else if happened {
                    octets.clear();
                }
                pipe.carried += octets.len();
                input.extend(octets);
            }
            let mut replies = Vec::new();
            receiver.turn(self.now, &mut replies, &mut self.seed, &mut self.kept);
            let mut commands = Vec::new();
            let mut over = self.send(&mut sender, &mut commands);
            if !over && broken {
                let end = sender.client.disconnected();
                self.end(&mut sender, &end);
                over = true;
            } else if !over && sender.client.deadline() <= self.now {
                assert!(happened, "a time-out on a link that works");
                let end = sender.client.timed_out();
                self.end(&mut sender, &end);
                over = true;
            }
            if happened {
                (to_server.segments, to_client.segments) = Default::default();
            } else {
                to_client.push(self.now, &replies, &mut self.seed);
                to_server.push(self.now, &commands, &mut self.seed);
            }
            if over {
                // What was being written when the connection broke becomes durable all the same.
                if let Some(at) = receiver.durable {
                    self.now = self.now.max(at);
                    receiver.turn(self.now, &mut Vec::new(), &mut self.seed, &mut self.kept);
                }
                if self.carried == [0; 2] {
                    self.carried = [to_server.carried, to_client.carried];
                }
                return;
            }
        }
        panic!("no end after {TURNS_MAX} turns");
    }
}

/// All messages, over one connection that has an accident and others that have none.
fn simulate(
    context: &Arc<Context>,
    chunking: bool,
    content_bytes: usize,
    accident: Option<Accident>,
    seed: u64,
) -> World {
    let mut world = World {
        seed: Seed(seed),
        now: HOUR,
        waiting: (0..MESSAGES).collect(),
        accounts: [Account::default(); MESSAGES],
        kept: Vec::new(),
        content_bytes,
        carried: [0; 2],
    };
    for connection in 0..CONNECTIONS_MAX {
        world.connect(context, chunking, accident.filter(|_| connection == 0));
        if world.waiting.is_empty() {
            break;
        }
    }
    for (number, account) in world.accounts.iter().enumerate() {
        let content = world.content(number);
        // In front of the content stands the field that the server adds.
        let kept = world.kept.iter().filter(|kept| kept.ends_with(&content)).count();
        let what = format!("chunking {chunking}, {accident:?}, seed {seed}: message {number}, {account:?}");
        assert_eq!(account.delivered, 1, "{what}");
        assert!((1..=1 + account.unknown).contains(&kept), "{what}: {kept} in the spool");
    }
    world
}

fn context() -> Arc<Context> {
    Arc::new(Context::new(&config(), 0))
}

#[test]
fn without_accidents_every_message_arrives_once_and_in_order() {
    let context = context();
    for chunking in [false, true] {
        for seed in 0..200 {
            let world = simulate(&context, chunking, 0, None, seed);
            assert_eq!(world.kept.len(), MESSAGES);
            for (number, kept) in world.kept.iter().enumerate() {
                assert!(kept.ends_with(&world.content(number)), "seed {seed}");
            }
        }
    }
}

#[test]
fn a_link_cut_or_silent_behind_any_octet_leaves_every_message_in_a_defined_state() {
    let context = context();
    let (mut accidents, mut unknown, mut twice) = (0, 0, 0);
    for chunking in [false, true] {
        let [to_server, to_client] = simulate(&context, chunking, 0, None, 0).carried;
        for (direction, octets) in [(Direction::ToServer, to_server), (Direction::ToClient, to_client)] {
            for behind in 0..octets {
                for silent in [false, true] {
                    if silent && behind % 3 != 0 {
                        continue;
                    }
                    let accident = Accident { direction, behind, silent };
                    let world = simulate(&context, chunking, 0, Some(accident), behind as u64);
                    accidents += 1;
                    unknown += world.accounts.iter().map(|account| account.unknown).sum::<usize>();
                    twice += world.kept.len() - MESSAGES;
                }
            }
        }
    }
    // Else nothing was tried that could fail.
    assert!(accidents > 2_000 && unknown > 1_000 && twice > 100, "{accidents} {unknown} {twice}");
}

/// Contents that wait until a recipient is accepted, and that need many segments.
#[test]
fn a_link_cut_within_large_contents_leaves_every_message_in_a_defined_state() {
    let context = context();
    let content_bytes = UNASKED_BYTES_MAX as usize + 1;
    for chunking in [false, true] {
        let [to_server, to_client] = simulate(&context, chunking, content_bytes, None, 0).carried;
        for (direction, octets) in [(Direction::ToServer, to_server), (Direction::ToClient, to_client)] {
            for step in 0..40 {
                let accident = Accident { direction, behind: octets * step / 40, silent: step % 2 == 1 };
                simulate(&context, chunking, content_bytes, Some(accident), step as u64);
            }
        }
    }
}
