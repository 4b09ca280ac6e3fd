//! `sluice queue restore`: copies of a queue go into an empty relay, a stopped one and a running one, each
//! message once, also when everything is killed in the middle.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use sluice_tests::message::{number_of, numbered, without_received};
use sluice_tests::wait::{self, SOON};
use sluice_tests::{Answer, Client, Inbox, Port, Relay, tools};

/// Messages `from` to `to` over a few connections.
fn fill(relay: &Relay, from: usize, to: usize, bytes: usize) {
    thread::scope(|scope| {
        for worker in 0..8 {
            scope.spawn(move || {
                let mut client = Client::hello(relay.outside());
                for number in (from + worker..to).step_by(8) {
                    let content = numbered(number, bytes);
                    client.send_message("x@away.test", &["bob@inside.test"], &content).expect(250, "2.0.0");
                }
                client.quit();
            });
        }
    });
}

/// A relay whose next hop is not there yet.
fn waiting(port: &Port) -> Relay {
    Relay::builder().inward(port.address()).retry("100ms", "1s", "1d").prepare()
}

fn restore(relay: &Relay, from: &Path) -> [u64; 3] {
    let output = run(relay, from, &[]);
    assert!(output.status.success(), "{output:?}");
    counts(&output)
}

fn run(relay: &Relay, from: &Path, more: &[&str]) -> Output {
    let mut arguments = vec!["queue", "--json", "restore", from.to_str().unwrap()];
    arguments.extend(more);
    relay.sluice(&arguments)
}

fn counts(output: &Output) -> [u64; 3] {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ["restored", "here", "finished"].map(|key| {
        let at = text.find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("no {key} in {output:?}"));
        let digits = text[at + key.len() + 3..].chars().take_while(char::is_ascii_digit);
        digits.collect::<String>().parse().unwrap()
    })
}

/// How often each message has arrived.
fn copies(inbox: &Inbox, messages: usize) -> Vec<usize> {
    let mut copies = vec![0; messages];
    inbox.for_each(|got| copies[number_of(without_received(&got.content)).expect("unspoilt")] += 1);
    copies
}

#[test]
fn a_stopped_spool_goes_into_one_that_never_ran_and_only_once() {
    let (nowhere, port) = (Port::reserve(), Port::reserve());
    let mut old = waiting(&nowhere);
    old.start();
    fill(&old, 0, 200, 3000);
    let in_use = run(&waiting(&port), &old.spool(), &[]);
    assert_eq!(in_use.status.code(), Some(66), "a relay runs on it: {in_use:?}");
    old.stop();

    let mut new = waiting(&port);
    assert_eq!(counts(&run(&new, &old.spool(), &["--dry-run"])), [200, 0, 0]);
    assert_eq!(restore(&new, &old.spool()), [200, 0, 0]);
    assert_eq!(restore(&new, &old.spool()), [0, 200, 0]);
    assert_eq!(new.queue().len(), 200);
    new.start();
    assert_eq!(restore(&new, &old.spool()), [0, 200, 0], "into the running one");
    let inbox = Inbox::bind(port.address(), |_| Answer::Accept);
    inbox.wait_for(200, SOON * 2);
    new.wait_empty();
    assert_eq!(restore(&new, &old.spool()), [0, 0, 200]);
    assert_eq!(copies(&inbox, 200), [1; 200]);
}

#[test]
fn a_backup_goes_into_a_running_relay_under_load_and_a_later_one_brings_the_rest() {
    let (nowhere, port) = (Port::reserve(), Port::reserve());
    let mut old = waiting(&nowhere);
    old.start();
    fill(&old, 0, 150, 3000);
    let (first, second) = (old.directory().join("first"), old.directory().join("second"));
    let backup = |to: &Path| drop(old.sluice_ok(&["queue", "backup", to.to_str().unwrap()]));
    thread::scope(|scope| {
        scope.spawn(|| fill(&old, 150, 300, 3000));
        backup(&first);
    });
    backup(&second);
    old.kill();

    let inbox = Inbox::bind(port.address(), |_| Answer::Accept);
    let mut new = waiting(&port);
    new.start();
    let some = thread::scope(|scope| {
        scope.spawn(|| fill(&new, 300, 600, 3000));
        restore(&new, &first)
    });
    assert!(some[0] >= 150 && some[1..] == [0, 0], "{some:?}");
    let rest = restore(&new, &second);
    assert_eq!((rest[0] + some[0], rest[1] + rest[2]), (300, some[0]), "{some:?}, then {rest:?}");
    assert_eq!(restore(&new, &first)[0], 0, "the earlier one has nothing more");
    inbox.wait_for(600, SOON * 2);
    new.wait_empty();
    assert_eq!(restore(&new, &second), [0, 0, 300]);
    assert_eq!(copies(&inbox, 600), [1; 600]);
    let log = new.stop();
    assert_eq!(log.matching(&["restored from"]).len(), 300);
}

#[test]
fn kills_in_the_middle_of_a_restore_lose_nothing_and_double_nothing() {
    const MESSAGES: usize = 6_000;
    let (nowhere, port) = (Port::reserve(), Port::reserve());
    let mut old = waiting(&nowhere);
    old.start();
    fill(&old, 0, MESSAGES, 2000);
    old.stop();

    let mut new = waiting(&port);
    let (mut cut, mut done) = (0, false);
    for round in 0..40 {
        new.start();
        let mut command = Command::new(tools::built("sluice"))
            .args(["queue", "restore", "--config"])
            .arg(new.config())
            .arg(old.spool())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // A little further in each round, whatever the machine's speed.
        let log = new.log();
        wait::until_true(SOON, "the restore goes on", || {
            log.matching(&["restored from"]).len() > 10 * round || command.try_wait().unwrap().is_some()
        });
        if round % 2 == 0 {
            new.kill();
            done = command.wait().unwrap().success();
        } else {
            let _ = command.kill();
            done = command.wait().unwrap().success();
            new.kill();
        }
        cut += !done as usize;
        if done {
            break;
        }
    }
    new.start();
    let last = restore(&new, &old.spool());
    println!("{cut} restores cut, the last one found {last:?}; done before: {done}");
    assert!(cut > 2, "too quick to be cut");
    assert_eq!(last.iter().sum::<u64>(), MESSAGES as u64);
    assert_eq!(new.queue().len(), MESSAGES);
    let inbox = Inbox::bind(port.address(), |_| Answer::Accept);
    inbox.wait_for(MESSAGES, SOON * 4);
    new.wait_empty();
    assert_eq!(copies(&inbox, MESSAGES), vec![1; MESSAGES]);
}

#[test]
fn kills_in_the_middle_of_an_adoption_leave_each_message_once_and_no_spool_behind() {
    const MESSAGES: usize = 1_200;
    let port = Port::reserve();
    let mut relay =
        Relay::builder().inward(port.address()).retry("100ms", "1s", "1d").cpus("0,1", "0,1").prepare();
    relay.start();
    for number in 0..30 {
        fill(&relay, number * MESSAGES / 30, (number + 1) * MESSAGES / 30, 2000);
    }
    relay.stop();
    let gone = relay.spool().join("shard-0001");
    assert!(gone.exists());
    let (mut kills, mut recognised) = (0, 0);
    while gone.exists() && kills < 20 {
        // Killed when it has just begun, or a little later.
        relay.start_with(&["--ingest-cpus", "0", "--delivery-cpus", "1"]);
        thread::sleep(Duration::from_millis(40 * kills));
        recognised += relay.kill().matching(&["was moved to another spool"]).len();
        kills += 1;
    }
    assert_eq!(relay.queue().len(), MESSAGES, "after {kills} kills");
    relay.start_with(&["--ingest-cpus", "0", "--delivery-cpus", "1"]);
    let log = relay.log();
    let inbox = Inbox::bind(port.address(), |_| Answer::Accept);
    inbox.wait_for(MESSAGES, SOON * 4);
    relay.wait_empty();
    recognised += log.matching(&["was moved to another spool"]).len();
    println!("{kills} kills, {recognised} old copies recognised");
    assert_eq!(copies(&inbox, MESSAGES), vec![1; MESSAGES]);
    relay.stop();
    let mut left: Vec<_> = std::fs::read_dir(relay.spool())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("shard-"))
        .collect();
    left.sort();
    assert_eq!(left, ["shard-0000"]);
}
