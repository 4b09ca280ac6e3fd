//! Whose turn it is on an ingest shard: a change of the queue and a hand-over of messages that the delivery
//! shards do not know yet (of an earlier run, moved, restored) never see each other half done.
//!
//! So a change finds each message in one place, either handed over or not, and what it records goes with the
//! message wherever that goes: nothing is counted as changed and then lost, nothing is handed over twice.
//! A move takes a turn for each step, so that a change waits for one step, not for the whole spool.

use sluice_queue::{QueueId, SpoolNumber};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// In the order in which it is asked for.
#[derive(Clone, Default)]
pub struct Turn(Arc<Mutex<()>>);

/// The turn, until it is dropped.
pub type Held = OwnedMutexGuard<()>;

impl Turn {
    pub async fn take(&self) -> Held {
        self.0.clone().lock_owned().await
    }

    /// At the start, before anybody else can ask.
    pub fn first(&self) -> Held {
        self.0.clone().try_lock_owned().expect("nobody has it yet")
    }
}

/// Adopted spools that are being emptied: their messages are handed over when they have moved, under their
/// new ids, not when a change would do it.
#[derive(Default)]
pub struct Unmoved(RefCell<HashMap<SpoolNumber, Spool>>);

#[derive(Default)]
struct Spool {
    /// They do not fit elsewhere and go from where they are.
    handed: HashSet<QueueId>,
    /// Recipients to be tried at once when their message has moved, whatever is left of their wait.
    forward: HashMap<QueueId, Vec<u32>>,
}

impl Unmoved {
    pub fn begin(&self, spool: SpoolNumber) {
        self.0.borrow_mut().insert(spool, Spool::default());
    }

    /// What the spool has now is handed over from there.
    pub fn end(&self, spool: SpoolNumber) {
        self.0.borrow_mut().remove(&spool);
    }

    pub fn is_emptied(&self, spool: SpoolNumber) -> bool {
        self.0.borrow().contains_key(&spool)
    }

    /// The message waits to be moved.
    pub fn contains(&self, id: QueueId) -> bool {
        self.0.borrow().get(&id.spool()).is_some_and(|spool| !spool.handed.contains(&id))
    }

    /// The message is handed over from the spool that is being emptied.
    pub fn hand_over(&self, id: QueueId) {
        if let Some(spool) = self.0.borrow_mut().get_mut(&id.spool()) {
            spool.handed.insert(id);
        }
    }

    pub fn was_handed_over(&self, id: QueueId) -> bool {
        self.0.borrow().get(&id.spool()).is_some_and(|spool| spool.handed.contains(&id))
    }

    /// Recipients of a message that waits to be moved are to be tried at once.
    pub fn bring_forward(&self, id: QueueId, recipients: &[u32]) {
        if let Some(spool) = self.0.borrow_mut().get_mut(&id.spool()) {
            let forward = spool.forward.entry(id).or_default();
            forward.extend(recipients);
            forward.sort_unstable();
            forward.dedup();
        }
    }

    /// Gives those recipients, once.
    pub fn take_forward(&self, id: QueueId) -> Vec<u32> {
        self.0
            .borrow_mut()
            .get_mut(&id.spool())
            .and_then(|spool| spool.forward.remove(&id))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_a_spool_that_is_emptied_waits_unless_it_goes_from_there() {
        let (spool, other) = (SpoolNumber::new(3).unwrap(), SpoolNumber::new(0).unwrap());
        let (waits, stays) = (QueueId::new(1_000, spool), QueueId::new(2_000, spool));
        let unmoved = Unmoved::default();
        assert!(!unmoved.contains(waits));
        unmoved.begin(spool);
        unmoved.hand_over(stays);
        assert!(unmoved.contains(waits) && !unmoved.contains(stays));
        assert!(unmoved.was_handed_over(stays) && !unmoved.was_handed_over(waits));
        assert!(!unmoved.contains(QueueId::new(1_000, other)));
        unmoved.end(spool);
        assert!(!unmoved.contains(waits) && !unmoved.was_handed_over(stays));
    }

    #[test]
    fn what_is_brought_forward_is_given_once_with_each_recipient_once() {
        let spool = SpoolNumber::new(3).unwrap();
        let id = QueueId::new(1_000, spool);
        let unmoved = Unmoved::default();
        unmoved.bring_forward(id, &[1]);
        assert!(unmoved.take_forward(id).is_empty(), "the spool is not emptied");
        unmoved.begin(spool);
        unmoved.bring_forward(id, &[4, 1]);
        unmoved.bring_forward(id, &[1, 2]);
        assert_eq!(unmoved.take_forward(id), [1_u32, 2, 4]);
        assert!(unmoved.take_forward(id).is_empty());
    }
}
