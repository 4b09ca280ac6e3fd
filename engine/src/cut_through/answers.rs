//! What next hops have said of recipients, for as long as the configuration says.
//!
//! Pure; belongs to one delivery shard. Each kind of answer has its own room, so whoever guesses addresses fills the
//! room of refusals and drives out no good ones. A kind is kept in two halves: when the younger is full the older is
//! dropped whole and the younger takes its place, so forgetting costs nothing per answer.

use super::Taken;
use crate::config::CutThrough;
use crate::shard::links::NextHop;
use std::collections::HashMap;
use std::time::Duration;

/// A next hop and a forward-path whose domain is in lower case.
pub type Key = (NextHop, Box<str>);

pub struct Answers {
    positive: Kind,
    negative: Kind,
    temporary: Kind,
}

struct Kind {
    keep_millis: u64,
    half_max: usize,
    young: HashMap<Key, (u64, Taken)>,
    old: HashMap<Key, (u64, Taken)>,
}

impl Answers {
    /// The slice of one delivery shard of so many.
    pub fn new(config: &CutThrough, shards: usize) -> Self {
        let half_max = config.answers_max.div_ceil(2 * shards);
        let kind = |keep: Duration| Kind {
            keep_millis: u64::try_from(keep.as_millis()).unwrap_or(u64::MAX),
            half_max,
            young: HashMap::new(),
            old: HashMap::new(),
        };
        Self {
            positive: kind(config.positive_expire),
            negative: kind(config.negative_expire),
            temporary: kind(config.temporary_expire),
        }
    }

    /// The domain in lower case; the local part is the next hop's own affair (RFC 5321 section 2.4).
    pub fn key(next_hop: &NextHop, address: &str) -> Key {
        let mut address = address.to_owned();
        if let Some(at) = address.rfind('@') {
            address[at..].make_ascii_lowercase();
        }
        (next_hop.clone(), address.into())
    }

    pub fn get(&self, key: &Key, now: u64) -> Option<Taken> {
        [&self.positive, &self.negative, &self.temporary].into_iter().find_map(|kind| kind.get(key, now))
    }

    /// Keeps an answer in place of an older one. What nobody said is not kept.
    pub fn put(&mut self, key: &Key, taken: &Taken, now: u64) {
        for kind in [&mut self.positive, &mut self.negative, &mut self.temporary] {
            kind.young.remove(key);
            kind.old.remove(key);
        }
        let kind = match taken {
            Taken::Yes => &mut self.positive,
            Taken::No(_) => &mut self.negative,
            Taken::NotNow(_) => &mut self.temporary,
            Taken::Unknown => return,
        };
        kind.put(key, taken, now);
    }

    /// Answers that are kept, in force or not.
    #[cfg(test)]
    fn len(&self) -> usize {
        [&self.positive, &self.negative, &self.temporary]
            .iter()
            .map(|kind| kind.young.len() + kind.old.len())
            .sum()
    }
}

impl Kind {
    fn get(&self, key: &Key, now: u64) -> Option<Taken> {
        let (until, taken) = self.young.get(key).or_else(|| self.old.get(key))?;
        (now < *until).then(|| taken.clone())
    }

    fn put(&mut self, key: &Key, taken: &Taken, now: u64) {
        if self.keep_millis == 0 || self.half_max == 0 {
            return;
        }
        if self.young.len() >= self.half_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key.clone(), (now.saturating_add(self.keep_millis), taken.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::said::Said;
    use std::sync::Arc;

    fn answers(answers_max: usize) -> Answers {
        let seconds = Duration::from_secs;
        let config = CutThrough {
            positive_expire: seconds(100),
            negative_expire: seconds(10),
            temporary_expire: seconds(1),
            answers_max,
            message_bytes_max: 0,
            connections_max: 1,
        };
        Answers::new(&config, 1)
    }

    fn key(address: &str) -> Key {
        Answers::key(&NextHop::of_route(0), address)
    }

    fn said(code: u16) -> Arc<Said> {
        Arc::new(Said::new(code, None, "x"))
    }

    #[test]
    fn each_kind_of_answer_has_its_own_time() {
        let mut answers = answers(100);
        let table = [
            ("a@x", Taken::Yes, 100_000),
            ("b@x", Taken::No(said(550)), 10_000),
            ("c@x", Taken::NotNow(said(450)), 1_000),
        ];
        for (address, taken, millis) in table {
            answers.put(&key(address), &taken, 5);
            assert_eq!(answers.get(&key(address), 4 + millis), Some(taken));
            assert_eq!(answers.get(&key(address), 5 + millis), None);
        }
        answers.put(&key("d@x"), &Taken::Unknown, 0);
        assert_eq!((answers.get(&key("d@x"), 0), answers.len()), (None, 3));
    }

    #[test]
    fn the_last_answer_counts_whatever_its_kind() {
        let mut answers = answers(100);
        answers.put(&key("a@x"), &Taken::Yes, 0);
        answers.put(&key("a@X"), &Taken::No(said(550)), 0);
        assert_eq!(answers.get(&key("a@x"), 0), Some(Taken::No(said(550))));
        assert_eq!(answers.get(&key("A@x"), 0), None, "a local part may differ by case");
        answers.put(&key("a@x"), &Taken::Unknown, 0);
        assert_eq!((answers.get(&key("a@x"), 0), answers.len()), (None, 0));
    }

    #[test]
    fn guessing_takes_no_more_than_its_room_and_drives_out_no_good_answer() {
        let mut answers = answers(10);
        answers.put(&key("good@x"), &Taken::Yes, 0);
        for n in 0..1_000 {
            answers.put(&key(&format!("{n}@x")), &Taken::No(said(550)), 0);
            assert!(answers.len() <= 11);
        }
        assert_eq!(answers.get(&key("good@x"), 0), Some(Taken::Yes));
        assert!(answers.get(&key("999@x"), 0).is_some() && answers.get(&key("995@x"), 0).is_some());
        assert!(answers.get(&key("0@x"), 0).is_none());
    }
}
