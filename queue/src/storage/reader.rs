//! A spool directory seen from outside: plain blocking reads, nothing is ever written.
//!
//! For commands that look at a spool whose relay is down, or is running. Never on a shard.

use super::{SegmentFile, Storage, file_name, list_dir};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A spool directory opened for reading only.
pub struct ReaderStorage {
    dir: PathBuf,
}

impl ReaderStorage {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Storage for ReaderStorage {
    type File = ReaderFile;

    async fn list(&self) -> io::Result<Vec<u32>> {
        list_dir(&self.dir)
    }

    async fn create(&self, _slot: u32, _bytes: u64) -> io::Result<ReaderFile> {
        refused()
    }

    async fn open(&self, slot: u32) -> io::Result<ReaderFile> {
        Ok(ReaderFile { file: std::fs::File::open(self.dir.join(file_name(slot)))? })
    }

    async fn remove(&self, _slot: u32) -> io::Result<()> {
        refused()
    }

    async fn sync_dir(&self) -> io::Result<()> {
        refused()
    }
}

/// A segment opened for reading only.
pub struct ReaderFile {
    file: std::fs::File,
}

impl SegmentFile for ReaderFile {
    type Buffer = Vec<u8>;
    type Bytes = Vec<u8>;

    fn buffer(&self, len: usize) -> Vec<u8> {
        vec![0; len]
    }

    async fn write(&self, _position: u64, _buffer: Vec<u8>) -> io::Result<()> {
        refused()
    }

    async fn read(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
        let size = self.file.metadata()?.len();
        let len = len.min(size.saturating_sub(position) as usize);
        let mut octets = vec![0; len];
        self.file.read_exact_at(&mut octets, position)?;
        Ok(octets)
    }

    async fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}
