//! NOOP (RFC 5321 section 4.1.1.9). In every state, with any argument.
//!
//! Replies: 250 2.0.0.

use super::Handled;
use crate::smtp::reply;

pub(super) fn noop(out: &mut Vec<u8>) -> Handled {
    reply::NOOP_OK.put(out);
    Ok(None)
}
