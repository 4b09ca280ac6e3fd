//! What goes wrong in a life, by the seed.

use super::world::World;
use crate::storage::faulty::Faults;
use crate::*;

/// Steps of the device within which most lives end.
const LIFE_STEPS: u64 = 200;

/// How a spool is opened, and what its device does while it lives.
pub struct Plan {
    pub options: Options,
    /// While the spool is opened.
    pub opening: Faults,
    /// From then on.
    pub living: Faults,
    /// Closes in order, if nothing stops it before.
    pub closes: bool,
}

impl World {
    /// `files`: that exist.
    pub fn plan(&self, files: usize) -> Plan {
        let mut opening = Faults { seed: self.random(u64::MAX >> 1), ..Faults::default() };
        opening.slow_one_in = [0, 2, 8][self.random(3) as usize];
        let closes = self.random(8) == 0;
        if !closes {
            opening.crash_at = Some(match self.random(5) {
                0 => self.random(8),
                _ => self.random(LIFE_STEPS),
            });
        }
        match self.random(8) {
            0 => opening.write_error_at = Some(self.random(80)),
            1 => opening.files_max = Some(files.max(2) + self.random(3) as usize),
            2 => opening.dir_error_at = Some(self.random(80)),
            3 => opening.short_one_in = 3,
            _ => {}
        }
        let mut living = opening.clone();
        match self.random(8) {
            0 => living.read_errors_one_in = 20,
            1 => living.reads_elsewhere_one_in = 10,
            2 => living.reads_stale_one_in = 5,
            _ => {}
        }
        if self.lying {
            self.plan_lies(&mut opening, &mut living);
        }
        Plan { options: self.options(), opening, living, closes }
    }

    fn plan_lies(&self, opening: &mut Faults, living: &mut Faults) {
        match self.random(6) {
            0 => living.writes_lost_one_in = 40,
            1 | 2 => living.writes_elsewhere_one_in = 40,
            3 => opening.reads_elsewhere_one_in = 40,
            4 => opening.read_errors_one_in = 40,
            _ => {}
        }
    }

    /// Mostly the same as before, sometimes with segments of another size.
    fn options(&self) -> Options {
        let small = super::super::harness::small();
        let segment_bytes = match self.random(6) {
            0 => 96 << 10,
            1 => 128 << 10,
            _ => small.segment_bytes,
        };
        Options {
            segment_bytes,
            batch_bytes_max: [32 << 10, 12 << 10][self.random(4) as usize / 3],
            idle_segments_max: [8, 3][self.random(4) as usize / 3],
            ..small
        }
    }
}
