//! When a message is tried, and tried again.
//!
//! Pure in here: [`retry`].

pub mod retry;
