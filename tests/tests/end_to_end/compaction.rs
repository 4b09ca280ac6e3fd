//! One message that waits does not keep the disk that the others have used.

use sluice_tests::message::{number_of, numbered, without_received};
use sluice_tests::wait::{SOON, until_true};
use sluice_tests::{Answer, Client, Inbox, Relay, Step};

/// Octets of one message of the traffic, and how many: sixty segments' worth.
const OCTETS: usize = 60_000;
const MESSAGES: usize = 1_000;
/// Senders side by side, so that messages of one segment are finished in the next: that is what ties the
/// segments together.
const SENDERS: usize = 4;
/// Twice what waits, some slack, and the idle segments that are kept for use.
const SEGMENTS_MAX: usize = 30;

fn segments(relay: &Relay) -> usize {
    let shards = std::fs::read_dir(relay.spool()).expect("the spool").flatten();
    let files = shards.filter_map(|shard| std::fs::read_dir(shard.path()).ok()).flatten().flatten();
    files.filter(|file| file.path().extension().is_some_and(|end| end == "seg")).count()
}

fn send_traffic(relay: &Relay, first: usize) {
    let mut client = Client::hello(relay.outside());
    for number in (first..=MESSAGES).step_by(SENDERS) {
        let content = numbered(number, OCTETS);
        client.send_message("x@away.test", &["bob@inside.test"], &content).expect(250, "2.0.0");
    }
    client.quit();
}

#[test]
fn a_message_that_waits_does_not_keep_the_segments_of_the_others() {
    let inbox = Inbox::scripted(|step| match step {
        Step::Rcpt(line) if line.contains("stuck") => Answer::Say("450 4.2.1 Not now".into()),
        _ => Answer::Accept,
    });
    let mut relay = Relay::builder().inward(inbox.address()).retry("500ms", "1s", "1d").prepare();
    relay.edit_config("[spool]\n", "[spool]\nsegment_bytes = \"1MiB\"\n");
    relay.start();
    let mut client = Client::hello(relay.outside());
    client.send_message("x@away.test", &["stuck@inside.test"], &numbered(0, 20_000)).expect(250, "2.0.0");
    client.quit();
    std::thread::scope(|scope| {
        for first in 1..=SENDERS {
            let relay = &relay;
            scope.spawn(move || send_traffic(relay, first));
        }
    });
    inbox.wait_for(MESSAGES, SOON * 2);
    relay.wait_queue(1, SOON);
    until_true(SOON * 2, "the segments are used again or given back", || segments(&relay) <= SEGMENTS_MAX);
    println!("{} segments of 1 MiB after {MESSAGES} messages of {OCTETS} octets", segments(&relay));

    relay.kill();
    relay.start();
    relay.wait_queue(1, SOON);
    inbox.set_script(|_| Answer::Accept);
    inbox.wait_for(MESSAGES + 1, SOON);
    relay.wait_empty();
    let mut copies = [0; MESSAGES + 1];
    inbox.for_each(|got| copies[number_of(without_received(&got.content)).expect("unspoilt")] += 1);
    assert_eq!(copies[0], 1, "the message that waited came once, whole");
}
