//! Values of the command line: durations with a unit, CPU lists, one executor per CPU.

use glommio::{LocalExecutorBuilder, Placement};
use std::time::Duration;

/// `10ms`, `2s`, `5m`, `100us`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let wrong = || format!("{text:?} is no duration; write it like 10ms, 2s or 5m");
    let number: u64 = text[..split].parse().map_err(|_| wrong())?;
    match &text[split..] {
        "us" => Ok(Duration::from_micros(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs).ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

/// CPUs as in taskset, `0-3,8`; in order, without repeats, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus(pub Vec<usize>);

/// No CPU number is above it: a list like `0-999999999` is a slip, not a machine.
const CPU_MAX: usize = 4095;

impl std::str::FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no CPU list; write it like 0-3,8");
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: usize = first.trim().parse().map_err(|_| wrong())?;
            let last: usize = last.trim().parse().map_err(|_| wrong())?;
            if first > last || last > CPU_MAX {
                return Err(wrong());
            }
            cpus.extend(first..=last);
        }
        cpus.sort_unstable();
        cpus.dedup();
        Ok(Cpus(cpus))
    }
}

/// One executor builder per CPU, pinned; or a single one that the kernel may move.
pub fn executors(cpus: Option<&Cpus>) -> Vec<LocalExecutorBuilder> {
    let places = match cpus {
        Some(Cpus(cpus)) => cpus.iter().map(|cpu| Placement::Fixed(*cpu)).collect(),
        None => vec![Placement::Unbound],
    };
    places
        .into_iter()
        .map(|place| LocalExecutorBuilder::new(place).io_memory(1 << 20).ring_depth(512))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_number_and_a_unit() {
        assert_eq!(duration("10ms"), Ok(Duration::from_millis(10)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "10", "ms", "10 ms", "-1s", "1h", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpu_lists_are_sorted_and_without_repeats() {
        assert_eq!("8,0-2,1".parse(), Ok(Cpus(vec![0, 1, 2, 8])));
        for text in ["", "a", "3-1", "0-99999", "1,"] {
            assert!(text.parse::<Cpus>().is_err(), "{text}");
        }
    }
}
