//! The relay. A message takes this way, and so does the list of modules below:
//!
//! ```text
//!              ingest shard                                    delivery shard
//!  ┌──────────────────────────────────────┐        ┌──────────────────────────────────────┐
//!  │ listener → session → policy → intake ├──────▶ │ schedule → resolve → delivery → peer │
//!  │                               spool  │ ◀──────┤                           outcomes   │
//!  └──────────────────────────────────────┘        └──────────────────────────────────────┘
//!                 service thread: resolvers, logins, admin interface, signals
//! ```
//!
//! Pure, that is free of clocks, I/O and async: `smtp`, `session`, `policy`, `schedule`,
//! `delivery::{client, failure, verdict}`, `dsn`, `rewrite`, `resolve::mx`, `steering`. The rim around them: `listener`,
//! `intake`, the rest of `delivery`, `resolve::service`, `shard`, `service`, `admin`.

pub mod config;
pub mod cut_through;

pub mod smtp;
pub mod tls;

pub mod intake;
pub mod listener;
pub mod policy;
pub mod recipients;
pub mod session;

pub mod delivery;
pub mod dsn;
pub mod mta_sts;
pub mod resolve;
pub mod restore;
pub mod rewrite;
pub mod schedule;
pub mod steering;
pub mod tls_report;

pub mod channel;
pub mod clock;
pub mod https;
pub mod load;
pub mod shard;
pub mod space;
pub mod trace;

pub mod admin;
pub mod auth;
pub mod observe;
pub mod service;

pub mod demonstration;
pub mod program;

#[cfg(any(test, fuzzing))]
pub mod fuzz;
