//! LMTP as a client (RFC 2033), as scripts like the others: each is played whole, octet by octet, and in two pieces
//! cut at every place.

use super::*;

const GREETED: &str = "\
WISH: lmtp
S: 220 store.example LMTP
C: LHLO relay.example
S: 250-store.example
S: 250-8BITMIME
S: 250-ENHANCEDSTATUSCODES
S: 250 PIPELINING
= ready
";
const GREETED_CHUNKING: &str = "\
WISH: lmtp
S: 220 store.example LMTP
C: LHLO relay.example
S: 250-store.example
S: 250-CHUNKING
S: 250 PIPELINING
= ready
";
const THREE: &str = "\
> begin s@a.example 10 r1@b.example r2@b.example r3@b.example
C: MAIL FROM:<s@a.example>
C: RCPT TO:<r1@b.example>
C: RCPT TO:<r2@b.example>
C: RCPT TO:<r3@b.example>
";
const RCPTS_TAKEN: &str = "S: 250 x\nS: 250 x\nS: 250 x\nS: 250 x\n";

/// RFC 2033 section 4.2.
#[test]
fn each_recipient_has_its_own_reply_to_the_content() {
    let transaction = format!(
        "{THREE}C: DATA\n{RCPTS_TAKEN}S: 354 x\n= send\n> sent\n\
         S: 250 2.0.0 one\nS: 452 4.2.2 full\nS: 550-5.2.1 gone\nS: 550 5.2.1 for ever\n\
         = finished delivered 2.0.0, recipient 4.2.2, recipient 5.2.1\n"
    );
    holds(&format!("{GREETED}{transaction}{transaction}> quit\nC: QUIT\nS: 221 x\n= closed\n"));
}

#[test]
fn a_recipient_that_rcpt_refused_has_no_reply_to_the_content() {
    holds(&format!(
        "{GREETED}{THREE}C: DATA\nS: 250 x\nS: 550 5.1.1 x\nS: 250 x\nS: 450 x\nS: 354 x\n= send\n> sent\n\
         S: 250 2.0.0 x\n= finished recipient 5.1.1, delivered 2.0.0, recipient 4.0.0\n"
    ));
}

/// RFC 2033 section 4.2: DATA must fail then.
#[test]
fn when_every_recipient_is_refused_data_is_too() {
    let refused = "S: 250 x\nS: 550 5.1.1 x\nS: 550 5.1.1 x\nS: 450 4.2.1 x\n";
    let fates = "recipient 5.1.1, recipient 5.1.1, recipient 4.2.1\n";
    let again = THREE.replacen("C: MAIL", "C: RSET\nC: MAIL", 1);
    holds(&format!("{GREETED}{THREE}C: DATA\n{refused}S: 503 5.5.1 x\n= finished {fates}{again}C: DATA\n"));
    // Nobody knows how many replies would follow the content.
    holds(&format!("{GREETED}{THREE}C: DATA\n{refused}S: 354 x\n= failed session 4.5.0: {fates}"));
}

#[test]
fn the_next_transaction_goes_behind_the_content_and_its_replies_behind_the_last_of_the_first() {
    let second = "> begin t@a.example 10 r4@b.example\nC: MAIL FROM:<t@a.example>\nC: RCPT TO:<r4@b.example>\nC: DATA\n";
    holds(&format!(
        "{GREETED}{THREE}C: DATA\n{RCPTS_TAKEN}S: 354 x\n= send\n> sent\n{second}\
         S: 250 x\nS: 250 x\nS: 550 5.2.2 x\n= finished delivered 2.0.0, delivered 2.0.0, recipient 5.2.2\n\
         S: 250 x\nS: 250 x\nS: 354 x\n= send\n> sent\nS: 250 x\n= finished delivered 2.0.0\n"
    ));
}

#[test]
fn after_bdat_each_recipient_has_its_own_reply_too() {
    let chunk = format!("{THREE}C: BDAT 10 LAST\n= send chunk\n> sent\n");
    holds(&format!(
        "{GREETED_CHUNKING}{chunk}S: 250 x\nS: 250 x\nS: 550 5.1.1 x\nS: 250 x\nS: 250 x\nS: 451 4.3.0 x\n\
         = finished delivered 2.0.0, recipient 5.1.1, recipient 4.3.0\n"
    ));
    // One reply when nobody was accepted.
    holds(&format!(
        "{GREETED_CHUNKING}{chunk}S: 250 x\nS: 550 x\nS: 550 x\nS: 550 x\nS: 503 x\n\
         = finished recipient 5.0.0, recipient 5.0.0, recipient 5.0.0\n"
    ));
    // A reply that looks as if BDAT were not known, behind one that shows that it is, is about a recipient.
    holds(&format!(
        "{GREETED_CHUNKING}{chunk}{RCPTS_TAKEN}S: 250 x\nS: 500 5.2.0 x\nS: 250 x\n\
         = finished delivered 2.0.0, recipient 5.2.0, delivered 2.0.0\n"
    ));
    holds(&format!(
        "{GREETED_CHUNKING}{chunk}{RCPTS_TAKEN}S: 502 5.5.1 x\n\
         = finished host 4.5.1, host 4.5.1, host 4.5.1, close\n"
    ));
}

#[test]
fn transactions_by_bdat_follow_each_other() {
    let second = "> begin t@a.example 10 r4@b.example\nC: RSET\nC: MAIL FROM:<t@a.example>\n\
                  C: RCPT TO:<r4@b.example>\nC: BDAT 10 LAST\n= send chunk\n> sent\n";
    holds(&format!(
        "{GREETED_CHUNKING}{THREE}C: BDAT 10 LAST\n= send chunk\n> sent\n{second}{RCPTS_TAKEN}\
         S: 250 x\nS: 450 x\nS: 250 x\n= finished delivered 2.0.0, recipient 4.0.0, delivered 2.0.0\n\
         S: 250 x\nS: 250 x\nS: 250 x\nS: 250 x\n= finished delivered 2.0.0\n"
    ));
}

/// Those that had their reply keep it, the others are tried again.
#[test]
fn a_peer_that_dies_between_the_replies_leaves_each_recipient_in_a_defined_state() {
    let sent = format!("{GREETED}{THREE}C: DATA\n{RCPTS_TAKEN}S: 354 x\n= send\n> sent\n");
    for (call, status) in
        [("> eof", "4.4.2"), ("> timeout", "4.4.2"), ("S: 421 4.3.2 x", "4.3.2"), ("S: 354 x", "4.5.0")]
    {
        holds(&format!(
            "{sent}{call}\n= failed session {status}: session {status}, session {status}, session {status}\n"
        ));
        holds(&format!(
            "{sent}S: 250 x\nS: 550 5.2.2 x\n{call}\n\
             = failed session {status}: delivered 2.0.0, recipient 5.2.2, session {status}\n"
        ));
    }
    let chunk = format!("{GREETED_CHUNKING}{THREE}C: BDAT 10 LAST\n= send chunk\n> sent\n{RCPTS_TAKEN}");
    holds(&format!(
        "{chunk}S: 250 x\n> eof\n= failed session 4.4.2: delivered 2.0.0, session 4.4.2, session 4.4.2\n"
    ));
}

#[test]
fn a_reply_while_the_content_is_sent_is_about_one_recipient_and_ends_the_session() {
    let sending = format!("{GREETED}{THREE}C: DATA\n{RCPTS_TAKEN}S: 354 x\n= send\n");
    holds(&format!(
        "{sending}S: 552 5.3.4 x\n= failed session 4.5.0: recipient 5.3.4, session 4.5.0, session 4.5.0\n"
    ));
    holds(&format!(
        "{GREETED}> begin s@a.example 10 r1@b.example\nC: MAIL FROM:<s@a.example>\nC: RCPT TO:<r1@b.example>\nC: DATA\n\
         S: 250 x\nS: 250 x\nS: 354 x\n= send\nS: 552 5.3.4 x\n= finished message 5.3.4, close\n"
    ));
}

/// RFC 2033 section 4.1: HELO is not LMTP. And a mail store may have the relay's name.
#[test]
fn there_is_no_helo_and_no_loop() {
    holds("WISH: lmtp\nS: 220 x\nC: LHLO relay.example\nS: 500 5.5.1 x\n= failed session 5.5.1:\n");
    holds("WISH: lmtp\nS: 220 relay.example x\nC: LHLO relay.example\nS: 250 relay.example\n= ready\n");
}

#[test]
fn without_pipelining_each_command_waits() {
    holds(
        "WISH: lmtp\nS: 220 x\nC: LHLO relay.example\nS: 250 x\n= ready\n\
         > begin s@a.example 10 r1@b.example r2@b.example\nC: MAIL FROM:<s@a.example>\nS: 250 x\n\
         C: RCPT TO:<r1@b.example>\nS: 250 x\nC: RCPT TO:<r2@b.example>\nS: 250 x\nC: DATA\nS: 354 x\n= send\n> sent\n\
         S: 250 x\nS: 450 x\n= finished delivered 2.0.0, recipient 4.0.0\n",
    );
}

#[test]
fn starttls_is_followed_by_lhlo() {
    holds(
        "WISH: lmtp\nWISH: must\nS: 220 x\nC: LHLO relay.example\nS: 250-x\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 x\n\
         = start tls\n> tls\nC: LHLO relay.example\nS: 250 x\n= ready\n",
    );
}
