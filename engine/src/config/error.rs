//! What is wrong with a configuration: every fault that could be found in one reading, each with its place.

use std::fmt;

/// A configuration that cannot be used. `Display` prints one line a fault:
/// `FILE:LINE: KEY: what is wrong; what is allowed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file's path, or another name of the text's origin.
    pub origin: String,
    /// In the order of the lines, never empty.
    pub faults: Vec<Fault>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From 1. 0: the fault has no line, as with a file that cannot be read.
    pub line: usize,
    /// `listener.relay`; empty where no key is at fault.
    pub key: String,
    /// What is wrong; what is allowed.
    pub sentence: String,
}

impl ConfigError {
    pub(super) fn one(origin: &str, key: &str, sentence: String) -> Self {
        Self { origin: origin.to_owned(), faults: vec![Fault { line: 0, key: key.to_owned(), sentence }] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let end_of_last = if index == 0 { "" } else { "\n" };
            write!(f, "{end_of_last}{}:", self.origin)?;
            if fault.line > 0 {
                write!(f, "{}:", fault.line)?;
            }
            if !fault.key.is_empty() {
                write!(f, " {}:", fault.key)?;
            }
            write!(f, " {}", fault.sentence)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
