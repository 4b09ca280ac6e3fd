//! A message that is arriving. Owned by the session that takes it in.
//!
//! At most `extent_bytes_max` octets are in memory; the rest is in extents already durable, which the
//! draft holds. A draft that is dropped leaves nothing live: its extents die with their segments.

use crate::id::QueueId;
use crate::pending::ExtentRef;
use crate::space::Reservation;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// The ids of drafts that may still become messages.
pub(crate) type OpenDrafts = Rc<RefCell<BTreeSet<QueueId>>>;

/// One of them; it is open as long as this lives.
#[derive(Debug)]
pub(crate) struct OpenDraft {
    id: QueueId,
    among: OpenDrafts,
}

impl OpenDraft {
    pub fn new(id: QueueId, among: &OpenDrafts) -> Self {
        among.borrow_mut().insert(id);
        Self { id, among: among.clone() }
    }
}

impl Drop for OpenDraft {
    fn drop(&mut self) {
        self.among.borrow_mut().remove(&self.id);
    }
}

/// An unfinished message.
#[derive(Debug)]
pub struct Draft {
    pub(crate) id: QueueId,
    pub(crate) buffer: Vec<u8>,
    pub(crate) extents: Vec<ExtentRef>,
    /// Octets in `extents`.
    pub(crate) written: u64,
    pub(crate) extent_bytes_max: usize,
    /// Octets were handed to the spool and their place never came back.
    pub(crate) broken: bool,
    /// Room that was promised to it.
    pub(crate) room: Option<Reservation>,
    /// `None` for a copy that compaction makes: the message is one already.
    pub(crate) open: Option<OpenDraft>,
}

impl Draft {
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Octets appended so far.
    pub fn bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Octets of content that are sure to find room: what was reserved.
    pub fn promised(&self) -> u64 {
        self.room.as_ref().map_or(0, Reservation::content_bytes)
    }

    /// Appends without waiting, when nothing must be written for it: `false` means that nothing was done
    /// and [`crate::Spool::append`] is wanted.
    #[must_use]
    pub fn append_now(&mut self, octets: &[u8]) -> bool {
        let fits = octets.len() <= self.extent_bytes_max - self.buffer.len();
        if fits {
            self.take(octets);
        }
        fits
    }

    /// A message that is not small gets its whole buffer at once: growing by doubling would leave pieces of
    /// many sizes in the allocator, for each of many sessions.
    pub(crate) fn take(&mut self, octets: &[u8]) {
        let len = self.buffer.len() + octets.len();
        if len > self.buffer.capacity() && len > self.extent_bytes_max / 2 {
            self.buffer.reserve_exact(self.extent_bytes_max - self.buffer.len());
        }
        self.buffer.extend_from_slice(octets);
    }
}
