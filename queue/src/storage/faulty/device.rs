//! What the files of a faulty device share: its seed, its condition, what is in flight.

use super::*;

type Octets = Rc<RefCell<Vec<u8>>>;

/// A write that was begun and whose end nobody knows.
pub(super) struct Write {
    pub slot: u32,
    pub file: MemoryFile,
    pub position: u64,
    pub octets: Vec<u8>,
}

pub(super) struct Device {
    pub faults: Faults,
    pub step: u64,
    pub crashed: bool,
    pub injected: Injected,
    pub lies: BTreeSet<u32>,
    pub in_flight: BTreeMap<u64, Write>,
    /// Entries of the directory whose change was not synced; with the file where it was removed.
    pub created: Vec<u32>,
    pub removed: Vec<(u32, Octets)>,
    /// What blocks held before they were last written, kept while reads may be stale.
    pub before: BTreeMap<(u32, u64), Vec<u8>>,
    /// Calls that failed since somebody got something done.
    pub futile: u64,
    random: u64,
}

impl Device {
    pub fn new(faults: Faults) -> Self {
        Self {
            random: faults.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            faults,
            step: 0,
            crashed: false,
            injected: Injected::default(),
            lies: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            created: Vec::new(),
            removed: Vec::new(),
            before: BTreeMap::new(),
            futile: 0,
        }
    }

    pub fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub fn chance(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.random().is_multiple_of(one_in)
    }

    /// A call failed. Whoever calls again and again without anybody getting anything done is caught here.
    pub fn futile(&mut self) {
        self.futile += 1;
        assert!(self.futile < FUTILE_CALLS_MAX, "an endless loop: {FUTILE_CALLS_MAX} calls failed in a row");
    }

    pub fn dir_error(&mut self) -> io::Result<()> {
        if self.faults.dir_error_at.is_none_or(|at| self.step <= at) {
            return Ok(());
        }
        self.futile();
        self.injected.dir_errors += 1;
        Err(io::Error::from_raw_os_error(libc::EIO))
    }

    pub fn refuses_file(&mut self, files: usize) -> io::Result<()> {
        if files >= self.faults.files_max.unwrap_or(usize::MAX) {
            self.futile();
            self.injected.no_space += 1;
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        if self.chance(self.faults.short_one_in) {
            self.injected.no_descriptors += 1;
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        Ok(())
    }

    /// Whether a stop undoes a change of the directory that was not synced.
    pub fn undoes(&mut self) -> bool {
        let undone = match self.faults.tear {
            Tear::Before => true,
            Tear::After => false,
            Tear::Any | Tear::Torn => self.chance(2),
        };
        self.injected.entries_undone += undone as u64;
        undone
    }

    /// Leaves of a write what the faults say.
    pub fn tear(&mut self, write: &Write) {
        self.injected.cut += 1;
        let sectors = write.octets.len().div_ceil(SECTOR) as u64;
        let how = match self.faults.tear {
            Tear::Before => 0,
            Tear::After => 1,
            Tear::Torn => 2 + self.random() % 2,
            Tear::Any => self.random() % 4,
        };
        let prefix = self.random() % (sectors + 1);
        for (at, sector) in write.octets.chunks(SECTOR).enumerate() {
            let written = match how {
                0 => false,
                1 => true,
                2 => (at as u64) < prefix,
                _ => self.chance(2),
            };
            if written {
                write.file.put(write.position + (at * SECTOR) as u64, sector);
            }
        }
    }

    /// Ends a write well; keeps what was there before, where reads may be stale.
    pub fn land(&mut self, write: &Write) {
        self.futile = 0;
        if self.faults.reads_stale_one_in > 0 {
            for at in (0..write.octets.len() as u64).step_by(BLOCK as usize) {
                let before = write.file.get(write.position + at, BLOCK as usize);
                self.before.insert((write.slot, write.position + at), before);
            }
        }
        write.file.put(write.position, &write.octets);
    }

    /// Another place of a file of `size`, not behind its end.
    pub fn elsewhere(&mut self, size: u64, position: u64, len: u64) -> u64 {
        let places = (size.saturating_sub(len) / BLOCK).max(1);
        let near = position / BLOCK + 1 + self.random() % 8;
        let block = if self.chance(2) { near % places } else { self.random() % places };
        block * BLOCK + position % BLOCK
    }
}
