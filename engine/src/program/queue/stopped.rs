//! The queue of a spool whose relay is down, read from its files; nothing is written.

use crate::intake::known::{self, Known};
use crate::intake::{spool_directory, spool_numbers};
use crate::program::{Failed, IO_ERROR, NO_INPUT};
use crate::steering::{Part, Subject};
use sluice_queue::{Envelope, Inspection, QueueId};
use std::io;
use std::path::Path;

/// All messages in the order of their ids. The inner result is that of `each`, which ends it.
pub fn for_each(
    spool: &Path,
    mut each: impl FnMut(&Subject<'_>, &[Part<'_>]) -> io::Result<()>,
) -> Result<Result<(), Failed>, Failed> {
    let spools = inspect(spool)?;
    let mut ids: Vec<(QueueId, usize)> = Vec::new();
    for (index, spool) in spools.iter().enumerate() {
        spool.survey(None, usize::MAX, |facts| ids.push((facts.id(), index)));
    }
    ids.sort_unstable();
    for (id, index) in ids {
        let mut shown = Ok(());
        known::one_stopped(&spools[index], id, |subject, known| shown = each(subject, &parts(known)));
        if let Err(error) = shown {
            return Ok(crate::program::closed_pipe(error));
        }
    }
    Ok(Ok(()))
}

/// One message with its envelope, where that can be read; false when it is not there.
pub fn one(
    spool: &Path,
    id: QueueId,
    mut each: impl FnMut(&Subject<'_>, &[Part<'_>], Option<&Envelope>),
) -> Result<bool, Failed> {
    for spool in inspect(spool)? {
        let message = spool.load(id).ok();
        let envelope = message.as_ref().map(|message| &message.envelope);
        if known::one_stopped(&spool, id, |subject, known| each(subject, &parts(known), envelope)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn parts<'a>(known: &[Known<'a>]) -> Vec<Part<'a>> {
    known.iter().map(|known| known.part).collect()
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
