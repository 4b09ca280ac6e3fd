//! The command line's words for conditions and changes.

use crate::config;
use crate::program::{Failed, USAGE};
use crate::steering::{Action, Condition, Destination, IDS_MAX, Pattern, Request, State};
use clap::Args;
use std::io::BufRead;
use std::time::Duration;

/// Ages up to this; a queue does not keep mail longer.
const AGE_MAX: Duration = Duration::from_secs(3650 * 86_400);

/// Which messages are meant. What is named must all hold; in patterns * stands for any characters.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Which")]
pub struct Which {
    /// Queue ids; - reads them from standard input, one a line
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// The envelope sender, such as *@winery.example; <> is the null sender
    #[arg(long, value_name = "PATTERN")]
    sender: Option<Pattern>,
    /// The recipient's address
    #[arg(long, value_name = "PATTERN")]
    recipient: Option<Pattern>,
    /// The recipient's domain, such as away.example or *.example
    #[arg(long, value_name = "PATTERN")]
    domain: Option<Pattern>,
    /// The next hop: a domain, or a smart host with or without its port
    #[arg(long, value_name = "PATTERN")]
    next_hop: Option<Pattern>,
    /// In the queue for longer than this, such as 4h
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Option<u64>,
    /// In the queue for less than this
    #[arg(long, value_name = "AGE", value_parser = age)]
    younger_than: Option<u64>,
    /// Content larger than this, such as 10MiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    larger_than: Option<u64>,
    /// Content smaller than this
    #[arg(long, value_name = "SIZE", value_parser = size)]
    smaller_than: Option<u64>,
    /// A part of the reason why it waits
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// queued, deferred, held or damaged
    #[arg(long)]
    state: Option<State>,
}

/// What the changing commands have in common.
#[derive(Args, Clone, Debug, Default)]
pub struct Change {
    #[command(flatten)]
    which: Which,
    /// The whole queue
    #[arg(long)]
    all: bool,
    /// Count, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Clone, Debug)]
pub struct Reroute {
    /// HOST:PORT, mx:DOMAIN, or route for the usual way
    #[arg(long, value_name = "WHERE")]
    to: Destination,
    #[command(flatten)]
    change: Change,
}

#[derive(Args, Clone, Debug)]
pub struct Bounce {
    /// Words for the sender, in the DSN
    #[arg(long, value_name = "TEXT", default_value = "")]
    text: String,
    #[command(flatten)]
    change: Change,
}

fn age(text: &str) -> Result<u64, String> {
    config::duration(text, &(Duration::from_secs(1)..=AGE_MAX)).map(|age| age.as_secs())
}

fn size(text: &str) -> Result<u64, String> {
    config::size(text, &(0..=u64::MAX))
}

impl Which {
    /// # Errors
    /// An id that is none, or too many.
    pub fn condition(self) -> Result<Condition, Failed> {
        let usage = |sentence: String| Failed::new(USAGE, sentence);
        let mut texts = Vec::new();
        for id in self.ids {
            match id.as_str() {
                "-" => texts.extend(read_ids().map_err(|error| Failed::io("standard input", &error))?),
                _ => texts.push(id),
            }
        }
        let ids = texts.iter().map(|text| text.parse().map_err(|error| usage(format!("{text}: {error}"))));
        let mut condition = Condition {
            ids: ids.collect::<Result<_, _>>()?,
            sender: self.sender,
            recipient: self.recipient,
            domain: self.domain,
            next_hop: self.next_hop,
            older_than_seconds: self.older_than,
            younger_than_seconds: self.younger_than,
            larger_than_octets: self.larger_than,
            smaller_than_octets: self.smaller_than,
            reason: self.reason,
            state: self.state,
        };
        condition.prepare().map_err(usage)?;
        Ok(condition)
    }
}

/// The first word of each line, so that lines of `queue list` do as well.
fn read_ids() -> std::io::Result<Vec<String>> {
    let mut ids = Vec::new();
    for line in std::io::stdin().lock().lines().take(IDS_MAX + 1) {
        ids.extend(line?.split_whitespace().next().map(str::to_owned));
    }
    Ok(ids)
}

impl Change {
    /// # Errors
    /// No condition and no `--all`, or both.
    pub fn request(self, action: Action) -> Result<Request, Failed> {
        let wants_ids = self.which.ids.iter().any(|id| id == "-");
        let condition = self.which.condition()?;
        if wants_ids && condition.ids.is_empty() {
            // An empty list means no message, never all that match the rest.
            return Err(Failed::new(USAGE, "no queue id on standard input; nothing is changed"));
        }
        let mut request = Request { action, condition, all: self.all, dry_run: self.dry_run };
        request
            .prepare()
            .map_err(|sentence| Failed::new(USAGE, format_args!("{sentence} (--all); nothing is changed")))?;
        Ok(request)
    }
}

impl Reroute {
    /// # Errors
    /// As [`Change::request`].
    pub fn request(self) -> Result<Request, Failed> {
        self.change.request(Action::Reroute(self.to))
    }
}

impl Bounce {
    /// # Errors
    /// As [`Change::request`], or a text that cannot be sent.
    pub fn request(self) -> Result<Request, Failed> {
        self.change.request(Action::Bounce(self.text))
    }
}
