//! The service thread: everything that needs tokio and is not the hot path. Resolvers, logins, signals, the
//! admin interface, and a look at the free space.
//!
//! One tokio current-thread runtime. It reaches the shards through their mailboxes only.

use crate::admin;
use crate::auth::Keeper;
use crate::channel::Receiver;
use crate::config::{Config, Recipients, Route, Table};
use crate::delivery::warm_up_keeper::WarmUpKeeper;
use crate::load;
use crate::mta_sts;
use crate::observe::{counters, log};
use crate::recipients::file::RecipientFile;
use crate::recipients::ldap::Directory;
use crate::resolve::service::{Answer as Answered, Resolvers};
use crate::shard::Happening;
use crate::shard::links::{Links, Question, ToIngest};
use crate::smtp::sasl::{Answer, Refusal};
use crate::space::{self, Figures, Marks, Standing, judge};
use crate::tls;
use crate::tls_report;
use crossbeam::channel::Sender;
use rustls::server::ProducesTickets;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How often the free space is looked at. What arrives meanwhile has its room reserved.
const SPACE_LOOK: Duration = Duration::from_millis(500);
/// How often the load is looked at.
const LOAD_LOOK: Duration = Duration::from_millis(250);
/// How often the files of recipients are looked at.
const TABLE_LOOK: Duration = Duration::from_secs(1);
/// An answer that does not change.
const NOBODY_ASKS: Duration = Duration::from_secs(3_600);
/// At the stop, for statistics.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);
const LOG_FLUSH: Duration = Duration::from_millis(100);

pub struct Service {
    pub config: Arc<Config>,
    pub questions: Receiver<Question>,
    pub admin: admin::Bound,
    pub state: Arc<admin::State>,
    /// The keys of TLS tickets, which a reload keeps.
    pub tickets: Arc<dyn ProducesTickets>,
    pub warm_ups: Option<Arc<WarmUpKeeper>>,
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
    let keeper = service.config.auth.as_ref().map(|auth| {
        let secret = crate::auth::secret(&service.config.spool.path);
        secret.and_then(|secret| Keeper::open(auth, secret, &resolvers)).map_err(std::io::Error::other)
    });
    let keeper = keeper.transpose()?.map(Arc::new);
    let directories = directories(&service.config, &resolvers).map_err(std::io::Error::other)?;
    tokio::spawn(watch_tables(service.config.clone()));
    let sts = mta_sts::keeper::Keeper::start(&service.config, &resolvers).map_err(std::io::Error::other)?;
    let reports = tls_report::keeper::Keeper::start(&service.config, &resolvers, &service.state.links)
        .map_err(std::io::Error::other)?;
    let hands = Hands { resolvers, keeper: keeper.clone(), directories, sts, reports: reports.clone() };
    tokio::spawn(answer(hands, service.questions));
    tokio::spawn(watch_space(service.state.clone()));
    tokio::spawn(watch_load(service.state.clone()));
    if let Some(warm_ups) = service.warm_ups {
        tokio::spawn(warm_ups.write_changes());
    }
    tokio::spawn(async {
        loop {
            log::written().await;
            tokio::time::sleep(LOG_FLUSH).await;
            log::flush();
        }
    });
    let reload = Reload {
        config: service.config,
        links: service.state.links.clone(),
        tickets: service.tickets,
        keeper,
        reports,
    };
    tokio::spawn(admin::serve(service.admin, service.state));
    listen_to_signals(events, reload).await
}

/// Who answers questions.
#[derive(Clone)]
struct Hands {
    resolvers: Arc<Resolvers>,
    keeper: Option<Arc<Keeper>>,
    directories: Directories,
    sts: Option<Arc<mta_sts::keeper::Keeper>>,
    reports: Option<Arc<tls_report::keeper::Keeper>>,
}

async fn answer(hands: Hands, mut questions: Receiver<Question>) {
    loop {
        let question = questions.receive().await;
        let Hands { resolvers, keeper, directories, sts, reports } = hands.clone();
        tokio::spawn(async move {
            match question {
                Question::Mx { resolver, domain, reply } => {
                    drop(reply.send(resolvers.mx(resolver, &domain).await))
                }
                Question::Holder { route, recipient, reply } => {
                    if let Some(Some(directory)) = directories.get(route) {
                        drop(reply.send(directory.holder(&recipient).await));
                    }
                }
                Question::Login { client, ask, reply } => {
                    let answer = match keeper {
                        Some(keeper) => keeper.answer(client, ask).await,
                        None => Answer::Refused(Refusal::Unavailable),
                    };
                    drop(reply.send(answer));
                }
                Question::Spend { login, recipients, reply } => {
                    let may = keeper.is_none_or(|keeper| keeper.spend(&login.login, recipients));
                    let _ = reply.send(may);
                }
                Question::Addresses { resolver, host, reply } => {
                    drop(reply.send(resolvers.addresses(resolver, &host).await));
                }
                Question::MtaSts { route, domain, reply } => {
                    let none = Answered { result: Ok(mta_sts::Found::default()), valid_for: NOBODY_ASKS };
                    drop(reply.send(match sts {
                        Some(sts) => {
                            let answer = sts.find(route, &domain).await;
                            if let (Some(reports), Ok(found)) = (reports, &answer.result) {
                                found.observed(&domain).iter().for_each(|seen| reports.add(seen));
                            }
                            answer
                        }
                        None => none,
                    }));
                }
                Question::TlsObserved(seen) => {
                    if let Some(reports) = reports {
                        reports.add(&seen);
                    }
                }
                Question::Tlsa { resolver, host, port, reply } => {
                    drop(reply.send(resolvers.tlsa(resolver, &host, port).await));
                }
            }
        });
    }
}

/// By route.
type Directories = Arc<[Option<Directory>]>;

fn directories(config: &Config, resolvers: &Arc<Resolvers>) -> Result<Directories, String> {
    let directory = |route: &Route| match &route.recipients {
        Some(Recipients { table: Table::Ldap(ldap), detail, .. }) => {
            Directory::new(ldap, *detail, resolvers, route.resolver).map(Some)
        }
        _ => Ok(None),
    };
    config.routes.iter().map(directory).collect()
}

/// Looks whether the files of recipients have changed.
async fn watch_tables(config: Arc<Config>) {
    if tables(&config).next().is_none() {
        return;
    }
    loop {
        tokio::time::sleep(TABLE_LOOK).await;
        look_at_tables(&config, false).await;
    }
}

fn tables(config: &Config) -> impl Iterator<Item = &Arc<RecipientFile>> {
    config.routes.iter().filter_map(|route| match &route.recipients {
        Some(Recipients { table: Table::File(file), .. }) => Some(file),
        _ => None,
    })
}

async fn look_at_tables(config: &Config, at_once: bool) {
    for file in tables(config) {
        let file = file.clone();
        if let Ok(Some(news)) = tokio::task::spawn_blocking(move || file.look(at_once)).await {
            log::note("service", &news);
        }
    }
}

async fn watch_space(state: Arc<admin::State>) {
    let config = &state.config;
    let marks = Marks::new(&config.spool);
    let mut standing = Standing::default();
    let mut unreadable = false;
    loop {
        match rustix::fs::statvfs(&config.spool.path) {
            Ok(stat) => {
                unreadable = false;
                let sum = |of: fn(&counters::Ingest) -> u64| state.ingest.iter().map(|shard| of(shard)).sum();
                let spools_short: u64 = sum(|shard| shard.spools_short.get());
                let figures = Figures {
                    free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
                    free_inodes: (stat.f_files > 0).then_some(stat.f_favail),
                    spool_bytes: sum(|shard| shard.spool_bytes.get()),
                    idle_bytes: sum(|shard| shard.spool_idle_bytes.get()),
                    short: spools_short > 0,
                };
                let before = standing;
                standing = judge(before, &figures, &marks);
                if before.level != standing.level {
                    let text = space::sentence(before.level, standing.level, &figures, &marks);
                    log::note("service", &format!("{}: {text}", config.spool.path.display()));
                }
                let delay = space::delay(standing.level, &figures, &marks);
                state.space.publish(standing.level, delay, &figures, &marks);
            }
            Err(error) if !unreadable => {
                unreadable = true;
                log::note("service", &format!("error: {}: {error}", config.spool.path.display()));
            }
            Err(_) => {}
        }
        tokio::time::sleep(SPACE_LOOK).await;
    }
}

async fn watch_load(state: Arc<admin::State>) {
    let config = &state.config;
    let memory_max = load::memory_max(config.load.memory_bytes_max);
    let mut standing = load::Standing::default();
    loop {
        let figures = load::Figures {
            sessions: state.ingest.iter().map(|shard| shard.sessions.get()).max().unwrap_or(0),
            sessions_max: config.limits.sessions_max as u64,
            memory: load::memory(),
            memory_max,
            space: state.space.level(),
        };
        let before = standing;
        standing = load::judge(before, &figures, &config.load);
        if before.level != standing.level {
            log::note("service", &load::sentence(standing.level, &figures, &config.load));
        }
        state.load.publish(standing.level, &figures);
        tokio::time::sleep(LOAD_LOOK).await;
    }
}

struct Reload {
    config: Arc<Config>,
    links: Arc<Links>,
    tickets: Arc<dyn ProducesTickets>,
    keeper: Option<Arc<Keeper>>,
    reports: Option<Arc<tls_report::keeper::Keeper>>,
}

impl Reload {
    /// What would be lost with the process is written; a disk that hangs does not stop the stop.
    async fn before_the_stop(&self) {
        if let Some(reports) = &self.reports {
            let _ = tokio::time::timeout(FLUSH_PATIENCE, reports.flush()).await;
        }
    }

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
            _ = terminate.recv() => {
                reload.before_the_stop().await;
                drop(events.send(Happening::Terminate));
            }
            _ = interrupt.recv() => {
                reload.before_the_stop().await;
                drop(events.send(Happening::Terminate));
            }
            _ = hangup.recv() => {
                if let Some(keeper) = &reload.keeper {
                    keeper.reload();
                }
                look_at_tables(&reload.config, true).await;
                reload.certificates().await;
            }
            _ = reopen.recv() => log::reopen(),
        }
    }
}
