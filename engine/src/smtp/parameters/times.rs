//! BY (RFC 2852 section 4) and HOLDFOR, HOLDUNTIL (RFC 4865 section 4).

use jiff::Timestamp;
use sluice_queue::ByMode;

/// The most seconds of BY, either way, and of HOLDFOR: nine digits.
pub const SECONDS_MAX: u32 = 999_999_999;

/// `by-time ";" by-mode [by-trace]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By {
    /// From now on; not above 0: the time is over, which only a notification may say.
    pub seconds: i64,
    pub mode: ByMode,
    pub trace: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Seconds from now.
    For(u32),
    /// Microseconds since 1970.
    Until(u64),
}

pub(super) fn by(value: &str) -> Option<By> {
    let (time, rest) = value.split_once(';')?;
    let (negative, digits) = match time.as_bytes() {
        [b'-', ..] => (true, &time[1..]),
        [b'+', ..] => (false, &time[1..]),
        _ => (false, time),
    };
    let seconds = i64::from(seconds(digits)?);
    let seconds = if negative { -seconds } else { seconds };
    let (mode, trace) = match rest.to_ascii_uppercase().as_str() {
        "N" => (ByMode::Notify, false),
        "NT" => (ByMode::Notify, true),
        "R" => (ByMode::Return, false),
        "RT" => (ByMode::Return, true),
        _ => return None,
    };
    (mode == ByMode::Notify || seconds > 0).then_some(By { seconds, mode, trace })
}

/// `1*9DIGIT`.
fn seconds(digits: &str) -> Option<u32> {
    let sound = (1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if sound { digits.parse().ok() } else { None }
}

pub(super) fn hold_for(value: &str) -> Option<Hold> {
    seconds(value).filter(|seconds| *seconds > 0).map(Hold::For)
}

/// A date-time of RFC 3339 section 5.6, after 1970.
pub(super) fn hold_until(value: &str) -> Option<Hold> {
    let shape = |pattern: &str, text: &str| {
        text.len() == pattern.len()
            && text.bytes().zip(pattern.bytes()).all(|(byte, of)| match of {
                b'0' => byte.is_ascii_digit(),
                other => byte.eq_ignore_ascii_case(&other),
            })
    };
    let (date, rest) = value.split_at_checked("0000-00-00T00:00:00".len())?;
    let fraction = rest
        .strip_prefix('.')
        .map_or(0, |digits| 1 + digits.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(digits.len()));
    let offset = &rest[fraction..];
    let sound = shape("0000-00-00T00:00:00", date)
        && (fraction == 0 || (2..=10).contains(&fraction))
        && (shape("Z", offset) || shape("+00:00", offset) || shape("-00:00", offset));
    if !sound {
        return None;
    }
    let time: Timestamp = value.parse().ok()?;
    u64::try_from(time.as_microsecond()).ok().map(Hold::Until)
}

/// A time as HOLDUNTIL writes it, in UTC and whole seconds.
pub fn date_time(micros: u64) -> String {
    let seconds = i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_rfc_3339() {
        const NOON: u64 = 1_795_348_800_000_000;
        for (value, expected) in [
            ("2026-11-22T12:00:00Z", Some(NOON)),
            ("2026-11-22t12:00:00z", Some(NOON)),
            ("2026-11-22T13:00:00+01:00", Some(NOON)),
            ("2026-11-22T06:30:00-05:30", Some(NOON)),
            ("2026-11-22T12:00:00.5Z", Some(NOON + 500_000)),
            ("2026-11-22T12:00:00.123456789Z", Some(NOON + 123_456)),
            ("2026-11-22T12:00:00.Z", None),
            ("2026-11-22T12:00:00.1234567890Z", None),
            ("2026-11-22T12:00:00", None),
            ("2026-11-22T12:00Z", None),
            ("2026-11-22 12:00:00Z", None),
            ("2026-11-22", None),
            ("2026-11-32T12:00:00Z", None),
            ("2026-11-22T25:00:00Z", None),
            ("2026-11-22T12:00:00+0100", None),
            ("2026-11-22T12:00:00Z[UTC]", None),
            ("1969-12-31T23:59:59Z", None),
            ("20261122T120000Z", None),
            ("ü026-11-22T12:00:0", None),
            ("", None),
        ] {
            assert_eq!(hold_until(value), expected.map(Hold::Until), "{value}");
        }
        assert_eq!(date_time(NOON + 999_999), "2026-11-22T12:00:00Z");
        assert_eq!(hold_until(&date_time(NOON)), Some(Hold::Until(NOON)));
    }
}
