//! What the benches of the grammar read, and how: the same octets for this relay's grammar and for the
//! published crate smtp-proto, on which another server is built.

use sluice::smtp::content::{Decoder, Piece};
use sluice::smtp::parse_command;
use sluice_bench::message::{Composer, Recipe};
use smtp_proto::Request;
use smtp_proto::request::receiver::DataReceiver;
use std::hint::black_box;

const LINE_OCTETS_MAX: usize = 998;
/// What one read brings at most.
const PIECE_OCTETS: usize = 16 * 1024;

/// Command lines as servers and clients of today send them, with CRLF.
pub const LINES: &[&str] = &[
    "EHLO mail-ed1-f41.google.example\r\n",
    "EHLO [IPv6:2001:db8:85a3::8a2e:370:7334]\r\n",
    "STARTTLS\r\n",
    "MAIL FROM:<> SIZE=3870\r\n",
    "MAIL FROM:<anna.schmidt@weingut-am-see.example> SIZE=48213 BODY=8BITMIME\r\n",
    "MAIL FROM:<bounces+8273645-3f0a-joe.miller=winery.example@em4711.newsletter.example> SIZE=90214\r\n",
    "MAIL FROM:<msprvs1=19801vJnLbZ8f=bounces-250123@bounces.shop.example> BODY=8BITMIME SIZE=31090\r\n",
    "RCPT TO:<joe@winery.example>\r\n",
    "RCPT TO:<office@winery.example>\r\n",
    "RCPT TO:<firstname.lastname+list@sub.department.winery.example>\r\n",
    "RCPT TO:<\"Joe Miller\"@winery.example>\r\n",
    "RCPT TO:<postmaster@[192.0.2.1]>\r\n",
    "DATA\r\n",
    "RSET\r\n",
    "NOOP\r\n",
    "QUIT\r\n",
];

/// Every line of the corpus; gives how many are commands.
pub fn read_lines(lines: &[&str]) -> usize {
    lines.iter().filter(|line| parse_command(&black_box(line.as_bytes())[..line.len() - 2]).is_ok()).count()
}

pub fn read_lines_smtp_proto(lines: &[&str]) -> usize {
    lines.iter().filter(|line| Request::parse(&mut black_box(line.as_bytes()).iter()).is_ok()).count()
}

/// A message as it goes over the wire, with the final dot.
pub fn wire(size: usize, dots: bool) -> Vec<u8> {
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

/// A message with an attachment: 64 KiB in lines of 76 octets of base64.
pub fn base64() -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut wire = b"Subject: attached\r\nContent-Transfer-Encoding: base64\r\n\r\n".to_vec();
    let mut state = 1u32;
    while wire.len() < 65_536 {
        for _ in 0..76 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            wire.push(DIGITS[(state >> 26) as usize]);
        }
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

/// The contents, with their names.
pub fn contents() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("text, 4 KiB", wire(4096, false)),
        ("text, 64 KiB", wire(65_536, false)),
        ("base64, 64 KiB", base64()),
        ("many dots, 64 KiB", wire(65_536, true)),
    ]
}

/// Reads content in pieces as a session does; returns its octets, and panics if there is no end.
pub fn decode(wire: &[u8]) -> usize {
    let mut decoder = Decoder::new(LINE_OCTETS_MAX);
    let (mut start, mut octets) = (0, 0);
    let mut end = PIECE_OCTETS.min(wire.len());
    loop {
        let (consumed, piece) = decoder.decode(&wire[start..end]);
        start += consumed;
        match piece {
            Piece::Content(range) => octets += range.len(),
            Piece::Insert(_) => unreachable!("the strict rules put nothing in"),
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

/// The same with smtp-proto, which copies what it reads to `message`.
pub fn decode_smtp_proto(wire: &[u8], message: &mut Vec<u8>) -> usize {
    message.clear();
    let mut receiver = DataReceiver::new();
    let ended = wire.chunks(PIECE_OCTETS).any(|piece| receiver.ingest(&mut piece.iter(), message));
    assert!(ended, "the message has an end of data");
    message.len()
}
