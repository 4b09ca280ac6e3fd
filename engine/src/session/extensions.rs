//! The service extensions of a session: which ones are announced, and what follows from that.
//!
//! One place decides what holds now ([`Session::offers`]): the reply to EHLO lists it, and MAIL and RCPT take
//! the parameters of what it lists and no others. Listed by `hello`.
//!
//! | extension | announced |
//! |---|---|
//! | SIZE, 8BITMIME, PIPELINING, ENHANCEDSTATUSCODES, LIMITS (RFC 9422) | always |
//! | DSN (RFC 3461), SMTPUTF8 (RFC 6531), MT-PRIORITY (RFC 6710), DELIVERBY (RFC 2852) | by `listener.extensions` |
//! | FUTURERELEASE (RFC 4865) | with `hold_max` above 0 |
//! | REQUIRETLS (RFC 8689) | within TLS, when the sending side can keep it |

use super::Session;
use crate::smtp::parameters::times::SECONDS_MAX;
use crate::smtp::parameters::{Offers, times};
use std::time::Duration;

/// RFC 9422 section 4: the values have six digits.
const LIMIT_MAX: usize = 999_999;

impl Session {
    /// What is announced to a client that says EHLO; to one that says HELO, nothing.
    pub(super) fn offers(&self) -> Offers {
        match &self.hello {
            Some(hello) if hello.extended => self.offers_with(self.context.can_require_tls),
            _ => Offers::default(),
        }
    }

    /// `can_require_tls`: whether some route keeps what REQUIRETLS asks.
    pub(super) fn offers_with(&self, can_require_tls: bool) -> Offers {
        let extensions = &self.context.extensions;
        Offers {
            extended: true,
            binary_mime: self.context.binarymime,
            dsn: extensions.dsn,
            smtputf8: extensions.smtputf8,
            require_tls: self.tls.is_some() && can_require_tls,
            priority: extensions.mt_priority,
            deliver_by: extensions.deliver_by,
            hold: extensions.hold_max > Duration::ZERO,
            // Announced and taken within TLS only.
            auth: self.tls.is_some() && !self.context.mechanisms.is_empty(),
        }
    }

    /// Appends the lines of the reply to EHLO that stand for [`Session::offers`], without those that every
    /// listener has.
    pub(super) fn announce(&self, offers: &Offers, lines: &mut Vec<String>) {
        let extensions = &self.context.extensions;
        let mut line = |offered: bool, text: String| lines.extend(offered.then_some(text));
        line(offers.dsn, "DSN".into());
        line(offers.smtputf8, "SMTPUTF8".into());
        line(offers.require_tls, "REQUIRETLS".into());
        line(offers.priority, "MT-PRIORITY".into());
        line(offers.deliver_by, format!("DELIVERBY {}", extensions.deliver_by_min.as_secs()));
        let until = self.wall_micros.saturating_add(micros(extensions.hold_max));
        let seconds = extensions.hold_max.as_secs().min(u64::from(SECONDS_MAX));
        line(offers.hold, format!("FUTURERELEASE {seconds} {}", times::date_time(until)));
        let limits = &self.context.limits;
        let (mails, recipients) = (limits.transactions_max, limits.recipients_max);
        line(true, format!("LIMITS MAILMAX={} RCPTMAX={}", mails.min(LIMIT_MAX), recipients.min(LIMIT_MAX)));
    }

    /// Whether what the client says of priorities and of submitters counts.
    pub(super) fn is_trusted(&self) -> bool {
        self.context.trusted || self.identity().is_some()
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
