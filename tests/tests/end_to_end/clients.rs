//! Python's smtplib and swaks send mail through the relay, in both directions.

use sluice_tests::message::{assert_same, message, without_received};
use sluice_tests::tools::{smtplib, swaks};
use sluice_tests::wait::SOON;
use sluice_tests::{Inbox, Relay, lacks};

fn relay(internal: &Inbox, external: &Inbox) -> Relay {
    Relay::builder().inward(internal.address()).outward(external.address()).start()
}

#[test]
fn smtplib_sends_inward_and_outward() {
    let (internal, external) = (Inbox::start(), Inbox::start());
    let relay = relay(&internal, &external);
    let content = message("smtplib", "hello\r\n.\r\n..dots\r\nZw\u{f6}lf Boxk\u{e4}mpfer\r\n");

    let inward = smtplib(relay.outside(), "x@away.test", &["bob@inside.test", "eve@inside.test"], &content);
    assert_eq!(inward["refused"], serde_json::json!({}), "{inward}");
    let got = &internal.wait_for(1, SOON)[0];
    assert_eq!(
        (got.from.as_str(), got.to.as_slice()),
        ("x@away.test", &["bob@inside.test", "eve@inside.test"].map(String::from)[..])
    );
    assert_same(without_received(&got.content), &content);

    let outward = smtplib(relay.inside(), "bob@inside.test", &["x@away.test"], &content);
    assert_eq!(outward["refused"], serde_json::json!({}), "{outward}");
    let got = &external.wait_for(1, SOON)[0];
    assert_eq!((got.from.as_str(), got.to.as_slice()), ("bob@inside.test", &["x@away.test".to_owned()][..]));
    assert_same(without_received(&got.content), &content);

    assert!(
        !smtplib(relay.outside(), "a@a.test", &["x@away.test"], &content)["refused"]["x@away.test"].is_null()
    );
    relay.wait_empty();
}

#[test]
fn ehlo_offers_what_the_relay_can_do_and_no_more() {
    let inbox = Inbox::start();
    let relay = relay(&inbox, &inbox);
    let sent = smtplib(relay.outside(), "x@away.test", &["bob@inside.test"], &message("features", "x\r\n"));
    let features = sent["features"].as_object().expect("features");
    for feature in ["pipelining", "8bitmime", "chunking", "enhancedstatuscodes", "dsn", "smtputf8", "limits"]
    {
        assert!(features.contains_key(feature), "{feature}: {sent}");
    }
    assert_eq!(features["size"], (64 << 20).to_string(), "RFC 1870: the greatest size");
    for feature in
        ["starttls", "auth", "binarymime", "requiretls", "futurerelease", "xclient", "vrfy", "expn", "etrn"]
    {
        assert!(!features.contains_key(feature), "{feature}: {sent}");
    }
}

#[test]
fn swaks_sends_inward_and_outward() {
    if lacks("swaks") {
        return;
    }
    let (internal, external) = (Inbox::start(), Inbox::start());
    let relay = relay(&internal, &external);

    let (sent, dialogue) =
        swaks(relay.outside(), "x@away.test", "bob@inside.test", &["--body", "from outside"]);
    assert!(sent, "{dialogue}");
    let got = &internal.wait_for(1, SOON)[0];
    assert!(got.content.windows(12).any(|part| part == b"from outside"));

    let (sent, dialogue) =
        swaks(relay.inside(), "bob@inside.test", "x@away.test", &["--pipeline", "--body", "from inside"]);
    assert!(sent, "{dialogue}");
    let got = &external.wait_for(1, SOON)[0];
    assert!(got.content.windows(11).any(|part| part == b"from inside"));

    let (sent, dialogue) = swaks(relay.outside(), "x@away.test", "x@away.test", &[]);
    assert!(!sent && dialogue.contains("550 5.7.1"), "{dialogue}");
    relay.wait_empty();
}
