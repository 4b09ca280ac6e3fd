//! Telling another program when so many messages have come, so that it need not end the sink to learn it.
//!
//! A thread of its own reads a number, looks at the counters until they have reached it, and prints the time of the
//! newest message; then the next number.

use super::Everywhere;
use anyhow::{Context as _, Result};
use clap::ValueEnum;
use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);

/// What the numbers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    Messages,
    Recipients,
}

/// Starts the thread, which ends with standard input or with the process.
pub(super) fn start(what: What, everywhere: Arc<Everywhere>) -> Result<()> {
    let announce = move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(Ok(number)) = line.map(|line| line.trim().parse::<u64>()) else { return };
            let counter = match what {
                What::Messages => &everywhere.messages,
                What::Recipients => &everywhere.recipients,
            };
            while counter.load(Ordering::Acquire) < number {
                std::thread::sleep(LOOK);
            }
            let mut out = std::io::stdout().lock();
            let last = everywhere.last.load(Ordering::Relaxed);
            if writeln!(out, "{last}").and_then(|()| out.flush()).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("announce".into()).spawn(announce).context("cannot start a thread")?;
    Ok(())
}
