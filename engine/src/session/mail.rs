//! MAIL (RFC 5321 section 4.1.1.2) and what its parameters ask for.
//!
//! Replies: 250 2.1.0; 553 5.7.1 after AUTH to a sender that is not the login's; 503 5.5.1 before EHLO or inside a transaction; 555 5.5.4 to a parameter that was not
//! announced, so to any after HELO; 501 5.5.4 to a malformed or repeated one; 553 5.6.7 to a path that is not
//! ASCII without SMTPUTF8 (RFC 6531 section 3.5); 552 5.3.4 to a declared size over the limit; 501 5.5.4 to a
//! time to deliver by below the announced one (RFC 2852), and to a release beyond it (RFC 4865); 421 4.7.0
//! after `limits.transactions_max`; 450 4.7.1 beyond what the client may send for now; 452 4.3.1 or 451 4.3.0 while the spool takes nothing, not counted as an
//! error (RFC 1870 section 6.1). From the grammar: 501 5.5.4, 501 5.1.7, 553 5.6.7.
//!
//! A priority above 0 counts from trusted clients only (RFC 6710 section 5); from others the message has 0,
//! and the reply to its end says so with 2.3.6. AUTH= is read and goes nowhere: the relay
//! vouches for nobody towards a next hop, which is to take it for <> (RFC 4954 section 5).

use super::bdat::Bdat;
use super::extensions::micros;
use super::{Argument, Handled, Refusal, Refused, Session, State, Transaction};
use crate::smtp::command::{Fault, Mail};
use crate::smtp::parameters::{Hold, OfMail};
use crate::smtp::reply;
use sluice_queue::{ByMode, DeliverBy, MailParameters, Schedule};

const MICROS: u64 = 1_000_000;

pub(super) fn mail(session: &mut Session, mail: &Mail<'_>, out: &mut Vec<u8>) -> Handled {
    if session.hello.is_none() {
        return Err((&reply::SEQUENCE_HELLO_FIRST).into());
    }
    if session.state != State::AwaitMail {
        return Err((&reply::MAIL_NESTED).into());
    }
    let asked = mail.parameters.of_mail(&session.offers())?;
    if mail.utf8 && !asked.smtputf8 {
        return Err((&reply::MAIL_NON_ASCII).into());
    }
    let limits = &session.context.limits;
    if session.transactions >= limits.transactions_max {
        let refused = Refused::from(&reply::TOO_MANY_TRANSACTIONS).with(Argument::HostName);
        return Err(refused.uncounted().last());
    }
    if asked.size.is_some_and(|size| size > limits.message_bytes_max) {
        return Err(Refused::from(&reply::MESSAGE_TOO_LARGE).with(Argument::Number(limits.message_bytes_max)));
    }
    let schedule = schedule(session, &asked)?;
    match session.refusing {
        None => {}
        Some(Refusal::NoSpace) => return Err(Refused::from(&reply::NO_SPACE).uncounted()),
        Some(_) => return Err(Refused::from(&reply::STORAGE_FAILED).uncounted()),
    }
    let sender = mail.sender.map(|mailbox| mailbox.to_string()).unwrap_or_default();
    if session.identity().is_some_and(|identity| !identity.may_send_from(&sender)) {
        return Err((&reply::SENDER_NOT_OWNED).into());
    }
    session.guard.draw_message()?;
    session.transactions += 1;
    session.priority_lowered = schedule.priority != asked.priority.unwrap_or(0);
    session.bdat = Bdat::default();
    session.transaction = Some(Transaction {
        sender,
        size: asked.size,
        body: asked.body.unwrap_or_default(),
        parameters: lasting(&asked, schedule),
        recipients: Vec::new(),
        recipients_over: 0,
    });
    session.state = State::AwaitRcpt;
    reply::MAIL_OK.put(out);
    Ok(None)
}

/// What of the parameters goes with the message.
fn lasting(asked: &OfMail<'_>, schedule: Schedule) -> Option<Box<MailParameters>> {
    let parameters = MailParameters {
        ret: asked.ret,
        envid: asked.envid.unwrap_or_default().into(),
        smtputf8: asked.smtputf8,
        require_tls: asked.require_tls,
        schedule,
    };
    (parameters != MailParameters::default()).then(|| Box::new(parameters))
}

/// The times that the client asks for, by the clock, within what the listener grants.
fn schedule(session: &Session, asked: &OfMail<'_>) -> Result<Schedule, Refused> {
    let (now, extensions) = (session.wall_micros, &session.context.extensions);
    let wanted = asked.priority.unwrap_or(0);
    let priority = if session.is_trusted() { wanted } else { wanted.min(0) };
    let release_micros = match asked.hold {
        None => None,
        Some(Hold::For(seconds)) => Some(now.saturating_add(u64::from(seconds) * MICROS)),
        Some(Hold::Until(micros)) => Some(micros).filter(|micros| *micros > now),
    };
    if release_micros.is_some_and(|micros_then| micros_then - now > micros(extensions.hold_max)) {
        let seconds = extensions.hold_max.as_secs();
        return Err(Refused::from(&reply::HOLD_TOO_LONG).with(Argument::Number(seconds)));
    }
    let Some(by) = asked.by else { return Ok(Schedule { priority, deliver_by: None, release_micros }) };
    let seconds_min = extensions.deliver_by_min.as_secs();
    if by.mode == ByMode::Return && by.seconds.unsigned_abs() < seconds_min {
        return Err(Refused::from(&reply::BY_TOO_SHORT).with(Argument::Number(seconds_min)));
    }
    let distance = by.seconds.unsigned_abs() * MICROS;
    let deadline_micros =
        if by.seconds < 0 { now.saturating_sub(distance) } else { now.saturating_add(distance) };
    if release_micros.is_some_and(|release| release >= deadline_micros) {
        return Err(Fault::Parameter.into());
    }
    let deliver_by = Some(DeliverBy { deadline_micros, mode: by.mode, trace: by.trace });
    Ok(Schedule { priority, deliver_by, release_micros })
}
