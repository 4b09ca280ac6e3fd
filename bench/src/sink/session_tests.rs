use super::*;
use crate::message::{Composer, Recipe};

/// Codes of the replies to `input`, fed in two pieces, and the tally.
fn dialogue(input: &[u8], split: usize, refuse: &[&str], chunking: bool) -> (String, Tally, Next) {
    let rules: Vec<_> = refuse.iter().map(|rule| rule.parse().unwrap()).collect();
    let (mut faults, mut tally, mut out) = (Faults::new(&rules, 1), Tally::default(), Vec::new());
    let mut session = Session::new(chunking, false);
    let mut next = session.greet(false, &mut faults, &mut out);
    for piece in [&input[..split], &input[split..]] {
        if next == Next::Read {
            next = session.handle(piece, &mut faults, &mut tally, &mut out);
        }
    }
    let text = String::from_utf8(out).unwrap();
    let codes: Vec<_> = text.lines().filter(|l| l.as_bytes()[3] == b' ').map(|l| &l[..3]).collect();
    (codes.join(" "), tally, next)
}

fn wire_message(number: u64) -> Vec<u8> {
    let recipe = Recipe {
        run: 1,
        from: "a@a.example".into(),
        to: "b@b.example".into(),
        recipients: 1,
        size: 700,
        dots: true,
        date: "Sun, 22 Nov 2026 00:00:00 +0000".into(),
    };
    let mut wire = Vec::new();
    Composer::new(recipe).compose(number, 0, &mut wire);
    wire
}

const ENVELOPE: &[u8] = b"EHLO a\r\nmail from:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n";

#[test]
fn a_pipelined_message_is_taken_and_verified_at_every_split() {
    let input = [ENVELOPE, &wire_message(1), b"QUIT\r\n"].concat();
    for split in 0..=input.len() {
        let (codes, tally, next) = dialogue(&input, split, &[], false);
        assert_eq!((&codes[..], next), ("220 250 250 250 354 250 221", Next::Close), "at {split}");
        assert_eq!((tally.messages, tally.intact, tally.damaged, tally.recipients), (1, 1, 0, 1));
    }
}

#[test]
fn refusals_strike_in_their_phase_and_are_counted() {
    let message = wire_message(1);
    let table = [
        ("connect:421", "421", 0),
        ("ehlo:502", "220 502 250 250 354 250", 1),
        ("mail:451", "220 250 451 503 503", 0),
        ("rcpt:550", "220 250 250 550 503", 0),
        ("data:451", "220 250 250 250 451", 0),
        ("dot:452", "220 250 250 250 354 452", 0),
    ];
    for (rule, replies, messages) in table {
        let content = if replies.contains("354") { &message[..] } else { b"" };
        let input = [ENVELOPE, content].concat();
        let (codes, tally, _) = dialogue(&input, 0, &[rule], false);
        assert_eq!((&codes[..], tally.messages), (replies, messages), "{rule}");
    }
}

#[test]
fn a_message_that_comes_twice_is_a_repeat() {
    let rest = &ENVELOPE[b"EHLO a\r\n".len()..];
    let input = [ENVELOPE, &wire_message(1), rest, &wire_message(1), rest, &wire_message(2)].concat();
    let (_, tally, _) = dialogue(&input, 0, &[], false);
    assert_eq!((tally.intact, tally.repeats, tally.distinct()), (3, 1, 2));
}

#[test]
fn chunks_make_a_message_at_every_split() {
    let body = b"a\r\n.\r\nb";
    let input = [
        b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<c@d>\r\nBDAT 3\r\n",
        &body[..3],
        b"BDAT 4 LAST\r\n",
        &body[3..],
        b"NOOP\r\n",
    ]
    .concat();
    for split in 0..=input.len() {
        let (codes, tally, _) = dialogue(&input, split, &[], true);
        assert_eq!(&codes[..], "220 250 250 250 250 250 250", "at {split}");
        assert_eq!((tally.messages, tally.octets, tally.unchecked), (1, 7, 1));
    }
    let (codes, _, _) = dialogue(b"EHLO a\r\nBDAT 3\r\n", 0, &[], false);
    assert_eq!(codes, "220 250 500");
}

#[test]
fn commands_out_of_order_are_refused() {
    let (codes, tally, _) =
        dialogue(b"DATA\r\nRCPT TO:<a@b>\r\nMAIL FROM:<>\r\nMAIL FROM:<>\r\nXYZ\r\n", 0, &[], false);
    assert_eq!((&codes[..], tally.protocol_errors), ("220 503 503 250 503 500", 2));
}
