//! Messages of the relay's own making that are not about another message: committed and handed over like those of
//! clients.
//!
//! Lives on one ingest shard.

use super::IngestShard;
use crate::clock;
use crate::observe::{line, log};
use sluice_queue::{ContentFlags, Envelope, QueueId};
use std::sync::Arc;

/// Puts a message into the spool of this shard.
///
/// # Errors
/// Why the spool does not take it now.
pub async fn submit(shard: &IngestShard, envelope: Envelope, content: Vec<u8>) -> Result<QueueId, String> {
    let dot_lines = content.first() == Some(&b'.') || memchr::memmem::find(&content, b"\n.").is_some();
    let flags = ContentFlags { eight_bit: !content.is_ascii(), dot_lines };
    let envelope = Arc::new(envelope);
    let mut draft = shard.spool.begin(clock::wall_micros());
    let id = draft.id();
    shard.steering.arrives(id);
    let appended = shard.spool.append(&mut draft, &content).await.map_err(|error| error.to_string());
    let committed = match appended {
        Ok(()) => shard.spool.commit(draft, envelope.clone(), flags).await.map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    if let Err(error) = committed {
        shard.steering.has_arrived(id);
        return Err(error);
    }
    log::write("ingest", |text| line::accepted(text, id, &envelope, content.len() as u64));
    shard.hand_over_fresh(id, &envelope, Some(Arc::new(content)), flags);
    Ok(id)
}
