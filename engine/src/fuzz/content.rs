//! The decoder of content against its twin, whole and in pieces. The first octet says where it is cut, the
//! second how long lines may be.

use super::cuts::Cuts;
use crate::smtp::content::{Decoder, Findings, Piece, twin};

pub fn check(input: &[u8]) {
    let [way, line_octets_max, stream @ ..] = input else { return };
    let line_octets_max = usize::from(*line_octets_max);
    let expected = twin::decode(stream, line_octets_max);
    for pieces in [vec![stream], Cuts::new(*way).pieces(stream).collect()] {
        let (content, end, findings) = decode(&pieces, line_octets_max);
        match &expected {
            Some(expected) => {
                assert_eq!(end, Some(expected.end));
                assert_eq!(content, expected.content);
                assert_eq!(findings, expected.findings);
            }
            None => assert_eq!(end, None),
        }
    }
}

/// Content, octets up to the end, findings.
fn decode(pieces: &[&[u8]], line_octets_max: usize) -> (Vec<u8>, Option<usize>, Findings) {
    let mut decoder = Decoder::new(line_octets_max);
    let (mut content, mut buffer, mut used) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while !buffer.is_empty() {
            let (consumed, piece) = decoder.decode(&buffer);
            used += consumed;
            match &piece {
                Piece::Content(range) => {
                    assert!(!range.is_empty() && range.end == consumed);
                    content.extend_from_slice(&buffer[range.clone()]);
                }
                Piece::End => return (content, Some(used), *decoder.findings()),
                Piece::More => assert!(buffer.len() - consumed <= 1),
            }
            buffer.drain(..consumed);
            if piece == Piece::More {
                break;
            }
        }
    }
    (content, None, *decoder.findings())
}
