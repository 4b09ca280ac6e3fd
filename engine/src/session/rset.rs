//! RSET (RFC 5321 section 4.1.1.5). In every state; what EHLO or HELO said stays.
//!
//! Replies: 250 2.0.0. From the grammar: 501 5.5.4.

use super::{Handled, Session, State};
use crate::smtp::reply;

pub(super) fn rset(session: &mut Session, out: &mut Vec<u8>) -> Handled {
    let abandoned = session.abandon();
    if session.state != State::AwaitHello {
        session.state = State::AwaitMail;
    }
    reply::RESET_OK.put(out);
    Ok(abandoned)
}
