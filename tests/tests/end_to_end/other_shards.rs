//! A restart with another number of ingest shards finds and delivers what the former ones left.

use std::thread;

use sluice_tests::message::{number_of, numbered, without_received};
use sluice_tests::wait::SOON;
use sluice_tests::{Answer, Client, Inbox, Port, Relay};

const MESSAGES: usize = 200;

/// Takes messages in over many connections, so that every ingest shard gets some.
fn fill(relay: &Relay, first: usize) {
    thread::scope(|scope| {
        for worker in 0..20 {
            scope.spawn(move || {
                for number in (first + worker..first + MESSAGES).step_by(20) {
                    let mut client = Client::hello(relay.outside());
                    let content = numbered(number, 2000);
                    client.send_message("x@away.test", &["bob@inside.test"], &content).expect(250, "2.0.0");
                    client.quit();
                }
            });
        }
    });
}

#[test]
fn what_two_shards_left_one_shard_delivers_and_the_other_way_round() {
    let port = Port::reserve();
    let mut relay =
        Relay::builder().inward(port.address()).retry("200ms", "1s", "1d").cpus("0,1", "0,1").start();
    fill(&relay, 0);
    relay.kill();
    assert_eq!(relay.queue().len(), MESSAGES, "the queue of a relay that is down");

    relay.start_with(&["--ingest-cpus", "0", "--delivery-cpus", "1"]);
    assert_eq!(relay.queue().len(), MESSAGES);
    fill(&relay, MESSAGES);
    relay.stop();

    relay.start_with(&["--ingest-cpus", "0,1", "--delivery-cpus", "0"]);
    assert_eq!(relay.queue().len(), 2 * MESSAGES);
    relay.kill();

    relay.start_with(&["--ingest-cpus", "1", "--delivery-cpus", "1"]);
    let inbox = Inbox::bind(port.address(), |_| Answer::Accept);
    inbox.wait_for(2 * MESSAGES, SOON * 2);
    relay.wait_empty();
    let mut copies = vec![0; 2 * MESSAGES];
    inbox.for_each(|got| copies[number_of(without_received(&got.content)).expect("unspoilt")] += 1);
    assert!(copies.iter().all(|&copies| copies == 1), "{copies:?}");

    relay.stop();
    assert_eq!(relay.queue(), Vec::<String>::new());
}
