//! RCPT (RFC 5321 section 4.1.1.3) with NOTIFY and ORCPT (RFC 3461).
//!
//! Replies: 250 2.1.5; 503 5.5.1 outside a transaction and between
//! chunks; 452 4.5.3 past `limits.recipients_max` (section
//! 4.5.3.1.10), not counted as an error until as many again have been refused, because a client that
//! pipelines cannot know; what `policy` answers: 550 5.7.1, 530 5.7.0;
//! 550 5.1.1 to who is not in the table of recipients, 550 5.7.1 to a domain that is no next hop
//! ([`KnownNow`](super::KnownNow)); 450 4.7.1 beyond what the
//! client may name for now; 555 5.5.4 to a parameter that
//! was not announced, 501 5.5.4 to a malformed or repeated one; 553 5.6.7 to a path that is not ASCII when
//! MAIL had no SMTPUTF8 (RFC 6531 section 3.5). From the grammar: 501 5.5.4, 501 5.1.3, 553 5.6.7.
//!
//! Where the listener checks recipients, the next hop has the last word: `check`.
//!
//! A return address in the domain of `[srs]` becomes the address that it stands for; 550 5.7.1 to one that was not
//! made here, 550 5.1.1 to one that has expired.
//!
//! A recipient given twice is kept twice; both are delivered as one next hop sees fit.

use super::{Handled, Refused, Session, State, Step};
use crate::policy::{Question, Rule, Verdict, decide};
use crate::smtp::ForwardPath;
use crate::smtp::command::Rcpt;
use crate::smtp::parameters::{OfRcpt, xtext};
use crate::smtp::reply;
use sluice_queue::{RcptParameters, Recipient};

pub(super) fn rcpt(session: &mut Session, rcpt: &Rcpt<'_>, out: &mut Vec<u8>) -> Handled {
    let (offers, utf8) = (session.offers(), session.is_utf8());
    let (context, path) = (&session.context, &rcpt.path);
    let authenticated = session.identity().is_some();
    let Some(transaction) = &mut session.transaction else {
        return Err(match session.hello {
            None => (&reply::SEQUENCE_HELLO_FIRST).into(),
            Some(_) => (&reply::MAIL_FIRST).into(),
        });
    };
    if session.state == State::AwaitBdat {
        return Err((&reply::RCPT_AFTER_BDAT).into());
    }
    let asked = rcpt.parameters.of_rcpt(&offers, utf8)?;
    if rcpt.utf8 && !utf8 {
        return Err((&reply::RCPT_NON_ASCII).into());
    }
    if transaction.recipients.len() >= context.limits.recipients_max {
        transaction.recipients_over += 1;
        let refused = Refused::from(&reply::TOO_MANY_RECIPIENTS);
        let excessive = transaction.recipients_over > context.limits.recipients_max;
        return Err(if excessive { refused } else { refused.uncounted() });
    }
    let question = Question {
        listener: context.listener,
        client: session.client,
        authenticated,
        recipient: path,
        now_micros: session.wall_micros,
    };
    let rule = match decide(&context.rules, &question) {
        Verdict::Refuse(answer, _) => return Err(answer.into()),
        Verdict::Accept(rule) => rule,
    };
    let address = match path {
        ForwardPath::Postmaster => context.postmaster.clone(),
        ForwardPath::Mailbox(mailbox) => mailbox.to_string(),
    };
    let mut recipient = Recipient { address, parameters: lasting(&asked) };
    if let (Rule::ReturnAddress, ForwardPath::Mailbox(mailbox)) = (rule, path)
        && let Some(Ok(original)) = context.rules.returns_to(mailbox, session.wall_micros)
    {
        redirect(&mut recipient, original);
    }
    if let Some(answer) = context.known_now.refusal(&recipient.address) {
        return Err(answer.into());
    }
    session.guard.draw_recipient()?;
    transaction.recipients.push(recipient);
    // `<Postmaster>` is always taken (section 4.5.1).
    if session.context.checks_recipients && !matches!(path, ForwardPath::Postmaster) {
        session.state = State::AwaitCheck;
        return Ok(Some(Step::Check));
    }
    session.state = State::AwaitRcptOrData;
    reply::RCPT_OK.put(out);
    Ok(None)
}

/// Whom a return address stands for; what the client said goes along as the original recipient (RFC 3461 section
/// 4.2), unless it named one.
fn redirect(recipient: &mut Recipient, original: String) {
    let said = std::mem::replace(&mut recipient.address, original);
    let parameters = recipient.parameters.get_or_insert_default();
    if parameters.orcpt.is_empty() && said.is_ascii() {
        parameters.orcpt.push_str("rfc822;");
        xtext::encode(&said, &mut parameters.orcpt);
    }
}

/// What of the parameters goes with the recipient.
fn lasting(asked: &OfRcpt<'_>) -> Option<Box<RcptParameters>> {
    let parameters =
        RcptParameters { notify: asked.notify, orcpt: asked.orcpt.unwrap_or_default().to_owned() };
    (parameters != RcptParameters::default()).then(|| Box::new(parameters))
}
