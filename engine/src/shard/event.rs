//! Waking within one shard: no thread, no lock.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// A flag that tasks of one executor can wait for. Raising it wakes all; waiting lowers it.
#[derive(Default)]
pub struct Event {
    raised: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Event {
    pub fn raise(&self) {
        self.raised.set(true);
        // Waking may run foreign code, so the list is not borrowed meanwhile.
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Returns at once when the event was raised since the last wait.
    pub async fn wait(&self) {
        poll_fn(|context| {
            if self.raised.take() {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

/// Something that is said once and stays said: the shard stops.
///
/// Each of many thousand sessions waits for it next to its socket, so each keeps its own place and
/// pays nothing while nothing happens.
#[derive(Default)]
pub struct Stop {
    stopped: Cell<bool>,
    places: RefCell<Places>,
}

#[derive(Default)]
struct Places {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Stop {
    pub fn stop(&self) {
        self.stopped.set(true);
        self.stir();
    }

    /// Wakes all who wait, without a stop: something else that they look at has changed.
    pub fn stir(&self) {
        let wakers: Vec<Waker> =
            self.places.borrow_mut().wakers.iter_mut().filter_map(Option::take).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// Waits for the stop.
    pub async fn stopped(&self) {
        let place = self.place();
        poll_fn(|context| if place.poll_stopped(context) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    pub fn place(&self) -> Place<'_> {
        let mut places = self.places.borrow_mut();
        let index = places.free.pop().unwrap_or_else(|| {
            places.wakers.push(None);
            places.wakers.len() - 1
        });
        Place { stop: self, index }
    }
}

/// The place of one task that wants to hear of the stop.
pub struct Place<'a> {
    stop: &'a Stop,
    index: usize,
}

impl Place<'_> {
    /// True when stopped; otherwise the task is woken when that happens.
    pub fn poll_stopped(&self, context: &std::task::Context<'_>) -> bool {
        if self.stop.stopped.get() {
            return true;
        }
        let slot = &mut self.stop.places.borrow_mut().wakers[self.index];
        match slot {
            Some(waker) if waker.will_wake(context.waker()) => {}
            _ => *slot = Some(context.waker().clone()),
        }
        false
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut places = self.stop.places.borrow_mut();
        places.wakers[self.index] = None;
        places.free.push(self.index);
    }
}
