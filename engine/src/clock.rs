//! Time at the rim: the pure parts get it handed in.

use std::cell::{Cell, RefCell};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Microseconds since 1970. A clock before 1970 counts as 1970.
pub fn wall_micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
    now + jumped_micros()
}

/// Milliseconds of a clock that never goes back; its zero is the first call in this process.
pub fn monotonic_millis() -> u64 {
    monotonic_micros() / 1_000
}

fn start() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// As [`monotonic_millis`], in microseconds.
pub fn monotonic_micros() -> u64 {
    start().elapsed().as_micros() as u64 + jumped_micros()
}

#[cfg(not(test))]
const fn jumped_micros() -> u64 {
    0
}

#[cfg(test)]
thread_local! {
    static JUMPED_MICROS: Cell<u64> = const { Cell::new(0) };
}

#[cfg(test)]
fn jumped_micros() -> u64 {
    JUMPED_MICROS.get()
}

/// Both clocks of this thread go forward: what a test calls virtual time.
#[cfg(test)]
pub fn jump_micros(micros: u64) {
    JUMPED_MICROS.set(JUMPED_MICROS.get() + micros);
}

/// RFC 5322 section 3.3 date-time, in UTC.
pub fn mail_date(micros: u64) -> String {
    let time = timestamp(micros).to_zoned(jiff::tz::TimeZone::UTC);
    time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

/// RFC 3339, in UTC; `seconds` since 1970.
pub fn rfc3339(seconds: u64) -> String {
    let time = timestamp(seconds.saturating_mul(1_000_000)).to_zoned(jiff::tz::TimeZone::UTC);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Like [`mail_date`], formatted once a second and thread.
pub fn mail_date_cached(micros: u64) -> std::rc::Rc<str> {
    thread_local! {
        static LAST: RefCell<(u64, std::rc::Rc<str>)> = RefCell::new((u64::MAX, "".into()));
    }
    let second = micros / 1_000_000;
    LAST.with_borrow_mut(|last| {
        if last.0 != second {
            *last = (second, mail_date(micros).into());
        }
        last.1.clone()
    })
}

/// RFC 3339 with microseconds, in UTC, appended to `out`; the part down to the second is cached by thread.
pub fn append_log_time(out: &mut Vec<u8>, micros: u64) {
    thread_local! {
        static SECOND: Cell<u64> = const { Cell::new(u64::MAX) };
        static TEXT: RefCell<String> = const { RefCell::new(String::new()) };
    }
    let second = micros / 1_000_000;
    if SECOND.replace(second) != second {
        let time = timestamp(second * 1_000_000).to_zoned(jiff::tz::TimeZone::UTC);
        TEXT.with_borrow_mut(|text| *text = time.strftime("%Y-%m-%dT%H:%M:%S").to_string());
    }
    TEXT.with_borrow(|text| out.extend_from_slice(text.as_bytes()));
    let mut fraction = *b".000000+00:00";
    let mut rest = micros % 1_000_000;
    for digit in fraction[1..7].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&fraction);
}

fn timestamp(micros: u64) -> jiff::Timestamp {
    i64::try_from(micros)
        .ok()
        .and_then(|m| jiff::Timestamp::from_microsecond(m).ok())
        .unwrap_or(jiff::Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_the_rfcs_say() {
        let micros = 1_795_310_405_000_123;
        assert_eq!(mail_date(micros), "Sun, 22 Nov 2026 01:20:05 +0000");
        assert_eq!(&*mail_date_cached(micros), "Sun, 22 Nov 2026 01:20:05 +0000");
        let mut line = Vec::new();
        append_log_time(&mut line, micros);
        assert_eq!(line, b"2026-11-22T01:20:05.000123+00:00");
    }

    #[test]
    fn times_beyond_the_calendar_do_not_panic() {
        mail_date(u64::MAX);
        append_log_time(&mut Vec::new(), u64::MAX);
    }
}
