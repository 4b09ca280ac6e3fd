//! A device that fails as devices do, by a seed: memory below, faults above. For tests and simulation.
//!
//! Every write, creation, removal and directory sync is one step. At the step that [`Faults::crash_at`]
//! names the machine stops: what was in flight is left in any mix of old and new sectors, entries of the
//! directory that were not synced may be there or not, and every later call fails. [`FaultyStorage::restart`]
//! gives the directory as the next start finds it.

use super::memory::{MemoryFile, MemoryStorage};
use super::{SegmentFile, Storage};
use futures_lite::future::yield_now;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;

const SECTOR: usize = 512;

/// What goes wrong, and when. Steps count from 0.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub seed: u64,
    pub crash_at: Option<u64>,
    /// From this step on every write fails with EIO, after having written a part.
    pub write_error_at: Option<u64>,
    /// Files that may exist; creating one more is ENOSPC.
    pub files_max: Option<usize>,
    /// Reads fail with EIO.
    pub read_error: bool,
}

struct Device {
    faults: Faults,
    random: u64,
    step: u64,
    crashed: bool,
    /// Entries of the directory whose change was not synced; with the file where it was removed.
    created: Vec<u32>,
    removed: Vec<(u32, Rc<RefCell<Vec<u8>>>)>,
}

/// A spool directory on a faulty device. Clones share it.
#[derive(Clone)]
pub struct FaultyStorage {
    memory: MemoryStorage,
    device: Rc<RefCell<Device>>,
}

impl FaultyStorage {
    pub fn new(memory: MemoryStorage, faults: Faults) -> Self {
        let device = Device {
            random: faults.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            faults,
            step: 0,
            crashed: false,
            created: Vec::new(),
            removed: Vec::new(),
        };
        Self { memory, device: Rc::new(RefCell::new(device)) }
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.device.borrow().step
    }

    pub fn crashed(&self) -> bool {
        self.device.borrow().crashed
    }

    /// Changes what goes wrong from now on.
    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.device.borrow_mut().faults);
    }

    /// Stops the machine now.
    pub fn crash(&self) {
        self.device.borrow_mut().crashed = true;
    }

    /// The directory as the next start finds it.
    pub fn restart(&self) -> MemoryStorage {
        let mut device = self.device.borrow_mut();
        device.crashed = true;
        for slot in std::mem::take(&mut device.created) {
            if device.chance(2) {
                self.memory.take(slot);
            }
        }
        for (slot, octets) in std::mem::take(&mut device.removed) {
            if device.chance(2) {
                self.memory.put(slot, octets);
            }
        }
        self.memory.snapshot()
    }

    /// Counts a step; the machine stops at the one that the faults name. `true`: it stops in this one.
    fn step(&self) -> io::Result<bool> {
        let mut device = self.device.borrow_mut();
        if device.crashed {
            return Err(stopped());
        }
        let stops = device.faults.crash_at == Some(device.step);
        device.step += 1;
        device.crashed |= stops;
        Ok(stops)
    }
}

impl Device {
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.random().is_multiple_of(one_in)
    }
}

fn stopped() -> io::Error {
    io::Error::other("the machine has stopped")
}

impl Storage for FaultyStorage {
    type File = FaultyFile;

    async fn list(&self) -> io::Result<Vec<u32>> {
        self.memory.list().await
    }

    async fn create(&self, slot: u32, bytes: u64) -> io::Result<FaultyFile> {
        let stops = self.step()?;
        let files_max = self.device.borrow().faults.files_max.unwrap_or(usize::MAX);
        if self.memory.slots().len() >= files_max {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let file = self.memory.create(slot, bytes).await?;
        let mut device = self.device.borrow_mut();
        device.created.push(slot);
        if stops {
            // The entry came before the space.
            let kept = device.random() % (bytes + 1);
            self.memory.damage(slot, |octets| octets.truncate(kept as usize));
            return Err(stopped());
        }
        drop(device);
        Ok(FaultyFile { file, storage: self.clone() })
    }

    async fn open(&self, slot: u32) -> io::Result<FaultyFile> {
        Ok(FaultyFile { file: self.memory.open(slot).await?, storage: self.clone() })
    }

    async fn remove(&self, slot: u32) -> io::Result<()> {
        let stops = self.step()?;
        yield_now().await;
        let octets = self.memory.take(slot).ok_or(io::ErrorKind::NotFound)?;
        self.device.borrow_mut().removed.push((slot, octets));
        if stops { Err(stopped()) } else { Ok(()) }
    }

    async fn sync_dir(&self) -> io::Result<()> {
        if self.step()? {
            return Err(stopped());
        }
        yield_now().await;
        let mut device = self.device.borrow_mut();
        device.created.clear();
        device.removed.clear();
        Ok(())
    }

    async fn links(&self, slot: u32) -> io::Result<u64> {
        self.memory.links(slot).await
    }
}

/// A segment on a faulty device.
pub struct FaultyFile {
    file: MemoryFile,
    storage: FaultyStorage,
}

impl FaultyFile {
    /// Leaves some sectors old and some new.
    fn tear(&self, position: u64, buffer: &[u8]) {
        let mut device = self.storage.device.borrow_mut();
        let sectors = buffer.len().div_ceil(SECTOR) as u64;
        let how = device.random() % 4;
        let prefix = device.random() % (sectors + 1);
        for (at, sector) in buffer.chunks(SECTOR).enumerate() {
            let written = match how {
                0 => false,
                1 => true,
                2 => (at as u64) < prefix,
                _ => device.chance(2),
            };
            if written {
                self.file.put(position + (at * SECTOR) as u64, sector);
            }
        }
    }
}

impl SegmentFile for FaultyFile {
    type Buffer = Vec<u8>;
    type Bytes = Vec<u8>;

    fn buffer(&self, len: usize) -> Vec<u8> {
        self.file.buffer(len)
    }

    async fn write(&self, position: u64, buffer: Vec<u8>) -> io::Result<()> {
        let stops = self.storage.step()?;
        let (step, fails_at) = {
            let device = self.storage.device.borrow();
            (device.step - 1, device.faults.write_error_at)
        };
        if stops {
            self.tear(position, &buffer);
            return Err(stopped());
        }
        yield_now().await;
        if self.storage.crashed() {
            self.tear(position, &buffer);
            return Err(stopped());
        }
        if fails_at.is_some_and(|at| step >= at) {
            self.tear(position, &buffer);
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.file.put(position, &buffer);
        Ok(())
    }

    async fn read(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
        if self.storage.crashed() {
            return Err(stopped());
        }
        if self.storage.device.borrow().faults.read_error {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.file.read(position, len).await
    }

    async fn size(&self) -> io::Result<u64> {
        self.file.size().await
    }
}
