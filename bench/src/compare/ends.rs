//! Generator and sink as processes, our own and Postfix's, behind one face.

use super::Bench;
use super::scenario::{Ends, Handshakes, Size, Work};
use crate::process::{self, Group};
use crate::servers::install::{SMTP_SINK, SMTP_SOURCE, is_root};
use crate::servers::{NAME, accepts, await_free};
use crate::stop::Stop;
use crate::{sink, source};
use anyhow::{Context as _, Result, bail, ensure};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const START_WAIT: Duration = Duration::from_secs(10);
/// Longest wait of the generator for a connection or a reply.
const TIMEOUT: &str = "120s";

/// A running generator or sink.
pub struct End {
    pub group: Group,
    child: Child,
    /// Of the own sink.
    announced: Option<Announced>,
}

/// The talk with the own sink, which says when so many messages have come.
struct Announced {
    numbers: ChildStdin,
    times: Receiver<u64>,
    /// Reads what the sink prints; its report at the end.
    rest: JoinHandle<String>,
    /// What was asked for so far.
    all: u64,
}

impl End {
    fn start(name: &str, program: &Path, arguments: &[String]) -> Result<End> {
        let mut group = Group::new(name);
        let child = group.start(program, arguments, |command| {
            // Our own programs print one report of a few KiB at their end, less than a pipe holds.
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        })?;
        Ok(End { group, child, announced: None })
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.group.reap(&mut self.child)?.is_some())
    }

    /// Whether it has ended and says that something went wrong.
    pub fn has_failed(&mut self) -> Result<bool> {
        Ok(self.group.reap(&mut self.child)?.is_some_and(|status| !status.success()))
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
            output.read_to_string(&mut text)?;
        }
        Ok((status.success(), text))
    }

    /// From now on so many more messages (or their recipients) are waited for, by the own sink.
    pub fn expect(&mut self, more: u64) -> Result<()> {
        if let Some(announced) = &mut self.announced {
            announced.all += more;
            writeln!(announced.numbers, "{}", announced.all)?;
        }
        Ok(())
    }

    /// Whether a sink has everything: the time of the last message (nanoseconds since 1970), which Postfix's does not
    /// know and says by its end.
    pub fn has_all(&mut self) -> Result<Option<Option<u64>>> {
        let time = self.announced.as_ref().and_then(|announced| announced.times.try_recv().ok());
        match (time, self.has_ended()?, &self.announced) {
            (Some(time), ..) => Ok(Some(Some(time))),
            (None, true, Some(_)) => bail!("the sink ended in the middle of the measurement"),
            (None, true, None) => Ok(Some(None)),
            (None, false, _) => Ok(None),
        }
    }

    /// Ends the own sink; its report. `None` of Postfix's.
    pub fn report(mut self) -> Result<Option<sink::Report>> {
        let Some(announced) = self.announced.take() else { return Ok(None) };
        process::end_child(&mut self.child);
        let text = announced.rest.join().map_err(|_| anyhow::anyhow!("the sink's output cannot be read"))?;
        serde_json::from_str(&text).context("the sink's report cannot be read").map(Some)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        process::end_child(&mut self.child);
    }
}

/// Starts a sink and waits until it accepts. Postfix's ends by itself after `messages`; without a number it goes on until
/// it is dropped, as ours does.
pub fn start_sink(bench: &Bench<'_>, work: &Work, messages: Option<u64>) -> Result<End> {
    let port = bench.options.port;
    let address = format!("127.0.0.1:{port}");
    let (program, arguments): (PathBuf, _) = match work.ends {
        Ends::Own => (std::env::current_exe()?, own_sink(bench, work, &address)),
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
    if work.ends == Ends::Own {
        let output = BufReader::new(sink.child.stdout.take().context("piped")?);
        let numbers = sink.child.stdin.take().context("piped")?;
        let (sender, times) = channel();
        let rest = std::thread::spawn(move || {
            let mut rest = String::new();
            for line in output.lines().map_while(Result::ok) {
                match line.parse() {
                    Ok(time) => drop(sender.send(time)),
                    Err(_) => rest.extend([&line, "\n"]),
                }
            }
            rest
        });
        sink.announced = Some(Announced { numbers, times, rest, all: 0 });
    }
    Ok(sink)
}

fn own_sink(bench: &Bench<'_>, work: &Work, address: &str) -> Vec<String> {
    // A server may divide a message among connections, and its last part is its end.
    let what = if work.recipients > 1 { "recipients" } else { "messages" };
    let mut arguments = words(&["sink", "--bind", address, "--announce", what]);
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
            arguments.extend(words(&[
                "-f",
                "source@source.example",
                "-t",
                "recipient@sink.example",
                &target,
            ]));
            (SMTP_SOURCE.into(), arguments)
        }
    };
    End::start("source", &program, &arguments)
}

/// Threads of generator and sink that do the work: one for each CPU of our own, one of Postfix's.
pub fn threads(ends: Ends, options: &super::Options) -> (usize, usize) {
    let of = |cpus: &Option<crate::args::Cpus>| cpus.as_ref().map_or(1, |cpus| cpus.0.len());
    match ends {
        Ends::Own => (of(&options.source_cpus), of(&options.sink_cpus)),
        Ends::Postfix => (1, 1),
    }
}

/// What went wrong, of what the generator printed.
pub fn failures(said: &str) -> String {
    let Ok(report) = source_report(said) else { return said.to_owned() };
    let kinds = report.failures.iter().map(|(kind, failure)| match failure.first.as_str() {
        "" => format!("{} × {kind}", failure.count),
        first => format!("{} × {kind}, first: {first}", failure.count),
    });
    format!(
        "{} failed, {} not sent: {}",
        report.failed,
        report.not_sent,
        kinds.collect::<Vec<_>>().join("; ")
    )
}

pub fn source_report(text: &str) -> Result<source::Report> {
    serde_json::from_str(text).context("the generator's report cannot be read")
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
