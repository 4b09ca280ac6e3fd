//! Input buffers of one ingest shard.
//!
//! A session holds one only between a successful read and the moment its octets are used up, so ten
//! thousand idle sessions hold none.

use std::cell::RefCell;

/// One read from a socket brings at most this much.
pub const BUFFER_BYTES: usize = 64 * 1024;
/// Buffers kept for the next reader; more are given back to the allocator.
const SPARE_MAX: usize = 64;

#[derive(Default)]
pub struct Buffers(RefCell<Vec<Box<[u8]>>>);

impl Buffers {
    pub fn take(&self) -> Box<[u8]> {
        self.0.borrow_mut().pop().unwrap_or_else(|| vec![0; BUFFER_BYTES].into())
    }

    pub fn give_back(&self, buffer: Box<[u8]>) {
        let mut spare = self.0.borrow_mut();
        if spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    }
}
