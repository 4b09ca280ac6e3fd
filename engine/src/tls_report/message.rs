//! A report as octets: the JSON (RFC 8460 section 4.4), compressed, and the message around it (section 5.3).
//!
//! Pure, but for the compression's own work.
//!
//! ```text
//! multipart/report; report-type=tlsrpt
//! ├── text/plain                     for people
//! └── application/tlsrpt+gzip        SUBMITTER!DOMAIN!BEGIN!END!ID.json.gz, in base64
//! ```

use std::io::Write;

use base64ct::{Base64, Encoding};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sluice_queue::{Body, Envelope, Recipient};

use super::tally::PolicyReport;
use crate::clock;

/// Characters of a line of base64 (RFC 2045 section 6.8).
const BASE64_LINE: usize = 76;

/// Everything that a report says.
pub struct Report<'a> {
    pub organization: &'a str,
    pub contact: &'a str,
    /// The relay's own name.
    pub submitter: &'a str,
    pub domain: &'a str,
    /// Seconds since 1970; the end is the first second that does not belong to it.
    pub start: u64,
    pub end: u64,
    pub policies: &'a [PolicyReport],
}

impl Report<'_> {
    /// Unique for submitter, domain and period.
    pub fn id(&self) -> String {
        format!("{}.{}.{}@{}", self.start, self.end, self.domain, self.submitter)
    }

    pub fn json(&self) -> Value {
        json!({
            "organization-name": self.organization,
            "date-range": {
                "start-datetime": clock::rfc3339(self.start),
                "end-datetime": clock::rfc3339(self.end.saturating_sub(1).max(self.start)),
            },
            "contact-info": self.contact,
            "report-id": self.id(),
            "policies": self.policies,
        })
    }

    /// The JSON, compressed (RFC 1952).
    pub fn compressed(&self) -> Vec<u8> {
        let text = serde_json::to_vec(&self.json()).unwrap_or_default();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        // Memory takes everything.
        let _ = encoder.write_all(&text);
        encoder.finish().unwrap_or_default()
    }

    fn file_name(&self) -> String {
        format!("{}!{}!{}!{}!1.json.gz", self.submitter, self.domain, self.start, self.end.saturating_sub(1))
    }

    /// The message to one address, from `from`.
    pub fn message(&self, from: &str, to: &str, now_micros: u64) -> (Envelope, Vec<u8>) {
        let Self { domain, submitter, .. } = self;
        let (id, name) = (self.id(), self.file_name());
        let boundary = format!("=_tlsrpt.{}.{now_micros}", self.start);
        let sessions = |of: fn(&PolicyReport) -> u64| self.policies.iter().map(of).sum::<u64>();
        let good = sessions(|report| report.summary.total_successful_session_count);
        let bad = sessions(|report| report.summary.total_failure_session_count);
        let date = clock::mail_date(now_micros);
        let mut content = format!(
            "Date: {date}\r\nFrom: <{from}>\r\nTo: <{to}>\r\n\
             Subject: Report Domain: {domain}\r\n Submitter: {submitter}\r\n Report-ID: <{id}>\r\n\
             Message-ID: <{now_micros}.{id}>\r\nAuto-Submitted: auto-generated\r\n\
             TLS-Report-Domain: {domain}\r\nTLS-Report-Submitter: {submitter}\r\nTLS-Required: No\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n boundary=\"{boundary}\"\r\n\r\n\
             This is a report on TLS in MIME format (RFC 8460).\r\n\
             \r\n--{boundary}\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n\
             This is an aggregate TLS report of {submitter} about its sessions with\r\n\
             the mail hosts of {domain}\r\n\
             from {} until {}:\r\n\
             {good} of {} were as the policies demand.\r\n\
             \r\n--{boundary}\r\nContent-Type: application/tlsrpt+gzip\r\n\
             Content-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment;\r\n filename=\"{name}\"\r\n\r\n",
            clock::mail_date(self.start.saturating_mul(1_000_000)),
            clock::mail_date(self.end.saturating_mul(1_000_000)),
            good + bad,
        )
        .into_bytes();
        for line in Base64::encode_string(&self.compressed()).as_bytes().chunks(BASE64_LINE) {
            content.extend_from_slice(line);
            content.extend_from_slice(b"\r\n");
        }
        content.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        (envelope(from, to, submitter, now_micros), content)
    }
}

fn envelope(from: &str, to: &str, submitter: &str, now_micros: u64) -> Envelope {
    Envelope {
        sender: from.to_owned(),
        recipients: vec![Recipient::new(to.to_owned())],
        body: Body::SevenBit,
        arrived_micros: now_micros,
        listener: "tls-report".into(),
        helo: submitter.into(),
        client: String::new(),
        ..Envelope::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tally::{PolicyText, Summary};
    use super::*;

    #[test]
    fn every_line_of_the_message_is_short_ascii_and_ends_with_crlf() {
        let domain = format!("{}.test", vec!["a".repeat(60); 3].join("."));
        let policy = PolicyReport {
            policy: PolicyText {
                policy_type: "no-policy-found".into(),
                policy_string: vec![],
                policy_domain: domain.clone(),
                mx_host: vec![],
            },
            summary: Summary { total_successful_session_count: 2, total_failure_session_count: 1 },
            failure_details: vec![],
        };
        let report = Report {
            organization: "Winery",
            contact: "postmaster@winery.test",
            submitter: "relay.winery.test",
            domain: &domain,
            start: 1_795_305_600,
            end: 1_795_392_000,
            policies: &vec![policy; 50],
        };
        assert_eq!(
            report.json()["date-range"],
            json!({"start-datetime": "2026-11-22T00:00:00Z", "end-datetime": "2026-11-22T23:59:59Z"})
        );
        let (envelope, content) = report.message("tls@winery.test", "r@a.test", 1_795_392_000_000_000);
        assert_eq!(
            (envelope.sender.as_str(), &*envelope.recipients[0].address),
            ("tls@winery.test", "r@a.test")
        );
        let text = String::from_utf8(content).expect("ASCII");
        assert!(text.is_ascii() && text.ends_with("--\r\n"));
        for line in text.split("\r\n") {
            assert!(line.len() <= 998 && !line.contains(['\r', '\n']), "{line:?}");
        }
        assert!(text.contains("100 of 150 were"), "{text}");
    }
}
