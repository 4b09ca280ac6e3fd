//! Mailboxes: the only way between two threads of the relay.
//!
//! Many senders on any thread, one receiver on one executor (glommio or tokio). Bounded; no lock.
//! A wake-up is paid only when the receiver sleeps: while it is awake, further messages are just
//! queued, so a burst costs one wake-up.
//!
//! Who may wait: a sender may wait for a place, a receiver never waits for a place in somebody
//! else's mailbox before it has emptied its own. That is what keeps two shards that send to each
//! other from waiting for each other.

use crossbeam::queue::{ArrayQueue, SegQueue};
use futures_util::task::AtomicWaker;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

/// A bounded mailbox for `capacity` messages.
pub fn mailbox<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(capacity),
        receiver: AtomicWaker::new(),
        waiting_senders: SegQueue::new(),
    });
    (Sender(shared.clone()), Receiver(shared))
}

struct Shared<T> {
    queue: ArrayQueue<T>,
    receiver: AtomicWaker,
    waiting_senders: SegQueue<Waker>,
}

pub struct Sender<T>(Arc<Shared<T>>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Sender<T> {
    /// Gives the message back when the mailbox is full.
    pub fn try_send(&self, message: T) -> Result<(), T> {
        self.0.queue.push(message)?;
        self.0.receiver.wake();
        Ok(())
    }

    /// Waits for a place. Dropped while it waits, it has sent nothing.
    pub async fn send(&self, message: T) {
        let mut unsent = Some(message);
        poll_fn(|context| {
            for registered in [false, true] {
                let message = unsent.take().expect("a sent message is not polled again");
                match self.try_send(message) {
                    Ok(()) => return Poll::Ready(()),
                    Err(message) => unsent = Some(message),
                }
                if !registered {
                    self.0.waiting_senders.push(context.waker().clone());
                }
            }
            Poll::Pending
        })
        .await;
    }
}

pub struct Receiver<T>(Arc<Shared<T>>);

impl<T> Receiver<T> {
    pub fn try_receive(&mut self) -> Option<T> {
        let message = self.0.queue.pop()?;
        while let Some(sender) = self.0.waiting_senders.pop() {
            sender.wake();
        }
        Some(message)
    }

    /// The next message, in the order of sending. Waits for ever when there is none.
    pub async fn receive(&mut self) -> T {
        poll_fn(|context| {
            if let Some(message) = self.try_receive() {
                return Poll::Ready(message);
            }
            self.0.receiver.register(context.waker());
            self.try_receive().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;

    #[test]
    fn a_full_mailbox_gives_the_message_back() {
        let (sender, mut receiver) = mailbox(1);
        assert_eq!(sender.try_send(1), Ok(()));
        assert_eq!(sender.try_send(2), Err(2));
        assert_eq!(receiver.try_receive(), Some(1));
        assert_eq!(receiver.try_receive(), None);
    }

    #[test]
    fn waiting_senders_get_through_in_the_end_and_nothing_is_lost() {
        const EACH: usize = 2_000;
        let (sender, mut receiver) = mailbox(3);
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    block_on(async {
                        for n in 0..EACH {
                            sender.send((thread, n)).await;
                        }
                    })
                })
            })
            .collect();
        let mut next = [0; 4];
        for _ in 0..4 * EACH {
            let (thread, n) = block_on(receiver.receive());
            assert_eq!(n, next[thread], "messages of one sender keep their order");
            next[thread] += 1;
        }
        assert_eq!(receiver.try_receive(), None);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
