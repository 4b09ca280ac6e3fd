//! A device that fails as devices do, by a seed: memory below, faults above. For tests and simulation.
//!
//! Every write, creation, removal and directory sync is one step. At the step that [`Faults::crash_at`]
//! names the machine stops: what was in flight is left in any mix of old and new sectors, entries of the
//! directory that were not synced may be there or not, and every later call fails. [`FaultyStorage::restart`]
//! gives the directory as the next start finds it.
//!
//! Two kinds of faults. An *honest* device says so when something did not work. A *lying* one writes
//! elsewhere or not at all and says that it is done, or reads from elsewhere or what was there before: from
//! that no program can protect what was written, but it can notice. [`FaultyStorage::lies`] tells where.

use super::memory::{MemoryFile, MemoryStorage};
use super::{SegmentFile, Storage};
use futures_lite::future::yield_now;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

mod device;
mod file;

pub use file::FaultyFile;

use device::Device;

const SECTOR: usize = 512;
const BLOCK: u64 = crate::layout::BLOCK as u64;
/// Calls that may fail one after the other while nobody gets anything done.
const FUTILE_CALLS_MAX: u64 = 20_000;

/// What goes wrong, and when. Steps count from 0; `one_in` is how rarely, 0 is never.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub seed: u64,
    pub crash_at: Option<u64>,
    /// What the stop leaves of a write that it cuts.
    pub tear: Tear,
    /// From this step on every write fails with EIO, after having written a part.
    pub write_error_at: Option<u64>,
    /// From this step on creations, removals and directory syncs fail with EIO.
    pub dir_error_at: Option<u64>,
    /// What a failing write says in place of EIO.
    pub write_error: Option<i32>,
    /// A failing write says that not all was written, and gives no number.
    pub short_writes: bool,
    /// Creating a file fails with this.
    pub create_error: Option<i32>,
    /// Removing a file fails with this; syncing the directory.
    pub remove_error: Option<i32>,
    pub sync_dir_error: Option<i32>,
    /// Writes do not come back as long as this is set.
    pub hangs: bool,
    /// Files that may exist; creating one more is ENOSPC.
    pub files_max: Option<usize>,
    /// Creations that fail with EMFILE.
    pub short_one_in: u64,
    /// Reads fail with EIO.
    pub read_error: bool,
    pub read_errors_one_in: u64,
    /// Writes that take longer than those begun after them.
    pub slow_one_in: u64,
    /// Reads that give octets of another place, in the same file or another.
    pub reads_elsewhere_one_in: u64,
    /// Reads in which a block is as it was before it was last written.
    pub reads_stale_one_in: u64,
    /// Writes that land at another place, in the same file or another, and are reported done.
    pub writes_elsewhere_one_in: u64,
    /// Writes that are reported done and never land.
    pub writes_lost_one_in: u64,
}

/// What a stop leaves of what it cuts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tear {
    /// Any of the others.
    #[default]
    Any,
    /// Nothing of it is there.
    Before,
    /// Some sectors are new.
    Torn,
    /// All of it is there, and nobody was told.
    After,
}

/// How often something went wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    /// Writes that a stop cut.
    pub cut: u64,
    pub write_errors: u64,
    pub dir_errors: u64,
    pub read_errors: u64,
    pub no_space: u64,
    pub no_descriptors: u64,
    pub slow: u64,
    /// Entries of the directory that a stop undid.
    pub entries_undone: u64,
    pub reads_elsewhere: u64,
    pub reads_stale: u64,
    pub writes_elsewhere: u64,
    pub writes_lost: u64,
}

/// A spool directory on a faulty device. Clones share it.
#[derive(Clone)]
pub struct FaultyStorage {
    memory: MemoryStorage,
    device: Rc<RefCell<Device>>,
}

impl FaultyStorage {
    pub fn new(memory: MemoryStorage, faults: Faults) -> Self {
        Self { memory, device: Rc::new(RefCell::new(Device::new(faults))) }
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.device.borrow().step
    }

    pub fn crashed(&self) -> bool {
        self.device.borrow().crashed
    }

    pub fn injected(&self) -> Injected {
        self.device.borrow().injected
    }

    /// Slots that the device has lied about, or not read.
    pub fn lies(&self) -> BTreeSet<u32> {
        self.device.borrow().lies.clone()
    }

    /// Changes what goes wrong from now on.
    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.device.borrow_mut().faults);
    }

    pub fn faults(&self) -> Faults {
        self.device.borrow().faults.clone()
    }

    /// Stops the machine now.
    pub fn crash(&self) {
        self.device.borrow_mut().crashed = true;
    }

    /// Somebody got something done.
    pub fn progress(&self) {
        self.device.borrow_mut().futile = 0;
    }

    /// The directory as the next start finds it.
    pub fn restart(&self) -> MemoryStorage {
        let mut device = self.device.borrow_mut();
        device.crashed = true;
        for write in std::mem::take(&mut device.in_flight).into_values() {
            device.tear(&write);
        }
        for slot in std::mem::take(&mut device.created) {
            if device.undoes() {
                self.memory.take(slot);
            }
        }
        for (slot, octets) in std::mem::take(&mut device.removed) {
            if device.undoes() {
                self.memory.put(slot, octets);
            }
        }
        self.memory.snapshot()
    }

    /// Counts a step; the machine stops at the one that the faults name. `true`: it stops in this one.
    fn step(&self) -> io::Result<bool> {
        let mut device = self.device.borrow_mut();
        if device.crashed {
            device.futile();
            return Err(stopped());
        }
        let stops = device.faults.crash_at == Some(device.step);
        device.step += 1;
        device.crashed |= stops;
        Ok(stops)
    }

    fn dir_step(&self) -> io::Result<bool> {
        let stops = self.step()?;
        self.device.borrow_mut().dir_error()?;
        Ok(stops)
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
        let stops = self.dir_step()?;
        self.device.borrow_mut().refuses_file(self.memory.slots().len())?;
        if let Some(number) = self.device.borrow().faults.create_error {
            return Err(io::Error::from_raw_os_error(number));
        }
        let file = self.memory.create(slot, bytes).await?;
        let mut device = self.device.borrow_mut();
        device.created.push(slot);
        if stops {
            // The entry came before the space.
            let kept = match device.faults.tear {
                Tear::After => bytes,
                _ => device.random() % (bytes + 1),
            };
            self.memory.damage(slot, |octets| octets.truncate(kept as usize));
            return Err(stopped());
        }
        drop(device);
        Ok(FaultyFile::new(slot, file, self.clone()))
    }

    async fn open(&self, slot: u32) -> io::Result<FaultyFile> {
        Ok(FaultyFile::new(slot, self.memory.open(slot).await?, self.clone()))
    }

    async fn remove(&self, slot: u32) -> io::Result<()> {
        let stops = self.dir_step()?;
        if let Some(number) = self.device.borrow().faults.remove_error {
            return Err(io::Error::from_raw_os_error(number));
        }
        yield_now().await;
        let octets = self.memory.take(slot).ok_or(io::ErrorKind::NotFound)?;
        self.device.borrow_mut().removed.push((slot, octets));
        if stops { Err(stopped()) } else { Ok(()) }
    }

    async fn sync_dir(&self) -> io::Result<()> {
        if self.dir_step()? {
            return Err(stopped());
        }
        if let Some(number) = self.device.borrow().faults.sync_dir_error {
            return Err(io::Error::from_raw_os_error(number));
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
