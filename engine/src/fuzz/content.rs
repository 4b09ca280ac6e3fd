//! The decoder of content against its twin, whole and in pieces.
//!
//! The first octet says where the stream is cut, and in its two highest bits how it is read: to end-of-data by
//! the strict rules or with repair, or counted off by either. The second says how long lines may be.

use super::cuts::Cuts;
use crate::smtp::content::{Decoder, Findings, Framing, Piece, Rules, twin};

pub fn check(input: &[u8]) {
    let [way, line_octets_max, stream @ ..] = input else { return };
    let line_octets_max = usize::from(*line_octets_max);
    let rules = if way & 64 == 0 { Rules::Strict } else { Rules::Repair };
    let framing = if way & 128 == 0 { Framing::Dots } else { Framing::Counted };
    let expected = match (framing, rules) {
        (Framing::Dots, Rules::Strict) => twin::decode(stream, line_octets_max),
        (Framing::Dots, _) => twin::decode_repairing(stream, line_octets_max),
        (Framing::Counted, rules) => {
            let (content, findings) = twin::counted(stream, rules == Rules::Repair, line_octets_max);
            Some(twin::Decoded { content, end: stream.len(), findings })
        }
    };
    for pieces in [vec![stream], Cuts::new(way & 63).pieces(stream).collect()] {
        let decoded = decode(Decoder::with(framing, rules, line_octets_max), framing, &pieces);
        match &expected {
            Some(twin::Decoded { content, end, findings }) => {
                assert_eq!(decoded, (content.clone(), Some(*end), *findings));
            }
            None => assert_eq!(decoded.1, None),
        }
    }
}

/// Content, octets up to the end, findings.
fn decode(mut decoder: Decoder, framing: Framing, pieces: &[&[u8]]) -> (Vec<u8>, Option<usize>, Findings) {
    let (mut content, mut buffer, mut used) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while !buffer.is_empty() {
            let (consumed, piece) = decoder.decode(&buffer);
            used += consumed;
            match &piece {
                Piece::Content(range) => {
                    assert!(!range.is_empty() && range.end <= consumed);
                    content.extend_from_slice(&buffer[range.clone()]);
                }
                Piece::Insert(octets) => content.extend_from_slice(octets),
                Piece::End => return (content, Some(used), *decoder.findings()),
                Piece::More => assert!(buffer.len() - consumed <= 1),
            }
            buffer.drain(..consumed);
            if piece == Piece::More && consumed == 0 {
                break;
            }
        }
    }
    if framing == Framing::Dots {
        return (content, None, *decoder.findings());
    }
    while let Some(octets) = decoder.finish() {
        content.extend_from_slice(octets);
    }
    (content, Some(used), *decoder.findings())
}
