//! What the postmaster is told (`dsn.notify_postmaster`): copies of DSNs, notifications that could not be delivered
//! themselves, and what is wrong with the relay.
//!
//! Lives on one ingest shard. A notice is a message from the null reverse-path. It names [`dsn::NOTICE`] as its
//! listener, and about such a message nobody is told anything: when it cannot be delivered it ends with a line in the
//! log, so notices cannot make notices. No more than `dsn.notices_per_hour` are made; what is past that is counted, and
//! told in the log once an hour.

use super::{IngestShard, ShardSpool};
use crate::clock;
use crate::dsn::{self, Dsn};
use crate::observe::log;
use crate::space::Level;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

const HOUR_MICROS: u64 = 3_600_000_000;

/// How many notices there were of late.
#[derive(Debug, Default)]
pub struct Notices {
    hour: Cell<u64>,
    made: Cell<u32>,
    suppressed: Cell<u32>,
    /// The postmaster knows that there is no room.
    short: Cell<bool>,
}

impl Notices {
    /// Whether one more may be made, which then counts.
    fn may(&self, now_micros: u64, most: u32) -> bool {
        let hour = now_micros / HOUR_MICROS;
        if self.hour.replace(hour) != hour {
            let suppressed = self.suppressed.take();
            if suppressed > 0 {
                log::note("ingest", &format!("{suppressed} notices to the postmaster were suppressed"));
            }
            self.made.set(0);
        }
        let may = self.made.get() < most;
        let counted = if may { &self.made } else { &self.suppressed };
        counted.set(counted.get().saturating_add(1));
        may
    }
}

impl IngestShard {
    /// Whether a notice may be made now, which then counts.
    pub(super) fn may_notify(&self, now_micros: u64) -> bool {
        let shards = u32::try_from(self.links.ingest.len()).unwrap_or(1).max(1);
        self.notices.may(now_micros, self.config.dsn.notices_per_hour.div_ceil(shards))
    }

    /// Tells the postmaster that something is wrong with the relay.
    fn notify(self: &Rc<Self>, subject: &str, text: &str) {
        let now = clock::wall_micros();
        if !self.may_notify(now) {
            return;
        }
        let config = &self.config;
        let date = clock::mail_date(now);
        let notice = dsn::notice(&config.hostname, &config.postmaster, (subject, text), &date, now);
        let shard = self.clone();
        glommio::spawn_local(async move { accept(&shard, &shard.spool, notice, now).await }).detach();
    }

    /// A message is held because its delivery ends in faults of the program.
    pub(super) fn notify_of_fault(self: &Rc<Self>, id: sluice_queue::QueueId) {
        if self.config.dsn.notify.software {
            let text = format!(
                "The delivery of the message {id} ended twice in a fault of the program. It is held, and waits for you: \
                 sluice queue show {id}, then sluice queue release {id} or sluice queue bounce {id}. The log has the \
                 fault; please report it."
            );
            self.notify("a message is held after faults of the program", &text);
        }
    }

    /// For the tick: tells of the room for mail when it runs out. One shard does it for all.
    pub(super) fn look_for_notices(self: &Rc<Self>) {
        if self.index > 0 || !self.config.dsn.notify.resource {
            return;
        }
        let short = self.space.level() >= Level::Refuse;
        if short && !self.notices.short.replace(short) {
            let text = format!(
                "There is too little room on the file system of {}: new mail is answered 452 4.3.1 until there is more. \
                 Delivery goes on. The log and the admin page have the figures.",
                self.config.spool.path.display()
            );
            self.notify("no room for new mail", &text);
        }
        if self.space.level() == Level::Open {
            self.notices.short.set(false);
        }
    }
}

/// Takes a notice into the spool like any message. One that finds no room is dropped, with a line in the log.
pub(super) async fn accept(shard: &IngestShard, spool: &ShardSpool, notice: Dsn, now: u64) {
    // A move must not pass between the id of the notice and its commit.
    let _turn = match shard.unmoved.is_emptied(spool.number()) {
        true => Some(shard.turn.take().await),
        false => None,
    };
    let mut draft = spool.begin(now);
    let id = draft.id();
    shard.steering.arrives(id);
    let flags = super::outcomes::flags(&notice.content);
    let committed = async {
        spool.append(&mut draft, &notice.content).await?;
        spool.commit(draft, Arc::new(notice.envelope.clone()), flags).await
    };
    match committed.await {
        Ok(_) => super::outcomes::hand_over(shard, id, notice, None),
        Err(error) => {
            shard.steering.has_arrived(id);
            log::note("ingest", &format!("error: a notice to the postmaster was dropped: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_bounded_by_the_hour() {
        let notices = Notices::default();
        let may = |now| notices.may(now, 2);
        assert_eq!([0, 1, 2, 3].map(may), [true, true, false, false]);
        assert_eq!(notices.suppressed.get(), 2);
        assert_eq!([HOUR_MICROS, HOUR_MICROS + 1, HOUR_MICROS + 2].map(may), [true, true, false]);
        assert!(!Notices::default().may(0, 0));
    }
}
