//! `sluice check`: reads a configuration, says what is wrong with it, prints the mail-flow matrix.

use super::{CONFIGURATION, Failed};
use crate::config::Config;
use crate::policy;
use std::path::Path;

/// Prints the matrix of a good configuration.
pub fn check(path: &Path) -> Result<(), Failed> {
    let config = load(path)?;
    println!("{}: good\n\nWho may send where (S12):\n", path.display());
    print!("{}", policy::matrix(&config));
    Ok(())
}

/// A configuration, or all that is wrong with it and exit code 78.
pub fn load(path: &Path) -> Result<Config, Failed> {
    Config::load(path).map_err(|error| Failed::new(CONFIGURATION, error))
}
