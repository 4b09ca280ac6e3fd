//! Locked memory: every glommio executor refuses to start below 512 KiB. Kernels before 5.12 count the
//! rings of all executors in the same limit, and every kernel so counts the buffers registered with them.

use crate::rlimit::raised;
use crate::sys::Resource;
use crate::{EX_OSERR, Finding, Needs, fatal, warn};

/// What one executor asks for.
pub const BYTES_PER_EXECUTOR: u64 = 512 * 1024;

pub fn check(needs: &Needs<'_>) -> Option<Finding> {
    let wanted = BYTES_PER_EXECUTOR.saturating_mul(needs.executors.max(1) as u64);
    judge(raised(Resource::Memlock, wanted)?.soft, needs.executors.max(1), wanted)
}

fn judge(found: u64, executors: usize, wanted: u64) -> Option<Finding> {
    if found >= wanted {
        return None;
    }
    let sentence = format!(
        "the limit of locked memory is {} KiB, and {executors} shards want {} KiB (512 KiB each): set \
         LimitMEMLOCK=infinity in the unit, memlock in /etc/security/limits.conf, or `ulimit -l unlimited` before the start",
        found / 1024,
        wanted / 1024
    );
    if found < BYTES_PER_EXECUTOR { fatal("memlock", EX_OSERR, sentence) } else { warn("memlock", sentence) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Severity;

    #[test]
    fn below_one_executors_need_is_fatal_and_below_all_of_them_a_warning() {
        let table = [
            (64 << 10, 1, Some(Severity::Fatal)),
            (64 << 10, 4, Some(Severity::Fatal)),
            (512 << 10, 1, None),
            (512 << 10, 2, Some(Severity::Warn)),
            (1 << 20, 2, None),
            (u64::MAX, 4096, None),
        ];
        for (found, executors, severity) in table {
            let finding = judge(found, executors, executors as u64 * BYTES_PER_EXECUTOR);
            assert_eq!(finding.as_ref().map(|f| f.severity), severity, "{found} {executors}");
        }
    }

    #[test]
    fn the_sentence_names_the_limit_the_need_and_the_setting() {
        let finding = judge(64 << 10, 2, 1 << 20).expect("too low");
        assert!(
            finding.sentence.starts_with("the limit of locked memory is 64 KiB, and 2 shards want 1024 KiB"),
            "{}",
            finding.sentence
        );
        assert!(finding.sentence.contains("LimitMEMLOCK="), "{}", finding.sentence);
    }
}
