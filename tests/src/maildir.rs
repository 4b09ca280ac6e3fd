//! Reading what a Maildir holds.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::wait;

/// A Maildir, which need not exist yet.
pub struct Maildir {
    path: PathBuf,
}

impl Maildir {
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files in `new/`, oldest name first.
    pub fn messages(&self) -> Vec<Vec<u8>> {
        let Ok(entries) = fs::read_dir(self.path.join("new")) else { return Vec::new() };
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        files.iter().filter_map(|file| fs::read(file).ok()).collect()
    }

    /// Waits until at least `count` messages are there.
    #[track_caller]
    pub fn wait_for(&self, count: usize, limit: Duration) -> Vec<Vec<u8>> {
        wait::until(limit, &format!("{count} messages in {}", self.path.display()), || {
            Some(self.messages()).filter(|messages| messages.len() >= count)
        })
    }
}
