//! Mail that loops is stopped by its count of Received fields (RFC 5321 section 6.3).

use sluice_tests::message::message;
use sluice_tests::wait::SOON;
use sluice_tests::{Client, Dsn, Inbox, Relay};

fn travelled(hops: usize) -> Vec<u8> {
    let mut content = b"Received: from a by b; Sun, 22 Nov 2026 00:00:00 +0000\r\n".repeat(hops);
    content.extend_from_slice(&message("round", "Received: in the body\r\n"));
    content
}

#[test]
fn too_many_received_fields_are_554_5_4_6() {
    let inbox = Inbox::start();
    let relay = Relay::builder().inward(inbox.address()).start();
    let mut client = Client::hello(relay.outside());
    client.send_message("x@away.test", &["bob@inside.test"], &travelled(100)).expect(554, "5.4.6");
    client.send_message("x@away.test", &["bob@inside.test"], &travelled(51)).expect(554, "5.4.6");
    client.send_message("x@away.test", &["bob@inside.test"], &travelled(49)).expect(250, "2.0.0");
    client.quit();
    assert_eq!(inbox.wait_for(1, SOON).len(), 1);
    relay.wait_empty();
}

#[test]
fn a_circle_of_two_relays_is_broken_and_the_sender_told() {
    let internal = Inbox::start();
    let builder = || {
        Relay::builder()
            .inward(internal.address())
            .smart_hosts(&["*"], &["127.0.0.1:1".parse().unwrap()])
            .section("[limits]\nreceived_max = 5")
    };
    let (mut one, mut other) =
        (builder().hostname("one.test").prepare(), builder().hostname("other.test").prepare());
    one.edit_config("127.0.0.1:1\"", &format!("{}\"", other.inside()));
    other.edit_config("127.0.0.1:1\"", &format!("{}\"", one.inside()));
    one.start();
    other.start();
    let mut client = Client::hello(one.inside());
    client
        .send_message("bob@inside.test", &["x@away.test"], &message("circle", "x\r\n"))
        .expect(250, "2.0.0");
    let got = internal.wait_for(1, SOON);
    Dsn::parse_valid(&got[0].content).expect_one("x@away.test", "failed", "5.4.6");
    one.wait_empty();
    other.wait_empty();
    assert_eq!(internal.len(), 1);
}

#[test]
fn a_relay_that_is_its_own_next_hop_notices_it_and_takes_nothing_from_itself() {
    let mut relay = Relay::builder()
        .inward("127.0.0.1:9".parse().unwrap())
        .smart_hosts(&["*"], &["127.0.0.1:1".parse().unwrap()])
        .prepare();
    relay.edit_config("127.0.0.1:1\"", &format!("{}\"", relay.inside()));
    relay.start();
    let mut client = Client::hello(relay.inside());
    client.send_message("bob@inside.test", &["x@away.test"], &message("self", "x\r\n")).expect(250, "2.0.0");
    let line = relay.log().wait_for(SOON, &["to=<x@away.test>", "loops back to myself"]);
    assert!(line.contains(".4.6, status="), "{line}");
    assert_eq!(relay.queue().len(), 1);
}
