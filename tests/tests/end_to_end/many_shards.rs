//! Thirty-two shards for each role on the CPUs that there are: mail through all of them to next hops that belong
//! to different ones, and restarts with other numbers. What is shared must hold whoever runs when.

use std::net::SocketAddr;
use std::thread;

use sluice_tests::message::{number_of, numbered, without_received};
use sluice_tests::wait::SOON;
use sluice_tests::{Answer, Client, Dns, Inbox, Port, Relay, heavy};

const SHARDS: usize = 32;
const MESSAGES: usize = 640;
/// Domains with a next hop each, on as many addresses.
const DOMAINS: usize = 24;
const HOSTS: u8 = 4;
const SENDERS: usize = 16;

/// One CPU for all shards, or two.
fn cpus(shards: usize) -> String {
    match thread::available_parallelism().map_or(1, usize::from) {
        1 => format!("0*{shards}"),
        _ => format!("0*{},1*{}", shards / 2, shards / 2),
    }
}

/// To `inside.test` every fourth, to the domains in turn all others.
fn recipient(number: usize) -> String {
    match number % 4 {
        0 => "bob@inside.test".into(),
        _ => format!("bob@d{}.test", number % DOMAINS),
    }
}

/// The host of a domain, from 0.
fn host_of(domain: usize) -> u8 {
    (domain * usize::from(HOSTS) / DOMAINS) as u8
}

/// Sends these numbers over connections of one message each, so that every ingest shard gets some.
fn send(server: SocketAddr, numbers: std::ops::Range<usize>) {
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let numbers = numbers.clone();
            scope.spawn(move || {
                for number in numbers.skip(sender).step_by(SENDERS) {
                    let mut client = Client::hello(server);
                    let to = recipient(number);
                    let reply = client.send_message("x@away.test", &[&to], &numbered(number, 3000));
                    reply.expect(250, "2.0.0");
                    client.quit();
                }
            });
        }
    });
}

/// How many spools there are.
fn spools(relay: &Relay) -> usize {
    let entries = std::fs::read_dir(relay.spool()).expect("the spool");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names.filter(|name| name.to_string_lossy().starts_with("shard-")).count()
}

#[test]
fn thirty_two_shards_of_each_role_lose_nothing_over_restarts_with_other_numbers() {
    let _quiet = heavy();
    let (dns, port, inward) = (Dns::start(), Port::reserve(), Port::reserve());
    for domain in 0..DOMAINS {
        let (host, last) = (format!("mx.d{domain}.test"), host_of(domain) + 2);
        dns.mx(&format!("d{domain}.test"), 10, &host).loopback(&host, last);
    }
    let many = cpus(SHARDS);
    let mut relay = Relay::builder()
        .inward(inward.address())
        .outward_by_mx(dns.address(), port.number())
        .retry("300ms", "1s", "1d")
        .cpus(&many, &many)
        .start();

    // Nobody is there to take it: all of it waits, in all spools.
    send(relay.inside(), 0..MESSAGES / 2);
    assert_eq!(spools(&relay), SHARDS);
    assert_eq!(relay.queue().len(), MESSAGES / 2);
    relay.kill();

    // Fewer shards adopt what the others left, and take more.
    relay.start_with(&["--ingest-cpus", &cpus(6), "--delivery-cpus", &cpus(2)]);
    assert_eq!(relay.queue().len(), MESSAGES / 2);
    send(relay.inside(), MESSAGES / 2..MESSAGES * 3 / 4);
    relay.stop();

    // All of them again, and now the next hops are there.
    relay.start_with(&[]);
    let outside: Vec<Inbox> =
        (0..HOSTS).map(|last| Inbox::bind(port.on(2 + last), |_| Answer::Accept)).collect();
    let inside = Inbox::bind(inward.address(), |_| Answer::Accept);
    send(relay.inside(), MESSAGES * 3 / 4..MESSAGES);
    for (host, inbox) in outside.iter().enumerate() {
        let expected =
            (0..MESSAGES).filter(|number| number % 4 != 0 && usize::from(host_of(number % DOMAINS)) == host);
        inbox.wait_for(expected.count(), SOON * 2);
    }
    inside.wait_for(MESSAGES / 4, SOON * 2);
    relay.wait_empty();

    let mut copies = vec![0; MESSAGES];
    for inbox in outside.iter().chain([&inside]) {
        inbox.for_each(|got| {
            let number = number_of(without_received(&got.content)).expect("unspoilt");
            assert_eq!(got.to, [recipient(number)]);
            copies[number] += 1;
        });
    }
    assert!(copies.iter().all(|&copies| copies == 1), "{copies:?}");
    relay.stop();
    assert_eq!(relay.queue(), Vec::<String>::new());
}
