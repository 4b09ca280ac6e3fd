//! The messages that are in hands: those that a connection, or a task that settles, has taken out of its
//! hop and that are not decided yet.
//!
//! Lives on one delivery shard. It is what lets an administrator withdraw a message at any moment. One that
//! lies in a hop or in the timetable is simply taken out; of one in hands the recipients are marked, and
//!
//! - an attempt that ends with a final answer reports that answer, as ever;
//! - where the message would go back or be put off, marked recipients are left out ([`Hands::strain`]);
//! - when the message leaves the hands, the ingest shard is told that the marked ones are gone from here
//!   (`ToIngest::Withdrawn`), behind every report about them.
//!
//! So a marked recipient is never anywhere else on any delivery shard, and the ingest shard hands it over
//! again, if at all, only after it has been told. One delivery at a time, then, whatever is asked for.

use super::hop::Item;
use crate::shard::links::Group;
use crate::steering::Targets;
use sluice_queue::QueueId;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

#[derive(Default)]
pub struct Hands {
    slots: RefCell<Slots>,
    marked: RefCell<HashMap<QueueId, Marked>>,
    /// Whether `marked` is not empty; looked at for every message, so it must cost nothing.
    any_marked: Cell<bool>,
}

#[derive(Default)]
struct Slots {
    held: Vec<Option<(QueueId, Group)>>,
    free: Vec<usize>,
}

#[derive(Default)]
struct Marked {
    recipients: Vec<u32>,
    /// Those of them that were kept from going back; in no hands any more.
    strained: Vec<u32>,
}

/// A place in [`Hands`], taken until [`Hands::release`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

/// Some recipients of one message.
pub type Recipients = (QueueId, Vec<u32>);

impl Hands {
    pub fn take(&self, item: &Item) -> Slot {
        let mut slots = self.slots.borrow_mut();
        let held = Some((item.id, item.group.clone()));
        match slots.free.pop() {
            Some(place) => {
                slots.held[place] = held;
                Slot(place)
            }
            None => {
                slots.held.push(held);
                Slot(slots.held.len() - 1)
            }
        }
    }

    /// Only these recipients are still in the hands; the others have gone back.
    pub fn cover(&self, slot: Slot, recipients: &[u32]) {
        if let Some((_, group)) = &mut self.slots.borrow_mut().held[slot.0]
            && group.indexes() != recipients
        {
            *group = Group::new(recipients.to_vec());
        }
    }

    /// The message has left the hands. Gives the marked recipients that have left with it.
    pub fn release(&self, slot: Slot) -> Option<Recipients> {
        let (id, group) = {
            let mut slots = self.slots.borrow_mut();
            slots.free.push(slot.0);
            slots.held[slot.0].take()?
        };
        if !self.any_marked.get() {
            return None;
        }
        let mut all = self.marked.borrow_mut();
        let marked = all.get_mut(&id)?;
        let mut gone = std::mem::take(&mut marked.strained);
        gone.extend(group.indexes().iter().filter(|index| marked.recipients.contains(index)));
        gone.sort_unstable();
        gone.dedup();
        marked.recipients.retain(|index| !gone.contains(index));
        if marked.recipients.is_empty() {
            all.remove(&id);
            self.any_marked.set(!all.is_empty());
        }
        (!gone.is_empty()).then_some((id, gone))
    }

    /// What of the targets is in hands.
    pub fn find(&self, targets: &Targets) -> Vec<Recipients> {
        let slots = self.slots.borrow();
        let mut near = 0;
        let found = slots.held.iter().flatten().filter_map(|(id, group)| {
            let which = targets.find(*id, &mut near)?;
            let some: Vec<u32> =
                group.indexes().iter().copied().filter(|&index| which.contains(index)).collect();
            (!some.is_empty()).then_some((*id, some))
        });
        found.collect()
    }

    /// The same, and they are marked.
    pub fn mark(&self, targets: &Targets) -> Vec<Recipients> {
        let found = self.find(targets);
        let mut all = self.marked.borrow_mut();
        for (id, some) in &found {
            let marked = all.entry(*id).or_default();
            marked
                .recipients
                .extend(some.iter().filter(|index| !marked.recipients.contains(index)).collect::<Vec<_>>());
        }
        self.any_marked.set(!all.is_empty());
        found
    }

    /// What of an item that leaves the hands may go back; all of it unless recipients are marked.
    pub fn strain(&self, item: Item) -> Option<Item> {
        if !self.any_marked.get() {
            return Some(item);
        }
        let mut all = self.marked.borrow_mut();
        let Some(marked) = all.get_mut(&item.id) else { return Some(item) };
        let (gone, stays): (Vec<u32>, Vec<u32>) =
            item.group.indexes().iter().partition(|index| marked.recipients.contains(index));
        if gone.is_empty() {
            return Some(item);
        }
        marked.strained.extend(gone);
        if stays.is_empty() {
            return None;
        }
        let mut rest = item.with_group(stays);
        rest.luggage = item.luggage;
        Some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steering::Which;

    fn id(n: u64) -> QueueId {
        QueueId::from_bits(n)
    }

    fn item(n: u64, recipients: &[u32]) -> Item {
        Item::of(id(n), Group::new(recipients.to_vec()))
    }

    fn targets(some: &[(u64, &[u32])]) -> Targets {
        let mut targets = Targets::default();
        for (n, recipients) in some {
            let which = if recipients.is_empty() { Which::All } else { Which::Some((*recipients).into()) };
            targets.push(id(*n), which);
        }
        targets
    }

    #[test]
    fn what_is_not_marked_goes_back_whole() {
        let hands = Hands::default();
        let slot = hands.take(&item(1, &[0, 1]));
        assert_eq!(hands.mark(&targets(&[(2, &[])])), []);
        assert_eq!(hands.strain(item(1, &[0, 1])).unwrap().group.indexes(), [0, 1]);
        assert_eq!(hands.release(slot), None);
    }

    #[test]
    fn marked_recipients_do_not_go_back_and_are_told_of_once() {
        let hands = Hands::default();
        let slot = hands.take(&item(1, &[0, 1, 2]));
        let other = hands.take(&item(1, &[5]));
        assert_eq!(hands.mark(&targets(&[(1, &[1, 5])])), [(id(1), vec![1]), (id(1), vec![5])]);
        assert_eq!(hands.strain(item(1, &[1, 2])).unwrap().group.indexes(), [2]);
        assert_eq!(hands.release(slot), Some((id(1), vec![1])));
        assert!(hands.strain(item(1, &[5])).is_none());
        assert_eq!(hands.release(other), Some((id(1), vec![5])));
        assert_eq!(hands.strain(item(1, &[1, 5])).unwrap().group.indexes(), [1, 5], "nothing is left behind");
    }

    #[test]
    fn a_marked_recipient_with_a_final_answer_is_told_of_too() {
        let hands = Hands::default();
        let slot = hands.take(&item(1, &[0]));
        hands.mark(&targets(&[(1, &[])]));
        assert_eq!(hands.mark(&targets(&[(1, &[])])), [(id(1), vec![0])], "marked twice is in hands still");
        assert_eq!(hands.release(slot), Some((id(1), vec![0])));
        assert!(!hands.any_marked.get());
    }

    #[test]
    fn what_went_back_before_it_was_marked_belongs_to_its_next_hands() {
        let hands = Hands::default();
        let first = hands.take(&item(1, &[0, 1, 2]));
        assert_eq!(hands.strain(item(1, &[2])).unwrap().group.indexes(), [2]);
        hands.cover(first, &[0, 1]);
        let second = hands.take(&item(1, &[2]));
        assert_eq!(hands.mark(&targets(&[(1, &[2])])), [(id(1), vec![2])]);
        assert_eq!(hands.release(first), None);
        assert_eq!(hands.release(second), Some((id(1), vec![2])));
    }
}
