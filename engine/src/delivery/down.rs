//! Next hops that are down, and sites that want no mail for a while.
//!
//! Lives on one delivery shard. A site that answers at no address, or that the back-off table suspends, is down for
//! all its next hops at once: one of them looks at it, with one connection at a time and growing waits, and the
//! others follow. Their messages wait without burning attempts; each is told of once in the log and in the queue,
//! and is looked at again only when it expires or its sender is due a notice. When the site answers, its window
//! begins with one connection, so the drain is paced. A look-up that fails is the matter of one next hop alone.

use super::hop::{Hop, Item, Trouble};
use super::settle::{Waits, settle_trouble};
use super::shard::{DeliveryShard, Due};
use super::site::Site;
use crate::clock::{monotonic_millis, wall_micros};
use crate::observe::log;
use crate::schedule::retry;
use futures_lite::FutureExt;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

/// The first probe of a next hop that is down comes after this, each further one twice as late.
const PROBE_FIRST: Duration = Duration::from_secs(1);
/// Smart hosts are probed at least this often, so that mail flows soon after a maintenance.
const PROBE_LONGEST: Duration = Duration::from_secs(60);

/// Whom a failure to get through is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The look-up: this next hop.
    NextHop,
    /// The hosts: the whole site.
    Site,
    /// The site, which is to be left alone for so long.
    Suspension(Duration),
}

impl DeliveryShard {
    /// A host of the hop has greeted.
    pub fn hop_answers(self: &Rc<Self>, hop: &Rc<Hop>) {
        if hop.set_up() {
            log::note("delivery", &format!("next hop {} answers again", self.name_of(&hop.next_hop)));
        }
        if let Some(site) = hop.site().filter(|site| site.is_down()) {
            self.site_is_up(&site);
        }
    }

    /// Those that followed go on, each when there is a place for it.
    fn site_is_up(self: &Rc<Self>, site: &Rc<Site>) {
        for hop in site.set_up() {
            hop.set_up();
            self.feed(&hop);
        }
    }

    /// No host of the hop can be used now. Its messages wait, and one probe at a time looks.
    pub fn hop_is_down(self: &Rc<Self>, hop: &Rc<Hop>, trouble: Trouble, about: About) {
        if about != About::NextHop
            && let Some(site) = hop.site()
        {
            if site.is_down() && !hop.is_down() {
                // Another one has found out already.
                return self.follow(hop, &site);
            }
            site.set_down(trouble.clone());
        }
        let was_down = hop.is_down();
        let probes = hop.set_down(trouble.clone(), wall_micros());
        let longest = match hop.next_hop.domain {
            None => PROBE_LONGEST.min(self.retry_of(&hop.next_hop).first),
            Some(_) => self.retry_of(&hop.next_hop).first,
        };
        let wait = match about {
            About::Suspension(time) => time,
            _ => PROBE_FIRST.saturating_mul(1 << (probes - 1).min(16)).min(longest),
        };
        if !was_down && !matches!(about, About::Suspension(_)) {
            let name = self.name_of(&hop.next_hop);
            log::note(
                "delivery",
                &format!("warning: next hop {name} is down ({}); its mail waits", trouble.text),
            );
        }
        if hop.begin_planning() {
            self.plan(monotonic_millis() + wait.as_millis() as u64, Due::Probe(hop.clone()));
        }
        self.settle_down(hop, true);
    }

    /// The site of a next hop is down: so is this one, and another one looks.
    pub(super) fn follow(self: &Rc<Self>, hop: &Rc<Hop>, site: &Rc<Site>) {
        let Some(trouble) = site.trouble().filter(|_| !hop.is_down()) else { return };
        hop.set_down(trouble, wall_micros());
        site.follow(hop);
        self.settle_down(hop, true);
    }

    /// Makes sure that a hop that is down is looked at again.
    pub fn plan_probe(&self, hop: &Rc<Hop>) {
        if hop.is_down() && hop.begin_planning() {
            self.plan(monotonic_millis() + PROBE_LONGEST.as_millis() as u64, Due::Probe(hop.clone()));
        }
    }

    pub(super) fn probe(self: &Rc<Self>, hop: Rc<Hop>) {
        hop.end_planning();
        if self.is_stopping() || !hop.is_down() {
            return;
        }
        self.sort_again(&hop);
        if hop.is_empty() {
            // Nobody waits for it now; the next message finds out how it is.
            hop.set_up();
            hop.site().iter().for_each(|site| self.pass_probe_on(site));
        } else if self.has_place() && hop.begin_probe() {
            self.open(hop);
        } else if hop.begin_planning() {
            self.plan(monotonic_millis() + PROBE_FIRST.as_millis() as u64, Due::Probe(hop));
        }
    }

    /// The hop that looked at the site has nothing to send any more: the next one that has looks.
    fn pass_probe_on(self: &Rc<Self>, site: &Rc<Site>) {
        while let Some(next) = site.next_follower() {
            if next.is_empty() {
                next.set_up();
            } else {
                return self.probe(next);
            }
        }
        self.site_is_up(site);
    }

    /// Looks at a hop that is down now, and as often as at the first time from then on.
    pub(super) fn probe_now(self: &Rc<Self>, hop: &Rc<Hop>) {
        hop.reset_probes();
        if self.is_stopping() || !hop.is_down() {
            return;
        }
        // One of the next hops of a site is enough.
        if hop.site().is_some_and(|site| site.is_down() && site.connections() > 0) {
            return;
        }
        if self.has_place() && hop.begin_probe() {
            self.open(hop.clone());
        } else if hop.begin_planning() {
            self.plan(monotonic_millis(), Due::Probe(hop.clone()));
        }
    }

    /// The next hop can never be reached: everything that is ready for it bounces, and guests are turned away.
    pub async fn refuse_all(self: &Rc<Self>, hop: &Rc<Hop>, trouble: Trouble) {
        hop.set_up();
        hop.guests.turn_away(&trouble.text);
        for _ in 0..hop.ready_len() {
            let Some(item) = hop.take() else { return };
            let _hands = self.in_hands(&item);
            settle_trouble(self, hop, item, &trouble, Waits::Refused).await;
            glommio::yield_if_needed().await;
        }
    }

    /// Has one task look after the messages of a hop that is down: tell of those that have just come, and
    /// with `all` see which of the others expire or are due for a notice.
    pub(super) fn settle_down(self: &Rc<Self>, hop: &Rc<Hop>, all: bool) {
        if !hop.begin_settling() {
            return;
        }
        let (shard, hop) = (self.clone(), hop.clone());
        glommio::spawn_local(async move {
            let settled = AssertUnwindSafe(shard.settle_waiting(&hop, all)).catch_unwind().await;
            if settled.is_err() {
                shard.counters.delivery_panics_total.add(1);
                log::note("delivery", "error: an internal fault while messages waited");
            }
            hop.end_settling();
            shard.feed(&hop);
        })
        .detach();
    }

    /// Goes once through the messages that are ready, in order, when something is due for one of them; those that
    /// go on waiting stay in order. What has come meanwhile is told of.
    async fn settle_waiting(self: &Rc<Self>, hop: &Rc<Hop>, all: bool) {
        let all = all && hop.is_down() && hop.take_event(wall_micros());
        let counts = if all { hop.ready_counts() } else { Vec::new() };
        for priority in counts.into_iter().flat_map(|(priority, count)| std::iter::repeat_n(priority, count))
        {
            // Asked first: an item that is taken must be put back.
            let Some(trouble) = hop.trouble() else { break };
            let Some(item) = hop.take_of(priority) else { continue };
            let _hands = self.in_hands(&item);
            if let Some(item) = settle_trouble(self, hop, item, &trouble, Waits::Down).await {
                self.wait_on(hop, item);
            }
            glommio::yield_if_needed().await;
        }
        while let Some(item) = hop.take_unannounced() {
            let _hands = self.in_hands(&item);
            let item = match hop.trouble() {
                Some(trouble) => settle_trouble(self, hop, item, &trouble, Waits::Down).await,
                None => Some(item),
            };
            item.into_iter().for_each(|item| self.wait_on(hop, item));
            glommio::yield_if_needed().await;
        }
    }

    fn wait_on(&self, hop: &Hop, item: Item) {
        if let Some(item) = self.hands.strain(item) {
            hop.note_event(self.event_of(hop, &item));
            hop.push(item);
        }
    }

    /// When a message that waits for a hop which is down expires, or its sender is due a notice.
    pub(super) fn event_of(&self, hop: &Hop, item: &Item) -> u64 {
        let by = item.luggage.by();
        retry::event_micros(self.retry_of(&hop.next_hop), item.arrived_micros, item.notified, by)
    }
}
