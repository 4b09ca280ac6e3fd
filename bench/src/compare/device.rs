//! What reached the block device under a directory: writes and flushes.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Counters since boot, of everybody who uses the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub flushes: u64,
    pub octets_written: u64,
    /// Milliseconds in which something was in flight.
    pub busy_ms: u64,
}

/// The statistics file of the whole device (a partition has no flush count of its own); `None` where the file system
/// has no block device.
pub fn statistics(directory: &Path) -> Option<PathBuf> {
    let device = fs::metadata(directory).ok()?.dev();
    // The kernel's new_encode_dev, widened as stat(2) gives it.
    let major = device >> 8 & 0xfff;
    let minor = device & 0xff | device >> 12 & 0xf_ff00;
    let node = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let whole = if node.join("partition").exists() { node.parent()?.to_owned() } else { node };
    Some(whole.join("stat"))
}

pub fn counters(statistics: &Path) -> Option<Counters> {
    parse(&fs::read_to_string(statistics).ok()?)
}

/// Fields as in Documentation/block/stat.rst: the seventh is sectors written, the tenth the milliseconds
/// with I/O in flight, the sixteenth flushes.
fn parse(text: &str) -> Option<Counters> {
    let fields: Vec<u64> = text.split_whitespace().map_while(|field| field.parse().ok()).collect();
    Some(Counters {
        octets_written: fields.get(6)? * 512,
        busy_ms: *fields.get(9)?,
        flushes: *fields.get(15)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_flushes_are_read_from_their_fields() {
        let text = "   82700    15657  9573146   125965    10281    60394 12497488    53636        0    21992   \
                    181340     5546       25   434216     1733      238        5";
        assert_eq!(
            parse(text),
            Some(Counters { octets_written: 12_497_488 * 512, busy_ms: 21_992, flushes: 238 })
        );
        assert_eq!(parse("1 2 3"), None);
    }
}
