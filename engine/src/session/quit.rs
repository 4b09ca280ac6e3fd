//! QUIT (RFC 5321 section 4.1.1.10). In every state; what the client sends after it is ignored.
//!
//! Replies: 221 2.0.0, and the session is closed. From the grammar: 501 5.5.4.

use super::{Handled, Session, Step};
use crate::smtp::reply;

pub(super) fn quit(session: &mut Session, out: &mut Vec<u8>) -> Handled {
    session.close_with(&reply::CLOSING, out);
    Ok(Some(Step::Close))
}
