//! MAIL (RFC 5321 section 4.1.1.2) with SIZE (RFC 1870) and BODY (RFC 6152).
//!
//! Replies: 250 2.1.0; 503 5.5.1 before EHLO or inside a transaction; 555 5.5.4 to a parameter after
//! HELO, which announced none; 501 5.5.4 to
//! BODY=BINARYMIME where the listener does not announce it; 552 5.3.4 to a declared size over the limit; 421 4.7.0 after
//! `limits.transactions_max`; 452 4.3.1 or 451 4.3.0 while the spool takes nothing, not counted as an error
//! (RFC 1870 section 6.1). From the grammar: 501 5.5.4, 501 5.1.7, 553 5.6.7, 555 5.5.4.

use super::bdat::Bdat;
use super::{Argument, Handled, Refusal, Refused, Session, State, Transaction};
use crate::smtp::command::Mail;
use crate::smtp::reply;
use sluice_queue::Body;

pub(super) fn mail(session: &mut Session, mail: &Mail<'_>, out: &mut Vec<u8>) -> Handled {
    let Some(hello) = &session.hello else {
        return Err((&reply::SEQUENCE_HELLO_FIRST).into());
    };
    if session.state != State::AwaitMail {
        return Err((&reply::MAIL_NESTED).into());
    }
    if mail.has_parameters() && !hello.extended {
        return Err((&reply::UNKNOWN_PARAMETER).into());
    }
    if mail.body == Some(Body::Binary) && !session.context.binarymime {
        return Err((&reply::BAD_PARAMETER).into());
    }
    let limits = &session.context.limits;
    if session.transactions >= limits.transactions_max {
        let refused = Refused::from(&reply::TOO_MANY_TRANSACTIONS).with(Argument::HostName);
        return Err(refused.uncounted().last());
    }
    if mail.size.is_some_and(|size| size > limits.message_bytes_max) {
        return Err(Refused::from(&reply::MESSAGE_TOO_LARGE).with(Argument::Number(limits.message_bytes_max)));
    }
    match session.refusing {
        None => {}
        Some(Refusal::NoSpace) => return Err(Refused::from(&reply::NO_SPACE).uncounted()),
        Some(_) => return Err(Refused::from(&reply::STORAGE_FAILED).uncounted()),
    }
    session.transactions += 1;
    session.bdat = Bdat::default();
    session.transaction = Some(Transaction {
        sender: mail.sender.map(|mailbox| mailbox.to_string()).unwrap_or_default(),
        size: mail.size,
        body: mail.body.unwrap_or_default(),
        recipients: Vec::new(),
        recipients_over: 0,
    });
    session.state = State::AwaitRcpt;
    reply::MAIL_OK.put(out);
    Ok(None)
}
