//! Chunks against content that comes by DATA, and against a slow and obvious twin.

use super::*;
use crate::smtp::content::{Findings, Framing, Rules};
use crate::smtp::stuffing::Stuffer;

const LINE_OCTETS_MAX: usize = 5;

#[test]
fn sizes_are_read_to_the_last_digit() {
    let chunk = |octets, last| Ok(Chunk { octets, last });
    for (argument, expected) in [
        (&b"0"[..], chunk(0, false)),
        (b"1000 LAST", chunk(1000, true)),
        (b"5   last", chunk(5, true)),
        (b"18446744073709551615", chunk(u64::MAX, false)),
        (b"18446744073709551616", chunk(u64::MAX, false)),
        (b"99999999999999999999 LAST", chunk(u64::MAX, true)),
        (b"100000000000000000000", Err(ChunkFault::Size)),
        (b"", Err(ChunkFault::Size)),
        (b"LAST", Err(ChunkFault::Size)),
        (b"LAST 5", Err(ChunkFault::Size)),
        (b"5LAST", Err(ChunkFault::Size)),
        (b"1.5", Err(ChunkFault::Size)),
        ("\u{661}".as_bytes(), Err(ChunkFault::Size)),
        (b"5 LASTx", Err(ChunkFault::Marker(5))),
        (b"5 5", Err(ChunkFault::Marker(5))),
        (b"99999999999999999999 x", Err(ChunkFault::Marker(u64::MAX))),
    ] {
        assert_eq!(Chunk::parse(argument), expected, "{}", argument.escape_ascii());
    }
}

/// Reads `content` as chunks that end at `chunks`, which come in pieces that end at `cuts`.
fn decode(rules: Rules, content: &[u8], chunks: &[usize], cuts: &[usize]) -> (Vec<u8>, Findings) {
    let mut decoder = Decoder::with(Framing::Counted, rules, LINE_OCTETS_MAX);
    let (mut out, mut at) = (Vec::new(), 0);
    for end in chunks.iter().copied().chain([content.len()]) {
        let mut chunk = Chunk { octets: (end - at) as u64, last: end == content.len() };
        while chunk.octets > 0 {
            // Behind the piece stands what no chunk may take.
            let cut = cuts.iter().copied().find(|cut| *cut > at).unwrap_or(content.len());
            let (consumed, piece) = chunk.decode(&mut decoder, &content[at..cut]);
            match piece {
                Piece::Content(range) => out.extend_from_slice(&content[at..][range]),
                Piece::Insert(octets) => out.extend_from_slice(octets),
                Piece::More => assert!(consumed > 0),
                Piece::End => panic!("a chunk has no end of its own"),
            }
            at += consumed;
        }
        assert_eq!(at, end);
    }
    while let Some(octets) = decoder.finish() {
        out.extend_from_slice(octets);
    }
    (out, *decoder.findings())
}

fn is_bare(content: &[u8], at: usize) -> bool {
    match content[at] {
        b'\r' => content.get(at + 1) != Some(&b'\n'),
        b'\n' => at == 0 || content[at - 1] != b'\r',
        _ => false,
    }
}

/// The twin: what is stored of a whole message, and whether it has bare CR, bare LF, NUL.
fn twin(rules: Rules, content: &[u8]) -> (Vec<u8>, [bool; 3]) {
    let mut out = Vec::new();
    for (at, octet) in content.iter().enumerate() {
        match octet {
            0 if rules == Rules::Repair => {}
            b'\r' | b'\n' if rules == Rules::Repair && is_bare(content, at) => out.extend(b"\r\n"),
            other => out.push(*other),
        }
    }
    match &out[..] {
        [] => {}
        [.., b'\r'] => out.push(b'\n'),
        // A bare LF stays where nothing is repaired, and the message is refused.
        [.., b'\r', b'\n'] => {}
        _ => out.extend(b"\r\n"),
    }
    let bare = |octet| (0..content.len()).any(|at| content[at] == octet && is_bare(content, at));
    (out, [bare(b'\r'), bare(b'\n'), content.contains(&0)])
}

/// What DATA makes of a content.
fn by_data(content: &[u8]) -> (Vec<u8>, Findings) {
    let mut stuffer = Stuffer::new();
    let mut stream: Vec<u8> = stuffer.stuff(content).flat_map(|range| content[range].to_vec()).collect();
    stream.extend_from_slice(stuffer.finish());
    let mut decoder = Decoder::new(LINE_OCTETS_MAX);
    let (mut out, mut at) = (Vec::new(), 0);
    loop {
        match decoder.decode(&stream[at..]) {
            (_, Piece::End) => return (out, *decoder.findings()),
            (consumed, Piece::Content(range)) => {
                out.extend_from_slice(&stream[at..][range]);
                at += consumed;
            }
            (consumed, _) => at += consumed,
        }
    }
}

/// Content in up to two chunks, whole, octet by octet and cut anywhere; RFC 3030 section 2.
#[test]
fn all_sequences_of_six_octets_agree_with_the_twin_and_with_data() {
    let alphabet = b"\r\n.\0x";
    for length in 0..=6u32 {
        for number in 0..alphabet.len().pow(length) {
            let content: Vec<u8> = (0..length)
                .map(|place| alphabet[number / alphabet.len().pow(place) % alphabet.len()])
                .collect();
            let every_octet: Vec<usize> = (1..content.len()).collect();
            let middle = [number % (content.len() + 1)];
            for rules in [Rules::Strict, Rules::Repair] {
                let (stored, [bare_cr, bare_lf, nul]) = twin(rules, &content);
                for (chunks, cuts) in [
                    (&[][..], &[][..]),
                    (&[], &every_octet),
                    (&every_octet, &[]),
                    (&middle, &[]),
                    (&middle, &every_octet),
                    (&[], &middle),
                ] {
                    let shown = || format!("{} {rules:?} {chunks:?} {cuts:?}", content.escape_ascii());
                    let (out, findings) = decode(rules, &content, chunks, cuts);
                    assert_eq!(out, stored, "{}", shown());
                    let found = [findings.bare_cr, findings.bare_lf, findings.nul];
                    assert_eq!(found, [bare_cr, bare_lf, nul], "{}", shown());
                    assert_eq!(findings.octets, out.len() as u64, "{}", shown());
                    if rules == Rules::Repair || !(bare_cr || bare_lf) {
                        let (same, same_findings) = by_data(&out);
                        assert_eq!(same, out, "{}", shown());
                        let nul = findings.nul;
                        assert_eq!(
                            Findings { bare_cr: false, bare_lf: false, ..findings },
                            Findings { nul, ..same_findings },
                            "{}",
                            shown()
                        );
                    }
                }
            }
        }
    }
}

/// RFC 3030 section 3: behind the header section nothing is changed, looked at or added.
#[test]
fn binary_content_passes_as_it_is() {
    let alphabet = b"\r\n.\0x";
    for number in 0..alphabet.len().pow(5) {
        let mut content = b"A: b\r\n\r\n".to_vec();
        content.extend((0..5).map(|place| alphabet[number / alphabet.len().pow(place) % alphabet.len()]));
        let every_octet: Vec<usize> = (1..content.len()).collect();
        for cuts in [&[][..], &every_octet, &[number % content.len()]] {
            let (out, findings) = decode(Rules::Binary, &content, &[], cuts);
            assert_eq!(out, content);
            let nothing = Findings { octets: 13, header_octets: Some(8), ..Findings::default() };
            assert_eq!(findings, nothing);
        }
    }
}
