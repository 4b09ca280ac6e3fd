//! One measurement: start, warm up, rest, measure, rest, end.
//!
//! Before the server is started the file system is synced and a few fdatasyncs are timed, so that a disk that is slower
//! now than for the row before is seen; and the machine is watched, so that a busy neighbour is.
//!
//! A measurement is made of rounds on one running server: a warm-up, from whose rate follows how many messages make a
//! measurement of the length that is wanted; for a share of the load a saturated round, from whose rate follows the
//! rate; and the one that counts, which is repeated when it was much too short ([`super::bed`]).
//!
//! The time runs from the generator's start to the last message that the sink has got; where nothing is delivered, to
//! the last answer; where nothing is taken, from the first message that the sink gets. CPU time runs from the
//! generator's start until the server rests again, so that what it puts off (removing queue files, noting outcomes)
//! counts too.

use super::account::{Account, Clock};
use super::bed::{self, Bed};
use super::ends;
use super::machine::{self, Shares};
use super::scenario::{Ends, Size, Task, Tls, Work};
use super::subject::Subject;
use super::{Bench, disk, idle};
use crate::figures::Summary;
use crate::servers::{self, Kind, Mode, Server, Setup, rest};
use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use std::fs;
use std::time::{Duration, Instant};

/// How long the machine is watched before a row.
const WATCH_BEFORE: Duration = Duration::from_millis(200);
/// The last part of a warm-up lasts about so long.
pub const WARM_UP_SECONDS: f64 = 1.0;
/// Messages of one measurement, whatever the rate: numbers of a sink's memory and of a queue on disk.
const MESSAGES_MAX: f64 = 200_000.0;
const OCTETS_MAX: f64 = 1.5e9;
const MESSAGES_MIN: f64 = 10.0;
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
    /// TLS handshakes of the own generator per message, in this round.
    pub handshakes_in_full: Option<f64>,
    pub handshakes_in_resumed: Option<f64>,
    /// TLS handshakes of the own sink per message, in all rounds.
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

/// smtp-sink ends without a reply to its last message, and to what it has not answered at that moment on the other
/// connections; the server keeps these.
const UNANSWERED_MAX: u64 = 20;

/// What fills the segments that a measurement needs, and some more; MiB.
const SEGMENTS_MIB: u64 = 320;

/// How many messages make a measurement of the length wanted.
pub fn count(work: &Work, rate: f64) -> u64 {
    if let Some(messages) = work.messages {
        return messages;
    }
    bounded(work, rate * work.seconds)
}

/// So many messages, but no more than the disk should take.
pub fn bounded(work: &Work, messages: f64) -> u64 {
    let most = MESSAGES_MAX.min(OCTETS_MAX / work.size.mean().max(1.0));
    messages.min(most).max(MESSAGES_MIN) as u64
}

/// Warm-up and measurement on one running server, or on none.
fn flow(bench: &Bench<'_>, subject: Subject, work: &Work) -> Result<Figures> {
    if work.ends == Ends::Postfix {
        return flow_of_postfix(bench, subject, work);
    }
    if work.task == Task::Accept && subject == Subject::Server(Kind::Relay) {
        write_segments(bench, work)?;
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

/// Leaves the relay a spool whose segments have been written and are free again, as they are after its first minutes: it
/// uses them again and again, and the first pass over a new file costs the file system an entry in its journal with each
/// write. The row that it is held against overwrites, too.
fn write_segments(bench: &Bench<'_>, work: &Work) -> Result<()> {
    let large = Work {
        task: Task::EndToEnd,
        size: Size::Octets(1 << 20),
        sessions: 4,
        tls: Tls::Off,
        load: None,
        rate: None,
        ..work.clone()
    };
    let mut bed = Bed::start(bench, Subject::Server(Kind::Relay), &large, None)?;
    bed.run(SEGMENTS_MIB, None).context("writing the segments").map(drop)
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
    // That sink checks nothing: it has counted as many as were sent, and the server must have none left of them.
    if let Subject::Server(kind) = subject {
        let left = servers::queued(kind, &setup(bench, work, Mode::Deliver))?;
        ensure!(left <= UNANSWERED_MAX, "{left} messages are left in the queue");
    }
    bench.note_rate(subject, work, figures.messages_per_second);
    Ok(figures)
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
    let (peak, _) = bed::watch(|| sink.has_all(), &mut server, deadline, false, bench)?;
    let clock = Clock::stop(bench);
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
    figures.seconds = bed::add_sink(&mut figures, sink, messages)?;
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
