//! One measurement: start, warm up, rest, measure, rest, end.
//!
//! Before the server is started the file system is synced and a few fdatasyncs are timed, so that a disk that is slower
//! now than for the row before is seen; and the machine is watched, so that a busy neighbour is.
//!
//! A measurement is made of rounds on one running server: a warm-up, from whose rate follows how many messages make a
//! measurement of the length that is wanted; for a share of the load a saturated round, from whose rate follows the
//! rate; and the one that counts, which is repeated when it was much too short. Each round has a generator of its own;
//! the sink goes on, as a next hop does.
//!
//! The time runs from the generator's start to the last message that the sink has got; where nothing is delivered, to
//! the last answer; where nothing is taken, from the first message that the sink gets. CPU time runs from the generator's start until the
//! server rests again, so that what it puts off (removing queue files, noting outcomes) counts too.
//!
//! The proportional set size is dear to read (the kernel walks all page tables), so it is read in the warm-up and when
//! the clock has stopped; while it runs only the resident set size is, which costs a few microseconds a process.

use super::account::{self, Account};
use super::ends::{self, End};
use super::machine::{self, Shares};
use super::scenario::{Ends, Task, Tls, Work};
use super::subject::Subject;
use super::{Bench, disk, idle};
use crate::figures::Summary;
use crate::process::Memory;
use crate::servers::{self, Kind, Mode, Server, Setup, rest};
use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use std::fs;
use std::time::{Duration, Instant};

/// Between two looks whether the sink has ended; the error of the time with Postfix's ends.
const LOOK: Duration = Duration::from_millis(2);
/// Between two looks at the memory: all of it in a warm-up, the resident set size while the clock runs.
const MEMORY_EACH_WARM: Duration = Duration::from_millis(300);
const MEMORY_EACH: Duration = Duration::from_secs(2);
/// How long the machine is watched before a row.
const WATCH_BEFORE: Duration = Duration::from_millis(200);
/// After the sink has everything the generator has only its last reply to read.
const SOURCE_END_WAIT: Duration = Duration::from_secs(30);
/// The last part of a warm-up lasts about so long.
const WARM_UP_SECONDS: f64 = 1.0;
/// Messages of one measurement, whatever the rate: numbers of a sink's memory and of a queue on disk.
const MESSAGES_MAX: f64 = 200_000.0;
const OCTETS_MAX: f64 = 1.5e9;
const MESSAGES_MIN: f64 = 10.0;
/// A measurement that lasted less than this share of what was wanted becomes a warm-up of the next one.
const LENGTH_MIN: f64 = 0.7;
/// So often at most.
const LENGTHENED_MAX: usize = 2;

/// What one measurement found. CPU in milliseconds per message, which is seconds per thousand.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    pub messages: u64,
    pub seconds: f64,
    pub messages_per_second: f64,
    pub server_cpu_ms: f64,
    pub source_cpu_ms: f64,
    pub sink_cpu_ms: f64,
    /// The larger one of the warm-up's peak and of that when the clock has stopped.
    pub memory_pss_mib: f64,
    /// Peak.
    pub memory_rss_mib: f64,
    /// The whole machine while the clock ran.
    pub machine: Option<Shares>,
    /// Percent of the time while the clock ran that the device under the queue had something to do.
    pub device_busy_percent: Option<f64>,
    /// Percent of all cores, until the server rested: what neither server, ends nor this program took. Threads of the
    /// kernel (writeback, journal, ring workers) and other programs.
    pub others_percent: Option<f64>,
    /// Percent of all cores that were busy before the server was started.
    pub busy_before_percent: Option<f64>,
    /// fdatasyncs just before, on a synced file system.
    pub disk_before: Option<Summary>,
    /// Of a start on an empty queue, taken off the server's CPU time; milliseconds in all, `deliver` only.
    pub start_cpu_ms: Option<f64>,
    /// Per message, of the whole device under the queue.
    pub flushes: Option<f64>,
    pub written_kib: Option<f64>,
    /// The relay's own account, per message: data-sync writes of its spools, and KiB of them.
    pub spool_writes: Option<f64>,
    pub spool_kib: Option<f64>,
    /// Own ends only: final dot to 250.
    pub end_of_data: Option<Summary>,
    /// Own ends only: the whole transaction; in the open loop from when it was due.
    pub transaction: Option<Summary>,
    /// Open loop: how late the generator started its messages.
    pub lag: Option<Summary>,
    /// Open loop: the rate asked for, and the saturated one that it was taken from.
    pub rate: Option<f64>,
    pub saturated_rate: Option<f64>,
    /// Own ends only: messages that came twice.
    pub repeats: Option<u64>,
    /// TLS handshakes of the sink per message, full and resumed.
    pub handshakes_full: Option<f64>,
    pub handshakes_resumed: Option<f64>,
    pub idle: Option<idle::Figures>,
    pub cpu_method: &'static str,
}

pub fn measure(bench: &Bench<'_>, subject: Subject, work: &Work) -> Result<Figures> {
    let disk_before = disk::probe(bench.directory)?;
    let busy_before_percent = machine::busy_percent_for(WATCH_BEFORE);
    let figures = match (subject, work.task) {
        (Subject::Fdatasync, _) => disk::measure(bench.directory, work.seconds),
        (_, Task::Idle) => idle::measure(bench, work),
        (Subject::Server(kind), Task::Deliver) => deliver(bench, kind, work),
        (Subject::Server(_) | Subject::Straight, _) => flow(bench, subject, work),
    };
    let _ = fs::remove_dir_all(bench.directory.join("server"));
    Ok(Figures { disk_before: Some(disk_before), busy_before_percent, ..figures? })
}

pub fn setup(bench: &Bench<'_>, work: &Work, mode: Mode) -> Setup {
    let port = bench.options.port;
    Setup {
        unpacked: bench.options.unpacked.clone(),
        admin: Some(port + 2),
        mode,
        certificate: bench.certificate.filter(|_| work.tls.inward()).cloned(),
        outward_tls: work.tls.outward(),
        clients: work.sessions,
        ingest_cpus: work.ingest_cpus.clone(),
        delivery_cpus: work.delivery_cpus.clone(),
        spin: work.spin.clone(),
        ..Setup::new(bench.directory.join("server"), &bench.options.relay, port + 1, port)
    }
}

/// How many messages make a measurement of the length wanted.
fn count(work: &Work, rate: f64) -> u64 {
    if let Some(messages) = work.messages {
        return messages;
    }
    bounded(work, rate * work.seconds)
}

/// So many messages, but no more than the disk should take.
fn bounded(work: &Work, messages: f64) -> u64 {
    let most = MESSAGES_MAX.min(OCTETS_MAX / work.size.mean().max(1.0));
    messages.min(most).max(MESSAGES_MIN) as u64
}

/// Warm-up and measurement on one running server, or on none.
fn flow(bench: &Bench<'_>, subject: Subject, work: &Work) -> Result<Figures> {
    if work.ends == Ends::Postfix {
        return flow_of_postfix(bench, subject, work);
    }
    let mut bed = Bed::start(bench, subject, work, None)?;
    let warm = bed.warm_up(bench.known_rate(subject, work))?;
    let rate = match (work.load, work.rate) {
        (None, rate) => rate,
        (Some(load), _) => {
            let saturated = bed.run(count(work, warm), None).context("saturated round")?;
            bench.note_rate(subject, work, saturated.messages_per_second);
            Some(saturated.messages_per_second * f64::from(load) / 100.0)
        }
    };
    let figures = bed.run_long_enough(rate.unwrap_or(warm), rate)?;
    if rate.is_none() {
        bench.note_rate(subject, work, figures.messages_per_second);
    }
    let saturated_rate = work.load.and(rate).map(|rate| rate * 100.0 / f64::from(work.load.unwrap_or(100)));
    let figures = Figures { rate, saturated_rate, ..figures };
    let sent = bed.sent;
    bed.close(figures, sent)
}

/// smtp-sink counts and ends by itself, so the number of messages must be known before: from a run before the first
/// round.
fn flow_of_postfix(bench: &Bench<'_>, subject: Subject, work: &Work) -> Result<Figures> {
    let rate = match bench.known_rate(subject, work) {
        Some(rate) => rate,
        None => {
            let mut bed = Bed::start(bench, subject, work, None)?;
            let rate = bed.warm_up(None).context("before the first round")?;
            drop(bed);
            let _ = fs::remove_dir_all(bench.directory.join("server"));
            rate
        }
    };
    let (warm, messages) = (bounded(work, rate * WARM_UP_SECONDS), count(work, rate));
    let mut bed = Bed::start(bench, subject, work, Some(warm + messages))?;
    bed.warm_up_by(warm)?;
    let figures = bed.run(messages, None)?;
    bench.note_rate(subject, work, figures.messages_per_second);
    Ok(figures)
}

/// A server, or none, with its sink.
struct Bed<'a> {
    bench: &'a Bench<'a>,
    work: &'a Work,
    /// Messages so far.
    sent: u64,
    /// Peak in the warm-up.
    memory: Memory,
    server: Option<(Kind, Server)>,
    /// None where nothing is delivered.
    sink: Option<End>,
}

impl<'a> Bed<'a> {
    fn start(bench: &'a Bench<'a>, subject: Subject, work: &'a Work, messages: Option<u64>) -> Result<Self> {
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

    fn rest(&self) {
        match (&self.server, &self.sink) {
            (Some((_, server)), _) => rest(&server.group),
            (None, Some(sink)) => rest(&sink.group),
            (None, None) => {}
        }
    }

    /// Messages per second of the warm-up; of those of Postfix's ends, whose sink tells nothing, those taken.
    /// It is repeated with more until it lasts, so that connections, segments and caches are as they stay; with the
    /// rate of an earlier round it is long enough at once.
    fn warm_up(&mut self, known: Option<f64>) -> Result<f64> {
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

    fn warm_up_by(&mut self, messages: u64) -> Result<f64> {
        if self.work.ends == Ends::Own {
            return Ok(self.round(messages, None, true).context("warm-up")?.messages_per_second);
        }
        let deadline = Instant::now() + self.bench.options.patience;
        let began = Instant::now();
        let mut source = self.start_source(messages, None)?;
        let (good, said) =
            source.finish(deadline, self.bench.stop).context("the generator of the warm-up")?;
        ensure!(good, "the server refused messages of the warm-up: {said}");
        let took = began.elapsed().as_secs_f64();
        self.look_at_memory();
        self.rest();
        Ok(messages as f64 / took.max(0.001))
    }

    /// As many messages as make a measurement of the length wanted, by the rate that is expected; when it was much
    /// shorter all the same, again by the rate that it had.
    fn run_long_enough(&mut self, expected: f64, rate: Option<f64>) -> Result<Figures> {
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

    fn run(&mut self, messages: u64, rate: Option<f64>) -> Result<Figures> {
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
        let (took, clock) = (began.elapsed(), account::Clock::stop(bench));
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
    fn close(self, mut figures: Figures, messages: u64) -> Result<Figures> {
        drop(self.server);
        if let Some(sink) = self.sink {
            add_sink(&mut figures, sink, messages)?;
        }
        Ok(figures)
    }
}

/// Fills the queue of a server that tries nothing, and measures the same server started on it. What a start on an empty
/// queue takes is taken off its CPU time.
fn deliver(bench: &Bench<'_>, kind: Kind, work: &Work) -> Result<Figures> {
    let deadline = Instant::now() + bench.options.patience;
    let setup = setup(bench, work, Mode::Deliver);
    let start_cpu = start_cpu(bench, kind, &setup).context("a start on an empty queue")?;
    // The queue is filled over clear connections, whatever leg is in TLS.
    let accept = Work { task: Task::Accept, tls: Tls::Off, ..work.clone() };
    let mut bed = Bed::start(bench, Subject::Server(kind), &accept, None)?;
    let rate = bed.warm_up(None).context("filling the queue")?;
    bed.run(count(work, rate), None).context("filling the queue")?;
    let messages = bed.sent;
    drop(bed);
    servers::release(kind, &setup)?;
    let mut sink = ends::start_sink(bench, work, None)?;
    sink.expect(messages * work.recipients as u64)?;
    let before = Account::take(bench, None, Some(&sink));
    let mut server = Some((kind, Server::start(kind, &setup, bench.stop)?));
    servers::hurry(kind, &setup)?;
    let (peak, _) = watch(|| sink.has_all(), &mut server, deadline, false, bench)?;
    let clock = account::Clock::stop(bench);
    let memory = server.as_ref().map_or(peak, |(_, server)| peak.max(server.group.memory()));
    if let Some((_, server)) = &server {
        rest(&server.group);
    }
    let after = Account::take(bench, server.as_ref(), Some(&sink));
    let mut figures = after.since(&before, messages, memory, &clock, Duration::ZERO);
    let start_cpu_ms = start_cpu.as_secs_f64() * 1e3;
    figures.server_cpu_ms = (figures.server_cpu_ms - start_cpu_ms / messages as f64).max(0.0);
    figures.start_cpu_ms = Some(start_cpu_ms);
    figures.cpu_method = sink.group.method();
    drop(server);
    // From the first message to the last: how long a server takes to start is another question.
    figures.seconds = add_sink(&mut figures, sink, messages)?;
    figures.messages_per_second = messages as f64 / figures.seconds.max(1e-6);
    Ok(figures)
}

/// CPU time from the start to the rest of a server that has nothing to do.
fn start_cpu(bench: &Bench<'_>, kind: Kind, setup: &Setup) -> Result<Duration> {
    let server = Server::start(kind, setup, bench.stop)?;
    rest(&server.group);
    let cpu = server.group.cpu();
    drop(server);
    let _ = fs::remove_dir_all(&setup.directory);
    Ok(cpu)
}

/// Waits until `done` says so. Returns the server's peak of memory, all of it in a warm-up, and what `done` said.
fn watch<T>(
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
fn add_sink(figures: &mut Figures, sink: End, messages: u64) -> Result<f64> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_messages_follows_from_the_rate_within_bounds() {
        let work = Work { seconds: 3.0, warm_up: 500, ..Work::plain(4096, 20) };
        assert_eq!(count(&work, 1_000.0), 3_000);
        assert_eq!(count(&work, 10.0), 30);
        assert_eq!(count(&work, 0.1), 10);
        assert_eq!(count(&work, 1e9), 200_000);
        let large = Work { size: super::super::scenario::Size::Octets(1 << 20), ..work.clone() };
        assert_eq!(count(&large, 1e9), 1_430);
        assert_eq!(count(&Work { messages: Some(7), ..work }, 1e9), 7);
    }
}
