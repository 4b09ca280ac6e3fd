//! What the spool costs without a device: records written, checksummed, and found again at a start.
//!
//! The codec is not public, so it is measured from outside, on storage in memory: one message is begun, appended,
//! committed in a batch of its own and finished by an outcome; a start reads every record of a spool that is full
//! of waiting messages. Copies and the index are in the figures, a disk is not.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_lite::future::{block_on, or};
use sluice_queue::{
    Body, ContentFlags, Envelope, MemoryStorage, Options, Outcome, OutcomeKind, QueueId, Recipient, Spool,
    SpoolNumber,
};
use std::hint::black_box;
use std::sync::Arc;

const NOW_MICROS: u64 = 1_795_000_000_000_000;

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
        text: "250 2.0.0 ok".into(),
    }]
}

fn open(storage: MemoryStorage) -> Spool<MemoryStorage> {
    let number = SpoolNumber::new(0).expect("a valid number");
    block_on(Spool::open(storage, number, Options::default())).expect("an intact spool").0
}

/// Runs the spool's writer beside the work.
fn with_writer<T>(spool: &Spool<MemoryStorage>, work: impl Future<Output = T>) -> T {
    block_on(or(async { Some(work.await) }, async {
        spool.writer().await;
        None
    }))
    .expect("the writer goes on")
}

async fn accept(spool: &Spool<MemoryStorage>, content: &[u8]) -> QueueId {
    let mut draft = spool.begin(NOW_MICROS);
    spool.append(&mut draft, content).await.expect("memory takes it");
    spool.commit(draft, envelope(), ContentFlags::default()).await.expect("memory takes it").id
}

fn message(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("message in and out");
    for size in [1024, 4096, 65536] {
        let (spool, content) = (open(MemoryStorage::new()), vec![b'x'; size]);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                with_writer(&spool, async {
                    let id = accept(&spool, black_box(&content)).await;
                    spool.record(id, delivered());
                });
            });
        });
    }
    group.finish();
}

fn start(criterion: &mut Criterion) {
    const MESSAGES: usize = 2_000;
    let storage = MemoryStorage::new();
    let spool = open(storage.clone());
    let content = vec![b'x'; 4096];
    with_writer(&spool, async {
        for _ in 0..MESSAGES {
            accept(&spool, &content).await;
        }
    });
    drop(spool);
    let mut group = criterion.benchmark_group("start");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    group.sample_size(20);
    group.bench_function(BenchmarkId::new("waiting messages", MESSAGES), |bencher| {
        bencher.iter_batched(
            || storage.snapshot(),
            |storage| assert_eq!(open(storage).messages(), MESSAGES),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn queue_id(criterion: &mut Criterion) {
    let id = open(MemoryStorage::new()).begin(NOW_MICROS).id();
    let text = id.to_string();
    criterion.bench_function("queue id to text", |bencher| bencher.iter(|| black_box(id).to_string()));
    criterion.bench_function("queue id from text", |bencher| {
        bencher.iter(|| black_box(&text).parse::<QueueId>().is_ok());
    });
}

criterion_group!(benches, message, start, queue_id);
criterion_main!(benches);
