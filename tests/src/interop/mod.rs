//! The relay between real clients and an inbox that keeps every octet: what was sent must arrive once, as it was.
//!
//! [`Flow`] is a relay with a STARTTLS listener and one with implicit TLS, whose certificate names `relay.test`,
//! `localhost` and 127.0.0.1, and an [`Inbox`] behind it. [`samples`] are the messages that clients are given.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::message::{assert_same, message, without_received};
use crate::process::run_ok;
use crate::tls::Authority;
use crate::wait::SOON;
use crate::{Inbox, Port, Relay};

mod exim;
mod namespace;
mod opensmtpd;

pub use exim::Exim;
pub use namespace::unpacked;
pub use opensmtpd::OpenSmtpd;

pub const FROM: &str = "alice@client.test";
pub const TO: &str = "bob@inside.test";

/// The longest line that RFC 5321 section 4.5.3.1.6 lets pass, without its CRLF.
const LINE_OCTETS: usize = 998;

/// How a client reaches the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    StartTls,
    Implicit,
}

pub const WAYS: [Way; 2] = [Way::StartTls, Way::Implicit];

/// One message; its name is in Subject and Message-ID.
#[derive(Clone, Debug)]
pub struct Sample {
    pub name: String,
    /// Lines end with CRLF.
    pub content: Vec<u8>,
}

impl Sample {
    /// As a file on a Unix machine has it: lines end with LF.
    pub fn unix(&self) -> Vec<u8> {
        let mut unix = Vec::with_capacity(self.content.len());
        for (at, &octet) in self.content.iter().enumerate() {
            if octet != b'\r' || self.content.get(at + 1) != Some(&b'\n') {
                unix.push(octet);
            }
        }
        unix
    }
}

/// Octets that are no text at all, the same at each call.
pub fn binary(octets: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    (0..octets)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

/// What clients are given to send: dots, lines of 998 octets, octets above 127, blanks at ends, no body, 1 MiB.
pub fn samples() -> Vec<Sample> {
    let long = |first: char| format!("{first}{}\r\n", "x".repeat(LINE_OCTETS - 1));
    let line = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAxMjM0NTY3\r\n";
    let bodies = [
        ("dots", ".\r\n..\r\n...\r\n.hidden\r\nnot.\r\n.\r\n".to_owned()),
        ("long", long('a') + &long('.') + "short\r\n" + &long('b')),
        ("eight", "Zw\u{f6}lf Boxk\u{e4}mpfer \u{1f40c}\r\n\u{ff}\r\n".to_owned()),
        ("blanks", "\r\n\r\n trailing \t\r\n\r\nFrom here on\r\n\r\n\r\n".to_owned()),
        ("empty", String::new()),
        ("large", line.repeat((1 << 20) / line.len())),
    ];
    bodies
        .map(|(name, body)| Sample { name: name.to_owned(), content: message(name, &body) })
        .into_iter()
        .collect()
}

/// A running relay, who issued its certificate, and what is behind it.
pub struct Flow {
    pub relay: Relay,
    pub inbox: Inbox,
    pub authority: Authority,
    directory: TempDir,
    implicit: Port,
}

impl Flow {
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// With further lines of configuration.
    pub fn start_with(sections: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("sluice-interop-").tempdir().expect("a directory");
        let authority = Authority::new(directory.path(), "authority");
        authority.issue_for("relay", "relay.test", "DNS:localhost,IP:127.0.0.1");
        let (inbox, implicit) = (Inbox::start(), Port::reserve());
        let tls = format!(
            "{sections}\n[tls]\ncertificate = {:?}\nkey = {:?}\n\n\
             [[listener]]\nname = \"smtps\"\nbind = [\"{}\"]\nclients = [\"127.0.0.0/8\"]\ntls = \"implicit\"\n",
            authority.path("relay.pem"),
            authority.path("relay.key"),
            implicit.address()
        );
        let mut relay = Relay::builder().inward(inbox.address()).section(&tls).prepare();
        relay.edit_config("tls = \"off\"", "tls = \"offer\"");
        relay.start();
        Self { relay, inbox, authority, directory, implicit }
    }

    pub fn address(&self, way: Way) -> SocketAddr {
        match way {
            Way::StartTls => self.relay.outside(),
            Way::Implicit => self.implicit.address(),
        }
    }

    /// The certificate that clients trust.
    pub fn trusted(&self) -> String {
        self.authority.path("authority.pem").to_str().expect("UTF-8").to_owned()
    }

    /// Writes a file for a client to read.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, content).expect("a file");
        path
    }

    /// Waits for all samples, `copies` of each, and compares octet by octet what stands behind the relay's Received
    /// field and `hops` further ones. Nothing else may have come, and all of it by TLS.
    ///
    /// # Panics
    /// When one is missing, differs, or came too often.
    #[track_caller]
    pub fn expect(&self, samples: &[Sample], copies: usize, hops: usize) {
        let all = samples.len() * copies;
        self.inbox.wait_for(all, SOON * 2);
        self.relay.wait_empty();
        for sample in samples {
            let id = format!("<{}@client.test>", sample.name);
            let mut found = 0;
            self.inbox.for_each(|got| {
                let head = &got.content[..got.content.len().min(2048)];
                if !String::from_utf8_lossy(head).contains(&id) {
                    return;
                }
                found += 1;
                assert_eq!((got.from.as_str(), got.to.as_slice()), (FROM, &[TO.to_owned()][..]));
                let content = (0..=hops).fold(&got.content[..], |content, _| without_received(content));
                assert_same(content, &sample.content);
            });
            assert_eq!(found, copies, "copies of {}", sample.name);
        }
        assert_eq!(self.inbox.len(), all, "messages in all");
        let clear = self
            .relay
            .log()
            .matching(&["from=<", "client="])
            .iter()
            .filter(|l| !l.contains("tls=TLSv1."))
            .count();
        assert_eq!(clear, 0, "messages that came without TLS");
    }

    /// Waits for one message and gives its parts as Python's email package reads them: see [`parts`].
    #[track_caller]
    pub fn next_parts(&self, messages: usize) -> Value {
        let got = self.inbox.wait_for(messages, SOON);
        self.relay.wait_empty();
        assert_eq!(self.inbox.len(), messages, "messages in all");
        let newest = got.last().expect("a message");
        assert_eq!((newest.from.as_str(), newest.to.as_slice()), (FROM, &[TO.to_owned()][..]));
        parts(&self.file("received.eml", &newest.content))
    }
}

const PARTS: &str = "\
import email, email.policy, hashlib, json, sys
message = email.message_from_binary_file(open(sys.argv[1], 'rb'), policy=email.policy.default)
parts = [{'name': part.get_filename(), 'sha256': hashlib.sha256(part.get_payload(decode=True)).hexdigest(),
    'text': part.get_content() if part.get_content_maintype() == 'text' and not part.get_filename() else None}
    for part in message.walk() if not part.is_multipart()]
json.dump({'subject': message['subject'], 'from': message['from'], 'defects': [str(d) for d in message.defects],
    'parts': parts}, sys.stdout)
";

/// Subject, From, defects and decoded parts (`name`, `sha256`, `text`) of a message in a file.
#[track_caller]
pub fn parts(file: &std::path::Path) -> Value {
    let mut command = std::process::Command::new("python3");
    let text = run_ok(command.args(["-c", PARTS]).arg(file), SOON);
    serde_json::from_str(&text).expect("JSON")
}

/// The SHA-256 of a file, in hexadecimal.
#[track_caller]
pub fn sha256(file: &std::path::Path) -> String {
    let text = run_ok(std::process::Command::new("sha256sum").arg(file), Duration::from_secs(10));
    text.split_whitespace().next().expect("a sum").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_what_their_names_say() {
        let samples = samples();
        let find = |name: &str| &samples.iter().find(|sample| sample.name == name).expect("a sample").content;
        assert_eq!(find("long").split(|&o| o == b'\n').map(<[u8]>::len).max(), Some(LINE_OCTETS + 1));
        assert!(find("eight").iter().any(|octet| !octet.is_ascii()));
        assert!(find("large").len() > 1_000_000);
        assert!(samples.iter().all(|sample| sample.content.ends_with(b"\r\n")));
        assert!(!samples[0].unix().contains(&b'\r'));
    }
}
