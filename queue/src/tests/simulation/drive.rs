//! An executor that notices when nothing goes on: everybody waits and nobody will be woken, or everybody is
//! busy and nothing comes of it.

use super::FaultyStorage;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Polls without a step of the device. Holding a whole spool against the model takes some thousands.
const IDLE_POLLS_MAX: u64 = 200_000;

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a future to its end.
pub fn drive<T>(storage: &FaultyStorage, future: impl Future<Output = T>) -> T {
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Waker::from(flag.clone());
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    let (mut steps, mut idle) = (storage.steps(), 0);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        assert!(flag.0.swap(false, Ordering::Relaxed), "everybody waits, and nobody will be woken");
        idle = if storage.steps() == steps { idle + 1 } else { 0 };
        steps = storage.steps();
        assert!(idle < IDLE_POLLS_MAX, "an endless loop: {idle} polls without a step of the device");
    }
}
