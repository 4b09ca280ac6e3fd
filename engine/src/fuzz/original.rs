//! What a DSN takes from its original: lines of bounded length ended by CRLF, no NUL, and a message id that
//! can stand in a field. The whole DSN about such an original, with a peer's words in it, is sound as well.

use crate::dsn::{Action, HEADER_BYTES_MAX, Report, ReportedRecipient, Texts, To, compose, original};
use sluice_queue::{Envelope, Recipient};

/// RFC 5322 section 2.1.1.
const LINE_BYTES_MAX: usize = 998;

pub fn check(input: &[u8]) {
    let (header, said) = input.split_at(input.len() - input.len().min(64) / 2);
    let returned = original::returned(header);
    assert!(returned.len() <= HEADER_BYTES_MAX);
    sound(&returned);
    let blank = memchr::memmem::find(&returned, b"\r\n\r\n");
    assert!(blank.is_none() && !returned.starts_with(b"\r\n"), "a returned header section has no end");
    if let Some(id) = original::message_id(header) {
        assert!(id.starts_with('<') && id.ends_with('>') && id.bytes().all(|octet| octet.is_ascii_graphic()));
    }
    let said = String::from_utf8_lossy(said);
    sound(&dsn(header, &said));
}

fn sound(octets: &[u8]) {
    let mut start = 0;
    for (at, octet) in octets.iter().enumerate() {
        match octet {
            0 => panic!("NUL at {at}"),
            b'\r' => assert_eq!(octets.get(at + 1), Some(&b'\n'), "bare CR at {at}"),
            b'\n' => {
                assert!(at > start && octets[at - 1] == b'\r', "bare LF at {at}");
                assert!(at - 1 - start <= LINE_BYTES_MAX, "a long line at {start}");
                start = at + 1;
            }
            _ => {}
        }
    }
    assert_eq!(start, octets.len(), "the last line has its end");
}

fn dsn(header: &[u8], said: &str) -> Vec<u8> {
    let original = Envelope {
        sender: "a@b.example".into(),
        recipients: vec![Recipient::new("c@d.example".to_owned())],
        ..Envelope::default()
    };
    let date = "Sun, 22 Nov 2026 01:41:40 +0000";
    let recipient = ReportedRecipient {
        address: "c@d.example",
        orcpt: "",
        action: Action::Bounced,
        status: "5.1.1",
        text: said,
        reply: Some(said),
        remote: Some(said),
        last_attempt_date: None,
    };
    let report = Report {
        hostname: "relay.winery.example",
        postmaster: "postmaster@winery.example",
        queue_id: "0",
        original: &original,
        to: To::Sender,
        texts: &Texts::default(),
        header,
        whole: false,
        arrival_date: date,
        date,
        now_micros: 1,
        recipients: &[recipient],
    };
    compose(&report).expect("the original has a sender").content
}
