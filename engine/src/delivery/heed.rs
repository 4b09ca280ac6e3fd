//! What a host's refusal does to the pace of its site: the back-off table applied.
//!
//! Lives on one delivery shard. A decision is one line in the log, however many messages it concerns, and is shown
//! with the next hop (`sluice queue list`) until it ends.

use super::backoff::{self, Action};
use super::down::About;
use super::failure::{Failure, Scope};
use super::hop::{Hop, Trouble};
use super::shard::DeliveryShard;
use super::site::Slow;
use super::verdict::{Fate, Peer, Status};
use crate::clock::{mail_date, monotonic_millis, wall_micros};
use crate::observe::log;
use std::rc::Rc;
use std::time::Duration;

/// A site that is suspended again without having taken a message in between is left alone twice as long, so many
/// times. Prevents a relay without reputation from knocking for ever at the same pace.
const DOUBLINGS_MAX: u32 = 3;

impl DeliveryShard {
    /// Heeds what a host has said of a recipient. `heeded`: what it has said of those of the same transaction before,
    /// since a session that ended has one reason for all of them.
    pub fn heed_fate(
        self: &Rc<Self>,
        hop: &Rc<Hop>,
        peer: &Peer,
        fate: &Fate,
        heeded: &mut Option<Failure>,
    ) -> Option<Duration> {
        match fate {
            Fate::Failed(failure) if heeded.as_ref() != Some(failure) => {
                *heeded = Some(failure.clone());
                self.heed(hop, peer, failure)
            }
            _ => None,
        }
    }

    /// Heeds what a host has said. Returns for how long the message concerned should wait, when it said so.
    pub fn heed(self: &Rc<Self>, hop: &Rc<Hop>, peer: &Peer, failure: &Failure) -> Option<Duration> {
        let reply = failure.reply.as_ref()?;
        let site = hop.site()?;
        match backoff::action(&self.config.backoff, &peer.name, reply) {
            Action::Nothing => {
                if is_about_the_pace(failure) {
                    site.halve(monotonic_millis());
                }
                None
            }
            Action::Slow { connections, messages_per_minute, time } => {
                let until_millis = monotonic_millis() + time.as_millis() as u64;
                let is_new = site.slow_down(
                    Slow { connections, messages_per_minute, until_millis },
                    failure.text.as_str().into(),
                );
                site.halve(monotonic_millis());
                if is_new {
                    let rate = match messages_per_minute {
                        0 => String::new(),
                        rate => format!(" and {rate} messages a minute"),
                    };
                    self.note_pace(
                        hop,
                        &format!("slowed down to {connections} connections{rate}"),
                        time,
                        failure,
                    );
                }
                None
            }
            Action::Suspend { time } => {
                if !site.is_down() {
                    let time =
                        time.saturating_mul(1 << (site.suspended(monotonic_millis()) - 1).min(DOUBLINGS_MAX));
                    self.note_pace(hop, "suspended", time, failure);
                    let trouble = Trouble {
                        dsn: Status(4, failure.status.1, failure.status.2).to_string().into(),
                        text: format!("suspended until {}: {}", end_of(time), failure.text).into(),
                        remote: peer.name.as_str().into(),
                        reply: Some(reply.to_string().into()),
                    };
                    self.hop_is_down(hop, trouble, About::Suspension(time));
                }
                None
            }
            Action::Wait { time } => Some(time).filter(|time| !time.is_zero()),
        }
    }

    fn note_pace(&self, hop: &Hop, what: &str, time: Duration, failure: &Failure) {
        let name = hop.site().map_or_else(|| self.name_of(&hop.next_hop), |site| site.key.name.to_string());
        let until = end_of(time);
        log::note("delivery", &format!("warning: site {name} is {what} until {until}: {}", failure.text));
    }
}

fn end_of(time: Duration) -> String {
    mail_date(wall_micros().saturating_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)))
}

/// The host wants less, though in words that no rule knows: it gives up the session, or takes no mail at all, or
/// speaks of its own load or its policy. A full mailbox, or a message that it puts off, is nothing of that kind.
fn is_about_the_pace(failure: &Failure) -> bool {
    let Status(_, subject, detail) = failure.status;
    let of_system = matches!((subject, detail), (3, 2) | (4, 5) | (7, 0));
    !failure.lasting && (failure.scope == Scope::Session || (failure.scope == Scope::Message && of_system))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_speaks_of_the_host_slows_its_site() {
        let failure = |scope, class, subject, detail| {
            Failure::local(scope, Status(class, subject, detail), String::new())
        };
        assert!(is_about_the_pace(&failure(Scope::Session, 4, 0, 0)));
        assert!(is_about_the_pace(&failure(Scope::Message, 4, 3, 2)));
        for (scope, class, subject, detail) in [
            (Scope::Recipient, 4, 2, 2),
            (Scope::Recipient, 4, 7, 0),
            (Scope::Recipient, 5, 1, 1),
            (Scope::Message, 5, 7, 0),
            (Scope::Message, 4, 6, 0),
            (Scope::Session, 5, 7, 1),
        ] {
            assert!(
                !is_about_the_pace(&failure(scope, class, subject, detail)),
                "{scope:?} {class}.{subject}"
            );
        }
    }
}
