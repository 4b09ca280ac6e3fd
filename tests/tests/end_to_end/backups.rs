//! The queue is copied while the relay works: under load, onto its own and onto another file system, and
//! through whatever goes wrong meanwhile.
//!
//! `SLUICE_BACKUPS=50 cargo test -p sluice-tests copies_under_load` takes fifty copies instead of eight.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_queue::{QueueId, SpoolNumber, inspect};
use sluice_tests::message::{number_of, numbered, without_received};
use sluice_tests::wait::{SOON, until_true};
use sluice_tests::{Answer, Client, Inbox, Relay, Step, heavy, is_root, skipped};

const CLIENTS: usize = 4;
/// A delivery that was answered so long before a copy must be known in it.
const SETTLED: Duration = Duration::from_secs(5);

fn copies() -> usize {
    std::env::var("SLUICE_BACKUPS").ok().and_then(|count| count.parse().ok()).unwrap_or(8)
}

/// Every fourth message is for somebody whose mailbox is not to be had now.
fn recipient(number: usize) -> &'static str {
    if number.is_multiple_of(4) { "stuck@inside.test" } else { "bob@inside.test" }
}

fn octets(number: usize) -> usize {
    match number % 16 {
        3 => 90_000,
        4 => 20_000,
        _ => 400 + number % 4000,
    }
}

fn stuck_inbox() -> Inbox {
    Inbox::scripted(|step| match step {
        Step::Rcpt(line) if line.contains("stuck") => Answer::Say("450 4.2.1 Not now".into()),
        _ => Answer::Accept,
    })
}

/// What waits is tried seldom, so that many copies are not the measure of many retries.
fn small_segments(inbox: &Inbox) -> Relay {
    let mut relay = Relay::builder().inward(inbox.address()).retry("30s", "1m", "1d").prepare();
    relay.edit_config("[spool]\n", "[spool]\nsegment_bytes = \"1MiB\"\n");
    relay.start();
    relay
}

/// Numbers of the messages in a copy, each held against what was sent.
fn contents(directory: &Path) -> HashSet<usize> {
    let mut numbers = HashSet::new();
    for shard in 0..2 {
        let spool = directory.join(format!("current/shard-{shard:04}"));
        if !spool.exists() {
            continue;
        }
        let copy = inspect(&spool, SpoolNumber::new(shard).unwrap()).expect("a readable copy");
        assert_eq!(copy.recovery.damages, [], "{}", spool.display());
        for id in copy.live(None, usize::MAX) {
            let octets = read(&copy, id);
            let number = number_of(without_received(&octets)).expect("an unspoilt message");
            assert!(numbers.insert(number), "message {number} is there twice");
        }
    }
    numbers
}

fn read(copy: &sluice_queue::Inspection, id: QueueId) -> Vec<u8> {
    let mut octets = Vec::new();
    loop {
        let more = copy.read(id, octets.len() as u64, usize::MAX).expect("readable");
        if more.is_empty() {
            return octets;
        }
        octets.extend(more);
    }
}

fn backup(relay: &Relay, directory: &Path) -> Value {
    let printed = relay.sluice_ok(&["queue", "backup", directory.to_str().unwrap(), "--json"]);
    serde_json::from_str(&printed).expect("JSON")
}

fn files(report: &Value, how: &str) -> u64 {
    report[how]["files"].as_u64().unwrap()
}

fn send(relay: &Relay, numbers: impl Iterator<Item = usize>) {
    let mut client = Client::hello(relay.outside());
    for number in numbers {
        let content = numbered(number, octets(number));
        client.send_message("x@away.test", &[recipient(number)], &content).expect(250, "2.0.0");
    }
    client.quit();
}

/// What the clients know.
#[derive(Default)]
struct Ledger {
    next: AtomicUsize,
    acknowledged: Mutex<Vec<usize>>,
    over: AtomicBool,
    /// Taken for writing while a copy is held against this, so that the load does not outgrow the check.
    gate: RwLock<()>,
}

/// Ends what runs beside a check, also when the check fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn load(relay: &Relay, ledger: &Ledger) {
    let mut client = Client::hello(relay.outside());
    while !ledger.over.load(Ordering::Relaxed) {
        let _open = ledger.gate.read().unwrap();
        let number = ledger.next.fetch_add(1, Ordering::Relaxed);
        let content = numbered(number, octets(number));
        client.send_message("x@away.test", &[recipient(number)], &content).expect(250, "2.0.0");
        ledger.acknowledged.lock().unwrap().push(number);
    }
    client.quit();
}

/// Numbers that the next hop has taken, with the time at which that was first seen here.
#[derive(Default)]
struct Seen {
    looked_at: usize,
    numbers: HashMap<usize, Instant>,
}

impl Seen {
    fn look_at(&mut self, inbox: &Inbox) {
        let (now, mut at) = (Instant::now(), 0);
        inbox.for_each(|got| {
            at += 1;
            if at > self.looked_at {
                let number = number_of(without_received(&got.content)).expect("unspoilt");
                self.numbers.entry(number).or_insert(now);
            }
        });
        self.looked_at = at;
    }
}

#[test]
fn copies_under_load_have_what_was_acknowledged_and_not_delivered() {
    let _quiet = heavy();
    let inbox = stuck_inbox();
    let mut relay = small_segments(&inbox);
    let here = tempfile::tempdir_in(relay.directory()).unwrap();
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let ledger = Ledger::default();
    let mut seen = Seen::default();
    let (mut kept, mut repeated, mut checked) = (0, 0, 0);
    let mut slowest = Duration::ZERO;
    thread::scope(|scope| {
        let _ends = Ends(&ledger.over);
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| load(&relay, &ledger))).collect();
        for round in 0..copies() {
            let goal = ledger.acknowledged.lock().unwrap().len() + 50 + round * 37 % 200;
            until_true(SOON * 2, "the round's messages", || {
                ledger.acknowledged.lock().unwrap().len() >= goal || clients.iter().any(|of| of.is_finished())
            });
            seen.look_at(&inbox);
            let before: Vec<usize> = ledger.acknowledged.lock().unwrap().clone();
            let called = Instant::now();
            let directory = if round % 2 == 0 { here.path() } else { elsewhere.path() };
            let report = backup(&relay, directory);
            slowest = slowest.max(called.elapsed());
            let _shut = ledger.gate.write().unwrap();
            seen.look_at(&inbox);
            let copy = contents(directory);
            let lost: Vec<_> = before
                .iter()
                .filter(|number| !copy.contains(number) && !seen.numbers.contains_key(number))
                .collect();
            assert!(lost.is_empty(), "copy {round}: acknowledged, not delivered and not in it: {lost:?}");
            let settled = |number: &&usize| seen.numbers.get(number).is_some_and(|at| *at + SETTLED < called);
            let back: Vec<_> = copy.iter().filter(settled).collect();
            assert!(back.is_empty(), "copy {round}: delivered long ago and in it: {back:?}");
            repeated +=
                copy.iter().filter(|number| seen.numbers.get(number).is_some_and(|at| *at < called)).count();
            checked += before.len();
            kept += files(&report, "kept");
            if round % 2 == 1 {
                assert_eq!(files(&report, "linked") + files(&report, "cloned"), 0, "{report}");
            } else if round > 0 {
                assert!(files(&report, "copied") <= 1, "only the tail: {report}");
            }
        }
    });
    let last = backup(&relay, here.path());
    let waiting = contents(here.path());
    // The files of the copy are not written over, however much the relay goes on to write.
    send(&relay, (1_000_000..1_000_400).filter(|number| number % 4 != 0));
    assert_eq!(contents(here.path()), waiting);
    println!(
        "{} copies of {} messages ({checked} held against them), slowest call {slowest:?}, {kept} segments kept from \
         the copy before, {repeated} deliveries of the last moment in them; the last: {last}",
        copies() + 1,
        ledger.acknowledged.lock().unwrap().len(),
    );
    assert!(kept > 0 && !waiting.is_empty());
    relay.stop();
    a_new_relay_delivers(&here.path().join("current"), &waiting);
}

/// The copy put in the place of a spool.
fn a_new_relay_delivers(spool: &Path, waiting: &HashSet<usize>) {
    let inbox = Inbox::start();
    let mut relay = Relay::builder().inward(inbox.address()).prepare();
    let copied = Command::new("cp").arg("-r").arg(spool.join(".")).arg(relay.spool()).status().unwrap();
    assert!(copied.success());
    relay.start();
    relay.wait_queue(0, SOON * 4);
    let mut seen = Seen::default();
    seen.look_at(&inbox);
    assert_eq!(seen.numbers.into_keys().collect::<HashSet<_>>(), *waiting);
}

#[test]
fn a_relay_killed_while_it_copies_leaves_the_former_copy_or_the_new_one() {
    let inbox = stuck_inbox();
    let mut relay = small_segments(&inbox);
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = directory.path();
    send(&relay, 0..100);
    inbox.wait_for(75, SOON);
    backup(&relay, path);
    let mut stuck: HashSet<usize> = (0..100).step_by(4).collect();
    assert_eq!(contents(path), stuck);
    let (mut former, mut new) = (0, 0);
    for round in 0..6 {
        let more = 1000 * (round + 1)..1000 * (round + 1) + 200;
        let before = stuck.clone();
        stuck.extend(more.clone().filter(|number| number % 4 == 0));
        send(&relay, more);
        let mut call = Command::new(sluice_tests::tools::built("sluice"))
            .args(["queue", "backup"])
            .arg(path)
            .arg("--config")
            .arg(relay.config())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Not an event to wait for: the kill is to meet the copying at a moment that nobody chose.
        thread::sleep(Duration::from_millis(10 + 9 * round as u64));
        relay.kill();
        let _ = call.wait();
        let found = contents(path);
        let stuck_in =
            |found: &HashSet<usize>| found.iter().copied().filter(|n| n % 4 == 0).collect::<HashSet<_>>();
        match stuck_in(&found) {
            found if found == stuck => new += 1,
            found if found == before => former += 1,
            other => panic!("neither the former copy nor the new one: {} messages", other.len()),
        }
        relay.start();
        backup(&relay, path);
        assert!(contents(path).is_superset(&stuck));
        assert_eq!(generations(path), 1);
    }
    println!(
        "killed six times while it copied: {former} times the former copy counts, {new} times the new one"
    );
}

fn generations(directory: &Path) -> usize {
    let names = std::fs::read_dir(directory).unwrap().flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_str().is_some_and(|name| name.starts_with("generation-"))).count()
}

#[test]
fn a_caller_that_goes_away_takes_the_backup_with_it() {
    let inbox = stuck_inbox();
    let relay = small_segments(&inbox);
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    send(&relay, 0..300);
    for delay in [0, 3, 9, 20] {
        let mut call = Command::new(sluice_tests::tools::built("sluice"))
            .args(["queue", "backup"])
            .arg(directory.path())
            .arg("--config")
            .arg(relay.config())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(delay));
        let _ = call.kill();
        let _ = call.wait();
        until_true(SOON, "another backup is taken", || {
            let arguments = ["queue", "backup", directory.path().to_str().unwrap()];
            relay.sluice(&arguments).status.success()
        });
        assert_eq!(generations(directory.path()), 1);
    }
    assert!(contents(directory.path()).is_superset(&(0..300).step_by(4).collect()));
}

/// A file system of its own, unmounted and gone with this.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(arguments: &[&str]) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(arguments).arg(directory.path()).output().ok()?;
        mounted.status.success().then_some(Self(directory))
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(self.0.path()).status();
    }
}

#[test]
fn a_destination_without_room_keeps_the_former_copy() {
    if !is_root() {
        return skipped("only root may mount a small file system");
    }
    let Some(mount) = Mount::new(&["-t", "tmpfs", "-o", "size=2m", "tmpfs"]) else {
        return skipped("no tmpfs can be mounted here");
    };
    let inbox = stuck_inbox();
    let relay = small_segments(&inbox);
    let path = mount.path();
    send(&relay, 0..40);
    backup(&relay, &path);
    let former = contents(&path);
    send(&relay, 40..400);
    let full = relay.sluice(&["queue", "backup", path.to_str().unwrap()]);
    let words = String::from_utf8_lossy(&full.stderr).into_owned();
    assert_eq!(full.status.code(), Some(74), "{words}");
    assert!(words.contains("No space left on device") && words.contains("generation-000002"), "{words}");
    assert_eq!((contents(&path), generations(&path)), (former, 1));
    assert!(relay.log().find_within(SOON, &["backup to", "No space left"]).is_some());
    send(&relay, 400..404);
}

#[test]
fn what_is_no_place_for_a_backup_is_refused_in_words() {
    let inbox = stuck_inbox();
    let mut relay = small_segments(&inbox);
    send(&relay, 0..8);
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("letter.txt"), "dear").unwrap();
    let spool = relay.spool();
    let within = spool.join("copy");
    let missing = other.path().join("not/there");
    let check = |relay: &Relay| {
        for (directory, code, part) in [
            (within.as_path(), 74, "lies in the spool"),
            (spool.as_path(), 74, "lies in the spool"),
            (other.path(), 74, "is not empty and no backup (there is \"letter.txt\")"),
            (missing.as_path(), 74, "No such file or directory"),
        ] {
            let refused = relay.sluice(&["queue", "backup", directory.to_str().unwrap()]);
            let words = String::from_utf8_lossy(&refused.stderr);
            assert!(refused.status.code() == Some(code) && words.contains(part), "{directory:?}: {words}");
        }
    };
    check(&relay);
    relay.stop();
    check(&relay);
    assert!(!within.exists());
}

#[test]
fn a_stopped_spool_is_copied_by_the_command_itself_and_the_copy_is_listed_like_one() {
    let inbox = stuck_inbox();
    let mut relay = small_segments(&inbox);
    send(&relay, 0..40);
    let here = tempfile::tempdir_in(relay.directory()).unwrap();
    let live = backup(&relay, here.path());
    assert_eq!(live["live"], true);
    let ids = relay.wait_queue(10, SOON);
    relay.kill();
    let stopped = backup(&relay, here.path());
    assert_eq!((stopped["live"].as_bool(), stopped["messages"].as_u64()), (Some(false), Some(10)));
    assert_eq!(contents(here.path()), (0..40).step_by(4).collect());
    let listing = Command::new(sluice_tests::tools::built("sluice"))
        .args(["queue", "list", "--spool"])
        .arg(here.path())
        .output()
        .unwrap();
    let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
    assert!(ids.iter().all(|id| listing.contains(id)), "{listing}");
    relay.start();
    let words = relay.sluice_ok(&["queue", "backup", here.path().to_str().unwrap()]);
    assert!(words.contains("10 messages wait in it"), "{words}");
    // Only who may open the socket may copy.
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(here.path().join("current")), 0o700);
    assert_eq!(mode(here.path().join("current/manifest")), 0o600);
}

#[test]
fn where_the_file_system_can_files_are_cloned() {
    if !is_root() || sluice_tests::lacks("mkfs.xfs") {
        return skipped("cloning needs root and xfsprogs");
    }
    let images = tempfile::tempdir().unwrap();
    let image = images.path().join("xfs");
    std::fs::File::create(&image).unwrap().set_len(16 << 30).unwrap();
    let made = Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image).output().unwrap();
    let mounted =
        made.status.success().then(|| Mount::new(&["-o", "loop", image.to_str().unwrap()])).flatten();
    let Some(mount) = mounted else {
        return skipped("no XFS can be mounted here");
    };
    let inbox = stuck_inbox();
    let mut relay = Relay::builder().inward(inbox.address()).retry("30s", "1m", "1d").prepare();
    let spool = mount.path().join("spool");
    relay.edit_config(relay.spool().to_str().unwrap(), spool.to_str().unwrap());
    relay.edit_config("[spool]\n", "[spool]\nsegment_bytes = \"1MiB\"\n");
    relay.start();
    let directory = mount.path().join("copy");
    send(&relay, 0..300);
    let report = backup(&relay, &directory);
    assert!(files(&report, "cloned") > 0 && files(&report, "linked") == 0, "{report}");
    // Nothing has changed: what is sealed stays.
    let report = backup(&relay, &directory);
    assert!(files(&report, "kept") > 0 && files(&report, "cloned") == 0, "{report}");
    println!("XFS: {report}");
    let before = contents(&directory);
    assert!(before.is_superset(&(0..300).step_by(4).collect()));
    send(&relay, 300..600);
    assert_eq!(contents(&directory), before);
    backup(&relay, &directory);
    assert!(contents(&directory).is_superset(&(0..600).step_by(4).collect()));
    relay.stop();
}

/// Times from end-of-data to 250, in microseconds, of `CLIENTS` sessions during `span`.
fn acceptance(relay: &Relay, span: Duration) -> Vec<u128> {
    let end = Instant::now() + span;
    let session = || {
        let mut client = Client::hello(relay.outside());
        let (content, mut times) = (numbered(1, 4096), Vec::new());
        while Instant::now() < end {
            client.open_data("x@away.test", &["bob@inside.test"]);
            let octets = sluice_tests::message::dot_stuffed(&content);
            let sent = Instant::now();
            client.send(&octets);
            client.reply().expect(250, "2.0.0");
            times.push(sent.elapsed().as_micros());
        }
        client.quit();
        times
    };
    let mut times: Vec<u128> = thread::scope(|scope| {
        let sessions: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(session)).collect();
        sessions.into_iter().flat_map(|of| of.join().unwrap()).collect()
    });
    times.sort_unstable();
    times
}

/// What a backup costs the mail: `cargo test -p sluice-tests acceptance_beside -- --ignored --show-output`.
#[test]
#[ignore = "measures; wants the machine for itself"]
fn acceptance_beside_backups_that_follow_each_other() {
    const SPAN: Duration = Duration::from_secs(6);
    let _quiet = heavy();
    let inbox = stuck_inbox();
    let mut relay = Relay::builder().inward(inbox.address()).retry("1s", "2s", "1d").prepare();
    relay.edit_config("[spool]\n", "[spool]\nsegment_bytes = \"16MiB\"\n");
    relay.start();
    send(&relay, 0..4000);
    let here = tempfile::tempdir_in(relay.directory()).unwrap();
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let show = |what: &str, times: &[u128], copies: usize| {
        let at = |part: usize| times[(times.len() - 1) * part / 1000];
        println!(
            "{what}: {} messages, p50 {} us, p99 {} us, p99.9 {} us, longest {} us; {copies} copies",
            times.len(),
            at(500),
            at(990),
            at(999),
            at(1000)
        );
    };
    show("no backup", &acceptance(&relay, SPAN), 0);
    for (what, directory, pause) in [
        ("links, one a second", here.path(), 1000),
        ("links, without a pause", here.path(), 0),
        ("copies to another file system, one a second", elsewhere.path(), 1000),
        ("copies to another file system, without a pause", elsewhere.path(), 0),
    ] {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let copies = scope.spawn(|| {
                let mut copies = 0;
                while !over.load(Ordering::Relaxed) {
                    backup(&relay, directory);
                    copies += 1;
                    thread::sleep(Duration::from_millis(pause));
                }
                copies
            });
            let ends = Ends(&over);
            let times = acceptance(&relay, SPAN);
            drop(ends);
            show(what, &times, copies.join().unwrap());
        });
    }
    show("no backup", &acceptance(&relay, SPAN), 0);
}
