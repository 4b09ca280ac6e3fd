//! Reads a copy of a queue, a backup or the directory of a stopped relay, into items for a restore.
//!
//! Blocks; lives in the process of the command, on a thread of its own. Nothing is written.

use super::wire::{Begin, Item, OCTETS_MAX};
use crate::intake::{spool_directory, spool_numbers};
use sluice_queue::backup::Source;
use sluice_queue::{
    Ancestry, Inspection, Lineage, Origin, QueueId, ReadError, SpoolNumber, Standing, inspect,
};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// A copy, kept from being changed meanwhile.
pub struct Copy {
    pub spools: Vec<CopiedSpool>,
    _backup: Option<Source>,
    _lock: Option<File>,
}

/// The copy of one spool.
#[derive(Clone, Debug)]
pub struct CopiedSpool {
    pub directory: PathBuf,
    pub number: SpoolNumber,
    /// Open at the instant of the copy.
    pub drafts: Vec<QueueId>,
}

/// What the reading of a copy came to, besides what it gave.
#[derive(Debug, Default)]
pub struct Seen {
    /// Sentences: what does not verify, and where.
    pub damages: Vec<String>,
    pub damages_more: u64,
    /// Written by version 1, which named no lineage: left alone.
    pub unnamed: bool,
}

/// How a copy is to be taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    pub again: bool,
    pub dry_run: bool,
}

impl Copy {
    /// # Errors
    /// A sentence: it is no copy, or a relay runs there.
    pub fn open(directory: &Path) -> Result<Self, String> {
        let backup = Source::open(directory).map_err(|error| error.to_string())?;
        let path = backup.as_ref().map_or(directory, |backup| &backup.spool);
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let lock = if backup.is_none() { lock(path)? } else { None };
        let drafts = |number| {
            let manifest = backup.as_ref().map(|backup| &backup.manifest.spools);
            let of = manifest.and_then(|spools| spools.iter().find(|of| of.spool == number));
            of.map(|of| of.drafts.clone()).unwrap_or_default()
        };
        let numbers = spool_numbers(path).map_err(failed)?;
        if numbers.is_empty() {
            return Err(format!("{} is neither a backup nor a spool", directory.display()));
        }
        let spool =
            |number| CopiedSpool { directory: spool_directory(path, number), number, drafts: drafts(number) };
        let spools = numbers.into_iter().map(spool).collect();
        Ok(Self { spools, _backup: backup, _lock: lock })
    }
}

/// A relay that runs there would change it meanwhile.
fn lock(path: &Path) -> Result<Option<File>, String> {
    let Ok(file) = File::open(path.join("lock")) else { return Ok(None) };
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Err(format!(
            "a relay is running on {}; make a copy of it with sluice queue backup",
            path.display()
        )),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(file)),
    }
}

/// Stands in for the lineage of a spool of version 1, so that what waits here is not brought in twice.
fn made_up(number: SpoolNumber) -> Lineage {
    let mut octets = *b"version 1 .. ...";
    octets[14..].copy_from_slice(&number.get().to_be_bytes());
    Lineage::from_octets(octets).expect("it is not zero")
}

impl CopiedSpool {
    /// Gives the items of a copy to `send`, until that says that nobody wants more. `known` is what the relay
    /// knows: of that only the names are sent. `progress` gets how many are dealt with, of how many.
    ///
    /// # Errors
    /// A sentence: the spool cannot be read at all.
    pub fn read(
        &self,
        how: How,
        known: &[Ancestry],
        mut send: impl FnMut(Item) -> bool,
        progress: impl Fn(usize, usize),
    ) -> Result<Seen, String> {
        let inspection = inspect(&self.directory, self.number)
            .map_err(|error| format!("{}: {error}", self.directory.display()))?;
        let mut seen = Seen { damages_more: inspection.recovery.damages_more, ..Seen::default() };
        let name = self.directory.display();
        seen.damages.extend(inspection.recovery.damages.iter().map(|damage| format!("{name}: {damage}")));
        let damaged = inspection.damaged();
        let mut ids = inspection.live(None, usize::MAX);
        ids.extend(&damaged);
        ids.sort_unstable();
        seen.unnamed = inspection.lineage.is_none() && !ids.is_empty() && !how.again;
        if seen.unnamed || (inspection.lineage.is_none() && ids.is_empty()) {
            return Ok(seen);
        }
        let lineage = inspection.lineage.unwrap_or(made_up(self.number));
        let begin = Begin {
            lineage: lineage.to_string(),
            drafts: self.drafts.iter().map(|id| id.bits()).collect(),
            again: how.again,
            dry_run: how.dry_run,
            unnamed: inspection.lineage.is_none(),
        };
        if !send(Item::Begin(begin)) {
            return Ok(seen);
        }
        let all = ids.len();
        for (at, id) in ids.into_iter().enumerate() {
            progress(at, all);
            let origin = inspection.origin_of(id);
            let names = [Origin { lineage, id }, origin.unwrap_or(Origin { lineage, id })];
            let known =
                || names.iter().any(|of| known.iter().any(|known| known.standing(*of) == Standing::Known));
            let more = if damaged.binary_search(&id).is_ok() {
                send(Item::Unreadable(id))
            } else if how.dry_run || (!how.again && known()) {
                send(Item::Look { id, origin })
            } else {
                self.read_message(&inspection, id, &mut send, &mut seen)
            };
            if !more {
                return Ok(seen);
            }
        }
        progress(all, all);
        send(Item::Finish { through: inspection.id_floor(), ancestry: inspection.ancestry().clone() });
        Ok(seen)
    }

    fn read_message(
        &self,
        inspection: &Inspection,
        id: QueueId,
        send: &mut impl FnMut(Item) -> bool,
        seen: &mut Seen,
    ) -> bool {
        let mut bad = |error: ReadError| {
            seen.damages.push(format!("{}: message {id}: {error}", self.directory.display()));
            Item::Unreadable(id)
        };
        let message = match inspection.load(id) {
            Ok(message) => message,
            Err(error) => return send(bad(error)),
        };
        if !send(Item::Message(Box::new(message.clone().into()))) {
            return false;
        }
        let mut read = 0;
        while read < message.content_bytes {
            let octets = match inspection.read_loaded(&message, read, OCTETS_MAX) {
                Ok(octets) if octets.is_empty() => return send(bad(ReadError::Unknown)),
                Ok(octets) => octets,
                Err(error) => return send(bad(error)),
            };
            read += octets.len() as u64;
            if !send(Item::Octets(octets)) {
                return false;
            }
        }
        send(Item::End)
    }
}
