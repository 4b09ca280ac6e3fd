//! What a login has sent within an hour: stolen credentials send so much and no more (S29).
//!
//! Pure; on the service thread. A sliding window from two counts, that of this hour and what is left of the
//! last one's. Bounded by [`LOGINS_MAX`]: only logins that have proved themselves are here.

use crate::config::LoginLimits;
use std::collections::HashMap;

const HOUR: u64 = 3_600_000;
/// Prevents an authority that makes logins up from taking memory.
const LOGINS_MAX: usize = 64 * 1024;

#[derive(Clone, Copy, Default)]
struct Sent {
    messages: u64,
    recipients: u64,
}

#[derive(Default)]
struct Window {
    hour: u64,
    this: Sent,
    last: Sent,
}

#[derive(Default)]
pub struct Spending {
    limits: Option<LoginLimits>,
    logins: HashMap<String, Window>,
}

impl Spending {
    pub fn new(limits: &LoginLimits) -> Self {
        Self { limits: Some(limits.clone()), logins: HashMap::new() }
    }

    /// Counts a message for so many recipients, unless that would be too much. `now` in milliseconds.
    pub fn spend(&mut self, now: u64, login: &str, recipients: u64) -> bool {
        let Some(limits) = &self.limits else { return true };
        let hour = now / HOUR;
        if self.logins.len() >= LOGINS_MAX && !self.logins.contains_key(login) {
            self.logins.retain(|_, window| window.hour + 1 >= hour);
            if self.logins.len() >= LOGINS_MAX {
                return false;
            }
        }
        let window = self.logins.entry(login.to_owned()).or_default();
        if window.hour != hour {
            window.last = if window.hour + 1 == hour { window.this } else { Sent::default() };
            (window.this, window.hour) = (Sent::default(), hour);
        }
        let left = HOUR - now % HOUR;
        let within = |this: u64, last: u64, more: u64, bound: u32| {
            bound == 0 || this + last * left / HOUR + more <= u64::from(bound)
        };
        let fits = within(window.this.messages, window.last.messages, 1, limits.messages_per_hour)
            && within(window.this.recipients, window.last.recipients, recipients, limits.recipients_per_hour);
        if fits {
            window.this.messages += 1;
            window.this.recipients += recipients;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spending(messages_per_hour: u32, recipients_per_hour: u32) -> Spending {
        Spending::new(&LoginLimits { messages_per_hour, recipients_per_hour })
    }

    #[test]
    fn a_login_sends_so_much_an_hour_and_no_more() {
        let mut spent = spending(10, 0);
        assert_eq!((0..30).filter(|_| spent.spend(5, "ann", 1)).count(), 10);
        assert!(spent.spend(5, "bob", 1));
        // Half an hour into the next hour half of the last one counts.
        assert_eq!((0..30).filter(|_| spent.spend(HOUR + HOUR / 2, "ann", 1)).count(), 5);
        assert_eq!((0..30).filter(|_| spent.spend(9 * HOUR, "ann", 1)).count(), 10);
    }

    #[test]
    fn recipients_count_for_themselves_and_zero_is_no_limit() {
        let mut spent = spending(0, 100);
        assert!(spent.spend(0, "ann", 60) && !spent.spend(0, "ann", 60) && spent.spend(0, "ann", 40));
        assert!(!spent.spend(0, "ann", 1));
        let mut free = spending(0, 0);
        assert!((0..10_000).all(|_| free.spend(0, "ann", 1_000)));
    }

    #[test]
    fn logins_are_bounded() {
        let mut spent = spending(10, 0);
        for number in 0..LOGINS_MAX {
            assert!(spent.spend(0, &number.to_string(), 1));
        }
        assert!(!spent.spend(0, "one more", 1));
        assert!(spent.spend(2 * HOUR, "one more", 1));
    }
}
