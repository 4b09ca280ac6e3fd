//! `sluice queue list` and `show`: on a live relay through its socket, otherwise read-only from the
//! spool's files.

use super::{Failed, NO_INPUT, NO_PERMISSION, SOFTWARE, closed_pipe};
use crate::admin::client::{self, Answered};
use crate::clock;
use crate::intake::{describe, spool_directory, spool_numbers};
use crate::shard::links::{QueueItem, QueueRecipient};
use sluice_queue::backup::Source;
use sluice_queue::{Inspection, Origin, QueueId, SpoolNumber, Standing};
use std::io::{self, Write};
use std::path::Path;

/// Messages asked for at a time.
const PAGE: usize = 1_000;

/// Prints the whole queue, oldest first: a table, or one JSON object a line.
pub fn list(spool: &Path, json: bool) -> Result<(), Failed> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut total = Total::default();
    let printed = for_each(spool, |item| {
        total.add(item);
        if json { print_json(&mut out, item) } else { print_row(&mut out, item, total.messages == 1) }
    })?;
    printed
        .and_then(|()| if json { Ok(()) } else { total.print(&mut out) })
        .and_then(|()| out.flush())
        .or_else(closed_pipe)
}

/// Prints one message.
pub fn show(spool: &Path, id: QueueId, json: bool) -> Result<(), Failed> {
    let missing =
        || Failed::new(NO_INPUT, format_args!("no message {id} in the queue of {}", spool.display()));
    let item = match ask(spool, &format!("/v1/queue/{id}"))? {
        Some(Answered::Found(body)) => parse(&body)?,
        Some(_) => return Err(missing()),
        None => read_stopped(spool, id)?.ok_or_else(missing)?,
    };
    let mut out = io::stdout().lock();
    let printed = if json { print_json(&mut out, &item) } else { print_whole(&mut out, &item) };
    printed.or_else(closed_pipe)
}

/// Calls `each` for every message; the inner result is that of writing to standard output.
fn for_each(
    spool: &Path,
    mut each: impl FnMut(&QueueItem) -> io::Result<()>,
) -> Result<io::Result<()>, Failed> {
    let mut after = String::new();
    loop {
        let page: Vec<QueueItem> = match ask(spool, &format!("/v1/queue?limit={PAGE}{after}"))? {
            Some(Answered::Found(body)) => parse(&body)?,
            Some(_) => return Err(Failed::new(SOFTWARE, "the relay does not know /v1/queue")),
            None => return list_stopped(spool, &mut each),
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

/// The spools of a relay that does not run, or those in a backup.
fn stopped_spools(spool: &Path) -> Result<Vec<sluice_queue::Inspection>, Failed> {
    let backup = Source::open(spool).map_err(|error| Failed::new(super::IO_ERROR, error))?;
    inspect_all(backup.as_ref().map_or(spool, |backup| &backup.spool))
        .map(|spools| spools.into_iter().map(|(_, of)| of).collect())
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

/// Whether another of the spools has the message: it was being moved there when the relay stopped.
fn is_moved(spools: &[Inspection], index: usize, id: QueueId) -> bool {
    let Some(lineage) = spools[index].lineage else { return false };
    let others = spools.iter().enumerate().filter(|(other, _)| *other != index);
    let origin = Origin { lineage, id };
    others.map(|(_, of)| of.ancestry().standing(origin)).any(|standing| standing == Standing::Known)
}

fn list_stopped(
    spool: &Path,
    each: &mut impl FnMut(&QueueItem) -> io::Result<()>,
) -> Result<io::Result<()>, Failed> {
    let spools = stopped_spools(spool)?;
    let mut ids: Vec<(QueueId, usize)> = Vec::new();
    for (index, spool) in spools.iter().enumerate() {
        let here = spool.live(None, usize::MAX).into_iter().filter(|id| !is_moved(&spools, index, *id));
        ids.extend(here.map(|id| (id, index)));
    }
    ids.sort_unstable();
    for (id, index) in ids {
        let message = spools[index]
            .load(id)
            .map_err(|error| Failed::new(super::IO_ERROR, format_args!("{id}: {error}")))?;
        if let Err(error) = each(&describe(id, &message)) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

fn read_stopped(spool: &Path, id: QueueId) -> Result<Option<QueueItem>, Failed> {
    let found = stopped_spools(spool)?.iter().find_map(|spool| spool.load(id).ok());
    Ok(found.map(|message| describe(id, &message)))
}

#[derive(Default)]
struct Total {
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
            0 => writeln!(out, "The queue is empty."),
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
    writeln!(out, "{}  {:>10}  {arrival}  <{}>", item.id, item.octets, item.sender)?;
    item.recipients.iter().filter(|r| is_open(r)).try_for_each(|recipient| print_recipient(out, recipient))
}

fn is_open(recipient: &QueueRecipient) -> bool {
    matches!(recipient.status.as_str(), "queued" | "deferred")
}

fn print_recipient(out: &mut impl Write, recipient: &QueueRecipient) -> io::Result<()> {
    write!(out, "{:>15}<{}> {}", "", recipient.address, recipient.status)?;
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
    writeln!(out, "Listener:  {}", item.listener)?;
    if let Some([id, lineage]) = &item.origin {
        writeln!(out, "Origin:    {id}, spool {lineage}")?;
    }
    for recipient in &item.recipients {
        write!(
            out,
            "Recipient: <{}> {}, attempts {}",
            recipient.address, recipient.status, recipient.attempts
        )?;
        if recipient.reason.is_empty() {
            writeln!(out)?
        } else {
            writeln!(out, "\n           {}", recipient.reason)?
        }
    }
    Ok(())
}
