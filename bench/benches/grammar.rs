//! What the pure SMTP grammar costs: command lines, the search for the end of data, dot-stuffing; the first two
//! beside the published crate smtp-proto.
//!
//! One core, everything in cache, no socket: the smallest price of these steps, not their share in a relay.
//! The two read the same octets and do not do the same: what this relay's decoder finds out beside the end
//! (bare CR and LF, NUL, eighth bit, long lines, Received fields) smtp-proto leaves to others, and it copies the
//! content, which this relay's decoder does not.

mod corpus;

use corpus::{LINES, contents, decode, decode_smtp_proto, read_lines, read_lines_smtp_proto, wire};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sluice::smtp::content::{Decoder, Framing, Piece, Rules};
use sluice::smtp::parse_command;
use sluice::smtp::stuffing::Stuffer;
use std::hint::black_box;

const LINE_OCTETS_MAX: usize = 998;
/// What one read brings at most.
const PIECE_OCTETS: usize = 16 * 1024;

fn commands(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("command");
    assert_eq!(read_lines(LINES), LINES.len());
    // smtp-proto does not take all of them; both read what it takes.
    let both: Vec<&str> = LINES.iter().copied().filter(|line| read_lines_smtp_proto(&[line]) == 1).collect();
    println!("{} of {} lines are read by both", both.len(), LINES.len());
    group.throughput(Throughput::Bytes(both.iter().map(|line| line.len() as u64).sum()));
    group.bench_function("all", |bencher| bencher.iter(|| read_lines(&both)));
    group.bench_function("all, smtp-proto", |bencher| bencher.iter(|| read_lines_smtp_proto(&both)));
    let lines: [(&str, &[u8]); 6] = [
        ("EHLO", b"EHLO mail.source.example"),
        ("MAIL", b"MAIL FROM:<source@source.example> SIZE=4096 BODY=8BITMIME"),
        ("RCPT", b"RCPT TO:<recipient@sink.example>"),
        ("RCPT quoted", b"RCPT TO:<\"first last\"@[192.0.2.1]>"),
        ("DATA", b"DATA"),
        ("unknown", b"XYZZY and more"),
    ];
    for (name, line) in lines {
        group.throughput(Throughput::Bytes(line.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| parse_command(black_box(line)).is_ok()));
    }
    group.finish();
}

fn content(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("content");
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

/// 64 KiB of text by BDAT, in one chunk and pieces as reads bring them; and what repair costs by DATA.
fn rules(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rules");
    let text = wire(65536, false);
    group.throughput(Throughput::Bytes(text.len() as u64));
    for (name, framing, rules) in [
        ("DATA, repair", Framing::Dots, Rules::Repair),
        ("BDAT", Framing::Counted, Rules::Strict),
        ("BDAT, binary", Framing::Counted, Rules::Binary),
    ] {
        group.bench_function(name, |bencher| bencher.iter(|| read_by(framing, rules, black_box(&text))));
    }
    group.finish();
}

fn read_by(framing: Framing, rules: Rules, text: &[u8]) -> usize {
    let mut decoder = Decoder::with(framing, rules, LINE_OCTETS_MAX);
    let mut octets = 0;
    for mut piece in text.chunks(PIECE_OCTETS) {
        while !piece.is_empty() {
            let (consumed, found) = decoder.decode(piece);
            piece = &piece[consumed..];
            match found {
                Piece::Content(range) => octets += range.len(),
                Piece::Insert(inserted) => octets += inserted.len(),
                Piece::More | Piece::End => break,
            }
        }
    }
    octets
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

criterion_group!(benches, commands, content, rules, stuffing);
criterion_main!(benches);
