//! The start of an ingest shard: its spool and those it adopts are opened, and what an earlier run
//! left unfinished is handed to the delivery shards.
//!
//! A spool directory whose number is not one of this run's shards is adopted by shard
//! `number % shards` ([`Links::owner`](crate::shard::links::Links::owner)). It is emptied like any other; it takes no new mail but the
//! DSNs about its own messages.

use super::known;
use super::steer::OVERFLOW_MAX;
use super::{IngestShard, ShardSpool};
use crate::config::Config;
use crate::observe::log;
use sluice_queue::{GlommioStorage, Options, QueueId, Recovery, Spool, SpoolNumber};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Messages of an earlier run that are handed over between two yields.
const HANDED_AT_ONCE: usize = 256;

pub struct OpenedSpools {
    pub own: ShardSpool,
    pub adopted: Vec<ShardSpool>,
    /// Spools with mail of an earlier run, each with the id of the last such message.
    pub unfinished: Vec<(ShardSpool, QueueId)>,
}

/// Opens the spool of shard `index` and those that it adopts.
pub async fn open_spools(config: &Config, index: usize, shards: usize) -> Result<OpenedSpools, String> {
    let path = &config.spool.path;
    let own = SpoolNumber::new(index as u16).expect("the number of shards is bounded by the configuration");
    let mut adopted = Vec::new();
    for number in spool_numbers(path).map_err(|error| failed(path, &error))? {
        if number != own && number.get() as usize >= shards && number.get() as usize % shards == index {
            adopted.push(open(config, path, number).await?);
        }
    }
    let own = open(config, path, own).await?;
    let unfinished = std::iter::once(&own).chain(&adopted);
    let unfinished = unfinished
        .filter_map(|spool| Some((spool.clone(), spool.live(None, usize::MAX).last().copied()?)))
        .collect();
    Ok(OpenedSpools { own, adopted, unfinished })
}

/// `shard-NNNN` under the spool's path.
pub fn spool_directory(path: &Path, number: SpoolNumber) -> PathBuf {
    path.join(format!("shard-{:04}", number.get()))
}

/// The spools that exist, in order.
pub fn spool_numbers(path: &Path) -> std::io::Result<Vec<SpoolNumber>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("shard-")?.parse().ok());
        numbers.extend(number.and_then(SpoolNumber::new));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

async fn open(config: &Config, path: &Path, number: SpoolNumber) -> Result<ShardSpool, String> {
    let directory = spool_directory(path, number);
    std::fs::create_dir_all(&directory).map_err(|error| failed(&directory, &error))?;
    let storage = GlommioStorage::new(&directory).map_err(|error| failed(&directory, &error))?;
    let options = Options { segment_bytes: config.spool.segment_bytes, ..Options::default() };
    let opened = Spool::open(storage, number, options).await;
    let (spool, recovery) = opened.map_err(|error| failed(&directory, &error))?;
    report(&directory, &recovery);
    Ok(spool)
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("the spool {} cannot be opened: {error}", path.display())
}

fn report(directory: &Path, recovery: &Recovery) {
    for damage in &recovery.damages {
        log::note("ingest", &format!("error: spool {}: {damage}", directory.display()));
    }
    if recovery.messages > 0 || !recovery.damages.is_empty() {
        log::note("ingest", &format!("spool {}: {recovery}", directory.display()));
    }
}

/// Hands everything unfinished to the delivery shards, from memory, in slices. Mail is accepted meanwhile:
/// what came in during this run is handed over by its session, and ids tell which is which.
pub async fn hand_over_recovered(shard: Rc<IngestShard>, spool: ShardSpool, last: QueueId) {
    shard.steering.begin_recovering();
    let mut after = None;
    loop {
        after = known::slice(&spool, after, HANDED_AT_ONCE, |subject, known| {
            if subject.id <= last {
                shard.hand_over_known(subject, known, |_| true, true);
            }
        });
        if after.is_none_or(|after| after >= last) {
            break;
        }
        shard.overflow_below(OVERFLOW_MAX).await;
        glommio::executor().yield_task_queue_now().await;
    }
    shard.steering.end_recovering();
}
