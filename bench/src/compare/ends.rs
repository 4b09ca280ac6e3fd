//! Generator and sink as processes, our own and Postfix's, behind one face.

use super::install::{SMTP_SINK, SMTP_SOURCE, is_root};
use super::servers::{accepts, await_free};
use super::{Cell, Ends, Options};
use crate::process::{self, Group};
use crate::stop::Stop;
use crate::{sink, source};
use anyhow::{Context as _, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const START_WAIT: Duration = Duration::from_secs(10);

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

/// Starts a sink that ends by itself after `messages`, and waits until it accepts.
pub fn start_sink(options: &Options, cell: Cell, messages: u64, stop: &Stop) -> Result<End> {
    let address = format!("127.0.0.1:{}", options.port);
    let (program, arguments): (PathBuf, _) = match cell.ends {
        Ends::Own => {
            let mut arguments = words(&["sink", "--bind", &address, "--expect", &messages.to_string()]);
            add_cpus(&mut arguments, options.sink_cpus.as_ref());
            (std::env::current_exe()?, arguments)
        }
        Ends::Postfix => {
            let mut arguments = words(&["-M", &messages.to_string()]);
            if is_root() {
                arguments.extend(words(&["-u", "postfix"]));
            }
            arguments.extend(words(&[&address, "1024"]));
            (SMTP_SINK.into(), arguments)
        }
    };
    await_free(options.port, stop)?;
    let mut sink = End::start("sink", &program, &arguments)?;
    let deadline = Instant::now() + START_WAIT;
    while !accepts(options.port) {
        ensure!(!sink.has_ended()?, "the sink {} did not start", program.display());
        ensure!(!stop.is_set(), "interrupted");
        ensure!(Instant::now() < deadline, "the sink {} does not accept", program.display());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(sink)
}

/// Starts a generator of `messages` to the port.
pub fn start_source(options: &Options, cell: Cell, messages: u64, port: u16) -> Result<End> {
    let target = format!("127.0.0.1:{port}");
    let (sessions, size, messages) = (cell.sessions.to_string(), cell.size.to_string(), messages.to_string());
    let (program, arguments): (PathBuf, _) = match cell.ends {
        Ends::Own => {
            let each = if options.one_per_connection { "1" } else { "0" };
            let mut arguments = words(&["source", "--json", "--target", &target, "--sessions", &sessions]);
            arguments.extend(words(&[
                "--size",
                &size,
                "--messages",
                &messages,
                "--messages-per-connection",
                each,
            ]));
            add_cpus(&mut arguments, options.source_cpus.as_ref());
            (std::env::current_exe()?, arguments)
        }
        Ends::Postfix => {
            let mut arguments = words(&["-s", &sessions, "-l", &size, "-m", &messages]);
            if !options.one_per_connection {
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
