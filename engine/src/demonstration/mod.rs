//! `sluice` without a command: the relay on loopback addresses with a stand-in for the internal
//! server, so that a newcomer sees mail arrive in both directions within a minute.

mod maildir;
mod stand_in;

use crate::config::{Config, DEMONSTRATION_STAND_IN};
use crate::program::{Failed, UNAVAILABLE, print, run};
use std::path::Path;

/// Where the stand-in files what it gets: `DOMAIN/MAILBOX/` below it is a Maildir.
pub const DIRECTORY: &str = "sluice-demo";

/// Runs until SIGTERM or Ctrl-C.
pub fn run(config: Config) -> Result<(), Failed> {
    let listener = std::net::TcpListener::bind(DEMONSTRATION_STAND_IN).map_err(|error| {
        Failed::new(
            UNAVAILABLE,
            format_args!("the stand-in for the internal server cannot bind {DEMONSTRATION_STAND_IN}: {error}; stop the program that has the port (ss -ltnp shows it)"),
        )
    })?;
    stand_in::start(listener, &config, Path::new(DIRECTORY))
        .map_err(|error| Failed::io("the stand-in for the internal server", &error))?;
    run::run(config, |config| print(&introduction(config)))
}

fn introduction(config: &Config) -> String {
    let bind = |index: usize| config.listeners[index].bind[0];
    let (outside, inside) = (bind(0), bind(1));
    let admin =
        config.admin.bind.map(|address| format!("\nAdmin page: http://{address}/\n")).unwrap_or_default();
    format!(
        "
Sluice is running on its demonstration configuration.

From the Internet to the organisation (paste into another terminal):

    printf 'Subject: hello inside\\n\\nHello.\\n' | curl -s smtp://{outside} --mail-from you@outside.test --mail-rcpt bob@inside.test --crlf -T -
    sleep 1; cat {DIRECTORY}/inside.test/bob/new/*

From the organisation to the Internet (here the stand-in takes it, too):

    printf 'Subject: hello world\\n\\nHello.\\n' | curl -s smtp://{inside} --mail-from bob@inside.test --mail-rcpt you@outside.test --crlf -T -
    sleep 1; cat {DIRECTORY}/outside.test/you/new/*

The queue: {program} queue list --spool {spool}
{admin}
Ctrl-C stops it.
",
        program = std::env::args().next().unwrap_or_else(|| "sluice".into()),
        spool = config.spool.path.display(),
    )
}
