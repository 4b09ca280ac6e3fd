//! What a sender asks for by parameters of MAIL and RCPT: DSNs as he wants them, priorities, times, UTF-8.

use std::time::{Duration, Instant};

use sluice_tests::inbox::{Answer, Step};
use sluice_tests::message::message;
use sluice_tests::wait::SOON;
use sluice_tests::{Client, Dsn, Inbox, Postfix, Relay};

/// MAIL and RCPT with these parameters, DATA, the content, its end; the last reply must be 250.
fn send(client: &mut Client, mail: &str, rcpt: &[&str], content: &[u8]) {
    client.command(&format!("MAIL FROM:{mail}")).expect(250, "2.1.0");
    for recipient in rcpt {
        client.command(&format!("RCPT TO:{recipient}")).expect(250, "2.1.5");
    }
    client.command("DATA").expect(354, "");
    client.send(content);
    client.send(b".\r\n");
    client.reply().expect(250, "");
}

/// RFC 3461: a next hop without DSN.
#[test]
fn dsns_are_as_the_sender_asked_for_them() {
    let internal = Inbox::start();
    let external = Inbox::scripted(|step| match step {
        Step::Rcpt(line) if line.contains("nobody") => Answer::Say("550 5.1.1 Nobody".into()),
        _ => Answer::Accept,
    });
    let relay = Relay::builder().inward(internal.address()).outward(external.address()).start();
    let mut client = Client::hello(relay.inside());
    let content = message("asked", "the whole body\r\n");
    send(
        &mut client,
        "<bob@inside.test> RET=FULL ENVID=QQ+2B314",
        &[
            "<x@away.test> NOTIFY=SUCCESS ORCPT=rfc822;old+2Bx@away.test",
            "<nobody1@away.test> NOTIFY=NEVER",
            "<nobody2@away.test> NOTIFY=SUCCESS,DELAY",
            "<nobody3@away.test> NOTIFY=FAILURE ORCPT=rfc822;three@away.test",
        ],
        &content,
    );
    let told = internal.wait_for(1, SOON);
    relay.wait_empty();
    assert_eq!(internal.len(), 1, "one report, one DSN");
    let dsn = Dsn::parse_valid(&told[0].content);
    assert_eq!((told[0].from.as_str(), &told[0].to[..]), ("", &["bob@inside.test".to_owned()][..]));
    assert_eq!(dsn.message("original-envelope-id"), "QQ+314");
    assert_eq!(dsn.recipient_count(), 2, "NEVER and DELAY hear nothing of a failure");
    for (action, original, status) in
        [("relayed", "rfc822; old+x@away.test", "2.0.0"), ("failed", "rfc822; three@away.test", "5.1.1")]
    {
        let at = (0..2).find(|at| dsn.recipient(*at, "action") == action).expect(action);
        assert_eq!(dsn.recipient(at, "original-recipient"), original);
        assert!(dsn.recipient(at, "status").starts_with(&status[..1]), "{}", dsn.recipient(at, "status"));
    }
    let whole = String::from_utf8_lossy(&told[0].content).into_owned();
    assert!(whole.contains("message/rfc822") && whole.contains("the whole body"), "{whole}");
}

/// RFC 3461: a next hop with DSN takes over.
#[test]
fn a_next_hop_with_dsn_is_told_what_the_sender_asked_for() {
    if Postfix::is_missing() {
        return;
    }
    let internal = Inbox::start();
    let relay = Relay::builder().inward(internal.address()).prepare();
    let external = Postfix::start("mx.away.test", &["x@away.test"], Some(relay.inside()));
    let address = external.address();
    relay.edit_config(
        "[[route]]",
        &format!("[[route]]\ndomains = [\"away.test\"]\nhosts = [\"{address}\"]\n\n[[route]]"),
    );
    let mut relay = relay;
    relay.start();
    let mut client = Client::hello(relay.inside());
    send(
        &mut client,
        "<bob@inside.test> RET=HDRS ENVID=ID+2B7",
        &["<x@away.test> NOTIFY=SUCCESS ORCPT=rfc822;first@away.test"],
        &message("on", "x\r\n"),
    );
    let told = internal.wait_for(1, SOON);
    let dsn = Dsn::parse(&told[0].content);
    assert!(dsn.message("reporting-mta").contains("mx.away.test"), "Postfix tells, not the relay");
    assert_eq!(dsn.message("original-envelope-id"), "ID+7");
    assert_eq!(dsn.recipient(0, "original-recipient").replace(' ', ""), "rfc822;first@away.test");
    assert_eq!(dsn.recipient(0, "action"), "delivered");
}

/// RFC 6710.
#[test]
fn higher_priorities_leave_first_when_a_next_hop_comes_back() {
    let internal = Inbox::scripted(|step| match step {
        Step::Connect => Answer::Close,
        _ => Answer::Accept,
    });
    let relay =
        Relay::builder().section("[delivery]\nconnections_max = 1").inward(internal.address()).start();
    let mut client = Client::hello(relay.inside());
    for (sender, priority) in [("p0", "0"), ("m5", "-5"), ("p9", "9"), ("p4", "4"), ("q9", "9")] {
        let mail = format!("<{sender}@away.test> MT-PRIORITY={priority}");
        send(&mut client, &mail, &["<bob@inside.test>"], &message(sender, "x\r\n"));
        relay.log().wait_for(SOON, &[&format!("from=<{sender}@away.test>")]);
    }
    for _ in 0..5 {
        relay.log().wait_for(SOON, &["to=<bob@inside.test>", "status=deferred"]);
    }
    relay.wait_queue(5, SOON);
    internal.set_script(|_| Answer::Accept);
    let order: Vec<String> = internal.wait_for(5, SOON).into_iter().map(|one| one.from).collect();
    assert_eq!(order, ["p9", "q9", "p4", "p0", "m5"].map(|sender| format!("{sender}@away.test")));
}

/// RFC 4865.
#[test]
fn a_message_is_not_tried_before_its_release_nor_by_a_retry() {
    let internal = Inbox::start();
    let mut relay = Relay::builder().inward(internal.address()).prepare();
    relay.edit_config(
        "relay = \"any\"\ntls = \"off\"\n",
        "relay = \"any\"\ntls = \"off\"\n[listener.extensions]\nhold_max = \"1h\"\n",
    );
    relay.start();
    let mut client = Client::hello(relay.inside());
    let began = Instant::now();
    send(&mut client, "<a@away.test> HOLDFOR=5", &["<bob@inside.test>"], &message("later", "x\r\n"));
    let id = &relay.wait_queue(1, SOON)[0];
    let shown = relay.sluice_ok(&["queue", "show", id]);
    assert!(shown.contains("Release:") && shown.contains("not tried before"), "{shown}");
    relay.sluice_ok(&["queue", "retry", id]);
    internal.wait_for(1, SOON);
    assert!(began.elapsed() >= Duration::from_secs(5), "it came after {:?}", began.elapsed());
    relay.wait_empty();
}

/// RFC 6531, RFC 6533.
#[test]
fn what_needs_utf_8_comes_back_from_a_next_hop_without_it() {
    let (internal, external) = (Inbox::start(), Inbox::start());
    let relay = Relay::builder().inward(internal.address()).outward(external.address()).start();
    let mut client = Client::hello(relay.inside());
    send(
        &mut client,
        "<bob@inside.test> SMTPUTF8",
        &["<j\u{f6}rg@away.test>", "<joe@b\u{fc}cher.test>"],
        &message("utf8", "x\r\n"),
    );
    let passed = external.wait_for(1, SOON);
    assert_eq!(passed[0].to, ["joe@xn--bcher-kva.test"], "a domain alone needs no UTF-8");
    assert!(!passed[0].parameters.contains("SMTPUTF8"), "{}", passed[0].parameters);
    let told = internal.wait_for(1, SOON);
    let dsn = Dsn::parse_valid(&told[0].content);
    assert_eq!(dsn.recipient_count(), 1);
    assert_eq!(dsn.recipient(0, "final-recipient"), "utf-8; j\u{f6}rg@away.test");
    assert_eq!((dsn.recipient(0, "action"), dsn.recipient(0, "status")), ("failed", "5.6.7"));
    relay.wait_empty();
}
