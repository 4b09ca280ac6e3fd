//! A knob: one setting of the host that a relay is faster or safer with, as check, fix and undo.
//!
//! A check changes nothing. What it finds is a list of [`Finding`]s; those that can be mended from here carry
//! the steps that do so, and each step knows the value that was there before, so that it can be undone.

use crate::host::Host;
use crate::plan::Plan;

/// A setting of the host.
pub struct Knob {
    /// As in `sluice tune --only NAME`.
    pub name: &'static str,
    /// What it is good for, in one sentence.
    pub purpose: &'static str,
    pub check: fn(&Host, &Plan) -> Vec<Finding>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// As it should be.
    Fine(String),
    /// Not so, and these steps change it.
    Wrong { sentence: String, steps: Vec<Step> },
    /// Not so, and only a person can change it: at boot, in fstab, in the hardware.
    Advice(String),
    /// As [`Finding::Advice`]; until it is done mail can be lost, or the relay does not start.
    Must(String),
    /// This host has no such setting.
    Absent(String),
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A file of `/proc/sys` or `/sys`.
    Write { path: String, found: String, wanted: String },
    /// One option of a mounted file system, and the one that undoes it.
    Remount { mount: String, found: String, wanted: String },
}

impl Step {
    /// What is changed, what was found there and what is to be there.
    pub fn parts(&self) -> (&str, &str, &str) {
        match self {
            Self::Write { path, found, wanted } => (path, found, wanted),
            Self::Remount { mount, found, wanted } => (mount, found, wanted),
        }
    }

    /// The step that puts back what was there.
    pub fn back(&self) -> Self {
        match self.clone() {
            Self::Write { path, found, wanted } => Self::Write { path, found: wanted, wanted: found },
            Self::Remount { mount, found, wanted } => Self::Remount { mount, found: wanted, wanted: found },
        }
    }
}

impl Finding {
    /// A file that should hold `wanted`.
    pub fn of_value(host: &Host, path: &str, wanted: &str) -> Self {
        match host.read(path) {
            None => Self::Absent(format!("{path} is not there")),
            Some(found) if found == wanted => Self::Fine(format!("{} is {found}", name_of(path))),
            Some(found) => Self::wrong(path, found, wanted),
        }
    }

    /// A file whose number should be at least `wanted`.
    pub fn at_least(host: &Host, path: &str, wanted: u64) -> Self {
        match host.read(path) {
            None => Self::Absent(format!("{path} is not there")),
            Some(found) if found.parse::<u64>().is_ok_and(|number| number >= wanted) => {
                Self::Fine(format!("{} is {found}", name_of(path)))
            }
            Some(found) => Self::wrong(path, found, &wanted.to_string()),
        }
    }

    /// The same, with more to say where it is to be changed.
    pub fn with(self, more: &str) -> Self {
        match self {
            Self::Wrong { sentence, steps } => Self::Wrong { sentence: format!("{sentence}; {more}"), steps },
            other => other,
        }
    }

    /// A file that holds `found` and should hold `wanted`.
    pub fn wrong(path: &str, found: String, wanted: &str) -> Self {
        let shown = if found.is_empty() { "nothing" } else { &found };
        let sentence = format!("{} is {shown}, should be {wanted}", name_of(path));
        let step = Step::Write { path: path.to_owned(), found, wanted: wanted.to_owned() };
        Self::Wrong { sentence, steps: vec![step] }
    }
}

/// `net.core.somaxconn`, where a file has such a name.
pub fn name_of(path: &str) -> String {
    match path.strip_prefix("/proc/sys/") {
        Some(key) => key.replace('/', "."),
        None => path.to_owned(),
    }
}

/// The kernel's notation of a set of CPUs for `rps_cpus` and `xps_cpus`: hexadecimal words of 32, the highest
/// first.
pub fn mask(cpus: &[usize]) -> String {
    let words = cpus.iter().max().map_or(1, |cpu| cpu / 32 + 1);
    let word = |index: usize| {
        cpus.iter().filter(|cpu| *cpu / 32 == index).fold(0_u32, |word, cpu| word | 1 << (cpu % 32))
    };
    let words: Vec<String> = (0..words)
        .rev()
        .map(|index| match index + 1 == words {
            true => format!("{:x}", word(index)),
            false => format!("{:08x}", word(index)),
        })
        .collect();
    words.join(",")
}

/// Whether two masks mean the same CPUs, however many zeros they begin with.
pub fn same_mask(one: &str, other: &str) -> bool {
    let digits = |text: &str| text.replace(',', "").trim_start_matches('0').to_ascii_lowercase();
    digits(one) == digits(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;

    #[test]
    fn masks_are_words_of_32_with_the_highest_first() {
        let table: [(&[usize], &str); 5] = [
            (&[], "0"),
            (&[0], "1"),
            (&[0, 1, 3], "b"),
            (&[31, 32], "1,80000000"),
            (&[64, 1], "1,00000000,00000002"),
        ];
        for (cpus, text) in table {
            assert_eq!(mask(cpus), text, "{cpus:?}");
        }
        assert!(same_mask("00000000,00000003", "3") && same_mask("0", "00") && !same_mask("1", "10"));
    }

    #[test]
    fn a_number_that_is_larger_is_fine_and_one_that_is_none_is_not() {
        let path = "/proc/sys/net/core/somaxconn";
        for (text, fine) in [("65535", true), ("4096", true), ("128", false), ("", false)] {
            let (_directory, host) = played::host(&[(path, text)]);
            assert_eq!(matches!(Finding::at_least(&host, path, 4096), Finding::Fine(_)), fine, "{text:?}");
        }
    }
}
