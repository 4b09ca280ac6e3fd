//! STARTTLS (RFC 3207), and what holds where a listener demands it.
//!
//! Replies: 220 2.0.0, after which the rim drops whatever the client has sent beyond the command and makes
//! the handshake ([`Step::StartTls`]); 502 5.5.1 where the listener does not offer it; 503 5.5.1 within TLS,
//! before EHLO, and between the chunks of a message. With `tls = "require"`, 530 5.7.0 to everything but EHLO, HELO, NOOP, STARTTLS and QUIT
//! (section 4). After the handshake nothing is known of the client but its certificate (section 4.2).

use super::{Handled, Session, State, Step};
use crate::config::TlsMode;
use crate::smtp::command::Command;
use crate::smtp::reply;
use crate::tls::TlsFacts;

pub(super) fn starttls(session: &mut Session, out: &mut Vec<u8>) -> Handled {
    if session.tls.is_some() {
        return Err((&reply::TLS_ACTIVE).into());
    }
    if !session.offers_starttls() {
        return Err((&reply::NOT_OFFERED).into());
    }
    if session.hello.is_none() {
        return Err((&reply::SEQUENCE_HELLO_FIRST).into());
    }
    if session.state == State::AwaitBdat {
        return Err((&reply::RCPT_AFTER_BDAT).into());
    }
    session.transaction = None;
    session.state = State::AwaitHandshake;
    reply::TLS_READY.put(out);
    Ok(Some(Step::StartTls))
}

impl Session {
    /// EHLO announces STARTTLS.
    pub(super) fn offers_starttls(&self) -> bool {
        matches!(self.context.tls, TlsMode::Offer | TlsMode::Require) && self.tls.is_none()
    }

    /// Whether the command must wait for STARTTLS.
    pub(super) fn needs_tls_for(&self, command: &Command<'_>) -> bool {
        let open = matches!(
            command,
            Command::Ehlo(_) | Command::Helo(_) | Command::Noop | Command::StartTls | Command::Quit
        );
        self.context.tls == TlsMode::Require && self.tls.is_none() && !open
    }

    /// The handshake that [`Step::StartTls`] asked for has succeeded. Everything learnt before is forgotten;
    /// the count of errors is not.
    ///
    /// # Panics
    /// When no handshake was asked for.
    pub fn tls_started(&mut self, now: u64, facts: TlsFacts) {
        assert_eq!(self.state, State::AwaitHandshake, "tls_started() answers Step::StartTls");
        self.tls = Some(Box::new(facts));
        self.hello = None;
        self.forget_login();
        self.state = State::AwaitHello;
        (self.now, self.since) = (now, now);
    }

    /// What is known of the session's TLS, if it has any.
    pub fn tls(&self) -> Option<&TlsFacts> {
        self.tls.as_deref()
    }

    /// What the client speaks (RFC 3848).
    pub(super) fn protocol(&self) -> &'static str {
        let extended = self.hello.as_ref().is_some_and(|hello| hello.extended);
        match (extended, &self.tls, self.identity()) {
            (false, ..) => "SMTP",
            (true, None, None) => "ESMTP",
            (true, None, Some(_)) => "ESMTPA",
            (true, Some(_), None) => "ESMTPS",
            (true, Some(_), Some(_)) => "ESMTPSA",
        }
    }
}
