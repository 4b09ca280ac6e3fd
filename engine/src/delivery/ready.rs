//! The messages that are ready for one next hop, in the order of their turns (RFC 6710 section 4.1).
//!
//! Pure; belongs to one [`Hop`](super::hop::Hop). Higher priorities go first, messages of one priority in
//! the order in which they came. So that none starves, every [`FAIR_TURN`]th turn goes to the message that
//! came first of all, whatever its priority. Without priorities this is one queue and nothing more.

use super::hop::Item;
use std::collections::VecDeque;

/// Of so many turns one goes by age and not by priority. Prevents: a stream of urgent mail that keeps all
/// other mail for the next hop waiting until it expires.
const FAIR_TURN: u8 = 8;

#[derive(Default)]
pub struct Ready {
    /// By priority, the highest first; none is empty, but for one that was the last.
    levels: Vec<(i8, VecDeque<Item>)>,
    /// Turns since the last one that went by age.
    turns: u8,
}

impl Ready {
    pub fn push(&mut self, item: Item) {
        self.level(item.priority).push_back(item);
    }

    pub fn push_front(&mut self, item: Item) {
        self.level(item.priority).push_front(item);
    }

    /// The message whose turn it is.
    pub fn take(&mut self) -> Option<Item> {
        let place = match self.levels.len() {
            0 => return None,
            1 => 0,
            _ => {
                self.turns = (self.turns + 1) % FAIR_TURN;
                if self.turns == 0 { self.oldest() } else { 0 }
            }
        };
        self.take_at(place)
    }

    /// The first message of a priority.
    pub fn take_of(&mut self, priority: i8) -> Option<Item> {
        let place = self.levels.iter().position(|(level, _)| *level == priority)?;
        self.take_at(place)
    }

    /// Each priority, and how many messages have it.
    pub fn counts(&self) -> Vec<(i8, usize)> {
        self.levels.iter().map(|(priority, items)| (*priority, items.len())).collect()
    }

    pub fn len(&self) -> usize {
        self.levels.iter().map(|(_, items)| items.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.levels.iter().all(|(_, items)| items.is_empty())
    }

    /// Everything, the highest priority first; nothing is left.
    pub fn take_all(&mut self) -> VecDeque<Item> {
        let mut levels = std::mem::take(&mut self.levels).into_iter().map(|(_, items)| items);
        let mut all = levels.next().unwrap_or_default();
        levels.for_each(|items| all.extend(items));
        all
    }

    fn level(&mut self, priority: i8) -> &mut VecDeque<Item> {
        // The last queue is kept when it is empty, and serves again under another priority.
        if let [(level, items)] = &mut self.levels[..]
            && items.is_empty()
        {
            *level = priority;
        }
        let place = self.levels.partition_point(|(level, _)| *level > priority);
        if self.levels.get(place).is_none_or(|(level, _)| *level != priority) {
            self.levels.insert(place, (priority, VecDeque::new()));
        }
        &mut self.levels[place].1
    }

    fn take_at(&mut self, place: usize) -> Option<Item> {
        let item = self.levels[place].1.pop_front();
        if self.levels[place].1.is_empty() && self.levels.len() > 1 {
            self.levels.remove(place);
        }
        item
    }

    fn oldest(&self) -> usize {
        let heads = self.levels.iter().enumerate();
        let heads = heads.filter_map(|(place, (_, items))| Some((items.front()?.id, place)));
        heads.min().map_or(0, |(_, place)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::links::Group;
    use sluice_queue::QueueId;

    fn item(n: u64, priority: i8) -> Item {
        Item { priority, ..Item::of(QueueId::from_bits(n), Group::One(0)) }
    }

    fn taken(ready: &mut Ready) -> Vec<u64> {
        std::iter::from_fn(|| ready.take()).map(|item| item.id.bits()).collect()
    }

    #[test]
    fn higher_priorities_go_first_and_equal_ones_in_their_order() {
        let mut ready = Ready::default();
        for (n, priority) in [(1, 0), (2, -9), (3, 4), (4, 0), (5, 9)] {
            ready.push(item(n, priority));
        }
        ready.push_front(item(6, 4));
        assert_eq!((ready.len(), ready.counts()), (6, vec![(9, 1), (4, 2), (0, 2), (-9, 1)]));
        assert_eq!(ready.take_of(-9).map(|item| item.id.bits()), Some(2));
        assert_eq!(taken(&mut ready), [5, 6, 3, 1, 4]);
        assert!(ready.is_empty() && ready.take().is_none());
        ready.push(item(7, -2));
        ready.push(item(8, 3));
        assert_eq!(taken(&mut ready), [8, 7], "an empty queue serves again");
    }

    #[test]
    fn a_stream_of_urgent_mail_starves_nobody() {
        let mut ready = Ready::default();
        ready.push(item(1, 0));
        ready.push(item(2, -9));
        let mut waited = Vec::new();
        for n in 3..200 {
            ready.push(item(n, 9));
            ready.push(item(1000 + n, 9));
            let id = ready.take().unwrap().id.bits();
            if id < 3 {
                waited.push((id, n - 2));
            }
        }
        assert_eq!(waited, [(1, 8), (2, 16)]);
    }

    #[test]
    fn what_is_taken_out_whole_can_be_put_back() {
        let mut ready = Ready::default();
        for (n, priority) in [(1, 0), (2, 5), (3, 0)] {
            ready.push(item(n, priority));
        }
        let all = ready.take_all();
        assert!(ready.is_empty() && all.len() == 3);
        all.into_iter().for_each(|item| ready.push(item));
        assert_eq!(taken(&mut ready), [2, 1, 3]);
    }
}
