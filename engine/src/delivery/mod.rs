//! The sending side: what is said to a next hop, and what comes of it.
//!
//! Pure in here: [`client`] (the SMTP client session), [`failure`] (the failure policy), and what
//! they are made of. Connections, pools and the streaming of content belong to the asynchronous rim
//! on the delivery shards.
//!
//! ```text
//!   bytes ──▶ reply_reader ──▶ client ──▶ Fate per recipient ──▶ failure (the table) ──▶ Verdict
//!                                │                                                        │
//!                     bytes ◀────┘                                     log, spool, dsn ◀──┘
//! ```

mod answers;
pub mod backoff;
pub mod balance;
mod broken_tls;
pub mod client;
mod connect;
mod connection;
mod cut_through;
mod demands;
mod down;
pub mod extensions;
pub mod failure;
mod guest;
mod hands;
mod heed;
mod hop;
mod idle;
pub mod limits;
pub mod lookup;
mod memory;
mod message;
mod observed;
mod opening;
mod own;
mod pace;
pub mod parameters;
mod places;
mod ready;
pub mod reply;
pub mod reply_reader;
mod serve;
mod settle;
pub mod shard;
#[cfg(test)]
mod simulation;
mod site;
mod sorting;
mod steer;
mod table;
mod transaction;
mod transport;
pub mod verdict;
mod warm_up;
pub mod warm_up_keeper;
mod worker;
