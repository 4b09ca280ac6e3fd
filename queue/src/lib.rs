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
//! | `sealing`, `digest` | how a segment ends, and the index that is made of it |
//! | `space` | what may be written when room is short, and what is promised before it arrives |
//! | `compaction` | moves what waits long, so that files may be used again |
//! | `index`, `reading` | what waits, and how it is read back |
//! | `recovery`, `inspect` | from files to an index, at a start and from outside |
//! | `verify` | all of a spool, and what is wrong with it |
//! | `snapshot`, `backup` | what a copy of a running spool needs, and the copy (`BACKUP.md`) |
//! | `layout`, `record`, `footer` | the bytes |
//! | `canary` | deliberate faults, for tests of the tests |
//! | `storage` | files on a device, in memory, on a faulty device, from outside |

mod ancestry;
mod arrival;
pub mod backup;
mod canary;
mod compaction;
mod desk;
mod digest;
mod draft;
mod envelope;
mod error;
mod footer;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod id;
mod index;
mod inspect;
mod layout;
mod lineage;
mod moving;
mod options;
mod parameters;
mod pending;
mod read_ahead;
mod reading;
mod record;
mod recovery;
mod restore;
mod sealing;
mod segments;
mod snapshot;
mod space;
mod spool;
pub mod storage;
mod verify;
mod writer;

pub use ancestry::{Ancestry, GAPS_MAX, LINEAGES_MAX, Origin, Standing};
pub use compaction::Compacted;
pub use desk::Stats;
pub use draft::Draft;
pub use envelope::{Body, Envelope, Recipient, RecipientState, RecipientStatus};
pub use error::{AppendError, CommitError, Fault, OpenError, ReadError};
pub use id::{NotAQueueId, QueueId, SPOOLS_MAX, SpoolNumber};
pub use index::{Counts, Facts, RecipientFacts};
pub use inspect::{Inspection, inspect};
pub use lineage::Lineage;
pub use moving::{Move, Moved};
pub use options::{Options, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
pub use parameters::{ByMode, DeliverBy, MailParameters, Notify, RcptParameters, Ret, Schedule};
pub use reading::{Message, Reason};
pub use record::{ContentFlags, OUTCOME_TEXT_MAX, Outcome, OutcomeKind};
pub use recovery::{Cut, DAMAGES_MAX, Damage, DamageKind, Recovery};
pub use restore::{Brought, Incoming, Look, Restore, Restored, Source};
pub use snapshot::{Condition, Needed, NeededSegment, Snapshot};
pub use space::Reservation;
pub use spool::{Spool, Stored, Summary};
pub use storage::{FaultyStorage, GlommioStorage, MemoryStorage, ReaderStorage, SegmentFile, Storage};
pub use verify::{Finding, Flaw, Means, Verified, verify};

#[cfg(test)]
mod tests;
