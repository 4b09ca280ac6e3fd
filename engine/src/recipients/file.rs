//! The handle of a table's file: what is in force, and how a new version comes into force.
//!
//! Shared by all threads. Shards read ([`RecipientFile::now`], which never waits); the service thread looks at the
//! file (`look`, on a blocking thread). A version is taken when the file has stood still between two looks, as a
//! whole; one with a bad line changes nothing, and neither does one without entries, for it is more often the end of
//! an export that failed than a wish. Replace the file by renaming another over it, and no half of it is ever seen.

use super::Table;
use std::fmt;
use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// A longer file is no table.
const FILE_OCTETS_MAX: u64 = 512 << 20;

pub struct RecipientFile {
    path: PathBuf,
    table: RwLock<Arc<Table>>,
    /// Counts the versions that came into force.
    version: AtomicU64,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Of the version that was read last, good or bad.
    read: Option<Stamp>,
    /// At the last look.
    last: Option<Stamp>,
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, u64, i64, i64);

fn stamp(path: &Path) -> Option<Stamp> {
    let of =
        |metadata: Metadata| Stamp(metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec());
    std::fs::metadata(path).ok().map(of)
}

impl RecipientFile {
    /// Reads it for the first time.
    ///
    /// # Errors
    /// One sentence with the file, the line and what is wrong.
    pub fn open(path: &Path) -> Result<Self, String> {
        let read = stamp(path);
        let file = Self { table: RwLock::new(Arc::new(load(path)?)), ..Self::absent(path) };
        *file.seen.lock().unwrap_or_else(PoisonError::into_inner) = Seen { read, last: read };
        Ok(file)
    }

    /// For who needs the configuration and not the table.
    pub fn absent(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            table: RwLock::default(),
            version: AtomicU64::new(0),
            seen: Mutex::default(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The table in force; `None` in the moment in which it is exchanged. Never waits.
    pub fn now(&self) -> Option<Arc<Table>> {
        match self.table.try_read() {
            Ok(table) => Some(table.clone()),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner().clone()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }

    pub fn version(&self) -> u64 {
        self.version.load(Relaxed)
    }

    /// Looks at the file, and reads it when it is another one; `at_once`: without waiting whether it is still
    /// being written. Blocks. A line for the log when there is news.
    pub fn look(&self, at_once: bool) -> Option<String> {
        let found = stamp(&self.path);
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let stands_still = std::mem::replace(&mut seen.last, found) == found;
            if !at_once && (found == seen.read || !stands_still) {
                return None;
            }
            seen.read = found;
        }
        let path = self.path.display();
        let table = match load(&self.path) {
            Ok(table) => Arc::new(table),
            Err(wrong) => return Some(format!("error: {wrong}; what was read before holds")),
        };
        let before = self.table.read().unwrap_or_else(PoisonError::into_inner).len();
        if table.is_empty() && before > 0 {
            return Some(format!(
                "error: {path} has no entries any more; what was read before holds, {before} recipients: look at what writes the file, or take [route.recipients] out of the configuration and restart"
            ));
        }
        let news = format!("{path} was read again: {} recipients", table.len());
        // The old table, which may be large, is freed outside of the lock.
        let _old = std::mem::replace(&mut *self.table.write().unwrap_or_else(PoisonError::into_inner), table);
        self.version.fetch_add(1, Relaxed);
        Some(news)
    }
}

#[cfg(test)]
impl RecipientFile {
    /// A table without a file.
    pub fn of(text: &str) -> Self {
        let file = Self::absent(Path::new("recipients"));
        *file.table.write().expect("not poisoned") = Arc::new(Table::read(text).expect("a table"));
        file
    }
}

impl fmt::Debug for RecipientFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecipientFile").field("path", &self.path).finish_non_exhaustive()
    }
}

fn load(path: &Path) -> Result<Table, String> {
    let name = path.display();
    let mut text = String::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(FILE_OCTETS_MAX + 1).read_to_string(&mut text));
    read.map_err(|error| format!("{name} cannot be read: {error}"))?;
    if text.len() as u64 > FILE_OCTETS_MAX {
        return Err(format!("{name} is longer than {FILE_OCTETS_MAX} octets"));
    }
    Table::read(&text).map_err(|wrong| format!("{name}: {wrong}"))
}

#[cfg(test)]
mod tests {
    use super::super::Holder;
    use super::*;

    #[test]
    fn a_file_without_entries_does_not_replace_one_with_some() {
        let path = std::env::temp_dir().join(format!("sluice-recipients-empty-{}", std::process::id()));
        std::fs::write(&path, "ann@x.example\n").unwrap();
        let file = RecipientFile::open(&path).unwrap();
        let knows = |address| file.now().unwrap().holder(address, None) != Holder::Unknown;
        for empty in ["", "# exported, 0 users\n\n"] {
            std::fs::write(&path, empty).unwrap();
            let news = file.look(true).unwrap();
            assert!(news.starts_with("error: ") && news.contains("has no entries any more"), "{news}");
            assert!(news.contains("what was read before holds, 1 recipients"), "{news}");
            assert!(knows("ann@x.example") && file.version() == 0);
            assert_eq!(file.look(false), None, "told once");
        }
        std::fs::write(&path, "bob@x.example\n").unwrap();
        assert!(file.look(true).unwrap().ends_with("was read again: 1 recipients"));
        assert!(knows("bob@x.example") && !knows("ann@x.example") && file.version() == 1);
        // Where there was nothing, nothing is lost.
        std::fs::write(&path, "").unwrap();
        let file = RecipientFile::open(&path).unwrap();
        assert!(file.now().unwrap().is_empty());
        assert!(file.look(true).unwrap().ends_with("was read again: 0 recipients"));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_version_comes_into_force_whole_and_a_bad_one_not_at_all() {
        let path = std::env::temp_dir().join(format!("sluice-recipients-{}", std::process::id()));
        std::fs::write(&path, "ann@x.example 10.0.0.1\n").unwrap();
        let file = RecipientFile::open(&path).unwrap();
        let knows = |address| file.now().unwrap().holder(address, None) != Holder::Unknown;
        assert!(knows("ann@x.example") && file.look(false).is_none() && file.version() == 0);
        std::fs::write(&path, "bob@x.example 10.0.0.1\nkay@x.example 10.0.0.2\n").unwrap();
        assert_eq!(file.look(false), None, "it may still be written");
        assert!(file.look(false).unwrap().ends_with("was read again: 2 recipients"));
        assert!(knows("bob@x.example") && !knows("ann@x.example") && file.version() == 1);
        std::fs::write(&path, "bob\n").unwrap();
        let news = file.look(true).unwrap();
        assert!(
            news.starts_with("error: ") && news.contains(": line 1: ") && knows("kay@x.example"),
            "{news}"
        );
        assert_eq!(file.look(false), None, "told once");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(file.look(false), None);
        assert!(file.look(false).unwrap().contains("cannot be read") && knows("kay@x.example"));
        assert!(RecipientFile::open(&path).is_err());
        assert!(!format!("{file:?}").contains("bob"));
    }
}
