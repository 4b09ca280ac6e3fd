//! The command line of `sluice-bench`; see README.md for what each command measures.

use clap::{Parser, Subcommand};
use sluice_bench::sending::{distance, drain};
use sluice_bench::{abuse, compare, sink, source, spool, tls};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "sluice-bench", version, about = "Load generator, sink and comparisons for SMTP relays")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends messages and measures how long the server takes
    Source(source::Options),
    /// Receives messages and checks every one
    Sink(sink::Options),
    /// Measures the relay and other mail servers on the same work in the same run
    Compare(compare::Options),
    /// Measures the spool against the disk that it lies on
    Spool(spool::Options),
    /// Measures what a normal client notices while others attack the relay
    Abuse(abuse::Options),
    /// Measures what TLS costs relay and Postfix in the same run
    Tls(tls::Options),
    /// Measures what one connection carries over a long way, relay and Postfix in the same run
    Distance(distance::Options),
    /// Measures how fast a full queue empties, relay and Postfix in the same run
    Drain(drain::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Source(options) => source::run(&options),
        Command::Sink(options) => sink::run(&options),
        Command::Compare(options) => compare::run(&options),
        Command::Spool(options) => spool::run(&options),
        Command::Abuse(options) => abuse::run(&options),
        Command::Tls(options) => tls::run(&options),
        Command::Distance(options) => distance::run(&options),
        Command::Drain(options) => drain::run(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sluice-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}
