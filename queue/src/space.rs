//! Room in the log: what a batch may take of it, and what is promised to messages before they arrive.
//!
//! Lives in a spool, on its shard. Room is what is left in the active segment and the segments that are
//! ready: dead ones and files never used, whose blocks are allocated. A promise is counted against room
//! that exists; where that is not enough, segments are created for it. So what a [`Reservation`] covers is
//! written whatever else fills the device meanwhile.
//!
//! Who may take what, the most patient last ([`Need`]):
//!
//! | need | may take |
//! |---|---|
//! | outcomes that end or steer something | everything: only they win room back |
//! | mail with a reservation | everything: it was promised |
//! | DSNs with their outcomes; deferrals | what is not promised, and half of the spare segments |
//! | mail without a reservation; compaction | what is not promised, and none of the spare segments |
//!
//! All this is reckoned without the indexes of segments: an index is given up for what is promised.
//!
//! Who finds none: mail is refused, outcomes wait in memory; of deferrals the oldest are forgotten when they
//! are too many (after a crash their recipients count fewer attempts). Spare segments are `Options::spare_segments`, and one for every
//! [`SEGMENTS_PER_SPARE`] that exist, so that the outcomes of a big backlog fit, in whatever order it ends.

use crate::canary::{Canary, sings};
use crate::draft::Draft;
use crate::error::{CommitError, Fault};
use crate::layout::{BLOCK, BatchHeader};
use crate::options::Options;
use crate::pending::Group;
use crate::record::{EXTENT_HEAD, RECORD_HEADER};
use crate::sealing::END_BYTES;
use crate::spool::Spool;
use crate::storage::{Storage, is_full, is_short};
use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// An outcome record takes 42 octets and more, a message of 1 KiB some 1,300: a thirty-second is enough.
const SEGMENTS_PER_SPARE: usize = 32;
/// More than the fixed parts of a commit record and its attributes.
const COMMIT_HEAD: usize = 256;
/// More than an extent costs in a commit record.
const EXTENT_ENTRY: u64 = 24;

/// How far a group may go into what is left, least careful first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    #[default]
    Outcome,
    Reserved,
    Spare,
    Mail,
}

/// Why there is no place for a batch.
pub(crate) enum NoRoom {
    Full,
    Fault(Fault),
}

impl From<Fault> for NoRoom {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Room that was promised and not yet used; given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    /// Octets of segments.
    left: u64,
    /// Octets of content that it was made for, with an envelope of so many.
    content_bytes: u64,
    envelope_bytes: usize,
    total: Rc<Cell<u64>>,
}

impl Reservation {
    fn of(total: &Rc<Cell<u64>>, left: u64) -> Self {
        total.set(total.get() + left);
        Self { left, content_bytes: 0, envelope_bytes: 0, total: total.clone() }
    }

    /// Octets of content that are sure to find room.
    pub fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// The part of it that a group of `payload_bytes` needs; `None` when it was not made for so much.
    pub(crate) fn split(&mut self, payload_bytes: usize, sizes: &Sizes) -> Option<Self> {
        let cost = sizes.group_cost(payload_bytes);
        self.left = self.left.checked_sub(cost)?;
        self.total.set(self.total.get() - cost);
        Some(Self::of(&self.total, cost))
    }

    /// The total knows of both already.
    fn join(&mut self, mut other: Self) {
        self.left += std::mem::take(&mut other.left);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.total.set(self.total.get() - self.left);
    }
}

/// What a spool remembers of its room.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// Octets promised and not yet used.
    pub reserved: Rc<Cell<u64>>,
    /// Octets that can surely be promised; there may be more. Saves a walk through the segments.
    sure: Cell<u64>,
    /// Deferrals that found no room.
    pub held: VecDeque<Group>,
    /// How often they were given back to be written.
    pub released: u64,
    /// Why new mail found no room, as long as that has not changed.
    pub short: Option<Fault>,
    /// A segment is being created.
    creating: bool,
    waiting: Vec<Waker>,
}

impl Space {
    /// So much was written, by whomever.
    pub fn shrink(&self, bytes: u64) {
        self.sure.set(self.sure.get().saturating_sub(bytes));
    }
}

/// The sizes that room is reckoned with. Pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Octets of a segment that batches can have.
    segment: u64,
    /// The most that the end of a segment can be left empty for want of place for the next batch.
    waste: u64,
    /// Octets of a segment that are used for sure.
    usable: u64,
    extent: u64,
}

impl Sizes {
    pub fn new(options: &Options) -> Self {
        let segment = options.segment_bytes - BLOCK as u64 - END_BYTES;
        let extent = RECORD_HEADER + EXTENT_HEAD + options.extent_bytes_max;
        let batch = options.batch_payload_max().max(extent);
        let waste = (BatchHeader::batch_bytes(batch) as u64).min(segment);
        // Of two segments one after the other, what one leaves empty is less than what the next begins with.
        let usable = (segment - waste).max(segment / 2);
        Self { segment, waste, usable, extent: options.extent_bytes_max as u64 }
    }

    /// Octets of segments that a group takes at most. One that is bigger than a batch should be may leave
    /// as much empty before it.
    fn group_cost(&self, payload_bytes: usize) -> u64 {
        let bytes = BatchHeader::batch_bytes(payload_bytes) as u64;
        if bytes > self.waste { 2 * bytes } else { bytes }
    }

    /// The same for a message, each of its groups in a batch of its own.
    fn message_cost(&self, content_bytes: u64, envelope_bytes: usize) -> u64 {
        let extents = content_bytes / self.extent;
        let extent = self.group_cost(RECORD_HEADER + EXTENT_HEAD + self.extent as usize);
        let tail = (content_bytes % self.extent + EXTENT_ENTRY * (extents + 1)) as usize;
        let last = 2 * RECORD_HEADER + EXTENT_HEAD + COMMIT_HEAD + tail + envelope_bytes;
        extents * extent + self.group_cost(last)
    }
}

/// What there is. Pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Octets left for batches in the active segment.
    pub active: u64,
    /// Segments that could be taken into use without creating a file.
    pub ready: usize,
    /// Segments that mail leaves alone.
    pub spare: usize,
    /// Octets promised.
    pub reserved: u64,
}

impl Room {
    /// Whether a batch of `bytes` may be written.
    pub fn admits(&self, sizes: &Sizes, bytes: u64, need: Need) -> bool {
        let (left, ready) = if bytes <= self.active {
            (self.active - bytes, self.ready)
        } else if self.ready > 0 && bytes <= sizes.segment {
            (sizes.segment - bytes, self.ready - 1)
        } else {
            return false;
        };
        let after = left + ready as u64 * sizes.usable;
        let spare = self.spare as u64 * sizes.usable;
        match need {
            Need::Outcome | Need::Reserved => true,
            Need::Spare => after >= self.reserved + spare / 2,
            Need::Mail => ready >= self.spare && after >= self.reserved + spare,
        }
    }

    /// Octets that can be promised.
    fn free(&self, sizes: &Sizes) -> u64 {
        let sure = self.active.saturating_sub(sizes.waste) + self.ready as u64 * sizes.usable;
        sure.saturating_sub(self.reserved + self.spare as u64 * sizes.usable)
    }

    /// Segments that must be ready for what is promised and spare, and one to go on.
    fn segments_wanted(&self, sizes: &Sizes) -> usize {
        self.reserved.div_ceil(sizes.usable) as usize + self.spare + 1
    }
}

impl<S: Storage> Spool<S> {
    /// Promises room for a message of up to `content_bytes`, with `envelope_bytes`: the octets of its texts
    /// and 16 for each recipient. Waits for segments to be created where there is not enough.
    ///
    /// # Errors
    /// `Full`: there is no room for it now. Others as for [`Spool::commit`].
    pub async fn reserve(
        &self,
        content_bytes: u64,
        envelope_bytes: usize,
    ) -> Result<Reservation, CommitError> {
        let cost = self.sizes().message_cost(content_bytes, envelope_bytes);
        let mut reservation = self.promise(cost).await?;
        (reservation.content_bytes, reservation.envelope_bytes) = (content_bytes, envelope_bytes);
        Ok(reservation)
    }

    /// A new message with its id, for which room is reserved.
    pub fn begin_reserved(&self, now_micros: u64, reservation: Reservation) -> Draft {
        let mut draft = self.begin(now_micros);
        draft.room = Some(reservation);
        draft
    }

    /// Makes the reservation of a draft one for `content_bytes` in all. Nothing happens to one that covers
    /// so much already, or to a draft without a reservation.
    ///
    /// # Errors
    /// As [`Self::reserve`]; the draft keeps what it has.
    pub async fn extend(&self, draft: &mut Draft, content_bytes: u64) -> Result<(), CommitError> {
        let Some(room) = &mut draft.room else { return Ok(()) };
        if content_bytes <= room.content_bytes {
            return Ok(());
        }
        let sizes = self.sizes();
        let now = sizes.message_cost(room.content_bytes, room.envelope_bytes);
        let then = sizes.message_cost(content_bytes, room.envelope_bytes);
        let more = self.promise(then.saturating_sub(now)).await?;
        room.join(more);
        room.content_bytes = content_bytes;
        Ok(())
    }

    /// After new mail found no room: looks whether there is some again, a whole segment of it. For a timer.
    pub async fn look_for_room(&self) {
        if self.shortage().is_some() {
            let one = self.sizes().usable;
            drop(self.promise_or_try(one, true).await);
        }
    }

    /// Why new mail found no room the last time, the kernel's word, as long as that has not changed.
    pub fn shortage(&self) -> Option<Fault> {
        self.inner.desk.borrow().space.short.clone()
    }

    /// Whether a write is under way; one that does not end is a device that hangs.
    pub fn is_writing(&self) -> bool {
        !self.inner.desk.borrow().in_flight.is_empty()
    }

    async fn promise(&self, cost: u64) -> Result<Reservation, CommitError> {
        // While there is none, only the timer tries: a thousand sessions must not all ask the device.
        self.promise_or_try(cost, self.shortage().is_none()).await
    }

    async fn promise_or_try(&self, cost: u64, create: bool) -> Result<Reservation, CommitError> {
        loop {
            if let Some(reservation) = self.promise_now(cost, create)? {
                return Ok(reservation);
            }
            if !create {
                return Err(CommitError::Full);
            }
            match self.create_segment().await {
                Ok(()) => {}
                Err(NoRoom::Full) => return Err(CommitError::Full),
                Err(NoRoom::Fault(fault)) => {
                    self.poison(fault.clone());
                    return Err(CommitError::Poisoned(fault));
                }
            }
        }
    }

    /// `None` when another segment is needed for it. `clear`: there is room, so a shortage is over.
    fn promise_now(&self, cost: u64, clear: bool) -> Result<Option<Reservation>, CommitError> {
        let mut desk = self.inner.desk.borrow_mut();
        desk.admit()?;
        if desk.space.sure.get() < cost {
            drop(desk);
            let free = self.room().free(&self.sizes());
            desk = self.inner.desk.borrow_mut();
            desk.space.sure.set(free);
        }
        let Some(left) = desk.space.sure.get().checked_sub(cost) else { return Ok(None) };
        desk.space.sure.set(left);
        if clear {
            desk.space.short = None;
        }
        Ok(Some(Reservation::of(&desk.space.reserved, cost)))
    }

    pub(crate) fn sizes(&self) -> Sizes {
        Sizes::new(&self.inner.options)
    }

    pub(crate) fn room(&self) -> Room {
        let active = self.left_in_active();
        let (desk, table) = (self.inner.desk.borrow(), self.inner.table.borrow());
        let files = table.segments.len() + table.free.len();
        Room {
            active,
            ready: table.free.len() + table.reclaimable(self.inner.options.segment_bytes),
            spare: self.inner.options.spare_segments + files / SEGMENTS_PER_SPARE,
            reserved: desk.space.reserved.get(),
        }
    }

    /// Sees to it that a batch of `bytes` has its place and leaves the others theirs.
    pub(crate) async fn provide(&self, bytes: u64, need: Need) -> Result<(), NoRoom> {
        let careless = need <= Need::Reserved;
        let fits =
            || careless && bytes <= self.left_in_active() || self.room().admits(&self.sizes(), bytes, need);
        while !fits() {
            self.create_segment().await?;
        }
        Ok(())
    }

    /// Whether a batch may be written into the active segment without anything being created for it.
    pub(crate) fn has_place(&self, bytes: u64, need: Need) -> bool {
        let careless = need <= Need::Reserved;
        bytes <= self.left_in_active() && (careless || self.room().admits(&self.sizes(), bytes, need))
    }

    /// Octets left for batches in the active segment.
    pub(crate) fn left_in_active(&self) -> u64 {
        let (desk, table) = (self.inner.desk.borrow(), self.inner.table.borrow());
        desk.active.map_or(0, |active| table.segments[&active.sequence].room_without_index(active.position))
    }

    /// Whether the deferrals that were held back find room; `false` also when there are none.
    pub(crate) fn has_room_for_held(&self) -> bool {
        let bytes = {
            let desk = self.inner.desk.borrow();
            let groups = desk.space.held.iter().filter_map(Group::payload_bytes);
            groups.sum::<usize>()
        };
        let batch = BatchHeader::batch_bytes(bytes.min(self.inner.options.batch_payload_max())) as u64;
        bytes > 0 && self.room().admits(&self.sizes(), batch, Need::Spare)
    }

    /// Whether segments may be given back to the file system.
    pub(crate) fn has_surplus(&self) -> bool {
        let room = self.room();
        room.ready > room.segments_wanted(&self.sizes()).max(self.inner.options.idle_segments_max)
    }

    /// One more segment that is ready; one at a time is created.
    pub(crate) async fn create_segment(&self) -> Result<(), NoRoom> {
        let before = self.room().ready;
        let _turn = self.turn().await;
        if self.room().ready > before {
            // Somebody else made one while this waited for its turn.
            return Ok(());
        }
        self.look_at_links().await;
        if self.room().ready > before { Ok(()) } else { self.create_one().await }
    }

    /// Dead segments that a backup may have links to: one that has none is ready. They are looked at when a
    /// segment is taken into use, too; but on a full device none is.
    async fn look_at_links(&self) {
        let bytes = self.inner.options.segment_bytes;
        let linked: Vec<_> = {
            let table = self.inner.table.borrow();
            let linked = table.recyclable().filter(|segment| segment.linked && segment.bytes == bytes);
            linked.map(|segment| (segment.mark.sequence, segment.slot)).collect()
        };
        for (sequence, slot) in linked {
            if !self.is_linked(sequence, slot).await {
                return;
            }
        }
    }

    async fn create_one(&self) -> Result<(), NoRoom> {
        let bytes = self.inner.options.segment_bytes;
        let slot = {
            let mut table = self.inner.table.borrow_mut();
            let used = table.bytes() + table.free.len() as u64 * bytes;
            if used + bytes > self.inner.options.bytes_max {
                drop(table);
                let quota = std::io::Error::other(format!("{used} octets are in use"));
                return Err(self.fall_short("the spool's quota is used up", &quota));
            }
            // Taken before the wait: should this be given up half way, nobody stumbles over the file.
            let slot = table.next_slot;
            table.next_slot += 1;
            slot
        };
        let file = match self.inner.storage.create(slot, bytes).await {
            Ok(file) => file,
            Err(error) => {
                self.inner.table.borrow_mut().next_slot = slot;
                // Nothing has been written yet: what the process lacks now, it may have in a moment.
                let passes = is_full(&error) || is_short(&error) || is_bound(&error);
                return Err(match passes {
                    true => self.fall_short("creating a segment", &error),
                    false => Fault::new("creating a segment", &error).into(),
                });
            }
        };
        if !sings(Canary::ForgetsDirectories)
            && let Err(error) = self.inner.storage.sync_dir().await
        {
            let gone = self.inner.storage.remove(slot).await.is_ok();
            let doing = "syncing the spool directory";
            return Err(match gone && is_short(&error) {
                true => self.fall_short(doing, &error),
                false => Fault::new(doing, &error).into(),
            });
        }
        self.inner.table.borrow_mut().free.push((slot, Rc::new(file)));
        // There may be one more spare segment now.
        self.inner.desk.borrow().space.shrink(u64::MAX);
        self.inner.desk.borrow_mut().stats.segments_created += 1;
        Ok(())
    }

    fn fall_short(&self, doing: &'static str, error: &std::io::Error) -> NoRoom {
        self.inner.desk.borrow_mut().space.short = Some(Fault::new(doing, error));
        NoRoom::Full
    }

    /// Waits until nobody creates a segment, and claims it.
    async fn turn(&self) -> Turn<'_, S> {
        poll_fn(|context| {
            let mut desk = self.inner.desk.borrow_mut();
            if desk.space.creating {
                desk.space.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
            desk.space.creating = true;
            Poll::Ready(())
        })
        .await;
        Turn { spool: self }
    }
}

/// The right to create a segment.
struct Turn<'a, S: Storage> {
    spool: &'a Spool<S>,
}

impl<S: Storage> Drop for Turn<'_, S> {
    fn drop(&mut self) {
        let mut desk = self.spool.inner.desk.borrow_mut();
        desk.space.creating = false;
        let waiting = std::mem::take(&mut desk.space.waiting);
        drop(desk);
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// The process may not make a file so big: a bound set from outside, which leaves what is there alone.
fn is_bound(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::EFBIG)
}

#[cfg(test)]
mod tests {
    use super::Need::{Mail, Outcome, Reserved, Spare};
    use super::*;

    /// Segments of 1,000 of which 900 are sure to be used.
    const SIZES: Sizes = Sizes { segment: 1_000, waste: 100, usable: 900, extent: 50 };

    fn room(active: u64, ready: usize, reserved: u64) -> Room {
        Room { active, ready, spare: 1, reserved }
    }

    #[test]
    fn the_more_room_is_needed_for_others_the_less_a_batch_may_take() {
        let table = [
            ("no segment at all", room(0, 0, 0), None),
            ("does not fit, nothing ready", room(99, 0, 0), None),
            ("the last of the spare", room(100, 0, 0), Some(Reserved)),
            ("half of the spare is left", room(550, 0, 0), Some(Spare)),
            ("a little less than half", room(549, 0, 0), Some(Reserved)),
            ("the spare is untouched", room(100, 1, 0), Some(Mail)),
            ("a new segment, which would be the spare", room(0, 1, 0), Some(Spare)),
            ("a new segment besides the spare", room(0, 2, 0), Some(Mail)),
            ("what is left is promised", room(600, 1, 501), Some(Spare)),
            ("so is half of the spare", room(600, 1, 951), Some(Reserved)),
            ("promised, and room besides", room(600, 1, 500), Some(Mail)),
        ];
        for (what, room, most_patient) in table {
            for need in [Outcome, Reserved, Spare, Mail] {
                let admitted = most_patient.is_some_and(|most| need <= most);
                assert_eq!(room.admits(&SIZES, 100, need), admitted, "{what}: {need:?}");
            }
        }
    }

    #[test]
    fn only_what_is_sure_is_promised() {
        let table = [
            (room(1_000, 0, 0), 0),
            (room(1_000, 1, 0), 900),
            (room(50, 3, 0), 1_800),
            (room(50, 3, 1_700), 100),
            (room(50, 3, 5_000), 0),
        ];
        for (room, free) in table {
            assert_eq!(room.free(&SIZES), free, "{room:?}");
        }
    }

    #[test]
    fn a_message_costs_no_more_than_is_reserved_for_it_however_its_groups_fall() {
        let options = Options { segment_bytes: 1 << 20, extent_bytes_max: 8 << 10, ..Options::default() };
        let sizes = Sizes::new(&options);
        for content in [0, 1, 8_191, 8_192, 8_193, 100_000] {
            let total = Rc::new(Cell::new(0));
            let mut room = Reservation::of(&total, sizes.message_cost(content, 300));
            let extents = content.saturating_sub(1) / sizes.extent;
            let head = RECORD_HEADER + EXTENT_HEAD;
            let mut parts: Vec<_> = (0..extents)
                .map(|_| room.split(head + sizes.extent as usize, &sizes).expect("room"))
                .collect();
            let tail = (content - extents * sizes.extent) as usize;
            let commit = RECORD_HEADER + 54 + 20 * (extents as usize + 1) + 300;
            parts.push(room.split(head + tail + commit, &sizes).expect("room for the last"));
            let promised = total.get();
            drop(room);
            assert!(total.get() > 0 && total.get() <= promised);
            parts.clear();
            assert_eq!(total.get(), 0, "all of it is given back");
        }
    }
}
