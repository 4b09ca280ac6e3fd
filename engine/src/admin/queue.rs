//! What the admin interface answers about the queue, and the changes that it takes.
//!
//! Lives on the service thread. A change comes by POST on `admin.sock` only; one at a time, to its end even
//! when nobody waits for the answer any more, and with a line in the log that says who asked for what and
//! what it came to.

use super::{Refused, State};
use crate::config::Config;
use crate::intake::mx_route;
use crate::observe::log;
use crate::shard::links::{QueueItem, ToDelivery, ToIngest, Who};
use crate::steering::{Action, Answer, Condition, Destination, Request, Summary, SummaryOptions, Tally};
use axum::Json;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use axum::serve::IncomingStream;
use sluice_queue::QueueId;
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio::sync::oneshot;

/// Messages in one answer.
const LIMIT_DEFAULT: usize = 1_000;
/// Rows of each table of a summary, unless asked for otherwise, and at most.
const ROWS_DEFAULT: usize = 20;
const ROWS_MAX: usize = 10_000;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    after: Option<String>,
    limit: Option<usize>,
    /// A [`Condition`] as JSON.
    condition: Option<String>,
}

pub(super) async fn list(
    Shared(state): Shared<Arc<State>>,
    Query(window): Query<Window>,
) -> Result<Json<Vec<QueueItem>>, Refused> {
    let after = window.after.map(|text| text.parse()).transpose().map_err(Refused::bad_id)?;
    let limit = window.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_DEFAULT);
    let mut condition: Condition = match window.condition {
        Some(json) => {
            serde_json::from_str(&json).map_err(|error| Refused::bad(format!("condition: {error}")))?
        }
        None => Condition::default(),
    };
    condition.prepare().map_err(Refused::bad)?;
    let condition = Arc::new(condition);
    let mut answers = Vec::new();
    for shard in &state.links.ingest {
        let (reply, answer) = oneshot::channel();
        shard.send(ToIngest::Page { after, limit, condition: condition.clone(), reply }).await;
        answers.push(answer);
    }
    let mut items = Vec::new();
    for answer in answers {
        items.extend(answer.await.map_err(|_| Refused::stopping())?);
    }
    items.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    items.truncate(limit);
    Ok(Json(items))
}

pub(super) async fn show(
    Shared(state): Shared<Arc<State>>,
    Path(id): Path<String>,
) -> Result<Json<QueueItem>, Refused> {
    let id: QueueId = id.parse().map_err(Refused::bad_id)?;
    let (reply, answer) = oneshot::channel();
    state.links.owner_of(id).send(ToIngest::Show { id, reply }).await;
    match answer.await {
        Ok(Some(item)) => Ok(Json(item)),
        Ok(None) => Err(Refused(StatusCode::NOT_FOUND, format!("no message {id} in the queue"))),
        Err(_) => Err(Refused::stopping()),
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SummaryQuery {
    #[serde(default)]
    senders: bool,
    limit: Option<usize>,
}

pub(super) async fn summary(
    Shared(state): Shared<Arc<State>>,
    Query(query): Query<SummaryQuery>,
) -> Result<Json<Summary>, Refused> {
    let limit = query.limit.unwrap_or(ROWS_DEFAULT).min(ROWS_MAX);
    let options = SummaryOptions { senders: query.senders, limit };
    let (mut tallies, mut troubles) = (Vec::new(), Vec::new());
    for shard in &state.links.ingest {
        let (reply, answer) = oneshot::channel();
        shard.send(ToIngest::Summary { options, reply }).await;
        tallies.push(answer);
    }
    for shard in &state.links.delivery {
        let (reply, answer) = oneshot::channel();
        shard.send(ToDelivery::Troubles { reply }).await;
        troubles.push(answer);
    }
    let mut all = Tally::default();
    state.space.warning().into_iter().for_each(|warning| all.warn(warning));
    for tally in tallies {
        all.merge(tally.await.map_err(|_| Refused::stopping())?);
    }
    let mut down = Vec::new();
    for trouble in troubles {
        down.extend(trouble.await.map_err(|_| Refused::stopping())?);
    }
    Ok(Json(all.finish(options, down)))
}

/// Who is at the other end of `admin.sock`.
#[derive(Clone, Copy)]
pub(super) struct Peer(Option<Who>);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let credentials = stream.io().peer_cred().ok();
        Self(credentials.map(|peer| Who { uid: peer.uid(), pid: peer.pid().unwrap_or(0) }))
    }
}

pub(super) async fn change(
    Shared(state): Shared<Arc<State>>,
    ConnectInfo(Peer(who)): ConnectInfo<Peer>,
    Json(mut request): Json<Request>,
) -> Result<Json<Answer>, Refused> {
    let who = who.ok_or(Refused(StatusCode::FORBIDDEN, "the kernel does not say who asks".into()))?;
    request.prepare().map_err(Refused::bad)?;
    check_destination(&state.config, &request.action).map_err(Refused::bad)?;
    // A task of its own: a client that goes away does not stop a change half-way.
    let done = tokio::spawn(carry_out(state, Arc::new(request), who));
    done.await.map_err(|_| Refused::stopping())?.map(Json)
}

pub(super) async fn change_refused() -> Refused {
    Refused(
        StatusCode::FORBIDDEN,
        "this address only shows; changes are taken on admin.sock in the spool".into(),
    )
}

fn check_destination(config: &Config, action: &Action) -> Result<(), String> {
    match action {
        Action::Reroute(Destination::Mx(domain)) if mx_route(config, domain).is_none() => Err(format!(
            "mx:{domain}: no route of the configuration has mx = true for it, so there is no resolver; an accepted domain is never looked up outside"
        )),
        Action::Reroute(Destination::Host(host)) if host.socket().is_some() => Ok(()),
        Action::Reroute(Destination::Host(host)) if host.host.parse::<std::net::IpAddr>().is_err() => {
            match config.resolvers.is_empty() {
                true => Err(format!("{}: the configuration has no resolver; name an address", host.host)),
                false => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

async fn carry_out(state: Arc<State>, request: Arc<Request>, who: Who) -> Result<Answer, Refused> {
    let _one_at_a_time = state.changes.lock().await;
    let mut answers = Vec::new();
    for shard in &state.links.ingest {
        let (reply, answer) = oneshot::channel();
        shard.send(ToIngest::Change { request: request.clone(), who, reply }).await;
        answers.push(answer);
    }
    let mut all = Answer::default();
    let mut stopping = false;
    for answer in answers {
        match answer.await {
            Ok(answer) => all.add(answer),
            Err(_) => stopping = true,
        }
    }
    if !request.dry_run {
        log::note("admin", &told(&request, &all, who));
    }
    if stopping { Err(Refused::stopping()) } else { Ok(all) }
}

/// The line for those who look later at what was done to the queue.
fn told(request: &Request, answer: &Answer, who: Who) -> String {
    let action = match &request.action {
        Action::Reroute(to) => format!("reroute to {to}"),
        action => action.word().to_owned(),
    };
    let mut condition = serde_json::to_string(&request.condition).unwrap_or_default();
    condition.truncate(condition.floor_char_boundary(1_000));
    let failed = answer.failed.as_ref().map(|why| format!(", not complete: {why}")).unwrap_or_default();
    format!(
        "queue: {action} by {who} where {condition}: {} messages ({} recipients) changed, {} ({}) unchanged, {} ({}) under way{failed}",
        answer.changed.messages,
        answer.changed.recipients,
        answer.unchanged.messages,
        answer.unchanged.recipients,
        answer.under_way.messages,
        answer.under_way.recipients,
    )
}
