//! Recipients about whom the peer is asked without a message, as scripts like the others.

use super::chunking::GREETED_CHUNKING;
use super::*;

const ASKS: &str = "\
> ask r1@b.example
C: MAIL FROM:<>
C: RCPT TO:<r1@b.example>
";

#[test]
fn the_peer_says_whether_it_takes_a_recipient_and_is_reset_before_the_next_transaction() {
    for greeted in [GREETED, GREETED_CHUNKING] {
        for (reply, fate) in [
            ("250 2.1.5 Ok", "delivered 2.1.5"),
            ("251 2.1.5 Will forward", "delivered 2.1.5"),
            ("550 5.1.1 No such user", "recipient 5.1.1"),
            ("450 4.2.1 Busy", "recipient 4.2.1"),
        ] {
            holds(&format!(
                "{greeted}{ASKS}S: 250 Ok
S: {reply}
= finished {fate}
> ask r2@b.example
C: RSET
C: MAIL FROM:<>
C: RCPT TO:<r2@b.example>
S: 250 Reset
S: 250 Ok
S: 550 5.1.1 No
= finished recipient 5.1.1
> quit
C: QUIT
S: 221 Bye
= closed
"
            ));
        }
    }
}

#[test]
fn a_message_may_follow_a_question() {
    holds(&format!(
        "{GREETED}{ASKS}S: 250 Ok
S: 250 Ok
= finished delivered 2.0.0
> begin s@a.example 10 r1@b.example
C: RSET
C: MAIL FROM:<s@a.example> SIZE=10
C: RCPT TO:<r1@b.example>
C: DATA
S: 250 Reset
S: 250 Ok
S: 250 Ok
S: 354 Go
= send
> sent
S: 250 2.0.0 Taken
= finished delivered 2.0.0
"
    ));
}

#[test]
fn without_pipelining_each_command_waits() {
    holds(&format!(
        "{GREETED_PLAIN}> ask r1@b.example
C: MAIL FROM:<>
S: 250 Ok
C: RCPT TO:<r1@b.example>
S: 250 Ok
= finished delivered 2.0.0
> ask r2@b.example
C: RSET
S: 250 Reset
C: MAIL FROM:<>
S: 550 5.7.1 No null sender here
= finished message 5.7.1
> ask r3@b.example
C: MAIL FROM:<>
"
    ));
}

#[test]
fn a_refused_null_sender_is_no_word_about_the_recipient() {
    holds(&format!(
        "{GREETED}{ASKS}S: 550 5.7.1 No null sender here
S: 503 5.5.1 MAIL first
= finished message 5.7.1
> ask r1@b.example
C: MAIL FROM:<>
C: RCPT TO:<r1@b.example>
"
    ));
}

#[test]
fn an_address_that_fits_in_no_command_is_not_asked_about() {
    let mut client = new_client(StartTls::Never);
    let mut out = Vec::new();
    client.advance(HOUR, b"220 mx.example\r\n", &mut out);
    let (_, event) = client.advance(HOUR, b"250 mx.example\r\n", &mut out);
    assert_eq!(event, Event::Ready);
    out.clear();
    client.ask(HOUR, "a@b.example>\r\nRCPT TO:<c@d.example", &mut out);
    let (_, event) = client.advance(HOUR, b"", &mut out);
    let Event::Finished(fates) = event else { panic!("{event:?}") };
    assert_eq!((show_fates(&fates).as_str(), out.len()), ("recipient 5.1.3", 0));
}

#[test]
fn a_connection_that_was_closed_while_it_was_unused_is_stale() {
    holds(&format!(
        "{GREETED}{ASKS}S: 250 Ok
S: 250 Ok
= finished delivered 2.0.0
> ask r2@b.example
C: RSET
C: MAIL FROM:<>
C: RCPT TO:<r2@b.example>
> eof
= failed session 4.4.2 stale: session 4.4.2
"
    ));
    holds(&format!(
        "{GREETED}{ASKS}S: 250 Ok
S: 421 4.3.2 Going down
= failed session 4.3.2: session 4.3.2
"
    ));
}
