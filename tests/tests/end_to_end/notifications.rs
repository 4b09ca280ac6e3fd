//! DSNs in the operator's words, what comes back whole, and what the postmaster hears: of notifications that fail
//! themselves, never of notices.

use sluice_tests::message::message;
use sluice_tests::wait::SOON;
use sluice_tests::{Answer, Client, Dsn, Inbox, Relay, Step};

fn refusing() -> Inbox {
    Inbox::scripted(|step| match step {
        Step::Rcpt(_) => Answer::Say("550 5.1.1 Nobody --=_ \"{hostname}\" of that name".into()),
        _ => Answer::Accept,
    })
}

fn send(relay: &Relay, from: &str, to: &str, content: &[u8]) {
    let mut client = Client::hello(relay.inside());
    client.send_message(from, &[to], content).expect(250, "2.0.0");
    client.quit();
}

#[test]
fn the_operator_s_words_stand_in_the_dsn() {
    let (internal, external) = (Inbox::start(), refusing());
    let mut relay = Relay::builder()
        .section("[dsn]\ntemplates = \"DIR/dsn\"\nreturn = \"full\"\nfull_bytes_max = \"2KiB\"")
        .inward(internal.address())
        .outward(external.address())
        .prepare();
    let directory = relay.directory().join("dsn");
    std::fs::create_dir(&directory).expect("a directory");
    relay.edit_config("DIR/dsn", directory.to_str().expect("UTF-8"));
    let config = relay.config().to_str().expect("UTF-8").to_owned();
    let check = ["check", "--config", &config];

    let output = relay.sluice(&check);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("sluice dsn-template"), "{output:?}");
    let template = relay.sluice_ok(&["dsn-template", "failed", "--language", "de"]);
    std::fs::write(directory.join("failed.txt"), template.replace("{hostname}", "{host}"))
        .expect("a template");
    let output = relay.sluice(&check);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        told.contains("dsn.templates:") && told.contains("failed.txt: line 6: {host} stands outside"),
        "{told}"
    );
    let own = template.replace("Dies ist das Mailsystem auf {hostname}.", "Grüße aus dem Keller, {sender}.");
    std::fs::write(directory.join("failed.txt"), own).expect("a template");
    assert_eq!(relay.sluice(&check).status.code(), Some(0));
    let example = relay.sluice_ok(&["dsn-template", "failed", "--example", &config]);
    assert!(example.contains("aus dem Keller, sender@example.com"), "{example}");

    relay.start();
    send(&relay, "bob@inside.test", "nobody@away.test", &message("lost", "the text\r\n"));
    let got = internal.wait_for(1, SOON)[0].clone();
    let dsn = Dsn::parse_valid(&got.content);
    dsn.expect_one("nobody@away.test", "failed", "5.1.1");
    assert_eq!(dsn.header("subject"), "Ihre Nachricht konnte nicht zugestellt werden");
    let text = dsn.text();
    assert!(text.contains("Grüße aus dem Keller, bob@inside.test."), "{text}");
    assert!(
        text.contains("Nobody --=_ \"{hostname}\" of that name") && text.contains("auf Tippfehler"),
        "{text}"
    );
    assert!(String::from_utf8_lossy(&got.content).contains("message/rfc822"), "the whole message");
    let large = message("large", &"the text\r\n".repeat(300));
    send(&relay, "bob@inside.test", "nobody@away.test", &large);
    let got = internal.wait_for(2, SOON)[1].clone();
    assert!(
        String::from_utf8_lossy(&got.content).contains("text/rfc822-headers"),
        "past the bound its header"
    );
    relay.wait_empty();
}

#[test]
fn the_postmaster_hears_of_a_double_bounce_and_nobody_of_a_notice() {
    // Mail for the postmaster is taken at first, then refused too.
    let internal = Inbox::scripted(|step| match step {
        Step::Rcpt(line) if !line.contains("postmaster") => Answer::Say("550 5.1.1 Gone".into()),
        _ => Answer::Accept,
    });
    let external = refusing();
    let relay = Relay::builder()
        .section("[dsn]\nnotify_postmaster = [\"double-bounce\"]\nnotices_per_hour = 2")
        .inward(internal.address())
        .outward(external.address())
        .start();
    send(&relay, "gone@inside.test", "nobody@away.test", &message("first", "x\r\n"));
    let got = internal.wait_for(1, SOON)[0].clone();
    assert_eq!((got.from.as_str(), got.to.as_slice()), ("", &["postmaster@inside.test".to_owned()][..]));
    let dsn = Dsn::parse_valid(&got.content);
    dsn.expect_one("gone@inside.test", "failed", "5.1.1");
    assert!(
        dsn.header("subject").starts_with("Postmaster notice: a notification could not be delivered"),
        "{dsn:?}"
    );
    relay.log().wait_for(SOON, &["undeliverable notification discarded"]);
    relay.wait_empty();

    internal.set_script(|step| match step {
        Step::Rcpt(_) => Answer::Say("550 5.1.1 Gone".into()),
        _ => Answer::Accept,
    });
    send(&relay, "gone@inside.test", "nobody@away.test", &message("second", "x\r\n"));
    relay.log().wait_for(SOON, &["undeliverable postmaster notice discarded"]);
    relay.wait_empty();
    // Past the bound there is none; the notification is discarded all the same.
    send(&relay, "gone@inside.test", "nobody@away.test", &message("third", "x\r\n"));
    relay.wait_empty();
    assert_eq!(relay.log().matching(&["postmaster notification:"]).len(), 2);
    assert_eq!(relay.log().matching(&["undeliverable notification discarded"]).len(), 3);
    assert_eq!(internal.len(), 1);
}

#[test]
fn by_default_a_double_bounce_is_a_line_in_the_log() {
    let internal = refusing();
    let relay = Relay::builder().inward(internal.address()).outward(refusing().address()).start();
    send(&relay, "", "nobody@inside.test", &message("dsn", "x\r\n"));
    relay.log().wait_for(SOON, &["undeliverable notification discarded"]);
    relay.wait_empty();
    assert_eq!((internal.len(), relay.log().matching(&["postmaster notification"]).len()), (0, 0));
}

#[test]
fn the_postmaster_gets_copies_where_he_wants_them() {
    let (internal, external) = (Inbox::start(), refusing());
    let relay = Relay::builder()
        .section("[dsn]\nnotify_postmaster = [\"bounce\"]")
        .inward(internal.address())
        .outward(external.address())
        .start();
    send(&relay, "bob@inside.test", "nobody@away.test", &message("lost", "x\r\n"));
    let got = internal.wait_for(2, SOON);
    let to: Vec<&str> = got.iter().flat_map(|got| &got.to).map(String::as_str).collect();
    assert!(to.contains(&"bob@inside.test") && to.contains(&"postmaster@inside.test"), "{to:?}");
    got.iter().for_each(|got| {
        drop(Dsn::parse_valid(&got.content).expect_one("nobody@away.test", "failed", "5.1.1"))
    });
    relay.wait_empty();
}
