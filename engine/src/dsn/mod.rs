//! Delivery status notifications (RFC 3464, RFC 6522, RFC 3834): what the relay tells a sender about
//! recipients that did not get the message, or not yet, or whose next hop will not tell him that they got it.
//!
//! Pure: dates come as text, the original's header section as octets. The result is a message like
//! any other: an envelope with the null reverse-path, and content with lines of at most 998 octets
//! ended by CRLF.
//!
//! ```text
//! multipart/report; report-type=delivery-status
//! ├── text/plain                 for people: what happened to whom, and what to do
//! ├── message/delivery-status    for machines: one block for the message, one per recipient
//! └── text/rfc822-headers        the header section of the original, cut at HEADER_BYTES_MAX; with RET=FULL
//!                                and a failure message/rfc822, all of it, up to `dsn.full_bytes_max`
//! ```
//!
//! Parts with octets beyond ASCII are quoted-printable, so that a DSN passes hosts without 8BITMIME; only a message that
//! is returned whole stays as it is. About a message that came with SMTPUTF8 the parts are message/global-delivery-status, message/global-headers
//! and message/global (RFC 6533), and addresses stand in them as they are. The DSN itself needs SMTPUTF8 only
//! where its own recipient's address does.
//!
//! What people read comes from templates (`template`), in the languages that are configured.
//!
//! Actions (RFC 3464 section 2.3.3) are failed, delayed and relayed: the relay delivers into no mailbox and expands no
//! list, so it never says delivered or expanded.
//!
//! Invariants: none about a message with the null reverse-path, so none about a DSN (RFC 5321
//! section 6.1). Nothing that a peer or a sender said can make a line of its own: it is reduced to
//! printable ASCII and folded. The boundary occurs in no part.

mod advice;
mod encoding;
mod fields;
pub(crate) mod original;
pub mod template;
mod text;

pub use text::{Kind, Language, Texts};

use crate::smtp::parameters::{orcpt, xtext};
use sluice_queue::{Body, Envelope, MailParameters, Recipient};

use self::fields::{Fields, ascii};

/// Octets of the original's header section that are returned. Prevents a DSN much larger than what
/// it tells.
pub const HEADER_BYTES_MAX: usize = 32 * 1_024;

/// Octets of a message that is returned whole, as RET=FULL or `dsn.return` asks for it (RFC 3461 section 4.3), unless
/// `dsn.full_bytes_max` says otherwise; of a larger one only the header section is. Prevents the same.
pub const FULL_BYTES_MAX: usize = 64 * 1_024;

/// The listener that notices to the postmaster name in their envelope: about such a one nobody is told anything.
pub const NOTICE: &str = "notice";

/// Recipients in one DSN that are listed for people; the machine part lists all.
pub const TOLD_RECIPIENTS_MAX: usize = 100;

/// Everything that a DSN says. Dates are RFC 5322 dates.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// The relay's own name: `Reporting-MTA`.
    pub hostname: &'a str,
    /// Whom the reader may write to; the author of the DSN.
    pub postmaster: &'a str,
    /// The queue id of the original.
    pub queue_id: &'a str,
    pub original: &'a Envelope,
    pub to: To<'a>,
    /// What people read.
    pub texts: &'a Texts,
    /// Octets of the original's header section, with or without the empty line behind it; may be the
    /// front part only, or empty when it cannot be read any more.
    pub header: &'a [u8],
    /// `header` is the whole message, and it is to be returned as it is.
    pub whole: bool,
    /// When the original arrived.
    pub arrival_date: &'a str,
    /// Now.
    pub date: &'a str,
    /// Now, in microseconds since 1970; makes the `Message-ID` unique.
    pub now_micros: u64,
    /// At least one; all of the same [`Action`] where the DSN is about a delay.
    pub recipients: &'a [ReportedRecipient<'a>],
}

/// Who gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To<'a> {
    /// The original's sender.
    Sender,
    /// The postmaster, to know of it: what it is.
    Postmaster(&'a str),
}

/// What is said about one recipient.
#[derive(Clone, Debug)]
pub struct ReportedRecipient<'a> {
    /// The forward-path without angle brackets.
    pub address: &'a str,
    /// ORCPT as it came (RFC 3461); empty: not given.
    pub orcpt: &'a str,
    pub action: Action<'a>,
    /// The enhanced status code: class 5 for a bounce, 4 for a delay, [`EXPIRED`] for an expiry.
    ///
    /// [`EXPIRED`]: crate::delivery::verdict::Status::EXPIRED
    pub status: &'a str,
    /// What happened, for people: the text of the verdict.
    pub text: &'a str,
    /// The words of the host: `Diagnostic-Code: smtp;`.
    pub reply: Option<&'a str>,
    /// The name of the host: `Remote-MTA`.
    pub remote: Option<&'a str>,
    /// When it was last tried.
    pub last_attempt_date: Option<&'a str>,
}

/// What has been done about a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Refused for good.
    Bounced,
    /// Tried until its time was over.
    Expired,
    /// Still being tried, until this date.
    Delayed { until_date: &'a str },
    /// Given to a next hop that tells nobody that it was delivered.
    Relayed,
}

/// A message to be accepted into the spool like any other.
#[derive(Clone, Debug)]
pub struct Dsn {
    pub envelope: Envelope,
    pub content: Vec<u8>,
}

/// Writes the DSN. `None` when there is nobody to send it to (the original's reverse-path is null) or nothing to say.
/// A notice to the postmaster there may be about any message but another notice.
pub fn compose(report: &Report<'_>) -> Option<Dsn> {
    let nobody = match report.to {
        To::Sender => report.original.sender.is_empty(),
        To::Postmaster(_) => report.original.listener == NOTICE,
    };
    if nobody || report.recipients.is_empty() {
        return None;
    }
    let utf8 = report.original.is_utf8();
    let whole = report.whole && original::is_returnable(report.header);
    let returned = if whole { report.header.to_vec() } else { original::returned(report.header) };
    let explanation = text::explanation(report, utf8);
    let text_type = match utf8 || !explanation.is_ascii() {
        true => "text/plain; charset=utf-8",
        false => "text/plain; charset=us-ascii",
    };
    let status_type = if utf8 { "message/global-delivery-status" } else { "message/delivery-status" };
    let returned_type = match (whole, utf8) {
        (true, true) => "message/global",
        (true, false) => "message/rfc822",
        (false, true) => "message/global-headers",
        (false, false) => "text/rfc822-headers",
    };
    let parts = [
        Part::new("Notification", text_type, explanation),
        Part::new("Delivery report", status_type, status(report, utf8)),
        Part::new(if whole { "The message" } else { "Header of the message" }, returned_type, returned),
    ];
    let boundary = free_boundary(report, &parts);
    let is_eight_bit = parts.iter().any(|part| part.encoding == Some("8bit"));
    let mut content = header(report, &boundary, is_eight_bit);
    for part in &parts {
        content.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
        let mut fields = Fields::default();
        fields.put("Content-Description", part.description);
        fields.put("Content-Type", part.media_type);
        if part.media_type == text_type {
            fields.put("Content-Language", &text::languages(report));
        }
        if let Some(encoding) = part.encoding {
            fields.put("Content-Transfer-Encoding", encoding);
        }
        content.extend_from_slice(&fields.into_octets());
        content.extend_from_slice(b"\r\n");
        content.extend_from_slice(&part.octets);
    }
    content.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    let is_eight_bit = is_eight_bit || !content.is_ascii();
    Some(Dsn { envelope: envelope(report, is_eight_bit), content })
}

/// A message to the postmaster about the relay itself: a subject and a text.
pub fn notice(
    hostname: &str,
    postmaster: &str,
    (subject, text): (&str, &str),
    date: &str,
    now_micros: u64,
) -> Dsn {
    let mut fields = Fields::default();
    fields.put("Date", date);
    fields.put("From", &format!("Mail Delivery System <{postmaster}>"));
    fields.put("To", &format!("<{postmaster}>"));
    fields.put("Subject", &format!("Postmaster notice from {hostname}: {subject}"));
    fields.put("Message-ID", &format!("<notice.{now_micros}@{hostname}>"));
    fields.put("Auto-Submitted", "auto-generated");
    fields.put("MIME-Version", "1.0");
    fields.put("Content-Type", "text/plain; charset=us-ascii");
    let mut content = fields.into_octets();
    content.extend_from_slice(b"\r\n");
    content.extend_from_slice(&fields::wrapped(text, 0, false));
    let envelope = Envelope {
        recipients: vec![Recipient::new(postmaster)],
        arrived_micros: now_micros,
        listener: NOTICE.into(),
        helo: hostname.into(),
        ..Envelope::default()
    };
    Dsn { envelope, content }
}

/// A part of the body, encoded where it has other octets than ASCII. A message within a message stays as it is
/// (RFC 2046 section 5.2.1), but for the kind that RFC 6532 section 3.7 defines.
struct Part {
    description: &'static str,
    media_type: &'static str,
    octets: Vec<u8>,
    encoding: Option<&'static str>,
}

impl Part {
    fn new(description: &'static str, media_type: &'static str, octets: Vec<u8>) -> Self {
        let (octets, encoding) = match octets.is_ascii() {
            true => (octets, None),
            false if media_type == "message/rfc822" => (octets, Some("8bit")),
            false => (encoding::quoted_printable(&octets), Some("quoted-printable")),
        };
        Self { description, media_type, octets, encoding }
    }
}

fn envelope(report: &Report<'_>, is_eight_bit: bool) -> Envelope {
    let (recipient, listener) = match report.to {
        To::Sender => (report.original.sender.clone(), "dsn"),
        To::Postmaster(_) => (report.postmaster.to_owned(), NOTICE),
    };
    Envelope {
        sender: String::new(),
        recipients: vec![Recipient::new(recipient)],
        body: if is_eight_bit { Body::EightBit } else { Body::SevenBit },
        arrived_micros: report.now_micros,
        listener: listener.into(),
        helo: report.hostname.into(),
        client: String::new(),
        parameters: needs_utf8(report)
            .then(|| Box::new(MailParameters { smtputf8: true, ..MailParameters::default() })),
        ..Envelope::default()
    }
}

/// The DSN's own header and envelope have UTF-8 (RFC 6531).
fn needs_utf8(report: &Report<'_>) -> bool {
    report.to == To::Sender && report.original.is_utf8() && !report.original.sender.is_ascii()
}

fn header(report: &Report<'_>, boundary: &str, is_eight_bit: bool) -> Vec<u8> {
    let mut fields = Fields::new(needs_utf8(report));
    fields.put("Date", report.date);
    fields.put("From", &format!("{} <{}>", encoding::display_name(text::from(report)), report.postmaster));
    let to = match report.to {
        To::Sender => &report.original.sender,
        To::Postmaster(_) => report.postmaster,
    };
    fields.put("To", &format!("<{to}>"));
    fields.put("Subject", &encoding::words(&text::subject(report)));
    let unique = format!("<{}.{}@{}>", report.queue_id, report.now_micros, report.hostname);
    fields.put("Message-ID", &unique);
    if let Some(message_id) = original::message_id(report.header) {
        fields.put("In-Reply-To", &message_id);
        fields.put("References", &message_id);
    }
    fields.put("Auto-Submitted", "auto-replied");
    fields.put("MIME-Version", "1.0");
    let media_type = format!("multipart/report; report-type=delivery-status; boundary=\"{boundary}\"");
    fields.put("Content-Type", &media_type);
    if is_eight_bit {
        fields.put("Content-Transfer-Encoding", "8bit");
    }
    let mut octets = fields.into_octets();
    octets.extend_from_slice(b"\r\nThis is a delivery status notification in MIME format.\r\n");
    octets
}

/// RFC 3464 section 2: the block of the message, then one block per recipient.
fn status(report: &Report<'_>, utf8: bool) -> Vec<u8> {
    let mut fields = Fields::new(utf8);
    let envid = report.original.parameters.as_ref().map_or("", |of| of.envid.as_str());
    if let Some(envid) = xtext::decoded(envid).filter(|envid| !envid.is_empty()) {
        fields.put("Original-Envelope-Id", &String::from_utf8_lossy(&envid));
    }
    fields.put("Reporting-MTA", &format!("dns; {}", report.hostname));
    if !report.original.helo.is_empty() {
        fields.put("Received-From-MTA", &format!("dns; {}", report.original.helo));
    }
    fields.put("Arrival-Date", report.arrival_date);
    fields.put("X-Sluice-Queue-ID", report.queue_id);
    let kind = if report.original.sender.is_ascii() { "rfc822" } else { "utf-8" };
    if !report.original.sender.is_empty() {
        fields.put("X-Sluice-Sender", &format!("{kind}; {}", report.original.sender));
    }
    let mut octets = fields.into_octets();
    for recipient in report.recipients {
        octets.extend_from_slice(b"\r\n");
        octets.extend_from_slice(&recipient_status(recipient, report.queue_id, utf8));
    }
    octets
}

/// An original recipient as RFC 3464 section 2.3.1, or RFC 6533 section 3, writes it.
fn original_recipient(orcpt: &str, utf8: bool) -> Option<String> {
    let (kind, address) = orcpt::plain(orcpt)?;
    if utf8 || address.is_ascii() {
        return Some(format!("{kind}; {address}"));
    }
    orcpt::in_ascii(orcpt).split_once(';').map(|(kind, address)| format!("{kind}; {address}"))
}

fn recipient_status(recipient: &ReportedRecipient<'_>, queue_id: &str, utf8: bool) -> Vec<u8> {
    let mut fields = Fields::new(utf8);
    if let Some(original) = original_recipient(recipient.orcpt, utf8) {
        fields.put("Original-Recipient", &original);
    }
    let kind = if recipient.address.is_ascii() { "rfc822" } else { "utf-8" };
    fields.put("Final-Recipient", &format!("{kind}; {}", recipient.address));
    let action = match recipient.action {
        Action::Delayed { .. } => "delayed",
        Action::Relayed => "relayed",
        Action::Bounced | Action::Expired => "failed",
    };
    fields.put("Action", action);
    fields.put("Status", recipient.status);
    if let Some(remote) = recipient.remote {
        fields.put("Remote-MTA", &format!("dns; {remote}"));
    }
    match recipient.reply {
        Some(reply) => fields.put("Diagnostic-Code", &format!("smtp; {reply}")),
        None => fields.put("Diagnostic-Code", &format!("X-Sluice; {}", recipient.text)),
    }
    if let Some(date) = recipient.last_attempt_date {
        fields.put("Last-Attempt-Date", date);
    }
    fields.put("Final-Log-ID", queue_id);
    if let Action::Delayed { until_date } = recipient.action {
        fields.put("Will-Retry-Until", until_date);
    }
    fields.into_octets()
}

/// A boundary that is in none of the parts, whatever the sender of the original put into it.
fn free_boundary(report: &Report<'_>, parts: &[Part]) -> String {
    let id: String = ascii(report.queue_id).chars().filter(char::is_ascii_alphanumeric).take(32).collect();
    let mut number = report.now_micros;
    loop {
        let boundary = format!("=_{id}.{number}");
        let is_taken = |part: &Part| memchr::memmem::find(&part.octets, boundary.as_bytes()).is_some();
        if !parts.iter().any(is_taken) {
            return boundary;
        }
        number = number.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests;
