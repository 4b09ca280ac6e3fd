//! `sluice check`: reads a configuration, says what is wrong with it, prints the mail-flow matrix.

use super::{CONFIGURATION, Failed, print};
use crate::config::Config;
use crate::policy;
use std::path::Path;

/// Prints the matrix of a good configuration.
pub fn check(path: &Path) -> Result<(), Failed> {
    let config = load(path)?;
    let text = format!(
        "{}: good\n{}\nWho may send where:\n\n{}",
        path.display(),
        warnings(&config),
        policy::matrix(&config)
    );
    print(&text)
}

/// What is allowed and seldom meant.
fn warnings(config: &Config) -> String {
    match config.admin.bind {
        Some(address) if !address.ip().is_loopback() => format!(
            "warning: admin.bind {address} is no loopback address, and the admin page asks nobody for a password\n"
        ),
        _ => String::new(),
    }
}

/// A configuration, or all that is wrong with it and exit code 78.
pub fn load(path: &Path) -> Result<Config, Failed> {
    Config::load(path).map_err(|error| Failed::new(CONFIGURATION, error))
}
