//! Open files: a session is a socket, and so is every outbound connection.

use crate::rlimit::raised;
use crate::sys::Resource;
use crate::{EX_OSERR, Finding, Needs, fatal, warn};

/// Below this not even the segments, the sockets of the shards and a handful of sessions fit.
pub const FILES_MIN: u64 = 256;

pub fn check(needs: &Needs<'_>) -> Option<Finding> {
    let wanted = (needs.sessions_max as u64).saturating_add(needs.files_besides as u64).max(FILES_MIN);
    judge(raised(Resource::Nofile, wanted)?.soft, wanted)
}

fn judge(found: u64, wanted: u64) -> Option<Finding> {
    if found >= wanted {
        return None;
    }
    let sentence = format!(
        "the limit of open files is {found}, and the configured sessions and connections want {wanted}: set \
         LimitNOFILE={wanted} in the unit, nofile in /etc/security/limits.conf, or lower limits.sessions_max"
    );
    if found < FILES_MIN { fatal("nofile", EX_OSERR, sentence) } else { warn("nofile", sentence) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Severity;

    #[test]
    fn fewer_files_than_sessions_is_a_warning_and_next_to_none_is_fatal() {
        let table = [
            (100, FILES_MIN, Some(Severity::Fatal)),
            (1_024, 40_400, Some(Severity::Warn)),
            (40_400, 40_400, None),
            (u64::MAX, u64::MAX, None),
        ];
        for (found, wanted, severity) in table {
            assert_eq!(judge(found, wanted).map(|f| f.severity), severity, "{found} {wanted}");
        }
        let finding = judge(1_024, 40_400).expect("too low");
        assert!(finding.sentence.contains("LimitNOFILE=40400"), "{}", finding.sentence);
    }
}
