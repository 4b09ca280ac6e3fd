//! A segment on a faulty device.

use super::device::Write;
use super::*;

/// Polls that a slow write takes at most, beyond the one of every write.
const SLOW_POLLS_MAX: u64 = 40;

/// A segment on a faulty device.
pub struct FaultyFile {
    slot: u32,
    file: MemoryFile,
    storage: FaultyStorage,
}

impl FaultyFile {
    pub(super) fn new(slot: u32, file: MemoryFile, storage: FaultyStorage) -> Self {
        Self { slot, file, storage }
    }

    /// Puts a write in flight; gives its number, which is its step, and how long it takes.
    fn begin(&self, position: u64, octets: Vec<u8>) -> io::Result<(u64, u64)> {
        let stops = self.storage.step()?;
        let device = &mut *self.storage.device.borrow_mut();
        let number = device.step - 1;
        let write = Write { slot: self.slot, file: self.file.clone(), position, octets };
        device.in_flight.insert(number, write);
        if stops {
            return Err(stopped());
        }
        let slow = device.chance(device.faults.slow_one_in);
        device.injected.slow += slow as u64;
        Ok((number, if slow { 2 + device.random() % SLOW_POLLS_MAX } else { 1 }))
    }

    /// A lying device: `None` when nothing is written at all.
    fn astray(&self, device: &mut device::Device, write: Write) -> Option<Write> {
        if device.chance(device.faults.writes_lost_one_in) {
            device.injected.writes_lost += 1;
            device.lies.insert(self.slot);
            return None;
        }
        // Where a segment header went is not noticed by this version of the format.
        if write.position == 0 || !device.chance(device.faults.writes_elsewhere_one_in) {
            return Some(write);
        }
        device.injected.writes_elsewhere += 1;
        device.lies.insert(self.slot);
        let (slot, file) = self.some_file(device);
        device.lies.insert(slot);
        let position = device.elsewhere(file.len(), write.position, write.octets.len() as u64);
        Some(Write { slot, file, position, ..write })
    }

    /// This file, or any.
    fn some_file(&self, device: &mut device::Device) -> (u32, MemoryFile) {
        let slots = self.storage.memory.slots();
        let slot = slots[device.random() as usize % slots.len()];
        match self.storage.memory.file(slot) {
            Some(file) if device.chance(2) => (slot, file),
            _ => (self.slot, self.file.clone()),
        }
    }

    fn make_stale(&self, device: &mut device::Device, position: u64, octets: &mut [u8]) {
        let first = position.next_multiple_of(BLOCK);
        let blocks: Vec<u64> = (first..position + octets.len() as u64)
            .step_by(BLOCK as usize)
            .filter(|at| device.before.contains_key(&(self.slot, *at)))
            .collect();
        if blocks.is_empty() {
            return;
        }
        let at = blocks[device.random() as usize % blocks.len()];
        let before = &device.before[&(self.slot, at)];
        let into = &mut octets[(at - position) as usize..];
        let len = before.len().min(into.len());
        into[..len].copy_from_slice(&before[..len]);
        device.injected.reads_stale += 1;
        device.lies.insert(self.slot);
    }
}

impl SegmentFile for FaultyFile {
    type Buffer = Vec<u8>;
    type Bytes = Vec<u8>;

    fn buffer(&self, len: usize) -> Vec<u8> {
        self.file.buffer(len)
    }

    /// Dropped half-way it stays in flight: the device goes on with what it was given.
    async fn write(&self, position: u64, buffer: Vec<u8>) -> io::Result<()> {
        let (number, polls) = self.begin(position, buffer)?;
        for _ in 0..polls {
            yield_now().await;
            if self.storage.crashed() {
                return Err(stopped());
            }
        }
        while self.storage.device.borrow().faults.hangs {
            yield_now().await;
        }
        let device = &mut *self.storage.device.borrow_mut();
        let write = device.in_flight.remove(&number).expect("only this takes it out");
        if device.faults.write_error_at.is_some_and(|at| number >= at) {
            device.tear(&write);
            device.injected.write_errors += 1;
            if device.faults.short_writes {
                return Err(io::ErrorKind::WriteZero.into());
            }
            return Err(io::Error::from_raw_os_error(device.faults.write_error.unwrap_or(libc::EIO)));
        }
        if let Some(write) = self.astray(device, write) {
            device.land(&write);
        }
        Ok(())
    }

    async fn read(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
        let (file, from) = {
            let device = &mut *self.storage.device.borrow_mut();
            if device.crashed {
                device.futile();
                return Err(stopped());
            }
            if device.faults.read_error || device.chance(device.faults.read_errors_one_in) {
                device.injected.read_errors += 1;
                device.lies.insert(self.slot);
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            if device.chance(device.faults.reads_elsewhere_one_in) {
                device.injected.reads_elsewhere += 1;
                device.lies.insert(self.slot);
                let (_, file) = self.some_file(device);
                let from = device.elsewhere(file.len(), position, len as u64);
                (file, from)
            } else {
                (self.file.clone(), position)
            }
        };
        let mut octets = file.read(from, len).await?;
        let device = &mut *self.storage.device.borrow_mut();
        if device.chance(device.faults.reads_stale_one_in) {
            self.make_stale(device, position, &mut octets);
        }
        Ok(octets)
    }

    async fn size(&self) -> io::Result<u64> {
        self.file.size().await
    }
}
