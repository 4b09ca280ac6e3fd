//! The program `sluice`: the command line. Everything else is in the library.

use clap::{Args, Parser, Subcommand};
use sluice::config::Config;
use sluice::demonstration;
use sluice::program::{self, CONFIGURATION, Failed};
use sluice::restore::copy::How;
use sluice_queue::QueueId;
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An SMTP relay for the DMZ. Without a command it starts a demonstration: servers on loopback addresses, and
/// mail filed below ./sluice-demo.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    cpus: Cpus,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args)]
struct Cpus {
    /// CPUs of the ingest shards, such as 0-3,8; overrides shards.ingest_cpus
    #[arg(long, global = true, value_name = "LIST")]
    ingest_cpus: Option<String>,
    /// CPUs of the delivery shards; overrides shards.delivery_cpus
    #[arg(long, global = true, value_name = "LIST")]
    delivery_cpus: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the relay
    Run(ConfigFile),
    /// Verify a configuration and print who may send where; exit code 78 when it is bad
    Check(ConfigFile),
    /// Look at the queue, of a running relay or of a spool whose relay is down
    Queue(Queue),
}

#[derive(Args)]
struct ConfigFile {
    #[arg(long, value_name = "FILE", default_value = "/etc/sluice/relay.toml")]
    config: PathBuf,
}

#[derive(Args)]
struct Queue {
    #[command(subcommand)]
    command: QueueCommand,
    #[command(flatten)]
    place: Place,
    /// One JSON object a line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Args)]
#[group(multiple = false)]
struct Place {
    /// The configuration that names the spool
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The spool's directory
    #[arg(long, global = true, value_name = "DIR")]
    spool: Option<PathBuf>,
}

#[derive(Subcommand)]
enum QueueCommand {
    /// All messages, oldest first
    List,
    /// One message with the state of each recipient
    Show { id: QueueId },
    /// Read the whole spool and say what is wrong with it; exit code 65 when something is, 74 when the disk
    /// does not read
    Verify,
    /// Copy the whole queue to DIR without stopping anything; again for the same DIR, what is new
    Backup {
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Bring the mail of a backup, or of a stopped relay's spool, into this one, running or not; what it has
    /// or has finished is left alone
    Restore {
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Only count
        #[arg(long)]
        dry_run: bool,
        /// Bring in again what was here and is finished: it may be delivered twice
        #[arg(long)]
        again: bool,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::try_parse().unwrap_or_else(|error| {
        let _ = error.print();
        // clap says 2; sysexits says 64.
        std::process::exit(if error.use_stderr() { program::USAGE.into() } else { 0 });
    });
    match execute(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("sluice: {}", failed.sentence);
            ExitCode::from(failed.code)
        }
    }
}

fn execute(arguments: Arguments) -> Result<(), Failed> {
    let cpus = &arguments.cpus;
    match arguments.command {
        None => demonstration::run(with_cpus(Config::demonstration(), cpus)?),
        Some(Command::Run(file)) => {
            program::run::run(with_cpus(program::check::load(&file.config)?, cpus)?, |_| Ok(()))
        }
        Some(Command::Check(file)) => program::check::check(&file.config),
        Some(Command::Queue(queue)) => {
            let (spool, segment_bytes) = spool_of(queue.place)?;
            match queue.command {
                QueueCommand::List => program::queue::list(&spool, queue.json),
                QueueCommand::Show { id } => program::queue::show(&spool, id, queue.json),
                QueueCommand::Verify => program::verify::verify(&spool, queue.json),
                QueueCommand::Backup { directory } => program::backup::backup(&spool, &directory, queue.json),
                QueueCommand::Restore { directory, dry_run, again } => {
                    let how = How { again, dry_run };
                    program::restore::restore(&spool, segment_bytes, &directory, how, queue.json)
                }
            }
        }
    }
}

/// The spool that a queue command means: named, or that of the named or the usual configuration; and the
/// size of its segments.
fn spool_of(place: Place) -> Result<(PathBuf, u64), Failed> {
    if let Some(spool) = place.spool {
        return Ok((spool, sluice_queue::Options::default().segment_bytes));
    }
    let config = place.config.unwrap_or_else(|| "/etc/sluice/relay.toml".into());
    let spool = program::check::load(&config)?.spool;
    Ok((spool.path, spool.segment_bytes))
}

fn with_cpus(mut config: Config, cpus: &Cpus) -> Result<Config, Failed> {
    config
        .override_cpus(cpus.ingest_cpus.as_deref(), cpus.delivery_cpus.as_deref())
        .map_err(|error| Failed::new(CONFIGURATION, error))?;
    Ok(config)
}
