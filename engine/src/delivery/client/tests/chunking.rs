//! BDAT as a client (RFC 3030), as scripts like the others.

use super::*;

/// As `GREETED`, with CHUNKING.
pub(super) const GREETED_CHUNKING: &str = "\
S: 220 mx.example ESMTP
C: EHLO relay.example
S: 250-mx.example
S: 250-8BITMIME
S: 250-SIZE 1000000
S: 250-CHUNKING
S: 250 PIPELINING
= ready
";
/// A group with two recipients and its chunk, after `GREETED_CHUNKING`.
const CHUNK_GROUP: &str = "\
> begin s@a.example 10 r1@b.example r2@b.example
C: MAIL FROM:<s@a.example> SIZE=10
C: RCPT TO:<r1@b.example>
C: RCPT TO:<r2@b.example>
C: BDAT 10 LAST
= send chunk
> sent
";

/// RFC 3030 section 4.2.
#[test]
fn with_chunking_a_small_message_goes_in_one_group_with_its_content() {
    let accepted =
        "S: 250 x\nS: 250 x\nS: 250 x\nS: 250 2.0.0 x\n= finished delivered 2.0.0, delivered 2.0.0\n";
    holds(&format!(
        "{GREETED_CHUNKING}{CHUNK_GROUP}{accepted}{CHUNK_GROUP}{accepted}> quit\nC: QUIT\nS: 221 x\n= closed\n"
    ));
}

#[test]
fn with_chunking_a_large_message_waits_for_a_recipient() {
    let begin = "> begin s@a.example 65537 r1@b.example r2@b.example\n\
                 C: MAIL FROM:<s@a.example> SIZE=65537\nC: RCPT TO:<r1@b.example>\nC: RCPT TO:<r2@b.example>\n";
    holds(&format!(
        "{GREETED_CHUNKING}{begin}S: 250 x\nS: 550 x\nS: 250 x\nC: BDAT 65537 LAST\n= send chunk\n> sent\n\
         S: 250 x\n= finished recipient 5.0.0, delivered 2.0.0\n{begin}"
    ));
    // Nothing is sent in vain, and the transaction is left by RSET.
    let again = begin.replacen("C: MAIL", "C: RSET\nC: MAIL", 1);
    holds(&format!(
        "{GREETED_CHUNKING}{begin}S: 250 x\nS: 550 x\nS: 450 x\n= finished recipient 5.0.0, recipient 4.0.0\n{again}"
    ));
    holds(&format!(
        "{GREETED_CHUNKING}{begin}S: 452 x\nS: 503 x\nS: 503 x\n= finished message 4.0.0, message 4.0.0\n{begin}"
    ));
}

#[test]
fn with_chunking_and_without_pipelining_each_command_waits() {
    holds(
        "S: 220 x\nC: EHLO relay.example\nS: 250-x\nS: 250 CHUNKING\n= ready\n\
         > begin s@a.example 10 r1@b.example r2@b.example\nC: MAIL FROM:<s@a.example>\nS: 250 x\n\
         C: RCPT TO:<r1@b.example>\nS: 550 x\nC: RCPT TO:<r2@b.example>\nS: 250 x\n\
         C: BDAT 10 LAST\n= send chunk\n> sent\nS: 451 4.3.0 x\n= finished recipient 5.0.0, message 4.3.0\n",
    );
}

/// RFC 3030 section 2 with RFC 2920: whatever is refused, the chunk's octets have gone and every recipient
/// has its fate.
#[test]
fn every_class_of_reply_within_a_group_with_a_chunk() {
    let none = "= failed session 4.0.0: session 4.0.0, session 4.0.0";
    let table = [
        ("S: 250 x\nS: 550 x\nS: 250 x\nS: 250 x", "= finished recipient 5.0.0, delivered 2.0.0"),
        ("S: 250 x\nS: 550 5.1.1 x\nS: 450 x\nS: 554 x", "= finished recipient 5.1.1, recipient 4.0.0"),
        ("S: 250 x\nS: 550 5.1.1 x\nS: 450 x\nS: 503 x", "= finished recipient 5.1.1, recipient 4.0.0"),
        // A message for nobody: nothing was delivered.
        ("S: 250 x\nS: 550 5.1.1 x\nS: 450 x\nS: 250 x", "= finished recipient 5.1.1, recipient 4.0.0"),
        ("S: 450 4.7.1 x\nS: 503 x\nS: 503 x\nS: 503 x", "= finished message 4.7.1, message 4.7.1"),
        ("S: 550 x\nS: 503 x\nS: 503 x\nS: 503 x", "= finished message 5.0.0, message 5.0.0"),
        ("S: 550 x\nS: 250 x\nS: 503 x\nS: 250 x", "= failed session 4.5.0: message 5.0.0, message 5.0.0"),
        ("S: 250 x\nS: 250 x\nS: 250 x\nS: 552 5.3.4 x", "= finished message 5.3.4, message 5.3.4"),
        ("S: 250 x\nS: 250 x\nS: 550 x\nS: 451 x", "= finished message 4.0.0, recipient 5.0.0"),
        ("S: 250 x\nS: 250 x\nS: 250 x\nS: 354 x", "= failed session 4.5.0: session 4.5.0, session 4.5.0"),
        ("S: 421 x", none),
        ("S: 250 x\nS: 250 x\nS: 250 x\nS: 421 x", none),
        ("S: 250 x\nS: 250 x\nS: bad", "= failed session 4.5.0: session 4.5.0, session 4.5.0"),
    ];
    for code in [500, 501, 502, 503, 504] {
        // Nobody may be returned for that, nor may the octets of the chunk be commands.
        let result = "= finished host 4.0.0, recipient 5.0.0, close";
        holds(&format!(
            "{GREETED_CHUNKING}{CHUNK_GROUP}S: 250 x\nS: 250 x\nS: 550 x\nS: {code} x\n{result}\n"
        ));
    }
    for (replies, result) in table {
        holds(&format!("{GREETED_CHUNKING}{CHUNK_GROUP}{replies}\n{result}\n"));
    }
    let next = CHUNK_GROUP.replacen("C: MAIL", "C: RSET\nC: MAIL", 1);
    for refused in [
        "S: 250 x\nS: 550 x\nS: 550 x\nS: 554 x\n= finished recipient 5.0.0, recipient 5.0.0\n",
        "S: 250 x\nS: 250 x\nS: 250 x\nS: 451 x\n= finished message 4.0.0, message 4.0.0\n",
    ] {
        holds(&format!("{GREETED_CHUNKING}{CHUNK_GROUP}{refused}{next}"));
    }
}

#[test]
fn a_peer_that_answers_or_closes_while_a_chunk_is_sent_leaves_a_defined_state() {
    let sending = format!("{GREETED_CHUNKING}{}", CHUNK_GROUP.replace("> sent\n", ""));
    let session = "session 4.4.2";
    let table = [
        ("> eof\n", format!("= failed {session}: {session}, {session}")),
        ("> timeout\n", format!("= failed {session}: {session}, {session}")),
        ("S: 250 x\nS: 550 x\n> eof\n", format!("= failed {session}: recipient 5.0.0, {session}")),
        (
            "S: 250 x\nS: 550 x\nS: 250 x\nS: 552 5.3.4 x\n",
            "= finished recipient 5.0.0, message 5.3.4, close".into(),
        ),
        (
            "S: 250 x\nS: 550 x\nS: 250 x\nS: 250 x\n",
            "= failed session 4.5.0: recipient 5.0.0, session 4.5.0".into(),
        ),
        ("S: 250 x\nS: 550 x\nS: 250 x\nS: 502 x\n", "= finished recipient 5.0.0, host 4.0.0, close".into()),
        ("S: 421 x\n", "= failed session 4.0.0: session 4.0.0, session 4.0.0".into()),
    ];
    for (rest, result) in &table {
        holds(&format!("{sending}{rest}{result}\n"));
    }
    let used = format!(
        "{GREETED_CHUNKING}{CHUNK_GROUP}S: 250 x\nS: 250 x\nS: 250 x\nS: 250 x\n= finished delivered 2.0.0, delivered 2.0.0\n"
    );
    holds(&format!("{used}{CHUNK_GROUP}> eof\n= failed {session} stale: {session}, {session}\n"));
}

/// RFC 3030 section 3.
#[test]
fn binary_content_goes_only_where_it_is_taken() {
    let begin = "> begin-binary s@a.example 10 r1@b.example\n";
    for greeted in [GREETED, GREETED_PLAIN, GREETED_CHUNKING] {
        holds(&format!("{greeted}{begin}= finished host 5.6.1\n> quit\nC: QUIT\n"));
    }
    let greeted = GREETED_CHUNKING.replace("S: 250-CHUNKING\n", "S: 250-CHUNKING\nS: 250-BINARYMIME\n");
    holds(&format!(
        "{greeted}{begin}C: MAIL FROM:<s@a.example> SIZE=10 BODY=BINARYMIME\nC: RCPT TO:<r1@b.example>\n\
         C: BDAT 10 LAST\n= send chunk\n> sent\nS: 250 x\nS: 250 x\nS: 250 x\n= finished delivered 2.0.0\n"
    ));
    let unusable = greeted.replace("S: 250-CHUNKING\n", "");
    holds(&format!("{unusable}{begin}= finished host 5.6.1\n"));
}

#[test]
fn chunking_that_is_switched_off_is_not_used() {
    let peer = Peer { name: "mx.example".into(), address: "192.0.2.1:25".parse().unwrap() };
    let settings = ClientSettings { chunking: false, ..ClientSettings::clone(&settings()) };
    let (mut client, mut out) = (
        Client::new(
            Arc::new(settings),
            peer,
            Opening { starttls: StartTls::Never, in_tls: false, login: None },
            0,
        ),
        Vec::new(),
    );
    client.advance(0, b"220 x\r\n", &mut out);
    client.advance(0, b"250-x\r\n250-PIPELINING\r\n250-BINARYMIME\r\n250 CHUNKING\r\n", &mut out);
    for (binary, said) in [(false, "DATA\r\n"), (true, "")] {
        out.clear();
        let recipients = ["r@b.example"].into_iter();
        let transaction = Transaction { binary, ..plain("", recipients.map(Rcpt::from)) };
        client.begin(0, transaction, &mut out);
        assert!(out.ends_with(said.as_bytes()) && (binary == out.is_empty()));
        client.advance(0, b"550 x\r\n503 x\r\n503 x\r\n", &mut out);
    }
}

/// RFC 5321 section 4.5.3.2: a chunk on its way has the time of a block, its reply that of end-of-data.
#[test]
fn a_chunk_has_its_deadlines() {
    let (mut client, mut out) = (new_client(StartTls::Never), Vec::new());
    client.advance(HOUR, b"220 x\r\n", &mut out);
    client.advance(HOUR, b"250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n", &mut out);
    let recipients = ["r@b.example"].into_iter();
    let transaction = plain("", recipients.map(Rcpt::from));
    client.begin(HOUR, transaction, &mut out);
    assert_eq!(client.advance(HOUR, b"", &mut out), (0, Event::Send(Framing::Counted)));
    assert_eq!(client.deadline(), HOUR + 1_000, "block");
    client.progress(HOUR + 7);
    assert_eq!(client.deadline(), HOUR + 1_007, "next block");
    client.content_sent(HOUR);
    assert_eq!(client.deadline(), HOUR + 10, "MAIL");
    client.advance(HOUR, b"250 x\r\n250 x\r\n", &mut out);
    assert_eq!(client.deadline(), HOUR + 10_000, "the chunk");
    assert!(client.timed_out().failure.text.ends_with("message may be sent more than once"));
}
