//! Counters at one moment: CPU of the server and the sink, the device under the queue, the relay's own account.

use super::Bench;
use super::device::{self, Counters};
use super::ends::End;
use super::machine::Times;
use super::measure::Figures;
use crate::process::{self, Memory};
use crate::servers::{Kind, Server};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const METRICS_WAIT: Duration = Duration::from_secs(2);

/// The machine and the device at one moment; what lies between two of them belongs to everybody.
pub struct Clock {
    at: Instant,
    machine: Option<Times>,
    device: Option<Counters>,
}

impl Clock {
    pub fn stop(bench: &Bench<'_>) -> Self {
        let device = device::statistics(bench.directory).as_deref().and_then(device::counters);
        Clock { at: Instant::now(), machine: Times::now(), device }
    }
}

pub struct Account {
    server: Duration,
    sink: Duration,
    own: Duration,
    clock: Clock,
    spool: Option<(f64, f64)>,
    has_server: bool,
}

impl Account {
    pub fn take(bench: &Bench<'_>, server: Option<&(Kind, Server)>, sink: Option<&End>) -> Self {
        let is_relay = server.is_some_and(|(kind, _)| *kind == Kind::Relay);
        Account {
            server: server.map_or(Duration::ZERO, |(_, server)| server.group.cpu()),
            sink: sink.map_or(Duration::ZERO, |sink| sink.group.cpu()),
            own: process::own_cpu(),
            clock: Clock::stop(bench),
            spool: if is_relay { spool_counters(bench.options.port + 2) } else { None },
            has_server: server.is_some(),
        }
    }

    /// What happened since `before`, for each message. `clock` is from when the last message had come, `source` the CPU
    /// time of the generator.
    pub fn since(
        &self,
        before: &Account,
        messages: u64,
        memory: Memory,
        clock: &Clock,
        source: Duration,
    ) -> Figures {
        let each = |value: f64| value / messages as f64;
        let milliseconds = |time: Duration| each(time.as_secs_f64() * 1e3);
        let mib = |octets: u64| octets as f64 / f64::from(1 << 20);
        let (server, sink) =
            (self.server.saturating_sub(before.server), self.sink.saturating_sub(before.sink));
        let mut figures = Figures {
            messages,
            server_cpu_ms: milliseconds(server),
            source_cpu_ms: milliseconds(source),
            sink_cpu_ms: milliseconds(sink),
            memory_pss_mib: mib(memory.pss),
            memory_rss_mib: mib(memory.rss),
            ..Figures::default()
        };
        let (began, rested) = (&before.clock, &self.clock);
        if let (Some(then), Some(stopped), Some(now)) = (began.machine, clock.machine, rested.machine) {
            figures.machine = Some(stopped.since(&then));
            let own = self.own.saturating_sub(before.own);
            let ours = (server + sink + source + own).as_secs_f64();
            figures.others_percent = Some(now.percent_since(&then, now.busy - then.busy - ours));
        }
        if let (Some(then), Some(stopped), Some(now), true) =
            (began.device, clock.device, rested.device, self.has_server)
        {
            let busy = stopped.busy_ms.saturating_sub(then.busy_ms) as f64;
            let time = clock.at.saturating_duration_since(began.at).as_secs_f64().max(1e-3);
            figures.device_busy_percent = Some((busy / 10.0 / time).min(100.0));
            figures.flushes = Some(each(now.flushes.saturating_sub(then.flushes) as f64));
            let written = now.octets_written.saturating_sub(then.octets_written);
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
