//! What one fdatasync costs under the queues: the physical part of the latency of a durable 250.
//!
//! A file of blocks that were written before; each step writes 4 KiB over the next block and calls fdatasync, one
//! after the other. That is the cheapest kind: nothing is allocated and no length changes.
//!
//! The same in short before every row, on a file system that was synced: whether the disk is as it was for the others.

use super::measure::Figures;
use crate::figures::{Latency, Summary};
use anyhow::{Context as _, Result, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;
const BLOCKS: u64 = 256;
/// As a row: at least so many, whatever the time.
const SYNCS_MIN: u64 = 1_000;
/// Before a row.
const PROBES: u64 = 50;

/// For `seconds`, as long as the rows that it is set against.
pub fn measure(directory: &Path, seconds: f64) -> Result<Figures> {
    let (latency, took) = syncs(directory, SYNCS_MIN, Duration::from_secs_f64(seconds))?;
    Ok(Figures {
        messages: latency.count,
        seconds: took,
        messages_per_second: latency.count as f64 / took,
        end_of_data: Some(latency.clone()),
        transaction: Some(latency),
        cpu_method: "not counted",
        ..Figures::default()
    })
}

/// Writes back all that the file system holds, then times a few.
pub fn probe(directory: &Path) -> Result<Summary> {
    let synced =
        Command::new("sync").arg("--file-system").arg(directory).status().context("cannot run sync")?;
    ensure!(synced.success(), "sync --file-system {} failed", directory.display());
    Ok(syncs(directory, PROBES, Duration::ZERO)?.0)
}

/// At least so many for at least so long; and the seconds that they took.
fn syncs(directory: &Path, least: u64, time: Duration) -> Result<(Summary, f64)> {
    let path = directory.join("fdatasync");
    let done = syncs_of(&path, least, time);
    let _ = std::fs::remove_file(&path);
    done
}

fn syncs_of(path: &Path, least: u64, time: Duration) -> Result<(Summary, f64)> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    for block in 0..BLOCKS {
        file.write_all_at(&[0; BLOCK], block * BLOCK as u64)?;
    }
    file.sync_all()?;
    let (began, mut latency) = (Instant::now(), Latency::default());
    for number in 0.. {
        if number >= least && began.elapsed() >= time {
            break;
        }
        let one = Instant::now();
        file.write_all_at(&[number as u8; BLOCK], number % BLOCKS * BLOCK as u64)?;
        file.sync_data()?;
        latency.record(one.elapsed());
    }
    Ok((latency.summary(), began.elapsed().as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_writes_are_timed_and_the_file_goes() {
        let directory = tempfile::tempdir().unwrap();
        let figures = measure(directory.path(), 0.01).unwrap();
        let latency = figures.end_of_data.unwrap();
        assert!(latency.count >= SYNCS_MIN && figures.seconds >= 0.01, "{latency:?}");
        assert!(latency.p50_ms > 0.0 && latency.p50_ms <= latency.p99_ms);
        assert_eq!(probe(directory.path()).unwrap().count, PROBES);
        assert!(std::fs::read_dir(directory.path()).unwrap().next().is_none());
    }
}
