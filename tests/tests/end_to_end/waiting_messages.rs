//! A hundred thousand messages that wait for a next hop which is down cost less than 150 MiB.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sluice_tests::message::numbered;
use sluice_tests::{Client, Port, Relay, heavy};

const MESSAGES: usize = 100_000;
const SESSIONS: usize = 50;
/// How long a list of them all may take, live, in a build without optimisation.
const LIST: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

#[test]
fn a_hundred_thousand_waiting_messages_cost_less_than_150_mib() {
    let _quiet = heavy();
    let down = Port::reserve();
    let mut relay = Relay::builder().inward(down.address()).retry("5m", "1h", "5d").start();
    let (next, start) = (AtomicUsize::new(0), Instant::now());
    thread::scope(|scope| {
        for _ in 0..SESSIONS {
            scope.spawn(|| {
                let mut client = Client::hello(relay.outside());
                while next.fetch_add(1, Ordering::Relaxed) < MESSAGES {
                    let reply = client.try_message("x@away.test", "bob@inside.test", &numbered(7, 400));
                    reply.expect("a reply").expect(250, "2.0.0");
                }
            });
        }
    });
    let taken = start.elapsed();
    let waiting = relay.resident_bytes();
    println!("{MESSAGES} messages taken in {taken:.1?} and waiting: {} MiB resident", waiting / MIB);
    assert!(waiting < 150 * MIB, "{} MiB", waiting / MIB);

    relay.kill();
    let start = Instant::now();
    relay.start();
    println!("ready {:.1?} after a kill, {} MiB resident", start.elapsed(), relay.resident_bytes() / MIB);
    let start = Instant::now();
    assert_eq!(relay.queue_within(LIST).len(), MESSAGES);
    println!("queue list of {MESSAGES} messages: {:.1?}", start.elapsed());
    let found = relay.resident_bytes();
    assert!(found < 150 * MIB, "{} MiB after a restart", found / MIB);
    relay.stop_within(Duration::from_secs(60));
}
