//! The start of an ingest shard: its spool and those it adopts are opened, and what an earlier run
//! left unfinished is handed to the delivery shards.
//!
//! A spool directory whose number is not one of this run's shards is adopted by shard
//! `number % shards` ([`Links::owner`](crate::shard::links::Links::owner)). It is emptied like any other; it takes no new mail but the
//! DSNs about its own messages.

use super::known;
use super::steer::OVERFLOW_MAX;
use super::{IngestShard, Opened, ShardSpool};
use crate::config::Config;
use crate::observe::log;
use sluice_queue::{GlommioStorage, Options, QueueId, Recovery, Spool, SpoolNumber};
use std::path::{Path, PathBuf};

/// Messages of an earlier run that are handed over between two yields.
const HANDED_AT_ONCE: usize = 256;

/// A spool cannot work with less: one that is written, one spare, and two to go on with.
const SEGMENTS_MIN: u64 = 4;

pub struct OpenedSpools {
    pub opened: Opened,
    /// Spools with mail of an earlier run, each with the id of the last such message.
    pub unfinished: Vec<(ShardSpool, QueueId)>,
}

/// Opens the spool of shard `index` and those that it adopts.
pub async fn open_spools(config: &Config, index: usize, shards: usize) -> Result<OpenedSpools, String> {
    let path = &config.spool.path;
    let size = Size { segment_bytes: config.spool.segment_bytes, bytes_max: share_of_quota(config) };
    let own = SpoolNumber::new(index as u16).expect("the number of shards is bounded by the configuration");
    if index == 0 {
        super::adoption::remove_remains(path).map_err(|error| failed(path, &error))?;
    }
    let (mut adopted, mut damaged) = (Vec::new(), Vec::new());
    for number in spool_numbers(path).map_err(|error| failed(path, &error))? {
        if number != own && number.get() as usize >= shards && number.get() as usize % shards == index {
            let (spool, recovery) = open_spool(size, path, number).await?;
            if !recovery.damages.is_empty() {
                damaged.push(number);
            }
            adopted.push(spool);
        }
    }
    let own = open_spool(size, path, own).await?.0;
    let unfinished = std::iter::once(&own).chain(&adopted);
    let unfinished = unfinished
        .filter_map(|spool| Some((spool.clone(), spool.live(None, usize::MAX).last().copied()?)))
        .collect();
    Ok(OpenedSpools { opened: Opened { own, adopted, damaged }, unfinished })
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

/// How much a spool may take, and in what pieces.
#[derive(Clone, Copy)]
pub struct Size {
    pub segment_bytes: u64,
    pub bytes_max: u64,
}

/// Opens the spool `number` below `path`; creates it when it does not exist.
pub async fn open_spool(
    size: Size,
    path: &Path,
    number: SpoolNumber,
) -> Result<(ShardSpool, Recovery), String> {
    let directory = spool_directory(path, number);
    std::fs::create_dir_all(&directory).map_err(|error| failed(&directory, &error))?;
    let storage = GlommioStorage::new(&directory).map_err(|error| failed(&directory, &error))?;
    let Size { segment_bytes, bytes_max } = size;
    let options = Options { segment_bytes, bytes_max, ..Options::default() };
    let opened = Spool::open(storage, number, options).await;
    let (spool, recovery) = opened.map_err(|error| failed(&directory, &error))?;
    report(&directory, &recovery);
    Ok((spool, recovery))
}

/// Each shard has its part of `spool.bytes_max`, so that none must ask the others; connections spread evenly.
fn share_of_quota(config: &Config) -> u64 {
    match config.spool.bytes_max {
        0 => u64::MAX,
        quota => {
            (quota / config.shards.ingest_cpus.len() as u64).max(SEGMENTS_MIN * config.spool.segment_bytes)
        }
    }
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
/// Whoever calls has the turn.
pub async fn hand_over_recovered(shard: &IngestShard, spool: &ShardSpool, last: QueueId) {
    let mut after = None;
    loop {
        after = known::slice(spool, after, HANDED_AT_ONCE, |subject, known| {
            if subject.id <= last && !shard.unmoved.was_handed_over(subject.id) {
                let forward = shard.unmoved.take_forward(subject.id);
                shard.hand_over_known(subject, known, |_| true, |index| !forward.contains(&index));
            }
        });
        if after.is_none_or(|after| after >= last) {
            return;
        }
        shard.overflow_below(OVERFLOW_MAX).await;
        glommio::executor().yield_task_queue_now().await;
    }
}
