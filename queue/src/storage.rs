//! The rim of the spool: files of blocks. Static dispatch; nothing here needs to be `Send`.
//!
//! A storage is one spool directory; its files are named by slot (`NNNNNN.seg`). What the spool relies on:
//! a write that returned `Ok` is durable and whole; a write that failed, or that a crash cut, may have
//! left any mix of old and new sectors; a file created or removed is surely so only after `sync_dir`.

use std::io;
use std::ops::Deref;

pub mod faulty;
pub mod glommio;
pub mod memory;
pub mod reader;

pub use faulty::FaultyStorage;
pub use glommio::GlommioStorage;
pub use memory::MemoryStorage;
pub use reader::ReaderStorage;

/// One spool directory.
#[allow(async_fn_in_trait, reason = "a spool lives on one thread, its futures need not be Send")]
pub trait Storage: 'static {
    type File: SegmentFile;

    /// The slots that have a file.
    async fn list(&self) -> io::Result<Vec<u32>>;
    /// A new file, `bytes` long, all zero, its space allocated. Leaves no file behind when it fails.
    async fn create(&self, slot: u32, bytes: u64) -> io::Result<Self::File>;
    async fn open(&self, slot: u32) -> io::Result<Self::File>;
    async fn remove(&self, slot: u32) -> io::Result<()>;
    /// Makes creations and removals durable.
    async fn sync_dir(&self) -> io::Result<()>;
    /// How many names the file of a slot has. More than one: a backup has a link to it, and writing the file
    /// would write the backup.
    async fn links(&self, _slot: u32) -> io::Result<u64> {
        Ok(1)
    }
}

/// One segment file. Positions and lengths of writes are whole blocks.
#[allow(async_fn_in_trait, reason = "a spool lives on one thread, its futures need not be Send")]
pub trait SegmentFile: 'static {
    /// Memory that the device can be written from.
    type Buffer: AsMut<[u8]>;
    /// Octets that were read.
    type Bytes: Deref<Target = [u8]> + 'static;

    /// A buffer of `len` octets; what is in it is not specified.
    fn buffer(&self, len: usize) -> Self::Buffer;
    /// Writes all of the buffer; durable on return.
    async fn write(&self, position: u64, buffer: Self::Buffer) -> io::Result<()>;
    /// Reads `len` octets, fewer only at the end of the file. Any position and length.
    async fn read(&self, position: u64, len: usize) -> io::Result<Self::Bytes>;
    /// Octets in the file.
    async fn size(&self) -> io::Result<u64>;
}

/// The file name of a slot.
pub(crate) fn file_name(slot: u32) -> String {
    format!("{slot:06}.seg")
}

/// The slot of a file name, when it is one of a segment.
pub(crate) fn slot_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The slots in a directory. Blocks; for the start only.
fn list_dir(dir: &std::path::Path) -> io::Result<Vec<u32>> {
    let mut slots = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        slots.extend(entry?.file_name().to_str().and_then(slot_of));
    }
    slots.sort_unstable();
    Ok(slots)
}

/// The process has no descriptor or no memory left: passes by itself, and says nothing of the device.
pub(crate) fn is_short(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

/// No room on the device or in the quota: passes by itself, unlike other errors.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_and_slots_are_each_others_inverse() {
        for slot in [0, 7, 999_999, 1_000_000] {
            assert_eq!(slot_of(&file_name(slot)), Some(slot));
        }
        for name in ["", "1.seg", "lock", "00000x.seg", "000001.seg.bak", "99999999999.seg"] {
            assert_eq!(slot_of(name), None, "{name}");
        }
    }
}
