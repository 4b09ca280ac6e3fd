//! The program `sluice`: the command line. Everything else is in the library.

use clap::{Args, Parser, Subcommand};
use sluice::config::Config;
use sluice::demonstration;
use sluice::program::queue::arguments;
use sluice::program::{self, CONFIGURATION, Failed};
use sluice::restore::copy::How;
use sluice::steering::{Action, SummaryOptions};
use sluice_queue::QueueId;
use sluice_tuning::plan::Profile;
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An SMTP relay for the DMZ. Without a command it starts a demonstration: servers on loopback addresses, and
/// mail filed below ./sluice-demo.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    cpus: Cpus,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args)]
struct Cpus {
    /// CPUs of the ingest shards, such as 0-3,8; overrides shards.ingest_cpus
    #[arg(long, value_name = "LIST")]
    ingest_cpus: Option<String>,
    /// CPUs of the delivery shards; overrides shards.delivery_cpus
    #[arg(long, value_name = "LIST")]
    delivery_cpus: Option<String>,
    /// CPUs of the service thread (DNS, logins, the admin page); overrides shards.service_cpus
    #[arg(long, value_name = "LIST")]
    service_cpus: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the relay
    Run(Start),
    /// Verify a configuration and print who may send where; exit code 78 when it is bad
    Check(Start),
    /// What becomes of a message by a configuration: who takes it, where it goes, what is rewritten
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(Explain),
    /// Print a built-in text of DSNs, to start an own one from
    DsnTemplate(DsnTemplate),
    /// Show what clients and the running relay say to each other, as they say it; secrets are masked
    Trace(Trace),
    /// Manage the logins of the password file
    #[command(after_help = USER_EXAMPLES)]
    User(User),
    /// Look at the host and print a script that makes it faster for the relay, or make the changes
    #[command(after_help = TUNE_EXAMPLES)]
    Tune(Tune),
    /// Look at the queue and steer it
    #[command(after_help = QUEUE_EXAMPLES)]
    Queue(Box<Queue>),
}

// No doc comment: clap would show it in place of the command's own.
#[derive(Args)]
struct Start {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    cpus: Cpus,
}

#[derive(Args)]
struct ConfigFile {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/sluice/relay.toml")]
    config: PathBuf,
}

#[derive(Args)]
struct Tune {
    #[arg(value_enum, default_value_t = TuneCommand::Script)]
    command: TuneCommand,
    /// How large the host is meant to be; by the number of its CPUs unless given
    #[arg(long, value_enum)]
    profile: Option<TuneProfile>,
    /// This knob only, also of what is undone; may be repeated
    #[arg(long, value_name = "KNOB")]
    only: Vec<String>,
    /// The configuration that names CPUs and spool [default: /etc/sluice/relay.toml; where that is not there, the best
    /// division of this host is assumed]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where is written down what undoes the changes
    #[arg(long, value_name = "FILE", default_value = sluice_tuning::tune::RECORD)]
    record: PathBuf,
    #[command(flatten)]
    cpus: Cpus,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum TuneCommand {
    /// Print a shell script that applies what is missing, and undoes it
    Script,
    /// Print what was found; exit code 1 when something is to be changed
    Check,
    /// Make the changes, as root
    Apply,
    /// Put back what was there before
    Undo,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum TuneProfile {
    /// One or two CPUs
    Small,
    /// Three to eight
    Medium,
    /// More
    Large,
}

#[derive(Args)]
struct Explain {
    #[command(flatten)]
    file: ConfigFile,
    /// Only this listener
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// The client's address; else one that the listener admits
    #[arg(long, value_name = "ADDRESS")]
    client: Option<std::net::IpAddr>,
    /// The client has logged in
    #[arg(long)]
    authenticated: bool,
    /// The reverse-path; nothing: <>
    #[arg(long, value_name = "ADDRESS", default_value = "")]
    from: String,
    /// The forward-path
    #[arg(long, value_name = "ADDRESS")]
    to: String,
    /// A file with the message, whose header section shows what is rewritten in it
    #[arg(long, value_name = "FILE")]
    message: Option<PathBuf>,
}

#[derive(Args)]
struct DsnTemplate {
    /// failed, delayed or relayed
    kind: String,
    /// Of the built-in text
    #[arg(long, value_name = "en|de", default_value = "en")]
    language: String,
    /// Show a whole DSN with the text, and in the languages, that the configuration has
    #[arg(long, conflicts_with = "language")]
    example: bool,
    #[command(flatten)]
    file: ConfigFile,
}

#[derive(Args)]
struct User {
    #[command(subcommand)]
    command: UserCommand,
    /// The configuration that names the password file
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/sluice/relay.toml")]
    config: PathBuf,
}

#[derive(Subcommand)]
enum UserCommand {
    /// Add a login, with a password from the terminal or from standard input
    Add {
        /// The login, such as ann@winery.example
        login: String,
    },
    /// Change a password
    Passwd {
        /// Whose password
        login: String,
    },
    /// Remove a login
    Remove {
        /// The login
        login: String,
    },
    /// Every login, and whether it is locked
    List,
    /// Let a login in no more until it is unlocked
    Lock {
        /// The login
        login: String,
    },
    /// Let a login in again
    Unlock {
        /// The login
        login: String,
    },
    /// Try a password at the back end, whichever it is; exit code 77 when it is refused
    Test {
        /// Whose password
        login: String,
    },
}

impl From<UserCommand> for program::user::Command {
    fn from(command: UserCommand) -> Self {
        match command {
            UserCommand::Add { login } => Self::Add(login),
            UserCommand::Passwd { login } => Self::Passwd(login),
            UserCommand::Remove { login } => Self::Remove(login),
            UserCommand::List => Self::List,
            UserCommand::Lock { login } => Self::Lock(login),
            UserCommand::Unlock { login } => Self::Unlock(login),
            UserCommand::Test { login } => Self::Test(login),
        }
    }
}

const USER_EXAMPLES: &str = "\
A running relay notices a change within a second. Passwords are never taken from the command line.

Examples:
  sluice user add ann@winery.example
  sluice user passwd ann@winery.example < new-password
  sluice user test ann@winery.example";

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

const EXPLAIN_EXAMPLES: &str = "\
Policy, route, the answer of the route's table, the hosts as far as they are known without DNS, TLS, what is
rewritten, and last what becomes of the message. Exit code 64 when the question makes no sense, 78 when the
configuration is bad.

Examples:
  sluice explain --listener outside --client 192.0.2.1 --to ann@winery.example
  sluice explain --listener inside --client 10.1.0.7 --from ann@winery.example --to bob@away.example";

#[derive(Args)]
struct Trace {
    /// The clients: a network such as 192.0.2.0/24, or an address; all: 0.0.0.0/0 or ::/0
    #[arg(long, value_name = "CIDR")]
    client: String,
    /// Only sessions of this listener
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// End after so long, such as 60s or 10m; else when you stop it
    #[arg(long = "for", value_name = "TIME")]
    within: Option<String>,
    #[command(flatten)]
    place: Place,
}

#[derive(Args)]
#[group(multiple = false)]
struct Place {
    /// The configuration that names the spool; /etc/sluice/relay.toml unless this or --spool is given
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The spool's directory
    #[arg(long, global = true, value_name = "DIR")]
    spool: Option<PathBuf>,
}

#[derive(Subcommand)]
enum QueueCommand {
    /// The messages, oldest first; all, or those that are meant
    List(arguments::Which),
    /// One message with the state of each recipient
    Show {
        /// Its queue id, as the log and the list have it
        id: QueueId,
    },
    /// Totals, next hops, and recipients by domain and age
    Summary {
        /// By the domain of the sender
        #[arg(long)]
        senders: bool,
        /// Rows of each table
        #[arg(long, value_name = "ROWS", default_value_t = 20)]
        limit: usize,
    },
    /// Do not try these until they are released; also after a restart
    Hold(arguments::Change),
    /// Try held mail again, at once
    Release(arguments::Change),
    /// Try now, without waiting for the time of the next attempt
    Retry(arguments::Change),
    /// Send it elsewhere from now on
    Reroute(arguments::Reroute),
    /// End it, and send each sender a DSN that says an administrator has returned it
    Bounce(arguments::Bounce),
    /// End it, and tell nobody
    Delete(arguments::Change),
    /// Read the whole spool and say what is wrong with it; exit code 65 when something is, 74 when the disk
    /// does not read
    Verify,
    /// Copy the whole queue to DIR without stopping anything; again for the same DIR, what is new
    Backup {
        /// The directory of the copy
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Bring the mail of a backup, or of a stopped relay's spool, into this one, running or not; what it has
    /// or has finished is left alone
    Restore {
        /// The directory of the backup, or of the stopped relay's spool
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

const TUNE_EXAMPLES: &str = "\
Nothing that is changed outlives a boot; the unit sluice-tune.service applies it at each one.

Examples:
  sluice tune check
  sluice tune > tune.sh && less tune.sh && sudo sh tune.sh apply
  sudo sluice tune apply --only somaxconn --only local-ports
  sudo sluice tune undo --only local-ports
  sudo sluice tune undo";

const QUEUE_EXAMPLES: &str = "\
list, show, summary, verify, backup and restore also work on a spool whose relay is down; a change wants the
running relay.
A change says how many messages and recipients it has changed; exit code 66 when an id is not in the queue.

Examples:
  sluice queue list --domain away.example --older-than 4h
  sluice queue hold --recipient '*@winery.example'
  sluice queue release --recipient '*@winery.example'
  sluice queue retry --next-hop 10.1.0.10
  sluice queue reroute --to 10.1.0.11:25 --next-hop 10.1.0.10
  sluice queue bounce --reason 'mailbox full' --older-than 1d --dry-run
  sluice queue delete --sender '<>' --domain spam.example";

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
    match arguments.command {
        None => demonstration::run(with_cpus(Config::demonstration(), &arguments.cpus)?),
        Some(Command::Run(Start { file, cpus })) => {
            program::run::run(with_cpus(program::check::load(&file.config)?, &cpus)?, |_| Ok(()))
        }
        Some(Command::Check(Start { file, cpus })) => {
            // Nothing that is printed depends on the lists; that they are some, any configuration can tell.
            with_cpus(Config::demonstration(), &cpus)?;
            program::check::check(&file.config)
        }
        Some(Command::Explain(explain)) => {
            let Explain { file, listener, client, authenticated, from, to, message } = explain;
            let asked = program::explain::Asked { listener, client, authenticated, from, to, message };
            program::explain::explain(&file.config, &asked)
        }
        Some(Command::DsnTemplate(DsnTemplate { kind, language, example, file })) => {
            let example = example.then_some(file.config.as_path());
            program::dsn_template::dsn_template(&kind, &language, example)
        }
        Some(Command::Trace(Trace { client, listener, within, place })) => {
            let spool = place_of(place)?.spool;
            program::trace::trace(&spool, &client, listener.as_deref(), within.as_deref())
        }
        Some(Command::User(user)) => program::user::user(&user.config, user.command.into()),
        Some(Command::Tune(tune)) => execute_tune(tune),
        Some(Command::Queue(queue)) => {
            let queue = *queue;
            let (spool, json) = (place_of(queue.place)?, queue.json);
            let steer = |request| program::queue::change(&spool, &request, json);
            match queue.command {
                QueueCommand::List(which) => program::queue::list(&spool, &which.condition()?, json),
                QueueCommand::Show { id } => program::queue::show(&spool, id, json),
                QueueCommand::Summary { senders, limit } => {
                    program::queue::summary(&spool, SummaryOptions { senders, limit }, json)
                }
                QueueCommand::Hold(change) => steer(change.request(Action::Hold)?),
                QueueCommand::Release(change) => steer(change.request(Action::Release)?),
                QueueCommand::Retry(change) => steer(change.request(Action::Retry)?),
                QueueCommand::Reroute(reroute) => steer(reroute.request()?),
                QueueCommand::Bounce(bounce) => steer(bounce.request()?),
                QueueCommand::Delete(change) => steer(change.request(Action::Delete)?),
                QueueCommand::Verify => program::verify::verify(&spool.spool, json),
                QueueCommand::Backup { directory } => program::backup::backup(&spool.spool, &directory, json),
                QueueCommand::Restore { directory, dry_run, again } => {
                    let how = How { again, dry_run };
                    program::restore::restore(&spool.spool, spool.segment_bytes(), &directory, how, json)
                }
            }
        }
    }
}

fn execute_tune(tune: Tune) -> Result<(), Failed> {
    let wishes = program::tune::Wishes {
        profile: tune.profile.map(|profile| match profile {
            TuneProfile::Small => Profile::Small,
            TuneProfile::Medium => Profile::Medium,
            TuneProfile::Large => Profile::Large,
        }),
        only: tune.only,
        cpus: [tune.cpus.ingest_cpus, tune.cpus.delivery_cpus, tune.cpus.service_cpus],
    };
    if tune.command == TuneCommand::Undo {
        return program::tune::undo(&tune.record, &wishes.only);
    }
    let relay = program::tune::relay(tune.config.as_deref())?;
    match tune.command {
        TuneCommand::Script => program::tune::script(&relay, &wishes),
        TuneCommand::Check => program::tune::check(&relay, &wishes),
        TuneCommand::Apply | TuneCommand::Undo => program::tune::apply(&relay, &wishes, &tune.record),
    }
}

/// The spool that a queue command means: named, or that of the named or the usual configuration.
fn place_of(place: Place) -> Result<program::queue::Place, Failed> {
    if let Some(spool) = place.spool {
        return Ok(program::queue::Place { spool, config: None });
    }
    let config = place.config.unwrap_or_else(|| "/etc/sluice/relay.toml".into());
    let config = program::check::load_for_queue(&config)?;
    Ok(program::queue::Place { spool: config.spool.path.clone(), config: Some(config.into()) })
}

fn with_cpus(mut config: Config, cpus: &Cpus) -> Result<Config, Failed> {
    let lists = [&cpus.ingest_cpus, &cpus.delivery_cpus, &cpus.service_cpus];
    config.override_cpus(lists.map(Option::as_deref)).map_err(|error| Failed::new(CONFIGURATION, error))?;
    Ok(config)
}
