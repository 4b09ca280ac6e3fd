//! An ingest shard's part in a restore: commits what is fed to it, and hands it over.
//!
//! Lives on the ingest shard, or, when no relay runs, on the executor that the command starts for it. What
//! holds at every moment is in `sluice_queue::Restore`.

use super::turn::Turn;
use super::{IngestShard, ShardSpool};
use crate::clock;
use crate::observe::log;
use crate::restore::wire::Item;
use crate::restore::{Knowledge, Report};
use sluice_queue::{CommitError, Look, Restore, Restored, Source};
use tokio::sync::mpsc;

/// Items that may be under way to a shard; one has at most 256 KiB of content. Prevents: memory by the size
/// of a copy.
pub const ITEMS_MAX: usize = 32;

/// What the spools of this shard know.
pub fn knowledge<'a>(spools: impl Iterator<Item = &'a ShardSpool>) -> Knowledge {
    let mut all = Knowledge::default();
    for spool in spools {
        all.merge(Knowledge { own: vec![(spool.lineage(), spool.id_floor())], ancestry: spool.ancestry() });
    }
    all
}

/// Takes in what is fed, until it ends; `each` gets what is durable, in the same turn in which it became so.
pub async fn take_in(
    spool: &ShardSpool,
    turn: &Turn,
    source: Source,
    dry_run: bool,
    mut feed: mpsc::Receiver<Item>,
    mut each: impl AsyncFnMut(Vec<Restored>),
) -> Report {
    let mut restore = Restore::new(spool.clone(), source);
    let mut finished = false;
    while let Some(item) = feed.recv().await {
        finished |= matches!(item, Item::Finish { .. });
        let turn = turn.take().await;
        match take(&mut restore, item, dry_run).await {
            Ok(restored) if restored.is_empty() => {}
            Ok(restored) => each(restored).await,
            Err(error) => return Report::new(restore.brought(), Some(error)),
        }
        drop(turn);
        glommio::yield_if_needed().await;
    }
    let stopped = (!finished).then(|| "the copy ended before its end".to_owned());
    Report::new(restore.brought(), stopped)
}

async fn take(
    restore: &mut Restore<sluice_queue::GlommioStorage>,
    item: Item,
    dry_run: bool,
) -> Result<Vec<Restored>, String> {
    let told = |error: CommitError| error.to_string();
    match item {
        Item::Begin(_) => {}
        Item::Message(incoming) => match restore.look(incoming.id, incoming.envelope.origin) {
            Look::Wanted => restore.begin(*incoming, clock::wall_micros()),
            Look::Disorder => return Err("the messages of the copy are not in order".into()),
            Look::Here | Look::Finished | Look::Doubtful => {}
        },
        Item::Octets(octets) => restore.octets(&octets).await.map_err(told)?,
        Item::End => return restore.end().await.map_err(told),
        Item::Look { id, origin } => match restore.look(id, origin) {
            Look::Wanted if dry_run => restore.would(id),
            // What the relay knew when it was asked it knows still.
            Look::Wanted => restore.unreadable(id),
            Look::Disorder => return Err("the messages of the copy are not in order".into()),
            Look::Here | Look::Finished | Look::Doubtful => {}
        },
        Item::Unreadable(id) => restore.unreadable(id),
        Item::Finish { .. } if dry_run => {}
        Item::Finish { through, ancestry } => return restore.finish(through, &ancestry).await.map_err(told),
    }
    Ok(Vec::new())
}

impl IngestShard {
    /// Hands over what has come from another spool. Whoever calls has the turn.
    pub(super) fn hand_over_arrived(&self, arrived: &[Restored], how: &str) {
        for Restored { id, from } in arrived {
            log::note("ingest", &format!("{id}: {how} from {from}"));
            self.hand_over_left(&self.spool, *id, &self.unmoved.take_forward(*from));
        }
    }
}
