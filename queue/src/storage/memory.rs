//! A spool directory in memory, for tests, simulation and measurements without a disk.
//!
//! Clones share the directory, so that it outlives the spool that was opened on it. Each operation gives
//! way to others once, so that tasks interleave as they do on a device.

use super::{SegmentFile, Storage};
use futures_lite::future::yield_now;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

type Octets = Rc<RefCell<Vec<u8>>>;

/// A spool directory that ends with its last clone.
#[derive(Clone, Default)]
pub struct MemoryStorage {
    files: Rc<RefCell<BTreeMap<u32, Octets>>>,
    /// Other names of files here.
    links: Rc<RefCell<Vec<Octets>>>,
}

impl MemoryStorage {
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes the octets of a file, as a fault of the device would. Nothing happens without the file.
    pub fn damage(&self, slot: u32, with: impl FnOnce(&mut Vec<u8>)) {
        if let Some(octets) = self.octets(slot) {
            with(&mut octets.borrow_mut());
        }
    }

    /// An independent copy of the directory as it is now.
    pub fn snapshot(&self) -> Self {
        let files = self.files.borrow();
        let copies = files.iter().map(|(slot, file)| (*slot, Rc::new(RefCell::new(file.borrow().clone()))));
        Self { files: Rc::new(RefCell::new(copies.collect())), links: Rc::default() }
    }

    /// Gives a file another name in another directory: what is written to the one is written to the other.
    pub fn link(&self, slot: u32, to: &Self, name: u32) {
        let Some(octets) = self.octets(slot) else { return };
        self.links.borrow_mut().push(octets.clone());
        to.put(name, octets);
    }

    /// Takes all other names away.
    pub fn unlink_others(&self) {
        self.links.borrow_mut().clear();
    }

    pub fn slots(&self) -> Vec<u32> {
        self.files.borrow().keys().copied().collect()
    }

    pub(super) fn file(&self, slot: u32) -> Option<MemoryFile> {
        self.octets(slot).map(|octets| MemoryFile { octets })
    }

    pub(super) fn take(&self, slot: u32) -> Option<Octets> {
        self.files.borrow_mut().remove(&slot)
    }

    pub(super) fn put(&self, slot: u32, octets: Octets) {
        self.files.borrow_mut().insert(slot, octets);
    }

    fn octets(&self, slot: u32) -> Option<Octets> {
        self.files.borrow().get(&slot).cloned()
    }
}

impl Storage for MemoryStorage {
    type File = MemoryFile;

    async fn list(&self) -> io::Result<Vec<u32>> {
        Ok(self.slots())
    }

    async fn create(&self, slot: u32, bytes: u64) -> io::Result<MemoryFile> {
        yield_now().await;
        if self.octets(slot).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.put(slot, Rc::new(RefCell::new(vec![0; bytes as usize])));
        self.open(slot).await
    }

    async fn open(&self, slot: u32) -> io::Result<MemoryFile> {
        let octets = self.octets(slot).ok_or(io::ErrorKind::NotFound)?;
        Ok(MemoryFile { octets })
    }

    async fn remove(&self, slot: u32) -> io::Result<()> {
        yield_now().await;
        self.take(slot).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    async fn sync_dir(&self) -> io::Result<()> {
        yield_now().await;
        Ok(())
    }

    async fn links(&self, slot: u32) -> io::Result<u64> {
        let Some(octets) = self.octets(slot) else { return Err(io::ErrorKind::NotFound.into()) };
        let others = self.links.borrow().iter().filter(|other| Rc::ptr_eq(other, &octets)).count();
        Ok(1 + others as u64)
    }
}

/// A segment in memory.
#[derive(Clone)]
pub struct MemoryFile {
    octets: Octets,
}

impl MemoryFile {
    pub(super) fn len(&self) -> u64 {
        self.octets.borrow().len() as u64
    }

    /// `len` octets at `position`, fewer at the end of the file.
    pub(super) fn get(&self, position: u64, len: usize) -> Vec<u8> {
        let file = self.octets.borrow();
        let start = (position as usize).min(file.len());
        let end = (position as usize).saturating_add(len).min(file.len());
        file[start..end].to_vec()
    }

    pub(super) fn put(&self, position: u64, octets: &[u8]) {
        let mut file = self.octets.borrow_mut();
        let end = position as usize + octets.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[position as usize..end].copy_from_slice(octets);
    }
}

impl SegmentFile for MemoryFile {
    type Buffer = Vec<u8>;
    type Bytes = Vec<u8>;

    fn buffer(&self, len: usize) -> Vec<u8> {
        vec![0xdd; len]
    }

    async fn write(&self, position: u64, buffer: Vec<u8>) -> io::Result<()> {
        yield_now().await;
        self.put(position, &buffer);
        Ok(())
    }

    async fn read(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
        yield_now().await;
        Ok(self.get(position, len))
    }

    async fn size(&self) -> io::Result<u64> {
        Ok(self.len())
    }
}
