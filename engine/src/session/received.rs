//! The Received field that a message gets here (RFC 5321 section 4.4).
//!
//! `from` names what the client called itself, with the address that it came from in TCP-info; `with`
//! is ESMTP after EHLO, ESMTPS within TLS, with an A more after AUTH, and SMTP after HELO (RFC 3848), UTF8SMTP and so on with SMTPUTF8; `for` stands only with one recipient, so that no recipient
//! learns of another. Nothing in it can begin a line or a comment: the name obeys
//! `smtp::command::is_hello_name`, the recipient is a canonical mailbox.

use super::Session;
use crate::smtp::path::AddressLiteral;
use crate::tls::{TlsFacts, Verdict};
use sluice_queue::QueueId;
use std::fmt;
use std::io::Write;

pub(super) fn field(session: &Session, id: QueueId, date: &str) -> Vec<u8> {
    let hello = session.hello.as_ref().expect("a message comes after EHLO or HELO");
    let transaction = session.transaction.as_ref().expect("a message has an envelope");
    // RFC 6531 section 4.3.
    let protocol = match session.is_utf8() {
        true => session.protocol().replace("ESMTP", "UTF8SMTP"),
        false => session.protocol().to_owned(),
    };
    let mut out = Vec::with_capacity(512);
    let written = write!(
        out,
        "Received: from {} ({}{})\r\n\t{}by {} with {protocol} id {id}",
        hello.name,
        Named(session.client_name()),
        AddressLiteral(session.client),
        Tls(session.tls()),
        session.context.hostname,
    )
    .and_then(|()| match &transaction.recipients[..] {
        [only] => write!(out, "\r\n\tfor <{}>; {date}\r\n", only.address),
        _ => write!(out, "; {date}\r\n"),
    });
    written.expect("a vector takes everything");
    out
}

/// The client's name and a space, where it is known.
struct Named<'a>(Option<&'a str>);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |name| write!(f, "{name} "))
    }
}

/// A comment that tells of the TLS connection, on a line of its own.
struct Tls<'a>(Option<&'a TlsFacts>);

impl fmt::Display for Tls<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(facts) = self.0 else { return Ok(()) };
        let certificate = match facts.client {
            None => "",
            Some(Verdict::None) => ", no client certificate",
            Some(Verdict::NotVerified) => ", client certificate not verified",
            Some(Verdict::Verified) => ", client certificate verified",
        };
        write!(f, "(using {} with cipher {}{certificate})\r\n\t", facts.version, facts.cipher)
    }
}
