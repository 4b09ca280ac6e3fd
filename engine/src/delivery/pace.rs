//! How many connections and how many messages a minute a receiving site takes: a window that starts small,
//! grows with success and shrinks with trouble, and rates that are never exceeded.
//!
//! Pure; belongs to one [`Site`](super::site::Site). Times are those of the shard's monotonic clock.
//!
//! **Window.** One connection finds out whether the site answers; when it has greeted there may be
//! [`CONNECTIONS_FIRST`]. Below the threshold each message that was delivered adds one, so the window doubles
//! with each round; above it a whole round adds one. The threshold is where there was trouble last. A site that
//! is in trouble has half as many connections at once, one that was down begins with one again.

/// Connections that a site may have as soon as it has greeted, as Postfix does
/// (initial_destination_concurrency).
pub const CONNECTIONS_FIRST: usize = 5;

/// Troubles within this time are one: connections that were opened together are refused together.
const ROUND_MILLIS: u64 = 1_000;

/// What a rate lets through at once after a rest: the turns of one second.
const BURST_MICROS: u64 = 1_000_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    allowed: usize,
    max: usize,
    /// Below it the window doubles with each round.
    threshold: usize,
    /// Successes since the window grew last.
    gained: usize,
    /// It has greeted once.
    proven: bool,
    /// When it was halved last.
    halved_millis: Option<u64>,
}

impl Window {
    /// `max`: at least 1.
    pub fn new(max: usize) -> Self {
        let max = max.max(1);
        Self { allowed: 1, max, threshold: max, gained: 0, proven: false, halved_millis: None }
    }

    pub fn allowed(&self) -> usize {
        self.allowed.min(self.max)
    }

    pub fn set_max(&mut self, max: usize) {
        self.max = max.max(1);
    }

    /// The site has greeted.
    pub fn greeted(&mut self) {
        if !std::mem::replace(&mut self.proven, true) {
            self.allowed = self.allowed.max(CONNECTIONS_FIRST).min(self.max);
        }
    }

    /// A message was delivered.
    pub fn succeeded(&mut self) {
        self.gained += 1;
        let round = if self.allowed < self.threshold { 1 } else { self.allowed };
        if self.gained >= round && self.allowed < self.max {
            self.allowed += 1;
            self.gained = 0;
        }
    }

    /// The site does not want so much: half of it, once a round.
    pub fn halve(&mut self, now: u64) {
        if self.halved_millis.is_some_and(|last| now.saturating_sub(last) < ROUND_MILLIS) {
            return;
        }
        self.halved_millis = Some(now);
        self.allowed = (self.allowed() / 2).max(1);
        self.threshold = self.allowed;
        self.gained = 0;
    }

    /// Another connection was refused while `working` work: no more than these for now.
    pub fn hold(&mut self, working: usize) {
        self.allowed = self.allowed().min(working.max(1));
        self.threshold = self.allowed;
        self.gained = 0;
    }

    /// The site was down: it begins with one connection, and doubles up to half of what it had.
    pub fn restart(&mut self) {
        self.threshold = (self.allowed() / 2).max(self.threshold / 2).max(1);
        (self.allowed, self.gained, self.proven) = (1, 0, true);
    }
}

/// A rate, as the moment from which the next turn is free (GCRA). 0 a minute: no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    interval_micros: u64,
    next_micros: u64,
}

impl Rate {
    /// Another rate, of which this is one of so many equal slices.
    pub fn set(&mut self, per_minute: u32, slices: usize) {
        self.interval_micros = match per_minute {
            0 => 0,
            _ => (60_000_000 * slices.max(1) as u64 / u64::from(per_minute)).max(1),
        };
    }

    /// The moment from which a turn is free, when that is not now.
    ///
    /// # Errors
    /// That moment, in milliseconds.
    pub fn look(&self, now: u64) -> Result<(), u64> {
        let tolerance = BURST_MICROS.saturating_sub(self.interval_micros);
        let free_micros = self.next_micros.saturating_sub(tolerance);
        match self.interval_micros == 0 || free_micros <= now.saturating_mul(1_000) {
            true => Ok(()),
            false => Err(free_micros.div_ceil(1_000)),
        }
    }

    /// Takes a turn.
    ///
    /// # Errors
    /// There is none: from when on, in milliseconds.
    pub fn take(&mut self, now: u64) -> Result<(), u64> {
        self.look(now)?;
        if self.interval_micros > 0 {
            self.next_micros = self.next_micros.max(now.saturating_mul(1_000)) + self.interval_micros;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(per_minute: u32) -> Rate {
        let mut rate = Rate::default();
        rate.set(per_minute, 1);
        rate
    }

    fn rounds(window: &mut Window, count: usize) -> Vec<usize> {
        let round = |_| {
            (0..window.allowed()).for_each(|_| window.succeeded());
            window.allowed()
        };
        (0..count).map(round).collect()
    }

    #[test]
    fn one_connection_finds_out_then_five_and_then_it_doubles_up_to_the_most() {
        let mut window = Window::new(20);
        assert_eq!(window.allowed(), 1);
        window.greeted();
        assert_eq!(window.allowed(), CONNECTIONS_FIRST);
        window.greeted();
        assert_eq!(rounds(&mut window, 4), [10, 20, 20, 20]);
        let mut narrow = Window::new(2);
        narrow.greeted();
        assert_eq!(rounds(&mut narrow, 3), [2, 2, 2]);
    }

    #[test]
    fn trouble_halves_it_once_a_round_and_then_it_grows_by_one_a_round() {
        let mut window = Window::new(20);
        window.greeted();
        rounds(&mut window, 4);
        window.halve(5_000);
        window.halve(5_999);
        assert_eq!(window.allowed(), 10);
        assert_eq!(rounds(&mut window, 3), [11, 12, 13]);
        for n in 0..10 {
            window.halve(6_000 + n * ROUND_MILLIS);
        }
        assert_eq!(window.allowed(), 1);
        window.succeeded();
        assert_eq!(window.allowed(), 2, "it recovers from the least, too");
    }

    #[test]
    fn what_is_refused_beside_those_that_work_is_not_asked_for_again_at_once() {
        let mut window = Window::new(20);
        window.greeted();
        window.hold(3);
        assert_eq!(rounds(&mut window, 2), [4, 5]);
        window.hold(0);
        assert_eq!(window.allowed(), 1);
    }

    #[test]
    fn after_it_was_down_it_begins_with_one_and_no_greeting_makes_that_more() {
        let mut window = Window::new(20);
        window.greeted();
        rounds(&mut window, 4);
        window.restart();
        window.greeted();
        assert_eq!(rounds(&mut window, 6), [2, 4, 8, 10, 11, 12]);
        let mut never_up = Window::new(20);
        (0..50).for_each(|_| never_up.restart());
        assert_eq!((never_up.allowed(), never_up.threshold), (1, 1));
    }

    #[test]
    fn a_rate_is_kept_over_any_minute_but_for_the_turns_of_a_second() {
        for per_minute in [1, 7, 60, 61, 1_000, 60_000] {
            let mut rate = of(per_minute);
            let start = 1_000_000;
            let taken = (start..start + 180_000).filter(|&now| rate.take(now).is_ok()).count();
            let expected = 3 * per_minute as usize;
            let burst = per_minute as usize / 60 + 1;
            assert!((expected..=expected + burst).contains(&taken), "{per_minute} a minute: {taken}");
        }
    }

    #[test]
    fn who_waits_is_told_until_when_and_finds_a_turn_then() {
        let mut rate = of(60);
        rate.set(60, 2);
        assert_eq!(rate.take(10), Ok(()));
        assert_eq!(rate.take(11), Err(2_010));
        assert_eq!((rate.look(2_009), rate.take(2_010)), (Err(2_010), Ok(())));
        let mut free = of(0);
        assert!((0..1_000).all(|_| free.take(0).is_ok()));
    }
}
