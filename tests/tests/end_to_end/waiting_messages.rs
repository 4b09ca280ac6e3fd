//! A hundred thousand messages that wait for a next hop which is down cost less than 150 MiB, also after a
//! kill and a restart; and when the next hop is back, all of them arrive.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sluice_tests::message::{number_of, numbered, without_received};
use sluice_tests::process::resident_peak_bytes;
use sluice_tests::{Answer, Client, Inbox, Port, Relay, heavy};

const MESSAGES: usize = 100_000;
const SESSIONS: usize = 50;
/// How long a list of them all may take, live, in a build without optimisation.
const LIST: Duration = Duration::from_secs(180);
/// How long the next hop may take to get them all.
const DRAIN: Duration = Duration::from_secs(180);
const MIB: u64 = 1 << 20;

#[test]
fn a_hundred_thousand_waiting_messages_cost_less_than_150_mib() {
    let _quiet = heavy();
    let down = Port::reserve();
    let mut relay = Relay::builder().inward(down.address()).retry("2s", "5s", "5d").start();
    let (next, start) = (AtomicUsize::new(0), Instant::now());
    thread::scope(|scope| {
        for _ in 0..SESSIONS {
            scope.spawn(|| {
                let mut client = Client::hello(relay.outside());
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= MESSAGES {
                        return;
                    }
                    let reply = client.try_message("x@away.test", "bob@inside.test", &numbered(number, 400));
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

    let start = Instant::now();
    let back = Inbox::bind(down.address(), |_| Answer::Accept);
    let got = back.wait_count(MESSAGES, DRAIN);
    let peak = resident_peak_bytes(relay.pid());
    println!("next hop back: {got} messages in {:.1?}, at most {} MiB resident", start.elapsed(), peak / MIB);
    relay.wait_empty();
    let mut copies = vec![0; MESSAGES];
    back.for_each(|got| copies[number_of(without_received(&got.content)).expect("unspoilt")] += 1);
    assert!(copies.iter().all(|&copies| copies == 1), "lost or repeated");
    relay.stop_within(Duration::from_secs(60));
}
