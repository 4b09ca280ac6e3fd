//! The spool: an append-only segmented queue, one directory per ingest shard.
//!
//! Envelopes and bytes; knows no SMTP and no socket. The format is written down in `FORMAT.md`.
//!
//! A message comes in as a [`Draft`] of extents, a commit record makes it a message, outcome records say
//! what became of its recipients, and when all are finished its segments are free for others:
//!
//! ```text
//! session ── begin, append ──▶ draft ── commit ──▶ desk ── writer ──▶ segments ──▶ storage
//! delivery ◀── load, read ──── index ◀── record ───┘                    │
//! start    ◀── Recovery ────── replay ◀── decide ◀── scan ◀─────────────┘
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `id`, `lineage`, `envelope` | what messages and spools are called, and what is known of a message |
//! | `spool`, `draft` | what shards call |
//! | `desk`, `pending` | what is known and what waits to be written |
//! | `writer`, `segments` | batches into files; when a file may be used again |
//! | `compaction` | moves what waits long, so that files may be used again |
//! | `index`, `reading` | what waits, and how it is read back |
//! | `recovery`, `inspect` | from files to an index, at a start and from outside |
//! | `layout`, `record` | the bytes |
//! | `storage` | files on a device, in memory, on a faulty device, from outside |

mod compaction;
mod desk;
mod draft;
mod envelope;
mod error;
mod id;
mod index;
mod inspect;
mod layout;
mod lineage;
mod options;
mod pending;
mod read_ahead;
mod reading;
mod record;
mod recovery;
mod segments;
mod spool;
pub mod storage;
mod writer;

pub use compaction::Compacted;
pub use desk::Stats;
pub use draft::Draft;
pub use envelope::{Body, Envelope, Recipient, RecipientState, RecipientStatus};
pub use error::{AppendError, CommitError, Fault, OpenError, ReadError};
pub use id::{NotAQueueId, QueueId, SPOOLS_MAX, SpoolNumber};
pub use index::{Counts, Facts, RecipientFacts};
pub use inspect::{Inspection, inspect};
pub use lineage::Lineage;
pub use options::{Options, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
pub use reading::{Message, Reason};
pub use record::{ContentFlags, OUTCOME_TEXT_MAX, Outcome, OutcomeKind};
pub use recovery::{Cut, DAMAGES_MAX, Damage, DamageKind, Recovery};
pub use spool::{Spool, Stored, Summary};
pub use storage::{FaultyStorage, GlommioStorage, MemoryStorage, ReaderStorage, SegmentFile, Storage};

#[cfg(test)]
mod tests;
