//! What the pure SMTP grammar costs: command lines, the search for the end of data, dot-stuffing.
//!
//! One core, everything in cache, no socket: the smallest price of these steps, not their share in a relay.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sluice::smtp::chunks::Chunk;
use sluice::smtp::content::{Decoder, Framing, Piece, Rules};
use sluice::smtp::parse_command;
use sluice::smtp::stuffing::Stuffer;
use sluice_bench::message::{Composer, Recipe};
use std::hint::black_box;

const LINE_OCTETS_MAX: usize = 998;
/// What one read brings at most.
const PIECE_OCTETS: usize = 16 * 1024;

/// A message as it goes over the wire, with the final dot.
fn wire(size: usize, dots: bool) -> Vec<u8> {
    let recipe = Recipe {
        run: 1,
        from: "source@source.example".into(),
        to: "recipient@sink.example".into(),
        recipients: 1,
        size,
        dots,
        date: "Sun, 22 Nov 2026 00:00:00 +0000".into(),
    };
    let mut wire = Vec::new();
    Composer::new(recipe).compose(1, 0, &mut wire);
    wire
}

fn commands(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("command");
    let lines: [(&str, &[u8]); 6] = [
        ("EHLO", b"EHLO mail.source.example"),
        ("MAIL", b"MAIL FROM:<source@source.example> SIZE=4096 BODY=8BITMIME"),
        ("RCPT", b"RCPT TO:<recipient@sink.example>"),
        ("RCPT quoted", b"RCPT TO:<\"first last\"@[192.0.2.1]>"),
        ("DATA", b"DATA"),
        ("unknown", b"XYZZY and more"),
    ];
    for (name, line) in lines {
        group.bench_function(name, |bencher| bencher.iter(|| parse_command(black_box(line)).is_ok()));
    }
    group.finish();
}

/// Reads content in pieces as a session does; returns its octets, and panics if there is no end.
fn decode(wire: &[u8], rules: Rules) -> usize {
    let mut decoder = Decoder::with(Framing::Dots, rules, LINE_OCTETS_MAX);
    let (mut start, mut octets) = (0, 0);
    let mut end = PIECE_OCTETS.min(wire.len());
    loop {
        let (consumed, piece) = decoder.decode(&wire[start..end]);
        start += consumed;
        match piece {
            Piece::Content(range) => octets += range.len(),
            Piece::Insert(inserted) => octets += inserted.len(),
            Piece::End => return octets,
            Piece::More => {
                assert!(end < wire.len(), "the message has an end of data");
                end = (end + PIECE_OCTETS).min(wire.len());
            }
        }
        if start == end {
            end = (end + PIECE_OCTETS).min(wire.len());
        }
    }
}

/// The same by BDAT, in one chunk.
fn decode_chunk(content: &[u8], rules: Rules) -> usize {
    let mut decoder = Decoder::with(Framing::Counted, rules, LINE_OCTETS_MAX);
    let mut chunk = Chunk { octets: content.len() as u64, last: true };
    let mut octets = 0;
    for piece in content.chunks(PIECE_OCTETS) {
        let mut start = 0;
        while start < piece.len() {
            let (consumed, found) = chunk.decode(&mut decoder, &piece[start..]);
            start += consumed;
            octets += match found {
                Piece::Content(range) => range.len(),
                Piece::Insert(inserted) => inserted.len(),
                Piece::More | Piece::End => 0,
            };
        }
    }
    octets
}

fn content(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("content");
    for (name, size, dots) in [("text", 4096, false), ("text", 65536, false), ("dots", 65536, true)] {
        let wire = wire(size, dots);
        assert_eq!(decode(&wire, Rules::Strict), size);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new(name, size), |bencher| {
            bencher.iter(|| decode(black_box(&wire), Rules::Strict))
        });
        group.bench_function(BenchmarkId::new(format!("{name} repair"), size), |bencher| {
            bencher.iter(|| decode(black_box(&wire), Rules::Repair))
        });
        for (kind, rules) in [("chunk", Rules::Strict), ("binary chunk", Rules::Binary)] {
            group.bench_function(BenchmarkId::new(format!("{name} {kind}"), size), |bencher| {
                bencher.iter(|| decode_chunk(black_box(&wire), rules))
            });
        }
    }
    group.finish();
}

fn stuffing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stuffing");
    for (name, dots) in [("text", false), ("dots", true)] {
        let content = wire(65536, dots);
        let mut out = Vec::with_capacity(content.len() * 2);
        group.throughput(Throughput::Bytes(content.len() as u64));
        group.bench_function(BenchmarkId::new(name, content.len()), |bencher| {
            bencher.iter(|| {
                out.clear();
                let mut stuffer = Stuffer::new();
                for range in stuffer.stuff(black_box(&content)) {
                    out.extend_from_slice(&content[range]);
                }
                out.extend_from_slice(stuffer.finish());
                out.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, commands, content, stuffing);
criterion_main!(benches);
