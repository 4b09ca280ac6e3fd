//! A backlog: what a waiting message costs in memory, how soon a killed relay takes mail again, how long the
//! administrator waits for an answer, and how fast it all goes out when the next hop is back (S40, S42).
//!
//! The ordinary run has 20,000 messages and a development build. For a million, with release builds:
//!
//! ```text
//! SLUICE_BACKLOG=1000000 SLUICE_BIN=target/release/sluice SLUICE_BENCH_BIN=target/release/sluice-bench \
//!     cargo test -p sluice-tests --test end_to_end a_backlog -- --nocapture
//! ```

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_tests::process::{cpu_seconds, run_ok};
use sluice_tests::wait::until_true;
use sluice_tests::{Client, Port, Relay, heavy, tools};

/// Octets of each message.
const OCTETS: usize = 4096;
/// Domains that the messages are for, in equal parts.
const DOMAINS: usize = 10;
/// How long any one step may take.
const LIMIT: Duration = Duration::from_secs(1800);
/// From this many messages on the memory of one is asserted; with fewer, what all share weighs too much.
const MANY: usize = 100_000;
const OCTETS_A_MESSAGE_MAX: u64 = 250;

fn messages() -> usize {
    std::env::var("SLUICE_BACKLOG").map_or(20_000, |asked| asked.parse().expect("SLUICE_BACKLOG is a number"))
}

/// Sends messages with addresses of some 25 octets, of which no two messages have the same.
fn send(relay: SocketAddr, domain: &str, messages: usize) {
    let mut command = Command::new(tools::built("sluice-bench"));
    command.args(["source", "--target", &relay.to_string(), "--sessions", "50"]);
    command.args(["--messages", &messages.to_string(), "--size", &OCTETS.to_string()]);
    command.args(["--from", "sender.%n@newsletter.example", "--to"]).arg(format!("reader.%n@{domain}"));
    run_ok(&mut command, LIMIT);
}

/// A sink that ends by itself when it has so many messages, all intact and none twice.
fn sink(port: &Port, messages: usize) -> Child {
    let mut command = Command::new(tools::built("sluice-bench"));
    command.args(["sink", "--bind", &port.address().to_string(), "--expect", &messages.to_string()]);
    command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().expect("the sink starts")
}

/// Waits for the sink's end; gives messages per second and the relay's CPU seconds per message.
fn drained(relay: &Relay, mut sink: Child, messages: usize, since: (Instant, f64)) -> (f64, f64) {
    let status = sluice_tests::process::exit_within(&mut sink, LIMIT).expect("the sink has them all");
    assert!(status.success(), "the sink: {status}");
    let seconds = since.0.elapsed().as_secs_f64();
    (messages as f64 / seconds, (cpu_seconds(relay.pid()) - since.1) / messages as f64)
}

fn queue(relay: &Relay, arguments: &[&str]) -> (Value, Duration) {
    let start = Instant::now();
    let printed = relay.sluice_ok(&[&["queue"], arguments, &["--json"]].concat());
    (serde_json::from_str(&printed).expect("JSON"), start.elapsed())
}

fn domain(number: usize) -> String {
    format!("domain{number}.example")
}

#[test]
fn a_backlog_is_cheap_known_at_once_and_gone_as_fast_as_it_came() {
    let _quiet = heavy();
    let (messages, port) = (messages() / DOMAINS * DOMAINS, Port::reserve());
    let mut relay = Relay::builder().outward(port.address()).retry("5m", "1h", "5d").start();

    // What fresh mail costs, both legs.
    let fresh = (messages / 10).clamp(2_000, 50_000);
    let receiving = sink(&port, fresh);
    let since = (Instant::now(), cpu_seconds(relay.pid()));
    send(relay.inside(), &domain(0), fresh);
    let (fresh_rate, fresh_cpu) = drained(&relay, receiving, fresh, since);
    relay.wait_empty();
    relay.stop();
    relay.start();
    let empty = relay.resident_bytes();

    let start = Instant::now();
    for number in 0..DOMAINS {
        send(relay.inside(), &domain(number), messages / DOMAINS);
    }
    let taken = start.elapsed().as_secs_f64();
    let each = relay.resident_bytes().saturating_sub(empty) / messages as u64;
    println!(
        "{messages} messages taken at {:.0}/s; empty {} MiB, then {each} octets resident a message",
        messages as f64 / taken,
        empty >> 20
    );
    assert!(messages < MANY || each <= OCTETS_A_MESSAGE_MAX, "{each} octets a message");

    let (summary, took) = queue(&relay, &["summary"]);
    println!("summary: {took:.2?}");
    assert_eq!(summary["messages"], messages, "{summary}");
    for (what, arguments) in [
        ("hold one domain", vec!["hold", "--domain", "domain3.example"]),
        ("hold by sender, few", vec!["hold", "--sender", "sender.1234@*"]),
        ("release one domain", vec!["release", "--domain", "domain3.example"]),
    ] {
        let (answer, took) = queue(&relay, &arguments);
        println!("{what}: {} changed, {took:.2?}", answer["changed"]["messages"]);
    }
    let (answer, _) = queue(&relay, &["hold", "--domain", "domain3.example"]);
    assert_eq!(answer["matched"]["messages"], messages / DOMAINS, "{answer}");

    relay.kill();
    let start = Instant::now();
    relay.launch(&[]);
    until_true(LIMIT, "mail is taken", || {
        Client::try_connect(relay.inside()).is_ok_and(|(_, greeting)| greeting.code == 220)
    });
    let accepts = start.elapsed();
    let (summary, _) = queue(&relay, &["summary"]);
    assert_eq!(summary["messages"], messages, "{summary}");
    println!("after a kill: takes mail in {accepts:.2?}, knows them all in {:.2?}", start.elapsed());
    println!("{} octets resident a message", relay.resident_bytes().saturating_sub(empty) / messages as u64);

    queue(&relay, &["release", "--all"]);
    let receiving = sink(&port, messages);
    let since = (Instant::now(), cpu_seconds(relay.pid()));
    queue(&relay, &["retry", "--all"]);
    let (rate, cpu) = drained(&relay, receiving, messages, since);
    println!(
        "drained at {rate:.0}/s, {:.1} us of CPU a message; fresh, in and out: {fresh_rate:.0}/s, {:.1} us",
        cpu * 1e6,
        fresh_cpu * 1e6
    );
    until_true(LIMIT, "an empty queue", || queue(&relay, &["summary"]).0["messages"] == 0);
    relay.stop_within(LIMIT);
}
