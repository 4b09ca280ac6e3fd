//! `sluice run`: starts the threads in order, waits, and stops them in order.
//!
//! ```text
//! start:  host checks → spool lock → listeners bound → log → service → delivery → ingest → ready
//! stop:   ingest: no new session │ delivery: open transactions end │ ingest: spool written out │ end
//! ```
//!
//! Lives on the main thread, which only waits.

use super::check::warnings;
use super::{Failed, IO_ERROR, NO_PERMISSION, OS_ERROR, SOFTWARE, UNAVAILABLE};
use crate::channel::mailbox;
use crate::config::Config;
use crate::delivery::shard::Common;
use crate::delivery::warm_up_keeper::WarmUpKeeper;
use crate::intake::Parts;
use crate::intake::limits::Limiter;
use crate::observe::log;
use crate::service::{self, Service};
use crate::session;
use crate::shard::links::{Budget, HANDOVERS_MAX, Links, QUESTIONS_MAX, REPORTS_MAX, ToDelivery, ToIngest};
use crate::shard::{self, Happening, Role, ShardName};
use crate::tls::outward::RouteTls;
use crate::{admin, listener};
use crossbeam::channel::{Receiver, unbounded};
use futures_lite::future::block_on;
use rustls::server::ProducesTickets;
use sluice_tuning::notify::{Word, notify};
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// After the drain: for the last outcomes to be written and the threads to end.
const FINISH: Duration = Duration::from_secs(5);

/// Runs the relay until SIGTERM. `started` is called once, when mail is taken.
pub fn run(config: Config, started: impl FnOnce(&Config) -> Result<(), Failed>) -> Result<(), Failed> {
    let config = Arc::new(config);
    check_host(&config)?;
    pin_service(&config.shards.service_cpus)?;
    // Without this it only takes more memory.
    let _ = sluice_tuning::refuse_huge_pages();
    let _lock = lock_spool(&config.spool.path)?;
    let bound = listener::bind_all(&config, config.shards.ingest_cpus.len())
        .map_err(|error| Failed::new(UNAVAILABLE, error))?;
    let admin = bind_admin(&config)?;
    let keys = crate::tls::tickets().map_err(|sentence| Failed::new(OS_ERROR, sentence))?;
    let tls = crate::tls::listeners(&config, &keys)
        .map_err(|sentence| Failed::new(super::CONFIGURATION, sentence))?;
    let outward = crate::tls::outward::routes(&config)
        .map_err(|sentence| Failed::new(super::CONFIGURATION, sentence))?;
    let log_thread = log::start(&config.hostname, config.log.file.as_deref()).map_err(|error| {
        let path = config.log.file.as_deref().unwrap_or(Path::new("")).display();
        Failed::io(format_args!("log.file {path} cannot be opened"), &error)
    })?;
    warnings(&config).lines().for_each(|warning| log::note("main", warning));
    let result = match Relay::start(&config, bound, admin, (tls, keys), outward.into()) {
        Ok(mut relay) => relay.run(started),
        Err(error) => Err(Failed::new(OS_ERROR, format_args!("a thread cannot be started: {error}"))),
    };
    if let Err(failed) = &result {
        log::note("main", &format!("fatal: {}", failed.sentence));
    }
    log_thread.finish();
    result
}

/// What the host must offer; warnings go to standard error before the log is open.
fn check_host(config: &Config) -> Result<(), Failed> {
    for finding in config.start_checks() {
        if finding.severity == sluice_tuning::Severity::Fatal {
            return Err(Failed::new(finding.exit as u8, finding.sentence));
        }
        eprintln!("sluice: warning: {}", finding.sentence);
    }
    Ok(())
}

/// This thread and those that it starts run there, but for the shards, which have CPUs of their own.
fn pin_service(cpus: &[usize]) -> Result<(), Failed> {
    if cpus.is_empty() {
        return Ok(());
    }
    sluice_tuning::pin(cpus).map_err(|error| Failed::io("shards.service_cpus", &error))
}

/// Two relays on one spool would destroy it, so the first holds a lock for as long as it lives.
pub(super) fn lock_spool(path: &Path) -> Result<File, Failed> {
    let name = path.display();
    let failed = |error: &std::io::Error| {
        let sentence = match error.kind() {
            std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::NotADirectory => {
                format!("the spool {name} is not a directory; spool.path must name one")
            }
            std::io::ErrorKind::PermissionDenied => format!(
                "the spool {name} cannot be written: {error}; it must belong to the user that the relay runs as (chown) or spool.path must name another directory"
            ),
            _ => format!("the spool {name} cannot be used: {error}; spool.path must name a directory"),
        };
        let code =
            if error.kind() == std::io::ErrorKind::PermissionDenied { NO_PERMISSION } else { IO_ERROR };
        Failed::new(code, sentence)
    };
    std::fs::create_dir_all(path).map_err(|error| failed(&error))?;
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join("lock"))
        .map_err(|error| failed(&error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Failed::new(
            UNAVAILABLE,
            format_args!(
                "the spool {name} is in use by another sluice; stop that one or set another spool.path"
            ),
        )),
        Err(TryLockError::Error(error)) => Err(failed(&error)),
    }
}

fn bind_admin(config: &Config) -> Result<admin::Bound, Failed> {
    admin::bind(config).map_err(|error| match (error.kind(), config.admin.bind) {
        (std::io::ErrorKind::AddrInUse, Some(address)) => Failed::new(
            UNAVAILABLE,
            format_args!("admin.bind {address} is taken by another program; choose another address or \"\""),
        ),
        _ => {
            Failed::io("the admin interface (admin.bind and admin.sock in the spool) cannot be bound", &error)
        }
    })
}

struct Relay {
    config: Arc<Config>,
    links: Arc<Links>,
    events: Receiver<Happening>,
    threads: Vec<JoinHandle<()>>,
    shards: usize,
    warm_ups: Option<Arc<WarmUpKeeper>>,
}

impl Relay {
    fn start(
        config: &Arc<Config>,
        bound: Vec<Vec<listener::Bound>>,
        admin: admin::Bound,
        (tls, tickets): (crate::tls::Listeners, Arc<dyn ProducesTickets>),
        outward: Arc<[RouteTls]>,
    ) -> std::io::Result<Self> {
        let ingest_cpus = &config.shards.ingest_cpus;
        let delivery_cpus = &config.shards.delivery_cpus;
        let (ingest, ingest_inboxes) = mailboxes(ingest_cpus, REPORTS_MAX)?;
        let (delivery, delivery_inboxes) = mailboxes(delivery_cpus, HANDOVERS_MAX)?;
        let (service, questions) = mailbox(QUESTIONS_MAX);
        let links = Arc::new(Links { ingest, delivery, service });
        let (tell, events) = unbounded();
        let state = Arc::new(admin::State {
            config: config.clone(),
            links: links.clone(),
            ingest: ingest_cpus.iter().map(|_| Arc::default()).collect(),
            delivery: delivery_cpus.iter().map(|_| Arc::default()).collect(),
            changes: tokio::sync::Mutex::default(),
            space: Arc::default(),
            load: Arc::default(),
            traces: AtomicUsize::new(0),
        });
        let space = state.space.clone();
        let common = Common::new(config);
        let warm_ups = WarmUpKeeper::open(config, &common);
        let mut threads = Vec::new();
        let mut relay = Self {
            config: config.clone(),
            links: links.clone(),
            events,
            threads: Vec::new(),
            shards: ingest_cpus.len() + delivery_cpus.len(),
            warm_ups: warm_ups.clone(),
        };
        let service =
            Service { config: config.clone(), questions, admin, state: state.clone(), tickets, warm_ups };
        service::start(service, tell.clone())?;
        for (index, inbox) in delivery_inboxes.into_iter().enumerate() {
            let counters = state.delivery[index].clone();
            let cpu = delivery_cpus[index];
            threads.push(shard::start_delivery(
                index,
                cpu,
                config.clone(),
                (links.clone(), outward.clone(), common.clone()),
                counters,
                inbox,
                tell.clone(),
            )?);
        }
        let budget = Budget::new(usize::try_from(config.spool.handover_bytes_max).unwrap_or(usize::MAX));
        let contexts: Vec<_> = (0..config.listeners.len())
            .map(|listener| Arc::new(session::Context::new(config, listener)))
            .collect();
        let limiter = Limiter::new(config.limits.sessions_max.saturating_mul(ingest_cpus.len()));
        for (index, (inbox, bound)) in ingest_inboxes.into_iter().zip(bound).enumerate() {
            let parts = Parts {
                index,
                config: config.clone(),
                links: links.clone(),
                counters: state.ingest[index].clone(),
                contexts: contexts.clone(),
                space: space.clone(),
                tls: tls.clone(),
                budget: budget.clone(),
                load: state.load.clone(),
                limiter: limiter.clone(),
            };
            threads.push(shard::start_ingest(ingest_cpus[index], parts, bound, inbox, tell.clone())?);
        }
        relay.threads = threads;
        Ok(relay)
    }

    fn run(&mut self, started: impl FnOnce(&Config) -> Result<(), Failed>) -> Result<(), Failed> {
        let mut started = Some(started);
        let mut ready = 0;
        loop {
            match self.events.recv().expect("the service thread holds a sender") {
                Happening::Ready(_) => {
                    ready += 1;
                    if ready == self.shards {
                        self.say_ready();
                        started.take().map_or(Ok(()), |started| started(&self.config))?;
                    }
                }
                Happening::Terminate => return self.stop(),
                other => ended_too_early(other)?,
            }
        }
    }

    fn say_ready(&self) {
        let shards = &self.config.shards;
        let text = format!(
            "ready: sluice {}, {} ingest and {} delivery shards, spool {}",
            env!("CARGO_PKG_VERSION"),
            shards.ingest_cpus.len(),
            shards.delivery_cpus.len(),
            self.config.spool.path.display()
        );
        log::note("main", &text);
        log::flush();
        self.notify(Word::Ready);
    }

    /// Tells systemd, when it is there.
    fn notify(&self, word: Word) {
        if let Err(error) = notify(word) {
            log::note("main", &format!("warning: systemd was not told of {word:?}: {error}"));
        }
    }

    /// The ordered stop. Bounded; a second SIGTERM ends it at once.
    fn stop(&mut self) -> Result<(), Failed> {
        log::note("main", "stopping: no new sessions; open transactions may end");
        self.notify(Word::Stopping);
        log::flush();
        let deadline = Instant::now() + self.config.delivery.drain + FINISH;
        self.links.ingest.iter().for_each(|shard| block_on(shard.send(ToIngest::Stop)));
        self.links.delivery.iter().for_each(|shard| block_on(shard.send(ToDelivery::Stop)));
        let ingest = self.links.ingest.len();
        self.wait_for(self.shards, deadline, |happening| {
            matches!(
                happening,
                Happening::Drained(_) | Happening::Ended(ShardName { role: Role::Delivery, .. }, Ok(()))
            )
        })?;
        self.links.ingest.iter().for_each(|shard| block_on(shard.send(ToIngest::Finish)));
        self.wait_for(ingest, deadline, |happening| {
            matches!(happening, Happening::Ended(ShardName { role: Role::Ingest, .. }, Ok(())))
        })?;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        // Nothing begins any more.
        self.warm_ups.iter().for_each(WarmUpKeeper::write_last);
        log::note("main", "stopped");
        Ok(())
    }

    fn wait_for(
        &self,
        count: usize,
        deadline: Instant,
        counts: impl Fn(&Happening) -> bool,
    ) -> Result<(), Failed> {
        let mut seen = 0;
        while seen < count {
            match self.events.recv_deadline(deadline) {
                Ok(happening) if counts(&happening) => seen += 1,
                Ok(Happening::Ready(_)) => {}
                Ok(Happening::Terminate) => {
                    return Err(Failed::new(
                        UNAVAILABLE,
                        "stopped at once by a second signal; unfinished mail stays in the spool",
                    ));
                }
                Ok(other) => ended_too_early(other)?,
                Err(_) => {
                    return Err(Failed::new(
                        SOFTWARE,
                        "the shards did not end in time; unfinished mail stays in the spool",
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Both ends of each, in the order of the shards.
type Mailboxes<T> = (Vec<crate::channel::Sender<T>>, Vec<crate::channel::Receiver<T>>);

/// A mailbox for the shard on each of these CPUs. It is made there, by a thread that lives no longer, so that its places
/// are in the memory that is near.
fn mailboxes<T: Send>(cpus: &[usize], capacity: usize) -> std::io::Result<Mailboxes<T>> {
    let make = |&cpu: &usize| {
        std::thread::scope(|scope| {
            let made = std::thread::Builder::new().name(format!("mailbox on CPU {cpu}")).spawn_scoped(
                scope,
                || {
                    sluice_tuning::pin(&[cpu])?;
                    Ok(mailbox(capacity))
                },
            )?;
            made.join().expect("a mailbox is made without a fault")
        })
    };
    cpus.iter().map(make).collect::<std::io::Result<Vec<_>>>().map(|boxes| boxes.into_iter().unzip())
}

/// A relay that has lost a part of itself must not look alive.
fn ended_too_early(happening: Happening) -> Result<(), Failed> {
    match happening {
        Happening::Ended(name, Err(error)) => {
            Err(Failed::new(IO_ERROR, format_args!("{name} ended: {error}")))
        }
        Happening::Ended(name, Ok(())) => {
            Err(Failed::new(SOFTWARE, format_args!("{name} ended for no reason")))
        }
        Happening::ServiceEnded(ended) => {
            let why = ended.err().unwrap_or_else(|| "no reason".into());
            Err(Failed::new(SOFTWARE, format_args!("the service thread ended: {why}")))
        }
        Happening::Ready(_) | Happening::Drained(_) | Happening::Terminate => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_is_made_on_the_cpu_of_its_shard() {
        let cpu = sluice_tuning::cpus_allowed()[0];
        let (senders, mut receivers) = mailboxes::<u8>(&[cpu, cpu], 1).expect("made there");
        assert_eq!((senders[1].try_send(7), receivers[1].try_receive()), (Ok(()), Some(7)));
        assert!(mailboxes::<u8>(&[sluice_tuning::CPUS_MAX - 1], 1).is_err(), "nobody gets there");
    }
}
