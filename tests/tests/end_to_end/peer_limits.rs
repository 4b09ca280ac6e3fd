//! What a next hop says of its limits (RFC 9422), and how long a connection is used.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use sluice_tests::message::message;
use sluice_tests::wait::SOON;
use sluice_tests::{Answer, Client, Inbox, Relay, Step};

fn limited(limits: &'static str) -> Inbox {
    Inbox::scripted(move |step| match step {
        Step::Hello(_) => Answer::Say(format!(
            "250-inbox.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-LIMITS {limits}\r\n250 SIZE 1000000"
        )),
        _ => Answer::Accept,
    })
}

/// RFC 9422 section 4.
#[test]
fn a_peer_gets_no_more_than_its_limits_allow() {
    let inbox = limited("MAILMAX=3 RCPTMAX=4 RCPTDOMAINMAX=1");
    let relay =
        Relay::builder().outward(inbox.address()).section("[delivery]\nconnections_max = 1\n").start();
    let mut client = Client::hello(relay.inside());
    let to: Vec<String> =
        (0..20).map(|number| format!("r{number}@{}.test", ["one", "two", "three"][number % 3])).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    for subject in ["first", "second"] {
        client.send_message("bob@inside.test", &to, &message(subject, "x\r\n")).expect(250, "2.0.0");
    }
    relay.wait_empty();
    let got = inbox.transactions();
    // 7, 7 and 6 recipients of three domains, at most 4 at once: two transactions each.
    assert_eq!(got.len(), 2 * 6, "{got:?}");
    for subject in ["first", "second"] {
        let mut seen: Vec<&String> = got
            .iter()
            .filter(|one| String::from_utf8_lossy(&one.content).contains(subject))
            .flat_map(|one| &one.to)
            .collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 20, "each recipient once");
    }
    assert_eq!(got.iter().map(|one| one.to.len()).sum::<usize>(), 40);
    for one in &got {
        let domains: HashSet<&str> =
            one.to.iter().filter_map(|to| to.split_once('@')).map(|to| to.1).collect();
        assert!(domains.len() == 1 && one.to.len() <= 4, "{one:?}");
    }
    for session in 0..inbox.sessions() {
        assert!(got.iter().filter(|one| one.session == session).count() <= 3, "session {session}");
    }
    assert!(inbox.sessions() >= 4, "{}", inbox.sessions());
}

/// Also a backup host that is asked for what the first one puts off.
#[test]
fn a_backup_host_gets_no_more_than_its_limits_allow() {
    let first = Inbox::scripted(|step| match step {
        Step::Rcpt(_) => Answer::Say("450 4.2.0 Later".into()),
        _ => Answer::Accept,
    });
    let backup = limited("RCPTMAX=2 MAILMAX=2");
    let hosts = [first.address(), backup.address()];
    let relay = Relay::builder().smart_hosts(&["*"], &hosts).start();
    let to: Vec<String> = (0..7).map(|number| format!("r{number}@away.test")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    Client::hello(relay.inside())
        .send_message("bob@inside.test", &to, &message("backup", "x\r\n"))
        .expect(250, "2.0.0");
    relay.wait_empty();
    let got = backup.transactions();
    assert_eq!(got.iter().map(|one| one.to.len()).collect::<Vec<_>>(), [2, 2, 2, 1]);
    assert_eq!(got.iter().map(|one| one.session).collect::<Vec<_>>(), [0, 0, 1, 1]);
    assert_eq!(backup.recipients().len(), 7);
    assert_eq!(first.len(), 0);
}

#[test]
fn a_connection_that_has_grown_old_takes_no_further_message() {
    let inbox = Inbox::start();
    let delivery = "[delivery]\nidle = \"1h\"\nconnection_age_max = \"2s\"\n";
    let relay = Relay::builder().inward(inbox.address()).section(delivery).start();
    let mut client = Client::hello(relay.outside());
    let mut send = |subject: &str| {
        client
            .send_message("x@away.test", &["bob@inside.test"], &message(subject, "x\r\n"))
            .expect(250, "2.0.0");
    };
    send("one");
    inbox.wait_for(1, SOON);
    // Unused as it is it would be kept for an hour.
    inbox.wait_command("QUIT", Duration::from_secs(20));
    send("two");
    let sessions: Vec<usize> = inbox.wait_for(2, SOON).iter().map(|one| one.session).collect();
    assert_eq!(sessions, [0, 1]);
}

/// Without LIMITS a peer says so at MAIL, as OpenSMTPD does: nobody's mail waits for that.
#[test]
fn a_peer_that_takes_no_more_over_one_connection_gets_another_one() {
    let taken = AtomicUsize::new(0);
    let inbox = Inbox::scripted(move |step| match step {
        Step::Connect => {
            taken.store(0, Relaxed);
            Answer::Accept
        }
        Step::Mail(_) if taken.fetch_add(1, Relaxed) >= 2 => {
            Answer::Say("452 4.5.3 Too many messages sent".into())
        }
        _ => Answer::Accept,
    });
    let relay =
        Relay::builder().outward(inbox.address()).section("[delivery]\nconnections_max = 1\n").start();
    let mut client = Client::hello(relay.inside());
    for number in 0..7 {
        let to = format!("r{number}@away.test");
        client.send_message("bob@inside.test", &[&to], &message("one", "x\r\n")).expect(250, "2.0.0");
    }
    relay.wait_empty();
    assert_eq!(inbox.transactions().len(), 7);
    assert!(inbox.sessions() >= 4, "{}", inbox.sessions());
    let log = relay.log();
    assert_eq!(log.matching(&["status=deferred"]), [""; 0], "{}", log.text());
}
