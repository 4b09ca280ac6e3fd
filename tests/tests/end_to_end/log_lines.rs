//! One log line for each accepted message and one for each recipient's outcome, joined by the queue id, with
//! the fields that Postfix's users know.

use sluice_tests::log::{field, queue_ids};
use sluice_tests::message::message;
use sluice_tests::wait::SOON;
use sluice_tests::{Answer, Client, Inbox, Relay, Step};

#[test]
fn a_message_can_be_followed_by_its_queue_id() {
    let inbox = Inbox::scripted(|step| match step {
        Step::Rcpt(line) if line.contains("nobody") => Answer::Say("550 5.1.1 Nobody".into()),
        Step::Rcpt(line) if line.contains("later") => Answer::Say("450 4.2.1 Later".into()),
        _ => Answer::Accept,
    });
    let relay = Relay::builder().inward(inbox.address()).outward(inbox.address()).start();
    let mut client = Client::hello(relay.outside());
    let to = ["bob@inside.test", "nobody@inside.test", "later@inside.test"];
    let reply = client.send_message("x@away.test", &to, &message("followed", "x\r\n")).expect(250, "2.0.0");
    let id = queue_ids(&reply.text()).pop().expect("a queue id in the reply");
    let log = relay.log();

    let accepted = log.wait_for(SOON, &[&id, "from=<x@away.test>"]);
    assert!(accepted.contains("127.0.0.1") && accepted.contains("nrcpt=3"), "{accepted}");
    let size: usize = field(&accepted, "size").expect("size").parse().expect("octets");
    assert!(size >= message("followed", "x\r\n").len(), "{accepted}");

    for (recipient, status, dsn) in
        [("bob", "sent", "2."), ("nobody", "bounced", "5.1.1"), ("later", "deferred", "4.2.1")]
    {
        let line = log.wait_for(SOON, &[&id, &format!("to=<{recipient}@inside.test>")]);
        println!("{line}");
        assert_eq!(field(&line, "status"), Some(status), "{line}");
        assert!(field(&line, "dsn").is_some_and(|code| code.starts_with(dsn)), "{line}");
        assert!(
            field(&line, "relay").is_some_and(|host| host.contains(&inbox.address().port().to_string())),
            "{line}"
        );
        let delay: f64 = field(&line, "delay").expect("delay").parse().expect("seconds");
        let delays: Vec<f64> = field(&line, "delays")
            .expect("delays")
            .split('/')
            .map(|part| part.parse().expect("seconds"))
            .collect();
        assert!((0.0..60.0).contains(&delay) && delays.len() == 4, "{line}");
    }
}

#[test]
fn a_refused_client_cannot_write_lines_of_its_own_into_the_log() {
    let inbox = Inbox::start();
    let mut relay = Relay::builder().inward(inbox.address()).start();
    let mut client = Client::connect(relay.outside());
    client.command("EHLO a\u{85}b\x1b[31m").expect_class(5);
    client.send(b"EHLO x\ry\r\n");
    client.reply().expect_class(5);
    client.command("EHLO client.test").expect(250, "");
    let reply = client.send_message("x@away.test", &["bob@inside.test"], &message("clean", "x\r\n"));
    reply.expect(250, "2.0.0");
    client.quit();
    inbox.wait_for(1, SOON);
    let log = relay.stop();
    assert!(log.lines().iter().all(|line| !line.contains(|c: char| c.is_control())), "{}", log.tail());
}

#[test]
fn a_log_file_gets_the_lines_when_it_is_configured() {
    let inbox = Inbox::start();
    let mut relay = Relay::builder().inward(inbox.address()).section("[log]\nfile = \"LOGFILE\"").prepare();
    let file = relay.directory().join("relay.log");
    relay.edit_config("LOGFILE", file.to_str().unwrap());
    relay.launch(&[]);
    sluice_tests::wait::until_true(SOON, "the relay is ready", || {
        std::fs::read_to_string(&file).is_ok_and(|text| text.contains("ready"))
    });
    let mut client = Client::hello(relay.outside());
    client.send_message("x@away.test", &["bob@inside.test"], &message("filed", "x\r\n")).expect(250, "2.0.0");
    sluice_tests::wait::until_true(SOON, "a line in the file", || {
        std::fs::read_to_string(&file).is_ok_and(|text| text.contains("to=<bob@inside.test>"))
    });
    relay.stop();
}
