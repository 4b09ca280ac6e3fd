//! The disk's face to the kernel. Runs on the FUSE session's own thread; holds nothing but the model.
//!
//! Files are opened with direct I/O, so the kernel keeps no page of them: what the program reads and
//! writes is what the model sees, with the flags of the open file (O_DSYNC among them).

use std::ffi::OsStr;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::consts::FOPEN_DIRECT_IO;
use fuser::{
    FileAttr, FileType, Filesystem, KernelConfig, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
};
use libc::{EIO, ENOENT};

use super::Shared;
use super::blocks::{BLOCK, Blocks, Cut};

const ROOT: u64 = 1;
/// The kernel asks every time.
const TTL: Duration = Duration::ZERO;
/// Blocks that statfs shows: plenty.
const BLOCKS: u64 = 1 << 20;

pub struct Files {
    shared: Arc<Shared>,
}

impl Files {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.shared.blocks.lock().expect("blocks")
    }

    fn attributes(&self, inode: u64) -> Option<FileAttr> {
        if inode == ROOT {
            return Some(attributes(ROOT, FileType::Directory, 0));
        }
        let size = self.blocks().size(inode)?;
        Some(attributes(inode, FileType::RegularFile, size))
    }
}

fn attributes(ino: u64, kind: FileType, size: u64) -> FileAttr {
    FileAttr {
        ino,
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: if kind == FileType::Directory { 0o700 } else { 0o600 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK as u32,
        flags: 0,
    }
}

fn answer(done: Result<(), Cut>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(Cut) => reply.error(EIO),
    }
}

impl Filesystem for Files {
    fn init(&mut self, _: &Request<'_>, config: &mut KernelConfig) -> Result<(), libc::c_int> {
        let _ = config.add_capabilities(fuser::consts::FUSE_ASYNC_DIO);
        Ok(())
    }

    fn lookup(&mut self, _: &Request<'_>, _: u64, name: &OsStr, reply: ReplyEntry) {
        let inode = self.blocks().find(name);
        match inode.and_then(|inode| self.attributes(inode)) {
            Some(attributes) => reply.entry(&TTL, &attributes, 0),
            None => reply.error(ENOENT),
        }
    }

    fn getattr(&mut self, _: &Request<'_>, inode: u64, _: Option<u64>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(ENOENT),
        }
    }

    fn setattr(
        &mut self,
        _: &Request<'_>,
        inode: u64,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<u64>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<u32>,
        reply: ReplyAttr,
    ) {
        let done = size.map_or(Ok(()), |size| self.blocks().resize(inode, size as usize));
        match (done, self.attributes(inode)) {
            (Ok(()), Some(attributes)) => reply.attr(&TTL, &attributes),
            (Ok(()), None) => reply.error(ENOENT),
            (Err(Cut), _) => reply.error(EIO),
        }
    }

    fn create(&mut self, _: &Request<'_>, _: u64, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        let made = self.blocks().create(name);
        match made {
            Ok(inode) => {
                let attributes = attributes(inode, FileType::RegularFile, 0);
                reply.created(&TTL, &attributes, 0, 0, FOPEN_DIRECT_IO);
            }
            Err(Cut) => reply.error(EIO),
        }
    }

    fn open(&mut self, _: &Request<'_>, _: u64, _: i32, reply: ReplyOpen) {
        reply.opened(0, FOPEN_DIRECT_IO);
    }

    fn read(
        &mut self,
        _: &Request<'_>,
        inode: u64,
        _: u64,
        offset: i64,
        size: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyData,
    ) {
        match self.blocks().read(inode, offset.max(0) as usize, size as usize) {
            Ok(octets) => reply.data(octets),
            Err(Cut) => reply.error(EIO),
        }
    }

    fn write(
        &mut self,
        _: &Request<'_>,
        inode: u64,
        _: u64,
        offset: i64,
        octets: &[u8],
        _: u32,
        flags: i32,
        _: Option<u64>,
        reply: ReplyWrite,
    ) {
        let synced = flags & libc::O_DSYNC != 0;
        let done = self.blocks().write(inode, offset.max(0) as usize, octets, synced);
        match done {
            Ok(()) => reply.written(octets.len() as u32),
            Err(Cut) => {
                self.shared.changed.notify_all();
                reply.error(EIO);
            }
        }
    }

    fn fallocate(
        &mut self,
        _: &Request<'_>,
        inode: u64,
        _: u64,
        offset: i64,
        length: i64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        let end = (offset.max(0) + length.max(0)) as usize;
        let mut blocks = self.blocks();
        let size = blocks.size(inode).unwrap_or(0) as usize;
        answer(if end > size { blocks.resize(inode, end) } else { Ok(()) }, reply);
    }

    fn flush(&mut self, _: &Request<'_>, _: u64, _: u64, _: u64, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&mut self, _: &Request<'_>, inode: u64, _: u64, _: bool, reply: ReplyEmpty) {
        answer(self.blocks().sync(inode), reply);
    }

    fn fsyncdir(&mut self, _: &Request<'_>, _: u64, _: u64, _: bool, reply: ReplyEmpty) {
        answer(self.blocks().sync_names(), reply);
    }

    fn unlink(&mut self, _: &Request<'_>, _: u64, name: &OsStr, reply: ReplyEmpty) {
        match self.blocks().remove(name) {
            Ok(true) => reply.ok(),
            Ok(false) => reply.error(ENOENT),
            Err(Cut) => reply.error(EIO),
        }
    }

    fn readdir(&mut self, _: &Request<'_>, _: u64, _: u64, offset: i64, mut reply: ReplyDirectory) {
        let blocks = self.blocks();
        let names = blocks.names().map(|(name, inode)| (inode, FileType::RegularFile, name.as_os_str()));
        let own = [".", ".."].map(|name| (ROOT, FileType::Directory, OsStr::new(name)));
        let entries = own.into_iter().chain(names).enumerate().skip(offset.max(0) as usize);
        for (index, (inode, kind, name)) in entries {
            if reply.add(inode, index as i64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&mut self, _: &Request<'_>, _: u64, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCK as u32, 255, BLOCK as u32);
    }
}
