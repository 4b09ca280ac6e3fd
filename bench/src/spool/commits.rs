//! Committers on a spool: each begins a message, appends its content, commits it, records its delivery, and again.
//!
//! One executor, pinned, on a thread of its own, as an ingest shard is; a ticker writes outcomes that nothing carries
//! every 50 ms, as the shard's does. Before the clock starts the spool is written until it uses its segments again:
//! a spool in use writes over blocks that were written before.

use crate::figures::Latency;
use anyhow::{Context as _, Result, anyhow};
use glommio::{LocalExecutorBuilder, Placement};
use serde::Serialize;
use sluice_queue::{
    Body, ContentFlags, Envelope, GlommioStorage, Options, Outcome, OutcomeKind, QueueId, Recipient, Spool,
    SpoolNumber, Stats,
};
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// As an ingest shard has it.
const TICK: Duration = Duration::from_millis(50);
/// Longest time until a spool uses its segments again.
const WARM_UP_MAX: Duration = Duration::from_secs(60);
/// Committers that warm up: many, so that it is soon over.
const WARM_UP_COMMITTERS: usize = 64;

pub type DiskSpool = Spool<GlommioStorage>;

/// What a number of committers saw.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub committers: usize,
    pub size: usize,
    pub pause_us: u64,
    pub messages: u64,
    pub messages_per_second: f64,
    /// From before the message is begun until it is durable, microseconds.
    pub p50_us: f64,
    pub p99_us: f64,
    /// User and system time of the shard's thread, microseconds per message.
    pub cpu_us: Option<f64>,
    /// Data-sync writes and octets per message, outcomes and seals among them.
    pub batches: f64,
    pub written_bytes: f64,
}

impl Figures {
    /// What a batch holds on average, in whole blocks.
    pub fn batch_bytes(&self) -> usize {
        ((self.written_bytes / self.batches) as usize).next_multiple_of(4096)
    }
}

/// Runs `body` with a spool of its own in `directory`, which is removed afterwards.
pub fn on_a_spool<T, F>(directory: &Path, cpu: usize, body: F) -> Result<T>
where
    T: Send + 'static,
    F: AsyncFnOnce(DiskSpool) -> Result<T> + Send + 'static,
{
    let path = directory.join("shard-0000");
    let removed = path.clone();
    let executor = LocalExecutorBuilder::new(Placement::Fixed(cpu));
    let thread = executor.spawn(move || async move {
        let storage = GlommioStorage::new(&path).with_context(|| format!("cannot use {}", path.display()))?;
        let number = SpoolNumber::new(0).expect("a valid number");
        let (spool, _) = Spool::open(storage, number, Options::default())
            .await
            .map_err(|error| anyhow!("cannot open the spool: {error}"))?;
        let writer = spool.clone();
        let writer = glommio::spawn_local(async move { writer.writer().await }).detach();
        let nudged = spool.clone();
        let ticker = glommio::spawn_local(async move {
            loop {
                glommio::timer::sleep(TICK).await;
                nudged.nudge();
            }
        });
        let done = body(spool.clone()).await;
        ticker.cancel().await;
        spool.close().await.map_err(|error| anyhow!("cannot close the spool: {error}"))?;
        writer.await;
        done
    });
    let thread = thread.map_err(|error| anyhow!("cannot start an executor: {error}"))?;
    let done = thread.join().map_err(|error| anyhow!("the executor ended: {error}"))?;
    let _ = std::fs::remove_dir_all(removed);
    done
}

/// Writes until segments are used again.
pub async fn warm_up(spool: &DiskSpool, size: usize) -> Result<()> {
    let began = Instant::now();
    let used_again = |stats: Stats| stats.segments_recycled > stats.segments_created;
    while !used_again(spool.stats()) && began.elapsed() < WARM_UP_MAX {
        measure(spool, WARM_UP_COMMITTERS, size, Duration::from_millis(200), 0).await?;
    }
    Ok(())
}

/// `pause_us`: mean of the random pauses (exponential) that each committer makes, 0 for none. Without pauses all of a
/// batch come back together, and there is never a second batch to write; with them they come one by one, as from
/// sessions.
pub async fn measure(
    spool: &DiskSpool,
    committers: usize,
    size: usize,
    time: Duration,
    pause_us: u64,
) -> Result<Figures> {
    let (latency, messages) = (Rc::new(RefCell::new(Latency::default())), Rc::new(Cell::new(0)));
    let content: Rc<Vec<u8>> = Rc::new((0..size).map(|at| b' ' + (at % 90) as u8).collect());
    let (before, cpu_before) = (spool.stats(), thread_cpu());
    let began = Instant::now();
    let tasks: Vec<_> = (0..committers)
        .map(|at| {
            let mut pauses = Pauses(at as u64 * 7919 + 12_345);
            let (spool, latency, messages, content) =
                (spool.clone(), latency.clone(), messages.clone(), content.clone());
            glommio::spawn_local(async move {
                while began.elapsed() < time {
                    if let Some(pause) = pauses.next(pause_us) {
                        glommio::timer::sleep(pause).await;
                    }
                    let start = Instant::now();
                    let id = commit(&spool, &content).await?;
                    latency.borrow_mut().record(start.elapsed());
                    messages.set(messages.get() + 1);
                    spool.record(id, delivered());
                }
                Ok::<(), anyhow::Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await?;
    }
    spool.sync().await.map_err(|error| anyhow!("cannot write the last outcomes: {error}"))?;
    let (took, after) = (began.elapsed(), spool.stats());
    let cpu = thread_cpu().zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
    let count = messages.get();
    let per_message = |value: f64| value / count.max(1) as f64;
    let summary = latency.borrow().summary();
    Ok(Figures {
        committers,
        size,
        pause_us,
        messages: count,
        messages_per_second: count as f64 / took.as_secs_f64(),
        p50_us: summary.p50_ms * 1e3,
        p99_us: summary.p99_ms * 1e3,
        cpu_us: cpu.map(|cpu| per_message(cpu.as_secs_f64() * 1e6)),
        batches: per_message((after.batches - before.batches) as f64),
        written_bytes: per_message((after.bytes_written - before.bytes_written) as f64),
    })
}

/// Random pauses, the same in every run.
struct Pauses(u64);

impl Pauses {
    fn next(&mut self, mean_us: u64) -> Option<Duration> {
        let random = &mut self.0;
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        let part = ((*random >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        (mean_us > 0).then(|| Duration::from_secs_f64(-part.ln() * mean_us as f64 * 1e-6))
    }
}

/// One message through the spool, as a session does it.
pub async fn commit(spool: &DiskSpool, content: &[u8]) -> Result<QueueId> {
    let now = jiff::Timestamp::now().as_microsecond() as u64;
    let mut draft = spool.begin(now);
    spool.append(&mut draft, content).await.map_err(|error| anyhow!("cannot append: {error}"))?;
    let stored = spool.commit(draft, envelope(now), ContentFlags::default()).await;
    Ok(stored.map_err(|error| anyhow!("cannot commit: {error}"))?.id)
}

fn envelope(now_micros: u64) -> Arc<Envelope> {
    Arc::new(Envelope {
        sender: "source@source.example".into(),
        recipients: vec![Recipient::new("recipient@sink.example")],
        body: Body::SevenBit,
        arrived_micros: now_micros,
        listener: "inside".into(),
        helo: "source.example".into(),
        client: "192.0.2.1".into(),
        ..Envelope::default()
    })
}

pub fn delivered() -> Vec<Outcome> {
    vec![Outcome {
        recipient: 0,
        kind: OutcomeKind::Delivered,
        attempts: 1,
        notified: false,
        at_micros: 1_795_000_000_000_000,
        text: String::new(),
    }]
}

/// CPU time of this thread, from the scheduler's own account.
pub fn thread_cpu() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?))
}
