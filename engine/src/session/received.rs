//! The Received field that a message gets here (RFC 5321 section 4.4).
//!
//! `from` names what the client called itself, with the address that it came from in TCP-info; `with`
//! is ESMTP after EHLO and SMTP after HELO; `for` stands only with one recipient, so that no recipient
//! learns of another. Nothing in it can begin a line or a comment: the name obeys
//! `smtp::command::is_hello_name`, the recipient is a canonical mailbox.

use super::Session;
use crate::smtp::path::AddressLiteral;
use sluice_queue::QueueId;
use std::io::Write;

pub(super) fn field(session: &Session, id: QueueId, date: &str) -> Vec<u8> {
    let hello = session.hello.as_ref().expect("a message comes after EHLO or HELO");
    let transaction = session.transaction.as_ref().expect("a message has an envelope");
    let protocol = if hello.extended { "ESMTP" } else { "SMTP" };
    let mut out = Vec::with_capacity(512);
    let written = write!(
        out,
        "Received: from {} ({})\r\n\tby {} with {protocol} id {id}",
        hello.name,
        AddressLiteral(session.client),
        session.context.hostname,
    )
    .and_then(|()| match &transaction.recipients[..] {
        [only] => write!(out, "\r\n\tfor <{}>; {date}\r\n", only.address),
        _ => write!(out, "; {date}\r\n"),
    });
    written.expect("a vector takes everything");
    out
}
