//! The CPUs that shards are pinned to: do they exist, and may this process run on them?

use crate::{EX_CONFIG, Finding, Needs, cpus_allowed, fatal};

pub fn check(needs: &Needs<'_>) -> Option<Finding> {
    let online =
        std::fs::read_to_string("/sys/devices/system/cpu/online").ok().and_then(|text| parse(text.trim()));
    judge(needs.cpus, online.as_deref(), &cpus_allowed())
}

/// `online` is `None` where the kernel does not say; then a CPU that is not allowed may well exist.
fn judge(wanted: &[usize], online: Option<&[usize]>, allowed: &[usize]) -> Option<Finding> {
    let forbidden = chosen(wanted, |cpu| !allowed.contains(&cpu));
    if forbidden.is_empty() {
        return None;
    }
    let absent = chosen(&forbidden, |cpu| online.is_some_and(|online| !online.contains(&cpu)));
    let sentence = if absent.is_empty() {
        format!(
            "this process may not run on {} (affinity mask or cpuset): allowed here are {}; correct --ingest-cpus, --delivery-cpus \
             or [shards], or widen CPUAffinity= or AllowedCPUs= in the unit",
            named(&forbidden),
            show(allowed)
        )
    } else {
        format!(
            "this host has no {}: it has {}, and this process may run on {}; correct --ingest-cpus, --delivery-cpus or [shards]",
            named(&absent),
            show(online.unwrap_or(allowed)),
            show(allowed)
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
        let table: [(&[usize], &str); 4] = [
            (&[0, 1, 0], ""),
            (&[0, 7, 9, 7], "this host has no CPU 7,9: it has 0-3, and this process may run on 0-1;"),
            (&[2, 3], "this process may not run on CPU 2-3 (affinity mask or cpuset): allowed here are 0-1;"),
            (&[3, 4], "this host has no CPU 4: it has 0-3, and this process may run on 0-1;"),
        ];
        for (wanted, start) in table {
            let finding = judge(wanted, Some(&[0, 1, 2, 3]), &[0, 1]);
            match finding {
                None => assert_eq!(start, "", "{wanted:?} went unnoticed"),
                Some(finding) => {
                    assert!(!start.is_empty() && finding.sentence.starts_with(start), "{}", finding.sentence);
                    assert_eq!(finding.exit, EX_CONFIG);
                }
            }
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
