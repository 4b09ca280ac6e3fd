//! `GET /v1/restore`: what the relay knows of other spools' messages. `POST /v1/restore`: the copy of one
//! spool as frames (`restore::wire`), answered with a [`Report`] when all of it is dealt with.
//!
//! The service thread only passes items on, a few at a time; whoever sends is held up meanwhile. When the
//! sender goes away, what came in whole is in, and the next restore goes on behind it.

use super::{Refused, State};
use crate::intake::restore::ITEMS_MAX;
use crate::observe::log;
use crate::restore::wire::{Begin, Item, lineage_of};
use crate::restore::{Knowledge, Report};
use crate::shard::links::ToIngest;
use axum::Json;
use axum::body::{Body, BodyDataStream};
use axum::extract::State as Shared;
use axum::http::StatusCode;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use sluice_queue::{Ancestry, Lineage, QueueId, Source};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::{mpsc, oneshot};

/// One restore at a time. Prevents: two that each take the same message for missing.
static RUNNING: AtomicBool = AtomicBool::new(false);

/// What is known, for the command: ancestries in their binary form.
#[derive(Serialize, Deserialize)]
pub struct Known {
    known: Vec<Vec<u8>>,
}

impl Known {
    pub fn of(knowledge: &Knowledge) -> Self {
        Self { known: knowledge.known().iter().map(Ancestry::encode).collect() }
    }

    /// What cannot be read is not known.
    pub fn ancestries(&self) -> Vec<Ancestry> {
        self.known.iter().filter_map(|known| Ancestry::decode(known)).collect()
    }
}

pub(super) async fn known(Shared(state): Shared<Arc<State>>) -> Result<Json<Known>, Refused> {
    let shards = ask_all(&state).await?;
    let mut all = Knowledge::default();
    shards.into_iter().for_each(|knowledge| all.merge(knowledge));
    Ok(Json(Known::of(&all)))
}

pub(super) async fn restore(Shared(state): Shared<Arc<State>>, body: Body) -> Result<Json<Report>, Refused> {
    let _turn = Turn::take()?;
    let mut frames = Frames { body: body.into_data_stream(), held: Vec::new(), start: 0 };
    let Some(Item::Begin(begin)) = frames.next().await? else { return Err(malformed()) };
    let lineage = lineage_of(&begin.lineage).ok_or_else(malformed)?;
    let shards = ask_all(&state).await?;
    let receiver = receiver(lineage, &shards);
    let mut all = Knowledge::default();
    shards.into_iter().for_each(|knowledge| all.merge(knowledge));
    let (feed, items) = mpsc::channel(ITEMS_MAX);
    let (reply, answer) = oneshot::channel();
    let (source, dry_run) = (source(lineage, &begin, &all), begin.dry_run);
    state.links.ingest[receiver].send(ToIngest::Restore { source, dry_run, items, reply }).await;
    // The shard may end early, and says why in its answer.
    while let Some(item) = frames.next().await? {
        if feed.send(item).await.is_err() {
            break;
        }
    }
    drop(feed);
    let report = answer.await.map_err(|_| Refused::stopping())?;
    let Report { restored, here, finished, damaged, .. } = report;
    log::note(
        "restore",
        &format!(
            "restore of spool {lineage}: {restored} restored, {here} here, {finished} finished, {damaged} damaged"
        ),
    );
    Ok(Json(report))
}

/// How the copy of a lineage is to be taken, given what the relay knows.
pub fn source(lineage: Lineage, begin: &Begin, knowledge: &Knowledge) -> Source {
    let mut own = knowledge.own_lineages();
    if begin.unnamed {
        own.insert(lineage);
    }
    Source {
        lineage,
        known: knowledge.known(),
        drafts: begin.drafts.iter().copied().map(QueueId::from_bits).collect(),
        own,
        again: begin.again,
    }
}

/// The one that receives a lineage: whose it is, or who has received it before; else any.
pub fn receiver(lineage: Lineage, shards: &[Knowledge]) -> usize {
    let through = |knowledge: &Knowledge| {
        let own = knowledge.own.iter().any(|(of, _)| *of == lineage);
        (own, knowledge.ancestry.through(lineage))
    };
    let best = (0..shards.len()).max_by_key(|at| through(&shards[*at]));
    match best {
        Some(at) if through(&shards[at]) != (false, None) => at,
        _ => usize::from(lineage.octets()[0]) % shards.len(),
    }
}

async fn ask_all(state: &State) -> Result<Vec<Knowledge>, Refused> {
    let mut shards = Vec::new();
    for shard in &state.links.ingest {
        let (reply, answer) = oneshot::channel();
        shard.send(ToIngest::Knowledge { reply }).await;
        shards.push(answer.await.map_err(|_| Refused::stopping())?);
    }
    Ok(shards)
}

fn malformed() -> Refused {
    Refused(StatusCode::BAD_REQUEST, "this is not what `sluice queue restore` sends".into())
}

/// Items out of a body.
struct Frames {
    body: BodyDataStream,
    held: Vec<u8>,
    /// What of `held` is dealt with.
    start: usize,
}

impl Frames {
    async fn next(&mut self) -> Result<Option<Item>, Refused> {
        loop {
            if let Some((item, taken)) = Item::decode(&self.held[self.start..]).map_err(|_| malformed())? {
                self.start += taken;
                return Ok(Some(item));
            }
            self.held.drain(..self.start);
            self.start = 0;
            match self.body.next().await {
                Some(Ok(more)) => self.held.extend_from_slice(&more),
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}

/// Held by whoever makes the one restore.
struct Turn;

impl Turn {
    fn take() -> Result<Self, Refused> {
        match RUNNING.swap(true, Relaxed) {
            true => Err(Refused(StatusCode::CONFLICT, "another restore is running".into())),
            false => Ok(Self),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        RUNNING.store(false, Relaxed);
    }
}
