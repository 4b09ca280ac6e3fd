//! The CPUs that shards are pinned to: do they exist, and can this process get there?
//!
//! What counts is not the mask that the process was started with, for that is its own to widen: under `isolcpus=`
//! everything starts on the CPUs that are not isolated, and the shards belong on the others. What a cpuset keeps
//! away stays away.

use crate::{EX_CONFIG, Finding, Needs, fatal, sys};

/// The executor's set of CPUs has room for these (cpu_set_t).
pub const PINNED_MAX: usize = 1024;

pub fn check(needs: &Needs<'_>) -> Option<Finding> {
    let online =
        std::fs::read_to_string("/sys/devices/system/cpu/online").ok().and_then(|text| parse(text.trim()));
    let reachable = sys::affinity_widest().unwrap_or_else(|_| crate::cpus_allowed());
    judge(needs.cpus, online.as_deref(), &reachable)
}

/// `online` is `None` where the kernel does not say; then a CPU that cannot be reached may well exist.
fn judge(wanted: &[usize], online: Option<&[usize]>, reachable: &[usize]) -> Option<Finding> {
    let forbidden = chosen(wanted, |cpu| !reachable.contains(&cpu) || cpu >= PINNED_MAX);
    if forbidden.is_empty() {
        return None;
    }
    let absent = chosen(&forbidden, |cpu| online.is_some_and(|online| !online.contains(&cpu)));
    let beyond = chosen(&forbidden, |cpu| cpu >= PINNED_MAX);
    let options = "--ingest-cpus, --delivery-cpus, --service-cpus or [shards]";
    let sentence = if !absent.is_empty() {
        format!(
            "this host has no {}: it has {}, and this process may run on {}; correct {options}",
            named(&absent),
            show(online.unwrap_or(reachable)),
            show(reachable)
        )
    } else if !beyond.is_empty() {
        format!(
            "a shard cannot be pinned to {}: the numbers end at {}; correct {options}",
            named(&beyond),
            PINNED_MAX - 1
        )
    } else {
        format!(
            "this process cannot be pinned to {} (its cpuset): open to it are {}; correct {options}, or widen AllowedCPUs= of \
             the unit and of its slice, or the container's cpuset",
            named(&forbidden),
            show(reachable)
        )
    };
    fatal("cpus", EX_CONFIG, sentence)
}

fn chosen(cpus: &[usize], keep: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut kept: Vec<usize> = cpus.iter().copied().filter(|cpu| keep(*cpu)).collect();
    kept.sort_unstable();
    kept.dedup();
    kept
}

fn named(cpus: &[usize]) -> String {
    format!("CPU {}", show(cpus))
}

/// `0-3,8`, from ascending numbers.
pub fn show(cpus: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => parts.push((cpu, cpu)),
        }
    }
    let part = |&(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    parts.iter().map(part).collect::<Vec<_>>().join(",")
}

/// The kernel's own notation, `0-3,8`.
pub(crate) fn parse(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        cpus.extend(first..=last.min(crate::CPUS_MAX - 1));
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_list_names_the_cpus_that_exist() {
        let online: Vec<usize> = (0..4).chain(1024..1026).collect();
        let table: [(&[usize], &str); 5] = [
            (&[0, 1, 0], ""),
            (
                &[0, 7, 9, 7],
                "this host has no CPU 7,9: it has 0-3,1024-1025, and this process may run on 0-1,1024;",
            ),
            (&[2, 3], "this process cannot be pinned to CPU 2-3 (its cpuset): open to it are 0-1,1024;"),
            (&[3, 4], "this host has no CPU 4: it has 0-3,1024-1025, and this process may run on 0-1,1024;"),
            (&[1, 1024], "a shard cannot be pinned to CPU 1024: the numbers end at 1023;"),
        ];
        for (wanted, start) in table {
            let finding = judge(wanted, Some(&online), &[0, 1, 1024]);
            match finding {
                None => assert_eq!(start, "", "{wanted:?} went unnoticed"),
                Some(finding) => {
                    assert!(!start.is_empty() && finding.sentence.starts_with(start), "{}", finding.sentence);
                    assert_eq!(finding.exit, EX_CONFIG);
                }
            }
        }
    }

    /// As under `isolcpus=`: PID 1, and with it every service, has the mask of the CPUs that are left.
    #[test]
    fn a_narrow_mask_that_was_inherited_stops_nobody() {
        let wide = sys::affinity_widest().expect("the CPUs open to this process");
        let check_from = |cpu: usize| {
            let cpus = wide.clone();
            let narrow = std::thread::spawn(move || {
                sys::set_affinity(&[cpu]).expect("pinned");
                let found = check(&Needs { cpus: &cpus, executors: 1, sessions_max: 1, files_besides: 1 });
                (found, sys::affinity().expect("a mask"))
            });
            narrow.join().expect("no panic")
        };
        for cpu in [wide[0], wide[wide.len() - 1]] {
            assert_eq!(check_from(cpu), (None, vec![cpu]), "looked from CPU {cpu}, and changed nothing");
        }
    }

    #[test]
    fn lists_are_shown_as_they_are_parsed() {
        for text in ["0", "0-3", "0-3,8", "1,3,5-7,9"] {
            assert_eq!(show(&parse(text).expect(text)), text);
        }
        for text in ["", "a", "0-", "-1", "0,,1"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
