//! Content that must not pass to another server is refused whole, with a clear 5yz, and the session goes on.

use sluice_tests::message::message;
use sluice_tests::wait::SOON;
use sluice_tests::{Client, Inbox, Relay};

/// Sends content octet by octet as given (it ends with its own final dot) and expects a refusal; then the
/// session must still take a good message.
fn refused(relay: &Relay, wire: &[u8]) -> String {
    let mut client = Client::hello(relay.outside());
    client.open_data("x@away.test", &["bob@inside.test"]);
    client.send(wire);
    let reply = client.reply().expect_class(5);
    client.command("NOOP").expect(250, "");
    client
        .send_message("x@away.test", &["bob@inside.test"], &message("after", "fine\r\n"))
        .expect(250, "2.0.0");
    client.quit();
    reply.text()
}

#[test]
fn bare_cr_bare_lf_nul_and_lines_too_long_are_refused() {
    let inbox = Inbox::start();
    let relay = Relay::builder().inward(inbox.address()).start();
    let long = [b"A: b\r\n\r\n".as_slice(), &b"x".repeat(999), b"\r\n.\r\n"].concat();
    let endless = [b"A: b\r\n\r\n".as_slice(), &b"x".repeat(3 << 20), b"\r\n.\r\n"].concat();
    let cases: [(&str, &[u8]); 13] = [
        ("a bare LF", b"A: b\r\n\r\nx\ny\r\n.\r\n"),
        ("a bare CR", b"A: b\r\n\r\nx\ry\r\n.\r\n"),
        ("CR CR LF", b"A: b\r\n\r\nx\r\r\n.\r\n"),
        ("LF first", b"\nA: b\r\n.\r\n"),
        ("CR first", b"\rA: b\r\n.\r\n"),
        ("smuggling by LF . CRLF", b"A: b\r\n\r\nx\n.\r\nMAIL FROM:<evil@away.test>\r\n\r\n.\r\n"),
        ("smuggling by LF . LF", b"A: b\r\n\r\nx\n.\nMAIL FROM:<evil@away.test>\r\n\r\n.\r\n"),
        ("smuggling by CR . CR", b"A: b\r\n\r\nx\r.\rMAIL FROM:<evil@away.test>\r\n\r\n.\r\n"),
        ("smuggling by CRLF . LF", b"A: b\r\n\r\nx\r\n.\nMAIL FROM:<evil@away.test>\r\n\r\n.\r\n"),
        ("smuggling by CRLF . CR", b"A: b\r\n\r\nx\r\n.\rMAIL FROM:<evil@away.test>\r\n\r\n.\r\n"),
        ("NUL", b"A: b\r\n\r\nx\0y\r\n.\r\n"),
        ("a line of 999 octets", &long),
        ("an endless line", &endless),
    ];
    for (count, (what, wire)) in cases.into_iter().enumerate() {
        let reply = refused(&relay, wire);
        println!("{what}: {reply}");
        assert_eq!(inbox.wait_for(count + 1, SOON).len(), count + 1, "{what}");
    }
    relay.wait_empty();
    inbox.for_each(|got| {
        let text = String::from_utf8_lossy(&got.content);
        assert!(text.contains("Subject: after") && got.from == "x@away.test", "{text}");
    });
}

#[test]
fn a_message_that_is_too_big_is_refused_at_mail_and_at_its_end() {
    let inbox = Inbox::start();
    let relay =
        Relay::builder().inward(inbox.address()).section("[limits]\nmessage_bytes_max = \"64KiB\"").start();
    let mut client = Client::hello(relay.outside());
    client.command("MAIL FROM:<x@away.test> SIZE=65537").expect(552, "5.3.4");
    client.command("MAIL FROM:<x@away.test> SIZE=99999999999999999999").expect_class(5);
    client.command("MAIL FROM:<x@away.test> SIZE=65536").expect(250, "2.1.0");
    client.command("RSET").expect(250, "");
    let content = message("big", &"0123456789abcde\r\n".repeat(4000));
    client.send_message("x@away.test", &["bob@inside.test"], &content).expect(552, "5.3.4");
    client.send_message("x@away.test", &["bob@inside.test"], &message("small", "x\r\n")).expect(250, "2.0.0");
    client.quit();
    assert_eq!(inbox.wait_for(1, SOON).len(), 1);
    relay.wait_empty();
}

#[test]
fn a_command_line_too_long_or_broken_is_refused_and_the_session_goes_on() {
    let inbox = Inbox::start();
    let relay = Relay::builder().inward(inbox.address()).start();
    let mut client = Client::hello(relay.outside());
    for line in [
        format!("NOOP {}", "x".repeat(5000)),
        format!("MAIL FROM:<{}@away.test>", "x".repeat(3000)),
        "MAIL FROM:<x@away.test".into(),
        "MAIL FROM:x@away.test>".into(),
        "MAIL TO:<x@away.test>".into(),
        "RCPT TO:<bob@inside.test>".into(),
        "FLY".into(),
        "NO\0OP".into(),
    ] {
        client.command(&line).expect_class(5);
    }
    client.command("NOOP").expect(250, "");
    client.quit();
}
