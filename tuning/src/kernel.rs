//! The kernel's version: glommio needs io_uring as of 5.8.

use crate::{EX_OSERR, Finding, fatal};

/// The first kernel whose io_uring has what glommio 0.9 uses.
pub const VERSION_MIN: (u32, u32) = (5, 8);

pub fn check() -> Option<Finding> {
    judge(&std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default())
}

/// A release that cannot be read is no reason to refuse: the ring itself is tried next.
pub(crate) fn judge(release: &str) -> Option<Finding> {
    let release = release.trim();
    if version(release)? >= VERSION_MIN {
        return None;
    }
    let (major, minor) = VERSION_MIN;
    let sentence = format!(
        "the kernel is {release}, too old for io_uring as the relay uses it: boot {major}.{minor} or newer \
         (Debian 11 and later, RHEL 9 and later have one)"
    );
    fatal("kernel", EX_OSERR, sentence)
}

/// Major and minor of `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_before_5_8_are_refused() {
        let table = [
            ("6.1.0-18-amd64\n", false),
            ("5.8.0", false),
            ("5.8-rc1", false),
            ("5.10.0", false),
            ("10.0.1", false),
            ("5.7.19-generic", true),
            ("4.19.0-26-amd64", true),
            ("4.19", true),
            ("", false),
            ("6", false),
            ("unknown", false),
            ("99999999999.1", false),
        ];
        for (release, refused) in table {
            assert_eq!(judge(release).is_some(), refused, "{release:?}");
        }
    }

    #[test]
    fn the_sentence_names_the_kernel_and_the_remedy() {
        let finding = judge("5.4.0-42-generic\n").expect("too old");
        assert_eq!(finding.exit, EX_OSERR);
        assert!(
            finding.sentence.starts_with("the kernel is 5.4.0-42-generic, too old"),
            "{}",
            finding.sentence
        );
        assert!(finding.sentence.contains("boot 5.8 or newer"), "{}", finding.sentence);
    }
}
