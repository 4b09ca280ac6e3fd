//! Cut-through: the internal server's own word reaches the client, and the spool stands in when there is none.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sluice_tests::ledger::rounds;
use sluice_tests::log::queue_ids;
use sluice_tests::message::{assert_same, message, without_received};
use sluice_tests::tools::swaks;
use sluice_tests::wait::{SOON, until_true};
use sluice_tests::{Answer, Client, Inbox, Ledger, Port, Postfix, Relay, RelayBuilder, Step, heavy, lacks};

/// Listener and route as wished, with a wait that a test can bear.
fn relay(mode: &str, host: std::net::SocketAddr, route: &str) -> RelayBuilder {
    Relay::builder()
        .outside_listener(&format!("cut_through = \"{mode}\""))
        .route(&format!(
            "domains = [\"inside.test\"]\nhosts = [\"{host}\"]\ncut_through = \"message\"\n{route}"
        ))
        .outward(host)
}

fn queue_id(reply: &str) -> String {
    queue_ids(reply).pop().unwrap_or_else(|| panic!("no queue id in {reply}"))
}

fn mail(client: &mut Client, sender: &str) {
    client.command(&format!("MAIL FROM:<{sender}>")).expect(250, "2.1.0");
}

fn rcpts(inbox: &Inbox, part: &str) -> usize {
    let of = |line: &String| line.starts_with("RCPT TO:") && line.contains(part);
    inbox.commands().iter().filter(|line| of(line)).count()
}

#[test]
fn an_unknown_mailbox_of_postfix_is_refused_at_rcpt_in_its_own_words() {
    if Postfix::is_missing() {
        return;
    }
    let internal = Postfix::start("mail.inside.test", &["bob@inside.test"], None);
    let relay = relay("recipients", internal.address(), "").start();
    let mut client = Client::hello(relay.outside());
    mail(&mut client, "x@away.test");
    let refused = client.command("RCPT TO:<nobody@inside.test>").expect(550, "5.1.1");
    let own = "<nobody@inside.test>: Recipient address rejected: User unknown in virtual mailbox table";
    assert!(refused.text().contains(own), "{}", refused.text());
    client.command("RSET").expect(250, "2.0.0");
    client.send_message("x@away.test", &["bob@inside.test"], &message("known", "x\r\n")).expect(250, "2.0.0");
    internal.maildir("bob@inside.test").wait_for(1, SOON);
    relay.wait_empty();
    relay.log().wait_for(SOON, &["NOQUEUE: reject: RCPT from", "550 5.1.1 <nobody@inside.test>:", own]);
    assert!(relay.log().matching(&["sender notification"]).is_empty());
    if !lacks("swaks") {
        let (sent, dialogue) = swaks(relay.outside(), "x@away.test", "nobody@inside.test", &[]);
        assert!(!sent && dialogue.contains(own), "{dialogue}");
    }
}

#[test]
fn what_postfix_refuses_for_its_content_is_refused_at_its_end_and_no_dsn_is_made() {
    if Postfix::is_missing() {
        return;
    }
    let internal = Postfix::start("mail.inside.test", &["bob@inside.test", "eve@inside.test"], None);
    internal.configure("header_checks = regexp:{{/^Subject: evil/ REJECT 5.7.1 No evil here}}");
    let relay = relay("message", internal.address(), "").start();
    let mut client = Client::hello(relay.outside());
    let refused = client
        .send_message("x@away.test", &["bob@inside.test", "eve@inside.test"], &message("evil", "x\r\n"))
        .expect(550, "5.7.1");
    assert!(refused.text().contains("No evil here"), "{}", refused.text());
    let taken = client
        .send_message("x@away.test", &["bob@inside.test", "eve@inside.test"], &message("good", "x\r\n"))
        .expect(250, "2.0.0");
    let id = queue_id(&taken.text());
    assert_eq!(internal.maildir("eve@inside.test").wait_for(1, SOON).len(), 1);
    for mailbox in ["bob@inside.test", "eve@inside.test"] {
        let line =
            relay.log().wait_for(SOON, &[&id, &format!("to=<{mailbox}>"), "status=sent (cut-through: 250"]);
        assert!(line.contains(&format!("[127.0.0.1]:{}", internal.address().port())), "{line}");
    }
    relay.log().wait_for(SOON, &[&id, "from=<x@away.test>", "nrcpt=2"]);
    relay.log().wait_for(SOON, &["reject: END-OF-MESSAGE", "No evil here", "from=<x@away.test>"]);
    assert_eq!(relay.queue(), Vec::<String>::new());
    assert!(relay.log().matching(&["sender notification"]).is_empty());
}

#[test]
fn answers_are_kept_and_the_same_question_is_asked_once_at_a_time() {
    let inbox = Inbox::scripted(|step| match step {
        Step::Rcpt(line) if line.contains("nobody") => {
            thread::sleep(Duration::from_millis(300));
            Answer::Say("550 5.1.1 No such user".into())
        }
        Step::Rcpt(line) if line.contains("busy") => Answer::Say("450 4.2.1 Busy".into()),
        _ => Answer::Accept,
    });
    let relay = relay("recipients", inbox.address(), "")
        .section("[cut_through]\nnegative_expire = \"2s\"")
        .cpus("0,1", "1")
        .start();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::hello(relay.outside());
                mail(&mut client, "x@away.test");
                client.command("RCPT TO:<nobody@inside.test>").expect(550, "5.1.1");
                client.command("RCPT TO:<bob@inside.test>").expect(250, "2.1.5");
                client.command("RCPT TO:<bob@INSIDE.test>").expect(250, "2.1.5");
                client.command("RCPT TO:<busy@inside.test>").expect(250, "2.1.5");
            });
        }
    });
    let asked = ["nobody", "bob", "busy"].map(|part| rcpts(&inbox, part));
    assert_eq!(asked, [1, 1, 1], "{:?}", inbox.commands());
    assert!(
        inbox.commands().iter().all(|line| !line.starts_with("MAIL") || line.starts_with("MAIL FROM:<>"))
    );
    assert!(inbox.commands().iter().all(|line| line != "DATA"));
    let began = Instant::now();
    until_true(SOON, "the refusal is asked for anew", || {
        let mut client = Client::hello(relay.outside());
        mail(&mut client, "x@away.test");
        client.command("RCPT TO:<nobody@inside.test>").expect(550, "5.1.1");
        rcpts(&inbox, "nobody") == 2
    });
    assert!(began.elapsed() > Duration::from_millis(500));
    assert_eq!(rcpts(&inbox, "bob"), 1);
}

#[test]
fn a_stopped_internal_server_costs_no_mail_or_defers_as_the_route_says() {
    let port = Port::reserve();
    let accepting = relay("message", port.address(), "cut_through_wait = \"2s\"").start();
    let deferring = relay("message", port.address(), "cut_through_undecided = \"defer\"").start();
    let mut client = Client::hello(accepting.outside());
    let content = message("queued", "x\r\n");
    let began = Instant::now();
    client.send_message("x@away.test", &["bob@inside.test"], &content).expect(250, "2.0.0");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    let mut client = Client::hello(deferring.outside());
    mail(&mut client, "x@away.test");
    client.command("RCPT TO:<bob@inside.test>").expect(450, "4.4.1");
    client.command("RCPT TO:<Postmaster>").expect(250, "2.1.5");
    let inbox = Inbox::bind(port.address(), |_| Answer::Accept);
    assert_same(without_received(&inbox.wait_for(1, SOON * 2)[0].content), &content);
    accepting.wait_empty();
    until_true(SOON, "the recipient can be checked again", || {
        client.command("RCPT TO:<bob@inside.test>").code == 250
    });
}

#[test]
fn a_slow_internal_server_does_not_hold_the_client_and_gets_the_message_once() {
    let slow = Duration::from_secs(3);
    let inbox = Inbox::scripted(move |step| match step {
        Step::EndOfData(of) if of.from == "late-no@away.test" => {
            thread::sleep(slow);
            Answer::Say("554 5.7.1 On second thoughts no".into())
        }
        Step::EndOfData(of) if of.from.ends_with("@away.test") => {
            thread::sleep(slow);
            Answer::Accept
        }
        _ => Answer::Accept,
    });
    let relay = relay("message", inbox.address(), "cut_through_wait = \"1s\"").start();
    for (sender, disposition) in [("late-yes@away.test", "sent"), ("late-no@away.test", "bounced")] {
        let mut client = Client::hello(relay.outside());
        let began = Instant::now();
        let said =
            client.send_message(sender, &["bob@inside.test"], &message(sender, "x\r\n")).expect(250, "2.0.0");
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(900) && took < slow, "{took:?}");
        let id = queue_id(&said.text());
        relay.log().wait_for(SOON, &[&id, "queued, and its answer waited for"]);
        relay.log().wait_for(SOON, &[&id, &format!("status={disposition} (cut-through: ")]);
    }
    relay.wait_empty();
    let senders: Vec<String> = inbox.transactions().into_iter().map(|got| got.from).collect();
    assert_eq!(senders.iter().filter(|sender| *sender == "late-yes@away.test").count(), 1, "{senders:?}");
    assert_eq!(senders.iter().filter(|sender| sender.is_empty()).count(), 1, "the DSN: {senders:?}");
    assert_eq!(
        inbox.commands().iter().filter(|line| line.contains("late-no@away.test")).count(),
        2,
        "MAIL, and the DSN's RCPT"
    );
}

#[test]
fn of_a_mixed_answer_each_recipient_gets_its_own() {
    let inbox = Inbox::start();
    let relay = relay("message", inbox.address(), "").start();
    let mut client = Client::hello(relay.outside());
    // Whom the next hop took when it was asked, and refuses with the message.
    mail(&mut client, "x@away.test");
    client.command("RCPT TO:<moody@inside.test>").expect(250, "2.1.5");
    client.command("RSET").expect(250, "2.0.0");
    let busy = AtomicUsize::new(0);
    inbox.set_script(move |step| match step {
        Step::Rcpt(line) if line.contains("moody") => Answer::Say("550 5.2.1 Not any more".into()),
        // When it is asked, and with the message.
        Step::Rcpt(line) if line.contains("busy") && busy.fetch_add(1, Ordering::SeqCst) < 2 => {
            Answer::Say("450 4.2.1 Busy".into())
        }
        _ => Answer::Accept,
    });
    let to = ["bob@inside.test", "moody@inside.test", "busy@inside.test"];
    client.send_message("x@away.test", &to, &message("mixed", "x\r\n")).expect(250, "2.0.0");
    relay.wait_empty();
    let got = inbox.transactions();
    let count = |recipient: &str| got.iter().filter(|got| got.to.iter().any(|to| to == recipient)).count();
    assert_eq!(to.map(count), [1, 0, 1], "{got:?}");
    assert_eq!(count("x@away.test"), 1, "the DSN for the one that was refused");
}

#[test]
fn a_message_that_is_large_or_has_two_next_hops_or_its_own_time_is_queued() {
    let (inbox, other) = (Inbox::start(), Inbox::start());
    let relay = Relay::builder()
        .outside_listener("cut_through = \"message\"")
        .accepted(&["inside.test", "branch.test"])
        .section("[cut_through]\nmessage_bytes_max = \"300KiB\"")
        .route(&format!(
            "domains = [\"inside.test\"]\nhosts = [\"{}\"]\ncut_through = \"message\"",
            inbox.address()
        ))
        .route(&format!("domains = [\"branch.test\"]\nhosts = [\"{}\"]", other.address()))
        .start();
    let mut client = Client::hello(relay.outside());
    let large = message("large", &"0123456789\r\n".repeat(30_000));
    client.send_message("x@away.test", &["bob@inside.test"], &large).expect(250, "2.0.0");
    let two = ["bob@inside.test", "ann@branch.test"];
    client.send_message("x@away.test", &two, &message("two", "x\r\n")).expect(250, "2.0.0");
    client.send_message("x@away.test", &["ann@branch.test"], &message("off", "x\r\n")).expect(250, "2.0.0");
    assert_eq!((inbox.wait_for(2, SOON).len(), other.wait_for(2, SOON).len()), (2, 2));
    assert!(relay.log().matching(&["cut-through"]).is_empty(), "{}", relay.log().tail());
    assert_eq!(rcpts(&other, "ann"), 2, "a route that does not allow it is not asked");
    // More than one extent, so that it was written in part while it came.
    let content = message("two extents", &"0123456789\r\n.dots\r\n".repeat(15_000));
    assert!((257 * 1024..300 * 1024).contains(&content.len()), "{}", content.len());
    client.send_message("x@away.test", &["bob@inside.test"], &content).expect(250, "2.0.0");
    relay.log().wait_for(SOON, &["to=<bob@inside.test>", "status=sent (cut-through: 250"]);
    assert_same(without_received(&inbox.transactions()[2].content), &content);
}

#[test]
fn kills_under_load_with_cut_through_lose_nothing_that_was_acknowledged() {
    let _quiet = heavy();
    let counter = AtomicUsize::new(0);
    let inbox = Inbox::scripted(move |step| match step {
        // Some are slow, some are put off, some ends are unknown.
        Step::EndOfData(_) => match counter.fetch_add(1, Ordering::Relaxed) % 50 {
            7 => {
                thread::sleep(Duration::from_millis(400));
                Answer::Accept
            }
            13 => Answer::Say("451 4.3.0 Not now".into()),
            29 => Answer::KeepAndClose,
            _ => Answer::Accept,
        },
        _ => Answer::Accept,
    });
    let mut relay = relay("message", inbox.address(), "cut_through_wait = \"100ms\"")
        .retry("100ms", "1s", "1d")
        .prepare();
    let (rounds, ledger) = (rounds(10), Ledger::default());
    for round in 0..rounds {
        relay.start();
        ledger.load(&mut relay, 1 + round * 37 % 300, || false, |relay| drop(relay.kill()));
    }
    relay.start();
    relay.wait_queue(0, SOON * 6);
    relay.stop();
    let balance = ledger.balance(&inbox);
    println!("{rounds} kills with cut-through: {} lost, {balance:?}", balance.lost.len());
    assert_eq!(ledger.refusals(), Vec::<String>::new());
    assert!(balance.acknowledged > rounds * 10, "too little load to show anything");
    assert!(balance.lost.is_empty(), "acknowledged and lost: {:?}", balance.lost);
}
