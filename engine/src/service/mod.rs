//! The service thread: everything that needs tokio and is not the hot path. Resolvers, signals, the
//! admin interface, and a look at the free space.
//!
//! One tokio current-thread runtime. It reaches the shards through their mailboxes only.

use crate::admin;
use crate::channel::Receiver;
use crate::config::Config;
use crate::observe::log;
use crate::resolve::service::Resolvers;
use crate::shard::Happening;
use crate::shard::links::{Links, Question, ToIngest};
use crate::tls;
use crossbeam::channel::Sender;
use rustls::server::ProducesTickets;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How often the free space is looked at. What can be written meanwhile is far below `free_bytes_min`.
const SPACE_LOOK: Duration = Duration::from_millis(500);
const LOG_FLUSH: Duration = Duration::from_millis(100);

pub struct Service {
    pub config: Arc<Config>,
    pub questions: Receiver<Question>,
    pub has_space: Arc<AtomicBool>,
    pub admin: admin::Bound,
    pub state: Arc<admin::State>,
    /// The keys of TLS tickets, which a reload keeps.
    pub tickets: Arc<dyn ProducesTickets>,
}

/// Starts the thread. It ends only when it fails.
pub fn start(service: Service, events: Sender<Happening>) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("service".into()).spawn(move || {
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(run(service, events.clone())).map_err(|error| error.to_string())
        }));
        log::flush();
        let _ = events.send(Happening::ServiceEnded(ended.unwrap_or_else(|_| Err("internal fault".into()))));
    })
}

async fn run(service: Service, events: Sender<Happening>) -> std::io::Result<()> {
    let seed = crate::clock::wall_micros();
    let resolvers = Resolvers::new(&service.config.resolvers, seed).map_err(std::io::Error::other)?;
    let resolvers = Arc::new(resolvers);
    tokio::spawn(answer(resolvers, service.questions));
    tokio::spawn(watch_space(service.config.clone(), service.has_space));
    tokio::spawn(async {
        loop {
            tokio::time::sleep(LOG_FLUSH).await;
            log::flush();
        }
    });
    let reload =
        Reload { config: service.config, links: service.state.links.clone(), tickets: service.tickets };
    tokio::spawn(admin::serve(service.admin, service.state));
    listen_to_signals(events, reload).await
}

async fn answer(resolvers: Arc<Resolvers>, mut questions: Receiver<Question>) {
    loop {
        let question = questions.receive().await;
        let resolvers = resolvers.clone();
        tokio::spawn(async move {
            match question {
                Question::Mx { resolver, domain, reply } => {
                    drop(reply.send(resolvers.mx(resolver, &domain).await))
                }
                Question::Addresses { resolver, host, reply } => {
                    drop(reply.send(resolvers.addresses(resolver, &host).await));
                }
            }
        });
    }
}

async fn watch_space(config: Arc<Config>, has_space: Arc<AtomicBool>) {
    let min = config.spool.free_bytes_min;
    loop {
        match rustix::fs::statvfs(&config.spool.path) {
            Ok(stat) => {
                let free = stat.f_bavail.saturating_mul(stat.f_frsize);
                let enough = free >= min;
                if has_space.swap(enough, Relaxed) != enough {
                    let path = config.spool.path.display();
                    let text = if enough {
                        format!("{path}: {free} bytes are free again; new mail is accepted")
                    } else {
                        format!(
                            "error: {path}: only {free} bytes are free, spool.free_bytes_min is {min}; new mail is refused with 452 4.3.1 until there is room, delivery goes on"
                        )
                    };
                    log::note("service", &text);
                }
            }
            Err(error) => log::note("service", &format!("error: {}: {error}", config.spool.path.display())),
        }
        tokio::time::sleep(SPACE_LOOK).await;
    }
}

struct Reload {
    config: Arc<Config>,
    links: Arc<Links>,
    tickets: Arc<dyn ProducesTickets>,
}

impl Reload {
    /// Reads all certificates again and gives them to the shards; sessions go on as they are. When a file
    /// is bad, all stay as they were.
    async fn certificates(&self) {
        let (config, tickets) = (self.config.clone(), self.tickets.clone());
        let read = tokio::task::spawn_blocking(move || tls::listeners(&config, &tickets)).await;
        match read.unwrap_or_else(|_| Err("internal fault".into())) {
            Ok(listeners) => {
                for shard in &self.links.ingest {
                    shard.send(ToIngest::Tls(listeners.clone())).await;
                }
                log::note(
                    "service",
                    "SIGHUP: certificates were read again; other settings are read at start only, restart to change them",
                );
            }
            Err(sentence) => {
                log::note(
                    "service",
                    &format!("error: SIGHUP: {sentence}; the certificates stay as they were"),
                );
            }
        }
    }
}

async fn listen_to_signals(events: Sender<Happening>, reload: Reload) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut reopen = signal(SignalKind::user_defined1())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => drop(events.send(Happening::Terminate)),
            _ = interrupt.recv() => drop(events.send(Happening::Terminate)),
            _ = hangup.recv() => reload.certificates().await,
            _ = reopen.recv() => log::reopen(),
        }
    }
}
