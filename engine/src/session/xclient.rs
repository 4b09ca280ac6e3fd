//! XCLIENT (Postfix's XCLIENT_README): a trusted proxy says for whom it speaks.
//!
//! Announced to, and taken from, clients in the listener's `xclient` only: those that connected from there, or
//! for which a believed balancer did. It may come again. The session begins anew as if the named client
//! had connected: `clients` and all limits hold for that one. What was learnt of it stays through STARTTLS,
//! for it comes from the proxy; HELO and PROTO until the client says EHLO or HELO itself.
//!
//! Replies: 220 with the greeting, once the rim has counted the new client ([`Step::Readmit`]), 421 when
//! it is over a limit, 554 5.7.1 when `clients` does not admit it, both of which end the session; 502 5.5.1
//! where no listener's `xclient` has anybody; 550 5.7.1 from others, and to LOGIN with a name; 503 5.5.1
//! within a transaction; 501 5.5.4 to bad syntax.

use super::guard::TurnedAway;
use super::{Handled, Hello, Session, State, Step};
use crate::smtp::reply;
use crate::smtp::xclient::{self, Xclient, XclientFault};

/// What is known by XCLIENT.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub name: Option<String>,
    pub extended: Option<bool>,
    pub hello: Option<String>,
}

pub(super) fn xclient(session: &mut Session, argument: &[u8]) -> Handled {
    if session.context.xclient.is_empty() {
        return Err((&reply::NOT_OFFERED).into());
    }
    if !session.may_xclient() {
        return Err((&reply::XCLIENT_DENIED).into());
    }
    if session.transaction.is_some() {
        return Err((&reply::XCLIENT_IN_TRANSACTION).into());
    }
    let said = xclient::parse(argument).map_err(|fault| match fault {
        XclientFault::Syntax => &reply::XCLIENT_SYNTAX,
        XclientFault::Attribute => &reply::XCLIENT_ATTRIBUTE,
        XclientFault::NoAddress => &reply::XCLIENT_NO_ADDRESS,
        XclientFault::Login => &reply::XCLIENT_LOGIN,
    })?;
    session.take_over(said);
    Ok(Some(Step::Readmit))
}

impl Session {
    /// Whether the one that connected is a trusted proxy.
    pub(super) fn may_xclient(&self) -> bool {
        self.context.xclient.iter().any(|network| network.contains(self.proxy))
    }

    fn take_over(&mut self, said: Xclient) {
        if let Some(address) = said.address {
            self.client = address;
        }
        let mut known = self.xclient.take().unwrap_or_default();
        known.name = said.name.unwrap_or(known.name);
        known.extended = said.extended.or(known.extended);
        known.hello = said.hello.or(known.hello);
        self.hello = None;
        self.xclient = Some(known);
        self.guard_anew(self.client);
        self.state = State::AwaitAdmission;
    }

    /// The rim has counted the client that XCLIENT has named, or will not have it.
    ///
    /// # Panics
    /// When nobody was to be admitted.
    pub fn readmitted(&mut self, admitted: Result<(), TurnedAway>, out: &mut Vec<u8>) {
        assert_eq!(self.state, State::AwaitAdmission, "readmitted() answers Step::Readmit");
        self.since = self.now;
        if !self.context.rules.admits(self.context.listener, self.client) {
            return self.close_with(&reply::NOT_ADMITTED, out);
        }
        if let Err(why) = admitted {
            return self.close_with(why.answer(), out);
        }
        reply::GREETING.put_with(out, &self.context.hostname);
        self.state = State::AwaitHello;
        let known = self.xclient.as_ref().and_then(|known| Some((known.hello.clone()?, known.extended)));
        if let Some((name, extended)) = known {
            self.hello = Some(Hello { name, extended: extended.unwrap_or(true) });
            self.state = State::AwaitMail;
        }
    }

    /// The client's name in the DNS, as a trusted proxy has found it.
    pub fn client_name(&self) -> Option<&str> {
        self.xclient.as_ref()?.name.as_deref()
    }
}
