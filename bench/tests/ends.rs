//! Generator and sink as programs, against each other.

use sluice_bench::{sink, source};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sluice-bench");

struct Sink {
    child: Child,
    errors: BufReader<std::process::ChildStderr>,
    address: String,
}

impl Sink {
    fn start(arguments: &[&str]) -> Sink {
        let mut child = Command::new(PROGRAM)
            .args(["sink", "--bind", "127.0.0.1:0", "--seconds", "60"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        errors.read_line(&mut line).unwrap();
        let address =
            line.trim().strip_prefix("sink: listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Sink { child, errors, address }
    }

    fn source(&self, arguments: &[&str]) -> (source::Report, bool) {
        let Output { status, stdout, stderr } = Command::new(PROGRAM)
            .args(["source", "--json", "--target", &self.address])
            .args(arguments)
            .output()
            .unwrap();
        let report = serde_json::from_slice(&stdout);
        (report.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&stderr))), status.success())
    }

    fn end(mut self) -> (sink::Report, bool) {
        let killed =
            Command::new("/bin/sh").args(["-c", "kill -TERM \"$0\"", &self.child.id().to_string()]).status();
        assert!(killed.unwrap().success());
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let mut rest = String::new();
        self.errors.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        (serde_json::from_str(&text).unwrap(), self.child.wait().unwrap().success())
    }
}

#[test]
fn every_message_arrives_intact_in_every_mode() {
    let modes: [&[&str]; 6] = [
        &["--dots"],
        &["--pipeline", "false", "--dots"],
        &["--messages-per-connection", "1"],
        &["--recipients", "7", "--sessions", "3"],
        &["--size", "200000", "--dots", "--sessions", "5"],
        &["--rate", "1000", "--size", "1"],
    ];
    let sink = Sink::start(&[]);
    for mode in modes {
        let (report, success) = sink.source(&[&["--messages", "100"], mode].concat());
        assert!(success && report.failures.is_empty(), "{mode:?}: {report:?}");
        assert_eq!((report.accepted, report.failed, report.not_sent), (100, 0, 0), "{mode:?}");
        assert_eq!((report.end_of_data.count, report.transaction.count), (100, 100), "{mode:?}");
        assert_eq!(report.connect.count, report.connections, "{mode:?}");
    }
    let (report, success) = sink.end();
    assert!(success);
    let all = 100 * modes.len() as u64;
    assert_eq!((report.messages, report.intact, report.distinct), (all, all, all));
    assert_eq!((report.damaged, report.unchecked, report.repeats, report.parts), (0, 0, 0, 0));
    assert_eq!((report.protocol_errors, report.broken_off), (0, 0));
    assert_eq!(report.recipients, all + 600);
}

#[test]
fn refusals_are_counted_on_both_sides_and_fail_the_run() {
    for pipeline in ["true", "false"] {
        let refusals = ["mail:451/10", "rcpt:550/7", "data:452/9", "dot:554/8"];
        let sink = Sink::start(&refusals.map(|rule| ["--refuse", rule]).concat());
        let (sent, success) = sink.source(&["--messages", "200", "--pipeline", pipeline, "--sessions", "4"]);
        let (got, _) = sink.end();
        assert!(!success);
        assert_eq!(
            (sent.accepted + sent.failed, got.messages, got.intact),
            (200, sent.accepted, sent.accepted)
        );
        let counts: Vec<_> =
            sent.failures.iter().map(|(kind, failure)| (kind.clone(), failure.count)).collect();
        assert_eq!(counts, got.refused.into_iter().collect::<Vec<_>>(), "pipeline {pipeline}");
        assert_eq!(counts.len(), 4);
        assert_eq!(got.protocol_errors, 0);
    }
}

#[test]
fn the_same_run_sent_twice_is_repeats_and_fails_the_sink() {
    let sink = Sink::start(&[]);
    for _ in 0..2 {
        sink.source(&["--messages", "10", "--run", "abc"]);
    }
    let (report, success) = sink.end();
    assert_eq!((report.intact, report.distinct, report.repeats, success), (20, 10, 10, false));
}

#[test]
fn open_loop_latency_counts_from_when_a_message_was_due() {
    // 50 ms an answer and 3 answers a message: one session can do 6 a second, 100 are asked for.
    let sink = Sink::start(&["--delay-reply", "50ms"]);
    let (report, _) = sink.source(&["--messages", "10", "--rate", "100", "--sessions", "1"]);
    sink.end();
    assert!(report.transaction.max_ms > 900.0, "{report:?}");
    assert!(report.lag.max_ms > 800.0, "{report:?}");
    assert!(report.end_of_data.max_ms < 500.0, "{report:?}");
}

#[test]
fn a_server_that_is_not_there_fails_the_run() {
    let sink = Sink::start(&[]);
    let address = sink.address.clone();
    sink.end();
    let output =
        Command::new(PROGRAM).args(["source", "--json", "--messages", "5", "--target", &address]).output();
    let output = output.unwrap();
    let report: source::Report = serde_json::from_slice(&output.stdout).unwrap();
    assert!(!output.status.success());
    assert_eq!((report.accepted, report.failures["connect ConnectionRefused"].count), (0, report.failed));
}

#[test]
fn messages_of_mixed_sizes_come_by_tls_with_full_and_with_resumed_handshakes() {
    let directory = tempfile::tempdir().unwrap();
    let made = sluice_bench::servers::Certificate::create(directory.path(), "ec:P-256").unwrap();
    let (certificate, key) = (made.certificate.to_str().unwrap(), made.key.to_str().unwrap());
    // One session is before all messages.
    for (resume, full, resumed) in [("false", 40, 0), ("true", 1, 40)] {
        let sink = Sink::start(&["--tls-certificate", certificate, "--tls-key", key]);
        let (report, success) = sink.source(&[
            "--messages",
            "40",
            "--messages-per-connection",
            "1",
            "--sessions",
            "4",
            "--sizes",
            "1024:7,40000:3",
            "--starttls",
            certificate,
            "--tls-name",
            sluice_bench::servers::NAME,
            "--tls-resume",
            resume,
        ]);
        assert!(success, "{report:?}");
        assert_eq!((report.handshakes_full, report.handshakes_resumed), (40 - resumed, resumed));
        assert_eq!(report.resumed_share(), Some(resumed as f64 / 40.0));
        let (report, success) = sink.end();
        assert!(success);
        assert_eq!((report.intact, report.handshakes_failed), (40, 0));
        assert_eq!((report.handshakes_full, report.handshakes_resumed), (full, resumed), "resume {resume}");
        assert!(report.octets > 40 * 1024 && report.octets < 40 * 40_000, "{}", report.octets);
    }
}

#[test]
fn the_sink_announces_when_so_many_recipients_have_come() {
    use std::io::Write as _;
    let mut child = Command::new(PROGRAM)
        .args(["sink", "--bind", "127.0.0.1:0", "--seconds", "60", "--announce", "recipients"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut numbers = child.stdin.take().unwrap();
    let mut times = BufReader::new(child.stdout.take().unwrap());
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    errors.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("sink: listening on ").unwrap().to_owned();
    let sink = Sink { child, errors, address };
    let mut last = 0;
    for all in [30, 60] {
        writeln!(numbers, "{all}").unwrap();
        let (report, success) = sink.source(&["--messages", "10", "--recipients", "3"]);
        assert!(success);
        let mut time = String::new();
        times.read_line(&mut time).unwrap();
        let time: u64 = time.trim().parse().unwrap();
        assert!(time > report.started_unix_nanos && time > last, "{time}");
        last = time;
    }
    let mut sink = sink;
    sink.child.kill().unwrap();
    sink.child.wait().unwrap();
}

#[test]
fn the_bare_program_moves_every_message_whole_and_lets_its_port_go() {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        println!("SKIPPED: the bare program wants two CPUs");
        return;
    }
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let mut sink = Sink::start(&["--expect", "400"]);
    let mut bare = Command::new(PROGRAM)
        .args(["bare", "--bind", &address.to_string(), "--next", &sink.address, "--dir"])
        .arg(directory.path())
        .spawn()
        .unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while std::net::TcpStream::connect(address).is_err() {
        assert!(std::time::Instant::now() < until && bare.try_wait().unwrap().is_none());
    }
    let output = Command::new(PROGRAM)
        .args(["source", "--target", &address.to_string(), "--messages", "400", "--sizes", "1024:1,100000:1"])
        .args(["--dots", "--messages-per-connection", "10"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let mut text = String::new();
    sink.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(sink.child.wait().unwrap().success(), "{text}");
    let report: sink::Report = serde_json::from_str(&text).unwrap();
    assert_eq!((report.distinct, report.damaged, report.repeats), (400, 0, 0));
    let killed =
        Command::new("/bin/sh").args(["-c", "kill -TERM \"$0\"", &bare.id().to_string()]).status().unwrap();
    assert!(killed.success() && bare.wait().unwrap().success());
    // As a server binds: SO_REUSEADDR, not SO_REUSEPORT.
    std::net::TcpListener::bind(address).unwrap();
}
