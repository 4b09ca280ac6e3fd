//! The commands of the program, and how each ends: exit codes are those of sysexits.h.

pub mod backup;
pub mod check;
pub mod dsn_template;
pub mod explain;
pub mod queue;
pub mod restore;
pub mod run;
pub mod trace;
pub mod tune;
pub mod user;
pub mod verify;

use std::fmt;
use std::io::Write;

/// A question whose answer is no, as of grep and diff.
pub const NO: u8 = 1;
/// sysexits.h
pub const UNAVAILABLE: u8 = 69;
pub const SOFTWARE: u8 = 70;
pub const OS_ERROR: u8 = 71;
pub const IO_ERROR: u8 = 74;
pub const NO_PERMISSION: u8 = 77;
pub const CONFIGURATION: u8 = 78;
/// The thing asked for is not there (EX_NOINPUT).
pub const NO_INPUT: u8 = 66;
pub const USAGE: u8 = 64;
/// The input is not as it should be (EX_DATAERR).
pub const DATA_ERROR: u8 = 65;
/// It may work later (EX_TEMPFAIL).
pub const TEMPORARY: u8 = 75;

/// The end of a command that could not do what it was asked: one sentence and an exit code.
#[derive(Debug)]
pub struct Failed {
    pub code: u8,
    pub sentence: String,
}

impl Failed {
    pub fn new(code: u8, sentence: impl fmt::Display) -> Self {
        Self { code, sentence: sentence.to_string() }
    }

    /// An I/O error at a place that the sentence names; missing permission has its own code.
    pub fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        let code = match error.kind() {
            std::io::ErrorKind::PermissionDenied => NO_PERMISSION,
            _ => IO_ERROR,
        };
        Self::new(code, format_args!("{what}: {error}"))
    }
}

/// Writes to standard output. That nobody reads it any more (`… | head`) is no failure.
pub fn print(text: &str) -> Result<(), Failed> {
    std::io::stdout().write_all(text.as_bytes()).or_else(closed_pipe)
}

fn closed_pipe(error: std::io::Error) -> Result<(), Failed> {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(Failed::io("standard output", &error)),
    }
}
