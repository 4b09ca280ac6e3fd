//! When a deferred recipient is tried again, when its time is over, when its sender is told.
//!
//! Pure: times are microseconds since 1970, given by the caller. All arithmetic saturates, so a
//! clock that jumps or a setting that is absurd gives an early or a late attempt, never a panic.
//!
//! The wait doubles from `first` up to `longest` (RFC 5321 section 4.5.4.1 asks for waits that are
//! not constant). It is spread by up to a tenth either way, by the queue id and the attempt, and
//! stays within `longest`: a backlog that failed in one moment does not come back in one wave, and
//! the same history always gives the same schedule.

use std::time::Duration;

use sluice_queue::{ByMode, DeliverBy, QueueId};

use crate::config::Retry;

/// The spread either way, in thousandths of the wait.
const SPREAD_PER_MILLE: u64 = 100;

/// Where a recipient stands after an attempt that ended in a deferral.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deferral {
    pub id: QueueId,
    pub arrived_micros: u64,
    pub now_micros: u64,
    /// Finished attempts, this one included.
    pub attempts: u16,
    /// The sender has had a delay notice.
    pub notified: bool,
    /// The sender's own deadline (RFC 2852).
    pub by: Option<DeliverBy>,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try again then, which is after now. `notice_due`: tell the sender that the message is late.
    Retry { at_micros: u64, notice_due: bool },
    /// It has waited for `expire`: give up, and tell the sender.
    Expire,
    /// The sender's deadline has passed, and he wants the message back.
    Late,
}

/// Decides. The last attempt falls on the moment of expiry, so that no message is given up without
/// having been tried then.
pub fn after_deferral(retry: &Retry, deferral: &Deferral) -> Next {
    let Deferral { id, arrived_micros, now_micros, attempts, notified, by } = *deferral;
    let expires_micros = expires_micros(retry, arrived_micros);
    if by.is_some_and(|by| by.mode == ByMode::Return && by.deadline_micros <= now_micros) {
        return Next::Late;
    }
    if now_micros >= expires_micros {
        return Next::Expire;
    }
    let at_micros = now_micros.saturating_add(wait_micros(retry, attempts, id)).min(expires_micros);
    let age_micros = now_micros.saturating_sub(arrived_micros);
    let is_noticed = age_micros >= micros(retry.notice);
    match by {
        None => Next::Retry { at_micros, notice_due: !notified && is_noticed },
        // An attempt falls on the deadline: what is told then is of that moment.
        Some(by) if by.deadline_micros > now_micros => Next::Retry {
            at_micros: at_micros.min(by.deadline_micros),
            notice_due: !notified && is_noticed && by.mode == ByMode::Return,
        },
        Some(_) => Next::Retry { at_micros, notice_due: !notified },
    }
}

/// When a message that arrived then is given up; `Will-Retry-Until` in a DSN.
pub fn expires_micros(retry: &Retry, arrived_micros: u64) -> u64 {
    arrived_micros.saturating_add(micros(retry.expire))
}

/// As [`after_deferral`], for a message that waits for a next hop that is down: nobody has tried it, and it may
/// wait for `expire_down`.
pub fn while_down(retry: &Retry, deferral: &Deferral) -> Next {
    match after_deferral(&Retry { expire: retry.expire_down.max(retry.expire), ..retry.clone() }, deferral) {
        // RFC 2852: who wants the message back at his deadline gets it back then.
        next @ (Next::Late | Next::Expire) => next,
        Next::Retry { notice_due, .. } => {
            let at_micros =
                event_micros(retry, deferral.arrived_micros, deferral.notified || notice_due, deferral.by);
            Next::Retry { at_micros: at_micros.max(deferral.now_micros.saturating_add(1)), notice_due }
        }
    }
}

/// When something is due for a message that waits for a next hop that is down: a notice, its return.
pub fn event_micros(retry: &Retry, arrived_micros: u64, notified: bool, by: Option<DeliverBy>) -> u64 {
    let expires = arrived_micros.saturating_add(micros(retry.expire_down.max(retry.expire)));
    let notice = if notified { u64::MAX } else { arrived_micros.saturating_add(micros(retry.notice)) };
    match by {
        None => expires.min(notice),
        Some(by) if by.mode == ByMode::Return => expires.min(notice).min(by.deadline_micros),
        // Told of the deadline and of nothing before it; once is enough.
        Some(by) if !notified => expires.min(by.deadline_micros),
        Some(_) => expires,
    }
}

/// The wait after so many finished attempts, spread, at least one microsecond. For attempts of 0 it
/// is the wait after the first.
pub fn wait_micros(retry: &Retry, attempts: u16, id: QueueId) -> u64 {
    let doublings = u32::from(attempts.saturating_sub(1)).min(63);
    let grown = micros(retry.first).saturating_mul(1 << doublings);
    let longest = u128::from(micros(retry.longest));
    let middle_max = longest * 1_000 / u128::from(1_000 + SPREAD_PER_MILLE);
    let middle = u128::from(grown).min(middle_max);
    let spread = mix(id.bits() ^ u64::from(attempts).rotate_left(48)) % (2 * SPREAD_PER_MILLE + 1);
    let wait = middle * u128::from(1_000 - SPREAD_PER_MILLE + spread) / 1_000;
    u64::try_from(wait).unwrap_or(u64::MAX).max(1)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The finisher of splitmix64: neighbouring ids get unrelated numbers.
fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000_000;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    const ARRIVED: u64 = 1_795_000_000_000_000;

    fn default_retry() -> Retry {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Retry {
            first: minutes(5),
            longest: minutes(60),
            expire: minutes(5 * 24 * 60),
            notice: minutes(240),
            expire_down: minutes(5 * 24 * 60),
        }
    }

    fn deferral(age_micros: u64, attempts: u16, notified: bool) -> Deferral {
        Deferral {
            id: QueueId::from_bits(77),
            arrived_micros: ARRIVED,
            now_micros: ARRIVED + age_micros,
            attempts,
            notified,
            by: None,
        }
    }

    /// RFC 2852.
    #[test]
    fn the_senders_deadline_goes_before_the_general_times() {
        let retry = default_retry();
        let next = |age: u64, deadline: u64, mode, notified| {
            let by = Some(DeliverBy { deadline_micros: ARRIVED + deadline, mode, trace: false });
            after_deferral(&retry, &Deferral { by, ..deferral(age, 9, notified) })
        };
        let retry_at = |at: u64, notice_due| Next::Retry { at_micros: ARRIVED + at, notice_due };
        use ByMode::{Notify, Return};
        assert_eq!(next(0, MINUTE, Return, false), retry_at(MINUTE, false));
        assert_eq!(next(MINUTE, MINUTE, Return, false), Next::Late);
        assert_eq!(next(6 * DAY, 7 * DAY, Return, true), Next::Expire);
        assert_eq!(next(0, MINUTE, Notify, false), retry_at(MINUTE, false));
        assert!(matches!(next(MINUTE, MINUTE, Notify, false), Next::Retry { notice_due: true, .. }));
        assert!(matches!(next(2 * MINUTE, MINUTE, Notify, true), Next::Retry { notice_due: false, .. }));
        assert!(matches!(next(5 * HOUR, 9 * HOUR, Notify, false), Next::Retry { notice_due: false, .. }));
        assert_eq!(next(6 * DAY, MINUTE, Notify, true), Next::Expire);
    }

    #[test]
    fn the_wait_doubles_up_to_the_longest_and_is_spread_by_a_tenth() {
        let longest = 60 * MINUTE * 1_000 / 1_100;
        let table = [(0, 5 * MINUTE), (1, 5 * MINUTE), (2, 10 * MINUTE), (3, 20 * MINUTE), (4, 40 * MINUTE)];
        let capped = [5, 6, 63, 64, 65, 1_000, u16::MAX].map(|attempts| (attempts, longest));
        for (attempts, middle) in table.into_iter().chain(capped) {
            for bits in 0..500 {
                let wait = wait_micros(&default_retry(), attempts, QueueId::from_bits(bits << 12));
                let allowed = middle * 9 / 10..=(middle * 11 / 10 + 1).min(60 * MINUTE);
                assert!(allowed.contains(&wait), "{attempts} attempts: {wait} not in {allowed:?}");
            }
        }
    }

    #[test]
    fn a_backlog_does_not_come_back_in_one_wave() {
        let mut tenths = [0; 10];
        for bits in 0..10_000_u64 {
            let wait = wait_micros(&default_retry(), 2, QueueId::from_bits(ARRIVED + (bits << 12)));
            tenths[((wait - 9 * MINUTE) * 10 / (2 * MINUTE + 1)) as usize] += 1;
        }
        for count in tenths {
            assert!((700..1_300).contains(&count), "{tenths:?}");
        }
    }

    #[test]
    fn the_schedule_is_a_function_of_its_input() {
        let wait = |id, attempts| wait_micros(&default_retry(), attempts, QueueId::from_bits(id));
        assert_eq!(wait(5, 2), wait(5, 2));
        assert!((0..20).any(|id| wait(id, 2) != wait(5, 2)));
    }

    #[test]
    fn expiry_and_notice() {
        let retry = default_retry();
        let notice = |age, notified| match after_deferral(&retry, &deferral(age, 9, notified)) {
            Next::Retry { notice_due, .. } => Some(notice_due),
            Next::Expire | Next::Late => None,
        };
        let table = [
            (0, false, Some(false)),
            (4 * HOUR - 1, false, Some(false)),
            (4 * HOUR, false, Some(true)),
            (4 * HOUR, true, Some(false)),
            (5 * DAY - 1, false, Some(true)),
            (5 * DAY, false, None),
            (u64::MAX - ARRIVED, true, None),
        ];
        for (age, notified, expected) in table {
            assert_eq!(notice(age, notified), expected, "age {age}");
        }
    }

    #[test]
    fn the_last_attempt_is_at_the_moment_of_expiry() {
        let next = after_deferral(&default_retry(), &deferral(5 * DAY - MINUTE, 100, true));
        assert_eq!(next, Next::Retry { at_micros: ARRIVED + 5 * DAY, notice_due: false });
        assert_eq!(after_deferral(&default_retry(), &deferral(5 * DAY, 101, true)), Next::Expire);
    }

    #[test]
    fn a_whole_life_ends_after_a_bounded_number_of_attempts() {
        let retry = default_retry();
        let (mut age, mut attempts) = (0, 1);
        while let Next::Retry { at_micros, .. } = after_deferral(&retry, &deferral(age, attempts, true)) {
            assert!(at_micros > ARRIVED + age, "time must go on");
            age = at_micros - ARRIVED;
            attempts += 1;
        }
        assert!((120..160).contains(&attempts), "{attempts}");
    }

    #[test]
    fn what_waits_for_a_next_hop_that_is_down_has_events_and_no_attempts() {
        let week = Duration::from_secs(7 * 86_400);
        for retry in [default_retry(), Retry { expire_down: week, ..default_retry() }] {
            let (mut age, mut events, mut notified) = (0, Vec::new(), false);
            while let Next::Retry { at_micros, notice_due } = while_down(&retry, &deferral(age, 0, notified))
            {
                notified |= notice_due;
                age = at_micros - ARRIVED;
                events.push((age, notice_due));
            }
            let expire = micros(retry.expire_down);
            assert_eq!(events, [(4 * HOUR, false), (expire, true)], "told once, and returned at the end");
            assert_eq!(event_micros(&retry, ARRIVED, false, None), ARRIVED + 4 * HOUR);
            assert_eq!(event_micros(&retry, ARRIVED, true, None), ARRIVED + expire);
        }
        for (mode, notified, expected) in [
            (ByMode::Return, false, MINUTE),
            (ByMode::Notify, false, MINUTE),
            (ByMode::Notify, true, 5 * DAY),
        ] {
            let by = DeliverBy { deadline_micros: ARRIVED + MINUTE, mode, trace: false };
            assert_eq!(event_micros(&default_retry(), ARRIVED, notified, Some(by)), ARRIVED + expected);
        }
    }

    #[test]
    fn absurd_settings_and_clocks_do_no_harm() {
        let zero = Retry {
            first: Duration::ZERO,
            longest: Duration::ZERO,
            expire: Duration::MAX,
            notice: Duration::MAX,
            expire_down: Duration::MAX,
        };
        let expected = Next::Retry { at_micros: ARRIVED + 1, notice_due: false };
        assert_eq!(after_deferral(&zero, &deferral(0, 1, false)), expected, "always later than now");
        let endless = Retry { first: Duration::MAX, longest: Duration::MAX, ..default_retry() };
        let expected = Next::Retry { at_micros: ARRIVED + 5 * DAY, notice_due: false };
        assert_eq!(after_deferral(&endless, &deferral(0, u16::MAX, false)), expected);
        let at_once = Retry { expire: Duration::ZERO, ..default_retry() };
        assert_eq!(after_deferral(&at_once, &deferral(0, 1, false)), Next::Expire);
        let before_arrival = Deferral { now_micros: 0, ..deferral(0, 1, false) };
        let next = after_deferral(&default_retry(), &before_arrival);
        assert!(matches!(next, Next::Retry { at_micros, notice_due: false } if at_micros < 6 * MINUTE));
    }
}
