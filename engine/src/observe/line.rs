//! The log lines about messages, in the form that users of Postfix know.
//!
//! ```text
//! QID: from=<SENDER>, size=OCTETS, nrcpt=N, client=[IP], helo=<NAME>, listener=NAME[, tls=VERSION/CIPHER]
//!     [, sasl_method=NAME, sasl_username=LOGIN][, repaired=bare CR+bare LF+NUL]
//! QID: to=<RECIPIENT>, relay=HOST[IP]:PORT, delay=S, delays=A/B/C/D[, tls=VERSION/CIPHER/VERDICT], dsn=X.Y.Z,
//!      status=sent (REPLY)
//! QID: to=<RECIPIENT>, from=<SENDER>, size=OCTETS, status=deleted (by uid UID, pid PID)
//! ```
//!
//! `delays`: A receiving the message, B waiting in the queue, C setting the connection up (zero on a
//! reused one), D the transaction. Pure.

use crate::tls::TlsFacts;
use crate::tls::outward::PeerTls;
use sluice_queue::{Envelope, QueueId};
use std::io::Write;

pub fn accepted(line: &mut Vec<u8>, id: QueueId, envelope: &Envelope, octets: u64) {
    let _ = write!(
        line,
        "{id}: from=<{}>, size={octets}, nrcpt={}",
        Shown(&envelope.sender),
        envelope.recipients.len()
    );
    if !envelope.client.is_empty() {
        let _ = write!(line, ", client=[{}], helo=<{}>", envelope.client, Shown(&envelope.helo));
    }
    let _ = write!(line, ", listener={}", envelope.listener);
}

/// Added to the line of an accepted message that came over TLS.
pub fn tls(line: &mut Vec<u8>, tls: Option<&TlsFacts>) {
    if let Some(tls) = tls {
        let _ = write!(line, ", tls={}/{}", tls.version, tls.cipher);
    }
}

/// Added to the line of an accepted message whose sender has proved who it is.
pub fn login(line: &mut Vec<u8>, login: Option<(&str, &str)>) {
    if let Some((login, mechanism)) = login {
        let _ = write!(line, ", sasl_method={mechanism}, sasl_username={}", Shown(login));
    }
}

/// A login that was refused, in the words of Postfix, by which fail2ban and its like know it.
pub fn auth_failed(line: &mut Vec<u8>, note: &str, listener: &str) {
    let _ = write!(line, "warning: {}, listener={listener}", Shown(note));
}

/// Added to the line of an accepted message whose content was repaired: what of.
pub fn repaired(line: &mut Vec<u8>, bare_cr: bool, bare_lf: bool, nul: bool) {
    let found = [(bare_cr, "bare CR"), (bare_lf, "bare LF"), (nul, "NUL")];
    for (index, (_, what)) in found.into_iter().filter(|(found, _)| *found).enumerate() {
        let _ = write!(line, "{}{what}", if index == 0 { ", repaired=" } else { "+" });
    }
}

/// A handshake that came to nothing.
pub fn tls_failed(line: &mut Vec<u8>, client: std::net::IpAddr, reason: &str, listener: &str) {
    let _ =
        write!(line, "TLS handshake failed with unknown[{client}]: {}, listener={listener}", Shown(reason));
}

/// A command or a message that was refused, in the shape of Postfix's reject lines.
pub fn refused(line: &mut Vec<u8>, note: &str, listener: &str) {
    let _ = write!(line, "NOQUEUE: reject: {}, listener={listener}", Shown(note));
}

/// A client that went away within a transaction.
/// `stage`: the command whose reply or content it did not wait for or finish.
pub fn lost(line: &mut Vec<u8>, stage: &str, client: std::net::IpAddr, listener: &str) {
    let _ = write!(line, "lost connection after {stage} from unknown[{client}], listener={listener}");
}

/// What one attempt at one recipient came to.
pub struct Attempt<'a> {
    pub id: QueueId,
    pub recipient: &'a str,
    /// `host[ip]:port`, or `none`.
    pub relay: &'a str,
    pub delays: Delays,
    pub tls: Option<&'a PeerTls>,
    pub dsn: &'a str,
    /// `sent`, `deferred`, `bounced` or `expired`.
    pub status: &'a str,
    pub reply: &'a str,
}

/// What an administrator did with one recipient.
pub struct Steered<'a> {
    pub id: QueueId,
    pub recipient: &'a str,
    pub sender: &'a str,
    pub octets: u64,
    /// `held`, `released`, `rerouted`, `bounced` or `deleted`.
    pub status: &'a str,
    /// The user who asked for it.
    pub who: &'a str,
    /// Of a reroute.
    pub to: Option<String>,
}

pub fn steered(line: &mut Vec<u8>, steered: &Steered<'_>) {
    let Steered { id, recipient, sender, octets, status, who, to } = steered;
    let (recipient, sender) = (Shown(recipient), Shown(sender));
    let _ = write!(line, "{id}: to=<{recipient}>, from=<{sender}>, size={octets}, status={status} (");
    if let Some(to) = to {
        let _ = write!(line, "to {to}, ");
    }
    let _ = write!(line, "by {who})");
}

/// In microseconds; see the head of this file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delays {
    pub receiving: u64,
    pub waiting: u64,
    pub connecting: u64,
    pub transaction: u64,
}

impl Delays {
    fn sum(&self) -> u64 {
        self.receiving
            .saturating_add(self.waiting)
            .saturating_add(self.connecting)
            .saturating_add(self.transaction)
    }
}

pub fn attempt(line: &mut Vec<u8>, attempt: &Attempt<'_>) {
    let delays = &attempt.delays;
    let _ = write!(
        line,
        "{}: to=<{}>, relay={}, delay={}, delays={}/{}/{}/{}",
        attempt.id,
        Shown(attempt.recipient),
        attempt.relay,
        Seconds(delays.sum()),
        Seconds(delays.receiving),
        Seconds(delays.waiting),
        Seconds(delays.connecting),
        Seconds(delays.transaction),
    );
    if let Some(tls) = attempt.tls {
        let _ = write!(line, ", tls={tls}");
    }
    let _ = write!(line, ", dsn={}, status={} ({})", attempt.dsn, attempt.status, Shown(attempt.reply),);
}

/// Microseconds as seconds with two significant digits below ten, as Postfix prints them.
struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0..5_000 if self.0 < 500 => f.write_str("0"),
            0..100_000 => write!(f, "0.{:03}", (self.0 + 500) / 1_000),
            100_000..10_000_000 => write!(f, "{}.{:02}", self.0 / 1_000_000, self.0 % 1_000_000 / 10_000),
            _ => write!(f, "{}", self.0 / 1_000_000),
        }
    }
}

/// Foreign text with control octets shown as `?`, so that it can end no line and steer no terminal.
struct Shown<'a>(&'a str);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.0.chars().any(char::is_control) {
            return f.write_str(self.0);
        }
        self.0.chars().try_for_each(|c| std::fmt::Write::write_char(f, if c.is_control() { '?' } else { c }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_queue::SpoolNumber;

    #[test]
    fn a_delivery_line_has_the_fields_of_postfix() {
        let mut line = Vec::new();
        attempt(
            &mut line,
            &Attempt {
                id: QueueId::new(1, SpoolNumber::new(0).unwrap()),
                recipient: "bob@example.com",
                relay: "mx.example.com[192.0.2.1]:25",
                delays: Delays { receiving: 0, waiting: 1_500, connecting: 250_000, transaction: 12_345_678 },
                tls: None,
                dsn: "2.0.0",
                status: "sent",
                reply: "250 2.0.0 Ok:\r\nqueued",
            },
        );
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "0000000000400: to=<bob@example.com>, relay=mx.example.com[192.0.2.1]:25, delay=12, \
             delays=0/0.002/0.25/12, dsn=2.0.0, status=sent (250 2.0.0 Ok:??queued)"
        );
    }

    #[test]
    fn seconds_are_short_and_never_lie_about_their_order() {
        for (micros, text) in [
            (0, "0"),
            (499, "0"),
            (500, "0.001"),
            (99_499, "0.099"),
            (100_000, "0.10"),
            (1_234_567, "1.23"),
            (61_000_000, "61"),
        ] {
            assert_eq!(Seconds(micros).to_string(), text);
        }
    }
}
