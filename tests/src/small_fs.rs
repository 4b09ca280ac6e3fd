//! A file system of its own, small enough to be filled: ext4 in a file, mounted through a loop device.

use crate::process::run;
use crate::wait::{SOON, until_true};
use crate::{is_root, skipped, tools};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Mounted until it is dropped. What is on it must have ended before.
pub struct SmallFs {
    image: tempfile::TempDir,
    mount: PathBuf,
}

impl SmallFs {
    /// A file system of `mebibytes` with `inodes`, at `mount`, which is created. `None`, said loudly, where
    /// that is not possible.
    pub fn mount(mount: &Path, mebibytes: u64, inodes: u32) -> Option<Self> {
        if !is_root() || tools::find("mkfs.ext4").is_none() || tools::find("losetup").is_none() {
            skipped("a small file system needs root, mkfs.ext4 and loop devices");
            return None;
        }
        let image = tempfile::Builder::new().prefix("sluice-fs-").tempdir().expect("a directory");
        let file = File::create(image.path().join("image")).expect("an image");
        file.set_len(mebibytes << 20).expect("an image");
        fs::create_dir_all(mount).expect("a mount point");
        let small = Self { image, mount: mount.to_owned() };
        let mut mkfs = Command::new(tools::find("mkfs.ext4").expect("looked for above"));
        mkfs.args(["-q", "-m", "0", "-N", &inodes.to_string()]).arg(small.image());
        if !run(&mut mkfs, SOON).status.success() || !small.attach() {
            skipped("no loop device can be mounted here");
            return None;
        }
        Some(small)
    }

    fn image(&self) -> PathBuf {
        self.image.path().join("image")
    }

    /// Mounts it again after [`SmallFs::detach`]. A copy of it: another test's mount namespace may still hold what
    /// was unmounted here, and the same image would be that again, with whatever was wrong with it.
    pub fn attach(&self) -> bool {
        let copy = self.image.path().join("copy");
        let mut cp = Command::new("cp");
        let copied = run(cp.arg("--sparse=always").arg(self.image()).arg(&copy), SOON).status.success();
        if !copied || fs::rename(&copy, self.image()).is_err() {
            return false;
        }
        let mut mount = Command::new("mount");
        run(mount.args(["-o", "loop"]).arg(self.image()).arg(&self.mount), SOON).status.success()
    }

    /// The kernel lets go of the files of a killed process a little after its end.
    #[track_caller]
    pub fn detach(&self) {
        let _ = run(Command::new("sync").arg("-f").arg(&self.mount), SOON);
        until_true(SOON, "an unused file system", || {
            run(Command::new("umount").arg(&self.mount), SOON).status.success()
        });
    }

    /// What ext4 does by itself when it finds that it cannot go on: nothing is written any more.
    #[track_caller]
    pub fn abort(&self) {
        let mut mount = Command::new("mount");
        let done = run(mount.args(["-o", "remount,abort"]).arg(&self.mount), SOON);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Writes do not come back as long as it is frozen.
    #[track_caller]
    pub fn freeze(&self, freeze: bool) {
        let mut command = Command::new("fsfreeze");
        let done = run(command.arg(if freeze { "-f" } else { "-u" }).arg(&self.mount), SOON);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Takes all that is free, with a file that nobody here knows.
    pub fn fill(&self) {
        let mut options = File::options();
        let foreign = options.create(true).append(true).open(self.mount.join("foreign"));
        let mut file = foreign.expect("an inode");
        for size in [1 << 20, 4096] {
            while file.write_all(&vec![b'f'; size]).is_ok() {}
        }
        let _ = file.sync_all();
    }

    /// Takes all free inodes.
    pub fn fill_inodes(&self) {
        let directory = self.mount.join("foreign-inodes");
        fs::create_dir(&directory).expect("a directory");
        let mut number = 0;
        while File::create(directory.join(number.to_string())).is_ok() {
            number += 1;
        }
    }

    pub fn unfill(&self) {
        let _ = fs::remove_file(self.mount.join("foreign"));
        let _ = fs::remove_dir_all(self.mount.join("foreign-inodes"));
    }
}

impl Drop for SmallFs {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.mount).output();
        let _ = Command::new("umount").arg("-l").arg(&self.mount).output();
    }
}
