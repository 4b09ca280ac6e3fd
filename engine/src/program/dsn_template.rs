//! `sluice dsn-template`: prints a built-in text of DSNs, to start an own one from; or a DSN with the configured text.

use super::check::load;
use super::{Failed, USAGE, print};
use crate::clock;
use crate::dsn::template::built_in;
use crate::dsn::{Action, Kind, Language, Report, ReportedRecipient, To, compose};
use sluice_queue::{Envelope, Recipient};
use std::path::Path;

/// `example`: the configuration whose text is to be shown in a DSN.
pub fn dsn_template(kind: &str, language: &str, example: Option<&Path>) -> Result<(), Failed> {
    let usage = |wrong: String| Failed::new(USAGE, wrong);
    let kind = Kind::ALL.into_iter().find(|known| known.name() == kind);
    let kind = kind.ok_or_else(|| usage("the kinds are failed, delayed and relayed".to_owned()))?;
    let language = Language::read(language).ok_or_else(|| usage("the languages are en and de".to_owned()))?;
    let Some(example) = example else { return print(built_in(kind, language)) };
    let config = load(example)?;
    let now = clock::wall_micros();
    let date = clock::mail_date(now);
    let original = Envelope {
        sender: "sender@example.com".into(),
        recipients: vec![Recipient::new("recipient@example.net")],
        helo: "client.example.com".into(),
        ..Envelope::default()
    };
    let (action, status, reply) = match kind {
        Kind::Failed => (Action::Bounced, "5.1.1", "550 5.1.1 No such mailbox"),
        Kind::Delayed => (Action::Delayed { until_date: &date }, "4.2.2", "452 4.2.2 Mailbox full"),
        Kind::Relayed => (Action::Relayed, "2.0.0", "250 2.0.0 Ok"),
    };
    let text = format!("host mx.example.net[192.0.2.25] said: {reply} (in reply to RCPT TO command)");
    let recipient = ReportedRecipient {
        address: "recipient@example.net",
        orcpt: "",
        action,
        status,
        text: &text,
        reply: Some(reply),
        remote: Some("mx.example.net"),
        last_attempt_date: Some(&date),
    };
    let dsn = compose(&Report {
        hostname: &config.hostname,
        postmaster: &config.postmaster,
        queue_id: "0123456789ABC",
        original: &original,
        to: To::Sender,
        texts: &config.dsn.texts,
        header: b"From: sender@example.com\r\nSubject: An example\r\nMessage-ID: <1@example.com>\r\n",
        whole: false,
        arrival_date: &date,
        date: &date,
        now_micros: now,
        recipients: &[recipient],
    });
    print(&String::from_utf8_lossy(&dsn.expect("there is a sender").content))
}
