//! The relay. A message takes this way, and so does the list of modules below:
//!
//! ```text
//!            ingest shard (one per core)                     delivery shard (one per core)
//!  ┌────────────────────────────────────────────┐      ┌────────────────────────────────────┐
//!  │ listener → session → policy → intake/spool ├─────▶│ schedule → resolve → delivery → … │
//!  └────────────────────────────────────────────┘◀─────┴──────────── outcomes ──────────────┘
//!                         service thread: resolvers, admin, signals
//! ```
//!
//! Pure, that is free of clocks, I/O and async: `smtp`, `session`, `policy`, `delivery::client`,
//! `delivery::failure`, `schedule::retry`, `dsn`.

pub mod config;
pub mod delivery;
pub mod dsn;
pub mod policy;
pub mod resolve;
pub mod schedule;
pub mod session;
pub mod smtp;
