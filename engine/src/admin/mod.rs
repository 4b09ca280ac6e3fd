//! The admin interface: JSON over HTTP, on a socket in the spool directory and, where configured, on
//! a TCP address.
//!
//! Lives on the service thread. Whoever may open `admin.sock` (mode 0600) is the administrator; the
//! TCP address only shows, it changes nothing.
//!
//! | path | answers |
//! |---|---|
//! | `/` | a page for a browser |
//! | `/metrics` | counters in the Prometheus text format |
//! | `/v1/queue?after=ID&limit=N&condition=JSON` | up to N messages by id that match ([`Condition`](crate::steering::Condition)) |
//! | `/v1/queue/ID` | one message, or 404 |
//! | `/v1/queue/summary?senders=true&limit=N` | totals, next hops, domains by age ([`Summary`](crate::steering::Summary)) |
//! | POST `/v1/queue/change` | a [`Request`](crate::steering::Request) carried out, and its counts; 403 on TCP |
//! | POST `/v1/backup` | copies the queue (`backup`); on the socket only |
//! | `/v1/trace?client=CIDR&listener=NAME&seconds=N` | dialogues of sessions as they go on (`trace`); on the socket only |
//! | GET, POST `/v1/restore` | brings in the copy of a spool (`restore`); on the socket only |

pub mod backup;
pub mod client;
mod queue;
pub mod restore;
mod trace;

use crate::config::Config;
use crate::load::Load;
use crate::observe::{counters, log};
use crate::shard::links::Links;
use crate::space::Space;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse};
use axum::routing::{get, post};
use std::fmt::Write;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// What the handlers see of the relay.
pub struct State {
    pub config: Arc<Config>,
    pub links: Arc<Links>,
    pub ingest: Vec<Arc<counters::Ingest>>,
    pub delivery: Vec<Arc<counters::Delivery>>,
    /// Held by the change of the queue that is being carried out.
    pub changes: tokio::sync::Mutex<()>,
    pub space: Arc<Space>,
    pub load: Arc<Load>,
    /// Traces that are read now.
    pub traces: AtomicUsize,
}

/// The sockets, bound before the relay starts so that a taken port is told at once.
pub struct Bound {
    unix: std::os::unix::net::UnixListener,
    tcp: Option<std::net::TcpListener>,
}

/// `admin.sock` in the spool's directory.
pub fn socket_path(spool: &Path) -> PathBuf {
    spool.join("admin.sock")
}

/// Binds the socket in the spool, whose lock the caller holds, and the TCP address.
pub fn bind(config: &Config) -> io::Result<Bound> {
    let path = socket_path(&config.spool.path);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let unix = std::os::unix::net::UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    unix.set_nonblocking(true)?;
    let tcp = config.admin.bind.map(std::net::TcpListener::bind).transpose()?;
    if let Some(tcp) = &tcp {
        tcp.set_nonblocking(true)?;
    }
    Ok(Bound { unix, tcp })
}

/// Serves until the process ends.
pub async fn serve(bound: Bound, state: Arc<State>) {
    let shows = Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/v1/queue", get(queue::list))
        .route("/v1/queue/summary", get(queue::summary))
        .route("/v1/queue/{id}", get(queue::show));
    let all = shows
        .clone()
        .route("/v1/queue/change", post(queue::change))
        .route("/v1/backup", post(backup::backup))
        .route("/v1/trace", get(trace::trace))
        .route("/v1/restore", get(restore::known).post(restore::restore).layer(DefaultBodyLimit::disable()))
        .with_state(state.clone());
    let shows = shows.route("/v1/queue/change", post(queue::change_refused)).with_state(state);
    if let Some(tcp) = bound.tcp {
        match tokio::net::TcpListener::from_std(tcp) {
            Ok(tcp) => drop(tokio::spawn(axum::serve(tcp, shows).into_future())),
            Err(error) => log::note("admin", &format!("error: admin.bind: {error}")),
        }
    }
    match tokio::net::UnixListener::from_std(bound.unix) {
        Ok(unix) => drop(axum::serve(unix, all.into_make_service_with_connect_info::<queue::Peer>()).await),
        Err(error) => log::note("admin", &format!("error: admin.sock: {error}")),
    }
}

/// Name, kind, help and value of everything that is counted.
fn figures(state: &State) -> impl Iterator<Item = (&'static str, &'static str, &'static str, u64)> {
    let shards =
        counters::Ingest::sums(&state.ingest).into_iter().chain(counters::Delivery::sums(&state.delivery));
    shards.chain(state.space.gauges()).chain(state.load.gauges())
}

async fn metrics(Shared(state): Shared<Arc<State>>) -> impl IntoResponse {
    let mut text = String::new();
    let sums = figures(&state);
    for (name, kind, help, value) in sums {
        let _ =
            write!(text, "# HELP sluice_{name} {help}\n# TYPE sluice_{name} {kind}\nsluice_{name} {value}\n");
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

async fn page(Shared(state): Shared<Arc<State>>) -> Html<String> {
    let mut rows = String::new();
    let sums = figures(&state);
    for (_, _, help, value) in sums {
        let _ = write!(rows, "<tr><td>{help}</td><td>{value}</td></tr>");
    }
    Html(include_str!("page.html").replace("{hostname}", &state.config.hostname).replace("{rows}", &rows))
}

/// An answer of the 4xx or 5xx kind: a sentence in plain text.
struct Refused(StatusCode, String);

impl Refused {
    fn bad_id(error: sluice_queue::NotAQueueId) -> Self {
        Self(StatusCode::BAD_REQUEST, error.to_string())
    }

    fn bad(sentence: String) -> Self {
        Self(StatusCode::BAD_REQUEST, sentence)
    }

    fn stopping() -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, "the relay is stopping".into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> axum::response::Response {
        (self.0, self.1).into_response()
    }
}
