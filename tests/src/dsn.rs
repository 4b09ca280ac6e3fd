//! A delivery status notification (RFC 3464) as Python's `email` package understands it: a parser that
//! nobody here wrote.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

const SCRIPT: &str = "\
import email, email.policy, json, sys
message = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
fields = lambda part: {k.lower(): str(v) for k, v in part.items()}
parts = [p for p in message.iter_parts()] if message.is_multipart() else []
status = [p for p in parts if p.get_content_type() == 'message/delivery-status']
returned = [p for p in parts if p.get_content_type() in ('message/rfc822', 'text/rfc822-headers')]
groups = [fields(g) for g in status[0].get_payload()] if status else []
for p in parts:
    if p.get_content_type() == 'message/global-delivery-status':
        octets = p.get_payload(decode=True) or p.get_payload()[0].as_bytes()
        if isinstance(p.get_payload(), list) and p['content-transfer-encoding'] == 'quoted-printable':
            import quopri
            octets = quopri.decodestring(octets)
        blocks = octets.decode('utf-8').replace('\\r\\n', '\\n').strip().split('\\n\\n')
        groups = [{k.strip().lower(): v.strip() for k, v in (l.split(':', 1) for l in b.replace('\\n ', ' ').split('\\n'))} for b in blocks]
original = {}
if returned:
    payload = returned[0].get_payload()
    inner = payload[0] if isinstance(payload, list) else email.message_from_string(payload)
    original = fields(inner)
json.dump({
    'header': fields(message), 'type': message.get_content_type(),
    'report': message.get_param('report-type', ''),
    'parts': [p.get_content_type() for p in parts],
    'text': parts[0].get_content() if parts and parts[0].get_content_maintype() == 'text' else '',
    'message': groups[0] if groups else {}, 'recipients': groups[1:], 'original': original,
    'defects': [str(d) for p in message.walk() for d in p.defects],
}, sys.stdout)
";

/// What the parser found. Field names are in lower case.
#[derive(Clone, Debug)]
pub struct Dsn(Value);

impl Dsn {
    /// # Panics
    /// When python3 cannot be run or finds no message.
    #[track_caller]
    pub fn parse(content: &[u8]) -> Self {
        let mut python = Command::new("python3")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        python.stdin.take().expect("piped").write_all(content).expect("python3 reads");
        let output = python.wait_with_output().expect("python3");
        assert!(output.status.success(), "python3: {}", output.status);
        Self(serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    /// # Panics
    /// When the message is not a well-formed multipart/report with a part to read, a delivery status and
    /// the returned message or its header.
    #[track_caller]
    pub fn parse_valid(content: &[u8]) -> Self {
        let dsn = Self::parse(content);
        let whole = || format!("{:#}\n{}", dsn.0, String::from_utf8_lossy(content));
        assert_eq!(dsn.0["defects"], serde_json::json!([]), "{}", whole());
        assert_eq!(dsn.0["type"], "multipart/report", "{}", whole());
        assert_eq!(dsn.0["report"], "delivery-status", "{}", whole());
        let parts: Vec<&str> =
            dsn.0["parts"].as_array().expect("parts").iter().filter_map(Value::as_str).collect();
        assert!(
            matches!(
                parts[..],
                ["text/plain", "message/delivery-status", "message/rfc822" | "text/rfc822-headers"]
                    | [
                        "text/plain",
                        "message/global-delivery-status",
                        "message/global" | "message/global-headers"
                    ]
            ),
            "{}",
            whole()
        );
        assert!(!dsn.message("reporting-mta").is_empty(), "{}", whole());
        dsn
    }

    /// A field of the notification's own header.
    pub fn header(&self, name: &str) -> &str {
        self.0["header"][name].as_str().unwrap_or_default()
    }

    /// A per-message field.
    pub fn message(&self, name: &str) -> &str {
        self.0["message"][name].as_str().unwrap_or_default()
    }

    /// How many recipients are reported.
    pub fn recipient_count(&self) -> usize {
        self.0["recipients"].as_array().map_or(0, Vec::len)
    }

    /// A per-recipient field.
    pub fn recipient(&self, index: usize, name: &str) -> &str {
        self.0["recipients"][index][name].as_str().unwrap_or_default()
    }

    /// A header field of the returned message.
    pub fn original(&self, name: &str) -> &str {
        self.0["original"][name].as_str().unwrap_or_default()
    }

    /// The part for people, its lines joined.
    pub fn text(&self) -> String {
        let text = self.0["text"].as_str().unwrap_or_default();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// # Panics
    /// When the only recipient is not reported like this.
    #[track_caller]
    pub fn expect_one(&self, recipient: &str, action: &str, status: &str) -> &Self {
        assert_eq!(self.recipient_count(), 1, "{:#}", self.0);
        let address = self.recipient(0, "final-recipient");
        assert_eq!(address.to_lowercase().replace(' ', ""), format!("rfc822;{recipient}"), "{:#}", self.0);
        assert_eq!(self.recipient(0, "action").to_lowercase(), action, "{:#}", self.0);
        assert_eq!(self.recipient(0, "status"), status, "{:#}", self.0);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "From: mailer@a.test\r\nTo: s@b.test\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/report; report-type=delivery-status; boundary=x\r\n\r\n\
        --x\r\nContent-Type: text/plain\r\n\r\nSorry.\r\n\
        --x\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; a.test\r\n\r\n\
        Final-Recipient: rfc822; r@c.test\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n\
        --x\r\nContent-Type: text/rfc822-headers\r\n\r\nSubject: lost\r\n\r\n--x--\r\n";

    #[test]
    fn a_notification_is_understood() {
        let dsn = Dsn::parse_valid(EXAMPLE.as_bytes());
        dsn.expect_one("r@c.test", "failed", "5.1.1");
        assert_eq!((dsn.original("subject"), dsn.header("to")), ("lost", "s@b.test"));
        assert!(dsn.text().contains("Sorry"));
    }

    #[test]
    #[should_panic(expected = "multipart/report")]
    fn a_plain_message_is_no_notification() {
        Dsn::parse_valid(b"Subject: x\r\n\r\nhello\r\n");
    }
}
