//! How much was simulated.

use crate::storage::faulty::Injected;
use std::fmt;
use std::ops::AddAssign;

#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub seeds: u64,
    /// Starts of the spool, and how they ended.
    pub lives: u64,
    pub crashes: u64,
    pub closes: u64,
    pub poisoned: u64,
    /// Starts that a fault cut short.
    pub starts_failed: u64,
    /// Things that callers did.
    pub operations: u64,
    /// Writes, creations, removals, directory syncs.
    pub steps: u64,
    pub acknowledged: u64,
    pub refused: u64,
    pub moved: u64,
    pub abandoned: u64,
    pub injected: Injected,
    /// With a device that lies: messages that were lost, and those of them without any damage reported.
    pub lost: u64,
    pub lost_silently: u64,
    pub damages: u64,
    /// Segments that starts took by their index, each compared with its batches.
    pub indexed: u64,
}

macro_rules! sums {
    ($to:expr, $of:expr, $($field:ident)*) => { $( $to.$field += $of.$field; )* };
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        sums!(self, other, seeds lives crashes closes poisoned starts_failed operations steps acknowledged
            refused moved abandoned lost lost_silently damages indexed);
        *self += other.injected;
    }
}

impl AddAssign<Injected> for Figures {
    fn add_assign(&mut self, other: Injected) {
        sums!(self.injected, other, cut write_errors dir_errors read_errors no_space no_descriptors slow
            entries_undone reads_elsewhere reads_stale writes_elsewhere writes_lost);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, lives, crashes, closes, poisoned, starts_failed, .. } = self;
        let Self { operations, steps, acknowledged, refused, moved, abandoned, indexed, .. } = self;
        let of = &self.injected;
        writeln!(
            f,
            "{seeds} seeds, {lives} starts: {crashes} stopped, {closes} closed, {poisoned} poisoned, \
             {starts_failed} cut short while starting; {indexed} segments taken by their index"
        )?;
        writeln!(
            f,
            "{operations} operations, {steps} steps of the device; messages: {acknowledged} acknowledged, \
             {refused} refused for want of space, {moved} moved, {abandoned} moves given up"
        )?;
        writeln!(
            f,
            "faults: {} writes cut, {} slow, {} write errors, {} directory errors, {} entries undone, {} read \
             errors, {} without space, {} without descriptors",
            of.cut,
            of.slow,
            of.write_errors,
            of.dir_errors,
            of.entries_undone,
            of.read_errors,
            of.no_space,
            of.no_descriptors
        )?;
        write!(
            f,
            "lies: {} reads elsewhere, {} stale, {} writes elsewhere, {} lost; {} damages reported, {} \
             messages lost to them, {} of those at the end of the log and unseen",
            of.reads_elsewhere,
            of.reads_stale,
            of.writes_elsewhere,
            of.writes_lost,
            self.damages,
            self.lost,
            self.lost_silently
        )
    }
}
