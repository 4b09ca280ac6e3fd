//! Real servers as next hops, with and without TLS, by BDAT and by DATA: Postfix (PIPELINING, CHUNKING), Exim (the same)
//! and OpenSMTPD (neither, and in clear text: as a server Debian's makes no handshake with the OpenSSL beside it). Messages of
//! every shape arrive octet by octet.

use std::path::PathBuf;
use std::process::Command;

use sluice_tests::interop::{Exim, Sample, samples};
use sluice_tests::message::numbered;
use sluice_tests::process::run_ok;
use sluice_tests::wait::SOON;
use sluice_tests::{Client, Maildir, OpenSmtpd, Postfix, Relay};

const FROM: &str = "x@away.test";
const TO: &str = "bob@inside.test";
const MIB: usize = 1 << 20;
/// More than one transaction's worth (`delivery.recipients_max`).
const MANY: usize = 130;
/// Messages of a burst: several follow each other on a connection without waiting.
const BURST: usize = 25;

/// How the relay is to send: TLS demanded or switched off, BDAT where it is offered or never.
#[derive(Clone, Copy, Debug)]
struct How {
    tls: bool,
    chunking: bool,
}

const WAYS: [How; 3] = [
    How { tls: false, chunking: true },
    How { tls: true, chunking: true },
    How { tls: true, chunking: false },
];

/// Certificate and key of the next hop, in a directory of its own.
struct Certificate(tempfile::TempDir);

impl Certificate {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("sluice-peer-").tempdir().expect("a directory");
        let certificate = Self(directory);
        let (pem, key) = certificate.files();
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "100"]);
        openssl.args(["-subj", "/CN=mail.inside.test", "-addext", "subjectAltName=DNS:mail.inside.test"]);
        run_ok(openssl.arg("-keyout").arg(key).arg("-out").arg(pem), SOON);
        certificate
    }

    fn files(&self) -> (PathBuf, PathBuf) {
        (self.0.path().join("mail.pem"), self.0.path().join("mail.key"))
    }
}

fn all_samples() -> Vec<Sample> {
    let burst =
        (0..BURST).map(|number| Sample { name: format!("burst {number}"), content: numbered(number, 900) });
    let large = Sample { name: "10 MiB".into(), content: numbered(99, 10 * MIB) };
    samples().into_iter().chain(burst).chain([large]).collect()
}

/// Sends all samples through the relay and compares what is in the Maildir; gives the relay's lines of deliveries.
fn passes(how: How, next_hop: std::net::SocketAddr, maildir: &Maildir) -> Vec<String> {
    let How { tls, chunking } = how;
    let policy = if tls { "encrypt" } else { "none" };
    let delivery = format!(
        "[delivery]\nchunking = {chunking}\nconnections_max = 2\n\n[delivery.tls]\npolicy = \"{policy}\"\n"
    );
    let mut relay = Relay::builder().inward(next_hop).section(&delivery).start();
    let all = all_samples();
    let mut client = Client::hello(relay.outside());
    for sample in &all {
        client.send_message(FROM, &[TO], &sample.content).expect(250, "2.0.0");
    }
    client.quit();
    let got = maildir.wait_for(all.len(), SOON * 6);
    relay.wait_empty();
    for sample in &all {
        let unix = sample.unix();
        // Line by line in front stand the fields that the relay and the server add.
        let is_it =
            |mail: &&Vec<u8>| mail.ends_with(&unix) && mail[..mail.len() - unix.len()].ends_with(b"\n");
        assert_eq!(got.iter().filter(is_it).count(), 1, "{how:?}: {}", sample.name);
    }
    assert_eq!(maildir.messages().len(), all.len(), "{how:?}: nothing comes twice");
    let lines = relay.stop().matching(&["status=sent", "to=<"]);
    assert_eq!(lines.len(), all.len(), "{how:?}");
    assert!(lines.iter().all(|line| line.contains("tls=TLSv1.") == tls), "{how:?}: {lines:?}");
    lines
}

/// One message to many recipients, which goes in several transactions. `mailbox` gives the n-th.
fn many_recipients(next_hop: std::net::SocketAddr, mailbox: impl Fn(usize) -> String) {
    let mut relay = Relay::builder().inward(next_hop).start();
    let to: Vec<String> = (0..MANY).map(mailbox).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let mut client = Client::hello(relay.outside());
    client.send_message(FROM, &to, &numbered(7, 2_000)).expect(250, "2.0.0");
    relay.wait_empty();
    let lines = relay.stop().matching(&["status=sent"]);
    for mailbox in to {
        assert_eq!(
            lines.iter().filter(|line| line.contains(&format!("to=<{mailbox}>"))).count(),
            1,
            "{mailbox}"
        );
    }
}

#[test]
fn postfix_gets_every_shape_of_message_octet_by_octet() {
    if Postfix::is_missing() {
        return;
    }
    let certificate = Certificate::new();
    let (pem, key) = certificate.files();
    for how in WAYS {
        let server = Postfix::start("mail.inside.test", &[TO], None);
        if how.tls {
            server.configure(&format!(
                "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}",
                pem.display(),
                key.display()
            ));
        }
        passes(how, server.address(), &server.maildir(TO));
        // Postfix counts the commands of a session.
        let by_bdat =
            server.log().lines().any(|line| line.contains("disconnect from") && line.contains(" bdat="));
        let by_data =
            server.log().lines().any(|line| line.contains("disconnect from") && line.contains(" data="));
        assert_eq!((by_bdat, by_data), (how.chunking, !how.chunking), "{how:?}");
    }
    let mailboxes: Vec<String> = (0..MANY).map(|number| format!("u{number}@inside.test")).collect();
    let names: Vec<&str> = mailboxes.iter().map(String::as_str).collect();
    let server = Postfix::start("mail.inside.test", &names, None);
    many_recipients(server.address(), |number| mailboxes[number].clone());
    for mailbox in names {
        assert_eq!(server.maildir(mailbox).wait_for(1, SOON * 2).len(), 1, "{mailbox}");
    }
}

#[test]
fn exim_gets_every_shape_of_message_octet_by_octet() {
    let certificate = Certificate::new();
    let (pem, key) = certificate.files();
    for how in WAYS {
        let Some(server) = Exim::filing(how.tls.then_some((pem.as_path(), key.as_path()))) else { return };
        passes(how, server.address(), &server.maildir());
        let arrived: Vec<String> =
            server.log().lines().filter(|line| line.contains(" <= ")).map(str::to_owned).collect();
        // Exim notes by K that a message came by BDAT, and by X= that it came by TLS.
        assert!(arrived.iter().all(|line| line.contains(" K ") == how.chunking), "{how:?}: {arrived:?}");
        assert!(arrived.iter().all(|line| line.contains(" X=TLS") == how.tls), "{how:?}: {arrived:?}");
    }
    let Some(server) = Exim::filing(None) else { return };
    many_recipients(server.address(), |number| format!("u{number}@inside.test"));
    server.maildir().wait_for(MANY, SOON * 3);
}

#[test]
fn opensmtpd_gets_every_shape_of_message_octet_by_octet() {
    if OpenSmtpd::is_missing() {
        return;
    }
    let server = OpenSmtpd::start("mail.inside.test");
    passes(How { tls: false, chunking: true }, server.address(), &server.maildir());
    let server = OpenSmtpd::start("mail.inside.test");
    many_recipients(server.address(), |number| format!("u{number}@inside.test"));
}
