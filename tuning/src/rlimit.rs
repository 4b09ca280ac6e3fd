//! Resource limits: a soft limit is the process's own to raise as far as the hard one, so that is done
//! before anybody is told to do anything.

use crate::sys::{self, Limit, Resource};

/// Raises the soft limit to the hard one where it is below `wanted`, and returns what holds then.
/// `None`: the kernel does not say, and whoever needs the resource will find out.
pub(crate) fn raised(resource: Resource, wanted: u64) -> Option<Limit> {
    let limit = sys::limit(resource).ok()?;
    if limit.soft >= wanted || limit.soft >= limit.hard {
        return Some(limit);
    }
    match sys::set_limit(resource, Limit { soft: limit.hard, hard: limit.hard }) {
        Ok(()) => sys::limit(resource).ok(),
        Err(_) => Some(limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soft_limit_is_raised_to_the_hard_one_and_not_past_it() {
        let before = sys::limit(Resource::Nofile).expect("a limit");
        sys::set_limit(Resource::Nofile, Limit { soft: before.hard.min(512), hard: before.hard })
            .expect("lowered");
        let raised = raised(Resource::Nofile, u64::MAX).expect("a limit");
        assert_eq!(raised, Limit { soft: before.hard, hard: before.hard });
    }
}
