//! One segment file into a backup: by clone, by link, or octet by octet.
//!
//! Blocks; for a thread that may. The source is opened for reading only, and is not written meanwhile
//! where it counts: the caller holds a snapshot.

use super::{BackupError, Way};
use crate::layout::{BLOCK, HeaderFound, SegmentHeader};
use rustix::fs::{Advice, fadvise, ioctl_ficlone};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Octets copied at a time; between two the copy can be given up.
const PIECE: usize = 1 << 20;
/// Zeros of this length become a hole.
const HOLE: usize = 64 << 10;
/// Octets after which a copy is written out, so that no flood of them meets the relay's own writes.
const SYNC_BYTES: u64 = 8 << 20;

/// What this pair of file systems has been found able to do.
pub(super) struct Copier<'a> {
    pub clones: bool,
    pub links: bool,
    /// Called with the octets copied since the last call; `false`: give up.
    pub go_on: &'a dyn Fn(u64) -> bool,
    /// Octets that the device refused to read; they are zeros in the copy.
    pub unreadable: u64,
}

impl Copier<'_> {
    /// Makes `to` of the first `octets` of `from`, with a length of `bytes`. `whole`: nothing is written into
    /// `from` any more, so that a link will do.
    pub fn place(
        &mut self,
        from: &Path,
        to: &Path,
        bytes: u64,
        octets: u64,
        whole: bool,
    ) -> Result<Way, BackupError> {
        let failed = |error: io::Error| BackupError::io("writing", to, error);
        if whole && self.clones {
            match clone(from, to) {
                Ok(()) => return Ok(Way::Cloned),
                Err(error) if cannot(&error) => self.clones = false,
                Err(error) => return Err(failed(error)),
            }
        }
        if whole && self.links {
            match std::fs::hard_link(from, to) {
                Ok(()) => return Ok(Way::Linked),
                Err(error) if error.raw_os_error() == Some(libc::EMLINK) => {}
                Err(error) if cannot(&error) => self.links = false,
                Err(error) => return Err(failed(error)),
            }
        }
        self.copy(from, to, bytes, octets)?;
        Ok(Way::Copied)
    }

    fn copy(&mut self, from: &Path, to: &Path, bytes: u64, octets: u64) -> Result<(), BackupError> {
        let source = File::open(from).map_err(|error| BackupError::io("reading", from, error))?;
        let failed = |error: io::Error| BackupError::io("writing", to, error);
        let target = create(to).map_err(failed)?;
        target.set_len(bytes).map_err(failed)?;
        // What is read ahead of the end could be stale when it is read next time: the relay writes beside
        // the page cache.
        let _ = fadvise(&source, 0, None, Advice::Random);
        let mut piece = vec![0; PIECE];
        let (mut at, mut written, mut unsynced) = (0, 0, 0);
        while at < octets {
            let wanted = PIECE.min((octets - at) as usize);
            let got = self
                .read(&source, at, &mut piece[..wanted])
                .map_err(|error| BackupError::io("reading", from, error))?;
            if got == 0 {
                break;
            }
            for (number, part) in piece[..got].chunks(HOLE).enumerate() {
                if part.iter().any(|&octet| octet != 0) {
                    target.write_all_at(part, at + (number * HOLE) as u64).map_err(failed)?;
                    unsynced += part.len() as u64;
                }
            }
            at += got as u64;
            if unsynced >= SYNC_BYTES {
                target.sync_data().map_err(failed)?;
                unsynced = 0;
            }
            written += got as u64;
            if !(self.go_on)(std::mem::take(&mut written)) {
                return Err(BackupError::GivenUp);
            }
        }
        target.sync_all().map_err(failed)?;
        let _ = fadvise(&source, 0, None, Advice::DontNeed);
        let _ = fadvise(&target, 0, None, Advice::DontNeed);
        Ok(())
    }

    /// Reads what can be read: what the device refuses is zeros, and counted.
    fn read(&mut self, source: &File, at: u64, piece: &mut [u8]) -> io::Result<usize> {
        match read_full(source, at, piece) {
            Err(error) if error.raw_os_error() == Some(libc::EIO) => {}
            other => return other,
        }
        let mut got = 0;
        for block in piece.chunks_mut(BLOCK) {
            got += match read_full(source, at + got as u64, block) {
                Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                    block.fill(0);
                    self.unreadable += block.len() as u64;
                    block.len()
                }
                other => other?,
            };
        }
        Ok(got)
    }
}

fn read_full(source: &File, at: u64, piece: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < piece.len() {
        match source.read_at(&mut piece[got..], at + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// The header of a segment file.
pub(super) fn header(path: &Path) -> io::Result<Option<SegmentHeader>> {
    let mut block = [0; BLOCK];
    let got = read_full(&File::open(path)?, 0, &mut block)?;
    Ok(match SegmentHeader::find(&block[..got]) {
        HeaderFound::Valid(header) => Some(header),
        _ => None,
    })
}

pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Shares the blocks of `from` with a new file.
fn clone(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let target = create(to)?;
    let cloned = ioctl_ficlone(&target, &source).map_err(io::Error::from).and_then(|()| target.sync_all());
    cloned.inspect_err(|_| drop(std::fs::remove_file(to)))
}

/// Not here, rather than not now.
fn cannot(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        errno,
        Some(
            Errno::XDEV
                | Errno::OPNOTSUPP
                | Errno::NOTTY
                | Errno::INVAL
                | Errno::PERM
                | Errno::NOSYS
                | Errno::TXTBSY
        )
    )
}
