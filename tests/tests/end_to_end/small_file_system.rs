//! A spool on a small file system: full of its own mail, full of somebody else's file, out of inodes, read
//! only, hanging. Nothing acknowledged is lost, new mail gets its 4yz, deliveries go on.
//!
//! `SLUICE_ROUNDS=20 tests/run filled_to_the_brim` goes 20 rounds.

use sluice_tests::ledger::rounds;
use sluice_tests::log::queue_ids;
use sluice_tests::message::{dot_stuffed, number_of, numbered, without_received};
use sluice_tests::tools::swaks;
use sluice_tests::wait::{SOON, until_true};
use sluice_tests::{Answer, Client, Inbox, Port, Relay, SmallFs, Step, heavy, lacks};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

const OCTETS: usize = 40_000;
const SENDERS: usize = 4;

fn down(step: &Step<'_>) -> Answer {
    match step {
        Step::Connect => Answer::Say("421 4.3.2 Down for maintenance".into()),
        _ => Answer::Accept,
    }
}

/// A relay whose spool lies on a file system of its own. The file system is first, so that it goes last.
fn relay_on(mebibytes: u64, inodes: u32, spool: &str, next_hop: SocketAddr) -> Option<(Relay, SmallFs)> {
    // No connection outlives its message: one to a next hop that has gone would still take some.
    let limits = "[limits]\nmessage_bytes_max = \"1MiB\"\n[delivery]\nidle = \"0s\"\n";
    let relay = Relay::builder().inward(next_hop).retry("500ms", "1s", "1d").section(limits).prepare();
    let small = SmallFs::mount(&relay.spool(), mebibytes, inodes)?;
    relay.edit_config("[spool]\n", &format!("[spool]\nsegment_bytes = \"1MiB\"\n{spool}\n"));
    Some((relay, small))
}

/// One transaction: 250 at its end, or the code that it got before 354.
fn send(client: &mut Client, number: usize, declared: bool) -> std::io::Result<u16> {
    let content = numbered(number, OCTETS);
    let size = if declared { format!(" SIZE={OCTETS}") } else { String::new() };
    for (line, expected) in [
        (format!("MAIL FROM:<x@away.test>{size}"), 250),
        ("RCPT TO:<bob@inside.test>".to_owned(), 250),
        ("DATA".to_owned(), 354),
    ] {
        client.try_send(format!("{line}\r\n").as_bytes())?;
        let reply = client.try_reply()?;
        if reply.code != expected {
            assert!(reply.text().starts_with("452 4.3.1"), "{line}: {}", reply.text());
            return Ok(reply.code);
        }
    }
    client.try_send(&dot_stuffed(&content))?;
    let reply = client.try_reply()?;
    assert_eq!(reply.code, 250, "what was let in is never refused for want of space: {}", reply.text());
    Ok(reply.code)
}

/// Sends from all sides until every sender has been refused some times; gives how often that was.
fn load(relay: &Relay, next: &AtomicUsize, acknowledged: &std::sync::Mutex<BTreeSet<usize>>) -> usize {
    let refused = AtomicUsize::new(0);
    let address = relay.outside();
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let refused = &refused;
            scope.spawn(move || {
                let mut client = Client::hello(address);
                let mut own = 0;
                while own < 5 {
                    let number = next.fetch_add(1, Relaxed);
                    match send(&mut client, number, sender % 2 == 0).expect("the session stays open") {
                        250 => drop(acknowledged.lock().unwrap().insert(number)),
                        _ => own += 1,
                    }
                }
                refused.fetch_add(own, Relaxed);
                client.quit();
            });
        }
    });
    refused.into_inner()
}

/// The numbers of the messages that an inbox got. Each is compared once, however often this is asked.
#[derive(Default)]
struct Arrived {
    seen: usize,
    numbers: BTreeSet<usize>,
}

impl Arrived {
    fn look(&mut self, inbox: &Inbox) -> &BTreeSet<usize> {
        let mut at = 0;
        inbox.for_each(|got| {
            // The postmaster is told that there is no room.
            let notice = got.to.iter().any(|to| to == "postmaster@inside.test");
            if at >= self.seen && !notice {
                self.numbers.insert(number_of(without_received(&got.content)).expect("unspoilt"));
            }
            at += 1;
        });
        self.seen = at;
        &self.numbers
    }

    fn twice(&self) -> usize {
        self.seen - self.numbers.len()
    }
}

fn wait_for_all(inbox: &Inbox, acknowledged: &BTreeSet<usize>, what: &str) {
    let mut arrived = Arrived::default();
    until_true(SOON * 4, what, || acknowledged.is_subset(arrived.look(inbox)));
}

/// Waits until nothing is left in the queue. What is stuck is shown with all that the relay says of it.
fn wait_empty(relay: &Relay, limit: Duration) {
    let since = Instant::now();
    loop {
        let queue = relay.queue();
        if queue.is_empty() {
            return;
        }
        if since.elapsed() > limit {
            let log = relay.log();
            let of = |id: &String| format!("{id}:\n{}", log.matching(&[id]).join("\n"));
            let lines: Vec<_> = queue.iter().take(20).map(of).collect();
            let list = relay.sluice_ok(&["queue", "list", "--json"]);
            let rest: Vec<_> = log.lines().into_iter().filter(|line| queue_ids(line).is_empty()).collect();
            panic!(
                "{} messages are stuck; the queue:\n{list}\ntheir lines:\n{}\nlines of no message:\n{}",
                queue.len(),
                lines.join("\n"),
                rest.join("\n")
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Mail is taken again, by itself.
fn resumes(relay: &Relay, next: &AtomicUsize, acknowledged: &mut BTreeSet<usize>) -> Duration {
    let since = Instant::now();
    let mut client = Client::hello(relay.outside());
    until_true(SOON, "new mail is taken again", || {
        let number = next.fetch_add(1, Relaxed);
        let taken = send(&mut client, number, true).expect("the session stays open") == 250;
        if taken {
            acknowledged.insert(number);
        }
        taken
    });
    since.elapsed()
}

#[test]
fn a_relay_filled_to_the_brim_loses_nothing_and_resumes_by_itself() {
    let _quiet = heavy();
    let rounds = rounds(3);
    let marks = "slow_bytes_min = \"12MiB\"\nslow_delay_max = \"20ms\"\nfree_bytes_min = \"6MiB\"\nfree_inodes_min = 10";
    let port = Port::reserve();
    let Some((mut relay, small)) = relay_on(48, 512, marks, port.address()) else { return };
    relay.start();
    let next = AtomicUsize::new(1);
    let (mut refusals, mut taken, mut twice, mut slowest) = (0, 0, 0, Duration::ZERO);
    let mut spent = [Duration::ZERO; 4];
    for round in 0..rounds {
        // The next hop is down.
        let by_foreign_file = round % 2 == 1;
        let acknowledged = std::sync::Mutex::new(BTreeSet::new());
        let stop = AtomicBool::new(false);
        let mut since = Instant::now();
        let mut lap = |of: usize| spent[of] += std::mem::replace(&mut since, Instant::now()).elapsed();
        std::thread::scope(|scope| {
            if by_foreign_file {
                // It comes under load, and takes again what becomes free.
                scope.spawn(|| {
                    while !stop.load(Relaxed) {
                        small.fill();
                        std::thread::sleep(Duration::from_millis(50));
                    }
                });
            }
            refusals += load(&relay, &next, &acknowledged);
            stop.store(true, Relaxed);
        });
        let mut acknowledged = acknowledged.into_inner().unwrap();
        lap(0);
        if round % 3 == 2 {
            relay.kill();
            relay.start();
        }
        // Deliveries go on while the file system is as full as it was.
        let (inbox, mut arrived) = (Inbox::bind(port.address(), |_| Answer::Accept), Arrived::default());
        wait_empty(&relay, SOON * 2);
        lap(1);
        let missing: Vec<_> = acknowledged.difference(arrived.look(&inbox)).copied().collect();
        assert!(missing.is_empty(), "round {round}: {missing:?} of {} were lost", acknowledged.len());
        small.unfill();
        slowest = slowest.max(resumes(&relay, &next, &mut acknowledged));
        lap(2);
        wait_empty(&relay, SOON);
        assert!(acknowledged.is_subset(arrived.look(&inbox)), "round {round}: the last one is not there");
        taken += acknowledged.len();
        twice += arrived.twice();
        lap(3);
    }
    println!("loading, delivering, comparing and resuming, the last one: {spent:?}");
    println!(
        "{rounds} rounds: {taken} messages acknowledged, all there, {twice} of them twice; {refusals} refused with 452; resumed within {slowest:?}"
    );
    assert!(refusals >= rounds * SENDERS * 5);
}

#[test]
fn without_inodes_mail_is_refused_and_what_is_there_is_delivered() {
    let inbox = Inbox::scripted(down);
    let marks = "slow_bytes_min = \"0B\"\nfree_bytes_min = \"0B\"\nfree_inodes_min = 0";
    let Some((mut relay, small)) = relay_on(64, 64, marks, inbox.address()) else { return };
    relay.start();
    let next = AtomicUsize::new(1);
    let taken = std::sync::Mutex::new(BTreeSet::new());
    let mut client = Client::hello(relay.outside());
    assert_eq!(send(&mut client, 1_000_000, true).unwrap(), 250);
    client.quit();
    taken.lock().unwrap().insert(1_000_000);
    small.fill_inodes();
    assert!(load(&relay, &next, &taken) >= SENDERS * 5);
    relay.log().wait_for(SOON, &["no room for another segment", "No space left"]);
    let mut acknowledged = taken.into_inner().unwrap();
    inbox.set_script(|_| Answer::Accept);
    wait_for_all(&inbox, &acknowledged, "deliveries go on");
    relay.wait_empty();
    small.unfill();
    resumes(&relay, &next, &mut acknowledged);
    wait_for_all(&inbox, &acknowledged, "the last one arrives");
}

/// ext4 gives up after an error: reads go on, every write fails.
#[test]
fn on_a_read_only_file_system_deliveries_go_on_and_a_restart_has_everything() {
    let inbox = Inbox::scripted(down);
    let Some((mut relay, small)) = relay_on(64, 512, "free_bytes_min = \"1MiB\"", inbox.address()) else {
        return;
    };
    relay.start();
    let mut client = Client::hello(relay.outside());
    for number in 1..=10 {
        assert_eq!(send(&mut client, number, true).unwrap(), 250);
    }
    small.abort();
    let lost = client.try_message("x@away.test", "bob@inside.test", &numbered(99, OCTETS)).unwrap();
    assert!(lost.text().starts_with("451 4.3.0"), "{}", lost.text());
    relay.log().wait_for(SOON, &["takes nothing more until a restart", "451 4.3.0", "restart"]);
    let summary = relay.sluice_ok(&["queue", "summary"]);
    assert!(summary.contains("\nwarning: spool 0 has failed ("), "{summary}");
    until_true(SOON, "MAIL is refused at once", || {
        let reply = client.command("MAIL FROM:<x@away.test>");
        if reply.code == 250 {
            client.command("RSET").expect(250, "");
        }
        reply.text().starts_with("451 4.3.0")
    });
    client.quit();
    inbox.set_script(|_| Answer::Accept);
    let all: BTreeSet<usize> = (1..=10).collect();
    wait_for_all(&inbox, &all, "what was acknowledged is delivered from what can be read");
    assert_eq!(inbox.len(), 10, "once in this run");
    relay.kill();
    small.detach();
    assert!(small.attach());
    relay.start();
    wait_for_all(&inbox, &all, "nothing is lost");
    until_true(SOON, "what was not recorded is repeated", || inbox.len() == 20);
    relay.wait_empty();
    let mut client = Client::hello(relay.outside());
    assert_eq!(send(&mut client, 11, true).unwrap(), 250);
    client.quit();
}

#[test]
fn on_a_disk_that_hangs_sessions_get_an_answer_and_nothing_is_lost() {
    let inbox = Inbox::start();
    let marks = "free_bytes_min = \"1MiB\"\nwrite_wait = \"1s\"";
    let Some((mut relay, small)) = relay_on(64, 512, marks, inbox.address()) else { return };
    relay.start();
    let mut client = Client::hello(relay.outside());
    assert_eq!(send(&mut client, 1, true).unwrap(), 250);
    inbox.wait_for(1, SOON);
    client.open_data("x@away.test", &["bob@inside.test"]);
    small.freeze(true);
    client.send(&dot_stuffed(&numbered(2, OCTETS)));
    client.reply().expect(451, "4.3.0");
    relay.log().wait_for(SOON, &["has not come back", "spool.write_wait"]);
    client.command("MAIL FROM:<x@away.test>").expect(451, "4.3.0");
    let summary = relay.sluice_ok(&["queue", "summary"]);
    assert!(summary.contains("\nwarning: spool 0: a write has not come back"), "{summary}");
    small.freeze(false);
    relay.log().wait_for(SOON, &["writes come back again"]);
    until_true(SOON, "new mail is taken again", || {
        let reply = client.command("MAIL FROM:<x@away.test>");
        reply.code == 250
    });
    client.command("RSET").expect(250, "");
    assert_eq!(send(&mut client, 3, true).unwrap(), 250);
    // The client was told to try again, and the message is there all the same: rather twice than lost.
    wait_for_all(&inbox, &(1..=3).collect(), "all of them arrive");
    relay.wait_empty();
    client.quit();
}

/// Slow sessions that declare much hold room; others must find some all the same.
#[test]
fn one_client_cannot_hold_all_the_room() {
    if lacks("swaks") {
        return;
    }
    let inbox = Inbox::start();
    let marks = "slow_bytes_min = \"4MiB\"\nfree_bytes_min = \"2MiB\"\nfree_inodes_min = 10";
    let Some((mut relay, _small)) = relay_on(48, 512, marks, inbox.address()) else { return };
    relay.start();
    let mut open = Vec::new();
    let refused = loop {
        let mut client = Client::hello(relay.outside());
        client.command("MAIL FROM:<x@away.test> SIZE=1000000").expect(250, "");
        client.command("RCPT TO:<bob@inside.test>").expect(250, "");
        let reply = client.command("DATA");
        if reply.code != 354 {
            break reply;
        }
        open.push(client);
        assert!(open.len() < 48, "more than there is");
    };
    refused.expect(452, "4.3.1");
    assert!((4..20).contains(&open.len()), "about a quarter: {}", open.len());
    let elsewhere = ["--local-interface", "127.0.0.2"];
    let (sent, dialogue) = swaks(relay.outside(), "x@away.test", "bob@inside.test", &elsewhere);
    assert!(sent, "{dialogue}");
    for client in &mut open {
        client.send(&dot_stuffed(&numbered(1, OCTETS)));
        client.reply().expect(250, "");
    }
    assert_eq!(send(&mut Client::hello(relay.outside()), 2, true).unwrap(), 250, "it was given back");
    inbox.wait_for(open.len() + 2, SOON);
}
