//! VRFY (RFC 5321 sections 3.5.3 and 4.1.1.6). In every state; it tells nothing of any mailbox.
//!
//! Replies: 252 2.0.0. From the grammar: 501 5.5.4 without an argument.

use super::Handled;
use crate::smtp::reply;

pub(super) fn vrfy(out: &mut Vec<u8>) -> Handled {
    reply::VRFY_UNKNOWN.put(out);
    Ok(None)
}
