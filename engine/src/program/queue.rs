//! `sluice queue`: on a running relay through its socket; `list`, `show` and `summary` otherwise read-only
//! from the spool's files.

pub mod arguments;
mod change;
mod stopped;
mod summary;

pub use change::change;
pub use summary::summary;

use super::{Failed, NO_INPUT, NO_PERMISSION, SOFTWARE, closed_pipe};
use crate::admin::client::{self, Answered};
use crate::clock;
use crate::config::Config;
use crate::intake::{describe, spool_directory, spool_numbers, tell_origin};
use crate::shard::links::{QueueItem, QueueRecipient};
use crate::steering::{Condition, HopNames};
use sluice_queue::{Inspection, QueueId, SpoolNumber};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Messages asked for at a time.
const PAGE: usize = 1_000;

/// The spool that a command means, and the configuration that named it, if one did.
pub struct Place {
    pub spool: PathBuf,
    pub config: Option<Arc<Config>>,
}

impl Place {
    /// The size of new segments.
    pub fn segment_bytes(&self) -> u64 {
        let named = self.config.as_ref().map(|config| config.spool.segment_bytes);
        named.unwrap_or_else(|| sluice_queue::Options::default().segment_bytes)
    }

    /// How next hops are called; by their domains where no configuration says it better.
    fn hop_names(&self) -> HopNames {
        self.config.as_ref().map_or_else(HopNames::by_domain, HopNames::new)
    }
}

/// Prints the messages that match, oldest first: a table, or one JSON object a line.
pub fn list(place: &Place, condition: &Condition, json: bool) -> Result<(), Failed> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut total = Total { all: condition.is_all(), ..Total::default() };
    let printed = for_each(place, condition, |item| {
        total.add(item);
        if json { print_json(&mut out, item) } else { print_row(&mut out, item, total.messages == 1) }
    })?;
    printed
        .and_then(|()| if json { Ok(()) } else { total.print(&mut out) })
        .and_then(|()| out.flush())
        .or_else(closed_pipe)
}

/// Prints one message.
pub fn show(place: &Place, id: QueueId, json: bool) -> Result<(), Failed> {
    let spool = &place.spool;
    let missing =
        || Failed::new(NO_INPUT, format_args!("no message {id} in the queue of {}", spool.display()));
    let item = match ask(spool, &format!("/v1/queue/{id}"))? {
        Some(Answered::Found(body)) => parse(&body)?,
        Some(_) => return Err(missing()),
        None => read_stopped(place, id)?.ok_or_else(missing)?,
    };
    let mut out = io::stdout().lock();
    let printed = if json { print_json(&mut out, &item) } else { print_whole(&mut out, &item) };
    printed.or_else(closed_pipe)
}

/// Calls `each` for every message that matches; the inner result is that of writing to standard output.
fn for_each(
    place: &Place,
    condition: &Condition,
    mut each: impl FnMut(&QueueItem) -> io::Result<()>,
) -> Result<io::Result<()>, Failed> {
    let json = serde_json::to_string(condition).expect("a condition has a JSON form");
    let condition_part = match condition.is_all() {
        true => String::new(),
        false => format!("&condition={}", client::escaped(&json)),
    };
    let mut after = String::new();
    loop {
        let path = format!("/v1/queue?limit={PAGE}{condition_part}{after}");
        let page: Vec<QueueItem> = match ask(&place.spool, &path)? {
            Some(Answered::Found(body)) => parse(&body)?,
            Some(_) => return Err(Failed::new(SOFTWARE, "the relay does not know /v1/queue")),
            None => return list_stopped(place, condition, &mut each),
        };
        for item in &page {
            if let Err(error) = each(item) {
                return Ok(Err(error));
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = format!("&after={}", last.id),
            _ => return Ok(Ok(())),
        }
    }
}

/// `None` when no relay runs on this spool.
fn ask(spool: &Path, path: &str) -> Result<Option<Answered>, Failed> {
    match client::get(spool, path) {
        Ok(Answered::NotRunning) => Ok(None),
        Ok(Answered::Refused(status, words)) => {
            Err(Failed::new(super::IO_ERROR, format_args!("the relay answered {status}: {words}")))
        }
        Ok(answered) => Ok(Some(answered)),
        Err(error) => Err(unreachable_relay(spool, &error)),
    }
}

/// The relay's socket is there and gives no answer.
pub fn unreachable_relay(spool: &Path, error: &io::Error) -> Failed {
    if error.kind() == io::ErrorKind::PermissionDenied {
        let spool = spool.display();
        return Failed::new(
            NO_PERMISSION,
            format_args!(
                "the spool {spool} belongs to another user; run this as root or as the relay's user"
            ),
        );
    }
    Failed::io(format_args!("asking the relay on {}", spool.display()), error)
}

pub fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Failed> {
    serde_json::from_slice(body)
        .map_err(|error| Failed::new(SOFTWARE, format_args!("the relay's answer: {error}")))
}

/// All spools below a directory, read-only.
pub fn inspect_all(spool: &Path) -> Result<Vec<(SpoolNumber, Inspection)>, Failed> {
    let failed = |error: &io::Error| Failed::io(format_args!("the spool {}", spool.display()), error);
    let mut spools = Vec::new();
    let numbers = spool_numbers(spool).map_err(|error| failed(&error))?;
    if numbers.is_empty() && !spool.join("lock").exists() {
        let sentence =
            format!("{} is no spool: it holds neither a lock nor a shard directory", spool.display());
        return Err(Failed::new(NO_INPUT, sentence));
    }
    for number in numbers {
        let directory = spool_directory(spool, number);
        let inspected = sluice_queue::inspect(&directory, number);
        let failed = |error| Failed::new(super::IO_ERROR, format_args!("{}: {error}", directory.display()));
        spools.push((number, inspected.map_err(failed)?));
    }
    Ok(spools)
}

fn list_stopped(
    place: &Place,
    condition: &Condition,
    each: &mut impl FnMut(&QueueItem) -> io::Result<()>,
) -> Result<io::Result<()>, Failed> {
    let (hops, now) = (place.hop_names(), clock::wall_micros());
    stopped::for_each(&place.spool, |subject, parts| {
        if !condition.matches_message(subject, now)
            || !parts.iter().any(|part| condition.matches_recipient(part, &hops))
        {
            return Ok(());
        }
        each(&describe(subject, parts.iter().copied(), &hops))
    })?
    .map(Ok)
}

fn read_stopped(place: &Place, id: QueueId) -> Result<Option<QueueItem>, Failed> {
    let mut found = None;
    let hops = place.hop_names();
    stopped::one(&place.spool, id, |subject, parts, envelope| {
        let mut item = describe(subject, parts.iter().copied(), &hops);
        envelope.into_iter().for_each(|envelope| tell_origin(&mut item, envelope));
        found = Some(item);
    })?;
    Ok(found)
}

#[derive(Default)]
struct Total {
    /// The whole queue was asked for.
    all: bool,
    messages: usize,
    octets: u64,
}

impl Total {
    fn add(&mut self, item: &QueueItem) {
        self.messages += 1;
        self.octets = self.octets.saturating_add(item.octets);
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        match self.messages {
            0 if self.all => writeln!(out, "The queue is empty."),
            0 => writeln!(out, "No message matches."),
            1 => writeln!(out, "-- 1 message, {} bytes", self.octets),
            n => writeln!(out, "-- {n} messages, {} bytes", self.octets),
        }
    }
}

fn print_json(out: &mut impl Write, item: &QueueItem) -> io::Result<()> {
    serde_json::to_writer(&mut *out, item)?;
    writeln!(out)
}

fn print_row(out: &mut impl Write, item: &QueueItem, first: bool) -> io::Result<()> {
    if first {
        writeln!(out, "{:<13}  {:>10}  {:<31}  Sender / recipients", "Queue ID", "Size", "Arrival (UTC)")?;
    }
    let arrival = clock::mail_date(item.arrived_micros);
    let damaged = if item.damaged { "  damaged" } else { "" };
    writeln!(out, "{}  {:>10}  {arrival}  <{}>{damaged}", item.id, item.octets, item.sender)?;
    item.recipients.iter().filter(|r| is_open(r)).try_for_each(|recipient| print_recipient(out, recipient))
}

fn is_open(recipient: &QueueRecipient) -> bool {
    matches!(recipient.status.as_str(), "queued" | "deferred" | "held" | "damaged")
}

fn print_recipient(out: &mut impl Write, recipient: &QueueRecipient) -> io::Result<()> {
    write!(out, "{:>15}<{}> {}", "", recipient.address, recipient.status)?;
    if recipient.rerouted {
        write!(out, ", rerouted to {}", recipient.next_hop)?;
    }
    if recipient.reason.is_empty() {
        return writeln!(out);
    }
    writeln!(out, " ({})", recipient.reason)
}

fn print_whole(out: &mut impl Write, item: &QueueItem) -> io::Result<()> {
    writeln!(out, "Queue ID:  {}", item.id)?;
    writeln!(out, "Arrival:   {}", clock::mail_date(item.arrived_micros))?;
    writeln!(out, "Size:      {} bytes", item.octets)?;
    writeln!(out, "Sender:    <{}>", item.sender)?;
    if !item.client.is_empty() {
        writeln!(out, "Client:    [{}], HELO {}", item.client, item.helo)?;
    }
    if !item.listener.is_empty() {
        writeln!(out, "Listener:  {}", item.listener)?;
    }
    if item.damaged {
        writeln!(out, "Damaged:   not all of it can be read; it is set aside and never sent")?;
    }
    if let Some([id, lineage]) = &item.origin {
        writeln!(out, "Origin:    {id}, spool {lineage}")?;
    }
    print_parameters(out, item)?;
    for recipient in &item.recipients {
        write!(
            out,
            "Recipient: <{}> {}, attempts {}",
            recipient.address, recipient.status, recipient.attempts
        )?;
        if !recipient.next_hop.is_empty() {
            let rerouted = if recipient.rerouted { ", rerouted" } else { "" };
            write!(out, ", next hop {}{rerouted}", recipient.next_hop)?;
        }
        if recipient.reason.is_empty() {
            writeln!(out)?
        } else {
            writeln!(out, "\n           {}", recipient.reason)?
        }
        let words = [("NOTIFY", &recipient.notify), ("ORCPT", &recipient.orcpt)];
        for (name, value) in words.iter().filter(|(_, value)| !value.is_empty()) {
            writeln!(out, "           {name}={value}")?;
        }
    }
    Ok(())
}

/// What the sender asked for by parameters of MAIL.
fn print_parameters(out: &mut impl Write, item: &QueueItem) -> io::Result<()> {
    if let Some(release) = item.release_micros {
        writeln!(out, "Release:   {}, not tried before", clock::mail_date(release))?;
    }
    if let Some(deadline) = item.deliver_by_micros {
        let then = if item.deliver_by_returns { "returned" } else { "its sender notified" };
        writeln!(out, "Deadline:  {}, then {then}", clock::mail_date(deadline))?;
    }
    if item.priority != 0 {
        writeln!(out, "Priority:  {}", item.priority)?;
    }
    let mut words: Vec<String> = Vec::new();
    words.extend((!item.ret.is_empty()).then(|| format!("RET={}", item.ret)));
    words.extend((!item.envid.is_empty()).then(|| format!("ENVID={}", item.envid)));
    words.extend(item.smtputf8.then(|| "SMTPUTF8".to_owned()));
    words.extend(item.require_tls.then(|| "REQUIRETLS".to_owned()));
    if !words.is_empty() {
        writeln!(out, "Asked for: {}", words.join(" "))?;
    }
    Ok(())
}
