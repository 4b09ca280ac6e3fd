//! Connections without work: each waits in one place until it is called, for its own next hop or for another one of
//! the same site, or is told to leave because its place is needed.
//!
//! Lives on one delivery shard.

use super::hop::Hop;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

/// Why a connection wakes up.
pub enum Call {
    /// Its next hop has mail.
    Work,
    /// Another next hop of the same site has.
    Switch(Rc<Hop>),
    /// Somebody else needs its place.
    Leave,
}

pub struct Idle {
    hop: Rc<Hop>,
    /// The connection may serve other next hops with the same hosts.
    shared: bool,
    waker: Cell<Option<Waker>>,
    call: Cell<Option<Call>>,
}

impl Idle {
    fn call(&self, call: Call) {
        self.call.set(Some(call));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The idle connections of one site, the one that was used last at the end.
#[derive(Default)]
pub struct IdleOfSite(RefCell<Vec<Rc<Idle>>>);

impl IdleOfSite {
    /// Calls a connection to this next hop, or one of another that may serve it.
    pub fn call(&self, hop: &Rc<Hop>) -> bool {
        let mut idle = self.0.borrow_mut();
        let own = idle.iter().rposition(|idle| Rc::ptr_eq(&idle.hop, hop));
        let other = || idle.iter().rposition(|idle| idle.shared && idle.hop.has_hosts_of(hop));
        let Some(found) = own.or_else(other) else { return false };
        let found = idle.remove(found);
        let is_own = Rc::ptr_eq(&found.hop, hop);
        found.call(if is_own { Call::Work } else { Call::Switch(hop.clone()) });
        true
    }

    /// The connection that was not used for longest leaves.
    pub fn evict(&self) -> bool {
        let mut idle = self.0.borrow_mut();
        if idle.is_empty() {
            return false;
        }
        idle.remove(0).call(Call::Leave);
        true
    }

    pub fn call_all(&self) {
        self.0.take().into_iter().for_each(|idle| idle.call(Call::Leave));
    }
}

/// The idle connections of a shard, the one that was used last at the end.
#[derive(Default)]
pub struct IdleOfShard(RefCell<VecDeque<(Weak<Idle>, Rc<super::site::Site>)>>);

impl IdleOfShard {
    /// The connection that was not used for longest leaves.
    pub fn evict(&self) -> bool {
        loop {
            let Some((idle, site)) = self.0.borrow_mut().pop_front() else { return false };
            let Some(idle) = idle.upgrade() else { continue };
            let mut of_site = site.idle.0.borrow_mut();
            if let Some(place) = of_site.iter().position(|other| Rc::ptr_eq(other, &idle)) {
                of_site.remove(place);
                idle.call(Call::Leave);
                return true;
            }
        }
    }

    /// What has left by itself holds no memory.
    pub fn forget_ended(&self) {
        self.0.borrow_mut().retain(|(idle, _)| idle.strong_count() > 0);
    }

    fn push(&self, idle: &Rc<Idle>, site: &Rc<super::site::Site>, connections: usize) {
        let mut all = self.0.borrow_mut();
        if all.len() > 2 * connections + 16 {
            drop(all);
            self.forget_ended();
            all = self.0.borrow_mut();
        }
        all.push_back((Rc::downgrade(idle), site.clone()));
    }
}

/// The place of a connection of a site that has no work.
pub async fn wait(
    of_shard: &IdleOfShard,
    site: &Rc<super::site::Site>,
    hop: &Rc<Hop>,
    shared: bool,
    connections: usize,
) -> Call {
    let idle = Rc::new(Idle { hop: hop.clone(), shared, waker: Cell::default(), call: Cell::default() });
    site.idle.0.borrow_mut().push(idle.clone());
    of_shard.push(&idle, site, connections);
    let _leaves = Leaves { site: site.clone(), idle: idle.clone() };
    poll_fn(|context| {
        if let Some(call) = idle.call.take() {
            return Poll::Ready(call);
        }
        idle.waker.set(Some(context.waker().clone()));
        Poll::Pending
    })
    .await
}

struct Leaves {
    site: Rc<super::site::Site>,
    idle: Rc<Idle>,
}

impl Drop for Leaves {
    fn drop(&mut self) {
        self.site.idle.0.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.idle));
    }
}

#[cfg(test)]
mod tests {
    use super::super::hop::tests::{hop, item};
    use super::super::site::tests::site;
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn a_connection_is_called_for_its_own_next_hop_first_then_for_others_with_the_same_hosts() {
        let (of_shard, site) = (IdleOfShard::default(), site());
        let hops: Vec<_> = (0..3).map(|_| Rc::new(hop())).collect();
        hops[0].set_site(&site, "mx1".into());
        hops[1].set_site(&site, "mx1".into());
        hops[2].set_site(&site, "mx2".into());
        hops.iter().for_each(|hop| hop.push(item(1)));
        block_on(async {
            let mut waits: Vec<_> = [(&hops[0], true), (&hops[1], false)]
                .into_iter()
                .map(|(hop, shared)| Box::pin(wait(&of_shard, &site, hop, shared, 1)))
                .collect();
            for wait in &mut waits {
                assert!(poll_once(wait).await.is_none());
            }
            assert!(!site.idle.call(&hops[2]), "other hosts");
            assert!(site.idle.call(&hops[1]));
            assert!(matches!(poll_once(&mut waits[1]).await, Some(Call::Work)));
            assert!(site.idle.call(&hops[1]));
            let call = poll_once(&mut waits[0]).await;
            assert!(matches!(call, Some(Call::Switch(next)) if Rc::ptr_eq(&next, &hops[1])));
            assert!(!site.idle.call(&hops[0]) && !of_shard.evict(), "nobody is left");
        });
    }

    #[test]
    fn the_one_that_was_unused_for_longest_leaves_and_one_that_stopped_waiting_is_not_called() {
        let (of_shard, site) = (IdleOfShard::default(), site());
        let hop = Rc::new(hop());
        block_on(async {
            let mut waits: Vec<_> = (0..3).map(|_| Box::pin(wait(&of_shard, &site, &hop, true, 1))).collect();
            for wait in &mut waits {
                assert!(poll_once(wait).await.is_none());
            }
            drop(waits.remove(0));
            assert!(of_shard.evict());
            assert!(matches!(poll_once(&mut waits[0]).await, Some(Call::Leave)));
            assert!(poll_once(&mut waits[1]).await.is_none());
            assert!(site.idle.evict());
            assert!(matches!(poll_once(&mut waits[1]).await, Some(Call::Leave)));
            assert!(!site.idle.call(&hop));
        });
    }

    #[test]
    fn what_the_shard_remembers_of_connections_that_left_is_bounded() {
        let (of_shard, site) = (IdleOfShard::default(), site());
        let hop = Rc::new(hop());
        block_on(async {
            for _ in 0..1_000 {
                assert!(poll_once(Box::pin(wait(&of_shard, &site, &hop, true, 1))).await.is_none());
            }
        });
        assert!(of_shard.0.borrow().len() < 100);
    }
}
