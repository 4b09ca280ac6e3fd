//! The writing side of a spool: batches are written while the next one gathers.
//!
//! Runs as one task on the spool's shard. The order of writes is the crash argument (`FORMAT.md`): a
//! segment is sealed before the next one gets its header, and that header is durable before a batch
//! follows it.

use crate::desk::Active;
use crate::digest::Digest;
use crate::error::Fault;
use crate::layout::{BLOCK, BatchHeader, FORMAT_VERSION, SegmentHeader};
use crate::pending::Gathering;
use crate::record::Seal;
use crate::recovery::Unborn;
use crate::segments::{Mark, REFERS_TO_NONE, Segment, Status};
use crate::space::{Need, NoRoom, Room};
use crate::spool::Spool;
use crate::storage::{SegmentFile, Storage};
use flight::{Flight, Next};
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::task::Poll;

mod flight;

/// Segments given back to the file system each time another one is taken into use: a bound on how long
/// the commits that wait for it are held up.
const REMOVALS_AT_ONCE: usize = 4;

impl<S: Storage> Spool<S> {
    /// Writes batches until the spool is closed. The shard spawns it once; without it nothing becomes
    /// durable; a second one ends at once. Dropped while a write is under way it poisons the spool, as what
    /// is on disk is not known.
    pub async fn writer(&self) {
        let already = std::mem::replace(&mut self.inner.desk.borrow_mut().writing, true);
        if already {
            return;
        }
        let _running = Running { spool: self };
        let mut flight = Flight::default();
        loop {
            match self.next(&mut flight).await {
                Next::Write(batch) => self.write(&mut flight, batch).await,
                Next::Landed => self.land(&mut flight),
                Next::Failed(fault) => {
                    flight = Flight::default();
                    self.poison(fault);
                }
                Next::End => break,
            }
        }
        if let Some(active) = self.active()
            && self.fault().is_none()
            && let Err(fault) = self.seal(active, Seal::Closed).await
        {
            self.poison(fault);
        }
    }

    /// Finds place for a batch and begins to write it.
    async fn write(&self, flight: &mut Flight, mut batch: Gathering) {
        let bytes = batch.batch_bytes() as u64;
        let beside_index = bytes <= self.left_beside_index(batch.index_growth_max);
        let may_join = beside_index && self.has_place(bytes, batch.need);
        if !flight.is_empty() && !may_join {
            // Files change, and batches are refused, with nothing in flight.
            if let Err(fault) = self.land_all(flight).await {
                return self.poison(fault);
            }
        }
        let active = loop {
            let place = self.make_room(batch.batch_bytes() as u64, batch.index_growth_max, batch.need).await;
            if self.fault().is_some() {
                // Somebody else's: a segment was created for a reservation. Who waits has been told.
                return;
            }
            match place {
                Ok(active) => break active,
                Err(NoRoom::Full) if self.inner.desk.borrow_mut().sift(&mut batch) => {
                    if batch.is_empty() {
                        let wakers = self.inner.desk.borrow_mut().drop_empty(batch);
                        return wakers.into_iter().for_each(|waker| waker.wake());
                    }
                }
                Err(NoRoom::Full) => return self.refuse(batch),
                Err(NoRoom::Fault(fault)) => return self.poison(fault),
            }
        };
        self.take_off(flight, batch, active);
    }

    fn refuse(&self, batch: Gathering) {
        let mut desk = self.inner.desk.borrow_mut();
        let last_try = desk.closing && !batch.mail;
        let wakers = desk.refuse(batch);
        if last_try {
            // Outcomes that find no room now never will.
            desk.pending.clear();
        }
        drop(desk);
        wakers.into_iter().for_each(|waker| waker.wake());
    }

    pub(crate) fn batch_header(&self, active: Active, payload_bytes: usize, records: u32) -> BatchHeader {
        let desk = self.inner.desk.borrow();
        BatchHeader {
            segment: active.sequence,
            sequence: desk.last_batch + 1,
            durable_through: desk.durable_batch,
            payload_bytes: payload_bytes as u32,
            records,
            block: (active.position / BLOCK as u64) as u32,
        }
    }

    /// Octets left for a batch in the active segment, when its index and what the batch adds to that, at
    /// most `growth`, have their place too.
    fn left_beside_index(&self, growth: usize) -> u64 {
        self.active().map_or(0, |active| {
            self.inner.table.borrow().segments[&active.sequence].room(active.position, growth)
        })
    }

    /// Finds place for a batch, with what the end of the segment will need.
    async fn make_room(&self, bytes: u64, growth: usize, need: Need) -> Result<Active, NoRoom> {
        loop {
            self.provide(bytes, need).await?;
            if let Some(active) = self.active() {
                if bytes <= self.left_beside_index(growth) {
                    return Ok(active);
                }
                if bytes <= self.left_in_active() && !self.may_seal_early(active, bytes).await? {
                    self.give_index_up(active);
                    return Ok(active);
                }
                self.seal(active, Seal::Full).await?;
            }
            self.next_segment().await?;
        }
    }

    /// Whether a segment that has place for the batch, but not for an index too, may be sealed for the sake
    /// of the index: not an empty one, as no other has more place, and not when that would leave too little
    /// for what is promised and spare. Promises are reckoned without indexes.
    async fn may_seal_early(&self, active: Active, bytes: u64) -> Result<bool, NoRoom> {
        if active.position == BLOCK as u64 {
            return Ok(false);
        }
        while !(Room { active: 0, ..self.room() }).admits(&self.sizes(), bytes, Need::Mail) {
            match self.create_segment().await {
                Ok(()) => {}
                Err(NoRoom::Full) => return Ok(false),
                Err(fault) => return Err(fault),
            }
        }
        Ok(true)
    }

    fn give_index_up(&self, active: Active) {
        let mut table = self.inner.table.borrow_mut();
        let segment = table.segments.get_mut(&active.sequence).expect("the active segment is there");
        segment.digest = None;
    }

    fn active(&self) -> Option<Active> {
        self.inner.desk.borrow().active
    }

    /// Files that were never taken into use: of the right size they are kept for it.
    pub(crate) async fn adopt_unborn(&self, unborn: Vec<Unborn<S::File>>) -> Result<(), Fault> {
        let mut removed = false;
        for Unborn { slot, bytes, file } in unborn {
            if bytes == self.inner.options.segment_bytes {
                self.inner.table.borrow_mut().free.push((slot, Rc::new(file)));
            } else {
                drop(file);
                let gone = self.inner.storage.remove(slot).await;
                gone.map_err(|error| Fault::new("removing a file that was never used", &error))?;
                removed = true;
            }
        }
        if removed {
            self.sync_dir().await?;
        }
        Ok(())
    }

    async fn sync_dir(&self) -> Result<(), Fault> {
        let synced = self.inner.storage.sync_dir().await;
        synced.map_err(|error| Fault::new("syncing the spool directory", &error))
    }

    /// Takes a segment into use: a dead one, else a fresh one. One is ready.
    async fn next_segment(&self) -> Result<(), NoRoom> {
        self.remove_idle().await?;
        let bytes = self.inner.options.segment_bytes;
        let (victim, slot, file) = self.file_for_use().await?;
        let header = SegmentHeader {
            version: FORMAT_VERSION,
            spool: self.inner.number.get(),
            sequence: self.inner.desk.borrow().last_segment + 1,
            segment_bytes: bytes,
            salt: RandomState::new().hash_one(slot),
            id_floor: self.inner.desk.borrow().id_micros,
            lineage: Some(self.inner.lineage),
        };
        let mut block = file.buffer(BLOCK);
        header.encode(block.as_mut());
        let written = file.write(0, block).await;
        written.map_err(|error| Fault::new("writing a segment header", &error))?;
        self.install(&header, victim, slot, file);
        Ok(())
    }

    /// A file to write over, with the segment that dies by it, or one never used.
    async fn file_for_use(&self) -> Result<(Option<u64>, u32, Rc<S::File>), NoRoom> {
        let bytes = self.inner.options.segment_bytes;
        loop {
            let victim = {
                let table = self.inner.table.borrow();
                let victim = table.recyclable().find(|segment| segment.bytes == bytes && !segment.linked);
                victim.map(|segment| (segment.mark.sequence, segment.slot, segment.file.clone()))
            };
            let Some((sequence, slot, file)) = victim else {
                // A backup may have made links to what counted as ready.
                if self.inner.table.borrow().free.is_empty() {
                    self.create_segment().await?;
                    continue;
                }
                let (slot, file) = self.inner.table.borrow_mut().free.remove(0);
                return Ok((None, slot, file));
            };
            if !self.is_linked(sequence, slot).await {
                return Ok((Some(sequence), slot, file));
            }
        }
    }

    /// Whether the file of a dead segment has other names, of which no news counts as yes; remembers it.
    pub(crate) async fn is_linked(&self, sequence: u64, slot: u32) -> bool {
        let linked = self.inner.storage.links(slot).await.map_or(true, |links| links != 1);
        if linked {
            self.inner.desk.borrow().space.shrink(u64::MAX);
        }
        if let Some(segment) = self.inner.table.borrow_mut().segments.get_mut(&sequence) {
            segment.linked = linked;
        }
        linked
    }

    fn install(&self, header: &SegmentHeader, victim: Option<u64>, slot: u32, file: Rc<S::File>) {
        let mut table = self.inner.table.borrow_mut();
        let mut desk = self.inner.desk.borrow_mut();
        if let Some(victim) = victim {
            table.segments.remove(&victim);
            desk.stats.segments_recycled += 1;
        }
        let sequence = header.sequence;
        let segment = Segment {
            mark: Mark::new(sequence),
            slot,
            bytes: header.segment_bytes,
            file,
            seed: header.seed(),
            status: Status::Active,
            refers_to: REFERS_TO_NONE,
            digest: Some(Box::new(Digest::new(header.id_floor))),
            linked: false,
        };
        table.segments.insert(sequence, segment);
        desk.last_segment = sequence;
        desk.stats.bytes_written += BLOCK as u64;
        desk.durable_end = BLOCK as u64;
        desk.active = Some(Active { sequence, position: BLOCK as u64 });
    }

    /// Gives back dead segments of another size, those that a backup has links to, and those beyond what is
    /// kept idle. Each removal is durable before the next: a segment must not be gone before those that it speaks of. The newest stays:
    /// it knows which ids and sequences were given out, until another header knows it.
    async fn remove_idle(&self) -> Result<(), Fault> {
        let bytes = self.inner.options.segment_bytes;
        for _ in 0..REMOVALS_AT_ONCE {
            let surplus = {
                let excess = self.has_surplus();
                let table = self.inner.table.borrow();
                let last = table.segments.keys().next_back().copied();
                let unfit = |segment: &&Segment<S::File>| segment.bytes != bytes || segment.linked;
                let surplus = table
                    .recyclable()
                    .find(|segment| Some(segment.mark.sequence) != last && (excess || unfit(segment)));
                surplus.map(|segment| (segment.mark.sequence, segment.slot, excess || segment.bytes != bytes))
            };
            let Some((sequence, slot, certain)) = surplus else { break };
            if !certain && !self.is_linked(sequence, slot).await {
                continue;
            }
            let gone = self.inner.storage.remove(slot).await;
            gone.map_err(|error| Fault::new("removing an idle segment", &error))?;
            self.sync_dir().await?;
            self.inner.table.borrow_mut().segments.remove(&sequence);
            let mut desk = self.inner.desk.borrow_mut();
            desk.space.shrink(u64::MAX);
            desk.stats.segments_removed += 1;
        }
        Ok(())
    }

    pub(crate) fn poison(&self, fault: Fault) {
        let wakers = self.inner.desk.borrow_mut().poison(fault);
        wakers.into_iter().for_each(|waker| waker.wake());
    }

    /// Waits until the writer is gone.
    pub(crate) async fn sealed(&self) {
        poll_fn(|context| {
            let mut desk = self.inner.desk.borrow_mut();
            if !desk.writing {
                return Poll::Ready(());
            }
            desk.closer = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Set while a writer runs.
struct Running<'a, S: Storage> {
    spool: &'a Spool<S>,
}

impl<S: Storage> Drop for Running<'_, S> {
    fn drop(&mut self) {
        let mut desk = self.spool.inner.desk.borrow_mut();
        desk.writing = false;
        let closer = desk.closer.take();
        let cut_short = !desk.in_flight.is_empty();
        drop(desk);
        if cut_short {
            let gone = std::io::Error::other("the writer was stopped");
            self.spool.poison(Fault::new("writing a batch", &gone));
        }
        closer.into_iter().for_each(|closer| closer.wake());
    }
}
