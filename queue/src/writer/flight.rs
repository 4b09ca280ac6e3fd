//! Batches in flight: several may be written at a time, and they land in the order of the log.
//!
//! Belongs to the one writer of a spool, on its shard. A batch that is alone takes off at once. Another one
//! joins those in flight only when it has gathered enough that its padding and its flush are worth it
//! (`desk::Desk::may_take_off`), and only into the same segment: a seal, and whatever is done to files,
//! waits until all have landed. So the writer has the segments to itself whenever it changes them.
//!
//! The device may finish them in any order. **A batch has landed, and its waiters are told, when it and all
//! before it are durable**: a start that finds a batch missing cuts it with all that were made before it was
//! durable, so what is behind it must not have been acknowledged. The first that fails fails all: nobody is
//! told of those still in flight, and a start may find any of them, as of a batch that a crash cut. So it
//! is when something else poisons the spool meanwhile: who waits has been told, and what lands counts no more.

use super::Spool;
use crate::canary::{Canary, sings};
use crate::desk::Active;
use crate::error::Fault;
use crate::pending::{Gathering, Placed};
use crate::segments::Mark;
use crate::storage::{SegmentFile, Storage};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A batch that was laid out and is being written.
struct Airborne {
    /// `None`: it is durable.
    write: Option<Pin<Box<dyn Future<Output = io::Result<()>>>>>,
    batch: Gathering,
    placed: Vec<Placed>,
    segment: Rc<Mark>,
    position: u64,
    sequence: u64,
}

/// All of them, in the order of the log.
#[derive(Default)]
pub(super) struct Flight {
    batches: VecDeque<Airborne>,
}

/// What the writer has to do next.
pub(super) enum Next {
    Write(Gathering),
    Landed,
    Failed(Fault),
    /// The spool is closed, and all is written.
    End,
}

impl Flight {
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Goes on with the writes; gives whether the first one is durable.
    fn poll(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        for airborne in &mut self.batches {
            if let Some(write) = &mut airborne.write
                && let Poll::Ready(done) = write.as_mut().poll(context)
            {
                airborne.write = None;
                if !sings(Canary::IgnoresWriteErrors) {
                    done?;
                }
            }
        }
        Ok(self.batches.front().is_some_and(|first| first.write.is_none() || sings(Canary::AnswersEarly)))
    }
}

impl<S: Storage> Spool<S> {
    /// Waits for whatever comes first: a write that ended, or something to be written.
    pub(super) async fn next(&self, flight: &mut Flight) -> Next {
        poll_fn(|context| {
            match flight.poll(context) {
                Ok(true) => return Poll::Ready(Next::Landed),
                Ok(false) => {}
                Err(error) => return Poll::Ready(Next::Failed(Fault::new("writing a batch", &error))),
            }
            let growth = self.inner.desk.borrow().pending.front().map_or(0, |batch| batch.index_growth_max);
            let room = self.left_beside_index(growth);
            let mut desk = self.inner.desk.borrow_mut();
            match desk.next_batch(room) {
                Some(batch) => Poll::Ready(Next::Write(batch)),
                None if desk.closing && desk.in_flight.is_empty() => Poll::Ready(Next::End),
                None => {
                    desk.writer = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Lays a batch out where there is room for it, and begins to write it.
    pub(super) fn take_off(&self, flight: &mut Flight, batch: Gathering, active: Active) {
        let bytes = batch.batch_bytes();
        let (file, segment, seed) = {
            let mut table = self.inner.table.borrow_mut();
            let segment = table.segments.get_mut(&active.sequence).expect("the active segment is there");
            segment.refer_to(batch.refers_to());
            (segment.file.clone(), segment.mark.clone(), segment.seed)
        };
        let header = self.batch_header(active, batch.payload_bytes, batch.records());
        let mut buffer = file.buffer(bytes);
        let placed = batch.lay_out(&header, seed, active.position, buffer.as_mut());
        self.digest(&batch, active, buffer.as_mut());
        let mut desk = self.inner.desk.borrow_mut();
        desk.last_batch = header.sequence;
        desk.space.shrink(bytes as u64);
        desk.active = Some(Active { position: active.position + bytes as u64, ..active });
        drop(desk);
        let position = active.position;
        let write = Box::pin(async move { file.write(position, buffer).await });
        let (write, sequence) = (Some(write as _), header.sequence);
        flight.batches.push_back(Airborne { write, batch, placed, segment, position, sequence });
    }

    /// Gathers what the segment's index will say of a batch. A segment is sealed when all have landed, so
    /// what is in flight will be durable before the index is written, or there will be none.
    fn digest(&self, batch: &Gathering, active: Active, laid_out: &[u8]) {
        let mut table = self.inner.table.borrow_mut();
        let segment = table.segments.get_mut(&active.sequence).expect("the active segment is there");
        let Some(digest) = &mut segment.digest else { return };
        digest.batch(active.position, laid_out, batch.payload_bytes);
        batch.ends().for_each(|id| digest.ended(id));
        if !digest.is_sound() {
            segment.digest = None;
        }
    }

    /// Waits until nothing is in flight any more.
    pub(super) async fn land_all(&self, flight: &mut Flight) -> Result<(), Fault> {
        while !flight.is_empty() {
            let landed = poll_fn(|context| match flight.poll(context) {
                Ok(false) => Poll::Pending,
                Ok(true) => Poll::Ready(Ok(())),
                Err(error) => Poll::Ready(Err(Fault::new("writing a batch", &error))),
            });
            if let Err(fault) = landed.await {
                *flight = Flight::default();
                return Err(fault);
            }
            self.land(flight);
        }
        Ok(())
    }

    /// The first in flight is durable, and so are all before it.
    pub(super) fn land(&self, flight: &mut Flight) {
        let Airborne { batch, placed, segment, position, sequence, .. } =
            flight.batches.pop_front().expect("the first one landed");
        let mut desk = self.inner.desk.borrow_mut();
        if desk.poisoned.is_some() {
            return;
        }
        desk.durable_batch = sequence;
        desk.durable_end = position + batch.batch_bytes() as u64;
        let wakers = desk.complete(batch, &placed, &segment, position);
        drop(desk);
        wakers.into_iter().for_each(|waker| waker.wake());
    }
}
