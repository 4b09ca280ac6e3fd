//! The queue of a spool whose relay is down, read from its files; nothing is written.

use crate::intake::{spool_directory, spool_numbers};
use crate::program::{Failed, IO_ERROR, NO_INPUT};
use crate::steering::{Part, Subject};
use sluice_queue::{Envelope, Inspection, Message, QueueId};
use std::io;
use std::path::Path;

/// What is shown of each message: what the index knows of it, and a way to read its envelope from the disk.
pub type Each<'a> = dyn FnMut(&Subject<'_>, &[Part<'_>], &Envelope) -> io::Result<()> + 'a;

/// All messages in the order of their ids. The inner result is that of `each`, which ends it.
pub fn for_each(
    spool: &Path,
    mut each: impl FnMut(&Subject<'_>, &[Part<'_>], &Envelope) -> io::Result<()>,
) -> Result<Result<(), Failed>, Failed> {
    let spools = inspect(spool)?;
    let mut ids: Vec<(QueueId, usize)> = Vec::new();
    for (index, spool) in spools.iter().enumerate() {
        ids.extend(spool.live(None, usize::MAX).into_iter().map(|id| (id, index)));
    }
    ids.sort_unstable();
    for (id, index) in ids {
        let message =
            spools[index].load(id).map_err(|error| Failed::new(IO_ERROR, format_args!("{id}: {error}")))?;
        if let Err(error) = show_parts(&message, &mut each) {
            return Ok(crate::program::closed_pipe(error));
        }
    }
    Ok(Ok(()))
}

/// One message; false when it is not there.
pub fn one(
    spool: &Path,
    id: QueueId,
    mut each: impl FnMut(&Subject<'_>, &[Part<'_>], &Envelope) -> io::Result<()>,
) -> Result<bool, Failed> {
    let Some(message) = inspect(spool)?.iter().find_map(|spool| spool.load(id).ok()) else {
        return Ok(false);
    };
    show_parts(&message, &mut each).or_else(crate::program::closed_pipe)?;
    Ok(true)
}

fn show_parts(message: &Message, each: &mut Each<'_>) -> io::Result<()> {
    let envelope = &message.envelope;
    let subject = Subject {
        id: message.id,
        arrived_micros: envelope.arrived_micros,
        content_bytes: message.content_bytes,
        sender: &envelope.sender,
        damaged: false,
    };
    let part = |(index, address): (usize, _)| Part {
        address,
        state: message.states[index],
        via: message.vias.iter().find(|(at, _)| *at as usize == index).map(|(_, via)| &**via),
        reason: message.reasons[index].as_ref().map(|reason| &*reason.text),
    };
    let addresses = envelope.recipients.iter().map(|recipient| &*recipient.address);
    let parts: Vec<Part<'_>> = addresses.enumerate().map(part).collect();
    each(&subject, &parts, envelope)
}

fn inspect(spool: &Path) -> Result<Vec<Inspection>, Failed> {
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
        spools.push(
            inspected
                .map_err(|error| Failed::new(IO_ERROR, format_args!("{}: {error}", directory.display())))?,
        );
    }
    Ok(spools)
}
