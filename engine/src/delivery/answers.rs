//! Answers of the resolvers that a delivery shard keeps: for as long as they say, up to a bound on memory.
//!
//! Pure but for the clock that the caller brings. When room is needed, an answer goes that nobody has asked
//! for since room was last needed, the oldest of these first (a "second chance" queue): a flood of domains
//! that are asked for once displaces itself, not what every message needs.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Answers that are spared in one search for room, before the next one goes whether it was asked for or not.
/// Bounds what one new answer may cost.
const SPARED_MAX: usize = 64;

/// Answers of one type. The weight is about 40 octets a unit.
pub struct Answers<K, T> {
    kept: HashMap<K, Kept<T>>,
    /// Each key of `kept` once, in the order in which they are looked at when room is needed.
    order: VecDeque<K>,
    weight: usize,
    weight_max: usize,
}

struct Kept<T> {
    answer: T,
    /// Milliseconds of the monotonic clock.
    until: u64,
    weight: usize,
    asked_for: bool,
}

impl<K: Clone + Eq + Hash, T> Answers<K, T> {
    pub fn new(weight_max: usize) -> Self {
        Self { kept: HashMap::new(), order: VecDeque::new(), weight: 0, weight_max }
    }

    pub fn get(&mut self, key: &K, now: u64) -> Option<&T> {
        let kept = self.kept.get_mut(key).filter(|kept| kept.until > now)?;
        kept.asked_for = true;
        Some(&kept.answer)
    }

    /// Keeps an answer in place of an earlier one. One that is heavier than the whole bound is not kept.
    pub fn keep(&mut self, key: K, answer: T, weight: usize, until: u64, now: u64) {
        if weight > self.weight_max || until <= now {
            return;
        }
        let kept = Kept { answer, until, weight, asked_for: false };
        match self.kept.insert(key.clone(), kept) {
            Some(earlier) => self.weight -= earlier.weight,
            None => self.order.push_back(key.clone()),
        }
        self.weight += weight;
        self.make_room(&key, now);
    }

    fn make_room(&mut self, newest: &K, now: u64) {
        let mut spared = 0;
        while self.weight > self.weight_max {
            let Some(key) = self.order.pop_front() else { return };
            let kept = self.kept.get_mut(&key).expect("each key in the order is kept");
            let spare = key == *newest || spared < SPARED_MAX && kept.asked_for && kept.until > now;
            if spare {
                spared += 1;
                kept.asked_for = false;
                self.order.push_back(key);
            } else {
                self.weight -= kept.weight;
                self.kept.remove(&key);
            }
        }
    }

    pub fn retain(&mut self, mut wanted: impl FnMut(&T) -> bool) {
        self.retain_kept(|kept| wanted(&kept.answer));
    }

    pub fn forget_expired(&mut self, now: u64) {
        self.retain_kept(|kept| kept.until > now);
    }

    fn retain_kept(&mut self, mut wanted: impl FnMut(&Kept<T>) -> bool) {
        let Self { kept, order, weight, .. } = self;
        kept.retain(|_, kept| {
            let stays = wanted(kept);
            *weight -= if stays { 0 } else { kept.weight };
            stays
        });
        order.retain(|key| kept.contains_key(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound(answers: &Answers<u32, u32>) {
        assert_eq!(answers.kept.len(), answers.order.len());
        assert_eq!(answers.weight, answers.kept.values().map(|kept| kept.weight).sum::<usize>());
        assert!(answers.weight <= answers.weight_max);
    }

    #[test]
    fn an_answer_holds_until_its_time() {
        let mut answers = Answers::new(10);
        answers.keep(1, 11, 1, 100, 0);
        assert_eq!(answers.get(&1, 99), Some(&11));
        assert_eq!(answers.get(&1, 100), None);
        answers.keep(2, 12, 1, 50, 50);
        assert_eq!(answers.get(&2, 50), None, "one that has no time is not kept");
        answers.forget_expired(100);
        assert!(answers.kept.is_empty());
        sound(&answers);
    }

    #[test]
    fn a_flood_of_answers_displaces_itself_and_not_what_is_asked_for() {
        let mut answers = Answers::new(100);
        for key in 0..20 {
            answers.keep(key, key, 1, 1_000, 0);
        }
        for flood in 1_000..3_000 {
            answers.keep(flood, 0, 1, 1_000, 0);
            for key in 0..20 {
                assert_eq!(answers.get(&key, 1), Some(&key), "after {flood}");
            }
            sound(&answers);
        }
        assert_eq!(answers.kept.len(), 100);
    }

    #[test]
    fn what_has_expired_goes_first_and_the_bound_holds_whatever_is_asked_for() {
        let mut answers = Answers::new(100);
        for key in 0..100 {
            answers.keep(key, key, 1, if key == 50 { 5 } else { 1_000 }, 0);
            answers.get(&key, 1);
        }
        answers.keep(1_000, 0, 1, 1_000, 10);
        sound(&answers);
        assert_eq!(answers.kept.len(), 100);
        assert!(!answers.kept.contains_key(&50) && answers.kept.contains_key(&1_000));
        for key in 2_000..2_500 {
            for asked in 0..3_000 {
                answers.get(&asked, 11);
            }
            answers.keep(key, 0, 1, 1_000, 11);
            sound(&answers);
            assert!(answers.kept.contains_key(&key), "the newest stays");
        }
    }

    #[test]
    fn heavy_answers_take_the_place_of_many_and_the_heaviest_is_not_kept() {
        let mut answers = Answers::new(100);
        for key in 0..100 {
            answers.keep(key, key, 1, 1_000, 0);
        }
        answers.keep(200, 0, 60, 1_000, 0);
        sound(&answers);
        assert_eq!(answers.kept.len(), 41);
        answers.keep(201, 0, 101, 1_000, 0);
        assert!(!answers.kept.contains_key(&201));
        answers.keep(200, 1, 10, 1_000, 0);
        sound(&answers);
        assert_eq!((answers.weight, answers.get(&200, 1)), (50, Some(&1)));
        answers.retain(|answer| *answer == 1);
        assert_eq!((answers.weight, answers.order.len()), (10, 1));
    }
}
