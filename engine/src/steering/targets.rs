//! Which recipients of which messages a change has chosen, in a form that a delivery shard can look items
//! up in, a million at a time.
//!
//! Pure and `Send`: made by an ingest shard, shared with every delivery shard.

use sluice_queue::QueueId;

/// Recipients of one message, by their index in the envelope, rising.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All that wait.
    All,
    Some(Box<[u32]>),
}

impl Which {
    pub fn contains(&self, index: u32) -> bool {
        match self {
            Self::All => true,
            Self::Some(indexes) => indexes.binary_search(&index).is_ok(),
        }
    }
}

/// Messages in the order of their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets(Vec<(QueueId, Which)>);

impl Targets {
    /// # Panics
    /// When `id` does not come behind all that are there.
    pub fn push(&mut self, id: QueueId, which: Which) {
        assert!(self.0.last().is_none_or(|(last, _)| *last < id), "targets come in the order of their ids");
        self.0.push((id, which));
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &(QueueId, Which)> {
        self.0.iter()
    }

    pub fn as_slice(&self) -> &[(QueueId, Which)] {
        &self.0
    }

    /// Looks a message up. `near` is where the last look-up ended: a backlog is mostly in the order of its
    /// ids, and then the next one stands beside it.
    pub fn find(&self, id: QueueId, near: &mut usize) -> Option<&Which> {
        for place in [*near, *near + 1] {
            if let Some((found, which)) = self.0.get(place)
                && *found == id
            {
                *near = place;
                return Some(which);
            }
        }
        let place = self.0.binary_search_by_key(&id, |(found, _)| *found).ok()?;
        *near = place;
        Some(&self.0[place].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_found_in_whatever_order_it_is_asked_for() {
        let mut targets = Targets::default();
        (1..100).for_each(|n| targets.push(QueueId::from_bits(n * 2), Which::Some([n as u32].into())));
        let mut near = 0;
        for n in (1..100).chain((1..100).rev()).chain([50, 3, 99, 3]) {
            let which = targets.find(QueueId::from_bits(n * 2), &mut near).expect("it is there");
            assert!(which.contains(n as u32) && !which.contains(n as u32 + 1), "{n}");
            assert!(targets.find(QueueId::from_bits(n * 2 + 1), &mut near).is_none(), "{n}");
        }
        assert!(Targets::default().find(QueueId::from_bits(1), &mut near).is_none());
    }
}
