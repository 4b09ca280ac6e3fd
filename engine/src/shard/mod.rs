//! The executors: one pinned glommio executor per ingest shard and per delivery shard.
//!
//! A shard that ends for any reason but a stop is the end of the process: see [`Happening::Ended`].

pub mod event;
pub mod links;
#[cfg(test)]
mod loop_tests;

use crate::channel::Receiver;
use crate::delivery::shard::{self as delivery, Common, DeliveryShard};
use crate::intake::{self, IngestShard, OpenedSpools, Parts};
use crate::listener::{self, Bound};
use crate::observe::{counters, log};
use crate::tls::outward::RouteTls;
use crossbeam::channel::Sender;
use futures_lite::FutureExt;
use glommio::{LocalExecutorBuilder, Placement};
use links::{Links, ToDelivery, ToIngest};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a shard hands its log lines on and has its outcomes written, at the latest.
const TICK: Duration = Duration::from_millis(50);
/// The same while nothing happens.
const QUIET_TICK: Duration = Duration::from_millis(250);
/// Memory that the kernel keeps mapped for the writes of a spool: four batches in flight and what is read beside
/// them; past it a write maps its own. It is resident from the start.
const SPOOL_IO_BYTES: usize = 4 << 20;
/// Entries of an ingest shard's rings. The kernel looks for each operation that waits (a session that is silent is one)
/// in a table that grows with the ring, up to this; with glommio's 128 each turn of the loop would take some 0.1 ms
/// with 10,000 silent sessions.
const INGEST_RING: usize = 4_096;
/// A delivery shard has fewer connections.
const DELIVERY_RING: usize = 1_024;
/// A delivery shard has no files; glommio's least.
const NO_IO_BYTES: usize = 64 << 10;
/// How often a delivery shard forgets next hops and answers that it does not need any more.
const FORGET: Duration = Duration::from_secs(60);
/// How long a stop waits for ends of attempts that the delivery shards have told; what is missed is tried again.
const LATE_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Ingest,
    Delivery,
}

/// A shard, for people: `ingest 0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardName {
    pub role: Role,
    pub index: usize,
}

impl fmt::Display for ShardName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Ingest => "ingest",
            Role::Delivery => "delivery",
        };
        write!(f, "{role} shard {}", self.index)
    }
}

/// What a shard tells the main thread.
#[derive(Debug)]
pub enum Happening {
    /// Recovered and listening.
    Ready(ShardName),
    /// Told to stop, and its sessions have ended or the bound has passed.
    Drained(ShardName),
    Ended(ShardName, Result<(), String>),
    /// SIGTERM or SIGINT.
    Terminate,
    /// The service thread has ended.
    ServiceEnded(Result<(), String>),
}

/// Starts the thread and the executor of a shard.
fn start<F, T>(
    name: ShardName,
    (cpu, spin): (usize, Duration),
    events: Sender<Happening>,
    body: F,
) -> std::io::Result<JoinHandle<()>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Future<Output = Result<(), String>> + 'static,
{
    let (io_memory, ring) = match name.role {
        Role::Ingest => (SPOOL_IO_BYTES, INGEST_RING),
        Role::Delivery => (NO_IO_BYTES, DELIVERY_RING),
    };
    std::thread::Builder::new().name(name.to_string()).spawn(move || {
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let executor = LocalExecutorBuilder::new(Placement::Fixed(cpu))
                .spin_before_park(spin)
                .ring_depth(ring)
                .io_memory(io_memory)
                .make()
                .map_err(|error| format!("its io_uring executor cannot start: {error}"))?;
            executor.run(body())
        }));
        log::flush();
        let ended = ended.unwrap_or_else(|panic| Err(format!("internal fault: {}", panic_text(&*panic))));
        let _ = events.send(Happening::Ended(name, ended));
    })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or(panic.downcast_ref::<&str>().copied())
        .unwrap_or("?")
}

/// Starts an ingest shard. [`Happening::Ready`] follows when it takes mail.
pub fn start_ingest(
    cpu: usize,
    parts: Parts,
    bound: Vec<Bound>,
    inbox: Receiver<ToIngest>,
    events: Sender<Happening>,
) -> std::io::Result<JoinHandle<()>> {
    let name = ShardName { role: Role::Ingest, index: parts.index };
    let told = events.clone();
    let spin = parts.config.shards.spin;
    start(name, (cpu, spin), events, move || run_ingest(name, parts, bound, inbox, told))
}

async fn run_ingest(
    name: ShardName,
    parts: Parts,
    bound: Vec<Bound>,
    inbox: Receiver<ToIngest>,
    events: Sender<Happening>,
) -> Result<(), String> {
    let opened = intake::open_spools(&parts.config, parts.index, parts.links.ingest.len()).await?;
    let OpenedSpools { opened, unfinished } = opened;
    let shard = Rc::new(IngestShard::new(parts, opened));
    let writers: Vec<_> = shard
        .spools()
        .cloned()
        .map(|spool| glommio::spawn_local(async move { spool.writer().await }))
        .collect();
    glommio::spawn_local(intake::pump_overflow(shard.clone())).detach();
    glommio::spawn_local(intake::resume(shard.clone(), shard.first_turn(), unfinished)).detach();
    let ticked = shard.clone();
    let stirred = shard.clone();
    glommio::spawn_local(tick(async move || stirred.stirred.wait().await, move || ticked.tick())).detach();
    // What is adopted is emptied.
    glommio::spawn_local(intake::compact(
        shard.spool.clone(),
        shard.space.clone(),
        shard.config.spool.compaction_share,
    ))
    .detach();
    for spool in shard.spools().cloned() {
        glommio::spawn_local(intake::look_for_room(spool)).detach();
    }
    let accepting: Vec<_> = bound
        .into_iter()
        .map(|bound| glommio::spawn_local(listener::accept_connections(shard.clone(), bound)))
        .collect();
    glommio::spawn_local(drain(name, shard.clone(), events.clone())).detach();
    let _ = events.send(Happening::Ready(name));
    intake::serve_inbox(shard.clone(), inbox).await;
    shard
        .late_ended()
        .or(async {
            glommio::timer::sleep(LATE_MAX).await;
        })
        .await;
    // Only now: an accept that is dropped stays in the ring for a while, and what it takes gets no answer.
    drop(accepting);
    for spool in shard.spools().cloned() {
        if let Err(error) = spool.close().await {
            log::note("ingest", &format!("warning: the last outcomes were not recorded: {error}"));
        }
    }
    for writer in writers {
        writer.await;
    }
    Ok(())
}

/// Waits for the stop and tells when the last session has ended.
async fn drain(name: ShardName, shard: Rc<IngestShard>, events: Sender<Happening>) {
    shard.stop.stopped().await;
    let bound = shard.config.delivery.drain;
    shard
        .sessions_ended()
        .or(async {
            glommio::timer::sleep(bound).await;
        })
        .await;
    let _ = events.send(Happening::Drained(name));
}

/// Starts a delivery shard.
pub fn start_delivery(
    index: usize,
    cpu: usize,
    config: Arc<crate::config::Config>,
    (links, tls, common): (Arc<Links>, Arc<[RouteTls]>, Arc<Common>),
    counters: Arc<counters::Delivery>,
    inbox: Receiver<ToDelivery>,
    events: Sender<Happening>,
) -> std::io::Result<JoinHandle<()>> {
    let name = ShardName { role: Role::Delivery, index };
    let told = events.clone();
    start(name, (cpu, config.shards.spin), events, move || async move {
        let shard = Rc::new(DeliveryShard::new(config, links, counters, &tls, common));
        glommio::spawn_local(delivery::keep_time(shard.clone())).detach();
        let ticked = shard.clone();
        glommio::spawn_local(tick(std::future::pending, move || ticked.tick())).detach();
        let forgets = shard.clone();
        glommio::spawn_local(async move {
            loop {
                glommio::timer::sleep(FORGET).await;
                forgets.forget_unused();
            }
        })
        .detach();
        let _ = told.send(Happening::Ready(name));
        delivery::serve_inbox(shard.clone(), inbox).await;
        let bound = shard.config.delivery.drain;
        shard
            .transactions_over()
            .or(async {
                glommio::timer::sleep(bound).await;
            })
            .await;
        Ok(())
    })
}

/// Does what is done a few times a second. Soon after a line was written to the log or something else stirred, so
/// that an idle relay wakes rarely and a busy one is not held up.
async fn tick(stirred: impl AsyncFn(), mut work: impl FnMut()) {
    loop {
        let happened = async {
            stirred().or(log::written()).await;
            true
        };
        let quiet = async {
            glommio::timer::sleep(QUIET_TICK).await;
            false
        };
        if happened.or(quiet).await {
            glommio::timer::sleep(TICK).await;
        }
        work();
        log::flush();
    }
}
