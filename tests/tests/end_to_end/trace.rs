//! `sluice trace`: dialogues of sessions while they go on.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use sluice_tests::log::Log;
use sluice_tests::tools::built;
use sluice_tests::wait::{self, SOON};
use sluice_tests::{Client, Inbox, Relay};

/// A trace that runs until it is dropped or ends by itself.
struct Trace {
    child: Child,
    lines: Log,
}

impl Trace {
    fn start(relay: &Relay, arguments: &[&str]) -> Self {
        let mut child = Command::new(built("sluice"))
            .arg("trace")
            .args(arguments)
            .arg("--config")
            .arg(relay.config())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a trace");
        let (lines, _) = Log::follow(child.stdout.take().expect("piped"));
        lines.wait_for(SOON, &["-- trace of sessions with"]);
        Self { child, lines }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn greeted(last: u8, relay: &Relay) -> Client {
    let (client, greeting) =
        Client::try_connect_from(Ipv4Addr::new(127, 0, 0, last), relay.outside()).expect("a connection");
    greeting.expect(220, "");
    client
}

#[test]
fn dialogues_of_matching_sessions_are_shown_and_secrets_are_not() {
    let inbox = Inbox::start();
    let relay = Relay::builder().inward(inbox.address()).cpus("0,1", "1").start();
    let mut open = greeted(2, &relay);
    let one = Trace::start(&relay, &["--client", "127.0.0.2"]);
    let all = Trace::start(&relay, &["--client", "127.0.0.0/8", "--listener", "inside"]);
    // Also a session that was open before.
    open.command("EHLO early.test").expect(250, "");
    open.command("AUTH PLAIN AGpvZQBzZWNyZXQ=");
    open.command("c2VjcmV0");
    open.open_data("x@away.test", &["bob@inside.test"]);
    open.send(b"Subject: secret\r\n\r\nx\r\n.\r\n");
    open.reply().expect(250, "2.0.0");
    let mut other = greeted(3, &relay);
    other.command("EHLO other.test").expect(250, "");
    other.quit();
    open.quit();
    one.lines.wait_for(SOON, &["[127.0.0.2] -- closed"]);
    for part in [
        "[127.0.0.2] -- session on listener outside",
        "C: EHLO early.test",
        "S: 250-PIPELINING",
        "C: AUTH PLAIN ****",
        "C: (8 octets, no command)",
        "C: MAIL FROM:<x@away.test>",
        "S: 354 ",
        "C: (25 octets of content)",
        "S: 250 2.0.0 Ok: queued as ",
        "C: QUIT",
        "S: 221 ",
    ] {
        assert!(!one.lines.matching(&[part]).is_empty(), "{part}:\n{}", one.lines.text());
    }
    let text = one.lines.text();
    for part in ["AGpvZQ", "c2Vj", "secret", "other.test"] {
        assert!(!text.contains(part), "{part}:\n{text}");
    }
    let inside = Client::hello(relay.inside());
    all.lines.wait_for(SOON, &["C: EHLO client.test"]);
    assert!(!all.lines.text().contains("early.test"), "{}", all.lines.text());
    drop(inside);
}

#[test]
fn a_trace_ends_with_its_time_its_reader_or_its_relay() {
    let inbox = Inbox::start();
    let mut relay = Relay::builder().inward(inbox.address()).start();
    let mut timed = Trace::start(&relay, &["--client", "::/0", "--for", "1s"]);
    let status = sluice_tests::process::exit_within(&mut timed.child, SOON).expect("an end");
    assert!(status.success(), "{status}");
    // Eight at a time; those that were ended make room.
    let eight: Vec<Trace> = (0..8).map(|_| Trace::start(&relay, &["--client", "127.0.0.9"])).collect();
    let ninth = relay.sluice(&["trace", "--client", "127.0.0.9"]);
    assert_eq!(ninth.status.code(), Some(69), "{ninth:?}");
    drop(eight);
    wait::until_true(SOON, "a place for another trace", || {
        relay.sluice(&["trace", "--client", "127.0.0.9", "--for", "1s"]).status.success()
    });
    for (arguments, code) in [
        (&["trace", "--client", "127.0.0.1/8"][..], 64),
        (&["trace", "--client", "127.0.0.1", "--for", "1"], 64),
        (&["trace", "--client", "127.0.0.1", "--listener", "none"], 69),
    ] {
        let output = relay.sluice(arguments);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
    let mut last = Trace::start(&relay, &["--client", "0.0.0.0/0"]);
    relay.stop();
    assert!(sluice_tests::process::exit_within(&mut last.child, SOON).is_some(), "it ends with the relay");
    assert_eq!(relay.sluice(&["trace", "--client", "127.0.0.1"]).status.code(), Some(69), "no relay");
}
