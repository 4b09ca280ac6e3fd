//! AUTH of the client session (RFC 4954): PLAIN (RFC 4616), else LOGIN.
//!
//! Pure; a part of [`Client`]. The password is in no text that a failure carries.

use super::{Client, Event, Millis, State};
use crate::config::Login;
use crate::delivery::failure::{Failure, Scope};
use crate::delivery::reply::{Reply, ReplyClass};
use crate::delivery::verdict::Status;
use base64ct::{Base64, Encoding};
use std::sync::Arc;

/// What the peer asks for next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing: its verdict is awaited.
    Given,
    /// LOGIN: the user's name, then the password.
    User,
    Password,
}

impl Client {
    /// After greeting and TLS: the session is ready, or says who it is first.
    pub(super) fn ready_or_auth(&mut self, now: Millis, out: &mut Vec<u8>) -> Option<Event> {
        let Some(login) = self.opening.login.clone() else {
            self.enter(now, State::Ready);
            return Some(Event::Ready);
        };
        if !self.opening.in_tls && !login.in_clear_text {
            return Some(
                self.not_authenticated(Status::AUTH_NEEDS_TLS, "has no TLS to protect the password"),
            );
        }
        let proof = if self.extensions.auth_plain {
            let text = format!("\0{}\0{}", login.user, login.password);
            put(out, "AUTH PLAIN ", text.as_bytes());
            Proof::Given
        } else if self.extensions.auth_login {
            out.extend_from_slice(b"AUTH LOGIN\r\n");
            Proof::User
        } else {
            return Some(self.not_authenticated(Status::AUTH_FAILED, "offers neither AUTH PLAIN nor LOGIN"));
        };
        self.enter(now, State::AwaitAuth(proof));
        None
    }

    pub(super) fn on_auth(
        &mut self,
        now: Millis,
        proof: Proof,
        reply: Reply,
        out: &mut Vec<u8>,
    ) -> Option<Event> {
        let login: Arc<Login> = self.opening.login.clone().expect("AUTH was sent for a login");
        match (reply.class(), proof) {
            (ReplyClass::Completed, Proof::Given) => {
                self.enter(now, State::Ready);
                Some(Event::Ready)
            }
            (ReplyClass::Intermediate, Proof::User) => {
                put(out, "", login.user.as_bytes());
                self.enter(now, State::AwaitAuth(Proof::Password));
                None
            }
            (ReplyClass::Intermediate, Proof::Password) => {
                put(out, "", login.password.as_bytes());
                self.enter(now, State::AwaitAuth(Proof::Given));
                None
            }
            (ReplyClass::Temporary | ReplyClass::Lasting, _) => Some(self.login_refused(reply)),
            (ReplyClass::Completed | ReplyClass::Intermediate, _) => Some(self.out_of_order(reply)),
        }
    }

    fn login_refused(&mut self, reply: Reply) -> Event {
        let text = format!("SASL authentication failed; host {} said: {reply}", self.peer.host());
        let status = Status::AUTH_FAILED;
        Event::Failed(self.fail(Failure {
            scope: Scope::Session,
            lasting: false,
            status,
            text,
            reply: Some(reply),
        }))
    }

    fn not_authenticated(&mut self, status: Status, why: &str) -> Event {
        let text = format!("SASL authentication failed: host {} {why}", self.peer.host());
        Event::Failed(self.fail(Failure::local(Scope::Session, status, text)))
    }
}

fn put(out: &mut Vec<u8>, before: &str, secret: &[u8]) {
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(Base64::encode_string(secret).as_bytes());
    out.extend_from_slice(b"\r\n");
}
