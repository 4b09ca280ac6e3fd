//! `sluice queue backup DIR`: through the relay when one runs on the spool, else by this process itself,
//! which then holds the spool as a relay would.

use super::queue::{inspect_all, parse, unreachable_relay};
use super::run::lock_spool;
use super::{Failed, IO_ERROR, NO_INPUT, NO_PERMISSION, SOFTWARE, UNAVAILABLE, closed_pipe};
use crate::admin::backup::{Report, request};
use crate::admin::client::{self, Answered};
use crate::clock;
use hyper::StatusCode;
use sluice_queue::backup::{BackupError, Destination, Origin};
use std::io::{self, Write};
use std::path::Path;

/// Copies the queue of `spool` and prints what was done.
pub fn backup(spool: &Path, directory: &Path, json: bool) -> Result<(), Failed> {
    // The relay has another working directory.
    let directory = std::path::absolute(directory)
        .map_err(|error| Failed::io(format_args!("the directory {}", directory.display()), &error))?;
    let (path, asked) = request(&directory);
    let report = match client::post(spool, path, asked) {
        Ok(Answered::Found(body)) => parse::<Report>(&body)?,
        Ok(Answered::NotRunning) => stopped(spool, &directory)?,
        Ok(Answered::NotFound) => {
            return Err(Failed::new(SOFTWARE, "the relay that runs is of a version that knows no backup"));
        }
        Ok(Answered::Refused(StatusCode::FORBIDDEN, words)) => {
            let hint = "the relay's process writes the backup, so the directory must be its user's";
            return Err(Failed::new(NO_PERMISSION, format_args!("{words}; {hint}")));
        }
        Ok(Answered::Refused(StatusCode::SERVICE_UNAVAILABLE, words)) => {
            return Err(Failed::new(UNAVAILABLE, words));
        }
        Ok(Answered::Refused(_, words)) => return Err(Failed::new(IO_ERROR, words)),
        Err(error) => return Err(unreachable_relay(spool, &error)),
    };
    print(&report, json).or_else(closed_pipe)?;
    match report.unreadable_bytes {
        0 => Ok(()),
        n => Err(Failed::new(
            IO_ERROR,
            format_args!("{n} bytes of the spool could not be read; the copy has everything else"),
        )),
    }
}

/// Without a relay.
fn stopped(spool: &Path, directory: &Path) -> Result<Report, Failed> {
    let began_micros = clock::wall_micros();
    if !spool.join("lock").exists() {
        return Err(Failed::new(NO_INPUT, format_args!("{} is no spool: it holds no lock", spool.display())));
    }
    let _lock = lock_spool(spool)?;
    let failed = |error: BackupError| Failed::new(IO_ERROR, error);
    let mut destination = Destination::open(directory, spool).map_err(failed)?;
    let at = clock::wall_micros();
    let needed: Vec<_> = inspect_all(spool)?.iter().map(|(_, of)| of.needed(at)).collect();
    let origin = Origin {
        product: env!("CARGO_PKG_VERSION").into(),
        host: sluice_tuning::hostname().unwrap_or_default(),
        began_micros,
    };
    let written = destination.write(spool, &needed, &origin, &clock::wall_micros, &|_| true);
    Ok(Report::new(directory.to_owned(), false, &written.map_err(failed)?))
}

fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, report)?;
        return writeln!(out);
    }
    writeln!(out, "{}: {}", report.directory.display(), report.sentence())?;
    for of in &report.spools {
        let at = clock::mail_date(of.at_micros);
        writeln!(out, "  spool {:04} as of {at}: {} messages", of.spool, of.messages)?;
    }
    Ok(())
}
