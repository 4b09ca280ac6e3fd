//! One measurement: start, warm up, rest, measure, rest, end.
//!
//! The time runs from the generator's start to the last message that the sink has got. CPU time runs from the
//! generator's start until the server rests again, so that what it puts off (removing queue files, noting outcomes)
//! counts too.

use super::device::{self, Counters};
use super::ends::{self, End};
use super::servers::Server;
use super::{Cell, Ends, Kind, Options};
use crate::process::{Group, Memory};
use crate::stop::Stop;
use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A server rests when it used less than [`REST_CPU`] in this time.
const REST_WINDOW: Duration = Duration::from_millis(300);
const REST_CPU: Duration = Duration::from_millis(5);
/// A server that never rests (busy polling) is measured all the same.
const REST_WAIT: Duration = Duration::from_secs(5);
/// Between two looks whether the sink has ended; the error of the time with Postfix's ends.
const LOOK: Duration = Duration::from_millis(2);
const MEMORY_EACH: Duration = Duration::from_millis(500);
const METRICS_WAIT: Duration = Duration::from_secs(2);
/// After the sink has everything the generator has only its last reply to read.
const SOURCE_END_WAIT: Duration = Duration::from_secs(30);

/// What one measurement found. CPU in milliseconds per message.
#[derive(Clone, Debug, Serialize)]
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
    pub end_of_data_p50_ms: Option<f64>,
    pub end_of_data_p99_ms: Option<f64>,
    /// Own ends only: messages that came twice.
    pub repeats: Option<u64>,
    pub cpu_method: &'static str,
}

pub fn measure(options: &Options, work: &Path, kind: Kind, cell: Cell, stop: &Stop) -> Result<Figures> {
    let deadline = Instant::now() + options.patience;
    let mut sink = ends::start_sink(options, cell, options.warm_up + options.messages, stop)?;
    let mut server = Server::start(options, work, kind, stop)?;
    let port = if server.is_some() { options.port + 1 } else { options.port };
    if options.warm_up > 0 {
        let mut source = ends::start_source(options, cell, options.warm_up, port)?;
        let (good, _) = source.finish(deadline, stop).context("the generator of the warm-up")?;
        ensure!(good, "the server refused messages of the warm-up");
        rest(server.as_ref().map_or(&sink.group, |server| &server.group));
    }
    let statistics = device::statistics(work);
    let counters = || statistics.as_deref().and_then(device::counters);
    let (device_before, sink_before) = (counters(), sink.group.cpu());
    let server_before = server.as_ref().map_or(Duration::ZERO, |server| server.group.cpu());
    let spool = || if kind == Kind::Relay { spool_counters(options.port + 2) } else { None };
    let spool_before = spool();
    let began = Instant::now();
    let mut source = ends::start_source(options, cell, options.messages, port)?;
    let memory = await_sink(&mut sink, &mut server, deadline, stop)?;
    let took = began.elapsed();
    let deadline = Instant::now() + SOURCE_END_WAIT;
    let (_, sink_text) = sink.finish(deadline, stop).context("the sink")?;
    let (good, source_text) = source.finish(deadline, stop).context("the generator")?;
    // smtp-sink ends without a reply to its last message, so its direct peer cannot end well.
    ensure!(good || kind == Kind::Limit && cell.ends == Ends::Postfix, "the generator failed: {source_text}");
    if let Some(server) = &server {
        rest(&server.group);
    }
    let messages = options.messages as f64;
    let per_message = |time: Duration| time.as_secs_f64() * 1e3 / messages;
    let mut figures = Figures {
        messages: options.messages,
        seconds: took.as_secs_f64(),
        messages_per_second: 0.0,
        server_cpu_ms: server
            .as_ref()
            .map_or(0.0, |s| per_message(s.group.cpu().saturating_sub(server_before))),
        source_cpu_ms: per_message(source.group.cpu()),
        sink_cpu_ms: per_message(sink.group.cpu().saturating_sub(sink_before)),
        memory_pss_mib: memory.pss as f64 / f64::from(1 << 20),
        memory_rss_mib: memory.rss as f64 / f64::from(1 << 20),
        flushes: None,
        written_kib: None,
        spool_writes: None,
        spool_kib: None,
        end_of_data_p50_ms: None,
        end_of_data_p99_ms: None,
        repeats: None,
        cpu_method: sink.group.method(),
    };
    if let (Some(before), Some(after), true) = (device_before, counters(), server.is_some()) {
        add_device(&mut figures, before, after);
    }
    if let (Some(before), Some(after)) = (spool_before, spool()) {
        figures.spool_writes = Some((after.0 - before.0) / messages);
        figures.spool_kib = Some((after.1 - before.1) / 1024.0 / messages);
    }
    if cell.ends == Ends::Own {
        add_reports(&mut figures, &source_text, &sink_text, options)?;
    }
    figures.messages_per_second = messages / figures.seconds;
    Ok(figures)
}

/// Waits until the sink has everything. Returns the server's peak of memory.
fn await_sink(sink: &mut End, server: &mut Option<Server>, deadline: Instant, stop: &Stop) -> Result<Memory> {
    let mut memory = Memory::default();
    let mut next_look = Instant::now();
    while !sink.has_ended()? {
        if stop.is_set() {
            bail!("interrupted");
        }
        ensure!(Instant::now() < deadline, "the sink has not got everything within --patience");
        if let Some(server) = server
            && Instant::now() >= next_look
        {
            server.check()?;
            memory = memory.max(server.group.memory());
            next_look = Instant::now() + MEMORY_EACH;
        }
        std::thread::sleep(LOOK);
    }
    if let Some(server) = server {
        memory = memory.max(server.group.memory());
    }
    Ok(memory)
}

/// Waits until the group has stopped working.
fn rest(group: &Group) {
    let deadline = Instant::now() + REST_WAIT;
    let mut before = group.cpu();
    while Instant::now() < deadline {
        std::thread::sleep(REST_WINDOW);
        let now = group.cpu();
        if now.saturating_sub(before) < REST_CPU {
            return;
        }
        before = now;
    }
}

fn add_device(figures: &mut Figures, before: Counters, after: Counters) {
    let messages = figures.messages as f64;
    figures.flushes = Some(after.flushes.saturating_sub(before.flushes) as f64 / messages);
    figures.written_kib =
        Some(after.octets_written.saturating_sub(before.octets_written) as f64 / 1024.0 / messages);
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

/// The own ends know the time better than a look each 2 ms, and more.
fn add_reports(figures: &mut Figures, source: &str, sink: &str, options: &Options) -> Result<()> {
    let source = ends::source_report(source)?;
    let sink = ends::sink_report(sink, options.warm_up + options.messages)?;
    let last = sink.last_unix_nanos.context("the sink saw no message")?;
    figures.seconds = last.saturating_sub(source.started_unix_nanos) as f64 / 1e9;
    figures.end_of_data_p50_ms = Some(source.end_of_data.p50_ms);
    figures.end_of_data_p99_ms = Some(source.end_of_data.p99_ms);
    figures.repeats = Some(sink.repeats);
    Ok(())
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
}
