//! HELP (RFC 5321 section 4.1.1.8). In every state, with any argument.
//!
//! Replies: 214 2.0.0.

use super::Handled;
use crate::smtp::reply;

pub(super) fn help(out: &mut Vec<u8>) -> Handled {
    reply::HELP_TEXT.put(out);
    Ok(None)
}
