//! The spool: an append-only segmented queue, one directory per ingest shard.
//!
//! Envelopes and bytes; knows no SMTP and no socket.

mod envelope;
mod id;

pub use envelope::{Body, Envelope, Recipient, RecipientState, RecipientStatus};
pub use id::{QueueId, SpoolNumber};
