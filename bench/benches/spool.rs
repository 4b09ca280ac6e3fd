//! The spool's own steps: append, commit, recover, compact, on storage in memory; commit on the disk too.
//!
//! In memory a write costs a copy, so the figures are the program's own share. The disk is that of the directory for
//! temporary files; what it can do at most, `sluice-bench spool` measures beside it.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_lite::future::{block_on, or, yield_now};
use glommio::{LocalExecutorBuilder, Placement};
use sluice_queue::{
    Body, ContentFlags, Envelope, GlommioStorage, MemoryStorage, Options, Outcome, OutcomeKind, QueueId,
    Recipient, Spool, SpoolNumber, Storage,
};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

const NOW_MICROS: u64 = 1_795_000_000_000_000;
const SIZE: usize = 4096;

fn envelope() -> Arc<Envelope> {
    Arc::new(Envelope {
        sender: "source@source.example".into(),
        recipients: vec![Recipient::new("recipient@sink.example")],
        body: Body::SevenBit,
        arrived_micros: NOW_MICROS,
        listener: "inside".into(),
        helo: "source.example".into(),
        client: "192.0.2.1".into(),
        ..Envelope::default()
    })
}

fn delivered() -> Vec<Outcome> {
    vec![Outcome {
        recipient: 0,
        kind: OutcomeKind::Delivered,
        attempts: 1,
        notified: false,
        at_micros: NOW_MICROS,
        text: String::new(),
    }]
}

async fn open<S: Storage>(storage: S, options: Options) -> Spool<S> {
    let number = SpoolNumber::new(0).expect("a valid number");
    Spool::open(storage, number, options).await.expect("an intact spool").0
}

/// Runs the spool's writer beside the work.
fn with_writer<S: Storage, T>(spool: &Spool<S>, work: impl Future<Output = T>) -> T {
    block_on(or(async { Some(work.await) }, async {
        spool.writer().await;
        None
    }))
    .expect("the writer goes on")
}

async fn accept<S: Storage>(spool: &Spool<S>, content: &[u8]) -> QueueId {
    let mut draft = spool.begin(NOW_MICROS);
    spool.append(&mut draft, content).await.expect("there is room");
    spool.commit(draft, envelope(), ContentFlags::default()).await.expect("there is room").id
}

/// Segments so small that a few thousand messages fill many.
fn small() -> Options {
    Options {
        segment_bytes: 1 << 20,
        extent_bytes_max: 64 << 10,
        batch_bytes_max: 64 << 10,
        ..Options::default()
    }
}

/// As a session gives it to the spool: in pieces of a socket's buffer, up to the whole message.
fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    for size in [SIZE, 64 << 10, 1 << 20] {
        let spool = block_on(open(MemoryStorage::new(), Options::default()));
        let content = vec![b'x'; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                with_writer(&spool, async {
                    let mut draft = spool.begin(NOW_MICROS);
                    for piece in black_box(&content).chunks(16 << 10) {
                        spool.append(&mut draft, piece).await.expect("memory takes it");
                    }
                    draft.bytes()
                })
            });
        });
    }
    group.finish();
}

fn commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commit");
    let content = vec![b'x'; SIZE];
    for together in [1usize, 20, 100] {
        let spool = block_on(open(MemoryStorage::new(), Options::default()));
        group.throughput(Throughput::Elements(together as u64));
        group.bench_function(BenchmarkId::new("in memory, at a time", together), |bencher| {
            bencher.iter(|| with_writer(&spool, accept_together(&spool, &content, together)));
        });
    }
    group.throughput(Throughput::Elements(1));
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    group.bench_function("on disk", |bencher| bencher.iter_custom(commits_on_disk));
    group.finish();
}

async fn accept_together<S: Storage>(spool: &Spool<S>, content: &[u8], count: usize) {
    let mut commits: Vec<_> = (0..count).map(|_| Box::pin(accept(spool, content))).collect();
    while !commits.is_empty() {
        let mut waiting = Vec::new();
        for mut commit in commits {
            match futures_lite::future::poll_once(&mut commit).await {
                Some(id) => spool.record(id, delivered()),
                None => waiting.push(commit),
            }
        }
        commits = waiting;
        yield_now().await;
    }
}

fn commits_on_disk(count: u64) -> Duration {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("shard-0000");
    let executor = LocalExecutorBuilder::new(Placement::Unbound).make().expect("an executor");
    executor.run(async move {
        let spool = open(GlommioStorage::new(path).expect("a spool directory"), Options::default()).await;
        let writer = spool.clone();
        glommio::spawn_local(async move { writer.writer().await }).detach();
        let content = vec![b'x'; SIZE];
        accept(&spool, &content).await;
        let began = Instant::now();
        for _ in 0..count {
            let id = accept(&spool, &content).await;
            spool.record(id, delivered());
        }
        let took = began.elapsed();
        spool.close().await.expect("it can be closed");
        took
    })
}

/// A spool in which one message of `waiting_one_in` waits; sealed.
fn filled(messages: usize, waiting_one_in: usize) -> MemoryStorage {
    let storage = MemoryStorage::new();
    let spool = block_on(open(storage.clone(), small()));
    let content = vec![b'x'; SIZE];
    with_writer(&spool, async {
        let mut ids = Vec::new();
        for _ in 0..messages {
            ids.push(accept(&spool, &content).await);
        }
        for (at, id) in ids.into_iter().enumerate() {
            if at % waiting_one_in != 0 {
                spool.record(id, delivered());
            }
        }
        spool.sync().await.expect("memory takes it");
    });
    storage
}

fn recover(criterion: &mut Criterion) {
    const MESSAGES: usize = 4_000;
    let mut group = criterion.benchmark_group("recover");
    group.throughput(Throughput::Elements(MESSAGES as u64)).sample_size(10);
    for one_in in [1, 10] {
        let storage = filled(MESSAGES, one_in);
        group.bench_function(BenchmarkId::new("one of so many waits", one_in), |bencher| {
            bencher.iter_batched(
                || storage.snapshot(),
                |storage| assert_eq!(block_on(open(storage, small())).messages(), MESSAGES / one_in),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// Until disk use is within its bound.
fn compact(criterion: &mut Criterion) {
    const MESSAGES: usize = 4_000;
    let storage = filled(MESSAGES, 20);
    let mut group = criterion.benchmark_group("compact");
    group.throughput(Throughput::Elements(MESSAGES as u64 / 20)).sample_size(10);
    group.bench_function("a twentieth waits", |bencher| {
        bencher.iter_batched(
            || block_on(open(storage.snapshot(), small())),
            |spool| {
                let moved = with_writer(&spool, async {
                    while spool.compact_step().await.expect("memory takes it").more {}
                    spool.stats().moved
                });
                assert!(moved > 0, "nothing had to be moved");
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, append, commit, recover, compact);
criterion_main!(benches);
