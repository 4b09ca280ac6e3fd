//! The failure policy: one total table from what went wrong to what is done about it.
//!
//! Pure; the only place that translates failures of the sending side into outcomes.
//!
//! | scope | lasting | last host | recipients concerned | connection | host at fault |
//! |---|---|---|---|---|---|
//! | session | any | no | next host | close | yes |
//! | session | any | yes | **deferred** | close | yes |
//! | host | no | no | next host | keep | yes |
//! | host | no | yes | **deferred** | keep | yes |
//! | host | yes | no | next host | keep | no |
//! | host | yes | yes | **bounced** | keep | no |
//! | message | no | no | next host | keep | no |
//! | message | no | yes | **deferred** | keep | no |
//! | message | yes | any | **bounced** | keep | no |
//! | recipient | no | no | next host | keep | no |
//! | recipient | no | yes | **deferred** | keep | no |
//! | recipient | yes | any | **bounced** | keep | no |
//!
//! It follows Postfix (`smtp_trouble.c`, with `smtp_skip_5xx_greeting`): a host that does not want
//! to talk at all, in whatever tone, says nothing about the message, so the message waits; a 4yz is
//! tried on the backup hosts first; a 5yz to MAIL, RCPT, DATA or end-of-data is the receiving side's
//! decision and holds for all its hosts. "Host at fault" feeds the health of the next hop: a bad
//! mailbox or a run of 5yz never shuts a route.

use std::fmt;

use super::reply::Reply;
#[cfg(doc)]
use super::verdict::TEXT_BYTES_MAX;
use super::verdict::{Outcome, Peer, Status, cut};

/// What a failure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// No conversation: connection refused or lost, time-out, greeting or EHLO refused, 421, or
    /// replies that are not SMTP.
    Session,
    /// The host, or the name that should lead to one, cannot be used for this message: message
    /// larger than its SIZE, DNS failure, mail loop.
    Host,
    /// MAIL, DATA or end-of-data refused: all recipients of the transaction.
    Message,
    /// RCPT refused.
    Recipient,
}

/// A failure on the sending side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub scope: Scope,
    /// Trying the same again is of no use.
    pub lasting: bool,
    pub status: Status,
    /// One sentence for the log and for people, with the name of the host.
    pub text: String,
    /// The reply that said so.
    pub reply: Option<Reply>,
}

impl Failure {
    /// The TCP connection did not come about; `reason` is the system's text or `Connection timed out`.
    pub fn connect(peer: &Peer, reason: impl fmt::Display) -> Self {
        Self {
            scope: Scope::Session,
            lasting: false,
            status: Status::NO_ANSWER,
            text: format!("connect to {peer}: {reason}"),
            reply: None,
        }
    }

    /// A failure of the relay's own making, without a reply.
    pub fn local(scope: Scope, status: Status, text: String) -> Self {
        Self { scope, lasting: status.0 == 5, status, text, reply: None }
    }
}

impl Failure {
    /// With texts of at most [`TEXT_BYTES_MAX`] octets: a peer's longest reply must not fill the log.
    pub fn cut(mut self) -> Self {
        self.text = cut(self.text);
        if let Some(reply) = &mut self.reply {
            reply.text = cut(std::mem::take(&mut reply.text));
        }
        self
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    pub recipients: Recipients,
    pub connection: Connection,
    /// Whether the failure counts against the health of the next hop.
    pub host_at_fault: bool,
}

/// What becomes of the recipients that the failure concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// They stay open; the next host is tried within this attempt.
    NextHost,
    /// The attempt is over for them.
    Finish(Outcome),
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It serves the next message.
    Keep,
    Close,
}

/// The table. `last_host`: no other host of the next hop is left to try in this attempt.
pub fn rule(scope: Scope, lasting: bool, last_host: bool) -> Ruling {
    use Connection::{Close, Keep};
    use Outcome::{Bounced, Deferred};
    use Recipients::{Finish, NextHost};
    let (recipients, connection, host_at_fault) = match (scope, lasting, last_host) {
        (Scope::Session, _, false) => (NextHost, Close, true),
        (Scope::Session, _, true) => (Finish(Deferred), Close, true),
        (Scope::Host, false, false) => (NextHost, Keep, true),
        (Scope::Host, false, true) => (Finish(Deferred), Keep, true),
        (Scope::Host, true, false) => (NextHost, Keep, false),
        (Scope::Host, true, true) => (Finish(Bounced), Keep, false),
        (Scope::Message | Scope::Recipient, false, false) => (NextHost, Keep, false),
        (Scope::Message | Scope::Recipient, false, true) => (Finish(Deferred), Keep, false),
        (Scope::Message | Scope::Recipient, true, _) => (Finish(Bounced), Keep, false),
    };
    Ruling { recipients, connection, host_at_fault }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPES: [Scope; 4] = [Scope::Session, Scope::Host, Scope::Message, Scope::Recipient];

    fn all() -> impl Iterator<Item = (Scope, bool, bool)> {
        let flags = [(false, false), (false, true), (true, false), (true, true)];
        SCOPES.into_iter().flat_map(move |scope| flags.map(|(lasting, last)| (scope, lasting, last)))
    }

    /// The table of the file's head, read as data.
    fn documented(scope: Scope, lasting: bool, last: bool) -> Ruling {
        let yes = |cell: &str, flag: bool| cell == "any" || (cell == "yes") == flag;
        let rows = include_str!("failure.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
        let matching: Vec<Vec<&str>> = rows
            .map(|row| row.trim_end_matches(" |").split(" | ").collect::<Vec<_>>())
            .filter(|cells| cells[0] == format!("{scope:?}").to_lowercase())
            .filter(|cells| yes(cells[1], lasting) && yes(cells[2], last))
            .collect();
        assert_eq!(matching.len(), 1, "exactly one row for {scope:?} {lasting} {last}");
        Ruling {
            recipients: match matching[0][3] {
                "next host" => Recipients::NextHost,
                "**deferred**" => Recipients::Finish(Outcome::Deferred),
                "**bounced**" => Recipients::Finish(Outcome::Bounced),
                other => panic!("{other}"),
            },
            connection: match matching[0][4] {
                "keep" => Connection::Keep,
                "close" => Connection::Close,
                other => panic!("{other}"),
            },
            host_at_fault: matching[0][5] == "yes",
        }
    }

    #[test]
    fn the_table_says_what_its_documentation_says() {
        let mut combinations = 0;
        for (scope, lasting, last) in all() {
            assert_eq!(rule(scope, lasting, last), documented(scope, lasting, last), "{scope:?}");
            combinations += 1;
        }
        assert_eq!(combinations, 16);
    }

    #[test]
    fn the_last_host_always_ends_the_attempt() {
        for (scope, lasting, _) in all() {
            assert_ne!(rule(scope, lasting, true).recipients, Recipients::NextHost, "{scope:?} {lasting}");
        }
    }

    #[test]
    fn only_a_lasting_failure_bounces_and_never_one_of_the_session() {
        for (scope, lasting, last) in all() {
            if rule(scope, lasting, last).recipients == Recipients::Finish(Outcome::Bounced) {
                assert!(lasting && scope != Scope::Session, "{scope:?}");
            }
        }
    }

    #[test]
    fn bad_mailboxes_and_refused_messages_never_count_against_a_host() {
        for (scope, lasting, last) in all() {
            if matches!(scope, Scope::Message | Scope::Recipient) {
                assert!(!rule(scope, lasting, last).host_at_fault);
                assert_eq!(rule(scope, lasting, last).connection, Connection::Keep);
            }
        }
    }

    #[test]
    fn a_refused_connection_reads_as_in_postfix_logs() {
        let peer = Peer { name: "10.1.0.10".into(), address: "10.1.0.10:25".parse().unwrap() };
        let failure = Failure::connect(&peer, "Connection refused");
        assert_eq!(failure.text, "connect to 10.1.0.10[10.1.0.10]:25: Connection refused");
        assert_eq!((failure.status, failure.lasting), (Status::NO_ANSWER, false));
    }
}
