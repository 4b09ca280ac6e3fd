//! A password from the terminal without echo, or from standard input when that is no terminal.

use crate::program::{DATA_ERROR, Failed, USAGE};
use crate::smtp::sasl::PASSWORD_OCTETS_MAX;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::io::{BufRead, IsTerminal, Read, Write};
use zeroize::Zeroizing;

/// Asks twice at a terminal.
pub(super) fn new_password(login: &str) -> Result<Zeroizing<String>, Failed> {
    let first = line(&format!("New password for {login}: "))?;
    if std::io::stdin().is_terminal() && *line("The same again: ")? != *first {
        return Err(Failed::new(DATA_ERROR, "the two passwords differ; nothing was changed"));
    }
    Ok(first)
}

pub(super) fn password(login: &str) -> Result<Zeroizing<String>, Failed> {
    line(&format!("Password of {login}: "))
}

/// Puts the terminal back as it was, also when something fails.
struct Quiet(rustix::termios::Termios);

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
        eprintln!();
    }
}

fn line(prompt: &str) -> Result<Zeroizing<String>, Failed> {
    let stdin = std::io::stdin();
    let _quiet = if stdin.is_terminal() {
        let failed = |error: rustix::io::Errno| Failed::io("the terminal", &error.into());
        let before = tcgetattr(&stdin).map_err(failed)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &quiet).map_err(failed)?;
        eprint!("{prompt}");
        let _ = std::io::stderr().flush();
        Some(Quiet(before))
    } else {
        None
    };
    let mut text = Zeroizing::new(String::new());
    let read = stdin.lock().take(PASSWORD_OCTETS_MAX as u64 + 2).read_line(&mut text);
    read.map_err(|error| Failed::io("the password on standard input", &error))?;
    let password = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
    if password.is_empty() {
        return Err(Failed::new(USAGE, "no password on standard input; nothing was changed"));
    }
    Ok(password)
}
