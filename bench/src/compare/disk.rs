//! What one fdatasync costs under the queues: the physical part of the latency of a durable 250.
//!
//! A file of blocks that were written before; each step writes 4 KiB over the next block and calls fdatasync, one
//! after the other. That is the cheapest kind: nothing is allocated and no length changes.

use super::measure::Figures;
use crate::figures::Latency;
use anyhow::{Context as _, Result};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

const BLOCK: usize = 4096;
const BLOCKS: u64 = 256;
const SYNCS: u64 = 1_000;

pub fn measure(directory: &Path) -> Result<Figures> {
    let path = directory.join("fdatasync");
    let figures = syncs(&path);
    let _ = std::fs::remove_file(&path);
    figures
}

fn syncs(path: &Path) -> Result<Figures> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    for block in 0..BLOCKS {
        file.write_all_at(&[0; BLOCK], block * BLOCK as u64)?;
    }
    file.sync_all()?;
    let (began, mut latency) = (Instant::now(), Latency::default());
    for number in 0..SYNCS {
        let one = Instant::now();
        file.write_all_at(&[number as u8; BLOCK], number % BLOCKS * BLOCK as u64)?;
        file.sync_data()?;
        latency.record(one.elapsed());
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(Figures {
        messages: SYNCS,
        seconds,
        messages_per_second: SYNCS as f64 / seconds,
        end_of_data: Some(latency.summary()),
        transaction: Some(latency.summary()),
        cpu_method: "not counted",
        ..Figures::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_writes_are_timed_and_the_file_goes() {
        let directory = tempfile::tempdir().unwrap();
        let figures = measure(directory.path()).unwrap();
        let latency = figures.end_of_data.unwrap();
        assert_eq!(latency.count, SYNCS);
        assert!(latency.p50_ms > 0.0 && latency.p50_ms <= latency.p99_ms);
        assert!(std::fs::read_dir(directory.path()).unwrap().next().is_none());
    }
}
