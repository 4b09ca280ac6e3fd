//! SMTP smuggling: around a dot, no sequence of line ends makes two messages of one, here or at the real servers
//! behind the relay.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use sluice_tests::wait::{SOON, until};
use sluice_tests::{Client, Maildir, OpenSmtpd, Port, Postfix, Relay};

const ALPHABET: &[u8] = b"\r\n.\0x";
/// Sequences that are repaired: all of up to 3 symbols.
const REPAIRED: usize = 1 + 5 + 25 + 125;
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

/// How a message is sent, and to which listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Data,
    Bdat,
    /// By DATA, to the listener that repairs line endings.
    Repaired,
}

/// A message with the sequence in its middle, and behind that, should a server take it for an end, another one;
/// with the end of the whole.
fn wire(name: &str, sequence: &[u8]) -> Vec<u8> {
    // With all fields that a server might add.
    let head = format!(
        "From: <a@away.test>\r\nTo: <bob@inside.test>\r\nDate: Sun, 22 Nov 2026 00:00:00 +0000\r\n\
         Message-ID: <{name}@away.test>\r\nSubject: {name}\r\n\r\nabove"
    );
    let smuggled = format!(
        "MAIL FROM:<evil@away.test>\r\nRCPT TO:<bob@inside.test>\r\nDATA\r\nSubject: smuggled-{name}\r\n\r\n\
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

/// The content without dot-stuffing (RFC 5321 section 4.5.2).
fn unstuffed(content: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(content.to_vec()).expect("ASCII");
    let lines = text.strip_suffix("\r\n").expect("an end").split("\r\n");
    lines.map(|line| format!("{}\r\n", line.strip_prefix('.').unwrap_or(line))).collect::<String>().into()
}

/// The content with bare CR and bare LF made line endings, and without NUL.
fn mended(content: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(content.to_vec()).expect("ASCII").replace("\r\n", "\n").replace('\r', "\n");
    text.replace('\0', "").replace('\n', "\r\n").into()
}

/// The content as a Maildir holds it, from its Subject on: lines ended by LF.
fn filed(content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content).replace("\r\n", "\n");
    text.split_once("Subject: ").expect("a subject").1.to_owned()
}

/// Sends each sequence in a message of its own. Gives what must arrive.
fn send_all(server: SocketAddr, way: Way, sequences: &[Vec<u8>], to: &[&str]) -> BTreeSet<String> {
    let mut expected = BTreeSet::new();
    let mut client = Client::hello(server);
    for (number, sequence) in sequences.iter().enumerate() {
        if number % MESSAGES_PER_CONNECTION == MESSAGES_PER_CONNECTION - 1 {
            client.quit();
            client = Client::hello(server);
        }
        let wire = wire(&format!("{way:?}-{number}"), sequence);
        let end = if way == Way::Bdat { wire.len() } else { end(&wire) };
        let content = &wire[..end - 3];
        client.send(b"MAIL FROM:<a@away.test>\r\n");
        to.iter().for_each(|to| client.send(format!("RCPT TO:<{to}>\r\n").as_bytes()));
        if way == Way::Bdat {
            client.send(&[format!("BDAT {} LAST\r\n", content.len()).as_bytes(), content].concat());
        } else {
            client.send(b"DATA\r\n");
        }
        (0..=to.len()).for_each(|_| drop(client.reply().expect(250, "")));
        if way != Way::Bdat {
            client.reply().expect(354, "");
            client.send(&wire);
        }
        let reply = client.reply();
        let shown = sequence.escape_ascii();
        let taken = match way {
            Way::Data => is_sound(content).then(|| unstuffed(content)),
            Way::Bdat => is_sound(content).then(|| content.to_vec()),
            Way::Repaired => Some(mended(&unstuffed(content))),
        };
        if let Some(taken) = taken {
            assert_eq!(reply.code, 250, "{way:?} {shown}: {}", reply.text());
            expected.insert(filed(&taken));
        } else {
            assert!((550..560).contains(&reply.code), "{way:?} {shown}: {}", reply.text());
        }
        if end < wire.len() {
            // The client did end its message, and what follows are commands; no more is to come of them.
            let _ = client.try_send(b"QUIT\r\n");
            while client.try_reply().is_ok_and(|reply| reply.code >= 400 || reply.code == 250) {}
            client = Client::hello(server);
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
    let accepted = ["inside.test", "other.test"];
    let accepted = &accepted[..1 + usize::from(opensmtpd.is_some())];
    let mut builder = Relay::builder().accepted(accepted).inward(postfix.address());
    let mut to = vec!["bob@inside.test"];
    let mut maildirs = vec![postfix.maildir("bob@inside.test")];
    if let Some(server) = &opensmtpd {
        builder = builder.smart_hosts(&["other.test"], &[server.address()]);
        to.push("bob@other.test");
        maildirs.push(server.maildir());
    }
    let repairing = Port::reserve();
    let listener = format!(
        "[[listener]]\nname = \"repairing\"\nbind = [\"{}\"]\nclients = [\"127.0.0.0/8\"]\nrelay = \"accepted\"\n\
         tls = \"off\"\nline_endings = \"repair\"\n",
        repairing.address()
    );
    let relay = builder.section(&listener).start();
    let all = sequences();
    assert_eq!(all.len(), 19_531);
    let mut expected = BTreeSet::new();
    for (way, server, sequences) in [
        (Way::Data, relay.outside(), &all[..]),
        (Way::Bdat, relay.outside(), &all),
        // Every one of these is a message that two servers file.
        (Way::Repaired, repairing.address(), &all[..REPAIRED]),
    ] {
        let taken = send_all(server, way, sequences, &to);
        println!("{way:?}: {} of {} sequences make a message", taken.len(), sequences.len());
        expected.extend(taken);
    }
    relay.wait_queue(0, SOON * 4);
    for maildir in maildirs {
        let count = || Some(arrived(&maildir)).filter(|mail| mail.len() >= expected.len());
        let mut mail = until(SOON * 2, "the mail", count);
        mail.sort();
        assert!(mail.iter().eq(&expected), "{}", maildir.path().display());
    }
}
