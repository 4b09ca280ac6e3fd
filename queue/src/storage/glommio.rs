//! Segment files on a file system, by glommio's direct I/O. Lives on the shard that opened it.
//!
//! Files are opened `O_DIRECT | O_DSYNC`, so that one ring operation writes a batch and makes it durable.
//! The directory is locked (`lock`, flock) for as long as the storage lives: two relays on one spool
//! would each overwrite what the other acknowledged.
//!
//! glommio 0.9 finds out whether a device can be polled for completions by reading the first file that it
//! opens there, and takes an empty answer for a yes. A file just created is empty, and on a device that
//! cannot be polled every later read then fails with EOPNOTSUPP. So the lock file has a block of octets,
//! and it is the first file opened.

use super::{SegmentFile, Storage, file_name, list_dir};
use crate::layout::BLOCK;
use glommio::io::{Directory, DmaBuffer, DmaFile, OpenOptions, ReadResult, remove};
use std::io;
use std::ops::{Deref, Range};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const LOCK_NAME: &str = "lock";
const LOCK_TEXT: &[u8] = b"This directory is the spool of a running or stopped relay; do not edit.\n";

/// A spool directory on disk.
pub struct GlommioStorage {
    dir: PathBuf,
    _lock: std::fs::File,
}

impl GlommioStorage {
    /// Takes the directory, creating it if need be. Blocks shortly; for the start only.
    ///
    /// # Errors
    /// `WouldBlock` when another process holds the spool; otherwise the kernel's word.
    pub fn new(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        std::fs::create_dir_all(&dir)?;
        // glommio opens a directory relative to descriptor -1, which only an absolute path survives.
        let dir = dir.canonicalize()?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::File::open(parent)?.sync_all()?;
        }
        let mut options = std::fs::OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).open(dir.join(LOCK_NAME))?;
        lock.try_lock().map_err(|error| match error {
            std::fs::TryLockError::Error(error) => error,
            std::fs::TryLockError::WouldBlock => {
                io::Error::new(io::ErrorKind::WouldBlock, "another process has this spool open")
            }
        })?;
        if lock.metadata()?.len() < BLOCK as u64 {
            let mut block = LOCK_TEXT.to_vec();
            block.resize(BLOCK, b'\n');
            std::os::unix::fs::FileExt::write_all_at(&lock, &block, 0)?;
            lock.sync_all()?;
        }
        Ok(Self { dir, _lock: lock })
    }

    /// Has glommio find out about the device by a file that is not empty.
    async fn probe(&self) -> io::Result<()> {
        let file = DmaFile::open(self.dir.join(LOCK_NAME)).await.map_err(kernels_word)?;
        file.close().await.map_err(kernels_word)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self, slot: u32) -> PathBuf {
        self.dir.join(file_name(slot))
    }
}

impl Storage for GlommioStorage {
    type File = GlommioFile;

    async fn list(&self) -> io::Result<Vec<u32>> {
        self.probe().await?;
        list_dir(&self.dir)
    }

    async fn create(&self, slot: u32, bytes: u64) -> io::Result<GlommioFile> {
        let path = self.path(slot);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600).custom_flags(libc::O_DSYNC);
        let file = options.dma_open(&path).await.map_err(kernels_word)?;
        let allocated = match file.pre_allocate(bytes, false).await {
            Ok(()) => file.fdatasync().await,
            Err(error) => Err(error),
        };
        if let Err(error) = allocated {
            let _ = file.close().await;
            let _ = remove(&path).await;
            return Err(kernels_word(error));
        }
        Ok(GlommioFile { file })
    }

    async fn open(&self, slot: u32) -> io::Result<GlommioFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_DSYNC);
        let file = options.dma_open(self.path(slot)).await.map_err(kernels_word)?;
        Ok(GlommioFile { file })
    }

    async fn remove(&self, slot: u32) -> io::Result<()> {
        remove(self.path(slot)).await.map_err(kernels_word)
    }

    async fn sync_dir(&self) -> io::Result<()> {
        let dir = Directory::open(&self.dir).await.map_err(kernels_word)?;
        let synced = dir.sync().await.map_err(kernels_word);
        let _ = dir.close().await;
        synced
    }

    async fn links(&self, slot: u32) -> io::Result<u64> {
        let path = self.path(slot);
        let asked = move || std::fs::symlink_metadata(path).map(|metadata| metadata.nlink());
        glommio::executor().spawn_blocking(asked).await
    }
}

/// A segment on disk.
pub struct GlommioFile {
    file: DmaFile,
}

impl SegmentFile for GlommioFile {
    type Buffer = DmaBuffer;
    type Bytes = Slice;

    fn buffer(&self, len: usize) -> DmaBuffer {
        self.file.alloc_dma_buffer(len)
    }

    async fn write(&self, position: u64, buffer: DmaBuffer) -> io::Result<()> {
        let buffer = std::rc::Rc::new(buffer);
        let mut done = self.file.write_rc_at(buffer.clone(), position).await.map_err(kernels_word)?;
        while done < buffer.len() {
            // A short write says nothing of why; going on brings the reason, or the rest.
            let kept = done / BLOCK * BLOCK;
            let mut rest = self.file.alloc_dma_buffer(buffer.len() - kept);
            rest.as_bytes_mut().copy_from_slice(&buffer.as_bytes()[kept..]);
            let more = self.file.write_at(rest, position + kept as u64).await.map_err(kernels_word)?;
            if kept + more <= done {
                return Err(io::ErrorKind::WriteZero.into());
            }
            done = kept + more;
        }
        Ok(())
    }

    async fn read(&self, position: u64, len: usize) -> io::Result<Slice> {
        if len == 0 {
            return Ok(Slice { bytes: ReadResult::default(), range: 0..0 });
        }
        let start = position / BLOCK as u64 * BLOCK as u64;
        let skip = (position - start) as usize;
        let aligned = (skip + len).next_multiple_of(BLOCK);
        let bytes = self.file.read_at_aligned(start, aligned).await.map_err(kernels_word)?;
        let range = skip.min(bytes.len())..(skip + len).min(bytes.len());
        Ok(Slice { bytes, range })
    }

    async fn size(&self) -> io::Result<u64> {
        self.file.file_size().await.map_err(kernels_word)
    }
}

/// The wanted part of an aligned read.
pub struct Slice {
    bytes: ReadResult,
    range: Range<usize>,
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

/// glommio wraps errors; what counts is the kernel's number.
fn kernels_word(error: glommio::GlommioError<()>) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => error.into(),
    }
}
