//! The spools of shards that do not exist any more are emptied into the shard's own, and removed.
//!
//! Lives on the ingest shard, in the background: mail is accepted meanwhile. A message of an adopted spool
//! is handed over only under its new id (`queue/FORMAT.md`, moving), so no delivery ever knows the old one;
//! unless it cannot be moved: then it is delivered from where it is, and the spool stays.
//!
//! Before anything that an earlier run left is handed over, all shards have told each other what their
//! spools know: a message that was moved out of a spool just before a crash may wait in both, and the shard
//! that has the old copy need not be the one that has the new.
//!
//! A change of the queue takes turns with the steps of the move (`turn`): what it records of a message that
//! is not moved yet goes with it.

use super::recovery::{hand_over_recovered, spool_directory};
use super::steer::OVERFLOW_MAX;
use super::turn;
use super::{IngestShard, ShardSpool};
use crate::clock;
use crate::observe::log;
use crate::shard::event::Event;
use crate::shard::links::ToIngest;
use sluice_queue::{Ancestry, CommitError, Move, QueueId, SpoolNumber};
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Messages looked at without a pause.
const LOOKS_AT_ONCE: usize = 1_000;
/// What a directory is called while it is removed: no spool any more.
const REMOVED: &str = ".removed";

/// What the other shards said of their spools.
#[derive(Default)]
pub struct Relatives {
    heard: Cell<usize>,
    told: Event,
    ancestry: RefCell<Ancestry>,
}

impl Relatives {
    pub fn tell(&self, ancestry: &Ancestry) {
        self.ancestry.borrow_mut().merge(ancestry);
        self.heard.set(self.heard.get() + 1);
        self.told.raise();
    }

    async fn all(&self, count: usize) -> Ancestry {
        while self.heard.get() < count {
            self.told.wait().await;
        }
        self.ancestry.borrow().clone()
    }
}

/// Brings everything that earlier runs left on its way; ends when that is done.
pub(crate) async fn resume(
    shard: Rc<IngestShard>,
    first: turn::Held,
    unfinished: Vec<(ShardSpool, QueueId)>,
) {
    let others = shard.links.ingest.iter().enumerate().filter(|(index, _)| *index != shard.index);
    for (_, other) in others {
        let mut ancestry = Ancestry::default();
        shard.spools().for_each(|spool| ancestry.merge(&spool.ancestry()));
        other.send(ToIngest::Relatives(ancestry)).await;
    }
    let told = shard.relatives.all(shard.links.ingest.len() - 1).await;
    for spool in shard.spools() {
        settle(&shard, spool, told.clone()).await;
    }
    for (spool, last) in unfinished {
        if spool.number() == shard.spool.number() {
            hand_over_recovered(&shard, &spool, last).await;
        }
    }
    shard.adopted.iter().for_each(|spool| shard.unmoved.begin(spool.number()));
    drop(first);
    for spool in &shard.adopted {
        if let Err(error) = empty(&shard, spool).await {
            let name = spool_name(spool.number());
            log::note("ingest", &format!("{name} is not emptied now ({error}); its mail goes from there"));
            let _turn = shard.turn.take().await;
            if let Some(last) = spool.live(None, usize::MAX).last().copied() {
                hand_over_recovered(&shard, spool, last).await;
            }
            shard.unmoved.end(spool.number());
        }
    }
}

/// Finishes what is known elsewhere: it was moved there, and the outcome that said so was not durable.
async fn settle(shard: &IngestShard, spool: &ShardSpool, mut others: Ancestry) {
    let rest = shard.spools().filter(|other| other.number() != spool.number());
    rest.for_each(|other| others.merge(&other.ancestry()));
    if others.through(spool.lineage()).is_none() {
        return;
    }
    let mut after = None;
    loop {
        let (next, known) = spool.settle_known(&others, after, LOOKS_AT_ONCE, clock::wall_micros());
        for id in known {
            log::note("ingest", &format!("{id}: was moved to another spool before the restart"));
        }
        match next {
            Some(next) => after = Some(next),
            None => return,
        }
        glommio::executor().yield_task_queue_now().await;
    }
}

/// Moves all messages of an adopted spool into the shard's own, then removes it.
async fn empty(shard: &IngestShard, from: &ShardSpool) -> Result<(), CommitError> {
    let name = spool_name(from.number());
    let mut moving = Move::new(from.clone(), shard.spool.clone());
    let mut count = 0;
    let _turn = loop {
        let turn = shard.turn.take().await;
        if shard.stop.is_stopped() {
            return Ok(());
        }
        let step = moving.step(clock::wall_micros()).await?;
        count += step.moved.len();
        shard.hand_over_arrived(&step.moved, "moved");
        for id in step.unreadable {
            log::note("ingest", &format!("{id}: error: cannot be read, stays in {name}"));
        }
        for id in step.stay {
            log::note("ingest", &format!("{id}: does not fit into this shard's spool, goes from {name}"));
            shard.hand_over_left(from, id, &shard.unmoved.take_forward(id));
            shard.unmoved.hand_over(id);
        }
        if !step.more {
            break turn;
        }
        drop(turn);
        shard.overflow_below(OVERFLOW_MAX).await;
        glommio::executor().yield_task_queue_now().await;
    };
    shard.unmoved.end(from.number());
    if from.messages() > 0 || !from.damaged().is_empty() || shard.is_damaged(from.number()) {
        log::note("ingest", &format!("{name}: {count} messages moved; it stays for what cannot be read"));
        return Ok(());
    }
    from.sync().await?;
    moving.finish().await?;
    // From here on the directory says nothing that the shard's own spool does not say.
    from.clone().retire().await?;
    let path = shard.config.spool.path.clone();
    let number = from.number();
    let removed = glommio::executor().spawn_blocking(move || remove(&path, number)).await;
    match removed {
        Ok(()) => log::note("ingest", &format!("{name}: {count} messages moved, removed")),
        Err(error) => {
            log::note("ingest", &format!("warning: {name} is empty and cannot be removed: {error}"))
        }
    }
    Ok(())
}

fn spool_name(number: SpoolNumber) -> String {
    format!("spool shard-{:04}", number.get())
}

/// Blocks.
fn remove(path: &Path, number: SpoolNumber) -> std::io::Result<()> {
    let directory = spool_directory(path, number);
    let removed = PathBuf::from(format!("{}{REMOVED}", directory.display()));
    std::fs::rename(&directory, &removed)?;
    std::fs::File::open(path)?.sync_all()?;
    std::fs::remove_dir_all(&removed)?;
    std::fs::File::open(path)?.sync_all()
}

/// Removes what an earlier run did not come to. Blocks; for the start.
pub(super) fn remove_remains(path: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("shard-") && name.ends_with(REMOVED)) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
