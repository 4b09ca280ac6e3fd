//! One measurement: start, warm up, rest, measure, rest, end.
//!
//! A measurement is made of rounds on one running server: a warm-up, from whose rate follows how many messages make a
//! measurement of the length that is wanted; for an open loop a saturated round, from whose rate follows the rate; and
//! the one that counts. Each round has a generator of its own; the sink goes on, as a next hop does.
//!
//! The time runs from the generator's start to the last message that the sink has got; where nothing is delivered, to
//! the last answer; where nothing is taken, from the first message that the sink gets. CPU time runs from the generator's start until the server rests again, so that what it puts off
//! (removing queue files, noting outcomes) counts too.

use super::device::{self, Counters};
use super::ends::{self, End};
use super::scenario::{Ends, Task, Tls, Work};
use super::subject::Subject;
use super::{Bench, disk, idle};
use crate::figures::Summary;
use crate::process::Memory;
use crate::servers::{self, Kind, Mode, Server, Setup, rest};
use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Between two looks whether the sink has ended; the error of the time with Postfix's ends.
const LOOK: Duration = Duration::from_millis(2);
const MEMORY_EACH: Duration = Duration::from_millis(500);
const METRICS_WAIT: Duration = Duration::from_secs(2);
/// After the sink has everything the generator has only its last reply to read.
const SOURCE_END_WAIT: Duration = Duration::from_secs(30);
/// The last part of a warm-up lasts about so long.
const WARM_UP_SECONDS: f64 = 1.0;
/// Messages of one measurement, whatever the rate: numbers of a sink's memory and of a queue on disk.
const MESSAGES_MAX: f64 = 200_000.0;
const OCTETS_MAX: f64 = 1.5e9;

/// What one measurement found. CPU in milliseconds per message, which is seconds per thousand.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    pub messages: u64,
    pub seconds: f64,
    pub messages_per_second: f64,
    pub server_cpu_ms: f64,
    pub source_cpu_ms: f64,
    pub sink_cpu_ms: f64,
    /// Peak, sampled twice a second.
    pub memory_pss_mib: f64,
    pub memory_rss_mib: f64,
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
    let figures = match (subject, work.task) {
        (Subject::Fdatasync, _) => disk::measure(bench.directory),
        (_, Task::Idle) => idle::measure(bench, work),
        (Subject::Server(kind), Task::Deliver) => deliver(bench, kind, work),
        (Subject::Server(_) | Subject::Straight, _) => flow(bench, subject, work),
    };
    let _ = fs::remove_dir_all(bench.directory.join("server"));
    figures
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

/// So many messages, but no more than the disk should take and no fewer than the first of the warm-up.
fn bounded(work: &Work, messages: f64) -> u64 {
    let most = MESSAGES_MAX.min(OCTETS_MAX / work.size.mean().max(1.0));
    messages.min(most).max(work.warm_up as f64) as u64
}

/// Warm-up and measurement on one running server, or on none.
fn flow(bench: &Bench<'_>, subject: Subject, work: &Work) -> Result<Figures> {
    if work.ends == Ends::Postfix {
        return flow_of_postfix(bench, subject, work);
    }
    let mut bed = Bed::start(bench, subject, work, None)?;
    let rate = bed.warm_up()?;
    let mut messages = count(work, rate);
    let figures = match work.load {
        None => bed.run(messages, None)?,
        Some(load) => {
            let saturated = bed.run(messages, None).context("saturated round")?.messages_per_second;
            let rate = saturated * f64::from(load) / 100.0;
            let open = count(work, rate);
            messages += open;
            let figures = bed.run(open, Some(rate))?;
            Figures { rate: Some(rate), saturated_rate: Some(saturated), ..figures }
        }
    };
    let warmed = bed.warmed;
    bed.close(figures, warmed + messages)
}

/// smtp-sink counts and ends by itself, so the number of messages must be known before: from a run before the first
/// round.
fn flow_of_postfix(bench: &Bench<'_>, subject: Subject, work: &Work) -> Result<Figures> {
    let key = (subject, work.title());
    let known = bench.rates.borrow().iter().find(|(one, _)| *one == key).map(|(_, rate)| *rate);
    let rate = match known {
        Some(rate) => rate,
        None => {
            let rate = Bed::start(bench, subject, work, None)?.warm_up().context("before the first round")?;
            let _ = fs::remove_dir_all(bench.directory.join("server"));
            bench.rates.borrow_mut().push((key, rate));
            rate
        }
    };
    let (warm, messages) = (bounded(work, rate * WARM_UP_SECONDS), count(work, rate));
    let mut bed = Bed::start(bench, subject, work, Some(warm + messages))?;
    bed.warm_up_by(warm)?;
    bed.run(messages, None)
}

/// A server, or none, with its sink.
struct Bed<'a> {
    bench: &'a Bench<'a>,
    /// Messages of the warm-up.
    warmed: u64,
    work: &'a Work,
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
        Ok(Bed { bench, warmed: 0, work, server, sink })
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
    /// It is repeated with more until it lasts, so that connections, segments and caches are as they stay.
    fn warm_up(&mut self) -> Result<f64> {
        let mut messages = self.work.warm_up;
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
        self.warmed += messages;
        if self.work.ends == Ends::Own {
            return Ok(self.run(messages, None).context("warm-up")?.messages_per_second);
        }
        let deadline = Instant::now() + self.bench.options.patience;
        let began = Instant::now();
        let mut source = self.start_source(messages, None)?;
        let (good, said) =
            source.finish(deadline, self.bench.stop).context("the generator of the warm-up")?;
        ensure!(good, "the server refused messages of the warm-up: {said}");
        let took = began.elapsed().as_secs_f64();
        self.rest();
        Ok(messages as f64 / took.max(0.001))
    }

    fn run(&mut self, messages: u64, rate: Option<f64>) -> Result<Figures> {
        let (bench, work) = (self.bench, self.work);
        let deadline = Instant::now() + bench.options.patience;
        if let Some(sink) = &mut self.sink {
            sink.expect(messages * work.recipients as u64)?;
        }
        let before = Account::take(bench, self.server.as_ref(), self.sink.as_ref());
        let began = Instant::now();
        let mut source = self.start_source(messages, rate)?;
        let (memory, last) = self.watch(&mut source, deadline)?;
        let took = began.elapsed();
        let deadline = Instant::now() + SOURCE_END_WAIT;
        let (good, said) = source.finish(deadline, bench.stop).context("the generator")?;
        // smtp-sink ends without a reply to its last message, so its direct peer cannot end well.
        let excused = self.server.is_none() && work.ends == Ends::Postfix;
        ensure!(good || excused, "the generator failed: {}", ends::failures(&said));
        self.rest();
        let after = Account::take(bench, self.server.as_ref(), self.sink.as_ref());
        let mut figures = after.since(&before, messages, memory);
        figures.seconds = took.as_secs_f64();
        figures.source_cpu_ms = source.group.cpu().as_secs_f64() * 1e3 / messages as f64;
        figures.cpu_method = source.group.method();
        if work.ends == Ends::Own {
            let source = ends::source_report(&said)?;
            // The own ends know the time better than a look each 2 ms.
            figures.seconds = match last {
                Some(last) => last.saturating_sub(source.started_unix_nanos) as f64 / 1e9,
                None => source.seconds,
            };
            (figures.end_of_data, figures.transaction) = (Some(source.end_of_data), Some(source.transaction));
        }
        figures.messages_per_second = messages as f64 / figures.seconds.max(1e-6);
        Ok(figures)
    }

    /// Waits until everything has come. Returns the server's peak of memory, and the time of the last message where the
    /// sink tells it.
    fn watch(&mut self, source: &mut End, deadline: Instant) -> Result<(Memory, Option<u64>)> {
        let Some(sink) = &mut self.sink else {
            let done = || Ok(source.has_ended()?.then_some(None));
            return watch(done, &mut self.server, deadline, self.bench);
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
        watch(done, &mut self.server, deadline, self.bench)
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

/// Fills the queue of a server that tries nothing, and measures the same server started on it.
fn deliver(bench: &Bench<'_>, kind: Kind, work: &Work) -> Result<Figures> {
    let deadline = Instant::now() + bench.options.patience;
    // The queue is filled over clear connections, whatever leg is in TLS.
    let accept = Work { task: Task::Accept, tls: Tls::Off, ..work.clone() };
    let mut bed = Bed::start(bench, Subject::Server(kind), &accept, None)?;
    let rate = bed.warm_up().context("filling the queue")?;
    let filled = count(work, rate);
    bed.run(filled, None).context("filling the queue")?;
    let messages = filled + bed.warmed;
    drop(bed);
    let setup = setup(bench, work, Mode::Deliver);
    servers::release(kind, &setup)?;
    let mut sink = ends::start_sink(bench, work, None)?;
    sink.expect(messages * work.recipients as u64)?;
    let before = Account::take(bench, None, Some(&sink));
    let mut server = Some((kind, Server::start(kind, &setup, bench.stop)?));
    servers::hurry(kind, &setup)?;
    let (memory, _) = watch(|| sink.has_all(), &mut server, deadline, bench)?;
    if let Some((_, server)) = &server {
        rest(&server.group);
    }
    let after = Account::take(bench, server.as_ref(), Some(&sink));
    let mut figures = after.since(&before, messages, memory);
    figures.cpu_method = sink.group.method();
    drop(server);
    // From the first message to the last: how long a server takes to start is another question.
    figures.seconds = add_sink(&mut figures, sink, messages)?;
    figures.messages_per_second = messages as f64 / figures.seconds.max(1e-6);
    Ok(figures)
}

/// Waits until `done` says so. Returns the server's peak of memory, and what `done` said.
fn watch<T>(
    mut done: impl FnMut() -> Result<Option<T>>,
    server: &mut Option<(Kind, Server)>,
    deadline: Instant,
    bench: &Bench<'_>,
) -> Result<(Memory, T)> {
    let mut memory = Memory::default();
    let mut next_look = Instant::now();
    loop {
        let said = done()?;
        if let Some((_, server)) = server
            && (said.is_some() || Instant::now() >= next_look)
        {
            server.check()?;
            memory = memory.max(server.group.memory());
            next_look = Instant::now() + MEMORY_EACH;
        }
        if let Some(said) = said {
            return Ok((memory, said));
        }
        ensure!(!bench.stop.is_set(), "interrupted");
        ensure!(Instant::now() < deadline, "not all messages have come within --patience");
        std::thread::sleep(LOOK);
    }
}

/// Counters at one moment.
struct Account {
    server: Duration,
    sink: Duration,
    device: Option<Counters>,
    spool: Option<(f64, f64)>,
    has_server: bool,
}

impl Account {
    fn take(bench: &Bench<'_>, server: Option<&(Kind, Server)>, sink: Option<&End>) -> Self {
        let is_relay = server.is_some_and(|(kind, _)| *kind == Kind::Relay);
        Account {
            server: server.map_or(Duration::ZERO, |(_, server)| server.group.cpu()),
            sink: sink.map_or(Duration::ZERO, |sink| sink.group.cpu()),
            device: device::statistics(bench.directory).as_deref().and_then(device::counters),
            spool: if is_relay { spool_counters(bench.options.port + 2) } else { None },
            has_server: server.is_some(),
        }
    }

    fn since(&self, before: &Account, messages: u64, memory: Memory) -> Figures {
        let each = |value: f64| value / messages as f64;
        let cpu = |after: Duration, before: Duration| each(after.saturating_sub(before).as_secs_f64() * 1e3);
        let mib = |octets: u64| octets as f64 / f64::from(1 << 20);
        let mut figures = Figures {
            messages,
            server_cpu_ms: cpu(self.server, before.server),
            sink_cpu_ms: cpu(self.sink, before.sink),
            memory_pss_mib: mib(memory.pss),
            memory_rss_mib: mib(memory.rss),
            ..Figures::default()
        };
        if let (Some(before), Some(after), true) = (before.device, self.device, self.has_server) {
            figures.flushes = Some(each(after.flushes.saturating_sub(before.flushes) as f64));
            let written = after.octets_written.saturating_sub(before.octets_written);
            figures.written_kib = Some(each(written as f64 / 1024.0));
        }
        if let (Some(before), Some(after)) = (before.spool, self.spool) {
            figures.spool_writes = Some(each(after.0 - before.0));
            figures.spool_kib = Some(each((after.1 - before.1) / 1024.0));
        }
        figures
    }
}

/// Data-sync writes and octets of the relay's spools since its start, from its metrics.
fn spool_counters(port: u16) -> Option<(f64, f64)> {
    let mut stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), METRICS_WAIT).ok()?;
    stream.set_read_timeout(Some(METRICS_WAIT)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some((metric(&text, "sluice_batches_total")?, metric(&text, "sluice_spool_bytes_written_total")?))
}

/// The sum over all labels; `None` where there is none.
fn metric(text: &str, name: &str) -> Option<f64> {
    let of = |line: &str| {
        let rest = line.strip_prefix(name)?.strip_prefix([' ', '{'])?;
        rest.rsplit(' ').next()?.trim().parse::<f64>().ok()
    };
    text.lines().filter_map(of).reduce(|sum, value| sum + value)
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
    fn metrics_are_summed_over_their_labels() {
        let text = "# HELP a_total x\na_total 3\na_total{shard=\"1\"} 4\na_total_more 9\n";
        assert_eq!(metric(text, "a_total"), Some(7.0));
        assert_eq!(metric(text, "b_total"), None);
    }

    #[test]
    fn the_number_of_messages_follows_from_the_rate_within_bounds() {
        let work = Work { seconds: 3.0, warm_up: 500, ..Work::plain(4096, 20) };
        assert_eq!(count(&work, 1_000.0), 3_000);
        assert_eq!(count(&work, 10.0), 500);
        assert_eq!(count(&work, 1e9), 200_000);
        let large = Work { size: super::super::scenario::Size::Octets(1 << 20), ..work.clone() };
        assert_eq!(count(&large, 1e9), 1_430);
        assert_eq!(count(&Work { messages: Some(7), ..work }, 1e9), 7);
    }
}
