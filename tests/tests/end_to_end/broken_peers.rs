//! Next hops that break the connection at each point of a transaction, by RST, and TLS that ends in an alert: every
//! message arrives in the end, once unless nobody could know, and nobody is told that it did not.

use sluice_tests::broken_peer::{Break, BrokenPeer, HANDSHAKE_FAILURE, Says};
use sluice_tests::message::{assert_same, numbered, without_received};
use sluice_tests::wait::{self, SOON};
use sluice_tests::{Answer, Client, Inbox, Relay, Step, offer_chunking};

const KIB: usize = 1 << 10;

fn send(relay: &Relay, content: &[u8]) {
    let mut client = Client::hello(relay.outside());
    client.send_message("x@away.test", &["bob@inside.test"], content).expect(250, "2.0.0");
}

/// Each break, and whether the message may have been taken by then.
fn breaks(chunking: bool) -> Vec<(Break, bool)> {
    use Break::{AtConnect, Before, Behind};
    use Says::{Client, Server};
    let mut all = vec![
        (AtConnect, false),
        (Before(Server, "220 "), false),
        (Behind(Server, "220 "), false),
        (Before(Client, "EHLO "), false),
        (Behind(Server, "250 ENHANCED"), false),
        (Before(Client, "MAIL FROM"), false),
        (Before(Server, "250 2.0.0 Kept"), true),
    ];
    match chunking {
        // The content goes with the commands.
        true => all.extend([
            (Behind(Client, "BDAT "), true),
            (Before(Server, "250 2.1.0"), true),
            (Behind(Server, "250 2.1.5"), true),
        ]),
        false => all.extend([
            (Before(Server, "250 2.1.0"), false),
            (Before(Server, "354 "), false),
            (Behind(Server, "354 "), false),
            (Before(Client, "Subject: numbered"), false),
        ]),
    }
    all
}

#[test]
fn a_peer_that_resets_the_connection_at_any_point_gets_every_message_in_the_end() {
    for chunking in [false, true] {
        let inbox = Inbox::scripted(move |step| match step {
            Step::Hello(_) if chunking => offer_chunking(false),
            _ => Answer::Accept,
        });
        let peer = BrokenPeer::start(inbox.address());
        let delivery = "[delivery]\nidle = \"0s\"\n";
        let mut relay =
            Relay::builder().inward(peer.address()).retry("500ms", "1s", "1d").section(delivery).start();
        for (number, (fate, may_be_taken)) in breaks(chunking).into_iter().enumerate() {
            let before = inbox.len();
            peer.break_next(fate);
            let content = numbered(number, 20 * KIB);
            send(&relay, &content);
            wait::until_true(SOON, &format!("{fate:?} to happen"), || peer.is_whole());
            relay.wait_empty();
            let got = inbox.transactions().split_off(before);
            let most = if may_be_taken { 2 } else { 1 };
            assert!((1..=most).contains(&got.len()), "{fate:?}: {} times", got.len());
            for one in &got {
                assert_eq!(one.to, ["bob@inside.test"], "{fate:?}");
                assert_same(without_received(&one.content), &content);
            }
        }
        let log = relay.stop();
        assert!(log.matching(&["status=bounced"]).is_empty(), "{}", log.tail());
        assert!(!log.matching(&["lost connection with", "while"]).is_empty(), "{}", log.tail());
        assert!(log.matching(&["internal fault"]).is_empty() && log.matching(&["panic"]).is_empty());
    }
}

/// RFC 8446 section 6.2: a fatal alert, a reset, an end, and an alert that is cut short, in place of a handshake.
#[test]
fn a_handshake_that_ends_in_an_alert_or_a_reset_is_no_tls() {
    let alerts = [
        Break::InHandshake(HANDSHAKE_FAILURE),
        Break::InHandshake(b"\x15\x03\x03\x00\x02\x02"),
        Break::InHandshake(b""),
        Break::ResetInHandshake,
    ];
    for fate in alerts {
        for (policy, arrives) in [("may", true), ("encrypt", false)] {
            let inbox = Inbox::start();
            let peer = BrokenPeer::start(inbox.address());
            peer.break_next(fate);
            let tls = format!("[delivery.tls]\npolicy = \"{policy}\"\n");
            let relay = Relay::builder().inward(peer.address()).retry("1s", "2s", "1d").section(&tls).start();
            let content = numbered(1, KIB);
            send(&relay, &content);
            relay.log().wait_for(SOON, &["cannot start TLS with 127.0.0.1[127.0.0.1]"]);
            if arrives {
                assert_same(without_received(&inbox.wait_for(1, SOON)[0].content), &content);
                relay.wait_empty();
                assert_eq!(peer.connections(), 2, "the one that failed, and one in clear text");
            } else {
                relay.log().wait_for(SOON, &["dsn=4.7.", "status=deferred"]);
                assert_eq!((inbox.len(), relay.queue().len()), (0, 1), "{fate:?}");
            }
        }
    }
}
