//! What the pure SMTP grammar costs beside the published crate smtp-proto, on the same octets.
//!
//! One core, everything in cache, no socket. The two do not do the same: what this relay's decoder finds out
//! beside the end (bare CR and LF, NUL, eighth bit, long lines, Received fields) smtp-proto leaves to others, and
//! it copies the content, which this relay's decoder does not.

mod corpus;

use corpus::{LINES, contents, decode, decode_smtp_proto, read_lines, read_lines_smtp_proto};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

fn commands(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("command lines");
    assert_eq!((read_lines(LINES), read_lines_smtp_proto(LINES)), (LINES.len(), LINES.len()));
    group.throughput(Throughput::Bytes(LINES.iter().map(|line| line.len() as u64).sum()));
    group.bench_function("all", |bencher| bencher.iter(|| read_lines(LINES)));
    group.bench_function("all, smtp-proto", |bencher| bencher.iter(|| read_lines_smtp_proto(LINES)));
    group.finish();
}

fn content(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("content of a message");
    let mut message = Vec::with_capacity(1 << 17);
    for (name, wire) in contents() {
        assert_eq!(decode(&wire), decode_smtp_proto(&wire, &mut message), "{name}");
        group.throughput(Throughput::Bytes(wire.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| decode(black_box(&wire))));
        group.bench_function(format!("{name}, smtp-proto"), |bencher| {
            bencher.iter(|| decode_smtp_proto(black_box(&wire), &mut message))
        });
    }
    group.finish();
}

criterion_group!(benches, commands, content);
criterion_main!(benches);
