//! A disk that forgets: a directory on a file system of the test's own (FUSE), which loses at a power cut
//! whatever was not synced.
//!
//! What lasts is what POSIX promises and no more: a write that was made with O_DSYNC or followed by fsync,
//! and a name after fsync of its directory. Everything else survives a cut by chance, block by block. The
//! cut comes in the middle of a write: some of that write's blocks are on the disk and nobody is told;
//! from then on nothing answers but with EIO, until the power is back.
//!
//! One flat directory, files in memory; root only. The model is `blocks`, its face to the kernel `fuse`.

mod blocks;
mod fuse;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use blocks::Blocks;
use fuser::{BackgroundSession, MountOption};

/// What the test and the kernel's side share.
struct Shared {
    blocks: Mutex<Blocks>,
    changed: Condvar,
}

/// The disk, mounted on a directory. Dropping it unmounts.
pub struct VolatileDisk {
    mount_point: PathBuf,
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
}

/// What cuts have cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    pub cuts: usize,
    /// Writes that were cut in the middle.
    pub torn: usize,
    /// Blocks of unsynced or torn writes that did not make it.
    pub blocks_lost: usize,
    /// Names made or removed whose directory was not synced.
    pub names_lost: usize,
}

impl VolatileDisk {
    /// Mounts an empty disk on a directory, which must exist. `seed` decides what cuts take away.
    ///
    /// # Panics
    /// When FUSE is not to be had; ask [`available`] before.
    pub fn mount(mount_point: &Path, seed: u64) -> Self {
        let shared = Arc::new(Shared { blocks: Mutex::new(Blocks::new(seed)), changed: Condvar::new() });
        let mut disk = Self { mount_point: mount_point.to_owned(), shared, session: None };
        disk.attach();
        disk
    }

    fn attach(&mut self) {
        let options = [MountOption::FSName("sluice-volatile".into()), MountOption::NoAtime];
        let files = fuse::Files::new(self.shared.clone());
        let session = fuser::spawn_mount2(files, &self.mount_point, &options);
        self.session = Some(session.expect("a FUSE file system"));
    }

    /// The power goes in the middle of the `writes`-th write from now on (1: the next).
    pub fn cut_in(&self, writes: u64) {
        self.shared.blocks.lock().expect("blocks").cut_in(writes);
    }

    /// The power goes now, between two writes.
    pub fn cut_now(&self) {
        self.shared.blocks.lock().expect("blocks").cut();
        self.shared.changed.notify_all();
    }

    /// Waits until the power is gone; `false` when that takes longer than `limit`.
    pub fn wait_for_cut(&self, limit: Duration) -> bool {
        let blocks = self.shared.blocks.lock().expect("blocks");
        let waited = self.shared.changed.wait_timeout_while(blocks, limit, |blocks| !blocks.is_cut());
        waited.expect("blocks").0.is_cut()
    }

    /// Brings the disk back with what it kept. Nobody may have a file open any more.
    pub fn power_on(&mut self) {
        self.detach();
        self.shared.blocks.lock().expect("blocks").restore();
        self.attach();
    }

    pub fn losses(&self) -> Losses {
        self.shared.blocks.lock().expect("blocks").losses
    }

    fn detach(&mut self) {
        let Some(session) = self.session.take() else { return };
        // Lazily: the kernel may hold files of a killed process for a moment.
        let _ = Command::new("umount").arg("-l").arg(&self.mount_point).status();
        drop(session);
    }
}

impl Drop for VolatileDisk {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Whether this machine lets the test mount such a disk; says loudly when it does not.
pub fn available() -> bool {
    if crate::is_root() && Path::new("/dev/fuse").exists() {
        return true;
    }
    crate::skipped("a disk that forgets needs root and /dev/fuse");
    false
}
