//! What the fuzz targets check: one function each, from octets to nothing, which panics when something is wrong.
//!
//! Built only for tests and with `--cfg fuzzing`. Here and not beside the targets (`tests/fuzz`), because they
//! reach into modules that nobody else sees; so the ordinary tests replay the same corpus (`tests`).
//! A check is a difference: the same input whole and in pieces, a reader and its slow twin, a value and what
//! its own text says when it is read again. What holds for every input of a kind is asserted as well.

pub mod command;
pub mod config;
pub mod content;
pub mod original;
pub mod path;
pub mod peer;
pub mod proxy;
pub mod reply_reader;
pub mod sasl;
pub mod session;

mod cuts;
#[cfg(test)]
mod tests;
