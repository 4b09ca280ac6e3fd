//! Transactions that follow each other without waiting, as scripts like the others.

use super::chunking::GREETED_CHUNKING;
use super::*;

/// Two transactions by DATA: the second group goes with the end of the first content.
const DATA_TWICE: &str = "\
> begin s@a.example 10 r1@b.example
C: MAIL FROM:<s@a.example> SIZE=10
C: RCPT TO:<r1@b.example>
C: DATA
S: 250 Ok
S: 250 Ok
S: 354 Go
= send
> sent
> begin s@a.example 10 r2@b.example
C: MAIL FROM:<s@a.example> SIZE=10
C: RCPT TO:<r2@b.example>
C: DATA
";

#[test]
fn by_data_the_next_commands_go_with_the_end_of_the_content() {
    for (end, fate) in [("250 2.0.0 Ok", "delivered 2.0.0"), ("550 5.6.0 No", "message 5.6.0")] {
        holds(&format!(
            "{GREETED}{DATA_TWICE}S: {end}
= finished {fate}
S: 250 Ok
S: 250 Ok
S: 354 Go
= send
> sent
S: 250 2.0.0 Ok
= finished delivered 2.0.0
"
        ));
    }
    // All replies in one piece.
    holds(&format!(
        "{GREETED}{DATA_TWICE}S: 250 2.0.0 Ok\nS: 250 Ok\nS: 250 Ok\nS: 354 Go\n= finished delivered 2.0.0\n= send\n"
    ));
}

#[test]
fn a_reply_ahead_of_the_content_is_no_answer_to_it() {
    let script = format!(
        "{GREETED}{DATA_TWICE}S: 250 Ok\nS: 250 Ok\nS: 250 Ok\nS: 354 Go\nS: 250 Ok\n\
         = finished delivered 2.0.0\n= failed session 4.5.0: session 4.5.0\n"
    );
    assert_eq!(play(&script, Cut::Whole), script);
}

#[test]
fn a_second_transaction_that_is_refused_is_left_behind_for_the_third() {
    holds(&format!(
        "{GREETED}{DATA_TWICE}S: 250 Ok
S: 250 Ok
S: 550 5.1.1 No
S: 554 No valid recipients
= finished delivered 2.0.0
= finished recipient 5.1.1
> begin s@a.example 10 r3@b.example
C: RSET
C: MAIL FROM:<s@a.example> SIZE=10
C: RCPT TO:<r3@b.example>
C: DATA
"
    ));
}

/// Three transactions by BDAT; each but the first says RSET, for nobody knows yet how the one before ends.
const CHUNKS: &str = "\
> begin s@a.example 10 r1@b.example
C: MAIL FROM:<s@a.example> SIZE=10
C: RCPT TO:<r1@b.example>
C: BDAT 10 LAST
= send chunk
> sent
> begin s@a.example 10 r2@b.example
C: RSET
C: MAIL FROM:<s@a.example> SIZE=10
C: RCPT TO:<r2@b.example>
C: BDAT 10 LAST
= send chunk
> sent
> begin s@a.example 10 r3@b.example
C: RSET
C: MAIL FROM:<s@a.example> SIZE=10
C: RCPT TO:<r3@b.example>
C: BDAT 10 LAST
= send chunk
> sent
";

#[test]
fn chunks_follow_each_other_without_an_answer() {
    holds(&format!(
        "{GREETED_CHUNKING}{CHUNKS}S: 250 Ok
S: 250 Ok
S: 250 2.0.0 one
S: 250 Ok
S: 250 Ok
S: 550 5.1.1 No
S: 503 5.5.1 No recipients
S: 250 Ok
S: 250 Ok
S: 250 Ok
S: 250 2.0.0 three
= finished delivered 2.0.0
= finished recipient 5.1.1
= finished delivered 2.0.0
> quit
C: QUIT
S: 221 Bye
= closed
"
    ));
}

#[test]
fn a_connection_that_breaks_fails_the_oldest_and_leaves_the_others_untried() {
    holds(&format!(
        "{GREETED_CHUNKING}{CHUNKS}S: 250 Ok\nS: 250 Ok\nS: 250 2.0.0 one\n= finished delivered 2.0.0\n\
         > eof\n= failed session 4.4.2 stale: session 4.4.2\n"
    ));
    // The peer has had enough after one message.
    holds(&format!(
        "{GREETED_CHUNKING}{CHUNKS}S: 250 Ok\nS: 250 Ok\nS: 250 2.0.0 one\nS: 250 Ok\nS: 421 4.7.0 Enough\n\
         = finished delivered 2.0.0\n= failed session 4.7.0 stale: session 4.7.0\n"
    ));
    holds(&format!("{GREETED_CHUNKING}{CHUNKS}S: 250 Ok\n> eof\n= failed session 4.4.2: session 4.4.2\n"));
}

fn client_with(offers: &str) -> Client {
    let (mut client, mut out) = (new_client(StartTls::Never), Vec::new());
    client.advance(HOUR, b"220 x\r\n", &mut out);
    client.advance(HOUR, format!("250-mx\r\n{offers}").as_bytes(), &mut out);
    client
}

fn begin(client: &mut Client, content_bytes: u64) -> Event {
    let recipients = ["r@b.example"].into_iter();
    let mut out = Vec::new();
    client.begin(
        HOUR,
        Transaction { content_bytes, ..plain("s@a.example", recipients.map(Rcpt::from)) },
        &mut out,
    );
    client.advance(HOUR, b"", &mut out).1
}

#[test]
fn the_transactions_under_way_are_bounded() {
    let mut client = client_with("250-PIPELINING\r\n250 CHUNKING\r\n");
    for number in 0..UNDER_WAY_MAX {
        assert!(client.can_begin(), "{number}");
        assert!(matches!(begin(&mut client, 10), Event::Send(_)));
        assert!(!client.can_begin(), "its chunk is to be sent first");
        client.content_sent(HOUR);
    }
    assert!(!client.can_begin());
    assert_eq!(client.under_way(), UNDER_WAY_MAX);
}

#[test]
fn nothing_overtakes_what_waits_for_an_answer_before_its_content() {
    // Without PIPELINING.
    let mut client = client_with("250 CHUNKING\r\n");
    begin(&mut client, 10);
    assert!(!client.can_begin());
    // By DATA before 354.
    let mut client = client_with("250 PIPELINING\r\n");
    begin(&mut client, 10);
    assert!(!client.can_begin());
    // A large chunk before a recipient is accepted.
    let mut client = client_with("250-PIPELINING\r\n250 CHUNKING\r\n");
    assert_eq!(begin(&mut client, UNASKED_BYTES_MAX + 1), Event::Read);
    assert!(!client.can_begin());
    let mut out = Vec::new();
    assert!(matches!(client.advance(HOUR, b"250 x\r\n250 x\r\n", &mut out).1, Event::Send(_)));
    assert!(!client.can_begin());
    client.content_sent(HOUR);
    assert!(client.can_begin());
}

/// What must be true of two transactions by BDAT that follow each other: each recipient is delivered only if its own
/// MAIL, RCPT and BDAT were accepted, whatever became of the other.
#[test]
fn every_sequence_of_replies_to_two_transactions_delivers_exactly_what_was_accepted() {
    const CODES: [u16; 5] = [250, 354, 421, 450, 550];
    let (mut sequences, mut delivered) = (0, 0);
    // MAIL, RCPT, BDAT, RSET, MAIL, RCPT, BDAT.
    for number in 0..CODES.len().pow(7) {
        let codes: Vec<u16> =
            (0..7).map(|place| CODES[number / CODES.len().pow(place) % CODES.len()]).collect();
        let mut client = client_with("250-PIPELINING\r\n250 CHUNKING\r\n");
        for _ in 0..2 {
            begin(&mut client, 10);
            client.content_sent(HOUR);
        }
        let mut fates = Vec::new();
        let mut out = Vec::new();
        'replies: for code in &codes {
            let reply = format!("{code} x\r\n");
            let mut rest = reply.as_bytes();
            loop {
                let (consumed, event) = client.advance(HOUR, rest, &mut out);
                rest = &rest[consumed..];
                match event {
                    Event::Read => break,
                    Event::Finished(one) => fates.extend(one),
                    Event::Failed(end) => {
                        fates.extend(end.fates);
                        break 'replies;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        let taken = |codes: &[u16]| codes.iter().all(|code| *code == 250);
        let is_delivered = |at: usize| matches!(fates.get(at), Some(Fate::Delivered(_)));
        // A peer that accepts a recipient after it has refused MAIL is left alone.
        assert_eq!(is_delivered(0), taken(&codes[..3]), "{codes:?}");
        let reached = codes[..4].iter().all(|code| *code != 421 && *code != 354) && codes[3] == 250;
        let misordered = codes[0] >= 400 && codes[1] == 250 && codes[2] == 250;
        let expected = reached && !misordered && taken(&codes[4..]);
        assert_eq!(is_delivered(1), expected, "{codes:?}");
        assert!(fates.len() <= 2);
        sequences += 1;
        delivered += fates.iter().filter(|fate| matches!(fate, Fate::Delivered(_))).count();
    }
    println!("{sequences} sequences, {delivered} deliveries");
}

/// RFC 9422 section 4.1.
#[test]
fn past_the_peers_mailmax_no_transaction_begins() {
    for (offers, most) in
        [("LIMITS RCPTMAX=7 MAILMAX=3", 3), ("LIMITS MAILMAX=1", 1), ("LIMITS MAILMAX=0", 9)]
    {
        for chunking in ["", "250-CHUNKING\r\n"] {
            let mut client = client_with(&format!("250-PIPELINING\r\n{chunking}250 {offers}\r\n"));
            let mut begun = 0;
            while begun < 9 && client.can_begin() {
                let event = begin(&mut client, 10);
                begun += 1;
                if let Event::Send(_) = event {
                    client.content_sent(HOUR);
                }
                let replies: &[u8] = match chunking {
                    "" => b"250 x\r\n250 x\r\n354 x\r\n",
                    _ => b"250 x\r\n250 x\r\n250 x\r\n",
                };
                if let (_, Event::Send(_)) = client.advance(HOUR, replies, &mut Vec::new()) {
                    client.content_sent(HOUR);
                    client.advance(HOUR, b"250 x\r\n", &mut Vec::new());
                }
            }
            assert_eq!(begun, most, "{offers} {chunking}");
        }
    }
}
