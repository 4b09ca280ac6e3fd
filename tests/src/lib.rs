//! The harness of the end-to-end tests: every real and every pretended party of a mail flow.
//!
//! ```text
//!  Client, smtplib, swaks, SmtpSource ─▶ Relay ─▶ Inbox, SmtpSink, Postfix
//!                                          │
//!                                         Dns
//! ```
//!
//! Whatever a party needs (directory, ports, processes, threads) belongs to the value that stands for it
//! and goes with it: tests run side by side and leave nothing behind. Nothing here sleeps where an event
//! can be awaited, and every wait is bounded.

pub mod client;
pub mod dns;
pub mod dsn;
pub mod https;
pub mod inbox;
pub mod interop;
pub mod ledger;
pub mod log;
pub mod maildir;
pub mod message;
pub mod opensmtpd;
pub mod port;
pub mod postfix;
pub mod process;
pub mod relay;
pub mod seccomp;
pub mod small_fs;
pub mod tls;
pub mod tools;
pub mod volatile_disk;
pub mod wait;

pub use client::{Client, Reply};
pub use dns::Dns;
pub use dsn::Dsn;
pub use https::Https;
pub use inbox::{Answer, Inbox, Step, Transaction, offer_chunking};
pub use ledger::Ledger;
pub use maildir::Maildir;
pub use opensmtpd::OpenSmtpd;
pub use port::Port;
pub use postfix::Postfix;
pub use relay::{Relay, RelayBuilder};
pub use small_fs::SmallFs;
pub use tools::{SmtpSink, SmtpSource};
pub use volatile_disk::VolatileDisk;

use std::sync::{Mutex, MutexGuard};

static HEAVY: Mutex<()> = Mutex::new(());

/// Held by a test that needs the machine for itself: two of them never run at once in one test binary.
pub fn heavy() -> MutexGuard<'static, ()> {
    HEAVY.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Says loudly that a test could not do its work; the test command counts these lines as skipped.
pub fn skipped(reason: &str) {
    println!("SKIPPED: {reason}");
}

/// Whether this process may do what only root may (start Postfix, change user, lower a hard limit).
pub fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:\t0\t0\t")))
}

/// True when the test must stop because `program` is missing, said loudly.
///
/// As root a missing program is a failure: the test command has just installed it.
pub fn lacks(program: &str) -> bool {
    if tools::find(program).is_some() {
        return false;
    }
    assert!(!is_root(), "{program} is missing; the test command installs it, run tests/run");
    skipped(&format!("{program} is not installed"));
    true
}
