//! SMTP smuggling: around a dot, no sequence of line ends makes two messages of one, here or at the real servers
//! behind the relay.

use std::collections::BTreeSet;

use sluice_tests::wait::{SOON, until};
use sluice_tests::{Client, Maildir, OpenSmtpd, Postfix, Relay};

const ALPHABET: &[u8] = b"\r\n.\0x";
/// Messages that a client sends on one connection.
const MESSAGES_PER_CONNECTION: usize = 2000;

/// All sequences of up to 6 symbols, each around a dot: 19,531.
fn sequences() -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    let mut shorter = all.clone();
    for _ in 0..6 {
        let longer = |sequence: &Vec<u8>| {
            let sequence = sequence.clone();
            ALPHABET.iter().map(move |&symbol| [&sequence[..], &[symbol]].concat())
        };
        shorter = shorter.iter().flat_map(longer).collect();
        all.extend_from_slice(&shorter);
    }
    for sequence in &mut all {
        sequence.insert(sequence.len() / 2, b'.');
    }
    all
}

/// What a client sends after 354: a message with the sequence in its middle, and behind that, should a server
/// take it for an end, another message.
fn wire(number: usize, sequence: &[u8]) -> Vec<u8> {
    // With all fields that a server might add.
    let head = format!(
        "From: <a@away.test>\r\nTo: <bob@inside.test>\r\nDate: Sun, 22 Nov 2026 00:00:00 +0000\r\n\
         Message-ID: <{number}@away.test>\r\nSubject: sent-{number}\r\n\r\nabove"
    );
    let smuggled = format!(
        "MAIL FROM:<evil@away.test>\r\nRCPT TO:<bob@inside.test>\r\nDATA\r\nSubject: smuggled-{number}\r\n\r\n\
         below\r\n.\r\n"
    );
    [head.as_bytes(), sequence, smuggled.as_bytes()].concat()
}

/// Octets up to and including the first end-of-data (RFC 5321 section 4.1.1.4); what is sent has one.
fn end(wire: &[u8]) -> usize {
    wire.windows(5).position(|five| five == b"\r\n.\r\n").expect("an end") + 5
}

/// Whether a server may take the content (RFC 5321 section 2.3.8, RFC 5322 section 4).
fn is_sound(content: &[u8]) -> bool {
    let before = |at: usize| at.checked_sub(1).map(|at| content[at]);
    content.iter().enumerate().all(|(at, octet)| match octet {
        b'\r' => content.get(at + 1) == Some(&b'\n'),
        b'\n' => before(at) == Some(b'\r'),
        octet => *octet != 0,
    })
}

/// The content as a Maildir holds it, from its Subject on: dots unstuffed, lines ended by LF.
fn filed(content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content).into_owned();
    let (_, text) = text.split_once("Subject: ").expect("a subject");
    let lines = text.strip_suffix("\r\n").expect("an end").split("\r\n");
    lines.map(|line| format!("{}\n", line.strip_prefix('.').unwrap_or(line))).collect()
}

/// Sends each sequence in a message of its own. Gives what must arrive.
fn send_all(relay: &Relay, to: &[&str]) -> BTreeSet<String> {
    let mut expected = BTreeSet::new();
    let mut client = Client::hello(relay.outside());
    for (number, sequence) in sequences().into_iter().enumerate() {
        if number % MESSAGES_PER_CONNECTION == MESSAGES_PER_CONNECTION - 1 {
            client.quit();
            client = Client::hello(relay.outside());
        }
        let wire = wire(number, &sequence);
        let end = end(&wire);
        let content = &wire[..end - 3];
        client.send(b"MAIL FROM:<a@away.test>\r\n");
        to.iter().for_each(|to| client.send(format!("RCPT TO:<{to}>\r\n").as_bytes()));
        client.send(b"DATA\r\n");
        (0..=to.len()).for_each(|_| drop(client.reply().expect(250, "")));
        client.reply().expect(354, "");
        client.send(&wire);
        let reply = client.reply();
        let shown = sequence.escape_ascii();
        if is_sound(content) {
            assert_eq!(reply.code, 250, "{shown}: {}", reply.text());
            expected.insert(filed(content));
        } else {
            assert!((550..560).contains(&reply.code), "{shown}: {}", reply.text());
        }
        if end < wire.len() {
            // The client did end its message, and what follows are commands; no more is to come of them.
            let _ = client.try_send(b"QUIT\r\n");
            while client.try_reply().is_ok_and(|reply| reply.code >= 400 || reply.code == 250) {}
            client = Client::hello(relay.outside());
        }
    }
    expected
}

/// What arrived, as [`filed`] gives it.
fn arrived(maildir: &Maildir) -> Vec<String> {
    let subject_on = |mail: &Vec<u8>| {
        let text = String::from_utf8_lossy(mail).into_owned();
        let (header, rest) = text.split_once("Subject: ").expect("a subject");
        assert!(!header.contains("evil"), "{text}");
        assert!(!text.contains(['\r', '\0']), "{text:?}");
        rest.to_owned()
    };
    maildir.messages().iter().map(subject_on).collect()
}

#[test]
fn around_a_dot_nothing_but_a_true_end_of_data_makes_two_messages_here_or_behind_the_relay() {
    if Postfix::is_missing() {
        return;
    }
    let postfix = Postfix::start("mail.inside.test", &["bob@inside.test"], None);
    let opensmtpd = (!OpenSmtpd::is_missing()).then(|| OpenSmtpd::start("mail.other.test"));
    let mut builder = Relay::builder().accepted(&["inside.test", "other.test"]).inward(postfix.address());
    let mut to = vec!["bob@inside.test"];
    let mut maildirs = vec![postfix.maildir("bob@inside.test")];
    if let Some(server) = &opensmtpd {
        builder = builder.smart_hosts(&["other.test"], &[server.address()]);
        to.push("bob@other.test");
        maildirs.push(server.maildir());
    }
    let relay = builder.start();
    let expected = send_all(&relay, &to);
    relay.wait_queue(0, SOON * 2);
    println!("{} of {} sequences make a message", expected.len(), sequences().len());
    for maildir in maildirs {
        let count = || Some(arrived(&maildir)).filter(|mail| mail.len() >= expected.len());
        let mut mail = until(SOON, "the mail", count);
        mail.sort();
        assert!(mail.iter().eq(&expected), "{}", maildir.path().display());
    }
}
