//! The decoder against a slow and obvious twin, over one table and over all short sequences.

use super::*;

const LINE_OCTETS_MAX: usize = 5;

/// What a decoder made of a whole stream.
#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    content: Vec<u8>,
    /// Octets of the stream up to and including end-of-data.
    end: Option<usize>,
    findings: Findings,
}

/// What the twin makes of it. Only for streams that end.
fn twin(stream: &[u8]) -> Option<Decoded> {
    let twin::Decoded { content, end, findings } = twin::decode(stream, LINE_OCTETS_MAX)?;
    Some(Decoded { content, end: Some(end), findings })
}

/// Feeds the stream in pieces that end at `cuts`, as a session does: what is left comes again.
fn decode(stream: &[u8], cuts: &[usize]) -> Decoded {
    decode_by(Rules::Strict, stream, cuts)
}

fn decode_by(rules: Rules, stream: &[u8], cuts: &[usize]) -> Decoded {
    let mut decoder = Decoder::with(Framing::Dots, rules, LINE_OCTETS_MAX);
    let mut content = Vec::new();
    let (mut at, mut end) = (0, None);
    'pieces: for cut in cuts.iter().copied().chain([stream.len()]) {
        while at < cut {
            let (consumed, piece) = decoder.decode(&stream[at..cut]);
            let more = piece == Piece::More && at + consumed + 1 >= cut;
            match piece {
                Piece::Content(range) => {
                    assert!(!range.is_empty() && (range.end == consumed || rules == Rules::Repair));
                    content.extend_from_slice(&stream[at..][range]);
                }
                Piece::Insert(octets) => content.extend_from_slice(octets),
                Piece::End => end = Some(at + consumed),
                Piece::More => assert!(cut - at - consumed <= 1),
            }
            at += consumed;
            if end.is_some() {
                break 'pieces;
            }
            if more {
                break;
            }
        }
    }
    Decoded { content, end, findings: *decoder.findings() }
}

fn each_split(stream: &[u8], mut check: impl FnMut(Decoded, &[usize])) {
    check(decode(stream, &[]), &[]);
    let every_byte: Vec<usize> = (1..stream.len()).collect();
    check(decode(stream, &every_byte), &every_byte);
    for cut in 1..stream.len() {
        check(decode(stream, &[cut]), &[cut]);
    }
}

fn agrees_with_the_twin(stream: &[u8]) {
    let expected = twin(stream);
    each_split(stream, |decoded, cuts| match &expected {
        Some(expected) => assert_eq!(&decoded, expected, "{} cut at {cuts:?}", stream.escape_ascii()),
        None => assert_eq!(decoded.end, None, "{} cut at {cuts:?}", stream.escape_ascii()),
    });
}

/// RFC 5321 sections 4.1.1.4 and 4.5.2.
#[test]
fn content_and_its_end_are_what_the_rfc_says() {
    for (stream, content, rest) in [
        (&b".\r\n"[..], &b""[..], &b""[..]),
        (b".\r\nQUIT\r\n", b"", b"QUIT\r\n"),
        (b"x\r\n.\r\n", b"x\r\n", b""),
        (b"\r\n.\r\n", b"\r\n", b""),
        (b"\r\n\r\n.\r\n.\r\n", b"\r\n\r\n", b".\r\n"),
        (b"..\r\n.\r\n", b".\r\n", b""),
        (b"...\r\n..x\r\n.\r\n", b"..\r\n.x\r\n", b""),
        (b".x\r\n.\r\n", b"x\r\n", b""),
        (b"a.b\r\n.\r\n", b"a.b\r\n", b""),
        (b"a\r\n..\r\n.\r\n.\r\n", b"a\r\n.\r\n", b".\r\n"),
        // None of these is an end of data.
        (b"a\n.\n\r\n.\r\n", b"a\n.\n\r\n", b""),
        (b"a\n.\r\n\r\n.\r\n", b"a\n.\r\n\r\n", b""),
        (b"a\r.\r\r\n.\r\n", b"a\r.\r\r\n", b""),
        (b"a\r\n.\n\r\n.\r\n", b"a\r\n\n\r\n", b""),
        (b"a\r\n.\r\r\n.\r\n", b"a\r\n\r\r\n", b""),
        (b"a\r\n\x00.\r\n.\r\n", b"a\r\n\x00.\r\n", b""),
        (b"a\r\n.\x00\r\n.\r\n", b"a\r\n\x00\r\n", b""),
    ] {
        let decoded = decode(stream, &[]);
        assert_eq!(decoded.content, content, "{}", stream.escape_ascii());
        assert_eq!(&stream[decoded.end.expect("the stream ends")..], rest, "{}", stream.escape_ascii());
        agrees_with_the_twin(stream);
    }
}

#[test]
fn all_sequences_of_seven_octets_agree_with_the_twin() {
    let alphabet = b"\r\n.\0x";
    let mut stream = Vec::new();
    for octets in 0..=7u32 {
        for number in 0..alphabet.len().pow(octets) {
            stream.clear();
            stream.extend(
                (0..octets).map(|place| alphabet[number / alphabet.len().pow(place) % alphabet.len()]),
            );
            // As it is, and behind a line; each time with an end, so that the content is compared.
            stream.extend_from_slice(b"\r\n.\r\n");
            let expected = twin(&stream);
            let every_byte: Vec<usize> = (1..stream.len()).collect();
            let cut = [1 + number % (stream.len() - 1)];
            for cuts in [&[][..], &every_byte, &cut] {
                assert_eq!(Some(decode(&stream, cuts)), expected, "{} {cuts:?}", stream.escape_ascii());
            }
        }
    }
}

#[test]
fn findings_agree_with_the_twin() {
    for stream in [
        &b"Received: x\r\nrEcEiVeD: y\r\n folded\r\nReceived-SPF: no\r\nX: received:\r\n\r\nReceived: z\r\n.\r\n"[..],
        b"Received:\r\n.\r\n",
        b"Received\r\n:\r\n.\r\n",
        b".Received:\r\n.\r\n",
        b" Received:\r\n.\r\n",
        b"Recei\rved:\r\n.\r\n",
        b"Recei\nved:\r\nReceived:\r\n.\r\n",
        b"x\nReceived:\r\n.\r\n",
        b"x\rReceived:\r\n.\r\n",
        b"\r\nReceived:\r\n.\r\n",
        b"\r\r\nReceived:\r\n\r\n.\r\n",
        b"12345\r\n.12345\r\n.\r\n",
        b"123456\r\n.\r\n",
        b".123456\r\n.\r\n",
        b"..2345\r\n.\r\n",
        b"..23456\r\n.\r\n",
        b"1234\r\r\n.\r\n",
        b"12345\r\r\n.\r\n",
        b"1234\n\r\n.\r\n",
        b"12345\n\r\n.\r\n",
        b"1\xff\r\n.\r\n",
        b"\x00\x80\r\n.\r\n",
    ] {
        agrees_with_the_twin(stream);
    }
}

#[test]
fn a_stream_without_an_end_never_ends() {
    for stream in [&b""[..], b".", b".\r", b"x\r\n.\r", b"x\r\n", b"x\n.\n", b"\r.\r", b"x.\r\n", b"..\r\n"] {
        agrees_with_the_twin(stream);
    }
}

/// RFC 5321 section 4.5.3.1.6: 998 octets and CRLF, the stuffing dot not counted.
#[test]
fn the_line_limit_holds_to_the_octet() {
    for (line, long) in
        [("x".repeat(998), false), ("x".repeat(999), true), (format!("..{}", "x".repeat(997)), false)]
    {
        let mut decoder = Decoder::new(998);
        decoder.decode(format!("{line}\r\n.\r\n").as_bytes());
        assert_eq!(decoder.findings().long_line, long, "{} octets", line.len());
    }
}

/// The twin of repair: the end is found first, the line endings are mended afterwards.
fn repaired(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, &octet) in content.iter().enumerate() {
        match octet {
            0 => {}
            b'\r' if content.get(at + 1) != Some(&b'\n') => out.extend(b"\r\n"),
            b'\n' if at == 0 || content[at - 1] != b'\r' => out.extend(b"\r\n"),
            other => out.push(other),
        }
    }
    out
}

/// Repair never moves the end of a message, and what it leaves is sound: the findings are those of the same
/// content sent properly.
#[test]
fn all_sequences_of_seven_octets_are_repaired_as_by_the_twin() {
    let alphabet = b"\r\n.\0x";
    let mut stream = Vec::new();
    for octets in 0..=7u32 {
        for number in 0..alphabet.len().pow(octets) {
            stream.clear();
            stream.extend(
                (0..octets).map(|place| alphabet[number / alphabet.len().pow(place) % alphabet.len()]),
            );
            stream.extend_from_slice(b"\r\n.\r\n");
            let strict = twin(&stream).expect("it ends");
            let content = repaired(&strict.content);
            let dots = content.starts_with(b".") || content.windows(3).any(|w| w == b"\r\n.");
            let every_byte: Vec<usize> = (1..stream.len()).collect();
            let cut = [1 + number % (stream.len() - 1)];
            for cuts in [&[][..], &every_byte, &cut] {
                let decoded = decode_by(Rules::Repair, &stream, cuts);
                let shown = || format!("{} {cuts:?}", stream.escape_ascii());
                assert_eq!((&decoded.content, decoded.end), (&content, strict.end), "{}", shown());
                let found = decoded.findings;
                assert_eq!(found.octets, content.len() as u64, "{}", shown());
                assert_eq!(found.dot_lines, dots, "{}", shown());
                let noted = [found.bare_cr, found.bare_lf, found.nul];
                let there = [strict.findings.bare_cr, strict.findings.bare_lf, strict.findings.nul];
                assert_eq!(noted, there, "{}", shown());
            }
        }
    }
}

/// What needs no repair is never copied: the ranges are those of the strict decoder.
#[test]
fn sound_content_passes_repair_in_whole_pieces() {
    let content = b"Subject: x\r\n\r\nline\r\nline\r\n";
    let mut decoder = Decoder::with(Framing::Dots, Rules::Repair, 998);
    assert_eq!(decoder.decode(content), (content.len(), Piece::Content(0..content.len())));
}
