//! `sluice trace`: shows the dialogues of sessions of the running relay as they go on.

use super::queue::unreachable_relay;
use super::{Failed, UNAVAILABLE, USAGE, closed_pipe};
use crate::admin::client::{self, Answered};
use crate::config;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// Prints until the relay ends the trace or standard output is closed. `within`: a duration such as `60s`.
pub fn trace(spool: &Path, asked: &str, listener: Option<&str>, within: Option<&str>) -> Result<(), Failed> {
    const LONGEST: Duration = Duration::from_secs(7 * 86_400);
    let wrong = |option: &str, wrong: String| Failed::new(USAGE, format_args!("{option} {wrong}"));
    let network = config::network(asked).map_err(|sentence| wrong("--client", sentence))?;
    let seconds = within.map(|text| config::duration(text, &(Duration::from_secs(1)..=LONGEST)));
    let seconds = seconds.transpose().map_err(|sentence| wrong("--for", sentence))?;
    let mut path = format!("/v1/trace?client={}", client::escaped(&network.to_string()));
    if let Some(name) = listener {
        path.push_str(&format!("&listener={}", client::escaped(name)));
    }
    if let Some(time) = seconds {
        path.push_str(&format!("&seconds={}", time.as_secs()));
    }
    let mut out = io::stdout().lock();
    let mut printed = Ok(());
    let answered = client::follow(spool, &path, |piece| {
        printed = out.write_all(piece).and_then(|()| out.flush());
        printed.is_ok()
    });
    printed.or_else(closed_pipe)?;
    match answered.map_err(|error| unreachable_relay(spool, &error))? {
        Answered::Found(_) => Ok(()),
        Answered::NotFound => Err(Failed::new(UNAVAILABLE, "the relay does not know /v1/trace")),
        Answered::Refused(_, words) => Err(Failed::new(UNAVAILABLE, words)),
        Answered::NotRunning => Err(Failed::new(
            UNAVAILABLE,
            format_args!("no relay is running on the spool {}", spool.display()),
        )),
    }
}
