//! `POST /v1/backup`: a copy of the whole queue of the running relay (`queue/BACKUP.md`).
//!
//! ```text
//! destination opened (blocking) → every ingest shard lists and keeps → copied (blocking) → let go
//! ```
//!
//! One at a time. When the asker goes away the copying stops at the next piece, the new generation is
//! removed and the shards get their segments back; the former copy is as it was.

use super::{Refused, State};
use crate::clock;
use crate::observe::log;
use crate::shard::links::{Lease, ToIngest};
use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use sluice_queue::Needed;
use sluice_queue::backup::{Amount, BackupError, Destination, Origin, Written};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::oneshot;

/// One backup at a time. Prevents: copies that each slow the others, and the mail, down.
static RUNNING: AtomicBool = AtomicBool::new(false);

/// Where to.
#[derive(Debug, Serialize, Deserialize)]
pub struct Asked {
    /// A whole path.
    pub directory: PathBuf,
}

/// What was done; also what `--json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub directory: PathBuf,
    pub generation: u64,
    /// The relay was running.
    pub live: bool,
    pub began_micros: u64,
    pub completed_micros: u64,
    /// Messages in the copy that wait, and the octets that they need.
    pub messages: u64,
    pub live_bytes: u64,
    pub cloned: Files,
    pub linked: Files,
    pub copied: Files,
    pub kept: Files,
    /// Octets that could not be read, and are damage in the copy.
    pub unreadable_bytes: u64,
    pub spools: Vec<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    pub files: u64,
    pub bytes: u64,
}

/// The moment that the copy of one spool shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instant {
    pub spool: u16,
    pub at_micros: u64,
    pub messages: u64,
}

impl Report {
    pub fn new(directory: PathBuf, live: bool, written: &Written) -> Self {
        let files = |Amount { files, bytes }: Amount| Files { files, bytes };
        let spools = &written.manifest.spools;
        Self {
            directory,
            generation: written.generation,
            live,
            began_micros: written.manifest.began_micros,
            completed_micros: written.manifest.completed_micros,
            messages: spools.iter().map(|of| of.messages).sum(),
            live_bytes: spools.iter().map(|of| of.live_bytes).sum(),
            cloned: files(written.cloned),
            linked: files(written.linked),
            copied: files(written.copied),
            kept: files(written.kept),
            unreadable_bytes: written.unreadable_bytes,
            spools: spools
                .iter()
                .map(|of| Instant { spool: of.spool.get(), at_micros: of.at_micros, messages: of.messages })
                .collect(),
        }
    }
}

/// Makes the copy.
pub(super) async fn backup(
    Shared(state): Shared<Arc<State>>,
    Json(asked): Json<Asked>,
) -> Result<Json<Report>, Refused> {
    let began_micros = clock::wall_micros();
    let spool = state.config.spool.path.clone();
    let directory = asked.directory.clone();
    // From here on until the last copy of it is gone, which the copying may be.
    let turn = Arc::new(Turn::take()?);
    let opened = {
        let (spool, turn) = (spool.clone(), turn.clone());
        blocking(move || {
            let _turn = turn;
            Destination::open(&asked.directory, &spool)
        })
    };
    let mut destination = opened.await?;
    let lease = Arc::new(Lease::default());
    // Ends the lease with this function, and when the asker goes away.
    let held = Held(lease.clone());
    let needed = ask_all(&state, &lease).await?;
    let origin = Origin {
        product: env!("CARGO_PKG_VERSION").into(),
        host: state.config.hostname.clone(),
        began_micros,
    };
    let copying = blocking(move || {
        let _turn = turn;
        destination.write(&spool, &needed, &origin, &clock::wall_micros, &|octets| lease.go_on(octets))
    });
    let written = copying.await.inspect_err(|refused| {
        log::note("backup", &format!("error: backup to {}: {}", directory.display(), refused.1));
    })?;
    drop(held);
    let report = Report::new(directory, true, &written);
    log::note("backup", &format!("backup to {}: {}", report.directory.display(), report.sentence()));
    Ok(Json(report))
}

impl Report {
    /// What was done, in one line.
    pub fn sentence(&self) -> String {
        let files = |what: &str, of: Files| match of.files {
            0 => None,
            n => Some(format!("{n} {what} ({})", bytes(of.bytes))),
        };
        let parts = [
            files("cloned", self.cloned),
            files("linked", self.linked),
            files("copied", self.copied),
            files("kept", self.kept),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let parts = if parts.is_empty() { "none".to_owned() } else { parts.join(", ") };
        let millis = self.completed_micros.saturating_sub(self.began_micros) / 1000;
        let damage = match self.unreadable_bytes {
            0 => String::new(),
            n => format!("; {n} bytes could not be read"),
        };
        let messages = self.messages;
        format!(
            "{messages} messages wait in it; segments: {parts}; {}.{:03} s{damage}",
            millis / 1000,
            millis % 1000
        )
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} bytes"),
        10_240..10_485_760 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

async fn ask_all(state: &State, lease: &Arc<Lease>) -> Result<Vec<Needed>, Refused> {
    let mut answers = Vec::new();
    for shard in &state.links.ingest {
        let (reply, answer) = oneshot::channel();
        shard.send(ToIngest::Snapshot { lease: lease.clone(), reply }).await;
        answers.push(answer);
    }
    let mut needed = Vec::new();
    for answer in answers {
        needed.extend(answer.await.map_err(|_| Refused::stopping())?);
    }
    needed.sort_unstable_by_key(|of| of.spool);
    Ok(needed)
}

/// Runs file work on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, Refused> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| Refused(status(&error), error.to_string())),
        Err(_) => Err(Refused(StatusCode::INTERNAL_SERVER_ERROR, "internal fault".into())),
    }
}

fn status(error: &BackupError) -> StatusCode {
    match error {
        BackupError::Relative(_) | BackupError::InsideSpool(_) => StatusCode::BAD_REQUEST,
        BackupError::NotABackup { .. } | BackupError::Busy(_) | BackupError::Newer(..) => {
            StatusCode::CONFLICT
        }
        BackupError::Io { error, .. } if error.kind() == std::io::ErrorKind::PermissionDenied => {
            StatusCode::FORBIDDEN
        }
        BackupError::Changed(_) | BackupError::GivenUp | BackupError::Io { .. } => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

/// Held by whoever makes the one backup.
struct Turn;

impl Turn {
    fn take() -> Result<Self, Refused> {
        match RUNNING.swap(true, Relaxed) {
            true => Err(Refused(StatusCode::CONFLICT, "another backup is running".into())),
            false => Ok(Self),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        RUNNING.store(false, Relaxed);
    }
}

struct Held(Arc<Lease>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What the relay is asked with.
pub fn request(directory: &Path) -> (&'static str, Vec<u8>) {
    let asked = Asked { directory: directory.to_owned() };
    ("/v1/backup", serde_json::to_vec(&asked).expect("a path is a string"))
}
