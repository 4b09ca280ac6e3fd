//! Generator and sink as processes, our own and Postfix's, behind one face.

use super::Bench;
use super::scenario::{Ends, Handshakes, Size, Work};
use crate::process::{self, Group};
use crate::servers::install::{SMTP_SINK, SMTP_SOURCE, is_root};
use crate::servers::{NAME, accepts, await_free};
use crate::stop::Stop;
use crate::{sink, source};
use anyhow::{Context as _, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const START_WAIT: Duration = Duration::from_secs(10);
/// Longest wait of the generator for a connection or a reply.
const TIMEOUT: &str = "120s";

/// A running generator or sink.
pub struct End {
    pub group: Group,
    child: Child,
}

impl End {
    fn start(name: &str, program: &Path, arguments: &[String]) -> Result<End> {
        let mut group = Group::new(name);
        let child = group.start(program, arguments, |command| {
            // Our own programs print one report of a few KiB at their end, less than a pipe holds.
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        })?;
        Ok(End { group, child })
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits for its end; whether it succeeded, and what it printed.
    pub fn finish(&mut self, deadline: Instant, stop: &Stop) -> Result<(bool, String)> {
        while !self.has_ended()? {
            ensure!(!stop.is_set(), "interrupted");
            ensure!(Instant::now() < deadline, "it does not end in time");
            std::thread::sleep(Duration::from_millis(2));
        }
        let status = self.child.wait()?;
        let mut text = String::new();
        if let Some(mut output) = self.child.stdout.take() {
            use std::io::Read as _;
            output.read_to_string(&mut text)?;
        }
        Ok((status.success(), text))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        process::end_child(&mut self.child);
    }
}

/// Starts a sink that ends by itself after `messages`, and waits until it accepts. Without a number it is Postfix's
/// and goes on until it is dropped.
pub fn start_sink(bench: &Bench<'_>, work: &Work, messages: Option<u64>) -> Result<End> {
    let port = bench.options.port;
    let address = format!("127.0.0.1:{port}");
    let (program, arguments): (PathBuf, _) = match work.ends {
        Ends::Own => (std::env::current_exe()?, own_sink(bench, work, &address, messages)),
        Ends::Postfix => {
            let mut arguments = messages.map_or(Vec::new(), |messages| words(&["-M", &messages.to_string()]));
            if is_root() {
                arguments.extend(words(&["-u", "postfix"]));
            }
            arguments.extend(words(&[&address, "1024"]));
            (SMTP_SINK.into(), arguments)
        }
    };
    await_free(port, bench.stop)?;
    let mut sink = End::start("sink", &program, &arguments)?;
    let deadline = Instant::now() + START_WAIT;
    while !accepts(port) {
        ensure!(!sink.has_ended()?, "the sink {} did not start", program.display());
        ensure!(!bench.stop.is_set(), "interrupted");
        ensure!(Instant::now() < deadline, "the sink {} does not accept", program.display());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(sink)
}

fn own_sink(bench: &Bench<'_>, work: &Work, address: &str, messages: Option<u64>) -> Vec<String> {
    let mut arguments = words(&["sink", "--bind", address]);
    if let Some(messages) = messages {
        // A server may divide a message among connections, and its last part is its end.
        let recipients = messages * work.recipients as u64;
        match work.recipients {
            1 => arguments.extend(words(&["--expect", &messages.to_string()])),
            _ => arguments.extend(words(&["--expect-recipients", &recipients.to_string()])),
        }
    }
    if let (true, Some(shown)) = (work.tls.outward(), bench.certificate) {
        let (certificate, key) = (shown.certificate.display().to_string(), shown.key.display().to_string());
        let tickets = (work.handshakes == Handshakes::Resumed).to_string();
        arguments.extend(words(&["--tls-certificate", &certificate, "--tls-key", &key]));
        arguments.extend(words(&["--tls-tickets", &tickets]));
    }
    add_cpus(&mut arguments, bench.options.sink_cpus.as_ref());
    arguments
}

/// Starts a generator of `messages` to the port; closed loop without a rate.
pub fn start_source(
    bench: &Bench<'_>,
    work: &Work,
    messages: u64,
    rate: Option<f64>,
    port: u16,
    tls: bool,
) -> Result<End> {
    let target = format!("127.0.0.1:{port}");
    let (sessions, messages) = (work.sessions.to_string(), messages.to_string());
    let (program, arguments): (PathBuf, _) = match work.ends {
        Ends::Own => {
            let mut arguments = words(&["source", "--json", "--target", &target, "--timeout", TIMEOUT]);
            arguments.extend(words(&["--sessions", &sessions, "--messages", &messages]));
            let each = work.messages_per_connection.to_string();
            arguments.extend(words(&["--messages-per-connection", &each]));
            arguments.extend(words(&["--recipients", &work.recipients.to_string()]));
            match &work.size {
                Size::Octets(octets) => arguments.extend(words(&["--size", &octets.to_string()])),
                Size::Mix(mix) => arguments.extend(words(&["--sizes", mix])),
            }
            if let Some(rate) = rate {
                arguments.extend(words(&["--rate", &rate.to_string()]));
            }
            if let (true, Some(shown)) = (tls, bench.certificate) {
                let resume = (work.handshakes == Handshakes::Resumed).to_string();
                arguments.extend(words(&["--starttls", &shown.certificate.display().to_string()]));
                arguments.extend(words(&["--tls-name", NAME, "--tls-resume", &resume]));
            }
            add_cpus(&mut arguments, bench.options.source_cpus.as_ref());
            (std::env::current_exe()?, arguments)
        }
        Ends::Postfix => {
            let size = (work.size.mean() as usize).to_string();
            let mut arguments = words(&["-s", &sessions, "-l", &size, "-m", &messages]);
            if work.messages_per_connection != 1 {
                arguments.push("-d".to_owned());
            }
            arguments.extend(words(&["-f", "source@source.example", "-t", "recipient@sink.example", &target]));
            (SMTP_SOURCE.into(), arguments)
        }
    };
    End::start("source", &program, &arguments)
}

pub fn source_report(text: &str) -> Result<source::Report> {
    serde_json::from_str(text).context("the generator's report cannot be read")
}

pub fn sink_report(text: &str, messages: u64) -> Result<sink::Report> {
    let report: sink::Report = serde_json::from_str(text).context("the sink's report cannot be read")?;
    if report.damaged > 0 || report.intact < messages {
        bail!("{} of {messages} messages came intact, {} damaged", report.intact, report.damaged);
    }
    Ok(report)
}

fn words(text: &[&str]) -> Vec<String> {
    text.iter().map(|word| (*word).to_owned()).collect()
}

fn add_cpus(arguments: &mut Vec<String>, cpus: Option<&crate::args::Cpus>) {
    if let Some(crate::args::Cpus(numbers)) = cpus {
        let numbers: Vec<_> = numbers.iter().map(usize::to_string).collect();
        arguments.extend(["--cpus".to_owned(), numbers.join(",")]);
    }
}
