//! `GET /v1/trace`: dialogues of sessions as they go on, until the asker goes away or the time is up.
//!
//! Lives on the service thread. On `admin.sock` only: what is said in a session is nobody else's business.

use super::{Refused, State};
use crate::config;
use crate::observe::log;
use crate::shard::links::ToIngest;
use crate::trace::{self, Reader, TRACES_MAX, Wanted};
use axum::body::Body;
use axum::extract::{Query, State as Shared};
use axum::http::StatusCode;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The longest trace, also of one that says no time.
const SECONDS_MAX: u64 = 7 * 86_400;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    client: String,
    listener: Option<String>,
    seconds: Option<u64>,
}

/// A place among the traces.
struct Turn(Arc<State>);

impl Turn {
    fn take(state: &Arc<State>) -> Option<Self> {
        let turn = Self(state.clone());
        (state.traces.fetch_add(1, Relaxed) < TRACES_MAX).then_some(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.traces.fetch_sub(1, Relaxed);
    }
}

pub(super) async fn trace(
    Shared(state): Shared<Arc<State>>,
    Query(asked): Query<Asked>,
) -> Result<Body, Refused> {
    let client = config::network(&asked.client).map_err(|wrong| Refused::bad(format!("client: {wrong}")))?;
    let listener = asked.listener.as_ref().map(|name| {
        let found = state.config.listeners.iter().position(|listener| listener.name == *name);
        found.ok_or_else(|| Refused::bad(format!("the configuration has no listener \"{name}\"")))
    });
    let wanted = Wanted { client, listener: listener.transpose()? };
    let turn = Turn::take(&state).ok_or_else(|| {
        Refused(StatusCode::SERVICE_UNAVAILABLE, format!("{TRACES_MAX} traces run already; end one"))
    })?;
    log::note("admin", &format!("trace of sessions with {client} begins"));
    let (trace, reader) = trace::trace(wanted);
    for shard in &state.links.ingest {
        shard.send(ToIngest::Trace(trace.clone())).await;
    }
    let end = Instant::now() + Duration::from_secs(asked.seconds.unwrap_or(SECONDS_MAX).min(SECONDS_MAX));
    let first = format!("-- trace of sessions with {client}\n");
    let lines = futures_util::stream::unfold(
        (Some(first), reader, turn),
        move |(first, mut reader, turn)| async move {
            let lines = match first {
                Some(first) => first,
                None => next(&mut reader, end).await?,
            };
            Some((Ok::<_, Infallible>(lines), (None, reader, turn)))
        },
    );
    Ok(Body::from_stream(lines))
}

async fn next(reader: &mut Reader, end: Instant) -> Option<String> {
    timeout_at(end, reader.next()).await.ok().flatten()
}
