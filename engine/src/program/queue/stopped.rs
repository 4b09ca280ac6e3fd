//! The queue of a spool whose relay is down, read from its files; nothing is written.

use super::inspect_all;
use crate::intake::known::{self, Known};
use crate::program::{Failed, IO_ERROR};
use crate::steering::{Part, Subject};
use sluice_queue::backup::Source;
use sluice_queue::{Envelope, Inspection, Origin, QueueId, Standing};
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
    ids.retain(|(id, index)| !is_moved(&spools, *index, *id));
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

/// The spools of a relay that does not run, or those in a backup.
fn inspect(spool: &Path) -> Result<Vec<Inspection>, Failed> {
    let backup = Source::open(spool).map_err(|error| Failed::new(IO_ERROR, error))?;
    let spools = inspect_all(backup.as_ref().map_or(spool, |backup| &backup.spool))?;
    Ok(spools.into_iter().map(|(_, of)| of).collect())
}

/// Whether another of the spools has the message: it was being moved there when the relay stopped.
fn is_moved(spools: &[Inspection], index: usize, id: QueueId) -> bool {
    let Some(lineage) = spools[index].lineage else { return false };
    let others = spools.iter().enumerate().filter(|(other, _)| *other != index);
    let origin = Origin { lineage, id };
    others.map(|(_, of)| of.ancestry().standing(origin)).any(|standing| standing == Standing::Known)
}
