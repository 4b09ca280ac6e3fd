//! What the shards need of the loop of their executors: no wake-up from another thread is lost, timers are in time
//! while others come and go, a task that computes is told to yield, and a sleep is left for a reason only.

use futures_lite::FutureExt;
use glommio::timer::{Timer, timeout};
use glommio::{LocalExecutorBuilder, Placement};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// What none of these may take; a loop that sleeps too long would sleep for longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `work` on an executor of its own and fails when it does not end.
fn on_an_executor<W, F>(work: W) -> F::Output
where
    W: FnOnce() -> F + Send + 'static,
    F: Future + 'static,
    F::Output: Send + 'static,
{
    let (done, ended) = channel();
    std::thread::spawn(move || {
        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .preempt_timer(Duration::from_millis(10))
            .make()
            .expect("an executor");
        let _ = done.send(executor.run(work()));
    });
    match ended.recv_timeout(PATIENCE) {
        Ok(output) => output,
        Err(RecvTimeoutError::Timeout) => panic!("the executor sleeps on"),
        Err(RecvTimeoutError::Disconnected) => panic!("the executor panicked"),
    }
}

/// A number that one thread raises and another waits for.
#[derive(Default)]
struct Count {
    value: AtomicU64,
    waker: Mutex<Option<Waker>>,
}

impl Count {
    fn raise(&self) {
        self.value.fetch_add(1, Ordering::SeqCst);
        if let Some(waker) = self.waker.lock().unwrap().take() {
            waker.wake();
        }
    }

    async fn reaches(&self, wanted: u64) {
        std::future::poll_fn(|context| {
            *self.waker.lock().unwrap() = Some(context.waker().clone());
            if self.value.load(Ordering::SeqCst) >= wanted { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// How often this thread has gone to sleep.
fn sleeps() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

#[test]
fn no_wake_up_from_another_thread_is_lost() {
    const TIMES: u64 = 20_000;
    let (there, back) = (Arc::new(Count::default()), channel());
    let raised = there.clone();
    let other = std::thread::spawn(move || {
        // Each is raised as the executor is about to sleep after the one before.
        for _ in 0..TIMES {
            raised.raise();
            if back.1.recv_timeout(PATIENCE).is_err() {
                return;
            }
        }
    });
    on_an_executor(move || async move {
        for nth in 1..=TIMES {
            there.reaches(nth).await;
            back.0.send(()).unwrap();
        }
    });
    other.join().unwrap();
}

#[test]
fn an_earlier_timer_is_in_time_while_a_later_one_is_armed() {
    let (least, all) = on_an_executor(|| async {
        let later = glommio::spawn_local(Timer::new(2 * PATIENCE)).detach();
        Timer::new(Duration::from_millis(1)).await;
        let begun = Instant::now();
        let mut least = Duration::MAX;
        for _ in 0..50 {
            let asked = Instant::now();
            Timer::new(Duration::from_millis(2)).await;
            least = least.min(asked.elapsed());
        }
        later.cancel();
        (least, begun.elapsed())
    });
    assert!(least >= Duration::from_millis(2), "{least:?}");
    assert!(all < PATIENCE / 2, "{all:?}");
}

#[test]
fn a_later_timer_fires_though_an_earlier_one_was_cancelled() {
    let took = on_an_executor(|| async {
        let begun = Instant::now();
        for _ in 0..20 {
            // The five milliseconds are armed in the kernel when the task is woken after one.
            let short = timeout(Duration::from_millis(5), async {
                Timer::new(Duration::from_millis(1)).await;
                Ok(())
            });
            short.await.unwrap();
            Timer::new(Duration::from_millis(15)).await;
        }
        begun.elapsed()
    });
    assert!(took >= Duration::from_millis(20 * 16), "{took:?}");
    assert!(took < PATIENCE / 2, "{took:?}");
}

#[test]
fn tasks_that_can_run_are_never_slept_over() {
    const TIMES: u64 = 3_000;
    let (there, (ask, asked)) = (Arc::new(Count::default()), channel());
    let raised = there.clone();
    let other = std::thread::spawn(move || {
        while asked.recv().is_ok() {
            raised.raise();
        }
    });
    on_an_executor(move || async move {
        for nth in 1..=TIMES {
            // Armed while the executor sleeps, cancelled, and due while the task below goes on yielding.
            let microseconds = 60 + nth % 100;
            let mut timer = Timer::new(Duration::from_micros(microseconds));
            ask.send(()).unwrap();
            there
                .reaches(nth)
                .or(async {
                    (&mut timer).await;
                    std::future::pending().await
                })
                .await;
            drop(timer);
            let until = Instant::now() + Duration::from_micros(2 * microseconds);
            while Instant::now() < until {
                glommio::executor().yield_task_queue_now().await;
            }
        }
    });
    other.join().unwrap();
}

#[test]
fn a_task_that_computes_is_told_to_yield_when_its_time_is_over() {
    let took = on_an_executor(|| async {
        glommio::executor().yield_task_queue_now().await;
        let begun = Instant::now();
        while !glommio::executor().need_preempt() {
            assert!(begun.elapsed() < PATIENCE / 2);
            std::hint::spin_loop();
        }
        begun.elapsed()
    });
    assert!(took >= Duration::from_millis(5), "at once, after {took:?}");
}

#[test]
fn a_sleep_is_left_for_a_reason_only() {
    const TIMES: u64 = 200;
    let slept = on_an_executor(|| async {
        let later = glommio::spawn_local(Timer::new(2 * PATIENCE)).detach();
        let before = sleeps();
        for _ in 0..TIMES {
            Timer::new(Duration::from_millis(1)).await;
        }
        later.cancel();
        sleeps() - before
    });
    // One for each timer, and at most one where a timer of before was still in the kernel.
    assert!((TIMES / 2..=2 * TIMES + 20).contains(&slept), "{slept} sleeps for {TIMES} timers");
}
