//! What the relay tells of itself: log lines and counters.
//!
//! Shards never write to a file. A line goes into a buffer of its thread; the buffer goes to the log
//! thread when it is large enough or when the shard's ticker says so.

pub mod counters;
pub mod line;
pub mod log;
