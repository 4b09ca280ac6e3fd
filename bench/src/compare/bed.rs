//! A running server, or none, between generator and sink, and the rounds on it.
//!
//! Each round has a generator of its own; the sink goes on, as a next hop does. The proportional set size is dear to read
//! (the kernel walks all page tables), so it is read in the warm-up and when the clock has stopped; while it runs only
//! the resident set size is, which costs a few microseconds a process.

use super::Bench;
use super::account::{Account, Clock};
use super::ends::{self, End};
use super::measure::{Figures, WARM_UP_SECONDS, bounded, count, setup};
use super::scenario::{Ends, Task, Work};
use super::subject::Subject;
use crate::process::Memory;
use crate::servers::{Kind, Mode, Server, rest};
use anyhow::{Context as _, Result, bail, ensure};
use std::time::{Duration, Instant};

/// Between two looks whether the sink has ended; the error of the time with Postfix's ends.
const LOOK: Duration = Duration::from_millis(2);
/// Between two looks at the memory: all of it in a warm-up, the resident set size while the clock runs.
const MEMORY_EACH_WARM: Duration = Duration::from_millis(300);
const MEMORY_EACH: Duration = Duration::from_secs(2);
/// After the sink has everything the generator has only its last reply to read.
const SOURCE_END_WAIT: Duration = Duration::from_secs(30);
/// A measurement that lasted less than this share of what was wanted becomes a warm-up of the next one.
const LENGTH_MIN: f64 = 0.7;
/// So often at most.
const LENGTHENED_MAX: usize = 2;

/// A server, or none, with its sink.
pub struct Bed<'a> {
    bench: &'a Bench<'a>,
    work: &'a Work,
    /// Messages so far.
    pub sent: u64,
    /// Peak in the warm-up.
    memory: Memory,
    server: Option<(Kind, Server)>,
    /// None where nothing is delivered.
    sink: Option<End>,
}

impl<'a> Bed<'a> {
    pub fn start(
        bench: &'a Bench<'a>,
        subject: Subject,
        work: &'a Work,
        messages: Option<u64>,
    ) -> Result<Self> {
        let delivers = subject == Subject::Straight || work.task == Task::EndToEnd;
        let sink = if delivers { Some(ends::start_sink(bench, work, messages)?) } else { None };
        let mode = if work.task == Task::EndToEnd { Mode::Deliver } else { Mode::Keep };
        let server = match subject {
            Subject::Server(kind) => {
                Some((kind, Server::start(kind, &setup(bench, work, mode), bench.stop)?))
            }
            _ => None,
        };
        Ok(Bed { bench, work, sent: 0, memory: Memory::default(), server, sink })
    }

    fn start_source(&self, messages: u64, rate: Option<f64>) -> Result<End> {
        let port = self.bench.options.port + u16::from(self.server.is_some());
        // Without a server the sink is the generator's peer, and one leg stands for both.
        let tls = if self.server.is_some() { self.work.tls.inward() } else { self.work.tls.outward() };
        ends::start_source(self.bench, self.work, messages, rate, port, tls)
    }

    /// Waits until what is measured rests; since when it has.
    fn rest(&self) -> Option<Instant> {
        match (&self.server, &self.sink) {
            (Some((_, server)), _) => Some(rest(&server.group)),
            (None, Some(sink)) => Some(rest(&sink.group)),
            (None, None) => None,
        }
    }

    /// Messages per second of the warm-up; of those of Postfix's ends, whose sink tells nothing, those taken.
    /// It is repeated with more until it lasts, so that connections, segments and caches are as they stay; with the
    /// rate of an earlier round it is long enough at once.
    pub fn warm_up(&mut self, known: Option<f64>) -> Result<f64> {
        let long = |rate: f64| bounded(self.work, rate * WARM_UP_SECONDS);
        let mut messages = known.filter(|_| self.work.messages.is_none()).map_or(self.work.warm_up, long);
        loop {
            let rate = self.warm_up_by(messages)?;
            let wanted = bounded(self.work, rate * WARM_UP_SECONDS);
            if self.work.messages.is_some() || 2 * messages >= wanted {
                return Ok(rate);
            }
            messages = wanted;
        }
    }

    pub fn warm_up_by(&mut self, messages: u64) -> Result<f64> {
        if self.work.ends == Ends::Own {
            return Ok(self.round(messages, None, true).context("warm-up")?.messages_per_second);
        }
        let deadline = Instant::now() + self.bench.options.patience;
        let began = Instant::now();
        let mut source = self.start_source(messages, None)?;
        let (good, said) =
            source.finish(deadline, self.bench.stop).context("the generator of the warm-up")?;
        ensure!(good, "the server refused messages of the warm-up: {said}");
        self.look_at_memory();
        // Not what was taken counts: what was delivered, for a server may take much more than it can hand on.
        let took = self.rest().unwrap_or_else(Instant::now).saturating_duration_since(began).as_secs_f64();
        Ok(messages as f64 / took.max(0.001))
    }

    /// As many messages as make a measurement of the length wanted, by the rate that is expected; when it was much
    /// shorter all the same, again by the rate that it had.
    pub fn run_long_enough(&mut self, expected: f64, rate: Option<f64>) -> Result<Figures> {
        let mut messages = count(self.work, expected);
        for _ in 0..LENGTHENED_MAX {
            let figures = self.run(messages, rate)?;
            let more = count(self.work, figures.messages_per_second);
            if figures.seconds >= LENGTH_MIN * self.work.seconds || more <= messages {
                return Ok(figures);
            }
            messages = more;
        }
        self.run(messages, rate)
    }

    pub fn run(&mut self, messages: u64, rate: Option<f64>) -> Result<Figures> {
        self.round(messages, rate, false)
    }

    fn round(&mut self, messages: u64, rate: Option<f64>, is_warm_up: bool) -> Result<Figures> {
        let (bench, work) = (self.bench, self.work);
        let deadline = Instant::now() + bench.options.patience;
        if let Some(sink) = &mut self.sink {
            sink.expect(messages * work.recipients as u64)?;
        }
        self.sent += messages;
        let before = Account::take(bench, self.server.as_ref(), self.sink.as_ref());
        let began = Instant::now();
        let mut source = self.start_source(messages, rate)?;
        let (peak, last) = self.watch(&mut source, deadline, is_warm_up)?;
        let (took, clock) = (began.elapsed(), Clock::stop(bench));
        self.memory = self.memory.max(peak);
        self.look_at_memory();
        let deadline = Instant::now() + SOURCE_END_WAIT;
        let (good, said) = source.finish(deadline, bench.stop).context("the generator")?;
        // smtp-sink ends without a reply to its last message, so its direct peer cannot end well.
        let excused = self.server.is_none() && work.ends == Ends::Postfix;
        ensure!(good || excused, "the generator failed: {}", ends::failures(&said));
        self.rest();
        let after = Account::take(bench, self.server.as_ref(), self.sink.as_ref());
        let mut figures = after.since(&before, messages, self.memory, &clock, source.group.cpu());
        figures.seconds = took.as_secs_f64();
        figures.cpu_method = source.group.method();
        if work.ends == Ends::Own {
            let source = ends::source_report(&said)?;
            // The own ends know the time better than a look each 2 ms.
            figures.seconds = match last {
                Some(last) => last.saturating_sub(source.started_unix_nanos) as f64 / 1e9,
                None => source.seconds,
            };
            if source.resumed_share().is_some() {
                let each = |count: u64| Some(count as f64 / messages as f64);
                figures.handshakes_in_full = each(source.handshakes_full);
                figures.handshakes_in_resumed = each(source.handshakes_resumed);
            }
            (figures.end_of_data, figures.transaction) = (Some(source.end_of_data), Some(source.transaction));
            figures.lag = rate.map(|_| source.lag);
        }
        figures.messages_per_second = messages as f64 / figures.seconds.max(1e-6);
        Ok(figures)
    }

    /// All of it, while no clock runs.
    fn look_at_memory(&mut self) {
        if let Some((_, server)) = &self.server {
            self.memory = self.memory.max(server.group.memory());
        }
    }

    /// Waits until everything has come. Returns the server's peak of memory, and the time of the last message where the
    /// sink tells it.
    fn watch(
        &mut self,
        source: &mut End,
        deadline: Instant,
        is_warm_up: bool,
    ) -> Result<(Memory, Option<u64>)> {
        let Some(sink) = &mut self.sink else {
            let done = || Ok(source.has_ended()?.then_some(None));
            return watch(done, &mut self.server, deadline, is_warm_up, self.bench);
        };
        let is_own = self.work.ends == Ends::Own;
        let done = || {
            // What was refused never comes.
            if is_own && source.has_failed()? {
                bail!(
                    "the generator failed: {}",
                    ends::failures(&source.finish(deadline, self.bench.stop)?.1)
                );
            }
            sink.has_all()
        };
        watch(done, &mut self.server, deadline, is_warm_up, self.bench)
    }

    /// Ends everything; adds what the sink has found.
    pub fn close(self, mut figures: Figures, messages: u64) -> Result<Figures> {
        drop(self.server);
        if let Some(sink) = self.sink {
            add_sink(&mut figures, sink, messages)?;
        }
        Ok(figures)
    }
}

/// Waits until `done` says so. Returns the server's peak of memory, all of it in a warm-up, and what `done` said.
pub fn watch<T>(
    mut done: impl FnMut() -> Result<Option<T>>,
    server: &mut Option<(Kind, Server)>,
    deadline: Instant,
    is_warm_up: bool,
    bench: &Bench<'_>,
) -> Result<(Memory, T)> {
    let look = if is_warm_up { MEMORY_EACH_WARM } else { MEMORY_EACH };
    let mut memory = Memory::default();
    let mut next_look = Instant::now() + look;
    loop {
        if let Some(said) = done()? {
            return Ok((memory, said));
        }
        if let Some((_, server)) = server
            && Instant::now() >= next_look
        {
            server.check()?;
            let now = if is_warm_up { server.group.memory() } else { server.group.resident() };
            memory = memory.max(now);
            next_look = Instant::now() + look;
        }
        ensure!(!bench.stop.is_set(), "interrupted");
        ensure!(Instant::now() < deadline, "not all messages have come within --patience");
        std::thread::sleep(LOOK);
    }
}

/// What the own sink has found; all messages of all rounds must have come whole. Gives the seconds from the first one to
/// the last.
pub fn add_sink(figures: &mut Figures, sink: End, messages: u64) -> Result<f64> {
    let Some(sink) = sink.report()? else { return Ok(0.0) };
    ensure!(
        sink.damaged == 0 && sink.intact >= messages,
        "{} of {messages} messages came intact, {} damaged",
        sink.intact,
        sink.damaged
    );
    figures.repeats = Some(sink.repeats);
    let each = |count: u64| Some(count as f64 / messages as f64);
    if sink.handshakes_full + sink.handshakes_resumed > 0 {
        figures.handshakes_full = each(sink.handshakes_full);
        figures.handshakes_resumed = each(sink.handshakes_resumed);
    }
    Ok(sink.seconds)
}
