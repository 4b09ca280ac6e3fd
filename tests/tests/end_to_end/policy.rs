//! Who may send where: the relay is never an open one.

use sluice_tests::message::message;
use sluice_tests::wait::SOON;
use sluice_tests::{Client, Inbox, Relay};

#[test]
fn from_outside_to_outside_is_550_5_7_1_and_leaves_nothing() {
    let inbox = Inbox::start();
    let relay = Relay::builder().inward(inbox.address()).outward(inbox.address()).start();
    let mut client = Client::hello(relay.outside());
    for recipient in [
        "x@away.test",
        "x@sub.inside.test",
        "x@inside.test.away.test",
        "x@inside.testt",
        "x%away.test@away.test",
    ] {
        client.command("MAIL FROM:<bob@inside.test>").expect(250, "2.1.0");
        client.command(&format!("RCPT TO:<{recipient}>")).expect(550, "5.7.1");
        let data = client.command("DATA");
        assert!(data.code / 100 == 5, "DATA without a recipient: {}", data.text());
        client.command("RSET").expect(250, "");
    }
    relay.wait_empty();
    assert_eq!(inbox.sessions(), 0);
}

#[test]
fn accepted_domains_match_in_any_case_and_mixed_recipients_are_judged_one_by_one() {
    let inbox = Inbox::start();
    let relay = Relay::builder().inward(inbox.address()).outward(inbox.address()).start();
    let mut client = Client::hello(relay.outside());
    client.command("mail from:<x@away.test>").expect(250, "2.1.0");
    client.command("RCPT TO:<x@away.test>").expect(550, "5.7.1");
    client.command("rcpt to:<Bob@INSIDE.Test>").expect(250, "2.1.5");
    client.command("data").expect(354, "");
    client.send(&[message("mixed", "x\r\n").as_slice(), b".\r\n"].concat());
    client.reply().expect(250, "2.0.0");
    client.quit();
    let got = inbox.wait_for(1, SOON);
    let (local_part, domain) = got[0].to[0].split_once('@').expect("a mailbox");
    assert_eq!((local_part, domain.to_lowercase().as_str()), ("Bob", "inside.test"), "RFC 5321 section 2.4");
}

#[test]
fn a_client_that_may_not_connect_is_turned_away() {
    let inbox = Inbox::start();
    let relay = Relay::builder()
        .inward(inbox.address())
        .outward(inbox.address())
        .clients("127.0.0.0/8", "10.0.0.0/8")
        .start();
    let (mut client, greeting) = Client::try_connect(relay.inside()).expect("a greeting");
    assert!(matches!(greeting.code, 554 | 550 | 521), "{}", greeting.text());
    // RFC 5321 section 3.1: after 554 the server waits for QUIT, or it closes.
    if client.try_send(b"EHLO client.test\r\n").is_ok()
        && let Ok(reply) = client.try_reply()
    {
        assert!(reply.code >= 500, "{}", reply.text());
    }
    Client::hello(relay.outside()).quit();
}
