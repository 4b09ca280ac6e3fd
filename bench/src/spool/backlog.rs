//! What a message costs when many wait: to take one in, and to take one out as a delivery after a restart does.
//!
//! The spool is filled to each backlog in turn. Then a fresh message is measured (commit), and the oldest ones are
//! loaded, read and recorded as delivered, in the order of their ids, one at a time.

use super::commits::{self, DiskSpool};
use crate::figures::median;
use anyhow::{Result, anyhow};
use serde::Serialize;
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Committers that fill.
const FILLERS: usize = 64;
/// Messages drained at each backlog, in parts of which the median counts.
const DRAINED_MAX: usize = 5_000;
const PARTS: usize = 10;
const CONTENT_MAX: usize = 1 << 20;
/// Messages read out of order.
const SCATTERED: usize = 200;

/// Microseconds of time per message, medians of ten parts.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub backlog: usize,
    /// While it is filled by many committers.
    pub fill_us: f64,
    /// One at a time.
    pub commit_us: f64,
    pub load_us: f64,
    pub read_us: f64,
    pub record_us: f64,
    /// Load and read of messages here and there, before the others: what reading ahead cannot help.
    pub scattered_us: f64,
}

impl Figures {
    pub fn drain_us(&self) -> f64 {
        self.load_us + self.read_us + self.record_us
    }
}

pub async fn measure(spool: &DiskSpool, backlog: usize, size: usize, time: Duration) -> Result<Figures> {
    let began = Instant::now();
    let missing = backlog.saturating_sub(spool.messages());
    fill(spool, backlog, size).await?;
    let fill_us = began.elapsed().as_secs_f64() * 1e6 / missing.max(1) as f64;
    let content = vec![b'x'; size];
    let mut commits = Vec::new();
    let began = Instant::now();
    while began.elapsed() < time {
        let start = Instant::now();
        let id = commits::commit(spool, &content).await?;
        commits.push(micros(start));
        spool.record(id, commits::delivered());
    }
    let scattered_us = scattered(spool, backlog).await?;
    let [load_us, read_us, record_us] = drain(spool, DRAINED_MAX.min(backlog / 2)).await?;
    let commit_us = median(&commits).unwrap_or_default();
    Ok(Figures { backlog, fill_us, commit_us, load_us, read_us, record_us, scattered_us })
}

async fn fill(spool: &DiskSpool, backlog: usize, size: usize) -> Result<()> {
    let left = Rc::new(Cell::new(backlog.saturating_sub(spool.messages())));
    let tasks: Vec<_> = (0..FILLERS)
        .map(|_| {
            let (spool, left, content) = (spool.clone(), left.clone(), vec![b'x'; size]);
            glommio::spawn_local(async move {
                while let Some(rest) = left.get().checked_sub(1) {
                    left.set(rest);
                    commits::commit(&spool, &content).await?;
                }
                Ok::<(), anyhow::Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await?;
    }
    Ok(())
}

async fn scattered(spool: &DiskSpool, backlog: usize) -> Result<f64> {
    let ids = spool.live(None, backlog);
    let mut took = Vec::new();
    for number in 0..SCATTERED.min(ids.len()) {
        let id = ids[number * 7919 % ids.len()];
        let start = Instant::now();
        let message =
            spool.load_without_reasons(id).await.map_err(|error| anyhow!("cannot load: {error}"))?;
        spool.read_loaded(&message, 0, CONTENT_MAX).await.map_err(|error| anyhow!("cannot read: {error}"))?;
        took.push(micros(start));
    }
    Ok(median(&took).unwrap_or_default())
}

async fn drain(spool: &DiskSpool, count: usize) -> Result<[f64; 3]> {
    let ids = spool.live(None, count);
    let mut parts: [Vec<f64>; 3] = Default::default();
    for ids in ids.chunks((count / PARTS).max(1)) {
        let mut took = [0.0; 3];
        for id in ids {
            let start = Instant::now();
            let message =
                spool.load_without_reasons(*id).await.map_err(|error| anyhow!("cannot load: {error}"))?;
            took[0] += micros(start);
            let start = Instant::now();
            spool
                .read_loaded(&message, 0, CONTENT_MAX)
                .await
                .map_err(|error| anyhow!("cannot read: {error}"))?;
            took[1] += micros(start);
            let start = Instant::now();
            spool.record(*id, commits::delivered());
            took[2] += micros(start);
            glommio::yield_if_needed().await;
        }
        parts.iter_mut().zip(took).for_each(|(part, took)| part.push(took / ids.len() as f64));
    }
    Ok(parts.map(|part| median(&part).unwrap_or_default()))
}

fn micros(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6
}
