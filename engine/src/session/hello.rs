//! EHLO and HELO (RFC 5321 section 4.1.1.1). In every state between transactions and within one, which
//! it ends (section 4.1.4).
//!
//! Replies: 250, without enhanced codes (RFC 2034 section 4). The 501 to a bad name comes from the
//! grammar. What EHLO announces, `extensions` decides.

use super::{Handled, Hello, Session, State};
use crate::smtp::reply;
use std::fmt::Display;

pub(super) fn hello(session: &mut Session, name: &str, extended: bool, out: &mut Vec<u8>) -> Handled {
    session.hello = Some(Hello { name: name.into(), extended });
    let abandoned = session.abandon();
    session.state = State::AwaitMail;
    let context = &session.context;
    if extended {
        let size = format_args!("SIZE {}", context.limits.message_bytes_max);
        let xclient = format_args!("XCLIENT {}", crate::smtp::xclient::ATTRIBUTES);
        let mut lines: Vec<&dyn Display> =
            vec![&context.hostname, &"PIPELINING", &size, &"8BITMIME", &"CHUNKING"];
        if context.binarymime {
            lines.push(&"BINARYMIME");
        }
        if session.may_xclient() {
            lines.push(&xclient);
        }
        if session.offers_starttls() {
            lines.push(&"STARTTLS");
        }
        let auth = session.auth_line();
        if let Some(auth) = &auth {
            lines.push(auth);
        }
        lines.push(&"ENHANCEDSTATUSCODES");
        let mut more = Vec::new();
        session.announce(&session.offers(), &mut more);
        lines.extend(more.iter().map(|line| line as &dyn Display));
        reply::put_lines(out, reply::HELLO.code, &lines);
    } else {
        reply::HELLO.put_with(out, &context.hostname);
    }
    Ok(abandoned)
}
